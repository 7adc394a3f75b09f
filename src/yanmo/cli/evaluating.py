"""``yanmo evaluate``: bits per character, or instead what a log, or the samples, show."""

import json
from pathlib import Path
from typing import Annotated

import typer

from yanmo.cli.options import Device, Json, Verify, refuse_beside


def evaluate(
    run: Annotated[
        Path | None,
        typer.Argument(help="Run, checkpoint or model folder. [default: the newest run]"),
    ] = None,
    corpus: Annotated[
        list[str] | None,
        typer.Option(help="A text to measure on (repeat for more). [default: the run's held-out text]"),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens from one window to the next; fewer give each token more context. [default: half]",
        ),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(
            min=0, max=0.99, help="Measure also with a memory of the text so far, of this share; 0.3 is good."
        ),
    ] = None,
    detail: Annotated[
        bool, typer.Option("--detail", help="Also by document, and by place in the window.")
    ] = False,
    health: Annotated[
        bool,
        typer.Option(
            "--health",
            help="Instead, say what the log of RUN shows to be wrong; RUN may also be a metrics.jsonl.",
        ),
    ] = False,
    copies: Annotated[
        bool,
        typer.Option(
            "--copies",
            help="Measure instead what the model copies: its samples and its memory of the training text,"
            " beside held-out text.",
        ),
    ] = False,
    writing: Annotated[
        bool,
        typer.Option(
            "--writing",
            help="Measure instead how its samples are written (variety, loops, quotes, rare characters),"
            " beside held-out text.",
        ),
    ] = False,
    samples: Annotated[
        int, typer.Option(min=1, max=10_000, help="Samples that --copies and --writing write.")
    ] = 20,
    device: Device = None,
    verify: Verify = True,
    as_json: Json = False,
) -> None:
    """Measure a model: loss, perplexity and bits per character, with the n-gram baselines."""
    if health:
        beside = {"--detail": detail or None, "--copies": copies or None, "--writing": writing or None}
        refuse_beside("--health", {"--corpus": corpus, "--stride": stride, "--memory": memory, **beside})
        from yanmo.eval.log import check_log, find_log

        checked = check_log(find_log(run))
        print(json.dumps(checked.as_json(), ensure_ascii=False) if as_json else "\n".join(checked.lines()))
        return
    from yanmo.core.console import Console

    if copies or writing:
        from yanmo.eval.examine import examine

        refuse_beside(
            "--copies" if copies else "--writing",
            {"--corpus": corpus, "--stride": stride, "--memory": memory, "--detail": detail or None},
        )
        seen = examine(run, Console(), copies, writing, samples, device, verify)
        print(json.dumps(seen.as_json(), ensure_ascii=False) if as_json else "\n".join(seen.lines()))
        return
    from yanmo.eval.assess import assess

    found = assess(run, tuple(corpus or ()), stride, Console(), device, verify, memory, detail)
    print(json.dumps(found.as_json(), ensure_ascii=False) if as_json else "\n".join(found.lines()))

"""``yanmo inspect`` and ``yanmo clean``: what a corpus is, and what it becomes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from yanmo.errors import ConfigError

if TYPE_CHECKING:
    from yanmo.config import Cleaning
    from yanmo.text.clean.run import Result

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Arguments = Annotated[
    list[str],
    typer.Argument(
        metavar="CORPUS… [clean.key=value…]",
        help="Files, folders, globs, or - for standard input; then settings of [corpus], [clean] and [dedup],"
        " such as clean.script=simplified.",
        show_default=False,
    ),
]
Processes = Annotated[
    int | None, typer.Option(min=1, help="Processes that clean. [default: one for each core]")
]
COLOURS = {"same": "", "out": "red strike", "in": "green"}


def clean(
    arguments: Arguments,
    out: Annotated[Path | None, typer.Option(help="The .jsonl to write. [default: NAME.clean.jsonl]")] = None,
    dedup: Annotated[
        bool, typer.Option("--dedup", help="Drop copies and near copies, take out repeated paragraphs.")
    ] = False,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Of the corpora in the mix, such as 3,1,1; nothing is thrown away, some is read again."
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show every change as a diff, and write nothing.")
    ] = False,
    nproc: Processes = None,
    as_json: Json = False,
) -> None:
    """Clean corpora: one .jsonl and a manifest that says where every document went."""
    from yanmo.log import Voice
    from yanmo.text.clean.run import manifest_path, run

    config = _cleaning(arguments)
    if explain:
        show_changes(config)
        return
    target = out or Path(f"{Path(config.corpus.path[0]).stem or 'corpus'}.clean.jsonl")
    _check_out(target, config.corpus.path)
    shares = _weights(weights, len(config.corpus.path))
    result = run(config, target, Voice(), shares, dedup, nproc)
    if as_json:
        print(json.dumps(result.as_json(), ensure_ascii=False))
        return
    print("\n".join(lines(result)))
    print(f"manifest   {manifest_path(target)}")
    print(f"Next:\n  yanmo inspect {target}\n  yanmo train {target}")


def lines(result: "Result") -> list[str]:
    """A result for people."""
    read = result.counts.documents_read
    found = [
        f"{result.out}",
        f"read       {read:,} documents of {result.counts.files:,} files",
        f"kept       {amount(result.documents, result.characters)}, {result.bytes:,} bytes",
    ]
    for reason, number in (result.dropped + result.counts.documents_dropped).most_common():
        found.append(f"dropped    {number:,} documents: {reason}")
    for rule, number in result.changed.most_common():
        removed = result.removed[rule]
        what = f"{removed:,} characters fewer" if removed >= 0 else f"{-removed:,} characters more"
        found.append(f"changed    {number:,} documents: {rule}, {what}")
    for source in result.sources if len(result.sources) > 1 else []:
        mixed = f", in the mix {source.characters_in_the_mix:,}" if result.weights else ""
        found.append(f"source     {source.path}: {amount(source.documents, source.characters)}{mixed}")
    unknown = sum(source.licences["not known"] for source in result.sources)
    if unknown:
        found.append(f"licence    of {unknown:,} documents not known")
    return found


def amount(documents: int, characters: int) -> str:
    """So much text, in words."""
    return f"{documents:,} documents, {characters:,} characters"


def show_changes(config: "Cleaning") -> None:
    """Print every change: what goes in red, what comes in green; with marks where there is no terminal."""
    from rich.console import Console
    from rich.text import Text

    from yanmo.text.clean.explain import Change, explain

    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    number = 0

    def text_of(change: Change) -> Iterator[Text]:
        yield Text(f"{change.document}:{change.line}  {change.rule}", style="bold")
        if not change.parts:
            return
        line = Text("  ")
        for kind, part in change.parts:
            part = part.replace("\n", "⏎\n  ")
            marked = (
                part
                if kind == "same" or console.is_terminal
                else {"out": f"[-{part}-]", "in": f"{{+{part}+}}"}[kind]
            )
            line.append(marked, style=COLOURS[kind])
        yield line

    for change in explain(config):
        number += 1
        for line in text_of(change):
            console.print(line)
    console.print(f"{number:,} changes; nothing was written")


def _cleaning(arguments: list[str]) -> "Cleaning":
    from yanmo.config import load_cleaning, split_arguments

    paths, settings = split_arguments(arguments)
    if not paths:
        raise ConfigError("no corpus is named", "yanmo clean", "name files, folders or globs")
    return load_cleaning(settings, paths)


def _check_out(out: Path, paths: tuple[str, ...]) -> None:
    if out.suffix != ".jsonl":
        raise ConfigError(f"{out} is no .jsonl", "--out", f"--out {out.with_suffix('.jsonl')}")
    if any(Path(path).exists() and out.exists() and out.samefile(path) for path in paths):
        raise ConfigError("a corpus would be replaced by itself", f"--out {out}", "choose another name")


def _weights(text: str | None, sources: int) -> list[float]:
    if text is None:
        return []
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"{text} are no numbers", "--weights", "write them as 3,1,1") from error
    if len(found) != sources or not all(0 < weight < float("inf") for weight in found):
        raise ConfigError(
            f"{text}: {len(found)} weights for {sources} corpora", "--weights", "one above 0 for each corpus"
        )
    return found

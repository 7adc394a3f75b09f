"""``yanmo report`` and ``yanmo plot``: what runs were, as a page and as a picture."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from yanmo.cli.options import Force
from yanmo.core.errors import ConfigError

Runs = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[RUN]…", help="Run folders. [default: the newest run]", show_default=False),
]


def report(
    runs: Runs = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The page. [default: report.html in the run folder; of several, needed]"),
    ] = None,
    force: Force = False,
) -> None:
    """Write what a run was as a web page, report.html: is it good, is it copied, what next. Several runs are
    compared."""
    from yanmo.report.comparison import comparison
    from yanmo.report.page import page, write_report
    from yanmo.report.record import find_run, read_run

    folders = [find_run(run) for run in runs] if runs else [find_run(None)]
    if len(folders) == 1 and out is None:
        print(write_report(folders[0], force))
        return
    if out is None:
        raise ConfigError(
            "a page of several runs needs a name", "yanmo report", "name it: --out comparison.html"
        )
    records = [read_run(folder) for folder in folders]
    write_page(out, page(records[0]) if len(records) == 1 else comparison(records), force)
    print(out)


def plot(
    runs: Runs = None,
    out: Annotated[Path, typer.Option(help="The picture: .png, .svg or .pdf.")] = Path("curve.png"),
    language: Annotated[
        Literal["zh", "en"] | None,
        typer.Option(help="The language of its words. [default: zh where a Chinese font is found]"),
    ] = None,
    force: Force = False,
) -> None:
    """Draw the curves of runs for a paper: training and held-out text, with the baselines (extra `plot`)."""
    from yanmo.core.console import Console
    from yanmo.core.outputs import require_file
    from yanmo.report import plot as pictures
    from yanmo.report.record import find_run, read_run

    folders = [find_run(run) for run in runs] if runs else [find_run(None)]
    require_file(out, "--out", (), pictures.is_plot, force)
    in_chinese = None if language is None else language == "zh"
    if not pictures.plot([read_run(folder) for folder in folders], out, in_chinese):
        Console().print("no Chinese font was found, such as Noto Sans CJK SC: Chinese names are boxes")
    print(out)


def write_page(out: Path, page: str, force: bool) -> None:
    """Write a page, never over a file of others."""
    from yanmo.core.outputs import is_marked, require_file
    from yanmo.core.storage import write_atomic

    require_file(out, "--out", (), is_marked, force)
    write_atomic(out, page)

"""Several runs beside each other as one page: their curves, their figures, and what differs in their recipes.

In: run folders. Out: HTML, by the template ``run_comparison.html`` of ``core/templates``.
"""

from collections.abc import Sequence
from typing import Any

from yanmo.core.console import span
from yanmo.core.templates import render
from yanmo.report.chart import Curve, draw
from yanmo.report.chinese import CHINESE
from yanmo.report.figures import Figures, figures_of
from yanmo.report.origin import PRIVATE, shown_value
from yanmo.report.page import levels
from yanmo.report.record import RunRecord
from yanmo.report.words import Said
from yanmo.settings.recipe import get, settings

COLOURS = 8
"""Of lines; more runs begin again with the first."""


def comparison(records: Sequence[RunRecord]) -> str:
    """The page of some runs."""
    names = names_of(records)
    lines = [
        Curve(name, f"c{n % COLOURS}", record.held_out)
        for n, (name, record) in enumerate(zip(names, records, strict=True))
    ]
    return render(
        "run_comparison.html",
        title="研墨 · " + ", ".join(names),
        chinese={word: chinese for word, chinese in CHINESE.items() if word not in names},
        names=names,
        curve=draw(lines, shared_levels(records)),
        remark=comparable(records),
        rows=[row_of(name, record) for name, record in zip(names, records, strict=True)],
        differing=differing(records),
    )


def names_of(records: Sequence[RunRecord]) -> list[str]:
    """What runs are called, with a number where two have the same name."""
    names = [record.name for record in records]
    return [
        f"{name} ({names[: n + 1].count(name)})" if names.count(name) > 1 else name
        for n, name in enumerate(names)
    ]


def shared_levels(records: Sequence[RunRecord]) -> dict[str, float]:
    """The baselines of runs, if they are the same."""
    found = [levels(record) for record in records]
    return found[0] if all(others == found[0] for others in found) else {}


def comparable(records: Sequence[RunRecord]) -> Said | None:
    """What stands against comparing their bits per character; None where nothing does."""
    texts = {(record.corpus.corpus, record.corpus.splits.val.characters) for record in records}
    if len(texts) > 1:
        return Said(
            "The runs hold out different texts: their bits per character cannot be compared.",
            "各次训练留出的文本不同：每字比特数不能互相比较。",
        )
    if any(row.get("lossy") for record in records for row in record.named("start")):
        return Said(
            "A vocabulary loses characters: its bits per character cannot be compared with others.",
            "有的词表会丢字：它的每字比特数不能与别的比较。",
        )
    return None


def row_of(name: str, record: RunRecord) -> list[Any]:
    """The figures of a run, as the table's heads name them."""
    found: Figures = figures_of(record)
    return [
        name,
        found.state,
        found.parameters,
        found.step,
        f"{found.passes:.2f}" if found.passes else "",
        span(found.seconds) if found.seconds else "",
        f"{found.tokens_per_s:,.0f}" if found.tokens_per_s else "",
        f"{found.best[1]:.3f}" if found.best else "",
        f"{found.best[0]:,.0f}" if found.best else "",
    ]


def differing(records: Sequence[RunRecord]) -> list[list[str]]:
    """Each setting that is not the same in all runs, with its values."""
    found = []
    for name, _ in settings():
        if name not in PRIVATE and len({repr(get(record.recipe, name)) for record in records}) > 1:
            values = [shown_value(record.recipe, name) for record in records]
            if len({*values}) > 1:  # of paths only the names count
                found.append([name, *values])
    return found

"""A run as one page of HTML that needs nothing else: report.html.

In: a run folder. Out: the page, by the template ``run_report.html`` of ``core/templates``. It holds no path
of the machine: of files it says the names, of settings none that is a text.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yanmo.core.console import span
from yanmo.core.outputs import is_marked, require_file
from yanmo.core.storage import write_atomic
from yanmo.core.templates import render
from yanmo.report.chart import Curve, draw
from yanmo.report.chinese import CHINESE
from yanmo.report.figures import Figures, figures_of
from yanmo.report.measured import as_figure, as_share, copied, longest_copy, writing
from yanmo.report.origin import again, asked_settings, decided_settings, held_out_how, text_rows
from yanmo.report.record import RunRecord, read_run
from yanmo.report.words import (
    Said,
    copies_command,
    file_name,
    in_chinese,
    is_it_copied,
    is_it_good,
    next_commands,
    what_it_is,
    what_next,
)

REPORT = "report.html"
MAX_ROWS = 60
"""Of a table of evaluations."""


def write_report(run: Path, force: bool = False) -> Path:
    """Write the report of a run into its folder; returns where.

    Raises:
        YanmoError: a record of the run is damaged, another file has the name, or the disk refuses.
    """
    out = run / REPORT
    require_file(out, "report", (), is_marked, force)
    write_atomic(out, page(read_run(run)))
    return out


def page(record: RunRecord) -> str:
    """The report of a run."""
    found = figures_of(record)
    return render(
        "run_report.html",
        title=f"研墨 · {record.name}",
        chinese=CHINESE,
        what=list(what_it_is(record, found)),
        good=list(is_it_good(record, found)),
        copied=list(is_it_copied(record)),
        copies=[(row.name, as_share(row.samples), as_share(row.held_out)) for row in copied(record)],
        copies_command=copies_command(record),
        longest=longest_copy(record),
        writing=[
            (row.name.replace("_", " "), as_figure(row.samples), as_figure(row.held_out))
            for row in writing(record)
        ],
        next=what_next(record, found),
        commands_next=next_commands(record, found),
        curve=draw(curves(record), levels(record), record.passes_per_step),
        evaluations=evaluations(record),
        health=health(record),
        # earlier versions wrote them as rows of health
        overflows=len(record.named("overflow")) + sum("overflow" in row for row in record.named("health")),
        samples=record.samples,
        speed=draw(
            [Curve("tokens per second by step", "speed", record.points("train", "tokens_per_s"))], {"": 0}
        ),
        time=list(where_time_went(record, found)),
        asked=asked_settings(record.recipe),
        decided=decided_settings(record.recipe),
        files=", ".join(map(file_name, record.recipe.corpus.path)),
        text=list(text_rows(record)),
        held_out=held_out_how(record),
        again=again(record),
    )


def curves(record: RunRecord) -> list[Curve]:
    """Training and held-out text over steps."""
    return [
        Curve("training text", "training", record.training, is_main=False),
        Curve("the weights before averaging", "live", record.live),
        Curve("texts of data.held_out", "unseen", record.unseen),
        Curve("held-out text", "held-out", record.held_out),
    ]


def levels(record: RunRecord) -> dict[str, float]:
    """The baselines that are shown; uniform is far above all others, and a model leaves it at once."""
    if record.lines is None:
        return {}
    shown = {"unigram": record.lines.unigram, "bigram": record.lines.bigram, "floor": record.lines.floor}
    return {name: value for name, value in shown.items() if value is not None}


def evaluations(record: RunRecord) -> list[list[Any]]:
    """Heads, and a row for each evaluation, of what was measured there."""
    columns = {
        "held-out text": dict(record.held_out),
        "the weights before averaging": dict(record.live),
        "texts of data.held_out": dict(record.unseen),
        "perplexity": dict(record.points("eval", "val_perplexity")),
        "text of the base": dict(record.points("eval", "base_bits_per_char")),
        "pairs preferred": dict(record.points("eval", "reward_accuracy")),
    }
    shown = {name: values for name, values in columns.items() if values}
    steps = [step for step, _ in record.held_out][-MAX_ROWS:]
    rows = [
        [int(step), *(f"{values[step]:.3f}" if step in values else "" for values in shown.values())]
        for step in steps
    ]
    return [["step", *shown], *rows] if rows else []


def health(record: RunRecord) -> list[dict[str, str]]:
    """What the rules of health said, in order."""
    return [
        {key: str(row.get(key, "")) for key in ("name", "step", "sentence", "hint")}
        for row in record.named("health")
        if row.get("name")
    ]


def where_time_went(record: RunRecord, found: Figures) -> Iterator[Said]:
    """Speed, what was not steps, what was slow, and what happened on the way."""
    if found.tokens_per_s is not None:
        yield Said(
            f"{found.tokens_per_s:,.0f} tokens per second (median).",
            f"每秒 {found.tokens_per_s:,.0f} 词元（中位数）。",
        )
    if found.stepping_s and found.seconds:
        share = min(found.stepping_s / found.seconds, 1.0)
        yield Said(
            f"{share:.0%} of {span(found.seconds)} went into steps, the rest into evaluations and saving.",
            f"{in_chinese(found.seconds)} 里有 {share:.0%} 用在训练步上，其余用在评测和存盘。",
        )
    for first, last in found.slow[:3]:
        yield Said(
            f"Less than half as fast from step {first:,} to {last:,}.",
            f"第 {first:,} 到 {last:,} 步的速度不到一半。",
        )
    for row in record.named("resume"):
        yield Said(f"Resumed at step {row.get('step')}.", f"在第 {row.get('step')} 步恢复。")
    if record.superseded:
        yield Said(
            f"{record.superseded:,} rows of steps that were done again are in metrics.superseded.jsonl.",
            f"重做过的步有 {record.superseded:,} 行，在 metrics.superseded.jsonl。",
        )
    for slow in record.plan.slowdowns:
        yield Said(
            f"{slow.reason}: taken back to step {slow.from_step:,}, and from there on with"
            f" {slow.rate_factor:g} of the rate.",
            f"{slow.reason}：退回第 {slow.from_step:,} 步，此后学习率乘以 {slow.rate_factor:g}。",
        )
    for row in record.named("memory"):
        yield Said(
            f"Memory ran out at step {row.get('step')}: the micro-batch was halved.",
            f"第 {row.get('step')} 步内存不够：micro-batch 减半。",
        )

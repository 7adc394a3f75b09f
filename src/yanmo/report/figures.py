"""The figures of a run: how far, how long, how good, how fast.

In: a :class:`~yanmo.report.record.RunRecord`. Out: :class:`Figures`.
"""

from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import Literal

from yanmo.eval.history import finite
from yanmo.model.config import GPTConfig
from yanmo.model.gpt import count_parameters
from yanmo.report.record import Point, RunRecord

LAST_ROWS = 10
"""Logged steps whose mean is the training loss at a step: one alone is noise."""
RISEN = 0.01
"""Share of its least value by which the held-out loss must rise before that is said: less is chance."""
SLOW = 0.5
"""Of the median speed: below it a stretch is said to be slow."""


@dataclass(frozen=True)
class Figures:
    """Numbers of a run; None where it did not come so far, or where its rows do not say."""

    state: Literal["finished", "unfinished", "diverged"]
    step: int
    planned: int
    seconds: float | None
    parameters: int
    passes: float | None
    best: Point | None
    """Step and bits per character of the evaluation whose weights are ``model``."""
    last: Point | None
    """The same of the last evaluation."""
    training: float | None
    """Bits per character of the training text about the best step."""
    tokens_per_s: float | None
    """The median."""
    stepping_s: float | None
    """Seconds in steps; the others went into evaluations, samples and saving."""
    slow: tuple[tuple[int, int], ...]
    """Stretches of steps much slower than the median."""

    @property
    def rise(self) -> float:
        """By how much the held-out loss rose after its best, as a share; 0 where that is chance."""
        if self.best is None or self.last is None:
            return 0.0
        risen = self.last[1] / self.best[1] - 1 if self.best[1] > 0 else 0.0
        return risen if risen >= RISEN else 0.0


def figures_of(record: RunRecord) -> Figures:
    """The figures of a run."""
    step = max((int(finite(row.get("step")) or 0) for row in record.rows), default=0)
    times = [finite(row.get("elapsed_s")) for row in record.rows]
    best = _best(record)
    speeds = record.points("train", "tokens_per_s")
    return Figures(
        state=_state(record, step),
        step=step,
        planned=record.plan.total_steps,
        seconds=max((time for time in times if time is not None), default=None),
        parameters=count_parameters(GPTConfig.of(record.recipe.model, record.corpus.vocab_size)),
        passes=step * record.passes_per_step if record.passes_per_step else None,
        best=best,
        last=record.held_out[-1] if record.held_out else None,
        training=_about(record.training, best[0]) if best else None,
        tokens_per_s=median(speed for _, speed in speeds) if speeds else None,
        stepping_s=_stepping_s(record, speeds),
        slow=tuple(_slow(speeds)),
    )


def _state(record: RunRecord, step: int) -> Literal["finished", "unfinished", "diverged"]:
    if record.named("end") or 0 < record.plan.total_steps <= step:
        return "finished"
    # a run that goes on takes the row away
    return "diverged" if record.named("diverged") else "unfinished"


def _best(record: RunRecord) -> Point | None:
    """By the loss that decides which checkpoint ``model`` is; before the first step there is none."""
    losses, bits = record.points("eval", "val_loss"), dict(record.held_out)
    found = min(((loss, step) for step, loss in losses if step > 0), default=None)
    return (found[1], bits[found[1]]) if found and found[1] in bits else None


def _about(points: list[Point], step: float) -> float | None:
    before = [value for at, value in points if at <= step][-LAST_ROWS:]
    return fmean(before) if before else None


def _stepping_s(record: RunRecord, speeds: list[Point]) -> float | None:
    """By the speed of each stretch; it begins at the row, evaluation or checkpoint before."""
    pauses = [*record.points("eval", "val_loss"), *record.points("checkpoint", "step")]
    begun = sorted({0.0, *(step for step, _ in (*speeds, *pauses))})
    tokens = record.recipe.train.batch_size * record.recipe.model.block_size
    lengths = {step: step - before for before, step in pairwise(begun)}
    seconds = [lengths[step] * tokens / speed for step, speed in speeds if speed > 0 and step > 0]
    return sum(seconds) if seconds else None


def _slow(speeds: list[Point]) -> list[tuple[int, int]]:
    """Neighbouring slow rows as one stretch."""
    usual = median(speed for _, speed in speeds) if speeds else 0.0
    found: list[tuple[int, int]] = []
    for (before, _), (step, speed) in pairwise([(0.0, 0.0), *speeds]):
        if speed < SLOW * usual:
            begin = found.pop()[0] if found and found[-1][1] == before else int(before)
            found.append((begin, int(step)))
    return found

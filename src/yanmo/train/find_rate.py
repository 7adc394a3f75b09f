"""Which learning rate to take: a sweep from far too low to far too high, in a minute.

Smith 2017, "Cyclical Learning Rates for Training Neural Networks": the rate grows a little with every step,
and the loss falls, is lowest, and rises. In: a recipe. Out: a :class:`Sweep`, its curve for a terminal, and
the rate to take. Nothing of it is kept.
"""

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from yanmo.checkpoint.step_schedule import StepSchedule
from yanmo.core.console import Console, span
from yanmo.core.errors import DivergedError
from yanmo.settings.schema import Recipe
from yanmo.train.oom import TakeStep
from yanmo.train.resume import restore
from yanmo.train.run import Run, open_run
from yanmo.train.step import training_step
from yanmo.train.trainer import loss_module

SECONDS = 60.0
FEWEST_STEPS, MOST_STEPS = 40, 300
TIMED_STEPS = 3
FACTOR = 100
"""The sweep goes from a hundredth of the usual rate to a hundred times as much."""
SMOOTHING = 0.8
"""Weight of the losses before in the running mean."""
SAFETY = 4
"""The rate at the lowest loss is on the brink for a whole run: so many times lower is sound."""
RISEN = 0.5
"""Nats above the lowest loss at which the sweep ends."""
CURVE_WIDTH, CURVE_HEIGHT = 60, 12


@dataclass(frozen=True)
class Sweep:
    """The rates that were tried, and the running mean of the loss at each, in nats per token."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def lowest(self) -> int:
        """Where the loss is lowest."""
        return min(range(len(self.losses)), key=lambda i: self.losses[i])

    @property
    def suggested(self) -> float:
        """The rate to take, in two digits."""
        return float(f"{self.rates[self.lowest] / SAFETY:.2g}")

    def as_json(self) -> dict[str, object]:
        """For ``--json``."""
        return {"learning_rate": self.suggested, "rates": self.rates, "losses": self.losses}


def find_rate(recipe: Recipe, console: Console, clock: Callable[[], float] = time.monotonic) -> Sweep:
    """Sweep the learning rate of a run that ``recipe`` would make.

    Raises:
        DivergedError: the loss is not finite at the lowest rate.
    """
    with tempfile.TemporaryDirectory() as folder:
        run, plan = open_run(recipe, Path(folder), Console(is_main=False))
        run, _ = restore(run)
        return sweep(run, plan, console, clock)


def sweep(
    run: Run,
    plan: StepSchedule,
    console: Console,
    clock: Callable[[], float],
    take_step: TakeStep = training_step,
) -> Sweep:
    """Train with a rate that grows with every step, until the loss has risen or the rate is the highest."""
    usual, loss_of = run.recipe.optim.learning_rate or 0.0, loss_module(run)
    rates, losses, mean, start, steps = list[float](), list[float](), 0.0, clock(), MOST_STEPS
    while len(rates) < steps:
        step = len(rates)
        rate = usual / FACTOR * FACTOR ** (2 * step / (steps - 1))
        run.optimizer.set_learning_rate(rate)
        settings = run.step_settings(step, plan)
        loss = take_step(loss_of, run.optimizer, run.batches, step, settings, run.world).loss
        if not math.isfinite(loss):
            break
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        rates.append(rate)
        losses.append(mean / (1 - SMOOTHING ** (step + 1)))  # the mean begins at zero
        if losses[-1] > min(losses) + RISEN:
            break
        if len(rates) == TIMED_STEPS:
            fitting = int(SECONDS / max((clock() - start) / TIMED_STEPS, 1e-9))
            steps = min(max(fitting, FEWEST_STEPS), MOST_STEPS)
        console.status(f"rate {rate:.2g}  loss {losses[-1]:.3f}  {span(clock() - start)}")
    console.clear_status()
    if not rates:
        raise DivergedError(
            "the loss is not finite at the lowest rate", "train --find-lr", "look at the text"
        )
    return Sweep(tuple(rates), tuple(losses))


def curve_lines(found: Sweep) -> list[str]:
    """The curve in characters: loss over the logarithm of the rate, the rate to take marked."""
    columns = _columns(found)
    low, high = min(columns), max(columns)
    marked = _column_of(found, found.suggested)
    lines = []
    for row in range(CURVE_HEIGHT):
        level = high - (high - low) * row / (CURVE_HEIGHT - 1)
        step = (high - low) / (CURVE_HEIGHT - 1) / 2 or 1.0
        cells = [
            "●" if abs(value - level) <= step else "│" if place == marked else " "
            for place, value in enumerate(columns)
        ]
        label = f"{level:6.2f} " if row in (0, CURVE_HEIGHT - 1) else " " * 7
        lines.append((label + "".join(cells)).rstrip())
    first, last = f"{found.rates[0]:.1e}", f"{found.rates[-1]:.1e}"
    lines.append(" " * 7 + first + last.rjust(CURVE_WIDTH - len(first)))
    return lines


def _columns(found: Sweep) -> list[float]:
    """The lowest loss in equal steps of the rate's logarithm."""
    bounds = [place * len(found.losses) // CURVE_WIDTH for place in range(CURVE_WIDTH + 1)]
    return [min(found.losses[first : max(end, first + 1)]) for first, end in pairwise(bounds)]


def _column_of(found: Sweep, rate: float) -> int:
    """The column of a rate."""
    width = math.log(found.rates[-1] / found.rates[0]) or 1.0
    place = math.log(rate / found.rates[0]) / width
    return min(max(round(place * (CURVE_WIDTH - 1)), 0), CURVE_WIDTH - 1)

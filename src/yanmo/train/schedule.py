"""The learning rate as a pure function of (step, plan).

A *plan* says from which step on the run aims at which last step (its horizon). A run of ``max_steps``
has one entry. A run of ``minutes`` aims by measured speed; the loop may aim anew at an evaluation, and
the new entry continues from the progress already made, so the rate never jumps.
"""

import math
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from yanmo.core.records import Record, sealed
from yanmo.settings.schema import OptimConfig

DECAY_SHARE = 0.2
"""The last part of a ``wsd`` run, in which the rate falls."""


@dataclass(frozen=True)
class Aim:
    """From ``from_step`` on, at ``progress`` (0 to 1) of the run, aim at ``horizon`` steps."""

    from_step: int
    progress: float
    horizon: int


@dataclass(frozen=True)
class Plan:
    """The aims of a run, oldest first."""

    aims: tuple[Aim, ...]
    lengths: tuple[float | None, ...] | None = None
    """The max_steps, epochs and minutes that it was made for; older plans do not say."""

    @classmethod
    def first(cls, horizon: int, lengths: tuple[float | None, ...] | None = None) -> "Plan":
        """The plan of a run that aims at ``horizon`` from the beginning."""
        return cls((Aim(0, 0.0, horizon),), lengths)

    @property
    def horizon(self) -> int:
        """The step at which the run ends, as far as is known."""
        return self.aims[-1].horizon

    def horizon_before(self, step: int) -> int:
        """The horizon that was in force when the update to ``step`` was done."""
        return next(aim.horizon for aim in reversed(self.aims) if aim.from_step < max(step, 1))

    def aim_at(self, step: int) -> Aim | None:
        """The aim taken at ``step``, if one was."""
        return next((aim for aim in self.aims if aim.from_step == step > 0), None)

    def progress_at(self, step: int) -> float:
        """How much of the run is done before ``step``, 0 to 1."""
        aim = next(aim for aim in reversed(self.aims) if aim.from_step <= step)
        steps = aim.horizon - aim.from_step
        share = (step - aim.from_step) / steps if steps > 0 else 1.0
        return min(aim.progress + (1 - aim.progress) * share, 1.0)

    def aimed_anew(self, step: int, horizon: int) -> "Plan":
        """The plan that from ``step`` on aims at ``horizon``."""
        return replace(self, aims=(*self.aims, Aim(step, self.progress_at(step), max(horizon, step))))

    def until(self, step: int) -> tuple[Aim, ...]:
        """The aims taken up to ``step``."""
        return tuple(aim for aim in self.aims if aim.from_step <= step)

    def as_json(self) -> dict[str, Any]:
        """For plan.json."""
        lengths = {} if self.lengths is None else {"lengths": list(self.lengths)}
        return sealed({"aims": [asdict(aim) for aim in self.aims], **lengths})

    @classmethod
    def of(cls, record: "PlanRecord") -> "Plan":
        """From plan.json."""
        lengths = None if record.lengths is None else tuple(record.lengths)
        return cls(tuple(Aim(aim.from_step, aim.progress, aim.horizon) for aim in record.aims), lengths)


class AimRecord(Record):
    """An aim in plan.json."""

    from_step: NonNegativeInt
    progress: Annotated[float, Field(ge=0, le=1)]
    horizon: PositiveInt


class PlanRecord(Record):
    """plan.json: the first aim is taken at step 0, each later one at a later step."""

    aims: Annotated[list[AimRecord], Field(min_length=1)]
    lengths: Annotated[list[int | float | None], Field(min_length=3, max_length=3)] | None = None

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        steps = [aim.from_step for aim in self.aims]
        if steps[0] != 0 or any(later <= earlier for earlier, later in pairwise(steps)):
            raise ValueError("the aims do not follow each other")
        return self


def learning_rate_at(step: int, plan: Plan, optim: OptimConfig) -> float:
    """Linear warm-up, then from learning_rate to min_lr as ``optim.schedule`` says.

    Args:
        step: steps already done; the first update has step 0.
        plan: how far that is.
        optim: learning_rate, min_lr (None: a tenth of it), warmup_steps (None: none) and schedule.
    """
    peak = optim.learning_rate or 0.0
    lowest = peak / 10 if optim.min_lr is None else optim.min_lr
    warmup = optim.warmup_steps or 0
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    done = plan.progress_at(warmup) if warmup < plan.horizon else 1.0
    share = (plan.progress_at(step) - done) / (1 - done) if done < 1 else 1.0
    return lowest + (peak - lowest) * height_at(min(max(share, 0.0), 1.0), optim.schedule)


def height_at(share: float, schedule: Literal["cosine", "linear", "wsd"]) -> float:
    """How high the rate stands between min_lr (0) and its peak (1), after ``share`` of the way.

    Cosine: Loshchilov & Hutter 2017. Warm-up, stable, decay: Hu et al. 2024 (MiniCPM).
    """
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * share))
    if schedule == "linear":
        return 1 - share
    return min((1 - share) / DECAY_SHARE, 1.0)


def parts_of_windows(step: int, plan: Plan, short_windows: float) -> int:
    """In how many parts windows are read at ``step``: two during the first share of the run.

    What stands close together is learned first, and many short windows show more of it than few long ones
    (Li, Zhang and He 2022, "The Stability-Efficiency Dilemma").
    """
    return 2 if plan.progress_at(step) < short_windows else 1

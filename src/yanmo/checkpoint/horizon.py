"""Which last step a run aims at, from which step on: plan.json, and what a checkpoint has seen of it.

A run of ``max_steps`` has one entry. A run of ``minutes`` aims by measured speed; the loop may aim anew at an
evaluation, and the new entry continues from the progress already made, so the rate never jumps.
"""

from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Annotated, Any, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from yanmo.core.records import Record, sealed


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

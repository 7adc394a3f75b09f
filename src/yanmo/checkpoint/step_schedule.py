"""The number of steps a run is planned to have: plan.json, and its copy in each checkpoint.

A run of ``max_steps`` has one segment. A run of ``minutes`` estimates its total steps from measured speed;
the loop may replan at an evaluation, and the new segment continues from the progress already made, so the
learning rate never jumps; but where a loss was not finite, a segment slows the run down from the checkpoint
on. On disk a segment's total steps are called ``horizon``, and the segments ``aims``.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Any, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from yanmo.core.records import TypedRecord, sealed


@dataclass(frozen=True)
class ScheduleSegment:
    """From ``from_step`` on, where ``progress`` (0 to 1) is done, the run is planned for ``total_steps``."""

    from_step: int
    progress: float
    total_steps: int
    rate_factor: float = 1.0
    """The learning rate is multiplied by this from here on."""
    reason: str | None = None
    """Why it is."""

    def as_json(self) -> dict[str, Any]:
        """For plan.json."""
        row = {"from_step": self.from_step, "progress": self.progress, "horizon": self.total_steps}
        slow = {"rate_factor": self.rate_factor, "reason": self.reason}
        return row | (slow if self.rate_factor != 1 else {})


@dataclass(frozen=True)
class StepSchedule:
    """The segments of a run, oldest first."""

    segments: tuple[ScheduleSegment, ...]
    lengths: tuple[float | None, ...] | None = None
    """The max_steps, epochs and minutes that it was made for; older plans do not record them."""

    @classmethod
    def first(cls, total_steps: int, lengths: tuple[float | None, ...] | None = None) -> "StepSchedule":
        """The schedule of a run that is planned to have ``total_steps`` from the beginning."""
        return cls((ScheduleSegment(0, 0.0, total_steps),), lengths)

    @property
    def total_steps(self) -> int:
        """The step at which the run ends, as far as is known."""
        return self.segments[-1].total_steps

    def total_steps_before(self, step: int) -> int:
        """The total steps that were planned when the update to ``step`` was done."""
        # a segment begun at `step` came after the update: strictly before it
        return next(s.total_steps for s in reversed(self.segments) if s.from_step < max(step, 1))

    def segment_from(self, step: int) -> ScheduleSegment | None:
        """The segment that was begun at ``step``, if one was."""
        return next((segment for segment in self.segments if segment.from_step == step > 0), None)

    def progress_at(self, step: int) -> float:
        """How much of the run is done before ``step``, 0 to 1."""
        segment = self.segment_at(step)
        # progress is continuous: p = p₀ + (1 - p₀) (step - s₀) / (total - s₀), with p₀ the progress at s₀,
        # where the segment begins; another total changes the slope from there on, not the value
        steps = segment.total_steps - segment.from_step
        share = (step - segment.from_step) / steps if steps > 0 else 1.0
        return min(segment.progress + (1 - segment.progress) * share, 1.0)

    def replanned(self, step: int, total_steps: int) -> "StepSchedule":
        """The schedule that from ``step`` on is planned to end at ``total_steps``."""
        segment = ScheduleSegment(step, self.progress_at(step), max(total_steps, step))
        return replace(self, segments=(*self.segments, segment))

    def slowed(self, step: int, rate_factor: float, reason: str) -> "StepSchedule":
        """The schedule whose learning rate is smaller from ``step`` on; what was replanned later stays."""
        segment = self.segment_at(step)
        slow = ScheduleSegment(step, self.progress_at(step), segment.total_steps, rate_factor, reason)
        others = [other for other in self.segments if other.from_step != step]
        return replace(self, segments=tuple(sorted([*others, slow], key=lambda s: s.from_step)))

    def segment_at(self, step: int) -> ScheduleSegment:
        """The segment that the update after ``step`` steps belongs to."""
        return next(segment for segment in reversed(self.segments) if segment.from_step <= step)

    def rate_factor_at(self, step: int) -> float:
        """What the learning rate is multiplied by."""
        return math.prod(segment.rate_factor for segment in self.segments if segment.from_step <= step)

    @property
    def slowdowns(self) -> tuple[ScheduleSegment, ...]:
        """The segments that made the run slower."""
        return tuple(segment for segment in self.segments if segment.rate_factor != 1)

    def agrees_until(self, other: "StepSchedule", step: int) -> bool:
        """Whether both are the same up to ``step``; from there on one may be slower."""
        before = [tuple(s for s in plan.segments if s.from_step < step) for plan in (self, other)]
        here = [(plan.segment_at(step).total_steps, plan.progress_at(step)) for plan in (self, other)]
        return before[0] == before[1] and here[0] == here[1]

    def as_json(self) -> dict[str, Any]:
        """For plan.json."""
        lengths = {} if self.lengths is None else {"lengths": list(self.lengths)}
        return sealed({"aims": [segment.as_json() for segment in self.segments], **lengths})

    @classmethod
    def of(cls, record: "ScheduleRecord") -> "StepSchedule":
        """From plan.json."""
        lengths = None if record.lengths is None else tuple(record.lengths)
        segments = (
            ScheduleSegment(s.from_step, s.progress, s.horizon, s.rate_factor, s.reason) for s in record.aims
        )
        return cls(tuple(segments), lengths)


class SegmentRecord(TypedRecord):
    """A segment in plan.json."""

    from_step: NonNegativeInt
    progress: Annotated[float, Field(ge=0, le=1)]
    horizon: PositiveInt
    rate_factor: Annotated[float, Field(gt=0, le=1)] = 1.0
    reason: str | None = None


class ScheduleRecord(TypedRecord):
    """plan.json: the first segment begins at step 0, each later one at a later step."""

    aims: Annotated[list[SegmentRecord], Field(min_length=1)]
    lengths: Annotated[list[int | float | None], Field(min_length=3, max_length=3)] | None = None

    @model_validator(mode="after")
    def _is_in_order(self) -> Self:
        steps = [segment.from_step for segment in self.aims]
        if steps[0] != 0 or any(later <= earlier for earlier, later in pairwise(steps)):
            raise ValueError("the aims do not follow each other")
        return self

"""What the rules of health look at: of all rows of a log, as much as does not grow with the run.

In: rows of metrics.jsonl, one after another; a row may lack any field, or hold a value of another kind.
Out: :class:`History`, from which ``health.py`` reads.
"""

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

Row = Mapping[str, Any]

WINDOW = 128
"""Logged steps that are looked back on, as OLMo's monitor of stability does."""
RECENT = 10
"""Logged steps whose mean is the training loss."""
OVERFLOWS = 8
"""Skipped steps among ``OVERFLOW_STEPS``: the scale finds its place in fewer."""
SPEED_ROWS = 16
USUAL_WIDTH = 256
IDLE_LOAD = 0.01
"""Load of an expert relative to the mean that is as good as none."""


def number(row: Row, key: str) -> float | None:
    """A finite number in a row, if there is one."""
    return finite(row.get(key))


def finite(value: Any) -> float | None:
    """A finite number, if it is one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < 1e300 else None  # NaN is below nothing


def step_of(row: Row) -> int:
    """The step of a row; 0 where it has none."""
    return int(number(row, "step") or 0)


@dataclass(frozen=True)
class Evaluated:
    """A loss on the held-out text, and the training loss then."""

    step: int
    loss: float
    bits: float | None
    train_loss: float | None


@dataclass
class History:
    """What rules look at: the latest row, and of those before it as much as does not grow with the run."""

    row: Row = field(default_factory=dict)
    start: Row = field(default_factory=dict)
    step: int = 0
    planned: float | None = None
    """Steps of the whole run."""
    first: Row | None = None
    recent: deque[Row] = field(default_factory=lambda: deque(maxlen=WINDOW))
    """Logged steps, this one included."""
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    least_loss: float = math.inf
    """The least mean of ``RECENT`` losses."""
    evaluated: list[Evaluated] = field(default_factory=list)
    best: Evaluated | None = None
    batches: Counter[int] = field(default_factory=Counter)
    frozen: Counter[str] = field(default_factory=Counter)
    """Matrices without an update, and in how many logged steps in a row."""
    idle: Counter[tuple[int, int]] = field(default_factory=Counter)
    """(layer, expert) without tokens, and in how many evaluations in a row."""
    overflows: deque[int] = field(default_factory=lambda: deque(maxlen=OVERFLOWS))
    samples: deque[Row] = field(default_factory=lambda: deque(maxlen=2))
    speeds: list[float] = field(default_factory=list)
    """Of the first logged steps."""
    named: set[str] = field(default_factory=set)
    """What was found before."""

    def add(self, row: Row) -> str:
        """Take in a row; gives its kind."""
        kind = kind_of(row)
        self.row, self.step = row, max(self.step, step_of(row))
        if (planned := number(row, "horizon") or number(row, "planned_steps")) is not None:
            self.planned = planned
        take = {
            "start": self._start, "train": self._train, "eval": self._eval, "experts": self._experts,
            "overflow": self._overflow, "sample": self._sample,
        }.get(kind)  # fmt: skip
        if take is not None:
            take(row)
        return kind

    def fact(self, key: str) -> float | None:
        """A number of the first row."""
        return number(self.start, key)

    @property
    def is_text(self) -> bool:
        """Whether a loss is that of a token; that of a pair has no lines to compare with."""
        return self.start.get("learns") != "pairs"

    @property
    def begins_anew(self) -> bool:
        """Whether the run is known to begin from random weights."""
        return self.start.get("from_weights") is False

    @property
    def train_loss(self) -> float | None:
        """The mean of the last losses."""
        return fmean([*self.losses][-RECENT:]) if self.losses else None

    def bits(self, nats: float | None) -> float | None:
        """Bits per character of a loss in nats per token."""
        characters = self.fact("characters_per_token")
        return nats / math.log(2) / characters if nats is not None and characters else None

    def done(self, step: int) -> float:
        """Share of the planned steps; all of them where that is not known."""
        return step / self.planned if self.planned else 1.0

    def passes(self, step: int) -> float | None:
        """Passes over the text after a step."""
        rows, windows = self.fact("batch_size"), self.fact("windows")
        return step * rows / windows if rows and windows else None

    def update(self, row: Row) -> float | None:
        """Size of the median update of a step, relative to its matrix, as of a width of 256."""
        # weights begin alike in all widths, and the usual rates fall by the root of the width
        size, width = number(row, "update_median"), self.fact("width") or USUAL_WIDTH
        return None if size is None or width < 0 else size * math.sqrt(width / USUAL_WIDTH)

    def warm_updates(self) -> list[float]:
        """The same of the logged steps with at least half of the peak rate."""
        peak = self.fact("learning_rate") or math.inf
        warm = [row for row in self.recent if (number(row, "lr") or 0.0) >= peak / 2]
        return [size for row in warm if (size := self.update(row)) is not None]

    def _start(self, row: Row) -> None:
        self.start = row

    def _train(self, row: Row) -> None:
        self.first = self.first or row
        self.recent.append(row)
        if (loss := number(row, "loss")) is not None:
            self.losses.append(loss)
            if len(self.losses) >= RECENT:
                self.least_loss = min(self.least_loss, fmean([*self.losses][-RECENT:]))
        if isinstance(batch := row.get("batch"), int):
            self.batches[batch] += 1
        if "update_median" in row:
            names = row.get("frozen")
            names = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
            self.frozen = Counter({name: self.frozen[name] + 1 for name in names})
        speed = number(row, "tokens_per_s")
        # the first one is slow where kernels are compiled
        if speed is not None and row is not self.first and len(self.speeds) < SPEED_ROWS:
            self.speeds.append(speed)

    def _eval(self, row: Row) -> None:
        if (loss := number(row, "val_loss")) is None:
            return
        bits = number(row, "val_bits_per_char")
        found = Evaluated(step_of(row), loss, self.bits(loss) if bits is None else bits, self.train_loss)
        self.evaluated.append(found)
        if self.best is None or found.loss < self.best.loss:
            self.best = found

    def _experts(self, row: Row) -> None:
        loads, layer = row.get("load"), step_of({"step": row.get("layer")})
        for expert, load in enumerate(loads if isinstance(loads, list) else []):
            is_idle = (number({"load": load}, "load") or 0.0) < IDLE_LOAD
            self.idle[layer, expert] = self.idle[layer, expert] + 1 if is_idle else 0

    def _overflow(self, row: Row) -> None:
        self.overflows.append(step_of(row))

    def _sample(self, row: Row) -> None:
        self.samples.append(row)


def kind_of(row: Row) -> str:
    """The kind of a row; of a log without events, by what it holds."""
    event = row.get("event")
    if event == "health" and row.get("overflow"):
        return "overflow"  # what it was called before there were findings
    if isinstance(event, str):
        return event
    return "eval" if "val_loss" in row and "loss" not in row else "train"

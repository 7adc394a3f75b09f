"""A share or a mean over samples, and how far it would be another one for other samples (Efron 1979).

In: for each sample a part and a whole. Out: an :class:`Estimate`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

DRAWS = 1000
LEVEL = 0.95


class Portion(NamedTuple):
    """What one sample adds to a share or a mean."""

    part: float
    whole: float


@dataclass(frozen=True)
class Estimate:
    """A value, and the interval that holds it in 95% of the draws."""

    value: float
    low: float
    high: float

    def side_of(self, control: "Estimate") -> int:
        """-1: the value lies below the control's interval, 1: above it, 0: within."""
        return int(self.value > control.high) - int(self.value < control.low)


def estimate(samples: Sequence[Portion], seed: int = 0, draw: int | None = None) -> Estimate:
    """Σ parts / Σ wholes, with the interval by drawing as many samples again, with replacement.

    A control is drawn as often as there are samples to compare with it (``draw``): its interval is then what
    so many would have, if they were like it.
    """
    both = np.array(samples, dtype=np.float64).reshape(-1, 2).T  # (2, N)
    if not both[1].any():
        return Estimate(0.0, 0.0, 0.0)  # of nothing
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, both.shape[1], (DRAWS, draw or both.shape[1]))  # (draws, N)
    part, whole = both[:, drawn].sum(axis=-1)  # (draws,) each
    rest = (1 - LEVEL) / 2
    # a draw of nothing but empty samples has no share
    low, high = np.quantile(part[whole > 0] / whole[whole > 0], (rest, 1 - rest))
    return Estimate(float(both[0].sum() / both[1].sum()), float(low), float(high))

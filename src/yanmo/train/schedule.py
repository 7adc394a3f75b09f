"""The learning rate and the length of windows as pure functions of (step, plan)."""

import math
from typing import Literal

from yanmo.checkpoint.step_schedule import StepSchedule
from yanmo.settings.schema import OptimConfig

DECAY_SHARE = 0.2
"""The last part of a ``wsd`` run, in which the rate falls; Hu et al. find a tenth of a run enough."""


def learning_rate_at(step: int, plan: StepSchedule, optim: OptimConfig) -> float:
    """Linear warm-up, then from learning_rate to min_lr as ``optim.schedule`` says.

    Args:
        step: steps already done; the first update has step 0.
        plan: how far that is.
        optim: learning_rate, min_lr (None: a tenth of it), warmup_steps (None: none) and schedule.
    """
    peak = optim.learning_rate or 0.0
    lowest = peak / 10 if optim.min_lr is None else optim.min_lr
    peak, lowest = peak * plan.rate_factor_at(step), lowest * plan.rate_factor_at(step)
    warmup = optim.warmup_steps or 0
    # linear warm-up, η = peak (step + 1) / (warmup + 1): Adam's running averages start at zero and are noisy
    # at first, so full steps would go astray. Never 0, or the first batch would teach nothing
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    # share: 0 at the end of the warm-up, 1 at the end of the run. Progress, not step / total_steps, because a
    # run of minutes changes total_steps on the way; its progress continues, so the rate does not jump
    done = plan.progress_at(warmup) if warmup < plan.total_steps else 1.0
    share = (plan.progress_at(step) - done) / (1 - done) if done < 1 else 1.0
    # η = η_min + (η_max - η_min) · height(share)
    return lowest + (peak - lowest) * height_at(min(max(share, 0.0), 1.0), optim.schedule)


def height_at(share: float, schedule: Literal["cosine", "linear", "wsd"]) -> float:
    """The learning rate between min_lr (0) and its peak (1), after ``share`` of the way.

    Cosine: Loshchilov & Hutter 2017. Warm-up, stable, decay: Hu et al. 2024 (MiniCPM).
    """
    if schedule == "cosine":
        # ½ (1 + cos πs): flat at both ends, most of the fall in the middle
        return 0.5 * (1 + math.cos(math.pi * share))
    if schedule == "linear":
        return 1 - share
    # wsd: stays at the peak, then falls linearly; the plateau can be prolonged without knowing the end
    return min((1 - share) / DECAY_SHARE, 1.0)


def window_parts(step: int, plan: StepSchedule, seq_len_warmup: float) -> int:
    """Sequence-length warm-up: in how many parts windows are read at ``step``, two at first.

    A model learns short-range dependencies first, and many short windows show more of them than few long
    ones (Li, Zhang and He 2022, "The Stability-Efficiency Dilemma").
    """
    # halves of the same window: a step keeps its tokens, attention costs a half, and the data order stays
    return 2 if plan.progress_at(step) < seq_len_warmup else 1

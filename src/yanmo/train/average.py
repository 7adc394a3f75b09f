"""The average of a run's weights: what is evaluated, saved and written with where a text is read many times.

Each step's weights wander around what its batches have in common; an exponential moving average of them lies
nearer to it (Polyak & Juditsky 1992; Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and
Better Generalization"). It looks back over a share of the run, and at first over a quarter of what is done.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from yanmo.checkpoint.folder import LIVE
from yanmo.checkpoint.step_schedule import StepSchedule
from yanmo.model.gpt import GPT
from yanmo.model.lora import trained_tensors

EVERY = 5
"""Steps between two updates: the weights hardly change in fewer."""
AT_FIRST = 1 / 4
"""Share of the steps done that the average looks back over, while that is less than of the run."""


class WeightAverage:
    """A copy of the weights in float32 that follows them slowly."""

    def __init__(self, model: GPT, share: float) -> None:
        self.model, self.share = model, share
        self.take()

    @torch.no_grad()
    def take(self) -> None:
        """Begin from the weights that the model has now."""
        self.weights = [parameter.detach().clone() for parameter in self.model.parameters()]

    @torch.no_grad()
    def update(self, step: int, plan: StepSchedule) -> None:
        """Follow the weights that the model has after ``step`` steps: a function of both and of the plan."""
        if step % EVERY:
            return
        steps = min(self.share * plan.total_steps_before(step), AT_FIRST * step)
        # a ← a + (1 - e^(-n/s)) (w - a): what is s steps old weighs a third of what is new
        weight = 1 - math.exp(-EVERY / steps)
        for average, parameter in zip(self.weights, self.model.parameters(), strict=True):
            average.lerp_(parameter, weight)

    @contextmanager
    def in_place(self) -> Iterator[dict[str, Tensor]]:
        """The model with the average in place of its weights; gives these, as a checkpoint names them."""
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            live = {f"{name}/{LIVE}": tensor.clone() for name, tensor in trained_tensors(self.model).items()}
            for parameter, weight in zip(parameters.values(), self.weights, strict=True):
                parameter.copy_(weight)
        try:
            yield live
        finally:
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(live[f"{name}/{LIVE}"])

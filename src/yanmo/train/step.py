"""One forward-backward-update. ``plan`` measures it, the trainer runs it.

The gradient of a step is that of the mean loss over all targets of the global batch, however it is cut
into micro-batches and ranks. Dropout's noise is seeded by (seed, step, micro-batch, rank), so a step
never depends on what was computed before it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from yanmo.data.batches import Batches
from yanmo.model.gpt import GPT
from yanmo.train.distributed import World


@dataclass(frozen=True)
class StepSettings:
    """What a step needs to know, fixed for the run."""

    seed: int
    batch_size: int
    micro_batch_size: int
    grad_clip: float
    autocast: Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class StepResult:
    """Loss (nats per token over the global batch) and the norm of the whole gradient before clipping."""

    loss: float
    grad_norm: float


def training_step(
    model: GPT,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    step: int,
    settings: StepSettings,
    world: World,
) -> StepResult:
    """Accumulate the gradient of batch ``step`` and update, unless loss or gradient is not finite."""
    loss = accumulate_gradient(model, batches, step, settings, world)
    max_norm = settings.grad_clip or float("inf")
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    result = StepResult(float(loss), float(norm))
    if torch.isfinite(loss) and torch.isfinite(norm):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return result


def accumulate_gradient(
    model: GPT, batches: Batches, step: int, settings: StepSettings, world: World
) -> Tensor:
    """Leave the gradient of the whole global batch in ``.grad``; gives its loss, on every rank."""
    total = torch.zeros((), device=world.device)
    count = batches.targets_in(step)
    rows = world.rows(settings.batch_size)
    for micro, first in enumerate(range(rows.start, rows.stop, settings.micro_batch_size)):
        micro_rows = range(first, min(first + settings.micro_batch_size, rows.stop))
        torch.manual_seed(noise_seed(settings.seed, step, micro, world.rank))
        batch = batches.at(step, micro_rows)
        inputs = torch.from_numpy(batch.inputs).to(world.device, non_blocking=True)  # (B, T)
        targets = torch.from_numpy(batch.targets).to(world.device, non_blocking=True)
        with settings.autocast():
            loss = model.loss(inputs, targets) / count
        torch.autograd.backward(loss)
        total += loss.detach()
    world.sum_gradients(model.parameters())
    return world.sum(total)


def noise_seed(seed: int, step: int, micro: int, rank: int) -> int:
    """The seed of a micro-batch's dropout."""
    value = seed
    for part in (step, micro, rank):
        value = (value * 6364136223846793005 + part + 1442695040888963407) % (1 << 63)
    return value

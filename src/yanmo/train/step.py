"""One optimizer step: forward, backward with gradient accumulation, clipping, update.

The gradient of a step is that of the mean loss over all targets of the global batch, however it is cut
into micro-batches and ranks. Dropout's noise is seeded by (seed, step, micro-batch, rank), so a step
never depends on what was computed before it.
"""

import time
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from yanmo.data.batches import Batch, BatchSource, Floats
from yanmo.model.config import IGNORED
from yanmo.model.gpt import GPT
from yanmo.model.moe import reset_expert_load, update_router_bias
from yanmo.parallel.distributed import World
from yanmo.parallel.machine import oom_as_error
from yanmo.train.optim import Optimizer, trained_parameters

GROWTH_STEPS = 2000
"""Steps without an overflow after which the loss scale doubles; torch's GradScaler waits as long."""
SEEN_EVERY = 8
SEEN_ROWS = 4
"""Inputs and rows of a micro-batch that are looked at: enough to tell batches apart, for microseconds."""
SPREAD_WINDOWS = 4
"""Fewer windows have no spread worth the name."""


@dataclass(frozen=True)
class StepSettings:
    """What a step needs besides its number."""

    seed: int
    batch_size: int
    micro_batch_size: int
    grad_clip: float
    autocast: Callable[[], AbstractContextManager[None]]
    parts: int = 1
    """In how many parts a window is read, each without the context of those before it."""


@dataclass(frozen=True)
class LossScale:
    """float16 cannot hold small gradients, so the loss is multiplied by ``factor``, a power of two.

    An overflow halves it, and that step updates nothing; many good steps double it (Micikevicius et
    al. 2018, "Mixed Precision Training").
    """

    factor: float = 1.0
    good_steps: int = 0

    def after(self, overflowed: bool) -> "LossScale":
        """The scale of the next step."""
        if overflowed:
            # powers of two change only the exponent, so scaling by them is exact
            return LossScale(self.factor / 2)
        if self.good_steps + 1 == GROWTH_STEPS:
            return LossScale(self.factor * 2)
        return replace(self, good_steps=self.good_steps + 1)


@dataclass
class Fed:
    """What a step was given to learn from, seen on its way into the model, for the rules of health."""

    seconds: float = 0.0
    """How long it waited for that."""
    checksum: int = 0
    """Of every eighth input."""
    followed: int = 0
    """Targets that are the next input, among ``followable`` that could be, in the first rows."""
    followable: int = 0
    places: list[Floats] = field(default_factory=list)

    def get(self, batches: BatchSource, step: int, rows: range) -> Batch:
        """Rows of the batch of ``step``."""
        began = time.perf_counter()
        batch = batches.at(step, rows)
        self.seconds += time.perf_counter() - began
        self.checksum = zlib.crc32(batch.inputs[:, ::SEEN_EVERY].tobytes(), self.checksum)
        targets, following = batch.targets[:SEEN_ROWS, :-1], batch.inputs[:SEEN_ROWS, 1:]
        self.followed += int((targets == following).sum())
        self.followable += int((targets != IGNORED).sum())
        if batch.places is not None:
            self.places.append(batch.places)
        return batch

    def row(self) -> dict[str, float]:
        """For metrics.jsonl."""
        found: dict[str, float] = {"batch": self.checksum}
        if self.followable:
            found["aligned"] = round(self.followed / self.followable, 4)
        places = np.concatenate(self.places) if self.places else np.empty(0)
        if len(places) >= SPREAD_WINDOWS:
            found["spread"] = round(float(places.std()), 4)
        return found


@dataclass(frozen=True)
class StepResult:
    """Loss (nats per token over the global batch) and the norm of the whole gradient before clipping."""

    loss: float
    grad_norm: float
    updated: bool
    loads: Tensor | None = None
    """Tokens that each expert of each layer was given, (layers, experts), if there are any."""
    fed: Fed = field(default_factory=Fed)


class Loss(nn.Module):
    """The model's loss as a module of its own, which compile and DDP can wrap."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, *batch: Tensor) -> Tensor:
        return self.model.loss(*batch)


def training_step(
    loss_of: nn.Module,
    optimizer: Optimizer,
    batches: BatchSource,
    step: int,
    settings: StepSettings,
    world: World,
    scale: float = 1.0,
) -> StepResult:
    """Accumulate the gradient of batch ``step`` and update, unless loss or gradient is not finite.

    Raises:
        DeviceError: memory ran out in the update; a step that is half done cannot be taken back.
    """
    fed = Fed()
    loss = accumulate_gradient(loss_of, batches, step, settings, world, scale, fed)
    parameters = list(trained_parameters(loss_of).values())
    # float16: the loss was scaled so that small gradients do not vanish; here it is undone
    for parameter in parameters if scale != 1 else []:
        assert parameter.grad is not None
        parameter.grad.div_(scale)
    # g ← g · min(1, clip / |g|) with one norm over all parameters (Pascanu et al. 2013): the direction stays.
    # Without a limit the norm is still needed: it shows a NaN or Inf, and then the step is not taken
    norm = torch.nn.utils.clip_grad_norm_(parameters, settings.grad_clip or float("inf"))
    finite = bool(torch.isfinite(loss) and torch.isfinite(norm))
    loads = None
    if finite:
        with oom_as_error("weights, gradients and optimizer", f"step {step:,}, {world.device}"):
            optimizer.step()
        loads = update_router_bias(loss_of, world.sum)
    optimizer.zero_grad()
    return StepResult(float(loss), float(norm), finite, loads, fed)


def accumulate_gradient(
    loss_of: nn.Module,
    batches: BatchSource,
    step: int,
    settings: StepSettings,
    world: World,
    scale: float = 1.0,
    fed: Fed | None = None,
) -> Tensor:
    """Leave ``scale`` times the gradient of the whole global batch in ``.grad``; returns its loss.

    Both are the same on every rank: the last backward pass all-reduces the gradients. ``fed`` notes what
    this rank is given.
    """
    fed = fed or Fed()
    # the load of the experts is counted over all micro-batches of a step, then it moves the router's bias
    reset_expert_load(loss_of)
    total = torch.zeros((), device=world.device)
    # targets of all ranks and micro-batches: the last window of an epoch has fewer, so a mean of
    # micro-batch means would weigh its tokens more
    count = batches.targets_in(step)
    rows = world.rows(settings.batch_size)
    starts = range(rows.start, rows.stop, settings.micro_batch_size)
    for micro, first in enumerate(starts):
        micro_rows = range(first, min(first + settings.micro_batch_size, rows.stop))
        # dropout is a function of (seed, step, micro-batch, rank): a restart draws the same
        torch.manual_seed(noise_seed(settings.seed, step, micro, world.rank))
        batch = fed.get(batches, step, micro_rows)
        tensors = [torch.from_numpy(array).to(world.device) for array in batch.arrays()]  # (B, T) each
        if settings.parts > 1:
            tensors = [in_parts(tensor, settings.parts) for tensor in tensors]
        # gradient accumulation: `.grad` adds up, and only the last micro-batch of a step makes DDP all-reduce
        last = first == starts[-1]
        with nullcontext() if last else world.no_sync(loss_of):
            with settings.autocast():
                # nats per token of the whole global batch, however it is cut into micro-batches
                loss = loss_of(*tensors) / count
            # DDP divides the summed gradients by world.size; loss is a share of the whole, so undo that
            torch.autograd.backward(loss * (scale * world.size))
        total += loss.detach()
    return world.sum(total)


def in_parts(windows: Tensor, parts: int) -> Tensor:
    """(B, T) -> (B * parts, T / parts), in order."""
    return torch.unflatten(windows, 1, (parts, -1)).flatten(0, 1)


def noise_seed(seed: int, step: int, micro: int, rank: int) -> int:
    """The seed of a micro-batch's dropout."""
    # a 64-bit linear congruential step (Knuth's MMIX) for each part: neighbouring steps get distant seeds
    value = seed
    for part in (step, micro, rank):
        value = (value * 6364136223846793005 + part + 1442695040888963407) % (1 << 63)
    return value

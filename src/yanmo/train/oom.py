"""After running out of memory: halve the micro-batch, record it, and do the step again.

A step's gradient is the same, up to rounding, for every micro-batch size; so a run goes on as if it had
begun with the smaller one.
"""

import contextlib
import gc
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from yanmo.checkpoint.folder import Progress
from yanmo.checkpoint.step_schedule import StepSchedule
from yanmo.core import storage
from yanmo.core.errors import DeviceError
from yanmo.data.batches import BatchSource
from yanmo.parallel.machine import is_out_of_memory, oom_as_error
from yanmo.settings.recipe import to_toml, with_values
from yanmo.settings.schema import MICRO_BATCH
from yanmo.train.metrics import Metrics
from yanmo.train.probe import largest_divisor, no_room
from yanmo.train.run import Run
from yanmo.train.step import StepResult, training_step

TakeStep = Callable[..., StepResult]
"""``training_step``; a test may pass another function that fails in a chosen step."""


def train_step_with_oom_retry(
    run: Run,
    plan: StepSchedule,
    progress: Progress,
    loss_of: nn.Module,
    batches: BatchSource,
    metrics: Metrics,
    take_step: TakeStep = training_step,
) -> tuple[Run, StepResult]:
    """The next training step, with a micro-batch that fits, and the run with that micro-batch.

    Raises:
        DeviceError: not even one window fits; or, on several ranks, memory ran out in the middle of a
            run, which then can be resumed with the smaller micro-batch.
    """
    while True:
        step, scale = progress.step, progress.loss_scale
        settings = run.step_settings(step, plan)
        try:
            return run, take_step(loss_of, run.optimizer, batches, step, settings, run.world, scale)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # outside the except block: there the traceback still holds the step's activations
        free_step_memory(run)
        run = halve_micro_batch(run, step, metrics)
        if run.world.size > 1:  # the others are in the middle of this step and cannot begin it again
            raise DeviceError(
                f"rank {run.world.rank} ran out of memory at step {step:,}",
                where=str(run.folder),
                hint=f"the same command resumes with {MICRO_BATCH}={run.recipe.train.micro_batch_size}",
            )


def agree_on_micro_batch(
    run: Run, step: int, loss_of: nn.Module, batches: BatchSource, metrics: Metrics
) -> Run:
    """On several ranks: try one micro-batch before the run begins, and agree on what fits all of them.

    Then one more, whose gradients are all-reduced, so that a restart sums as an uninterrupted run does.
    """
    if run.world.size == 1:
        return run
    while True:
        failed = False
        try:
            # without all-reduce: a rank that runs out of memory would leave the others waiting for it
            with run.world.no_sync(loss_of):
                try_micro_batch(run, step, loss_of, batches)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failed = True
        free_step_memory(run)
        if not run.world.all_reduce_max(failed):
            break
        run = halve_micro_batch(run, step, metrics)
    # DDP assigns gradients to buckets for good by the order in which they first arrive, and the place in a
    # bucket decides in which order three or more ranks are summed. Without this pass, the first step after
    # a restart would be summed in another order than the same step of a run that was never interrupted
    with oom_as_error("weights and gradients", f"rank {run.world.rank}, {run.world.device}"):
        try_micro_batch(run, step, loss_of, batches)
    free_step_memory(run)
    return run


def try_micro_batch(run: Run, step: int, loss_of: nn.Module, batches: BatchSource) -> None:
    """A forward and backward pass that is no part of the run."""
    batch = batches.at(step, range(run.micro_batch_size))
    tensors = [torch.from_numpy(array).to(run.world.device) for array in batch.arrays()]
    with run.autocast():
        loss = loss_of(*tensors)
    torch.autograd.backward(loss)


def free_step_memory(run: Run) -> None:
    """Free the gradients and activations of an unfinished step."""
    run.optimizer.zero_grad()
    # tensors in reference cycles (autograd graphs, tracebacks) are freed now, not at some later collection
    gc.collect()
    with contextlib.suppress(RuntimeError):
        torch.accelerator.empty_cache()


def halve_micro_batch(run: Run, step: int, metrics: Metrics) -> Run:
    """The run with at most half the micro-batch, which is recorded first.

    Raises:
        DeviceError: it is one row already.
    """
    size = run.micro_batch_size
    if size == 1:
        raise no_room(run.model.config, f"{run.world.device}, {run.folder}")
    # a divisor of the batch, so that all micro-batches are alike: one shape, one compiled kernel
    smaller = largest_divisor(run.recipe.train.batch_size, size // 2)
    recipe = with_values(run.recipe, {MICRO_BATCH: smaller}, "out of memory")
    decided = (*(name for name in recipe.decided if name != MICRO_BATCH), MICRO_BATCH)
    run = replace(run, recipe=recipe.model_copy(update={"decided": decided}))
    # before the step: it fixes the sums' order and the dropout seeds, so a resume must cut the same way
    storage.write_atomic(run.folder / "recipe.toml", to_toml(run.recipe))
    metrics.write("memory", step=step, micro_batch_size=smaller)
    run.console.warn(f"out of memory at step {step:,}: from here {smaller} windows at a time, not {size}")
    return run

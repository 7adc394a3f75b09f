"""Training: from an open run to a model that writes.

    train(recipe, folder)
      open_run                         in ``run.py``
      restore, extend_run              in ``resume.py``
      run_loop                         step, log, evaluate, replan, save
      TrainResult                      the state of the run

Everything a step needs is a function of the recipe, the data, the seed and the step's number; so a
checkpoint holds weights, optimizer and counters, and nothing else.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from yanmo.checkpoint.folder import (
    Progress,
    checkpoint_folder,
    newest_first,
    rotate,
    save_checkpoint,
    step_of,
)
from yanmo.checkpoint.step_schedule import StepSchedule
from yanmo.core import storage
from yanmo.core.console import Console, span
from yanmo.core.errors import DivergedError, Stopped
from yanmo.core.signals import StopSignal
from yanmo.data.batches import BatchSource
from yanmo.eval.baselines import NGramBaselines
from yanmo.eval.health import Health
from yanmo.eval.log import METRICS
from yanmo.parallel.distributed import Rendezvous
from yanmo.parallel.environment import environment
from yanmo.parallel.machine import return_freed_memory
from yanmo.settings.schema import Recipe
from yanmo.train.binding import bound
from yanmo.train.measuring import (
    learns_to_answer,
    log_evaluation,
    measure_now,
    preference_loss,
    stop_rate,
    write_sample,
)
from yanmo.train.metrics import Metrics, read_metrics
from yanmo.train.oom import TakeStep, agree_on_micro_batch, train_step_with_oom_retry
from yanmo.train.resume import extend_run, point_to_best, restore, resume_metrics, take_back
from yanmo.train.run import (
    OWN_FILES,
    Run,
    check_folder,
    open_run,
)
from yanmo.train.schedule import learning_rate_at
from yanmo.train.step import Loss, LossScale, StepResult, training_step
from yanmo.train.vitals import Vitals, facts_of_run

SILENT_SECONDS = 30.0
"""The live line comes after so long at the latest, however few steps are done."""
MUCH_SHORTER = 0.7
"""Of its steps: a plan that keeps fewer is said to be shorter."""


@dataclass(frozen=True)
class TrainResult:
    """The state of a run when ``train`` returns."""

    folder: Path
    progress: Progress
    total_steps: int
    lines: NGramBaselines
    openings: tuple[str, ...]
    """Three openings of lines of the held-out text."""
    answers: bool = False
    """Whether it learned to answer, and does not only continue."""

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "run": str(self.folder),
            "model": str(self.folder / "model"),
            "steps": self.total_steps,
            **asdict(self.progress),
            "reference_bits_per_char": asdict(self.lines),
        }


@dataclass(frozen=True)
class Logged:
    """A step and the time it was done, from which speed is counted."""

    step: int
    at: float


def train(
    recipe: Recipe,
    folder: Path,
    console: Console,
    take_step: TakeStep = training_step,
    clock: Callable[[], float] = time.monotonic,
) -> TrainResult:
    """Train or resume; if the run is finished, return its state.

    Args:
        recipe: what is asked for.
        folder: the run folder.
        console: shows progress.
        take_step: one optimizer step.
        clock: seconds.

    Raises:
        YanmoError: see ``core/errors.py``; the run folder is whole after each of them.
    """
    with Rendezvous() as ranks, lock_run_folder(folder, ranks.rank), console:
        # rank 0 reads, tokenises and decides; the others then find everything made
        with ranks.main_first():
            run, plan = open_run(recipe, folder, console, clock)
            run, progress = restore(run)
            run, plan = extend_run(run, plan, progress, recipe)
            resume_metrics(run, progress.step, plan.total_steps)
        # only now: a collective connection would time out while rank 0 tokenises for hours
        ranks.connect(run.world.device)
        if progress.step < plan.total_steps:
            with StopSignal() as stop:
                run, plan, progress = train_to_end(run, plan, progress, stop, take_step)
        else:
            console.print(f"{folder} is finished ({progress.step:,} steps)")
        finish(run, progress)
        text, answers = run.prepared, learns_to_answer(run)
        openings = tuple(text.openings(3, run.model.config.block_size)) if text.is_text else ()
        return TrainResult(folder, progress, plan.total_steps, run.lines, openings, answers)


def train_to_end(
    run: Run, plan: StepSchedule, progress: Progress, stop: StopSignal, take_step: TakeStep
) -> tuple[Run, StepSchedule, Progress]:
    """Run the loop; a number that is not finite takes the run back to its newest checkpoint, once.

    Raises:
        Stopped: a signal came.
        DivergedError: it is the second time.
    """
    while True:
        try:
            with open_metrics(run, progress.step) as metrics:
                return run, *run_loop(run, plan, progress, metrics, stop, take_step)
        except DivergedError as error:
            if plan.slowdowns:
                # beyond every checkpoint: a resume takes the row away again
                last = max((row.get("step", 0) for row in read_metrics(run.folder)), default=0)
                metrics.write("diverged", step=last + 1, reason=error.what)
                raise
            run, plan, progress = take_back(run, plan, error)


def open_metrics(run: Run, step: int) -> Metrics:
    """The metrics of a run that stands at ``step``; what they show is said, and what was said is known."""
    health = Health(run.recipe.health.ignore)
    for row in read_metrics(run.folder) if run.world.is_main and step else ():
        health.add(row)
    return Metrics(run.folder, run.world.is_main, step, run.console, health)


@contextmanager
def lock_run_folder(folder: Path, rank: int) -> Iterator[None]:
    """Hold the lock of the run folder (rank 0), and remove what an interrupted write left in it.

    A new run that fails before its first step leaves nothing behind.
    """
    # on a read-only disk nobody can write, so a finished run can be opened without a lock
    if rank > 0 or storage.is_read_only(folder):
        yield
        return
    check_folder(folder)
    lock = folder / "run.lock"
    # folders that the lock file creates, parents included; they go again if the run never begins
    made = [path for path in (folder, *folder.parents) if not storage.is_there(path)]
    is_new = not storage.is_there(folder / "recipe.toml")
    begun = True
    try:
        with storage.file_lock(lock):
            # under the lock, since a temporary file may be another process's write in progress
            for place in (folder, folder / "checkpoints", folder / "samples", folder / "epochs"):
                storage.remove_leftovers(place)
            try:
                yield
            except BaseException:
                # a metrics row is the sign that training began: from then on the folder is worth keeping
                begun = not is_new or bool(read_metrics(folder))
                if not begun:
                    forget(folder)
                raise
    finally:
        if not begun:
            # after the lock is released: Windows deletes no open file
            lock.unlink(missing_ok=True)
            for path in made:
                with suppress(OSError):
                    path.rmdir()


def forget(folder: Path) -> None:
    """Delete the files of a run that has not begun, except its lock."""
    for name in (*OWN_FILES, METRICS, "tensorboard"):
        if name != "run.lock":
            storage.remove_path(folder / name)


def run_loop(
    run: Run, plan: StepSchedule, progress: Progress, metrics: Metrics, stop: StopSignal, take_step: TakeStep
) -> tuple[StepSchedule, Progress]:
    """Train for as many steps as are planned, or until a signal; returns the plan and the progress.

    Raises:
        Stopped: a signal came; the run is saved at its current step.
        DivergedError: loss or gradient is not finite; nothing of that step was kept.
    """
    train, batches = run.recipe.train, run.batches
    loss_of = loss_module(run)
    run = agree_on_micro_batch(run, progress.step, loss_of, batches, metrics)
    log_run_start(run, progress.step, plan, metrics)
    vitals, logged = Vitals(run), Logged(progress.step, run.clock())
    shown = logged.at
    while progress.step < plan.total_steps:
        # set anew before every step, from the step's number alone: a resume needs no scheduler state
        rate = learning_rate_at(progress.step, plan, run.recipe.optim)
        run.optimizer.set_learning_rate(rate)
        # the first loss shows whether the weights began well
        if logging := progress.step == 0 or is_due(plan, progress.step + 1, train.log_interval):
            vitals.look()
        run, result = train_step_with_oom_retry(run, plan, progress, loss_of, batches, metrics, take_step)
        progress = check_finite_and_update_loss_scale(run, progress, result, metrics)
        progress = count_step(run, progress, batches)
        vitals.count(result)
        if run.average is not None:
            run.average.update(progress.step, plan)
        # the signal may reach one rank only, or two ranks in different steps: all must stop in the same one
        stopping = run.world.all_reduce_max(stop.number or 0)
        if logging:
            logged = log_step(run, plan, progress, metrics, result, rate, logged, vitals)
            shown = logged.at
        elif (now := run.clock()) - shown > SILENT_SECONDS:
            show_step(run, plan, progress, result, logged, now)
            shown = now
        improved = False
        if evaluating := is_due(plan, progress.step, train.eval_interval):
            progress, improved = evaluate_now(run, progress, metrics, result)
            # the only place where the length of a run changes
            plan = replan_total_steps(run, plan, progress.step, metrics)
        # after replanning, which may end the run here
        at_end = progress.step >= plan.total_steps
        # the best must be saved when it is found: a few steps later its weights are gone
        saving = improved or at_end or stopping or is_due(plan, progress.step, train.checkpoint_interval)
        if saving or (train.save_every_epoch and ends_epoch(batches, progress.step)):
            progress = save_now(run, plan, progress, metrics, batches)
        if evaluating or saving:
            logged = Logged(progress.step, run.clock())  # tokens/s leaves out evaluating and saving
        if stopping and not at_end:
            raise Stopped(
                stopping,
                f"stopped by a signal at step {progress.step:,}; saved",
                where=str(run.folder),
                hint="the same command resumes from here",
            )
    return plan, progress


def is_due(plan: StepSchedule, step: int, interval: int | None) -> bool:
    """Whether it is time for what is done every ``interval`` steps and at the end."""
    # the end as it was planned when this step was done: a later replan must not change what was due here
    return step % (interval or 1) == 0 or step >= plan.total_steps_before(step)


def loss_module(run: Run) -> nn.Module:
    """The model's loss, shared among ranks and compiled where asked."""
    run.model.use_attention(run.recipe.train.attention or "sdpa")
    run.model.train()
    module = run.world.wrap_ddp(preference_loss(run) or Loss(run.model))
    if run.recipe.train.compile:
        # static shapes: with dynamic ones the kernel would depend on which shape came first, and a resume
        # that begins with another window length would compute other bits
        module.compile(dynamic=False)
    return module


def check_finite_and_update_loss_scale(
    run: Run, progress: Progress, result: StepResult, metrics: Metrics
) -> Progress:
    """Stop at a number that is not finite; a float16 gradient that overflows only halves the loss scale."""
    if run.recipe.train.precision != "float16":
        require_finite(run, progress.step, loss=result.loss, gradient_norm=result.grad_norm)
        return progress
    require_finite(run, progress.step, loss=result.loss)
    scale = LossScale(progress.loss_scale, progress.good_steps).after(not result.updated)
    if not result.updated:
        metrics.write("overflow", step=progress.step + 1, loss_scale=scale.factor)
    # below 1 scaling only loses precision: the gradient itself is not finite, not its scaled copy
    if scale.factor < 1:
        require_finite(run, progress.step, gradient_norm=result.grad_norm)
    return replace(progress, loss_scale=scale.factor, good_steps=scale.good_steps)


def ends_epoch(batches: BatchSource, step: int) -> bool:
    """Whether the update to ``step`` completed an epoch."""
    return batches.epochs_after(step) > batches.epochs_after(step - 1)


def count_step(run: Run, progress: Progress, batches: BatchSource) -> Progress:
    """Count the step that was just done."""
    tokens = progress.tokens + batches.targets_in(progress.step)
    return replace(progress, step=progress.step + 1, tokens=tokens, elapsed_s=run.elapsed())


def finish(run: Run, progress: Progress) -> None:
    """Write the last row of the metrics and the link ``final``, unless they are there already."""
    if not run.world.is_main:
        return
    # what a kill right after the last save left undone: old checkpoints, names of epochs
    tidy(run, progress, run.batches)
    if run.recipe.train.save_every_epoch:
        storage.point(run.folder / "final", checkpoint_folder(run.folder, progress.step))
    rows = read_metrics(run.folder)
    if not (rows and rows[-1]["event"] == "end"):
        with run.saved_weights():
            stops = {"stop_rate": share} if (share := stop_rate(run)) is not None else {}
        with Metrics(run.folder, step=progress.step) as metrics:
            metrics.write("end", step=progress.step, elapsed_s=round(progress.elapsed_s, 3), **stops)


def log_run_start(run: Run, step: int, plan: StepSchedule, metrics: Metrics) -> None:
    """The first row of the metrics, or a note that the run goes on; and one where it becomes slower."""
    if step:
        metrics.write("resume", step=step, planned_steps=plan.total_steps_before(step + 1))
    else:
        log_first_row(run, plan, metrics)
    known = [row for row in read_metrics(run.folder) if row["event"] == "plan" and row["step"] == step]
    for slow in () if any("rate_factor" in row for row in known) else plan.slowdowns:
        if slow.from_step == step:
            metrics.write(
                "plan", step=step, horizon=slow.total_steps, rate_factor=slow.rate_factor, reason=slow.reason
            )


def log_first_row(run: Run, plan: StepSchedule, metrics: Metrics) -> None:
    """The baselines; and what is known before learning, where that is something."""
    lines = {f"{name}_bits_per_char": value for name, value in asdict(run.lines).items()}
    if run.prepared.is_lossy:
        lines["lossy"] = True
    facts = lines | (facts_of_run(run, plan) if run.world.is_main else {})
    metrics.write("start", schema=1, **{name: v for name, v in facts.items() if v is not None})
    shown = ", ".join(f"{name} {value:.2f}" for name, value in asdict(run.lines).items() if value)
    run.console.print(f"baselines  bits per character of the held-out text: {shown}")
    if run.recipe.finetune.method is not None:  # what it knew, and did not know, before
        log_evaluation(run, 0, measure_now(run), metrics)


def require_finite(run: Run, step: int, **values: float) -> None:
    """Stop before a number that is not finite can be saved."""
    if all(math.isfinite(value) for value in values.values()):
        return
    newest = next(newest_first(run.folder), None)
    said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())
    raise DivergedError(
        f"{said} after step {step}",
        where=f"{run.folder} (the last checkpoint, {newest.name if newest else 'none'}, is sound)",
        hint=f"lower optim.learning_rate={run.recipe.optim.learning_rate} or set train.precision=float32,"
        " in a new folder (--out)",
    )


def log_step(
    run: Run, plan: StepSchedule, progress: Progress, metrics: Metrics, result: StepResult, rate: float,
    logged: Logged, vitals: Vitals,
) -> Logged:  # fmt: skip
    """Write a ``train`` row and update the live line; returns the point to count speed from next."""
    step, now = progress.step, run.clock()
    speed, experts = show_step(run, plan, progress, result, logged, now), busiest_expert(result)
    metrics.write(
        # loss_hex has all bits of the loss: two runs can be compared exactly
        "train", step=step, loss=result.loss, loss_hex=result.loss.hex(), lr=rate,
        grad_norm=result.grad_norm if result.updated else None, tokens=progress.tokens,
        tokens_per_s=round(speed, 1), elapsed_s=round(progress.elapsed_s, 3),
        **experts, **vitals.row(result, now - logged.at),
    )  # fmt: skip
    return Logged(step, now)


def show_step(
    run: Run, plan: StepSchedule, progress: Progress, result: StepResult, logged: Logged, now: float
) -> float:
    """Update the live line; returns the tokens per second since what was logged last."""
    step = progress.step
    tokens = (step - logged.step) * run.recipe.train.batch_size * run.model.config.block_size
    speed = tokens / max(now - logged.at, 1e-9)
    # nats per token → bits per character: divide by ln 2 and by characters per token
    bits = result.loss / math.log(2) / run.prepared.shards.manifest.splits.train.characters_per_token
    experts = "".join(f"  busiest expert {load:.2f}x" for load in busiest_expert(result).values())
    # mean time of all steps, pauses included, times the steps left
    left = progress.elapsed_s / step * (plan.total_steps - step)
    run.console.status(
        f"step {step:,}/{plan.total_steps:,}  loss {result.loss:.3f}  {bits:.2f} bits/char"
        f"  {speed:,.0f} tokens/s  {span(left)} left{experts}"
    )
    return speed


def busiest_expert(result: StepResult) -> dict[str, float]:
    """Load of the busiest expert in the last step, relative to the mean load of its layer."""
    if result.loads is None:
        return {}
    return {"busiest_expert": float((result.loads / result.loads.mean(1, keepdim=True)).max())}


def log_experts(step: int, metrics: Metrics, result: StepResult) -> None:
    """The load of every expert in the last step relative to the mean, 1 if balanced; a row for each layer."""
    for layer, loads in enumerate(() if result.loads is None else result.loads):
        shares = [round(share, 3) for share in (loads / loads.mean()).tolist()]
        metrics.write("experts", step=step, layer=layer, load=shares)


def evaluate_now(run: Run, progress: Progress, metrics: Metrics, result: StepResult) -> tuple[Progress, bool]:
    """Evaluate on the validation text, and write a sample; True if the loss is the best so far."""
    step = progress.step
    log_experts(step, metrics, result)
    live = measure_now(run) if run.average is not None else None
    with run.saved_weights():
        found = measure_now(run)
        # before it is compared: NaN < best is False, and training would go on for nothing
        require_finite(run, step, validation_loss=found.loss)
        log_evaluation(run, step, found, metrics, live)
        write_sample(run, step, metrics)
    improved = progress.best_val_loss is None or found.loss < progress.best_val_loss
    progress = replace(progress, val_loss=found.loss, val_bits_per_char=found.bits_per_char)
    if improved:
        progress = replace(
            progress, best_step=step, best_val_loss=found.loss,
            best_val_bits_per_char=found.bits_per_char,
        )  # fmt: skip
    return progress, improved


def replan_total_steps(run: Run, plan: StepSchedule, step: int, metrics: Metrics) -> StepSchedule:
    """Plan a run of ``minutes`` to end with the steps that still fit; record the change before it counts."""
    train = run.recipe.train
    if train.minutes is None or step >= plan.total_steps_before(step):
        return plan
    # a segment recorded at this step before a restart stays: a new estimate would give other learning rates
    if plan.segments[-1].from_step < step:
        elapsed = run.elapsed()
        # steps that fit = time left / mean time of a step
        fitting = max(int((train.minutes * 60 - elapsed) / (elapsed / step)), 0)
        # clocks of ranks differ, their plans must not
        total_steps = run.world.all_reduce_max(min(step + fitting, run.step_limit or step + fitting))
        if len(plan.segments) == 1 and total_steps < MUCH_SHORTER * plan.total_steps:
            run.console.warn(
                f"the machine is slower than measured: {total_steps:,} steps in place of {plan.total_steps:,}"
                f" fit into {train.minutes:g} minutes"
            )
        plan = plan.replanned(step, total_steps)
        if run.world.is_main:
            storage.write_json(run.folder / "plan.json", plan.as_json())
    if segment := plan.segment_from(step):
        # also on replay: the rows beyond the checkpoint were moved away
        metrics.write("plan", step=step, horizon=segment.total_steps)
    return plan


def name_epochs(run: Run, last_step: int, batches: BatchSource) -> None:
    """Link epochs/N to the checkpoint that ends epoch N."""
    # looks at all checkpoints, not at the one just saved: a kill may have come between saving and naming
    for checkpoint in newest_first(run.folder):
        step = step_of(checkpoint)
        name = run.folder / "epochs" / str(batches.epochs_after(step))
        if step <= last_step and ends_epoch(batches, step) and not name.exists():
            storage.point(name, checkpoint)


def save_now(
    run: Run, plan: StepSchedule, progress: Progress, metrics: Metrics, batches: BatchSource
) -> Progress:
    """Commit a checkpoint, let ``model`` point to the best, delete what is too old."""
    progress = replace(progress, elapsed_s=run.elapsed())
    if not run.world.is_main:
        return progress
    # row first, checkpoint after: if a kill comes between them, resume rewinds to the checkpoint before, and
    # takes the row away with it; the other way round it would be missing for good
    metrics.write("checkpoint", step=progress.step)
    metrics.flush()
    # the allocator keeps the blocks of a step's activations, which saving, with other sizes, cannot reuse
    return_freed_memory()
    with run.saved_weights() as live:
        checkpoint = save_checkpoint(
            run.folder, progress, run.model, run.prepared.tokenizer,
            run.optimizer.tensors(run.model) | live, environment(), bound(run.recipe, plan),
            run.prepared.chat.text if run.prepared.chat else None,
            run.base,
        )  # fmt: skip
    # commit, then link, then delete: at every moment `model` leads to a whole checkpoint
    point_to_best(run, progress, checkpoint)
    tidy(run, progress, batches)
    return progress


def tidy(run: Run, progress: Progress, batches: BatchSource) -> None:
    """Name the checkpoints that end an epoch, and delete those that are too old."""
    if run.recipe.train.save_every_epoch:
        name_epochs(run, progress.step, batches)
    named = {link.resolve() for link in (run.folder / "final", *run.folder.glob("epochs/*"))}

    def is_kept(folder: Path) -> bool:
        return step_of(folder) == progress.best_step or folder.resolve() in named

    rotate(run.folder, progress.step, run.recipe.train.keep_last, is_kept)

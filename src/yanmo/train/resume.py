"""Where an opened run stands: its newest whole checkpoint, or the weights it begins with; and a later end.

    restore      weights, optimizer and counters of the newest whole checkpoint, if there is one
    extend_run   a later end, if one is asked for
    take_back    the checkpoint before a loss that is not finite

In: a :class:`Run`. Out: its state, a :class:`StepSchedule` and a :class:`Progress`, which only the loop of
``trainer.py`` advances.
"""

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from yanmo.checkpoint.folder import Progress, load_model, load_trained, load_training, newest_first
from yanmo.checkpoint.step_schedule import StepSchedule
from yanmo.core import storage
from yanmo.core.console import Console
from yanmo.core.errors import CheckpointError, DivergedError
from yanmo.model.lora import is_adapted
from yanmo.parallel.environment import environment
from yanmo.settings.recipe import lengthened, to_toml, with_values
from yanmo.settings.schema import Recipe
from yanmo.train.base import give_base_weights, require_same_base
from yanmo.train.binding import lengths_of
from yanmo.train.metrics import rewind, set_damaged_aside
from yanmo.train.optim import build_optimizer
from yanmo.train.run import Run

RATE_FACTOR = 0.5
"""What the learning rate is multiplied by after a loss that is not finite."""
FIRST_LOSS_SCALE = 65536.0
"""The loss scale of float16 at first, 2^16 as in torch: too large, and halved within a few steps."""


def restore(run: Run) -> tuple[Run, Progress]:
    """Put back the newest whole checkpoint; say loudly what had to be passed over."""
    checkpoint = newest_whole(run.folder, run.console)
    if checkpoint is None:
        init_weights(run)
        if run.average is not None:
            run.average.take()
        if run.world.is_main:
            # a run killed before its first checkpoint begins again, and so do its metrics
            rewind(run.folder, -1)
        return run, Progress(loss_scale=FIRST_LOSS_SCALE if run.recipe.train.precision == "float16" else 1.0)
    progress, tensors, before = load_training(checkpoint)
    restore_weights(run, checkpoint, tensors)
    if run.average is not None:
        run.average.take()  # what is saved
        load_trained(run.model, tensors)
    run.optimizer.load(run.model, tensors)
    # a kill between a commit and its link leaves `model` one checkpoint behind
    point_to_best(run, progress, checkpoint)
    here = environment()
    for name, then in before.items():
        now = here.get(name, "not there")
        if now != then:
            run.console.warn(f"{name} was {then}, is now {now}: the last bits of results may differ")
    # train.minutes counts training time, not the pause between kill and resume
    return replace(run, clock_start=run.clock() - progress.elapsed_s), progress


def take_back(run: Run, plan: StepSchedule, error: DivergedError) -> tuple[Run, StepSchedule, Progress]:
    """The run at its newest whole checkpoint, or its beginning, with half the learning rate from there on.

    Numbers that are not finite are in its weights and moments: nothing of them stays.
    """
    optimizer = build_optimizer(run.model, run.recipe.optim, run.recipe.train.precision)
    run, progress = restore(replace(run, optimizer=optimizer))
    plan = plan.slowed(progress.step, RATE_FACTOR, error.what)
    if run.world.is_main:
        # before a step is done again: a resume finds the same rate
        storage.write_json(run.folder / "plan.json", plan.as_json())
        rewind(run.folder, progress.step if progress.step else -1)
    run.console.warn(
        f"{error.what}: back to step {progress.step:,}, and from there on with half the learning rate;"
        " the next time the run ends"
    )
    return run, plan, progress


def init_weights(run: Run) -> None:
    """Weights of a run without checkpoints: drawn from the seed, or those of ``model.init``."""
    if run.recipe.model.init is None:
        run.model.initialise(run.recipe.train.seed, run.recipe.model.zero_projections)
        return
    require_same_base(run.recipe, run.folder)
    give_base_weights(run.model, run.recipe, run.world.device)


def restore_weights(run: Run, checkpoint: Path, tensors: dict[str, Tensor]) -> None:
    """Weights of a checkpoint; what is frozen is read from the base, which has it exactly."""
    if is_adapted(run.model):
        init_weights(run)
        load_trained(run.model, tensors)
        return
    weights = load_model(checkpoint, verify=False).state_dict()  # newest_whole has verified it
    try:
        run.model.load_state_dict(weights)
    except RuntimeError as error:  # only for checkpoints that did not yet record their recipe
        raise CheckpointError(
            f"the weights of {checkpoint.name} have another shape than [model] of recipe.toml says",
            where=str(run.folder / "recipe.toml"),
            hint="change the shape back to that of the run",
        ) from error


def extend_run(run: Run, plan: StepSchedule, progress: Progress, asked: Recipe) -> tuple[Run, StepSchedule]:
    """Plan a later end if more steps, epochs or minutes are asked for than the run was made with.

    From here on the learning rate is that of a run planned for this length from the beginning.
    """
    greater = lengthened(asked, run.recipe)
    if not greater:
        return run, plan
    longer = replace(run, recipe=with_values(run.recipe, greater, "a longer run"))
    planned_s = (run.recipe.train.minutes or 1) * 60 / plan.total_steps
    total_steps = extended_total_steps(longer, progress, planned_s)
    extended = StepSchedule.first(total_steps, lengths_of(longer.recipe))
    for slow in plan.slowdowns:
        extended = extended.slowed(slow.from_step, slow.rate_factor, slow.reason or "")
    if run.world.is_main:
        # the plan first, with its lengths: after a kill between the two, as_long_as lengthens the recipe too
        storage.write_json(run.folder / "plan.json", extended.as_json())
        storage.write_atomic(run.folder / "recipe.toml", to_toml(longer.recipe))
    run.console.print(f"the run of {plan.total_steps:,} steps goes on to step {total_steps:,}")
    return longer, extended


def extended_total_steps(longer: Run, progress: Progress, planned_s: float) -> int:
    """The step at which a longer run ends; ``planned_s`` is the time of a step if none has been done."""
    step, elapsed, train = progress.step, progress.elapsed_s, longer.recipe.train
    limits = [] if longer.step_limit is None else [longer.step_limit]
    if train.minutes is not None:
        # a plain mean over the run: evaluations and saving are in it, as they will be in the rest
        seconds_per_step = elapsed / step if step else planned_s
        fitting = (train.minutes * 60 - elapsed) / seconds_per_step
        limits.append(step + max(int(fitting), 1))
    return min(limits)


def resume_metrics(run: Run, step: int, total_steps: int) -> None:
    """Move the metrics of steps that will be done again out of the way."""
    if step >= total_steps and run.world.is_main:
        set_damaged_aside(run.folder)
    if not 0 < step < total_steps:
        return
    if run.world.is_main:
        rewind(run.folder, step)
    run.console.print(f"resuming {run.folder} at step {step:,} of {total_steps:,}")


def newest_whole(folder: Path, console: Console) -> Path | None:
    """The newest checkpoint whose files are what its manifest says.

    Raises:
        CheckpointError: there are checkpoints and none is whole.
    """
    damaged = None
    for checkpoint in newest_first(folder):
        try:
            storage.verify_folder(checkpoint)
            return checkpoint
        except CheckpointError as error:
            damaged = error
            console.warn(f"{checkpoint.name} is skipped: {error.what}")
    if damaged is not None:
        raise CheckpointError(
            f"no checkpoint is intact; the last: {damaged.what}",
            where=str(folder / "checkpoints"),
            hint="restore the files, or delete the run folder to start again",
        )
    return None


def point_to_best(run: Run, progress: Progress, checkpoint: Path) -> None:
    """Let the link ``model`` lead to the best checkpoint, or to ``checkpoint`` where there is no best yet."""
    if not run.world.is_main:
        return
    best = checkpoint.with_name(f"step-{progress.best_step or 0:08d}")
    storage.point(run.folder / "model", best if best.exists() else checkpoint)

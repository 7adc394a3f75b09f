"""A run's recipe and plan must be those of its checkpoints: another digit in either trains another model.

In: the recipe and plan in a run folder, and what a checkpoint recorded of those it was made with. Out:
nothing, or a :class:`CheckpointError` that names the key. Intervals, keep_last and [sample] may change;
lengths may grow; running out of memory halves the micro-batch; corpus.json binds the texts, the vocabulary
and the initial weights.
"""

from pathlib import Path
from typing import Any

from yanmo.checkpoint.folder import State, newest_first, read_state
from yanmo.checkpoint.step_schedule import ScheduleRecord, StepSchedule
from yanmo.core.errors import CheckpointError
from yanmo.core.records import read_record
from yanmo.core.storage import verify_folder
from yanmo.settings.recipe import get, settings
from yanmo.settings.schema import FREE_ON_RESUME, LENGTHS, MICRO_BATCH, Recipe

BOUND_ELSEWHERE = ("corpus.", "tokenizer.", "data.held_out", "model.init")
STATE = "training/state.json"


def bound(recipe: Recipe, plan: StepSchedule) -> dict[str, Any]:
    """What a checkpoint records of the recipe and the plan it was made with."""
    values = {name: get(recipe, name) for name in bound_keys()}
    return {"recipe": values, "plan": plan.as_json()}


def bound_keys() -> list[str]:
    """The settings that change numbers, except lengths."""
    free = (*FREE_ON_RESUME, *LENGTHS, *BOUND_ELSEWHERE)
    return [name for name, _ in settings() if not name.startswith(free)]


def lengths_of(recipe: Recipe) -> tuple[float | None, ...]:
    """The lengths that a recipe names: steps, epochs, minutes."""
    return tuple(get(recipe, name) for name in LENGTHS)


def read_plan(run: Path) -> StepSchedule:
    """The plan of a run."""
    return StepSchedule.of(read_record(run / "plan.json", ScheduleRecord))


def require_bound(run: Path, recipe: Recipe, plan: StepSchedule) -> None:
    """Refuse a recipe or plan that is not the one of the newest checkpoint that can say so.

    Raises:
        CheckpointError: a key differs.
    """
    for checkpoint in newest_first(run):
        try:
            # only the small state.json: hashing gigabytes of weights would delay every start
            verify_folder(checkpoint, [STATE])
            state = read_state(checkpoint)
        except CheckpointError:  # skipped here; restoring the weights reports it
            continue
        _require_recipe(run / "recipe.toml", recipe, state, checkpoint)
        _require_plan(run / "plan.json", plan, state, checkpoint)
        return


def require_total_steps(run: Path, recipe: Recipe, plan: StepSchedule, limit: int | None) -> None:
    """Refuse a plan of another length than the recipe's.

    Args:
        run: the folder of both.
        recipe: with the lengths asked for.
        plan: with the total steps planned.
        limit: the last step that max_steps and epochs allow, if they are given.

    Raises:
        CheckpointError: the plan goes beyond the limit, or ends before it in a run without ``minutes``.
    """
    # a run of minutes may end before the limit, when its time is over
    if (
        limit is None
        or plan.total_steps == limit
        or (plan.total_steps < limit and recipe.train.minutes is not None)
    ):
        return
    raise CheckpointError(
        f"plan.json ends at step {plan.total_steps:,}, but recipe.toml allows {limit:,}",
        where=str(run),
        hint="put back what was changed by hand; a longer run is asked for by train.max_steps=… on the"
        " command line",
    )


def _require_recipe(path: Path, recipe: Recipe, state: State, checkpoint: Path) -> None:
    # checkpoints written before recipes were recorded have none; a key that is no longer bound is skipped
    for name, then in (state.recipe or {}).items():
        now = get(recipe, name) if name in bound_keys() else then
        if now == then or (name == MICRO_BATCH and _is_halved(then, now)):
            continue
        raise CheckpointError(
            f"recipe.toml says {name}={now}, and {checkpoint.name} was made with {then}",
            where=str(path),
            hint=f"change it back to {then}, or train in another folder with --out",
        )


def _is_halved(then: Any, now: Any) -> bool:
    return isinstance(then, int) and isinstance(now, int) and 0 < now <= then // 2


def _require_plan(path: Path, plan: StepSchedule, state: State, checkpoint: Path) -> None:
    if state.plan is None:
        return
    then, step = StepSchedule.of(state.plan), state.progress.step
    # a longer run begins a new plan (extend_run), so only plans for the same lengths must agree, and only
    # up to the step of the checkpoint: a replan after it may have been lost or be done again
    if then.lengths == plan.lengths and not plan.agrees_until(then, step):
        raise CheckpointError(
            f"plan.json has other aims up to step {step:,} than {checkpoint.name} was made with",
            where=str(path),
            hint="restore it from a copy, or delete the run folder to start again",
        )

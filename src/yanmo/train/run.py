"""A run that is open: a folder made now, with every decision taken and written down, or found again.

    open_run     a new folder: prepare the text, decide, write the recipe — or the recorded one
    restore      weights, optimizer and counters of the newest whole checkpoint, if there is one

In: a recipe and a folder whose lock is held. Out: a :class:`Run`, ready for the loop of ``trainer.py``.
"""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from yanmo import storage
from yanmo.checkpoint import Progress, load_model, load_training, newest_first
from yanmo.config import Recipe, decide, differences, load_recipe, resumed, to_toml
from yanmo.data.prepare import Prepared, prepare
from yanmo.environment import environment
from yanmo.errors import CheckpointError, ConfigError
from yanmo.evaluate import ReferenceLines, reference_lines
from yanmo.generate import encode_prompt
from yanmo.log import Voice
from yanmo.model.gpt import GPT, GPTConfig
from yanmo.train.distributed import World, autocast_for, find_device
from yanmo.train.metrics import rewind
from yanmo.train.optim import build_optimizer, load_optimizer_tensors
from yanmo.train.plan import decide_device, decide_length, introduction, measure
from yanmo.train.schedule import Plan
from yanmo.train.step import StepSettings

OWN_FILES = ("run.lock", "recipe.toml", "plan.json", "corpus.json")
"""What a run folder may hold before its recipe is written."""


@dataclass
class Run:
    """A run that is open: what does not change while it trains, its tensors, and its counters."""

    folder: Path
    recipe: Recipe
    prepared: Prepared
    lines: ReferenceLines
    world: World
    voice: Voice
    model: GPT
    optimizer: torch.optim.AdamW
    plan: Plan
    progress: Progress
    clock_start: float

    @property
    def autocast(self) -> Callable[[], AbstractContextManager[None]]:
        """The context of forward passes."""
        return autocast_for(self.world.device, self.recipe.train.precision)

    @property
    def settings(self) -> StepSettings:
        """What a training step needs."""
        train = self.recipe.train
        return StepSettings(
            seed=train.seed,
            batch_size=train.batch_size,
            micro_batch_size=train.micro_batch_size or train.batch_size,
            grad_clip=self.recipe.optim.grad_clip,
            autocast=self.autocast,
        )

    @property
    def characters_per_token(self) -> float:
        """Of the training text; turns nats per token into bits per character."""
        part = self.prepared.shards.manifest["splits"]["train"]
        return float(max(part["characters"], 1) / part["tokens"])

    def due(self, interval: int | None) -> bool:
        """Whether something done every ``interval`` steps, and at the end, is to be done now."""
        step = self.progress.step
        return step % (interval or 1) == 0 or step >= self.plan.horizon_before(step)

    def elapsed(self) -> float:
        """Seconds of training so far, those before a restart included."""
        return time.monotonic() - self.clock_start


def check_folder(folder: Path) -> None:
    """Refuse to make a run inside a folder that holds something else."""
    if folder.is_dir() and not (folder / "recipe.toml").exists():
        strangers = [p.name for p in folder.iterdir() if p.name not in OWN_FILES and p.name[0] != "."]
        if strangers:
            raise ConfigError(
                f"the folder is not a run: it holds {strangers[0]}",
                where=str(folder),
                mend="name a new folder with --out",
            )


def open_run(asked: Recipe, folder: Path, voice: Voice) -> Run:
    """The run in ``folder``: made now, or as recorded there."""
    recorded = folder / "recipe.toml"
    if recorded.exists():
        recipe = _recorded_recipe(asked, recorded, folder)
        world = World(find_device(recipe.train.device))
        _configure_torch(recipe)
        prepared = prepare(recipe.corpus, recipe.tokenizer, recipe.data, recipe.model.block_size, voice)
        _require_same_corpus(prepared, read_record(folder / "corpus.json"), folder)
        plan = Plan.from_json(read_record(folder / "plan.json"))
    else:
        recipe, prepared, plan, world = _make_run(asked, folder, voice)
    vocab_size = prepared.tokenizer.vocab_size
    encode_prompt(prepared.tokenizer, recipe.sample.prompt or "", recipe.model.block_size)  # it fits
    lines = reference_lines(prepared.shards, vocab_size, prepared.tokenizer.end_of_text)
    model = GPT(GPTConfig.of(recipe.model, vocab_size))
    model.initialise(recipe.train.seed)
    return Run(
        folder, recipe, prepared, lines, world, voice, model.to(world.device),
        build_optimizer(model, recipe.optim), plan, Progress(), time.monotonic(),
    )  # fmt: skip


def _make_run(asked: Recipe, folder: Path, voice: Voice) -> tuple[Recipe, Prepared, Plan, World]:
    """Prepare the text, take every decision, and write them down; recipe.toml last."""
    recipe = decide(asked, decide_device(asked))
    world = World(torch.device(recipe.train.device or "cpu"))
    _configure_torch(recipe)
    prepared = prepare(recipe.corpus, recipe.tokenizer, recipe.data, recipe.model.block_size, voice)
    config = GPTConfig.of(recipe.model, prepared.tokenizer.vocab_size)
    voice.live("measuring what is fastest here")
    measured, speed = measure(recipe, config)
    voice.settle()
    horizon, length = decide_length(recipe, speed, len(prepared.shards.val))
    opening = {
        "sample.prompt": prepared.openings(1, config.block_size)[0],
        "data.val_fraction": prepared.val_fraction,
    }
    recipe = decide(recipe, measured | length | opening)
    plan = Plan.first(horizon)
    storage.write_json(folder / "corpus.json", prepared.shards.manifest)
    storage.write_json(folder / "plan.json", plan.as_json())
    storage.write_atomic(folder / "recipe.toml", to_toml(recipe))
    for line in introduction(recipe, prepared, config, horizon):
        voice.say(line)
    return recipe, prepared, plan, world


def _recorded_recipe(asked: Recipe, recorded: Path, folder: Path) -> Recipe:
    recipe = load_recipe(recorded)
    changed = differences(asked, recipe)
    if changed:
        raise ConfigError(
            "this folder holds a run of another recipe: " + "; ".join(changed),
            where=str(folder),
            mend="give the same settings to resume it, or train into another folder with --out",
        )
    again = resumed(asked, recipe)
    if again != recipe:
        storage.write_atomic(recorded, to_toml(again))
    return again


def _require_same_corpus(prepared: Prepared, recorded: dict[str, Any], folder: Path) -> None:
    now = prepared.shards.manifest
    for name in ("corpus", "tokenizer", "splits"):
        if recorded.get(name) != now[name]:
            raise ConfigError(
                f"the {name} is not the one this run was made with ({recorded.get(name)}, now {now[name]})",
                where=str(folder),
                mend="put the old text back, or train into another folder with --out",
            )


def read_record(path: Path) -> dict[str, Any]:
    """A JSON file that every run has.

    Raises:
        CheckpointError: it is missing or torn.
    """
    try:
        value: dict[str, Any] = storage.read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"the run's {path.name} is missing or torn",
            where=str(path.parent),
            mend="restore it from a copy, or delete the run folder to begin again",
        ) from error
    return value


def _configure_torch(recipe: Recipe) -> None:
    torch.set_num_threads(recipe.train.threads or torch.get_num_threads())
    if recipe.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(recipe.train.deterministic)


def restore(run: Run) -> None:
    """Put back the newest whole checkpoint; say loudly what had to be passed over."""
    checkpoint = newest_whole(run.folder, run.voice)
    if checkpoint is None:
        rewind(run.folder, -1)
        return
    weights = load_model(checkpoint).state_dict()
    run.model.load_state_dict(weights)
    progress, tensors, before = load_training(checkpoint)
    load_optimizer_tensors(run.model, run.optimizer, tensors)
    run.progress = progress
    run.clock_start = time.monotonic() - progress.elapsed_s
    point_to_best(run, checkpoint)
    if progress.step >= run.plan.horizon:
        return
    rewind(run.folder, progress.step)
    run.voice.say(f"resuming {run.folder} at step {progress.step:,} of {run.plan.horizon:,}")
    now = environment()
    for name in before:
        if before[name] != now.get(name):
            run.voice.warn(
                f"{name} was {before[name]}, is {now.get(name)}: the last bits of results may differ"
            )


def newest_whole(folder: Path, voice: Voice) -> Path | None:
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
            voice.warn(f"{checkpoint.name} is passed over: {error.what}")
    if damaged is not None:
        raise CheckpointError(
            f"no checkpoint is whole; the last: {damaged.what}",
            where=str(folder / "checkpoints"),
            mend="restore the files, or delete the run folder to begin again",
        )
    return None


def point_to_best(run: Run, checkpoint: Path) -> None:
    """Let ``model`` lead to the best checkpoint, or to the one at hand."""
    if not run.world.is_main:
        return
    best = checkpoint.with_name(f"step-{run.progress.best_step or 0:08d}")
    storage.point(run.folder / "model", best if best.exists() else checkpoint)

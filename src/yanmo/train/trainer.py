"""A run, from an empty folder to a model that writes: set-up, the loop, resume.

    train(recipe, folder)
      open_run     a new folder: prepare the text, decide, write the recipe — or the recorded one
      restore      the newest whole checkpoint, if there is one
      run_loop     step, log, evaluate, save
      Result       where it stands

Everything a step needs is a function of the recipe, the data, the seed and the step's number; so what
``restore`` puts back is weights, optimizer and counters, and nothing else.
"""

import math
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from yanmo import storage
from yanmo.checkpoint import (
    Progress,
    load_model,
    load_training,
    newest_first,
    rotate,
    save_checkpoint,
    step_of,
)
from yanmo.config import Recipe, decide, differences, load_recipe, resumed, to_toml
from yanmo.data.batches import Batches
from yanmo.data.prepare import Prepared, prepare
from yanmo.environment import environment
from yanmo.errors import CheckpointError, ConfigError, DivergedError, Stopped
from yanmo.evaluate import ReferenceLines, evaluate, reference_lines
from yanmo.generate import write_all
from yanmo.log import Voice, span
from yanmo.model.gpt import GPT, GPTConfig, count_parameters
from yanmo.train.distributed import World, autocast_for, find_device
from yanmo.train.metrics import Metrics, read_metrics, rewind
from yanmo.train.optim import (
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    set_learning_rate,
)
from yanmo.train.plan import decide_device, decide_length, measure
from yanmo.train.schedule import Plan, learning_rate_at
from yanmo.train.signals import StopSignal
from yanmo.train.step import StepResult, StepSettings, training_step

PROMPT_CHARACTERS = 12


@dataclass(frozen=True)
class Result:
    """Where a run stands."""

    folder: Path
    progress: Progress
    horizon: int
    lines: ReferenceLines
    openings: tuple[str, ...]
    """Three openings of lines of the held-out text."""

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "run": str(self.folder),
            "model": str(self.folder / "model"),
            "steps": self.horizon,
            **asdict(self.progress),
            "reference_bits_per_char": asdict(self.lines),
        }


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

    def elapsed(self) -> float:
        """Seconds of training so far, those before a restart included."""
        return time.monotonic() - self.clock_start


def train(recipe: Recipe, folder: Path, voice: Voice) -> Result:
    """Train, resume, or, if the run is finished, say where it stands.

    Raises:
        YanmoError: see ``errors.py``; the run folder is whole after each of them.
    """
    check_folder(folder)
    with storage.RunLock(folder):
        storage.remove_leftovers(folder)
        storage.remove_leftovers(folder / "checkpoints")
        run = open_run(recipe, folder, voice)
        restore(run)
        if run.progress.step < run.plan.horizon:
            with StopSignal() as stop:
                run_loop(run, stop)
        else:
            finish(run)
            voice.say(f"{folder} is finished ({run.progress.step:,} steps)")
        openings = tuple(openings_of(run.prepared, 3))
        return Result(folder, run.progress, run.plan.horizon, run.lines, openings)


# -- set-up -----------------------------------------------------------------------------------


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


OWN_FILES = ("run.lock", "recipe.toml", "plan.json", "corpus.json")


def open_run(asked: Recipe, folder: Path, voice: Voice) -> Run:
    """The run in ``folder``: made now, or as recorded there."""
    recorded = folder / "recipe.toml"
    if recorded.exists():
        recipe = _recorded_recipe(asked, recorded, folder)
        world = World(find_device(recipe.train.device))
        _configure_torch(recipe)
        prepared = prepare(recipe.corpus, recipe.tokenizer, recipe.data, recipe.model.block_size, voice)
        _require_same_corpus(prepared, folder)
        plan = Plan.from_json(storage.read_json(folder / "plan.json"))
    else:
        recipe, prepared, plan, world = _make_run(asked, folder, voice)
    vocab_size = prepared.tokenizer.vocab_size
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
        "sample.prompt": openings_of(prepared, 1)[0],
        "data.val_fraction": prepared.val_fraction,
    }
    recipe = decide(recipe, measured | length | opening)
    plan = Plan.first(horizon)
    storage.write_json(folder / "corpus.json", prepared.shards.manifest)
    storage.write_json(folder / "plan.json", plan.as_json())
    storage.write_atomic(folder / "recipe.toml", to_toml(recipe))
    introduce(recipe, prepared, config, plan, voice)
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
    return resumed(asked, recipe)


def _require_same_corpus(prepared: Prepared, folder: Path) -> None:
    recorded, now = storage.read_json(folder / "corpus.json"), prepared.shards.manifest
    for name in ("corpus", "tokenizer"):
        if recorded[name] != now[name]:
            raise ConfigError(
                f"the {name} is not the one this run was made with ({recorded[name]}, now {now[name]})",
                where=str(folder),
                mend="put the old text back, or train into another folder with --out",
            )


def _configure_torch(recipe: Recipe) -> None:
    torch.set_num_threads(recipe.train.threads or torch.get_num_threads())
    if recipe.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(recipe.train.deterministic)


def openings_of(prepared: Prepared, count: int) -> list[str]:
    """The first words of lines of the validation text, for samples to continue: the first line's, and
    those of lines further on."""
    tokens, found = prepared.shards.val, []
    for number in range(count):
        start = number * len(tokens) // count
        text = prepared.tokenizer.decode(tokens.slice(start, start + 1000))
        lines = [line.strip() for line in text.split("\n")[1 if number else 0 :] if line.strip()]
        found.append(max(lines[:3], key=len)[:PROMPT_CHARACTERS].rstrip() if lines else "")
    return found


def introduce(recipe: Recipe, prepared: Prepared, config: GPTConfig, plan: Plan, voice: Voice) -> None:
    """Say what will be trained on what, in three lines."""
    split, train = prepared.shards.manifest["splits"], recipe.train
    passes = plan.horizon * train.batch_size * config.block_size / len(prepared.shards.train)
    voice.say(
        f"text   {split['train']['characters'] + split['val']['characters']:,} characters,"
        f" {len(prepared.shards.train):,} training tokens, {len(prepared.shards.val):,} held out"
    )
    voice.say(
        f"model  {recipe.model.family}, {count_parameters(config):,} parameters:"
        f" {config.n_layer} layers, {config.n_head} heads, {config.n_embd} wide,"
        f" window {config.block_size}, vocabulary {config.vocab_size:,}"
    )
    voice.say(
        f"plan   about {plan.horizon:,} steps of {train.batch_size} windows ({passes:.1f} passes) on"
        f" {train.device}, {train.precision}, {train.attention} attention, {train.threads} threads"
    )


# -- resume -----------------------------------------------------------------------------------


def restore(run: Run) -> None:
    """Put back the newest whole checkpoint; say loudly what had to be passed over."""
    checkpoint = newest_whole(run.folder, run.voice)
    if checkpoint is None:
        rewind(run.folder, 0)
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


# -- the loop ---------------------------------------------------------------------------------


def run_loop(run: Run, stop: StopSignal) -> None:
    """Train until the plan's horizon or a signal.

    Raises:
        Stopped: a signal came; the run is saved at its current step.
        DivergedError: loss or gradient is not finite; nothing of that step was kept.
    """
    train, metrics = run.recipe.train, Metrics(run.folder, run.world.is_main, run.progress.step)
    shards, settings = run.prepared.shards, run.settings
    batches = Batches(shards.train, run.model.config.block_size, train.batch_size, train.seed)
    run.model.use_attention(train.attention or "sdpa")
    run.model.train()
    begin(run, metrics)
    logged = (run.progress.step, time.monotonic())
    while run.progress.step < run.plan.horizon:
        step = run.progress.step
        rate = learning_rate_at(step, run.plan, run.recipe.optim)
        set_learning_rate(run.optimizer, rate)
        result = training_step(run.model, run.optimizer, batches, step, settings, run.world)
        require_finite(run, step + 1, loss=result.loss, gradient_norm=result.grad_norm)
        run.progress = replace(
            run.progress, step=step + 1, tokens=run.progress.tokens + batches.targets_in(step),
            elapsed_s=run.elapsed(),
        )  # fmt: skip
        step, last, saved = step + 1, step + 1 >= run.plan.horizon, False
        if last or step % train.log_interval == 0:
            logged = log_step(run, metrics, result, rate, logged)
        if last or step % (train.eval_interval or 1) == 0:
            improved = evaluate_now(run, metrics)
            aim_anew(run, metrics)
            logged = (step, time.monotonic())  # speed is that of training
            last = step >= run.plan.horizon  # time may be up
            if improved or last or step % (train.checkpoint_interval or 1) == 0:
                save_now(run, metrics)
                saved = True
        elif step % (train.checkpoint_interval or 1) == 0:
            save_now(run, metrics)
            saved = True
        if stop.number is not None and not last:
            if not saved:
                save_now(run, metrics)
            metrics.close()
            raise Stopped(
                stop.number, f"stopped by a signal at step {step:,}, and saved",
                where=str(run.folder), mend="the same command goes on from here",
            )  # fmt: skip
    metrics.close()
    finish(run)
    run.voice.settle()


def finish(run: Run) -> None:
    """The last row of the metrics, unless it stands there already."""
    if run.world.is_main and read_metrics(run.folder)[-1]["event"] != "end":
        metrics = Metrics(run.folder, step=run.progress.step)
        metrics.write("end", step=run.progress.step, elapsed_s=round(run.progress.elapsed_s, 3))
        metrics.close()


def begin(run: Run, metrics: Metrics) -> None:
    """The first row of the metrics, or a note that the run goes on."""
    if run.progress.step:
        metrics.write("resume", step=run.progress.step)
        return
    lines = {f"{name}_bits_per_char": value for name, value in asdict(run.lines).items()}
    metrics.write("start", schema=1, **{name: v for name, v in lines.items() if v is not None})
    shown = ", ".join(f"{name} {value:.2f}" for name, value in asdict(run.lines).items() if value)
    run.voice.say(f"lines  bits per character of the held-out text: {shown}")


def require_finite(run: Run, step: int, **values: float) -> None:
    """Stop before a number that is not finite can be saved."""
    if all(math.isfinite(value) for value in values.values()):
        return
    newest = next(newest_first(run.folder), None)
    said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())
    raise DivergedError(
        f"{said} at step {step}",
        where=f"{run.folder} (the last checkpoint, {newest.name if newest else 'none'}, is sound)",
        mend=f"lower optim.learning_rate={run.recipe.optim.learning_rate} or set train.precision=float32,"
        " in a new folder (--out)",
    )


def log_step(
    run: Run, metrics: Metrics, result: StepResult, rate: float, logged: tuple[int, float]
) -> tuple[int, float]:
    """Write a ``train`` row and renew the live line; gives the new (step, time) to count speed from."""
    step, now = run.progress.step, time.monotonic()
    tokens = (step - logged[0]) * run.recipe.train.batch_size * run.model.config.block_size
    speed = tokens / max(now - logged[1], 1e-9)
    metrics.write(
        "train", step=step, loss=result.loss, loss_hex=result.loss.hex(), lr=rate,
        grad_norm=result.grad_norm, tokens=run.progress.tokens, tokens_per_s=round(speed, 1),
        elapsed_s=round(run.progress.elapsed_s, 3),
    )  # fmt: skip
    bits = result.loss / math.log(2) / run.characters_per_token
    left = run.progress.elapsed_s / step * (run.plan.horizon - step)
    run.voice.live(
        f"step {step:,}/{run.plan.horizon:,}  loss {result.loss:.3f}  {bits:.2f} bits/char"
        f"  {speed:,.0f} tokens/s  {span(left)} left"
    )
    return step, now


def evaluate_now(run: Run, metrics: Metrics) -> bool:
    """Loss on the validation text and a sample; True if it is the best so far."""
    part, tokenizer = run.prepared.shards.manifest["splits"]["val"], run.prepared.tokenizer
    found = evaluate(
        run.model, run.prepared.shards.val, part["characters"], tokenizer.end_of_text,
        run.recipe.train.micro_batch_size or 1, run.autocast,
    )  # fmt: skip
    progress, step = run.progress, run.progress.step
    require_finite(run, step, validation_loss=found.loss)
    improved = progress.best_val_loss is None or found.loss < progress.best_val_loss
    run.progress = replace(progress, val_loss=found.loss, val_bits_per_char=found.bits_per_char)
    if improved:
        run.progress = replace(
            run.progress, best_step=step, best_val_loss=found.loss,
            best_val_bits_per_char=found.bits_per_char,
        )  # fmt: skip
    metrics.write(
        "eval", step=step, val_loss=found.loss, val_bits_per_char=found.bits_per_char,
        val_perplexity=found.perplexity,
    )  # fmt: skip
    run.voice.say(
        f"step {step:,}  validation loss {found.loss:.4f}, perplexity {found.perplexity:.1f},"
        f" {found.bits_per_char:.3f} bits/char ({standing(found.bits_per_char, run.lines)})"
    )
    write_sample(run)
    return improved


def standing(bits: float, lines: ReferenceLines) -> str:
    """Where a model stands among the reference lines, in words."""
    if lines.floor is not None and bits < lines.bigram:
        return f"{bits - lines.floor:.2f} above the floor of {lines.floor:.2f}"
    if bits < lines.bigram:
        return f"below the bigram line of {lines.bigram:.2f}"
    if bits < lines.unigram:
        return f"between the unigram line of {lines.unigram:.2f} and the bigram line of {lines.bigram:.2f}"
    return f"above the unigram line of {lines.unigram:.2f}: it does not know the characters yet"


def write_sample(run: Run) -> None:
    """One sample, on the console and in samples/."""
    config = run.recipe.sample.model_copy(update={"num_samples": 1})
    prompt = config.prompt or ""
    run.model.eval()
    text = prompt + write_all(run.model, run.prepared.tokenizer, prompt, config)[0]
    run.model.train()
    if run.world.is_main:
        storage.write_atomic(run.folder / "samples" / f"step-{run.progress.step:08d}.txt", text + "\n")
    run.voice.say("  │ " + text.replace("\n", "\n  │ "), style="cyan")


def aim_anew(run: Run, metrics: Metrics) -> None:
    """A run of ``minutes`` aims at the steps that still fit; the change is written before it counts."""
    train, step = run.recipe.train, run.progress.step
    recorded = run.plan.aims[-1].from_step >= step  # before a restart
    if train.minutes is None or recorded or step >= run.plan.horizon:
        return
    elapsed = run.elapsed()
    left = train.minutes * 60 - elapsed
    horizon = step + max(int(left / (elapsed / step)), 0)
    horizon = min(horizon, train.max_steps or horizon)
    run.plan = run.plan.aimed_anew(step, horizon)
    if run.world.is_main:
        storage.write_json(run.folder / "plan.json", run.plan.as_json())
    metrics.write("plan", step=step, horizon=horizon)


def save_now(run: Run, metrics: Metrics) -> None:
    """Commit a checkpoint, let ``model`` point to the best, delete what is too old."""
    if not run.world.is_main:
        return
    run.progress = replace(run.progress, elapsed_s=run.elapsed())
    checkpoint = save_checkpoint(
        run.folder, run.progress, run.model, run.prepared.tokenizer,
        optimizer_tensors(run.model, run.optimizer), environment(),
    )  # fmt: skip
    point_to_best(run, checkpoint)
    rotate(run.folder, run.recipe.train.keep_last, run.progress.best_step)
    metrics.write("checkpoint", step=step_of(checkpoint))


def point_to_best(run: Run, checkpoint: Path) -> None:
    """Let ``model`` lead to the best checkpoint, or to the one at hand."""
    if not run.world.is_main:
        return
    best = checkpoint.with_name(f"step-{run.progress.best_step or 0:08d}")
    storage.point(run.folder / "model", best if best.exists() else checkpoint)

"""Opening a run: a new folder with every decision taken and recorded, or one that is there already.

In: a recipe and a folder whose lock is held. Out: a :class:`Run`, which is fixed, and how far it is planned.
``resume.py`` then gives it weights, and ``trainer.py`` trains.
"""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from yanmo.checkpoint.folder import read_recipe
from yanmo.checkpoint.step_schedule import StepSchedule
from yanmo.core import storage
from yanmo.core.console import Console
from yanmo.core.errors import CheckpointError, ConfigError, DeviceError
from yanmo.core.records import Manifest, read_record
from yanmo.data.batches import BatchSource, Floats
from yanmo.data.prepare import decide_vocabulary
from yanmo.data.prepared import HeldOut, Prepared, Sides
from yanmo.data.shards import ShardSet
from yanmo.data.text_index import open_index
from yanmo.eval.baselines import NGramBaselines, baselines_of
from yanmo.generate.dialogue import answer_prompt
from yanmo.generate.engine import TextRule
from yanmo.generate.rules import text_rules
from yanmo.generate.text import Say, encode_prompt
from yanmo.model.config import GPTConfig
from yanmo.model.gpt import GPT
from yanmo.model.lora import Adaptation, adapted_model
from yanmo.parallel.distributed import World, autocast_for, find_world
from yanmo.parallel.machine import configure_torch, oom_as_error, physical_memory, return_freed_memory
from yanmo.settings.constraints import check_relations
from yanmo.settings.places import started_in
from yanmo.settings.recipe import (
    decide,
    differences,
    get,
    load_recipe,
    resumed,
    to_toml,
    with_values,
)
from yanmo.settings.schema import LENGTHS, MICRO_BATCH, CorpusConfig, Recipe
from yanmo.text.read.documents import earlier_fingerprint
from yanmo.tokenizer import kind_of
from yanmo.train.average import WeightAverage
from yanmo.train.base import adaptation_of, base_folder, base_model, origin_of, require_same_base
from yanmo.train.binding import lengths_of, read_plan, require_bound, require_total_steps
from yanmo.train.decide import (
    DEFAULT_MINUTES,
    adopt_shape,
    decide_against_overfitting,
    decide_compile,
    decide_device,
    decide_finetune,
    decide_length,
    decide_optimizer,
    decide_packing,
    decide_seq_len_warmup,
    decide_shape,
    require_compiler,
    seconds_of_saving,
    step_limit,
)
from yanmo.train.forecast import Forecast, TextSize, describe, forecast
from yanmo.train.optim import Optimizer, build_optimizer
from yanmo.train.preference import reference_of
from yanmo.train.probe import ALL_TRAINED, Speed, measure, micro_batches, no_room
from yanmo.train.schedule import window_parts
from yanmo.train.step import StepSettings
from yanmo.train.texts import base_text, batches_of, epoch_tokens, kind_of_data, prepare_texts

EXAMPLES = 3
"""Dialogues that are shown before a run."""

OWN_FILES = ("run.lock", "recipe.toml", "plan.json", "corpus.json")
"""What a run folder may hold before its recipe is written."""


@dataclass(frozen=True)
class Run:
    """The fixed part of an open run: its recipe, text, model and optimizer."""

    folder: Path
    recipe: Recipe
    prepared: Prepared
    batches: BatchSource
    held_out: HeldOut
    """Not of pairs."""
    reference: Sides[Floats] | None
    """What the base says of pairs."""
    base_held_out: HeldOut | None
    """The base's own text, to measure what it forgets."""
    unseen: HeldOut | None
    """The texts of ``data.held_out``."""
    lines: NGramBaselines
    world: World
    console: Console
    model: GPT
    optimizer: Optimizer
    text_rules: tuple[TextRule, ...]
    """Of the run's own samples, which the first rank writes."""
    clock: Callable[[], float]
    clock_start: float
    """The clock's value when training began, minus the seconds of training before a restart."""
    base: str | None = None
    """The folder of the weights that stay as they are, if some do."""
    average: WeightAverage | None = None

    def saved_weights(self) -> AbstractContextManager[dict[str, Tensor]]:
        """The model as it is evaluated, saved and written with; gives what it is trained with, if another."""
        return nullcontext({}) if self.average is None else self.average.in_place()

    @property
    def autocast(self) -> Callable[[], AbstractContextManager[None]]:
        """The context of forward passes."""
        return autocast_for(self.world.device, self.recipe.train.precision)

    def step_settings(self, step: int, plan: StepSchedule) -> StepSettings:
        """What a training step needs."""
        train = self.recipe.train
        return StepSettings(
            seed=train.seed,
            batch_size=train.batch_size,
            micro_batch_size=self.micro_batch_size,
            grad_clip=self.recipe.optim.grad_clip,
            autocast=self.autocast,
            parts=window_parts(step, plan, train.seq_len_warmup or 0.0),
        )

    @property
    def micro_batch_size(self) -> int:
        """Rows of one forward pass."""
        return self.recipe.train.micro_batch_size or self.recipe.train.batch_size

    @property
    def step_limit(self) -> int | None:
        """The last step that max_steps and epochs allow."""
        return step_limit(self.recipe, epoch_tokens(self.recipe, self.prepared))

    def elapsed(self) -> float:
        """Seconds of training so far, those before a restart included."""
        return self.clock() - self.clock_start


def check_folder(folder: Path) -> None:
    """Refuse to make a run inside a folder that holds something else."""
    # files that start with a dot belong to the system (.DS_Store) or are leftovers of writes
    if folder.is_dir() and not (folder / "recipe.toml").exists():
        strangers = [p.name for p in folder.iterdir() if p.name not in OWN_FILES and p.name[0] != "."]
        if strangers:
            raise ConfigError(
                f"the folder is not a run: it contains {strangers[0]}",
                where=str(folder),
                hint="name a new folder with --out",
            )


def open_run(
    asked: Recipe, folder: Path, console: Console, clock: Callable[[], float] = time.monotonic
) -> tuple[Run, StepSchedule]:
    """The run in ``folder``: made now, or as recorded there; and how far it is planned."""
    recorded = folder / "recipe.toml"
    if recorded.exists():
        recipe, plan = _recorded_recipe(asked, folder)
        if recipe.finetune.method not in (None, "full"):
            base_folder(recipe)  # it may be gone
        world = find_world(recipe.train.device, recipe.train.batch_size)
        require_compiler(recipe, world.device)  # before the text is read, which may take an hour
        configure_torch(recipe.train)
        prepared, base = prepare_texts(recipe, console), base_text(recipe, console)
        _require_same_corpus(prepared, recipe.corpus, read_record(folder / "corpus.json", Manifest), folder)
        require_total_steps(folder, recipe, plan, step_limit(recipe, epoch_tokens(recipe, prepared)))
        _check_prompt(recipe, prepared, console)
        # intervals, keep_last and [sample] may be changed on resume; other processes must not write
        if console.is_main and recipe != read_recipe(folder):
            storage.write_atomic(recorded, to_toml(recipe))
    else:
        recipe, prepared, base, plan, world = _make_run(asked, folder, console)
    vocab_size = prepared.tokenizer.vocab_size
    lines = baselines_of(prepared.shards, vocab_size, prepared.tokenizer.end_of_text)
    # on the device before the optimizer is built: its state is made where the parameters are
    with oom_as_error("the weights", f"{world.device}, {folder}"):
        config, adaptation = GPTConfig.of(recipe.model, vocab_size), adaptation_of(recipe, prepared.tokenizer)
        model = adapted_model(config, adaptation, world.device)
    model.document_separator = prepared.tokenizer.end_of_text if recipe.data.document_mask else None
    optimizer = build_optimizer(model, recipe.optim, recipe.train.precision)
    rules = _text_rules(recipe, prepared, console)
    block_size, end_of_text = recipe.model.block_size, prepared.tokenizer.end_of_text
    reference = None
    if prepared.pairs is not None:
        console.status("asking the base about every pair")
        autocast = autocast_for(world.device, recipe.train.precision)
        named = require_same_base(recipe, folder) | {"precision": recipe.train.precision or ""}
        reference = reference_of(prepared, lambda: base_model(recipe).to(world.device), named, autocast)
        console.clear_status()
    run = Run(
        folder, recipe, prepared, batches_of(recipe, prepared, base, reference),
        prepared.held_out(block_size), reference,
        HeldOut.of(base, block_size, end_of_text) if base is not None else None,
        prepared.unseen.held_out(block_size, end_of_text) if prepared.unseen is not None else None,
        lines, world, console, model, optimizer, rules, clock, clock(),
        base_folder(recipe).as_posix() if adaptation.freezes else None,
        WeightAverage(model, recipe.optim.average) if recipe.optim.average else None,
    )  # fmt: skip
    return run, plan


def _make_run(
    asked: Recipe, folder: Path, console: Console
) -> tuple[Recipe, Prepared, ShardSet | None, StepSchedule, World]:
    """Prepare the text, take every decision, and write them down; recipe.toml last."""
    world = find_world(asked.train.device, asked.train.batch_size)
    recipe, prepared, config = prepare_run(asked, world, console)
    base = base_text(recipe, console)
    text, adaptation = text_size(recipe, prepared), adaptation_of(recipe, prepared.tokenizer)
    configure_torch(recipe.train)
    show_examples(prepared, console)
    # once in a run's life: another precision or micro-batch would change the sums, so resume never probes
    console.status("measuring which options are fastest here")
    recipe, total_steps, speed = decide_by_measuring(recipe, config, world, text, adaptation)
    return_freed_memory()
    console.clear_status()
    # a dialogue is continued from a question that was held out
    opening = prepared.openings(1, config.block_size)[0] if prepared.is_text else None
    recipe = decide(recipe, {"sample.prompt": opening} | decide_seq_len_warmup(recipe, config.block_size))
    configure_torch(recipe.train)
    free = storage.free_bytes(folder)
    found = forecast(recipe, config, text, total_steps, free, speed, adaptation)
    for line in describe(recipe, config, found):
        console.print(line)
    if world.size > 1:
        console.print(f"ranks  {world.size} processes share each batch")
    console.print(f"all settings are in {folder / 'recipe.toml'}")
    plan = StepSchedule.first(total_steps, lengths_of(recipe))
    recipe = recipe.model_copy(update={"started_in": started_in(folder)})
    unseen = {"unseen": prepared.unseen.fingerprint} if prepared.unseen is not None else {}
    write_records(folder, recipe, plan, prepared.shards.manifest.as_json() | origin_of(recipe) | unseen)
    return recipe, prepared, base, plan, world


def show_examples(prepared: Prepared, console: Console) -> None:
    """Dialogues or pairs as they are trained on, with what the model is to write marked."""
    if prepared.is_text:
        return
    for number in range(min(EXAMPLES, len(prepared.shards.train.starts))):
        kind = ("chosen", "rejected")[number % 2] if prepared.pairs else "learned"
        console.print(f"example {number + 1} ({kind} is what is marked):")
        console.print_marked(prepared.shown(number), style="green")


def text_size(recipe: Recipe, prepared: Prepared) -> TextSize:
    """How much there is to read."""
    read = epoch_tokens(recipe, prepared)
    return TextSize(prepared.shards.manifest.splits.characters, read, len(prepared.shards.val))


def write_records(folder: Path, recipe: Recipe, plan: StepSchedule, corpus: dict[str, Any]) -> None:
    """Write the records of a new run, and read them back: a run that cannot be opened again must not begin.

    Raises:
        ConfigError: something is not read as it was written.
    """
    # recipe.toml last: a folder with a recipe is a run, so a kill before that leaves none
    storage.write_json(folder / "corpus.json", corpus)
    storage.write_json(folder / "plan.json", plan.as_json())
    storage.write_atomic(folder / "recipe.toml", to_toml(recipe))
    same = {
        "corpus.json": storage.read_json(folder / "corpus.json") == corpus,
        "plan.json": read_plan(folder) == plan,
        "recipe.toml": load_recipe(folder / "recipe.toml") == recipe,
    }
    if not all(same.values()):
        name = next(name for name, is_same in same.items() if not is_same)
        hint = "use simpler names and texts in the settings"
        raise ConfigError(f"{name} does not read back as it was written", str(folder), hint)


def plan_run(asked: Recipe, console: Console, free_bytes: int | None) -> tuple[Recipe, GPTConfig, Forecast]:
    """The forecast of a run of ``asked``; nothing is written, and nothing begun."""
    world = find_world(asked.train.device, asked.train.batch_size)
    recipe, prepared, config = prepare_run(asked, world, console)
    text, adaptation = text_size(recipe, prepared), adaptation_of(recipe, prepared.tokenizer)
    recipe = decide(recipe, {MICRO_BATCH: micro_batches(recipe, world)[-1]})
    recipe, total_steps, speed = time_steps(recipe, config, world, text, console, adaptation)
    recipe = decide(recipe, decide_seq_len_warmup(recipe, config.block_size))
    tokenizer, train = prepared.tokenizer, prepared.shards.manifest.splits.train
    lines = baselines_of(prepared.shards, tokenizer.vocab_size, tokenizer.end_of_text)
    text_bits = lines.bigram * train.characters
    found = forecast(recipe, config, text, total_steps, free_bytes, speed, adaptation, text_bits)
    return recipe, config, found


def time_steps(
    recipe: Recipe,
    config: GPTConfig,
    world: World,
    text: TextSize,
    console: Console,
    adaptation: Adaptation = ALL_TRAINED,
) -> tuple[Recipe, int | None, Speed | None]:
    """Steps timed in fewer ways than a run tries: a CPU's float32, not compiled, where that is open.

    Where the model does not fit this machine, the rest of a forecast still holds.
    """
    asked, on_cpu = recipe.train, world.device.type == "cpu"
    # bfloat16 on a CPU may take 50 times as long, and compiling minutes: too slow for a forecast
    few = decide(recipe, {"train.precision": "float32" if on_cpu else None, "train.compile": False})
    try:
        needed = forecast(few, config, text, adaptation=adaptation).memory_bytes
        if on_cpu and needed > (physical_memory() or math.inf):
            raise no_room(config, "this machine")
        configure_torch(few.train)
        console.status("timing some steps")
        timed, total_steps, speed = decide_by_measuring(few, config, world, text, adaptation)
        console.clear_status()
    except DeviceError as error:
        console.warn(f"the time cannot be measured here: {error.what}")
        steps = step_limit(recipe, text.train_tokens)
        length = {} if steps else {"train.minutes": DEFAULT_MINUTES}
        return (
            decide(recipe, decide_against_overfitting(recipe, steps, text.train_tokens) | length),
            None,
            None,
        )
    # what was fixed for the timing alone is open again: the run itself will measure it
    still_open = {"precision": asked.precision, "compile": asked.compile}
    return timed.model_copy(update={"train": timed.train.model_copy(update=still_open)}), total_steps, speed


def decide_by_measuring(
    recipe: Recipe, config: GPTConfig, world: World, text: TextSize, adaptation: Adaptation = ALL_TRAINED
) -> tuple[Recipe, int, Speed]:
    """The recipe with the fastest arithmetic and the lengths that follow, the number of steps, the speed."""
    config = replace(config, dropout=recipe.model.dropout or 0.0)
    measured, speed = measure(recipe, config, world, adaptation=adaptation)
    chosen = decide(recipe, measured)
    if recipe.finetune.preference is not None:  # a pair is two rows
        speed = Speed(2 * speed.seconds_per_step, speed.tokens_per_second / 2)
    compiled, speed = decide_compile(chosen, config, world, speed, text.train_tokens, adaptation=adaptation)
    saving_s, sizes = seconds_of_saving(recipe, config), (text.train_tokens, text.val_tokens)
    total_steps, _ = decide_length(chosen, speed, *sizes, saving_s)
    against = decide_against_overfitting(chosen, total_steps, text.train_tokens)
    # an average is measured besides the weights, which takes time from training
    chosen = decide(chosen, {"optim.average": against.get("optim.average")})
    total_steps, length = decide_length(chosen, speed, *sizes, saving_s)
    # a circle: dropout depends on the number of steps, these on the speed, and dropout costs speed. Measure
    # again with dropout given; it is not None then, so this happens once
    if recipe.model.dropout is None and against.get("model.dropout"):
        return decide_by_measuring(decide(recipe, against), config, world, text, adaptation)
    return decide(chosen, compiled | length | against), total_steps, speed


def prepare_run(asked: Recipe, world: World, console: Console) -> tuple[Recipe, Prepared, GPTConfig]:
    """The text made ready, and the recipe with all that is decided by rule.

    Raises:
        ConfigError: the vocabulary is not that of the weights to begin from.
    """
    recipe = adopt_shape(asked)
    require_compiler(recipe, world.device)
    recipe = decide(recipe, decide_device(recipe, world) | decide_shape(recipe) | decide_finetune(recipe))
    recipe = decide(recipe, {"finetune.preference": "dpo"} if kind_of_data(recipe) == "pairs" else {})
    recipe = decide(recipe, decide_packing(recipe) | decide_optimizer(recipe))
    check_relations(recipe)
    if recipe.model.init is None:
        recipe = decide(recipe, decide_vocabulary(recipe.corpus, recipe.tokenizer))
    prepared = prepare_texts(recipe, console)
    recipe = decide(
        recipe, {"tokenizer.kind": kind_of(prepared.tokenizer), "data.val_fraction": prepared.val_fraction}
    )
    _check_prompt(recipe, prepared, console)
    return recipe, prepared, GPTConfig.of(recipe.model, prepared.tokenizer.vocab_size)


def _check_prompt(recipe: Recipe, prepared: Prepared, console: Console) -> None:
    """Refuse a prompt that cannot be encoded before anything is written: the recipe would stay behind."""
    # where none is given, dialogues are continued from a question that was held out
    if prepared.is_text or recipe.sample.prompt is not None:
        prompt_ids(recipe, prepared, console.warn)


def prompt_ids(recipe: Recipe, prepared: Prepared, say: Say) -> list[int]:
    """The ids of ``sample.prompt``: the beginning of a text, or a question where answers are learned.

    Raises:
        ConfigError: it cannot be encoded, or the window cannot hold it.
    """
    prompt, sample, window = recipe.sample.prompt or "", recipe.sample, recipe.model.block_size
    if prepared.is_text or prepared.chat is None:
        return encode_prompt(prepared.tokenizer, prompt, sample, window, say=say).ids
    return answer_prompt(prepared.chat, [{"role": "user", "content": prompt}], sample, window).ids


def _text_rules(recipe: Recipe, prepared: Prepared, console: Console) -> tuple[TextRule, ...]:
    """Those of the run's own samples, made before training so that a refusal comes before it."""
    if not console.is_main:
        return ()
    manifest, tokenizer = prepared.shards.manifest, prepared.tokenizer
    return text_rules(recipe.sample, tokenizer, lambda: open_index(recipe, manifest, tokenizer, console))


def _recorded_recipe(asked: Recipe, folder: Path) -> tuple[Recipe, StepSchedule]:
    """The run's recipe, with the settings that may change on resume as asked now, and its plan."""
    recipe, plan = read_recipe(folder), read_plan(folder)
    # order matters: first the record against its checkpoints, then the command against the record
    require_bound(folder, recipe, plan)
    longer = as_long_as(plan, recipe, folder)
    changed = differences(asked, recipe)
    if changed:
        raise ConfigError(
            "this folder has a run with another recipe: " + "; ".join(changed),
            where=str(folder / "recipe.toml"),
            hint="leave them out to resume the run, or train in another folder with --out",
        )
    return resumed(asked, longer), plan


def as_long_as(plan: StepSchedule, recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with the lengths of a plan that was written just before a crash.

    Raises:
        CheckpointError: the recipe was made longer by hand.
    """
    if plan.lengths is None or plan.lengths == lengths_of(recipe):
        return recipe
    longer = dict(zip(LENGTHS, plan.lengths, strict=True))
    for name, length in longer.items():
        before = get(recipe, name)
        # extend_run only ever lengthens, and writes the plan first: all else was changed by hand
        if (before is None) != (length is None) or (length is not None and length < before):
            raise CheckpointError(
                f"recipe.toml says {name}={before}, and plan.json was made for {length}",
                where=str(folder / "recipe.toml"),
                hint=f"put {length} back; a longer run is asked for by {name}=… on the command line",
            )
    return with_values(recipe, longer, "plan.json")


def _require_same_corpus(prepared: Prepared, corpus: CorpusConfig, recorded: Manifest, folder: Path) -> None:
    then, now = recorded.as_json(), prepared.shards.manifest.as_json()
    now["unseen"] = prepared.unseen.fingerprint if prepared.unseen is not None else None
    then["unseen"] = recorded.unseen
    for name in ("corpus", "tokenizer", "splits", "unseen"):
        if then[name] != now[name] and (name != "corpus" or then[name] != earlier_fingerprint(corpus)):
            raise ConfigError(
                f"the {name} is not the one that this run was made with ({then[name]}, now {now[name]})",
                where=f"{folder}: corpus.json, or recipe.toml",
                hint="restore the old text, or train in another folder with --out",
            )

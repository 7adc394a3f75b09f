"""Decisions before a run: everything chosen by measurement or rule, taken once and written down.

In: a recipe with open settings, the model's shape and the amount of text. Out: the decisions by
``section.key``. ``probe.py`` measures.
"""

import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from yanmo.checkpoint.folder import find_model_folder, load_shape
from yanmo.core.errors import ConfigError, DeviceError
from yanmo.data.batches import windows_in
from yanmo.model.config import GPTConfig
from yanmo.model.gpt import count_active, count_parameters
from yanmo.model.lora import Adaptation
from yanmo.parallel.distributed import World
from yanmo.settings.constraints import check_relations
from yanmo.settings.recipe import get, given_keys, with_values
from yanmo.settings.schema import Recipe
from yanmo.train.optim import WEIGHT_DECAY
from yanmo.train.probe import ALL_TRAINED, Speed, gain_of_compiling

DEFAULT_MINUTES = 10.0
EVALUATIONS = 10
"""Number of evaluations in a run, or fewer where they would need more than ``PAUSES_SHARE`` of it."""
PAUSES_SHARE = 0.1
"""Share of a run's time that evaluations, each with its sample and checkpoint, may use."""
WRITING_S_PER_LAYER, READING_BYTES_PER_S, SAVING_BYTES_PER_S = 1.5e-3, 1e10, 2e8
"""Cost of a generated token in each layer, speed of reading weights for it, and of saving a checkpoint."""
MAX_WARMUP = 200
LEARNING_RATES = {"muon": 6e-3, "adamw": 1e-3}
"""At ``RATES_WIDTH``; what reached low losses in docs/experiments.md."""
RATES_WIDTH = 256
LORA_RATE = 5e-3
"""At ``RATES_WIDTH``, from a trial there (docs/finetuning.md); wider models take less, nearly by their width
(Schulman et al. 2025: 5e-4 at about 2,000)."""
LORA: dict[str, float] = {"finetune.rank": 16, "finetune.alpha": 32.0}
LAST_LAYERS = 2
DPO_SHARE = 1 / 100
"""Of the rate of other fine-tuning; a twentieth costs much of the language (docs/finetuning.md)."""
SEQ_LEN_WARMUP, SHORTEST_TO_HALVE = 0.4, 64
"""Share of a run that reads half windows, and the tokens of the shortest window worth halving."""
MANY_PASSES = 6
"""From this many passes on a text is learned by heart, unless something keeps the weights small."""
LIVES = (0.6, 0.1)
"""The share of a run that an update lives, by weight decay: in one pass over the text, and in ``MANY_PASSES``
(docs/experiments.md). The decay for it depends on rate and steps, this share does not."""
FEWEST_STEPS = 20
"""An update lives for so many steps at least."""
AVERAGE = 0.1
"""Of a run, over which its weights are averaged in many passes (docs/experiments.md)."""
LONG_RUN = {"cpu": 1800.0}
"""A run of at least so many seconds tries torch.compile; on other devices ``SHORT_RUN``."""
SHORT_RUN = 120.0
WORTH_COMPILING = 1.05


def adopt_shape(recipe: Recipe) -> Recipe:
    """With ``model.init``: the shape of the model there, and its tokenizer unless another is named.

    Raises:
        ConfigError: the folder is no model, or a shape is asked for that it does not have.
    """
    if recipe.model.init is None:
        return recipe
    folder = find_model_folder(Path(recipe.model.init))
    shape = load_shape(folder)
    taken = {f"model.{key}": value for key, value in shape.settings().items()}
    kept: set[str] = set()
    free = ("model.block_size", "model.rope_theta") if shape.kind.positions == "rotary" else ()
    for name, value in list(taken.items()):
        asked = get(recipe, name)
        if name not in given_keys(recipe) or asked in (None, value):
            continue
        # rotary positions are computed, not stored: weights fit any window length and any base
        if name in free:
            taken[name] = asked
            kept.add(name)
        else:
            said = f"the weights have {value}" if value is not None else f"{shape.family} has no such setting"
            raise ConfigError(
                f"{name}={asked}, but {said}",
                where=f"model.init={recipe.model.init}",
                hint="leave out the shape: it comes with the weights",
            )
    if not {"tokenizer.kind", "tokenizer.path"} & given_keys(recipe):
        taken["tokenizer.path"] = str(folder)
    taken = {name: value for name, value in taken.items() if value is not None}
    adopted = with_values(recipe, taken, "model.init")
    check_relations(adopted)
    # the shape counts as decided, not asked for: a later command may leave it out
    decided = dict.fromkeys((*recipe.decided, *(name for name in taken if name not in kept)))
    return adopted.model_copy(update={"decided": tuple(decided)})


def decide_device(recipe: Recipe, world: World) -> dict[str, Any]:
    """Device and threads: by rule."""
    return {
        "train.device": world.device.type if world.size > 1 else str(world.device),
        "train.threads": torch.get_num_threads(),
    }


def require_compiler(recipe: Recipe, device: torch.device) -> None:
    """On a CPU torch.compile writes C++.

    Raises:
        DeviceError: ``train.compile`` is asked for and there is no compiler.
    """
    if recipe.train.compile and not has_compiler(device):
        raise DeviceError(
            "train.compile needs a C++ compiler, but none was found",
            where=f"PATH ({', '.join(compilers())})",
            hint="install g++, or leave train.compile out",
        )


def compilers() -> list[str]:
    """Names of C++ compilers, the one that is asked for first."""
    return list(dict.fromkeys((os.environ.get("CXX", "g++"), "g++", "clang++", "c++", "cl")))


def has_compiler(device: torch.device) -> bool:
    """Whether torch.compile can work: on a CPU it writes C++, elsewhere it brings its own."""
    return device.type != "cpu" or any(map(shutil.which, compilers()))


def decide_packing(recipe: Recipe) -> dict[str, Any]:
    """How windows lie in the text: by rule."""
    # offset (a ring, each token once an epoch) unless a stride says that windows shall overlap
    packing = recipe.data.packing or ("stride" if recipe.data.stride else "offset")
    stride = max(recipe.model.block_size // 2, 1) if packing == "stride" else None
    return {"data.packing": packing, "data.stride": stride}


def decide_shape(recipe: Recipe) -> dict[str, Any]:
    """The parts of the model's shape that are open: by the rules of its family."""
    shape = GPTConfig.of(recipe.model, vocab_size=1)
    return {f"model.{name}": value for name, value in shape.settings().items()}


def decide_finetune(recipe: Recipe) -> dict[str, Any]:
    """How much of the weights is trained: by rule.

    Raises:
        ConfigError: more layers than there are.
    """
    finetune, layers = recipe.finetune, recipe.model.n_layer
    if finetune.layers and finetune.layers > layers:
        raise ConfigError(
            f"finetune.layers={finetune.layers}, but the model has {layers}",
            where=f"model.init={recipe.model.init}",
            hint=f"choose at most {layers}",
        )
    if finetune.method == "last":
        return {"finetune.layers": min(LAST_LAYERS, layers)}
    return dict(LORA) if finetune.method == "lora" else {}


def decide_optimizer(recipe: Recipe) -> dict[str, Any]:
    """The optimizer and its rate: by rule."""
    name, width = recipe.optim.name or ("adamw" if recipe.model.init else "muon"), recipe.model.n_embd
    is_lora = recipe.finetune.method == "lora"
    rate = LORA_RATE * RATES_WIDTH / width if is_lora else usual_rate(name, width)
    # pairs say only which of two is better: large steps lose the language before they learn that
    rate *= DPO_SHARE if recipe.finetune.preference else 1
    return {"optim.name": name, "optim.learning_rate": float(f"{rate:.2g}")}


def usual_rate(name: str, width: int) -> float:
    """The peak learning rate of an optimizer for a model from scratch, in two digits.

    A wider matrix of the same root mean square stretches more, by the root of its width (Yang et al. 2023,
    "A Spectral Condition for Feature Learning").
    """
    # η = η₂₅₆ · √(256 / width)
    return float(f"{LEARNING_RATES[name] * math.sqrt(RATES_WIDTH / width):.2g}")


def decide_against_overfitting(recipe: Recipe, steps: int | None, train_tokens: int) -> dict[str, Any]:
    """Dropout, weight decay and averaging by the number of passes, where that of steps is known: by rule."""
    if not steps:
        return {}
    many, ours = passes(recipe, steps, train_tokens), is_ours(recipe)
    is_long, rate = many >= MANY_PASSES, recipe.optim.learning_rate
    return {
        "model.dropout": 0.1 if is_long and not ours else 0.0,
        "optim.weight_decay": usual_decay(many, steps, rate) if ours else WEIGHT_DECAY,
        "optim.average": AVERAGE if is_long and ours else 0.0,
    }


def is_ours(recipe: Recipe) -> bool:
    """Whether it learns from scratch, and not by AdamW, which is the baseline."""
    return recipe.optim.name == "muon" and recipe.model.init is None


def usual_decay(many: float, steps: int, rate: float | None) -> float:
    """The weight decay for so many passes at this peak of the rate, in two digits.

    With a decay of λ at the rate η, what a step changes has shrunk to 1/e after 1/(ηλ) steps (Wang and
    Aitchison 2024, "How to set AdamW's weight decay as you scale model and dataset size").
    """
    if many <= 1 or not rate:
        return WEIGHT_DECAY
    # between the two on a line in the logarithms of both
    place = min(math.log(many) / math.log(MANY_PASSES), 1.0)
    lives = steps * LIVES[0] ** (1 - place) * LIVES[1] ** place
    return float(f"{max(1 / (rate * max(lives, FEWEST_STEPS)), WEIGHT_DECAY):.2g}")


def decide_seq_len_warmup(recipe: Recipe, block_size: int) -> dict[str, Any]:
    """Half windows at first for what learns from scratch on our own road (docs/experiments.md): by rule."""
    # measured only there: fine-tuning begins beyond the short-range dependencies
    pays = is_ours(recipe) and block_size >= SHORTEST_TO_HALVE and block_size % 2 == 0
    return {"train.seq_len_warmup": SEQ_LEN_WARMUP if pays else 0.0}


def passes(recipe: Recipe, steps: int, train_tokens: int) -> float:
    """How often each token is a target."""
    return steps * recipe.train.batch_size * recipe.model.block_size / train_tokens


def decide_compile(
    recipe: Recipe,
    config: GPTConfig,
    world: World,
    speed: Speed,
    train_tokens: int,
    clock: Callable[[], float] = time.perf_counter,
    adaptation: Adaptation = ALL_TRAINED,
) -> tuple[dict[str, Any], Speed]:
    """Whether torch.compile pays: measured where a run is so long that trying costs little.

    Args:
        recipe: with arithmetic and micro-batch decided.
        config: the model's shape.
        world: where to measure.
        speed: without compiling.
        train_tokens: how many tokens an epoch has.
        clock: seconds.
        adaptation: which weights are trained.
    """  # fmt: skip
    if recipe.train.compile is not None:
        return {}, speed
    device = world.device
    # compiling takes long: trying it must cost little beside the run that it may shorten
    long = expected_seconds(recipe, speed, train_tokens) >= LONG_RUN.get(device.type, SHORT_RUN)
    # experts receive another number of tokens in every step: each new shape would be compiled again
    if config.has("n_expert") or not (long and has_compiler(device)):
        return {"train.compile": False}, speed
    gain = gain_of_compiling(recipe, config, device, clock, adaptation)
    if gain < WORTH_COMPILING:
        return {"train.compile": False}, speed
    return {"train.compile": True}, Speed(speed.seconds_per_step / gain, speed.tokens_per_second * gain)


def expected_seconds(recipe: Recipe, speed: Speed, train_tokens: int) -> float:
    """How long the run will take."""
    limit, minutes = step_limit(recipe, train_tokens), recipe.train.minutes
    # whichever limit comes first; a run without any limit gets DEFAULT_MINUTES
    steps = math.inf if limit is None else limit * speed.seconds_per_step
    return min(steps, 60 * (minutes or (math.inf if limit else DEFAULT_MINUTES)))


def step_limit(recipe: Recipe, train_tokens: int) -> int | None:
    """The steps that max_steps and epochs allow, the fewer of them; None if neither is given."""
    train, limits = recipe.train, []
    if train.max_steps is not None:
        limits.append(train.max_steps)
    if train.epochs is not None:
        # rounded up: the last step of the last epoch may begin the next one
        windows = windows_in(train_tokens, recipe.model.block_size, recipe.data.stride)
        limits.append(max(math.ceil(train.epochs * windows / train.batch_size), 1))
    return min(limits, default=None)


def seconds_of_saving(recipe: Recipe, config: GPTConfig) -> float:
    """About how many seconds a sample and a checkpoint need: by rule."""
    # decoding a token reads all active weights once (4 bytes each) and starts the kernels of each layer;
    # a checkpoint holds 12 bytes for each parameter: weight, exp_avg, exp_avg_sq
    per_token = WRITING_S_PER_LAYER * config.n_layer + 4 * count_active(config) / READING_BYTES_PER_S
    return recipe.sample.max_new_tokens * per_token + 12 * count_parameters(config) / SAVING_BYTES_PER_S


def seconds_of_evaluation(recipe: Recipe, speed: Speed, val_tokens: int) -> float:
    """How many seconds an evaluation of the held-out text needs."""
    # where weights are averaged, both are measured
    tokens = val_tokens * (2 if recipe.optim.average else 1)
    # forward 2 N FLOP for each token, backward 4 N (Kaplan et al. 2020): evaluating is a third of training
    return tokens / (3 * speed.tokens_per_second)


def evaluations_in(seconds: float, pause_s: float) -> int:
    """How many pauses of ``pause_s`` a run of so many seconds can afford; at least one."""
    return max(min(int(PAUSES_SHARE * seconds / max(pause_s, 1e-9)), EVALUATIONS), 1)


def decide_length(
    recipe: Recipe, speed: Speed, train_tokens: int, val_tokens: int, saving_s: float = 0.0
) -> tuple[int, dict[str, Any]]:
    """How many steps the run is planned for, and the intervals and warm-up that follow.

    Args:
        recipe: with arithmetic, micro-batch and compiling decided.
        speed: of training.
        train_tokens: how many tokens an epoch has.
        val_tokens: how many are held out; all are measured at each evaluation.
        saving_s: how long a sample and a checkpoint take.

    Raises:
        ConfigError: the warm-up is longer than that.
    """
    train, decisions = recipe.train, {}
    limit, minutes = step_limit(recipe, train_tokens), train.minutes
    if limit is None and minutes is None:
        minutes = decisions["train.minutes"] = DEFAULT_MINUTES
    limits = [] if limit is None else [limit]
    pause_s = seconds_of_evaluation(recipe, speed, val_tokens) + saving_s
    evaluations = evaluations_in(expected_seconds(recipe, speed, train_tokens), pause_s)
    if minutes is not None:
        # minutes include evaluations; but where those are slow, at least half of the time is training
        training = max(minutes * 60 - evaluations * pause_s, minutes * 60 / 2)
        limits.append(max(int(training / speed.seconds_per_step), 1))
    total_steps = min(limits)
    warmup = recipe.optim.warmup_steps
    if warmup is not None and warmup >= total_steps:
        raise ConfigError(
            f"optim.warmup_steps={warmup} is not less than about {total_steps:,} steps",
            where="[optim]",
            hint="choose fewer warm-up steps, or a longer run",
        )
    evaluation = max(math.ceil(total_steps / evaluations), 1)
    decisions |= {
        "train.eval_interval": evaluation,
        "train.checkpoint_interval": train.eval_interval or evaluation,
        # a twentieth of the run: long enough for Adam's second moment, short enough not to waste steps
        "optim.warmup_steps": min(total_steps // 20, MAX_WARMUP),
        "optim.min_lr": (recipe.optim.learning_rate or 0.0) / 10,
    }
    return total_steps, decisions

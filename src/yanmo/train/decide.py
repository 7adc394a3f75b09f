"""Decisions before a run: everything chosen by measurement or rule, taken once and written down.

In: a recipe with open settings, the model's shape and the amount of text. Out: the decisions by
``section.key`` and the seconds one step takes. The measurement runs real forward and backward passes
of the model on random tokens, in each arithmetic and attention the device offers, for some seconds.
"""

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from yanmo.checkpoint import find_model_folder, load_shape
from yanmo.config import MICRO_BATCH, Recipe, check_relations, get, given_keys, with_values
from yanmo.data.batches import windows_in
from yanmo.errors import ConfigError, DeviceError
from yanmo.model.gpt import GPT, count_active
from yanmo.model.shape import GPTConfig
from yanmo.train.distributed import World, autocast_for
from yanmo.train.machine import is_out_of_memory, onednn_keeps_float32, use_matmul
from yanmo.train.optim import build_optimizer

DEFAULT_MINUTES = 10.0
EVALUATIONS = 10
MAX_WARMUP = 200
LEARNING_RATES = {"muon": 6e-3, "adamw": 1e-3}
"""At ``RATES_WIDTH``; what reached low losses in docs/experiments.md."""
RATES_WIDTH = 256
MANY_PASSES = 6
"""Passes from which on dropout helps; in three it costs more than it gives (docs/experiments.md)."""
PRECISIONS: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
ATTENTIONS: tuple[Literal["sdpa", "matmul"], ...] = ("sdpa", "matmul")
PROBE_FLOP = {"cpu": 2e11}
"""The probe's micro-batch is cut to about so much work; on other devices ``MUCH_FLOP``."""
MUCH_FLOP = 2e13
ROUNDS = 3
LONG_RUN = {"cpu": 1800.0}
"""Seconds of a run from which on it is tried to compile; on other devices ``SHORT_RUN``."""
SHORT_RUN = 120.0
WORTH_COMPILING = 1.05
HOPELESS = 4
"""So many times slower than another, and a way is not measured again."""


@dataclass(frozen=True)
class Speed:
    """What the probe measured."""

    seconds_per_step: float
    tokens_per_second: float


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
    free = () if shape.family == "gpt2" else ("model.block_size", "model.rope_theta")  # no table of positions
    for name, value in list(taken.items()):
        asked = get(recipe, name)
        if name not in given_keys(recipe) or asked in (None, value):
            continue
        if name in free:
            taken[name] = asked
        else:
            raise ConfigError(
                f"{name}={asked}, but the weights have {value}",
                where=f"model.init={recipe.model.init}",
                mend="leave the shape out: it comes with the weights",
            )
    if not {"tokenizer.kind", "tokenizer.path"} & given_keys(recipe):
        taken["tokenizer.path"] = str(folder)
    adopted = with_values(recipe, taken, "model.init")
    check_relations(adopted)
    return adopted.model_copy(update={"decided": (*recipe.decided, *taken)})


def decide_device(recipe: Recipe, world: World) -> dict[str, Any]:
    """Device and threads: by rule."""
    return {
        "train.device": world.device.type if world.size > 1 else str(world.device),
        "train.threads": torch.get_num_threads(),
    }


def micro_batches(recipe: Recipe, world: World) -> list[int]:
    """Sizes of a micro-batch worth trying, the smallest first; one alone where it was asked for.

    About 1,024 to 4,096 tokens on a CPU, whose caches hold the activations of no more; 16,384 elsewhere.
    """
    if recipe.train.micro_batch_size:
        return [recipe.train.micro_batch_size]
    batch = recipe.train.batch_size
    tokens = (1024, 2048, 4096) if world.device.type == "cpu" else (16384,)
    limits = [min(max(count // recipe.model.block_size, 1), -(-batch // world.size)) for count in tokens]
    return sorted({largest_divisor(batch, limit) for limit in limits})


def require_compiler(recipe: Recipe, device: torch.device) -> None:
    """On a CPU torch.compile writes C++.

    Raises:
        DeviceError: ``train.compile`` is asked for and there is no compiler.
    """
    if recipe.train.compile and not has_compiler(device):
        raise DeviceError(
            "train.compile needs a C++ compiler, and there is none",
            where=f"PATH ({', '.join(compilers())})",
            mend="install g++, or leave train.compile out",
        )


def compilers() -> list[str]:
    """Names of C++ compilers, the one that is asked for first."""
    return list(dict.fromkeys((os.environ.get("CXX", "g++"), "g++", "clang++", "c++", "cl")))


def has_compiler(device: torch.device) -> bool:
    """Whether torch.compile can work: on a CPU it writes C++, elsewhere it brings its own."""
    return device.type != "cpu" or any(map(shutil.which, compilers()))


def decide_packing(recipe: Recipe) -> dict[str, Any]:
    """How windows lie in the text: by rule."""
    packing = recipe.data.packing or ("stride" if recipe.data.stride else "offset")
    stride = max(recipe.model.block_size // 2, 1) if packing == "stride" else None
    return {"data.packing": packing, "data.stride": stride}


def decide_shape(recipe: Recipe) -> dict[str, Any]:
    """What is left open of the model's shape: by the rules of its family."""
    shape = GPTConfig.of(recipe.model, vocab_size=1)
    return {f"model.{name}": value for name, value in shape.settings().items()}


def decide_optimizer(recipe: Recipe) -> dict[str, Any]:
    """The optimizer and its rate: by rule."""
    name = recipe.optim.name or ("adamw" if recipe.model.init else "muon")
    return {"optim.name": name, "optim.learning_rate": usual_rate(name, recipe.model.n_embd)}


def usual_rate(name: str, width: int) -> float:
    """The peak learning rate of an optimizer for a model from scratch, in two digits.

    A wider matrix of the same root mean square stretches more, by the root of its width (Yang et al. 2023,
    "A Spectral Condition for Feature Learning").
    """
    return float(f"{LEARNING_RATES[name] * math.sqrt(RATES_WIDTH / width):.2g}")


def decide_dropout(recipe: Recipe, steps: int | None, train_tokens: int) -> dict[str, Any]:
    """Dropout by the number of passes, where the number of steps is known: by rule."""
    if not steps:
        return {}
    return {"model.dropout": 0.1 if passes(recipe, steps, train_tokens) >= MANY_PASSES else 0.0}


def passes(recipe: Recipe, steps: int, train_tokens: int) -> float:
    """How often each token is a target."""
    return steps * recipe.train.batch_size * recipe.model.block_size / train_tokens


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of ``number`` that is at most ``limit`` (and at least 1)."""
    return max(n for n in range(1, max(min(limit, number), 1) + 1) if number % n == 0)


def measure(
    recipe: Recipe, config: GPTConfig, world: World, clock: Callable[[], float] = time.perf_counter
) -> tuple[dict[str, Any], Speed]:
    """Precision, attention, matmul route, micro-batch: the fastest of what is open; and the speed that gives.

    Args:
        recipe: with the device decided.
        config: the model's shape.
        world: where to measure.
        clock: seconds; a parameter so that tests can choose the winner.

    Raises:
        DeviceError: not even one window fits into memory.
    """
    device, sizes = world.device, micro_batches(recipe, world)
    model = GPT(config).to(device)
    model.initialise(0)
    model.train()
    flop = 6 * count_active(config) * config.block_size
    most = max(int(PROBE_FLOP.get(device.type, MUCH_FLOP) / flop), 1)

    def per_token(options: list[tuple[Way, int]]) -> dict[tuple[Way, int], float]:
        """Seconds for a token: the least of three rounds in which all take turns, after one to warm up.

        What is far slower than another when it warms up does not come in again: bfloat16 on a CPU that
        lacks it may take 50 times as long.
        """
        first = {option: time_of(option) for option in options}
        left = [option for option in options if first[option] <= HOPELESS * min(first.values())]
        rounds = [[time_of(option) for option in left] for _ in range(ROUNDS)]
        return dict(zip(left, map(min, *rounds), strict=True))

    def time_of(option: tuple[Way, int]) -> float:
        way, size = option
        return _time_pass(model, min(size, most), device, way, clock)

    found = per_token([(way, sizes[0]) for way in ways(recipe, device)])
    while min(found.values()) == math.inf:
        if sizes[0] == 1:
            raise no_room(config, str(device))
        sizes = [largest_divisor(recipe.train.batch_size, sizes[0] // 2)]
        found = per_token([(way, sizes[0]) for way in ways(recipe, device)])
    way, _ = min(found, key=lambda option: found[option])
    affordable = [size for size in sizes if size <= most]
    if len(affordable) > 1:
        found = per_token([(way, size) for size in affordable])
    way, size = min(found, key=lambda option: found[option])
    tokens = recipe.train.batch_size * config.block_size
    per_step = found[way, size] * tokens / world.size + _time_update(model, recipe, way, clock)
    use_matmul("torch")
    decisions = {f"train.{key}": value for key, value in way._asdict().items()}
    return decisions | {MICRO_BATCH: size}, Speed(per_step, tokens / per_step)


def decide_compile(
    recipe: Recipe,
    config: GPTConfig,
    world: World,
    speed: Speed,
    train_tokens: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[dict[str, Any], Speed]:
    """Whether torch.compile pays: measured where a run is so long that trying costs little.

    Args:
        recipe: with arithmetic and micro-batch decided.
        config: the model's shape.
        world: where to measure.
        speed: without compiling.
        train_tokens: how many tokens an epoch has.
        clock: seconds.
    """  # fmt: skip
    device, open_question = world.device, recipe.train.compile is None
    long = expected_seconds(recipe, speed, train_tokens) >= LONG_RUN.get(device.type, SHORT_RUN)
    if not (open_question and long and has_compiler(device)):
        return {"train.compile": False}, speed
    gain = gain_of_compiling(recipe, config, device, clock)
    if gain < WORTH_COMPILING:
        return {"train.compile": False}, speed
    return {"train.compile": True}, Speed(speed.seconds_per_step / gain, speed.tokens_per_second * gain)


def expected_seconds(recipe: Recipe, speed: Speed, train_tokens: int) -> float:
    """How long the run will take."""
    limit, minutes = step_limit(recipe, train_tokens), recipe.train.minutes
    steps = math.inf if limit is None else limit * speed.seconds_per_step
    return min(steps, 60 * (minutes or (math.inf if limit else DEFAULT_MINUTES)))


def gain_of_compiling(
    recipe: Recipe, config: GPTConfig, device: torch.device, clock: Callable[[], float]
) -> float:
    """How many times as fast compiled passes are, by the fastest of three rounds; 0 where it fails."""
    train = recipe.train
    way = Way(train.precision or "float32", train.attention or "sdpa", train.matmul or "torch")
    model = GPT(config).to(device)
    model.initialise(0)
    model.train()
    compiled: Callable[..., torch.Tensor] = torch.compile(model.loss)
    torch.use_deterministic_algorithms(True)  # as compiled runs do
    try:
        times = [
            [_time_pass(model, train.micro_batch_size or 1, device, way, clock, loss_of)
             for loss_of in (model.loss, compiled)]
            for _ in range(1 + ROUNDS)
        ]  # fmt: skip
    except RuntimeError:  # what a compiler says when it cannot
        return 0.0
    finally:
        torch.use_deterministic_algorithms(train.deterministic)
        use_matmul("torch")
    plain, faster = zip(*times[1:], strict=True)
    return float(min(plain) / min(faster))


class Way(NamedTuple):
    """How the arithmetic of a forward and backward pass is done."""

    precision: Literal["float32", "bfloat16", "float16"]
    attention: Literal["sdpa", "matmul"]
    matmul: Literal["torch", "onednn"]


def ways(recipe: Recipe, device: torch.device) -> Iterator[Way]:
    """Those that are open on this device, where the recipe does not say."""
    train, on_cpu = recipe.train, device.type == "cpu"
    for precision in [train.precision] if train.precision else PRECISIONS:
        for attention in [train.attention] if train.attention else ATTENTIONS if on_cpu else ATTENTIONS[:1]:
            yield Way(precision, attention, train.matmul or "torch")
            plain = (precision, attention) == ("float32", "matmul")
            if plain and on_cpu and not train.matmul and onednn_keeps_float32():
                yield Way(precision, attention, "onednn")


def step_limit(recipe: Recipe, train_tokens: int) -> int | None:
    """The steps that max_steps and epochs allow, the fewer of them; None if neither is given."""
    train, limits = recipe.train, []
    if train.max_steps is not None:
        limits.append(train.max_steps)
    if train.epochs is not None:
        windows = windows_in(train_tokens, recipe.model.block_size, recipe.data.stride)
        limits.append(max(math.ceil(train.epochs * windows / train.batch_size), 1))
    return min(limits, default=None)


def decide_length(
    recipe: Recipe, speed: Speed, train_tokens: int, val_tokens: int
) -> tuple[int, dict[str, Any]]:
    """How many steps the run aims at, and the rhythm and warm-up that follow from it.

    Raises:
        ConfigError: the warm-up is longer than that.
    """
    train, decisions = recipe.train, {}
    limit, minutes = step_limit(recipe, train_tokens), train.minutes
    if limit is None and minutes is None:
        minutes = decisions["train.minutes"] = DEFAULT_MINUTES
    horizons = [] if limit is None else [limit]
    if minutes is not None:
        evaluating = EVALUATIONS * val_tokens / (3 * speed.tokens_per_second)
        training = max(minutes * 60 - evaluating, minutes * 60 / 2)
        horizons.append(max(int(training / speed.seconds_per_step), 1))
    horizon = min(horizons)
    warmup = recipe.optim.warmup_steps
    if warmup is not None and warmup >= horizon:
        raise ConfigError(
            f"optim.warmup_steps={warmup} leaves nothing of about {horizon:,} steps",
            where="[optim]",
            mend="choose fewer warm-up steps, or a longer run",
        )
    evaluation = max(math.ceil(horizon / EVALUATIONS), 1)
    decisions |= {
        "train.eval_interval": evaluation,
        "train.checkpoint_interval": train.eval_interval or evaluation,
        "optim.warmup_steps": min(horizon // 20, MAX_WARMUP),
        "optim.min_lr": (recipe.optim.learning_rate or 0.0) / 10,
    }
    return horizon, decisions


def no_room(config: GPTConfig, where: str) -> DeviceError:
    """What is said when memory does not suffice for a single window."""
    return DeviceError(
        f"not even one window of {config.block_size} tokens fits into memory",
        where=where,
        mend="choose a smaller model.block_size, n_embd or n_layer, or train.precision=bfloat16",
    )


def _time_pass(
    model: GPT,
    rows: int,
    device: torch.device,
    way: Way,
    clock: Callable[[], float],
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
) -> float:
    """Seconds for each token of a forward and backward pass over so many rows; infinite without memory."""
    loss_of = loss_of or model.loss
    model.use_attention(way.attention)
    use_matmul(way.matmul)
    start = clock()
    try:
        ids = torch.randint(model.config.vocab_size, (rows, model.config.block_size), device=device)
        with autocast_for(device, way.precision)():
            loss = loss_of(ids, ids) / ids.numel()
        torch.autograd.backward(loss)
        float(loss.detach())
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        model.zero_grad()
        return math.inf
    _wait(device)
    return (clock() - start) / ids.numel()


def _time_update(model: GPT, recipe: Recipe, way: Way, clock: Callable[[], float]) -> float:
    optimizer, device = build_optimizer(model, recipe.optim, way.precision), model.tokens.weight.device
    optimizer.step()
    _wait(device)
    start = clock()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    _wait(device)
    return clock() - start


def _wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)

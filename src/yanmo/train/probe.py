"""Measuring how fast this machine trains this model: real passes over random tokens, in every open way.

In: a recipe with its device decided, and the model's shape. Out: the fastest precision, attention, matmul
route and micro-batch, and the seconds of a step; and the gain of compiling. ``decide.py`` decides by rule,
and whether compiling is tried at all.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch

from yanmo.core.errors import DeviceError
from yanmo.model.config import GPTConfig
from yanmo.model.gpt import GPT, count_active
from yanmo.model.lora import Adaptation, adapted_model
from yanmo.parallel.distributed import World, autocast_for
from yanmo.parallel.machine import (
    is_out_of_memory,
    onednn_keeps_float32,
    oom_as_error,
    use_deterministic,
    use_matmul,
)
from yanmo.settings.schema import MICRO_BATCH, Recipe
from yanmo.train.optim import build_optimizer, trained_parameters

PRECISIONS: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
PROBE_FLOP = {"cpu": 2e11}
"""Upper limit of the work of one pass that is timed; on other devices ``MUCH_FLOP``."""
MUCH_FLOP = 2e13
ROUNDS = 3
LONG_ROUND = 7
"""Seconds; a longer round is not repeated: the passes of so large a model vary little."""
ALL_TRAINED = Adaptation()
HOPELESS_RATIO = 4
"""A way this many times slower than another is not measured again."""


@dataclass(frozen=True)
class Speed:
    """What the probe measured."""

    seconds_per_step: float
    tokens_per_second: float


def measure(
    recipe: Recipe,
    config: GPTConfig,
    world: World,
    clock: Callable[[], float] = time.perf_counter,
    adaptation: Adaptation = ALL_TRAINED,
) -> tuple[dict[str, Any], Speed]:
    """The fastest precision, attention, matmul route and micro-batch of those open, and their speed.

    Args:
        recipe: with the device decided.
        config: the model's shape.
        world: where to measure.
        clock: seconds; a parameter so that tests can choose the winner.
        adaptation: which weights are trained.

    Raises:
        DeviceError: not even one window fits into memory, or not even weights and optimizer.
    """
    device, sizes = world.device, micro_batches(recipe, world)
    with oom_as_error("the weights", str(device)):
        model = probe_model(recipe, config, device, adaptation)
    most = most_rows(config, device)

    def per_token(options: list[tuple[Way, int]]) -> dict[tuple[Way, int], float]:
        """Seconds per token: the least of three rounds (one where it is long), after a round of warm-up."""
        first = {option: time_of(option) for option in options}
        left = [option for option in options if first[option] <= HOPELESS_RATIO * min(first.values())]
        seconds = config.block_size * sum(first[option] * min(option[1], most) for option in left)
        # all options take turns: what slows the machine for a while slows all of them alike
        rounds = [[time_of(option) for option in left] for _ in range(1 if seconds > LONG_ROUND else ROUNDS)]
        # the least, not the mean: other processes only ever add time
        return {option: min(times) for option, *times in zip(left, *rounds, strict=True)}

    def time_of(option: tuple[Way, int]) -> float:
        way, size = option
        return _time_pass(model, min(size, most), device, way, clock)

    tried = promising(list(ways(recipe, device)), device, lambda way: time_of((way, 1)))
    found = per_token([(way, sizes[0]) for way in tried])
    # infinite: out of memory
    while min(found.values()) == math.inf:
        if sizes[0] == 1:
            raise no_room(config, str(device))
        sizes = [largest_divisor(recipe.train.batch_size, sizes[0] // 2)]
        found = per_token([(way, sizes[0]) for way in tried])
    way, _ = min(found, key=lambda option: found[option])
    # larger micro-batches are timed only in the best way, and only where a pass is not cut by most_rows
    affordable = [size for size in sizes if size <= most]
    if len(affordable) > 1:
        found = per_token([(way, size) for size in affordable])
    way, size = min(found, key=lambda option: found[option])
    tokens = recipe.train.batch_size * config.block_size
    with oom_as_error("weights, gradients and optimizer", str(device)):
        update = _time_update(model, recipe, way, clock)
    # ranks compute their rows at the same time, and each does the whole update
    per_step = found[way, size] * tokens / world.size + update
    use_matmul("torch")
    decisions = {f"train.{key}": value for key, value in way._asdict().items()}
    return decisions | {MICRO_BATCH: size}, Speed(per_step, tokens / per_step)


class Way(NamedTuple):
    """How the arithmetic of a forward and backward pass is done."""

    precision: Literal["float32", "bfloat16", "float16"]
    attention: Literal["sdpa", "matmul"]
    matmul: Literal["torch", "onednn"]


def ways(recipe: Recipe, device: torch.device) -> Iterator[Way]:
    """Those that are open on this device, where the recipe does not say."""
    train, on_cpu = recipe.train, device.type == "cpu"
    for precision in [train.precision] if train.precision else PRECISIONS:
        for attention in [train.attention] if train.attention else attentions(recipe, device):
            yield Way(precision, attention, train.matmul or "torch")
            # oneDNN's matmul may be faster; only where it truly computes in float32, not in reduced precision
            plain = (precision, attention) == ("float32", "matmul")
            if plain and on_cpu and not train.matmul and onednn_keeps_float32():
                yield Way(precision, attention, "onednn")


def promising(tried: list[Way], device: torch.device, time_of: Callable[[Way], float]) -> list[Way]:
    """Those in a precision that a single window does not show to be hopeless on this CPU."""
    # bfloat16 on a CPU that lacks it may take 50 times as long: passes of many windows would be half a minute
    one = {way.precision: way for way in reversed(tried)}
    if device.type != "cpu" or len(one) == 1:
        return tried
    # twice, as the first pass makes its kernels
    seconds = {precision: min(time_of(way) for _ in range(2)) for precision, way in one.items()}
    return [way for way in tried if seconds[way.precision] <= HOPELESS_RATIO * min(seconds.values())]


def attentions(recipe: Recipe, device: torch.device) -> tuple[Literal["sdpa", "matmul"], ...]:
    """The kinds of attention worth trying."""
    if device.type != "cpu":
        return ("sdpa",)
    # on a CPU sdpa with dropout has no fused kernel: it stores all (B, H, T, T) weights at once
    return ("matmul",) if recipe.model.dropout else ("sdpa", "matmul")


def micro_batches(recipe: Recipe, world: World) -> list[int]:
    """Sizes of a micro-batch worth trying, the smallest first; one alone where it was asked for.

    About 1,024 to 4,096 tokens on a CPU, whose caches hold the activations of no more; 16,384 elsewhere.
    """
    if recipe.train.micro_batch_size:
        return [recipe.train.micro_batch_size]
    batch = recipe.train.batch_size
    tokens = (1024, 2048, 4096) if world.device.type == "cpu" else (16384,)
    limits = [min(max(count // recipe.model.block_size, 1), -(-batch // world.size)) for count in tokens]
    # divisors of the batch: all micro-batches of a step then have one shape
    return sorted({largest_divisor(batch, limit) for limit in limits})


def probe_model(recipe: Recipe, config: GPTConfig, device: torch.device, adaptation: Adaptation) -> GPT:
    """A model to measure with."""
    model = adapted_model(config, adaptation, device)
    if adaptation.freezes:
        model.to_empty(device=device)
        for buffer in model.buffers():
            buffer.zero_()
    model.initialise(0)
    model.document_separator = 0 if recipe.data.document_mask else None
    return model.train()


def most_rows(config: GPTConfig, device: torch.device) -> int:
    """The most windows that a timed pass may have."""
    # 6 N FLOP per token: 2 forward, 4 backward (Kaplan et al. 2020), without attention's share
    flop = 6 * count_active(config) * config.block_size
    return max(int(PROBE_FLOP.get(device.type, MUCH_FLOP) / flop), 1)


def gain_of_compiling(
    recipe: Recipe,
    config: GPTConfig,
    device: torch.device,
    clock: Callable[[], float],
    adaptation: Adaptation = ALL_TRAINED,
) -> float:
    """How many times as fast compiled passes are, by the fastest of three rounds; 0 where it fails."""
    train = recipe.train
    way = Way(train.precision or "float32", train.attention or "sdpa", train.matmul or "torch")
    model = probe_model(recipe, config, device, adaptation)
    rows = min(train.micro_batch_size or 1, most_rows(config, device))
    compiled: Callable[..., torch.Tensor] = torch.compile(model.loss, dynamic=False)

    def time_of(loss_of: Callable[..., torch.Tensor], deterministic: bool) -> float:
        use_deterministic(deterministic)
        return _time_pass(model, rows, device, way, clock, loss_of)

    try:
        # compiled runs always use deterministic algorithms, so they are timed with them
        times = [
            (time_of(model.loss, train.deterministic), time_of(compiled, True)) for _ in range(1 + ROUNDS)
        ]
    except RuntimeError:  # what a compiler says when it cannot
        return 0.0
    finally:
        use_deterministic(train.deterministic)
        use_matmul("torch")
    # the first round compiles and warms up
    plain, faster = zip(*times[1:], strict=True)
    return 0.0 if math.inf in (*plain, *faster) else float(min(plain) / min(faster))


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of ``number`` that is at most ``limit`` (and at least 1)."""
    return max(n for n in range(1, max(min(limit, number), 1) + 1) if number % n == 0)


def no_room(config: GPTConfig, where: str) -> DeviceError:
    """The error when memory does not suffice for a single window."""
    return DeviceError(
        f"not enough memory for one window of {config.block_size} tokens",
        where=where,
        hint="choose a smaller model.block_size, n_embd or n_layer, or train.precision=bfloat16",
    )


def _time_pass(
    model: GPT,
    rows: int,
    device: torch.device,
    way: Way,
    clock: Callable[[], float],
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
) -> float:
    """Seconds per token of a forward and backward pass over ``rows`` windows; infinite if out of memory."""
    loss_of = loss_of or model.loss
    model.use_attention(way.attention)
    use_matmul(way.matmul)
    start = clock()
    try:
        ids = torch.randint(model.config.vocab_size, (rows, model.config.block_size), device=device)
        with autocast_for(device, way.precision)():
            loss = loss_of(ids, ids) / ids.numel()
        torch.autograd.backward(loss)
        # wait for the loss: on an accelerator kernels run after the call that starts them has returned
        float(loss.detach())
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        # the gradients so far fill the memory that the next, smaller try needs
        model.zero_grad()
        return math.inf
    _wait(device)
    return (clock() - start) / ids.numel()


def _time_update(model: GPT, recipe: Recipe, way: Way, clock: Callable[[], float]) -> float:
    optimizer, device = build_optimizer(model, recipe.optim, way.precision), model.tokens.weight.device
    for parameter in trained_parameters(model).values():  # a pass that ran out of memory left none
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()  # not timed: the first step allocates the moments
    _wait(device)
    start = clock()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    _wait(device)
    return clock() - start


def _wait(device: torch.device) -> None:
    """Wait until the device has finished its queue."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)

"""Decisions before a run: everything chosen by measurement or rule, taken once and written down.

In: a recipe with open settings, the model's shape and the amount of text. Out: the decisions by
``section.key`` and the seconds one step takes. The measurement runs real forward and backward passes
of the model on random tokens, in each arithmetic and attention the device offers, for some seconds.
"""

import math
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from yanmo.checkpoint import find_model_folder, load_shape
from yanmo.config import Recipe, check_relations, get, given_keys, with_values
from yanmo.data.batches import windows_in
from yanmo.errors import ConfigError, DeviceError
from yanmo.model.gpt import GPT, GPTConfig, count_parameters
from yanmo.train.distributed import World, autocast_for
from yanmo.train.optim import build_optimizer

DEFAULT_MINUTES = 10.0
EVALUATIONS = 10
MAX_WARMUP = 200
PROBE_FLOP = 2e11
"""The probe's micro-batch is cut to about so much work."""


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
    config = load_shape(folder)
    taken: dict[str, Any] = {
        f"model.{key}": getattr(config, key) for key in ("n_layer", "n_head", "n_embd", "block_size")
    }
    for name, value in taken.items():
        if name in given_keys(recipe) and get(recipe, name) != value:
            raise ConfigError(
                f"{name}={get(recipe, name)}, but the weights have {value}",
                where=f"model.init={recipe.model.init}",
                mend="leave the shape out: it comes with the weights",
            )
    if not {"tokenizer.kind", "tokenizer.path"} & given_keys(recipe):
        taken["tokenizer.path"] = str(folder)
    adopted = with_values(recipe, taken, "model.init")
    check_relations(adopted)
    return adopted.model_copy(update={"decided": (*recipe.decided, *taken)})


def decide_device(recipe: Recipe, world: World) -> dict[str, Any]:
    """Device, threads and micro-batch: by rule."""
    wanted = 4096 if world.device.type == "cpu" else 16384
    rows = max(wanted // recipe.model.block_size, 1)
    batch = recipe.train.batch_size
    return {
        "train.device": world.device.type if world.size > 1 else str(world.device),
        "train.threads": torch.get_num_threads(),
        "train.micro_batch_size": largest_divisor(batch, min(rows, -(-batch // world.size))),
    }


def require_compiler(recipe: Recipe, device: torch.device) -> None:
    """On a CPU torch.compile writes C++.

    Raises:
        DeviceError: ``train.compile`` is asked for and there is no compiler.
    """
    names = (os.environ.get("CXX", "g++"), "g++", "clang++", "c++", "cl")
    if recipe.train.compile and device.type == "cpu" and not any(map(shutil.which, names)):
        raise DeviceError(
            "train.compile needs a C++ compiler, and there is none",
            where=f"PATH ({', '.join(dict.fromkeys(names))})",
            mend="install g++, or leave train.compile out",
        )


def decide_packing(recipe: Recipe) -> dict[str, Any]:
    """How windows lie in the text: by rule."""
    packing = recipe.data.packing or ("stride" if recipe.data.stride else "offset")
    stride = max(recipe.model.block_size // 2, 1) if packing == "stride" else None
    return {"data.packing": packing, "data.stride": stride}


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of ``number`` that is at most ``limit`` (and at least 1)."""
    return max(n for n in range(1, max(min(limit, number), 1) + 1) if number % n == 0)


def measure(
    recipe: Recipe, config: GPTConfig, device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> tuple[dict[str, Any], Speed]:
    """Precision and attention: the fastest of what the recipe leaves open; and the speed that gives.

    Args:
        recipe: with the micro-batch decided.
        config: the model's shape.
        device: where to measure.
        clock: seconds; a parameter so that tests can choose the winner.
    """
    rows = recipe.train.micro_batch_size or 1
    flop = 6 * count_parameters(config) * config.block_size
    rows = max(min(rows, int(PROBE_FLOP / flop)), 1)
    model = GPT(config).to(device)
    model.initialise(0)
    ids = torch.randint(config.vocab_size, (rows, config.block_size), device=device)
    seconds = {}
    for precision, attention in candidates(recipe, device):
        model.use_attention(attention)
        seconds[precision, attention] = _time_pass(model, ids, device, precision, clock)
    precision, attention = min(seconds, key=lambda choice: seconds[choice])
    per_token = seconds[precision, attention] / ids.numel()
    update = _time_update(model, recipe, clock)
    tokens = recipe.train.batch_size * config.block_size
    per_step = per_token * tokens + update
    return (
        {"train.precision": precision, "train.attention": attention},
        Speed(per_step, tokens / per_step),
    )


def candidates(recipe: Recipe, device: torch.device) -> Iterator[tuple[str, Any]]:
    """The combinations of precision and attention that are open on this device."""
    precisions = [recipe.train.precision] if recipe.train.precision else ["float32", "bfloat16"]
    attentions = [recipe.train.attention] if recipe.train.attention else ["sdpa", "matmul"]
    if device.type != "cpu" and not recipe.train.attention:
        attentions = ["sdpa"]
    for precision in precisions:
        for attention in attentions:
            yield precision, attention


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
        "optim.min_lr": recipe.optim.learning_rate / 10,
    }
    return horizon, decisions


def _time_pass(
    model: GPT,
    ids: torch.Tensor,
    device: torch.device,
    precision: str,
    clock: Callable[[], float],
    rounds: int = 3,
) -> float:
    """Median seconds of a forward and backward pass; the first round only warms up."""
    seconds = []
    autocast = autocast_for(device, precision)
    for _ in range(rounds + 1):
        start = clock()
        with autocast():
            loss = model.loss(ids, ids) / ids.numel()
        torch.autograd.backward(loss)
        float(loss.detach())  # waits for the device
        seconds.append(clock() - start)
    return statistics.median(seconds[1:])


def _time_update(model: GPT, recipe: Recipe, clock: Callable[[], float]) -> float:
    optimizer = build_optimizer(model, recipe.optim)
    optimizer.step()
    start = clock()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return clock() - start

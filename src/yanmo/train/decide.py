"""Decisions before a run: everything chosen by measurement or rule, taken once and written down.

In: a recipe with open settings, the model's shape and the amount of text. Out: the decisions by
``section.key`` and the seconds one step takes. The measurement runs real forward and backward passes
of the model on random tokens, in each arithmetic and attention the device offers, for some seconds.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from yanmo.config import Recipe
from yanmo.data.prepare import Prepared
from yanmo.errors import ConfigError
from yanmo.model.gpt import GPT, GPTConfig, count_parameters
from yanmo.train.distributed import autocast_for, find_device
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


def decide_device(recipe: Recipe) -> dict[str, Any]:
    """Device, threads and micro-batch: by rule."""
    device = find_device(recipe.train.device)
    wanted = 4096 if device.type == "cpu" else 16384
    rows = max(wanted // recipe.model.block_size, 1)
    batch = recipe.train.batch_size
    micro = max(n for n in range(1, min(rows, batch) + 1) if batch % n == 0)
    return {
        "train.device": str(device),
        "train.threads": torch.get_num_threads(),
        "train.micro_batch_size": micro,
    }


def measure(
    recipe: Recipe, config: GPTConfig, clock: Callable[[], float] = time.perf_counter
) -> tuple[dict[str, Any], Speed]:
    """Precision and attention: the fastest of what the recipe leaves open; and the speed that gives.

    Args:
        recipe: with device and micro-batch decided.
        config: the model's shape.
        clock: seconds; a parameter so that tests can choose the winner.
    """
    device = torch.device(recipe.train.device or "cpu")
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


def decide_length(recipe: Recipe, speed: Speed, val_tokens: int) -> tuple[int, dict[str, Any]]:
    """How many steps the run aims at, and the rhythm and warm-up that follow from it."""
    train = recipe.train
    horizons, decisions = [], {}
    minutes = train.minutes
    if train.max_steps is None and minutes is None:
        minutes = decisions["train.minutes"] = DEFAULT_MINUTES
    if train.max_steps is not None:
        horizons.append(train.max_steps)
    if minutes is not None:
        evaluating = EVALUATIONS * val_tokens / (3 * speed.tokens_per_second)
        training = max(minutes * 60 - evaluating, minutes * 60 / 2)
        horizons.append(max(int(training / speed.seconds_per_step), 1))
    horizon = min(horizons)
    warmup = recipe.optim.warmup_steps
    if warmup is not None and warmup >= horizon:
        raise ConfigError(
            f"optim.warmup_steps={warmup} leaves nothing of about {horizon} steps",
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


def introduction(recipe: Recipe, prepared: Prepared, config: GPTConfig, horizon: int) -> list[str]:
    """What will be trained on what, in three lines."""
    split, train = prepared.shards.manifest["splits"], recipe.train
    passes = horizon * train.batch_size * config.block_size / len(prepared.shards.train)
    return [
        f"text   {split['train']['characters'] + split['val']['characters']:,} characters,"
        f" {len(prepared.shards.train):,} training tokens, {len(prepared.shards.val):,} held out",
        f"model  {recipe.model.family}, {count_parameters(config):,} parameters:"
        f" {config.n_layer} layers, {config.n_head} heads, {config.n_embd} wide,"
        f" window {config.block_size}, vocabulary {config.vocab_size:,}",
        f"plan   about {horizon:,} steps of {train.batch_size} windows ({passes:.1f} passes) on"
        f" {train.device}, {train.precision}, {train.attention} attention, {train.threads} threads",
    ]


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

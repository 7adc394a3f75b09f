"""The cost of a run, by arithmetic, before it starts: size, passes, memory, disk, and warnings.

In: a recipe, the model's shape, the amount of text, the number of steps and the speed where they are
known. Out: a :class:`Forecast` and its lines for the console. Nothing is measured here (``probe.py``
measures) and nothing is decided.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from yanmo.core.console import counted, span
from yanmo.data.batches import windows_in
from yanmo.eval.health import BITS_PER_PARAMETER
from yanmo.model.config import GPTConfig
from yanmo.model.fused import LOGITS, MANY_LOGITS
from yanmo.model.gpt import count_active, count_between, count_parameters
from yanmo.model.lora import Adaptation, adapted_model
from yanmo.settings.schema import SECTIONS, Recipe
from yanmo.train.decide import (
    MANY_PASSES,
    passes,
    seconds_of_evaluation,
    seconds_of_saving,
    step_limit,
    usual_rate,
)
from yanmo.train.optim import WEIGHT_DECAY, hidden_matrices, trained_parameters
from yanmo.train.probe import ALL_TRAINED, Speed

FINE_TUNING_RATE = 5e-5
"""A learning rate up to this one is usual for fine-tuning, and too low from scratch."""
FEW_TOKENS = 1 / 20
"""Fewer training tokens per parameter than this: the model will overfit. (Compute-optimal is about 20.)"""


@dataclass(frozen=True)
class TextSize:
    """The size of the prepared text."""

    characters: int
    train_tokens: int
    """Read in an epoch."""
    val_tokens: int


@dataclass(frozen=True)
class Forecast:
    """The numbers of a run; what depends on its length is None where only the clock will tell."""

    parameters: int
    trained_parameters: int
    """Fewer than all where some are frozen; those of LoRA, which are merged later, are counted here alone."""
    active_parameters: int
    """Those that take part in one token: fewer than all in a mixture of experts."""
    parameters_without_embeddings: int
    """Token and position tables, and a head of its own, not counted (Kaplan et al. 2020; nanoGPT leaves out
    positions only)."""
    vocabulary: int
    text: TextSize
    tokens_per_parameter: float
    capacity_bits: float
    """What the trained parameters could hold by heart."""
    text_bits: float | None
    """What the training text costs a bigram model; None: that was not counted."""
    steps: int | None
    epochs: float | None
    passes: float | None
    """How often each token is a target: more than epochs where windows overlap."""
    memory_bytes: int
    cache_bytes: int
    """KV cache of one token, in float32."""
    disk_bytes: int
    seconds: float | None
    """Seconds of the run, evaluations included, at the speed that was measured here."""
    seconds_per_step: float | None
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def forecast(
    recipe: Recipe,
    config: GPTConfig,
    text: TextSize,
    steps: int | None = None,
    free_bytes: int | None = None,
    speed: Speed | None = None,
    adaptation: Adaptation = ALL_TRAINED,
    text_bits: float | None = None,
) -> Forecast:
    """All that arithmetic knows of a run.

    Args:
        recipe: with device, micro-batch and packing decided.
        config: the model's shape.
        text: the prepared text.
        steps: how many; None: what max_steps and epochs say, if they do.
        free_bytes: room on the disk of the run folder, to warn.
        speed: what the probe measured, if it did.
        adaptation: which weights are trained.
        text_bits: what the training text costs a bigram model, if that was counted.
    """
    steps = steps or step_limit(recipe, text.train_tokens)
    parameters, sizes = count_parameters(config), ModelSizes.of(recipe, config, adaptation)
    windows = windows_in(text.train_tokens, config.block_size, recipe.data.stride)
    samples = steps * recipe.train.batch_size if steps else None
    found = Forecast(
        parameters=parameters,
        trained_parameters=sizes.trained,
        active_parameters=count_active(config),
        parameters_without_embeddings=count_between(config),
        vocabulary=config.vocab_size,
        text=text,
        tokens_per_parameter=text.train_tokens / parameters,
        capacity_bits=BITS_PER_PARAMETER * sizes.trained,
        text_bits=text_bits,
        steps=steps,
        epochs=samples / windows if samples else None,
        passes=passes(recipe, steps, text.train_tokens) if steps else None,
        memory_bytes=memory_bytes(recipe, config, sizes),
        cache_bytes=4 * config.cached_values,
        disk_bytes=disk_bytes(recipe, parameters, sizes, samples / windows if samples else 0),
        seconds=seconds_of(recipe, config, steps, speed, text) if speed and steps else None,
        seconds_per_step=speed.seconds_per_step if speed else None,
        warnings=(),
    )
    return replace(found, warnings=tuple(warnings_of(recipe, found, free_bytes)))


def seconds_of(recipe: Recipe, config: GPTConfig, steps: int, speed: Speed, text: TextSize) -> float:
    """Seconds of ``steps`` steps with their evaluations, at most ``train.minutes``."""
    evaluations = math.ceil(steps / (recipe.train.eval_interval or steps))
    pause_s = seconds_of_evaluation(recipe, speed, text.val_tokens) + seconds_of_saving(recipe, config)
    seconds = steps * speed.seconds_per_step + evaluations * pause_s
    return min(seconds, 60 * (recipe.train.minutes or math.inf))


@dataclass(frozen=True)
class ModelSizes:
    """What a model and its optimizer consist of."""

    trained: int
    """Parameters that are trained, in float32."""
    frozen_bytes: int
    moment_bytes: int
    """What the optimizer keeps in float32: two moments of a parameter, one of a matrix under Muon."""
    dtype: torch.dtype
    """Of frozen matrices."""
    layers: int
    """Those whose activations the backward pass needs."""

    @classmethod
    def of(cls, recipe: Recipe, config: GPTConfig, adaptation: Adaptation) -> "ModelSizes":
        """By counting, without memory."""
        # meta tensors have a shape and no memory: a model of any size is built at once
        with torch.device("meta") as meta:
            model = adapted_model(config, adaptation, meta)
        trained = sum(p.numel() for p in trained_parameters(model).values())
        frozen = sum(p.numel() * p.element_size() for p in model.parameters() if not p.requires_grad)
        hidden = hidden_matrices(model) if recipe.optim.name == "muon" else {}
        moments = 4 * (2 * trained - sum(matrix.numel() for matrix in hidden.values()))
        # the gradient of rows of the embedding comes through all layers
        layers = config.n_layer if adaptation.tokens else adaptation.finetune.layers or config.n_layer
        return cls(trained, frozen, moments, adaptation.dtype, layers)


def memory_bytes(recipe: Recipe, config: GPTConfig, sizes: ModelSizes) -> int:
    """Roughly what training needs at its peak: weights, gradients, optimizer, one micro-batch's activations.

    Activations are those of the layers (:func:`values_of_layer`), and half of the attention matrices where
    they are not fused away; of the head there are some rows of logits in float32 and in the arithmetic's
    dtype, and the gradients of input and weights. Frozen weights are read from a file, copied, and merged
    and written again: where they are many, that is the peak.
    """
    rows = recipe.train.micro_batch_size or 1
    # bytes of an activation: autocast keeps them in two-byte floats
    size = 4 if recipe.train.precision in (None, "float32") else 2
    tokens, C = rows * config.block_size, config.n_embd
    # autocast casts each weight once per forward pass and keeps the copy until the backward pass is done
    copies = 0 if size == 4 else size * sizes.trained
    of_layer = values_of_layer(config)
    if recipe.finetune.method == "lora":
        # base and correction make an output each, besides their sum; the heap keeps the room of both
        of_layer += 2 * outputs_of_layer(config)
    layers = sizes.layers * tokens * of_layer * size
    matrices = 0
    if recipe.train.attention == "matmul":
        # (B, H, T, T) in every layer; attention is computed in blocks of rows, which leaves out what the
        # causal mask hides, about half. sdpa never stores them
        matrices = config.n_layer * config.n_head * tokens * config.block_size * size // 2
    # the fused cross-entropy holds a few rows of (tokens, vocabulary) at a time, never all of it
    logits = min(LOGITS.get(recipe.train.device or "cpu", MANY_LOGITS), tokens * config.vocab_size)
    head = logits * (4 + 2 * size) + tokens * C * (4 + size)
    if not sizes.frozen_bytes:
        head += config.vocab_size * C * (4 + size)
    elif sizes.dtype.itemsize != size:
        head += config.vocab_size * C * size  # cast while it is used
    # 8 bytes: weight and gradient in float32
    kept = sizes.frozen_bytes + 8 * sizes.trained + sizes.moment_bytes
    if recipe.optim.average:
        kept += 4 * sizes.trained
    return kept + max(copies + layers + matrices + head, 2 * sizes.frozen_bytes)


def values_of_layer(config: GPTConfig) -> int:
    """How many values a layer keeps of each token for the backward pass, and those in flight; measured.

    Korthikanti et al. 2022 count 17 C for what is kept alone. A gated MLP keeps twice as much of its inner
    width, and a token that is routed to K experts is kept K times. Heads may be wider than the stream.
    """
    heads = config.n_head * config.head_dim
    if config.kind.mlp == "plain":
        return 20 * config.n_embd + 2 * config.n_inner
    if not config.has("n_expert"):
        return 8 * config.n_embd + 16 * heads + 4 * config.n_inner
    inner = (config.n_expert_active + config.n_expert_shared) * config.expert_inner
    return (8 + 4 * config.n_expert_active) * config.n_embd + 16 * heads + 4 * inner


def outputs_of_layer(config: GPTConfig) -> int:
    """How many values the linear layers of a block give for a token."""
    attention = (config.n_head + 2 * config.n_kv_head) * config.head_dim + config.n_embd
    return attention + (1 if config.kind.mlp == "plain" else 2) * config.n_inner + config.n_embd


def disk_bytes(recipe: Recipe, parameters: int, sizes: ModelSizes, epochs: float) -> int:
    """What a run folder grows to: checkpoints kept, the best, one being written, each epoch's if asked."""
    # the best may be older than the last k, and a new one is whole before an old one is deleted
    checkpoints = recipe.train.keep_last + 2 + (int(epochs) if recipe.train.save_every_epoch else 0)
    # merged weights are in the base's dtype; what is trained is kept in float32 besides, LoRA's also for PEFT
    apart = 0 if not sizes.frozen_bytes else 8 if recipe.finetune.method == "lora" else 4
    if recipe.optim.average:
        apart = 4  # the weights that are trained, besides their average
    weights = parameters * sizes.dtype.itemsize + apart * sizes.trained
    return checkpoints * (weights + sizes.moment_bytes)


def warnings_of(recipe: Recipe, found: Forecast, free_bytes: int | None) -> Iterator[str]:
    """Warnings from experience about these numbers, each with the way out."""
    optim, from_scratch = recipe.optim, recipe.model.init is None
    usual = usual_rate(optim.name or "adamw", recipe.model.n_embd)
    if from_scratch and optim.learning_rate and optim.learning_rate <= FINE_TUNING_RATE:
        yield (
            f"optim.learning_rate={optim.learning_rate:g} is a rate for fine-tuning: from scratch a model"
            f" learns little more than token frequencies; {usual:g} is usual"
        )
    if found.steps and optim.warmup_steps and optim.warmup_steps >= found.steps:
        yield (
            f"optim.warmup_steps={optim.warmup_steps} is longer than the run of {found.steps:,} steps:"
            " the rate never reaches its peak"
        )
    if from_scratch and found.tokens_per_parameter < FEW_TOKENS:
        yield (
            f"{found.text.train_tokens:,} training tokens are few for {found.parameters:,} parameters"
            f" ({found.tokens_per_parameter:.3f} each): it will overfit and memorise them; give more text,"
            " a smaller model, or start from weights with model.init"
        )
    many, decay = (found.passes or 0) > MANY_PASSES, optim.weight_decay
    if many and decay is not None and decay <= WEIGHT_DECAY and not recipe.model.dropout:
        yield (
            f"{found.passes:.0f} passes over the text with optim.weight_decay={decay:g} and no dropout:"
            " it will be learned by heart; leave weight_decay out, and it is decided for so many passes"
        )
    if free_bytes is not None and found.disk_bytes > free_bytes:
        yield (
            f"the run needs about {gigabytes(found.disk_bytes)} of disk, but only"
            f" {gigabytes(free_bytes)} are free"
        )


def describe(recipe: Recipe, config: GPTConfig, found: Forecast) -> list[str]:
    """A forecast in lines, the recipe first."""
    text, train = found.text, recipe.train
    ends = [f"{found.steps:,} steps" if found.steps else "as many steps as fit"]
    if train.minutes:
        unasked = ", the default length (train.minutes)" if "train.minutes" in recipe.decided else ""
        ends.append(f"within {train.minutes:g} minutes{unasked}")
    if found.passes and found.epochs:
        ends.append(f"{found.epochs:.1f} epochs, {found.passes:.1f} passes over the text")
    tables = "token and position tables" if config.kind.positions == "learned" else "token table and head"
    shared = f" on {config.n_kv_head} of keys and values" if config.n_kv_head < config.n_head else ""
    active = ""
    if config.has("n_expert"):
        active = (
            f"; {found.active_parameters:,} active: {config.n_expert_active} of {config.n_expert} experts"
            f" and {config.n_expert_shared} shared"
        )
    lines = [
        *recipe_lines(recipe),
        f"text   {text.characters:,} characters, {text.train_tokens:,} training tokens,"
        f" {text.val_tokens:,} held out",
        f"model  {recipe.model.family}, {found.parameters:,} parameters"
        f" ({found.parameters_without_embeddings:,} without {tables}{active}):"
        f" {config.n_layer} layers, {config.n_head} heads{shared}, {config.n_embd} wide,"
        f" window {config.block_size}, vocabulary {config.vocab_size:,};"
        f" {found.tokens_per_parameter:.2f} training tokens per parameter",
        *trains(recipe, found),
        *holds(found),
        f"plan   {', '.join(ends)}; batches of {train.batch_size} windows",
        *takes(recipe, found),
        f"by     {choices(recipe)}",
        f"memory about {gigabytes(found.memory_bytes)}"
        f" (KV cache: {found.cache_bytes / 1000:.1f} kB per token),"
        f" {gigabytes(found.disk_bytes)} of disk for checkpoints",
    ]
    return lines + [f"warning: {warning}" for warning in found.warnings]


def trains(recipe: Recipe, found: Forecast) -> Iterator[str]:
    """The line about weights that are frozen, where some are."""
    finetune = recipe.finetune
    if finetune.method == "lora" and finetune.alpha:
        how = f"LoRA of rank {finetune.rank}, alpha {finetune.alpha:g}"
    elif finetune.method == "last":
        how = f"the last {counted(finetune.layers or 1, 'block')}, the final norm"
    else:
        return
    yield f"trains {found.trained_parameters:,} parameters: {how}; the others are frozen"


def holds(found: Forecast) -> Iterator[str]:
    """The line about learning the text by heart, where the text was counted."""
    if found.text_bits:
        yield (
            f"holds  about {found.capacity_bits / 1e6:.1f} Mbit ({BITS_PER_PARAMETER} a parameter),"
            f" {found.capacity_bits / found.text_bits:,.2f} times the training text's"
            f" {found.text_bits / 1e6:.1f} (at its bigram line)"
        )


def takes(recipe: Recipe, found: Forecast) -> Iterator[str]:
    """The line about time, where that was measured."""
    if found.seconds is None or found.seconds_per_step is None:
        return
    device = "this CPU" if recipe.train.device in (None, "cpu") else f"{recipe.train.device} of this machine"
    step = found.seconds_per_step
    each = f"{1000 * step:.0f} ms" if step < 1 else span(step) if step >= 60 else f"{step:.1f} s"
    yield f"takes  about {span(found.seconds)} on {device}: {each} per step, measured now"


def recipe_lines(recipe: Recipe) -> Iterator[str]:
    """What was chosen, decided or changed, a line for each section; all settings are in recipe.toml."""
    usual = Recipe()
    for section in SECTIONS:
        values = {
            key: value
            for key, value in getattr(recipe, section)
            if value != getattr(getattr(usual, section), key)
        }
        if values:
            yield f"[{section}] " + " ".join(f"{key}={_plain(value)}" for key, value in values.items())


def choices(recipe: Recipe) -> str:
    """How it is computed and learned, as far as that is decided: what is measured or follows by rule."""
    train, optim = recipe.train, recipe.optim
    said = [
        train.device,
        counted(train.threads, "thread") if train.threads and train.device == "cpu" else None,
        train.precision,
        f"{train.attention} attention" if train.attention else None,
        "oneDNN's float32" if train.matmul == "onednn" else None,
        f"{counted(train.micro_batch_size, 'window')} at a time" if train.micro_batch_size else None,
        {True: "compiled", False: "not compiled", None: None}[train.compile],
        f"{optim.name} at {optim.learning_rate:g}" if optim.name and optim.learning_rate else None,
        f"weights averaged over {optim.average:.0%} of the run" if optim.average else None,
        f"sequence-length warm-up for the first {train.seq_len_warmup:.0%}" if train.seq_len_warmup else None,
    ]
    return ", ".join(word for word in said if word)


def gigabytes(size: int) -> str:
    """``1.31 GB``, ``45 MB``."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ",".join(map(str, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)

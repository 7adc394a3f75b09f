"""What settings have to do with each other: which are impossible together, which decision rests on which.

In: a :class:`Recipe`. Out: a :class:`ConfigError` with both values and a hint; or the decisions that are
open again because a setting they rest on has changed.
"""

from collections.abc import Collection
from typing import Any

from yanmo.core.errors import ConfigError
from yanmo.settings.schema import (
    EXPERT_KEYS,
    LENGTHS,
    MICRO_BATCH,
    SHAPE_KEYS,
    USUAL_EXPERTS,
    ModelConfig,
    Recipe,
    TrainConfig,
)


def check_relations(recipe: Recipe) -> None:
    """Refuse settings that are fine alone and impossible together.

    Raises:
        ConfigError: with both values.
    """
    model, optim, train, data = recipe.model, recipe.optim, recipe.train, recipe.data
    if model.n_embd % model.n_head and (model.family == "gpt2" or not model.head_dim):
        raise ConfigError(
            f"model.n_embd={model.n_embd} cannot be shared out among model.n_head={model.n_head} heads",
            where="[model]",
            hint=f"choose n_embd as a multiple of {model.n_head}, or another n_head",
        )
    if model.init is None:  # else the shape comes with the weights
        _check_family(model)
    elif model.zero_projections:
        raise ConfigError(
            "model.zero_projections=true would do away with the weights to begin from",
            where=f"model.init={model.init}",
            hint="leave one of them out",
        )
    _check_step(train, model)
    if optim.warmup_steps and train.max_steps and optim.warmup_steps >= train.max_steps:
        raise ConfigError(
            f"optim.warmup_steps={optim.warmup_steps} leaves nothing of train.max_steps={train.max_steps}",
            where="[optim]",
            hint="choose fewer warm-up steps, or leave them out",
        )
    if data.stride and data.packing == "offset":
        raise ConfigError(
            f"data.stride={data.stride} means nothing with data.packing=offset",
            where="[data]",
            hint="leave packing out, or stride",
        )
    if data.stride and data.stride > model.block_size:
        raise ConfigError(
            f"data.stride={data.stride} is larger than model.block_size={model.block_size}:"
            " the text between two windows would never be read",
            where="[data]",
            hint=f"choose at most {model.block_size}",
        )
    if optim.min_lr is not None and optim.learning_rate is not None and optim.min_lr > optim.learning_rate:
        raise ConfigError(
            f"optim.min_lr={optim.min_lr} is above optim.learning_rate={optim.learning_rate}",
            where="[optim]",
            hint="lower min_lr, or leave it out",
        )


def _check_step(train: TrainConfig, model: ModelConfig) -> None:
    """How a step is computed."""
    if train.matmul == "onednn" and (train.device or "cpu") != "cpu":
        raise ConfigError(
            f"train.matmul=onednn is a way of a CPU, and train.device={train.device}",
            where="[train]",
            hint="leave matmul out",
        )
    if train.seq_len_warmup and model.block_size % 2:
        raise ConfigError(
            f"train.seq_len_warmup={train.seq_len_warmup} halves model.block_size={model.block_size}",
            where="[train]",
            hint="choose an even block_size, or seq_len_warmup=0",
        )
    if train.micro_batch_size and train.batch_size % train.micro_batch_size:
        raise ConfigError(
            f"train.micro_batch_size={train.micro_batch_size} does not divide"
            f" train.batch_size={train.batch_size}",
            where="[train]",
            hint="choose a divisor, or leave micro_batch_size out",
        )


def _check_family(model: ModelConfig) -> None:
    """Refuse what a family does not have."""
    fixed = {"n_kv_head": model.n_head, "head_dim": model.n_embd // model.n_head, "tied_head": True}
    missing: dict[str, Any] = {"rope_theta": None, **fixed} if model.family == "gpt2" else {"gelu": None}
    if model.family != "moe":
        missing |= dict.fromkeys(EXPERT_KEYS)
    for key, usual in missing.items():
        value = getattr(model, key)
        if value not in (None, usual):
            family = "moe" if key in EXPERT_KEYS else "gpt2" if key == "gelu" else "modern"
            raise ConfigError(
                f"model.{key}={value} means nothing in a {model.family} model",
                where="[model]",
                hint=f"leave {key} out, or choose model.family={family}",
            )
    if model.n_head % (model.n_kv_head or 1):
        raise ConfigError(
            f"model.n_head={model.n_head} queries cannot be shared out among"
            f" model.n_kv_head={model.n_kv_head}",
            where="[model]",
            hint="choose a divisor of n_head",
        )
    head_dim = model.head_dim or fixed["head_dim"]
    if model.family != "gpt2" and head_dim % 2:
        raise ConfigError(
            f"a head of {head_dim} channels cannot be turned in pairs",
            where="[model]",
            hint="choose an even model.head_dim",
        )
    active = model.n_expert_active or USUAL_EXPERTS["n_expert_active"]
    count = model.n_expert or USUAL_EXPERTS["n_expert"]
    if active > count:
        raise ConfigError(
            f"model.n_expert_active={active} is more than model.n_expert={count}",
            where="[model]",
            hint="choose fewer active experts, or more",
        )


# -- decisions ----------------------------------------------------------------------------------

_SHAPE = tuple(f"model.{key}" for key in SHAPE_KEYS)
_MEASURED = ("train.precision", "train.attention", "train.matmul", MICRO_BATCH)

_PASS = (*_SHAPE, "model.dropout", "corpus.", "tokenizer.", "data.document_mask", "train.batch_size",
         "train.device", "train.threads", "train.deterministic", *_MEASURED)  # fmt: skip
"""What the time and memory of a pass rest on; the text through its vocabulary."""

_STEPS = (*_PASS, *LENGTHS, "optim.name", "data.val_fraction", "data.packing", "data.stride")
"""What the number of steps rests on: text and length, and speed where the clock ends a run."""

GROUNDS: dict[str, tuple[str, ...]] = {
    "tokenizer.path": ("model.init", "tokenizer.kind"),
    **dict.fromkeys(_SHAPE, (*_SHAPE, "model.init")),
    "train.device": (),
    "train.threads": (),
    "data.packing": ("data.stride",),
    "data.stride": ("data.packing", "model.block_size"),
    "optim.name": ("model.init",),
    "optim.learning_rate": ("optim.name", "model.n_embd", "model.init"),
    "tokenizer.kind": ("corpus.", "tokenizer.path", "model.init"),
    "data.val_fraction": ("corpus.",),
    **dict.fromkeys(_MEASURED, _PASS),
    "train.compile": _STEPS,
    "train.minutes": ("train.max_steps", "train.epochs"),
    "train.eval_interval": (*_STEPS, "train.compile", "sample.max_new_tokens"),
    "train.checkpoint_interval": (*_STEPS, "train.compile", "train.eval_interval"),
    "optim.warmup_steps": (*_STEPS, "train.compile"),
    "optim.min_lr": ("optim.learning_rate",),
    "sample.prompt": ("corpus.", "tokenizer.", "data.val_fraction", "model.block_size"),
    "model.dropout": (*_STEPS, "train.compile"),
    "train.seq_len_warmup": ("optim.name", "model.init", "model.block_size"),
}
"""Every decision and what it rests on, keys and whole sections. Two rest on each other: what is fastest, and
dropout, which costs time and follows from how many steps there is time for (``train/run.py``)."""


def reopened(decided: Collection[str], changed: Collection[str]) -> set[str]:
    """Those decisions that rest on what has changed, or on another of them that does."""
    again: set[str] = set()
    moved = set(changed)
    while moved:
        moved = {name for name in set(decided) - again if _rests_on(name, moved)}
        again |= moved
    return again


def _rests_on(name: str, moved: Collection[str]) -> bool:
    grounds = GROUNDS.get(name, ())
    return any(other in grounds or _section_of(other) in grounds for other in moved)


def _section_of(name: str) -> str:
    """``"train.minutes"`` -> ``"train."``"""
    return name.partition(".")[0] + "."

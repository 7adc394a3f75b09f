"""What settings have to do with each other: which are impossible together, which decisions are open again.

In: a :class:`Recipe`. Out: a :class:`ConfigError` with both values and a hint; or the decisions to take
again because settings have changed.
"""

from collections.abc import Collection

from yanmo.core.errors import ConfigError
from yanmo.settings.schema import (
    FREE_KEYS,
    LENGTHS,
    MICRO_BATCH,
    OWN_KEYS,
    USUAL_EXPERTS,
    FinetuneConfig,
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
    if model.n_embd % model.n_head and not (model.head_dim and model.family in FREE_KEYS["head_dim"]):
        raise ConfigError(
            f"model.n_embd={model.n_embd} is not a multiple of model.n_head={model.n_head}",
            where="[model]",
            hint=f"choose n_embd as a multiple of {model.n_head}, or another n_head",
        )
    if model.init is None:  # else the shape comes with the weights
        _check_family(model)
    elif model.zero_projections:
        raise ConfigError(
            "model.zero_projections=true would overwrite the weights of model.init",
            where=f"model.init={model.init}",
            hint="leave one of them out",
        )
    if optim.average and recipe.finetune.method in ("lora", "last"):
        raise ConfigError(
            f"optim.average={optim.average:g} is for runs that train all weights",
            where=f"finetune.method={recipe.finetune.method}",
            hint="leave average out",
        )
    _check_step(train, model)
    _check_finetune(recipe.finetune, model)
    if optim.warmup_steps and train.max_steps and optim.warmup_steps >= train.max_steps:
        raise ConfigError(
            f"optim.warmup_steps={optim.warmup_steps} is not less than train.max_steps={train.max_steps}",
            where="[optim]",
            hint="choose fewer warm-up steps, or leave them out",
        )
    if data.stride and data.packing == "offset":
        raise ConfigError(
            f"data.stride={data.stride} has no effect with data.packing=offset",
            where="[data]",
            hint="leave out packing or stride",
        )
    if data.stride and data.stride > model.block_size:
        raise ConfigError(
            f"data.stride={data.stride} is larger than model.block_size={model.block_size}:"
            " the text between windows would never be read",
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
            f"train.matmul=onednn is for a CPU, but train.device={train.device}",
            where="[train]",
            hint="leave matmul out",
        )
    if train.seq_len_warmup and model.block_size % 2:
        raise ConfigError(
            f"train.seq_len_warmup={train.seq_len_warmup} cannot halve model.block_size={model.block_size}",
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


def _check_finetune(finetune: FinetuneConfig, model: ModelConfig) -> None:
    """Which weights are trained."""
    method = finetune.method or "full"
    for key, own in (("rank", "lora"), ("alpha", "lora"), ("layers", "last")):
        value = getattr(finetune, key)
        if value is not None and method != own:
            raise ConfigError(
                f"finetune.{key}={value} has no effect with finetune.method={method}",
                where="[finetune]",
                hint=f"leave {key} out, or choose finetune.method={own}",
            )
    for key in ("replay", "keep", "preference"):
        value = getattr(finetune, key)
        if value and finetune.method is None:
            raise ConfigError(
                f"finetune.{key}={value} has no effect without finetune.method",
                where="[finetune]",
                hint="yanmo finetune BASE DATA; or finetune.method=full with model.init=BASE",
            )
    if finetune.method is not None and model.init is None:
        raise ConfigError(
            f"finetune.method={method} needs weights to begin from",
            where="[finetune]",
            hint="name a run or a model folder with model.init=…, or leave method out to train all weights",
        )


def _check_family(model: ModelConfig) -> None:
    """Refuse what a family does not have."""
    fixed = {"n_kv_head": model.n_head, "head_dim": model.n_embd // model.n_head, "tied_head": True}
    for key, families in {**OWN_KEYS, **FREE_KEYS}.items():
        value = getattr(model, key)
        if model.family not in families and value not in (None, fixed.get(key)):
            raise ConfigError(
                f"model.{key}={value} has no effect in a {model.family} model",
                where="[model]",
                hint=f"leave {key} out, or choose model.family={families[0]}",
            )
    if model.n_head % (model.n_kv_head or 1):
        raise ConfigError(
            f"model.n_head={model.n_head} is not a multiple of model.n_kv_head={model.n_kv_head}",
            where="[model]",
            hint="choose a divisor of n_head",
        )
    head_dim = model.head_dim or fixed["head_dim"]
    if model.family in OWN_KEYS["rope_theta"] and head_dim % 2:
        raise ConfigError(
            f"rotary positions need an even head width, not {head_dim}",
            where="[model]",
            hint="choose an even model.head_dim",
        )
    active = model.n_expert_active or USUAL_EXPERTS["n_expert_active"]
    count = model.n_expert or USUAL_EXPERTS["n_expert"]
    if active > count:
        raise ConfigError(
            f"model.n_expert_active={active} is more than model.n_expert={count}",
            where="[model]",
            hint="choose fewer active experts, or a larger n_expert",
        )


# -- decisions ----------------------------------------------------------------------------------

_MACHINE = ("train.device", "train.threads", "train.precision", "train.attention", "train.matmul",
            MICRO_BATCH, "train.compile")  # fmt: skip
MEASURED = (*_MACHINE, "model.dropout", "optim.average", "train.eval_interval", "optim.warmup_steps")
"""Decisions that rest on how fast a step is here, or on how many steps there is time for. All others follow
from the settings by rule."""
GROUNDS = ("corpus.", "tokenizer.", "model.", "data.", "optim.name", "finetune.",
           "train.batch_size", "train.deterministic", *LENGTHS, *_MACHINE)  # fmt: skip
"""What speed and length rest on: keys, and whole sections."""


def reopened(decided: Collection[str], changed: Collection[str]) -> set[str]:
    """The decisions of a recipe that are to be taken again in a new run, for which some settings changed.

    Whatever follows by rule is derived again, which costs nothing. What was measured is kept as long as
    what it was measured on has not changed.
    """
    if not changed:
        return set()
    is_as_fast = not any(name.startswith(GROUNDS) for name in changed)
    return {name for name in decided if not (is_as_fast and name in MEASURED)}

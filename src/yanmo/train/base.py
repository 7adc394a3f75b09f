"""The weights that a run begins from: found, told from others by their sha256, and given to its model.

In: a recipe with ``model.init``. Out: the model of that folder; or weights in the run's own model, whose
vocabulary may have more tokens and of which a part may stay frozen (``model/lora.py``).
"""

from pathlib import Path

import torch
from torch import Tensor

from yanmo.checkpoint.folder import find_model_folder, load_model, load_shape, our_weights
from yanmo.checkpoint.tensors import load_weights, stored_dtype, weight_files
from yanmo.core import storage
from yanmo.core.errors import ConfigError
from yanmo.core.records import Manifest, read_record
from yanmo.model.gpt import GPT
from yanmo.model.lora import Adaptation, is_adapted, load_base
from yanmo.settings.schema import Recipe
from yanmo.tokenizer import Tokenizer
from yanmo.tokenizer.base import chat_ids
from yanmo.train.probe import ALL_TRAINED

NOISE = 0.1
"""Spread of new rows of a table about the mean of the others, beside that of the table."""


def base_folder(recipe: Recipe) -> Path:
    """The folder of the weights that a run begins from, and of those that it leaves as they are.

    Raises:
        ConfigError: it is gone.
    """
    init = recipe.model.init or ""
    try:
        return find_model_folder(Path(init))
    except ConfigError as error:
        raise ConfigError(
            f"the weights that this run begins from are missing: {error.what}",
            where=f"model.init={init}",
            hint="put the folder back; or begin a new run: the last checkpoint of this one has all weights",
        ) from error


def base_model(recipe: Recipe) -> GPT:
    """The model that a run begins from, as it is on the disk."""
    return load_model(base_folder(recipe))


def origin_of(recipe: Recipe) -> dict[str, str]:
    """The sha256 of the weights that a run begins from, if it does."""
    if recipe.model.init is None:
        return {}
    files = weight_files(find_model_folder(Path(recipe.model.init)))
    return {"init": " ".join(storage.sha256_of(file) for file in files)}


def require_same_base(recipe: Recipe, folder: Path) -> dict[str, str]:
    """The sha256 of the weights that a run began from, which must be those of today.

    Raises:
        ConfigError: they have changed.
    """
    now = origin_of(recipe)
    if now["init"] != read_record(folder / "corpus.json", Manifest).init:
        raise ConfigError(
            "the weights of model.init have changed since the run was made",
            where=f"model.init={recipe.model.init}",
            hint="train in another folder with --out",
        )
    return now


def adaptation_of(recipe: Recipe, tokenizer: Tokenizer) -> Adaptation:
    """Which weights are trained, and how those of model.init are kept that are not.

    Raises:
        ConfigError: the folder of model.init is gone.
    """
    if recipe.finetune.method in (None, "full"):
        return ALL_TRAINED
    return Adaptation(recipe.finetune, chat_ids(tokenizer), stored_dtype(base_folder(recipe)))


def give_base_weights(model: GPT, recipe: Recipe, device: torch.device) -> None:
    """Give a run's model the weights of ``model.init``, with rows for the tokens that its base lacks."""
    seed, size = recipe.train.seed, model.config.vocab_size
    if not is_adapted(model):
        model.load_state_dict(with_rows(base_model(recipe).state_dict(), size, seed))
        return
    base = base_folder(recipe)
    # nobody else holds the weights: they are let go one by one, as the model takes them
    load_base(
        model,
        with_rows(our_weights(load_shape(base), load_weights(base), str(base)), size, seed),
        device,
        seed,
    )


def with_rows(weights: dict[str, Tensor], vocab_size: int, seed: int) -> dict[str, Tensor]:
    """Weights whose tables of tokens have as many rows: the new ones are about the mean of the others."""
    generator = torch.Generator().manual_seed(seed)
    found = dict(weights)
    for name in ("tokens.weight", "lm_head.weight"):
        if name in weights and len(weights[name]) < vocab_size:
            table = weights[name].float()
            # not the same row twice: equal tokens would be learned alike for ever
            noise = torch.randn((vocab_size - len(table), table.size(1)), generator=generator)
            more = table.mean(0, keepdim=True) + NOISE * table.std() * noise
            found[name] = torch.cat([weights[name], more.to(weights[name].dtype)])
    return found

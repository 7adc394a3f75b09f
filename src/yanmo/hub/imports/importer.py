"""``yanmo import``: files of other tools → a Hugging Face folder that is proven equal, a corpus or a recipe.

    recognise → read → fit the vocabulary → build → prove → write

Nothing is written that was not proven first; every change is reported.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from torch import Tensor

from yanmo.checkpoint.folder import build_model, write_model
from yanmo.checkpoint.hf_config import from_config_json
from yanmo.checkpoint.hf_names import to_hugging_face
from yanmo.core import storage
from yanmo.core.console import Console
from yanmo.core.errors import CheckpointError, ConfigError, DataError
from yanmo.core.outputs import require_folder
from yanmo.hub.imports.fetch import fetch_model
from yanmo.hub.imports.foreign import Foreign, fit_vocabulary, read_foreign
from yanmo.hub.imports.nanogpt import as_settings, read_config
from yanmo.hub.imports.proof import Proof, prove
from yanmo.hub.imports.recognise import ImportSource, recognise
from yanmo.hub.imports.token_files import Restored, restore_text
from yanmo.model.gpt import GPT, count_parameters
from yanmo.settings.recipe import load_recipe, to_toml
from yanmo.settings.schema import Recipe, TokenizerConfig
from yanmo.tokenizer import Tokenizer, kind_of, read_tokenizer


@dataclass(frozen=True)
class Imported:
    """The result of an import, and what to do with it."""

    source: str
    folder: Path
    said: tuple[str, ...]
    next: tuple[str, ...]
    """Commands to go on with, without the program's name."""
    proof: Proof | None = None
    values: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        proof = self.proof.as_json() if self.proof else None
        return {"source": self.source, "folder": str(self.folder), "proof": proof, **self.values}


def import_(name: str, out: Path, config: TokenizerConfig, console: Console) -> Imported:
    """Import ``name`` into folder ``out``.

    Raises:
        ConfigError: it is of no known kind, or ``out`` is there already.
        CheckpointError: it is damaged, does not fit together, or was not proven equal.
    """
    require_folder(out, "--out")
    # an empty folder may be taken, except the current one: commit by rename would pull it away
    if out.exists() and (not out.is_dir() or any(out.iterdir()) or out.resolve() == Path.cwd()):
        raise ConfigError("it is there already", where=f"--out {out}", hint="choose a new folder")
    source = recognise(name)
    if source.kind == "hub":
        # what was fetched is a folder as any other, and is proven as any other
        source = ImportSource("model folder", fetch_model(name))
    console.print(f"{name}: {source.kind}")
    kinds: dict[str, Callable[[ImportSource, Path, TokenizerConfig], Imported]] = {
        "token files": import_tokens,
        "nanoGPT config": import_config,
    }
    return kinds.get(source.kind, import_model)(source, out, config)


# -- a model ----------------------------------------------------------------------------------


def import_model(source: ImportSource, out: Path, config: TokenizerConfig) -> Imported:
    """A model → a folder that yanmo and transformers open."""
    foreign = read_foreign(source, config)
    where = str(source.path)
    fitted = fit_vocabulary(foreign)
    shape = from_config_json(fitted.values, where)
    model = build_model(shape, fitted.tensors, where)
    # in this order: nothing is written that was not proven
    refuse_leftovers(model, fitted, where)
    # the model as fitted against the files as they came: a mistake of fitting would show
    proof = prove(model, foreign.values, foreign.tensors, foreign.tokenizer, where)
    write_imported(out, model, foreign)
    size = count_parameters(shape)
    said = (
        f"{shape.family}: {shape.n_layer} layers, {shape.n_head} heads, {shape.n_embd} wide,"
        f" window {shape.block_size}, {size:,} parameters; {kind_of(foreign.tokenizer)} vocabulary of"
        f" {foreign.tokenizer.vocab_size:,}",
        *fitted.notes,
        *proof.lines(),
    )
    following = (f"generate {quote(str(out))} -p …", f"train TEXT {quote(f'model.init={out}')}")
    return Imported(foreign.source, out, said, following, proof, {"parameters": size, "notes": fitted.notes})


def refuse_leftovers(model: GPT, foreign: Foreign, where: str) -> None:
    """Refuse a model with parts that ours does not have: without them it would compute something else.

    Raises:
        CheckpointError: a tensor was not used, or a head that should be the embedding is not.
    """
    config = model.config
    known = _bare(to_hugging_face(config.kind, model.state_dict()))
    given = _bare(foreign.tensors)
    left = sorted(given.keys() - known.keys() - {"lm_head.weight"})
    if left:
        raise CheckpointError(
            f"{len(left)} of its tensors do not belong to a {config.family} model, such as {left[0]}",
            where=where,
            hint="is it a complete model of one of yanmo's families?",
        )
    head = given.get("lm_head.weight")
    # a tied model has one matrix for both; another head would be lost without a word
    if head is not None and config.tied_head and not torch.equal(head.float(), model.tokens.weight):
        raise CheckpointError(
            "its LM head differs from its embedding, but config.json ties them",
            where=where,
            hint="a GPT-2 with a separate head is not a GPT2LMHeadModel",
        )


def _bare(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefix of the base model, which a model saved without its head lacks."""
    return {name.removeprefix("transformer.").removeprefix("model."): t for name, t in tensors.items()}


def write_imported(out: Path, model: GPT, foreign: Foreign) -> None:
    """Write the folder, whole or not at all."""
    storage.remove_path(out)

    dtype = dtype_of(foreign.tensors)

    def fill(folder: Path) -> None:
        weights = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
        write_model(folder, model.config, weights, foreign.tokenizer, foreign.chat_template)

    storage.commit_folder(out, fill)


def dtype_of(tensors: Mapping[str, Tensor]) -> torch.dtype:
    """What weights are kept in without loss: float32, or the 16 bits that all of them have."""
    kinds = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    (kind, *others) = kinds or {torch.float32}
    return kind if not others and kind in (torch.bfloat16, torch.float16) else torch.float32


# -- tokens and settings ----------------------------------------------------------------------


def import_tokens(source: ImportSource, out: Path, config: TokenizerConfig) -> Imported:
    """Token files → their text and their vocabulary."""
    tokenizer = _vocabulary_of(source, config)
    found = Restored()

    def fill(folder: Path) -> None:
        restore_text(source.files, tokenizer, folder / "corpus.jsonl", found)
        # a few documents may differ, where their maker encoded otherwise; most of them: another vocabulary
        if found.differing > found.documents / 2:
            raise DataError(
                f"{found.differing:,} of {found.documents:,} documents give other tokens when encoded again",
                where=str(source.path),
                hint="they were made with another vocabulary: give it with tokenizer.path=…",
            )
        (folder / "tokenizer").mkdir()
        tokenizer.save(folder / "tokenizer", 1 << 30)

    storage.remove_path(out)  # an empty folder, as import_ has made sure
    storage.commit_folder(out, fill)
    said = [
        f"{', '.join(f.name for f in source.files)}: {found.tokens:,} tokens, {found.characters:,} characters"
    ]
    if found.differing:
        said.append(
            f"{found.differing:,} of {found.documents:,} documents give other tokens when encoded again"
        )
    else:
        said.append(f"the text of {found.documents:,} documents gives the same tokens when encoded again")
    following = (f"train {quote(f'{out}/corpus.jsonl')} {quote(f'tokenizer.path={out}/tokenizer')}",)
    return Imported(str(source.path), out, tuple(said), following, None, vars(found))


def _vocabulary_of(source: ImportSource, config: TokenizerConfig) -> Tokenizer:
    beside = source.path / "meta.pkl"
    if not config.path and not beside.is_file():
        raise ConfigError(
            "token files do not say what their numbers mean",
            where=str(source.path),
            hint="give their vocabulary: tokenizer.path=meta.pkl, or a folder with GPT-2's vocab.json"
            " and merges.txt",
        )
    return read_tokenizer(Path(config.path or beside), config)


def import_config(source: ImportSource, out: Path, config: TokenizerConfig) -> Imported:
    """nanoGPT's settings → a recipe."""
    config_py = read_config(source.files[0])
    try:
        settings, left = as_settings(config_py)
        recipe: Recipe = load_recipe(None, [f"{name}={_as_toml(value)}" for name, value in settings.items()])
    except ConfigError as error:
        raise ConfigError(error.what, where=str(source.files[0]), hint=error.hint) from error
    storage.remove_path(out)
    storage.write_atomic(out / "recipe.toml", to_toml(recipe))
    said = [f"{len(settings)} settings, nanoGPT's defaults included"]
    if left:
        said.append(f"not used by yanmo: {', '.join(left)}")
    return Imported(str(source.files[0]), out, tuple(said), (f"train {quote(f'{out}/recipe.toml')} TEXT",))


def _as_toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)

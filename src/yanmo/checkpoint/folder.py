"""Checkpoints: folders that transformers opens and that a run resumes from, bit for bit.

A checkpoint is a Hugging Face folder (fp32 master weights, config, tokenizer) with a ``training/``
folder beside the weights for the optimizer and the counters. Where a run averages its weights
(``train/average.py``), the folder has the average, and ``training/`` the masters. Of an adapted model
(``model/lora.py``) the weights are the merged ones, in the dtype of the base; ``training/`` then also has
what is trained, in float32, and LoRA's corrections are in ``adapter/``, too, as PEFT stores them. A folder is
committed whole or not at all (``storage.commit_folder``); numbers that are not finite are never saved.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor

from yanmo.checkpoint.adapter import write_adapter
from yanmo.checkpoint.hf_config import from_config_json, to_config_json
from yanmo.checkpoint.hf_names import from_hugging_face, to_hugging_face
from yanmo.checkpoint.step_schedule import ScheduleRecord
from yanmo.checkpoint.tensors import ONE_FILE, load_tensors, load_weights, save_tensors, weight_files
from yanmo.core import storage
from yanmo.core.errors import CheckpointError, ConfigError, DivergedError
from yanmo.core.records import TypedRecord, read_record
from yanmo.model.config import GPTConfig
from yanmo.model.gpt import GPT
from yanmo.model.lora import is_adapted, lora_layers, merged, trained_tensors
from yanmo.settings.old_names import renamed_parameters, renamed_settings
from yanmo.settings.recipe import load_recipe
from yanmo.settings.schema import Recipe
from yanmo.tokenizer import Tokenizer, load_tokenizer
from yanmo.tokenizer.chat_template import end_of_turn_in

SCHEMA = 1
READ = ("config.json", "tokenizer.json", "tokenizer_config.json")
"""The files that a model is read from, besides its weights."""
PREFIX = "step-"
_NAME = re.compile(r"step-\d{8,}")
LIVE = "live"
"""The kind of a tensor in training/ that is a weight itself."""


@dataclass(frozen=True)
class Progress:
    """The counters of a run: its state apart from tensors."""

    step: int = 0
    tokens: int = 0
    elapsed_s: float = 0.0
    val_loss: float | None = None
    val_bits_per_char: float | None = None
    best_step: int | None = None
    best_val_loss: float | None = None
    best_val_bits_per_char: float | None = None
    loss_scale: float = 1.0
    good_steps: int = 0
    """Steps since loss_scale changed; both matter in float16 only."""


def save_checkpoint(
    run: Path,
    progress: Progress,
    model: GPT,
    tokenizer: Tokenizer,
    state: dict[str, Tensor],
    environment: dict[str, str],
    made_by: dict[str, Any],
    chat_template: str | None = None,
    base: str | None = None,
) -> Path:
    """Write ``checkpoints/step-XXXXXXXX``; ``made_by`` are recipe and plan (``train/binding.py``).

    ``state`` are the optimizer's tensors, and the trained weights where those of ``model`` are averages.

    ``base`` is the folder of the weights that an adapted model begins from.

    Raises:
        DivergedError: a weight or optimizer value is not finite; nothing is written.
        StorageError: the disk is full or refuses; earlier checkpoints are whole.
    """
    # no random state and no position in the data: both are functions of (seed, step)
    weights, tensors = merged(model), dict(state)
    if is_adapted(model):
        tensors |= {f"{name}/{LIVE}": tensor for name, tensor in trained_tensors(model).items()}
    # a NaN in the moments shows in the weights only a step later: then every checkpoint kept would have it
    for name, tensor in (*weights.items(), *tensors.items()):
        if not torch.isfinite(tensor).all():
            raise DivergedError(
                f"{name} is not finite after step {progress.step}",
                where=str(run),
                hint="lower optim.learning_rate, in a new folder (--out); the last checkpoint is sound",
            )

    def fill(folder: Path) -> None:
        write_model(folder, model.config, weights, tokenizer, chat_template)
        # a folder of its own: some loaders (vLLM's) read every .safetensors beside the weights
        (folder / "training").mkdir()
        save_tensors(folder / "training" / "state.safetensors", tensors)
        _write_text_json(
            folder / "training" / "state.json",
            {"schema": SCHEMA, "progress": asdict(progress), "environment": environment, **made_by},
        )
        if lora_layers(model):
            write_adapter(folder / "adapter", model, base)

    target = checkpoint_folder(run, progress.step)
    if target.exists():  # a damaged one that resume fell back from
        storage.remove_folder(target)
    # temporary sibling → fsync each file → MANIFEST last → fsync → rename to a new name → fsync the parent:
    # after a kill or a power loss at any point the folder is there whole, or not at all
    storage.commit_folder(target, fill)
    return target


def write_model(
    folder: Path,
    config: GPTConfig,
    weights: dict[str, Tensor],
    tokenizer: Tokenizer,
    chat_template: str | None = None,
) -> None:
    """Write what a Hugging Face folder consists of: weights, config, tokenizer."""
    save_tensors(folder / ONE_FILE, to_hugging_face(config.kind, weights))
    dtype = str(weights["tokens.weight"].dtype).removeprefix("torch.")
    write_configs(folder, config, tokenizer, chat_template, dtype)


def write_configs(
    folder: Path,
    config: GPTConfig,
    tokenizer: Tokenizer,
    chat_template: str | None = None,
    dtype: str = "float32",
) -> None:
    """The files beside the weights: config, generation config, tokenizer."""
    begin = end = tokenizer.end_of_text
    ends: int | list[int] = end
    end_of_turn = end_of_turn_in(chat_template, tokenizer)
    if end_of_turn is not None:
        # what ends an answer, or the model never stops; it never pads, or trainers would mask it
        end, ends = end_of_turn, [end_of_turn, begin]
    _write_text_json(folder / "config.json", to_config_json(config, begin, end, dtype))
    _write_text_json(
        folder / "generation_config.json",
        {"bos_token_id": begin, "eos_token_id": ends, "pad_token_id": begin},
    )
    spelling = tokenizer.spelling(end_of_turn) if end_of_turn is not None else ""
    tokenizer.save(folder, config.block_size, chat_template, spelling)


class ProgressRecord(TypedRecord):
    """A :class:`Progress` in state.json; a field that an older version lacks has its default."""

    step: NonNegativeInt
    tokens: NonNegativeInt
    elapsed_s: float
    val_loss: float | None = None
    val_bits_per_char: float | None = None
    best_step: NonNegativeInt | None = None
    best_val_loss: float | None = None
    best_val_bits_per_char: float | None = None
    loss_scale: float = 1.0
    good_steps: NonNegativeInt = 0


class State(TypedRecord):
    """training/state.json; older ones have neither recipe nor plan."""

    schema_number: int = Field(alias="schema")
    progress: ProgressRecord
    environment: dict[str, str]
    recipe: dict[str, Any] | None = None
    plan: ScheduleRecord | None = None


def read_state(folder: Path) -> State:
    """The training state of a checkpoint.

    Raises:
        CheckpointError: it is missing, damaged or of another schema.
    """
    state = read_record(folder / "training" / "state.json", State)
    if state.schema_number != SCHEMA:
        raise CheckpointError(
            f"its training state has schema {state.schema_number}, this version of yanmo reads {SCHEMA}",
            where=str(folder),
            hint="resume it with the version of yanmo that made it",
        )
    if state.recipe is not None:
        return state.model_copy(update={"recipe": renamed_settings(state.recipe)})
    return state


def load_training(folder: Path) -> tuple[Progress, dict[str, Tensor], dict[str, str]]:
    """Progress, optimizer tensors and environment of a checkpoint."""
    state = read_state(folder)
    tensors = renamed_parameters(load_tensors(folder / "training" / "state.safetensors"))
    known = {field.name for field in fields(Progress)}
    return Progress(**state.progress.model_dump(include=known)), tensors, state.environment


@torch.no_grad()
def load_trained(model: GPT, tensors: dict[str, Tensor]) -> None:
    """Put back what is trained where the weights of a checkpoint are others: adapted, or averaged.

    Raises:
        CheckpointError: one is missing or of another shape.
    """
    for name, ours in trained_tensors(model).items():
        tensor = tensors.get(f"{name}/{LIVE}")
        if tensor is None or tensor.shape != ours.shape:
            raise CheckpointError(
                f"the trained weights {name} are missing or misshapen",
                where="training/state.safetensors",
                hint="the checkpoint is of another [finetune] or [optim]; train into another folder",
            )
        ours.copy_(tensor)


def load_shape(folder: Path) -> GPTConfig:
    """The shape of the model in a Hugging Face folder.

    Raises:
        CheckpointError: there is no config.json, or it is that of another family.
    """
    try:
        values = storage.read_json(folder / "config.json")
        if not isinstance(values, dict):
            raise ValueError("it is not a JSON object")
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            "there is no readable config.json", where=str(folder), hint="give a model folder"
        ) from error
    return from_config_json(values, str(folder))


def load_model(folder: Path, verify: bool = True) -> GPT:
    """The model in a Hugging Face folder, float32 on the CPU, in eval mode.

    Raises:
        CheckpointError: a file is missing, damaged or not what its manifest says (unless not ``verify``), or
            the model is of another family.
    """
    if verify:
        verify_model(folder)
    return build_model(load_shape(folder), load_weights(folder), str(folder))


def verify_model(folder: Path) -> None:
    """Check what a model is read from against the manifest, where there is one.

    Only a resume verifies the optimizer's tensors, which are twice as large. Model cards and the generation
    config may be edited.

    Raises:
        CheckpointError: a file is missing, torn or changed.
    """
    if (folder / storage.MANIFEST).exists():
        read = [file.name for file in weight_files(folder)]
        read += [name for name in READ if (folder / name).exists()]
        storage.verify_folder(folder, read)


def build_model(config: GPTConfig, tensors: dict[str, Tensor], where: str) -> GPT:
    """A model of weights by Hugging Face's names, float32 on the CPU, in eval mode.

    Raises:
        CheckpointError: a tensor is missing, has another shape, or holds a number that is not finite.
    """
    # the tensors of the file become the parameters below (assign=True), so the model is in memory once and
    # nothing is initialised in vain
    model, weights = _model_without_memory(config), our_weights(config, tensors, where)
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
    model.requires_grad_(True)
    return model.eval()


def our_weights(config: GPTConfig, tensors: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """Weights by Hugging Face's names → by ours, as they are stored.

    Raises:
        CheckpointError: a tensor is missing, has another shape, or holds a number that is not finite.
    """
    model = _model_without_memory(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    weights = from_hugging_face(config.kind, tensors, shapes, where)
    for name, tensor in weights.items():
        if not tensor.is_floating_point() or tensor.element_size() < 2:
            raise CheckpointError(
                f"{name} is stored as {tensor.dtype}, which yanmo cannot use as a weight",
                where=where,
                hint="give the model in float32, float16 or bfloat16, not quantised",
            )
        if not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{name} has values that are not finite", where=where, hint="its training probably diverged"
            )
    return weights


def _model_without_memory(config: GPTConfig) -> GPT:
    with torch.device("meta"):  # shapes alone
        return GPT(config)


def load_model_and_tokenizer(folder: Path, verify: bool = True) -> tuple[GPT, Tokenizer]:
    """Both, checked against the folder's manifest (unless not ``verify``) and against each other.

    Raises:
        CheckpointError: the vocabulary and the model's embedding differ in size.
    """
    model, tokenizer = load_model(folder, verify), load_tokenizer(folder)
    if tokenizer.vocab_size != model.config.vocab_size:
        raise CheckpointError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the model {model.config.vocab_size}",
            where=str(folder),
            hint="give the tokenizer that belongs to the weights",
        )
    return model, tokenizer


def newest_first(run: Path) -> Iterator[Path]:
    """The checkpoints of a run, the newest first, by step."""
    folders = [f for f in (run / "checkpoints").glob(f"{PREFIX}*") if _NAME.fullmatch(f.name)]
    yield from sorted(folders, key=step_of, reverse=True)


def checkpoint_folder(run: Path, step: int) -> Path:
    """The path of the checkpoint of a step."""
    return run / "checkpoints" / f"{PREFIX}{step:08d}"


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint's name."""
    return int(checkpoint.name.removeprefix(PREFIX))


def rotate(run: Path, step: int, keep_last: int, is_kept: Callable[[Path], bool]) -> None:
    """Delete checkpoints, except the newest ``keep_last`` up to ``step`` and those that ``is_kept``."""
    # checkpoints of later steps are damaged: the run fell back from them, and writes them again
    whole = [folder for folder in newest_first(run) if step_of(folder) <= step]
    kept = whole[:keep_last] + [folder for folder in whole if is_kept(folder)]
    for folder in newest_first(run):
        if folder not in kept:
            storage.remove_folder(folder)


def find_model_folder(path: Path | None, runs: Path = Path("runs")) -> Path:
    """The folder with config.json that RUN means: a run's best model, a checkpoint, any model folder.

    None: the newest run under ``runs/``.

    Raises:
        ConfigError: there is none.
    """
    if path is None:
        found = sorted(runs.glob("*/model/config.json"), key=lambda file: file.stat().st_mtime)
        if not found:
            raise ConfigError(
                "there is no run yet", where=f"{runs}/", hint="train one: yanmo train novel.txt"
            )
        return found[-1].parent.resolve()
    # resolved: a run that goes on moves its link `model` while the folder is being read
    for folder in (path / "model", path):
        if (folder / "config.json").is_file():
            return folder.resolve()
    hint = "give a run or a model folder; for models of other tools use yanmo import"
    if not storage.is_there(path):
        raise ConfigError(f"there is no such folder: {path}", where="RUN", hint=hint)
    missing = "has no checkpoint yet" if (path / "recipe.toml").exists() else "is not a run or model folder"
    raise ConfigError(f"{path} {missing}", where="RUN", hint=hint)


def recorded_recipe(model_folder: Path) -> Recipe | None:
    """The recipe of the run that a model folder belongs to, if it belongs to one."""
    run = run_of(model_folder)
    return read_recipe(run) if run else None


def read_recipe(run: Path) -> Recipe:
    """The recipe in a run folder.

    Raises:
        CheckpointError: it was edited and is no recipe any more.
    """
    try:
        return load_recipe(run / "recipe.toml")
    except ConfigError as error:
        where = f"{run / 'recipe.toml'} ({error.where})"
        hint = "undo manual changes, or restore it from a copy"
        raise CheckpointError(f"the run's recipe.toml is damaged: {error.what}", where, hint) from error


def run_of(model_folder: Path) -> Path | None:
    """The run that a model folder belongs to: a checkpoint's, or that of `model` where it is a copy."""
    # RUN/checkpoints/step-…: the grandparent; RUN/model where links are refused: the parent
    for folder in model_folder.parents[:2]:
        if (folder / "recipe.toml").is_file() and (folder / "corpus.json").is_file():
            return folder
    return None


def _write_text_json(path: Path, value: Any) -> None:
    # the same bytes on every system: manifests hold checksums
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8", newline="\n")

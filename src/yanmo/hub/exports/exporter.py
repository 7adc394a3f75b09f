"""``yanmo export``: a model → the formats of other tools, opened there again and compared."""

import importlib.util
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from yanmo.checkpoint.folder import (
    find_model_folder,
    load_model_and_tokenizer,
    recorded_recipe,
    run_of,
    write_configs,
    write_model,
)
from yanmo.core import storage
from yanmo.core.commands import install_command
from yanmo.core.console import Console
from yanmo.core.errors import CheckpointError, ConfigError, YanmoError
from yanmo.core.outputs import require_file, require_folder
from yanmo.generate.text import write_all
from yanmo.hub.exports.card import RunRecords, model_card
from yanmo.hub.exports.ollama import create_line, modelfile, modelfile_of, require_sayable, sayable
from yanmo.hub.exports.verify import (
    Verification,
    require_library,
    require_passed,
    verify_folder,
    verify_gguf,
    verify_onnx,
)
from yanmo.model.gpt import GPT
from yanmo.settings.schema import Recipe, SampleConfig
from yanmo.tokenizer import Tokenizer
from yanmo.tokenizer.chat_template import end_of_turn_in, read_chat_template

Target = Literal["hf", "gguf", "onnx"]
USUAL = "f16"
"""Precision of a GGUF file."""
LARGEST_ONNX_BYTES = 1 << 31
"""What a protobuf may have: weights of a larger model lie in a file beside its graph."""
SHOWN_TOKENS = 120
"""Length of the sample in a model card."""


@dataclass(frozen=True)
class Exported:
    """The file or folder written, and the result of opening it again."""

    path: Path
    said: tuple[str, ...]
    verdict: Verification | None
    values: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        verified = {"by": self.verdict.by, **self.verdict.numbers} if self.verdict else None
        return {"path": str(self.path), "verified": verified, **self.values}


@dataclass(frozen=True)
class ExportSource:
    """A model with its tokenizer, recipe and folder."""

    name: str
    folder: Path
    model: GPT
    tokenizer: Tokenizer
    recipe: Recipe | None

    @property
    def chat(self) -> str | None:
        """Its chat template."""
        return read_chat_template(self.folder)

    @property
    def end_of_turn(self) -> int | None:
        """What ends an answer, if it has a chat template."""
        return end_of_turn_in(self.chat, self.tokenizer)

    @property
    def sample(self) -> SampleConfig:
        """The [sample] settings of its run."""
        return self.recipe.sample if self.recipe else SampleConfig()


def export(
    run: Path | None,
    to: Target,
    out: Path | None,
    precision: str | None,
    is_verified: bool,
    console: Console,
    force: bool = False,
) -> Exported:
    """Write the model of ``run`` as ``to``; then open it with that library and compare.

    Raises:
        ConfigError: the library is not installed, the target is there already, or it has no such vocabulary.
        CheckpointError: what was written differs from the model; it stays, for inspection.
    """
    if precision and to != "gguf":
        raise ConfigError(
            f"--to {to} writes float32", where=f"--precision {precision}", hint="it is for --to gguf"
        )
    precision = precision or USUAL
    if is_verified:
        # before the work: nobody wants to hear after an hour that it cannot be verified
        require_library(to)
    folder = find_model_folder(run)
    name = name_of(run, folder)
    target = out or Path("exports") / usual_name(name, to, precision)
    require_target(target, to, folder, force)
    model, tokenizer = load_model_and_tokenizer(folder, is_verified)
    source = ExportSource(name, folder, model.eval(), tokenizer, recorded_recipe(folder))
    written = write_export(source, to, target, precision)
    if not is_verified:
        return written
    console.print(f"{written.path}: written; opening it again")
    return opened_again(written, to, source, precision)


def write_export(source: ExportSource, to: Target, target: Path, precision: str) -> Exported:
    """Write a model as ``to``, unverified."""
    if to == "hf":
        return export_folder(source, target)
    return export_gguf(source, target, precision) if to == "gguf" else export_onnx(source, target)


def opened_again(written: Exported, to: Target, source: ExportSource, precision: str) -> Exported:
    """What was written, with what its own library says of it.

    Raises:
        CheckpointError: it cannot be opened, or is not what the model is; it stays, for inspection.
    """
    try:
        verdict = verdict_on(written.path, to, source, precision)
    except YanmoError:
        raise
    except Exception as error:  # whatever the library raises on what it cannot open
        raise CheckpointError(
            f"it could not be opened again: {type(error).__name__}: {str(error)[:300]}",
            where=str(written.path),
            hint="the file is kept; please report this",
        ) from error
    require_passed(verdict, written.path)
    said = (*written.said, *(f"{verdict.by}: {line}" for line in verdict.said))
    return Exported(written.path, said, verdict, written.values)


def require_target(target: Path, to: Target, model: Path, force: bool) -> None:
    """Refuse to replace anything: a file needs ``force``, a folder is never replaced.

    Raises:
        ConfigError: something is there, or it is the model itself, or it could not be named to Ollama.
    """
    inputs = list(model.iterdir())
    if to == "gguf":
        require_sayable(target)
        for file in (target, modelfile_of(target)):
            require_file(file, "--out", inputs, force=force)
        return
    require_folder(target, "--out", inputs)
    if target.exists():
        raise ConfigError(
            "it is there already", f"--out {target}", "choose another name with --out, or delete it"
        )


def usual_name(name: str, to: Target, precision: str) -> str:
    """The name of the file or folder where ``--out`` is not given."""
    return {"hf": name, "gguf": f"{sayable(name)}-{precision}.gguf", "onnx": f"{name}-onnx"}[to]


def verdict_on(path: Path, to: Target, source: ExportSource, precision: str) -> Verification:
    """Open what was written with the library that it is for."""
    if to == "hf":
        return verify_folder(path, source.model, source.tokenizer)
    if to == "gguf":
        return verify_gguf(path, source.model, source.tokenizer, precision)
    return verify_onnx(path, source.model, source.tokenizer)


def name_of(run: Path | None, folder: Path) -> str:
    """A run is called by its folder, not by that of its model; bytes that are no UTF-8 are replaced."""
    # a model of a run lies in runs/NAME/model or checkpoints/…: its own folder's name says nothing
    found = run_of(folder)
    return os.fsencode((found or run or folder).resolve().name).decode("utf-8", "replace")


def export_folder(source: ExportSource, target: Path) -> Exported:
    """A clean Hugging Face folder, with a model card."""
    # the card shows what the model itself writes, without the rules of the text
    shown = {"num_samples": 1, "max_new_tokens": SHOWN_TOKENS, "no_copy": 0, "verse": 0}
    sample = write_all(source.model, source.tokenizer, "", source.sample.model_copy(update=shown))[0]
    past = RunRecords.of(source.folder, source.recipe)

    def fill(folder: Path) -> None:
        write_model(folder, source.model.config, source.model.state_dict(), source.tokenizer, source.chat)
        _add_to(folder / "generation_config.json", how_it_writes(source))
        card = model_card(source.name, target, source.model, source.tokenizer, past, sample)
        (folder / "README.md").write_text(card, encoding="utf-8", newline="\n")

    storage.commit_folder(target, fill)
    return Exported(target, ("a Hugging Face folder with a model card",), None)


def _add_to(file: Path, values: dict[str, Any]) -> None:
    """Add keys to a JSON file."""
    text = json.dumps(storage.read_json(file) | values, indent=2) + "\n"
    file.write_text(text, encoding="utf-8", newline="\n")


def how_it_writes(source: ExportSource) -> dict[str, Any]:
    """The [sample] of a run as transformers' generation config."""
    sample = source.sample
    # so that `pipeline("text-generation")` writes as the run did; transformers' own default is greedy
    found: dict[str, Any] = {"max_new_tokens": sample.max_new_tokens, "do_sample": sample.temperature > 0}
    if sample.temperature > 0:
        # transformers warns about settings of sampling where do_sample is false
        found |= {"temperature": sample.temperature, "top_k": sample.top_k, "top_p": sample.top_p}
        found |= {"min_p": sample.min_p} if sample.min_p else {}
    if sample.repetition_penalty != 1:
        found["repetition_penalty"] = sample.repetition_penalty
    if sample.no_repeat_ngram:
        found["no_repeat_ngram_size"] = sample.no_repeat_ngram
    if never := [token for token in source.tokenizer.suppressed if token != source.end_of_turn]:
        found["suppress_tokens"] = never
    return found


def export_gguf(source: ExportSource, target: Path, precision: str) -> Exported:
    """One file for llama.cpp and Ollama, with a Modelfile beside it."""
    _require("gguf", "gguf")
    from yanmo.hub.exports.gguf_file import PRECISIONS, SavedChat, write_gguf

    if precision not in PRECISIONS:
        raise ConfigError(
            f"no precision '{precision}'",
            where="--precision",
            hint=f"{', '.join(PRECISIONS)}; others through llama.cpp's llama-quantize",
        )
    with storage.whole_file(target) as unfinished:
        chat = SavedChat(source.chat, source.end_of_turn) if source.chat is not None else None
        written = write_gguf(unfinished, source.model, source.tokenizer, precision, source.name, chat)
    text = modelfile(target, source.model.config, source.tokenizer, source.sample, source.chat)
    storage.write_atomic(modelfile_of(target), text)
    said = [f"GGUF in {precision}; for Ollama: {create_line(source.name, target)}"]
    if written.float16:
        rows = f"{len(written.float16)} tensors stay in f16, because their row length is not a multiple of 32"
        said.append(f"{rows}: {', '.join(written.float16[:3])}" + (" …" if written.float16[3:] else ""))
    said += written.remarks
    values = {"float16": written.float16, "remarks": written.remarks}
    return Exported(target, tuple(said), None, values)


def export_onnx(source: ExportSource, target: Path, largest_file: int = LARGEST_ONNX_BYTES) -> Exported:
    """The folder that transformers.js opens: the graph with a cache, and once more in 8 bits."""
    _require("onnx", "onnxscript")
    _require("onnx", "onnxruntime")
    from yanmo.hub.exports.onnx_file import GRAPH, QUANTIZED, quantize, write_onnx

    weights = sum(parameter.numel() * 4 for parameter in source.model.parameters())  # bytes, in float32
    is_split = weights >= largest_file

    def fill(folder: Path) -> None:
        write_onnx_configs(folder, source)
        if is_split:
            _add_to(folder / "config.json", {"transformers.js_config": {"use_external_data_format": True}})
        (folder / GRAPH).parent.mkdir()
        write_onnx(folder / GRAPH, source.model, is_split)
        quantize(folder / GRAPH, folder / QUANTIZED)

    storage.commit_folder(target, fill)
    said = [f"a folder for transformers.js: {GRAPH} with KV cache, and the same in 8 bits, {QUANTIZED}"]
    kind = source.model.config.kind
    if not kind.in_transformers_js:
        said.append(
            f"transformers.js does not support {kind.architecture}: use these graphs with onnxruntime"
        )
    return Exported(target, tuple(said), None)


def write_onnx_configs(folder: Path, source: ExportSource) -> None:
    """What stands beside the graphs."""
    write_configs(folder, source.model.config, source.tokenizer, source.chat)
    _add_to(folder / "generation_config.json", how_it_writes(source))


def _require(target: str, package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"{package} is not installed", where=f"--to {target}", hint=install_command("export")
        )

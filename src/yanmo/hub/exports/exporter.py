"""``yanmo export``: a model → what other people's tools open, opened there and compared."""

import contextlib
import importlib.util
import json
import os
from collections.abc import Callable, Iterator
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
from yanmo.hub.imports.foreign import chat_template_of
from yanmo.model.gpt import GPT
from yanmo.settings.schema import Recipe, SampleConfig
from yanmo.tokenizer import Tokenizer

Target = Literal["hf", "gguf", "onnx"]
USUAL = "f16"
"""Precision of a GGUF file."""
SHOWN_TOKENS = 120
"""Length of the sample in a model card."""


@dataclass(frozen=True)
class Exported:
    """What was written, and what its library said of it."""

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
    """A model with everything that is known of it."""

    name: str
    folder: Path
    model: GPT
    tokenizer: Tokenizer
    recipe: Recipe | None

    @property
    def chat(self) -> str | None:
        """Its chat template."""
        return chat_template_of(self.folder)

    @property
    def sample(self) -> SampleConfig:
        """How its run let it write."""
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
    """Write the model of ``run`` as ``to``; afterwards open it with that library and compare.

    Raises:
        ConfigError: the library is not installed, the target is there already, or it has no such vocabulary.
        CheckpointError: what was written is not what the model is; it stays, for inspection.
    """
    if precision and to != "gguf":
        raise ConfigError(
            f"--to {to} writes float32", where=f"--precision {precision}", hint="it is for --to gguf"
        )
    precision = precision or USUAL
    if is_verified:
        require_library(to)
    folder = find_model_folder(run)
    name = name_of(run, folder)
    target = out or Path("exports") / usual_name(name, to, precision)
    require_target(target, to, folder, force)
    model, tokenizer = load_model_and_tokenizer(folder, is_verified)
    source = ExportSource(name, folder, model.eval(), tokenizer, recorded_recipe(folder))
    writers: dict[Target, Callable[[], Exported]] = {
        "hf": lambda: export_folder(source, target),
        "gguf": lambda: export_gguf(source, target, precision),
        "onnx": lambda: export_onnx(source, target),
    }
    written = writers[to]()
    if not is_verified:
        return written
    console.print(f"{written.path}: written; opening it again")
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
    """Nothing that is there is replaced: a file by force, a folder not at all.

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
    """What is written is called so where nobody says otherwise."""
    return {"hf": name, "gguf": f"{sayable(name)}-{precision}.gguf", "onnx": f"{name}-onnx"}[to]


def verdict_on(path: Path, to: Target, source: ExportSource, precision: str) -> Verification:
    """Open what was written with the library it is for."""
    if to == "hf":
        return verify_folder(path, source.model, source.tokenizer)
    if to == "gguf":
        return verify_gguf(path, source.model, source.tokenizer, precision)
    return verify_onnx(path, source.model, source.tokenizer)


def name_of(run: Path | None, folder: Path) -> str:
    """A run is called by its folder, not by that of its model; bytes that are no UTF-8 are replaced."""
    found = run_of(folder)
    return os.fsencode((found or run or folder).resolve().name).decode("utf-8", "replace")


def export_folder(source: ExportSource, target: Path) -> Exported:
    """A clean Hugging Face folder, with a model card."""
    sample = write_all(source.model, source.tokenizer, "", source.sample.model_copy(update={"num_samples": 1,
        "max_new_tokens": SHOWN_TOKENS}))[0]  # fmt: skip
    past = RunRecords.of(source.folder, source.recipe)

    def fill(folder: Path) -> None:
        write_model(folder, source.model.config, source.model.state_dict(), source.tokenizer, source.chat)
        _add_to(folder / "generation_config.json", how_it_writes(source))
        card = model_card(source.name, target, source.model, source.tokenizer, past, sample)
        (folder / "README.md").write_text(card, encoding="utf-8", newline="\n")

    storage.commit_folder(target, fill)
    return Exported(target, ("a Hugging Face folder with a model card",), None)


def _add_to(file: Path, values: dict[str, Any]) -> None:
    """Say more in a JSON file."""
    text = json.dumps(storage.read_json(file) | values, indent=2) + "\n"
    file.write_text(text, encoding="utf-8", newline="\n")


def how_it_writes(source: ExportSource) -> dict[str, Any]:
    """The [sample] of a run as transformers' generation config."""
    sample = source.sample
    found: dict[str, Any] = {"max_new_tokens": sample.max_new_tokens, "do_sample": sample.temperature > 0}
    if sample.temperature > 0:
        found |= {"temperature": sample.temperature, "top_k": sample.top_k, "top_p": sample.top_p}
        found |= {"min_p": sample.min_p} if sample.min_p else {}
    if sample.repetition_penalty != 1:
        found["repetition_penalty"] = sample.repetition_penalty
    if sample.no_repeat_ngram:
        found["no_repeat_ngram_size"] = sample.no_repeat_ngram
    if source.tokenizer.suppressed:
        found["suppress_tokens"] = list(source.tokenizer.suppressed)
    return found


def export_gguf(source: ExportSource, target: Path, precision: str) -> Exported:
    """One file for llama.cpp and Ollama, with a Modelfile beside it."""
    _require("gguf", "gguf")
    from yanmo.hub.exports.gguf_file import PRECISIONS, write_gguf

    if precision not in PRECISIONS:
        raise ConfigError(
            f"no precision '{precision}'",
            where="--precision",
            hint=f"{', '.join(PRECISIONS)}; others through llama.cpp's llama-quantize",
        )
    with whole(target) as file:
        written = write_gguf(file, source.model, source.tokenizer, precision, source.name)
    text = modelfile(target, source.model.config, source.tokenizer, source.sample)
    storage.write_atomic(modelfile_of(target), text)
    said = [f"GGUF in {precision}; for Ollama: {create_line(source.name, target)}"]
    if written.float16:
        rows = f"{len(written.float16)} tensors stay in f16, because their row length is not a multiple of 32"
        said.append(f"{rows}: {', '.join(written.float16[:3])}" + (" …" if written.float16[3:] else ""))
    said += written.remarks
    values = {"float16": written.float16, "remarks": written.remarks}
    return Exported(target, tuple(said), None, values)


def export_onnx(source: ExportSource, target: Path) -> Exported:
    """The folder that transformers.js opens: the graph with a cache, and once more in 8 bits."""
    _require("onnx", "onnxscript")
    _require("onnx", "onnxruntime")
    from yanmo.hub.exports.onnx_file import GRAPH, QUANTIZED, data_of, quantize, write_onnx

    def fill(folder: Path) -> None:
        write_configs(folder, source.model.config, source.tokenizer, source.chat)
        _add_to(folder / "generation_config.json", how_it_writes(source))
        if source.chat is not None:  # transformers.js does not look into a file of its own
            _add_to(folder / "tokenizer_config.json", {"chat_template": source.chat})
        (folder / GRAPH).parent.mkdir()
        write_onnx(folder / GRAPH, source.model)
        quantize(folder / GRAPH, folder / QUANTIZED)
        if data_of(folder / GRAPH).exists():
            _add_to(folder / "config.json", {"transformers.js_config": {"use_external_data_format": True}})

    storage.commit_folder(target, fill)
    said = [f"a folder for transformers.js: {GRAPH} with KV cache, and the same in 8 bits, {QUANTIZED}"]
    if not source.model.config.kind.in_transformers_js:
        said.append("transformers.js does not support this model: use these graphs with onnxruntime")
    return Exported(target, tuple(said), None)


@contextlib.contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A file that appears under its name when it is whole, or not at all."""
    unfinished = target.with_name(f"{storage.TEMPORARY}{target.name}")
    with storage.disk_errors("writing the file", target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            storage.sync_file(unfinished)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)


def _require(target: str, package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"{package} is not installed", where=f"--to {target}", hint='pip install "yanmo[export]"'
        )

"""Verification: an export is opened again with the library that it is for, and compared with the model.

A comparison that fails deletes nothing: it reports the numbers and ends with exit code 4.
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from yanmo.core.commands import install_command
from yanmo.core.errors import CheckpointError, ConfigError
from yanmo.generate.engine import generate
from yanmo.hub.imports.proof import CLOSE, quiet_transformers
from yanmo.model.gpt import GPT
from yanmo.settings.schema import SampleConfig
from yanmo.tokenizer import Tokenizer

MIXED = "萧炎大喝一声：“斗气化马！”……龘——𠮷野家，👍\n  GPT-2 wrote 123 字。\t<|endoftext|> ①Ａ é\n\n完"
"""A hard text for a tokenizer: rare characters, spaces, line ends, digits, a text like a special token."""
WRITTEN = 200
POSITIONS, SKIPPED = 400, 16
"""Positions compared, at least; and positions left out after end-of-text."""
AGREEMENT = {"f32": 0.99, "f16": 0.99, "bf16": 0.99, "q8_0": 0.97, "q5_0": 0.85, "q4_0": 0.7}
"""Share of positions whose likeliest token must be the same, by precision: well below that of a sound file
(99% in q8_0, 92% in q4_0), since two tokens may be almost equally likely."""
ROUNDED = {"f32": 0.0, "f16": 1e-3, "bf16": 5e-3, "q8_0": 1e-2, "q5_0": 0.1, "q4_0": 0.2}
"""Largest error of a weight, as a share of the largest weight in its tensor."""
LOST_IN_8_BITS = 0.1
"""Nats per token that an ONNX graph in 8 bits may lose; a small sound one loses 0.0002 (docs/interop.md)."""
TIMEOUT_SECONDS = 1800
NEEDED = {"hf": ("transformers", "hf"), "onnx": ("onnxruntime", "export"), "gguf": ("gguf", "export")}


@dataclass(frozen=True)
class Verification:
    """The result of a comparison."""

    by: str
    said: tuple[str, ...]
    failed: tuple[str, ...]
    numbers: dict[str, Any]


def require_library(target: str) -> None:
    """Say before anything is written that it could not be verified.

    Raises:
        ConfigError: the target's own library is not installed.
    """
    name, extra = NEEDED[target]
    if importlib.util.find_spec(name) is None:
        raise ConfigError(
            f"{name} is not installed, but it is needed to open the result",
            where=f"--to {target}",
            hint=f"{install_command(extra)}, or export without verification: --no-verify",
        )


def require_passed(verdict: Verification, path: Path) -> None:
    """Raise what failed, with its numbers; what was written stays.

    Raises:
        CheckpointError: something failed.
    """
    if verdict.failed:
        raise CheckpointError(
            f"{verdict.by} opened it and found: {'; '.join(verdict.failed)}"
            f" ({', '.join(f'{name} {value:.3g}' for name, value in verdict.numbers.items())})",
            where=str(path),
            hint="the file is kept; if this model is well trained, please report this",
        )


# -- transformers -----------------------------------------------------------------------------


def verify_folder(folder: Path, model: GPT, tokenizer: Tokenizer) -> Verification:
    """Logits, tokens and a greedy text by transformers."""
    rows = rows_to_compare(model, tokenizer, positions=64)
    prompt = rows[0, : prompt_of(model)].tolist()
    count = min(WRITTEN, model.config.block_size - len(prompt))
    with quiet_transformers() as transformers, torch.no_grad():
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        cutter = transformers.AutoTokenizer.from_pretrained(folder)
        ours, found = model(torch.from_numpy(rows)), theirs(torch.from_numpy(rows)).logits
        # what was written for users samples; here both take the likeliest token
        plain = transformers.GenerationConfig(max_new_tokens=count, do_sample=False, pad_token_id=0)
        theirs.generation_config = plain  # the exported one has penalties, temperature and the like
        written = theirs.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),  # else generate guesses padding
            generation_config=plain,
        )[0, len(prompt) :].tolist()
        tokens = cutter(MIXED, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        by = f"transformers {transformers.__version__}"
    difference, largest = float((ours - found).abs().max()), float(ours.abs().max())
    failed = []
    if not difference <= CLOSE * max(1.0, largest):
        failed.append(f"logits differ by {difference:.1e}, the largest is {largest:.1f}")
    ours_written = continuation(model, prompt, count)
    failed += _same_tokens(tokens, tokenizer) + _same_text(written, ours_written)
    said = f"largest difference of logits {difference:.1e}; the same tokens; {count} greedy tokens equal"
    numbers = {"difference": difference, "written": _equal_tokens(written, ours_written)}
    return Verification(by, (said,), tuple(failed), numbers)


# -- llama.cpp --------------------------------------------------------------------------------


def verify_gguf(path: Path, model: GPT, tokenizer: Tokenizer, precision: str) -> Verification:
    """Tokens, logits and a greedy text by llama.cpp; without it, the weights by the gguf package."""
    if not has_llama():
        return verify_tensors(path, model, tokenizer, precision)
    rows = rows_to_compare(model, tokenizer, POSITIONS)
    prompt = rows[0, : prompt_of(model)].tolist()
    count = min(WRITTEN, model.config.block_size - len(prompt))
    with torch.no_grad():
        logits = torch.cat([model(torch.from_numpy(row[None])) for row in rows]).numpy()
    found = ask_llama(path, prompt, count, rows, logits)
    failed = _same_tokens(found["tokens"], tokenizer)
    if found["text"] != MIXED:
        failed.append(f"a mixed text decodes to {found['text'][:40]!r}…")
    if found["agreement"] < AGREEMENT[precision]:
        failed.append(f"the same likeliest token in only {found['agreement']:.1%} of {rows.size} positions")
    ours = continuation(model, prompt, count)
    same = _equal_tokens(found["written"], ours)
    # rounding may swap two tokens of nearly equal likelihood, and then the texts part: only f32 must be equal
    if precision == "f32":
        failed += _same_text(found["written"], ours)
    said = (
        f"the same tokens; the same likeliest token in {found['agreement']:.1%} of {rows.size} positions,"
        f" largest difference of logits {found['difference']:.1e}; {same} of {count} greedy tokens equal"
    )
    numbers = {key: found[key] for key in ("agreement", "difference")} | {"written": same}
    return Verification(f"llama.cpp (llama-cpp-python {found['version']})", (said,), tuple(failed), numbers)


def has_llama() -> bool:
    """Whether llama-cpp-python is installed."""
    return importlib.util.find_spec("llama_cpp") is not None


def ask_llama(
    path: Path, prompt: list[int], count: int, rows: npt.NDArray[np.int64], logits: npt.NDArray[np.float32]
) -> dict[str, Any]:
    """Tokens, logits and text from llama.cpp, in a process of its own.

    Raises:
        CheckpointError: llama.cpp did not open the file, or its process ended.
    """
    with tempfile.TemporaryDirectory(prefix="yanmo-gguf-") as folder:
        files: dict[str, npt.NDArray[Any]] = {"rows": rows, "logits": logits}
        for name, array in files.items():
            np.save(f"{folder}/{name}.npy", array)
        asked = {"path": str(path), "text": MIXED, "prompt": prompt, "count": count}
        asked |= {name: f"{folder}/{name}.npy" for name in files}
        child = subprocess.run(
            [sys.executable, "-X", "utf8", "-P", "-m", "yanmo.hub.exports.llama_child"],
            input=json.dumps(asked),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    if child.returncode:
        lines = child.stderr.strip().splitlines() or ["no word"]
        said = next((line for line in lines if "error" in line), lines[-1])
        raise CheckpointError(
            f"llama.cpp did not open it: its process ended with {child.returncode}, {said[:300]}",
            where=str(path),
            hint="the file is kept; please report this",
        )
    found: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return found


def verify_tensors(path: Path, model: GPT, tokenizer: Tokenizer, precision: str) -> Verification:
    """Compare weights and vocabulary as the gguf package reads them, where there is no llama.cpp."""
    import gguf

    from yanmo.hub.exports.gguf_file import architecture_of, gguf_name, with_keys_of_their_own

    config = model.config
    names = gguf.get_tensor_name_map(architecture_of(config), config.n_layer)
    reader = gguf.GGUFReader(path)
    found = {tensor.name: tensor for tensor in reader.tensors}
    worst = 0.0
    tensors = model.state_dict()
    if not config.kind.gguf_shares_keys:
        tensors = with_keys_of_their_own(tensors, config)
    for ours, tensor in tensors.items():
        theirs = found[gguf_name(names, config.kind, ours)]
        read = gguf.quants.dequantize(theirs.data, theirs.tensor_type).reshape(tensor.shape)
        # a tensor of zeros has no largest value to compare with
        size = max(float(tensor.abs().max()), 1e-12)
        worst = max(worst, float(np.abs(read - tensor.float().numpy()).max()) / size)
    said = f"weights within {worst:.1e} of their tensor's largest; not run: llama-cpp-python is not installed"
    failed = []
    if worst > ROUNDED[precision]:
        failed.append(f"a weight is off by {worst:.1%} of its tensor's largest")
    count = len(reader.fields["tokenizer.ggml.tokens"].data)
    if count != tokenizer.vocab_size:
        failed.append(f"it has {count} tokens, the vocabulary {tokenizer.vocab_size}")
    return Verification("the gguf package", (said,), tuple(failed), {"weights": worst})


# -- onnxruntime ------------------------------------------------------------------------------


def verify_onnx(folder: Path, model: GPT, tokenizer: Tokenizer) -> Verification:
    """Logits of a batch and a greedy text with the KV cache by onnxruntime; and the cost of 8 bits."""
    import onnxruntime

    from yanmo.hub.exports.onnx_file import GRAPH, QUANTIZED

    session = open_onnx(folder / GRAPH)
    rows = rows_to_compare(model, tokenizer, POSITIONS)
    with torch.no_grad():
        ours = model(torch.from_numpy(rows)).numpy()
    found, _ = run_onnx(session, model, rows, None)
    difference, largest = float(np.abs(found - ours).max()), float(np.abs(ours).max())
    prompt = rows[:1, : prompt_of(model)]
    count = min(WRITTEN, model.config.block_size - prompt.shape[1])
    written = greedy(session, model, prompt, count)
    ours_written = continuation(model, prompt[0].tolist(), count)
    failed = _same_text(written, ours_written)
    # onnxruntime sums in another order: ten times what two runs of torch differ by
    if not difference <= 10 * CLOSE * max(1.0, largest):
        failed.append(f"logits differ by {difference:.1e}, the largest is {largest:.1f}")
    # in two halves: the cache between them is tried as well
    lost = divergence(ours, in_two(open_onnx(folder / QUANTIZED), model, rows))
    in_8_bits = f"in 8 bits its predictions differ by {lost:.4f} nats per token, over {rows.size} positions"
    if not lost <= LOST_IN_8_BITS:
        failed.append(f"{in_8_bits}; {LOST_IN_8_BITS} is the limit")
    said = f"largest difference of logits {difference:.1e}; {count} greedy tokens equal"
    by = f"onnxruntime {onnxruntime.__version__}"
    same = _equal_tokens(written, ours_written)
    numbers = {"difference": difference, "written": same, "lost_in_8_bits": lost}
    return Verification(by, (said, in_8_bits), tuple(failed), numbers)


def in_two(session: Any, model: GPT, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Logits of rows (B, T), read in two halves: the second one needs the KV cache of the first."""
    half = -(-rows.shape[1] // 2)
    first, past = run_onnx(session, model, rows[:, :half], None)
    second, _ = run_onnx(session, model, rows[:, half:], past)
    return np.concatenate((first, second), 1)


def divergence(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32]) -> float:
    """Kullback-Leibler divergence in nats per token: how much higher the loss on our own text would be."""
    # D(p ‖ q) = Σ p (log p - log q), averaged over positions
    p, q = (torch.from_numpy(logits).double().log_softmax(-1) for logits in (ours, theirs))
    return float((p.exp() * (p - q)).sum(-1).mean())


def open_onnx(path: Path) -> Any:
    """A graph in onnxruntime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def greedy(session: Any, model: GPT, prompt: npt.NDArray[np.int64], count: int) -> list[int]:
    """The greedy continuation of a prompt (1, T) by a graph with its KV cache."""
    written: list[int] = []
    ids, past = prompt, None
    for _ in range(count):
        logits, past = run_onnx(session, model, ids, past)
        written.append(int(logits[0, -1].argmax()))
        ids = np.array([written[-1:]], dtype=np.int64)
    return written


def run_onnx(
    session: Any, model: GPT, ids: npt.NDArray[np.int64], past: list[Any] | None
) -> tuple[npt.NDArray[np.float32], list[Any]]:
    """Logits of tokens (B, T) that follow ``past``, and the KV cache after them."""
    from yanmo.hub.exports.onnx_file import cache_names

    config, (B, T) = model.config, ids.shape
    names = cache_names(config.n_layer, "past_key_values")
    if past is None:
        past = [np.zeros((B, config.n_kv_head, 0, config.head_dim), np.float32)] * len(names)
    S = past[0].shape[2]  # tokens in the cache; (B, KV heads, S, D)
    asked = {
        "input_ids": ids,
        "attention_mask": np.ones((B, S + T), np.int64),
        "position_ids": np.tile(np.arange(S, S + T), (B, 1)),
        **dict(zip(names, past, strict=True)),
    }
    logits, *present = session.run(None, asked)
    return logits, present


# -- what they share --------------------------------------------------------------------------


def prompt_of(model: GPT) -> int:
    """The number of prompt tokens of a greedy text."""
    return max(1, min(8, model.config.block_size // 2))


def rows_to_compare(model: GPT, tokenizer: Tokenizer, positions: int) -> npt.NDArray[np.int64]:
    """Rows of tokens that the model itself wrote, at least two: (R, T), R * T >= positions.

    The first ones, which follow no text at all, are left out: a model may know nothing of such a place.
    """
    # what the model writes itself it is sure of: chance would be likeliest everywhere by a hair
    T = min(model.config.block_size, 256)
    rows: list[list[int]] = []
    for seed in range(max(2, -(-positions // T))):
        config = SampleConfig(temperature=1.0, top_p=1.0, max_new_tokens=T + SKIPPED, seed=seed)
        written = [token for (token,) in generate(model, [tokenizer.end_of_text], config, -1)]
        rows.append(written[SKIPPED:])
    return np.array(rows, dtype=np.int64)


def continuation(model: GPT, prompt: list[int], count: int) -> list[int]:
    """The greedy continuation by the model itself."""
    config = SampleConfig(temperature=0, max_new_tokens=count)
    return [token for (token,) in generate(model, prompt, config, -1)]


def _same_tokens(theirs: list[int], tokenizer: Tokenizer) -> list[str]:
    ours = tokenizer.encode(MIXED).tolist()
    if theirs == ours:
        return []
    at = next((k for k, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), len(ours))
    return [
        f"a mixed text is tokenised differently from token {at} on: {theirs[at : at + 3]},"
        f" ours {ours[at : at + 3]}"
    ]


def _equal_tokens(theirs: list[int], ours: list[int]) -> int:
    """How many tokens two texts begin with alike."""
    return next((k for k, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b), len(ours))


def _same_text(theirs: list[int], ours: list[int]) -> list[str]:
    at = _equal_tokens(theirs, ours)
    return [] if at == len(ours) else [f"greedy texts differ from token {at} of {len(ours)}"]

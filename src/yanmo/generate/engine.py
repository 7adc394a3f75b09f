"""A model and prompts go in, text comes out: one step function, one sampler, whole characters.

    write(...), write_samples(...)  text   the front ends: command line, chat, samples in training
      generate_batch(...)  ids   the loop: choose, step, read the newer half again when a window is full
        step(model, cache, ids) → logits   one look at the model
        process, sample (``sampling.py``)  one choice

Each sample is a row with a window and a random generator of its own, seeded by (seed, sample number): it
does not depend on what is written beside it, up to rounding.
"""

import secrets
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from yanmo.core import storage
from yanmo.core.errors import CheckpointError, ConfigError
from yanmo.generate.sampling import Past, Rules, describe_sampler, encode, process, sample
from yanmo.model.cache import Cache, cache_dtype
from yanmo.model.gpt import GPT, count_parameters
from yanmo.model.moe import routers_of
from yanmo.settings.schema import SampleConfig
from yanmo.tokenizer import Tokenizer

CACHE_BYTES = 2 << 30
"""Memory for keys and values of samples written together on a CPU; elsewhere a quarter of the device's."""
SEEDS = 1_000_000
"""A seed that nobody named is one of so many: short enough to be typed."""
SMALL = 1 << 24
"""A CPU's caches hold much of a model with fewer parameters: half the bytes hardly make it faster."""


def make_writer(model: GPT, device: torch.device, precision: str | None, trained: str | None) -> GPT:
    """``model`` ready to write on ``device``, in ``precision`` or by rule: the same seed, the same text.

    Writing is reading all weights for each token, so bfloat16 doubles its speed: on a GPU, and on a CPU for
    a large model whose run has measured (``trained``) that bfloat16 is the faster arithmetic there.
    """
    large = count_parameters(model.config) > SMALL
    fast = device.type == "cuda" or (device.type == "cpu" and large and trained == "bfloat16")
    precision = precision or ("bfloat16" if fast else "float32")
    biases = [router.bias for router in routers_of(model)]
    model.eval().to(device, torch.bfloat16 if precision == "bfloat16" else torch.float32)
    for router, bias in zip(routers_of(model), biases, strict=True):
        router.bias = bias.to(device)  # bfloat16 would choose other experts
    return model


def drawn_seed() -> int:
    """A seed where none is named; whoever draws it says it."""
    return secrets.randbelow(SEEDS)


def describe(config: SampleConfig, model: GPT) -> str:
    """Everything that decides what is written, in one line."""
    used = _arithmetic(model)
    return f"{describe_sampler(config)}; {used['precision']} on {used['device']}"


def _arithmetic(model: GPT) -> dict[str, str]:
    weight = model.tokens.weight
    return {"precision": str(weight.dtype).removeprefix("torch."), "device": str(weight.device)}


# -- text -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """What a model wrote."""

    prompt: str
    number: int
    """Which sample of its prompt, from 0."""
    seed: int
    text: str
    """Without the prompt, up to a stop text."""
    tokens: tuple[int, ...]
    """Every token chosen, with those of a stop text and the one that ends a text."""
    logprobs: tuple[float, ...]
    """Log probability of each token, as the model said it before any change by the sampler; in nats."""


class Piece(NamedTuple):
    """Some more text of a sample; the last piece brings the whole sample."""

    prompt: int
    number: int
    text: str
    sample: Sample | None


Say = Callable[[str], object]
"""Takes a line for whoever asked; a program that names no other way gets a Python warning."""


def write(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    config: SampleConfig,
    special: bool = False,
    say: Say = warnings.warn,
) -> Iterator[tuple[int, str]]:
    """Continue ``prompt`` ``num_samples`` times; yields (sample number, whole characters) as they come.

    Of a prompt longer than the model's window its end is continued, and ``say`` is told so.

    Raises:
        ConfigError: the prompt holds half a character.
    """
    for piece in write_pieces(model, tokenizer, [prompt], config, special, say):
        if piece.text:
            yield piece.number, piece.text


def write_all(
    model: GPT, tokenizer: Tokenizer, prompt: str, config: SampleConfig, say: Say = warnings.warn
) -> list[str]:
    """The samples as whole texts, without the prompt."""
    return [sample.text for sample in write_samples(model, tokenizer, [prompt], config, say=say)]


def write_samples(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    config: SampleConfig,
    special: bool = False,
    say: Say = warnings.warn,
) -> list[Sample]:
    """Continue each of ``prompts`` ``num_samples`` times; all samples of the first one come first.

    Raises:
        ConfigError: a prompt holds half a character.
    """
    pieces = in_order(write_pieces(model, tokenizer, prompts, config, special, say))
    return [piece.sample for piece in pieces if piece.sample]


def write_pieces(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    config: SampleConfig,
    special: bool = False,
    say: Say = warnings.warn,
) -> Iterator[Piece]:
    """The samples of all prompts as they come, a piece of whole characters (or of none) for each token."""
    size = model.config.block_size
    encoded = [encode_prompt(tokenizer, prompt, size, special, say) for prompt in prompts]
    texts: dict[Row, list[str]] = {}
    for row, text in _texts(model, tokenizer, encoded, config):
        texts.setdefault(row, []).append(text)
        whole = None
        if row.ended:
            written = tuple(row.past.ids[len(encoded[row.prompt]) :])
            found = "".join(texts.pop(row))
            whole = Sample(prompts[row.prompt], row.number, config.seed, found, written, tuple(row.logprobs))
        yield Piece(row.prompt, row.number, text, whole)


def write_from(model: GPT, tokenizer: Tokenizer, ids: list[int], config: SampleConfig) -> Iterator[str]:
    """Continue ``ids``, at most a window of them, once; yields whole characters as they come."""
    once = config.model_copy(update={"num_samples": 1})
    for _, text in _texts(model, tokenizer, [ids], once):
        yield text


def in_order(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The same pieces, one sample after another: a later one is held back until those before are whole."""
    waiting: dict[tuple[int, int], list[Piece]] = {}
    for piece in pieces:
        waiting.setdefault((piece.prompt, piece.number), []).append(piece)
        for key in list(waiting):
            ready, waiting[key] = waiting[key], []
            yield from ready
            if not (ready and ready[-1].sample):
                break
            del waiting[key]


def encode_prompt(
    tokenizer: Tokenizer, prompt: str, block_size: int, special: bool = False, say: Say = warnings.warn
) -> list[int]:
    """Ids of a prompt, of a longer one than the window the last; an empty one is the beginning of a document.

    Raises:
        ConfigError: it holds half a character.
    """
    ids = encode(tokenizer, prompt, "the prompt", special)
    if len(ids) > block_size:
        say(f"the prompt has {len(ids):,} tokens; the model looks back on the last {block_size:,} of them")
    return ids[-block_size:] or [tokenizer.end_of_text, *tokenizer.document_start]


class Text:
    """The text of one sample as it comes: whole characters, up to a stop text.

    The prompt's ids are decoded first: in some vocabularies the space between two tokens depends on both.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: list[int], stops: Sequence[str]) -> None:
        self._stream = tokenizer.stream()
        for token in prompt:
            self._stream.push(token)
        self._end_of_text = tokenizer.end_of_text
        self._stops = [stop for stop in stops if stop]
        self._held = ""  # what may be the beginning of a stop text
        self.ended = False

    def push(self, token: int) -> str:
        """The characters that are certain now."""
        return "" if token == self._end_of_text else self._release(self._stream.push(token))

    def flush(self) -> str:
        """What is left when nothing more comes; nothing behind a stop text."""
        if self.ended:
            return ""
        text = self._release(self._stream.flush())
        return text + self._held

    def _release(self, text: str) -> str:
        text = self._held + text
        found = [text.index(stop) for stop in self._stops if stop in text]
        begun = max((_overlap(text, stop) for stop in self._stops), default=0)
        certain = min(found, default=len(text) - begun)
        self.ended = bool(found)
        self._held = "" if found else text[certain:]
        return text[:certain]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of ``text`` may be the beginning of ``stop``."""
    lengths = range(min(len(stop) - 1, len(text)), 0, -1)
    return next((length for length in lengths if text.endswith(stop[:length])), 0)


def _texts(
    model: GPT, tokenizer: Tokenizer, prompts: list[list[int]], config: SampleConfig
) -> Iterator[tuple["Row", str]]:
    """For each token its row and the characters that it makes certain."""
    texts: dict[Row, Text] = {}
    for rows in generate_batch(model, prompts, config, Rules.of(tokenizer, config)):
        for row in rows:
            if row not in texts:
                texts[row] = Text(tokenizer, prompts[row.prompt], config.stop)
            new = texts[row].push(row.past.ids[-1])
            row.ended |= texts[row].ended
            yield row, new + (texts.pop(row).flush() if row.ended else "")


# -- tokens -----------------------------------------------------------------------------------


@dataclass(eq=False)
class Row:
    """One sample that is being written."""

    prompt: int
    """The place of its prompt among all prompts."""
    number: int
    """Which sample of that prompt it is."""
    past: Past
    generator: torch.Generator
    logprobs: list[float] = field(default_factory=list)
    ended: bool = False
    """Set by the loop, or by its reader when the text is whole."""


def generate(model: GPT, prompt: list[int], config: SampleConfig, end_of_text: int) -> Iterator[list[int]]:
    """Continue one prompt of ids by the model and ``config`` alone; each step's tokens of those not ended."""
    for rows in generate_batch(model, [prompt], config, Rules(end_of_text)):
        yield [row.past.ids[-1] for row in rows]


@torch.no_grad()
def generate_batch(
    model: GPT, prompts: Sequence[list[int]], config: SampleConfig, rules: Rules
) -> Iterator[list[Row]]:
    """Continue each of ``prompts`` ``num_samples`` times; yields, step by step, the rows with a new token."""
    rows = (
        Row(index, number, Past(prompt, config.no_repeat_ngram), _generator(config.seed, number))
        for index, prompt in enumerate(prompts)
        for number in range(config.num_samples)
    )
    while group := list(islice(rows, rows_together(model))):
        yield from _write_together(model, group, config, rules)


def rows_together(model: GPT) -> int:
    """How many samples are written at once; further ones wait for their turn."""
    config, weight = model.config, model.tokens.weight
    row = config.block_size * config.cached_values * cache_dtype(weight).itemsize
    if weight.device.type == "cuda":
        return max(torch.cuda.get_device_properties(weight.device).total_memory // 4 // row, 1)
    return max(CACHE_BYTES // row, 1)


def _write_together(model: GPT, rows: list[Row], config: SampleConfig, rules: Rules) -> Iterator[list[Row]]:
    cache = Cache(model.config, len(rows), like=model.tokens.weight)
    logits = read_prompts(model, cache, rows)  # (B, V)
    for left in reversed(range(config.max_new_tokens)):
        for row, token in zip(
            rows, choose(logits, rows, config, rules, model.config.block_size), strict=True
        ):
            row.past.push(token)
            row.ended = token == rules.end_of_text or left == 0
        yield rows
        going = [place for place, row in enumerate(rows) if not row.ended]
        if not going:
            return
        if len(going) < len(rows):
            cache.keep(going)
            rows = [rows[place] for place in going]
        logits = read_last(model, cache, rows)  # (B, V)


def read_prompts(model: GPT, cache: Cache, rows: list[Row]) -> Tensor:
    """Logits (B, V) of the first new token of each row; a prompt is read once for all its rows."""
    logits = []
    for _, group in groupby(range(len(rows)), key=lambda place: rows[place].prompt):
        first, *others = group
        said = read(model, cache, [first], [rows[first].past.ids])  # (1, V)
        for other in others:
            cache.copy_row(first, other)
        logits.append(said.expand(1 + len(others), -1))
    return torch.cat(logits)


def read_last(model: GPT, cache: Cache, rows: list[Row]) -> Tensor:
    """Logits (B, V) after the last token of each row.

    A row whose window is full reads the newer half of it again, and so has room to go on.
    """
    window, logits = model.config.block_size, []
    for full, group in groupby(enumerate(list(cache.lengths)), key=lambda row: row[1] == window):
        places = [place for place, _ in group]
        count = 1
        for place in places if full else ():
            count, cache.lengths[place] = max(window // 2, 1), 0
        logits.append(read(model, cache, places, [rows[place].past.ids[-count:] for place in places]))
    return torch.cat(logits)


def read(model: GPT, cache: Cache, places: list[int], ids: list[list[int]]) -> Tensor:
    """Logits (R, V) after ``ids`` (R, T), which continue R neighbouring rows of the cache."""
    start, stop = places[0], places[-1] + 1
    part = cache.part(start, stop)
    logits = step(model, part, torch.tensor(ids, device=model.tokens.weight.device))
    cache.lengths[start:stop] = part.lengths
    return logits


def choose(logits: Tensor, rows: list[Row], config: SampleConfig, rules: Rules, window: int) -> list[int]:
    """The next token of each row, its log probability noted.

    Raises:
        CheckpointError: the model gives no numbers to choose by.
    """
    logits = logits.float()  # (B, V)
    if not torch.isfinite(logits).all():
        raise CheckpointError(
            f"{int((~torch.isfinite(logits)).sum()):,} of {logits.numel():,} logits are no finite numbers",
            where=f"the token after {len(rows[0].past.ids):,} others",
            mend="its weights are too large or damaged: try --precision float32, or take it anew",
        )
    processed = process(logits, [row.past for row in rows], config, rules, window)
    tokens = sample(processed, config, [row.generator for row in rows])
    ids = torch.tensor(tokens, device=logits.device)[:, None]  # (B, 1)
    chosen = logits.log_softmax(dim=-1).gather(1, ids).flatten()  # (B,)
    for row, logprob in zip(rows, chosen.tolist(), strict=True):
        row.logprobs.append(logprob)
    return tokens


def step(model: GPT, cache: Cache, ids: Tensor) -> Tensor:
    """Logits (B, V) of the token that follows ``ids`` (B, T), which continue the cache."""
    return model.head(model.stream(ids, cache)[:, -1])


def _generator(seed: int, number: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + number) % (1 << 63))


# -- files ------------------------------------------------------------------------------------


def save_samples(
    folder: Path, samples: list[Sample], config: SampleConfig, model_folder: Path, model: GPT
) -> list[Path]:
    """Write each sample as 001.txt, 002.txt, … behind those that are there, and list all in samples.json.

    A sample that is there already, under whatever number, is not written again.

    Raises:
        ConfigError: the samples.json there is not one of ours.
    """
    listed = listed_samples(folder)
    there = [path for path in folder.glob("*.txt") if path.stem.isdecimal()]
    number = max([*(int(path.stem) for path in there), *(entry["number"] for entry in listed)], default=0)
    with storage.disk_errors("reading the samples there", folder):
        known = {path.read_bytes() for path in there if path.is_file()}
    settings = config.model_dump(mode="json", exclude={"prompt"})
    paths = []
    for found in samples:
        text = found.prompt + found.text + "\n"
        if text.encode() in known:
            continue
        known.add(text.encode())
        number += 1
        paths.append(folder / f"{number:03d}.txt")
        storage.write_atomic(paths[-1], text)
        about = {"number": number, "prompt": found.prompt, "sample": found.number, "seed": found.seed}
        by = {"model": str(model_folder), "yanmo": version("yanmo"), "sampler": settings}
        by |= _arithmetic(model)
        listed.append(about | {"file": paths[-1].name} | by)
    storage.write_json(folder / "samples.json", {"samples": listed})
    return paths


def listed_samples(folder: Path) -> list[dict[str, Any]]:
    """The samples that a folder lists already.

    Raises:
        ConfigError: the samples.json there is not one of ours.
    """
    path = folder / "samples.json"
    if not path.exists():
        return []
    try:
        entries = storage.read_json(path)["samples"]
        return [entry for entry in entries if int(entry["number"])]
    except (OSError, ValueError, LookupError, TypeError, OverflowError) as error:
        raise ConfigError(
            "the samples.json there is not a list of samples",
            where=str(path),
            mend="choose another folder, or move that file away",
        ) from error

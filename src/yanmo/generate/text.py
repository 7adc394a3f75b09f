"""From prompts to text: samples as they grow, whole samples, and samples in a folder.

write(...), write_samples(...)  text   the front ends: command line, chat, samples in training
  TextEngine.step() (``text_engine.py``)  pieces of text
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from yanmo.core import storage
from yanmo.core.errors import ConfigError
from yanmo.generate.engine import RunningSequence, TextRule, arithmetic_of, rows_together
from yanmo.generate.memory import MemoryReader
from yanmo.generate.sampling import TokenConstraints, encode
from yanmo.generate.text_engine import TextEngine, WrittenPiece
from yanmo.model.gpt import GPT
from yanmo.settings.schema import SampleConfig
from yanmo.tokenizer import Tokenizer


@dataclass(frozen=True)
class Sample:
    """A text that a model wrote."""

    prompt: str
    number: int
    """Which sample of its prompt, from 0."""
    seed: int
    text: str
    """Without the prompt, up to a stop text."""
    tokens: tuple[int, ...]
    """Every token chosen, including those of a stop text and end-of-text."""
    logprobs: tuple[float, ...]
    """Log probability of each token in nats, by the model itself, before temperature, penalties and cuts."""


class Prompt(NamedTuple):
    """What a text is continued from, as the model reads it."""

    ids: list[int]
    """At least one token, at most a window."""
    pinned: int = 0
    """So many of them stay at the beginning when the window moves."""
    dropped: int = 0
    """Tokens that did not fit into the window."""
    texts: tuple[list[int], ...] = ()
    """What a memory remembers, whole: the prompt, and last, so forgotten last, what is pinned."""


class TextDelta(NamedTuple):
    """Some more text of a sample; the last piece carries the whole sample."""

    prompt: int
    number: int
    text: str
    sample: Sample | None


Say = Callable[[str], object]
"""Receives a remark for the user; by default it becomes a Python warning."""


def write(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    config: SampleConfig,
    special: bool = False,
    say: Say = warnings.warn,
    text_rules: Sequence[TextRule] = (),
) -> Iterator[tuple[int, str]]:
    """Continue ``prompt`` ``num_samples`` times; yields (sample number, whole characters) as they come.

    If a prompt is longer than the model's window, its end is continued, and ``say`` receives a remark.

    Raises:
        ConfigError: the prompt holds half a character.
    """
    for piece in write_pieces(model, tokenizer, [prompt], config, special, say, text_rules):
        if piece.text:
            yield piece.number, piece.text


def write_all(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    config: SampleConfig,
    say: Say = warnings.warn,
    text_rules: Sequence[TextRule] = (),
) -> list[str]:
    """The samples as whole texts, without the prompt."""
    samples = write_samples(model, tokenizer, [prompt], config, say=say, text_rules=text_rules)
    return [sample.text for sample in samples]


def write_samples(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    config: SampleConfig,
    special: bool = False,
    say: Say = warnings.warn,
    text_rules: Sequence[TextRule] = (),
) -> list[Sample]:
    """Continue each of ``prompts`` ``num_samples`` times; all samples of the first one come first.

    Raises:
        ConfigError: a prompt holds half a character.
    """
    pieces = in_order(write_pieces(model, tokenizer, prompts, config, special, say, text_rules))
    return [piece.sample for piece in pieces if piece.sample]


def write_pieces(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    config: SampleConfig,
    special: bool = False,
    say: Say = warnings.warn,
    text_rules: Sequence[TextRule] = (),
) -> Iterator[TextDelta]:
    """The samples of all prompts as they come, a piece of whole characters (or of none) for each token."""
    size = model.config.block_size
    encoded = [encode_prompt(tokenizer, prompt, config, size, special, say) for prompt in prompts]
    texts: dict[RunningSequence, list[str]] = {}
    for row, (text, _), is_last in _texts(model, tokenizer, encoded, config, text_rules=text_rules):
        texts.setdefault(row, []).append(text)
        whole = None
        if is_last:
            written = tuple(choice.id for choice in row.choices)
            logprobs = tuple(choice.logprob for choice in row.choices)
            found = "".join(texts.pop(row))
            whole = Sample(prompts[row.prompt], row.number, config.seed, found, written, logprobs)
        yield TextDelta(row.prompt, row.number, text, whole)


def write_from(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: Prompt,
    config: SampleConfig,
    alternatives: int = 0,
    text_rules: Sequence[TextRule] = (),
    reader: MemoryReader | None = None,
    end: int | None = None,
) -> Iterator[WrittenPiece]:
    """Continue a prompt once; yields each token with the characters it completes.

    A ``reader`` that is used again reads of a longer prompt only what is new. ``end`` is the token that ends
    it where end-of-text does not.
    """
    once = config.model_copy(update={"num_samples": 1})
    for _, piece, _ in _texts(model, tokenizer, [prompt], once, alternatives, text_rules, reader, end):
        yield piece


def in_order(pieces: Iterable[TextDelta]) -> Iterator[TextDelta]:
    """The same pieces, one sample after another: those of a later sample wait until the earlier ones end."""
    waiting: dict[tuple[int, int], list[TextDelta]] = {}
    for piece in pieces:
        waiting.setdefault((piece.prompt, piece.number), []).append(piece)
        for key in list(waiting):
            ready, waiting[key] = waiting[key], []
            yield from ready
            # the first unfinished sample: what comes after it waits; dict order is that of beginning
            if not (ready and ready[-1].sample):
                break
            del waiting[key]


def encode_prompt(
    tokenizer: Tokenizer,
    prompt: str,
    config: SampleConfig,
    block_size: int,
    special: bool = False,
    say: Say = warnings.warn,
) -> Prompt:
    """A prompt as ids: ``config.pinned``, then the end of ``prompt``, together at most ``block_size`` tokens.

    Raises:
        ConfigError: a text holds half a character, or the pinned one takes more than half of the window.
    """
    found = prompt_of(tokenizer, encode(tokenizer, prompt, "the prompt", special), config, block_size)
    if found.dropped:
        read = len(found.ids) - found.pinned
        rest = ", and its memory has the rest" if config.memory else ""
        tokens = f"the prompt has {read + found.dropped:,} tokens"
        say(f"{tokens}; the model only reads the last {read:,} of them{rest}")
    return found


def prompt_of(tokenizer: Tokenizer, ids: list[int], config: SampleConfig, block_size: int) -> Prompt:
    """The same, of a prompt's ids.

    Raises:
        ConfigError: the pinned text takes more than half of the window.
    """
    pinned = encode(tokenizer, config.pinned, "the pinned text")
    if len(pinned) > block_size // 2:
        raise ConfigError(
            f"the pinned text has {len(pinned):,} tokens, and the model's window is {block_size:,}",
            where="sample.pinned",
            hint=f"shorten it: at most half of the window, {block_size // 2:,} tokens, stays in place",
        )
    read = ids[-(block_size - len(pinned)) :]
    # in training every document follows an end-of-text token, so after it the model begins a new one
    begun = [*pinned, *read] or [tokenizer.end_of_text, *tokenizer.document_start]
    return Prompt(begun, len(pinned), len(ids) - len(read), (ids, pinned))


def _texts(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: list[Prompt],
    config: SampleConfig,
    alternatives: int = 0,
    text_rules: Sequence[TextRule] = (),
    reader: MemoryReader | None = None,
    end: int | None = None,
) -> Iterator[tuple[RunningSequence, WrittenPiece, bool]]:
    """Each token that is certain with its row and its characters, and whether it is the row's last.

    Raises:
        ConfigError: a setting needs a rule of the text that is not there.
    """
    if (config.no_copy or config.verse) and not text_rules:
        raise ConfigError(
            f"no_copy={config.no_copy} and verse={config.verse} need their rules of the text",
            where="text_rules",
            hint="give what generate.rules.text_rules makes, or write with yanmo.load(RUN)",
        )
    rules = TokenConstraints.of(tokenizer, config).ending_with(end)
    reader = reader or MemoryReader(model)
    engine = TextEngine(model, tokenizer, min(len(prompts) * config.num_samples, rows_together(model)))
    for index, (ids, pinned, _, texts) in enumerate(prompts):
        for number, memory in enumerate(reader.memories_for(texts, config)):
            row = RunningSequence(ids, config, rules, index, number, alternatives, text_rules, pinned, memory)
            engine.add(row)
    while engine.is_busy:
        for row, pieces in engine.step():
            for piece in pieces:
                yield row, piece, row.ended and piece is pieces[-1]


def save_samples(
    folder: Path, samples: list[Sample], config: SampleConfig, model_folder: Path, model: GPT
) -> list[Path]:
    """Write each sample as 001.txt, 002.txt, … after those that exist, and list all in samples.json.

    A text that already exists under any number is not written again.

    Raises:
        ConfigError: the samples.json there is not one of ours.
    """
    listed = listed_samples(folder)
    there = [path for path in folder.glob("*.txt") if path.stem.isdecimal()]
    # also the numbers in the list: a file that somebody deleted does not pass its number on
    number = max([*(int(path.stem) for path in there), *(entry["number"] for entry in listed)], default=0)
    with storage.disk_errors("reading the saved samples", folder):
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
        by |= arithmetic_of(model)
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
            "the samples.json in this folder is not a list of samples",
            where=str(path),
            hint="choose another folder, or move that file",
        ) from error

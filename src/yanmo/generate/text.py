"""From prompts to text: whole characters as they become certain, and samples in a folder.

write(...), write_samples(...)  text   the front ends: command line, chat, samples in training
  generate_batch(...) (``engine.py``)  ids
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from yanmo.core import storage
from yanmo.core.errors import ConfigError
from yanmo.generate.engine import RunningSequence, TokenChoice, arithmetic_of, generate_batch
from yanmo.generate.sampling import TokenConstraints, encode
from yanmo.generate.stops import find_end
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


class TextDelta(NamedTuple):
    """Some more text of a sample; the last piece carries the whole sample."""

    prompt: int
    number: int
    text: str
    sample: Sample | None


class WrittenPiece(NamedTuple):
    """Characters that became certain with a token; none where the token is a part of one."""

    text: str
    choice: TokenChoice


Say = Callable[[str], object]
"""Receives a remark for the user; by default it becomes a Python warning."""


def write(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    config: SampleConfig,
    special: bool = False,
    say: Say = warnings.warn,
) -> Iterator[tuple[int, str]]:
    """Continue ``prompt`` ``num_samples`` times; yields (sample number, whole characters) as they come.

    If a prompt is longer than the model's window, its end is continued, and ``say`` receives a remark.

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
) -> Iterator[TextDelta]:
    """The samples of all prompts as they come, a piece of whole characters (or of none) for each token."""
    size = model.config.block_size
    encoded = [encode_prompt(tokenizer, prompt, size, special, say) for prompt in prompts]
    texts: dict[RunningSequence, list[str]] = {}
    for row, text in _texts(model, tokenizer, encoded, config):
        texts.setdefault(row, []).append(text)
        whole = None
        if row.ended:
            written = tuple(choice.id for choice in row.choices)
            logprobs = tuple(choice.logprob for choice in row.choices)
            found = "".join(texts.pop(row))
            whole = Sample(prompts[row.prompt], row.number, config.seed, found, written, logprobs)
        yield TextDelta(row.prompt, row.number, text, whole)


def write_from(
    model: GPT, tokenizer: Tokenizer, ids: list[int], config: SampleConfig, alternatives: int = 0
) -> Iterator[WrittenPiece]:
    """Continue ``ids``, at most a window, once; yields each token with the characters it completes."""
    once = config.model_copy(update={"num_samples": 1})
    for row, text in _texts(model, tokenizer, [ids], once, alternatives):
        yield WrittenPiece(text, row.choices[-1])


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
    tokenizer: Tokenizer, prompt: str, block_size: int, special: bool = False, say: Say = warnings.warn
) -> list[int]:
    """Ids of a prompt, at most the last ``block_size`` of them; an empty prompt begins a document.

    Raises:
        ConfigError: it holds half a character.
    """
    ids = encode(tokenizer, prompt, "the prompt", special)
    if len(ids) > block_size:
        say(f"the prompt has {len(ids):,} tokens; the model only reads the last {block_size:,} of them")
    # in training every document follows an end-of-text token, so after it the model begins a new one
    return ids[-block_size:] or [tokenizer.end_of_text, *tokenizer.document_start]


class TextAssembler:
    """The text of one sample as it grows: whole characters, up to a stop text."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: list[int],
        stops: Sequence[str],
        stop_at: str | None = None,
        min_tokens: int = 0,
    ) -> None:
        self._stream = tokenizer.stream()
        # in some vocabularies the space between two tokens depends on both, so the first one needs the prompt
        for token in prompt:
            self._stream.push(token)
        self._end_of_text = tokenizer.end_of_text
        self._stops, self._stop_at = [stop for stop in stops if stop], stop_at
        self._early = min_tokens  # tokens that are still to come before any stop counts
        self._held = ""  # characters that may begin a stop text, not yet released
        self._has_text = False
        self.ended = False

    def push(self, token: int) -> str:
        """The characters that are certain now."""
        self._early -= 1
        return "" if token == self._end_of_text else self._release(self._stream.push(token))

    def flush(self) -> str:
        """The rest, when no more tokens come; nothing after a stop text."""
        if self.ended:
            return ""
        text = self._release(self._stream.flush())
        return text + self._held

    def _release(self, text: str) -> str:
        text, self._held = self._held + text, ""
        if self._early > 0:
            self._has_text |= bool(text.strip())
            return text
        end, certain = find_end(text, self._stops, self._stop_at, self._has_text)
        self.ended = end is not None
        if not self.ended:
            self._held = text[certain:]
        self._has_text |= bool(text[:certain].strip())
        return text[:certain]


def _texts(
    model: GPT, tokenizer: Tokenizer, prompts: list[list[int]], config: SampleConfig, alternatives: int = 0
) -> Iterator[tuple[RunningSequence, str]]:
    """For each token, its row and the characters that it completes."""
    texts: dict[RunningSequence, TextAssembler] = {}
    rules = TokenConstraints.of(tokenizer, config)
    for rows in generate_batch(model, prompts, config, rules, alternatives=alternatives):
        for row in rows:
            if row not in texts:
                texts[row] = TextAssembler(
                    tokenizer, prompts[row.prompt], config.stop, config.stop_at, config.min_new_tokens
                )
            new = texts[row].push(row.past.ids[-1])
            # tells the engine, which then drops the row from its batch: no tokens are computed in vain
            row.ended |= texts[row].ended
            yield row, new + (texts.pop(row).flush() if row.ended else "")


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

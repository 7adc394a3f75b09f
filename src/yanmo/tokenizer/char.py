"""Characters as tokens, bytes for the rest: the tokenizer of a novel.

Ids: 0 is end-of-text, 1-256 are the bytes 0x00-0xFF, then the characters of the training text, the most
frequent first. A character outside the vocabulary is written as its UTF-8 bytes, so nothing is lost.
(In nanoGPT's vocabularies the characters come first, from 0, and end-of-text and bytes follow them.)
On disk it is a BPE without merges and with byte fallback, which the ``tokenizers`` library and so every
Hugging Face client reads; here a lookup table by code point does the same a hundred times faster.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from yanmo.core.errors import TokenizerError
from yanmo.tokenizer.base import END_OF_TEXT, ByteStream, Ids, fingerprint_of, write_tokenizer
from yanmo.tokenizer.spec import bpe_model, sequence, tokenizer_json

BYTES = [f"<0x{value:02X}>" for value in range(256)]
FIRST_CHARACTER = 1 + len(BYTES)
CODE_POINTS = 0x110000

CharacterCounts = npt.NDArray[np.int64]
"""How often each code point occurs, shape (CODE_POINTS,)."""
MOST_RARE = 0.01
"""The share of a text that rare characters may make up and still be written as bytes, three times as long."""


class CharTokenizer:
    """One token per character of ``characters``, byte tokens for all others."""

    lossless = True  # what is no character of the vocabulary is written as bytes
    document_start: tuple[int, ...] = ()

    def __init__(
        self, characters: Iterable[str], characters_first: bool = False, markers: Sequence[str] = ()
    ) -> None:
        """``markers`` are special tokens behind all others, such as those of a dialogue."""
        self._characters = own = list(characters)
        self._characters_first, self._markers = characters_first, tuple(markers)
        others = [END_OF_TEXT, *BYTES]
        self.entries = entries = [*own, *others] if characters_first else [*others, *own]
        self.end_of_text = entries.index(END_OF_TEXT)
        self._first_byte = self.end_of_text + 1
        first = 0 if characters_first else len(others)
        others_bytes = [b"", *(bytes([value]) for value in range(256))]
        own_bytes = [character.encode() for character in own]
        self._bytes = [*own_bytes, *others_bytes] if characters_first else [*others_bytes, *own_bytes]
        entries += [*markers]
        self._bytes += [b""] * len(markers)
        self.vocab_size = len(self._bytes)
        self._specials = {text: entries.index(text) for text in (END_OF_TEXT, *markers)}
        self._special = re.compile(
            "|".join(map(re.escape, sorted(self._specials, key=len, reverse=True))).join("()")
        )
        # a table by code point (9 MB): a whole text is looked up at once, without a search for each character
        self._ids = np.full(CODE_POINTS, -1, dtype=np.int64)
        self._ids[[ord(character) for character in own]] = np.arange(first, first + len(own))
        self._spec = _tokenizer_json(entries, self._specials)
        self.fingerprint = fingerprint_of(self._spec)

    @classmethod
    def train(
        cls, counts: CharacterCounts, vocab_size: int = 0, markers: Sequence[str] = (), min_count: int = 1
    ) -> "CharTokenizer":
        """The vocabulary of a text from its character counts.

        Args:
            counts: of each code point.
            vocab_size: at most so many tokens; 0: no limit.
            markers: special tokens besides.
            min_count: characters that occur less often are written as bytes, see :func:`least_count`.
        """  # fmt: skip
        found = np.flatnonzero(counts >= least_count(counts, min_count))
        # stable: equally frequent characters stay in the order of their code points
        by_frequency = found[np.argsort(-counts[found], kind="stable")]
        if vocab_size:
            needed = FIRST_CHARACTER + len(markers)
            if vocab_size < needed:
                raise TokenizerError(
                    f"tokenizer.vocab_size={vocab_size} has no room for the 256 bytes and end-of-text"
                    + (f", and for {len(markers)} special tokens" if markers else ""),
                    where="[tokenizer]",
                    hint=f"choose at least {needed}, or 0 for no limit",
                )
            by_frequency = by_frequency[: vocab_size - needed]
        return cls((chr(code) for code in by_frequency.tolist()), markers=markers)

    @classmethod
    def from_json(cls, spec: dict[str, Any], where: Path) -> "CharTokenizer":
        """The tokenizer in a tokenizer.json of ours."""
        try:
            vocabulary = spec["model"]["vocab"]
            # by their ids: in the file they may stand in any order
            entries = sorted(vocabulary, key=vocabulary.get)
            end = vocabulary[END_OF_TEXT]
            markers = [token["content"] for token in spec["added_tokens"] if token["content"] != END_OF_TEXT]
            entries = entries[: len(entries) - len(markers)]
            # the characters stand behind the bytes if end-of-text is 0, else before it
            tokenizer = cls(entries[:end] or entries[FIRST_CHARACTER:], end > 0, markers)
        except (KeyError, TypeError, AttributeError, ValueError):
            tokenizer = None
        if tokenizer is None or tokenizer._spec != spec:
            raise TokenizerError(
                "this tokenizer.json is not a character vocabulary made by yanmo",
                where=str(where),
                hint="use a model folder written by yanmo",
            )
        return tokenizer

    @property
    def suppressed(self) -> tuple[int, ...]:
        """The markers: every other id is text or its end."""
        return tuple(range(self.vocab_size - len(self._markers), self.vocab_size))

    def spelling(self, token: int) -> str:
        """What tokenizer.json has written for a token."""
        return self.entries[token]

    def bytes_of(self, token: int) -> bytes:
        """The bytes of a token; end-of-text has none."""
        return self._bytes[token]

    def encode(self, text: str, special: bool = False) -> Ids:
        """Ids of a text, shape (number of tokens,); with ``special``, ``<|endoftext|>`` is its token."""
        if special:
            parts = self._special.split(text)  # text, marker, text, …
            return np.concatenate([
                np.array([self._specials[part]]) if number % 2 else self.encode(part)
                for number, part in enumerate(parts)
            ])  # fmt: skip
        code_points = code_points_of(text)
        ids = self._ids[code_points]
        unknown = np.flatnonzero(ids < 0)
        if not len(unknown):
            return ids
        pieces, start = [], 0
        # what the vocabulary lacks is rare in its own kind of text: a loop over these places alone
        for position in unknown.tolist():
            pieces.append(ids[start:position])
            raw = np.frombuffer(text[position].encode(), dtype=np.uint8)
            pieces.append(raw.astype(np.int64) + self._first_byte)
            start = position + 1
        return np.concatenate([*pieces, ids[start:]])

    def decode(self, ids: Ids | list[int]) -> str:
        """Text of ids; bytes that form no character become �."""
        # joined first: the bytes of one character may be several tokens
        return b"".join(self._bytes[token] for token in ids).decode("utf-8", "replace")

    def stream(self) -> ByteStream:
        """A decoder for ids that arrive one by one."""
        return ByteStream(self._bytes)

    def pieces(self, text: str, length: int) -> Iterator[str]:
        """``text`` in pieces of ``length`` characters: it may be cut anywhere."""
        for start in range(0, len(text), length):
            yield text[start : start + length]

    def with_markers(self, markers: Sequence[str]) -> "CharTokenizer":
        """The same with more special tokens behind its last id."""
        return CharTokenizer(self._characters, self._characters_first, (*self._markers, *markers))

    def save(
        self, folder: Path, model_max_length: int, chat_template: str | None = None, end_of_turn: str = ""
    ) -> None:
        """Write tokenizer.json and tokenizer_config.json."""
        chat = chat_template, end_of_turn
        write_tokenizer(folder, self._spec, model_max_length, chat, {}, unused=BYTES[0xFF])


def least_count(counts: CharacterCounts, min_count: int) -> int:
    """How often a character must occur to be a token: ``min_count``, or less in a short text.

    What is left out makes up ``MOST_RARE`` of the text at most.
    """
    total = counts.sum()
    for least in range(min_count, 1, -1):
        if counts[counts < least].sum() <= MOST_RARE * total:
            return least
    return 1


def count_characters(text: str, counts: CharacterCounts | None = None) -> CharacterCounts:
    """Add the characters of ``text`` to ``counts``."""
    if counts is None:
        counts = np.zeros(CODE_POINTS, dtype=np.int64)
    code_points, times = np.unique(code_points_of(text), return_counts=True)
    counts[code_points] += times
    return counts


def code_points_of(text: str) -> npt.NDArray[np.uint32]:
    """A text's code points; a lone surrogate is no character and raises ``UnicodeEncodeError``."""
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def _tokenizer_json(entries: list[str], specials: dict[str, int]) -> dict[str, Any]:
    return tokenizer_json(
        specials,
        bpe_model({entry: number for number, entry in enumerate(entries)}, merges=[], byte_fallback=True),
        decoder=sequence("decoders", [{"type": "ByteFallback"}, {"type": "Fuse"}]),
    )

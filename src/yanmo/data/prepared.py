"""What training needs of a text, once ``prepare.py`` has made it ready.

:class:`Prepared` has the tokens of both sides, and what the run shows and measures of them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, Generic, TypeVar

import numpy as np

from yanmo.core import storage
from yanmo.data.batches import Batch, validation_batches
from yanmo.data.packed import PackedRows
from yanmo.data.pairs import PairRows
from yanmo.data.shards import RowInMemory, ShardSet
from yanmo.tokenizer import Tokenizer, kind_of
from yanmo.tokenizer.base import Ids
from yanmo.tokenizer.chat_template import ChatTemplate

OPENING_CHARACTERS = 12


@dataclass(frozen=True)
class HeldOut:
    """A text to measure a model on."""

    batches: Callable[[int], Iterator[Batch]]
    """With so many rows at a time."""
    targets: int
    characters: int
    """Of the text that the targets stand for."""

    @classmethod
    def of(cls, shards: ShardSet, block_size: int, end_of_text: int) -> "HeldOut":
        """The held-out part of a text, in windows."""
        characters = shards.manifest.splits.val.characters
        return cls(
            lambda rows: validation_batches(shards.val, block_size, rows, end_of_text),
            len(shards.val),
            characters,
        )


@dataclass(frozen=True)
class Unseen:
    """Texts that are never trained on, as tokens, each ended."""

    ids: Ids
    characters: int
    fingerprint: str

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: Tokenizer) -> "Unseen | None":
        """None where there are no texts."""
        if not texts:
            return None
        start, end = np.array(tokenizer.document_start, np.int64), np.array([tokenizer.end_of_text])
        parts = [part for text in texts for part in (start, tokenizer.encode(text), end)]
        return cls(np.concatenate(parts), sum(map(len, texts)), storage.fingerprint(list(texts)))

    def held_out(self, block_size: int, end_of_text: int) -> HeldOut:
        """In windows."""
        row = RowInMemory(self.ids)
        return HeldOut(
            lambda rows: validation_batches(row, block_size, rows, end_of_text), len(row), self.characters
        )


R = TypeVar("R")


@dataclass(frozen=True)
class Sides(Generic[R]):
    """What is trained on, and what is held out."""

    train: R
    val: R


def text_of(tokenizer: Tokenizer, ids: list[int], is_special: bool) -> str:
    """Of ids; special ones by their names."""
    return "".join(map(tokenizer.spelling, ids)) if is_special else tokenizer.decode(ids)


@dataclass(frozen=True)
class Prepared:
    """What training needs of the text."""

    tokenizer: Tokenizer
    shards: ShardSet
    val_fraction: float
    chat: ChatTemplate | None = None
    """The template of the model, if it has one."""
    dialogues: Sides[PackedRows] | None = None
    """Where the text is dialogues."""
    pairs: Sides[PairRows] | None = None
    """Where it is pairs of what was chosen and what was rejected."""
    unseen: Unseen | None = None
    """The texts of ``data.held_out``."""

    @property
    def is_text(self) -> bool:
        """Whether it is neither dialogues nor pairs."""
        return self.dialogues is None and self.pairs is None

    def questions(self, count: int, longest: int) -> list[list[int]]:
        """Held-out documents up to where the model is to write; those that are longer are passed over."""
        tokens, step = self.shards.val, 2 if self.pairs else 1  # a pair is one question
        numbers = range(0, len(tokens.starts), step)
        begins = ((n, int(np.argmax(tokens.document_marks(n) > 0))) for n in numbers)
        return list(islice((tokens.document(n)[:end].tolist() for n, end in begins if end <= longest), count))

    def shown(self, number: int) -> list[tuple[str, bool]]:
        """A document as it is trained on, and which parts of it the model is to write."""
        ids, marks = self.shards.train.document(number), self.shards.train.document_marks(number)
        special = {*self.tokenizer.suppressed, self.tokenizer.end_of_text}
        parts = groupby(zip(ids.tolist(), marks > 0, strict=True), lambda one: (one[0] in special, one[1]))
        return [
            (text_of(self.tokenizer, [token for token, _ in part], is_special), bool(is_learned))
            for (is_special, is_learned), part in parts
        ]

    def held_out(self, block_size: int) -> HeldOut:
        """What the model is measured on, of a text or of dialogues."""
        if self.dialogues is None:
            return HeldOut.of(self.shards, block_size, self.tokenizer.end_of_text)
        rows = self.dialogues.val
        return HeldOut(rows.in_order, rows.targets, self.shards.manifest.splits.val.characters)

    def epoch_tokens(self, block_size: int) -> int:
        """Tokens that are read in an epoch, with what fills the rows of dialogues."""
        rows = self.dialogues or self.pairs
        return len(self.shards.train) if rows is None else len(rows.train) * block_size

    @property
    def is_lossy(self) -> bool:
        """Whether the vocabulary lost something of this text."""
        return bool((self.shards.manifest.lost or {}).get("total"))

    def as_json(self) -> dict[str, Any]:
        """For ``--json``: paths and counts."""
        manifest = self.shards.manifest.as_json()
        return {
            "shards": str(self.shards.folder),
            "tokenizer": kind_of(self.tokenizer),
            "vocab_size": self.tokenizer.vocab_size,
            "dtype": manifest["dtype"],
            "splits": manifest["splits"],
            "counts": manifest["counts"],
        }

    def lines(self) -> list[str]:
        """The same for people."""
        splits = self.shards.manifest.splits
        return [
            f"shards     {self.shards.folder}",
            f"tokenizer  {kind_of(self.tokenizer)}, {self.tokenizer.vocab_size:,} tokens",
            *(
                f"{side:<10} {part.documents:,} documents, {part.tokens:,} tokens"
                for side, part in (("train", splits.train), ("val", splits.val))
            ),
            f"{'a token':<10} {splits.characters / max(splits.tokens, 1):.3f} characters",
        ]

    def openings(self, count: int, max_tokens: int) -> list[str]:
        """The first words of ``count`` lines, spread over the validation text, for samples to continue."""
        tokens, found = self.shards.val, []
        for number in range(count):
            start = number * len(tokens) // count
            lines = self.tokenizer.decode(tokens.slice(start, start + 1000)).split("\n")
            # the slice begins in the middle of a line, except the first
            whole = [line.strip() for line in (lines[1:] if number and len(lines) > 1 else lines)]
            # the longest of three: a chapter number or a name alone gives the model little to continue
            opening = max([line for line in whole if line][:3], key=len, default="")
            opening = opening[:OPENING_CHARACTERS].rstrip()
            while len(self.tokenizer.encode(opening)) > max_tokens:
                opening = opening[:-1]
            found.append(opening)
        return found

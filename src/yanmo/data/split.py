"""The train / validation split: decided by content and size alone, so that it never moves.

``plan_split`` names the documents that are held out, whole or by their end; ``assigned`` sends each document
of a corpus, or its two parts, to its side.
"""

import hashlib
import math
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np

from yanmo.text.clean.mix import times_of
from yanmo.text.read.documents import Document

HELD_OUT_CHARACTERS = 100_000
HASH_BYTES = 12
"""Of a text's content hash: with 96 bits even 10^9 documents collide with a probability below 10^-10."""


@dataclass(frozen=True)
class Split:
    """Which documents are validation, whole (``held_out``) or by their end (``cuts``), by content hash."""

    held_out: frozenset[str]
    cuts: dict[str, int]
    """Content hash -> how many of the last characters are validation."""
    never: frozenset[str] = frozenset()
    """Which belong to neither side."""


def plan_split(sizes: Sequence[tuple[str, int]], val_fraction: float, characters: int | None = None) -> Split:
    """Hold out ``val_fraction`` of the characters; equal documents always fall on the same side.

    Documents go to validation in the order of their hash until the share is reached. One (with all its
    copies) that is larger than half the share is never taken whole; if the share is not reached, the
    ends of the largest documents are cut off, at most half of each, of as few as it takes.

    Args:
        sizes: (content hash, characters) of every document, in any order.
        val_fraction: share of all characters to hold out.
        characters: of all documents, where only those of the smallest hashes are given, enough to reach
            the share.
    """
    # equal documents have equal hashes, and so move together: no text is in both splits
    copies = Counter(name for name, _ in sizes)
    length = dict(sizes)
    share = val_fraction * (characters or sum(n for _, n in sizes))
    held_out: set[str] = set()
    missing = share
    # the order of hashes looks random and depends on nothing else: added documents do not reshuffle the rest
    for name in sorted(length):
        size = length[name] * copies[name]
        # else one novel among stories would be most of the validation text
        if missing > 0 and size <= share / 2:
            held_out.add(name)
            missing -= size
    cuts: dict[str, int] = {}
    for name in sorted(length.keys() - held_out, key=lambda name: (-length[name], name)):
        # close enough: another cut would lose a window of text between its parts for very little
        if missing <= share / 100:
            break
        # all copies are cut alike; at least half of a document stays for training
        cuts[name] = min(math.ceil(missing / copies[name]), length[name] // 2)
        missing -= cuts[name] * copies[name]
    return Split(frozenset(held_out), {name: cut for name, cut in cuts.items() if cut})


def smallest(sizes: Iterable[tuple[str, int]], share: float) -> list[tuple[str, int]]:
    """The first (hash, characters) by hash: as many as ``plan_split`` needs for ``share`` characters.

    They are counted as ``plan_split`` counts them. If whole documents do not suffice, all are returned.
    """
    found: list[tuple[str, int]] = []
    missing = share
    for _, group in groupby(sizes, itemgetter(0)):
        if missing <= 0:
            break
        copies = [*group]
        found += copies
        size = copies[0][1] * len(copies)
        missing -= size if size <= share / 2 else 0
    return found


class Sizes:
    """(content hash, characters) of many documents, in 20 bytes each."""

    def __init__(self) -> None:
        self._hashes = bytearray()
        self._lengths = array("Q")

    def add(self, text: str) -> None:
        """Note a document."""
        self._hashes += _digest(text)
        self._lengths.append(len(text))

    @property
    def characters(self) -> int:
        """Of all of them."""
        return sum(self._lengths)

    def by_hash(self) -> Iterator[tuple[str, int]]:
        """All of them, in the order of their hashes."""
        # sorts row numbers over the packed hashes: a list of Python strings needs several times the memory
        parts = np.frombuffer(self._hashes, dtype=">u4").reshape(-1, HASH_BYTES // 4)
        # big-endian words, the last key first in lexsort: the same order as that of the hexadecimal strings
        for number in np.lexsort(parts.T[::-1]):
            at = int(number) * HASH_BYTES
            yield self._hashes[at : at + HASH_BYTES].hex(), self._lengths[number]


def cut_document(text: str, val_characters: int, gap: int) -> tuple[str, str]:
    """A document's training and validation part: cut at paragraphs, at least ``gap`` characters apart."""
    # the gap is a window long: the text just before the held-out part tells much about it, so it is left out
    target = max(len(text) - val_characters, 0)
    # a paragraph's start at or after the target, but never at the cost of half the part
    paragraph = text.find("\n", target, target + val_characters // 2)
    val_start = paragraph + 1 if paragraph >= 0 else target
    train_end = max(val_start - gap, 0)
    paragraph = text.rfind("\n", max(train_end - gap, 0), train_end)
    return text[: paragraph + 1 if paragraph >= 0 else train_end], text[val_start:]


def default_val_fraction(characters: int) -> float:
    """100,000 characters, but between 0.5% and 5% of the text."""
    # how exactly a loss is measured depends on this number, not on the share; more costs training text
    return round(min(max(HELD_OUT_CHARACTERS / max(characters, 1), 0.005), 0.05), 6)


def content_hash(text: str) -> str:
    """A name for a text's content."""
    return _digest(text).hex()


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=HASH_BYTES).digest()


@dataclass
class SplitTally:
    """Counts for the manifest."""

    left_out: int = 0
    """Characters between training and held-out text."""
    read_again: int = 0
    """Documents that a mix repeats in the training part."""
    never_read: int = 0
    """Documents of ``data.held_out``."""
    floor_bits: float = 0.0
    """The code length of the held-out documents in bits; NaN unless each of them states its own."""


def assigned(
    documents: Iterable[tuple[Document, str]], split: Split, gap: int, tally: SplitTally
) -> Iterator[tuple[str, Document]]:
    """The parts of each document (given with its content hash) with their sides."""
    for document, name in documents:
        if name in split.never:
            tally.never_read += 1
            continue
        parts = assign(document, name, split, gap)
        tally.left_out += len(document.text) - sum(len(part.text) for _, part in parts)
        if any(side == "val" for side, _ in parts):
            # NaN is contagious: one document of unknown entropy (or one cut in two) and the floor is unknown
            tally.floor_bits += document.meta.get("bits", math.nan) if len(parts) == 1 else math.nan
        times = times_of(document.meta.get("fields", {}))
        tally.read_again += times > 1
        for side, part in parts:
            # a mix repeats training text only: repeated validation text would change what a loss means
            yield from [(side, part)] * (times if side == "train" else 1)


def assign(document: Document, name: str, split: Split, gap: int) -> list[tuple[str, Document]]:
    """The side a document belongs to, or its two parts with theirs; an empty part is none.

    ``name`` is its content hash.
    """
    if name in split.held_out:
        return [("val", document)]
    if name not in split.cuts:
        return [("train", document)]
    before, after = cut_document(document.text, split.cuts[name], gap)
    # its bytes on disk, for the progress bar
    share = document.meta["size"] / len(document.text)
    return [
        (side, Document(text, document.id, {"size": share * len(text)}))
        for side, text in (("train", before), ("val", after))
        if text
    ]

"""Where a string stands in the training text: a suffix array over its characters, kept on disk.

    open_index(recipe, manifest, console)  a run's own, made of its shards where it is missing
    TextIndex, character by character: occurs, longest_end, continuation
    TextIndex, whole texts at once: matches, copied_spans, places, read

In: the training part of a run's shards. Out: ``.yanmo/index/<hash>/`` with ``text.npy``, the characters as
UTF-32 (big-endian, so bytes compare as code points do), each document followed by ``DOCUMENT_END``, which no
text holds; ``suffixes.npy``, the places of the text in the order of what begins there (a slot each); and
``ranks.npy``, the slot of each place. All are mapped.

Suffixes are sorted by prefix doubling (Manber and Myers 1993; unsorted groups only, as in Larsson and
Sadakane 2007), ``BLOCK`` of them at a time. 12 bytes a character lie in mapped files, a byte in memory; the
rest of the memory is that of a block, or of the largest group of suffixes that begin alike. Whole texts are
looked up by doubling, too: what begins with 2n characters begins with n, and goes on with the next n.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from yanmo.core import storage
from yanmo.core.console import Console
from yanmo.core.errors import DataError, YanmoError
from yanmo.core.records import Manifest
from yanmo.data.prepare import recorded_shards
from yanmo.data.shards import Tokens
from yanmo.settings.schema import Recipe
from yanmo.text.read.documents import corpus_size
from yanmo.text.read.sources import STDIN
from yanmo.tokenizer import Tokenizer

INDEX_VERSION = 2
"""Part of the cache key: raise it when the same text would give other files."""
DOCUMENT_END = "\udfff"
"""Half a character, so no text has it, and no match goes beyond it."""
BETWEEN = "\udffe"
"""The same between texts that are looked up together; the index does not hold it."""
MAX_CHARACTERS = (1 << 31) - 1
BLOCK = 1 << 21
"""Suffixes sorted at a time; about 100 bytes each."""
PIECE_TOKENS = 1 << 18
LOOKED_UP = 1 << 18
"""Places of texts that are looked up at a time; some 16 bytes each, for each doubling."""
GROUP_SLOTS = 1 << 12
"""Slots looked at together for the end of a group."""
CODE_BITS = 21
"""Code points are below 0x110000, so three of them fit into an integer of 64 bits."""
FIRST_LENGTH = 3

Array = npt.NDArray[Any]
Places = npt.NDArray[np.int64]


class Matches(NamedTuple):
    """The longest string at each of the N places of a text, beginning there, that occurs."""

    lengths: Places
    """(N,)"""
    slots: Places
    """(2, N) The slots of the index that begin with it: the first one, and the one after the last. Where the
    length is 0, they say nothing."""

    def covered(self, is_long: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """(N,) Which characters stand in a match that is long enough, as (N,) says of each."""
        starts = np.flatnonzero(is_long)
        size = len(self.lengths) + 1
        ends = np.bincount(starts + self.lengths[starts], minlength=size)
        return (np.bincount(starts, minlength=size) - ends).cumsum()[:-1] > 0


class TextIndex:
    """Answers whether and where a string stands in the indexed text: a string in microseconds."""

    def __init__(self, folder: Path) -> None:
        characters, slots, ranks = (
            # views of plain arrays: a mapped one takes longer for each look
            np.load(folder / name, mmap_mode="r").view(np.ndarray)
            for name in ("text.npy", "suffixes.npy", "ranks.npy")
        )
        self.characters = len(characters)
        self._points: Array = characters
        self._slots: Array = slots
        self._ranks: Array = ranks
        # memory views: numpy would take a microsecond for each single place
        self._text, self._suffixes = memoryview(characters.view(np.uint8)), memoryview(slots)

    def occurs(self, text: str) -> bool:
        """Whether the text holds this string within one document."""
        return self.continuation(text, 0) is not None

    def longest_end(self, text: str, at_most: int) -> int:
        """The length of the longest end of ``text``, of at most ``at_most`` characters, that occurs."""
        most = min(at_most, len(text))
        if self.occurs(text[len(text) - most :]):
            return most
        # an end that occurs has shorter ones that do
        return bisect_left(range(1, most), True, key=lambda n: not self.occurs(text[-n:]))

    def continuation(self, before: str, length: int, at_least: str = "") -> str | None:
        """The first string of ``length`` characters that follows ``before`` somewhere, and does not stand
        before ``at_least`` in the order of code points; None: there is none. It may hold ``DOCUMENT_END``.
        """
        sought = _as_bytes(before + at_least)
        size = len(sought)
        rank = bisect_left(self._suffixes, sought, key=lambda place: self._bytes(place, size))
        if rank == len(self._suffixes):
            return None
        found = self._bytes(self._suffixes[rank], 4 * (len(before) + length))
        text = found.decode("utf-32-be", "surrogatepass")
        return text[len(before) :] if text.startswith(before) else None

    def read(self, place: int, length: int) -> str:
        """So many characters of the indexed text, from a place on; fewer at its end."""
        return self._bytes(place, 4 * length).decode("utf-32-be", "surrogatepass")

    def _bytes(self, place: int, size: int) -> bytes:
        return bytes(self._text[4 * place : 4 * place + size])

    def places(self, slots: Places) -> Places:
        """The places of the indexed text in a range of slots, from the first one on."""
        return np.sort(self._slots[slice(*slots)]).astype(np.int64)

    def copied_spans(self, text: str, characters: int) -> list[tuple[int, int]]:
        """Where ``text`` has ``characters`` or more in a row as they occur: (start, end), by code points."""
        found = self.matches([text], characters)[0]
        covered = found.covered(found.lengths == characters)
        edges = np.flatnonzero(np.diff(covered, prepend=False, append=False))
        return [(start, end) for start, end in edges.reshape(-1, 2).tolist()]

    def matches(self, texts: Sequence[str], at_most: int, block: int = LOOKED_UP) -> list[Matches]:
        """For each text, the longest match of at most ``at_most`` characters at each of its places."""
        points = np.frombuffer(_as_bytes(BETWEEN.join(texts)), dtype=">u4").astype(np.int64)
        parts = [
            self._longest(points[start : start + block + at_most], at_most, block)
            for start in range(0, max(len(points), 1), block)
        ]
        lengths, slots = (np.concatenate(side, axis=-1) for side in zip(*parts, strict=True))
        ends = np.cumsum([len(text) + 1 for text in texts]).tolist()
        places = [slice(end - 1 - len(text), end - 1) for text, end in zip(texts, ends, strict=True)]
        return [Matches(lengths[here], slots[:, here]) for here in places]

    def _longest(self, points: Places, at_most: int, count: int) -> Matches:
        """The matches at the first ``count`` places of a text, given as code points."""
        places = np.arange(min(count, len(points)))
        lengths, slots = np.zeros_like(places), np.zeros((2, len(places)), dtype=np.int64)
        for level, known in reversed(list(enumerate(self._levels(points, at_most)))):
            size, occurs = 1 << level, known[0] < known[1]
            begin = places[(lengths == 0) & occurs[: len(places)]]
            # what has begun may be longer by so many characters, if they occur at all
            then = np.minimum(places + lengths, len(points) - 1)
            is_open = (places + lengths < len(points)) & (lengths + size <= at_most) & (lengths > 0)
            goes_on = places[is_open & occurs[then]]
            longer = self._narrowed(slots[:, goes_on], lengths[goes_on], known[:, then[goes_on]])
            is_found = longer[0] < longer[1]
            slots[:, begin], slots[:, goes_on[is_found]] = known[:, begin], longer[:, is_found]
            lengths[begin] = size
            lengths[goes_on[is_found]] += size
        return Matches(lengths, slots)

    def _levels(self, points: Places, at_most: int) -> Iterator[Places]:
        """For 1, 2, 4, … characters: the slots that begin as each place of a text does; (2, N) each."""
        codes, back = np.unique(points, return_inverse=True)
        everywhere = np.broadcast_to([[0], [self.characters]], (2, len(codes)))

        def code(slot: Places, _: Places) -> Array:
            return self._points[self._slots[slot]]

        ranges = np.stack([_first_slot(everywhere, limit, code) for limit in (codes, codes + 1)])
        slots, size = ranges[:, back], 1
        yield slots
        while 2 * size <= min(at_most, len(points)) and (slots[0] < slots[1]).any():
            slots = slots * (slots[0] < slots[1])  # 0 to 0 where there are none, and behind the end
            following = np.pad(slots[:, size:], ((0, 0), (0, size)))
            # most short strings come back many times
            _, some, back = np.unique(slots[1] << 32 | following[1], return_index=True, return_inverse=True)
            slots = self._narrowed(slots[:, some], np.full(len(some), size), following[:, some])[:, back]
            size *= 2
            yield slots

    def _narrowed(self, slots: Places, lengths: Places, following: Places) -> Places:
        """Of slots that begin alike for so many characters, those that go on as ``following`` begin."""

        def rank(slot: Places, which: Places) -> Array:
            there = self._slots[slot] + lengths[which]
            # the text's end stands before all others
            return np.where(there < self.characters, self._ranks[np.minimum(there, self.characters - 1)], -1)

        start = np.where(following[0] < following[1], slots[0], slots[1])
        start = _first_slot(np.stack([start, slots[1]]), following[0], rank)
        return np.stack([start, _first_slot(np.stack([start, slots[1]]), following[1], rank)])


def _first_slot(slots: Places, sought: Places, key: Callable[[Places, Places], Array]) -> Places:
    """The first of each range of slots whose key is not below what is sought, else the end of the range.

    ``key`` gives the keys of some slots; it is told which range each of them is of.
    """
    low, high = slots.copy()
    while (several := np.flatnonzero(low < high)).size:
        middle = (low[several] + high[several]) // 2
        is_below = key(middle, several) < sought[several]
        low[several[is_below]] = middle[is_below] + 1
        high[several[~is_below]] = middle[~is_below]
    return np.asarray(low)


def _as_bytes(text: str) -> bytes:
    return text.encode("utf-32-be", "surrogatepass")


# -- of a run ---------------------------------------------------------------------------------


def open_index(
    recipe: Recipe,
    manifest: Manifest,
    tokenizer: Tokenizer,
    console: Console,
    at_most: int = MAX_CHARACTERS,
) -> TextIndex:
    """The index of the text that a run was trained on, by its recipe and its corpus.json.

    Args:
        recipe: of the run.
        manifest: its corpus.json.
        tokenizer: the run's.
        console: for progress.
        at_most: of a text with more characters, about so many are indexed, in pieces from all of it.

    Raises:
        ConfigError: neither the index nor the shards are there, and they cannot be made again.
    """

    def fill(folder: Path) -> None:
        shards = recorded_shards(recipe, manifest, console)
        console.status("indexing the training text")
        build_index(folder, documents_of(tokenizer, shards.train, every))
        console.clear_status()

    every = max(-(-manifest.splits.train.characters // at_most), 1)
    return TextIndex(storage.cached("index", _key_of(recipe, manifest, every), fill))


def require_text(recipe: Recipe, manifest: Manifest, console: Console) -> None:
    """See whether ``open_index`` has what it needs, without reading the corpus; it may have changed.

    Raises:
        ConfigError: neither the index, nor the shards, nor the corpus is there.
    """
    is_indexed = (storage.cache_root() / "index" / _key_of(recipe, manifest)).is_dir()
    if not is_indexed and not _has_files(recipe.corpus.path):
        recorded_shards(recipe, manifest, console)


def _key_of(recipe: Recipe, manifest: Manifest, every: int = 1) -> str:
    known = [manifest.corpus, manifest.tokenizer, manifest.splits.model_dump(), every]
    return storage.fingerprint([INDEX_VERSION, *known, recipe.data.val_fraction, recipe.model.block_size])


def _has_files(paths: Sequence[str]) -> bool:
    """Whether each path of a corpus has its files. Of standard input that is not known."""
    try:
        return STDIN in paths or corpus_size(paths) > 0
    except YanmoError:
        return False


def documents_of(tokenizer: Tokenizer, tokens: Tokens, every: int = 1) -> Iterator[Iterator[str]]:
    """The documents of a split, each in pieces of text.

    Of ``every`` so many pieces the first is given, as a document of its own.
    """
    places = [range(*ends) for ends in pairwise([*tokens.starts.tolist(), len(tokens)])]
    if every > 1:
        step = PIECE_TOKENS
        places = [one[at : at + step] for one in places for at in range(0, len(one), step)][::every]
    for one in places:
        yield _pieces(tokenizer, tokens, one)


def _pieces(tokenizer: Tokenizer, tokens: Tokens, places: range) -> Iterator[str]:
    # as a stream: between two pieces a character may be cut, or two words be joined
    stream = tokenizer.stream()
    for start in places[::PIECE_TOKENS]:
        ids = tokens.slice(start, min(start + PIECE_TOKENS, places.stop)).tolist()
        yield "".join(map(stream.push, ids))
    yield stream.flush()


# -- sorting ----------------------------------------------------------------------------------


def build_index(folder: Path, documents: Iterable[Iterable[str]], block: int = BLOCK) -> None:
    """Write the files of an index of documents, each given in pieces.

    Raises:
        DataError: there are more characters than places of 32 bits.
    """
    raw = folder / "characters.bin"
    with open(raw, "wb") as file:
        for document in documents:
            for piece in document:
                file.write(_as_bytes(piece))
            file.write(_as_bytes(DOCUMENT_END))
    count = raw.stat().st_size // 4
    if not 0 < count <= MAX_CHARACTERS:
        raise DataError(
            f"the text has {count:,} characters, and an index holds 1 to {MAX_CHARACTERS:,}",
            where=str(folder),
            hint="leave out what asks for it (sample.no_copy), or train on less text",
        )
    text = _created(folder / "text.npy", ">u4", count)
    text[:] = np.memmap(raw, dtype=">u4", mode="r")
    suffixes, ranks = (_created(folder / name, "<i4", count) for name in ("suffixes.npy", "ranks.npy"))
    sort_suffixes(text, suffixes, ranks, block)
    for one in (text, suffixes, ranks):
        one.flush()
    raw.unlink()


def _created(path: Path, dtype: str, count: int) -> np.memmap[Any, Any]:
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=(count,))


def sort_suffixes(text: Array, suffixes: Array, ranks: Array, block: int) -> None:
    """Fill ``suffixes`` with the places of ``text`` in the order of what begins there.

    ``ranks`` is the inverse: for each place, the first slot of its group, of those not told apart so far.
    """
    is_open = np.zeros(len(text), dtype=bool)  # slots of groups of more than one place
    _sort_by_first(text, suffixes, ranks, is_open, block)
    length = FIRST_LENGTH  # all groups are told apart by so many characters
    while is_open.any():
        start = 0
        while start < len(text):
            end = _group_end(suffixes, ranks, min(start + block, len(text)))
            _refine(suffixes, ranks, is_open, np.flatnonzero(is_open[start:end]) + start, length)
            start = end
        length *= 2


def _sort_by_first(text: Array, suffixes: Array, ranks: Array, is_open: Array, block: int) -> None:
    """Sort all places by their first characters, those that begin with a few next code points at a time."""
    counts = np.zeros(1 << CODE_BITS, dtype=np.int64)
    for start in range(0, len(text), block):
        counts += np.bincount(text[start : start + block], minlength=len(counts))
    ends, slot, code = counts.cumsum(), 0, 0
    while slot < len(text):
        # as many code points as a block has room for, and at least one that occurs
        limit = max(slot + block, int(ends[np.searchsorted(ends, slot, side="right")]))
        until = int(np.searchsorted(ends, limit, side="right"))
        places = np.concatenate([
            np.flatnonzero((part >= code) & (part < until)) + start
            for start in range(0, len(text), block)
            for part in [text[start : start + block]]
        ])  # fmt: skip
        key = np.zeros(len(places), dtype=np.int64)
        for ahead in range(FIRST_LENGTH):
            here = places + ahead
            key = key << CODE_BITS | np.where(here < len(text), text[np.minimum(here, len(text) - 1)], 0)
        _settle(suffixes, ranks, is_open, np.arange(slot, slot + len(places)), places, key)
        slot, code = slot + len(places), until


def _group_end(suffixes: Array, ranks: Array, slot: int) -> int:
    """The first slot from ``slot`` on that begins a group."""
    while slot < len(suffixes):
        slots = np.arange(slot, min(slot + GROUP_SLOTS, len(suffixes)))
        begins = ranks[suffixes[slots]] == slots
        if begins.any():
            return slot + int(begins.argmax())
        slot += GROUP_SLOTS
    return len(suffixes)


def _refine(suffixes: Array, ranks: Array, is_open: Array, slots: Places, length: int) -> None:
    """Sort the places in the groups of ``slots`` by twice as many characters."""
    places = suffixes[slots].astype(np.int64)
    there = places + length
    # what begins ``length`` later is sorted by as many characters already; the text's end stands first
    later = np.where(there < len(ranks), ranks[np.minimum(there, len(ranks) - 1)] + np.int64(1), 0)
    _settle(suffixes, ranks, is_open, slots, places, ranks[places].astype(np.int64) << 32 | later)


def _settle(
    suffixes: Array, ranks: Array, is_open: Array, slots: Places, places: Places, key: Places
) -> None:
    """Put ``places`` into ``slots`` by their keys; equal keys are a group."""
    order = np.argsort(key)
    key, places = key[order], places[order]
    begins = np.ones(len(key) + 1, dtype=bool)
    begins[1:-1] = key[1:] != key[:-1]
    suffixes[slots] = places
    ranks[places] = slots[np.flatnonzero(begins[:-1])[begins[:-1].cumsum() - 1]]
    is_open[slots] = ~(begins[:-1] & begins[1:])

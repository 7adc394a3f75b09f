"""Duplicates: the same text, nearly the same text, and paragraphs that another document has.

In: documents one after another. Out: which to drop, and which of their paragraphs. What can be computed
from one document alone is its :class:`Marks`, in any process; :class:`DuplicateIndex` compares them in
order, and what came first stays.

Memory, measured: 100 bytes for the exact mark of a document, 4 KB for its near one, 130 bytes for each long
paragraph; past some million documents use ``yanmo scale``.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from yanmo.core.commands import install_command
from yanmo.core.errors import ConfigError
from yanmo.settings.schema import DedupConfig

COPY = "a copy"
NEAR_COPY = "nearly a copy"
ONLY_REPEATED = "only repeated paragraphs"

SHINGLE_CHARACTERS = 5
"""Characters in a run by which texts are compared: about two words."""
PERMUTATIONS = 128
BANDS = 32
"""Of 4 permutations each: two texts at 0.8 are compared with a probability of 0.99999."""
MAX_TEXTS_A_BAND = 8
"""Texts that a band remembers: so many times 32 are compared with a text at most."""
PERMUTATION_SEED = 1
WINDOW_CHARACTERS = 50
"""Characters in a row that do not stand in two texts by chance."""
HASH_BASE = 0x9E3779B97F4A7C15
HASHED_WINDOWS = 1 << 14
"""Windows hashed at a time: what stays in the cache is several times faster."""
FILTER_SLOTS = 1 << 20
"""Slots by which windows that are not sought are passed over at once."""


@dataclass(frozen=True)
class Marks:
    """What is compared of a text."""

    exact: bytes = b""
    near: bytes = b""
    """A MinHash of its runs of five characters (Broder 1997), by rensa: 128 numbers of 32 bits."""
    paragraphs: tuple[tuple[int, bytes], ...] = ()
    """(number of the line, its hash) of long paragraphs."""


def marks_of(text: str, config: DedupConfig) -> Marks:
    """A text's marks; spaces and case make no difference."""
    letters = "".join(text.split()).casefold()
    return Marks(
        _hash(letters) if config.exact else b"",
        _min_hash(letters) if config.near else b"",
        tuple(_paragraphs(text, config.paragraphs)) if config.paragraphs else (),
    )


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()


def _min_hash(letters: str) -> bytes:
    shingles = {
        letters[i : i + SHINGLE_CHARACTERS] for i in range(max(len(letters) - SHINGLE_CHARACTERS + 1, 1))
    }
    found = _rensa().RMinHash(PERMUTATIONS, PERMUTATION_SEED)
    found.update(list(shingles))
    return np.array(found.digest(), dtype="<u4").tobytes()


def _paragraphs(text: str, least: int) -> Iterable[tuple[int, bytes]]:
    for number, line in enumerate(text.split("\n")):
        if len(line) >= least:
            letters = "".join(line.split()).casefold()
            if len(letters) >= least:
                yield number, _hash(letters)[:8]


@dataclass
class DuplicateIndex:
    """What was seen before; asked about each document in order."""

    config: DedupConfig
    _exact: dict[bytes, str] = field(default_factory=dict)
    """Mark -> why a document that has it is dropped."""
    _paragraphs: set[bytes] = field(default_factory=set)
    _near: "NearIndex" = field(default_factory=lambda: NearIndex())
    _reasons: list[str] = field(default_factory=list)
    """Of each MinHash in it, why a document near that is dropped."""
    _windows: dict[int, str] = field(default_factory=dict)
    """Of what is unwanted: the hash of every 25th run of 50 characters -> why a document is dropped."""
    _sought: "Sought | None" = None
    """The same, made when it is asked for."""
    is_closed: bool = False
    """Whether what is asked about is only compared, and not seen."""

    def judge(self, marks: Marks) -> str:
        """Why a document is to be dropped, or an empty string; then it is seen."""
        if marks.exact and marks.exact in self._exact:
            return self._exact[marks.exact]
        # Both, in this order: a look finds an exact copy, a near one is compared number by number.
        if marks.near and (found := self._near.nearest(marks.near, self.config.near)) is not None:
            return self._reasons[found]
        self._add(marks, COPY, NEAR_COPY)
        return ""

    def block(self, text: str, marks: Marks, reason: str) -> None:
        """Let documents that are this one, near it, or hold 50 characters in a row of it, be dropped."""
        self._add(marks, reason, reason)
        self._paragraphs.update(hashed for _, hashed in marks.paragraphs)
        # Every 25th run is enough: any 74 characters in a row of the text hold one of them whole.
        self._windows.update(dict.fromkeys(windows(text, WINDOW_CHARACTERS // 2).tolist(), reason))
        self._sought = None

    def holds(self, text: str) -> str:
        """Why a document is to be dropped that holds some of what is unwanted, or an empty string."""
        if not self._windows:
            return ""
        if self._sought is None:
            self._sought = Sought(np.array([*self._windows], dtype=np.uint64))
        found = self._sought.places(text)
        return self._windows[int(self._sought.hashes[found[0]])] if len(found) else ""

    def _add(self, marks: Marks, reason: str, near_reason: str) -> None:
        if self.is_closed:
            return
        if marks.exact:
            self._exact[marks.exact] = reason
        if marks.near:
            self._near.add(marks.near)
            self._reasons.append(near_reason)

    def repeated(self, marks: Marks) -> set[int]:
        """The numbers of lines that an earlier document has; the others are seen now."""
        lines = {number for number, hashed in marks.paragraphs if hashed in self._paragraphs}
        if not self.is_closed:
            self._paragraphs.update(hashed for _, hashed in marks.paragraphs)
        return lines


class NearIndex:
    """MinHashes, found again by any band of four numbers in common (Indyk & Motwani 1998).

    What is written by a template shares its bands with thousands of others, and each with each is quadratic.
    So a band remembers the first ``MAX_TEXTS_A_BAND`` that have it: what two copies have in common and the
    template has not lies in other bands, which few share.
    """

    def __init__(self) -> None:
        self._bands: dict[int, int | list[int]] = {}
        """Band -> number of the text that has it, or numbers: most have one, and a list is large."""
        self._hashes = np.empty((1024, PERMUTATIONS), np.uint32)
        self._count = 0

    def nearest(self, near: bytes, least: float) -> int | None:
        """The number of the first text whose MinHash has so much in common."""
        candidates = self.candidates(near)
        if not candidates:
            return None
        equal = (self._hashes[candidates] == np.frombuffer(near, "<u4")).mean(axis=1)
        near_ones = np.flatnonzero(equal >= least)
        return candidates[int(near_ones[0])] if len(near_ones) else None

    def candidates(self, near: bytes) -> list[int]:
        """The numbers of texts that share a band, in order: at most ``MAX_TEXTS_A_BAND`` for each."""
        found: set[int] = set()
        for band in _bands_of(near):
            numbers = self._bands.get(band)
            if numbers is not None:
                found.update((numbers,) if isinstance(numbers, int) else numbers)
        return sorted(found)

    def add(self, near: bytes) -> None:
        """Remember a text's MinHash under the next number."""
        if self._count == len(self._hashes):
            # Doubled, so that n additions copy 2 n rows and not n squared.
            self._hashes = np.concatenate([self._hashes, np.empty_like(self._hashes)])
        self._hashes[self._count] = np.frombuffer(near, "<u4")
        for band in _bands_of(near):
            numbers = self._bands.setdefault(band, self._count)
            if isinstance(numbers, int):
                if numbers != self._count:
                    self._bands[band] = [numbers, self._count]
            elif len(numbers) < MAX_TEXTS_A_BAND:
                numbers.append(self._count)
        self._count += 1


def _bands_of(near: bytes) -> list[int]:
    """A hash of each band of a MinHash, with its place among them."""
    rows = np.frombuffer(near, "<u4").astype(np.uint64).reshape(BANDS, -1)
    mixed = np.arange(BANDS, dtype=np.uint64)
    for column in rows.T:
        mixed = (mixed ^ column) * np.uint64(HASH_BASE)
        mixed ^= mixed >> np.uint64(29)
    found: list[int] = mixed.tolist()
    return found


@cache
def _rensa() -> Any:
    try:
        import rensa
    except ImportError as error:
        raise ConfigError(
            "near duplicates need rensa", "dedup.near", f"{install_command('clean')}, or dedup.near=0"
        ) from error
    return rensa


# -- held-out text in the training text -------------------------------------------------------


def windows(text: str, step: int) -> npt.NDArray[np.uint64]:
    """A hash of every ``step``-th run of 50 characters; spaces and case make no difference."""
    data = "".join(text.split()).casefold().encode("utf-32-le", "surrogatepass")
    return windows_of(np.frombuffer(data, dtype=np.uint32), step)


def windows_of(points: npt.NDArray[np.uint32], step: int) -> npt.NDArray[np.uint64]:
    """A hash of every ``step``-th run of 50 numbers."""
    ends = range(WINDOW_CHARACTERS - 1, len(points), HASHED_WINDOWS)
    found = [_runs(points[end + 1 - WINDOW_CHARACTERS : end + HASHED_WINDOWS]) for end in ends]
    return np.concatenate(found)[::step] if found else np.empty(0, np.uint64)


def _runs(points: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    """A hash of each run of 50 code points: a polynomial modulo 2 to the 64th, by doubling (32 + 16 + 2)."""
    runs, length, power = points.astype(np.uint64), 1, HASH_BASE
    total, covered = np.zeros(len(points), np.uint64), 0
    while length < WINDOW_CHARACTERS:
        if WINDOW_CHARACTERS & length:  # a run of this length goes behind what is covered
            total = total[: len(runs) - covered] * np.uint64(power) + runs[covered:]
            covered += length
        runs = runs[:-length] * np.uint64(power) + runs[length:]
        length, power = length * 2, power * power % 2**64
    return total


class Sought:
    """Windows looked for in texts: their sorted ``hashes``, and a table that passes over most others."""

    def __init__(self, hashes: npt.NDArray[np.uint64]) -> None:
        self.hashes = np.unique(hashes)
        self._may_be = np.zeros(FILTER_SLOTS, bool)
        self._may_be[self.hashes % FILTER_SLOTS] = True

    def places(self, text: str) -> npt.NDArray[np.intp]:
        """The places in ``hashes`` of those that stand anywhere in a text, in the text's order."""
        return self.among(windows(text, 1))

    def among(self, here: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
        """The same of hashes."""
        here = here[
            self._may_be[here % FILTER_SLOTS]
        ]  # a binary search for each window would be the whole cost
        places = np.searchsorted(self.hashes, here).clip(max=len(self.hashes) - 1)
        found: npt.NDArray[np.intp] = places[self.hashes[places] == here]
        return found


@dataclass
class Overlap:
    """How much of some held-out text stands in a training text too."""

    windows: int
    found: int

    @property
    def share(self) -> float:
        """Of the held-out text's windows."""
        return self.found / self.windows if self.windows else 0.0


def overlap(held_out: Iterable[str], training: Callable[[], Iterable[str]]) -> Overlap:
    """The share of the held-out text, in windows of 50 letters side by side, that training text has too.

    Memory: 8 bytes for every 50 letters held out.
    """
    sought = Sought(
        np.concatenate([np.empty(0, np.uint64), *(windows(text, WINDOW_CHARACTERS) for text in held_out)])
    )
    is_found = np.zeros(len(sought.hashes), bool)
    for text in training() if len(is_found) else ():
        is_found[sought.places(text)] = True
    return Overlap(len(is_found), int(is_found.sum()))

"""Duplicates among documents that no machine holds: the decisions of ``text/clean/dedup.py``, by tasks.

1. ``Signatures`` writes the marks of a part's texts: ``marks_of``, as on one machine. Between, datatrove's
   MinhashDedupBuckets finds documents that agree in a band (``steps.py``).
2. ``find_copies`` goes through those in order: a document is a copy if an earlier one that stays has its
   letters, or agrees in a band and in ``dedup.near`` of all numbers. What came first stays.
3. ``find_repeated`` finds, for a range of hashes, the paragraphs that an earlier document has.

A document is (part, number in the part), both 32 bits. All files are plain little-endian numbers.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from yanmo.scale.plan import Plan, whole
from yanmo.settings.schema import DedupConfig
from yanmo.text.clean.dedup import BANDS, COPY, NEAR_COPY, PERMUTATIONS, marks_of

Numbers = npt.NDArray[Any]
BAND = PERMUTATIONS // BANDS
"""Numbers of 32 bits in a band; the exact mark of 96 bits is a band too, the last one."""
UNWANTED = 2
"""Code of a reason: see ``_reasons``."""


def bands_of(config: DedupConfig) -> int:
    """How many bands documents are compared by; 0: whole documents are not compared."""
    return (BANDS if config.near else 0) + bool(config.exact)


# -- marks ------------------------------------------------------------------------------------


class Signatures:
    """Writes the marks of the texts of one part, in order."""

    def __init__(self, plan: Plan, part: int) -> None:
        self._plan, self._part, self._config = plan, part, plan.settings.dedup
        self._open = ExitStack()
        self._digests: BinaryIO | None = None
        self._hashes = bytearray()
        self._places = array("I")
        self._texts = 0

    def __enter__(self) -> "Signatures":
        self._digests = self._open.enter_context(whole(_digests(self._plan, self._part)))
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)
        if error[0] is None:
            self._write_paragraphs()

    def add(self, text: str) -> Numbers:
        """Write a text's marks; gives its numbers, uint32 of shape (bands · 4,)."""
        marks = marks_of(text, self._config)
        data = marks.near + marks.exact.ljust(4 * BAND if marks.exact else 0, b"\0")
        assert self._digests is not None
        self._digests.write(data)
        for line, hashed in marks.paragraphs:
            self._hashes += hashed
            self._places.extend((self._texts, line))
        self._texts += 1
        return np.frombuffer(data, "<u4")

    def _write_paragraphs(self) -> None:
        hashes = np.frombuffer(self._hashes, "<u8")
        order = np.argsort(hashes, kind="stable")
        _write(_paragraphs(self._plan, self._part, "hashes"), hashes[order])
        _write(
            _paragraphs(self._plan, self._part, "places"),
            np.asarray(self._places, "<u4").reshape(-1, 2)[order],
        )


# -- whole documents --------------------------------------------------------------------------


def find_copies(plan: Plan) -> Counter[str]:
    """Write which documents of each part are dropped, and why; gives how many for each reason."""
    config, chains = plan.settings.dedup, _chains(plan)
    kept: defaultdict[int, list[int]] = defaultdict(list)
    """Chain -> its documents that stay."""
    of_equals: dict[int, tuple[int, int]] = {}
    """Chain of equal documents whose first is dropped -> what it is a copy of, and the reason's code."""
    dropped: list[tuple[int, int, int]] = []
    read = cache(lambda part: _mapped(_digests(plan, part), "<u4").reshape(-1, bands_of(config) * BAND))

    def digest(document: int) -> Numbers:
        return np.asarray(read(document >> 32)[document & 0xFFFFFFFF, :PERMUTATIONS])

    def found(document: int, mine: Sequence[int]) -> tuple[int, int] | None:
        """An earlier document that this one is a copy of, and the reason's code."""
        for chain in mine:
            if chain < chains.first_near and chain in kept:
                return kept[chain][0], 0
            if chain in of_equals:
                return of_equals[chain]
        others = {other for chain in mine for other in kept.get(chain, ())}
        numbers = digest(document) if others else None
        for other in sorted(others):
            if np.mean(digest(other) == numbers) >= config.near:
                return other, 1
        return None

    for document, mine in chains.by_document():
        copy = None if plan.is_against(document >> 32) else found(document, mine)
        if copy is None:
            for chain in mine:
                kept[chain].append(document)
            continue
        of_equals |= {chain: copy for chain in mine if chain < chains.first_near and chain not in kept}
        original, reason = copy
        reason = UNWANTED if plan.is_against(original >> 32) else reason
        dropped.append((document >> 32, document & 0xFFFFFFFF, reason))
    _write_by_part(plan, "copies", dropped)
    names = _reasons(plan)
    return Counter(names[reason] for _, _, reason in dropped)


def copies_of(plan: Plan, part: int) -> dict[int, str]:
    """The numbers of a part's documents that are dropped, with the reasons."""
    names = _reasons(plan)
    return {int(number): names[int(reason)] for _, number, reason in _read_rows(plan.work("copies"), part)}


def _reasons(plan: Plan) -> tuple[str, str, str]:
    return COPY, NEAR_COPY, unwanted_reason(plan.settings.dedup)


def unwanted_reason(config: DedupConfig) -> str:
    """Why a document is dropped that dedup.against has."""
    return f"also in {', '.join(config.against)}"


class Chains:
    """Documents that agree in a band stand in a chain, in order.

    Memory: 40 bytes for each place in a chain; a document has up to 33, an exact copy of another just one.
    """

    def __init__(self) -> None:
        self._documents: list[Numbers] = []
        self._chains: list[Numbers] = []
        self._equals = np.empty(0, np.int64)
        """Documents that are equal to an earlier one: what becomes of that becomes of them."""
        self.count = 0
        self.first_near = 0
        """Chains below it are of equal documents."""

    def add_equal(self, pairs: Numbers) -> None:
        """Take the chains of the exact mark, before all others."""
        documents, chains, begins = self._read(pairs)
        self._equals = np.sort(documents[~begins])
        self._add(documents, chains)
        self.first_near = self.count

    def add_near(self, pairs: Numbers) -> None:
        """Take the chains of a band, without those that are left with one document."""
        documents, chains, _ = self._read(pairs)
        others = ~np.isin(documents, self._equals)
        documents, chains = documents[others], chains[others]
        _, which, many = np.unique(chains, return_inverse=True, return_counts=True)
        several = (many > 1)[which]
        self._add(documents[several], chains[several])

    def _read(self, pairs: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """datatrove's pairs of neighbours (part, number, part, number), which write a chain as (a, b),
        (b, c), …: each place's document and chain, and whether it is the first."""
        before, after = (pairs[:, i].astype(np.int64) << 32 | pairs[:, i + 1] for i in (0, 2))  # (pairs,)
        begins = np.ones(len(pairs), bool)
        begins[1:] = after[:-1] != before[1:]
        chains = np.cumsum(begins) - 1 + self.count
        self.count += int(begins.sum())
        first = np.concatenate([np.ones(int(begins.sum()), bool), np.zeros(len(pairs), bool)])
        return np.concatenate([before[begins], after]), np.concatenate([chains[begins], chains]), first

    def _add(self, documents: Numbers, chains: Numbers) -> None:
        self._documents.append(documents)
        self._chains.append(chains)

    def by_document(self) -> Iterator[tuple[int, list[int]]]:
        """Each document in order, with its chains. The chains are forgotten then."""
        if not self._documents:
            return
        documents, chains = np.concatenate(self._documents), np.concatenate(self._chains)
        self._documents, self._chains = [], []
        order = np.argsort(documents, kind="stable")
        documents, chains = documents[order], chains[order]
        begins = np.flatnonzero(np.diff(documents, prepend=-1))
        for begin, end in pairwise([*begins.tolist(), len(documents)]):
            yield int(documents[begin]), chains[begin:end].tolist()


def _chains(plan: Plan) -> Chains:
    """The chains that datatrove's buckets stage found; the exact mark is the last band."""
    config, found = plan.settings.dedup, Chains()
    exact = f"{bands_of(config) - 1:05d}_" if config.exact else "none"
    files = sorted(
        plan.work("buckets").glob("*.dups"), key=lambda file: (not file.name.startswith(exact), file)
    )
    for file in files:
        pairs = np.fromfile(file, "<u4").reshape(-1, 4)
        (found.add_equal if file.name.startswith(exact) else found.add_near)(pairs)
    return found


# -- paragraphs -------------------------------------------------------------------------------


def find_repeated(plan: Plan, share: int, shares: int) -> int:
    """Write the places of paragraphs that an earlier document has, for a share of all hashes."""
    low, high = (np.uint64(min((1 << 64) * n // shares, (1 << 64) - 1)) for n in (share, share + 1))
    hashes, places = [], []
    for part in range(plan.parts):
        mapped = _mapped(_paragraphs(plan, part, "hashes"), "<u8")
        last = len(mapped) if share + 1 == shares else int(np.searchsorted(mapped, high))
        here = slice(int(np.searchsorted(mapped, low)), last)
        found = np.asarray(_mapped(_paragraphs(plan, part, "places"), "<u4").reshape(-1, 2)[here])
        stays = ~np.isin(found[:, 0], [*copies_of(plan, part)])
        hashes.append(np.asarray(mapped[here])[stays])
        parts = np.full((int(stays.sum()), 1), part, "<u4")
        places.append(np.concatenate([parts, found[stays]], axis=1))
    hashed, place = np.concatenate(hashes), np.concatenate(places)  # (n,), (n, 3)
    order = np.lexsort((place[:, 2], place[:, 1], place[:, 0], hashed))
    hashed, place = hashed[order], place[order]
    begins = np.ones(len(hashed), bool)
    begins[1:] = hashed[1:] != hashed[:-1]
    first = np.maximum.accumulate(np.where(begins, np.arange(len(hashed)), 0))
    repeated = place[(place[:, :2] != place[first][:, :2]).any(axis=1)]
    _write_by_part(plan, f"repeated/{share:05d}", repeated[np.lexsort(repeated.T[::-1])])
    return len(repeated)


def repeated_lines_of(plan: Plan, part: int) -> dict[int, set[int]]:
    """The lines to take out of each document of a part."""
    found: defaultdict[int, set[int]] = defaultdict(set)
    for folder in sorted(plan.work("repeated").glob("*")):
        for _, number, line in _read_rows(folder, part):
            found[int(number)].add(int(line))
    return found


# -- files ------------------------------------------------------------------------------------


def _digests(plan: Plan, part: int) -> Path:
    return plan.work("digests", f"{part:05d}.bin")


def _paragraphs(plan: Plan, part: int, what: str) -> Path:
    return plan.work("paragraphs", f"{part:05d}.{what}")


def _mapped(path: Path, dtype: str) -> Numbers:
    return np.memmap(path, dtype, mode="r") if path.stat().st_size else np.empty(0, dtype)


def _write(path: Path, numbers: Numbers) -> None:
    with whole(path) as file:
        file.write(numbers.tobytes())


def _rows(rows: Any, width: int) -> Numbers:
    return np.asarray(rows, "<u4").reshape(-1, width)


def _write_by_part(plan: Plan, station: str, rows: Any) -> None:
    """Write rows (part, …, …), in order, so that one part's are found at once."""
    table = _rows(rows, 3)
    _write(plan.work(station, "rows"), table)
    _write(
        plan.work(station, "ends"), np.searchsorted(table[:, 0], np.arange(plan.parts), "right").astype("<u8")
    )


def _read_rows(folder: Path, part: int) -> Numbers:
    """A part's rows; none where the stage was not asked for."""
    if not (folder / "ends").is_file():
        return np.empty((0, 3), "<u4")
    ends = [0, *np.fromfile(folder / "ends", "<u8").tolist()]
    count = 3 * (ends[part + 1] - ends[part])
    return np.fromfile(folder / "rows", "<u4", count=count, offset=12 * ends[part]).reshape(-1, 3)

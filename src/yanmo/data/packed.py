"""Dialogues packed into rows: whole ones side by side, each with positions of its own.

In: tokens whose documents are dialogues of at most a window, and a mask of what is learned. Out: rows of
``block_size`` tokens with targets; the model lets no dialogue look at another (``Batch.positions``).
Rows are filled by best fit, the longest dialogues first (Johnson et al. 1974), the same way every time.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from yanmo.data.batches import Batch, BatchSource, shuffled
from yanmo.data.shards import LEARNED, Ids, Tokens
from yanmo.model.config import IGNORED


def pack(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Which documents stand in which row: none is cut, and no row is longer than ``size``."""
    rows: list[list[int]] = []
    rows_with: list[list[int]] = [[] for _ in range(size + 1)]  # by the room that is left in them
    room = 0  # bit n: there is a row with room for n more
    # stable: equally long documents stay in their order
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        length = lengths[number]
        # the lowest bit at or above ``length``: the fullest row that still holds this document
        enough = room >> length
        left = length + (enough & -enough).bit_length() - 1 if enough else size
        if not enough:
            rows.append([])
            rows_with[size].append(len(rows) - 1)
        row = rows_with[left].pop()
        rows[row].append(number)
        rows_with[left - length].append(row)
        for changed in (left, left - length):
            bit = 1 << changed
            room = room | bit if rows_with[changed] else room & ~bit
    return rows


class PackedRows:
    """The dialogues of one split as rows of ``block_size`` tokens."""

    def __init__(self, tokens: Tokens, block_size: int) -> None:
        self._tokens, self._block_size = tokens, block_size
        self._starts = tokens.starts
        self._ends = np.append(tokens.starts[1:], len(tokens))
        # the last token of a dialogue is a target only, so a row holds all tokens but that
        self._rows = pack((self._ends - self._starts - 1).tolist(), block_size)
        # one by one: a sum over all tokens at once would need 8 bytes for each
        of_document = np.array([np.count_nonzero(self._is_target(n)) for n in range(len(self._starts))])
        self._targets = np.array([of_document[row].sum() for row in self._rows], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    def targets_of(self, rows: Ids) -> int:
        """How many targets these rows have together."""
        return int(self._targets[rows].sum())

    @property
    def targets(self) -> int:
        """Of all rows."""
        return int(self._targets.sum())

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """All rows once, for evaluation."""
        for first in range(0, len(self), batch_size):
            yield self.at(np.arange(first, min(first + batch_size, len(self)), dtype=np.int64))

    def at(self, rows: Ids) -> Batch:
        """The rows with these numbers (B,)."""
        shape = len(rows), self._block_size
        # what no dialogue fills are documents of one token without a target
        inputs, positions = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        targets = np.full(shape, IGNORED, dtype=np.int64)
        for at, row in enumerate(rows.tolist()):
            place = 0
            for document in self._rows[row]:
                first, end = int(self._starts[document]), int(self._ends[document])
                ids, here = self._tokens.slice(first, end), slice(place, place + end - first - 1)
                inputs[at, here] = ids[:-1]
                targets[at, here] = np.where(self._is_target(document), ids[1:], IGNORED)
                positions[at, here] = np.arange(end - first - 1)
                place = here.stop
        return Batch(inputs, targets, positions)

    def _is_target(self, document: int) -> npt.NDArray[np.bool_]:
        """Which tokens of a dialogue are learned, without the first: nothing stands before it."""
        assert self._tokens.marks is not None
        marks = self._tokens.marks[self._starts[document] + 1 : self._ends[document]]
        return np.equal(marks, LEARNED)


class PackedBatches(BatchSource):
    """Packed rows, in another order each epoch."""

    def __init__(self, rows: PackedRows, batch_size: int, seed: int) -> None:
        super().__init__(batch_size)
        self._rows, self._seed, self.windows_per_epoch = rows, seed, len(rows)

    def samples(self, numbers: Ids) -> Batch:
        """The rows with these numbers (B,), counted from the beginning of the training."""
        return self._rows.at(self._chosen(numbers))

    def targets_of(self, numbers: Ids) -> int:
        """How many targets these rows have together."""
        return self._rows.targets_of(self._chosen(numbers))

    def _chosen(self, numbers: Ids) -> Ids:
        return shuffled(*np.divmod(numbers, len(self._rows)), len(self._rows), self._seed)


class MixedBatches(BatchSource):
    """Rows of one source, and a share of rows from another, evenly between them."""

    def __init__(self, main: BatchSource, other: BatchSource, share: float) -> None:
        super().__init__(main.batch_size)
        self._main, self._other, self._share = main, other, share
        self.windows_per_epoch = max(round(main.windows_per_epoch / (1 - share)), 1)

    def samples(self, numbers: Ids) -> Batch:
        """The rows with these numbers (B,), counted from the beginning of the training."""
        mine, others, is_other = self._dealt(numbers)
        parts = [source.samples(some) for source, some in ((self._main, mine), (self._other, others))]
        B, T = len(numbers), parts[0].inputs.shape[1]
        found = [np.empty((B, T), dtype=np.int64) for _ in range(3)]
        for part, here in zip(parts, (~is_other, is_other), strict=True):
            positions = part.positions if part.positions is not None else np.arange(T)
            for array, value in zip(found, (part.inputs, part.targets, positions), strict=True):
                array[here] = value
        inputs, targets, positions = found
        return Batch(inputs, targets, None if all(part.positions is None for part in parts) else positions)

    def targets_of(self, numbers: Ids) -> int:
        """How many targets these rows have together."""
        mine, others, _ = self._dealt(numbers)
        return self._main.targets_of(mine) + self._other.targets_of(others)

    def _dealt(self, numbers: Ids) -> tuple[Ids, Ids, npt.NDArray[np.bool_]]:
        """Which rows of either source these are, and which of them are the other's."""
        # of the first n rows floor(n · share) are the other's
        before = np.floor(numbers * self._share).astype(np.int64)
        is_other = np.floor((numbers + 1) * self._share).astype(np.int64) > before
        return (numbers - before)[~is_other], before[is_other], is_other

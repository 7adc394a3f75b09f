"""Pairs of what was chosen and what was rejected, as rows that stand side by side.

In: tokens in which document 2i was chosen and document 2i + 1 rejected, with marks of what the model is to
write. Out: batches of two rows for each pair, and what the base says of both (``train/preference.py``).
"""

from collections.abc import Iterator

import numpy as np

from yanmo.data.batches import Batch, BatchSource, Floats, shuffled
from yanmo.data.shards import Ids, Tokens
from yanmo.model.config import IGNORED


class PairRows:
    """The pairs of one side."""

    def __init__(self, tokens: Tokens, block_size: int) -> None:
        self._tokens, self._block_size = tokens, block_size

    def __len__(self) -> int:
        return len(self._tokens.starts) // 2

    def at(self, pairs: Ids, reference: Floats | None = None) -> Batch:
        """The rows (2B, T) of pairs (B,), and of ``reference`` (all rows,) what belongs to them."""
        documents = (2 * pairs[:, None] + np.arange(2)).flatten()  # (2B,)
        shape = len(documents), self._block_size
        inputs, targets = np.zeros(shape, dtype=np.int64), np.full(shape, IGNORED, dtype=np.int64)
        for row, number in enumerate(documents.tolist()):
            ids, marks = self._tokens.document(number), self._tokens.document_marks(number)
            # what fills the row comes after the text, where attention does not look
            inputs[row, : len(ids) - 1] = ids[:-1]
            targets[row, : len(ids) - 1] = np.where(marks[1:] > 0, ids[1:], IGNORED)
        return Batch(inputs, targets, reference=None if reference is None else reference[documents])

    def in_order(self, batch_size: int, reference: Floats | None = None) -> Iterator[Batch]:
        """All pairs once."""
        for first in range(0, len(self), batch_size):
            yield self.at(np.arange(first, min(first + batch_size, len(self)), dtype=np.int64), reference)


class PairBatches(BatchSource):
    """Pairs in another order each epoch; a row of the batch is a pair."""

    def __init__(self, pairs: PairRows, reference: Floats, batch_size: int, seed: int) -> None:
        super().__init__(batch_size)
        self._pairs, self._reference, self._seed = pairs, reference, seed
        self.windows_per_epoch = len(pairs)

    def samples(self, numbers: Ids) -> Batch:
        """The pairs with these numbers (B,), counted from the beginning of the training."""
        chosen = shuffled(*np.divmod(numbers, len(self._pairs)), len(self._pairs), self._seed)
        return self._pairs.at(chosen, self._reference)

    def targets_of(self, numbers: Ids) -> int:
        """As many as pairs: the loss is that of a pair."""
        return len(numbers)

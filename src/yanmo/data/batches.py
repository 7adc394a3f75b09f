"""The batch of a step: a pure function of (data, seed, step).

An epoch is a ring. Windows of ``block_size`` tokens cover it from a random offset on and wrap around, so
that every token is a target exactly once. With a ``stride`` it is a row instead: windows begin every
``stride`` tokens, overlap, and the last one ends with the last token, so a token is a target about
block_size / stride times. The order of the windows (the shuffle) is a permutation that is computed and never
stored (Feistel). Nothing depends on ranks, workers or restarts: a rank takes its rows of the same global
batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from yanmo.data.shards import Ids, TokenRow, Tokens
from yanmo.model.config import IGNORED

# multipliers of splitmix64's finaliser; the step is 2^64 / golden ratio, which spreads consecutive numbers
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_STEP = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1
Floats = npt.NDArray[np.float32]
_ROUNDS = 6  # of the Feistel network; four already give a pseudo-random permutation (Luby & Rackoff 1988)


@dataclass(frozen=True)
class Batch:
    """Tokens and the tokens that follow them."""

    inputs: Ids  # (B, T)
    targets: Ids  # (B, T), IGNORED where there is none
    positions: Ids | None = None  # (B, T), 0 where a document begins; None: a window is one document
    reference: Floats | None = None  # (B,), of pairs: what their base says of them, in nats
    places: Floats | None = None  # (B,), of windows of a text: where in it they begin, as a share

    def arrays(self) -> tuple[Ids | Floats, ...]:
        """What a loss is computed from."""
        given = (self.inputs, self.targets, self.positions, self.reference)
        return tuple(array for array in given if array is not None)


class BatchSource(ABC):
    """Rows for training: the n-th of them is a pure function of (data, seed, n)."""

    windows_per_epoch: int

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    @abstractmethod
    def samples(self, numbers: Ids) -> Batch:
        """The rows with these numbers (B,), counted from the beginning of the training."""

    @abstractmethod
    def targets_of(self, numbers: Ids) -> int:
        """How many targets these rows have together."""

    def at(self, step: int, rows: range | None = None) -> Batch:
        """Rows of the global batch of ``step``; all of them by default."""
        # a function of step and row: a resume needs no position, and any number of ranks reads the same batch
        return self.samples(step * self.batch_size + np.asarray(self._all_or(rows), dtype=np.int64))

    def targets_in(self, step: int) -> int:
        """How many targets the global batch of ``step`` has."""
        return self.targets_of(step * self.batch_size + np.arange(self.batch_size, dtype=np.int64))

    def epochs_after(self, steps: int) -> int:
        """How many epochs are complete after ``steps`` steps."""
        return steps * self.batch_size // self.windows_per_epoch

    def _all_or(self, rows: range | None) -> range:
        return rows if rows is not None else range(self.batch_size)


class Batches(BatchSource):
    """Windows of a text; ``stride`` None: every token once an epoch."""

    def __init__(
        self, tokens: Tokens, block_size: int, batch_size: int, seed: int, stride: int | None = None
    ) -> None:
        super().__init__(batch_size)
        self._tokens = tokens
        self._block_size = block_size
        self._seed = seed
        self._stride = stride
        self.windows_per_epoch = windows_in(len(tokens), block_size, stride)

    def samples(self, numbers: Ids) -> Batch:
        """The windows with these numbers (B,), counted from the beginning of the training."""
        epoch, place = np.divmod(numbers, self.windows_per_epoch)  # (B,)
        window, offset = shuffled(epoch, place, self.windows_per_epoch, self._seed), np.zeros_like(place)
        if self._stride is None:
            for number in np.unique(epoch):  # a batch may reach over the end of an epoch
                # where this epoch's ring begins: else the same tokens would always start a window
                offset[epoch == number] = _random(self._seed, int(number), 0) % len(self._tokens)
        first = window * (self._stride or self._block_size)  # (B,)
        if self._stride is not None:
            # the last window ends with the last token instead of wrapping; it overlaps the one before more
            first = np.minimum(first, len(self._tokens) - self._block_size - 1)
        # one token more than the window: inputs are all but the last, targets all but the first
        index = first[:, None] + np.arange(self._block_size + 1)  # (B, T + 1)
        ids = self._tokens.at((offset[:, None] + index) % len(self._tokens))  # (B, T + 1)
        # the ring has one target for each token; in the last window what goes beyond is filler, not counted
        targets = np.where(index[:, 1:] <= len(self._tokens), ids[:, 1:], IGNORED)  # (B, T)
        places = (offset + first) % len(self._tokens) / len(self._tokens)
        return Batch(ids[:, :-1], targets, places=places.astype(np.float32))

    def targets_of(self, numbers: Ids) -> int:
        """How many targets these windows have together."""
        whole = len(numbers) * self._block_size
        if self._stride is not None:
            return whole
        # only the last window of an epoch has fewer, by the surplus; is it among these, perhaps twice?
        window = shuffled(*np.divmod(numbers, self.windows_per_epoch), self.windows_per_epoch, self._seed)
        surplus = self.windows_per_epoch * self._block_size - len(self._tokens)
        return whole - int(np.sum(window == self.windows_per_epoch - 1)) * surplus


def shuffled(epoch: Ids, place: Ids, size: int, seed: int) -> Ids:
    """Which of ``size`` windows are at these places (B,) of the orders of these epochs (B,)."""
    window = np.empty_like(place)
    for number in np.unique(epoch):
        here = epoch == number
        window[here] = permute(place[here], size, seed, int(number))
    return window


def windows_in(tokens: int, block_size: int, stride: int | None) -> int:
    """The windows of an epoch."""
    # ring: ⌈N / T⌉. Row: ⌈(N - T - 1) / stride⌉ + 1, where T + 1 tokens give a window its T targets
    if stride is None:
        return -(-tokens // block_size)
    return max(-(-(tokens - block_size - 1) // stride), 0) + 1


def validation_batches(
    tokens: TokenRow, block_size: int, batch_size: int, end_of_text: int
) -> Iterator[Batch]:
    """All validation tokens as targets once, in non-overlapping windows and a short last one.

    The first token is predicted from end-of-text, which precedes every text.
    """
    for start in range(0, len(tokens), block_size * batch_size):
        index = start + np.arange(block_size * batch_size).reshape(-1, block_size)  # (B, T)
        # rows of the last batch that lie wholly behind the end; the short window before them stays
        index = index[index[:, 0] < len(tokens)]
        targets = tokens.at(np.minimum(index, len(tokens) - 1))
        # each input is the token before its target; positions that do not exist read any token, ignored below
        inputs = tokens.at(np.clip(index - 1, 0, len(tokens) - 1))
        inputs[index == 0] = end_of_text
        yield Batch(inputs, np.where(index < len(tokens), targets, IGNORED))


def sliding_batches(
    tokens: Ids, block_size: int, stride: int, batch_size: int, end_of_text: int
) -> Iterator[Batch]:
    """All ``tokens`` (N,) as targets once, each after at least block_size - stride others where there are.

    Windows begin every ``stride`` tokens, and count only what the window before did not.
    """
    row = np.concatenate([[end_of_text], tokens])  # (N + 1,), row[i] precedes tokens[i]
    starts = sliding_starts(len(tokens), block_size, stride)
    done = np.concatenate([[0], starts[:-1] + block_size])  # targets that earlier windows have counted
    for first in range(0, len(starts), batch_size):
        # the overlap gives context to the targets after it; counted twice it would weigh some tokens double
        here = slice(first, first + batch_size)
        index = starts[here, None] + np.arange(block_size)  # (B, T)
        inside = index < len(tokens)
        place = np.minimum(index, len(tokens) - 1)
        counted = inside & (index >= done[here, None])
        yield Batch(row[place], np.where(counted, tokens[place], IGNORED))


def sliding_starts(tokens: int, block_size: int, stride: int) -> Ids:
    """Where the windows of :func:`sliding_batches` begin."""
    # the last window ends with the last token; np.unique: it may coincide with the one before
    last = max(tokens - block_size, 0)
    return np.unique(np.minimum(np.arange(0, last + stride, stride), last))


def permute(places: Ids, size: int, seed: int, epoch: int) -> Ids:
    """Where the windows at ``places`` of an epoch's order lie: a permutation of ``range(size)``.

    A balanced Feistel network over the next even power of two, repeated until the value is below ``size``
    (cycle walking: Black & Rogaway 2002, "Ciphers with arbitrary finite domains").
    """
    # a value is two halves of equal width; domain 4^half is at most 4 · size, so walks are short.
    # Memory is that of ``places``: a shuffled list of all windows would be gigabytes for a large corpus
    half = np.uint64(max((size - 1).bit_length() + 1, 2) // 2)
    mask = np.uint64((1 << int(half)) - 1)
    keys = [np.uint64(_random(seed, epoch, number + 1)) for number in range(_ROUNDS)]
    value = places.astype(np.uint64)
    outside = np.ones(len(value), dtype=bool)
    while outside.any():
        left, right = value[outside] >> half, value[outside] & mask
        for key in keys:
            # invertible whatever the round function is, since right is kept: so this is a permutation
            left, right = right, left ^ (_mix(right ^ key) & mask)
        value[outside] = (left << half) | right
        # encrypt again what lies outside: its cycle leads back into range(size), and no two values meet
        outside = value >= np.uint64(size)
    return value.astype(np.int64)


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """splitmix64's finaliser (Steele, Lea & Flood 2014)."""
    value = (value ^ (value >> np.uint64(30))) * _MIX[0]
    value = (value ^ (value >> np.uint64(27))) * _MIX[1]
    return value ^ (value >> np.uint64(31))


def _random(seed: int, epoch: int, number: int) -> int:
    """A 64-bit number that looks random and depends on all three."""
    value = np.zeros(1, dtype=np.uint64)
    for part in (seed, epoch, number):
        value = _mix(value + np.uint64((part * _STEP + _STEP) & _WORD))
    return int(value[0])

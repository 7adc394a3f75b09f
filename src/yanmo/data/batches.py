"""The batch of a step: a pure function of (data, seed, step).

An epoch is a ring. Its tokens, from a random offset on, are laid out as windows of ``block_size``
that wrap around, so that every token is a target exactly once. With a ``stride`` it is a row instead:
windows begin every ``stride`` tokens, overlap, and the last ends with the last token, so a token is a
target about block_size / stride times. The windows are shuffled by a permutation that is computed and never
stored (Feistel). Nothing depends on ranks, workers or restarts: a rank takes its rows of
the same global batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from yanmo.data.shards import Ids, Tokens
from yanmo.model.config import IGNORED

_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_STEP = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1
_ROUNDS = 6


@dataclass(frozen=True)
class Batch:
    """Tokens and the tokens that follow them."""

    inputs: Ids  # (B, T)
    targets: Ids  # (B, T), IGNORED where there is none


class Batches:
    """The training batches of a run; ``stride`` None: every token once an epoch."""

    def __init__(
        self, tokens: Tokens, block_size: int, batch_size: int, seed: int, stride: int | None = None
    ) -> None:
        self._tokens = tokens
        self._block_size = block_size
        self._batch_size = batch_size
        self._seed = seed
        self._stride = stride
        self.windows_per_epoch = windows_in(len(tokens), block_size, stride)

    def at(self, step: int, rows: range | None = None) -> Batch:
        """Rows of the global batch of ``step``; all of them by default."""
        rows = rows if rows is not None else range(self._batch_size)
        # the n-th window that training ever sees: step and row alone say which it is
        sample = step * self._batch_size + np.asarray(rows, dtype=np.int64)  # (B,)
        epoch, place = np.divmod(sample, self.windows_per_epoch)  # (B,)
        window, offset = np.empty_like(place), np.zeros_like(place)
        for number in np.unique(epoch):  # a batch may reach over the end of an epoch
            here = epoch == number
            window[here] = permute(place[here], self.windows_per_epoch, self._seed, int(number))
            if self._stride is None:
                offset[here] = _random(self._seed, int(number), 0) % len(self._tokens)
        first = window * (self._stride or self._block_size)  # (B,)
        if self._stride is not None:
            first = np.minimum(first, len(self._tokens) - self._block_size - 1)
        # one token more than the window: inputs are all but the last, targets all but the first
        index = first[:, None] + np.arange(self._block_size + 1)  # (B, T + 1)
        ids = self._tokens.at((offset[:, None] + index) % len(self._tokens))  # (B, T + 1)
        targets = np.where(index[:, 1:] <= len(self._tokens), ids[:, 1:], IGNORED)  # (B, T)
        return Batch(ids[:, :-1], targets)

    def targets_in(self, step: int) -> int:
        """How many targets the global batch of ``step`` has."""
        if self._stride is not None:
            return self._batch_size * self._block_size
        sample = step * self._batch_size + np.arange(self._batch_size)
        epoch, place = np.divmod(sample, self.windows_per_epoch)
        surplus = self.windows_per_epoch * self._block_size - len(self._tokens)
        last = sum(
            int(np.sum(permute(place[epoch == e], self.windows_per_epoch, self._seed, int(e))
                       == self.windows_per_epoch - 1))
            for e in np.unique(epoch)
        )  # fmt: skip
        return self._batch_size * self._block_size - last * surplus

    def epochs_after(self, steps: int) -> int:
        """How many epochs are complete after so many steps."""
        return steps * self._batch_size // self.windows_per_epoch


def windows_in(tokens: int, block_size: int, stride: int | None) -> int:
    """The windows of an epoch."""
    if stride is None:
        return -(-tokens // block_size)
    return max(-(-(tokens - block_size - 1) // stride), 0) + 1


def validation_batches(tokens: Tokens, block_size: int, batch_size: int, end_of_text: int) -> Iterator[Batch]:
    """All validation tokens as targets once, in non-overlapping windows and a short last one.

    The first token is predicted from end-of-text, which stands before every text.
    """
    for start in range(0, len(tokens), block_size * batch_size):
        index = start + np.arange(block_size * batch_size).reshape(-1, block_size)  # (B, T)
        index = index[index[:, 0] < len(tokens)]
        targets = tokens.at(np.minimum(index, len(tokens) - 1))
        inputs = tokens.at(np.clip(index - 1, 0, len(tokens) - 1))
        inputs[index == 0] = end_of_text
        yield Batch(inputs, np.where(index < len(tokens), targets, IGNORED))


def sliding_batches(
    tokens: Ids, block_size: int, stride: int, batch_size: int, end_of_text: int
) -> Iterator[Batch]:
    """All ``tokens`` (N,) as targets once, each after at least block_size - stride others where there are.

    Windows begin every ``stride`` tokens, and count only what the window before did not.
    """
    row = np.concatenate([[end_of_text], tokens])  # what stands before each token
    starts = sliding_starts(len(tokens), block_size, stride)
    done = np.concatenate([[0], starts[:-1] + block_size])  # targets that earlier windows have counted
    for first in range(0, len(starts), batch_size):
        here = slice(first, first + batch_size)
        index = starts[here, None] + np.arange(block_size)  # (B, T)
        inside = index < len(tokens)
        place = np.minimum(index, len(tokens) - 1)
        counted = inside & (index >= done[here, None])
        yield Batch(row[place], np.where(counted, tokens[place], IGNORED))


def sliding_starts(tokens: int, block_size: int, stride: int) -> Ids:
    """Where the windows of :func:`sliding_batches` begin."""
    last = max(tokens - block_size, 0)
    return np.unique(np.minimum(np.arange(0, last + stride, stride), last))


def permute(places: Ids, size: int, seed: int, epoch: int) -> Ids:
    """Where the windows at ``places`` of an epoch's order lie: a permutation of ``range(size)``.

    A balanced Feistel network over the next even power of two, walked on until the value is below
    ``size`` (cycle walking: Black & Rogaway 2002, "Ciphers with arbitrary finite domains").
    """
    half = np.uint64(max((size - 1).bit_length() + 1, 2) // 2)
    mask = np.uint64((1 << int(half)) - 1)
    keys = [np.uint64(_random(seed, epoch, number + 1)) for number in range(_ROUNDS)]
    value = places.astype(np.uint64)
    outside = np.ones(len(value), dtype=bool)
    while outside.any():
        left, right = value[outside] >> half, value[outside] & mask
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        value[outside] = (left << half) | right
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

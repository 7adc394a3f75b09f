"""Interpolated n-grams: what counting reaches, in seconds, as a baseline for a model.

In: training and held-out tokens. Out: bits of each held-out token, for each order. Kneser and Ney 1995,
interpolated with one discount for each order (Chen and Goodman 1999).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from yanmo.data.shards import Ids

HIGHEST_ORDER = 5
USUAL_DISCOUNT = 0.5
"""Where no n-gram occurs once: what was never seen still has a chance."""
Hashes = npt.NDArray[np.uint64]
Values = npt.NDArray[np.float64]
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Of the hash of an n-gram: odd, so that multiplying loses nothing."""


def ngram_bits(train: Ids, text: Ids, vocab_size: int, end_of_text: int) -> Iterator[tuple[int, Values]]:
    """For each order from 1 on: the order, and bits of each token of ``text`` after those before it, (N,)."""
    learned, asked = padded(train, end_of_text), padded(text, end_of_text)
    below = np.full(len(text), 1 / vocab_size)
    for order in range(1, HIGHEST_ORDER + 1):
        # n-grams count as often as they occur at the highest order, below it by what stands before them
        yield order, -np.log2(interpolated(counted(learned, order, True), asked, order, below))
        if order < HIGHEST_ORDER:
            below = interpolated(counted(learned, order, False), asked, order, below)


@dataclass(frozen=True)
class NGramCounts:
    """N-grams of one order, by their hashes in ascending order, and their contexts."""

    ngrams: Hashes
    times: Values
    contexts: Hashes
    context_times: Values
    """The sum over all that follows a context."""
    followers: Values
    """How many different tokens follow a context."""
    discount: float


def padded(tokens: Ids, end_of_text: int) -> npt.NDArray[np.uint64]:
    """Tokens behind as many end-of-text tokens as the longest context and what stands before it."""
    return np.concatenate([np.full(HIGHEST_ORDER, end_of_text), tokens]).astype(np.uint64)


def hashes(tokens: npt.NDArray[np.uint64], order: int) -> Hashes:
    """Of the last ``order`` tokens up to each token behind the padding, (N,)."""
    return _extended(context_hashes(tokens, order), tokens, 0)


def context_hashes(tokens: npt.NDArray[np.uint64], order: int) -> Hashes:
    """Of the ``order`` - 1 tokens before each token."""
    found = np.zeros(len(tokens) - HIGHEST_ORDER, dtype=np.uint64)
    for before in range(order - 1, 0, -1):
        found = _extended(found, tokens, before)
    return found


def _extended(found: Hashes, tokens: npt.NDArray[np.uint64], before: int) -> Hashes:
    """The hashes with one token more, so many before each."""
    # wraps at 2^64: two n-grams of millions share a hash with a chance of one in a million
    here = tokens[HIGHEST_ORDER - before : len(tokens) - before]
    return (found ^ (found >> np.uint64(29))) * MULTIPLIER + here + np.uint64(1)


def counted(tokens: npt.NDArray[np.uint64], order: int, is_highest: bool) -> NGramCounts:
    """The n-grams of a text: how often each occurs, or after how many different tokens."""
    ngrams, contexts = hashes(tokens, order), context_hashes(tokens, order)
    if not is_highest:
        # one of each n-gram with the token before it
        _, first = np.unique(hashes(tokens, order + 1), return_index=True)
        ngrams, contexts = ngrams[first], contexts[first]
    unique, place, times = np.unique(ngrams, return_index=True, return_counts=True)
    of_context, inverse = np.unique(contexts[place], return_inverse=True)
    once, twice = int(np.count_nonzero(times == 1)), int(np.count_nonzero(times == 2))
    return NGramCounts(
        unique,
        times.astype(np.float64),
        of_context,
        np.bincount(inverse, weights=times).astype(np.float64),
        np.bincount(inverse).astype(np.float64),
        once / (once + 2 * twice) if once else USUAL_DISCOUNT,
    )


def interpolated(counts: NGramCounts, asked: npt.NDArray[np.uint64], order: int, below: Values) -> Values:
    """p(w | c) = (max(n(c w) - D, 0) + D · followers(c) · p(w | shorter c)) / n(c), (N,)."""
    together = looked_up(counts.ngrams, counts.times, hashes(asked, order))
    wanted = context_hashes(asked, order)
    total = looked_up(counts.contexts, counts.context_times, wanted)
    left = counts.discount * looked_up(counts.contexts, counts.followers, wanted)
    # a context that was never seen leaves it to the shorter one
    known = np.maximum(total, 1.0)
    found = (np.maximum(together - counts.discount, 0.0) + left * below) / known
    return np.where(total > 0, found, below)


def looked_up(names: Hashes, values: Values, wanted: Hashes) -> Values:
    """The values under some hashes; 0 where there is none."""
    place = np.minimum(np.searchsorted(names, wanted), len(names) - 1)
    return np.where(names[place] == wanted, values[place], 0.0)

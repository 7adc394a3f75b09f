"""A mix of sources in a ratio: how often each document is to be read.

Nothing is thrown away for the ratio: the source that has the most text for its weight is read once, the
others as often as it takes. How often stands in each row of the .jsonl as ``yanmo_repeat``, and
``prepare`` lays the documents of the training part down so many times, held-out ones once.
"""

from collections.abc import Iterator, Mapping, Sequence

REPEAT = "yanmo_repeat"
MAX_PASSES = 100
"""Passes over a source, at most; more would only be memorised."""


def passes(characters: Sequence[int], weights: Sequence[float]) -> list[float]:
    """How often each source is to be read, for its share to be its weight.

    >>> passes([1000, 1000, 500], [3, 1, 1])
    [3.0, 1.0, 2.0]
    """
    per_weight = [n / w for n, w in zip(characters, weights, strict=True)]
    largest = max(per_weight)
    return [min(largest / share, MAX_PASSES) if share else 1.0 for share in per_weight]


def repeats(rows: Sequence[tuple[int, int]], often: Sequence[float]) -> Iterator[int]:
    """How often each document is read: its source's passes, up or down so that the sum comes out right.

    Args:
        rows: (source, characters) of each document, in order.
        often: passes over each source, at least 1.
    """
    owed = [0.0] * len(often)
    for source, characters in rows:
        fewer = int(often[source])
        # Rounded document by document and the rest carried over, so that the sum is right without any chance.
        owed[source] += (often[source] - fewer) * characters
        one_more = owed[source] >= characters / 2 and fewer < MAX_PASSES
        owed[source] -= characters if one_more else 0
        yield fewer + one_more


def times_of(fields: Mapping[str, object]) -> int:
    """How often a document with these fields is to be read; once, if they do not say."""
    times = fields.get(REPEAT)
    return times if isinstance(times, int) and 1 <= times <= MAX_PASSES and times is not True else 1

"""Mixes: every document is read, and the ratio comes out."""

import doctest

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from yanmo.text.clean import mix

SIZES = st.lists(st.lists(st.integers(1, 500), min_size=60, max_size=80), min_size=1, max_size=4)


def test_the_example_is_true():
    assert doctest.testmod(mix).failed == 0


@given(SIZES, st.data())
def test_the_sources_shares_are_their_weights(sizes, data):
    weights = data.draw(st.lists(st.floats(0.5, 4), min_size=len(sizes), max_size=len(sizes)))
    often = mix.passes([sum(source) for source in sizes], weights)
    assume(max(often) < mix.MAX_PASSES)  # beyond it a source is too small for its share
    rows = [(number, size) for number, source in enumerate(sizes) for size in source]
    times = list(mix.repeats(rows, often))
    assert min(times) >= 1
    read = [0] * len(sizes)
    for (source, size), repeat in zip(rows, times, strict=True):
        read[source] += size * repeat
    largest = max(size for _, size in rows)
    for number, weight in enumerate(weights):
        assert read[number] / sum(read) == pytest.approx(weight / sum(weights), abs=2 * largest / sum(read))

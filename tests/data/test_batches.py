"""Every token is a target exactly once an epoch, whoever computes it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from yanmo.data.batches import Batches, permute, sliding_batches, validation_batches, windows_in
from yanmo.model.config import IGNORED


class Row:
    """Tokens 0, 1, 2, …: a token's value is its place."""

    def __init__(self, length: int) -> None:
        self._values = np.arange(length, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._values)

    def at(self, positions: np.ndarray) -> np.ndarray:
        return self._values[positions]


def targets_of_epochs(batches: Batches, batch_size: int, epochs: int, ranks: int) -> list[list[int]]:
    """The targets of each epoch, gathered over ranks that each ask for their own rows."""
    windows = batches.windows_per_epoch
    seen: list[list[int]] = [[] for _ in range(epochs + 2)]
    for step in range(-(-epochs * windows // batch_size)):
        for rank in range(ranks):
            rows = range(rank * batch_size // ranks, (rank + 1) * batch_size // ranks)
            batch = batches.at(step, rows)
            for row, targets in zip(rows, batch.targets.tolist(), strict=True):
                seen[(step * batch_size + row) // windows] += [t for t in targets if t != IGNORED]
    return seen[:epochs]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_every_token_is_a_target_exactly_once_per_epoch(ranks: int) -> None:
    """Exhaustive for small sizes."""
    for length in range(2, 26):
        for block_size in range(1, min(length, 8)):
            batches = Batches(Row(length), block_size, 4, seed=length)  # type: ignore[arg-type]
            for epoch in targets_of_epochs(batches, 4, 2, ranks):
                assert sorted(epoch) == list(range(length)), (length, block_size)


def test_a_target_is_the_token_after_its_input() -> None:
    batches = Batches(Row(100), 7, 5, seed=3)  # type: ignore[arg-type]
    for step in range(10):
        batch = batches.at(step)
        real = batch.targets != IGNORED
        assert np.array_equal(((batch.inputs + 1) % 100)[real], batch.targets[real])
        assert real.sum() == batches.targets_in(step)


def test_a_batch_depends_on_seed_and_step_only() -> None:
    def ids(seed: int, step: int) -> list[int]:
        return Batches(Row(1000), 8, 4, seed).at(step).inputs.ravel().tolist()  # type: ignore[arg-type]

    assert ids(1, 17) == ids(1, 17)
    assert ids(1, 17) != ids(2, 17)
    assert ids(1, 17) != ids(1, 18)


def test_epochs_differ_in_order_and_offset() -> None:
    batches = Batches(Row(64), 8, 8, seed=0)  # type: ignore[arg-type]
    first, second = batches.at(0).inputs, batches.at(1).inputs
    assert sorted(first[:, 0].tolist()) != sorted(second[:, 0].tolist())


@given(st.integers(1, 3000), st.integers(0, 2**31), st.integers(0, 50))
def test_the_order_is_a_permutation_of_any_size(size: int, seed: int, epoch: int) -> None:
    assert sorted(permute(np.arange(size), size, seed, epoch).tolist()) == list(range(size))


def test_the_order_looks_random() -> None:
    order = permute(np.arange(10_000), 10_000, 1337, 0)
    assert abs(np.corrcoef(np.arange(10_000), order)[0, 1]) < 0.05
    neighbours = np.abs(np.diff(order))
    assert 3000 < neighbours.mean() < 3700  # a random order's mean distance is a third of the size


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 40])
def test_validation_covers_every_token_once_after_end_of_text(length: int) -> None:
    targets, inputs = [], []
    for batch in validation_batches(Row(length), 4, 2, end_of_text=999):  # type: ignore[arg-type]
        assert batch.inputs.shape[1] == 4
        real = batch.targets != IGNORED
        targets += batch.targets[real].tolist()
        inputs += batch.inputs[real].tolist()
    assert targets == list(range(length))
    assert inputs == [999, *range(length - 1)]


@pytest.mark.parametrize("ranks", [1, 2])
def test_windows_with_a_stride_overlap_and_cover_the_whole_text(ranks: int) -> None:
    """Exhaustive for small sizes: each window once an epoch, every token but the first a target."""
    for length in range(3, 18):
        for block_size in range(1, min(length - 1, 8)):
            for stride in range(1, block_size + 1):
                row = Row(length)
                batches = Batches(row, block_size, 4, seed=length, stride=stride)  # type: ignore[arg-type]
                for epoch in targets_of_epochs(batches, 4, 2, ranks):
                    last = length - block_size - 1
                    starts = [*range(0, last, stride), last]
                    expected = [s + 1 + i for s in starts for i in range(block_size)]
                    assert sorted(epoch) == sorted(expected), (length, block_size, stride)
                    assert set(epoch) == set(range(1, length))
                assert batches.windows_per_epoch == len(starts)


def test_epochs_are_counted_by_windows() -> None:
    batches = Batches(Row(100), 10, 4, seed=0, stride=5)  # type: ignore[arg-type]
    assert batches.windows_per_epoch == 19
    assert [batches.epochs_after(step) for step in (0, 4, 5, 9, 10)] == [0, 0, 1, 1, 2]
    assert batches.targets_in(3) == 40


def test_seed_0s_stride_shows_each_token_twice() -> None:
    """512 of 1024: 15 epochs are about 30 passes."""
    assert windows_in(10_000_000, 1024, 512) * 1024 / 10_000_000 == pytest.approx(2, rel=1e-3)


def test_sliding_windows_count_every_token_once_after_enough_context() -> None:
    for length in range(1, 26):
        for block_size in range(1, 8):
            for stride in range(1, block_size + 1):
                tokens = np.arange(1, length + 1)
                counted: list[int] = []
                for batch in sliding_batches(tokens, block_size, stride, 3, end_of_text=0):
                    for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
                        for place, target in enumerate(targets):
                            if target != IGNORED:
                                counted.append(int(target))
                                assert inputs[place] == target - 1
                                assert place >= min(block_size - stride, target - 1)
                assert sorted(counted) == list(range(1, length + 1)), (length, block_size, stride)

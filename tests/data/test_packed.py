"""Packed dialogues are as good as dialogues alone."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.makers.models import char_tokenizer, drawn, small
from yanmo.data.batches import Batches
from yanmo.data.packed import MixedBatches, PackedBatches, PackedRows, pack
from yanmo.data.shards import Tokens
from yanmo.model.config import IGNORED

T, V = 24, 50


def dialogues(seed: int, count: int = 30) -> list[tuple[list[int], list[bool]]]:
    rng = np.random.default_rng(seed)
    found = []
    for length in rng.integers(3, T + 2, count):
        ids = rng.integers(0, V, length).tolist()
        learned = (rng.random(length) < 0.4).tolist()
        found.append((ids, [*learned[:-1], True]))
    return found


def tokens_of(folder: Path, documents: list[tuple[list[int], list[bool]]]) -> Tokens:
    starts = np.cumsum([0, *(len(ids) for ids, _ in documents[:-1])], dtype="<u8")
    np.concatenate([np.array(ids, dtype="<u2") for ids, _ in documents]).tofile(folder / "ids")
    starts.tofile(folder / "starts")
    learned = np.concatenate([np.array(learned, dtype=bool) for _, learned in documents])
    return Tokens([folder / "ids"], "<u2", folder / "starts", V, learned)


@pytest.mark.parametrize("seed", range(20))
def test_a_row_is_never_too_long_and_nothing_is_lost(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 200))
    lengths = rng.integers(1, size + 1, int(rng.integers(0, 300))).tolist()
    rows = pack(lengths, size)
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[number] for number in row) <= size for row in rows)
    # best fit takes at most 1.7 times as many rows as any way could, and a few more
    assert len(rows) <= 1.7 * sum(lengths) / size + 1


@pytest.mark.parametrize("family", ["gpt2", "modern", "moe"])
@pytest.mark.parametrize("attention", ["sdpa", "matmul"])
def test_the_loss_of_packed_rows_is_that_of_each_dialogue_alone(
    family: str, attention: str, tmp_path: Path
) -> None:
    tokenizer, documents = char_tokenizer(), dialogues(1)
    model = drawn(small(family, tokenizer, block_size=T)).double().requires_grad_(False)
    model.use_attention(attention)  # type: ignore[arg-type]
    rows = PackedRows(tokens_of(tmp_path, documents), T)
    assert len(rows) < len(documents) / 1.5
    together = sum(float(model.loss(*map(torch.from_numpy, batch.arrays()))) for batch in rows.in_order(4))
    alone = 0.0
    for ids, learned in documents:
        inputs = torch.tensor([ids[:-1]])
        targets = torch.tensor(
            [[t if is_learned else IGNORED for t, is_learned in zip(ids, learned, strict=True)][1:]]
        )
        alone += float(model.loss(inputs, targets))
    assert together == pytest.approx(alone, rel=1e-5)
    assert rows.targets == sum(sum(learned[1:]) for _, learned in documents)


def test_an_epoch_has_every_row_once_and_its_targets_are_counted(tmp_path: Path) -> None:
    rows = PackedRows(tokens_of(tmp_path, dialogues(2)), T)
    batches = PackedBatches(rows, 3, seed=5)
    whole = sorted(row.tobytes() for batch in rows.in_order(100) for row in batch.targets)
    seen = batches.samples(np.arange(len(rows)))
    assert sorted(row.tobytes() for row in seen.targets) == whole
    other = batches.samples(len(rows) + np.arange(len(rows)))
    assert not np.array_equal(other.inputs, seen.inputs)
    for step in range(9):
        assert batches.targets_in(step) == int((batches.at(step).targets != IGNORED).sum())
        assert np.array_equal(batches.at(step, range(1, 3)).inputs, batches.at(step).inputs[1:])


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_a_mixture_reads_both_sources_in_their_own_order(share: float, tmp_path: Path) -> None:
    rows = PackedRows(tokens_of(tmp_path, dialogues(3)), T)
    text = Tokens([tmp_path / "ids"], "<u2", tmp_path / "starts", V)
    own, other = PackedBatches(rows, 4, seed=1), Batches(text, T, 4, seed=2)
    mixed = MixedBatches(own, other, share)
    found = [mixed.at(step) for step in range(25)]
    inputs = np.concatenate([batch.inputs for batch in found])
    is_other = np.array([bool((row == np.arange(T)).all()) for batch in found for row in batch.positions])
    assert is_other.sum() == int(100 * share)
    assert np.array_equal(inputs[is_other], other.samples(np.arange(is_other.sum())).inputs)
    assert np.array_equal(inputs[~is_other], own.samples(np.arange((~is_other).sum())).inputs)
    assert [mixed.targets_in(step) for step in range(25)] == [
        int((b.targets != IGNORED).sum()) for b in found
    ]
    texts = MixedBatches(other, Batches(text, T, 4, seed=3), share)
    assert texts.at(0).positions is None

"""What a step is fed, and by how much it changes each matrix, as the metrics have it."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.makers.logs import Frozen
from tests.makers.runs import RUN, StopAt, tiny_recipe
from yanmo.checkpoint.folder import load_model, load_training, newest_first
from yanmo.core.console import Console
from yanmo.core.errors import Stopped
from yanmo.data.batches import Batches
from yanmo.data.prepare import prepare
from yanmo.train.metrics import read_metrics
from yanmo.train.trainer import train


def matrices(folder: Path) -> dict[str, torch.Tensor]:
    model = load_model(next(newest_first(folder)))
    return {name: p.detach() for name, p in model.named_parameters() if p.dim() >= 2}


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_updates_are_those_of_the_weights(optimizer: str, novel: Path, console: Console) -> None:
    more = (f"optim.name={optimizer}", "optim.weight_decay=0.3", "train.checkpoint_interval=1")
    weights = []
    for step in (4, 5):
        with pytest.raises(Stopped):
            train(tiny_recipe(novel, more=more), RUN, console, take_step=StopAt(step))
        weights.append(matrices(RUN))
    row = next(row for row in read_metrics(RUN) if row["event"] == "train" and row["step"] == 6)
    ratios = [
        float((after - before * (1 - row["lr"] * 0.3)).norm() / before.norm())
        for before, after in zip(weights[0].values(), weights[1].values(), strict=True)
    ]
    assert row["update_least"] == pytest.approx(min(ratios), rel=1e-3)
    assert row["update_most"] == pytest.approx(max(ratios), rel=1e-3)
    assert min(ratios) < row["update_median"] < max(ratios)
    assert load_training(next(newest_first(RUN)))[0].step == 6


def test_a_matrix_without_a_gradient_is_named_though_it_decays(novel: Path, console: Console) -> None:
    name = "blocks.1.mlp.down.weight"
    asked = tiny_recipe(novel, more=("train.max_steps=4", "optim.weight_decay=0.5"))
    train(asked, RUN, console, take_step=Frozen(name))
    rows = [row for row in read_metrics(RUN) if row["event"] == "train"]
    assert [row["frozen"] for row in rows] == [[name]] * 4


def test_a_row_describes_the_batch_that_was_given(novel: Path, console: Console) -> None:
    asked = tiny_recipe(novel, more=("train.micro_batch_size=8",))
    train(asked, RUN, console)
    done = prepare(asked.corpus, asked.tokenizer, asked.data, 16, console)
    batches = Batches(done.shards.train, 16, 8, asked.train.seed)
    rows = [row for row in read_metrics(RUN) if row["event"] == "train"]
    for row in rows:
        batch = batches.at(row["step"] - 1)
        assert batch.places is not None
        assert row["batch"] == zlib.crc32(np.ascontiguousarray(batch.inputs[:, ::8]))
        assert row["spread"] == pytest.approx(float(batch.places.std()), abs=1e-3)
        assert row["aligned"] == 1.0
    assert len({row["batch"] for row in rows}) == len(rows)

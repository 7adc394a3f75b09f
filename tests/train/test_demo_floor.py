"""Training on the demo corpus approaches its entropy and never goes below it but by chance."""

from pathlib import Path

import pytest
from benchmarks.demo_floor import excess_over_floor

from yanmo.core.console import Console
from yanmo.settings.recipe import load_recipe
from yanmo.train.trainer import train

STEPS = 120
"""So many, and not so many minutes: a slow machine must not end with more of the loss left."""
SETTINGS = (
    "corpus.path=['yanmo:demo']", "model.n_layer=2", "model.n_head=2", "model.n_embd=128",
    f"train.max_steps={STEPS}", f"train.eval_interval={STEPS}", "sample.max_new_tokens=1",
    "train.device=cpu", "train.threads=1", "train.precision=float32", "train.attention=matmul",
    "train.matmul=torch", "train.micro_batch_size=16", "train.compile=false",
)  # fmt: skip


@pytest.mark.long
def test_the_loss_approaches_the_floor_and_stays_above_it(console: Console) -> None:
    result = train(load_recipe(None, SETTINGS), Path("runs/demo"), console)
    floor, excess, error = excess_over_floor(result.folder)
    assert result.lines.floor == pytest.approx(floor, rel=1e-6)
    assert excess > -3 * error
    assert floor + excess < result.lines.bigram / 2
    assert result.progress.best_val_bits_per_char == pytest.approx(floor + excess, abs=0.01)

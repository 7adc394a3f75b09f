"""Training on the demo corpus approaches its entropy and never goes below it but by chance."""

from pathlib import Path

import pytest
from benchmarks.demo_floor import excess_over_floor

from yanmo.log import Voice
from yanmo.recipe import load_recipe, recipe_path
from yanmo.train.trainer import train


@pytest.mark.long
def test_the_loss_approaches_the_floor_and_stays_above_it(voice: Voice) -> None:
    result = train(load_recipe(recipe_path("demo")), Path("runs/demo"), voice)
    floor, excess, error = excess_over_floor(result.folder)
    assert result.lines.floor == pytest.approx(floor, rel=1e-6)
    assert excess > -3 * error
    assert floor + excess < result.lines.bigram / 2
    assert result.progress.best_val_bits_per_char == pytest.approx(floor + excess, abs=0.01)

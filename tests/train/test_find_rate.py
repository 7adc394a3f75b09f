"""A sweep of learning rates ends where the loss rises, and names a rate below its lowest point."""

import json
import math
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.makers.runs import RUN, TINY, tiny_recipe
from yanmo.cli.app import app
from yanmo.core.console import Console
from yanmo.core.errors import ConfigError, DivergedError
from yanmo.train.find_rate import MOST_STEPS, SECONDS, Sweep, curve_lines, find_rate, sweep
from yanmo.train.resume import restore
from yanmo.train.run import open_run
from yanmo.train.step import StepResult


def valley(best: float) -> Any:
    """A step whose loss is a parabola over the rate's logarithm."""

    def take_step(loss_of: Any, optimizer: Any, *rest: Any) -> StepResult:
        rate = optimizer.groups[0]["lr"]
        return StepResult(3 + 0.5 * math.log(rate / best) ** 2, 1.0, True)

    return take_step


def swept(novel: Path, console: Console, take_step: Any, seconds_per_step: float = 0.0) -> Sweep:
    run, plan = open_run(tiny_recipe(novel), RUN, Console(is_main=False))
    run, _ = restore(run)
    return sweep(run, plan, console, count(0.0, seconds_per_step).__next__, take_step)


@pytest.mark.parametrize("best", [1e-3, 3e-2])
def test_the_rate_to_take_is_below_that_of_the_lowest_loss(
    novel: Path, console: Console, best: float
) -> None:
    found = swept(novel, console, valley(best))
    # a running mean is late by a few steps, the safety is four
    assert best / 8 < found.suggested < best / 2
    assert found.losses[-1] > min(found.losses) + 0.4


def test_a_sweep_takes_a_minute_on_a_slow_machine_too(novel: Path, console: Console) -> None:
    found = swept(novel, console, lambda *_: StepResult(3.0, 1.0, True), SECONDS / 100)
    assert 90 <= len(found.rates) <= 110
    assert found.rates[-1] == pytest.approx(1e4 * found.rates[0])
    assert len(swept(novel, console, lambda *_: StepResult(3.0, 1.0, True)).rates) == MOST_STEPS


def test_a_loss_that_is_not_finite_ends_the_sweep(novel: Path, console: Console) -> None:
    def breaking(loss_of: Any, optimizer: Any, batches: Any, step: int, *rest: Any) -> StepResult:
        return StepResult(math.nan if step == 50 else 3 - step / 100, 1.0, True)

    assert len(swept(novel, console, breaking).rates) == 50
    with pytest.raises(DivergedError, match="lowest rate"):
        swept(novel, console, lambda *_: StepResult(math.inf, 1.0, True))


def test_the_curve_shows_the_losses_and_the_rate_to_take() -> None:
    rates = tuple(1e-4 * 10 ** (n / 20) for n in range(81))
    found = Sweep(rates, tuple(3 + 0.1 * abs(n - 50) for n in range(81)))
    lines = curve_lines(found)
    assert lines[0].startswith("  8.00") and lines[-2].startswith("  3.00")
    assert any("│" in line for line in lines)
    assert lines[-1].split() == ["1.0e-04", "1.0e+00"]
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.slow
def test_the_command_draws_and_names_a_rate_and_makes_no_run(novel: Path) -> None:
    words = ["train", str(novel), *TINY, "--find-lr"]
    drawn = CliRunner().invoke(app, words)
    assert drawn.exit_code == 0, drawn.output
    assert "●" in drawn.stdout and "take optim.learning_rate=" in drawn.stdout
    found = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert len(found["rates"]) == len(found["losses"])
    assert not Path("runs").exists()


def test_what_has_no_effect_beside_a_sweep_is_refused(novel: Path) -> None:
    for name, value in (("--nproc", "2"), ("--out", "elsewhere")):
        refused = CliRunner().invoke(app, ["train", str(novel), "--find-lr", name, value])
        assert isinstance(refused.exception, ConfigError)
        assert f"{name} has no effect with --find-lr" in str(refused.exception)


@pytest.mark.slow
def test_a_real_model_is_swept_and_nothing_is_left(novel: Path, console: Console, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*.safetensors"))
    found = find_rate(tiny_recipe(novel), console)
    assert 0 < found.suggested < found.rates[-1]
    assert json.loads(json.dumps(found.as_json()))["learning_rate"] == found.suggested
    assert sorted(tmp_path.rglob("*.safetensors")) == before

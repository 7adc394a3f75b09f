"""Compiled training is the same training, and survives being stopped, bit for bit."""

from pathlib import Path

import pytest

from tests.conftest import tiny_recipe
from tests.train.test_distributed import run
from tests.train.test_trainer import RUN, StopAt, losses, weights
from yanmo.errors import Stopped
from yanmo.log import Voice
from yanmo.train.metrics import read_metrics
from yanmo.train.trainer import train

pytestmark = [
    pytest.mark.compiler,
    pytest.mark.filterwarnings("ignore"),  # of torch's own making
]
COMPILED = ("train.compile=true", "model.dropout=0.1")


def test_a_compiled_run_that_is_stopped_equals_one_that_is_not(
    novel: Path, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tiny_recipe(novel, more=COMPILED), Path("whole"), voice)
    with monkeypatch.context() as stopped, pytest.raises(Stopped):
        StopAt(stopped, 6)
        train(tiny_recipe(novel, more=COMPILED), RUN, voice)
    train(tiny_recipe(novel, more=COMPILED), RUN, voice)
    assert losses(RUN) == losses(Path("whole"))
    assert weights(RUN) == weights(Path("whole"))


@pytest.mark.parametrize("ranks", [1, 2])
def test_compiled_losses_are_those_of_the_plain_model(novel: Path, ranks: int) -> None:
    for name, more in (("plain", ()), ("compiled", ("train.compile=true",))):
        done = run(ranks, name, *more)
        assert done.returncode == 0, done.stderr
    plain, compiled = (
        [row["loss"] for row in read_metrics(Path(name)) if row["event"] == "train"]
        for name in ("plain", "compiled")
    )
    assert len(plain) == 12
    assert compiled == pytest.approx(plain, abs=1e-4)

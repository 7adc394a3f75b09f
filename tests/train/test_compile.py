"""Compiled training is the same training, and survives being stopped, bit for bit."""

import time
from pathlib import Path

import pytest
import torch

from tests.makers.ranks import run
from tests.makers.runs import RUN, StopAt, losses, tiny_recipe, weights
from yanmo.core.console import Console
from yanmo.core.errors import Stopped
from yanmo.model.config import GPTConfig
from yanmo.model.fused import causal_attention
from yanmo.settings.recipe import load_recipe
from yanmo.train import probe
from yanmo.train.metrics import read_metrics
from yanmo.train.trainer import train

pytestmark = [
    pytest.mark.compiler,
    pytest.mark.filterwarnings("ignore"),  # of torch's own making
]
COMPILED = ("train.compile=true", "model.dropout=0.1", "train.seq_len_warmup=0.6")


def test_a_compiled_run_that_is_stopped_equals_one_that_is_not(novel: Path, console: Console) -> None:
    train(tiny_recipe(novel, more=COMPILED), Path("whole"), console)
    with pytest.raises(Stopped):
        train(tiny_recipe(novel, more=COMPILED), RUN, console, take_step=StopAt(6))
    train(tiny_recipe(novel, more=COMPILED), RUN, console)
    assert losses(RUN) == losses(Path("whole"))
    assert weights(RUN) == weights(Path("whole"))


def test_the_probe_compiles_and_says_a_ratio() -> None:
    recipe = load_recipe(
        None, ["train.micro_batch_size=2", "train.attention=matmul", "train.precision=float32"]
    )
    for family in ("gpt2", "modern", "moe"):
        config = GPTConfig(50, 2, 2, 16, 16, family=family)
        assert probe.gain_of_compiling(recipe, config, torch.device("cpu"), time.perf_counter) > 0


def test_compiled_attention_drops_as_many_weights_as_asked() -> None:
    """Where all keys are alike and all values 1, a row is its share of kept weights, grown by 1 / (1 - p)."""
    qkv = (torch.zeros(8, 256, 2, 16), torch.zeros(8, 256, 2, 16), torch.ones(8, 256, 2, 16))
    torch.manual_seed(0)
    plain = causal_attention(*qkv, 0.25)  # (8, 256, 2, 16)
    compiled = torch.compile(lambda q, k, v: causal_attention(q, k, v, 0.25))(*qkv)
    for y in (plain, compiled):
        assert float(y.mean()) == pytest.approx(1, abs=0.01)
        assert float((y[:, 0] == 0).float().mean()) == pytest.approx(0.25, abs=0.2)  # of one weight each
        assert float(y[:, -1].std()) == pytest.approx((0.25 / 0.75 / 256) ** 0.5, rel=0.4)


@pytest.mark.parametrize("ranks", [1, 2])
def test_compiled_losses_are_those_of_the_plain_model(novel: Path, ranks: int) -> None:
    for name, more in (("plain", ()), ("compiled", ("train.compile=true",))):
        done = run(ranks, name, *more, seconds=600)  # each rank compiles, and a C++ compiler takes its time
        assert done.returncode == 0, done.stderr
    plain, compiled = (
        [row["loss"] for row in read_metrics(Path(name)) if row["event"] == "train"]
        for name in ("plain", "compiled")
    )
    assert len(plain) == 12
    assert compiled == pytest.approx(plain, abs=1e-4)

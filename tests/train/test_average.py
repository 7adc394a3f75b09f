"""Weights averaged over a part of a run: what is saved and measured, and that a restart changes no bit."""

import math
from pathlib import Path

import pytest
import torch

from tests.makers.models import lively_model
from tests.makers.runs import RUN, StopAt, Trained, losses, tiny_recipe, weights
from yanmo.checkpoint.folder import load_model, newest_first
from yanmo.checkpoint.step_schedule import StepSchedule
from yanmo.checkpoint.tensors import load_tensors
from yanmo.core.console import Console
from yanmo.core.errors import ConfigError, Stopped
from yanmo.eval.loss import evaluate
from yanmo.parallel.distributed import World, autocast_for
from yanmo.settings.constraints import check_relations
from yanmo.settings.recipe import load_recipe
from yanmo.train.average import EVERY, WeightAverage
from yanmo.train.metrics import read_metrics
from yanmo.train.run import open_run
from yanmo.train.trainer import train

AVERAGED = ("optim.average=0.4", "model.dropout=0.1")


def test_an_average_follows_the_weights_over_its_share_of_the_run() -> None:
    model, plan = lively_model(), StepSchedule.first(1000)
    average = WeightAverage(model, 0.1)
    begun = [weight.clone() for weight in average.weights]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    for step in range(501, 600 + EVERY):  # a tenth of the run, in which the weights rest one above
        average.update(step, plan)
    for weight, first in zip(average.weights, begun, strict=True):
        assert torch.allclose(weight - first, torch.full_like(weight, 1 - math.exp(-1)), atol=0.02)


def test_at_first_an_average_looks_back_over_a_part_of_what_is_done() -> None:
    model, plan = lively_model(), StepSchedule.first(100_000)
    average = WeightAverage(model, 0.1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    for step in range(1, 101):
        average.update(step, plan)
    assert max(float(weight.abs().max()) for weight in average.weights) < 1e-4  # the beginning is forgotten


def test_the_weights_come_back_to_the_bit_whatever_happens() -> None:
    model = lively_model()
    average = WeightAverage(model, 0.1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(KeyError), average.in_place() as live:
        assert all(torch.equal(live[f"{name}/live"], before[name]) for name in before)
        assert not torch.equal(model.tokens.weight, before["tokens.weight"])
        raise KeyError
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_what_is_measured_is_what_is_saved(trained: Trained, console: Console) -> None:
    trained(RUN, *AVERAGED)
    last = next(newest_first(RUN))
    row = [row for row in read_metrics(RUN) if row["event"] == "eval"][-1]
    assert row["live_val_bits_per_char"] != row["val_bits_per_char"]
    run, _ = open_run(tiny_recipe("novel.txt", more=AVERAGED), RUN, console)
    held_out, autocast = run.held_out, autocast_for(torch.device("cpu"), "float32")
    sizes = (held_out.targets, held_out.characters, autocast, World(torch.device("cpu")))
    model = load_model(last)
    assert evaluate(model, held_out.batches(4), *sizes).bits_per_char == pytest.approx(
        row["val_bits_per_char"], rel=1e-6
    )
    state = load_tensors(last / "training" / "state.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(state[f"{name}/live"])
    assert evaluate(model, held_out.batches(4), *sizes).bits_per_char == pytest.approx(
        row["live_val_bits_per_char"], rel=1e-6
    )


def test_a_restart_changes_no_bit_of_weights_and_average(
    novel: Path, trained: Trained, console: Console
) -> None:
    trained("whole", *AVERAGED)
    for step in (0, 5, 8):
        with pytest.raises(Stopped):
            train(tiny_recipe(novel, more=AVERAGED), Path("stopped"), console, take_step=StopAt(step))
    train(tiny_recipe(novel, more=AVERAGED), Path("stopped"), console)
    assert losses(Path("stopped")) == losses(Path("whole"))
    assert weights(Path("stopped")) == weights(Path("whole"))
    one, other = (
        load_tensors(next(newest_first(Path(run))) / "training" / "state.safetensors")
        for run in ("stopped", "whole")
    )
    assert one.keys() == other.keys() and any(name.endswith("/live") for name in one)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_without_an_average_nothing_is_kept_for_one(trained: Trained) -> None:
    trained(RUN, "optim.average=0")
    state = load_tensors(next(newest_first(RUN)) / "training" / "state.safetensors")
    assert not [name for name in state if name.endswith("/live")]
    assert not any("live_val_bits_per_char" in row for row in read_metrics(RUN))


def test_averages_are_for_runs_that_train_all_weights() -> None:
    for method in ("lora", "last"):
        with pytest.raises(ConfigError, match="all weights"):
            check_relations(
                load_recipe(None, ["model.init=x", f"finetune.method={method}", "optim.average=0.1"])
            )

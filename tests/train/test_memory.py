"""Memory that runs out, and float16 numbers that overflow: both are survived and written down."""

from pathlib import Path

import pytest
import torch

from tests.conftest import tiny_recipe
from tests.train.test_trainer import RUN, StopAt, losses, weights
from yanmo.config import load_recipe
from yanmo.errors import DeviceError, DivergedError, Stopped
from yanmo.log import Voice
from yanmo.train import machine, memory
from yanmo.train.metrics import read_metrics
from yanmo.train.trainer import train


def run_out_of_memory(monkeypatch: pytest.MonkeyPatch, at: int, rows: int) -> None:
    """From step ``at`` on, a micro-batch of more than ``rows`` rows does not fit."""
    real = memory.training_step

    def stepping(loss_of, optimizer, batches, step, settings, *rest):  # type: ignore[no-untyped-def]
        if step >= at and settings.micro_batch_size > rows:
            for parameter in loss_of.parameters():
                parameter.grad = torch.ones_like(parameter)  # half a step
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return real(loss_of, optimizer, batches, step, settings, *rest)

    monkeypatch.setattr(memory, "training_step", stepping)


def test_out_of_memory_halves_the_micro_batch_and_the_step_is_done_again(
    novel: Path, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tiny_recipe(novel, more=("train.micro_batch_size=2",)), Path("small"), voice)
    run_out_of_memory(monkeypatch, at=0, rows=2)
    train(tiny_recipe(novel, more=("train.micro_batch_size=8",)), RUN, voice)
    assert losses(RUN) == losses(Path("small"))
    assert weights(RUN) == weights(Path("small"))
    sizes = [r["micro_batch_size"] for r in read_metrics(RUN) if "micro_batch_size" in r]
    assert sizes == [4, 2]
    assert load_recipe(RUN / "recipe.toml").train.micro_batch_size == 2
    train(
        tiny_recipe(novel, more=("train.micro_batch_size=8", "train.max_steps=16")), RUN, voice
    )  # not refused


def test_not_even_one_window_fits(novel: Path, voice: Voice, monkeypatch: pytest.MonkeyPatch) -> None:
    run_out_of_memory(monkeypatch, at=3, rows=0)
    with pytest.raises(DeviceError, match="not even one window of 16 tokens fits into memory"):
        train(tiny_recipe(novel), RUN, voice)


def test_other_errors_are_not_taken_for_memory(
    novel: Path, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(memory, "training_step", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        train(tiny_recipe(novel), RUN, voice)
    said = "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"
    assert machine.is_out_of_memory(RuntimeError(said))


def overflow_at(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """A float16 gradient that overflows at some steps."""
    real = memory.training_step

    def stepping(loss_of, optimizer, batches, step, *rest):  # type: ignore[no-untyped-def]
        if step not in steps:
            return real(loss_of, optimizer, batches, step, *rest)
        handle = loss_of.model.norm.weight.register_hook(lambda gradient: gradient * float("inf"))
        try:
            return real(loss_of, optimizer, batches, step, *rest)
        finally:
            handle.remove()

    monkeypatch.setattr(memory, "training_step", stepping)


def test_a_float16_overflow_skips_the_step_and_is_recorded(
    novel: Path, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    overflow_at(monkeypatch, {2, 3, 9})
    result = train(tiny_recipe(novel, more=("train.precision=float16",)), RUN, voice)
    health = [(r["step"], r["loss_scale"]) for r in read_metrics(RUN) if r["event"] == "health"]
    assert health == [(3, 32768.0), (4, 16384.0), (10, 8192.0)]
    assert result.progress.loss_scale == 8192.0
    assert result.progress.good_steps == 2
    norms = [r["grad_norm"] for r in read_metrics(RUN) if r["event"] == "train"]
    assert [step for step, norm in enumerate(norms) if norm is None] == [2, 3, 9]


def test_the_loss_scale_is_restored(novel: Path, voice: Voice, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = tiny_recipe(novel, more=("train.precision=float16", "model.dropout=0.1"))
    overflow_at(monkeypatch, {2, 3, 9})
    train(asked, Path("whole"), voice)
    with monkeypatch.context() as stopped, pytest.raises(Stopped):
        StopAt(stopped, 6)
        train(asked, RUN, voice)
    train(asked, RUN, voice)
    assert weights(RUN) == weights(Path("whole"))
    assert losses(RUN) == losses(Path("whole"))


def test_a_float16_run_that_only_overflows_diverges(
    novel: Path, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    overflow_at(monkeypatch, set(range(100)))
    with pytest.raises(DivergedError, match="gradient norm"):
        train(tiny_recipe(novel, more=("train.precision=float16", "train.max_steps=40")), RUN, voice)

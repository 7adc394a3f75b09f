"""Memory that runs out, and float16 numbers that overflow: both are survived and written down."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.makers.processes import python
from tests.makers.runs import RUN, OverflowAt, StopAt, Trained, losses, tiny_recipe, weights
from yanmo.core.console import Console
from yanmo.core.errors import DeviceError, DivergedError, Stopped
from yanmo.parallel import machine
from yanmo.settings.recipe import load_recipe
from yanmo.train.metrics import read_metrics
from yanmo.train.step import StepResult, StepSettings, training_step
from yanmo.train.trainer import train

PEAK = """
import sys
from pathlib import Path
from yanmo.settings.recipe import load_recipe
from yanmo.core.console import Console
from yanmo.model.gpt import count_parameters
from yanmo.checkpoint.folder import find_model_folder, load_shape
from yanmo.train.trainer import train
text, *settings = sys.argv[1:]
train(load_recipe(None, [f"corpus.path=['{text}']", *settings]), Path("run"), Console())
with open("/proc/self/status", encoding="ascii") as status:
    peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
print(count_parameters(load_shape(find_model_folder(Path("run")))), peak)
"""


class OutOfMemory:
    """The training step; from step ``at`` on, a micro-batch of more than ``rows`` rows does not fit."""

    def __init__(self, at: int, rows: int) -> None:
        self.at, self.rows = at, rows

    def __call__(
        self, loss_of: Any, optimizer: Any, batches: Any, step: int, settings: StepSettings, *rest: Any
    ) -> StepResult:
        if step >= self.at and settings.micro_batch_size > self.rows:
            for parameter in loss_of.parameters():
                parameter.grad = torch.ones_like(parameter)  # half a step
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return training_step(loss_of, optimizer, batches, step, settings, *rest)


@pytest.mark.slow
def test_out_of_memory_halves_the_micro_batch_and_the_step_is_done_again(
    novel: Path, trained: Trained, console: Console
) -> None:
    trained("small", "train.micro_batch_size=2")
    asked = tiny_recipe(novel, more=("train.micro_batch_size=8",))
    train(asked, RUN, console, take_step=OutOfMemory(at=0, rows=2))
    assert losses(RUN) == losses(Path("small"))
    assert weights(RUN) == weights(Path("small"))
    sizes = [r["micro_batch_size"] for r in read_metrics(RUN) if "micro_batch_size" in r]
    assert sizes == [4, 2]
    assert load_recipe(RUN / "recipe.toml").train.micro_batch_size == 2
    train(
        tiny_recipe(novel, more=("train.micro_batch_size=8", "train.max_steps=16")), RUN, console
    )  # not refused


def test_a_step_that_runs_out_of_memory_in_its_update_is_not_done_twice(
    novel: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Muon has changed its matrices by then: the run ends, and goes on from the last checkpoint."""
    asked = tiny_recipe(novel, more=("optim.name=muon", "train.checkpoint_interval=2"))
    train(asked, Path("whole"), console)
    real, calls = torch.optim.AdamW.step, []

    def step(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 6:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return real(*arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(DeviceError, match="not enough memory for weights, gradients and optimizer"):
        train(asked, RUN, console)
    assert len(calls) == 6
    train(asked, RUN, console)
    assert weights(RUN) == weights(Path("whole"))
    assert losses(RUN) == losses(Path("whole"))


def test_not_even_one_window_fits(novel: Path, console: Console) -> None:
    with pytest.raises(DeviceError, match="not enough memory for one window of 16 tokens"):
        train(tiny_recipe(novel), RUN, console, take_step=OutOfMemory(at=3, rows=0))


def test_other_errors_are_not_taken_for_memory(novel: Path, console: Console) -> None:
    def broken(*_: object) -> StepResult:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        train(tiny_recipe(novel), RUN, console, take_step=broken)
    said = "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"
    assert machine.is_out_of_memory(RuntimeError(said))


def test_a_float16_overflow_skips_the_step_and_is_recorded(novel: Path, console: Console) -> None:
    asked = tiny_recipe(novel, more=("train.precision=float16",))
    result = train(asked, RUN, console, take_step=OverflowAt({2, 3, 9}))
    overflows = [(r["step"], r["loss_scale"]) for r in read_metrics(RUN) if r["event"] == "overflow"]
    assert overflows == [(3, 32768.0), (4, 16384.0), (10, 8192.0)]
    assert result.progress.loss_scale == 8192.0
    assert result.progress.good_steps == 2
    norms = [r["grad_norm"] for r in read_metrics(RUN) if r["event"] == "train"]
    assert [step for step, norm in enumerate(norms) if norm is None] == [2, 3, 9]


@pytest.mark.parametrize(
    ("overflows", "stop"),
    [((2, 3, 9), 6), ((0, 1), 1)],  # the second before the first update: there is no optimizer state
)
def test_the_loss_scale_is_restored(
    overflows: tuple[int, ...], stop: int, novel: Path, console: Console
) -> None:
    asked = tiny_recipe(novel, more=("train.precision=float16", "model.dropout=0.1"))
    train(asked, Path("whole"), console, take_step=OverflowAt(set(overflows)))
    overflowing = OverflowAt(set(overflows))
    with pytest.raises(Stopped):
        train(asked, RUN, console, take_step=StopAt(stop, take_step=overflowing))
    train(asked, RUN, console, take_step=overflowing)
    assert weights(RUN) == weights(Path("whole"))
    assert losses(RUN) == losses(Path("whole"))


def test_a_float16_run_that_only_overflows_diverges(novel: Path, console: Console) -> None:
    with pytest.raises(DivergedError, match="gradient norm"):
        asked = tiny_recipe(novel, more=("train.precision=float16", "train.max_steps=40"))
        train(asked, RUN, console, take_step=OverflowAt(set(range(100))))


@pytest.mark.skipif(sys.platform != "linux", reason="has no /proc")
@pytest.mark.parametrize(
    "decided",
    [
        pytest.param(
            ("train.precision=float32", "train.attention=matmul", "train.matmul=torch", "train.max_steps=1"),
            marks=pytest.mark.long,
        ),
        pytest.param(("train.max_steps=2",), marks=pytest.mark.nightly),  # all ways are tried, for minutes
    ],
    ids=["plain", "measured"],
)
def test_the_82m_recipe_trains_in_less_than_4_gb(decided: tuple[str, ...], tmp_path: Path) -> None:
    """GPT2-Chinese's shape with a window of 1,024, batches of 4 in the micro-batches the probe chooses."""
    text = tmp_path / "characters.txt"
    text.write_text(
        "\n".join("".join(map(chr, range(0x4E00, 0x4E00 + 13_060))) for _ in range(3)), encoding="utf-8"
    )
    settings = ("n_layer=10", "n_head=12", "n_embd=768", "block_size=1024", "dropout=0.1", "family=gpt2")
    command = ["-c", PEAK, str(text), *(f"model.{setting}" for setting in settings), *decided]
    command += ["train.batch_size=4", "optim.name=adamw", "train.device=cpu", "sample.max_new_tokens=4"]
    done = python(*command, "train.eval_interval=2", seconds=1800)
    assert done.returncode == 0, done.stderr
    parameters, peak = map(int, done.stdout.split()[-2:])
    assert parameters == pytest.approx(81_894_144, rel=0.001)
    assert 16 * parameters < peak < 4e9  # weights, gradients and two moments are 16 bytes each

"""Runs of half a second: their recipe, what they leave, and what can befall them on the way."""

import io
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from yanmo.checkpoint.folder import newest_first
from yanmo.core.console import Console
from yanmo.settings.recipe import load_recipe
from yanmo.settings.schema import Recipe
from yanmo.train import trainer
from yanmo.train.metrics import read_metrics
from yanmo.train.oom import TakeStep
from yanmo.train.step import StepResult, training_step
from yanmo.train.trainer import TrainResult, train

TINY = (
    "model.n_layer=2", "model.n_head=2", "model.n_embd=16", "model.block_size=16",
    "model.dropout=0",
    "train.batch_size=8", "train.micro_batch_size=4", "train.max_steps=12", "train.log_interval=1",
    "train.eval_interval=4", "train.checkpoint_interval=4", "train.device=cpu", "train.threads=1",
    "train.precision=float32", "train.attention=matmul", "train.matmul=torch", "train.compile=false",
    "sample.max_new_tokens=4",
)  # fmt: skip

RUN = Path("runs/novel")


def tiny_recipe(*paths: Path | str, more: tuple[str, ...] = ()) -> Recipe:
    corpus = "corpus.path=[" + ", ".join(f"'{path}'" for path in paths) + "]"
    return load_recipe(None, [corpus, *TINY, *more])


class Trained:
    """Finished runs of the tiny recipe on ``novel.txt``: each is trained once, and copied from then on."""

    _whole = (trainer.measure_now,)

    def __init__(self, store: Path) -> None:
        self._store = store
        self._results: dict[tuple[str, ...], TrainResult] = {}

    def __call__(self, folder: Path | str, *more: str) -> TrainResult:
        """``folder`` becomes such a run, with the settings ``more``; where it stands."""
        kept = self._store / str([*self._results, more].index(more))
        if more not in self._results:
            assert (trainer.measure_now,) == self._whole, "nothing may be patched yet"
            found = train(tiny_recipe("novel.txt", more=more), kept, Console(io.StringIO()))
            self._results[more] = found
        shutil.copytree(kept, folder, symlinks=True)
        return replace(self._results[more], folder=Path(folder))


def losses(folder: Path) -> dict[int, str]:
    rows = [row for row in read_metrics(folder) if row["event"] == "train"]
    assert len({row["step"] for row in rows}) == len(rows), "a step stands twice"
    return {row["step"]: row["loss_hex"] for row in rows}


def weights(folder: Path) -> bytes:
    return (next(newest_first(folder)) / "model.safetensors").read_bytes()


def without_times(folder: Path) -> list[dict[str, object]]:
    """The metrics, but for times and for notes that a run was resumed."""
    rows = [row for row in read_metrics(folder) if row["event"] != "resume"]
    times = ("elapsed_s", "tokens_per_s", "data_wait")
    return [{k: v for k, v in row.items() if k not in times} for row in rows]


class StopAt:
    """The training step, with a signal while the given one is computed; once."""

    def __init__(self, step: int, number: int = signal.SIGTERM, take_step: TakeStep = training_step) -> None:
        self.step, self.number, self.take_step = step, number, take_step

    def __call__(self, loss_of: Any, optimizer: Any, batches: Any, step: int, *rest: Any) -> StepResult:
        if step == self.step:
            self.step = -1
            signal.raise_signal(self.number)
        return self.take_step(loss_of, optimizer, batches, step, *rest)


class DivergeAt:
    """The training step, which at one step spoils weights and moments until the plan of the run is slower."""

    def __init__(self, step: int, folder: Path, is_stubborn: bool = False) -> None:
        self.step, self.plan, self.is_stubborn = step, folder / "plan.json", is_stubborn

    def __call__(self, loss_of: Any, optimizer: Any, batches: Any, step: int, *rest: Any) -> StepResult:
        result = training_step(loss_of, optimizer, batches, step, *rest)
        is_slower = "rate_factor" in self.plan.read_text("utf-8")
        if step != self.step or (is_slower and not self.is_stubborn):
            return result
        with torch.no_grad():
            for parameter in loss_of.parameters():
                parameter.fill_(float("nan"))
        return StepResult(float("nan"), 1.0, False)


class OverflowAt:
    """The training step, with a float16 gradient that overflows at some steps."""

    def __init__(self, steps: set[int]) -> None:
        self.steps = steps

    def __call__(self, loss_of: Any, optimizer: Any, batches: Any, step: int, *rest: Any) -> StepResult:
        if step not in self.steps:
            return training_step(loss_of, optimizer, batches, step, *rest)
        handle = loss_of.model.norm.weight.register_hook(lambda gradient: gradient * float("inf"))
        try:
            return training_step(loss_of, optimizer, batches, step, *rest)
        finally:
            handle.remove()

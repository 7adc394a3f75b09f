"""Several ranks of one run, as ``yanmo train --nproc`` starts them."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.makers.console import yanmo
from tests.makers.processes import Child, Done, as_yanmo
from tests.makers.runs import TINY
from yanmo.train.metrics import read_metrics

FOREVER = ("train.max_steps=100000", "train.eval_interval=100000", "train.checkpoint_interval=10")


def words(ranks: int, folder: str, *more: str) -> list[str]:
    return ["train", "novel.txt", *TINY, *more, "--nproc", str(ranks), "--out", folder]


def run(ranks: int, folder: str, *more: str, seconds: float = 120) -> Done:
    return yanmo(*words(ranks, folder, *more), seconds=seconds)


def loss_values(folder: str) -> list[float]:
    return [float.fromhex(r["loss_hex"]) for r in read_metrics(Path(folder)) if r["event"] == "train"]


def last_step(folder: str) -> int:
    return max((int(p.name[5:]) for p in Path(folder).glob("checkpoints/step-*")), default=0)


def start(folder: str, after: int = 0) -> Child:
    """Two ranks that train for ever; returns when they have saved something."""
    child = Child(as_yanmo, words(2, folder, *FOREVER))
    wait_for_step(child, folder, after)
    return child


def start_launcher(folder: str) -> "subprocess.Popen[str]":
    """The same in new programs: how they end with each other is seen of these."""
    process = subprocess.Popen(
        [sys.executable, "-m", "yanmo", *words(2, folder, *FOREVER)],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, encoding="utf-8",
    )  # fmt: skip
    wait_for_step(process, folder, 0)
    return process


def wait_for_step(process: "Child | subprocess.Popen[str]", folder: str, after: int) -> None:
    """Until a checkpoint beyond a step is there."""
    deadline = time.monotonic() + 60
    while last_step(folder) <= after:
        assert process.poll() is None, process.err() if isinstance(process, Child) else "it ended"
        if time.monotonic() > deadline:
            process.kill()
            pytest.fail("nothing was saved in a minute")
        time.sleep(0.05)

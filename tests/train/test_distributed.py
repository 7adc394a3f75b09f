"""Several processes are one run: the same batches, the same losses, one end."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import TINY
from tests.console import Done, yanmo
from yanmo.errors import ConfigError, DeviceError
from yanmo.train.distributed import find_world, split_devices
from yanmo.train.metrics import read_metrics

FIFTY = ("train.max_steps=50", "train.eval_interval=25", "model.dropout=0.0")
FOREVER = ("train.max_steps=100000", "train.eval_interval=100000", "train.checkpoint_interval=10")


def words(ranks: int, folder: str, *more: str) -> list[str]:
    return ["train", "novel.txt", *TINY, *more, "--nproc", str(ranks), "--out", folder]


def command(ranks: int, folder: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "yanmo", *words(ranks, folder, *more)]


def run(ranks: int, folder: str, *more: str, seconds: float = 120) -> Done:
    return yanmo(*words(ranks, folder, *more), seconds=seconds)


def losses(folder: str) -> list[float]:
    return [float.fromhex(r["loss_hex"]) for r in read_metrics(Path(folder)) if r["event"] == "train"]


def evaluated(folder: str) -> list[float]:
    return [r["val_loss"] for r in read_metrics(Path(folder)) if r["event"] == "eval"]


@pytest.mark.parametrize(
    ("optimizer", "within", "several"),
    [
        ("adamw", 1e-5, (2,)),
        pytest.param("adamw", 1e-5, (4,), marks=pytest.mark.long),
        pytest.param("muon", 2e-3, (2, 4), marks=pytest.mark.long),
    ],
)
def test_several_ranks_give_the_losses_of_one(
    novel: Path, optimizer: str, within: float, several: tuple[int, ...]
) -> None:
    """The same global batches, so the same curve, over 50 steps in float32; Muon rounds to bfloat16 within."""
    for ranks in (1, *several):
        done = run(ranks, f"ranks-{ranks}", *FIFTY, f"optim.name={optimizer}", "optim.learning_rate=1e-3")
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("best") == 1  # one rank speaks
        assert "Warning" not in done.stderr
    one = losses("ranks-1")
    assert len(one) == 50
    for ranks in several:
        assert losses(f"ranks-{ranks}") == pytest.approx(one, abs=within)
        assert evaluated(f"ranks-{ranks}") == pytest.approx(evaluated("ranks-1"), abs=within)


def last_step(folder: str) -> int:
    return max((int(p.name[5:]) for p in Path(folder).glob("checkpoints/step-*")), default=0)


def start(folder: str, after: int = 0) -> subprocess.Popen[str]:
    """Two ranks that train for ever; returns when they have saved something."""
    process = subprocess.Popen(
        command(2, folder, *FOREVER), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, encoding="utf-8"
    )
    deadline = time.monotonic() + 60
    while last_step(folder) <= after:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        if time.monotonic() > deadline:
            process.kill()
            pytest.fail("nothing was saved in a minute")
        time.sleep(0.05)
    return process


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """The process ids of the ranks, in order."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
    found = {}
    for child in children:
        environment = Path(f"/proc/{child}/environ").read_bytes()
        if rank := re.search(rb"\0RANK=(\d+)", environment):
            found[int(rank[1])] = int(child)
    return [found[rank] for rank in sorted(found)]


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}/cmdline").exists() and _cmdline(pid) for pid in pids)


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()  # empty for a zombie
    except OSError:
        return b""


needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")


@needs_proc
@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_rank_that_dies_takes_the_run_down_and_it_resumes(novel: Path, victim: int) -> None:
    process = start("run")
    pids = ranks_of(process)
    assert len(pids) == 2
    os.kill(pids[victim], signal.SIGKILL)
    began = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert process.returncode == 128 + signal.SIGKILL
    assert f"rank {victim} was killed by SIGKILL" in said
    assert "the same command resumes it" in said
    assert gone(pids)
    saved = last_step("run")
    again = start("run", after=saved)
    again.send_signal(signal.SIGTERM)
    _, said = again.communicate(timeout=60)
    assert f"resuming run at step {saved}" in said


@needs_proc
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_on_all_ranks(novel: Path, number: int) -> None:
    process = start("run")
    pids = ranks_of(process)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said
    assert said.count("stopped by a signal at step") == 1
    assert gone(pids)
    step = int(re.search(r"at step ([\d,]+), and saved", said)[1].replace(",", ""))  # type: ignore[index]
    assert (Path("run/checkpoints") / f"step-{step:08d}").is_dir()


@needs_proc
def test_ranks_leave_when_their_launcher_is_killed(novel: Path) -> None:
    process = start("run")
    pids = ranks_of(process)
    process.kill()
    _, said = process.communicate(timeout=30)  # the ranks hold the other end of the pipe
    assert "stopped by a signal" in said
    deadline = time.monotonic() + 10
    while not gone(pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert gone(pids)


def test_an_error_before_training_is_said_once_with_its_exit_code(novel: Path) -> None:
    done = run(2, "run", "corpus.encoding=klingon")
    assert done.returncode == 3
    assert done.stderr.count("DataError") == 1
    assert "Traceback" not in done.stderr


def test_more_ranks_than_rows_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match="4 processes cannot share train.batch_size=2"):
        find_world("cpu", 2)


def test_each_rank_takes_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert split_devices("cuda:0,1") == ["cuda:0", "cuda:1"]
    assert split_devices("cuda") == ["cuda"]
    assert split_devices(None) == [None]
    monkeypatch.setattr(
        "yanmo.train.distributed.device_names", lambda: ["cpu", "cuda", "cuda:0", "cuda:1", "cuda:2"]
    )
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert find_world("cuda", 8).device == torch.device("cuda", rank)
        assert find_world("cuda:2,1", 8).device == torch.device("cuda", 2 - rank)
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(DeviceError, match="process 3 has no device in cuda:0,1"):
        find_world("cuda:0,1", 8)
    with pytest.raises(DeviceError, match="process 3 has no device in cuda:1"):
        find_world("cuda:1", 8)
    with pytest.raises(ConfigError, match="cuda:0,0 names a device twice"):
        find_world("cuda:0,0", 8)


def test_the_device_setting_alone_starts_a_process_for_each(novel: Path) -> None:
    """There are no two GPUs here: the error shows that two processes were asked for."""
    done = yanmo("train", "novel.txt", *TINY, "train.device=cuda:0,1", seconds=60)
    if torch.cuda.device_count() < 2:
        assert done.returncode == 2
        assert "device 'cuda:" in done.stderr
    assert "Traceback" not in done.stderr

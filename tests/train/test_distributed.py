"""Several processes are one run: the same batches, the same losses, one end."""

import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from tests.makers.console import yanmo
from tests.makers.processes import children_of, gone, needs_proc
from tests.makers.ranks import last_step, loss_values, run, start, start_launcher
from tests.makers.runs import TINY
from yanmo.errors import ConfigError, DeviceError
from yanmo.train.distributed import find_world, split_devices
from yanmo.train.launch import first_cause
from yanmo.train.metrics import read_metrics

FIFTY = ("train.max_steps=50", "train.eval_interval=25", "model.dropout=0.0")


def evaluated(folder: str) -> list[float]:
    return [r["val_loss"] for r in read_metrics(Path(folder)) if r["event"] == "eval"]


@pytest.mark.parametrize(
    ("optimizer", "within", "several"),
    [
        pytest.param("adamw", 1e-5, (2,), marks=pytest.mark.slow),
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
    one = loss_values("ranks-1")
    assert len(one) == 50
    for ranks in several:
        assert loss_values(f"ranks-{ranks}") == pytest.approx(one, abs=within)
        assert evaluated(f"ranks-{ranks}") == pytest.approx(evaluated("ranks-1"), abs=within)


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_rank_that_dies_takes_the_run_down_and_it_resumes(novel: Path, victim: int) -> None:
    launcher = start("run")
    pids = children_of(launcher.pid)
    assert len(pids) == 2
    os.kill(pids[victim], signal.SIGKILL)
    done = launcher.done(timeout=30)
    assert done.returncode == 128 + signal.SIGKILL
    assert f"rank {victim} was killed by SIGKILL" in done.stderr
    assert "the same command resumes it" in done.stderr
    assert gone(pids)
    saved = last_step("run")
    again = start("run", after=saved)
    again.send_signal(signal.SIGTERM)
    assert f"resuming run at step {saved}" in again.done().stderr


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_on_all_ranks(novel: Path, number: int) -> None:
    launcher = start("run")
    pids = children_of(launcher.pid)
    assert len(pids) == 2
    launcher.send_signal(number)
    done = launcher.done()
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr.count("stopped by a signal at step") == 1
    assert gone(pids)
    step = int(re.search(r"at step ([\d,]+), and saved", done.stderr)[1].replace(",", ""))  # type: ignore[index]
    assert (Path("run/checkpoints") / f"step-{step:08d}").is_dir()


@needs_proc
@pytest.mark.slow
def test_ranks_leave_when_their_launcher_is_killed(novel: Path) -> None:
    """Programs of their own: nobody has made them one family but the launcher."""
    process = start_launcher("run")
    pids = children_of(process.pid)
    assert len(pids) == 2
    process.kill()
    _, said = process.communicate(timeout=30)  # the ranks hold the other end of the pipe
    assert "stopped by a signal" in said
    deadline = time.monotonic() + 10
    while not gone(pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert gone(pids)


@pytest.mark.slow
def test_an_error_before_training_is_said_once_with_its_exit_code(novel: Path) -> None:
    done = run(2, "run", "corpus.encoding=klingon")
    assert done.returncode == 3
    assert done.stderr.count("DataError") == 1
    assert "Traceback" not in done.stderr


def test_the_first_cause_is_the_rank_that_was_killed_and_not_its_peers() -> None:
    def failure(rank: int, code: int, seconds: int) -> ProcessFailure:
        found = ProcessFailure(local_rank=rank, pid=rank, exitcode=code, error_file="none")
        found.timestamp = seconds
        return found

    peers = {0: failure(0, 1, 5), 1: failure(1, -signal.SIGKILL, 6), 2: failure(2, 1, 4)}
    assert first_cause(peers) == (1, peers[1])
    assert first_cause({rank: peers[rank] for rank in (0, 2)}) == (2, peers[2])


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


@pytest.mark.slow
def test_the_device_setting_alone_starts_a_process_for_each(novel: Path) -> None:
    """There are no two GPUs here: the error shows that two processes were asked for."""
    done = yanmo("train", "novel.txt", *TINY, "train.device=cuda:0,1", seconds=60)
    if torch.cuda.device_count() < 2:
        assert done.returncode == 2
        assert "device 'cuda:" in done.stderr
    assert "Traceback" not in done.stderr

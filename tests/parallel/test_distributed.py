"""Several processes are one run: the same batches, the same losses, one end."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from tests.makers.console import yanmo
from tests.makers.processes import children_of, gone, needs_proc
from tests.makers.ranks import FOREVER, last_step, loss_values, run, start, start_launcher, words
from tests.makers.runs import TINY
from yanmo.core.errors import ConfigError, DeviceError, LostError
from yanmo.core.workers import LAUNCHER, follow_launcher
from yanmo.parallel.distributed import Rendezvous, find_world, split_devices
from yanmo.parallel.launch import first_cause
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
    step = int(re.search(r"at step ([\d,]+); saved", done.stderr)[1].replace(",", ""))  # type: ignore[index]
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
    stopped = {
        0: failure(0, 3, 5),
        1: failure(1, -signal.SIGTERM, 4),
    }  # by the launcher, for want of the first
    assert first_cause(stopped) == (0, stopped[0])
    assert first_cause({1: stopped[1]}) == (1, stopped[1])


def test_more_ranks_than_rows_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match="4 processes are too many for train.batch_size=2"):
        find_world("cpu", 2)


def test_each_rank_takes_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert split_devices("cuda:0,1") == ["cuda:0", "cuda:1"]
    assert split_devices("cuda") == ["cuda"]
    assert split_devices(None) == [None]
    monkeypatch.setattr(
        "yanmo.parallel.distributed.device_names", lambda: ["cpu", "cuda", "cuda:0", "cuda:1", "cuda:2"]
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


MARK = "YANMO_TEST_FAMILY"


def family(mark: str) -> list[int]:
    """The processes that have ``mark`` in their environment: whoever a command started, wherever it is now."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


def kill_the_launcher_after(seconds: float) -> None:
    """Programs of their own; nobody of them is left, whatever the ranks were doing."""
    mark = f"{os.getpid()}-{seconds}"
    launcher = subprocess.Popen(
        [sys.executable, "-m", "yanmo", *words(2, f"run-{seconds}", *FOREVER)],
        env=os.environ | {MARK: mark}, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, encoding="utf-8",
    )  # fmt: skip
    time.sleep(seconds)
    launcher.kill()
    deadline = time.monotonic() + 30
    while family(mark) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = family(mark)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    _, said = launcher.communicate(timeout=30)
    assert not left, f"killed after {seconds} s"
    assert "Traceback" not in said and "frame #" not in said


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("seconds", [2.0, 4.0, 5.5])
def test_no_rank_outlives_a_launcher_that_is_killed_at_once(novel: Path, seconds: float) -> None:
    kill_the_launcher_after(seconds)


@needs_proc
@pytest.mark.long
def test_no_rank_outlives_a_launcher_whenever_it_is_killed(novel: Path, drawn_seed: int) -> None:
    rng = random.Random(drawn_seed)
    for number in range(20):
        kill_the_launcher_after(0.5 + 0.5 * number + 0.5 * rng.random())


@needs_proc
@pytest.mark.slow
def test_the_peers_of_a_rank_that_is_killed_say_one_sentence(novel: Path) -> None:
    launcher = start("run")
    os.kill(children_of(launcher.pid)[0], signal.SIGKILL)
    said = launcher.done(timeout=60).stderr
    assert "Traceback" not in said and "frame #" not in said
    assert "rank 0 was killed by SIGKILL" in said


def test_what_torch_says_of_a_lost_connection_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = "[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer\nframe #1: …"
    for error in (RuntimeError(closed), torch.distributed.DistNetworkError("x\nframe #0: …")):
        with pytest.raises(LostError) as caught, Rendezvous():
            raise error
        assert str(caught.value).count("\n") == 2
    with pytest.raises(RuntimeError, match="of another kind"), Rendezvous():
        raise RuntimeError("of another kind")


def test_a_rank_whose_launcher_is_gone_already_is_told_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    ended = threading.Event()  # the last thing a watch does: none of them outlives this test
    monkeypatch.setattr(os, "kill", lambda pid, number: told.append(number))
    monkeypatch.setattr(os, "_exit", lambda code: ended.set())
    monkeypatch.setattr("yanmo.core.workers.SHUTDOWN_SECONDS", 0)
    follow_launcher()
    assert not ended.wait(0.2), "this is no rank"
    monkeypatch.setenv(LAUNCHER, str(os.getppid()))
    follow_launcher(seconds=0.01)
    assert not ended.wait(0.2), "the launcher lives"
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert ended.wait(10) and told == [signal.SIGTERM]
    ended.clear()
    follow_launcher()  # now its parent is another one from the first moment on
    assert ended.wait(10) and told == 2 * [signal.SIGTERM]

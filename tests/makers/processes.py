"""Child processes that begin where torch is imported: forks of one server, for what is asked of a process.

Importing torch takes longer than most tests. A fork server of the standard library imports what commands
need once; a child of it has its own memory, folder, environment, files and end, and dies like any process.
What a fork cannot show (start-up, an interpreter's options, spawning as on Windows) is for ``python``.
"""

import contextlib
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

METHODS = multiprocessing.get_all_start_methods()
CONTEXT = multiprocessing.get_context("forkserver" if "forkserver" in METHODS else "spawn")
CONTEXT.set_forkserver_preload(["tests.makers.preloaded"])

Done = subprocess.CompletedProcess[str]

needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")


class Child:
    """What ``subprocess.Popen`` is to a new program, for ``function(*arguments)`` in a forked process.

    Its standard output and error go to files, which are read while it runs or when it has ended.
    """

    def __init__(
        self, function: Callable[..., object], *arguments: Any, typed: str | bytes = "", **variables: str
    ) -> None:
        self.arguments = arguments
        folder = mkdtemp(prefix="yanmo-child-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.files = [Path(folder, name) for name in ("in", "out", "err")]
        self.files[0].write_bytes(typed.encode() if isinstance(typed, str) else typed)
        for path in self.files[1:]:
            path.touch()
        environment = os.environ | {"COLUMNS": "150"} | variables
        self._process = CONTEXT.Process(target=_begin, args=(self.files, environment, function, arguments))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float = 60) -> int:
        """Its exit code.

        Raises:
            TimeoutExpired: it goes on; it is killed.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            self.kill()
            self._process.join()
            raise subprocess.TimeoutExpired(str(self.arguments), timeout, self.out(), self.err())
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def out(self) -> str:
        """What it has written so far."""
        return self.files[1].read_text(encoding="utf-8", errors="replace")

    def err(self) -> str:
        """What it has said so far."""
        return self.files[2].read_text(encoding="utf-8", errors="replace")

    def done(self, timeout: float = 60) -> Done:
        """Wait for its end; all it wrote."""
        code = self.wait(timeout)
        return Done(self.arguments, code, self.out(), self.err())


def start_server() -> None:
    """Let the fork server begin now: it has the limits of the process that begins it."""
    if CONTEXT.get_start_method() == "forkserver":
        forkserver.ensure_running()


def python(*words: str, seconds: float = 120, **variables: str) -> Done:
    """A new interpreter, as a person starts it."""
    return subprocess.run(
        [sys.executable, *words], capture_output=True, encoding="utf-8", timeout=seconds, check=False,
        env=os.environ | {"COLUMNS": "150"} | variables,
    )  # fmt: skip


def run_like_python(
    command: list[str], timeout: float | None = None, input: str = "", **_: Any
) -> subprocess.CompletedProcess[str]:
    """In place of ``subprocess.run`` of ``python … -m MODULE WORDS``, of which the output is captured."""
    at = command.index("-m")
    child = Child(as_module, command[at + 1], command[at + 2 :], typed=input)
    return child.done(timeout or 600)


def as_module(name: str, words: list[str]) -> None:
    """What ``python -m name words`` does."""
    sys.argv = [name, *words]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def as_yanmo(words: list[str]) -> None:
    """What ``yanmo words`` does, with ranks that are forked, too."""
    from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

    from yanmo.cli.app import main

    sys.argv = ["yanmo", *words]
    if "fork" in METHODS:
        subprocess_handler.SubprocessHandler._popen = _forked_rank  # type: ignore[assignment,method-assign]
    main()


def children_of(pid: int) -> list[int]:
    """The processes that a process has started and that live, in their order: of a launcher, its ranks."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in children.split()]


def gone(pids: list[int]) -> bool:
    return not any(_cmdline(pid) for pid in pids)


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()  # empty for a zombie
    except OSError:
        return b""


def _begin(
    files: list[Path], environment: dict[str, str], function: Callable[..., object], arguments: Any
) -> None:
    """In the child: its own files and environment, then what it is for."""
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(files):
        descriptor = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1)
    function(*arguments)


class _ForkedRank:
    """A fork of a launcher, in place of the ``subprocess.Popen`` that torch's launcher makes."""

    def __init__(self, words: list[str], environment: dict[str, str]) -> None:
        self.args, self.returncode = words, None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._be_it(words, environment)

    def _be_it(self, words: list[str], environment: dict[str, str]) -> None:
        """Never returns."""
        from yanmo.cli.app import main

        code = 1
        try:
            os.setsid()
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.environ.clear()
            os.environ.update(environment)
            sys.argv = ["yanmo", *words]
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def poll(self) -> int | None:
        if self.returncode is None:
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = time.monotonic() + (timeout if timeout is not None else 1e9)
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _forked_rank(handler: object, args: tuple[str, ...], env: dict[str, str]) -> _ForkedRank:
    return _ForkedRank(list(args[2:]), env)  # behind the interpreter and the script

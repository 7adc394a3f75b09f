"""Work on all cores, in the order it came, with bounded memory.

Processes start by spawn, as on Windows, leave Ctrl-C to the one who started them, and end with it, however
it ends; so do the ranks of a run (``parallel/launch.py``). What the processes of a pool do is a function of
its argument alone, so the result does not depend on their number.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from yanmo.core.errors import DataError

A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")
LAUNCHER = "YANMO_LAUNCHER"
"""Tells a rank the process that started it: its own parent may be another one by the time that it can ask."""
SHUTDOWN_SECONDS = 60
"""How long ranks have to save and leave; then they are killed."""
WAITING_BATCHES = 3
"""Batches on their way for each process: enough that none waits."""


def cores() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(batches: Iterable[T], submit: Callable[[T], Future[R]], workers: int) -> Iterator[tuple[T, R]]:
    """Each batch with what came of it, in order; never more than a few are on their way."""
    waiting: deque[tuple[T, Future[R]]] = deque()
    for batch in batches:
        waiting.append((batch, submit(batch)))
        if len(waiting) > WAITING_BATCHES * workers:
            done, result = waiting.popleft()
            yield done, result.result()
    for done, result in waiting:
        yield done, result.result()


@contextlib.contextmanager
def processes(
    number: int, begin: Callable[..., None], arguments: tuple[Any, ...], doing: str, hint: str
) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes, each of which calls ``begin(*arguments)`` first.

    Raises:
        DataError: the system ended one of them; ``doing`` and ``hint`` say what it did and what to do.
    """
    pool = ProcessPoolExecutor(
        number, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(begin, arguments)
    )
    try:
        yield pool
    except BrokenProcessPool as error:
        raise DataError(
            f"a process that {doing} was ended from outside",
            where=f"one of {number}; often there was no memory left",
            hint=hint,
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(begin: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """Prepare a process of the pool."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who started this
    threading.Thread(target=_end_with_parent, daemon=True).start()
    begin(*arguments)


def _end_with_parent() -> None:
    """Leave when the parent has died, SIGKILL included: nobody else would end this process."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def follow_launcher(seconds: float = 1.0) -> None:
    """In a rank: stop as by SIGTERM when the launcher is gone, so that no rank is left behind.

    To be called before anything that takes time. A launcher of torch's own does not say who it is.
    """
    if LAUNCHER not in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ:
        return
    launcher = int(os.environ.get(LAUNCHER, os.getppid()))

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(SHUTDOWN_SECONDS)
        os._exit(128 + signal.SIGTERM)  # it waits for a rank that is gone already

    threading.Thread(target=watch, daemon=True).start()

"""Work on all cores, in the order it came, with bounded memory.

Processes start by spawn, as on Windows, leave Ctrl-C to the one who started them, and end with it, however
it ends. What they do is a function of its argument alone, so the result does not depend on their number.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from yanmo.errors import DataError

A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")
WAITING = 3
"""Batches on their way for each process: enough that none waits."""


def cores() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(batches: Iterable[T], submit: Callable[[T], Future[R]], workers: int) -> Iterator[tuple[T, R]]:
    """Each batch with what came of it, in order; never more than a few are on their way."""
    waiting: deque[tuple[T, Future[R]]] = deque()
    for batch in batches:
        waiting.append((batch, submit(batch)))
        if len(waiting) > WAITING * workers:
            done, result = waiting.popleft()
            yield done, result.result()
    for done, result in waiting:
        yield done, result.result()


@contextlib.contextmanager
def processes(
    number: int, begin: Callable[..., None], arguments: tuple[Any, ...], doing: str, mend: str
) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes, each of which calls ``begin(*arguments)`` first.

    Raises:
        DataError: the system ended one of them; ``doing`` and ``mend`` say what it did and what to do.
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
            mend=mend,
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

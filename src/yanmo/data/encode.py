"""Texts → ids on all cores, in the order they came, with bounded memory.

Neither the ids nor their order depend on the number of processes: each text is encoded alone. Processes
start by spawn, as on Windows, and end with this one, however it ends.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from yanmo.errors import DataError
from yanmo.tokenizer import CharTokenizer, Tokenizer
from yanmo.tokenizer.lost import Lost

T = TypeVar("T")
Ids = npt.NDArray[np.int64]
WAITING = 3
"""Batches on their way for each process: enough that none waits."""
WORTH_STARTING = 64 << 20
"""Bytes of text from which on other processes save more time than their start takes: about a second, in
which one process with its threads has read tens of megabytes."""


@dataclass(frozen=True)
class Encoded:
    """The ids of some texts, and what was lost of them."""

    ids: list[Ids]
    lost: Lost | None = None


def processes_for(tokenizer: Tokenizer, size: int) -> int:
    """How many processes to encode ``size`` bytes with; 1 is this one alone.

    Characters are looked up faster than they are sent to somebody else.
    """
    return 1 if isinstance(tokenizer, CharTokenizer) or size < WORTH_STARTING else cores()


def cores() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> Encoded:
    """The ids of each text, and what they lose if the vocabulary can lose something."""
    found = [tokenizer.encode(text) for text in texts]
    if tokenizer.lossless:
        return Encoded(found)
    lost = Lost()
    for text, ids in zip(texts, found, strict=True):
        lost.count(text, tokenizer.decode(ids))
    return Encoded(found, lost)


def encode_all(
    batches: Iterable[T], texts_of: Callable[[T], Sequence[str]], tokenizer: Tokenizer, processes: int
) -> Iterator[tuple[T, Encoded]]:
    """Each batch with the ids of its texts, in order.

    Raises:
        DataError: the system ended one of the processes.
    """
    waiting: deque[tuple[T, Future[Encoded]]] = deque()
    with _workers(tokenizer, processes) as (submit, workers):
        for batch in batches:
            waiting.append((batch, submit(texts_of(batch))))
            if len(waiting) > WAITING * workers:
                done, result = waiting.popleft()
                yield done, result.result()
        for done, result in waiting:
            yield done, result.result()


@contextlib.contextmanager
def _workers(
    tokenizer: Tokenizer, processes: int
) -> Iterator[tuple[Callable[[Sequence[str]], Future[Encoded]], int]]:
    """How to have texts encoded, and how many are at work."""
    if processes == 1:  # the libraries below let other threads run while they work
        with ThreadPoolExecutor(cores()) as threads:
            yield (lambda texts: threads.submit(encode, tokenizer, texts)), cores()
        return
    pool = ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(tokenizer,)
    )
    try:
        yield (lambda texts: pool.submit(_encode_here, texts)), processes
    except BrokenProcessPool as error:
        raise DataError(
            "a process that tokenises was ended from outside",
            where=f"one of {processes}; often there was no memory left",
            mend="the same command goes on where it stopped; data.workers=1 needs the least memory",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_tokenizer: Tokenizer | None = None
"""In a process of the pool: what it encodes with."""


def _begin(tokenizer: Tokenizer) -> None:
    """Prepare a process of the pool."""
    global _tokenizer
    _tokenizer = tokenizer
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who started this
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _encode_here(texts: Sequence[str]) -> Encoded:
    assert _tokenizer is not None
    return encode(_tokenizer, texts)


def _end_with_parent() -> None:
    """Leave when the parent has died, SIGKILL included: nobody else would end this process."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)

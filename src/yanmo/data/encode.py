"""Texts → ids on all cores, in the order they came, with bounded memory.

Neither the ids nor their order depend on the number of processes: each text is encoded alone.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from yanmo.core.workers import cores, in_order, processes
from yanmo.tokenizer import CharTokenizer, Tokenizer
from yanmo.tokenizer.base import Ids
from yanmo.tokenizer.roundtrip import RoundTripLoss

T = TypeVar("T")
PARALLEL_FROM_BYTES = 64 << 20
"""Bytes of text from which on several processes are faster: starting them needs about a second, in which one
process with its threads encodes tens of megabytes."""


@dataclass(frozen=True)
class Encoded:
    """The ids of some texts, and what was lost of them."""

    ids: list[Ids]
    lost: RoundTripLoss | None = None


def processes_for(tokenizer: Tokenizer, size: int) -> int:
    """How many processes to encode ``size`` bytes with; 1 is this one alone."""
    # a table of characters is looked up faster than texts are pickled, sent and received
    return 1 if isinstance(tokenizer, CharTokenizer) or size < PARALLEL_FROM_BYTES else cores()


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> Encoded:
    """The ids of each text, and what they lose if the vocabulary can lose something."""
    found = [tokenizer.encode(text) for text in texts]
    if tokenizer.lossless:
        return Encoded(found)
    lost = RoundTripLoss()
    for text, ids in zip(texts, found, strict=True):
        # only lossy vocabularies pay for decoding everything again
        lost.count(text, tokenizer.decode(ids))
    return Encoded(found, lost)


def encode_all(
    batches: Iterable[T], texts_of: Callable[[T], Sequence[str]], tokenizer: Tokenizer, number: int
) -> Iterator[tuple[T, Encoded]]:
    """Each batch with the ids of its texts, in order, encoded by ``number`` processes.

    Raises:
        DataError: the system ended one of the processes.
    """
    with _workers(tokenizer, number) as (submit, workers):
        yield from in_order(batches, lambda batch: submit(texts_of(batch)), workers)


@contextlib.contextmanager
def _workers(
    tokenizer: Tokenizer, number: int
) -> Iterator[tuple[Callable[[Sequence[str]], Future[Encoded]], int]]:
    """How to have texts encoded, and how many are at work."""
    if number == 1:  # threads suffice for small texts: the tokenizer libraries release the GIL
        with ThreadPoolExecutor(cores()) as threads:
            yield (lambda texts: threads.submit(encode, tokenizer, texts)), cores()
        return
    hint = "the same command resumes; data.workers=1 needs the least memory"
    # the tokenizer is sent once to each process, not with each text
    with processes(number, _begin, (tokenizer,), "tokenises", hint) as pool:
        yield (lambda texts: pool.submit(_encode_here, texts)), number


_tokenizer: Tokenizer | None = None
"""The tokenizer of a process of the pool; a global, since submitted functions share nothing else."""


def _begin(tokenizer: Tokenizer) -> None:
    """Prepare a process of the pool."""
    global _tokenizer
    _tokenizer = tokenizer
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism


def _encode_here(texts: Sequence[str]) -> Encoded:
    assert _tokenizer is not None
    return encode(_tokenizer, texts)

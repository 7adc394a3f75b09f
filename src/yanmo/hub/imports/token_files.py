"""Token files of nanoGPT and llm.c → the text they were made of, with a check that it is the same.

    nanoGPT    train.bin, val.bin: nothing but little-endian uint16, with a meta.pkl of characters, or GPT-2's
    llm.c      a header of 256 numbers of 32 bits, the first of which is a magic number; also as .npy

yanmo has one road from text to tokens, so token files are turned back into text, which then takes that road.
Encoded again, the text must give the tokens of the file; the import reports how many documents differ.
"""

import json
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from yanmo.core.errors import DataError, StorageError
from yanmo.tokenizer import Tokenizer

HEADER = 256
LLM_C: dict[int, type[np.unsignedinteger]] = {20240520: np.uint16, 20240801: np.uint32}
"""First number of llm.c's header: GPT-2's tokens, Llama 3's."""
NPY = b"\x93NUMPY"
NPY_ERRORS = (
    ValueError, TypeError, OverflowError, EOFError, SyntaxError, tokenize.TokenError, RecursionError,
    MemoryError, LookupError, AttributeError,
)  # fmt: skip
"""Errors of numpy at a damaged header, which it parses as a Python literal."""
Tokens = npt.NDArray[np.unsignedinteger]


@dataclass
class Restored:
    """The counts of restored text."""

    documents: int = 0
    tokens: int = 0
    characters: int = 0
    differing: int = 0
    """Documents whose text, encoded again, gives other tokens."""


def read_tokens(path: Path) -> Tokens:
    """The tokens of a file, memory-mapped.

    Raises:
        DataError: its size or its header is not that of such a file.
        StorageError: it cannot be read.
    """
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            first = file.read(len(NPY))
        if first == NPY:
            return _read_npy(path)
        # a token has two bytes at least
        if size % 2 or not size:
            raise DataError(f"{size:,} bytes are not a whole number of tokens", str(path), "copy it again")
        head = np.fromfile(path, dtype="<i4", count=min(HEADER, size // 4))
        if len(head) == HEADER and int(head[0]) in LLM_C:
            return _read_llm_c(path, head, size)
        # nanoGPT writes no header: whatever is no llm.c file is taken for its tokens
        return np.memmap(path, dtype="<u2", mode="r")
    except OSError as error:
        raise StorageError(f"it cannot be read: {error.strerror}", str(path), "check the file") from error


def _read_llm_c(path: Path, head: npt.NDArray[np.int32], size: int) -> Tokens:
    kind = np.dtype(LLM_C[int(head[0])]).newbyteorder("<")
    count, room = int(head[2]), (size - 4 * HEADER) // kind.itemsize
    # a shard that was cut off would lose its end without a word
    if count != room or size != 4 * HEADER + count * kind.itemsize:
        raise DataError(
            f"its header says {count:,} tokens, but the file has room for {room:,}",
            str(path),
            "copy it again",
        )
    return np.memmap(path, dtype=kind, mode="r", offset=4 * HEADER)


def _read_npy(path: Path) -> Tokens:
    try:
        # never a pickle: an array of objects is one
        tokens = np.load(path, mmap_mode="r", allow_pickle=False)
    except NPY_ERRORS as error:
        raise DataError(
            f"it is not an array of tokens: {error}", str(path), "save it as unsigned numbers"
        ) from error
    if tokens.ndim != 1 or tokens.dtype.kind not in "ui" or not len(tokens):
        raise DataError(
            f"an array of {tokens.dtype}, {tokens.shape}, is not a list of tokens",
            str(path),
            "save it as unsigned numbers",
        )
    return tokens  # type: ignore[no-any-return]


def documents_in(tokens: Tokens, end_of_text: int) -> Iterator[npt.NDArray[np.int64]]:
    """The tokens of each document, without end-of-text."""
    # nanoGPT ends documents with it, llm.c begins them with it: both are separators here
    start = 0
    ends = [*np.flatnonzero(tokens == end_of_text).tolist(), len(tokens)]
    for end in ends:
        if end > start:
            yield np.asarray(tokens[start:end], dtype=np.int64)
        start = end + 1


def restore_text(files: tuple[Path, ...], tokenizer: Tokenizer, target: Path, found: Restored) -> None:
    """Write the text of token files into ``target``, .jsonl, one document to a line; count it in ``found``.

    Raises:
        DataError: a token is not in the vocabulary.
    """
    with open(target, "w", encoding="utf-8", newline="\n") as out:
        for tokens in _joined([read_tokens(file) for file in files], tokenizer.end_of_text):
            _require_known(tokens, tokenizer, files)
            for ids in documents_in(tokens, tokenizer.end_of_text):
                text = tokenizer.decode(ids)
                again = tokenizer.encode(text)
                found.documents += 1
                found.tokens += len(ids)
                found.characters += len(text)
                found.differing += not np.array_equal(again, ids)
                out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


def _joined(parts: list[Tokens], end_of_text: int) -> list[Tokens]:
    """Files of one document that was cut, as one: those in which nothing ends a document."""
    # nanoGPT cuts one text into train.bin and val.bin; llm.c ends each document
    if any((part == end_of_text).any() for part in parts):
        return parts
    return [np.concatenate(parts)]


def _require_known(tokens: Tokens, tokenizer: Tokenizer, files: tuple[Path, ...]) -> None:
    least, largest = (int(tokens.min()), int(tokens.max())) if len(tokens) else (0, 0)
    if not len(tokens) or least < 0 or largest >= tokenizer.vocab_size:
        raise DataError(
            f"token {least if least < 0 else largest:,} is outside the vocabulary of"
            f" {tokenizer.vocab_size:,}",
            where=", ".join(file.name for file in files),
            hint="give the vocabulary that they were made with: tokenizer.path=meta.pkl, or GPT-2's folder",
        )

"""Token shards on disk: memory-mapped ids, document starts, and a manifest that says what they are.

A folder holds, for each split (``train``, ``val``), files ``<split>-00000.bin`` of little-endian uint16
or uint32 ids (by the largest id), ``<split>.starts.bin`` (uint64: where each document begins), and one
``manifest.json`` with counts, dtype and the fingerprints of corpus and tokenizer. Documents end with
the end-of-text token. Where not all is learned, ``<split>.marks.bin`` has a byte for each token. Reading
maps the files of ids and never loads them whole.
"""

import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import NonNegativeInt

from yanmo.core.errors import DataError
from yanmo.core.records import Manifest, SplitCounts, TypedRecord, read_record
from yanmo.core.storage import not_through_a_link, write_json

FORMAT = 1
SHARD_TOKENS = 1 << 28
"""Tokens in one file; half a gigabyte as uint16."""

CHUNK_BYTES = 1 << 24
"""Bytes that a checksum reads at a time."""

Ids = npt.NDArray[np.int64]
Marks = npt.NDArray[np.uint8]
LEARNED, REJECTED = 1, 2
"""Marks of tokens: what a model is to write, and what it is to write less likely."""


def dtype_for(vocab_size: int) -> np.dtype[Any]:
    """The smallest unsigned type that holds every id below ``vocab_size``."""
    # two bytes hold the ids 0 to 65,535, and so nearly every vocabulary of characters, on half the disk
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


class WriterMark(TypedRecord):
    """How much of a split of unfinished shards is on disk, with checksums of its tokens and of its starts."""

    tokens: NonNegativeInt = 0
    characters: NonNegativeInt = 0
    documents: NonNegativeInt = 0
    tokens_crc: int = 0
    starts_crc: int = 0


class ShardWriter:
    """Writes the documents of one split, in order.

    ``mark`` gives a place to resume from: a writer that begins there goes on as if the work had never been
    interrupted, whatever was written after the mark. :meth:`is_whole` checks what was written before it.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        vocab_size: int,
        shard_tokens: int = SHARD_TOKENS,
        mark: WriterMark | None = None,
    ) -> None:
        mark = mark or WriterMark()
        self._folder, self._split, self._shard_tokens = folder, split, shard_tokens
        self._dtype, self._vocab_size = dtype_for(vocab_size), vocab_size
        self.tokens, self.characters, self.documents = mark.tokens, mark.characters, mark.documents
        self._crc, self._starts_crc = mark.tokens_crc, mark.starts_crc
        self._file: BinaryIO | None = None
        self._starts = _open_at(folder / f"{split}.starts.bin", self.documents * 8)
        # at a multiple the next token opens a new file, as in ``write``
        if self.tokens % shard_tokens:
            self._open(self.tokens // shard_tokens, self.tokens % shard_tokens)

    @staticmethod
    def is_whole(
        folder: Path, split: str, vocab_size: int, mark: WriterMark, shard_tokens: int = SHARD_TOKENS
    ) -> bool:
        """Whether all that was written up to a mark is on the disk, whatever a power loss did."""
        # by content, not by size alone: after a power loss a file may have its length and zeros in it
        itemsize = dtype_for(vocab_size).itemsize
        sizes = [
            itemsize * min(shard_tokens, mark.tokens - first) for first in range(0, mark.tokens, shard_tokens)
        ]
        files = [folder / _name_of(split, number) for number in range(len(sizes))]
        tokens = _checksum(files, sizes)
        return (tokens, _checksum([folder / f"{split}.starts.bin"], [8 * mark.documents])) == (
            mark.tokens_crc,
            mark.starts_crc,
        )

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *exc: object) -> None:
        for file in self._open_files():
            file.close()

    def begin_document(self) -> None:
        """The next token begins a document."""
        start = self.tokens.to_bytes(8, "little")
        self._starts.write(start)
        self._starts_crc = zlib.crc32(start, self._starts_crc)
        self.documents += 1

    def write(self, ids: Ids, characters: int) -> None:
        """Append ids, which encode ``characters`` characters."""
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self._vocab_size:
            raise DataError(
                f"token id {int(ids.max())} is outside the vocabulary of {self._vocab_size}",
                where=str(self._folder),
                hint="the shards are not from this tokenizer; delete .yanmo and try again",
            )
        self.characters += characters
        while len(ids):
            room = self._shard_tokens - self.tokens % self._shard_tokens
            if room == self._shard_tokens:
                self._open(self.tokens // self._shard_tokens, 0)
            now, ids = ids[:room], ids[room:]
            assert self._file is not None
            # the range was checked above: astype would silently wrap a larger id into another token
            written = now.astype(self._dtype).tobytes()
            self._file.write(written)
            # a running checksum: a mark then costs nothing, however large the shards are
            self._crc = zlib.crc32(written, self._crc)
            self.tokens += len(now)

    def mark(self) -> WriterMark:
        """Force what is written to the disk; returns the place to resume from."""
        for file in self._open_files():
            file.flush()
            # without fsync the mark could reach the disk before the tokens that it vouches for
            os.fsync(file.fileno())
        return WriterMark(
            tokens=self.tokens, characters=self.characters, documents=self.documents,
            tokens_crc=self._crc, starts_crc=self._starts_crc,
        )  # fmt: skip

    def close(self) -> dict[str, Any]:
        """Finish; returns this split's part of the manifest."""
        self.__exit__()
        number_of_files = -(-self.tokens // self._shard_tokens)
        return {
            "files": [self._name(number) for number in range(number_of_files)],
            "documents": self.documents,
            "tokens": self.tokens,
            "characters": self.characters,
        }

    def _open_files(self) -> list[BinaryIO]:
        return [self._starts] if self._file is None else [self._starts, self._file]

    def _name(self, number: int) -> str:
        return _name_of(self._split, number)

    def _open(self, number: int, tokens: int) -> None:
        if self._file is not None:
            self.mark()  # only the open file is synced later, so this one now
            self._file.close()
        self._file = _open_at(self._folder / self._name(number), tokens * self._dtype.itemsize)


def _name_of(split: str, number: int) -> str:
    return f"{split}-{number:05d}.bin"


def _checksum(files: list[Path], sizes: list[int]) -> int | None:
    """The checksum of the first bytes of some files, one after the other; None: there are fewer."""
    found = 0
    for path, size in zip(files, sizes, strict=True):
        if size and (not path.is_file() or path.stat().st_size < size):
            return None
        left = size
        while left:
            with open(path, "rb") as file:
                file.seek(size - left)
                part = file.read(min(left, CHUNK_BYTES))
            found, left = zlib.crc32(part, found), left - len(part)
    return found


def _open_at(path: Path, size: int) -> BinaryIO:
    """A file to append to after its first ``size`` bytes; what follows them is cut off."""
    file = open(path, "a+b", opener=not_through_a_link)  # noqa: SIM115 - its owner closes it
    file.truncate(size)
    file.seek(size)
    return file


class TokenRow(Protocol):
    """Tokens as one long row."""

    def __len__(self) -> int: ...

    def at(self, positions: Ids) -> Ids:
        """The tokens at positions of any shape; same shape."""
        ...


@dataclass(frozen=True)
class RowInMemory:
    """A short row."""

    ids: Ids

    def __len__(self) -> int:
        return len(self.ids)

    def at(self, positions: Ids) -> Ids:
        """The tokens at positions of any shape; same shape."""
        return self.ids[positions]


class Tokens:
    """The tokens of one split as one long row, mapped from its files."""

    def __init__(
        self,
        files: list[Path],
        dtype: str,
        starts: Path,
        vocab_size: int = 1 << 32,
        marks: Marks | None = None,
    ) -> None:
        self._files, self._vocab_size = files, vocab_size
        self.marks = marks
        """What each token is there for: ``LEARNED``, ``REJECTED``, or 0, only read; None: all are learned."""
        # memory-mapped: the system reads pages when they are used and may drop them again, so a corpus larger
        # than memory works, and several ranks on one machine share the pages
        self._maps = [np.memmap(file, dtype=np.dtype(dtype), mode="r") for file in files]
        self._ends = np.cumsum([len(part) for part in self._maps], dtype=np.int64)
        self.starts = np.fromfile(starts, dtype="<u8").astype(np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def learned(self) -> npt.NDArray[np.bool_] | None:
        """Which tokens are learned; None: all."""
        return None if self.marks is None else self.marks == LEARNED

    def document(self, number: int) -> Ids:
        """The tokens of a document."""
        following = self.starts[number + 1 : number + 2].tolist()
        return self.slice(int(self.starts[number]), (following or [len(self)])[0])

    def document_marks(self, number: int) -> Marks:
        """What its tokens are there for."""
        assert self.marks is not None
        first = int(self.starts[number])
        return self.marks[first : first + len(self.document(number))]

    def at(self, positions: Ids) -> Ids:
        """The tokens at positions of any shape; same shape.

        Raises:
            DataError: one is beyond the vocabulary.
        """
        # the usual case, without the search
        if len(self._maps) == 1:
            return self._known(self._maps[0][positions].astype(np.int64))
        found = np.empty(positions.shape, dtype=np.int64)
        # the first file whose end is greater than the position
        shard = np.searchsorted(self._ends, positions, side="right")
        for number, part in enumerate(self._maps):
            here = shard == number
            first = self._ends[number] - len(part)
            found[here] = part[positions[here] - first]
        return self._known(found)

    def _known(self, ids: Ids) -> Ids:
        # a damaged shard: as an index such an id would crash in the embedding, on a GPU without saying where
        if ids.size and int(ids.max()) >= self._vocab_size:
            raise DataError(
                f"token {int(ids.max()):,} is outside the vocabulary of {self._vocab_size:,}",
                where=f"{self._files[0].parent}: {', '.join(file.name for file in self._files[:5])}",
                hint="restore the shards from a copy, or prepare them again",
            )
        return ids

    def slice(self, start: int, stop: int) -> Ids:
        """The tokens from ``start`` to ``stop``, shape (stop - start,)."""
        return self.at(np.arange(start, min(stop, len(self)), dtype=np.int64))


class ShardSet:
    """A folder of shards: ``train`` and ``val`` tokens and the manifest."""

    def __init__(self, folder: Path, corpus: str, tokenizer: str) -> None:
        """Open ``folder``; its corpus and tokenizer must be the ones expected.

        Raises:
            DataError: the shards were made of another corpus or with another tokenizer.
        """
        self.folder = folder
        hint = "delete that folder; yanmo makes it again"
        self.manifest = read_record(folder / "manifest.json", Manifest, DataError, hint)
        for name, found, expected in (
            ("corpus", self.manifest.corpus, corpus),
            ("tokenizer", self.manifest.tokenizer, tokenizer),
        ):
            if found != expected:
                raise DataError(
                    f"the shards belong to {name} {found}, not {expected}",
                    where=str(folder),
                    hint="delete that folder; yanmo makes the shards again",
                )
        self.train = self._open(folder, "train", self.manifest.splits.train)
        self.val = self._open(folder, "val", self.manifest.splits.val)

    def _open(self, folder: Path, split: str, part: SplitCounts) -> Tokens:
        files = [folder / Path(name).name for name in part.files]
        starts = folder / f"{split}.starts.bin"
        vocab_size = self.manifest.vocab_size
        dtype = dtype_for(vocab_size)
        # a truncated file would shift every later token without any error
        sizes = [sum(path.stat().st_size for path in group if path.is_file()) for group in (files, [starts])]
        if sizes != [dtype.itemsize * part.tokens, 8 * part.documents]:
            raise DataError(
                f"the files of {split} have {sizes[0]:,} bytes of tokens and {sizes[1]:,} of starts, but"
                f" manifest.json says {part.tokens:,} tokens and {part.documents:,} documents",
                where=str(folder),
                hint="delete that folder; yanmo makes the shards again",
            )
        return Tokens(files, dtype.str, starts, vocab_size, self._marks(folder, split, part))

    def _marks(self, folder: Path, split: str, part: SplitCounts) -> Marks | None:
        """The marks beside the tokens, if only some of them are learned."""
        if part.targets is None:
            return None
        path = folder / f"{split}.marks.bin"
        found = np.fromfile(path if path.is_file() else os.devnull, dtype=np.uint8)
        if len(found) != part.tokens or np.count_nonzero(found == LEARNED) != part.targets:
            raise DataError(
                f"the marks of {split} do not fit its {part.tokens:,} tokens",
                where=str(folder),
                hint="delete that folder; yanmo makes it again",
            )
        return found


def write_manifest(
    folder: Path,
    corpus: str,
    tokenizer: str,
    vocab_size: int,
    splits: Mapping[str, Any],
    more: Mapping[str, Any],
) -> None:
    """Write manifest.json, the last file of a shard folder: a folder without it is not finished."""
    manifest = {
        "format": FORMAT,
        "dtype": dtype_for(vocab_size).str,
        "vocab_size": vocab_size,
        "corpus": corpus,
        "tokenizer": tokenizer,
        "splits": dict(splits),
        **more,
    }
    write_json(folder / "manifest.json", manifest)

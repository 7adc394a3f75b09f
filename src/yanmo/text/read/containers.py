"""A file → the streams in it: itself, what is compressed in it, or the members of a .zip.

In: a path. Out: :class:`Entry`, each with its name, its kind and how to open it. Nothing is ever written
to the disk. What comes out is counted as it comes, so that sizes that lie help no bomb: beyond
``FREE_BYTES``, what has come out of a file may be at most ``MAX_RATIO`` times what went in.
"""

import bz2
import contextlib
import gzip
import io
import lzma
import stat
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from yanmo.text.read.encodings import decode
from yanmo.text.read.kinds import ARCHIVE, KINDS, layers_of
from yanmo.text.read.records import NeedsExtra, Unusable

BOMB = "expands too much"
DAMAGED = "damaged archive"
ENCRYPTED = "encrypted"
NESTED = "archive in an archive"
LINK = "link"
TOO_LARGE = "too large to read whole"
MAX_RATIO = 200
"""How many times its size a file may grow when it is unpacked; text grows 3 to 50 times."""
FREE_BYTES = 16 << 20
"""So much may come out of any file."""
MAX_WHOLE_BYTES = 512 << 20
"""Bytes of a file of a kind that has to be in memory as a whole when it comes out of a container."""
BUFFER_BYTES = 1 << 16
UNPACK_BYTES = 1 << 20
"""Bytes unpacked at a time, however many are asked for, so that a bomb is noticed early."""
DAMAGE: tuple[type[Exception], ...] = (
    EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError,
)  # fmt: skip
"""What the libraries raise where packed bytes are damaged, beside an OSError without a number."""
ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, LookupError)


@dataclass(frozen=True)
class Entry:
    """A stream in a file."""

    name: str
    """The member's name in a .zip, without anything that leads elsewhere; else empty."""
    kind: str
    """One of ``KINDS``, or another suffix, which is not read."""
    open: Callable[[], BinaryIO]
    """Raises :class:`Unusable` where the entry is not for reading."""
    share: Callable[[float], float]
    """The part of the file's size that so many bytes of this entry, read just now, took."""


@contextlib.contextmanager
def entries(file: Path, kind: str, wrappers: list[str]) -> Iterator[Iterator[Entry]]:
    """The entries of a file, in the order of their names.

    Raises:
        Unusable: the .zip cannot be read at all.
    """
    with open(file, "rb") as raw:
        if kind != ARCHIVE:
            yield iter([_file_entry(raw, kind, wrappers)])
            return
        try:
            archive = zipfile.ZipFile(raw)
        except ZIP_ERRORS as error:
            raise _damaged(error) from error
        with archive:
            yield _members(archive, file.stat().st_size)


def read_whole(stream: BinaryIO) -> bytes:
    """All bytes of a stream, if they are not too many."""
    data = stream.read(MAX_WHOLE_BYTES + 1)
    if len(data) > MAX_WHOLE_BYTES:
        raise Unusable(
            TOO_LARGE, f"the file has more than {MAX_WHOLE_BYTES >> 20} MB and cannot be read in parts",
            hint="unpack it, or cut it into several",
        )  # fmt: skip
    return data


def open_zip(stream: BinaryIO) -> zipfile.ZipFile:
    """A .zip that is read as a whole, such as an .epub.

    Raises:
        Unusable: it is none.
    """
    try:
        return zipfile.ZipFile(stream)
    except ZIP_ERRORS as error:
        raise _damaged(error) from error


def member_reader(archive: zipfile.ZipFile, size: int) -> Callable[[zipfile.ZipInfo], BinaryIO]:
    """Opens members of an archive of so many bytes, which share its allowance."""
    budget = UnpackBudget(lambda: size)
    return lambda member: _open_member(archive, member, budget)


# -- one file ---------------------------------------------------------------------------------


def _file_entry(raw: BinaryIO, kind: str, wrappers: list[str]) -> Entry:
    if not wrappers:
        return Entry("", kind, lambda: raw, lambda size: size)
    consumed = 0

    def share(_: float) -> float:
        nonlocal consumed
        before, consumed = consumed, raw.tell()
        return consumed - before

    return Entry("", kind, lambda: _unwrapped(raw, wrappers, UnpackBudget(raw.tell)), share)


def _unwrapped(stream: BinaryIO, wrappers: list[str], budget: "UnpackBudget") -> BinaryIO:
    """What is in the compressed streams that are in each other."""
    for wrapper in wrappers:
        stream = cast(
            BinaryIO, io.BufferedReader(_Unpacked(*_decompressed(stream, wrapper), budget), BUFFER_BYTES)
        )
        budget = UnpackBudget(stream.tell)
    return stream


def _decompressed(stream: BinaryIO, wrapper: str) -> tuple[Any, tuple[type[Exception], ...]]:
    """What unpacks a stream, and what it raises where the stream is damaged."""
    if wrapper == ".gz":
        return gzip.GzipFile(fileobj=stream), DAMAGE
    if wrapper == ".bz2":
        return bz2.BZ2File(stream), DAMAGE
    if wrapper == ".xz":
        return lzma.LZMAFile(stream), DAMAGE
    try:
        # Not the package zstandard: its reader takes a file that was torn off for a whole one.
        if sys.version_info >= (3, 14):
            from compression.zstd import ZstdError, ZstdFile
        else:
            from backports.zstd import ZstdError, ZstdFile
    except ImportError as error:
        raise NeedsExtra("backports.zstd", ".zst") from error
    return ZstdFile(stream), (*DAMAGE, ZstdError)


class UnpackBudget:
    """What may come out, by what went in."""

    def __init__(self, consumed: Callable[[], int]) -> None:
        self._consumed = consumed
        self._produced = 0

    def spend(self, size: int) -> None:
        self._produced += size
        self.refuse_beyond(0)

    def refuse_beyond(self, size: int) -> None:
        """What says itself that it is too large is refused before it uses up what others may need."""
        if self._produced + size > max(FREE_BYTES, MAX_RATIO * self._consumed()):
            raise Unusable(
                BOMB, f"the file grows more than {MAX_RATIO} times when it is unpacked",
                hint="this is no text as people write it; if it is yours, unpack it",
            )  # fmt: skip


class _Unpacked(io.RawIOBase):
    """A stream of unpacked bytes that are counted and whose errors are ours."""

    def __init__(self, source: Any, damage: tuple[type[Exception], ...], budget: UnpackBudget) -> None:
        self._source = source
        self._damage = damage
        self._budget = budget
        self._produced = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._produced

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._source.read1(min(len(buffer), UNPACK_BYTES))
        except self._damage as error:
            raise _damaged(error) from error
        except OSError as error:
            if self._produced and isinstance(error, gzip.BadGzipFile) and "Not a gzipped file" in str(error):
                return 0  # something stands behind the last member: gunzip leaves it out, too
            if error.errno is not None:
                raise
            raise _damaged(error) from error
        self._produced += len(data)
        self._budget.spend(len(data))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()


# -- the members of a .zip --------------------------------------------------------------------


def _members(archive: zipfile.ZipFile, size: int) -> Iterator[Entry]:
    """Members in the order of their names; hidden ones and folders are none."""
    budget = UnpackBudget(lambda: size)
    named = sorted(((safe_name(member), member) for member in archive.infolist()), key=lambda pair: pair[0])
    for name, member in named:
        is_hidden = any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
        if name and not member.is_dir() and not is_hidden:  # __MACOSX: what Finder packs beside each file
            yield _member_entry(archive, member, name, budget)


def _member_entry(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, budget: UnpackBudget
) -> Entry:
    kind, wrappers = layers_of(name)
    ratio = member.compress_size / max(member.file_size, 1)
    consumed = 0
    inner: BinaryIO | None = None

    def opened() -> BinaryIO:
        nonlocal inner
        if kind == ARCHIVE:
            raise Unusable(NESTED, "the file is an archive in an archive", hint="unpack the outer one")
        inner = _open_member(archive, member, budget)
        return _unwrapped(inner, wrappers, UnpackBudget(inner.tell)) if wrappers else inner

    def share(size: float) -> float:
        nonlocal consumed
        if not wrappers or inner is None:
            return ratio * size
        before, consumed = consumed, inner.tell()
        return ratio * (consumed - before)

    is_read = kind in KINDS or kind == ARCHIVE
    return Entry(name, kind if is_read else "", opened, share)


def _open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, budget: UnpackBudget) -> BinaryIO:
    if member.flag_bits & 1:
        raise Unusable(ENCRYPTED, "the file is encrypted", hint="unpack it with its password")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise Unusable(LINK, "the file is a link to another", hint="pack the file itself")
    budget.refuse_beyond(member.file_size)  # what it says may be a lie; what comes out is counted as well
    try:
        stream = archive.open(member)
    except ZIP_ERRORS as error:
        raise _damaged(error) from error
    return cast(BinaryIO, io.BufferedReader(_Unpacked(stream, DAMAGE, budget), BUFFER_BYTES))


def safe_name(member: zipfile.ZipInfo) -> str:
    """A member's name for people: no way out of the archive, and GBK names as they were meant."""
    name = member.filename
    if not member.flag_bits & 0x800:  # not marked as UTF-8: zipfile has read it as code page 437
        with contextlib.suppress(ValueError):
            name = decode(member.filename.encode("cp437"))[0]
    return safe_path(name)


def safe_path(name: str) -> str:
    """A path within an archive that leads nowhere else and can be shown."""
    parts = name.replace("\\", "/").split("/")
    kept = [p for p in parts if p not in ("", ".", "..") and not (len(p) == 2 and p[1] == ":")]
    return "".join(c if c.isprintable() else "_" for c in "/".join(kept))


def _damaged(error: Exception) -> Unusable:
    return Unusable(DAMAGED, f"the file is damaged: {error}", hint="fetch or pack it again")

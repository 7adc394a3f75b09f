"""A path of a corpus → the files it means, in a fixed order; standard input → a file.

In: a file, a folder, a glob, or ``-``. Out: :class:`Source`. Hidden folders are passed over, and so are run
folders: what a model wrote is not its corpus. Standard input is kept in the cache, as it is read twice.
"""

import contextlib
import functools
import glob
import hashlib
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from yanmo import storage
from yanmo.errors import DataError
from yanmo.text.kinds import (
    ARCHIVE,
    KINDS,
    SNIFFED,
    WRAPPERS,
    has_no_telling_name,
    is_read,
    layers_of,
    sniff,
)

STDIN = "-"
"""The path that means standard input."""
CHUNK = 1 << 20
SURROGATES = re.compile("[\ud800-\udfff]")
"""How Python keeps the bytes of a file's name that it cannot decode."""


@dataclass(frozen=True)
class Source:
    """What one path of a corpus stands for."""

    files: list[Path]
    passed_over: list[Path]
    root: Path | None = None
    """The folder searched; documents are named from there."""
    is_search: bool = False
    """A folder or a glob: an unusable file in it is dropped; one that is named itself is an error."""

    def name(self, file: Path) -> str:
        """The name of a file's documents, for people."""
        if self.root is not None:
            return legible(file.relative_to(self.root).as_posix())
        return legible(file.as_posix() if self.is_search else file.name)


def legible(path: Path | str) -> str:
    """A path as it can be written; U+FFFD for each byte of a name that is no UTF-8.

    It names the file; only the path itself opens it.
    """
    return SURROGATES.sub("\ufffd", str(path))


def suffix_of(path: Path | str) -> str:
    """What files that are passed over are counted under."""
    return legible(Path(path).suffix) or "no suffix"


def find_files(path: str) -> Source:
    """The files a path means: itself, those of a folder at any depth, or those of a glob; sorted by name.

    Raises:
        DataError: there are none.
    """
    if path == STDIN:
        return Source([spooled_stdin()], [])
    found = Path(path)
    if found.is_dir():
        source = _searched(_walk(found), root=found)
        if not source.files:
            raise DataError(
                f"the folder has no {known_kinds()} file",
                where=legible(path),
                mend="give a folder with texts",
            )
        return source
    if not found.is_file() and glob.has_magic(path):
        source = _searched(_glob(path))
        if not source.files:
            raise DataError(
                f"no {known_kinds()} file matches",
                where=legible(path),
                mend="check the pattern; ** stands for folders at any depth",
            )
        return source
    if not found.is_file():
        raise DataError("there is no such file or folder", where=legible(path), mend="check the path")
    kind, wrappers = layers_of(found.name)
    if not is_read(found.name) and not has_no_telling_name(found.name):
        raise DataError(
            f"{''.join([kind, *reversed(wrappers)])} files are not read",
            where=legible(path),
            mend=f"give a {known_kinds()} file, packed or not ({', '.join((*WRAPPERS, ARCHIVE))})",
        )
    return Source([found], [])


def known_kinds() -> str:
    """The kinds of files that are read, for people."""
    return f"{', '.join(KINDS[:-1])} or {KINDS[-1]}"


def kind_of(file: Path) -> tuple[str, list[str]]:
    """(kind, wrappers from the outermost inwards) of a file by its name, or by its first bytes."""
    kind, wrappers = layers_of(file.name)
    if kind:
        return kind, wrappers
    if wrappers:
        return ".txt", wrappers
    with readable(file), open(file, "rb") as stream:
        return layers_of("x" + sniff(stream.read(SNIFFED)))


@contextlib.contextmanager
def readable(file: Path) -> Iterator[None]:
    """Errors of the system in words."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"the file cannot be read: {error.strerror}", where=legible(file), mend="check its permissions"
        ) from error


# -- searching --------------------------------------------------------------------------------


def _searched(files: Iterable[Path], root: Path | None = None) -> Source:
    """Files found by searching, sorted into those that are read and the others."""
    found = sorted(files)
    texts = [file for file in found if _is_wanted(file)]
    wanted = set(texts)
    return Source(texts, [file for file in found if file not in wanted], root, is_search=True)


def _is_wanted(file: Path) -> bool:
    """Of files without a telling name, JSON lines alone are: such are the files of extracted dumps."""
    if file.suffix:
        return is_read(file.name)
    try:
        return kind_of(file)[0] == ".jsonl"
    except DataError:
        return False


def _glob(pattern: str) -> Iterator[Path]:
    """Files that match, and those of folders that match; each once."""
    seen: set[Path] = set()
    matches = glob.glob(pattern, recursive=True)  # noqa: PTH207  (Path.glob finds hidden files too)
    for match in map(Path, matches):
        if any((folder / "run.lock").exists() for folder in (match, *match.parents)):
            continue
        for file in [match] if match.is_file() else _walk(match):
            if file not in seen:
                seen.add(file)
                yield file


def _walk(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_file():
            yield entry
        elif entry.is_dir() and not (entry / "run.lock").exists():
            yield from _walk(entry)


# -- standard input ---------------------------------------------------------------------------


@functools.cache
def spooled_stdin() -> Path:
    """Standard input as a file of the cache, named by its content; read once."""
    return spool(sys.stdin.buffer, storage.cache_root() / "stdin")


def spool(stream: BinaryIO, folder: Path) -> Path:
    """Copy a stream into a file in ``folder/<hash of the content>``, a little at a time."""
    head = stream.read(SNIFFED)
    temporary = folder / f"{storage.TEMPORARY}{os.getpid()}"
    digest = hashlib.sha256(head)
    with storage.disk_errors("keeping standard input", folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(head)
                while chunk := stream.read(CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
            target = folder / digest.hexdigest()[:16] / f"stdin{sniff(head)}"
            target.parent.mkdir(exist_ok=True)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    return target

"""A path of a corpus → the files it means, in a fixed order; standard input → a file.

In: a file, a folder, a glob, or ``-``. Out: :class:`Source`. Hidden folders are passed over, and so are run
folders: what a model wrote is not its corpus. Links in a folder are passed over, too, and counted: what they
lead to is read where it lies, once, or lies outside. Standard input is kept in the cache: it is read twice.
"""

import contextlib
import functools
import glob
import hashlib
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from yanmo.core import storage
from yanmo.core.errors import DataError
from yanmo.settings.places import iglob, plain_parts
from yanmo.text.read.kinds import (
    ARCHIVE,
    EXTRACTED,
    KINDS,
    SNIFFED_BYTES,
    WRAPPERS,
    has_no_telling_name,
    is_read,
    layers_of,
    sniff,
)

STDIN = "-"
"""The path that means standard input."""
READ_BYTES = 1 << 20
RUN_LOCK = "run.lock"
"""What a run folder has."""
ARROW = ".arrow"
SAVED_NAMES = ("dataset_info.json", "state.json")
SAVED_DICT = "dataset_dict.json"
"""What Hugging Face's ``save_to_disk`` writes beside .arrow files, and above the folders of several parts."""
WAYS_OUT = {
    ARROW: 'in Python: datasets.Dataset.from_file("x.arrow").to_parquet("x.parquet"), for each .arrow',
    ".doc": "save it as .docx or .txt",
    ".mobi": "convert it to .epub",
    ".azw3": "convert it to .epub",
}
"""How to make a file that is read of one that is not."""
LINK = "link"
UNREADABLE_FOLDER = "unreadable folder"
MAX_ENTRIES = 10_000
"""Files and folders in the top of a disk or in a home, where that is named as a corpus."""
SHOWN_FILES = 5
"""So many files are named where nothing is read."""
SURROGATES = re.compile("[\ud800-\udfff]")
"""How Python keeps the bytes of a file's name that it cannot decode."""


@dataclass(frozen=True)
class Source:
    """What one path of a corpus stands for."""

    files: list[Path]
    passed_over: Counter[str]
    """What a folder has beside them, by suffix."""
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
        return Source([spooled_stdin()], Counter())
    found = Path(path)
    if found.is_dir():
        if is_run(found):
            raise DataError(
                "the folder is a run, and what a model wrote is not its corpus",
                where=legible(path),
                hint=f"yanmo train {legible(path)}, alone, goes on with that run; else name a text",
            )
        search = _Search(is_everything(found))
        search.walk(found)
        nothing = f"the folder has no {known_kinds()} file"
        return search.source(nothing, path, "give a folder with texts", root=found)
    if not found.is_file() and glob.has_magic(path):
        search = _Search()
        search.glob(path)
        nothing = f"no {known_kinds()} file matches"
        return search.source(nothing, path, "check the pattern; ** stands for folders at any depth")
    if not found.is_file():
        raise DataError("there is no such file or folder", where=legible(path), hint="check the path")
    kind, wrappers = layers_of(found.name)
    if not is_read(found.name) and not has_no_telling_name(found.name):
        others = f"give a {known_kinds()} file, packed or not ({', '.join((*WRAPPERS, ARCHIVE))})"
        raise DataError(
            f"{''.join([kind, *reversed(wrappers)])} files are not read",
            where=legible(path),
            hint=WAYS_OUT.get(kind, others),
        )
    return Source([found], Counter())


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    return storage.is_file(folder / RUN_LOCK) and storage.is_file(folder / "recipe.toml")


def is_everything(folder: Path) -> bool:
    """Whether a folder is the top of a disk, or somebody's home."""
    real = Path(os.path.realpath(folder))
    home = os.path.expanduser("~")  # noqa: PTH111  (Path.expanduser raises where nobody has a home)
    return real in (Path(real.anchor), Path(os.path.realpath(home)))


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
        return layers_of("x" + sniff(stream.read(SNIFFED_BYTES)))


class UnreadableFile(DataError):
    """A file that the system does not let be read."""


@contextlib.contextmanager
def readable(file: Path) -> Iterator[None]:
    """Errors of the system in words."""
    try:
        yield
    except OSError as error:
        raise UnreadableFile(
            f"the file cannot be read: {error.strerror}", where=legible(file), hint="check its permissions"
        ) from error


# -- searching --------------------------------------------------------------------------------


class _Search:
    """Files found below folders, each real one once."""

    def __init__(self, is_everything: bool = False) -> None:
        self._left = MAX_ENTRIES if is_everything else math.inf
        self._found: set[Path] = set()
        self._links: set[Path] = set()
        self._unreadable: set[Path] = set()

    def walk(self, top: Path) -> None:
        """All files in a folder and in those in it.

        Raises:
            DataError: it is the top of a disk or a home, and has more in it than anybody's texts.
        """
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            try:
                inside = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
            except OSError:
                self._unreadable.add(folder)
                continue
            self._left -= len(inside)
            if self._left < 0:
                raise DataError(
                    f"the folder holds everything there is, more than {MAX_ENTRIES:,} files and folders",
                    where=legible(top),
                    hint="name the folder in it that has the texts",
                )
            links = {entry for entry in inside if entry.is_symlink()}
            self._links |= links
            self._found.update(entry for entry in inside if entry not in links and entry.is_file())
            # Hidden ones are left out above: .git, .yanmo and what an interrupted write left behind.
            waiting += (e for e in inside if e not in links and e.is_dir() and not (e / RUN_LOCK).exists())

    def glob(self, pattern: str) -> None:
        """Files that match, and those of folders that match."""
        plain = plain_parts(pattern)
        for match in map(Path, iglob(pattern)):
            way = [*reversed(match.parents), match]
            link = next((step for step in way if len(step.parts) > plain and step.is_symlink()), None)
            if link is not None:
                self._links.add(link)
            elif any((folder / RUN_LOCK).exists() for folder in way):
                continue
            elif match.is_file():
                self._found.add(match)
            else:
                self.walk(match)

    def source(self, nothing: str, path: str, hint: str, root: Path | None = None) -> Source:
        """What was found, sorted into files that are read and others.

        Raises:
            DataError: none is read; it begins with ``nothing``.
        """
        saved = {file.parent for file in self._found if file.suffix == ARROW}
        # Sorted: the order of a folder's entries is the disk's, and that of documents is a run's.
        texts = sorted(file for file in self._found if not _is_of_saved(file, saved) and _is_wanted(file))
        others = self._found.difference(texts)
        beside = Counter({LINK: len(self._links), UNREADABLE_FOLDER: len(self._unreadable)})
        if texts:
            return Source(texts, Counter(map(suffix_of, others)) + beside, root, is_search=True)
        said = _listed(others, +beside)
        if saved:
            said, hint = f"what datasets' save_to_disk writes ({said})", WAYS_OUT[ARROW]
        elif self._links:
            hint += "; links are not followed: name what they lead to"
        raise DataError(f"{nothing}; there is {said}", where=legible(path), hint=hint)


def _is_of_saved(file: Path, saved: set[Path]) -> bool:
    """Whether a file only describes what Hugging Face's save_to_disk wrote beside it."""
    if file.name == SAVED_DICT:
        return any(folder.parent == file.parent for folder in saved)
    return file.name in SAVED_NAMES and file.parent in saved


def _listed(files: Iterable[Path], beside: Counter[str]) -> str:
    """What there is, for people: suffixes with numbers, names where there is no suffix."""
    named = sorted(legible(file.name) for file in files if not file.suffix)
    counted = Counter(suffix_of(file) for file in files if file.suffix) + beside
    counted += Counter({"others without a suffix": max(len(named) - SHOWN_FILES, 0)})
    return (
        ", ".join([*named[:SHOWN_FILES], *(f"{what} {n}" for what, n in counted.most_common())]) or "nothing"
    )


def _is_wanted(file: Path) -> bool:
    """Of files without a telling name, those of extracted dumps are."""
    if file.suffix:
        return is_read(file.name)
    try:
        return kind_of(file)[0] in (".jsonl", EXTRACTED)
    except DataError:
        return False


# -- standard input ---------------------------------------------------------------------------


@functools.cache
def spooled_stdin() -> Path:
    """Standard input as a file of the cache, named by its content; read once."""
    return spool(sys.stdin.buffer, storage.cache_root() / "stdin")


def spool(stream: BinaryIO, folder: Path) -> Path:
    """Copy a stream into a file in ``folder/<hash of the content>``, a little at a time."""
    # Not storage.whole_file: the file is named after its content, so it has no name until all is written.
    head = stream.read(SNIFFED_BYTES)
    temporary = folder / f"{storage.TEMPORARY}{os.getpid()}"
    digest = hashlib.sha256(head)
    with storage.disk_errors("keeping standard input", folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(head)
                while chunk := stream.read(READ_BYTES):
                    digest.update(chunk)
                    file.write(chunk)
            target = folder / digest.hexdigest()[:16] / f"stdin{sniff(head)}"
            target.parent.mkdir(exist_ok=True)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    return target

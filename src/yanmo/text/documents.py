"""Documents: files of any usable encoding go in, ``Document`` objects come out, nothing vanishes.

In: the [corpus] section: files (.txt, .json, .jsonl), folders and globs of them, or ``yanmo:demo``. Out: a
stream of :class:`Document`, and :class:`CorpusCounts` whose numbers add up: read = kept + dropped by
reason. A .txt is one document, or one for each chapter; a JSON file has one for each record.

Line ends become ``\\n``, a byte-order mark is taken off and illegal control characters are removed, all
counted. Cleaning is not done here. The bytes are read in ``encodings.py``, JSON in ``records.py``.
"""

import contextlib
import glob
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from yanmo.config import CorpusConfig
from yanmo.errors import DataError
from yanmo.text import demo
from yanmo.text.chapters import split_chapters
from yanmo.text.encodings import decode, remove_controls, unify_line_ends
from yanmo.text.records import UNDECODABLE, Record, Unusable, read_json, read_jsonl

VERSION = 2
"""Part of every fingerprint: raise it when the same bytes would give other documents."""
DEMO = "yanmo:demo"
KINDS = (".txt", ".json", ".jsonl")
"""Files a folder is searched for."""
PLAIN_SUFFIXES = (".txt", ".text", "")
"""A file of these is plain text when it is named itself."""
NAMED = 1000
"""So many dropped documents are named; all are counted."""
EMPTY = "empty"


@dataclass(frozen=True)
class Document:
    """A text, where it came from, and what else is known about it."""

    text: str
    id: str
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass
class CorpusCounts:
    """What became of everything that was read."""

    files: int = 0
    documents_read: int = 0
    documents_kept: int = 0
    documents_dropped: Counter[str] = field(default_factory=Counter)
    """How many, by reason."""
    dropped: list[str] = field(default_factory=list)
    """Which, and why: the first ``NAMED`` of them."""
    files_passed_over: Counter[str] = field(default_factory=Counter)
    """Files of a folder that are none of ``KINDS``, by suffix."""
    characters: int = 0
    bytes: int = 0
    encodings: Counter[str] = field(default_factory=Counter)
    """Files in which an encoding occurs."""
    line_ends_changed: int = 0
    control_characters_removed: int = 0

    def as_json(self) -> dict[str, Any]:
        """Plain dictionaries, for a manifest."""
        return {
            key: dict(value) if isinstance(value, Counter) else value for key, value in vars(self).items()
        }

    def keep(self, document: Document) -> Document:
        """Count a document that is kept, and hand it on."""
        self.documents_read += 1
        self.documents_kept += 1
        self.characters += len(document.text)
        return document

    def drop(self, reason: str, named: str) -> None:
        """Count a document that is dropped, and name it with what is wrong."""
        self.documents_read += 1
        self.documents_dropped[reason] += 1
        if len(self.dropped) < NAMED:
            self.dropped.append(named)


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
        """The name of a file's documents."""
        if self.root is not None:
            return file.relative_to(self.root).as_posix()
        return file.as_posix() if self.is_search else file.name


def read_documents(corpus: CorpusConfig, counts: CorpusCounts | None = None) -> Iterator[Document]:
    """Stream the documents of a corpus in a fixed order (as given; folders and globs by name).

    Each document's ``meta["size"]`` is its share of :func:`corpus_size`. Of .jsonl one line is in memory
    at a time, of other files one file.

    Args:
        corpus: paths, and how to read them.
        counts: filled in while reading.

    Raises:
        DataError: a path is missing, or a file named as such is empty, binary, not decodable or broken
            JSON, or its records lack ``corpus.text_field``. In a folder such a file is dropped under its
            reason instead.
    """
    _check_encoding(corpus.encoding)
    counts = counts if counts is not None else CorpusCounts()
    for path in corpus.path:
        if path == DEMO:
            yield from _demo_documents(counts)
            continue
        source = find_files(path)
        counts.files_passed_over.update(file.suffix or "no suffix" for file in source.passed_over)
        for file in source.files:
            yield from read_file(file, source.name(file), source.is_search, corpus, counts)


def read_file(
    file: Path, name: str, is_searched: bool, corpus: CorpusConfig, counts: CorpusCounts
) -> Iterator[Document]:
    """Stream the documents of one file of a corpus; ``name`` is what they are called by.

    Raises:
        DataError: the file cannot be used, and it was not found by searching.
    """
    counts.files += 1
    try:
        yield from _file_documents(file, name, corpus, counts)
    except Unusable as error:
        if not is_searched:
            raise DataError(error.what, where=f"{file}{error.place}", mend=error.mend) from error
        what = error.what.removeprefix("the file is ")
        counts.drop(error.reason, f"{file}{error.place}: {what}")


def find_files(path: str) -> Source:
    """The files a path means: itself, those of a folder at any depth, or those of a glob; sorted by name.

    Hidden folders are passed over, and so are run folders: what a model wrote is not its corpus.

    Raises:
        DataError: there are none.
    """
    found = Path(path)
    if found.is_dir():
        source = _searched(_walk(found), root=found)
        if not source.files:
            raise DataError(
                f"the folder has no {', '.join(KINDS[:-1])} or {KINDS[-1]} file",
                where=path,
                mend="give a folder with texts",
            )
        return source
    if not found.is_file() and glob.has_magic(path):
        source = _searched(_glob(path))
        if not source.files:
            raise DataError(
                f"no {', '.join(KINDS[:-1])} or {KINDS[-1]} file matches",
                where=path,
                mend="check the pattern; ** stands for folders at any depth",
            )
        return source
    if not found.is_file():
        raise DataError("there is no such file or folder", where=path, mend="check the path")
    if found.suffix.lower() not in (*PLAIN_SUFFIXES, *KINDS):
        raise DataError(
            f"{found.suffix} files are not read", where=path, mend="give plain text (.txt), .json or .jsonl"
        )
    return Source([found], [])


def corpus_fingerprint(corpus: CorpusConfig) -> str:
    """A name for the documents of a corpus: equal bytes in equal order, read alike, equal name."""
    return fingerprint_of(corpus, _contents(corpus.path))


def fingerprint_of(corpus: CorpusConfig, contents: Iterable[bytes]) -> str:
    """The same name, from what :func:`content_of` says of each file."""
    rules = [VERSION, corpus.encoding, corpus.text_field, corpus.split_chapters]
    digest = hashlib.sha256(json.dumps(rules).encode())
    for content in contents:
        digest.update(content)
    return digest.hexdigest()[:16]


def content_of(file: Path) -> bytes:
    """A file's part in the name of its corpus: its kind, and a hash of its bytes."""
    with _readable(file), open(file, "rb") as stream:
        return _kind(file).encode() + hashlib.file_digest(stream, "sha256").digest()


def _contents(paths: Iterable[str]) -> Iterator[bytes]:
    for path in paths:
        if path == DEMO:
            yield demo.fingerprint().encode()
        else:
            yield from map(content_of, find_files(path).files)


def corpus_size(paths: Iterable[str]) -> int:
    """Bytes of a corpus's files; a story of the demo corpus counts as one."""
    return sum(
        demo.STORY_COUNT if path == DEMO else sum(f.stat().st_size for f in find_files(path).files)
        for path in paths
    )


# -- one file ---------------------------------------------------------------------------------


def _file_documents(file: Path, name: str, corpus: CorpusConfig, counts: CorpusCounts) -> Iterator[Document]:
    with _readable(file):
        counts.bytes += file.stat().st_size
    encodings: set[str] = set()
    number_of_records = 0
    for record in _records(file, corpus):
        number_of_records += 1
        if record.dropped:
            counts.drop(record.dropped, f"{file}{record.place}: {record.why}")
            continue
        text, line_ends = unify_line_ends(record.text)
        text, controls = remove_controls(text)
        counts.line_ends_changed += line_ends
        counts.control_characters_removed += controls
        if not text.strip():
            if not record.place:
                raise Unusable(EMPTY, "the file is empty", mend="give a file with text")
            counts.drop(EMPTY, f"{file}{record.place}: {EMPTY}")
            continue
        if record.encoding not in encodings:
            encodings.add(record.encoding)
            counts.encodings[record.encoding] += 1
        named = f"{name}#{record.number}" if record.place else name
        yield from _kept(text, named, record.size, corpus.split_chapters, counts)
    if not number_of_records:
        raise Unusable(EMPTY, "the file is empty", mend="give a file with records")


def _kept(text: str, name: str, size: float, by_chapter: bool, counts: CorpusCounts) -> Iterator[Document]:
    """The document of a text, or those of its chapters."""
    chapters = split_chapters(text) if by_chapter else [text]
    if len(chapters) == 1:
        yield counts.keep(Document(text, id=name, meta={"size": size}))
        return
    for number, chapter in enumerate(chapters, 1):
        share = size * len(chapter) / len(text)
        yield counts.keep(Document(chapter, id=f"{name}#{number}", meta={"size": share}))


def _records(file: Path, corpus: CorpusConfig) -> Iterator[Record]:
    """The texts of a file of any kind."""
    if _kind(file) == ".jsonl":
        with _readable(file), open(file, "rb") as stream:
            yield from read_jsonl(stream, corpus.text_field, corpus.encoding)
        return
    text, encoding, size = _decoded(file, corpus.encoding)
    if _kind(file) == ".txt":
        yield Record(1, size, text, encoding)
        return
    for record in read_json(text, corpus.text_field, size):
        yield replace(record, encoding=encoding)


def _decoded(file: Path, encoding: str) -> tuple[str, str, int]:
    """(text, encoding, bytes) of a whole file."""
    with _readable(file):
        data = file.read_bytes()
    try:
        return *decode(data, encoding), len(data)
    except ValueError as error:
        raise Unusable(
            UNDECODABLE,
            f"the file is not readable text: {error}",
            mend="give a text file; if the encoding is another one, name it: corpus.encoding=shift_jis",
        ) from error


def _kind(file: Path) -> str:
    return file.suffix.lower() if file.suffix.lower() in KINDS else ".txt"


def _demo_documents(counts: CorpusCounts) -> Iterator[Document]:
    for number, story in enumerate(demo.stories()):
        counts.documents_read += 1
        counts.documents_kept += 1
        counts.characters += len(story.text)
        counts.bytes += len(story.text.encode())
        yield Document(story.text, id=f"{DEMO}/{number}", meta={"bits": story.bits, "size": 1})


# -- where files are --------------------------------------------------------------------------


def _searched(files: Iterable[Path], root: Path | None = None) -> Source:
    """Files found by searching, sorted into those that are read and the others."""
    found = sorted(files)
    texts = [file for file in found if file.suffix.lower() in KINDS]
    return Source(texts, [file for file in found if file.suffix.lower() not in KINDS], root, is_search=True)


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


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"the file cannot be read: {error.strerror}", where=str(file), mend="check its permissions"
        ) from error


def _check_encoding(name: str) -> None:
    try:
        "\n".encode(name if name != "auto" else "utf-8")
    except (LookupError, ValueError) as error:
        raise DataError(
            f"no encoding is called '{name}'", where="corpus.encoding", mend="gb18030, big5, utf-8…"
        ) from error

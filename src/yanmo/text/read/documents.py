"""Documents: files of any kind and encoding go in, ``Document`` objects come out, nothing vanishes.

In: the [corpus] section: files (``kinds.KINDS``, packed or not), folders and globs of them, ``-`` for
standard input, or ``yanmo:demo``. Out: a stream of :class:`Document`, and :class:`CorpusCounts` whose
numbers add up: read = kept + dropped by reason. A text, page or book is one document, or one for each
chapter; a file of records has one for each record; a .zip is read like a folder.

Line ends become ``\\n``, a byte-order mark is taken off and illegal control characters are removed, all
counted. Cleaning is not done here. ``sources.py`` finds files, ``containers.py`` opens them, and each kind
has its reader: ``parts.py``, ``records.py``, ``tables.py``, ``html.py``, ``epub.py``,
``docx.py``.
"""

import hashlib
import importlib.metadata
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from yanmo.core.errors import ConfigError, DataError
from yanmo.settings.recipe import load_cleaning
from yanmo.settings.schema import CorpusConfig
from yanmo.text.demo import stories
from yanmo.text.read.chapters import split_chapters
from yanmo.text.read.containers import Entry, entries
from yanmo.text.read.docx import read_docx
from yanmo.text.read.encodings import remove_controls, unify_line_ends
from yanmo.text.read.epub import read_epub
from yanmo.text.read.html import read_html
from yanmo.text.read.kinds import ARCHIVE, KINDS
from yanmo.text.read.parts import read_json_file, read_text
from yanmo.text.read.records import EMPTY, NeedsExtra, Record, Unusable, read_jsonl
from yanmo.text.read.sources import UnreadableFile, find_files, kind_of, legible, readable, suffix_of
from yanmo.text.read.tables import read_csv, read_parquet, read_tsv

READER_VERSION = 5
"""Part of every fingerprint: raise it when the same bytes would give other documents."""
DEMO = "yanmo:demo"
UNREADABLE = "unreadable"
NAMED = 1000
"""So many dropped documents are named; all are counted."""


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
    """Files of a folder or a .zip that are none of ``KINDS``, by suffix; links."""
    texts_in_parts: int = 0
    """Texts too large for one document."""
    characters: int = 0
    bytes: int = 0
    encodings: Counter[str] = field(default_factory=Counter)
    """Files in which an encoding occurs."""
    line_ends_changed: int = 0
    control_characters_removed: int = 0
    undecodable_bytes: int = 0
    """Broken bytes in texts that are kept: U+FFFD stands for them."""

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


def read(paths: str | Path | Sequence[str | Path], *settings: str) -> Iterator[Document]:
    """The documents of files, folders and globs, for programs.

    Args:
        paths: one or several; what they may be says ``corpus.path``.
        settings: those of [corpus], such as ``"corpus.text_field=content"``.

    Raises:
        DataError: a path is missing, or nothing in it can be read.
        ConfigError: there is no such setting.
    """
    several = [paths] if isinstance(paths, str | Path) else paths
    return read_documents(load_cleaning(settings, map(str, several)).corpus)


def read_documents(corpus: CorpusConfig, counts: CorpusCounts | None = None) -> Iterator[Document]:
    """Stream the documents of a corpus in a fixed order (as given; folders and globs by name).

    Each document's ``meta["size"]`` is its share of :func:`corpus_size`; ``meta["fields"]`` is what else its
    record, page or book says in few words. In memory is one line, one value, one page, or one part of a
    text at a time.

    Args:
        corpus: paths, and how to read them.
        counts: filled in while reading.

    Raises:
        DataError: a path is missing, or a file named as such is empty, binary, not decodable or damaged,
            or its records lack ``corpus.text_field``. In a folder such a file is dropped under its
            reason instead.
        ConfigError: a file named as such takes a library that is not installed.
    """
    check_encoding(corpus.encoding)
    counts = counts if counts is not None else CorpusCounts()
    for path in corpus.path:
        if path == DEMO:
            yield from _demo_documents(counts)
            continue
        source = find_files(path)
        counts.files_passed_over.update(source.passed_over)
        for file in source.files:
            yield from read_file(file, source.name(file), source.is_search, corpus, counts)


def read_file(
    file: Path, name: str, is_searched: bool, corpus: CorpusConfig, counts: CorpusCounts
) -> Iterator[Document]:
    """Stream the documents of one file of a corpus; ``name`` is what they are called by.

    Raises:
        DataError, ConfigError: as :func:`read_documents`, if the file was not found by searching.
    """

    def documents(entry: Entry, where: str, named: str) -> Iterator[Document]:
        return _entry_documents(entry, where, named, corpus, counts)

    return read_entries(file, name, is_searched, counts, documents)


class FileCounts(Protocol):
    """What is counted of files, whatever is made of them."""

    files: int
    bytes: int
    files_passed_over: Counter[str]

    def drop(self, reason: str, named: str) -> None:
        """Count what is dropped."""


Made = TypeVar("Made")
OfEntry = Callable[[Entry, str, str], Iterator[Made]]
"""What is made of an entry, where it lies, and what that is called by."""


def read_entries(
    file: Path, name: str, is_searched: bool, counts: FileCounts, of_entry: OfEntry[Made]
) -> Iterator[Made]:
    """Stream what is made of a file, or of each member of a .zip.

    Raises:
        DataError, ConfigError: as :func:`read_documents`, if the file was not found by searching.
    """
    try:
        yield from _in_file(file, name, counts, of_entry)
    except Unusable as error:
        if not is_searched:
            kind = ConfigError if isinstance(error, NeedsExtra) else DataError
            raise kind(error.what, where=f"{legible(file)}{error.place}", hint=error.hint) from error
        _drop(error, legible(file), counts)
    except UnreadableFile as error:
        if not is_searched:
            raise
        counts.drop(UNREADABLE, f"{legible(file)}: {error.what}")


def corpus_fingerprint(corpus: CorpusConfig) -> str:
    """A name for the documents of a corpus: equal bytes in equal order, read alike, equal name."""
    return fingerprint_of(corpus, _contents(corpus.path))


def fingerprint_of(corpus: CorpusConfig, contents: Iterable[bytes]) -> str:
    """The same name, from what :func:`content_of` says of each file."""
    rules = [READER_VERSION, corpus.encoding, corpus.text_field, corpus.split_chapters, corpus.separator]
    return _name(rules, contents)


def earlier_fingerprint(corpus: CorpusConfig) -> str:
    """What version 4 called a corpus with these bytes: whether it read them alike, tokens and counts say."""
    return _name([4, corpus.encoding, corpus.text_field, corpus.split_chapters], _contents(corpus.path))


def _name(rules: list[object], contents: Iterable[bytes]) -> str:
    digest = hashlib.sha256(json.dumps(rules).encode())
    for content in contents:
        digest.update(content)
    return digest.hexdigest()[:16]


def content_of(file: Path) -> bytes:
    """A file's part in the name of its corpus: its kind, what reads it, and a hash of its bytes."""
    try:
        kind, wrappers = kind_of(file)
        said = "".join([_plain_kind(kind), *reversed(wrappers)])
        said += _version_of("trafilatura") if kind in (".html", ARCHIVE) else ""
        with readable(file), open(file, "rb") as stream:
            return said.encode() + hashlib.file_digest(stream, "sha256").digest()
    except UnreadableFile:  # reading says so, or counts it
        return UNREADABLE.encode()


def _contents(paths: Iterable[str]) -> Iterator[bytes]:
    for path in paths:
        if path == DEMO:
            yield stories.fingerprint().encode()
        else:
            yield from map(content_of, find_files(path).files)


def corpus_size(paths: Iterable[str]) -> int:
    """Bytes of a corpus's files; a story of the demo corpus counts as one."""
    return sum(
        stories.STORY_COUNT if path == DEMO else sum(map(_size_of, find_files(path).files)) for path in paths
    )


def _size_of(file: Path) -> int:
    """Its bytes; none of a file that is gone or kept from us."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


# -- one file ---------------------------------------------------------------------------------


def _in_file(file: Path, name: str, counts: FileCounts, of_entry: OfEntry[Made]) -> Iterator[Made]:
    """What is made of a file, or of all members of a .zip, where an unusable one is dropped."""
    with readable(file):
        counts.bytes += file.stat().st_size
    kind, wrappers = kind_of(file)
    number_of_members = 0
    with readable(file), entries(file, _plain_kind(kind), wrappers) as found:
        for entry in found:
            if not entry.name:
                counts.files += 1
                yield from of_entry(entry, legible(file), name)
                return
            if not entry.kind:
                counts.files_passed_over[suffix_of(entry.name)] += 1
                continue
            number_of_members += 1
            counts.files += 1
            where = f"{legible(file)}/{entry.name}"
            try:
                yield from of_entry(entry, where, f"{name}/{entry.name}")
            except Unusable as error:
                _drop(error, where, counts)
    if not number_of_members:
        raise Unusable(EMPTY, "the archive has no file that is read", hint="give one with texts")


def _entry_documents(
    entry: Entry, where: str, name: str, corpus: CorpusConfig, counts: CorpusCounts
) -> Iterator[Document]:
    encodings: set[str] = set()
    number_of_records = 0
    for record in records_in(entry, corpus.text_field, corpus.encoding):
        number_of_records += 1
        if record.undecodable_bytes:
            counts.undecodable_bytes += record.undecodable_bytes
        if record.is_part and record.number == 1:
            counts.texts_in_parts += 1
        if record.dropped:
            counts.drop(record.dropped, f"{where}{record.place}: {record.why}")
            continue
        text, line_ends = unify_line_ends(record.text)
        text, controls = remove_controls(text)
        counts.line_ends_changed += line_ends
        counts.control_characters_removed += controls
        if not text.strip():
            if not record.place:
                raise Unusable(EMPTY, "the file is empty", hint="give a file with text")
            counts.drop(EMPTY, f"{where}{record.place}: {EMPTY}")
            continue
        if record.encoding not in encodings:
            encodings.add(record.encoding)
            counts.encodings[record.encoding] += 1
        named = f"{name}#{record.number}" if record.place else name
        meta: dict[str, Any] = {"size": entry.share(record.size)}
        if record.fields:
            meta["fields"] = record.fields
        yield from _kept(Document(text, named, meta), corpus, counts)
    if not number_of_records:
        raise Unusable(EMPTY, "the file is empty", hint="give a file with records")


def _kept(document: Document, corpus: CorpusConfig, counts: CorpusCounts) -> Iterator[Document]:
    """A document, or those between separators, or those of its chapters."""
    texts = _between(document.text, corpus.separator)
    parts = [part for text in texts for part in (split_chapters(text) if corpus.split_chapters else [text])]
    if parts == [document.text]:
        yield counts.keep(document)
        return
    if not parts:
        counts.drop(EMPTY, f"{document.id}: {EMPTY}")
    for number, part in enumerate(parts, 1):
        share = document.meta["size"] * len(part) / len(document.text)
        yield counts.keep(Document(part, f"{document.id}#{number}", document.meta | {"size": share}))


def _between(text: str, separator: str) -> list[str]:
    """The texts that are no blanks between separators, without the line ends beside these."""
    if not separator or separator not in text:
        return [text]
    return [part.strip("\n") for part in text.split(separator) if part.strip()]


def records_in(entry: Entry, path: str | None, encoding: str) -> Iterator[Record]:
    """The records of an entry of any kind, with the text at a path; with whole values where that is None."""
    stream = entry.open()
    match entry.kind:
        case ".jsonl":
            yield from read_jsonl(stream, path, encoding)
        case ".json":
            yield from read_json_file(stream, path, encoding)
        case ".parquet":
            yield from read_parquet(stream, path)
        case ".csv":
            yield from read_csv(stream, path, encoding)
        case ".tsv":
            yield from read_tsv(stream, path, encoding)
        case ".html":
            yield read_html(stream, encoding)
        case ".epub":
            yield from read_epub(stream)
        case ".docx":
            yield read_docx(stream)
        case _:
            yield from read_text(stream, encoding)


def _drop(error: Unusable, where: str, counts: FileCounts) -> None:
    counts.drop(error.reason, f"{where}{error.place}: {error.what.removeprefix('the file is ')}")


def _plain_kind(kind: str) -> str:
    """What is nothing else is text."""
    return kind if kind in (*KINDS, ARCHIVE) else ".txt"


def _version_of(library: str) -> str:
    """Another version may find another main text."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _demo_documents(counts: CorpusCounts) -> Iterator[Document]:
    for number, story in enumerate(stories.stories()):
        counts.bytes += len(story.text.encode())
        meta = {"bits": story.bits, "size": 1}
        yield counts.keep(Document(story.text, id=f"{DEMO}/{number}", meta=meta))


def check_encoding(name: str) -> None:
    """Refuse an encoding that Python does not know."""
    try:
        "\n".encode(name if name != "auto" else "utf-8")
    except (LookupError, ValueError) as error:
        raise DataError(
            f"no encoding is called '{name}'", where="corpus.encoding", hint="gb18030, big5, utf-8…"
        ) from error

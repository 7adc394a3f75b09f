"""Documents: files of any usable encoding go in, ``Document`` objects come out, nothing vanishes.

In: paths of .txt files and folders of them (or ``yanmo:demo``). Out: a stream of :class:`Document`,
one for each file, and :class:`CorpusCounts` whose numbers add up: read = kept + dropped by reason.
Line ends become ``\\n`` and a byte-order mark is taken off; both are counted. Cleaning is not done here.
"""

import codecs
import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yanmo.errors import DataError
from yanmo.text import demo

DEMO = "yanmo:demo"
TEXT_SUFFIXES = (".txt", ".text", "")
MAX_STRANGE_SHARE = 0.01
"""A text with more control or private-use characters than this was decoded wrongly, or is no text."""


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
    dropped: list[str] = field(default_factory=list)
    """Which, and why."""
    files_passed_over: Counter[str] = field(default_factory=Counter)
    """Files of a folder that are no .txt, by suffix."""
    characters: int = 0
    bytes: int = 0
    encodings: Counter[str] = field(default_factory=Counter)
    line_ends_changed: int = 0

    def as_json(self) -> dict[str, Any]:
        """Plain dictionaries, for a manifest."""
        return {
            key: dict(value) if isinstance(value, Counter) else value for key, value in vars(self).items()
        }


def read_documents(
    paths: Iterable[str], encoding: str = "auto", counts: CorpusCounts | None = None
) -> Iterator[Document]:
    """Stream the documents of a corpus in a fixed order (as given; folders by name).

    Each document's ``meta["size"]`` is its share of :func:`corpus_size`.

    Args:
        paths: files, folders (searched for .txt at any depth), or ``yanmo:demo``.
        encoding: ``auto`` or a codec's name.
        counts: filled in while reading.

    Raises:
        DataError: a path is missing, or a file named as such is empty, binary or not decodable. In a
            folder such a file is dropped under its reason instead.
    """
    counts = counts if counts is not None else CorpusCounts()
    for path in paths:
        if path == DEMO:
            yield from _demo_documents(counts)
        else:
            yield from _file_documents(Path(path), encoding, counts)


def find_files(path: Path) -> tuple[list[Path], list[Path]]:
    """The text files a path means, and the other files of the folder; both sorted by name.

    Hidden folders are passed over, and so are run folders: what a model wrote is not its corpus.
    """
    if path.is_dir():
        files = sorted(_walk(path))
        texts = [file for file in files if file.suffix.lower() == ".txt"]
        if not texts:
            raise DataError("the folder has no .txt file", where=str(path), mend="give a folder with texts")
        return texts, [file for file in files if file not in set(texts)]
    if not path.is_file():
        raise DataError("there is no such file or folder", where=str(path), mend="check the path")
    if path.suffix.lower() not in TEXT_SUFFIXES:
        raise DataError(f"{path.suffix} files are not read", where=str(path), mend="give plain text (.txt)")
    return [path], []


def corpus_fingerprint(paths: Iterable[str], encoding: str) -> str:
    """A name for the corpus's content: equal bytes in equal order, equal name."""
    digest = hashlib.sha256(encoding.encode())
    for path in paths:
        if path == DEMO:
            digest.update(demo.fingerprint().encode())
            continue
        for file in find_files(Path(path))[0]:
            with _readable(file), open(file, "rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def corpus_size(paths: Iterable[str]) -> int:
    """Bytes of a corpus's files; a story of the demo corpus counts as one."""
    return sum(
        demo.STORY_COUNT if path == DEMO else sum(f.stat().st_size for f in find_files(Path(path))[0])
        for path in paths
    )


def decode(data: bytes, encoding: str = "auto") -> tuple[str, str]:
    """Bytes to text on evidence: BOM, then strict UTF-8, then strict GB18030. Gives (text, encoding).

    Raises:
        ValueError: with the reason, when the bytes are no text in any of these.
    """
    if encoding != "auto":
        candidates = [encoding]
    elif data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        candidates = ["utf-16"]
    elif b"\x00" in data[: 1 << 16]:
        raise ValueError("binary (it contains NUL bytes)")
    elif data.startswith(codecs.BOM_UTF8):
        candidates = ["utf-8-sig"]
    else:
        candidates = ["utf-8", "gb18030"]
    reasons = []
    for name in candidates:
        try:
            text = data.decode(name)
        except UnicodeDecodeError as error:
            reasons.append(f"not {name} at byte {error.start}")
            continue
        strange = _strange_share(text)
        if strange > MAX_STRANGE_SHARE:
            reasons.append(f"read as {name}, {strange:.0%} are control or private-use characters")
            continue
        return text.removeprefix("\ufeff"), name
    raise ValueError("; ".join(reasons))


def _file_documents(path: Path, encoding: str, counts: CorpusCounts) -> Iterator[Document]:
    files, others = find_files(path)
    counts.files_passed_over.update(file.suffix or "no suffix" for file in others)
    for file in files:
        with _readable(file):
            data = file.read_bytes()
        counts.files += 1
        counts.documents_read += 1
        counts.bytes += len(data)
        text, found, reason = _decode_or_reason(data, encoding)
        if reason and file == path:
            raise DataError(
                f"the file is {reason}",
                where=str(file),
                mend="give a text file; if the encoding is another one, name it: corpus.encoding=big5",
            )
        if reason:
            counts.documents_dropped["empty" if reason == "empty" else "undecodable"] += 1
            counts.dropped.append(f"{file}: {reason}")
            continue
        changed = text.count("\r")
        if changed:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        counts.line_ends_changed += changed
        counts.encodings[found] += 1
        counts.documents_kept += 1
        counts.characters += len(text)
        name = file.relative_to(path).as_posix() if file != path else file.name
        yield Document(text, id=name, meta={"size": len(data)})


def _decode_or_reason(data: bytes, encoding: str) -> tuple[str, str, str]:
    """(text, encoding, why it cannot be used or an empty string)."""
    try:
        text, found = decode(data, encoding)
    except ValueError as error:
        return "", "", f"not readable text: {error}"
    except LookupError as error:
        raise DataError(
            f"no encoding is called '{encoding}'", where="corpus.encoding", mend="gb18030, big5, utf-8…"
        ) from error
    return text, found, "" if text.strip() else "empty"


def _demo_documents(counts: CorpusCounts) -> Iterator[Document]:
    for number, story in enumerate(demo.stories()):
        counts.documents_read += 1
        counts.documents_kept += 1
        counts.characters += len(story.text)
        counts.bytes += len(story.text.encode())
        yield Document(story.text, id=f"{DEMO}/{number}", meta={"bits": story.bits, "size": 1})


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


def _strange_share(text: str) -> float:
    """Share of characters no readable text has: C0/C1 controls (but tab and line ends), private use."""
    if not text:
        return 0.0
    counts = Counter(text)
    strange = sum(
        n
        for c, n in counts.items()
        if (c < " " and c not in "\t\n\r\f") or "\x7f" <= c <= "\x9f" or "\ue000" <= c <= "\uf8ff"
    )
    return strange / len(text)

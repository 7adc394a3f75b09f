"""Documents: files of any usable encoding go in, ``Document`` objects come out, nothing vanishes.

In: paths of .txt files and folders of them (or ``yanmo:demo``). Out: a stream of :class:`Document`,
one for each file, and :class:`CorpusCounts` whose numbers add up: read = kept + dropped by reason.
Line ends become ``\\n`` and a byte-order mark is taken off; both are counted. Cleaning is not done here.
"""

import codecs
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
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
    paths: Iterable[str],
    encoding: str = "auto",
    counts: CorpusCounts | None = None,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> Iterator[Document]:
    """Stream the documents of a corpus in a fixed order (as given; folders by name).

    Args:
        paths: files, folders (searched for .txt at any depth), or ``yanmo:demo``.
        encoding: ``auto`` or a codec's name.
        counts: filled in while reading.
        on_bytes: told how many bytes each file had.

    Raises:
        DataError: a path is missing, or a file named as such is empty, binary or not decodable. In a
            folder such a file is dropped under its reason instead.
    """
    counts = counts if counts is not None else CorpusCounts()
    for path in paths:
        if path == DEMO:
            yield from _demo_documents(counts, on_bytes)
        else:
            yield from _file_documents(Path(path), encoding, counts, on_bytes)


def find_files(path: Path) -> list[Path]:
    """The file itself, or the text files of a folder, sorted by name."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix == ".txt")
        if not files:
            raise DataError("the folder has no .txt file", where=str(path), mend="give a folder with texts")
        return files
    if not path.is_file():
        raise DataError("there is no such file or folder", where=str(path), mend="check the path")
    if path.suffix.lower() not in TEXT_SUFFIXES:
        raise DataError(f"{path.suffix} files are not read", where=str(path), mend="give plain text (.txt)")
    return [path]


def corpus_fingerprint(paths: Iterable[str], encoding: str) -> str:
    """A name for the corpus's content: equal bytes in equal order, equal name."""
    digest = hashlib.sha256(encoding.encode())
    for path in paths:
        if path == DEMO:
            digest.update(f"{DEMO} {demo.STORY_COUNT} {hashlib.sha256(_demo_sample()).hexdigest()}".encode())
            continue
        for file in find_files(Path(path)):
            with open(file, "rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def corpus_bytes(paths: Iterable[str]) -> int:
    """The size of a corpus's files; the demo corpus is counted by its stories."""
    return sum(
        demo.STORY_COUNT if path == DEMO else sum(f.stat().st_size for f in find_files(Path(path)))
        for path in paths
    )


def decode(data: bytes, encoding: str = "auto") -> tuple[str, str]:
    """Bytes to text on evidence: BOM, then strict UTF-8, then strict GB18030. Gives (text, encoding).

    Raises:
        ValueError: with the reason, when the bytes are no text in any of these.
    """
    if b"\x00" in data[: 1 << 16]:
        raise ValueError("binary (it contains NUL bytes)")
    if encoding != "auto":
        candidates = [encoding]
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
        return text, name
    raise ValueError("; ".join(reasons))


def _file_documents(
    path: Path, encoding: str, counts: CorpusCounts, on_bytes: Callable[[int], None]
) -> Iterator[Document]:
    for file in find_files(path):
        data = file.read_bytes()
        counts.files += 1
        counts.documents_read += 1
        counts.bytes += len(data)
        on_bytes(len(data))
        reason, text = "", ""
        try:
            text, found = decode(data, encoding)
        except ValueError as error:
            reason = str(error)
        except LookupError as error:
            raise DataError(
                f"no encoding is called '{encoding}'",
                where="corpus.encoding",
                mend="gb18030, big5, utf-8…",
            ) from error
        if not reason and not text.strip():
            reason = "empty"
        if reason and file == path:
            raise DataError(
                f"the file is {reason}" if reason == "empty" else f"the file is not readable text: {reason}",
                where=str(file),
                mend="give a text file; if the encoding is another one, name it: corpus.encoding=big5",
            )
        if reason:
            counts.documents_dropped["empty" if reason == "empty" else "undecodable"] += 1
            continue
        lines = text.count("\r")
        if lines:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        counts.line_ends_changed += lines
        counts.encodings[found] += 1
        counts.documents_kept += 1
        counts.characters += len(text)
        yield Document(text, id=file.relative_to(path).as_posix() if file != path else file.name)


def _demo_documents(counts: CorpusCounts, on_bytes: Callable[[int], None]) -> Iterator[Document]:
    for number, story in enumerate(demo.stories()):
        counts.documents_read += 1
        counts.documents_kept += 1
        counts.characters += len(story.text)
        counts.bytes += len(story.text.encode())
        on_bytes(1)
        yield Document(story.text, id=f"{DEMO}/{number}", meta={"bits": story.bits})


def _demo_sample() -> bytes:
    return "\n".join(story.text for story in demo.stories(count=50)).encode()


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

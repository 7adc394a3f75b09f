"""What a file is, told by its name, or by its first bytes where it has no telling name.

In: a name, or a file's first bytes. Out: a suffix such as ``.jsonl``; ``""`` is none that is read. A
compressed file is what its name says without the last suffix: ``a.jsonl.gz`` holds ``.jsonl``.
"""

import gzip
import io
import json
from pathlib import PurePosixPath

KINDS = (".txt", ".json", ".jsonl", ".csv", ".tsv", ".html", ".epub", ".docx", ".parquet")
"""What is read."""
OTHER_NAMES = {".text": ".txt", ".ndjson": ".jsonl", ".htm": ".html", ".xhtml": ".html"}
WRAPPERS = (".gz", ".zst", ".bz2", ".xz")
"""What is unpacked on the way."""
ARCHIVE = ".zip"
MANIFEST_SUFFIX = ".manifest.json"
"""What `yanmo clean` and `yanmo crawl` say about a corpus lies beside it, and is no part of one."""
EXTRACTED = ".wikiextractor"
"""Articles of an extracted dump in ``<doc …>``: text, whose files have no telling name (``wiki_00``)."""
MAX_WRAPPERS = 2
"""So many wrappers are unpacked."""
SNIFFED_BYTES = 1 << 16
"""Bytes that show what a file without a telling name is."""


def layers_of(name: str) -> tuple[str, list[str]]:
    """(kind, the wrappers around it from the outermost inwards); the kind is a suffix as it is named."""
    path = PurePosixPath(name)
    wrappers: list[str] = []
    while path.suffix.lower() in WRAPPERS and len(wrappers) < MAX_WRAPPERS:
        wrappers.append(path.suffix.lower())
        path = path.with_suffix("")
    suffix = path.suffix.lower()
    return OTHER_NAMES.get(suffix, suffix), wrappers


def is_read(name: str) -> bool:
    """Whether a file of this name is one that a folder is searched for."""
    kind, wrappers = layers_of(name)
    if name.endswith(MANIFEST_SUFFIX):
        return False
    return kind in KINDS or (kind == ARCHIVE and not wrappers)


def has_no_telling_name(name: str) -> bool:
    """Whether only the bytes can say what a file is, as with the ``wiki_00`` of extracted dumps."""
    return not layers_of(name)[0]


def sniff(head: bytes) -> str:
    """The kind that a file begins like, ``.txt`` where it is nothing else."""
    if head.startswith(b"\x1f\x8b"):
        return sniff(_unpacked(head)) + ".gz"
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return ".zst"
    if head.startswith(b"PK\x03\x04"):
        is_word = b"[Content_Types].xml" in head and b"word/" in head
        return ".epub" if b"mimetypeapplication/epub+zip" in head[:200] else ".docx" if is_word else ARCHIVE
    if head.startswith(b"PAR1"):
        return ".parquet"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:9].lower() == b"<!doctype" or start[:5].lower() == b"<html":
        return ".html"
    if start.startswith(b"<doc "):
        return EXTRACTED
    if start.startswith(b"["):
        return ".json" if start[1:].lstrip()[:1] in (b"{", b'"', b"]", b"") else ".txt"
    if start.startswith(b"{"):
        return _kind_of_objects(start)
    return ".txt"


def _kind_of_objects(start: bytes) -> str:
    """One object to a line, or one that takes several; or no JSON at all."""
    line, end, _ = start.partition(b"\n")
    if not end and len(start) + 4 >= SNIFFED_BYTES:
        return ".jsonl"  # the first line is a long one
    try:
        json.loads(line.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError):
        return ".json" if start[1:].lstrip()[:1] == b'"' else ".txt"
    return ".jsonl"


def _unpacked(head: bytes) -> bytes:
    """What the beginning of a .gz holds, as far as it goes."""
    try:
        with gzip.open(io.BytesIO(head)) as stream:
            return stream.read1(SNIFFED_BYTES)  # read() would fail at the end of a head that is cut off
    except (OSError, EOFError):
        return b""

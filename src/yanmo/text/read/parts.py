"""A stream of any length → its text: whole, in parts cut at line ends where it is too large, or its articles.

In: a binary stream and an encoding. Out: :class:`TextPart`; of a stream up to ``WHOLE_UP_TO_BYTES`` one, of a
larger one several of about ``PART_BYTES``, never more than a few of them in memory. Each part is decoded on
its own evidence.
"""

import codecs
import contextlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from yanmo.text.read.damage import decode_lenient
from yanmo.text.read.elements import unescaped
from yanmo.text.read.encodings import CHINESE, HEAD_BYTES, encoding_of_head, is_wide
from yanmo.text.read.fields import MAX_FIELD_CHARACTERS
from yanmo.text.read.records import UNDECODABLE, Record, Unusable, read_json

WHOLE_UP_TO_BYTES = 128 << 20
"""Bytes of a text that is read whole."""
PART_BYTES = 16 << 20
"""Bytes of a part of a larger one."""
MAX_HEADER_CHARACTERS = 2000
ARTICLE = re.compile(rf"^(?:<doc ([^\n]{{1,{MAX_HEADER_CHARACTERS}}})>|</doc>)[ \t\r]*$", re.MULTILINE)
ATTRIBUTE = re.compile(r'(\w+)="(.*?)"(?=\s+\w+="|\s*$)')
OUTSIDE = "outside of articles"


@dataclass(frozen=True)
class TextPart:
    """A text or a part of it."""

    text: str
    encoding: str
    size: int
    """Bytes."""
    undecodable_bytes: int
    is_part: bool


def read_pieces(stream: BinaryIO, encoding: str = "auto") -> Iterator[TextPart]:
    """The text of a stream.

    Raises:
        Unusable: the bytes are no text.
        LookupError: no encoding has this name.
    """
    head = stream.read(WHOLE_UP_TO_BYTES + 1)
    if len(head) <= WHOLE_UP_TO_BYTES:
        yield _piece(head, encoding, is_part=False)
        return
    buffer = bytearray(head)
    del head  # else the text would be in memory twice
    like = encoding_of_head(bytes(buffer[:HEAD_BYTES])) if encoding == "auto" else encoding
    encoding = _without_mark(like, buffer) if is_wide(like) else encoding
    while buffer:
        if len(buffer) <= PART_BYTES:
            buffer += stream.read(PART_BYTES)
        cut = _cut(buffer, encoding)
        part = bytes(buffer[:cut])
        del buffer[:cut]
        yield _piece(part, encoding, is_part=True)


def read_text(stream: BinaryIO, encoding: str = "auto") -> Iterator[Record]:
    """A plain text as one record, or as several parts; of an extracted dump, a record for each article."""
    pieces = read_pieces(stream, encoding)
    first = next(pieces)
    pieces = itertools.chain([first], pieces)
    if ARTICLE.match(first.text[: 2 * MAX_HEADER_CHARACTERS].lstrip()):
        yield from _articles(pieces)
        return
    for number, piece in enumerate(pieces, 1):
        yield Record(
            number, piece.size, piece.text, piece.encoding, place=f"#{number}" if piece.is_part else "",
            undecodable_bytes=piece.undecodable_bytes, is_part=piece.is_part,
        )  # fmt: skip


def _articles(pieces: Iterator[TextPart]) -> Iterator[Record]:
    """What WikiExtractor writes: ``<doc id="…" url="…" title="…">``, an article, ``</doc>``, each a line."""
    article = _Article()
    for piece in pieces:
        at = 0
        for mark in ARTICLE.finditer(piece.text):
            article.add(piece, at, mark.start())
            yield from article.end(mark[1] or "")
            at = mark.end()
        article.add(piece, at, len(piece.text))
    yield from article.end("")


class _Article:
    """The article that is being read, or what stands between two, which is dropped.

    One that another or the file's end cuts off is kept as far as it goes.
    """

    def __init__(self) -> None:
        self._number = 0
        self._begin("")

    def _begin(self, header: str) -> None:
        self._header = header
        self._parts: list[str] = []
        self._size = 0.0
        self._encoding = ""
        self._undecodable_bytes = 0

    def add(self, piece: TextPart, start: int, end: int) -> None:
        self._parts.append(piece.text[start:end])
        self._size += piece.size * (end - start) / max(len(piece.text), 1)
        self._encoding = piece.encoding
        self._undecodable_bytes += 0 if start else piece.undecodable_bytes

    def end(self, following: str) -> Iterator[Record]:
        """What was read up to the header of the following one, or to none."""
        text = "".join(self._parts).strip("\n")
        if self._header or text.strip():
            self._number += 1
            record = Record(
                self._number, self._size, text, self._encoding, place=f"#{self._number}",
                fields=_said(self._header), undecodable_bytes=self._undecodable_bytes,
            )  # fmt: skip
            yield record if self._header else replace(record, text="", dropped=OUTSIDE, why=OUTSIDE)
        self._begin(following)


def _said(header: str) -> dict[str, str]:
    """The attributes of an article; a title may hold quotes."""
    return {
        found[1]: unescaped(found[2])
        for found in ATTRIBUTE.finditer(header)
        if len(found[2]) <= MAX_FIELD_CHARACTERS
    }


def read_json_file(stream: BinaryIO, path: str | None, encoding: str = "auto") -> Iterator[Record]:
    """The records of a .json file of any length."""
    pieces = read_pieces(stream, encoding)
    first = next(pieces)
    lost = first.undecodable_bytes

    def following() -> Iterator[tuple[str, int]]:
        nonlocal lost
        for piece in pieces:
            lost += piece.undecodable_bytes
            yield piece.text, piece.size

    for record in read_json(first.text, path, first.size, following() if first.is_part else None):
        record.encoding, record.undecodable_bytes = first.encoding, lost
        yield record
        lost = 0


def _piece(data: bytes, encoding: str, is_part: bool) -> TextPart:
    try:
        text, found, lost = decode_lenient(data, encoding)
    except ValueError as error:
        raise Unusable(
            UNDECODABLE,
            f"the file is not readable text: {error}",
            hint="give a text file; if the encoding is another one, name it: corpus.encoding=shift_jis",
        ) from error
    return TextPart(text, found, len(data), lost, is_part)


def _cut(buffer: bytearray, encoding: str) -> int:
    """Where the next part ends: behind a line end, else behind a whole character."""
    if len(buffer) <= PART_BYTES:
        return len(buffer)
    if encoding != "auto" and is_wide(encoding):
        return _wide_cut(buffer, encoding)
    # A byte "\n" is a line end in UTF-8, GB18030 and Big5, and never a part of a character.
    cut = buffer.rfind(b"\n", 0, PART_BYTES) + 1
    return cut or _whole_characters(bytes(buffer[:PART_BYTES]), encoding)


def _wide_cut(buffer: bytearray, encoding: str) -> int:
    """The same where a line end is as long as any character."""
    end = "\n".encode(encoding)
    cut = buffer.rfind(end, 0, PART_BYTES)
    while cut > 0 and cut % len(end):  # its bytes may lie across two characters
        cut = buffer.rfind(end, 0, cut + len(end) - 1)
    return cut + len(end) if cut > 0 else _whole_characters(bytes(buffer[:PART_BYTES]), encoding)


def _whole_characters(data: bytes, encoding: str) -> int:
    """Bytes up to the last whole character."""
    for name in ("utf-8", *CHINESE) if encoding == "auto" else (encoding,):
        decoder = codecs.getincrementaldecoder(name)()
        with contextlib.suppress(UnicodeDecodeError):
            decoder.decode(data)
            return len(data) - len(decoder.getstate()[0])
    return len(data)


def _without_mark(encoding: str, buffer: bytearray) -> str:
    """The wide encoding with its order of bytes, which the mark, taken off, had told."""
    if encoding != "utf-16":
        return encoding
    order = "utf-16-be" if buffer.startswith(codecs.BOM_UTF16_BE) else "utf-16-le"
    if buffer.startswith((codecs.BOM_UTF16_BE, codecs.BOM_UTF16_LE)):
        del buffer[:2]
    return order

"""Bytes that are nearly text → text: a novel with a broken byte, a file joined from several encodings.

In: the bytes of a file, and what it declares itself to be. Out: the text, its encoding and how many bytes
became U+FFFD. What ``encodings.decode`` reads is read so. What it refuses is read with a few broken places,
if the rest is plausible; else line by line, if every line then is text and the whole is surely Chinese.
"""

import codecs
import contextlib
import io
import re
from collections.abc import Iterator

from yanmo.text.encodings import (
    CHINESE,
    HEAD,
    MARKS,
    MAX_CONTROL_SHARE,
    decode,
    ordinary_share,
    plausibility,
    read_lines,
    why_strange,
)

FEW = 100
BYTES_A_PLACE = 10_000
"""Broken places that are borne with: one, and one more in so many bytes, but no more than ``FEW``."""
SHORTEST = 64
"""Bytes of a file with a broken place: shorter ones show too little of what they are."""
SURE = 0.8
"""Plausibility of a text that is put together or has broken places; right ones have about 0.95."""

NAMES = {
    "utf-8": ("utf-8",), "utf8": ("utf-8",),
    "gb2312": ("gb18030",), "gbk": ("gb18030",), "gb18030": ("gb18030",), "x-gbk": ("gb18030",),
    "gb_2312-80": ("gb18030",), "chinese": ("gb18030",), "cp936": ("gb18030",),
    "big5": CHINESE[1:], "big5-hkscs": CHINESE[1:], "x-x-big5": CHINESE[1:], "cn-big5": CHINESE[1:],
    "shift_jis": ("cp932",), "shift-jis": ("cp932",), "x-sjis": ("cp932",), "euc-jp": ("euc-jp",),
    "euc-kr": ("cp949",), "ks_c_5601-1987": ("cp949",),
    "iso-8859-1": ("cp1252",), "windows-1252": ("cp1252",), "latin1": ("cp1252",), "us-ascii": ("cp1252",),
    "windows-1251": ("cp1251",), "koi8-r": ("koi8-r",),
}  # fmt: skip
"""What a page calls its encoding → those it may be; others are no evidence."""
LABEL = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([\w:.-]+)""", re.IGNORECASE)


def decode_damaged(data: bytes, encoding: str = "auto") -> tuple[str, str, int]:
    """(text, encoding, undecodable bytes).

    Raises:
        ValueError: with the reason, when the bytes are no text.
        LookupError: no encoding has this name.
    """
    try:
        return *decode(data, encoding), 0
    except ValueError:
        found = _patched(data, encoding) or (_line_by_line(data) if encoding == "auto" else None)
        if found is None:
            raise
        return found


def decode_page(data: bytes, encoding: str = "auto") -> tuple[str, str, int]:
    """The same for HTML and XML, where what they declare is evidence, but not more than how it looks."""
    label = LABEL.search(data[:4096])
    names = NAMES.get(label[1].decode("ascii", "replace").lower(), ()) if label else ()
    if encoding != "auto" or data.startswith(tuple(mark for mark, _ in MARKS)):
        return decode_damaged(data, encoding)
    declared = next(_all_strict(data, names), None)
    try:
        found = decode_damaged(data)
    except ValueError:
        if declared is None or why_strange(declared[0]):
            raise
        return declared
    if declared is None or why_strange(declared[0]):
        return found
    return declared if plausibility(declared[0]) >= plausibility(found[0]) else found


def _all_strict(data: bytes, names: tuple[str, ...]) -> Iterator[tuple[str, str, int]]:
    for name in names:
        with contextlib.suppress(ValueError):
            yield data.decode(name), name, 0


def _patched(data: bytes, encoding: str) -> tuple[str, str, int] | None:
    """The most plausible text with few broken places."""
    if len(data) < SHORTEST:
        return None
    found = [
        (text, name, lost)
        for name in _candidates(data, encoding)
        for text, lost in _with_few_broken(data.removeprefix(_mark(data)), name)
    ]
    score = ordinary_share if found and found[0][1].startswith("utf-16") else plausibility
    best = max(found, key=lambda one: score(one[0].replace("\ufffd", "")), default=None)
    if best is None or why_strange(best[0], best[1]):
        return None
    is_sure = encoding != "auto" or score(best[0].replace("\ufffd", "")) >= SURE
    return best if is_sure else None


def _candidates(data: bytes, encoding: str) -> tuple[str, ...]:
    if encoding != "auto":
        return (encoding,)
    if data.startswith(codecs.BOM_UTF8):
        return ("utf-8",)
    if data.startswith(codecs.BOM_UTF16_LE):
        return ("utf-16-le",)
    if data.startswith(codecs.BOM_UTF16_BE):
        return ("utf-16-be",)
    if data.count(b"\x00") > MAX_CONTROL_SHARE * len(data):
        return ("utf-16-le", "utf-16-be")
    return ("utf-8", *CHINESE)


def _mark(data: bytes) -> bytes:
    return next((mark for mark, _ in MARKS if data.startswith(mark)), b"")


def _with_few_broken(data: bytes, encoding: str) -> Iterator[tuple[str, int]]:
    """The text with U+FFFD in the broken places, and their bytes; nothing if there are many."""
    view, parts, lost = memoryview(data), [], 0
    for _ in range(min(FEW, 1 + len(data) // BYTES_A_PLACE) + 1):
        try:
            parts.append(str(view, encoding))
        except UnicodeDecodeError as error:
            parts += [str(view[: error.start], encoding), "\ufffd"]
            lost += error.end - error.start
            view = view[error.end :]
        else:
            yield "".join(parts), lost
            return


def _line_by_line(data: bytes) -> tuple[str, str, int] | None:
    """A text joined from several encodings."""
    if data.count(b"\x00") > MAX_CONTROL_SHARE * len(data) or len(data) < HEAD >> 10:
        return None
    lines: list[str] = []
    names: set[str] = set()
    for line in read_lines(io.BytesIO(data)):
        if line.undecodable:
            return None
        lines.append(line.text)
        names.add(line.encoding)
    text = "\n".join(lines) + "\n" * data.endswith(b"\n")
    if plausibility(text) < SURE or why_strange(text):
        return None
    return text, "+".join(sorted(names)), 0

"""Bytes that are nearly text → text: a novel with a broken byte, a file joined from several encodings.

In: the bytes of a file, and what it declares itself to be. Out: the text, its encoding and how many bytes
became U+FFFD. What ``encodings.decode`` reads is read so. What it refuses is read with a few broken places,
if the rest is plausible; else line by line, if every line then is text and the whole is surely Chinese.
"""

import contextlib
import io
import re
from collections.abc import Iterator

from yanmo.text.read.encodings import (
    CHINESE,
    HEAD_BYTES,
    MARKS,
    MAX_CONTROL_SHARE,
    SURE_COMMON_SHARE,
    anomaly,
    common_share,
    decode,
    ordinary_share,
    read_lines,
)

MAX_BROKEN_PLACES = 100
BYTES_A_PLACE = 10_000
"""Broken places that are borne with: one, and one more in so many bytes, but no more than those above."""
MIN_DAMAGED_BYTES = 64
"""Bytes of a file with a broken place: shorter ones show too little of what they are."""

GB, BIG5 = CHINESE[0], CHINESE[1:]
NAMES: dict[str, tuple[str, ...]] = {
    "utf-8": ("utf-8",), "utf8": ("utf-8",), "koi8-r": ("koi8-r",), "koi8-u": ("koi8-u",),
    "shift_jis": ("cp932",), "shift-jis": ("cp932",), "x-sjis": ("cp932",), "euc-jp": ("euc-jp",),
    "euc-kr": ("cp949",), "ks_c_5601-1987": ("cp949",), "tis-620": ("cp874",), "windows-874": ("cp874",),
    **dict.fromkeys(("gb2312", "gbk", "gb18030", "x-gbk", "gb_2312", "gb_2312-80", "csgb2312"), (GB,)),
    **dict.fromkeys(("chinese", "cp936", "ms936", "euc-cn"), (GB,)),
    **dict.fromkeys(("big5", "big5-hkscs", "x-x-big5", "cn-big5", "csbig5"), BIG5),
    **dict.fromkeys(("iso-8859-1", "latin1", "us-ascii"), ("cp1252",)),
    **{f"windows-{n}": (f"cp{n}",) for n in range(1250, 1259)},
    **{f"iso-8859-{n}": (f"iso8859-{n}",) for n in (*range(2, 9), 10, 13, 14, 15, 16)},
}  # fmt: skip
"""What a page calls its encoding → those it may be. No other name is believed, in whatever place it stands:
Python's unicode_escape, punycode or hex are no encodings of pages."""
LIKE_CHINESE = ("cp932", "euc-jp", "cp949")
"""Japanese and Korean: their bytes are often Chinese ones too, so that the label decides."""
LABEL = re.compile(r"""(?:charset|encoding)\s*=\s*["']?\s*([\w:.-]{1,40})""", re.IGNORECASE)
LABEL_BYTES = 4096
"""Bytes of a page in which its label is looked for."""
BYTES_A_PAGE_PLACE = 200
"""The same as ``BYTES_A_PLACE``, for pages: those that call themselves GBK have a few such bytes."""


def decode_lenient(data: bytes, encoding: str = "auto") -> tuple[str, str, int]:
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


def decode_page(data: bytes, encoding: str = "auto", content_type: str = "") -> tuple[str, str, int]:
    """The same for HTML and XML, where what they declare is evidence, but not more than how it looks.

    ``content_type`` is what a server says of the page; it comes before what the page says of itself.
    """
    if encoding != "auto":
        return decode_lenient(data, _superset(encoding))
    if data.startswith(tuple(mark for mark, *_ in MARKS)):
        return decode_lenient(data)
    names = declared(data, content_type)
    labelled = next(_all_strict(data, names), None)  # evidence, and no more: labels may be wrong
    if labelled and anomaly(labelled[0]):
        labelled = None
    try:
        found = decode_lenient(data)
    except ValueError:
        labelled = labelled or _patched_page(data, names)
        if labelled is None:
            raise
        return labelled
    if labelled is None:
        return found
    # Shift_JIS and EUC-KR read as GBK give hanzi, too, if nonsensical ones; nobody labels Chinese so.
    is_like_chinese = labelled[1] in LIKE_CHINESE and found[1] in CHINESE
    return labelled if is_like_chinese or common_share(labelled[0]) >= common_share(found[0]) else found


def declared(data: bytes, content_type: str = "") -> tuple[str, ...]:
    """The encodings that a page may have by its labels; none where they name no encoding of pages."""
    said = f"{content_type}\n{data[:LABEL_BYTES].decode('latin-1')}"
    known = (NAMES[label] for match in LABEL.finditer(said) if (label := match[1].lower()) in NAMES)
    return next(known, ())


def _superset(name: str) -> str:
    """What a person means who names an encoding: gb2312 and gbk are gb18030, as in browsers."""
    return GB if NAMES.get(name.lower().strip()) == (GB,) else name


def _patched_page(data: bytes, names: tuple[str, ...]) -> tuple[str, str, int] | None:
    """A page with more broken places than a text may have, in what it declares or the usual encodings."""
    for name in (*names, "utf-8", GB):
        for text, lost in _with_few_broken(data, name, 1 + len(data) // BYTES_A_PAGE_PLACE):
            if not anomaly(text) and (name in names or common_share(text) >= SURE_COMMON_SHARE):
                return text, name, lost
    return None


def _all_strict(data: bytes, names: tuple[str, ...]) -> Iterator[tuple[str, str, int]]:
    for name in names:
        with contextlib.suppress(ValueError):
            yield data.decode(name), name, 0


def _patched(data: bytes, encoding: str) -> tuple[str, str, int] | None:
    """The most plausible text with few broken places."""
    if len(data) < MIN_DAMAGED_BYTES:
        return None
    places = min(MAX_BROKEN_PLACES, 1 + len(data) // BYTES_A_PLACE)
    found = [
        (text, name, lost)
        for name in _candidates(data, encoding)
        for text, lost in _with_few_broken(data.removeprefix(_mark(data)), name, places)
    ]
    score = ordinary_share if found and found[0][1].startswith("utf-16") else common_share
    best = max(found, key=lambda one: score(one[0].replace("\ufffd", "")), default=None)
    if best is None or anomaly(best[0], best[1]):
        return None
    is_sure = encoding != "auto" or score(best[0].replace("\ufffd", "")) >= SURE_COMMON_SHARE
    return best if is_sure else None


def _candidates(data: bytes, encoding: str) -> tuple[str, ...]:
    if encoding != "auto":
        return (encoding,)
    for mark, _, name in MARKS:
        if data.startswith(mark):
            return (name,)
    if data.count(b"\x00") > MAX_CONTROL_SHARE * len(data):
        return ("utf-16-le", "utf-16-be")
    return ("utf-8", *CHINESE)


def _mark(data: bytes) -> bytes:
    return next((mark for mark, *_ in MARKS if data.startswith(mark)), b"")


def _with_few_broken(data: bytes, encoding: str, places: int) -> Iterator[tuple[str, int]]:
    """The text with U+FFFD in the broken places, and their bytes; nothing if there are more."""
    view, parts, lost = memoryview(data), [], 0  # a view: what is left is not copied for each broken place
    for _ in range(places + 1):
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
    if data.count(b"\x00") > MAX_CONTROL_SHARE * len(data) or len(data) < HEAD_BYTES >> 10:
        return None
    lines: list[str] = []
    names: set[str] = set()
    for line in read_lines(io.BytesIO(data)):
        if line.undecodable:
            return None
        lines.append(line.text)
        names.add(line.encoding)
    text = "\n".join(lines) + "\n" * data.endswith(b"\n")
    if common_share(text) < SURE_COMMON_SHARE or anomaly(text):
        return None
    return text, "+".join(sorted(names)), 0

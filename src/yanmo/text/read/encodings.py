"""Bytes → text, on evidence; and text → text without illegal control characters.

In: the bytes of a file, or a stream of lines. Out: the text and the encoding's name, or a ValueError
that says why there is none. The ladder: the encoding that was named; a byte-order mark; UTF-16 where
there are NUL bytes; strict UTF-8; else GB18030 or Big5, whichever gives the more plausible text.

Nearly all bytes of Big5 are also valid GB18030, so decoding without an error proves nothing. What tells
them apart is how many characters are common ones: about 0.95 of a right text, 0.3 of a wrong one. On
random pieces of ten characters of real novels this was right on 99.9%, charset-normalizer on 97%, which
is why that library is not used. Korean and Japanese in EUC look like Chinese and have to be named.
"""

import codecs
import contextlib
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from typing import BinaryIO

CHINESE = ("gb18030", "big5hkscs", "big5", "cp950")
"""Tried where text is no UTF-8; of equally plausible ones the first."""
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig", "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16", "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16", "utf-16-be"),
)
"""Byte-order marks, with the encoding's name where the mark stands and where it was taken away."""
MIN_PLAUSIBILITY = 0.4
"""Share of common characters below which a guess is refused: measured are 0.35 and less for Shift_JIS,
Western and Cyrillic text, broken UTF-8 and binaries, 0.8 and more for 99% of pieces of ten characters."""
SURE_COMMON_SHARE = 0.8
"""The same of a text that was put together, mended or read back from something else: right ones have about
0.95, French or German none."""
MAX_PRIVATE_SHARE = 0.01
"""A text with more private-use characters than this was decoded wrongly; GB18030 novels from the web
have a few hundred."""
MAX_CONTROL_SHARE = 0.1
"""A text with more control characters than this is no text; a few, NUL too, are removed."""
MAX_FEW_CHARACTERS = 100
"""So many private-use or control characters are no reason to refuse a text, be it ever so short."""
HEAD_BYTES = 1 << 16
"""Bytes of a file of lines that show which encoding most of it has."""
UTF_16_BYTES = 1 << 20
"""Bytes of UTF-16 decoded at a time."""
MAX_LINE_BYTES = 1 << 29
"""Bytes of a line: longer ones are passed over and reported, so that no file fills the memory."""
WEAK_EVIDENCE_BYTES = 40
"""A line with fewer bytes beyond ASCII than this is too short to be judged alone."""

BINARY = "binary (it contains NUL bytes)"

ILLEGAL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufffe\uffff\ud800-\udfff]")
LOW_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\ufeff\ufffe\uffff\ud800-\udfff]")
READ_AS_LATIN = "\x80-\xbf\u0152-\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122"
"""What bytes behind the first of a character become when they are read as Latin-1 or Windows-1252."""
BYTES_OF_TEXT = re.compile(f"[\xe0-\xf4][{READ_AS_LATIN}]{{2}}|[\xc3\xd0\xd1][\x80-\x9f]|[\x81-\xfe]{{8}}")
"""Text that was read as Latin-1: a character of UTF-8, or a word of any Chinese encoding. There U+0080 to
U+009F are no control characters but bytes, by which it can be repaired."""
PRIVATE = re.compile("[\ue000-\uf8ff\U000f0000-\U0010fffd]")
ASCII = bytes(range(128))


def decode(data: bytes, encoding: str = "auto") -> tuple[str, str]:
    """Bytes to text on evidence. Gives (text, encoding).

    Args:
        data: a whole file.
        encoding: ``auto`` climbs the ladder; any other name is used as given.

    Raises:
        ValueError: with the reason, when the bytes are no text in any of these.
        LookupError: no encoding has this name.
    """
    text, name = _detect(data, encoding)
    if strange := anomaly(text, name):
        raise ValueError(f"read as {name}, {strange}")
    return text, name


@dataclass(frozen=True)
class Line:
    """A line without its end, and how many bytes it took; or the reason why it cannot be decoded."""

    text: str
    encoding: str
    size: int
    undecodable: str = ""


def read_lines(stream: BinaryIO, encoding: str = "auto") -> Iterator[Line]:
    r"""Decode a file line by line, never more of it than one line. Lines end at ``\n`` and nowhere else.

    Each line is judged by its own bytes, so that a file joined from several encodings is read right. A
    line too short for that is read as the last long one was, or as the file's beginning is.

    Raises:
        LookupError: no encoding has this name.
    """
    head = stream.read(HEAD_BYTES)  # and no seeking back: the stream may be that of a packed file
    like = encoding if encoding != "auto" else encoding_of_head(head)
    if is_wide(like):
        yield from _wide_lines(head, stream, like)
        return
    following = iter(partial(stream.readline, MAX_LINE_BYTES), b"")
    for line in chain(_lines_of_head(head, stream), following):
        if len(line) >= MAX_LINE_BYTES and not line.endswith(b"\n"):
            size = len(line) + _rest_of_line(stream)
            yield Line("", "", size, f"the line is longer than {MAX_LINE_BYTES >> 20} MB")
            continue
        try:
            text, found = _decode_line(line, encoding, like)
        except ValueError as error:
            yield Line("", "", len(line), str(error))
        else:
            like = found if _is_long_enough(line) else like
            yield Line(text.removesuffix("\n"), found, len(line))


def is_wide(encoding: str) -> bool:
    """Whether a line end takes more than a byte, as in UTF-16."""
    return len("\n\n".encode(encoding)) - len("\n".encode(encoding)) > 1


def encoding_of_head(head: bytes) -> str:
    """The encoding of a file's beginning, as far as whole characters go; utf-8 where it cannot be told."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    # The head may end within a character: up to its last line end, or a byte to three earlier, it does not.
    for whole in (head[: head.rfind(b"\n") + 1] or head, head, head[:-1], head[:-2], head[:-3]):
        with contextlib.suppress(ValueError):
            return _detect(whole)[1]
    return "utf-8"


def unify_line_ends(text: str) -> tuple[str, int]:
    r"""``\r\n``, ``\r`` and U+0085, where it is a character, become ``\n``. Gives (text, how many)."""
    changed = text.count("\r")
    if changed:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\x85" in text and BYTES_OF_TEXT.search(text) is None:
        changed += text.count("\x85")
        text = text.replace("\x85", "\n")
    return text, changed


def remove_controls(text: str) -> tuple[str, int]:
    r"""Take out what no text needs. Gives (text, how many).

    These are: control characters but ``\t`` and ``\n``, U+FEFF, U+FFFE, U+FFFF, and lone surrogates, as
    JSON's ``\ud800`` gives them: they are no characters and cannot be written. In a text that was read as
    Latin-1 on its way here, U+0080 to U+009F stay, for ``clean`` needs them to repair it.
    """
    if ILLEGAL.search(text) is None:
        return text, 0
    return (LOW_CONTROL if BYTES_OF_TEXT.search(text) else ILLEGAL).subn("", text)


def common_share(text: str) -> float:
    """Share of the characters beyond ASCII that are common in Chinese; 1 where there are none."""
    counts = Counter(text)
    beyond = sum(n for c, n in counts.items() if c > "\x7f")
    return sum(n for c, n in counts.items() if c in common_characters()) / beyond if beyond else 1.0


# -- rungs of the ladder ----------------------------------------------------------------------


def _detect(data: bytes, encoding: str = "auto") -> tuple[str, str]:
    if encoding != "auto":
        return _strict(data, encoding), encoding
    for mark, name, _ in MARKS:
        if data.startswith(mark):
            return _strict(data, name), name
    # Chinese in UTF-16 has NULs in every space, digit and line end; no other text has more than a stray one.
    nuls = data.count(b"\x00")
    if nuls > MAX_CONTROL_SHARE * len(data):
        return _decode_utf_16(data)
    try:
        return _strict(data, "utf-8"), "utf-8"
    except ValueError as error:
        not_utf_8 = str(error)
    if not nuls:
        return _decode_chinese(data, not_utf_8)
    with contextlib.suppress(ValueError):
        return _decode_utf_16(data)
    with contextlib.suppress(ValueError):
        return _decode_chinese(data, not_utf_8)
    raise ValueError(BINARY)


def _strict(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ValueError(f"not {encoding} at byte {error.start}") from error


def anomaly(text: str, encoding: str = "") -> str:
    """What speaks against a text: too many private-use or control characters; or nothing.

    What is Unicode was not decoded wrongly here: its private-use characters are those of a site's font, and
    its U+0080 to U+009F may be bytes that were read as Latin-1. ``text/inspect/notes.py`` says the one,
    ``clean`` repairs the other.
    """
    is_unicode = encoding.startswith("utf")
    private = 0 if is_unicode else len(PRIVATE.findall(text))
    if private > max(MAX_PRIVATE_SHARE * len(text), MAX_FEW_CHARACTERS):
        return f"{private / len(text):.0%} of its characters are private-use ones"
    most, unified = max(MAX_CONTROL_SHARE * len(text), MAX_FEW_CHARACTERS), text.replace("\r", "")
    controls = len(ILLEGAL.findall(unified))
    if controls > most and is_unicode and BYTES_OF_TEXT.search(text):
        controls = len(LOW_CONTROL.findall(unified))
    if controls > most:
        return f"{controls / len(text):.0%} of its characters are control characters"
    return ""


def _decode_utf_16(data: bytes) -> tuple[str, str]:
    """UTF-16 without a byte-order mark, in the more plausible order."""
    texts, _ = all_that_decode(data, ("utf-16-le", "utf-16-be"))
    text, name, share = _best(texts, ordinary_share)
    if share < MIN_PLAUSIBILITY or anomaly(text):
        raise ValueError(BINARY)
    return text, name


def _decode_chinese(data: bytes, not_utf_8: str) -> tuple[str, str]:
    texts, reasons = all_that_decode(data, CHINESE)
    text, name, share = _best(texts, common_share)
    if not name:
        raise ValueError("; ".join([not_utf_8, *reasons[:2]]))
    if share < MIN_PLAUSIBILITY:
        raise ValueError(f"{not_utf_8}; read as {name}, only {share:.0%} would be common characters")
    return text, name


def all_that_decode(data: bytes, names: tuple[str, ...]) -> tuple[dict[str, str], list[str]]:
    """The text in each encoding that fits, and where the others do not."""
    texts, reasons = {}, []
    for name in names:
        try:
            texts[name] = _strict(data, name)
        except ValueError as error:
            reasons.append(str(error))
    return texts, reasons


def _best(texts: dict[str, str], score: Callable[[str], float]) -> tuple[str, str, float]:
    """(text, encoding, score) of the text with the highest score; the first of equal ones."""
    scores = {name: score(text) for name, text in texts.items()}
    name = max(scores, key=scores.__getitem__, default="")
    return texts.get(name, ""), name, scores.get(name, 0.0)


def ordinary_share(text: str) -> float:
    """Share of all characters that are readable ASCII or common in Chinese."""
    ordinary = sum(
        n for c, n in Counter(text).items() if " " <= c < "\x7f" or c in "\t\n\r" or c in common_characters()
    )
    return ordinary / max(len(text), 1)


@cache
def common_characters() -> frozenset[str]:
    """Level 1 of GB2312 (3,755 hanzi) and of Big5 (5,401), and GB2312's punctuation: 7,000 characters."""
    return frozenset(
        _decoded(0xB0A1, 0xD7F9, "gb2312")
        + _decoded(0xA1A1, 0xA1FE, "gb2312")
        + _decoded(0xA3A1, 0xA3FE, "gb2312")
        + _decoded(0xA440, 0xC67E, "big5")
    )


def _decoded(first: int, last: int, encoding: str) -> str:
    pairs = (code.to_bytes(2, "big").decode(encoding, "ignore") for code in range(first, last + 1))
    return "".join(pair for pair in pairs if len(pair) == 1 and pair > "\x7f")


# -- lines ------------------------------------------------------------------------------------


def _lines_of_head(head: bytes, stream: BinaryIO) -> list[bytes]:
    """The lines that begin in what has been read; the last one is read to its end."""
    lines = io.BytesIO(head).readlines()
    if lines and not lines[-1].endswith(b"\n"):
        lines[-1] += stream.readline(MAX_LINE_BYTES)
    return lines


def _rest_of_line(stream: BinaryIO) -> int:
    """Read on to the line's end. Gives how many bytes that took."""
    size = 0
    while part := stream.readline(HEAD_BYTES):
        size += len(part)
        if part.endswith(b"\n"):
            break
    return size


def _decode_line(line: bytes, encoding: str, like: str) -> tuple[str, str]:
    """A line is too short to be refused for its share of strange characters."""
    if encoding != "auto":
        return _detect(line, encoding)
    line = line.replace(b"\x00", b"\x01")  # the file is no UTF-16: a stray control character like others
    if like in CHINESE and not _is_long_enough(line):
        with contextlib.suppress(ValueError):
            return _strict(line, like), like
    return _detect(line)


def _is_long_enough(line: bytes) -> bool:
    return len(line.translate(None, ASCII)) >= WEAK_EVIDENCE_BYTES


def _wide_lines(head: bytes, stream: BinaryIO, encoding: str) -> Iterator[Line]:
    r"""Lines of UTF-16 and its like, where a line end is more than the byte ``\n``."""
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
    rest, chunk, at_end = "", head, False
    while not at_end:
        at_end = not chunk
        try:
            *lines, rest = (rest + decoder.decode(chunk, at_end)).split("\n")
        except UnicodeDecodeError as error:
            yield Line("", encoding, 0, f"not {encoding} from here on: {error.reason}")
            return
        for line in lines:
            yield _wide_line(line + "\n", encoding)
        chunk = stream.read(UTF_16_BYTES)
    if rest:
        yield _wide_line(rest, encoding)


def _wide_line(line: str, encoding: str) -> Line:
    mark = len("".encode(encoding))
    size = len(line.encode(encoding, "surrogatepass")) - mark
    return Line(line.removesuffix("\n").removeprefix("\ufeff"), encoding, size)

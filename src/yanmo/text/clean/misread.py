r"""Chinese that stands in a text as something else: bytes read as Latin-1, HZ, and ``\uXXXX`` typed out.

In: a text. Out: the text with what can be read back read back, all else to the letter. Nothing in such a
text says what it is but what it becomes: right Chinese is nearly all common characters, and a good part of
them the commonest. What else is written with accented letters, tables of them included, is neither.
"""

import re
from collections import Counter

from yanmo.text.read.encodings import SURE_COMMON_SHARE, common_share, decode

WINDOWS = {ord(bytes([n]).decode("cp1252", "replace")): n for n in range(0x80, 0xA0)}
"""What Windows-1252 makes of the bytes 80 to 9F, and which byte it was; five of them stay as they are."""
del WINDOWS[ord("\ufffd")]
BYTE_LETTERS = "\x80-\xff" + "".join(map(chr, WINDOWS))
RUN = re.compile(f"[\\t\\x20-\\x7e{BYTE_LETTERS}]+")
"""A stretch of a line that may be bytes."""
ACCENTED = re.compile("[\xa1-\xff]")
MIN_RUN_BYTES = 12
"""Bytes beyond ASCII in a run that is judged alone."""
MIN_READ_CHARACTERS = 6
"""Characters read back from HZ or escapes before they count as evidence."""
COMMONEST = frozenset(
    "，。、：；？！“”（）《》…—　的一是不了在有人我他这這个個们們中来來上大为為和国國地到以说說时時要就"
    "出会會可也你对對生能而子那得于於着著下自之年过過发發后後作里裡用道行所然家种種事成方多经經么麼去法学學"
    "如都同现現当當没沒动動面起看定天分还還进進好小部其些主样樣"
    "理心她本前开開但因只从從想实實日者意无無此已老手知回情点點又很把"
)  # fmt: skip
"""Marks, and the hundred commonest characters in both scripts."""
MIN_COMMONEST_SHARE = 0.2
"""Share of them: running text has 0.4 and more, random common characters have 0.04."""
HZ = re.compile(r"~\{(?:[\x21-\x7d][\x21-\x7e])+~\}")
ESCAPES = re.compile(r"(?:\\{1,2}u[0-9A-Fa-f]{4}){2,}")
MIN_ESCAPED_SHARE = 0.5
"""Share of what is no space in a text that is typed as escapes; a text about them has less."""


def as_chinese(text: str) -> str:
    r"""Read GBK or Big5 that was read as Latin-1 or Windows-1252 right.

    >>> as_chinese("ËûÅÜÁË¡£ÉÕ¿¾µÄÈËÔÚ½ÖÉÏ¡£\nLe café est fermé à Noël.\n他说：“走吧。”")
    '他跑了。烧烤的人在街上。\nLe café est fermé à Noël.\n他说：“走吧。”'
    >>> as_chinese("ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞß")
    'ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞß'
    """
    names: Counter[str] = Counter()
    for run in RUN.findall(text):
        if name := _encoding_of(run):
            names[name] += len(run)
    if not names:
        return text
    # One text, one encoding: what a short run could be is decided by the long ones beside it.
    name = names.most_common(1)[0][0]
    return RUN.sub(lambda match: _read_as(match[0], name), text)


def _bytes_of(run: str) -> bytes:
    return run.translate(WINDOWS).encode("latin-1")


def _encoding_of(run: str) -> str:
    """The encoding in which a run of bytes is surely Chinese, or an empty string."""
    if ACCENTED.search(run) is None:
        return ""
    data = _bytes_of(run)
    if sum(1 for byte in data if byte >= 0x80) < MIN_RUN_BYTES:
        return ""
    try:
        text, name = decode(data)
    except ValueError:
        return ""
    return name if name not in ("utf-8", "utf-8-sig") and is_chinese(text) else ""


def _read_as(run: str, name: str) -> str:
    """A run read right, if it then is Chinese; it stands beside others that surely are."""
    if ACCENTED.search(run) is None:
        return run  # “ and … are bytes, too
    try:
        text = _bytes_of(run).decode(name)
    except UnicodeDecodeError:
        return run
    return text if common_share(text) >= SURE_COMMON_SHARE else run


def is_chinese(text: str) -> bool:
    """Whether what was read back is running Chinese, and no chance."""
    beyond = [c for c in text if c > "\x7f"]
    commonest = sum(1 for c in beyond if c in COMMONEST)
    return common_share(text) >= SURE_COMMON_SHARE and commonest >= MIN_COMMONEST_SHARE * len(beyond) > 0


def hz(text: str) -> str:
    r"""Read HZ, which writes Chinese in ASCII between ``~{`` and ``~}``.

    >>> hz("He said ~{:CND~}."), hz("~{K{TZVP9z5D4sQ'@oQ'1`3L!#~}")
    ('He said ~{:CND~}.', '他在中国的大学里学编程。')
    """
    found = "".join(map(_of_hz, HZ.finditer(text)))
    return HZ.sub(_of_hz, text) if len(found) >= MIN_READ_CHARACTERS and is_chinese(found) else text


def _of_hz(match: re.Match[str]) -> str:
    return match[0].encode("ascii").decode("hz", "replace")


def escapes(text: str) -> str:
    r"""Read a text that is typed as ``\uXXXX``; one that only tells of them stays.

    >>> escapes(r"\u4ed6\u8bf4\uff1a\u8d70\u5427\u3002 \u5979\u4e0d\u8d70\u3002")
    '他说：走吧。 她不走。'
    >>> escapes(r"In Python, '\u4f60\u597d' is a greeting of two characters.")
    "In Python, '\\u4f60\\u597d' is a greeting of two characters."
    """
    runs = ESCAPES.findall(text)
    found = "".join(map(_typed, runs))
    visible = sum(map(len, text.split()))
    if (
        len(found) < MIN_READ_CHARACTERS
        or sum(map(len, runs)) < MIN_ESCAPED_SHARE * visible
        or not is_chinese(found)
    ):
        return text
    return re.sub(r"(?:\\{1,2}u[0-9A-Fa-f]{4})+", lambda match: _typed(match[0]), text)


def _typed(run: str) -> str:
    """What a run of escapes stands for; halves of a pair that are alone stay U+FFFD."""
    units = b"".join(int(unit, 16).to_bytes(2, "big") for unit in re.findall("u([0-9A-Fa-f]{4})", run))
    return units.decode("utf-16-be", "replace")

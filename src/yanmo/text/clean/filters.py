"""Rules that drop: texts in another language, and texts that nobody would read.

Everything is told by how many of which characters there are, for Chinese has no words to count. The
thresholds lie well outside what real texts have: docs/cleaning.md has their table.
"""

import re
import zlib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

from yanmo.text.read.encodings import PRIVATE, common_characters

SAMPLE_CHARACTERS = 400
"""Characters at the beginning, in the middle and at the end by which a long text is judged."""
ENOUGH_LETTERS = 20
"""A text or paragraph with fewer is not judged: a name or a date has no language."""
JUDGED_FROM_CHARACTERS = 100
"""Characters from which on a text can be mostly symbols or repeat itself."""
MIN_LETTER_SHARE = 0.35
"""Share of letters, hanzi and digits among what is no space; real documents have 0.52 and more, single
sentences 0.39."""
MAX_DIGIT_SHARE = 0.6
"""Share of digits; real documents have at most 0.30, sentences 0.54."""
MIN_COMMON_SHARE = 0.35
SUSPICIOUS_COMMON_SHARE = 0.6
SUSPICIOUS_LOST_SHARE = 0.005
"""Share of common ones among the hanzi; real texts have 0.79 and more, lists of rare characters less,
mojibake about 0.3. Between the two a text is garbled if so many characters are lost ones too."""
MAX_LOST_SHARE = 0.05
"""Share of U+FFFD and private-use characters; the worst real novel has 0.0003."""
FEW_LOST_CHARACTERS = 5
"""So many of them are no reason, be the text ever so short."""
MAX_HIGH_BYTE_SHARE = 0.5
"""Share of U+0080 to U+00FF among what is no space: bytes read as Latin-1 have 0.8 and more, French 0.04."""
MIN_COMPRESSED_SHARE = 0.15
"""Size of the compressed text; Chinese has 0.39 and more, one sentence over and over 0.03, with another
number in each 0.06."""

SCRIPTS = (
    ("zh", "\u3400", "\u9fff"), ("zh", "\uf900", "\ufaff"), ("zh", "\U00020000", "\U000323af"),
    ("latin", "A", "\u024f"), ("latin", "\u1e00", "\u1eff"), ("ru", "\u0400", "\u052f"),
    ("ja", "\u3040", "\u30ff"), ("ja", "\uff66", "\uff9f"),
    ("ko", "\uac00", "\ud7af"), ("ko", "\u1100", "\u11ff"),
)  # fmt: skip
SHARES = {"ja": 0.35, "ko": 0.5, "ru": 0.5, "other": 0.5, "latin": 0.8}
"""From which share of its letters on a text is in a language; of Japanese a good half are kana. Else it is
Chinese, which may name a book in any of them."""
FOREIGN = re.compile("[\u0370-\u1fff\u3040-\u30ff\uac00-\ud7af\uff66-\uff9f]")


class Dropped(Exception):
    """A text that is to be left out, for the reason it says."""

    @property
    def reason(self) -> str:
        """The reason, as it is counted."""
        return str(self)


def languages(text: str, kept: Collection[str]) -> str:
    r"""Drop a text that is mostly in another language, and paragraphs that are.

    >>> story = "他从口袋里摸出一张旧信纸，放在桌上，看了很久，一句话也没有说，只是叹气。"
    >>> found = languages(story + "\nПривет, как твои дела, друг мой?\n她笑了。", ("zh", "latin"))
    >>> found == story + "\n她笑了。"
    True
    >>> languages("これは日本語の文章です。中国語ではありません。とても長い。", ("zh",))
    Traceback (most recent call last):
    yanmo.text.clean.filters.Dropped: in Japanese
    """
    if {"zh", "latin"} <= {*kept} and not FOREIGN.search(text):
        return text  # most texts: nothing in it can be of a language that is not kept
    found = language(Counter(_sample(text)))
    if found and found not in kept:
        raise Dropped(f"in {NAMES[found]}")
    lines = text.split("\n")
    return "\n".join(line for line in lines if not _is_foreign(line, kept))


NAMES = {
    "zh": "Chinese", "latin": "English or alike", "ja": "Japanese", "ko": "Korean",
    "ru": "Russian or alike", "other": "another language",
}  # fmt: skip


def _is_foreign(line: str, kept: Collection[str]) -> bool:
    if len(line) < ENOUGH_LETTERS or ("latin" in kept and not FOREIGN.search(line)):
        return False
    found = language(Counter(line))
    return bool(found) and found not in kept


def language(counts: Counter[str]) -> str:
    """The language of a text given as its characters' counts; empty where it has too few letters."""
    letters = scripts(counts)
    total = letters.total()
    if total < ENOUGH_LETTERS:
        return ""
    return next((name for name, share in SHARES.items() if letters[name] >= share * total), "zh")


def scripts(counts: Counter[str]) -> Counter[str]:
    """How many letters of each script."""
    found: Counter[str] = Counter()
    for character, number in counts.items():
        if character.isalpha():
            found[_script(character)] += number
    return found


@cache
def _script(letter: str) -> str:
    return next((name for name, first, last in SCRIPTS if first <= letter <= last), "other")


def quality(text: str) -> str:
    """Drop a text that is garbled, mostly symbols or digits, or one thing over and over.

    >>> quality("“" * 300)
    Traceback (most recent call last):
    yanmo.text.clean.filters.Dropped: mostly symbols
    >>> quality("今天的天气很好，" * 60)
    Traceback (most recent call last):
    yanmo.text.clean.filters.Dropped: repeats itself
    >>> quality("锟斤拷\ufffd\ufffd\ufffd烫烫烫屯屯屯\ufffd\ufffd" * 3)
    Traceback (most recent call last):
    yanmo.text.clean.filters.Dropped: garbled
    >>> quality("春眠不觉晓，处处闻啼鸟。")
    '春眠不觉晓，处处闻啼鸟。'
    """
    found = measure(text)
    if found.is_garbled:
        raise Dropped("garbled")
    if found.visible < JUDGED_FROM_CHARACTERS:
        return text  # “……” is a fine line of a story, and 8 of 10 digits a date
    if found.digits > MAX_DIGIT_SHARE:
        raise Dropped("mostly digits")
    if found.letters < MIN_LETTER_SHARE:
        raise Dropped("mostly symbols")
    if found.compressed < MIN_COMPRESSED_SHARE:
        raise Dropped("repeats itself")
    return text


@dataclass(frozen=True)
class Measures:
    """What a text is judged by; shares are of its visible characters, all from a sample of it."""

    visible: int
    """Characters that are no spaces."""
    letters: float
    """Share of letters, hanzi and digits."""
    digits: float
    """Share of digits."""
    common: float
    """Share of the hanzi that are common ones; 1 where there are few."""
    lost: float
    """Share of U+FFFD and private-use characters; 0 where there are few."""
    bytes: float
    """Share of U+0080 to U+00FF; 0 where there are few."""
    compressed: float
    """Size when compressed, as a share."""

    @property
    def is_garbled(self) -> bool:
        """Whether it looks like bytes read in a wrong encoding."""
        is_strange = self.common < SUSPICIOUS_COMMON_SHARE and self.lost > SUSPICIOUS_LOST_SHARE
        return (
            is_strange
            or self.common < MIN_COMMON_SHARE
            or self.lost > MAX_LOST_SHARE
            or self.bytes > MAX_HIGH_BYTE_SHARE
        )


def measure(text: str) -> Measures:
    """What ``quality`` goes by."""
    sample = _sample(text)
    kinds: Counter[str] = Counter()
    for character, number in Counter(sample).items():
        kinds[_kind(character)] += number
    visible = kinds.total() - kinds["space"]
    hanzi, total = kinds["common"] + kinds["rare"], max(visible, 1)
    byte_like = kinds["byte letter"] + kinds["byte symbol"]
    data = sample.encode("utf-8", "surrogatepass")
    return Measures(
        visible,
        letters=1 - (kinds["symbol"] + kinds["byte symbol"] + kinds["lost"]) / total,
        digits=kinds["digit"] / total,
        common=kinds["common"] / hanzi if hanzi >= ENOUGH_LETTERS else 1.0,
        lost=kinds["lost"] / total if kinds["lost"] > FEW_LOST_CHARACTERS else 0.0,
        bytes=byte_like / total if byte_like >= ENOUGH_LETTERS else 0.0,
        compressed=len(zlib.compress(data, 1)) / max(len(data), 1)
        if visible >= JUDGED_FROM_CHARACTERS
        else 1.0,
    )


@cache
def _kind(character: str) -> str:
    """What a character counts as."""
    if character.isspace():
        return "space"
    if character.isdigit():
        return "digit"
    if "\u3400" <= character <= "\u9fff":
        return "common" if character in common_characters() else "rare"
    if character == "\ufffd" or PRIVATE.match(character):
        return "lost"
    kind = "letter" if character.isalpha() else "symbol"
    return f"byte {kind}" if "\x80" <= character <= "\xff" else kind


def _sample(text: str) -> str:
    if len(text) <= 3 * SAMPLE_CHARACTERS:
        return text
    middle = len(text) // 2
    return text[:SAMPLE_CHARACTERS] + text[middle : middle + SAMPLE_CHARACTERS] + text[-SAMPLE_CHARACTERS:]

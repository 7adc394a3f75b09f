"""What PDF readers and OCR do to Chinese: characters that only look like the right ones, and spaces.

In: a text. Out: the same in ordinary characters, and without the spaces between hanzi where they are
systematic. A model otherwise learns two 一, and that every other character is a space.
"""

import re
import unicodedata
from dataclasses import dataclass

import numpy as np

from yanmo.text.clean.characters import HAN

RADICALS = (
    "⺁厂⺂乛⺃乚⺄乙⺇几⺈刀⺊卜⺌小⺍小⺎兀⺏尣⺐尢⺒巳⺓幺⺛旡⺜日⺝月⺞歺⺟母⺠民⺧牛⺩王⺫目⺬示⺱网⺲网⺶羊⺻聿⺼肉⻁虎⻄西⻅见⻆角"
    "⻉贝⻋车⻑長⻒镸⻓长⻔门⻗雨⻘青⻙韦⻚页⻛风⻜飞⻝食⻢马⻣骨⻤鬼⻥鱼⻦鸟⻧卤⻨麦⻩黄⻪黾⻫斉⻬齐⻭歯⻮齿⻯竜⻰龙⻱龜⻲亀⻳龟"
)
"""CJK radicals that are characters by themselves, each with its character; Unicode gives but two of them."""
UPRIGHT = (
    "︐，︑、︒。︓：︔；︕！︖？︗〖︘〗︙…︰：︱—︵（︶）︷｛︸｝"
    "︹〔︺〕︻【︼】︽《︾》︿〈﹀〉﹁「﹂」﹃『﹄』﹇［﹈］"
)
"""Marks of vertical columns, each with that of a line."""


def _table() -> dict[int, str]:
    pairs = RADICALS + UPRIGHT
    found = {ord(odd): plain for odd, plain in zip(pairs[::2], pairs[1::2], strict=True)}
    ranges = (range(0x2F00, 0x2FD6), range(0xF900, 0xFB07), range(0x2F800, 0x2FA1E))
    for code in (code for codes in ranges for code in codes):
        # Of these blocks alone: NFKC of a whole text would also turn ² into 2 and ① into 1.
        plain = unicodedata.normalize("NFKC", chr(code))
        if plain != chr(code):
            found[code] = plain
    return found


ORDINARY = _table()
"""Radicals, compatibility ideographs, ligatures and upright marks, and what each looks like."""
ODD_UNITS = np.zeros(1 << 16, bool)
ODD_UNITS[[int.from_bytes(chr(code).encode("utf-16-be")[:2], "big") for code in ORDINARY]] = True
"""Which units of UTF-16 one of them begins with."""
RADICAL = re.compile("[\u2e80-\u2fd5]")
COMPATIBILITY = re.compile("[\uf900-\ufb06\ufe10-\ufe19\ufe30-\ufe48\U0002f800-\U0002fa1d]")

MARKS = "，。！？；：、…—“”‘’「」『』《》〈〉（）【】〔〕·"
SPACED = re.compile(f"(?<=[{HAN}{MARKS}]) +(?=[{HAN}{MARKS}])")
JOINED = re.compile(f"[{HAN}](?=[{HAN}])")
BEFORE_MARK = re.compile(f"(?<=[{HAN}])( *)[，。！？；：、]")
MIN_SPACES, MIN_SPACES_WITHOUT_MARKS = 8, 50
"""Between hanzi, before they can be systematic."""
MIN_SPACED_SHARE = 0.1
"""Share of the places between two hanzi that have a space."""
MIN_BEFORE_MARKS_SHARE = 0.1
"""Share of the marks with a space before them, which nobody types: lists of names and verse have none."""
MIN_FULLY_SHARE = 0.9
"""The same share in a text without marks."""


def ordinary(text: str) -> str:
    r"""Radicals, compatibility ideographs, ligatures and upright marks become ordinary characters.

    Half-width and full-width forms, ² and ㎡ are something else, and stay.

    >>> ordinary("⼀个⼈⾛了很⻓的路︐ 豈︵ﬁn︶"), ordinary("１ ㎡，①，〾⿰氵每")
    ('一个人走了很长的路， 豈（fin）', '１ ㎡，①，〾⿰氵每')
    """
    return text.translate(ORDINARY) if _has_odd_form(text) else text


def _has_odd_form(text: str) -> bool:
    """Whether one is in a text; a pattern with so wide a class would take ten times as long."""
    return bool(ODD_UNITS[np.frombuffer(text.encode("utf-16-le", "surrogatepass"), "<u2")].any())


@dataclass(frozen=True)
class Gaps:
    """The places between two hanzi of a text."""

    spaced: int
    joined: int
    marks: int
    marks_behind_spaces: int

    @property
    def share(self) -> float:
        """Of those with a space."""
        return self.spaced / max(self.spaced + self.joined, 1)

    @property
    def is_systematic(self) -> bool:
        """Whether a program put the spaces there."""
        if self.spaced < MIN_SPACES:
            return False
        if not self.marks:
            return self.share >= MIN_FULLY_SHARE and self.spaced >= MIN_SPACES_WITHOUT_MARKS
        return (
            self.share >= MIN_SPACED_SHARE and self.marks_behind_spaces >= MIN_BEFORE_MARKS_SHARE * self.marks
        )


NONE = Gaps(0, 0, 0, 0)


def gaps(text: str) -> Gaps:
    """Count them; a text with few spaces is not looked at."""
    # The plain count comes first: it is far cheaper than the patterns, and most texts have hardly any spaces.
    if text.count(" ") * 20 < len(text) or (spaced := len(SPACED.findall(text))) < MIN_SPACES:
        return NONE
    marks = BEFORE_MARK.findall(text)
    return Gaps(spaced, len(JOINED.findall(text)), len(marks), sum(1 for spaces in marks if spaces))


def spaces(text: str) -> str:
    r"""Take out the spaces between hanzi where OCR, a PDF reader or a word segmenter put them.

    >>> spaces("清 晨 的 河 边 没 有 人 ， 他 坐 下 来 ， 看 了 很 久 。\n")
    '清晨的河边没有人，他坐下来，看了很久。\n'
    >>> spaces("白日依山尽 黄河入海流\n" * 20) == "白日依山尽 黄河入海流\n" * 20
    True
    """
    return SPACED.sub("", text) if gaps(text).is_systematic else text

"""A novel → its chapters.

In: a text with ``\\n`` as line end. Out: its parts, each beginning with a heading; joined they are the
text, character for character. A heading is a line of its own: 第三回　施禅机赵宅治病, ☆、第12章 来信,
=== 正文 第一回 宴桃园豪杰三结义 ===, 第一章序, 楔子, 番外二 山中, 卷一, Chapter 1. Whether a line
is one is told by the line alone, with rules found on novels as they stand on the web
(``tests/text/read/test_chapters.py`` has the kinds of lines); only 1、 takes a book that numbers all so.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from statistics import median

NUMERALS = "0-9０-９零〇○一二三四五六七八九十百千万两廿卅卌兩萬壹贰貳叁參肆伍陆陸柒捌玖拾佰仟"
NUMBER = rf"[{NUMERALS}](?:[ \t\u3000]*[{NUMERALS}])*"
OPENING = "【〖〔［\\[《〈「『（(#＃*＊☆★※◆◇●○■□▲△=＝~～—-"
CLOSING = "】〗〕］]》〉」』）)#＃*＊☆★※◆◇●○■□▲△=＝~～"
SEPARATORS = " \t\u3000:：.．·・、—－_|｜-"
BLANK = "[ \t\u3000]"
FRAME = rf"(?:[{OPENING}]+[{BLANK[1:-1]}、]*)?"
MAX_HEADING_CHARACTERS = 100
"""Characters of a line that may be a heading."""

HEADING = re.compile(
    rf"""{BLANK}*{FRAME}
    (?:
      (?: [^\W\d_]{{1,8}}{BLANK}+               # 正文, 上卷, the name of the book
        | (?:作品)?正文 | 番外篇? | (?:VIP|vip|公众|公開|公开)(?:章节|章節|卷)?
        | [^\W_]{{1,12}}(?=[】〗〕］\]》〉」』）)])  # 【正文】
        | [0-9]{{1,5}}[.、．]
      )?
      [】〗〕］\]》〉」』）)]*{BLANK}*{FRAME}
      第{BLANK}*{NUMBER}{BLANK}*
      (?P<unit>章(?![节節])|回(?!合)|[節节](?![课課目日])|卷(?![纸紙])|[集部篇幕折话話])
    | (?P<named>(?:楔子|引子|序[章幕曲]|尾[声聲]|[终終][章曲]|后记|後記|番外篇?|外[传傳]|大[结結]局)
      (?:{BLANK}*(?:[（(]?(?:{NUMBER}|[上中下])[）)]?))?
    | 卷之?{NUMBER})
    )
    (?P<title>.{{0,60}})""",
    re.VERBOSE,
)
"""What may begin a chapter, up to its title."""
ENGLISH = re.compile(
    rf"""{BLANK}*{FRAME}(?:chapter|CHAPTER|Chapter){BLANK}+
    (?:[0-9]{{1,4}}|[IVXLC]{{1,8}}|(?:[A-Z][a-z]{{2,8}}|[A-Z]{{3,9}})(?:-[A-Za-z]{{3,5}})?)
    (?:{BLANK}*$|[.:：]?{BLANK}+["“'‘(]?[A-Z0-9\u3400-\u9fff].{{0,60}}|[:：.][^\s].{{0,60}})""",
    re.VERBOSE,
)
NUMBERED = re.compile(rf"^{BLANK}*([0-9]{{1,4}})[、.．]{BLANK}*([^\s0-9][^。；]{{0,30}})")
MIN_NUMBERED = 5
"""Chapters 1、 2、 3、… from which on a book is numbered so."""
MIN_CHAPTER_CHARACTERS = 100
"""Between two of them, in the middle: shorter ones are items of a list."""
UNEVEN_RATIO = 10
"""So many times the usual length is no chapter: then the numbers are those of a list in the book."""
TRIGGER = re.compile(
    "第|卷|楔子|引子|[序终終][章幕曲]|尾[声聲]|[后後][记記]|番外|外[传傳]|大[结結]局|[Cc](?:hapter|HAPTER)"
)
"""Every heading but 1、 has one of these."""

PROSE = re.compile('[。；]|[:：][“「『"]|[，、,]$')
"""No title that is stuck to its number has these; a comma, a question or an exclamation mark it may have."""
SENTENCES = re.compile('[。；].|[，、,；]$|^[:：][“「『"]', re.DOTALL)
"""Nor one behind a space these; a full stop at its end it may have, and somebody may speak in it."""
MAX_SENTENCE_CHARACTERS = 25
"""Characters of a title that ends in a full stop."""
PUNCTUATION = re.compile(r"[^\w\s()（）]")
END_MARK = re.compile("(?:本[章回節节卷])?(?:完|终|終|完结|完結|结束|結束|未完|待续|待續)[)）]?")
MAX_BARE_TITLE_CHARACTERS = 20
"""第一章序 has a title, 第一回見到他的時候她正在窗前坐著看書呢也不抬頭 is prose."""
LOOSE_UNITS = "集部篇幕折话話"
"""Behind these words follow on (第一部分, 第二集团军), so that a title stands apart."""


def split_chapters(text: str) -> list[str]:
    """Cut a text before each heading, or before the first of several with nothing but blank lines between.

    What stands before the first heading is a part of its own, unless it is blank.
    """
    starts = chapter_starts(text)
    if not starts or text[: starts[0]].strip():
        starts = [0, *starts]
    else:
        starts[0] = 0
    return [text[start:end] for start, end in pairwise([*starts, len(text)])]


def chapter_starts(text: str) -> list[int]:
    """Where each chapter begins: at its heading, of several headings with nothing between at the first."""
    starts: list[int] = []
    end = -1
    for start, stop in _headings(text):
        if end < 0 or text[end:start].strip():
            starts.append(start)
        end = stop
    return starts


def _headings(text: str) -> list[tuple[int, int]]:
    """(start, end) of every line that is a heading."""
    found = [place for place in _short_lines(text, TRIGGER) if is_heading(text[slice(*place)])]
    # Numbers alone are weak evidence: they are looked at only in a book that has hardly any other headings.
    return found if len(found) >= MIN_NUMBERED else sorted({*found, *_numbered(text)})


def _short_lines(text: str, sought: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """(start, end) of each line that is short enough and has what is sought."""
    at, search = 0, sought.search
    for line in text.split("\n"):
        end = at + len(line)
        if end - at <= MAX_HEADING_CHARACTERS and search(line):  # cheap: the real pattern sees few lines
            yield at, end
        at = end + 1


def is_heading(line: str) -> bool:
    """Whether a line begins a chapter, by what it is alone.

    >>> is_heading("☆、第2章 来信"), is_heading("第二回合开始了"), is_heading("尾声渐渐远了")
    (True, False, False)
    """
    found = HEADING.fullmatch(line)
    if found is None:
        return ENGLISH.fullmatch(line) is not None and line.rstrip()[-1] not in ",;"
    rest = found["title"].rstrip()
    if found["named"]:
        is_apart = not rest or rest[0] in " \t\u3000:：·—-" + CLOSING
        return is_apart and rest[-1:] != "。" and _is_title(rest, True)
    return _is_title(rest, found["unit"] in LOOSE_UNITS)


def _is_title(rest: str, is_apart: bool) -> bool:
    """Whether what follows 第N章 on its line makes the line a heading; it may have to stand apart."""
    title = rest.strip(SEPARATORS + CLOSING)
    if not title:
        return True
    if END_MARK.fullmatch(title) or (rest[0] == "、" and title[0] == "第"):
        return False
    if rest[0] in SEPARATORS + CLOSING:
        is_sentence = title[-1] == "。" and len(title) > MAX_SENTENCE_CHARACTERS
        return not SENTENCES.search(rest) and not is_sentence
    is_prose = is_apart or PROSE.search(rest) is not None or PUNCTUATION.search(title) is not None
    return len(title) <= MAX_BARE_TITLE_CHARACTERS and not is_prose


def _numbered(text: str) -> list[tuple[int, int]]:
    """The headings of a book that numbers its chapters 1、 2、 3、 throughout; of any other none."""
    chain: list[tuple[int, int]] = []
    for start, end in _short_lines(text, NUMBERED):
        line = NUMBERED.fullmatch(text[start:end])
        if line is not None and int(line[1]) == len(chain) + 1 and line[2].rstrip()[-1] not in "，,、：:":
            chain.append((start, end))
    if len(chain) < MIN_NUMBERED:
        return []
    ends = [*(start for start, _ in chain), len(text)]
    lengths = [end - start for start, end in pairwise(ends)]
    usual = median(lengths)
    is_throughout = max(chain[0][0], *lengths) <= UNEVEN_RATIO * usual
    return chain if usual >= MIN_CHAPTER_CHARACTERS and is_throughout else []

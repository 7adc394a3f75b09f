"""A novel → its chapters.

In: a text with ``\\n`` as line end. Out: its parts, each beginning with a heading; joined they are the
text, character for character. A heading is a line of its own such as 第三回　施禅机赵宅治病, 第12章,
正文 第一回 宴桃园豪杰三结义 or 第一章序. Whether a line is one is told by the line alone, with rules found on
eighteen novels as they stand on the web (``tests/text/test_chapters.py`` has the kinds of lines).
"""

import re
from itertools import pairwise

NUMERALS = "0-9０-９零〇○一二三四五六七八九十百千万两廿卅卌兩萬壹贰貳叁參肆伍陆陸柒捌玖拾佰仟"
CANDIDATE = re.compile(
    rf"""^[ \t\u3000]*
    (?:[^\W\d_]{{1,8}}[ \t\u3000]+)?    # 正文, 上卷, the name of the book
    (?:[【〖〔［\[《〈「『\#＃*＊☆★]+[ \t\u3000]*)?
    第[ \t\u3000]*[{NUMERALS}](?:[ \t\u3000]*[{NUMERALS}])*[ \t\u3000]*[章回節节卷]
    (?P<title>[^\n]{{0,60}})$""",
    re.MULTILINE | re.VERBOSE,
)
CLOSING = "】〗〕］]》〉」』#＃*＊☆★"
SEPARATORS = " \t\u3000:：.．·・、—－_|｜-"
PROSE = re.compile('[。；]|[:：][“「『"]|[，、,]$')
"""No title has these; a comma, a question or an exclamation mark it may have."""
PUNCTUATION = re.compile(r"[^\w\s()（）]")
END_MARK = re.compile("(?:本[章回節节卷])?(?:完|终|終|完结|完結|结束|結束|未完|待续|待續)[)）]?")
TITLE_WITHOUT_SEPARATOR = 20
"""第一章序 has a title, 第一回見到他的時候她正在窗前坐著看書呢也不抬頭 is prose."""


def split_chapters(text: str) -> list[str]:
    """Cut a text before each heading, or before the first of several with nothing but blank lines between.

    What stands before the first heading is a part of its own, unless it is blank.
    """
    starts, end = [0], 0
    for match in CANDIDATE.finditer(text):
        if _is_title(match["title"]):
            if text[end : match.start()].strip():
                starts.append(match.start())
            end = match.end()
    return [text[start:end] for start, end in pairwise([*starts, len(text)])]


def _is_title(rest: str) -> bool:
    """Whether what follows 第N章 on its line makes the line a heading."""
    title = rest.strip(SEPARATORS + CLOSING)
    if not title:
        return True
    if PROSE.search(rest.rstrip()) or END_MARK.fullmatch(title) or (rest[0] == "、" and title[0] == "第"):
        return False
    if rest[0] in SEPARATORS + CLOSING:
        return True
    return len(title) <= TITLE_WITHOUT_SEPARATOR and PUNCTUATION.search(title) is None

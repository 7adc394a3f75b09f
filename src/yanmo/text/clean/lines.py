"""Rules on lines: spaces and blank lines, indentation, lines cut at a fixed width, repeated lines."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Literal

TRAILING = re.compile(r"(?<![ \t　])[ \t　]+$", re.MULTILINE)
SPACES = re.compile(r"(?<=[^\s])(?:[ \t]{2,}|\t|[ \t]*　{3,}[ \t]*)(?=\S)")
BLANK_LINES = re.compile(r"\n{3,}")
BEFORE = "，。、；：？！．”’」』"
AFTER = "，。、；：？！．"
"""Punctuation behind and before which no space belongs."""
INDENT = re.compile(r"^[ \t　]+", re.MULTILINE)

ENDS = "。！？…；：”’」』》）)!?.;:\"'—~～】"
"""A paragraph ends with one of these, or is a heading."""
SAMPLE_LINES = 4000
"""Lines that show whether a text was cut at a fixed width."""
MIN_SAMPLE_LINES = 20
MIN_COLUMNS, MAX_COLUMNS = 40, 120
"""Columns, of which a hanzi takes two, of lines cut at a fixed width."""
SLACK_COLUMNS = 6
"""A full line is at most so many columns shorter than the width: no punctuation begins a line."""
MIN_FULL_SHARE = 0.35
"""Share of full lines in a text that was cut."""
MIN_BROKEN_SHARE = 0.6
"""Share of full lines that end in the middle of a sentence."""
HEADING = re.compile(
    r"\s*(?:第[0-9０-９零〇一二三四五六七八九十百千两]+[章回節节卷折齣出]|卷[之]?[一二三四五六七八九十]+)"
)
THRICE_FROM_CHARACTERS = 10
TWICE_FROM_CHARACTERS = 40
"""Characters of a line that is not written three times, or even twice, in a row on purpose; songs and
dialogues repeat shorter ones."""
ITEM = re.compile(
    r"\s*(?:[|｜#>*•·+-]|[0-9０-９]+\s?[.、)）:：/-]|[(（\[【]?[0-9A-Za-z]{1,3}[)）\]】.]|[^：:，。]{1,8}[：:])"
)
MAX_ITEM_SHARE = 0.2
"""Share of lines that begin like items, cells, dates or speeches in a text that was not cut."""
SENTENCE_END = re.compile("[。！？.!?…”」』]")
MIN_SENTENCES_A_LINE = 0.1
"""Ends of sentences to a line in prose."""


def whitespace(text: str) -> str:
    r"""Take out spaces at line ends, runs of spaces, spaces at the text's ends; at most one blank line.

    Beside a Chinese mark that ends something a run leaves nothing, else one space, as a tab does. Two
    full-width spaces stay: they part half-lines of verse. The first line keeps its indentation.

    >>> whitespace("第一回  \n\n\n\n　　他应一句，    果然有理。　\n姓名    张三 \n\n")
    '第一回\n\n　　他应一句，果然有理。\n姓名 张三'
    >>> whitespace("文森修  Duke\n白日依山尽　　黄河入海流")
    '文森修 Duke\n白日依山尽　　黄河入海流'
    """
    text = TRAILING.sub("", text) if " \n" in text or "\t\n" in text or "　\n" in text else text
    if "  " in text or "\t" in text or "　　　" in text:
        text = SPACES.sub(_one_space, text)
    if "\n\n\n" in text:
        text = BLANK_LINES.sub("\n\n", text)
    return text.strip("\n").rstrip()


def _one_space(match: re.Match[str]) -> str:
    text, start, end = match.string, match.start(), match.end()
    needs_none = "\t" not in match[0] and (text[start - 1] in BEFORE or text[end] in AFTER)
    return "" if needs_none else " "


def indentation(text: str, how: Literal["none", "two"]) -> str:
    r"""Of each indented line: no indentation, or two full-width spaces.

    >>> indentation("    他走了。\n第一章\n\t她来了。", "two")
    '　　他走了。\n第一章\n　　她来了。'
    >>> indentation("　　他走了。", "none")
    '他走了。'
    """
    return INDENT.sub("　　" if how == "two" else "", text)


def unwrap(text: str) -> str:
    r"""Join lines that were cut at a fixed width, if the text looks so.

    It does where many lines are equally long and most of those end in the middle of a sentence. Then a
    full line goes on in the next, unless that is blank, indented deeper than the text is, or a heading; a
    shorter line does so within a paragraph that is not at its end.

    >>> first = "　　在我的后园可以看见墙外有两株树一株是枣树"
    >>> second, last = "还有一株也是枣树这上面的夜的天空奇怪而高我", "生平没有见过。"
    >>> unwrap(f"{first}\n{second}\n{last}\n" * 20) == f"{first}{second}{last}\n" * 20
    True
    >>> unwrap("床前明月光，\n疑是地上霜。\n" * 20) == "床前明月光，\n疑是地上霜。\n" * 20
    True
    """
    lines = text.split("\n")
    width = _cut_width(lines)
    if not width:
        return text
    base = _base_indent(lines)  # a whole text may be indented: only what is deeper begins a paragraph
    marks_paragraphs = any(_indent(line) > base for line in lines if line.strip())
    paragraphs: list[list[str]] = []
    last = ""  # the last line as it stood
    in_paragraph = False  # whether the paragraph has a full line
    for line in lines:
        is_full = columns(last) >= width - SLACK_COLUMNS
        in_paragraph = in_paragraph or is_full
        ends = last.rstrip()[-1:] in ENDS
        goes_on = (is_full and (marks_paragraphs or not ends)) or (in_paragraph and not ends)
        if last.strip() and line.strip() and goes_on and _indent(line) <= base and not HEADING.match(line):
            paragraphs[-1] += [_between(last, line), line.strip()]
        else:
            paragraphs.append([line])
            in_paragraph = False
        last = line
    return "\n".join(map("".join, paragraphs))


def _cut_width(lines: list[str]) -> int:
    """The width in columns at which these lines were cut; 0 if they were not."""
    sample = [line for line in lines[:SAMPLE_LINES] if line.strip()]
    # Characters first, for they are there: a line never has fewer columns than characters.
    if len(sample) < MIN_SAMPLE_LINES or _nearly_longest(map(len, sample)) > MAX_COLUMNS:
        return 0
    widths = [columns(line) for line in sample]
    width = _nearly_longest(widths)
    if not MIN_COLUMNS <= width <= MAX_COLUMNS:
        return 0
    if sum(1 for line in sample if ITEM.match(line)) > MAX_ITEM_SHARE * len(sample):
        return 0
    if sum(1 for line in sample if SENTENCE_END.search(line)) < MIN_SENTENCES_A_LINE * len(sample):
        return 0
    full = [line for line, wide in zip(sample, widths, strict=True) if wide >= width - SLACK_COLUMNS]
    broken = sum(1 for line in full if line.rstrip()[-1] not in ENDS)
    is_cut = len(full) >= MIN_FULL_SHARE * len(sample) and broken >= MIN_BROKEN_SHARE * len(full)
    return width if is_cut else 0


def _nearly_longest(widths: Iterable[int]) -> int:
    """The width that one line in twenty exceeds."""
    found = sorted(widths)  # not the longest: a line with an address in it is often longer
    return found[int(len(found) * 0.95)]


def columns(line: str) -> int:
    """How wide a line is on a terminal: hanzi and full-width characters take two columns."""
    line = line.rstrip()
    if line.isascii():
        return len(line)
    return len(line) + sum(1 for c in line if unicodedata.east_asian_width(c) in "WFA")


def _base_indent(lines: list[str]) -> int:
    """The smallest indentation that some lines have: of the text, and not of a paragraph's beginning."""
    counts = Counter(_indent(line) for line in lines if line.strip())
    common = [indent for indent, n in counts.items() if n >= counts.total() / 10]
    return min(common, default=min(counts, default=0))


def _indent(line: str) -> int:
    return columns(line) - columns(line.lstrip()) if line.strip() else 0


def _between(before: str, line: str) -> str:
    """What stands between two lines that become one: a space between words of English."""
    before, line = before.rstrip(), line.lstrip()
    return " " if before[-1:].isascii() and line[:1].isascii() and before[-1:] != "-" else ""


def repeated_lines(text: str) -> str:
    r"""Of a long line that stands three times or more in a row keep one, of a very long one also of two.

    Blank lines between do not matter.

    >>> repeated_lines("他说他不知道这是怎么回事。\n" * 2 + "\n他说他不知道这是怎么回事。\n完")
    '他说他不知道这是怎么回事。\n完'
    >>> repeated_lines("唉！眼前已是我的屋里了！\n唉！眼前已是我的屋里了！\n")
    '唉！眼前已是我的屋里了！\n唉！眼前已是我的屋里了！\n'
    """
    lines = text.split("\n")
    if not any(
        a == b and len(a) >= THRICE_FROM_CHARACTERS for a, b in pairwise(line for line in lines if line)
    ):
        return text
    kept: list[str] = []
    for line, number, stretch in _runs(lines):
        once = number >= 3 and len(line.strip()) >= THRICE_FROM_CHARACTERS
        once = once or (number == 2 and len(line.strip()) >= TWICE_FROM_CHARACTERS)
        kept += [line] if once else stretch
    return "\n".join(kept)


def _runs(lines: list[str]) -> Iterator[tuple[str, int, list[str]]]:
    """(a line, how often it follows itself, these lines with the blank ones between them)."""
    at = 0
    while at < len(lines):
        line, end, number = lines[at], at + 1, 1
        following = end
        while (
            line.strip()
            and following < len(lines)
            and (lines[following] == line or not lines[following].strip())
        ):
            following += 1
            if lines[following - 1] == line:
                end, number = following, number + 1
        yield line, number, lines[at:end]
        at = end

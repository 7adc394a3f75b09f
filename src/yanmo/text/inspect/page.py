"""A corpus report as one page of HTML that needs nothing else.

In: :class:`~yanmo.text.inspect.report.Report`. Out: HTML, by the template ``corpus_report.html`` of
``core/templates``. All text of the corpus is escaped.
"""

import re
from collections.abc import Sequence

from yanmo.core.templates import render
from yanmo.text.clean.ads import letters
from yanmo.text.inspect.report import BINS, Report

CHINESE = {
    "files": "文件", "documents": "篇", "chapters": "章", "lines": "行", "bytes": "字节",
    "characters": "字符", "different characters": "不同的字符", "tokens": "词元",
    "What to know": "要知道的", "Length in characters": "各篇字符数", "Letters by script": "文字种类",
    "clean would change": "clean 会改动（篇）", "clean would take out": "clean 会去掉（字符）",
    "clean --dedup would drop": "clean --dedup 会丢弃（篇）", "Found in the text": "文中所见",
    "Lines that documents share": "各篇共有的行", "Lines that come back": "反复出现的行",
    "Advertisement": "广告", "Punctuation": "标点", "Unequal quotes or brackets": "不成对的引号括号",
    "Characters that are no text": "不是文字的字符", "Characters it lacks": "词表缺少的字符",
    "Files": "文件", "To take out repeated lines": "去掉重复行的设置", "line": "行", "times": "次数",
    "kind": "种类", "character": "字符", "file": "文件", "encoding": "编码", "trouble": "问题",
    "poems": "诗", "acts and scenes": "幕与场", "traditional only": "繁体独有",
    "simplified only": "简体独有", "both": "繁简共有", "latin": "拉丁字母", "full-width": "全角",
    "half-width": "半角", "half-width between hanzi": "汉字间的半角",
    "spaces between hanzi": "汉字间的空格", "more": "更多",
}  # fmt: skip
"""The page's own words."""
MAX_LACKING_CHARACTERS, MAX_CHARACTERS_A_KIND, MAX_FILES = 100, 20, 1000
"""A page is for reading: of longer lists it shows the first."""


def page(report: Report, title: str) -> str:
    """The report as a page."""
    return render(
        "corpus_report.html",
        title=title,
        report=report,
        chinese=CHINESE,
        cards=_cards(report),
        lengths=_lengths(report),
        removed={rule: abs(n) for rule, n in report.removed.items()},
        repeated_lines=folded(report.repeated_lines),
        repeated_within=folded(report.repeated_within),
        ads=[(line,) for line in dict.fromkeys(report.ads)],
        odd=_odd(report),
        lacking=[*report.lacking.items()][:MAX_LACKING_CHARACTERS],
        files=_files(report),
        proposal=report.proposal(),
    )


def folded(lines: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Lines that differ only in numbers and marks as one, with the number of them.

    >>> folded([("第1页！", 9), ("他走了。", 5), ("第 2 页", 8)])
    [('第1页！ (+1)', 17), ('他走了。', 5)]
    """
    alike: dict[str, list[tuple[str, int]]] = {}
    for line, number in lines:
        # page numbers and dates make one line of boilerplate look like hundreds
        alike.setdefault(re.sub(r"\d+", "0", letters(line)), []).append((line, number))
    found = []
    for same in alike.values():
        more = f" (+{len(same) - 1})" if len(same) > 1 else ""
        found.append((same[0][0] + more, sum(number for _, number in same)))
    return sorted(found, key=lambda pair: -pair[1])


def _cards(report: Report) -> dict[str, int]:
    return {
        "files": len(report.files),
        "documents": report.documents,
        "chapters": report.forms["chapters"],
        "lines": report.lines,
        "characters": report.characters,
        "different characters": len(report.characters_seen),
        "bytes": report.bytes,
        **{f"tokens, {name}": number for name, number in report.tokens.items()},
    }


def _lengths(report: Report) -> dict[str, int]:
    names = [*(f"≤ {bound:,}" for bound in BINS), "more"]
    return dict(zip(names, report.lengths, strict=True))


def _odd(report: Report) -> list[tuple[str, str, int]]:
    return [
        (kind, character, times)
        for kind, found in report.odd_characters.items()
        for character, times in [*found.items()][:MAX_CHARACTERS_A_KIND]
    ]


def _files(report: Report) -> list[tuple[str, int, str, int, int, str]]:
    return [
        (
            file.path,
            file.bytes,
            ", ".join(file.encodings),
            file.documents,
            file.characters,
            file.unreadable or ", ".join(f"{reason}: {n}" for reason, n in file.dropped.items()),
        )
        for file in report.files[:MAX_FILES]
    ]

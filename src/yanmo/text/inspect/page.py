"""A corpus report as one self-contained HTML page: bars are drawn in it, nothing is loaded.

In: :class:`~yanmo.text.inspect.report.Report`. Out: HTML. All text of the corpus is escaped, and there are no
scripts: a browser set to Chinese shows the page's own words in Chinese through SVG's ``systemLanguage``. The
browser lays the text out and only bars are drawn, so that the page is readable on a phone.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import ceil

from yanmo.core.outputs import MARK
from yanmo.text.clean.ads import letters
from yanmo.text.inspect.report import BINS, Report

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #fdfcf8; --line: #d8d2c4; --bar: #8b2f24;
  --soft: #6b665c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e4da; --paper: #17171a; --line: #3a3833; --bar: #d98572; --soft: #a09a8c; } }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.6 system-ui, "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; }
h1 { font-weight: 600; overflow-wrap: anywhere; font-size: 1.5rem; }
h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); font-size: 1.15rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
td, th { text-align: left; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; min-width: 3.5em; }
td.n, th.n { text-align: right; white-space: nowrap; }
.bars { display: grid; grid-template-columns: minmax(5rem, auto) 1fr auto; gap: .15rem .8rem;
  align-items: center; }
.bars span { overflow-wrap: anywhere; } .bars b { font-weight: 400; text-align: right; }
.bars svg { width: 100%; height: .8rem; } .bars rect { fill: var(--bar); }
svg.said { height: 1.5em; max-width: 100%; vertical-align: bottom; } svg.said text { fill: currentColor; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: 1rem; }
.cards div { border: 1px solid var(--line); border-radius: .4rem; padding: .6rem .8rem; }
.cards b { display: block; font-size: 1.35rem; } .cards span, p.soft { color: var(--soft); }
code { overflow-wrap: anywhere; }
"""
CHINESE_BROWSERS = "zh,zh-CN,zh-TW,zh-HK,zh-MO,zh-SG,zh-Hans,zh-Hant,zh-Hans-CN,zh-Hant-TW,zh-Hant-HK"
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
"""The page's own words in Chinese."""
EM_OF_LATIN = 0.6
"""Width of a Latin letter, as a share of a hanzi's."""


def page(report: Report, title: str) -> str:
    """The report as a page."""
    body = [
        f"<h1>{escape(title)}</h1>",
        _cards(report),
        _section("What to know", "".join(f"<p>{escape(note)}</p>" for note in report.notes.said())),
        *(_of_one(report) if report.documents == 1 else _of_many(report)),
        _section("Letters by script", bars(report.scripts)),
        _section("Found in the text", bars(report.forms)),
        _section("Lines that documents share", _table(("line", "documents"), folded(report.repeated_lines))),
        _section("Lines that come back", _table(("line", "times"), folded(report.repeated_within))),
        _section("Advertisement", _table(("line",), [(line,) for line in dict.fromkeys(report.ads)])),
        _section("Punctuation", bars(report.punctuation)),
        _section("Characters that are no text", _table(("kind", "character", "times"), _odd(report))),
        _section("Characters it lacks", _table(("character", "times"), list(report.lacking.items())[:100])),
        _section(
            "Files",
            _table(("file", "bytes", "encoding", "documents", "characters", "trouble"), _files(report)),
        ),
    ]
    if proposal := report.proposal():
        body.append(_section("To take out repeated lines", f"<p><code>{escape(proposal)}</code></p>"))
    return (
        f'<!doctype html>\n{MARK}\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def _of_many(report: Report) -> list[str]:
    """What is counted in documents."""
    return [
        _section("Length in characters", bars(_lengths(report))),
        _section("clean would change", bars(report.changed)),
        _section("clean --dedup would drop", bars(report.dropped)),
        _section("Unequal quotes or brackets", bars(report.unbalanced)),
    ]


def _of_one(report: Report) -> list[str]:
    """The same for a single document, where each of these bars would have length one."""
    dropped, unequal = ", ".join(report.dropped), " ".join(report.unbalanced)
    return [
        _section("clean would take out", bars({rule: abs(n) for rule, n in report.removed.items()})),
        _section("clean --dedup would drop", f"<p>{escape(dropped)}</p>" if dropped else ""),
        _section("Unequal quotes or brackets", f"<p>{escape(unequal)}</p>" if unequal else ""),
    ]


def bars(values: Mapping[str, int]) -> str:
    """A picture of bars, one for each name, drawn to the largest; nothing for no values."""
    shown = {name: value for name, value in values.items() if value}
    if not shown:
        return ""
    most = max(shown.values())
    # viewBox 0 0 100 10, stretched to the cell: widths are percentages on any screen; 0.5 stays visible
    rows = (
        f'<span>{_said(name)}</span><svg viewBox="0 0 100 10" preserveAspectRatio="none" role="img">'
        f'<rect width="{max(100 * value / most, 0.5):.1f}" height="10"/></svg><b>{value:,}</b>'
        for name, value in shown.items()
    )
    return f'<div class="bars">{"".join(rows)}</div>'


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


def _cards(report: Report) -> str:
    values = {
        "files": len(report.files),
        "documents": report.documents,
        "chapters": report.forms["chapters"],
        "lines": report.lines,
        "characters": report.characters,
        "different characters": len(report.characters_seen),
        "bytes": report.bytes,
        **{f"tokens, {name}": number for name, number in report.tokens.items()},
    }
    cards = (f"<div><b>{value or 0:,}</b><span>{_said(name)}</span></div>" for name, value in values.items())
    held_out = (
        f'<p class="soft">{report.overlap:.2%} of the held-out text is in the training text, too.</p>'
        if report.overlap is not None
        else ""
    )
    return f'<div class="cards">{"".join(cards)}</div>{held_out}'


def _lengths(report: Report) -> dict[str, int]:
    names = [*(f"≤ {bound:,}" for bound in BINS), "more"]
    return dict(zip(names, report.lengths, strict=True))


def _odd(report: Report) -> list[tuple[str, str, int]]:
    return [
        (kind, c, n) for kind, found in report.odd_characters.items() for c, n in list(found.items())[:20]
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
        for file in report.files[:1000]
    ]


def _said(words: str) -> str:
    """Words of the page: Chinese where the browser asks for it."""
    # <switch> shows the first child whose systemLanguage the browser accepts, else the one without
    chinese = CHINESE.get(words)
    if chinese is None:
        return escape(words)
    # an SVG does not grow with its text: it must be wide enough for the longer of the two languages
    width = ceil(max(len(chinese), EM_OF_LATIN * len(words)))
    return (
        f'<svg class="said" style="width:{width}em" role="img"><switch>'
        f'<text y="1.1em" systemLanguage="{CHINESE_BROWSERS}">{escape(chinese)}</text>'
        f'<text y="1.1em">{escape(words)}</text></switch></svg>'
    )


def _section(title: str, content: str) -> str:
    return f"<h2>{_said(title)}</h2>\n{content}" if content else ""


def _table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with numbers aligned right; empty without rows."""
    found = [*rows]
    if not found:
        return ""
    head = "".join(
        f"<th{_number(value)}>{_said(name)}</th>" for name, value in zip(names, found[0], strict=True)
    )
    body = "".join(
        "<tr>" + "".join(f"<td{_number(value)}>{_cell(value)}</td>" for value in row) + "</tr>"
        for row in found
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _number(value: object) -> str:
    return ' class="n"' if isinstance(value, int) else ""


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else escape(str(value))

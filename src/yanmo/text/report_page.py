"""A corpus report as one HTML page that needs nothing else: pictures are drawn in it, nothing is loaded.

In: :class:`~yanmo.text.report.Report`. Out: HTML. All text of the corpus is escaped; there are no scripts.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from yanmo.outputs import MARK
from yanmo.text.report import BINS, Report

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #fdfcf8; --line: #d8d2c4; --bar: #8b2f24;
  --soft: #6b665c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e4da; --paper: #17171a; --line: #3a3833; --bar: #d98572; --soft: #a09a8c; } }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.6 system-ui, "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; }
h1 { font-weight: 600; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); font-size: 1.15rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
td, th { text-align: left; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
td.n, th.n { text-align: right; white-space: nowrap; }
svg { width: 100%; height: auto; } svg rect { fill: var(--bar); }
svg text { fill: var(--ink); font-size: 13px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 1rem; }
.cards div { border: 1px solid var(--line); border-radius: .4rem; padding: .6rem .8rem; }
.cards b { display: block; font-size: 1.35rem; } .cards span, p.soft { color: var(--soft); }
code { overflow-wrap: anywhere; }
"""
ROW, LABEL, WIDE = 24, 190, 900
"""Pixels: a bar's row, the room for its name, the whole picture."""


def page(report: Report, title: str) -> str:
    """The report as a page."""
    body = [
        f"<h1>{escape(title)}</h1>",
        _cards(report),
        _section("Length of documents, in characters", bars(_lengths(report))),
        _section("Letters by script", bars(report.scripts)),
        _section("What clean would change (documents)", bars(report.changed)),
        _section("What clean --dedup would drop (documents)", bars(report.dropped)),
        _section("Found in the text", bars(report.forms)),
        _section("Lines that many documents have", _table(("line", "documents"), report.repeated_lines)),
        _section("Advertisement", _table(("line",), [(line,) for line in report.ads])),
        _section("Punctuation", bars(report.punctuation)),
        _section("Documents with unequal quotes or brackets", bars(report.unbalanced)),
        _section("Characters that are no text", _table(("kind", "character", "times"), _odd(report))),
        _section(
            "Characters that the vocabulary lacks",
            _table(("character", "times"), list(report.lacking.items())[:100]),
        ),
        _section(
            "Files",
            _table(("file", "bytes", "encoding", "documents", "characters", "trouble"), _files(report)),
        ),
    ]
    if proposal := report.proposal():
        body.append(_section("To take out the repeated lines", f"<p><code>{escape(proposal)}</code></p>"))
    return (
        f'<!doctype html>\n{MARK}\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + "\n</body>\n</html>\n"
    )


def bars(values: Mapping[str, int]) -> str:
    """A picture of bars, one for each name, drawn to the largest; nothing for no values."""
    shown = {name: value for name, value in values.items() if value}
    if not shown:
        return ""
    most = max(shown.values())
    rows = []
    for number, (name, value) in enumerate(shown.items()):
        y, wide = number * ROW, max((WIDE - LABEL - 120) * value / most, 1)
        rows.append(
            f'<text x="0" y="{y + 16}">{escape(name)}</text>'
            f'<rect x="{LABEL}" y="{y + 4}" width="{wide:.1f}" height="{ROW - 8}" rx="2"/>'
            f'<text x="{LABEL + wide + 8:.1f}" y="{y + 16}">{value:,}</text>'
        )
    return f'<svg viewBox="0 0 {WIDE} {len(shown) * ROW}" role="img">{"".join(rows)}</svg>'


def _cards(report: Report) -> str:
    values = {
        "files": report.files and len(report.files),
        "documents": report.documents,
        "bytes": report.bytes,
        "characters": report.characters,
        "different characters": len(report.characters_seen),
        **{f"tokens, {name}": number for name, number in report.tokens.items()},
    }
    cards = (f"<div><b>{value or 0:,}</b><span>{escape(name)}</span></div>" for name, value in values.items())
    held_out = (
        f'<p class="soft">{report.overlap:.2%} of what would be held out stands in the training text too.</p>'
        if report.overlap is not None
        else ""
    )
    return f'<div class="cards">{"".join(cards)}</div>{held_out}'


def _lengths(report: Report) -> dict[str, int]:
    names = [*(f"up to {bound:,}" for bound in BINS), "more"]
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


def _section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{content}" if content else ""


def _table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; numbers stand at the right."""
    found = [*rows]
    if not found:
        return ""
    head = "".join(
        f"<th{_number(value)}>{escape(name)}</th>" for name, value in zip(names, found[0], strict=True)
    )
    body = "".join(
        "<tr>" + "".join(f"<td{_number(value)}>{_cell(value)}</td>" for value in row) + "</tr>"
        for row in found
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _number(value: object) -> str:
    return ' class="n"' if isinstance(value, int) else ""


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else escape(str(value))

"""HTML → title and text.

In: the bytes of a page, or the source of an XHTML chapter. Out: of a page its main text, found by
trafilatura, else all text of its body; of a chapter every paragraph and heading as a line. Entities that a
document defines itself are never resolved, nothing is fetched, and no depth of tags is too much.
"""

import contextlib
import re
from html.parser import HTMLParser
from typing import Any, BinaryIO

from yanmo.text.containers import read_whole
from yanmo.text.damage import decode_page
from yanmo.text.records import UNDECODABLE, NeedsExtra, Record, Unusable

BLOCK_NAMES = (
    "address article aside blockquote body br caption center dd details div dl dt fieldset figcaption figure"
    " footer form h1 h2 h3 h4 h5 h6 header hr html li main nav ol option p pre section summary table tbody td"
    " tfoot th thead title tr ul"
)
BLOCKS = frozenset(BLOCK_NAMES.split())
"""What begins a line."""
HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
SILENT = frozenset(("script", "style", "noscript", "template", "rt", "rp", "svg", "math", "iframe", "object"))
"""What these hold is no text; ``rt`` and ``rp`` are the small letters beside characters."""
NEVER_CLOSED = frozenset(("br", "hr", "img", "input", "meta", "link", "wbr", "area", "base", "col", "source"))
CLOSED_BY_OTHERS = frozenset(("p", "li", "td", "th", "tr", "dd", "dt", "option", "tbody", "thead"))
MAX_DEPTH = 200
"""Tags within tags; from 256 on libxml2, which trafilatura stands on, leaves out what is inside."""
BLANK = re.compile("[ \t\r\n\f]+")
HANZI = "[\u3000-\u303f\u3400-\u9fff\uff00-\uffef]"
LINE_END_BETWEEN_HANZI = re.compile(rf"(?<={HANZI})[ \t]*[\r\n]\s*(?={HANZI})")
XML_DECLARATION = re.compile(r"\s*<\?xml[^>]*\?>")


def read_html(stream: BinaryIO, encoding: str = "auto") -> Record:
    """The main text of a page; its title and what else it says of itself as fields.

    Raises:
        Unusable: the bytes are no text, or the library is missing.
    """
    data = read_whole(stream)
    source, found, lost = decoded_page(data, encoding)
    text, fields = main_text(XML_DECLARATION.sub("", source, count=1))
    return Record(1, len(data), text, found, fields=fields, undecodable_bytes=lost)


def decoded_page(data: bytes, encoding: str = "auto") -> tuple[str, str, int]:
    """(source, encoding, undecodable bytes) of a page.

    Raises:
        Unusable: the bytes are no text.
    """
    try:
        return decode_page(data, encoding)
    except ValueError as error:
        raise Unusable(
            UNDECODABLE, f"the file is not readable text: {error}", mend="name its encoding: corpus.encoding"
        ) from error


def main_text(source: str) -> tuple[str, dict[str, str]]:
    """(text, what is known of it) of a page."""
    try:
        import trafilatura
    except ImportError as error:
        raise NeedsExtra("trafilatura", ".html") from error
    lines, page = Lines(source), None
    if lines.depth < MAX_DEPTH:
        with contextlib.suppress(Exception):  # of a hostile page, which ours has read already
            page = trafilatura.bare_extraction(source, include_comments=False, with_metadata=True)
    found: dict[str, Any] = page.as_dict() if isinstance(page, trafilatura.settings.Document) else {}
    known = {name: found.get(name) for name in ("title", "author", "date", "url", "sitename")}
    known["title"] = known["title"] or lines.title
    text = found.get("text") or "\n".join(lines.lines)
    return text, {name: str(value) for name, value in known.items() if value}


class Lines(HTMLParser):
    """The paragraphs and headings of a source as lines."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.lines: list[str] = []
        self.has_heading = False
        self.title = ""
        self.depth = 0
        """Tags within tags, at most."""
        self._parts: list[str] = []
        self._open = 0
        self._silent: list[str] = []
        self._in_heading = self._in_title = False
        self.feed(source)
        self.close()
        self._end_line()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in NEVER_CLOSED and tag not in CLOSED_BY_OTHERS:
            self._open += 1
            self.depth = max(self.depth, self._open)
        if tag in SILENT:
            self._silent.append(tag)
        if tag == "br" and self._in_heading:
            self._parts.append(" ")
        elif tag in BLOCKS:
            self._end_line()
        self._in_heading = self._in_heading or tag in HEADINGS
        self._in_title = tag == "title" or (self._in_title and tag in NEVER_CLOSED)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in NEVER_CLOSED:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        self._open -= tag not in NEVER_CLOSED and tag not in CLOSED_BY_OTHERS
        if tag in self._silent:
            while self._silent.pop() != tag:
                pass
        if tag in BLOCKS:
            self._end_line()
        if tag in HEADINGS:
            self._in_heading = False
        if tag == "title":
            self._in_title = False

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self._parts.append(data)

    def _end_line(self) -> None:
        line = BLANK.sub(" ", LINE_END_BETWEEN_HANZI.sub("", "".join(self._parts))).strip(" ")
        self._parts = []
        if not line:
            return
        if self._in_title:
            self.title = self.title or line
            return
        self.has_heading = self.has_heading or self._in_heading
        self.lines.append(line)

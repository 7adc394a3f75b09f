"""HTML → title and text.

In: the bytes of a page, or the source of an XHTML chapter. Out: of a page its main text, found by
trafilatura, else all text of its body; of a chapter every paragraph and heading as a line. Entities that a
document defines itself are never resolved, nothing is fetched, and no depth of tags is too much.

A source is taken apart here and not by the standard library's parser, which takes hours for a hostile
megabyte and stops at some declarations; here each character is looked at a few times, whatever it says.
"""

import contextlib
import html
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
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
VERBATIM = frozenset(("script", "style"))
"""In these nothing is a tag but their own end."""
MAX_DEPTH = 200
"""Tags within tags; from 256 on libxml2, which trafilatura stands on, leaves out what is inside."""
BLANK = re.compile("[ \t\r\n\f]+")
HANZI = "[\u3000-\u303f\u3400-\u9fff\uff00-\uffef]"
LINE_END_BETWEEN_HANZI = re.compile(rf"(?<={HANZI})[ \t]*[\r\n]\s*(?={HANZI})")
XML_DECLARATION = re.compile(r"\s*<\?xml[^>]*\?>")
MARKUP = re.compile("<(?=[a-zA-Z/!?])")
"""Any other ``<`` is a character."""
TAG = re.compile(
    r"""<([a-zA-Z][^\t\n\r\f />]*+)"""
    r"""(?:[^>=/]++|/(?!>)|=++\s*+(?:"[^"]*+"|'[^']*+'|(?!["'])[^>\s]*+))*(/?)>"""
)
"""A tag that begins something: its name, and the stroke at its end; a quoted value may hold ``>``."""
TAG_NAME = re.compile(r"</?\s*+([a-zA-Z][^\t\n\r\f />]*+)")
COMMENT_END = re.compile(r"--!?\s*>")
SECTION_END = re.compile(r"]\s*]\s*>")


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


@dataclass(frozen=True)
class Piece:
    """A text between tags (its ``tag`` is empty), or a tag."""

    text: str = ""
    tag: str = ""
    begins: bool = False
    ends: bool = False
    """``<br/>`` does both."""


class Scanner:
    """Takes a source apart, in time that grows as its length does.

    What is not closed is where time goes: each search for an end that fails would be made again from the
    next such place on. So each kind of end is looked for in vain once; from there on ``>`` ends it.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._last = source.rfind(">")
        """No tag ends behind it: the rest is text."""
        self._never_closed: set[re.Pattern[str]] = set()

    def pieces(self) -> Iterator[Piece]:
        """Texts and tags in their order; comments and declarations are left out."""
        source, at = self._source, 0
        while (found := MARKUP.search(source, at)) and found.start() < self._last:
            if found.start() > at:
                yield Piece(_characters(source[at : found.start()]))
            piece, at = self._markup(found.start())
            if piece:
                yield piece
            if piece and piece.begins and not piece.ends and piece.tag in VERBATIM:
                at = self._behind_verbatim(piece.tag, at)
        if at < len(source):
            yield Piece(_characters(source[at:]))

    def _markup(self, at: int) -> tuple[Piece | None, int]:
        """(what stands at a ``<``, where it ends)."""
        follows = self._source[at + 1]
        if follows.isalpha():
            return self._tag(at)
        if follows == "/":
            name = TAG_NAME.match(self._source, at)
            return Piece(tag=name[1].lower(), ends=True) if name else None, self._next_end(at)
        if self._source.startswith("<!--", at):
            return None, self._behind(COMMENT_END, at + 2)
        if self._source[at : at + 9].lower() == "<![cdata[":
            return None, self._behind(SECTION_END, at + 9)
        return None, self._next_end(at)

    def _tag(self, at: int) -> tuple[Piece, int]:
        whole = None if TAG in self._never_closed else TAG.match(self._source, at)
        if whole:
            return Piece(tag=whole[1].lower(), begins=True, ends=bool(whole[2])), whole.end()
        self._never_closed.add(TAG)
        name, end = TAG_NAME.match(self._source, at), self._next_end(at)
        assert name is not None  # a letter follows
        return Piece(tag=name[1].lower(), begins=True, ends=self._source[end - 2] == "/"), end

    def _behind(self, end: re.Pattern[str], at: int) -> int:
        """Where a comment or section is over."""
        found = None if end in self._never_closed else end.search(self._source, at)
        if found:
            return found.end()
        self._never_closed.add(end)
        return self._next_end(at)

    def _behind_verbatim(self, tag: str, at: int) -> int:
        """The end tag of a script; the end of the source where it has none."""
        found = re.compile(rf"</{tag}(?=[\s/>])", re.IGNORECASE).search(self._source, at)
        return found.start() if found else len(self._source)

    def _next_end(self, at: int) -> int:
        return (self._source.find(">", at) + 1) or len(self._source)


def _characters(text: str) -> str:
    """A text with its references resolved; one to a number of thousands of digits stays as it is."""
    try:
        return html.unescape(text)
    except ValueError:
        return text


class Lines:
    """The paragraphs and headings of a source as lines."""

    def __init__(self, source: str) -> None:
        self.lines: list[str] = []
        self.has_heading = False
        self.title = ""
        self.depth = 0
        """Tags within tags, at most."""
        self._parts: list[str] = []
        self._open = 0
        self._silent: list[str] = []
        self._silent_by_name: Counter[str] = Counter()
        self._in_heading = self._in_title = False
        for piece in Scanner(source).pieces():
            self._read(piece)
        self._end_line()

    def _read(self, piece: Piece) -> None:
        if piece.begins:
            self._begin(piece.tag)
        if piece.ends and not (piece.begins and piece.tag in NEVER_CLOSED):
            self._end(piece.tag)
        if piece.text and not self._silent:
            self._parts.append(piece.text)

    def _begin(self, tag: str) -> None:
        if tag not in NEVER_CLOSED and tag not in CLOSED_BY_OTHERS:
            self._open += 1
            self.depth = max(self.depth, self._open)
        if tag in SILENT:
            self._silent.append(tag)
            self._silent_by_name[tag] += 1
        if tag == "br" and self._in_heading:
            self._parts.append(" ")
        elif tag in BLOCKS:
            self._end_line()
        self._in_heading = self._in_heading or tag in HEADINGS
        self._in_title = tag == "title" or (self._in_title and tag in NEVER_CLOSED)

    def _end(self, tag: str) -> None:
        self._open -= tag not in NEVER_CLOSED and tag not in CLOSED_BY_OTHERS
        if self._silent_by_name[tag]:
            self._unsilence(tag)
        if tag in BLOCKS:
            self._end_line()
        if tag in HEADINGS:
            self._in_heading = False
        if tag == "title":
            self._in_title = False

    def _unsilence(self, tag: str) -> None:
        """Close a silent tag and those open in it."""
        closed = ""
        while closed != tag:
            closed = self._silent.pop()
            self._silent_by_name[closed] -= 1

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

"""HTML → the pieces of it that a reader sees, its lines, its main text.

In: the bytes of a page, the source of an XHTML chapter, or an element of a crawled page. Out: of a page its
main text, found by trafilatura, else all text of its body; of the others every paragraph and heading as a
line. What the page itself hides is no text. Entities that a document defines itself are never resolved,
nothing is fetched, and no depth of tags is too much.

A source is taken apart here and not by the standard library's parser, which takes hours for a hostile
megabyte and stops at some declarations; here each character is looked at a few times, whatever it says.
What goes to a library is put together again from these pieces, so that it reads what we read.
"""

import contextlib
import logging
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, NamedTuple

from yanmo.text.read.containers import read_whole
from yanmo.text.read.damage import decode_page
from yanmo.text.read.elements import unescaped
from yanmo.text.read.records import UNDECODABLE, NeedsExtra, Record, Unusable

BLOCK_NAMES = (
    "address article aside blockquote body br caption center dd details div dl dt fieldset figcaption figure"
    " footer form h1 h2 h3 h4 h5 h6 header hr html li main nav ol option p pre section summary table tbody td"
    " tfoot th thead title tr ul"
)
BLOCKS = frozenset(BLOCK_NAMES.split())
"""What begins a line."""
HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
SILENT = frozenset(
    ("noscript", "template", "rt", "rp", "svg", "math", "iframe", "object", "select", "button")
)
"""What these hold is no text; ``rt`` and ``rp`` are the small letters beside characters."""
NEVER_CLOSED = frozenset(("br", "hr", "img", "input", "meta", "link", "wbr", "area", "base", "col", "source"))
CLOSED_BY_OTHERS = frozenset(("p", "li", "td", "th", "tr", "dd", "dt", "option", "tbody", "thead"))
FENCES = BLOCKS - CLOSED_BY_OTHERS - NEVER_CLOSED
"""Nothing outside of these is closed by what stands in them and has no right to."""
CLOSES = {
    **dict.fromkeys(BLOCKS - {"br"}, ("p",)),
    **dict.fromkeys(("td", "th"), ("p", "td", "th")),
    **dict.fromkeys(("dd", "dt"), ("p", "dd", "dt")),
    **dict.fromkeys(("rt", "rp"), ("rt", "rp")),
    **dict.fromkeys(("tbody", "thead", "tfoot"), ("p", "tr", "tbody", "thead")),
    **{name: ("p", name) for name in ("li", "tr", "option")},
}
"""A tag that begins → the elements that are over with it, though nobody has closed them."""
VERBATIM = frozenset(("script", "style"))
"""In these nothing is a tag but their own end, and nothing is text."""
MAX_DEPTH = 200
"""Tags within tags; from 256 on libxml2, which trafilatura stands on, leaves out what is inside."""
MAX_TAGS = 20_000
"""Elements of a page that trafilatura is given: 1 to 3 s of a slow core; twice as many take up to three times
as long."""
MAX_ATTRIBUTES = 100
"""Attributes of a tag that are looked at, by us or a library: libxml2 compares each with each."""
MOSTLY_HIDDEN_CHARACTERS = 200
"""Characters: an element that hides so many, and more than half of a page, is shown later by a script."""
BLANK = re.compile("[ \t\r\n\f]+")
HANZI = "[\u3000-\u303f\u3400-\u9fff\uff00-\uffef]"
LINE_END_BETWEEN_HANZI = re.compile(rf"(?<={HANZI})[ \t]*[\r\n]\s*(?={HANZI})")
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
ATTRIBUTE = re.compile(r"""([^\s"'<>/=][^\s>/=]*+)(?:\s*+=\s*+("[^"]*+"|'[^']*+'|[^\s"'>][^\s>]*+)?)?""")
"""Its name and value; of a tag, the first that is found is the tag's own name."""
MAY_HIDE = re.compile("hidden|style", re.IGNORECASE)
CSS_COMMENT = re.compile(r"/\*[^*]*+(?:\*(?!/)[^*]*+)*+(?:\*/)?")
ZERO = re.compile(r"[+-]?(?:0+(?:\.0*)?|\.0+)(?:[a-z]+|%)?")
INHERITED = re.compile(r"[\d.+-]*(?:em|ex|ch|%)|inherit|unset|smaller|larger")
"""A font size that is a multiple of the one around it."""


def read_html(stream: BinaryIO, encoding: str = "auto") -> Record:
    """The main text of a page; its title and what else it says of itself as fields.

    Raises:
        Unusable: the bytes are no text, or the library is missing.
    """
    data = read_whole(stream)
    source, found, lost = decoded_page(data, encoding)
    text, fields = main_text(source)
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
            UNDECODABLE, f"the file is not readable text: {error}", hint="name its encoding: corpus.encoding"
        ) from error


def main_text(source: str) -> tuple[str, dict[str, str]]:
    """(text, what is known of it) of a page."""
    page = seen(scan(source))
    lines, found = LineBuilder(page), extracted(page)
    known = {name: found.get(name) for name in ("title", "author", "date", "url", "sitename")}
    known["title"] = known["title"] or lines.title
    text = found.get("text") or "\n".join(lines.lines)
    return text, {name: str(value) for name, value in known.items() if value}


def extracted(page: "Seen") -> dict[str, Any]:
    """What trafilatura finds on a page: its main text and what is known of it; nothing if it stumbles, or
    of a page that it cannot bear."""
    try:
        import trafilatura
    except ImportError as error:
        raise NeedsExtra("trafilatura", ".html") from error
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    found = None
    if page.is_bearable:
        with contextlib.suppress(Exception):  # of a hostile page, which ours has read already
            found = trafilatura.bare_extraction(page.source, include_comments=False, with_metadata=True)
    return found.as_dict() if isinstance(found, trafilatura.settings.Document) else {}


class MarkupPiece(NamedTuple):
    """A text between tags (its ``tag`` is empty), or a tag."""

    source: str
    """What a library is given of it."""
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

    def pieces(self) -> Iterator[MarkupPiece]:
        """Texts, scripts and tags in their order; comments and declarations are left out."""
        source, at = self._source, 0
        while (found := MARKUP.search(source, at)) and found.start() < self._last:
            if found.start() > at:
                yield _text(source[at : found.start()])
            piece, at = self._markup(found.start())
            if piece:
                yield piece
            if piece and piece.begins and not piece.ends and piece.tag in VERBATIM:
                begin, at = at, self._behind_verbatim(piece.tag, at)
                yield MarkupPiece(source[begin:at])
        if at < len(source):
            yield _text(source[at:])

    def _markup(self, at: int) -> tuple[MarkupPiece | None, int]:
        """(what stands at a ``<``, where it ends)."""
        follows = self._source[at + 1]
        if follows.isalpha():
            return self._tag(at)
        if follows == "/":
            name = TAG_NAME.match(self._source, at)
            return _tag(name[1], ends=True) if name else None, self._next_end(at)
        if self._source.startswith("<!--", at):
            return None, self._behind(COMMENT_END, at + 2)
        if self._source[at : at + 9].lower() == "<![cdata[":
            return None, self._behind(SECTION_END, at + 9)
        return None, self._next_end(at)

    def _tag(self, at: int) -> tuple[MarkupPiece, int]:
        whole = None if TAG in self._never_closed else TAG.match(self._source, at)
        if whole:
            return _tag(whole[1], whole[0], begins=True, ends=bool(whole[2])), whole.end()
        self._never_closed.add(TAG)
        name, end = TAG_NAME.match(self._source, at), self._next_end(at)
        assert name is not None  # a letter follows
        return _tag(name[1], begins=True, ends=self._source[end - 2] == "/"), end

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


def _text(source: str) -> MarkupPiece:
    return MarkupPiece(source.replace("<", "&lt;"), unescaped(source))


def _tag(name: str, source: str = "", begins: bool = False, ends: bool = False) -> MarkupPiece:
    """A tag; one whose quotes nobody closes has no attributes."""
    source = source or (f"<{name}>" if begins else f"</{name}>")
    return MarkupPiece(source, "", name.lower(), begins, ends)


# -- what is seen -----------------------------------------------------------------------------

NO_TEXT, GONE, INVISIBLE, TINY = 1, 2, 4, 8
"""Why a text is not seen; what is in an element that is gone is gone with it."""


@dataclass(frozen=True)
class Seen:
    """What is seen of a page."""

    pieces: list[MarkupPiece]
    depth: int
    """Tags within tags, at most."""

    @property
    def is_bearable(self) -> bool:
        """Whether trafilatura can be given it: not too deep, not of too many tags."""
        return self.depth < MAX_DEPTH and sum(piece.begins for piece in self.pieces) <= MAX_TAGS

    @property
    def source(self) -> str:
        """For a library: no comments and declarations, and of no tag more attributes than it can bear."""
        tags = (_bounded(piece.source) if piece.tag else piece.source for piece in self.pieces)
        return "<!doctype html>" + "".join(tags)


def scan(source: str) -> list[MarkupPiece]:
    """The texts, scripts and tags of a source."""
    return list(Scanner(source).pieces())


def seen(pieces: list[MarkupPiece], with_hidden: bool = False) -> Seen:
    """What a reader sees of a page; ``with_hidden``: and what it hides, such as the rest of a list."""
    # Where most is hidden, a script would show it: taking the page at its word would leave nothing.
    page, is_mostly_hidden = _seen(pieces, with_hidden)
    return _seen(pieces, True)[0] if is_mostly_hidden else page


def _seen(pieces: list[MarkupPiece], with_hidden: bool) -> tuple[Seen, bool]:
    """(what is seen, whether one element hides most of the text)."""
    kept, elements = [], Elements(with_hidden)
    total = hidden = most_hidden = 0
    for piece in pieces:
        state = elements.read(piece)
        if not state & (NO_TEXT | GONE) and (piece.tag or not piece.text or not state):
            kept.append(piece)
        size = 0 if state & NO_TEXT else len(piece.text.strip())
        total += size
        hidden = hidden + size if state else 0
        most_hidden = max(most_hidden, hidden)
    return Seen(kept, elements.depth), most_hidden >= MOSTLY_HIDDEN_CHARACTERS and 2 * most_hidden > total


class Elements:
    """The elements that are open at a place of a source."""

    def __init__(self, with_hidden: bool) -> None:
        self.depth = 0
        """Tags within tags, at most."""
        self._unclosed = 0
        self._with_hidden = with_hidden
        self._open: list[tuple[str, int]] = []
        """Names, and why what is in them is not seen."""
        self._places: defaultdict[str, list[int]] = defaultdict(list)
        self._fences: list[int] = []

    def read(self, piece: MarkupPiece) -> int:
        """Why a piece is not seen; 0 where it is."""
        if piece.begins:
            return self._begin(piece)
        return self._end(piece.tag) if piece.ends else self._state

    @property
    def _state(self) -> int:
        return self._open[-1][1] if self._open else 0

    def _begin(self, piece: MarkupPiece) -> int:
        for name in CLOSES.get(piece.tag, ()):  # <p>一<p>二 is two paragraphs: the second ends the first
            self._close(name, is_bounded=True)
        state = self._state | (NO_TEXT if piece.tag in SILENT else 0)
        if not self._with_hidden and MAY_HIDE.search(piece.source):
            state = _hidden(state, _attributes(piece.source))
        if not piece.ends and piece.tag not in NEVER_CLOSED:
            self._push(piece.tag, state)
        return state

    def _push(self, tag: str, state: int) -> None:
        self._unclosed += tag not in CLOSED_BY_OTHERS
        self.depth = max(self.depth, self._unclosed)
        if tag in FENCES:
            self._fences.append(len(self._open))
        self._places[tag].append(len(self._open))
        self._open.append((tag, state))

    def _end(self, tag: str) -> int:
        """Why the element that ends here was not seen."""
        state = self._close(tag, is_bounded=tag not in BLOCKS and tag not in SILENT)
        if state is None:
            return self._state
        self._unclosed -= tag not in CLOSED_BY_OTHERS
        return state

    def _close(self, tag: str, is_bounded: bool) -> int | None:
        """Close the innermost element of a name, and those in it; none behind a fence, if it is bounded."""
        places = self._places[tag]
        if not places or (is_bounded and self._fences and self._fences[-1] > places[-1]):
            return None
        at = places[-1]
        state = self._open[at][1]
        while len(self._open) > at:
            self._places[self._open.pop()[0]].pop()
        while self._fences and self._fences[-1] >= at:
            self._fences.pop()
        return state


def _hidden(state: int, attributes: dict[str, str]) -> int:
    """Why an element is not seen, by where it stands and by its own attributes."""
    style = _declarations(attributes.get("style", ""))
    if style.get("display", "none" if "hidden" in attributes else "") == "none":
        state |= GONE
    if visibility := style.get("visibility"):
        state = state | INVISIBLE if visibility in ("hidden", "collapse") else state
        state = state & ~INVISIBLE if visibility in ("visible", "initial") else state
    if size := style.get("font-size"):
        is_inherited = INHERITED.fullmatch(size)
        state = state | TINY if ZERO.fullmatch(size) else state if is_inherited else state & ~TINY
    return state


def _declarations(style: str) -> dict[str, str]:
    """What an attribute ``style`` says of each property in the end."""
    said: list[tuple[bool, str, str]] = []
    for declaration in CSS_COMMENT.sub("", style).lower().split(";"):
        name, _, value = declaration.partition(":")
        before, _, word = value.rpartition("!")
        is_important = word.strip() == "important" and bool(before)
        said.append((is_important, name.strip(), (before if is_important else value).strip()))
    return {name: value for _, name, value in sorted(said, key=lambda one: one[0])}


def _attributes(tag: str) -> dict[str, str]:
    """The first attributes of a tag; of two with one name the first."""
    found: dict[str, str] = {}
    for match in islice(ATTRIBUTE.finditer(tag), 1, 1 + MAX_ATTRIBUTES):
        found.setdefault(match[1].lower(), unescaped((match[2] or "").strip("\"'")))
    return found


def _bounded(tag: str) -> str:
    """A tag with no more attributes than ``MAX_ATTRIBUTES``."""
    if len(tag) <= 2 * MAX_ATTRIBUTES:
        return tag
    beyond = next(islice(ATTRIBUTE.finditer(tag), 1 + MAX_ATTRIBUTES, None), None)
    return f"{tag[: beyond.start()]}>" if beyond else tag


# -- lines ------------------------------------------------------------------------------------


class LineBuilder:
    """The paragraphs and headings that are seen as lines."""

    def __init__(self, page: Seen) -> None:
        self.lines: list[str] = []
        self.has_heading = False
        self.title = ""
        self._parts: list[str] = []
        self._in_heading = self._in_title = self._in_pre = False
        for piece in page.pieces:
            self._read(piece)
        self._end_line()

    def _read(self, piece: MarkupPiece) -> None:
        if piece.begins:
            self._begin(piece.tag)
        if piece.ends and not (piece.begins and piece.tag in NEVER_CLOSED):
            self._end(piece.tag)
        *whole, rest = piece.text.split("\n") if self._in_pre else [piece.text]
        for line in whole:
            self._parts.append(line)
            self._end_line()
        self._parts.append(rest)

    def _begin(self, tag: str) -> None:
        if tag == "br" and self._in_heading:
            self._parts.append(" ")  # 第一章<br>雪夜 is one heading, on one line
        elif tag in BLOCKS:
            self._end_line()
        self._in_pre = self._in_pre or tag == "pre"
        self._in_heading = self._in_heading or tag in HEADINGS
        self._in_title = tag == "title" or (self._in_title and tag in NEVER_CLOSED)

    def _end(self, tag: str) -> None:
        if tag in BLOCKS:
            self._end_line()
        if tag in HEADINGS:
            self._in_heading = False
        if tag == "title":
            self._in_title = False
        if tag == "pre":
            self._in_pre = False

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

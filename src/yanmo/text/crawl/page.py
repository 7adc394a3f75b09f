"""One page: bytes → title, author, time, the lines of its text, its links. No network, no files.

In: the body of an answer, its Content-Type, its address, the profile. Out: a :class:`Page`. Selectors
come first; where none is given or none fits, trafilatura looks for the main text, and the page says so.

Decoding, hidden text and lines are those of an .html file (``text/read/damage.py``, ``text/read/html.py``);
only links are also followed where the page hides them, for long lists of chapters are folded up.
"""

import contextlib
import re
import warnings
from dataclasses import asdict, dataclass, field
from typing import Any, Literal
from urllib.parse import urljoin

from lxml import etree
from parsel import Selector
from w3lib.url import safe_url_string

from yanmo.text.crawl.profile import Profile
from yanmo.text.read.damage import decode_page
from yanmo.text.read.encodings import remove_controls, unify_line_ends
from yanmo.text.read.html import VERBATIM, LineBuilder, MarkupPiece, extracted, scan, seen

VERSION = 3
"""Part of what a journal row was read with: raise it when the same bytes would give another page."""
Kind = Literal["list", "chapter"]
LINKS = ("chapter", "list", "next")
"""The selectors of links, in the order in which their pages are visited."""
SPACES = re.compile(r"[ \t\n\f\r\xa0]+")
BETWEEN = "<hr>"
"""Ends a line between two elements."""
DATE = re.compile(
    r"(\d{4})\s*[-/.年]\s*(\d{1,2})\s*[-/.月]\s*(\d{1,2})日?(?:[\sT]*(\d{1,2}):(\d{2})(?::(\d{2}))?)?"
)
AUTHOR_LABEL = re.compile(r"^(?:作\s*者|文|by)\s*[:：]\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Page:
    """What one page yields."""

    title: str = ""
    author: str = ""
    time: str = ""
    text: str = ""
    by: str = ""
    """What found the text: `selector`, `trafilatura`, `page` (all that is seen of one that trafilatura cannot
    bear) or `plain`; empty where there is none."""
    encoding: str = ""
    replaced: int = 0
    """Bytes that could not be decoded."""
    links: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in LINKS})
    """Absolute addresses by selector; under `twice` those of texts that are linked more than once."""

    def as_json(self) -> dict[str, Any]:
        """For a row of the journal."""
        return asdict(self)


def read_page(data: bytes, content_type: str, url: str, profile: Profile, kind: Kind) -> Page:
    """Read one page.

    Raises:
        ValueError: its bytes are no text, or no page that can be read.
    """
    text, encoding, replaced = decode_page(data, profile.encoding, content_type)
    text, _ = remove_controls(unify_line_ends(text)[0])
    if media_type(content_type) == "text/plain":
        return Page(text=_join(text.split("\n")), by="plain", encoding=encoding, replaced=replaced)
    pieces = scan(text)
    tree = _tree(pieces)
    if tree is None:
        return Page(encoding=encoding, replaced=replaced)
    select = profile.select
    is_text = kind == "chapter"
    found = {name: _links(tree, getattr(select, name), url, encoding) for name in LINKS}
    links = {name: list(addresses) for name, addresses in found.items()}
    links["twice"] = [address for address, times in found["chapter"].items() if times > 1]
    title = _title(tree, select.title if is_text else select.book_title)
    author = _author(tree, select.author if is_text else select.book_author)
    time = _time(tree, select.time)
    body, by = _body(tree, pieces, profile) if is_text else ("", "")
    if by == "trafilatura" and body == title:  # all that it finds on a page without text
        body, by = "", ""
    return Page(title, author, time, body, by, encoding, replaced, links)


def media_type(content_type: str) -> str:
    """`text/html` of `text/html; charset=gbk`."""
    return content_type.partition(";")[0].strip().lower()


# -- what is on a page ------------------------------------------------------------------------


def _tree(pieces: list[MarkupPiece]) -> Selector | None:
    """The page as a tree, with what it hides; nesting beyond libxml2's limit is cut."""
    if not any(piece.source.strip() for piece in pieces):
        return None
    source = seen(pieces, with_hidden=True).source
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says that nesting was cut
        tree = Selector(text=source, huge_tree=False)
    if not isinstance(tree.root, etree._Element):
        return None
    etree.strip_elements(tree.root, *VERBATIM, with_tail=False)
    return tree


def _links(tree: Selector, css: str, url: str, encoding: str) -> dict[str, int]:
    """Absolute addresses that match a selector, with how often each does, ordered by their last place."""
    # the last place: many sites list the latest chapters once more above all others
    found: dict[str, int] = {}
    base = url
    encoding = "utf-8" if "+" in encoding else encoding  # of a page joined from several, no one says which
    with contextlib.suppress(ValueError):
        base = urljoin(url, tree.css("base::attr(href)").get(default=""))
    for match in tree.css(css) if css else ():
        href = match.root if isinstance(match.root, str) else match.attrib.get("href", "")
        href = href.strip()
        if not href or href.startswith("#"):
            continue
        with contextlib.suppress(ValueError):
            address = safe_url_string(urljoin(base, href), encoding).partition("#")[0]
            found[address] = found.pop(address, 0) + 1
    return found


def _title(tree: Selector, css: str) -> str:
    if css:
        return _first(tree, css)
    heads = tree.css("h1")
    only = _line_of(heads[0]) if len(heads) == 1 else ""
    return only or _first(tree, 'meta[property="og:title"]::attr(content)') or _first(tree, "title")


def _author(tree: Selector, css: str) -> str:
    found = _first(tree, css) if css else _first(tree, 'meta[name="author"]::attr(content)')
    return AUTHOR_LABEL.sub("", found)


def _time(tree: Selector, css: str) -> str:
    """A date in ISO form if there is one, else the text itself."""
    places = (
        [css]
        if css
        else [
            'meta[property="article:published_time"]::attr(content)',
            'meta[name="publishdate"]::attr(content), meta[name="pubdate"]::attr(content)',
            "time::attr(datetime)",
        ]
    )
    found = next(filter(None, (_first(tree, place) for place in places)), "")
    date = DATE.search(found)
    if not date:
        return found
    year, month, day, hour, minute, second = (int(part) if part else None for part in date.groups())
    iso = f"{year:04d}-{month:02d}-{day:02d}"
    return iso if hour is None else f"{iso}T{hour:02d}:{minute:02d}:{second or 0:02d}"


def _body(tree: Selector, pieces: list[MarkupPiece], profile: Profile) -> tuple[str, str]:
    """(the text, what found it)."""
    elements = [match.root for match in tree.css(profile.select.body)] if profile.select.body else []
    elements = [element for element in elements if isinstance(element, etree._Element)]
    for css in profile.select.drop:
        for match in tree.css(css):
            if match.root.getparent() is not None:
                match.drop()
    found = _join(_lines(_outermost(elements)))
    if found:
        return found, "selector"
    page = seen(pieces)
    by = "trafilatura" if page.is_bearable else "page"
    found = _join(
        extracted(page).get("text", "").split("\n") if page.is_bearable else LineBuilder(page).lines
    )
    return found, by if found else ""


def _outermost(elements: list[Any]) -> list[Any]:
    """Elements that lie in no other of them."""
    chosen = set(elements)
    return [e for e in elements if not any(above in chosen for above in e.iterancestors())]


def _lines(elements: list[Any]) -> list[str]:
    """The lines of elements as a browser would set them."""
    sources = (etree.tostring(e, method="html", encoding="unicode", with_tail=False) for e in elements)
    page = LineBuilder(seen(scan(BETWEEN.join(sources))))
    return page.lines or [page.title]


def _join(lines: list[str]) -> str:
    kept = (SPACES.sub(" ", line).strip() for line in lines)
    return "\n".join(line for line in kept if line)


def _first(tree: Selector, css: str) -> str:
    """The text of the first match that has any, on one line."""
    return next(filter(None, (_line_of(match) for match in tree.css(css))), "")


def _line_of(match: Selector) -> str:
    root = match.root
    return SPACES.sub(" ", root if isinstance(root, str) else " ".join(_lines([root]))).strip()

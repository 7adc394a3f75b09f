"""One page: bytes → title, author, time, the lines of its text, its links. No network, no files.

In: the body of an answer, its Content-Type, its address, the profile. Out: a :class:`Page`. Selectors
come first; where none is given or none fits, trafilatura looks for the main text, and the page says so.

Encodings go by evidence, not by labels: strict UTF-8, else what ``text/encodings.py`` finds plausible.
The label decides only for other languages, and gb2312 and gbk always mean gb18030, their superset.
"""

import contextlib
import logging
import re
import warnings
from dataclasses import asdict, dataclass, field
from typing import Any, Literal
from urllib.parse import urljoin

from lxml import etree
from parsel import Selector
from w3lib.url import safe_url_string

from yanmo.text.crawl.profile import Profile
from yanmo.text.encodings import CHINESE, decode, remove_controls, unify_line_ends

VERSION = 1
"""Part of what a journal row was read with: raise it when the same bytes would give another page."""
Kind = Literal["list", "chapter"]
LINKS = ("chapter", "list", "next")
"""The selectors of links, in the order in which the pages behind them are visited."""
GB = {"gb2312", "gbk", "gb_2312-80", "x-gbk", "cp936", "ms936", "euc-cn"}
MAX_REPLACED = 0.01
"""Share of a page's characters that may be undecodable; sites with GBK labels have a few such bytes."""
LABEL = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.IGNORECASE)
HEAD = 4096
"""Bytes of a page in which its label is looked for."""

UNSEEN = ("script", "style", "noscript", "template", "iframe", "select", "button", "svg")
BLOCKS = frozenset({
    "address", "article", "aside", "blockquote", "br", "center", "dd", "details", "div", "dl", "dt",
    "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr",
    "li", "main", "nav", "ol", "p", "pre", "section", "table", "td", "th", "tr", "ul",
})  # fmt: skip
BREAK = "\x00"
SPACES = re.compile(r"[ \t\n\f\r\xa0]+")
BREAK_IN_CHINESE = re.compile(r"(?<=[\u2e80-\uffef])[ \t]*\n\s*(?=[\u2e80-\uffef])")
"""A line end in the source between two hanzi; as a space it would stand in the middle of a word."""
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
    """What found the text: `selector`, `trafilatura` or `plain`; empty where there is none."""
    encoding: str = ""
    replaced: int = 0
    """Characters that could not be decoded."""
    links: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in LINKS})
    """Absolute addresses by selector."""

    def as_json(self) -> dict[str, Any]:
        """For a row of the journal."""
        return asdict(self)


def read_page(data: bytes, content_type: str, url: str, profile: Profile, kind: Kind) -> Page:
    """Read one page.

    Raises:
        ValueError: its bytes are no text, or no page that can be read.
    """
    text, encoding, replaced = decode_page(data, content_type, profile.encoding)
    text, _ = remove_controls(unify_line_ends(text)[0])
    if media_type(content_type) == "text/plain":
        return Page(text=_join(text.split("\n")), by="plain", encoding=encoding, replaced=replaced)
    tree = _tree(text)
    if tree is None:
        return Page(encoding=encoding, replaced=replaced)
    select = profile.select
    is_text = kind == "chapter"
    links = {name: _links(tree, getattr(select, name), url, encoding) for name in LINKS}
    title = _title(tree, select.title if is_text else select.book_title)
    author = _author(tree, select.author if is_text else select.book_author)
    time = _time(tree, select.time)
    body, by = _body(tree, text, profile) if is_text else ("", "")
    if by == "trafilatura" and body == title:  # all that it finds on a page without text
        body, by = "", ""
    return Page(title, author, time, body, by, encoding, replaced, links)


def media_type(content_type: str) -> str:
    """`text/html` of `text/html; charset=gbk`."""
    return content_type.partition(";")[0].strip().lower()


# -- bytes to characters ----------------------------------------------------------------------


def decode_page(data: bytes, content_type: str, encoding: str = "auto") -> tuple[str, str, int]:
    """(text, encoding, characters that could not be decoded).

    Raises:
        ValueError: no encoding gives a text.
    """
    if encoding != "auto":
        return _tolerant(data, as_superset(encoding))
    label = label_of(data, content_type)
    with contextlib.suppress(ValueError):
        text, found = decode(data)
        if found not in CHINESE or label in ("", "utf-8", *CHINESE):
            return text, found, 0
    if label and label != "utf-8":
        with contextlib.suppress(ValueError):
            return _tolerant(data, label)
    with contextlib.suppress(ValueError):
        return *decode(data), 0
    for guess in (label, "utf-8", "gb18030"):
        with contextlib.suppress(ValueError, LookupError):
            return _tolerant(data, guess)
    raise ValueError(f"no encoding fits (labelled {label or 'nothing'})")


def label_of(data: bytes, content_type: str) -> str:
    """The encoding a page says it has, by its header or its meta tag; empty where Python knows none."""
    in_header = re.search(r"charset\s*=\s*[\"']?([\w.:-]{1,40})", content_type, re.IGNORECASE)
    in_page = LABEL.search(data[:HEAD])
    name = in_header[1] if in_header else in_page[1].decode("ascii", "replace") if in_page else ""
    try:
        "a".encode(as_superset(name))
    except (LookupError, ValueError):
        return ""
    return as_superset(name)


def as_superset(name: str) -> str:
    """gb18030 for what is called gb2312 or gbk: browsers read it so, and pages rely on it."""
    name = name.lower().strip()
    return "gb18030" if name in GB else "utf-8" if name == "utf8" else name


def _tolerant(data: bytes, encoding: str) -> tuple[str, str, int]:
    text = data.decode(encoding, "replace").removeprefix("\ufeff")
    replaced = text.count("\ufffd")
    if replaced > MAX_REPLACED * len(text):
        raise ValueError(f"{replaced:,} of {len(text):,} characters are no {encoding}")
    return text, encoding, replaced


# -- what is on a page ------------------------------------------------------------------------


def _tree(text: str) -> Selector | None:
    """The page as a tree without what nobody sees; nesting beyond libxml2's limit is cut."""
    if not text.strip():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says that nesting was cut
        tree = Selector(text=text, huge_tree=False)
    if not isinstance(tree.root, etree._Element):
        return None
    etree.strip_elements(tree.root, etree.Comment, etree.ProcessingInstruction, *UNSEEN, with_tail=False)
    return tree


def _links(tree: Selector, css: str, url: str, encoding: str) -> list[str]:
    """Addresses behind a selector, absolute, each once, in the page's order."""
    found: dict[str, None] = {}
    base = url
    with contextlib.suppress(ValueError):
        base = urljoin(url, tree.css("base::attr(href)").get(default=""))
    for match in tree.css(css) if css else ():
        href = match.root if isinstance(match.root, str) else match.attrib.get("href", "")
        href = href.strip()
        if not href or href.startswith("#"):
            continue
        with contextlib.suppress(ValueError):
            found[safe_url_string(urljoin(base, href), encoding).partition("#")[0]] = None
    return list(found)


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
    """A date in ISO form where one is found, else what stands there."""
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


def _body(tree: Selector, text: str, profile: Profile) -> tuple[str, str]:
    """(the text, what found it)."""
    elements = [match.root for match in tree.css(profile.select.body)] if profile.select.body else []
    elements = [element for element in elements if isinstance(element, etree._Element)]
    for css in profile.select.drop:
        for match in tree.css(css):
            if match.root.getparent() is not None:
                match.drop()
    found = _join(line for element in _outermost(elements) for line in _lines(element))
    if found:
        return found, "selector"
    found = _main_text(text)
    return found, "trafilatura" if found else ""


def _outermost(elements: list[Any]) -> list[Any]:
    """Elements that lie in no other of them."""
    chosen = set(elements)
    return [e for e in elements if not any(above in chosen for above in e.iterancestors())]


def _main_text(text: str) -> str:
    """What trafilatura takes for the main text."""
    import trafilatura

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    try:
        found = trafilatura.extract(text, include_comments=False, include_tables=False)
    except Exception:  # a page that trafilatura stumbles over is a page without text
        return ""
    return _join((found or "").split("\n"))


def _lines(element: Any) -> list[str]:
    """The lines of an element as a browser would set them; walked without recursion."""
    parts: list[str] = []
    in_pre = 0
    for event, node in etree.iterwalk(element, events=("start", "end")):
        is_start = event == "start"
        is_block = node.tag in BLOCKS
        if node.tag == "pre":
            in_pre += 1 if is_start else -1
        if is_block:
            parts.append(BREAK)
        said = node.text if is_start else node.tail if node is not element else ""
        if said:
            parts.append(said.replace("\n", BREAK) if in_pre else said)
    return "".join(parts).split(BREAK)


def _join(lines: Any) -> str:
    kept = (SPACES.sub(" ", BREAK_IN_CHINESE.sub("", line)).strip() for line in lines)
    return "\n".join(line for line in kept if line)


def _first(tree: Selector, css: str) -> str:
    """The text of the first match that has any, on one line."""
    return next(filter(None, (_line_of(match) for match in tree.css(css))), "")


def _line_of(match: Selector) -> str:
    root = match.root
    return SPACES.sub(" ", _join([root] if isinstance(root, str) else _lines(root))).strip()

"""An .epub → its text: the chapters in the order of the book, headings as lines.

In: a stream. Out: one record, with title, author and language as fields, and one for each page that cannot
be read, under its reason: what is wrong with a page costs that page and not the book. A chapter whose page
has no heading gets the one that the table of contents gives it, so that ``corpus.split_chapters`` finds it.
Members are found however their names are written. Read with the standard library alone; entities that a page
defines itself are resolved where they stand for a few characters, and never otherwise.
"""

import io
import posixpath
import re
import unicodedata
import urllib.parse
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from yanmo.text.read.containers import (
    DAMAGED,
    ENCRYPTED,
    member_reader,
    open_zip,
    read_whole,
    safe_name,
    safe_path,
)
from yanmo.text.read.elements import Element, elements
from yanmo.text.read.encodings import decode
from yanmo.text.read.html import LineBuilder, decoded_page, scan, seen
from yanmo.text.read.records import EMPTY, Record, Unusable

CONTAINER = "META-INF/container.xml"
ENCRYPTION = "META-INF/encryption.xml"
PACKAGE_SUFFIX = ".opf"
ENTITIES = "defines XML entities"
MISSING = "missing page"
PAGE_SUFFIXES = (".xhtml", ".html", ".htm", ".xml", ".txt")
NO_PAGES = ("image/", "audio/", "video/", "font/")
"""What a spine may hold beside pages; other labels are often wrong, and a page is what can be read as one."""
NCX = "application/x-dtbncx+xml"
DEFINITIONS = re.compile(r"<!DOCTYPE[^\[<>]*+\[", re.IGNORECASE)
DEFINITIONS_END = re.compile(r"]\s*+>")
DEFINED = re.compile(r"<!ENTITY\s++([\w.:-]++)")
HARMLESS = re.compile(
    r"""<!ENTITY\s++([\w.:-]++)\s++(?:"((?:[^"<&%]|&\#\w{1,8};){0,64}+)"|'((?:[^'<&%]|&\#\w{1,8};){0,64}+)')\s*+>"""
)
"""An entity of at most 64 characters that leads to no other."""
REFERENCE = re.compile(r"&([\w.:-]++);")


def read_epub(stream: BinaryIO) -> Iterator[Record]:
    """The text of a book, and what of it cannot be read.

    Raises:
        Unusable: it is damaged or encrypted as a whole, or no book.
    """
    data = read_whole(stream)
    with open_zip(io.BytesIO(data)) as archive:
        book = _Book(archive, len(data))
        texts, lost, faults = [], 0, []
        for number, reference in enumerate(book.spine(), 1):
            try:
                text, undecodable = book.chapter(reference)
            except Unusable as fault:
                faults.append((number, reference, fault))
            else:
                texts += [text] if text else []
                lost += undecodable
    if faults and not texts:
        raise faults[0][2]  # a book none of whose pages can be read is no book with faults
    for number, reference, error in faults:
        yield Record(number, 0, dropped=error.reason, place=f"/{safe_path(reference)}", why=error.what)
    fields = _metadata(book.package)
    yield Record(1, len(data), "\n\n".join(texts), "epub", fields=fields, undecodable_bytes=lost)


class _Members:
    """The members of an archive by their names, in whatever letters and encoding they are written."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self._open = member_reader(archive, size)
        files = [member for member in archive.infolist() if not member.is_dir()]
        self._exact = {member.filename: member for member in files}
        self._members = {_key(safe_name(member)): member for member in files}

    def find(self, *paths: str) -> zipfile.ZipInfo | None:
        """The first of these that is there."""
        found = (self._exact.get(path) or self._members.get(_key(path)) for path in paths)
        return next((member for member in found if member), None)

    def ending_in(self, suffix: str) -> str:
        """The name of the first member with this suffix."""
        return next((name for name in self._members if name.endswith(suffix)), "")

    def read(self, member: zipfile.ZipInfo) -> bytes:
        with self._open(member) as stream:
            return read_whole(stream)


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", safe_path(name)).casefold()


@dataclass(frozen=True)
class _Item:
    """A file of the manifest."""

    reference: str
    label: str
    """Its media type, as far as it can be believed."""
    is_contents: bool

    def is_page(self) -> bool:
        is_named_so = self.reference.lower().endswith(PAGE_SUFFIXES)
        return not self.is_contents and (is_named_so or not self.label.startswith(NO_PAGES))


class _Book:
    """A package and its members."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self._members = _Members(archive, size)
        path = self._package_path()
        self._base = posixpath.dirname(path)
        self.package = self._package(path)
        self._items = {e.attributes.get("id", ""): _item(e) for e in elements(self.package, "item")}
        self._locked = self._encrypted()
        self._headings = self._titles()

    def spine(self) -> list[str]:
        """The pages in the order of reading, each once, without the table of contents."""
        named = [e.attributes.get("idref", "") for e in elements(self.package, "itemref")]
        # An idref that the manifest lacks may be a path itself.
        listed = [self._items.get(name) or _Item(name, "", False) for name in named]
        if not listed:
            listed = [i for i in self._items.values() if i.reference.lower().endswith(PAGE_SUFFIXES)]
        pages = list(dict.fromkeys(item.reference for item in listed if item.is_page()))
        if not pages:
            raise Unusable(EMPTY, "the book has no pages", hint="give a book with text")
        return pages

    def chapter(self, reference: str) -> tuple[str, int]:
        """(text, undecodable bytes) of a page."""
        member = self._members.find(*_places(self._base, reference))
        if member is None:
            raise Unusable(MISSING, f"the book lacks its page {reference}", hint="fetch it again")
        if _key(safe_name(member)) in self._locked:
            raise Unusable(ENCRYPTED, "the book is encrypted (DRM)", hint="give one without")
        source, _, lost = decoded_page(self._members.read(member))
        return _text(_with_entities(source), self._headings.get(member.filename, "")), lost

    def _source(self, *paths: str) -> str:
        """A small XML file of the book; what is lost with one can be done without."""
        member = self._members.find(*paths)
        try:
            return decoded_page(self._members.read(member))[0] if member else ""
        except Unusable:
            return ""

    def _package_path(self) -> str:
        """Where the container says that the package is; else the package that is there."""
        named = [e.attributes.get("full-path", "") for e in elements(self._source(CONTAINER), "rootfile")]
        path = next((path for path in named if self._members.find(path)), "")
        path = path or self._members.ending_in(PACKAGE_SUFFIX)
        if not path:
            raise Unusable(DAMAGED, f"the book has no package ({PACKAGE_SUFFIX})", hint="fetch it again")
        return path

    def _package(self, path: str) -> str:
        member = self._members.find(path)
        assert member is not None  # it was found
        return decoded_page(self._members.read(member))[0]

    def _encrypted(self) -> set[str]:
        """What is encrypted; fonts often are."""
        found = elements(self._source(ENCRYPTION), "cipherreference")
        return {_key(_unquoted(e.attributes.get("uri", ""))) for e in found}

    def _titles(self) -> dict[str, str]:
        """What the table of contents calls each page: the first entry that leads there, by member."""
        found: dict[str, str] = {}
        for item in self._items.values():
            contents = self._members.find(*_places(self._base, item.reference))
            if not item.is_contents or contents is None:
                continue
            base = posixpath.dirname(safe_name(contents))
            for title, target in _entries(self._source(contents.filename)):
                if member := self._members.find(*_places(base, target)):
                    found.setdefault(member.filename, title)
        return found


def _item(element: Element) -> _Item:
    said = element.attributes
    label = said.get("media-type", "").strip().lower()
    is_contents = label == NCX or "nav" in said.get("properties", "").split()
    return _Item(said.get("href", ""), label, is_contents)


def _places(base: str, reference: str) -> Iterator[str]:
    """Where in the archive a reference may lead, the likeliest first; none is outside of it."""
    plain = reference.partition("#")[0].replace("\\", "/")
    for path in (_unquoted(plain), plain, _unquoted(plain.partition("?")[0])):
        if path:
            yield posixpath.normpath(posixpath.join(base, path))
            yield posixpath.normpath(posixpath.join(base, path.lstrip("/")))


def _unquoted(reference: str) -> str:
    """Of references that are no UTF-8 the bytes are judged as those of a name are."""
    data = urllib.parse.unquote_to_bytes(reference)
    try:
        return decode(data)[0]
    except ValueError:
        return reference


def _entries(source: str) -> Iterator[tuple[str, str]]:
    """(title, target) of the entries of a table of contents, of an NCX or of a page."""
    title = ""
    for element in elements(source, "text", "content", "a"):
        if element.name == "text":
            title = element.text
        elif element.name == "content":
            yield title, element.attributes.get("src", "")
        else:
            yield element.text, element.attributes.get("href", "")


def _with_entities(source: str) -> str:
    """A page with its own entities resolved and their definitions taken out."""
    begins = DEFINITIONS.search(source)
    if not begins or not (ends := DEFINITIONS_END.search(source, begins.end())):
        return source
    definitions = source[begins.end() : ends.start()]
    rest = source[: begins.start()] + source[ends.end() :]
    known = {found[1]: found[2] or found[3] or "" for found in HARMLESS.finditer(definitions)}
    others = {found[1] for found in DEFINED.finditer(definitions)} - {*known}
    if others & {found[1] for found in REFERENCE.finditer(rest)}:
        raise Unusable(
            ENTITIES, "the page uses entities of its own, as bombs do", hint="convert the book again"
        )
    return REFERENCE.sub(lambda found: known.get(found[1], found[0]), rest)


def _text(source: str, heading: str) -> str:
    page = LineBuilder(seen(scan(source)))
    # The heading may be an ordinary paragraph of the page: it is not put there a second time.
    is_headed = page.has_heading or heading in page.lines[:3]
    lines = page.lines if is_headed or not heading or not page.lines else [heading, *page.lines]
    return "\n".join(lines)


def _metadata(package: str) -> dict[str, str]:
    """What the book says of itself."""
    said = [e for e in elements(_with_entities(package), "title", "creator", "language") if e.text]
    names = {"title": "title", "author": "creator", "language": "language"}
    found = {name: ", ".join(e.text for e in said if e.name == tag) for name, tag in names.items()}
    return {name: text[:500] for name, text in found.items() if text}

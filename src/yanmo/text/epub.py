"""An .epub → its text: the chapters in the order of the book, headings as lines.

In: a stream. Out: one record, with title, author and language as fields. A chapter whose page has no
heading gets the one that the table of contents gives it, so that ``corpus.split_chapters`` finds it. Read
with the standard library alone; a book that defines entities is refused.
"""

import io
import posixpath
import urllib.parse
import zipfile
from collections.abc import Callable, Iterator
from typing import BinaryIO
from xml.etree import ElementTree

from yanmo.text.containers import DAMAGED, ENCRYPTED, member_reader, open_zip, read_whole
from yanmo.text.markup import Lines, decoded_page, scan, seen
from yanmo.text.records import EMPTY, Record, Unusable

CONTAINER = "META-INF/container.xml"
ENCRYPTION = "META-INF/encryption.xml"
ENTITIES = "defines XML entities"
PAGES = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml", "text/x-oeb1-document")


def read_epub(stream: BinaryIO) -> Record:
    """The text of a book.

    Raises:
        Unusable: it is damaged, encrypted, or no book.
    """
    data = read_whole(stream)
    with open_zip(io.BytesIO(data)) as archive:
        read = _reader(archive, len(data))
        package_path = _package_path(read(CONTAINER))
        package = _xml(read(package_path))
        base = posixpath.dirname(package_path)
        items = _items(package, base)
        chapters = list(_spine(package, items))
        _refuse_encrypted(archive, read, chapters)
        headings = _headings(package, items, read)
        texts = [text for path in chapters if (text := _chapter(read(path), headings.get(path, "")))]
    return Record(1, len(data), "\n\n".join(texts), "epub", fields=_metadata(package))


def _reader(archive: zipfile.ZipFile, size: int) -> Callable[[str], bytes]:
    """Reads a member by its name; a name that is not there is damage."""
    opened = member_reader(archive, size)

    def read(name: str) -> bytes:
        try:
            member = archive.getinfo(name)
        except KeyError as error:
            raise Unusable(DAMAGED, f"the book lacks {name}", mend="fetch it again") from error
        with opened(member) as stream:
            return read_whole(stream)

    return read


def _xml(data: bytes) -> ElementTree.Element:
    """A small XML file of the book."""
    source = decoded_page(data)[0]
    _refuse_entities(source)
    try:
        return ElementTree.fromstring(source.strip("\ufeff \t\r\n"))
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise Unusable(DAMAGED, f"the book is damaged: {error}", mend="fetch it again") from error


def _refuse_entities(source: str) -> None:
    if "<!ENTITY" in source:
        raise Unusable(ENTITIES, "the book defines entities of its own, as bombs do", mend="convert it again")


def _package_path(data: bytes) -> str:
    for element in _named(_xml(data), "rootfile"):
        if path := element.get("full-path"):
            return path
    raise Unusable(DAMAGED, f"the book's {CONTAINER} names no package", mend="fetch it again")


def _named(root: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """Elements of a name, in whatever namespace."""
    return (e for e in root.iter() if isinstance(e.tag, str) and e.tag.rpartition("}")[2] == name)


def _resolved(base: str, reference: str) -> str:
    """Where in the archive a reference leads; what leads out of it is found nowhere."""
    path = urllib.parse.unquote(reference.partition("#")[0])
    return posixpath.normpath(posixpath.join(base, path))


def _items(package: ElementTree.Element, base: str) -> dict[str, dict[str, str]]:
    """The manifest, by id."""
    return {
        e.get("id", ""): {**e.attrib, "path": _resolved(base, e.get("href", ""))}
        for e in _named(package, "item")
    }


def _spine(package: ElementTree.Element, items: dict[str, dict[str, str]]) -> Iterator[str]:
    """The pages in the order of reading, each once, without the table of contents."""
    seen: set[str] = set()
    for reference in _named(package, "itemref"):
        item = items.get(reference.get("idref", ""), {})
        is_contents = "nav" in item.get("properties", "").split()
        if item.get("media-type") in PAGES and not is_contents and item["path"] not in seen:
            seen.add(item["path"])
            yield item["path"]
    if not seen:
        raise Unusable(EMPTY, "the book has no pages", mend="give a book with text")


def _refuse_encrypted(archive: zipfile.ZipFile, read: Callable[[str], bytes], chapters: list[str]) -> None:
    if ENCRYPTION not in archive.namelist():
        return
    locked = {_resolved("", e.get("URI", "")) for e in _named(_xml(read(ENCRYPTION)), "CipherReference")}
    if locked & set(chapters):
        raise Unusable(ENCRYPTED, "the book is encrypted (DRM)", mend="give one without")


def _headings(
    package: ElementTree.Element, items: dict[str, dict[str, str]], read: Callable[[str], bytes]
) -> dict[str, str]:
    """What the table of contents calls each page: the first entry that leads there."""
    found: dict[str, str] = {}
    for item in items.values():
        is_ncx = item.get("media-type") == "application/x-dtbncx+xml"
        if not is_ncx and "nav" not in item.get("properties", "").split():
            continue
        try:
            root = _xml(read(item["path"]))
        except Unusable:  # a book can be read without its table of contents
            continue
        base = posixpath.dirname(item["path"])
        for title, target in _points(root) if is_ncx else _links(root):
            found.setdefault(_resolved(base, target), title)
    return found


def _points(root: ElementTree.Element) -> Iterator[tuple[str, str]]:
    for point in _named(root, "navPoint"):
        title = next(("".join(e.itertext()) for e in _named(point, "text")), "")
        target = next((e.get("src", "") for e in _named(point, "content")), "")
        yield " ".join(title.split()), target


def _links(root: ElementTree.Element) -> Iterator[tuple[str, str]]:
    for link in _named(root, "a"):
        yield " ".join("".join(link.itertext()).split()), link.get("href", "")


def _chapter(data: bytes, heading: str) -> str:
    source = decoded_page(data)[0]
    _refuse_entities(source)
    page = Lines(seen(scan(source)))
    is_headed = page.has_heading or heading in page.lines[:3]
    lines = page.lines if is_headed or not heading or not page.lines else [heading, *page.lines]
    return "\n".join(lines)


def _metadata(package: ElementTree.Element) -> dict[str, str]:
    """What the book says of itself."""
    found = {
        name: ", ".join(" ".join(e.text.split()) for e in _named(package, tag) if e.text)
        for name, tag in (("title", "title"), ("author", "creator"), ("language", "language"))
    }
    return {name: text[:500] for name, text in found.items() if text}

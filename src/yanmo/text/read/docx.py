"""A .docx → its text: paragraphs, headings and the cells of tables in their order, a line each.

In: a stream. Out: one record. The main part alone is unpacked, counted as it comes, and given to python-docx
in a package of its own: what is wrong with a picture costs nothing, and no bomb is opened. Its paragraphs are
taken wherever they stand, for the library's own lists leave out content controls, insertions and text boxes.
What was deleted or moved away under tracked changes is no text.
"""

import io
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from yanmo.text.read.containers import DAMAGED, ENCRYPTED, member_reader, open_zip, read_whole
from yanmo.text.read.elements import elements
from yanmo.text.read.records import NeedsExtra, Record, Unusable

OLD_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""An old .doc, or a .docx that is encrypted, begins so."""
ENCRYPTED_PART = "EncryptedPackage".encode("utf-16-le")
MAIN_PART = "word/document.xml"
RELATIONS = "_rels/.rels"
MAIN_RELATION = "/officeDocument"
PACKAGE = {
    "[Content_Types].xml": """<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Override PartName="/word/document.xml"
ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>""",
    RELATIONS: """<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
<Relationship Id="rId1" Target="word/document.xml"
Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"/></Relationships>""",
}
"""What a package with a main part and nothing else says of itself."""
LEFT_OUT = frozenset(("pPr", "rPr", "del", "moveFrom", "rt", "Fallback", "instrText"))
"""What is set, deleted, moved away, beside a character, or said for old programs once more."""
CHARACTERS = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}


def read_docx(stream: BinaryIO) -> Record:
    """The text of a document.

    Raises:
        Unusable: it is damaged, encrypted, a bomb or no .docx, or the library is missing.
    """
    try:
        import docx
        from lxml import etree
    except ImportError as error:
        raise NeedsExtra("python-docx", ".docx") from error
    data = read_whole(stream)
    package = _package(_main_part(data))
    try:
        body = docx.Document(package).element
    except (etree.LxmlError, KeyError, ValueError, AttributeError) as error:
        raise Unusable(DAMAGED, f"the file is damaged: {error}", hint="fetch it again") from error
    return Record(1, len(data), "\n".join(_lines(etree.iterwalk(body, events=("start", "end")))), "docx")


def _main_part(data: bytes) -> bytes:
    """The bytes of what holds the text."""
    if data.startswith(OLD_OFFICE):
        if ENCRYPTED_PART in data:
            raise Unusable(ENCRYPTED, "the file is encrypted", hint="save it without a password")
        raise Unusable(DAMAGED, "the file is an old .doc under another name", hint="save it as .docx")
    with open_zip(io.BytesIO(data)) as archive:
        opened = member_reader(archive, len(data))
        try:
            path = MAIN_PART if MAIN_PART in archive.namelist() else _named_part(opened, archive)
            with opened(archive.getinfo(path)) as stream:
                return read_whole(stream)
        except KeyError as error:
            raise Unusable(
                DAMAGED, "the file has no text as a .docx has it", hint="save it as .docx"
            ) from error


def _named_part(opened: Any, archive: zipfile.ZipFile) -> str:
    """Where a package says that its main part is."""
    with opened(archive.getinfo(RELATIONS)) as stream:
        source = read_whole(stream).decode("utf-8", "replace")
    said = [element.attributes for element in elements(source, "relationship")]
    main = (a.get("target", "") for a in said if a.get("type", "").endswith(MAIN_RELATION))
    return next(main, "").lstrip("/")


def _package(main_part: bytes) -> BinaryIO:
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        for name, source in PACKAGE.items():
            archive.writestr(name, source)
        archive.writestr(MAIN_PART, main_part)
    package.seek(0)
    return package


def _lines(walk: Any) -> Iterator[str]:
    """The paragraphs; one within another, as in a text box, stands before it."""
    paragraphs: list[list[str]] = []
    for event, element in walk:
        name = element.tag.rpartition("}")[2]
        if event == "start" and name in LEFT_OUT:
            walk.skip_subtree()
        elif name == "p" and event == "start":
            paragraphs.append([])
        elif name == "p" and paragraphs:
            yield "".join(paragraphs.pop())
        elif event == "start" and paragraphs and name in ("t", *CHARACTERS):
            paragraphs[-1].append(CHARACTERS.get(name) or element.text or "")

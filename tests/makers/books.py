"""Books made member by member."""

import zipfile
from pathlib import Path

PARAGRAPH = "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。"
CONTAINER = """<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<rootfiles><rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""
OPF = """<?xml version="1.0" encoding="utf-8"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>三国演义</dc:title><dc:creator>罗贯中</dc:creator>
<dc:language>zh</dc:language></metadata><manifest>
<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="c2" href="text/%E4%BA%8C.xhtml" media-type="application/xhtml+xml"/>
<item id="c1" href="text/1.xhtml" media-type="application/xhtml+xml"/>
<item id="img" href="cover.jpg" media-type="image/jpeg"/></manifest>
<spine><itemref idref="img"/><itemref idref="nav"/><itemref idref="c1"/><itemref idref="c2"/><itemref idref="c1"/></spine></package>"""
NAV = """<html xmlns="http://www.w3.org/1999/xhtml"><body><nav><ol><li><a href="text/1.xhtml">第一回 宴桃园</a></li>
<li><a href="text/%E4%BA%8C.xhtml#a">第二回 张翼德</a></li></ol></nav></body></html>"""
ONE = f"<html><head><title>x</title></head><body><h1>第一回 宴桃园</h1><p>{PARAGRAPH}</p><p>甲</p></body></html>"
TWO = "<html><body><p>乙</p><p>丙</p></body></html>"
BOOK = {
    "mimetype": "application/epub+zip",
    "META-INF/container.xml": CONTAINER,
    "OEBPS/book.opf": OPF,
    "OEBPS/nav.xhtml": NAV,
    "OEBPS/text/1.xhtml": ONE,
    "OEBPS/text/二.xhtml": TWO,
}


def book(path: Path, **changed: str | bytes | None) -> Path:
    members = BOOK | {name.replace("__", "/").replace("_x", ".x"): data for name, data in changed.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            if data is not None:
                archive.writestr(name, data)
    return path

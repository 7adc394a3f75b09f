import zipfile
from pathlib import Path

import pytest

from tests.makers.books import ONE, OPF, PARAGRAPH, TWO, book
from tests.makers.documents import read
from tests.makers.work import assert_linear, calls
from yanmo.core.errors import DataError
from yanmo.text.read.documents import CorpusCounts
from yanmo.text.read.elements import elements


def test_a_book_is_one_document_in_the_order_of_its_spine(tmp_path: Path) -> None:
    found = read(book(tmp_path / "a.epub"))
    assert [d.text for d in found] == [f"第一回 宴桃园\n{PARAGRAPH}\n甲\n\n第二回 张翼德\n乙\n丙"]
    assert found[0].meta["fields"] == {"title": "三国演义", "author": "罗贯中", "language": "zh"}
    chapters = read(tmp_path / "a.epub", split_chapters=True)
    assert [d.text[:3] for d in chapters] == ["第一回", "第二回"]
    assert chapters[1].meta["fields"]["author"] == "罗贯中"


def test_a_book_in_a_zip_is_read(tmp_path: Path) -> None:
    data = book(tmp_path / "a.epub").read_bytes()
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("书.epub", data)
    assert [d.id for d in read(tmp_path / "b.zip")] == ["b.zip/书.epub"]


def test_headings_of_an_ncx_are_found(tmp_path: Path) -> None:
    ncx = """<?xml version="1.0"?><!DOCTYPE ncx PUBLIC "-//NISO//DTD ncx 2005-1//EN" "http://www.daisy.org/z3986/2005/ncx-2005-1.dtd">
    <ncx xmlns="http://www.daisy.org/z3986/2005/ncx/"><navMap><navPoint><navLabel><text>第二回 何进</text></navLabel>
    <content src="text/%E4%BA%8C.xhtml"/></navPoint></navMap></ncx>"""
    opf = OPF.replace('properties="nav"', "").replace("application/xhtml+xml", "application/x-dtbncx+xml", 1)
    found = read(book(tmp_path / "a.epub", **{"OEBPS/book.opf": opf, "OEBPS/nav_xhtml": ncx}))
    assert "\n\n第二回 何进\n乙" in found[0].text


def losses(path: Path) -> tuple[str, dict[str, int]]:
    """What is read of the only book of a folder, and what is not."""
    counts = CorpusCounts()
    found = read(path.parent, counts=counts)
    return "".join(d.text for d in found), dict(counts.documents_dropped)


BOMB = '<!DOCTYPE x [<!ENTITY a "b"><!ENTITY c "&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (BOMB + ONE.replace("<p>甲", "<p>&c;"), "defines XML entities"),
        ((BOMB + ONE.replace("<p>甲", "<p>&c;")).encode("utf-16"), "defines XML entities"),
        ('<!DOCTYPE x [<!ENTITY c SYSTEM "file:///etc/passwd">]>' + ONE + "&c;", "defines XML entities"),
        ("<!DOCTYPE x [<!ENTITY c '" + "a" * 65 + "'>]>" + ONE + "&c;", "defines XML entities"),
        (None, "missing page"),
        (bytes(range(256)) * 8, "undecodable"),
        ("a" * (64 << 20), "expands too much"),
    ],
)
def test_a_page_that_cannot_be_read_is_counted_and_the_others_are_read(
    tmp_path: Path, data: str | bytes | None, reason: str
) -> None:
    path = book(tmp_path / "a.epub", **{"OEBPS/text/1.xhtml": data})
    assert losses(path) == ("第二回 张翼德\n乙\n丙", {reason: 1})
    assert len(read(path)) == 1
    counts = CorpusCounts()
    read(path, counts=counts)
    assert counts.dropped[0].startswith(f"{path}/text/1.xhtml: ")


def test_a_changed_byte_costs_a_page(tmp_path: Path) -> None:
    path = book(tmp_path / "a.epub")
    data = bytearray(path.read_bytes())
    data[data.index(b"OEBPS/text/1.xhtml") + 40] ^= 0xFF
    path.write_bytes(data)
    assert losses(path) == ("第二回 张翼德\n乙\n丙", {"damaged archive": 1})


def test_an_encrypted_page_is_counted(tmp_path: Path) -> None:
    locked = '<e><CipherReference URI="OEBPS/text/1.xhtml"/></e>'
    path = book(tmp_path / "a.epub", **{"META-INF/encryption.xml": locked})
    assert losses(path) == ("第二回 张翼德\n乙\n丙", {"encrypted": 1})


def test_a_page_that_only_the_spine_knows_is_missing(tmp_path: Path) -> None:
    opf = OPF.replace("</spine>", '<itemref idref="c3"/></spine>')
    text, dropped = losses(book(tmp_path / "a.epub", **{"OEBPS/book.opf": opf}))
    assert "甲" in text and dropped == {"missing page": 1}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"OEBPS/book.opf": None}, "damaged archive"),
        ({"OEBPS/book.opf": "<a>" * 100_000}, "empty"),
        ({"OEBPS/book.opf": OPF.replace("item", "x")}, "empty"),
        ({"OEBPS/text/1.xhtml": None, "OEBPS/text/二.xhtml": None}, "missing page"),
        ({"OEBPS/text/1.xhtml": None, "OEBPS/text/二.xhtml": b"\x00\xff" * 99}, "missing page"),
        ({"OEBPS/text/1.xhtml": "<p></p>", "OEBPS/text/二.xhtml": ""}, "empty"),
    ],
)
def test_a_book_of_which_nothing_can_be_read_is_one_loss(
    tmp_path: Path, changed: dict[str, str | bytes | None], reason: str
) -> None:
    path = book(tmp_path / "a.epub", **changed)
    assert losses(path) == ("", {reason: 1})
    with pytest.raises(DataError):
        read(path)


@pytest.mark.parametrize(
    "changed",
    [
        {"META-INF/container.xml": None},
        {"META-INF/container.xml": "<a>"},
        {"META-INF/container.xml": b"\x00\xff" * 99},
        {"META-INF/encryption.xml": b"\x00\xff" * 99},
        {"OEBPS/nav.xhtml": "<h1>第一回 宴桃园</h1>", "OEBPS/text/二.xhtml": f"<h1>第二回 张翼德</h1>{TWO}"},
        {"OEBPS/book.opf": OPF.replace("itemref", "x").replace('"c1"', '"c"').replace("c2", "z")},
        {"OEBPS/book.opf": OPF.replace("三国演义", "三国&演义 &nbsp;<!-- -- -->")},
        {
            "OEBPS/book.opf": OPF.replace("xmlns:dc", "xmlns:x").replace(
                "<spine", "<meta opf:a='1' a='>'/><spine"
            )
        },
        {"OEBPS/book.opf": OPF.replace("</spine></package>", "").replace("?>", "?>" + BOMB, 1)},
        {"OEBPS/book.opf": OPF.replace("item ", "opf:item ").encode("utf-16")},
    ],
)
def test_what_a_book_can_do_without_costs_nothing(
    tmp_path: Path, changed: dict[str, str | bytes | None]
) -> None:
    text, dropped = losses(book(tmp_path / "a.epub", **changed))
    assert sorted(text.split("\n\n")) == [f"第一回 宴桃园\n{PARAGRAPH}\n甲", "第二回 张翼德\n乙\n丙"]
    assert dropped == {}


def test_a_title_is_read_as_it_is_meant(tmp_path: Path) -> None:
    for said, meant in (
        ("甲&乙", "甲&乙"),
        ("甲&amp;乙", "甲&乙"),
        ("&#19977;国&lt;一&gt;", "三国<一>"),
        ("甲\n 乙", "甲 乙"),
    ):
        found = read(book(tmp_path / "a.epub", **{"OEBPS/book.opf": OPF.replace("三国演义", said)}))
        assert found[0].meta["fields"]["title"] == meant


@pytest.mark.parametrize(
    ("said", "there"),
    [
        ("text/1.xhtml", "OEBPS/Text/1.XHTML"),
        ("text/1.xhtml", "OEBPS\\text\\1.xhtml"),
        ("text/1.xhtml", "/OEBPS/text/1.xhtml"),
        ("/OEBPS/text/1.xhtml", "OEBPS/text/1.xhtml"),
        ("/text/1.xhtml", "OEBPS/text/1.xhtml"),
        ("text\\1.xhtml", "OEBPS/text/1.xhtml"),
        ("../OEBPS/./text/1.xhtml?a=1#b", "OEBPS/text/1.xhtml"),
        ("text/a%20b.xhtml", "OEBPS/text/a b.xhtml"),
        ("text/a%20b.xhtml", "OEBPS/text/a%20b.xhtml"),
        ("text/%B5%DA%D2%BB%BB%D8.xhtml", "OEBPS/text/第一回.xhtml"),
        ("text/e\u0301.xhtml", "OEBPS/text/\u00e9.xhtml"),
        ("text/100%.xhtml", "OEBPS/text/100%.xhtml"),
    ],
)
def test_a_page_is_found_however_its_name_is_written(tmp_path: Path, said: str, there: str) -> None:
    changed = {"OEBPS/text/1.xhtml": None, there: ONE, "OEBPS/book.opf": OPF.replace("text/1.xhtml", said)}
    text, dropped = losses(book(tmp_path / "a.epub", **changed))
    assert text.startswith(f"第一回 宴桃园\n{PARAGRAPH}\n甲\n\n") and dropped == {}


@pytest.mark.parametrize("encoding", ["gbk", "big5", "utf-8"])
def test_member_names_that_are_not_marked_as_utf_8_are_found(tmp_path: Path, encoding: str) -> None:
    name = "第二回張翼德怒鞭督郵.xhtml"
    stand_in = "x" * len(name.encode(encoding))
    changed = {
        "OEBPS/text/二.xhtml": None,
        f"OEBPS/text/{stand_in}": TWO,
        "OEBPS/book.opf": OPF.replace("%E4%BA%8C.xhtml", name),
    }
    path = book(tmp_path / "a.epub", **changed)
    path.write_bytes(path.read_bytes().replace(stand_in.encode(), name.encode(encoding)))
    text, dropped = losses(path)
    assert "乙\n丙" in text and dropped == {}


@pytest.mark.parametrize(
    "label",
    [
        "",
        "text/xml",
        "APPLICATION/XHTML+XML",
        "text/html; charset=utf-8",
        "application/octet-stream",
        "image/jpeg",
        "x",
    ],
)
def test_a_page_is_read_whatever_it_is_labelled(tmp_path: Path, label: str) -> None:
    opf = OPF.replace("application/xhtml+xml", label)
    text, dropped = losses(book(tmp_path / "a.epub", **{"OEBPS/book.opf": opf}))
    assert "甲" in text and "乙" in text and dropped == {}


def test_entities_of_a_few_characters_are_resolved(tmp_path: Path) -> None:
    definitions = '<!DOCTYPE html [\n<!ENTITY nbsp "&#160;"><!ENTITY who \'孔明\'>\n<!ENTITY unused SYSTEM "x"> %more;]>'
    page = definitions + ONE.replace("<p>甲", "<p>甲&who;&mdash;&none;")
    text, dropped = losses(book(tmp_path / "a.epub", **{"OEBPS/text/1.xhtml": page}))
    assert text.startswith(f"第一回 宴桃园\n{PARAGRAPH}\n甲孔明—&none;\n\n") and dropped == {}


def test_broken_bytes_of_a_page_are_counted(tmp_path: Path) -> None:
    counts = CorpusCounts()
    data = ONE.replace("甲", "甲" * 99).encode().replace("甲".encode(), "甲".encode()[:2], 1)
    read(book(tmp_path / "a.epub", **{"OEBPS/text/1.xhtml": data}), counts=counts)
    assert counts.undecodable_bytes == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "hostile", ["<a ", '<a b="', "<!--", "<a", "</a", "<a b='\"", "&", "<a>", 'a="', "<a x=\"'\" '"]
)
def test_a_hostile_package_takes_linear_time(hostile: str) -> None:
    elements(hostile * 300_000, "a", "b")
    assert_linear(lambda n: calls(elements, hostile * n, "a", "b"), 100)


def test_what_is_no_book_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "a.epub").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="the file is damaged"):
        read(tmp_path / "a.epub")


def test_encrypted_fonts_are_no_reason_to_refuse_a_book(tmp_path: Path) -> None:
    fonts = '<e xmlns:enc="u"><enc:CipherReference URI="OEBPS/a.ttf"/></e>'
    assert PARAGRAPH in read(book(tmp_path / "a.epub", **{"META-INF/encryption.xml": fonts}))[0].text

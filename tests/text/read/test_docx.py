import io
import sys
import zipfile
from pathlib import Path

import pytest

from tests.makers.documents import read
from yanmo.core.errors import ConfigError, DataError
from yanmo.text.read import containers
from yanmo.text.read.documents import CorpusCounts
from yanmo.text.read.kinds import sniff

docx = pytest.importorskip("docx")
NAMESPACE = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def paragraph(text: str) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def body(inside: str) -> str:
    return f'<?xml version="1.0"?><w:document xmlns:w="{NAMESPACE}"><w:body>{inside}</w:body></w:document>'


def packed(path: Path, members: dict[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def text_of(tmp_path: Path, inside: str) -> str:
    return read(packed(tmp_path / "a.docx", {"word/document.xml": body(inside)}))[0].text


def test_paragraphs_headings_and_cells_are_lines_in_their_order(tmp_path: Path) -> None:
    made = docx.Document()
    made.add_heading("第一回 渡口", 1)
    made.add_paragraph("霜降前后，").add_run("有人敲门。").bold = True
    table = made.add_table(2, 2)
    for cell, text in zip((c for row in table.rows for c in row.cells), "甲乙丙丁", strict=True):
        cell.text = text
    table.cell(0, 0).merge(table.cell(0, 1))
    made.add_paragraph("集市散了。")
    made.save(tmp_path / "a.docx")
    found = read(tmp_path / "a.docx")
    assert [d.id for d in found] == ["a.docx"]
    assert [line for line in found[0].text.split("\n") if line] == [
        "第一回 渡口", "霜降前后，有人敲门。", "甲", "乙", "丙", "丁", "集市散了。"
    ]  # fmt: skip
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.write(tmp_path / "a.docx", "书/a.docx")
    assert read(tmp_path / "b.zip")[0].text == found[0].text
    assert sniff((tmp_path / "a.docx").read_bytes()) == ".docx"


@pytest.mark.parametrize(
    ("inside", "text"),
    [
        (f"<w:sdt><w:sdtContent>{paragraph('甲')}</w:sdtContent></w:sdt>{paragraph('乙')}", "甲\n乙"),
        ("<w:p><w:ins><w:r><w:t>甲</w:t></w:r></w:ins><w:del><w:r><w:t>乙</w:t></w:r></w:del></w:p>", "甲"),
        ("<w:p><w:hyperlink><w:r><w:t>甲</w:t></w:r></w:hyperlink><w:r><w:tab/><w:t>乙</w:t></w:r></w:p>", "甲\t乙"),
        ("<w:p><w:pPr><w:tabs><w:tab/></w:tabs></w:pPr><w:r><w:t>甲</w:t><w:br/><w:t>乙</w:t></w:r></w:p>", "甲\n乙"),
        (f"<w:p><w:r><w:txbxContent>{paragraph('甲')}</w:txbxContent><w:t>乙</w:t></w:r></w:p>", "甲\n乙"),
        ("<w:p><w:ruby><w:rt><w:r><w:t>zhuó</w:t></w:r></w:rt><w:rubyBase><w:r><w:t>浊</w:t></w:r></w:rubyBase></w:ruby></w:p>", "浊"),
        (f"<w:tbl><w:tr><w:tc><w:tbl><w:tr><w:tc>{paragraph('甲')}</w:tc></w:tr></w:tbl>{paragraph('乙')}</w:tc></w:tr></w:tbl>", "甲\n乙"),
        (f"<!-- x --><?y z?>{paragraph('甲&amp;&#20057;')}", "甲&乙"),
    ],
)  # fmt: skip
def test_text_is_found_wherever_word_puts_it(tmp_path: Path, inside: str, text: str) -> None:
    assert text_of(tmp_path, inside) == text


def test_what_is_wrong_with_another_part_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "FREE_BYTES", 1 << 16)
    members: dict[str, str | bytes] = {
        "_rels/.rels": '<a><Relationship Type="http://x/officeDocument" Target="/word/document2.xml"/></a>',
        "word/document2.xml": body(paragraph("甲")),
        "word/styles.xml": "<broken",
        "word/_rels/document2.xml.rels": '<a><Relationship Id="1" Type="image" Target="none.png"/></a>',
        "word/media/image1.bmp": b"\x00" * (1 << 22),
    }
    assert read(packed(tmp_path / "a.docx", members))[0].text == "甲"


BOMB = '<!DOCTYPE w [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "damaged archive"),
        (b"PK\x03\x04", "damaged archive"),
        ({"word/other.xml": "x"}, "damaged archive"),
        ({"word/document.xml": "<broken"}, "damaged archive"),
        ({"word/document.xml": "<a/>"}, "empty"),
        ({"word/document.xml": body("<w:p>" * 5000 + "</w:p>" * 5000)}, "damaged archive"),
        ({"word/document.xml": body(paragraph(" "))}, "empty"),
        ({"word/document.xml": body(paragraph("a" * (32 << 20)))}, "expands too much"),
        ({"word/document.xml": BOMB + "]>" + body(paragraph("&h;")).partition("?>")[2]}, "damaged archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"), "encrypted"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "WordDocument".encode("utf-16-le"), "damaged archive"),
    ],
)
def test_what_cannot_be_read_is_counted_under_its_reason(
    tmp_path: Path, data: bytes | dict[str, str | bytes], reason: str
) -> None:
    if isinstance(data, bytes):
        (tmp_path / "a.docx").write_bytes(data)
    else:
        packed(tmp_path / "a.docx", data)
    counts = CorpusCounts()
    assert read(tmp_path, counts=counts) == []
    assert counts.documents_dropped == {reason: 1}
    with pytest.raises(DataError):
        read(tmp_path / "a.docx")


def test_a_changed_byte_is_damage(tmp_path: Path) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("word/document.xml", body(paragraph("甲乙")))
    (tmp_path / "a.docx").write_bytes(made.getvalue().replace("甲".encode(), "丙".encode()))
    with pytest.raises(DataError, match="the file is damaged"):
        read(tmp_path / "a.docx")


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed(tmp_path / "a.docx", {"word/document.xml": body(paragraph("甲"))})
    monkeypatch.setitem(sys.modules, "docx", None)
    with pytest.raises(ConfigError, match="reading .docx takes python-docx"):
        read(tmp_path / "a.docx")

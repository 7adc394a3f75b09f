import sys
from pathlib import Path

import pytest

from tests.makers.books import ONE, book
from tests.makers.documents import read
from tests.makers.work import Reading, Text, assert_linear, calls
from yanmo.errors import ConfigError, DataError
from yanmo.text import markup
from yanmo.text.documents import CorpusCounts, Document
from yanmo.text.markup import Lines

pytest.importorskip("trafilatura")
PARAGRAPH = "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。"
PAGE = """<!DOCTYPE html><html><head>{meta}<title>第一回 开端</title><script>var x="脚本";</script></head><body>
<div class="nav"><a href="/">首页</a> <a href="/b">目录</a></div><div id="content"><h1>第一回 开端</h1>{body}</div>
<div class="footer">版权所有</div></body></html>"""


def page(body: str = f"<p>{PARAGRAPH}</p>" * 9, meta: str = "") -> str:
    return PAGE.format(body=body, meta=meta)


def read_page(tmp_path: Path, data: bytes, name: str = "a.html") -> Document:
    (tmp_path / name).write_bytes(data)
    return read(tmp_path / name)[0]


def test_the_main_text_of_a_page_is_read_and_its_title_kept(tmp_path: Path) -> None:
    found = read_page(tmp_path, page().encode())
    assert found.text.count(PARAGRAPH) == 9
    assert "脚本" not in found.text and "目录" not in found.text and "版权" not in found.text
    assert found.meta["fields"]["title"] == "第一回 开端"
    assert found.meta["size"] == (tmp_path / "a.html").stat().st_size


@pytest.mark.parametrize(
    ("label", "codec"),
    [
        ("gb2312", "gb18030"),
        ("gbk", "gb18030"),
        ("GB2312", "utf-8"),
        ("utf-8", "gb18030"),
        ("iso-8859-1", "gb18030"),
        ("big5", "gb18030"),
        ("koi8-r", "gb18030"),  # in which every byte is a letter
        ("nonsense", "gb18030"),
        ("utf-7", "utf-8"),
        ("zip", "utf-8"),
    ],
)
def test_a_label_is_evidence_and_no_more(tmp_path: Path, label: str, codec: str) -> None:
    body = f"<p>{PARAGRAPH}㐂𠀀喆镕€</p>" * 9  # characters of four bytes in GB18030
    data = page(body, f'<meta http-equiv="Content-Type" content="text/html; charset={label}">').encode(codec)
    found = read_page(tmp_path, data)
    assert found.text.count(f"{PARAGRAPH}㐂𠀀喆镕€") == 9


def test_a_label_decides_where_the_bytes_alone_cannot(tmp_path: Path) -> None:
    kana = "<p>吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。</p>" * 9
    assert (
        "吾輩は猫である"
        in read_page(tmp_path, page(kana, '<meta charset="Shift_JIS">').encode("cp932", "ignore")).text
    )
    big5 = "<p>話說天下大勢，分久必合，合久必分。</p>" * 9
    assert (
        "話說天下大勢"
        in read_page(tmp_path, page(big5, '<meta charset="big5">').encode("cp950", "ignore")).text
    )
    mark = page(meta='<meta charset="gb2312">').encode("utf-8-sig")
    assert PARAGRAPH in read_page(tmp_path, mark).text
    declared = '<?xml version="1.0" encoding="GBK"?>' + page()
    assert PARAGRAPH in read_page(tmp_path, declared.encode("gbk"), "b.xhtml").text


def test_the_label_gb2312_means_gb18030_where_the_characters_are_rare(tmp_path: Path) -> None:
    rare = "喆镕㐂𠀀㑇㓥䶮"
    data = f'<html><head><meta charset="gb2312"></head><body>{rare}</body></html>'.encode("gb18030")
    assert read_page(tmp_path, data).text.strip() == rare
    with pytest.raises(DataError, match="would be common characters"):
        read_page(tmp_path, data.replace(b"charset", b"xxxxxxx"))


def test_a_broken_byte_in_a_page_is_counted(tmp_path: Path) -> None:
    data = page(f"<p>{PARAGRAPH}</p>" * 99, '<meta charset="utf-8">').encode()
    broken = data.replace("势".encode(), b"\xe5\x8a", 1)
    (tmp_path / "a.html").write_bytes(broken)
    counts = CorpusCounts()
    text = read(tmp_path / "a.html", counts=counts)[0].text
    assert counts.undecodable_bytes == 2
    assert text.count("\ufffd") == 1 and text.count(PARAGRAPH) == 98


def test_a_page_of_little_text_gives_all_of_it(tmp_path: Path) -> None:
    found = read_page(tmp_path, "<html><title>题</title><body>甲<br>乙<p>丙</body>".encode())
    assert found.text.split() == ["甲", "乙", "丙"]


@pytest.mark.parametrize("data", ["", "<html></html>", "<!-- -->", "<script>x</script>"])
def test_a_page_without_text_is_empty(tmp_path: Path, data: str) -> None:
    with pytest.raises(DataError, match="the file is empty"):
        read_page(tmp_path, data.encode())


@pytest.mark.parametrize(
    "body",
    [
        "<div>" * 100_000 + PARAGRAPH,
        f"<b><i>{PARAGRAPH}</b>" * 3000,
        PARAGRAPH + "<" * 100_000,
        PARAGRAPH + "&#x110000;&#xd800;&unknown;" * 1000,
        PARAGRAPH + "<p x='" + "a" * 1_000_000,
        PARAGRAPH + "\x00\x1b" * 20,
    ],
)
def test_a_hostile_page_gives_its_text(tmp_path: Path, body: str) -> None:
    assert PARAGRAPH[:8] in read_page(tmp_path, page(body).encode()).text


def test_a_page_with_entities_of_its_own_is_no_bomb(tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10 if n else "bomb"}">' for n in range(10))
    found = read_page(tmp_path, f"<!DOCTYPE html [{entities}]>{page(f'<p>{PARAGRAPH}&a9;</p>' * 9)}".encode())
    assert PARAGRAPH in found.text
    assert len(found.text) < 10_000


def test_lines_are_paragraphs_and_headings() -> None:
    source = """<h2>第一回<br/>开端</h2><p>甲
    乙<ruby>漢<rp>(</rp><rt>han</rt><rp>)</rp></ruby> a\n b</p><ul><li>丙<li>丁</ul>戊<svg><text>x</text></svg>&lt;己&nbsp;庚"""
    assert Lines(source).lines == ["第一回 开端", "甲乙漢 a b", "丙", "丁", "戊<己\xa0庚"]


@pytest.mark.parametrize(
    "unit",
    [
        "<a ",
        "<!--",
        '<a b="',
        "<a b='>",
        "<a/",
        "</a ",
        "<![",
        "<![cdata[",
        "<?",
        "<",
        "&#",
        "<svg></b>",
        "-- ",
    ],
)
@pytest.mark.parametrize("end", ["", ">"])
@pytest.mark.parametrize("start", ["", '<a b="', "<!-- "])
def test_no_part_of_a_source_is_looked_at_again_and_again(
    unit: str, end: str, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def source(length: int) -> str:
        return f"<p>甲</p>{start}{unit * (length // len(unit))}{end}"

    assert Lines(source(100_000)).lines[0] == "甲"
    reading = Reading(monkeypatch, markup)

    def characters(length: int) -> int:
        reading.characters = 0
        text = Text(source(length))
        text.reading = reading
        Lines(text)
        return reading.characters

    assert_linear(characters, 2000)
    assert_linear(lambda length: calls(Lines, source(length)), 2000)


def test_a_page_of_open_ends_gives_its_text(tmp_path: Path) -> None:
    for unit in ("<a ", "<!--", '<a b="', "<a/"):
        assert PARAGRAPH in read_page(tmp_path, page(f"<p>{PARAGRAPH}</p>{unit * 100_000}").encode()).text


@pytest.mark.parametrize(
    "odd",
    [
        "<![ endif]>",
        "<![foo[x]]>",
        "<![",
        "<![[",
        "<!",
        "</",
        "<!DOCTYPE x [<!y",
        f"&#{'9' * 5000};",
        "</>",
        "<?>",
    ],
)
def test_an_odd_declaration_ends_nothing(tmp_path: Path, odd: str) -> None:
    assert Lines(f"<p>甲</p>{odd}").lines[0] == "甲"
    assert Lines(f"<p>甲</p>{odd}<p>乙</p>").lines[-1].endswith("乙")
    (tmp_path / "a.html").write_text(page(f"<p>{PARAGRAPH}</p>{odd}"), encoding="utf-8")
    (tmp_path / "b.html").write_text(page(), encoding="utf-8")
    assert [PARAGRAPH in found.text for found in read(tmp_path)] == [True, True]
    found = read(book(tmp_path / "c.epub", **{"OEBPS/text/1.xhtml": ONE.replace("<p>甲", f"{odd}<p>甲")}))
    assert PARAGRAPH in found[0].text


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("甲<!-- <p>x</p> -->乙<!-->丙<!--x--!>丁", ["甲乙丙丁"]),
        ("甲<!-- 乙<p>丙</p>丁", ["甲丙", "丁"]),  # nothing closes the comment: `>` does
        ("<a title='1>2' x=\"</a>\">甲</a><a b=c/>乙", ["甲乙"]),
        ('<a b="c>甲</a>乙<a b=d>丙', ["甲乙丙"]),  # a quote that nothing closes
        ("甲<乙 1<2 3 < 4<", ["甲<乙 1<2 3 < 4<"]),
        ("甲<b", ["甲<b"]),
        ("<script>a<b</p>'</style>'</SCRIPT >甲<style>p>a</style>乙<script/>丙<script>丁", ["甲乙丙"]),
        ("<![CDATA[a > b]]>甲<![if !IE]>乙<![endif]><?x y?>丙<!doctype html>", ["甲乙丙"]),
        ("<svg><math>甲</svg>乙</math>丙", ["乙丙"]),
        ("甲</ p >乙<p/>丙</p x>丁</1>", ["甲", "乙", "丙", "丁"]),
    ],
)
def test_tags_are_told_from_text(source: str, lines: list[str]) -> None:
    assert Lines(source).lines == lines


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trafilatura", None)
    with pytest.raises(ConfigError, match="reading .html takes trafilatura"):
        read_page(tmp_path, page().encode())

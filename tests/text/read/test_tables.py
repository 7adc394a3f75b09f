import csv
import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.documents import read
from tests.makers.work import assert_linear, calls
from yanmo.core.errors import ConfigError, DataError
from yanmo.text.read import tables
from yanmo.text.read.containers import FREE_BYTES
from yanmo.text.read.documents import CorpusCounts
from yanmo.text.read.records import Record
from yanmo.text.read.tables import read_csv, read_tsv

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def rows(
    text: str | bytes, path: str = "text", encoding: str = "auto", reader: Any = read_csv
) -> list[Record]:
    data = text.encode() if isinstance(text, str) else text
    found = list(reader(io.BytesIO(data), path, encoding))
    assert sum(record.size for record in found) <= len(data)
    return found


def write_parquet(path: Path, columns: dict[str, list[Any]], **how: Any) -> Path:
    pq.write_table(pa.table(columns), path, **how)
    return path


def test_fields_may_hold_line_ends_quotes_and_nul() -> None:
    text = 'id,text,url\r\n1,"甲,""乙""\r\n\n丙",http://a\r\n2,丁\x00,\r\n\r\n3,戊\u2028\x85己,b'
    found = rows(text)
    assert [r.text for r in found] == ['甲,"乙"\r\n\n丙', "丁\x01", "戊\u2028\x85己"]
    assert found[0].fields == {"id": "1", "url": "http://a"}
    assert [r.place for r in found] == [":2", ":5", ":7"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "gb18030", "big5", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_of_any_encoding_and_delimiter_are_read(encoding: str, delimiter: str) -> None:
    text = delimiter.join(["title", "text"]) + "\n" + f"話說{delimiter}天下大勢分久必合合久必分\n" * 50
    reader = read_tsv if delimiter == "\t" else read_csv
    for found in (rows(text.encode(encoding)), rows(text.encode(encoding), reader=reader)):
        assert [r.text for r in found] == ["天下大勢分久必合合久必分"] * 50


def test_a_broken_or_ragged_row_is_dropped_and_the_next_is_read() -> None:
    text = (
        'id,text\n1\n2,甲\n3,乙,丙\n4,"丁"戊\n5,己\n'.encode()
        + b"6,\xff\xff\n"
        + "7,庚\n8,".encode()
        + b'"\xe8'
    )
    found = rows(text)
    assert [(r.text, r.dropped) for r in found] == [
        ("", "row of another length"),
        ("甲", ""),
        ("", "row of another length"),
        ("", "broken row"),
        ("己", ""),
        ("", "undecodable"),
        ("庚", ""),
        ("", "undecodable"),
    ]


def texts(found: list[Record]) -> list[str]:
    """What is read, and where something is dropped."""
    return [r.text or f"{r.dropped} {r.place}" for r in found]


def test_a_quote_that_never_ends_is_one_broken_row() -> None:
    assert texts(rows('text\n甲\n"乙\n丙\n丁\n')) == ["甲", "broken row :3", "丙", "丁"]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (['1,"甲', '2,"乙"', "3,丙"], ["broken row :2", "乙", "丙"]),
        (['1,"甲', "2,乙", '3,"丙"', "4,丁"], ["broken row :2", "乙", "丙", "丁"]),
        (['1,"甲', "2,乙", '3,"丙', '再丙"', "4,丁"], ["broken row :2", "乙", "丙\n再丙", "丁"]),
        (['1,"甲"乙', "2,丙"], ["broken row :2", "丙"]),
        (['1,"甲', '2,"乙', '3,"丙', "4,丁"], ["broken row :2", "broken row :3", "broken row :4", "丁"]),
        (['1,"甲', "", "2,乙"], ["broken row :2", "乙"]),
        (['1,"甲,乙,丙', "2,乙", "3"], ["broken row :2", "乙", "row of another length :4"]),
        (['1,a"b"c', '2,"甲""乙"'], ['a"b"c', '甲"乙']),
    ],
)
def test_a_row_whose_quotes_do_not_fit_loses_itself_alone(lines: list[str], found: list[str]) -> None:
    for end in ("\n", "\r\n", "\r"):
        assert [t.replace(end, "\n") for t in texts(rows("id,text" + end + end.join(lines) + end))] == found


def test_an_undecodable_line_costs_a_row_and_not_those_behind_it() -> None:
    data = 'id,text\n1,"甲\n'.encode() + b"2,\xff\xff\n" + '3,"丙"\n4,丁\n'.encode()
    assert texts(rows(data)) == ["broken row :2", "undecodable :3", "丙", "丁"]


@pytest.mark.parametrize("line", ['a","b', '"', '""', '"""', 'a,"', '"a""b', ","])
def test_quotes_that_never_fit_take_linear_time(line: str) -> None:
    assert_linear(lambda n: calls(rows, "text,b\n" + (line + "\n") * n), 200)


def test_a_row_of_any_length_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_ROW_CHARACTERS", 100)
    text = 'text\n"甲\n' + "".join(f"{n}\n" for n in range(500))
    assert texts(rows(text)) == ["broken row :2", *(str(n) for n in range(500))]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_quotes_of_a_tsv_are_characters_like_others(end: str) -> None:
    said = ['"甲', '乙"', '"丙"丁', '""', "a,b;c|d", '"', "\u2028\x85戊"]
    table = end.join(["label\ttext", *(f"{n}\t{text}" for n, text in enumerate(said)), ""])
    assert texts(rows(table, reader=read_tsv)) == said
    assert texts(rows(table + end + "x\ty\tz" + end, reader=read_tsv))[-1].startswith("row of another length")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", "~"])
def test_a_line_that_names_the_delimiter_is_no_header(end: str, delimiter: str) -> None:
    lines = [f"sep={delimiter}", f"id{delimiter}text", f"1{delimiter}甲", f'2{delimiter}"乙{end}丙"', ""]
    found = rows(end.join(lines))
    assert [t.replace(end, "\n") for t in texts(found)] == ["甲", "乙\n丙"]
    assert found[0].place == ":3"


@pytest.mark.parametrize("header", ["id|text", '"a,b;c,d"|text', "id|text|x;y"])
def test_strokes_may_stand_between_fields(header: str) -> None:
    row = "|".join(["1", "甲，乙", "z"][: header.count("|") + 1])
    assert texts(rows(f"{header}\n{row}\n")) == ["甲，乙"]


def test_a_field_of_many_megabytes_is_read() -> None:
    assert len(rows('text\n"' + ("长" * 999 + "\n") * 6000 + '"\n')[0].text) == 6_000_000


def test_a_table_without_the_column_names_the_likely_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("编号,正文\n1\n1,话说天下\n", encoding="gb18030")
    with pytest.raises(DataError, match="it has '编号', '正文'") as caught:
        read(tmp_path / "a.csv")
    assert caught.value.hint.endswith("corpus.text_field=正文")
    assert [d.text for d in read(tmp_path / "a.csv", text_field="正文+编号")] == ["话说天下\n1"]
    write_parquet(tmp_path / "a.parquet", {"id": [1], "body": ["甲乙"]})
    with pytest.raises(DataError, match="it has 'id', 'body'") as caught:
        read(tmp_path / "a.parquet")
    assert caught.value.hint.endswith("corpus.text_field=body")


@pytest.mark.parametrize("data", ["", "text\n", "\n\n"])
def test_an_empty_table_is_empty(tmp_path: Path, data: str) -> None:
    (tmp_path / "a.csv").write_text(data, encoding="utf-8")
    with pytest.raises(DataError, match="the file is empty"):
        read(tmp_path / "a.csv")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")), max_size=5))
def test_what_csv_writes_is_read_back(texts: list[str]) -> None:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([["n", "text"], *enumerate(texts)])
    assert [r.text for r in rows(stream.getvalue(), encoding="utf-8")] == texts


def test_columns_of_a_parquet_are_read_and_others_left(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "a.parquet",
        {
            "段落": [[{"内容": "甲"}, {"内容": "乙"}], [{"内容": "丙"}], []],
            "url": ["a", None, "c"],
            "embedding": [[0.1] * 3] * 3,
        },
        row_group_size=2,
    )
    counts = CorpusCounts()
    found = read(path, counts=counts, text_field="段落.内容")
    assert [(d.id, d.text, d.meta.get("fields")) for d in found] == [
        ("a.parquet#1", "甲\n乙", {"url": "a"}),
        ("a.parquet#2", "丙", None),
    ]
    assert counts.documents_dropped == {"empty": 1}
    assert sum(d.meta["size"] for d in found) == pytest.approx(path.stat().st_size * 2 / 3)


def test_many_rows_come_in_order(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"text": [str(n) for n in range(3000)]}, row_group_size=1000)
    assert [d.text for d in read(tmp_path / "a.parquet")] == [str(n) for n in range(3000)]


def test_a_damaged_parquet_is_no_table(tmp_path: Path) -> None:
    whole = write_parquet(tmp_path / "a.parquet", {"text": ["甲" * n for n in range(3000)]}).read_bytes()
    pages = bytearray(whole)
    pages[100:2000] = bytes(1900)
    for number, data in enumerate((b"", b"PAR1", whole[:-9], whole[:500] + whole[-500:], bytes(pages))):
        (tmp_path / "a.parquet").write_bytes(data)
        counts = CorpusCounts()
        read(tmp_path, counts=counts)
        assert counts.documents_dropped["damaged archive"] == 1, number


def test_a_damaged_row_group_costs_itself(tmp_path: Path) -> None:
    texts = [f"{chr(0x4E00 + n)}" * (n % 50 + 1) for n in range(300)]
    path = write_parquet(tmp_path / "a.parquet", {"text": texts}, row_group_size=100, compression="gzip")
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).dictionary_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 200] = bytes(200)
    path.write_bytes(data)
    counts = CorpusCounts()
    assert [d.text for d in read(path, counts=counts)] == texts[:100] + texts[200:]
    assert counts.documents_dropped == {"damaged archive": 1}
    assert counts.dropped[0].startswith(f"{path}/row-group-1: ")


def test_a_row_that_cannot_be_decoded_costs_itself(tmp_path: Path) -> None:
    values = pa.array(["甲".encode(), b"\xff\xfe", "丙".encode()]).view(pa.string())
    write_parquet(tmp_path / "a.parquet", {"text": values, "id": [1, 2, 3]})
    counts = CorpusCounts()
    assert [d.text for d in read(tmp_path / "a.parquet", counts=counts)] == ["甲", "丙"]
    assert counts.documents_dropped == {"undecodable": 1}


@pytest.mark.parametrize("wrapper", ["", ".zip"])
def test_a_value_that_stands_in_every_row_is_counted_as_often(tmp_path: Path, wrapper: str) -> None:
    values = pa.DictionaryArray.from_arrays(pa.array([0] * 6000, pa.int32()), pa.array(["长" * 300_000]))
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": values}), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 12_000
    if wrapper:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.write(path, "a.parquet")
        path.unlink()
    counts = CorpusCounts()
    found = read(tmp_path, counts=counts)
    assert 0 < sum(len(d.text.encode()) for d in found) <= FREE_BYTES
    assert counts.documents_dropped == {"expands too much": 1}


def test_a_table_that_says_it_is_too_large_is_not_unpacked(tmp_path: Path) -> None:
    rows = ["长" * 1_000_000 + str(n) for n in range(9)]
    path = write_parquet(tmp_path / "a.parquet", {"text": rows}, compression="zstd", use_dictionary=False)
    with pytest.raises(DataError, match="grows more than"):
        read(path)


def test_texts_that_are_often_the_same_are_no_bomb(tmp_path: Path) -> None:
    texts = [f"{n % 7}，分久必合，合久必分。" * 20 for n in range(20_000)]
    path = write_parquet(tmp_path / "a.parquet", {"text": texts, "id": list(range(20_000))})
    assert [d.text for d in read(path)] == texts


def test_what_is_no_string_is_called_what_it_is(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"text": [b"x"], "id": [1]})
    counts = CorpusCounts()
    read(tmp_path, counts=counts)
    assert counts.dropped[0].endswith("field 'text' is no string: bytes")


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "a.parquet", {"text": ["甲"]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match="reading .parquet takes pyarrow"):
        read(tmp_path / "a.parquet")
    counts = CorpusCounts()
    read(tmp_path, counts=counts)
    assert counts.documents_dropped == {"needs yanmo[files]": 1}

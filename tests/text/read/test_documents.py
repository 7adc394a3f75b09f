import gzip
import json
import lzma
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.documents import fingerprint, read
from yanmo.core.errors import DataError
from yanmo.text.read import documents, parts
from yanmo.text.read.documents import CorpusCounts, corpus_size
from yanmo.text.read.encodings import BYTES_OF_TEXT
from yanmo.text.read.kinds import KINDS

NOVEL = "《书》\r\n\r\n第一回　开端\r\n话说天下。\r\n第二回\r\n\r\n分久必合。\x00\r\n"


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("x.txt", b"", "the file is empty"),
        ("x.txt", b" \n\n ", "the file is empty"),
        ("x.txt", b"\x00\x01", "the file is not readable text: binary (it contains NUL bytes)"),
        ("x.json", b"", "the file is empty"),
        ("x.json", b"[]", "the file is empty"),
        ("x.json", b"\xff\xff", "not utf-8 at byte 0"),
        ("x.jsonl", b"\n\n", "the file is empty"),
    ],
)
def test_a_file_that_is_no_text_is_a_clear_error(tmp_path: Path, name: str, data: bytes, what: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        read(path)
    assert what in caught.value.what
    assert caught.value.where == str(path)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("none.txt", "there is no such file or folder"),
        ("book.pdf", ".pdf files are not read"),
        ("none*", "no .txt, .json, .* or .parquet file matches"),
        ("*.pdf", "no .txt, .json, .* or .parquet file matches"),
        ("", "the folder has no .txt, .json, .* or .parquet file"),
    ],
)
def test_a_path_that_cannot_be_read_is_a_clear_error(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / "book.pdf").write_bytes(b"%PDF")
    with pytest.raises(DataError, match=what):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["gbkk", "hex", "a\x00b"])
def test_an_unknown_encoding_is_a_clear_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.txt").write_text("字", encoding="utf-8")
    with pytest.raises(DataError, match=f"no encoding is called '{name}'"):
        read(tmp_path / "x.txt", encoding=name)


def test_a_named_encoding_is_used(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("吾輩は猫である", encoding="shift_jis")
    assert read(tmp_path / "x.txt", encoding="shift_jis")[0].text == "吾輩は猫である"


def test_in_a_folder_every_file_is_kept_or_counted_under_its_reason(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.txt").write_text("甲\r\n乙\x01\r丙\n", encoding="utf-8", newline="")
    (tmp_path / "b" / "c.txt").write_bytes("丁丁".encode("gb18030"))
    (tmp_path / "b" / "d.json").write_text('["戊", " ", 3]', encoding="utf-16")
    (tmp_path / "b" / "e.jsonl").write_text('{"text": "己\\r"}\n{"id": 1}\n{\n', encoding="utf-8")
    (tmp_path / "broken.json").write_text('["庚", "辛', encoding="utf-8")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "fields.jsonl").write_text('{"id": 1}\n{"text": "壬"}', encoding="utf-8")
    (tmp_path / "image.txt").write_bytes(b"\x00\x01")
    (tmp_path / "cover.jpg").write_bytes(b"\xff\xd8")
    counts = CorpusCounts()
    found = read(tmp_path, counts=counts)
    assert [(d.id, d.text) for d in found] == [
        ("a.txt", "甲\n乙\n丙\n"),
        ("b/c.txt", "丁丁"),
        ("b/d.json#1", "戊"),
        ("b/e.jsonl#1", "己\n"),
        ("broken.json#1", "庚"),
    ]
    assert counts.documents_dropped == {
        "empty": 2,
        "undecodable": 1,
        "neither text nor object": 1,
        "broken JSON": 2,
        "no field 'text'": 2,
    }
    assert counts.dropped == [
        f"{tmp_path / 'b' / 'd.json'}#2: empty",
        f"{tmp_path / 'b' / 'd.json'}#3: neither text nor object: a number",
        f"{tmp_path / 'b' / 'e.jsonl'}:2: no field 'text'; there is 'id'",
        f"{tmp_path / 'b' / 'e.jsonl'}:3:2: broken JSON: Expecting property name enclosed in double quotes",
        f"{tmp_path / 'broken.json'}:1:7: broken JSON at line 1, column 7: Unterminated string starting at",
        f"{tmp_path / 'empty.txt'}: empty",
        f"{tmp_path / 'fields.jsonl'}:1: the first record has no field 'text'; it has 'id'",
        f"{tmp_path / 'image.txt'}: not readable text: binary (it contains NUL bytes)",
    ]
    assert counts.files_passed_over == {".jpg": 1}
    assert counts.files == 8
    assert counts.bytes == sum(p.stat().st_size for p in tmp_path.rglob("*.[tj]*") if p.suffix != ".jpg")
    assert counts.line_ends_changed == 3
    assert counts.control_characters_removed == 1
    assert counts.encodings == {"utf-8": 3, "gb18030": 1, "utf-16": 1}


@pytest.mark.parametrize(
    ("name", "data", "place"),
    [("x.json", '["甲",\n"乙', ":2:1"), ("x.json", '[{"a": 1}]', "#1"), ("x.jsonl", '\n{"a": 1}', ":2")],
)
def test_an_unusable_file_that_is_named_itself_is_an_error(
    tmp_path: Path, name: str, data: str, place: str
) -> None:
    path = tmp_path / name
    path.write_text(data, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read(path)
    assert caught.value.where == f"{path}{place}"
    assert caught.value.hint


def test_so_many_dropped_are_named_and_all_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "NAMED", 3)
    (tmp_path / "x.jsonl").write_text("3\n" * 10, encoding="utf-8")
    counts = CorpusCounts()
    assert read(tmp_path / "x.jsonl", counts=counts) == []
    assert len(counts.dropped) == 3
    assert counts.documents_dropped.total() == 10


def test_chapters_are_documents_and_joined_they_are_the_text(tmp_path: Path) -> None:
    (tmp_path / "novel.txt").write_text(NOVEL, encoding="utf-8", newline="")
    whole = read(tmp_path / "novel.txt")
    chapters = read(tmp_path / "novel.txt", split_chapters=True)
    assert [d.id for d in whole] == ["novel.txt"]
    assert [d.id for d in chapters] == ["novel.txt#1", "novel.txt#2", "novel.txt#3"]
    assert [d.text for d in chapters] == [
        "《书》\n\n",
        "第一回　开端\n话说天下。\n",
        "第二回\n\n分久必合。\n",
    ]
    assert "".join(d.text for d in chapters) == whole[0].text
    (tmp_path / "novel.json").write_text(json.dumps(["字", NOVEL]), encoding="utf-8")
    found = read(tmp_path / "novel.json", split_chapters=True)
    assert [d.id for d in found] == ["novel.json#1", *(f"novel.json#2#{n}" for n in (1, 2, 3))]


def test_sizes_add_up_to_the_size_of_the_corpus(tmp_path: Path) -> None:
    records = [{"text": NOVEL}, {"text": "字" * 99, "id": 1}]
    (tmp_path / "a.txt").write_text(NOVEL, encoding="gb18030", newline="")
    (tmp_path / "b.json").write_text(json.dumps(records, indent=1), encoding="utf-8")
    (tmp_path / "c.jsonl").write_text("\n\n".join(map(json.dumps, records)), encoding="utf-8")
    for split in (True, False):
        found = read(tmp_path, split_chapters=split)
        assert sum(d.meta["size"] for d in found) == pytest.approx(corpus_size([str(tmp_path)]))
        assert all(d.meta["size"] > 0 for d in found)


def test_a_glob_means_the_files_that_match_it(tmp_path: Path) -> None:
    for name in ("b/1.txt", "a/2.txt", "a/deep/3.txt", "a/4.jpg", "runs/n/5.txt", "[x].txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    (tmp_path / "a" / "5.txt").write_bytes(b"\x00\x01")
    (tmp_path / "runs" / "n" / "run.lock").write_bytes(b"")
    counts = CorpusCounts()
    assert [d.text for d in read(tmp_path / "*/*", counts=counts)] == ["a/2.txt", "a/deep/3.txt", "b/1.txt"]
    assert counts.documents_dropped == {"undecodable": 1}
    assert counts.files_passed_over == {".jpg": 1}
    assert [d.text for d in read(tmp_path / "**/[1-3].txt")] == ["a/2.txt", "a/deep/3.txt", "b/1.txt"]
    assert [d.id for d in read(tmp_path / "[x].txt")] == ["[x].txt"]  # a file with such a name is itself


def test_the_fingerprint_follows_content_not_names(tmp_path: Path) -> None:
    first, second, third = tmp_path / "1.txt", tmp_path / "2.txt", tmp_path / "1.json"
    for path in (first, second, third):
        path.write_text("甲", encoding="utf-8")
    same = fingerprint(first)
    assert fingerprint(second) == same
    others = {
        same,
        fingerprint(third),
        fingerprint(first, encoding="gb18030"),
        fingerprint(first, text_field="body"),
        fingerprint(first, split_chapters=True),
    }
    second.write_text("乙", encoding="utf-8")
    assert len(others | {fingerprint(second)}) == 6


def test_the_fingerprint_follows_the_rules_of_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "1.txt").write_text("甲", encoding="utf-8")
    before = fingerprint(tmp_path)
    monkeypatch.setattr(documents, "READER_VERSION", documents.READER_VERSION + 1)
    assert fingerprint(tmp_path) != before


@given(texts=st.lists(st.text()), ascii_only=st.booleans(), by_line=st.booleans())
def test_texts_written_as_json_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], ascii_only: bool, by_line: bool
) -> None:
    path = tmp_path_factory.mktemp("json") / ("x.jsonl" if by_line else "x.json")
    path.write_text(as_json([*texts, "end"], ascii_only, by_line), encoding="utf-8", newline="")
    counts = CorpusCounts()
    found = read(path, counts=counts)
    expected = [clean(text) for text in [*texts, "end"]]
    kept = [text for text in expected if text.strip()]
    assert [d.text for d in found] == kept
    assert counts.documents_dropped == (
        {"empty": len(expected) - len(kept)} if len(expected) > len(kept) else {}
    )
    removed = sum(len(text.replace("\r\n", "\n")) for text in texts) + 3 - sum(map(len, expected))
    assert counts.control_characters_removed == removed


def as_json(texts: list[str], ascii_only: bool, by_line: bool) -> str:
    if by_line:
        return "".join(json.dumps({"text": text}, ensure_ascii=ascii_only) + "\n" for text in texts)
    return json.dumps(texts, ensure_ascii=ascii_only)


def clean(text: str) -> str:
    """Without what is illegal, said again in another way."""
    is_misread = BYTES_OF_TEXT.search(text) is not None
    unified = text.replace("\r\n", "\n").replace("\r", "\n")
    unified = unified if is_misread else unified.replace("\x85", "\n")
    high = () if is_misread else range(0x80, 0xA0)
    illegal = {*range(0x20), 0x7F, *high, 0xFEFF, 0xFFFE, 0xFFFF, *range(0xD800, 0xE000)} - {9, 10}
    return "".join(c for c in unified if ord(c) not in illegal)


def test_the_demo_corpus_is_a_corpus() -> None:
    counts = CorpusCounts()
    found = read("yanmo:demo", counts=counts)
    assert counts.documents_kept == len(found) > 1000
    assert all(d.meta["bits"] > 0 for d in found)
    assert 2.7e6 < counts.bytes < 3.3e6
    assert sum(d.meta["size"] for d in found) == corpus_size(["yanmo:demo"])


def test_a_folder_is_read_without_runs_and_hidden_folders(tmp_path: Path) -> None:
    for name in ("runs/novel/samples", ".venv", "卷一"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.TXT").write_text("字", encoding="utf-8")
    (tmp_path / "runs" / "novel" / "run.lock").write_bytes(b"")
    assert [d.id for d in read(tmp_path)] == ["卷一/a.TXT"]


def test_a_broken_byte_is_borne_with_and_counted(tmp_path: Path) -> None:
    novel = "第一回　开端\n话说天下大势，分久必合，合久必分。\n" * 9
    (tmp_path / "a.txt").write_bytes(novel.encode() + "秦".encode()[:2])
    (tmp_path / "b.json").write_bytes(
        json.dumps([novel * 9], ensure_ascii=False).encode().replace(b"\xe7\xac", b"\xe7", 1)
    )
    counts = CorpusCounts()
    assert [d.text.count("\ufffd") for d in read(tmp_path, counts=counts)] == [1, 1]
    assert counts.undecodable_bytes == 4
    assert counts.encodings == {"utf-8": 2}


@pytest.mark.parametrize("split", [True, False])
def test_a_text_too_large_for_one_document_is_cut_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: bool
) -> None:
    monkeypatch.setattr(parts, "WHOLE_UP_TO_BYTES", 4000)
    monkeypatch.setattr(parts, "PART_BYTES", 1000)
    novel = "".join(f"第{n}回\n" + "话说天下大势，分久必合，合久必分。\n" * 9 for n in range(1, 30))
    (tmp_path / "novel.txt").write_text(novel, encoding="gb18030", newline="")
    (tmp_path / "packed.txt.gz").write_bytes(gzip.compress(novel.encode()))
    counts = CorpusCounts()
    found = read(tmp_path, counts=counts, split_chapters=split)
    assert counts.texts_in_parts == 2
    for name in ("novel.txt", "packed.txt.gz"):
        pieces = [d for d in found if d.id.startswith(name)]
        assert pieces[0].id == f"{name}#1" + "#1" * split
        assert "".join(d.text for d in pieces) == novel
        assert len({d.id for d in pieces}) == len(pieces) > (25 if split else 4)


def test_what_else_a_record_says_is_kept_beside_the_text(tmp_path: Path) -> None:
    record = {
        "url": "http://a",
        "title": "题",
        "text": NOVEL,
        "n": 1,
        "long": "x" * 999,
        "tags": ["a"],
        "is": True,
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + '\n{"text": "甲"}\n', encoding="utf-8")
    found = read(tmp_path / "a.jsonl")
    assert found[0].meta["fields"] == {"url": "http://a", "title": "题", "n": 1}
    assert "fields" not in found[1].meta
    chapters = read(tmp_path / "a.jsonl", split_chapters=True)
    assert [d.meta.get("fields", {}).get("title") for d in chapters] == ["题"] * 3 + [None]


@pytest.mark.parametrize(
    ("name", "line", "field"),
    [
        (
            "mnbvc",
            {"文件名": "a", "段落": [{"行号": 0, "内容": "甲甲"}, {"行号": 1, "内容": "乙乙"}]},
            "段落.内容",
        ),
        ("clue", {"news_id": "1", "title": "题", "content": "甲甲\n乙乙"}, "content"),
        (
            "oscar",
            {"content": "甲甲\n乙乙", "metadata": {"identification": {"label": "zh", "prob": 1}}},
            "content",
        ),
        ("c4", {"text": "甲甲\n乙乙", "timestamp": "2019-04-25T12:57:54Z", "url": "http://a"}, "text"),
        (
            "wikipedia",
            {"id": "13", "revid": "1", "url": "http://a", "title": "数学", "text": "甲甲\n乙乙"},
            "text",
        ),
        (
            "dialogues",
            {"conversations": [{"role": "u", "content": "甲甲"}, {"role": "a", "content": "乙乙"}]},
            "conversations.content",
        ),
    ],
)
def test_records_of_known_corpora_are_read_and_their_field_is_suggested(
    tmp_path: Path, name: str, line: dict[str, object], field: str
) -> None:
    path = tmp_path / f"{name}.jsonl"
    path.write_text(json.dumps(line, ensure_ascii=False) + "\n", encoding="utf-8")
    assert [d.text for d in read(path, text_field=field)] == ["甲甲\n乙乙"]
    if field != "text":
        with pytest.raises(DataError) as caught:
            read(path)
        assert caught.value.hint.endswith(f"corpus.text_field={field}")


def test_lines_of_several_encodings_with_all_kinds_of_dirt_are_read(tmp_path: Path) -> None:
    texts = ["话说天下大势，分久必合。㐂𠀀", "話說天下大勢，分久必合，合久必分，週末七國", "甲\u2028乙\x85丙"]
    lines = [
        json.dumps({"text": texts[0]}, ensure_ascii=False).encode("gb18030"),
        json.dumps({"text": texts[1]}, ensure_ascii=False).encode("cp950"),
        json.dumps({"text": texts[2]}, ensure_ascii=False).encode(),
        b'{"text": "a\x00b\\u0000c\\ud800d"}',
        b'{"text": ' * 100_000,
        '{"text": "话说'.encode() + b'\xe5\xa4"}',
        '{"text": "末'.encode()[:-1],
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    counts = CorpusCounts()
    found = read(tmp_path / "a.jsonl", counts=counts)
    assert [d.text for d in found] == [*texts[:2], "甲\u2028乙\n丙", "abcd"]
    assert counts.documents_dropped == {"broken JSON": 2, "undecodable": 1}
    assert counts.control_characters_removed == 3


@pytest.mark.parametrize("suffix", [k + w for k in KINDS for w in ("", ".gz", ".xz")] + [".zip"])
@pytest.mark.parametrize("data", [b"", b"\x00\xff\x00\x01" * 99, b" "])
def test_nothing_and_noise_are_counted_whatever_they_are_called(
    tmp_path: Path, suffix: str, data: bytes
) -> None:
    packed = {".gz": gzip.compress, ".xz": lzma.compress}.get(suffix[-3:], bytes)(data)
    (tmp_path / f"a{suffix}").write_bytes(packed)
    counts = CorpusCounts()
    assert read(tmp_path, counts=counts) == []
    assert counts.documents_dropped.total() >= 1

from pathlib import Path

import pytest

from yanmo.errors import DataError
from yanmo.text.documents import CorpusCounts, corpus_fingerprint, decode, read_documents

TEXT = "天地玄黄，宇宙洪荒。\n“喆镕㐂”——他说……\n"


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (TEXT.encode("utf-8"), "utf-8"),
        (b"\xef\xbb\xbf" + TEXT.encode("utf-8"), "utf-8-sig"),
        (TEXT.encode("gb18030"), "gb18030"),
        (TEXT.encode("utf-16"), "utf-16"),
    ],
)
def test_text_is_decoded_on_evidence(data: bytes, encoding: str) -> None:
    assert decode(data) == (TEXT, encoding)


def test_a_named_encoding_is_used() -> None:
    assert decode("諸葛亮".encode("big5"), "big5") == ("諸葛亮", "big5")
    assert decode("諸葛亮".encode("utf-16-le"), "utf-16-le") == ("諸葛亮", "utf-16-le")
    assert decode(b"\xef\xbb\xbf" + "字".encode(), "utf-8") == ("字", "utf-8")


def test_what_decodes_into_private_use_characters_is_refused() -> None:
    big5 = "話說天下大勢，分久必合，合久必分。週末七國分爭，併入於秦。".encode("big5") * 50
    with pytest.raises(ValueError, match="read as gb18030, .* are control or private-use characters"):
        decode(big5)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "the file is empty"),
        (b" \n\n ", "the file is empty"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "binary (it contains NUL bytes)"),
        (b"\xff\xfd\x80\x80", "not utf-8 at byte 0; not gb18030 at byte 0"),
    ],
)
def test_a_file_that_is_no_text_is_a_clear_error(tmp_path: Path, data: bytes, what: str) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        list(read_documents([str(path)]))
    assert what in caught.value.what
    assert caught.value.where == str(path)
    assert caught.value.mend


@pytest.mark.parametrize(
    ("name", "what"),
    [("none.txt", "there is no such file or folder"), ("book.pdf", ".pdf files are not read")],
)
def test_a_path_that_cannot_be_read_is_a_clear_error(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / "book.pdf").write_bytes(b"%PDF")
    with pytest.raises(DataError, match=what):
        list(read_documents([str(tmp_path / name)]))


def test_an_unknown_encoding_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("字", encoding="utf-8")
    with pytest.raises(DataError, match="no encoding is called 'gbkk'"):
        list(read_documents([str(tmp_path / "x.txt")], encoding="gbkk"))


def test_a_folder_without_texts_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no .txt file"):
        list(read_documents([str(tmp_path)]))


def test_in_a_folder_every_file_is_kept_or_counted_under_its_reason(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.txt").write_text("甲\r\n乙\r丙\n", encoding="utf-8", newline="")
    (tmp_path / "b" / "c.txt").write_bytes("丁".encode("gb18030"))
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "image.txt").write_bytes(b"\x00\x01")
    (tmp_path / "cover.jpg").write_bytes(b"\xff\xd8")
    counts = CorpusCounts()
    documents = list(read_documents([str(tmp_path)], counts=counts))
    assert [(d.id, d.text) for d in documents] == [("a.txt", "甲\n乙\n丙\n"), ("b/c.txt", "丁")]
    assert counts.documents_read == counts.documents_kept + counts.documents_dropped.total() == 4
    assert counts.documents_dropped == {"empty": 1, "undecodable": 1}
    assert counts.dropped == [
        f"{tmp_path / 'empty.txt'}: empty",
        f"{tmp_path / 'image.txt'}: not readable text: binary (it contains NUL bytes)",
    ]
    assert counts.files_passed_over == {".jpg": 1}
    assert counts.characters == sum(len(d.text) for d in documents)
    assert counts.bytes == sum(p.stat().st_size for p in tmp_path.rglob("*.txt"))
    assert counts.line_ends_changed == 2
    assert counts.encodings == {"utf-8": 1, "gb18030": 1}


def test_the_fingerprint_follows_content_not_names(tmp_path: Path) -> None:
    first, second = tmp_path / "1.txt", tmp_path / "2.txt"
    first.write_text("甲", encoding="utf-8")
    second.write_text("甲", encoding="utf-8")
    same = corpus_fingerprint([str(first)], "auto")
    assert corpus_fingerprint([str(second)], "auto") == same
    assert corpus_fingerprint([str(first)], "gb18030") != same
    second.write_text("乙", encoding="utf-8")
    assert corpus_fingerprint([str(second)], "auto") != same


def test_the_demo_corpus_is_a_corpus() -> None:
    counts = CorpusCounts()
    documents = list(read_documents(["yanmo:demo"], counts=counts))
    assert counts.documents_kept == len(documents) > 1000
    assert all(d.meta["bits"] > 0 for d in documents)
    assert 2.7e6 < counts.bytes < 3.3e6


def test_a_folder_is_read_without_runs_and_hidden_folders(tmp_path: Path) -> None:
    for name in ("runs/novel/samples", ".venv", "卷一"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.TXT").write_text("字", encoding="utf-8")
    (tmp_path / "runs" / "novel" / "run.lock").write_bytes(b"")
    assert [d.id for d in read_documents([str(tmp_path)])] == ["卷一/a.TXT"]

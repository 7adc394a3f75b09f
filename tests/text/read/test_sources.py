import bz2
import gzip
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.makers.documents import fingerprint, read
from yanmo.core.errors import DataError, StorageError
from yanmo.settings.places import leads_somewhere
from yanmo.text.read import sources
from yanmo.text.read.documents import CorpusCounts, corpus_size
from yanmo.text.read.kinds import layers_of, sniff
from yanmo.text.read.sources import spool


class Input:
    """Standard input that can be read once."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


@pytest.mark.parametrize(
    ("name", "kind", "wrappers"),
    [
        ("a.jsonl", ".jsonl", []),
        ("a.JSONL.GZ", ".jsonl", [".gz"]),
        ("a.b.txt.zst", ".txt", [".zst"]),
        ("a.ndjson", ".jsonl", []),
        ("a.htm.xz", ".html", [".xz"]),
        ("a.gz", "", [".gz"]),
        ("a", "", []),
        ("a.tar.gz", ".tar", [".gz"]),
        ("a.gz.gz.gz", ".gz", [".gz", ".gz"]),
        ("c4-train.00000-of-01024.json.gz", ".json", [".gz"]),
    ],
)
def test_a_name_tells_what_a_file_is(name: str, kind: str, wrappers: list[str]) -> None:
    assert layers_of(name) == (kind, wrappers)


@pytest.mark.parametrize(
    ("head", "suffix"),
    [
        ('{"text": "甲"}\n{"text": "乙"}\n'.encode(), ".jsonl"),
        (b'{"text": "' + b"a" * (1 << 16), ".jsonl"),
        (b'\xef\xbb\xbf {"text":\n "a"}', ".json"),
        (b'[\n{"text": "a"}]', ".json"),
        (b'["a"]', ".json"),
        ("{甲}乙".encode(), ".txt"),
        (b"[1] a footnote", ".txt"),
        ("话说".encode(), ".txt"),
        (b"", ".txt"),
        (b"\n<!DOCTYPE html>", ".html"),
        (gzip.compress(b'{"text": "a"}\n', mtime=0), ".jsonl.gz"),
        (gzip.compress(b"a" * 100_000, mtime=0)[:50], ".txt.gz"),
        (b"PK\x03\x04....", ".zip"),
        (b"\x28\xb5\x2f\xfd", ".zst"),
        (b"PAR1", ".parquet"),
        (b'\n<doc id="1" url="" title="">\n', ".wikiextractor"),
    ],
)
def test_the_first_bytes_tell_what_a_stream_is(head: bytes, suffix: str) -> None:
    assert sniff(head) == suffix


def test_standard_input_is_read_as_often_as_it_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sources.spooled_stdin.cache_clear()
    data = '{"text": "甲"}\n{"text": "乙"}\n'.encode()
    monkeypatch.setattr(sys, "stdin", Input(data))
    (tmp_path / "same.jsonl").write_bytes(data)
    for _ in range(2):
        assert [(d.id, d.text) for d in read("-")] == [("stdin.jsonl#1", "甲"), ("stdin.jsonl#2", "乙")]
    assert corpus_size(["-"]) == len(data)
    assert fingerprint(Path("-")) == fingerprint(tmp_path / "same.jsonl")
    sources.spooled_stdin.cache_clear()


def test_a_long_input_is_kept_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    found = spool(io.BytesIO(data), tmp_path / "stdin")
    assert found.read_bytes() == data
    assert [path for path in (tmp_path / "stdin").rglob("*") if path.is_file()] == [found]
    assert spool(io.BytesIO(data), tmp_path / "stdin") == found


def test_input_that_cannot_be_kept_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "stdin").write_bytes(b"")
    with pytest.raises(StorageError, match="keeping standard input failed"):
        spool(io.BytesIO(b"a"), tmp_path / "stdin")


def test_files_of_a_dump_without_a_suffix_are_found_and_others_passed_over(tmp_path: Path) -> None:
    (tmp_path / "AA").mkdir()
    (tmp_path / "AA" / "wiki_00").write_text('{"id": "1", "title": "数学", "text": "甲"}\n', encoding="utf-8")
    (tmp_path / "AA" / "LICENSE").write_text("甲", encoding="utf-8")
    (tmp_path / "a.tar.gz").write_bytes(b"")
    (tmp_path / "a.txt.bz2").write_bytes(bz2.compress("乙".encode()))
    counts = CorpusCounts()
    found = read(tmp_path, counts=counts)
    assert [(d.id, d.text) for d in found] == [("AA/wiki_00#1", "甲"), ("a.txt.bz2", "乙")]
    assert found[0].meta["fields"] == {"id": "1", "title": "数学"}
    assert counts.files_passed_over == {"no suffix": 1, ".gz": 1}
    assert [d.text for d in read(tmp_path / "AA" / "wiki_00")] == ["甲"]
    with pytest.raises(DataError, match=" .tar.gz files are not read"):
        read(tmp_path / "a.tar.gz")


def make_gbk_named(folder: Path, name: str, data: bytes) -> Path:
    """A file whose name is GBK, as old archives leave them."""
    path = os.path.join(os.fsencode(folder), name.encode("gbk"))
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError:
        pytest.skip("this system has no such names")
    return Path(os.fsdecode(path))


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_a_name_that_is_no_utf8_is_legible_and_its_file_is_read(tmp_path: Path) -> None:
    novel = make_gbk_named(tmp_path, "中.txt", "甲".encode())
    make_gbk_named(tmp_path, "空.txt", b"")
    make_gbk_named(tmp_path, "x.图", b"")
    counts = CorpusCounts()
    found = read(tmp_path, counts=counts) + read(novel) + read(tmp_path / "*.txt")
    assert [d.id for d in found] == ["\ufffd\ufffd.txt"] * 2 + [f"{tmp_path}/\ufffd\ufffd.txt"]
    assert [d.text for d in found] == ["甲"] * 3
    assert counts.dropped == [f"{tmp_path}/\ufffd\ufffd.txt: empty"]
    assert list(counts.files_passed_over) == [".\u037c"]
    str(counts.as_json()).encode()


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_what_is_wrong_with_such_a_file_can_be_said(tmp_path: Path) -> None:
    for path in (make_gbk_named(tmp_path, "空.txt", b""), tmp_path / "\udcd6.txt"):
        with pytest.raises(DataError) as caught:
            read(path)
        assert "\ufffd" in caught.value.where
        str(caught.value).encode()


def article(title: str, text: str) -> str:
    return f'<doc id="1" url="u" title="{title}">\n{title}\n\n{text}\n</doc>\n'


def test_articles_of_an_extracted_dump_are_found_without_a_suffix(tmp_path: Path) -> None:
    (tmp_path / "AB").mkdir()
    (tmp_path / "AB" / "wiki_07").write_text(article("甲", "乙") + article("丙", "丁"), encoding="utf-8")
    (tmp_path / "NOTES").write_text("<doc", encoding="utf-8")
    for path in (tmp_path, tmp_path / "AB", tmp_path / "AB" / "wiki_07"):
        found = read(path)
        assert [(d.text, d.meta["fields"]["title"]) for d in found] == [
            ("甲\n\n乙", "甲"),
            ("丙\n\n丁", "丙"),
        ]
    assert fingerprint(tmp_path) == fingerprint(tmp_path / "AB" / "wiki_07")


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    return f"{caught.value.what} | {caught.value.hint}"


def test_a_folder_without_texts_is_answered_with_what_is_in_it(tmp_path: Path) -> None:
    assert "; there is nothing |" in refusal(tmp_path)
    for name in ("a.md", "b.md", "deep/c.md", "README", "x.pdf", *(f"wiki_0{n}" for n in range(9))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    listed = "README, wiki_00, wiki_01, wiki_02, wiki_03, others without a suffix 5, .md 3, .pdf 1 |"
    assert f"; there is {listed}" in refusal(tmp_path)
    assert "; there is .md 2 |" in refusal(tmp_path / "*.md")


def save_to_disk(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("data-00000-of-00001.arrow", "dataset_info.json", "state.json"):
        (folder / name).write_text('{"features": {"text": {"dtype": "string"}}}', encoding="utf-8")


def test_what_save_to_disk_writes_is_named_for_what_it_is(tmp_path: Path) -> None:
    save_to_disk(tmp_path / "one")
    save_to_disk(tmp_path / "parts" / "train")
    (tmp_path / "parts" / "dataset_dict.json").write_text('{"splits": ["train"]}', encoding="utf-8")
    for path in ("one", "parts", "parts/train", ".", "*"):
        said = refusal(tmp_path / path)
        assert "save_to_disk" in said and ".arrow" in said and "to_parquet" in said
    assert "to_parquet" in refusal(tmp_path / "one" / "data-00000-of-00001.arrow")
    (tmp_path / "a.txt").write_text("甲", encoding="utf-8")
    (tmp_path / "state.json").write_text('["乙"]', encoding="utf-8")
    counts = CorpusCounts()
    assert [d.text for d in read(tmp_path, counts=counts)] == ["甲", "乙"]
    assert counts.files_passed_over == {".arrow": 2, ".json": 5}


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A folder with a text, and links up, outside and to the text."""
    folder = tmp_path / "corpus"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("甲", encoding="utf-8")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "b.txt").write_text("乙", encoding="utf-8")
    try:
        (folder / "sub" / "up").symlink_to("../")
        (folder / "sub" / "again.txt").symlink_to("../a.txt")
        (folder / "far").symlink_to(tmp_path / "outside")
        (folder / "secret.txt").symlink_to(tmp_path / "outside" / "b.txt")
        (folder / "nowhere.txt").symlink_to(tmp_path / "none.txt")
    except OSError:
        pytest.skip("this system has no links")
    return folder


@pytest.mark.parametrize("pattern", ["", "**", "**/*.txt", "**/*", "*"])
def test_each_file_is_read_once_whatever_links_there_are(linked: Path, pattern: str) -> None:
    counts = CorpusCounts()
    assert [d.text for d in read(linked / pattern, counts=counts)] == ["甲"]
    assert counts.files_passed_over == {"link": 5}
    assert corpus_size([str(linked / pattern)]) == 3


def test_a_folder_that_is_a_link_itself_is_read(linked: Path) -> None:
    assert [d.text for d in read(linked / "far")] == ["乙"]
    assert [d.text for d in read(linked / "far" / "*.txt")] == ["乙"]
    assert [d.text for d in read(linked / "secret.txt")] == ["乙"]


def test_a_folder_of_links_says_so(linked: Path) -> None:
    (linked / "a.txt").unlink()
    said = refusal(linked)
    assert "; there is link 5 |" in said and "name what they lead to" in said


@pytest.mark.parametrize("kind", ["a.txt", "a.jsonl.gz", "a.zip", "a.parquet"])
def test_a_file_that_the_system_keeps_from_us_is_one_counted_document(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / kind).write_bytes(b"x")
    (tmp_path / "b.txt").write_text("乙", encoding="utf-8")
    keep_from_us(tmp_path / kind, monkeypatch)
    counts = CorpusCounts()
    assert [d.text for d in read(tmp_path, counts=counts)] == ["乙"]
    assert counts.documents_dropped == {"unreadable": 1}
    assert "Permission denied" in counts.dropped[0]
    assert fingerprint(tmp_path) and corpus_size([str(tmp_path)])
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        read(tmp_path / kind)


def keep_from_us(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the file had no permissions, which root is not held up by."""
    real = open

    def opened(file: object, *arguments: object, **named: object) -> object:
        if file == kept:
            raise PermissionError(13, "Permission denied", str(kept))
        return real(file, *arguments, **named)  # type: ignore[call-overload]

    monkeypatch.setattr("builtins.open", opened)


def test_a_folder_that_the_system_keeps_from_us_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "b.txt").write_text("乙", encoding="utf-8")
    real = Path.iterdir

    def inside(folder: Path) -> Iterator[Path]:
        if folder.name == "kept":
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr(Path, "iterdir", inside)
    counts = CorpusCounts()
    assert [d.text for d in read(tmp_path, counts=counts)] == ["乙"]
    assert counts.files_passed_over == {"unreadable folder": 1}
    assert "; there is unreadable folder 1 |" in refusal(tmp_path / "kept")


@pytest.mark.parametrize("name", ["a[1].txt", "book[甲]", "[z-a", "[!x]", "a*b", "what?"])
@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_what_is_there_is_no_pattern(name: str, tmp_path: Path) -> None:
    folder = tmp_path / f"folder of {name}"
    folder.mkdir()
    for inner in (f"{name}.txt", "b.txt"):
        (folder / inner).write_text(f"山高{inner}", encoding="utf-8")
    assert [d.text for d in read(folder / f"{name}.txt")] == [f"山高{name}.txt"]
    everything = [f"山高{inner}" for inner in sorted((f"{name}.txt", "b.txt"))]
    assert [d.text for d in read(folder)] == everything
    assert [d.text for d in read(folder / "*.txt")] == everything
    assert [d.text for d in read(folder / "b.*")] == ["山高b.txt"]
    assert [d.text for d in read(tmp_path / "folder*" / "*.txt")] == everything
    assert leads_somewhere(str(folder / "b.*")) and not leads_somewhere(str(folder / "c.*"))


def test_a_run_is_no_corpus_and_what_goes_on_with_it_is_said(tmp_path: Path) -> None:
    for name in ("run.lock", "recipe.toml", "story.txt"):
        (tmp_path / name).write_text("x = 1", encoding="utf-8")
    with pytest.raises(DataError, match="the folder is a run") as caught:
        read(tmp_path)
    assert f"yanmo train {tmp_path}" in caught.value.hint


@pytest.mark.parametrize("top", ["home", "disk"])
def test_everything_there_is_is_no_corpus(top: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_ENTRIES", 20)
    for number in range(30):
        (tmp_path / "texts" / str(number)).mkdir(parents=True)
        (tmp_path / "texts" / str(number) / "a.txt").write_text("山高", encoding="utf-8")
    monkeypatch.setenv("HOME" if os.name != "nt" else "USERPROFILE", str(tmp_path))
    with pytest.raises(DataError, match="holds everything there is") as caught:
        read(tmp_path if top == "home" else Path(tmp_path.anchor))
    assert "name the folder in it" in caught.value.hint
    assert len(read(tmp_path / "texts")) == 30


def test_a_small_home_is_a_folder_like_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME" if os.name != "nt" else "USERPROFILE", str(tmp_path))
    (tmp_path / "a.txt").write_text("山高", encoding="utf-8")
    assert [d.text for d in read(tmp_path)] == ["山高"]

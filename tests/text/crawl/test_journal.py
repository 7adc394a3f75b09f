import os
from pathlib import Path

import pytest

from yanmo.text.crawl.frontier import Task
from yanmo.text.crawl.journal import Journal, pack, unpack
from yanmo.text.crawl.profile import Profile
from yanmo.text.crawl.rows import read_row

FILE = Path("x.crawl/journal.jsonl")


def write(*keys: str) -> None:
    with Journal(FILE) as journal:
        for key in keys:
            journal.add({"key": key, "text": f"字{key}\n\u2028"})


def keys() -> list[str]:
    with Journal(FILE) as journal:
        return [key for key in "abcd" if journal.find(key)]


def test_what_was_added_is_found_again() -> None:
    write("a", "b")
    with Journal(FILE) as journal:
        assert journal.find("a") == {"key": "a", "text": "字a\n\u2028"}
        assert journal.find("c") is None
        journal.add({"key": "c"})
        assert journal.find("c") and journal.find("b")


def test_the_last_row_of_a_key_counts() -> None:
    with Journal(FILE) as journal:
        journal.add({"key": "a", "failed": "503"})
        journal.add({"key": "a", "read": 1})
        assert journal.find("a") == {"key": "a", "read": 1}
    with Journal(FILE) as journal:
        assert journal.find("a") == {"key": "a", "read": 1}


def test_a_journal_cut_at_any_byte_keeps_every_whole_row_and_goes_on() -> None:
    write("a", "b")
    whole = FILE.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(len(whole)):
        FILE.write_bytes(whole[:length])
        assert keys() == (["a"] if length >= first else [])
        write("c")
        assert keys() == (["a", "c"] if length >= first else ["c"])


def test_a_damaged_row_costs_only_itself() -> None:
    write("a", "b", "c")
    lines = FILE.read_bytes().splitlines(keepends=True)
    FILE.write_bytes(lines[0] + b'{"key": "b", \n' + b"[]\n" + lines[2])
    assert keys() == ["a", "c"]


def test_a_row_is_on_the_disk_before_the_next_page_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    with Journal(FILE) as journal:
        monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(FILE.stat().st_size))
        journal.add({"key": "a"})
    assert synced == [FILE.stat().st_size]


def test_pages_are_packed_and_unpacked() -> None:
    data = bytes(range(256)) * 100
    assert unpack(pack(data)) == data
    assert len(pack(data)) < len(data) / 10


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "x",
        "eJw=",
        pack(b"abc" * 100)[:-8],
        "A" + pack(b"abc" * 100)[1:],
        "====",
        "中",
        pack(b"a" * 999).lower(),
    ],
)
def test_a_page_that_is_damaged_in_the_journal_is_a_value_error(damaged: str) -> None:
    with pytest.raises(ValueError, match="damaged in the journal"):
        unpack(damaged)


def test_a_page_that_is_damaged_is_counted_as_one() -> None:
    profile = Profile(start=("http://a.example/",), permission="x")
    task = Task("http://a.example/", "http://a.example/", "chapter", "")
    for page in ("", "eJw=", pack(b"<p>abc</p>")[:-8]):
        found = read_row({"page": page, "type": "text/html"}, task, profile)
        assert "damaged in the journal" in found["undecodable"]

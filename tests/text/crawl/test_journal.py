import os
from pathlib import Path

import pytest

from yanmo.text.crawl.frontier import Task
from yanmo.text.crawl.journal import Journal, Row, pack, unpack
from yanmo.text.crawl.profile import Profile
from yanmo.text.crawl.rows import known_row

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
    FILE.write_bytes(lines[0] + b'{"key": "b", \n' + b"[]\n" + b"[" * 100_000 + b"\n" + lines[2])
    assert keys() == ["a", "c"]


PAGE: Row = {"url": "u", "rules": "of old", "type": "text/html", "page": pack("<p>正文".encode())}


@pytest.mark.parametrize(
    ("changed", "is_known"),
    [
        ({}, True),
        ({"page": PAGE["page"][:-8] + "AAAAAAA="}, False),  # another checksum
        ({"page": PAGE["page"][:9]}, False),
        ({"page": "夜"}, False),
        ({"page": 5}, False),
        ({"type": None}, False),
        ({"rules": 5}, True),
    ],
)
def test_a_page_that_is_damaged_in_the_journal_is_asked_for_again(changed: Row, is_known: bool) -> None:
    url = "http://a.example/1"
    with Journal(FILE) as journal:
        journal.add({"key": "a", **PAGE, **changed})
        site = Profile(start=(url,), permission="p")
        row = known_row(journal, Task(url, "a", "chapter", url), site)
    assert (row is not None) == is_known
    assert row is None or row["read"]["text"] == "正文"


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

"""Files larger than what may be in memory; the bounds are peaks of a whole process, Python included."""

import gzip
import json
from pathlib import Path

import pytest

from tests.makers.processes import python

if not Path("/proc/self/status").exists():
    pytest.skip("the peak of memory is read from /proc", allow_module_level=True)
SCRIPT = """
import pathlib, re, sys
from yanmo.settings.schema import CorpusConfig
from yanmo.text.read.documents import CorpusCounts, read_documents
counts = CorpusCounts()
for document in read_documents(CorpusConfig(path=(sys.argv[1],)), counts):
    del document
status = pathlib.Path("/proc/self/status").read_text(encoding="utf-8")  # getrusage counts the parent's peak, too
print(counts.documents_kept, counts.characters, int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) >> 10)
"""
LINE = "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。\n"


def read_apart(path: Path) -> tuple[int, int, int]:
    """(documents, characters, peak in MB) of reading a file in a process of its own."""
    done = python("-c", SCRIPT, str(path))
    assert done.returncode == 0, done.stderr
    documents, characters, peak = map(int, done.stdout.split())
    return documents, characters, peak


@pytest.mark.long
def test_a_line_of_100_mb_takes_a_few_times_as_much(tmp_path: Path) -> None:
    text = LINE[:-1] * 1_200_000
    assert len(text.encode()) > 100_000_000
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": text}, ensure_ascii=False) + "\n", encoding="utf-8")
    (tmp_path / "c.jsonl").write_text(
        json.dumps([text]) + "\n" + json.dumps({"text": "甲"}), encoding="utf-8"
    )
    for name, documents in (("a.txt", 1), ("b.jsonl", 1)):
        kept, characters, peak = read_apart(tmp_path / name)
        print(f"{name}: {peak} MB")
        assert (kept, characters) == (documents, len(text))
        assert peak < 500
    kept, characters, peak = read_apart(tmp_path / "c.jsonl")
    print(f"c.jsonl: {peak} MB")
    assert (kept, characters) == (2, len(text) + 1)  # a list of one string is a dialogue of one turn
    assert peak < 1000


@pytest.mark.long
@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_a_text_of_300_mb_in_a_gz_is_read_in_parts(tmp_path: Path, encoding: str) -> None:
    block = "".join(f"{n * 7919}{LINE}" for n in range(20_000))
    blocks = 300_000_000 // len(block.encode(encoding)) + 1
    with gzip.open(tmp_path / "a.txt.gz", "wb", compresslevel=1) as stream:
        for _ in range(blocks):
            stream.write(block.encode(encoding))
    kept, characters, peak = read_apart(tmp_path / "a.txt.gz")
    print(f"{encoding}: {peak} MB")
    assert kept > 4
    assert characters == len(block) * blocks
    assert peak < 600


@pytest.mark.long
def test_a_json_of_300_mb_gives_its_records_in_parts(tmp_path: Path) -> None:
    record = json.dumps({"text": LINE * 100}, ensure_ascii=False, indent=1)
    count = 300_000_000 // len(record.encode())
    with open(tmp_path / "a.json", "w", encoding="utf-8") as stream:
        stream.write("[" + record)
        for _ in range(count - 1):
            stream.write(",\n" + record)
        stream.write("]")
    kept, characters, peak = read_apart(tmp_path / "a.json")
    print(f"json: {peak} MB")
    assert (kept, characters) == (count, count * 100 * len(LINE))
    assert peak < 600

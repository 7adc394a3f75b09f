"""The station: everything that goes in is kept or counted, in order, whatever the number of processes."""

import json
from collections import Counter
from pathlib import Path

import pytest

from yanmo.core.console import Console
from yanmo.core.errors import DataError
from yanmo.settings.recipe import load_cleaning
from yanmo.text.clean import run as station
from yanmo.text.clean.explain import explain, hunks
from yanmo.text.clean.run import manifest_path, run
from yanmo.text.demo import stories

STORIES = [story.text for _, story in zip(range(12), stories.stories(), strict=False)]


@pytest.fixture
def quiet():
    return Console(is_main=False)


def write_rows(path: Path, texts, **fields) -> str:
    rows = [json.dumps({"text": text, **fields}, ensure_ascii=False) for text in texts]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(path)


def read_rows(path: Path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_counts_add_up_and_the_manifest_says_where_each_document_went(tmp_path, quiet):
    texts = [*STORIES, STORIES[0], "“" * 300, " ", "Привет, как твои дела? Всё хорошо, спасибо!"]
    path = write_rows(tmp_path / "a.jsonl", texts)
    result = run(load_cleaning([], [path]), tmp_path / "out.jsonl", quiet, dedup=True)
    manifest = json.loads(manifest_path(tmp_path / "out.jsonl").read_text(encoding="utf-8"))
    assert manifest == json.loads(json.dumps(result.as_json()))
    assert manifest["dropped"] == {"a copy": 1, "mostly symbols": 1, "in Russian or alike": 1}
    assert manifest["read"]["documents_dropped"] == {"empty": 1}
    read = manifest["read"]["documents_read"]
    assert read == len(texts) == manifest["documents"] + 3 + 1
    assert len(manifest["dropped_documents"]) == 3
    assert [row["text"] for row in read_rows(tmp_path / "out.jsonl")] == [t.rstrip() for t in STORIES]


def test_the_result_does_not_depend_on_the_processes(tmp_path, quiet, monkeypatch):
    monkeypatch.setattr(station, "BATCH_CHARACTERS", 500)
    path = write_rows(
        tmp_path / "a.jsonl", [*STORIES, *STORIES[:3], *(f"{s}\nwww.abcde.com" for s in STORIES)]
    )
    outs = []
    for number in (1, 2):
        out = tmp_path / f"out{number}.jsonl"
        run(load_cleaning([], [path]), out, quiet, dedup=True, workers=number)
        outs.append(out.read_bytes())
    assert outs[0] == outs[1]
    assert len(outs[0].splitlines()) == len(STORIES)


def test_near_copies_and_repeated_paragraphs_go(tmp_path, quiet):
    long = "".join(STORIES[3:])
    near = long[:200] + "改" + long[201:]
    shared = "这一段话在两篇文章里都有，一个字也不差，因此只有先来的那一篇可以留着它，后来的没有。今天如此，明天也如此。"
    path = write_rows(
        tmp_path / "a.jsonl", [long, near, f"{STORIES[2]}\n{shared}", f"{STORIES[1]}\n{shared}", shared]
    )
    result = run(load_cleaning([], [path]), tmp_path / "out.jsonl", quiet, dedup=True)
    assert result.dropped == {"nearly a copy": 1, "only repeated paragraphs": 1}
    rows = read_rows(tmp_path / "out.jsonl")
    assert [shared in row["text"] for row in rows] == [False, True, False]
    assert result.changed["repeated_paragraphs"] == 2


def test_a_test_set_stays_out_of_the_corpus(tmp_path, quiet):
    test = write_rows(tmp_path / "test.jsonl", [STORIES[3]])
    path = write_rows(tmp_path / "a.jsonl", STORIES)
    config = load_cleaning([f'dedup.against=["{test}"]'], [path])
    result = run(config, tmp_path / "out.jsonl", quiet, dedup=True)
    assert result.dropped == {f"also in {test}": 1}
    assert STORIES[3].rstrip() not in [row["text"] for row in read_rows(tmp_path / "out.jsonl")]


def test_a_passage_of_a_test_set_keeps_its_document_out(tmp_path, quiet):
    test = write_rows(tmp_path / "test.jsonl", ["".join(STORIES[3:5])[20:200]])
    path = write_rows(tmp_path / "a.jsonl", ["".join(STORIES[:6]), "".join(STORIES[6:])])
    config = load_cleaning([f'dedup.against=["{test}"]'], [path])
    result = run(config, tmp_path / "out.jsonl", quiet, dedup=True)
    assert result.dropped == {f"also in {test}": 1}
    (tmp_path / "test.jsonl").write_text("no json\n", encoding="utf-8")
    with pytest.raises(DataError, match="nothing in it can be read"):
        run(config, tmp_path / "out.jsonl", quiet, dedup=True)


def test_a_large_document_is_not_paid_for_by_a_small_one(tmp_path, quiet):
    long = "".join(STORIES)
    a, b = (
        write_rows(tmp_path / "a.jsonl", [long * 3]),
        write_rows(tmp_path / "b.jsonl", [long * 2, STORIES[0]]),
    )
    run(load_cleaning(["clean.quality=false"], [a, b]), tmp_path / "mix.jsonl", quiet, weights=[1, 1])
    assert [row["yanmo_repeat"] for row in read_rows(tmp_path / "mix.jsonl")] in ([1, 1, 2], [1, 2, 1])


def test_cleaning_a_mix_again_keeps_the_mix_and_where_things_came_from(tmp_path, quiet):
    paths = [write_rows(tmp_path / f"{n}.jsonl", STORIES[n : n + 3]) for n in (0, 3)]
    run(load_cleaning([], paths), tmp_path / "mix.jsonl", quiet, weights=[3, 1])
    run(load_cleaning([], [str(tmp_path / "mix.jsonl")]), tmp_path / "again.jsonl", quiet)
    assert read_rows(tmp_path / "again.jsonl") == read_rows(tmp_path / "mix.jsonl")


def test_what_cannot_be_written_is_replaced_and_can_be_read_again(tmp_path, quiet):
    (tmp_path / "a.jsonl").write_text('{"text":"他走了。","title":"笑话\\ud83d"}\n', encoding="utf-8")
    run(load_cleaning([], [str(tmp_path / "a.jsonl")]), tmp_path / "b.jsonl", quiet)
    again = run(load_cleaning([], [str(tmp_path / "b.jsonl")]), tmp_path / "c.jsonl", quiet)
    assert again.documents == 1 and not again.counts.documents_dropped


@pytest.mark.parametrize("content", ["[]", "{", '{"sources": {"a": 1}}', '"x"', "[" * 100_000])
def test_a_strangers_manifest_says_nothing(tmp_path, quiet, content):
    path = write_rows(tmp_path / "a.jsonl", STORIES[:1])
    (tmp_path / "a.manifest.json").write_text(content, encoding="utf-8")
    result = run(load_cleaning([], [path]), tmp_path / "b.jsonl", quiet)
    assert result.sources[0].licences == {"not known": 1}


def test_weights_say_how_often_each_document_is_read(tmp_path, quiet):
    paths = [write_rows(tmp_path / f"{n}.jsonl", STORIES[n : n + 3]) for n in (0, 3, 6)]
    result = run(load_cleaning([], paths), tmp_path / "mix.jsonl", quiet, weights=[3, 1, 1])
    shares = [source.characters_in_the_mix for source in result.sources]
    assert shares[0] / sum(shares) == pytest.approx(0.6, abs=0.05)
    rows = read_rows(tmp_path / "mix.jsonl")
    assert len(rows) == 9
    read = Counter()
    for row in rows:
        read[row["source"]] += row["yanmo_repeat"] * len(row["text"])
    assert [read[path] for path in paths] == shares


def test_fields_and_licences_are_kept(tmp_path, quiet):
    (tmp_path / "LICENSE").write_text("CC BY-SA 4.0\n", encoding="utf-8")
    plain = write_rows(tmp_path / "a.jsonl", STORIES[:2])
    result = run(load_cleaning([], [plain]), tmp_path / "b.jsonl", quiet)
    assert result.sources[0].licences == {"LICENSE: CC BY-SA 4.0": 2}
    again = run(load_cleaning([], [str(tmp_path / "b.jsonl")]), tmp_path / "c" / "c.jsonl", quiet)
    assert again.sources[0].licences == {"LICENSE: CC BY-SA 4.0": 2}


def test_nothing_left_is_said_and_writes_nothing(tmp_path, quiet):
    path = write_rows(tmp_path / "a.jsonl", ["“" * 300, "www.xiaoshuo9.com"])
    with pytest.raises(DataError, match="nothing is left of 2 documents .mostly symbols: 1, nothing left: 1"):
        run(load_cleaning([], [path]), tmp_path / "out.jsonl", quiet)
    assert {file.name for file in tmp_path.iterdir()} == {"a.jsonl"}


def test_an_old_result_stays_until_the_new_one_is_whole(tmp_path, quiet, monkeypatch):
    path = write_rows(tmp_path / "a.jsonl", STORIES)
    out = tmp_path / "out.jsonl"
    out.write_text("old", encoding="utf-8")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(station.storage, "sync_file", fail)
    with pytest.raises(Exception, match="No space left"):
        run(load_cleaning([], [path]), out, quiet)
    assert out.read_text(encoding="utf-8") == "old"
    assert {file.name for file in tmp_path.iterdir()} == {"a.jsonl", "out.jsonl"}


def test_explain_shows_every_change(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [f"{STORIES[0]}\nwww.xiaoshuo9.com\n他走了。", "“" * 300])
    changes = list(explain(load_cleaning([], [path])))
    assert [change.rule for change in changes] == ["ads", "dropped: mostly symbols"]
    assert ("out", "www.xiaoshuo9.com") in changes[0].parts


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("abcde", "abde"),
        ("abc", "abxc"),
        ("abc", "xyz"),
        ("", "a"),
        ("aXbYc", "abc"),
        ("abc", "abc"),
        ("aabb", "ab"),
    ],
)
def test_hunks_lead_from_one_text_to_the_other(before, after):
    lines, at = [], 0
    for line, gone, come in hunks([*before], [*after]):
        lines += before[at : line - 1]
        assert [*gone] == [*before[line - 1 : line - 1 + len(gone)]]
        lines += come
        at = line - 1 + len(gone)
    assert "".join([*lines, *before[at:]]) == after

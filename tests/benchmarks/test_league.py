"""The league gives a run the right part of the right text, and repeats no row."""

import hashlib
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # a benchmark finds its siblings in its own folder
from benchmarks import league, small_text  # noqa: E402

sys.path.remove(str(BENCHMARKS))

TEXT = "甲乙丙丁戊己庚辛壬癸"


def track(**more: Any) -> league.Track:
    digest = hashlib.sha256(TEXT.encode()).hexdigest()[:16]
    return replace(league.Track("ten characters", digest), **more)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_another_text_is_refused(text: Path, tmp_path: Path) -> None:
    assert league.prepared(track(), text, tmp_path) == str(text)
    text.write_text(TEXT + "。", encoding="utf-8")
    with pytest.raises(SystemExit, match="sha256"):
        league.prepared(track(), text, tmp_path)
    with pytest.raises(SystemExit, match="name the track's text"):
        league.prepared(track(), None, tmp_path)


def test_a_track_cuts_its_text_or_puts_a_part_behind_the_others(text: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    folder.mkdir()
    for settings, expected in (
        ({"characters": 4}, "甲乙丙丁"),
        ({"to_the_end": (2, 5)}, "甲乙己庚辛壬癸丙丁戊"),
    ):
        cut = league.prepared(track(**settings), text, folder)
        assert Path(cut).read_text("utf-8") == expected


def test_of_the_play_that_nobody_saw_all_is_held_out_and_no_more() -> None:
    unseen, characters = league.TRACKS["unseen"], 811_297
    assert unseen.to_the_end is not None and unseen.held_out is not None
    start, end = unseen.to_the_end
    assert math.ceil(unseen.held_out * characters) == end - start


def test_rows_that_are_there_are_not_done_again(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[league.Key] = []

    def run(of: league.Track, where: str, key: league.Key, threads: int) -> league.Key:
        done.append(key)
        return key | {"best": 5.0 + key["seed"] / 10, "last": 5.5}

    monkeypatch.setattr(league, "TRACKS", {"ten": track()})
    monkeypatch.setattr(league, "TABLE", tmp_path / "league.jsonl")
    monkeypatch.setattr(league, "run", run)
    ask(monkeypatch, league.main, "ten", str(text), "--at-once", "1", "--", "optim.weight_decay=1")
    ask(monkeypatch, league.main, "ten", str(text), "--seeds", "2", "--", "optim.weight_decay=1", "")
    assert [(key["settings"], key["seed"]) for key in done] == [
        ("optim.weight_decay=1", 1), ("", 1), ("optim.weight_decay=1", 2), ("", 2),
    ]  # fmt: skip
    said = capsys.readouterr().out
    assert "| `optim.weight_decay=1` | 2,700 | 2 | 5.150 | 5.100 to 5.200 | 5.500 |" in said


@pytest.mark.slow
def test_each_idea_trains_and_only_what_is_missing_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, table = tmp_path / "text.txt", tmp_path / "table.jsonl"
    path.write_text(
        "".join(f"第{n}回，江湖夜雨{n * 7919 % 1000}灯。\n" for n in range(2000)), encoding="utf-8"
    )
    monkeypatch.setattr(small_text, "HELD_OUT", 600)
    small = "decay=5 dropout=0 width=16 heads=2 layers=3 window=16"
    ideas = (
        "last_rate=0.5", "schedule=linear", "cycles=2", "table_rate=0.5", "vector_rate=0.1", "table_decay=0",
        "flat_decay=true", "cautious=true", "tied=false", "small_batches=0.5", "short_windows=0",
        "long_windows=0.5", "further=0.5,0.25", "skip=0.9", "loops=2", "rare=400", "swap=0.9", "chain=1",
        "chain=1 teachers=2", "knn=0.2", "smoothing=0.1",
    )  # fmt: skip
    wanted, ends = [small, *(f"{idea} {small}" for idea in ideas)], {}
    for settings in wanted:
        key = {"text": "text.txt", "characters": 4000, "steps": 12, "settings": settings, "seed": 1}
        row = key | small_text.run(path, key)
        assert all(0 < bits < 14 for found in row["end"].values() for bits in found.values()), settings
        ends[settings] = row["end"]
        with table.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    # an idea that changes nothing was forgotten
    assert [settings for settings in wanted[1:] if ends[settings] == ends[small]] == []
    monkeypatch.setattr(small_text, "apart", lambda *_: pytest.fail("it is there already"))
    ask(
        monkeypatch,
        small_text.main,
        str(table),
        str(path),
        "--characters",
        "4000",
        "--steps",
        "12",
        "--",
        *wanted,
    )


def ask(monkeypatch: pytest.MonkeyPatch, main: Callable[[], None], *words: str) -> None:
    monkeypatch.setattr("sys.argv", ["benchmark", *words])
    main()

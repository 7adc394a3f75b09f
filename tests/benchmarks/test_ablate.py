"""The table of ablations says beforehand how long it takes, and afterwards what it mixes."""

from pathlib import Path
from typing import Any

import pytest
from benchmarks.ablate import (
    DECISIONS,
    by_settings,
    decisions,
    disagreements,
    expected_minutes,
    is_of,
    main,
    plan,
    read,
)

from tests.makers.runs import TINY, tiny_recipe
from yanmo.settings.recipe import decide, to_toml


def row(seed: int, learning_rate: float | None = None, **more: Any) -> dict[str, Any]:
    """A line of the table."""
    decided = dict.fromkeys(DECISIONS, "as always") | {"optim.learning_rate": learning_rate}
    return {"text": "a.txt", "settings": "optim.name=muon", "seed": seed, "steps": 100} | more | (
        {"decided": decided} if learning_rate else {}
    )  # fmt: skip


def test_steps_are_expected_at_the_slowest_pace_recorded_for_the_text() -> None:
    done = [row(1, seconds=50.0), row(2, seconds=200.0), row(3), row(4, text="b.txt", seconds=9e9)]
    asked = {"text": "a.txt", "steps_asked": 300, "settings": "", "seed": 1}
    assert expected_minutes(asked, done) == 10.0
    assert expected_minutes(asked, []) is None
    assert expected_minutes({"text": "a.txt", "minutes": 2.5}, done) == 2.5


def test_the_plan_lists_the_missing_runs_and_shares_their_time_among_those_at_once() -> None:
    missing = [
        {"text": "a.txt", "steps_asked": 300, "settings": f"optim.name={name}", "seed": seed}
        for seed in (1, 2, 3)
        for name in ("muon", "adamw")
    ][:5]
    lines = plan(missing, [row(1, seconds=200.0)], at_once=2)
    assert "5 runs" in lines[0] and "30.0 min" in lines[0]
    assert [line.split()[-1] for line in lines[1:]] == [key["settings"] for key in missing]
    assert "unknown" in plan(missing, [], at_once=1)[0]
    assert "0.0 min" in plan([], [], at_once=1)[0]


def test_a_row_is_found_by_its_settings_in_any_order_and_by_no_others() -> None:
    made = row(1, settings="a=1 b=2")
    for settings, found in (("a=1 b=2", True), ("b=2   a=1", True), ("a=1", False), ("a=1 b=2 c=3", False)):
        assert is_of(made, {"text": "a.txt", "settings": settings, "seed": 1}) is found
    assert not is_of(made, {"text": "a.txt", "settings": "a=1 b=2", "seed": 2})
    again, other = row(2, settings="b=2 a=1"), row(1, settings="a=1")
    assert by_settings([made, again, other]) == {"a=1 b=2": [made, again], "a=1": [other]}


def test_rows_made_under_other_decisions_are_named() -> None:
    [line] = disagreements([row(1, 0.006), row(2, 0.006), row(3, 0.005)])
    assert "optim.learning_rate 0.006 (seed 1, 2), 0.005 (seed 3)" in line
    assert "model.family" not in line
    assert disagreements([row(1, 0.006), row(2, 0.006)]) == []
    other = row(3, 0.005) | {"settings": "optim.name=adamw"}
    assert disagreements([row(1, 0.006), other]) == []


def test_a_row_that_does_not_say_what_it_was_made_with_counts_as_unknown() -> None:
    [line] = disagreements([row(1), row(2, 0.006)])
    assert "seed 1" in line and "not known" in line
    assert disagreements([row(1), row(2)]) == []


def test_decisions_are_read_from_a_recipe() -> None:
    recipe = decide(tiny_recipe("a.txt"), {"optim.learning_rate": 0.005, "optim.name": "muon"})
    Path("recipe.toml").write_text(to_toml(recipe), encoding="utf-8")
    found = decisions(Path("recipe.toml"))
    assert set(found) == set(DECISIONS)
    assert found["optim.name"] == "muon" and found["optim.learning_rate"] == 0.005
    assert found["model.family"] == "modern" and found["data.document_mask"] is False
    assert found["train.seq_len_warmup"] is None  # nothing decided it


@pytest.mark.slow
@pytest.mark.xdist_group("models")
def test_a_run_leaves_a_row_with_its_seconds_and_decisions(
    novel: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    table, settings = Path("table.jsonl"), [text for text in TINY if "max_steps" not in text]
    command = ["ablate.py", str(table), str(novel), "--steps", "3", "--", " ".join(settings)]
    monkeypatch.setattr("sys.argv", command)
    main()
    [made] = read(table)
    assert made["steps"] == 3 and made["seconds"] > 0
    assert made["decided"]["optim.name"] == "muon" and made["decided"]["train.batch_size"] == 8
    command[-1] = "  ".join(reversed(settings))
    main()
    assert read(table) == [made]
    said = capsys.readouterr().out
    assert "1 runs are missing: unknown" in said and "0 runs are missing" in said

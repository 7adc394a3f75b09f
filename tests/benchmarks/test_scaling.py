"""The bench of shapes and lengths runs what is missing, and its rows say what a run was."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # a benchmark finds its siblings in its own folder
from benchmarks import runs, scaling  # noqa: E402

sys.path.remove(str(BENCHMARKS))

LEARNED = {"characters": 1000, "tokens": 1010}


def found(text: str, settings: list[str]) -> runs.Trained:
    given = dict(setting.split("=") for setting in settings)
    steps = int(given["train.max_steps"])
    return runs.Trained(
        result={"best_val_bits_per_char": 5.0, "best_step": steps, "val_bits_per_char": 5.5},
        recipe={
            "model": {"block_size": 128},
            "train": {"batch_size": 16},
            "optim": {"weight_decay": 0.5, "average": 0.1, "learning_rate": 0.006},
        },
        corpus={"splits": {"train": LEARNED}},
        metrics=[
            {"event": "start", **{f"{n}_bits_per_char": 8.0 for n in ("uniform", "unigram", "bigram")}},
            {"event": "train", "loss": 4.0},
            {"event": "eval", "step": steps, "val_bits_per_char": 5.0},
        ],
        shape={"vocab_size": 100, "hidden_size": int(given["model.n_embd"])},
        parameters=1_000_000,
        seconds=1.0,
        made={},
    )


def ask(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["scaling.py", *words])
    scaling.main()


def test_what_is_missing_is_run_with_the_least_work_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "trained", found)
    text, table = tmp_path / "text.txt", tmp_path / "table.jsonl"
    text.write_text("甲" * 50, encoding="utf-8")
    for depths in (["2"], ["4", "2"]):
        ask(monkeypatch, str(text), "--steps", "10", "20", "--table", str(table), "--depths", *depths)
    rows: list[dict[str, Any]] = [json.loads(line) for line in table.read_text("utf-8").splitlines()]
    assert [(row["depth"], row["steps"]) for row in rows] == [(2, 10), (2, 20), (4, 10), (4, 20)]
    deep = rows[2]
    assert deep["parameters"] - deep["hidden"] == 100 * 256
    assert deep["tokens"] == 10 * 16 * 128
    assert deep["passes"] == round(20480 / 1010, 3)
    assert deep["curve"] == [[10, 5.0]]


def test_a_part_of_a_text_is_its_beginning(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("甲乙丙\r\n丁", encoding="utf-8", newline="")
    assert scaling.beginning(text, None, tmp_path) == text
    assert scaling.beginning(text, 2, tmp_path).read_text("utf-8") == "甲乙"

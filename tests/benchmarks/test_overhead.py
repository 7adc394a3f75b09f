"""The benchmark of what is no training step counts every second once."""

from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark finds its siblings in its own folder."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_rows_add_up_to_the_wall_time_and_what_is_inside_a_part_is_not_counted_again() -> None:
    from benchmarks.overhead import Call, summarise

    calls = [
        Call("importing", 0.0, 1.0, None),
        Call("metrics and console", 2.0, 0.5, None),  # before the first step
        Call("drawing batches", 4.0, 0.5, "training steps"),
        Call("training steps", 4.0, 2.0, None),
        Call("training steps", 6.0, 2.0, None),
        Call("metrics and console", 8.5, 0.25, "checkpoints"),
        Call("checkpoints", 8.0, 1.0, None),
    ]
    rows = summarise(calls, 0.0, 10.0)
    whole = {row.part: row.seconds for row in rows if row.of is None}
    assert whole == {
        "before the first step": 4.0, "training steps": 4.0, "checkpoints": 1.0, "the rest": 1.0,
    }  # fmt: skip
    assert sum(whole.values()) == 10.0
    parts = {(row.of, row.part): row.seconds for row in rows if row.of}
    assert parts["before the first step", "importing"] == 1.0
    assert parts["before the first step", "metrics and console"] == 0.5
    assert parts["training steps", "drawing batches"] == 0.5


def test_a_stopwatch_gives_what_the_function_gives_and_knows_what_is_inside_what() -> None:
    from benchmarks.overhead import Stopwatch

    def fail() -> None:
        raise ValueError

    house = SimpleNamespace(inner=lambda x: x + 1, fail=fail)
    house.outer = lambda x: house.inner(x) * 2
    watch = Stopwatch()
    for name in ("inner", "outer", "fail"):
        watch.wrap(house, name, name)
    assert house.outer(1) == 4
    with pytest.raises(ValueError):
        house.fail()
    assert house.inner(1) == 2
    assert [(call.part, call.inside) for call in watch.calls] == [
        ("inner", "outer"), ("outer", None), ("fail", None), ("inner", None),
    ]  # fmt: skip


def test_a_run_is_two_minutes_long_unless_a_length_is_given() -> None:
    from benchmarks.overhead import MINUTES, with_length

    assert with_length(["model.n_embd=32"]) == ["model.n_embd=32", MINUTES]
    assert with_length(["train.max_steps=9"]) == ["train.max_steps=9"]

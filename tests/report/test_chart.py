"""The geometry of charts."""

import doctest

from hypothesis import given
from hypothesis import strategies as st

from yanmo.report import chart
from yanmo.report.chart import MAX_POINTS, Curve, binned, draw, nice_ticks

VALUES = st.floats(-1e6, 1e6)


def test_the_examples_hold() -> None:
    assert doctest.testmod(chart).attempted > 0 and doctest.testmod(chart).failed == 0


@given(VALUES, st.floats(1e-3, 1e6))
def test_ticks_are_few_and_between(low: float, width: float) -> None:
    ticks = nice_ticks(low, low + width)
    assert 1 <= len(ticks) <= 7 and ticks == sorted(ticks)
    assert all(low - 1e-6 * width - 1e-9 <= tick <= low + width * (1 + 1e-6) + 1e-9 for tick in ticks)


@given(st.lists(VALUES, min_size=1, max_size=1000))
def test_a_long_line_is_thinned_between_its_least_and_its_greatest(values: list[float]) -> None:
    points = [(float(step), value) for step, value in enumerate(values, start=1)]
    drawn = binned(points)
    assert len(drawn) <= MAX_POINTS and drawn[-1][0] == points[-1][0]
    assert all(min(values) - 1e-3 <= value <= max(values) + 1e-3 for _, value in drawn)


def test_labels_of_close_levels_do_not_lie_on_each_other() -> None:
    found = draw([Curve("a", "a", [(1, 5.0), (2, 4.0)])], {"unigram": 4.5, "bigram": 4.49, "floor": 4.48})
    assert found is not None
    places = [label.at for label in found.level_labels]
    assert all(later - earlier >= 6.9 for earlier, later in zip(places, places[1:], strict=False))
    assert [label.name for label in found.level_labels] == ["unigram", "bigram", "floor"]


def test_a_training_loss_that_leaves_all_else_behind_does_not_flatten_the_picture() -> None:
    lines = [Curve("t", "t", [(1, 1e9), (2, 5.0)], is_main=False), Curve("h", "h", [(2, 5.0), (4, 4.0)])]
    found = draw(lines, {"unigram": 6.0})
    assert found is not None and {label.text for label in found.left} <= {"4", "4.5", "5", "5.5", "6"}


def test_whole_passes_are_marked_where_they_end() -> None:
    found = draw([Curve("h", "h", [(50, 5.0), (100, 4.0)])], {}, passes_per_step=0.04)
    assert found is not None and [(mark.text, mark.at) for mark in found.top] == [
        ("1", 25.0), ("2", 50.0), ("3", 75.0), ("4", 100.0)
    ]  # fmt: skip
    assert draw([Curve("h", "h", [(50, 5.0)])], {}, passes_per_step=0.001).top == []  # type: ignore[union-attr]


def test_nothing_is_drawn_of_nothing_and_a_single_point_is_a_dot() -> None:
    assert draw([Curve("h", "h", [])], {"unigram": 6.0}) is None
    found = draw([Curve("h", "h", [(10, 5.0)])], {})
    assert found is not None and found.dots == [("h", 100.0, 50.0)]

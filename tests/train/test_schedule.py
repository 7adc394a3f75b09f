import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yanmo.checkpoint.step_schedule import ScheduleRecord, StepSchedule
from yanmo.settings.schema import OptimConfig
from yanmo.train.schedule import learning_rate_at, window_parts

OPTIM = OptimConfig(learning_rate=1.0, min_lr=0.1, warmup_steps=10)


def test_warm_up_then_cosine_down_to_the_minimum() -> None:
    rates = [learning_rate_at(step, StepSchedule.first(110), OPTIM) for step in range(111)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[9] == pytest.approx(10 / 11)
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55)
    assert rates[110] == pytest.approx(0.1)
    assert all(a < b for a, b in zip(rates[:10], rates[1:11], strict=True))
    assert all(a > b for a, b in zip(rates[10:110], rates[11:], strict=True))


def test_without_warm_up_it_begins_at_the_peak() -> None:
    optim = OptimConfig(learning_rate=1.0, min_lr=0.0, warmup_steps=0)
    assert learning_rate_at(0, StepSchedule.first(10), optim) == 1.0


def test_the_rate_is_the_cosines_own_formula() -> None:
    for step in range(10, 110, 7):
        expected = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (step - 10) / 100))
        assert learning_rate_at(step, StepSchedule.first(110), OPTIM) == pytest.approx(expected)


@given(st.integers(20, 1000), st.integers(1, 999), st.integers(1, 3000))
def test_aiming_anew_never_makes_the_rate_jump_or_rise(first: int, at: int, more: int) -> None:
    plan = StepSchedule.first(first)
    at = min(at, first - 1)
    again = plan.replanned(at, at + more)
    assert learning_rate_at(at, again, OPTIM) == pytest.approx(learning_rate_at(at, plan, OPTIM))
    assert all(
        learning_rate_at(s, again, OPTIM) == learning_rate_at(s, plan, OPTIM) for s in range(at) if at > 10
    )
    rates = [learning_rate_at(step, again, OPTIM) for step in range(max(at, 10), at + more + 1)]
    assert all(a >= b - 1e-12 for a, b in zip(rates[:-1], rates[1:], strict=True))
    if at + more > 10:
        assert learning_rate_at(at + more, again, OPTIM) == pytest.approx(0.1)


def test_a_plan_survives_its_file() -> None:
    plan = StepSchedule.first(100).replanned(10, 80).replanned(30, 130)
    assert StepSchedule.of(ScheduleRecord.model_validate(plan.as_json())) == plan
    assert plan.total_steps == 130


def test_a_line_falls_as_gpt2_chinese_has_it() -> None:
    optim = OptimConfig(learning_rate=1.0, min_lr=0.0, warmup_steps=10, schedule="linear")
    rates = [learning_rate_at(step, StepSchedule.first(110), optim) for step in range(111)]
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[85] == pytest.approx(0.25)
    assert rates[110] == 0.0


def test_wsd_is_level_until_its_last_fifth() -> None:
    optim = OptimConfig(learning_rate=1.0, min_lr=0.1, warmup_steps=10, schedule="wsd")
    rates = [learning_rate_at(step, StepSchedule.first(110), optim) for step in range(111)]
    assert rates[9] < 1.0
    assert set(rates[10:90]) == {1.0}
    assert rates[100] == pytest.approx(0.55)
    assert rates[110] == pytest.approx(0.1)


def test_windows_are_halves_for_the_first_share_of_the_run() -> None:
    plan = StepSchedule.first(10)
    assert [window_parts(step, plan, 0.4) for step in range(10)] == [2] * 4 + [1] * 6
    assert {window_parts(step, plan, 0.0) for step in range(10)} == {1}
    anew = plan.replanned(5, 100)
    assert [window_parts(step, anew, 0.4) for step in (3, 4, 5, 99)] == [2, 1, 1, 1]

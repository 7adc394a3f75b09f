"""Signals: the first is remembered, a second one leaves, and an echo of the first does not."""

import os
import signal

import pytest

from yanmo.core.signals import ECHO_SECONDS, StopSignal


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_echo_of_the_first_signal_does_not_leave_and_a_second_signal_does() -> None:
    clock, calls = Clock(), []
    with StopSignal(lambda: calls.append("woken"), clock) as stop:
        assert stop.number is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.number == signal.SIGTERM
        clock.now += ECHO_SECONDS * 0.9
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.number, calls) == (signal.SIGTERM, ["woken"])
        clock.now += ECHO_SECONDS * 0.2
        with pytest.raises(SystemExit) as left:
            os.kill(os.getpid(), signal.SIGINT)
    assert left.value.code == 128 + signal.SIGINT


def test_handlers_are_given_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopSignal():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before

import io
import sys

import pytest

from yanmo.log import PLAIN_SECONDS, Progress, Voice, counted, span


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_live_lines_come_now_and_then() -> None:
    stream, now = io.StringIO(), [0.0]
    voice = Voice(stream, clock=lambda: now[0])
    for second in range(12):
        now[0] = float(second)
        voice.live(f"step {second}")
    lines = stream.getvalue().splitlines()
    assert lines == [f"step {s}" for s in range(0, 12, int(PLAIN_SECONDS))]


def test_on_a_terminal_there_is_one_live_line_and_said_lines_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    voice = Voice(stream)
    voice.live("step 1")
    voice.live("step 2")
    voice.say("an evaluation")
    voice.settle()
    shown = stream.getvalue()
    assert "step 1" in shown and "step 2" in shown
    assert "an evaluation\n" in shown.replace("\r", "")
    assert "\x1b[2K" in shown  # the live line is wiped
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h")  # the cursor comes back
    assert sys.stderr.__class__.__name__ != "FileProxy"


def test_long_lines_are_not_broken_and_markup_is_text() -> None:
    stream = io.StringIO()
    Voice(stream).say("[bold]字" * 100)
    assert stream.getvalue() == "[bold]字" * 100 + "\n"


def test_other_ranks_are_silent() -> None:
    stream = io.StringIO()
    voice = Voice(stream, is_main=False)
    voice.say("a")
    voice.live("b")
    voice.warn("c")
    assert stream.getvalue() == ""


def test_progress_says_how_far_and_how_long_still() -> None:
    stream = io.StringIO()
    with Progress(Voice(stream), "reading", total=200) as progress:
        progress.advance(50)
    assert stream.getvalue().startswith("reading   25%  0 s left")


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59, "59 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_spans_of_time_are_said_as_people_do(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_things_are_counted_as_people_do() -> None:
    assert [counted(number, "window") for number in (1, 2, 2000)] == [
        "1 window",
        "2 windows",
        "2,000 windows",
    ]

import io
import sys

import pytest

from tests.makers.console import stream, written
from yanmo.core.console import PLAIN_SECONDS, Console, ProgressLine, counted, guarded, span, visible


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_terminal_live_lines_come_now_and_then() -> None:
    stream, now = io.StringIO(), [0.0]
    console = Console(stream, clock=lambda: now[0])
    for second in range(12):
        now[0] = float(second)
        console.status(f"step {second}")
    lines = stream.getvalue().splitlines()
    assert lines == [f"step {s}" for s in range(0, 12, int(PLAIN_SECONDS))]


def test_on_a_terminal_there_is_one_live_line_and_said_lines_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    console = Console(stream)
    console.status("step 1")
    console.status("step 2")
    console.print("an evaluation")
    console.clear_status()
    shown = stream.getvalue()
    assert "step 1" in shown and "step 2" in shown
    assert "an evaluation\n" in shown.replace("\r", "")
    assert "\x1b[2K" in shown  # the live line is wiped
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h")  # the cursor comes back
    assert sys.stderr.__class__.__name__ != "FileProxy"


def test_long_lines_are_not_broken_and_markup_is_text() -> None:
    stream = io.StringIO()
    Console(stream).print("[bold]字" * 100)
    assert stream.getvalue() == "[bold]字" * 100 + "\n"


def test_other_ranks_are_silent() -> None:
    stream = io.StringIO()
    console = Console(stream, is_main=False)
    console.print("a")
    console.status("b")
    console.warn("c")
    assert stream.getvalue() == ""


def test_progress_says_how_far_and_how_long_still() -> None:
    stream = io.StringIO()
    with ProgressLine(Console(stream), "reading", total=200) as progress:
        progress.advance(50)
    assert stream.getvalue().startswith("reading   25%  0 s left")


def test_progress_says_no_time_before_it_can_know_one() -> None:
    stream = io.StringIO()
    with ProgressLine(Console(stream), "cleaning", total=50_000_000) as progress:
        progress.advance(30)  # a small document, and the processes have only just started
    assert "cleaning    0%" in stream.getvalue()
    assert "left" not in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0 s"),
        (59, "59 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
        (777_700, "9 days 0 h"),
        (90_000, "1 day 1 h"),
    ],
)
def test_spans_of_time_are_said_as_people_do(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_things_are_counted_as_people_do() -> None:
    assert [counted(number, "window") for number in (1, 2, 2000)] == [
        "1 window",
        "2 windows",
        "2,000 windows",
    ]


OBEYED = {
    "\x1b]0;title\x07": "\\x1b]0;title\\x07",
    "\x1b[31m红": "\\x1b[31m红",
    "\x9b2J": "\\x9b2J",
    "甲\u202e乙\u2069\u200f": "甲\\u202e乙\\u2069\\u200f",
    "a\rb\x08\x00\x7f": "a\\rb\\x08\\x00\\x7f",
}


@pytest.mark.parametrize("text", OBEYED)
def test_what_a_terminal_would_obey_is_shown_to_it_and_left_alone_elsewhere(text: str) -> None:
    assert visible(text) == OBEYED[text] == visible(visible(text))
    screen, pipe = stream(on_terminal=True), stream()
    for place in (screen, pipe):
        print(f"{text}\t字", file=guarded(guarded(place)))
    assert written(screen) == f"{OBEYED[text]}\t字\n"
    assert written(pipe).replace("\r\n", "\n") == f"{text}\t字\n"


@pytest.mark.parametrize("text", OBEYED)
def test_the_console_obeys_nobody_but_itself(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen = stream(on_terminal=True)
    with Console(guarded(screen)) as console:
        console.print(text)
        console.warn(text)
        console.status(text)
    shown = written(screen)
    assert shown.count(OBEYED[text]) >= 3 and text not in shown
    assert "\x1b[33m" in shown and "\x1b[2K" in shown  # its own colour, its own wiping


def test_every_scalar_value_that_is_no_command_is_shown_as_it_is() -> None:
    text = (
        "".join(map(chr, (*range(0x20, 0x7F), *range(0xA0, 0x61C), *range(0x2070, 0xD800), 0x20000))) + "\t\n"
    )
    assert visible(text) == text

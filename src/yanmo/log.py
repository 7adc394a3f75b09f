"""One console voice: a live line on a terminal, plain lines everywhere else, rank 0 only.

The voice speaks on standard error, so that standard output holds results and nothing else.
"""

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.live import Live

PLAIN_SECONDS = 5.0
"""Without a terminal a live line is printed at most once in so many seconds."""


class Voice:
    """Says lines that stay, and one live line that is replaced by the next.

    ``is_main`` is False on every rank but 0: then nothing is said.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        is_main: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from rich.console import Console

        self._console = Console(
            file=stream or sys.stderr, highlight=False, markup=False, soft_wrap=True, emoji=False
        )
        self.is_main = is_main
        self._clock = clock
        self._last_plain = float("-inf")
        self._live: Live | None = None  # while a live line stands

    def say(self, text: str = "", style: str | None = None) -> None:
        """Print a line that stays."""
        if self.is_main:
            self._console.print(text, style=style if self._console.is_terminal else None)

    def warn(self, text: str) -> None:
        """Print a line that stays and that somebody should read."""
        self.say(f"warning: {text}", style="yellow")

    def live(self, text: str) -> None:
        """Replace the live line; without a terminal print it now and then."""
        if not self.is_main:
            return
        if self._console.is_terminal:
            self._show(text)
        elif self._clock() - self._last_plain >= PLAIN_SECONDS:
            self._last_plain = self._clock()
            self._console.print(text)

    def settle(self) -> None:
        """Take the live line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __enter__(self) -> "Voice":
        return self

    def __exit__(self, *exc: object) -> None:
        self.settle()

    def _show(self, text: str) -> None:
        from rich.live import Live
        from rich.text import Text

        line = Text(text, no_wrap=True, overflow="ellipsis")
        if self._live is None:
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self._live.update(line, refresh=True)


MEGABYTE = 1_000_000


class Progress:
    """A live line for work whose size is known, mostly in bytes: how far, how fast, how long still."""

    def __init__(self, voice: Voice, what: str, total: float) -> None:
        self._voice = voice
        self._what = what
        self._total = max(total, 1)
        self._done = 0.0
        self._skipped = 0.0
        self._start = time.monotonic()

    def advance(self, amount: float) -> None:
        """Count ``amount`` more of the total and show it."""
        self._done += amount
        share = min(self._done / self._total, 1.0)
        rate = max(self._done - self._skipped, 1e-9) / max(time.monotonic() - self._start, 1e-9)
        speed = f"  {rate / MEGABYTE:.1f} MB/s" if self._total > MEGABYTE else ""
        self._voice.live(f"{self._what}  {share:4.0%}{speed}  {span((1 - share) * self._total / rate)} left")

    def skip(self, amount: float) -> None:
        """Count what was done before, which says nothing about the speed."""
        self._done += amount
        self._skipped += amount
        self._start = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exc: object) -> None:
        self._voice.settle()


def span(seconds: float) -> str:
    """A span of time as people say it: ``48 s``, ``3 min 05 s``, ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def counted(number: int, what: str) -> str:
    """A number of things: ``1 document``, ``2,000 documents``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"

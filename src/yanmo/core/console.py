"""The console: a live status line on a terminal, plain lines everywhere else, rank 0 only.

It writes to standard error, so that standard output holds results and nothing else. Names of files
and fields, and what models write, are others' text: a terminal gets it through :func:`visible`.
"""

import re
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from rich.live import Live

PLAIN_SECONDS = 5.0
"""Without a terminal a live line is printed at most once in so many seconds."""
TERMINAL_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that a terminal obeys: control characters but line end and tab, marks of writing direction."""


def visible(text: str) -> str:
    r"""A text that moves no cursor, rings no bell and turns no line around: ``\x1b`` stands for escape."""
    return TERMINAL_COMMANDS.sub(lambda found: ascii(found[0])[1:-1], text)


class Terminal:
    """A terminal's stream on which everything that is written is :func:`visible`; else as it is."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        """For those who command the terminal themselves."""

    def write(self, text: str) -> int:
        """Write what may be anybody's text."""
        return self.stream.write(visible(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def guarded(stream: TextIO) -> TextIO:
    """A stream as it is, but a terminal's with everything visible."""
    if not stream.isatty() or isinstance(stream, Terminal):
        return stream
    return cast(TextIO, Terminal(stream))


def unguarded(stream: TextIO) -> TextIO:
    """The stream itself, for rich, which draws with commands: what it shows has to be visible already."""
    return stream.stream if isinstance(stream, Terminal) else stream


class Console:
    """Says lines that stay, and one live line that is replaced by the next.

    ``is_main`` is False on every rank but 0: then nothing is said.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        is_main: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from rich.console import Console as RichConsole

        self._rich = RichConsole(
            file=unguarded(stream or sys.stderr), highlight=False, markup=False, soft_wrap=True, emoji=False
        )
        self.is_main = is_main
        self._clock = clock
        self._last_plain = float("-inf")
        self._live: Live | None = None  # while a live line stands

    def print(self, text: str = "", style: str | None = None) -> None:
        """Print a line that stays."""
        if self.is_main:
            on_terminal = self._rich.is_terminal
            self._rich.print(visible(text) if on_terminal else text, style=style if on_terminal else None)

    def print_marked(self, parts: Iterable[tuple[str, bool]], style: str) -> None:
        """Print a text whose marked parts have a style, or stand in ⟦ ⟧ where there is no terminal."""
        from rich.text import Text

        if not self.is_main:
            return
        if self._rich.is_terminal:
            styled = [(visible(text), style if is_marked else "") for text, is_marked in parts]
            self._rich.print(Text.assemble(*styled))
        else:
            self._rich.print("".join(f"⟦{text}⟧" if is_marked else text for text, is_marked in parts))

    def warn(self, text: str) -> None:
        """Print a line that stays and that somebody should read."""
        self.print(f"warning: {text}", style="yellow")

    def status(self, text: str) -> None:
        """Replace the live line; without a terminal print it now and then."""
        if not self.is_main:
            return
        if self._rich.is_terminal:
            self._show(text)
        elif self._clock() - self._last_plain >= PLAIN_SECONDS:
            self._last_plain = self._clock()
            self._rich.print(text)

    def clear_status(self) -> None:
        """Take the live line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __enter__(self) -> "Console":
        return self

    def __exit__(self, *exc: object) -> None:
        self.clear_status()

    def _show(self, text: str) -> None:
        from rich.live import Live
        from rich.text import Text

        line = Text(visible(text), no_wrap=True, overflow="ellipsis")
        if self._live is None:
            self._live = Live(
                console=self._rich,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self._live.update(line, refresh=True)


MEGABYTE = 1_000_000
MIN_SHARE = 0.01
"""Of the work that is done before it says how long the rest takes."""


class ProgressLine:
    """A live line for work whose size is known, mostly in bytes: how far, how fast, how long still."""

    def __init__(self, console: Console, what: str, total: float) -> None:
        self._console = console
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
        left = f"{speed}  {span((1 - share) * self._total / rate)} left" if share >= MIN_SHARE else ""
        self._console.status(f"{self._what}  {share:4.0%}{left}")

    def skip(self, amount: float) -> None:
        """Count what was done before, which says nothing about the speed."""
        self._done += amount
        self._skipped += amount
        self._start = time.monotonic()

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *exc: object) -> None:
        self._console.clear_status()


def span(seconds: float) -> str:
    """A span of time as people say it: ``48 s``, ``3 min 05 s``, ``2 h 10 min``, ``9 days 4 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{counted(whole // 86400, 'day')} {whole % 86400 // 3600} h"


def counted(number: int, what: str) -> str:
    """A number of things: ``1 document``, ``2,000 documents``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"

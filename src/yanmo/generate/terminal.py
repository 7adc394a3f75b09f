"""The console of ``yanmo chat``: lines that are typed, pasted or piped, and what each of them brings.

``converse`` reads lines and writes the answers of a :class:`Chat`; ``open_console`` knows about terminals.
"""

import contextlib
import io
import os
import select
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

from yanmo.core import storage
from yanmo.core.errors import YanmoError
from yanmo.generate.chat import PROMPT, Chat
from yanmo.generate.surprise import Coloured

LEAVE = "/bye or Ctrl-D leaves (/bye 或 Ctrl-D 退出)"
HISTORY_LINES = 1000
PASTE_SECONDS = 0.03
"""Lines that follow each other within this time were pasted: nobody types so fast."""


def converse(chat: Chat, read: Callable[[], str], write: Callable[[str], None]) -> None:
    """Read lines and write the answers, until /bye or the end of input. Ctrl-C never leaves."""
    while True:
        try:
            line = read()
            if line.strip() == "/bye":
                return
            if line.strip():
                respond(chat, line, write)
        except KeyboardInterrupt:
            write(f"\n{LEAVE}\n")
        except EOFError:
            return


def respond(chat: Chat, line: str, write: Callable[[str], None]) -> None:
    """Write the answer to a line. Ctrl-C ends only that; a mistake is answered in one line."""
    try:
        for piece in chat.answer(line):
            write(piece)
    except KeyboardInterrupt:
        write(" …\n")
    except YanmoError as error:
        write(f"{error.what}; {error.hint}\n")


# -- terminals --------------------------------------------------------------------------------


def open_console(chat: Chat) -> None:
    """Converse on standard input and output."""

    def write(text: str) -> None:
        # the terminal's guard makes escape codes visible, ours too
        stream = getattr(sys.stdout, "stream", sys.stdout) if isinstance(text, Coloured) else sys.stdout
        stream.write(text)
        stream.flush()

    chat.has_colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    # bytes that are not UTF-8 become surrogates, which ``encode`` refuses in a sentence, instead of a crash
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding=None if sys.stdin.isatty() else "utf-8", errors="surrogateescape")
    if not sys.stdin.isatty():
        converse(chat, lambda: read_piped(sys.stdin), write)
        return
    with history() as has_readline:
        converse(chat, (lambda: input(PROMPT)) if has_readline else read_pasted, write)


def read_piped(stream: TextIO) -> str:
    """The next line of a file or a pipe."""
    line = stream.readline()
    if not line:
        raise EOFError
    return line.rstrip("\r\n").removeprefix("\ufeff")  # Windows editors begin files with a byte order mark


def read_pasted(
    read: Callable[[str], str] = input, is_more: Callable[[], bool] = lambda: is_waiting(sys.stdin)
) -> str:
    """A typed line, or all the lines of a paste, where there is no readline to tell them apart."""
    lines = [read(PROMPT)]
    with contextlib.suppress(EOFError):
        while is_more():
            lines.append(read(""))
    return "\n".join(lines)


def is_waiting(stream: TextIO) -> bool:
    """Whether another line is there already; unknown on Windows, where select knows sockets only."""
    try:
        return bool(select.select([stream], [], [], PASTE_SECONDS)[0])
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def history() -> Iterator[bool]:
    """Line editing with the lines of earlier chats; whether there is such a thing here."""
    try:
        import readline
    except ImportError:  # Windows
        yield False
        return
    path = storage.cache_root() / "chat_history"
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(HISTORY_LINES)
    # the terminal marks a paste, so that its line ends do not send it line by line
    readline.parse_and_bind("set enable-bracketed-paste on")
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(path)

"""The command line: in a process of its own, or without one."""

import contextlib
import io
import os
import signal
import sys
from unittest.mock import patch

from tests.makers.processes import Child, Done, as_yanmo
from yanmo.cli.app import main


def yanmo(*words: str, typed: str | bytes = "", seconds: float = 120, **variables: str) -> Done:
    """In a process of its own; ``variables`` are set in its environment."""
    return Child(as_yanmo, list(words), typed=typed, **variables).done(seconds)


def here(*words: str, typed: str | bytes = "", on_terminal: bool = False) -> Done:
    """In this process; a traceback is the test's own. Ranks (``--nproc``) have processes of their own."""
    if any(word.startswith("--nproc") for word in words):
        return yanmo(*words, typed=typed)
    out, err = stream(on_terminal=on_terminal), stream(on_terminal=on_terminal)
    with (
        patch.object(sys, "argv", ["yanmo", *words]),
        patch.object(sys, "stdin", stream(typed)),
        patch.dict(os.environ, {"COLUMNS": "150"}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    if code == 128 + signal.SIGINT:  # whoever runs the tests wants to stop
        raise KeyboardInterrupt
    return Done(words, code, written(out), written(err))


class Screen(io.TextIOWrapper):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def stream(text: str | bytes = "", on_terminal: bool = False) -> io.TextIOWrapper:
    """What a pipe, or a terminal, is to Python."""
    data = io.BytesIO(text.encode() if isinstance(text, str) else text)
    return (Screen if on_terminal else io.TextIOWrapper)(data, encoding="utf-8")


def written(stream: io.TextIOWrapper) -> str:
    """All that was written, with the line ends of this machine as \\n."""
    stream.flush()
    raw = stream.buffer
    assert isinstance(raw, io.BytesIO)
    return raw.getvalue().decode("utf-8").replace(os.linesep, "\n")

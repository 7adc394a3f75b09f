"""Ctrl-C and SIGTERM: finish what is being done, save, and leave; a second signal leaves at once."""

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """Remembers that a signal came; ``number`` is None until then.

    Args:
        then: called when it comes, for work that sleeps and has to be woken.
    """

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.number: int | None = None
        self._then = then
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignal":
        try:
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._arrived)
        except ValueError:  # not the main thread: whoever runs us there keeps the signals
            pass
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            raise SystemExit(128 + number)
        self.number = number
        self._then()

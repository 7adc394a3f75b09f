"""Ctrl-C and SIGTERM: finish what is being done, save, and leave; a second signal leaves at once."""

import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ECHO_SECONDS = 0.5
"""Two signals as close as that are one: systemd tells every process, and a launcher then tells its ranks."""


class StopSignal:
    """Remembers that a signal came; ``number`` is None until then.

    Args:
        then: called when it comes, for work that sleeps and has to be woken.
        clock: seconds.
    """

    def __init__(
        self, then: Callable[[], object] = lambda: None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.number: int | None = None
        self._then, self._clock = then, clock
        self._arrival = 0.0
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
        if self.number is None:
            self.number, self._arrival = number, self._clock()
            self._then()
        elif self._clock() - self._arrival > ECHO_SECONDS:
            raise SystemExit(128 + number)

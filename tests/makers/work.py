"""How much work something is, in operations: the same on every machine, in every hour.

What a regular expression does within one call is not seen. So hostile texts are also tried at full length,
where anything worse than linear takes minutes: the budget of a test (``conftest.py``) is for that.
"""

import re
import sys
from collections.abc import Callable, Iterator
from types import FrameType, ModuleType
from typing import Any

import pytest


def calls(function: Callable[..., object], *arguments: Any) -> int:
    """Calls of functions and methods, Python's and C's, that ``function(*arguments)`` makes."""
    count = 0

    def watch(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        function(*arguments)
    finally:
        sys.setprofile(before)
    return count


def assert_linear(work: Callable[[int], int], n: int) -> None:
    """Eight times the length is eight times the work, or, where odd and even lengths differ, twice that."""
    once, more = work(n), work(8 * n)
    assert more <= 20 * once + 100, f"{once} operations at {n}, {more} at {8 * n}"


class Reading:
    """Counts the characters that a module's patterns, and searches of a :class:`Text`, look at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
        self.characters = 0
        for name, value in vars(module).copy().items():
            if isinstance(value, re.Pattern):
                monkeypatch.setattr(module, name, Pattern(value, self))


class Pattern:
    """A pattern that counts: up to the end of what it finds, or to the end of the text in vain."""

    def __init__(self, pattern: re.Pattern[str], reading: Reading) -> None:
        self._pattern, self._reading = pattern, reading

    def _count(self, text: str, at: int, found: re.Match[str] | None) -> re.Match[str] | None:
        self._reading.characters += (found.end() if found else len(text)) - at
        return found

    def search(self, text: str, at: int = 0) -> re.Match[str] | None:
        return self._count(text, at, self._pattern.search(text, at))

    def match(self, text: str, at: int = 0) -> re.Match[str] | None:
        return self._count(text, at, self._pattern.match(text, at))

    def fullmatch(self, text: str) -> re.Match[str] | None:
        return self._count(text, 0, self._pattern.fullmatch(text))

    def sub(self, new: Any, text: str) -> str:
        self._reading.characters += len(text)
        return self._pattern.sub(new, text)

    def finditer(self, text: str) -> Iterator[re.Match[str]]:
        self._reading.characters += len(text)
        return self._pattern.finditer(text)

    def split(self, text: str) -> list[str | Any]:
        self._reading.characters += len(text)
        return self._pattern.split(text)


class Text(str):
    """A text whose own searches are counted, too."""

    reading: Reading

    def find(self, what: str, start: int = 0, *end: int) -> int:  # type: ignore[override]
        found = super().find(what, start, *end)
        self.reading.characters += (found if found >= 0 else len(self)) - start
        return found

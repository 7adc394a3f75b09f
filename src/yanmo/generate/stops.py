"""Where a sample ends: before a stop text, or with its first sentence, paragraph, chapter or line.

In: the characters that were not released yet. Out: where they end, and how many of them are certain whatever
follows. A stop text may begin in one token and end in another, and a closing quote may follow a full stop: so
an ending that may become one is held back.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from yanmo.text.read.chapters import is_heading

CLOSING = "[”’」』）】〉》\"')]"
SENTENCE_END = re.compile(rf"(?:[。！？!?]++|…++(?=[”’」』\n])){CLOSING}*+(?=.)", re.DOTALL)
"""Marks and all that closes after them (``*+`` gives nothing back), when it is known what follows."""
OPEN_END = re.compile(rf"[。！？!?…]+{CLOSING}*$")
"""The same at the end, where a quote may still close."""


class TextEnd(NamedTuple):
    """What is known of some text."""

    end: int | None
    """How many of its characters belong to the sample; None: it has not ended."""
    certain: int
    """How many can be released."""


def find_end(text: str, stops: Sequence[str], stop_at: str | None, has_text: bool) -> TextEnd:
    """The first end of any kind.

    Args:
        text: what was not released yet.
        stops: texts that end a sample and are left out.
        stop_at: the unit with which it ends.
        has_text: whether anything but blanks was released before.
    """
    found = [text.index(stop) for stop in stops if stop in text]
    begun = max((overlap(text, stop) for stop in stops), default=0)
    unit = end_of_unit(text, stop_at, has_text) if stop_at else TextEnd(None, len(text))
    ends = [*found, *([unit.end] if unit.end is not None else [])]
    if ends:
        return TextEnd(min(ends), min(ends))
    return TextEnd(None, min(len(text) - begun, unit.certain))


def end_of_unit(text: str, unit: str, has_text: bool) -> TextEnd:
    """Where the first sentence, paragraph, chapter or line ends."""
    if unit == "chapter":
        return _before_heading(text, has_text)
    line_end = text.find("\n")
    if unit != "line":  # line ends before the first character are no end of it
        blank = 0 if has_text else len(text) - len(text.lstrip())
        line_end = text.find("\n", blank)
    ends = [line_end] if line_end >= 0 else []
    certain = len(text)
    if unit == "sentence":
        if mark := SENTENCE_END.search(text):
            ends.append(mark.end())
        elif is_open := OPEN_END.search(text):
            certain = is_open.start()
    return TextEnd(min(ends), min(ends)) if ends else TextEnd(None, certain)


def _before_heading(text: str, has_text: bool) -> TextEnd:
    """A chapter ends before the heading of the next; a line is judged when it is whole."""
    start = 0
    for line in text.split("\n")[:-1]:
        if (has_text or text[:start].strip()) and is_heading(line):
            return TextEnd(start, start)
        start += len(line) + 1
    return TextEnd(None, start)


def overlap(text: str, stop: str) -> int:
    """The length of the longest end of ``text`` that is a beginning of ``stop``."""
    # only where its first character stands: to try every length would take the square of a long stop text
    start = text.find(stop[0], max(len(text) - len(stop) + 1, 0))
    while start >= 0 and not stop.startswith(text[start:]):
        start = text.find(stop[0], start + 1)
    return len(text) - start if start >= 0 else 0

"""JSON text → its values, one by one, through a window that need not hold the whole file.

In: the beginning of a text and what follows it in pieces. Out: the elements of a list, or values that
follow one another, as Python has them. Where no piece follows, the window is the text.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

MAX_VALUE_CHARACTERS = 1 << 29
"""Characters of one value: more are taken for an end that is missing."""
NEAR_THE_END_CHARACTERS = 16
"""A value that breaks so near to the window's end may only be cut off."""

DECODER = json.JSONDecoder(strict=False)
BLANK = re.compile("[ \t\r\n\ufeff]*")
SEPARATORS = re.compile("[] \t\r\n\ufeff,]*")
STRING_OR_TRAILING_COMMA = re.compile(r'("[^"\\]*+(?:\\.[^"\\]*+)*+"?)|,(?=[ \t\r\n]*[\]}])', re.DOTALL)


class Broken(ValueError):
    """JSON that breaks at a place."""

    def __init__(self, why: str, at: int, line: int, column: int) -> None:
        super().__init__(why)
        self.why = why
        self.at = at
        self.line = line
        self.column = column


def only_value(line: str) -> Any:
    """The value of a line; a comma may follow.

    Raises:
        Broken: there is none, or more than one.
    """
    try:
        value, end = DECODER.raw_decode(line, 0)
        if end == len(line) or line[end:].isspace():
            return value
    except (ValueError, RecursionError):
        pass
    return Window(line).only_value()


class Window:
    """The part of a text that is being read."""

    def __init__(self, text: str, more: Iterator[str] | None = None) -> None:
        self.text = text
        self.at = 0
        self.forgotten = 0
        """Characters before the window."""
        self.is_only = False
        """Whether the value just read is all that there is, and no list."""
        self._more = more
        self._lines = 0
        self._column = 0

    def values(self) -> Iterator[tuple[Any, int]]:
        """Each value with the place in the text that is behind it and what separates it from the next."""
        in_list = self._next() == "["
        self.at += in_list
        is_first = True
        while (letter := self._next()) and not (in_list and letter == "]"):
            value = self.value()
            letter = self._next()
            self.is_only = is_first and not in_list and not letter
            is_first = False
            behind = SEPARATORS.match(self.text, self.at).end()  # type: ignore[union-attr]  # it matches nothing too
            yield value, self.forgotten + behind
            if letter == ",":
                self.at += 1
            elif in_list and letter != "]":
                raise self._broken("',' or ']' is expected")
        if in_list and not letter:
            raise self._broken("']' is expected")
        self.at += in_list
        if in_list and self._next():
            raise self._broken("nothing is expected behind the list")

    def only_value(self) -> Any:
        """The only value of a text; a comma may follow."""
        self._next()
        value = self.value()
        if self._next() == ",":
            self.at += 1
        if self._next():
            self.at -= self.text[self.at - 1] == ","
            raise self._broken("the line's end is expected")
        return value

    def value(self) -> Any:
        """The value that begins here; the window grows until it is whole."""
        is_mended = False
        while True:
            try:
                return self._strict_value()
            except Broken as error:
                if self._is_cut_off(error) and self._grow():
                    is_mended = False
                elif is_mended:
                    raise
                else:  # the whole window at once: its next values are not mended again
                    rest = STRING_OR_TRAILING_COMMA.sub(lambda m: m[1] or " ", self.text[self.at :])
                    self.text, is_mended = self.text[: self.at] + rest, True

    def _strict_value(self) -> Any:
        try:
            value, end = DECODER.raw_decode(self.text, self.at)
        except json.JSONDecodeError as error:
            raise self._broken(error.msg, error.pos) from error
        except RecursionError as error:
            raise self._broken("brackets are nested too deeply") from error
        except ValueError as error:  # an integer of thousands of digits
            raise self._broken(str(error)) from error
        is_near = end + NEAR_THE_END_CHARACTERS > len(self.text)
        if is_near and isinstance(value, int | float) and self._grow():
            return self._strict_value()  # a number may go on
        self.at = end
        return value

    def _is_cut_off(self, error: Broken) -> bool:
        return error.at + NEAR_THE_END_CHARACTERS > len(self.text) or error.why.startswith(
            "Unterminated string"
        )

    def _next(self) -> str:
        """The next character that is not blank, or nothing at the end."""
        while True:
            self.at = BLANK.match(self.text, self.at).end()  # type: ignore[union-attr]  # it matches nothing too
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._grow():
                return ""

    def _grow(self) -> bool:
        """Forget what is read, and add at least half of what is kept, so that growing takes linear time."""
        kept = self.text[self.at :]
        if self._more is None or len(kept) > MAX_VALUE_CHARACTERS:
            return False
        added: list[str] = []
        while not added or sum(map(len, added)) < len(kept) // 2:
            piece = next(self._more, None)
            if piece is None:
                break
            added.append(piece)
        if not added:
            self._more = None
            return False
        lines = self.text.count("\n", 0, self.at)
        self._column = self.at - self.text.rfind("\n", 0, self.at) - 1 if lines else self._column + self.at
        self._lines += lines
        self.forgotten += self.at
        self.text, self.at = "".join([kept, *added]), 0
        return True

    def _broken(self, why: str, at: int | None = None) -> Broken:
        at = self.at if at is None else at
        lines = self.text.count("\n", 0, at)
        column = at - self.text.rfind("\n", 0, at) if lines else self._column + at + 1
        return Broken(why, at, self._lines + lines + 1, column)

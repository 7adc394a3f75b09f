r"""JSON → texts: lists of strings or objects (.json), and one value to a line (.jsonl).

In: the text of a .json file, or the stream of a .jsonl file. Out: :class:`Record`, one for each value,
with its text or with the reason why it has none, so that every value is counted by somebody. A .json file
that cannot be read any further, or the wrong name of the field, is :class:`Unusable`.

Read as written by all kinds of programs: raw control characters in strings, trailing commas, a byte-order
mark, and .json files that hold one value after another are accepted.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from yanmo.text.encodings import read_lines

BROKEN = "broken JSON"
UNDECODABLE = "undecodable"
NEITHER = "neither text nor object"
SHOWN = 10
SHOWN_CHARACTERS = 40
"""How many fields an error names, and how much of each name."""

DECODER = json.JSONDecoder(strict=False)
BLANK = re.compile("[ \t\r\n\ufeff]*")
SEPARATORS = re.compile("[] \t\r\n\ufeff,]*")
STRING_OR_TRAILING_COMMA = re.compile(r'("[^"\\]*+(?:\\.[^"\\]*+)*+"?)|,(?=[ \t\r\n]*[\]}])', re.DOTALL)


@dataclass(frozen=True)
class Record:
    """The text of one value and its share of the file's bytes, or why there is none."""

    number: int
    """The line (.jsonl) or element (.json), from 1."""
    size: float
    text: str = ""
    encoding: str = ""
    dropped: str = ""
    """The reason, as it is counted."""
    place: str = ""
    """Where a dropped one stands, as ``:line:column``."""
    why: str = ""
    """What is wrong in this case."""


class Unusable(Exception):
    """A file that cannot be used, or not any further.

    ``reason`` is what is counted, ``what``, ``place`` and ``mend`` what a person reads.
    """

    def __init__(self, reason: str, what: str, place: str = "", mend: str = "") -> None:
        super().__init__(what)
        self.reason = reason
        self.what = what
        self.place = place
        self.mend = mend


class _Broken(ValueError):
    """JSON that breaks at a place."""

    def __init__(self, text: str, at: int, why: str) -> None:
        super().__init__(why)
        self.line = text.count("\n", 0, at) + 1
        self.column = at - text.rfind("\n", 0, at)
        self.why = why


def read_json(text: str, field: str, size: int) -> Iterator[Record]:
    """The records of a .json file.

    Args:
        text: the whole file.
        field: which field of an object is the text.
        size: of the file, shared out among the records.

    Raises:
        Unusable: the JSON is broken, or the first record is an object without the field.
    """
    before = 0
    try:
        for number, (value, end) in enumerate(_values(text), 1):
            share = size * (end - before) / len(text)
            yield _record(value, field, Record(number, share, place=f"#{number}"), is_first=number == 1)
            before = end
    except _Broken as error:
        raise Unusable(
            BROKEN,
            f"{BROKEN} at line {error.line}, column {error.column}: {error.why}",
            f":{error.line}:{error.column}",
            "mend the file there; or write one object to a line and name it .jsonl, then only broken lines"
            " are dropped",
        ) from error


def read_jsonl(stream: BinaryIO, field: str, encoding: str = "auto") -> Iterator[Record]:
    """The records of a .jsonl file, of which never more than one line is in memory.

    A line that is broken or cannot be decoded is a dropped record; blank lines are none.

    Raises:
        Unusable: the first record is an object without the field.
        LookupError: no encoding has this name.
    """
    size, is_first = 0, True
    for number, line in enumerate(read_lines(stream, encoding), 1):
        size += line.size
        if not (line.undecodable or line.text.strip()):
            continue
        record = Record(number, size, encoding=line.encoding, place=f":{number}")
        size = 0
        if line.undecodable:
            yield replace(record, dropped=UNDECODABLE, why=f"not readable text: {line.undecodable}")
            continue
        try:
            value = _only_value(line.text)
        except _Broken as error:
            place = f":{number}:{error.column}"
            yield replace(record, dropped=BROKEN, place=place, why=f"{BROKEN}: {error.why}")
            continue
        yield _record(value, field, record, is_first)
        is_first = False


def _record(value: Any, field: str, record: Record, is_first: bool) -> Record:
    """``record`` with the text of a value, or with the reason why it has none."""
    text = value.get(field) if isinstance(value, dict) else value
    if isinstance(text, str):
        return replace(record, text=text)
    if not isinstance(value, dict):
        return replace(record, dropped=NEITHER, why=f"{NEITHER}: {_kind(value)}")
    if field in value:
        reason = f"field '{field}' is no string"
        return replace(record, dropped=reason, why=f"{reason}: {_kind(text)}")
    reason = f"no field '{field}'"
    if is_first:
        raise Unusable(
            reason,
            f"the first record has {reason}; it has {_names(value)}",
            record.place,
            "say which one is the text: corpus.text_field=NAME",
        )
    return replace(record, dropped=reason, why=f"{reason}; there is {_names(value)}")


def _names(value: dict[str, Any]) -> str:
    names = [f"'{name[:SHOWN_CHARACTERS]}'" for name in list(value)[:SHOWN]]
    return ", ".join([*names, "…"] if len(value) > SHOWN else names) or "none"


def _kind(value: Any) -> str:
    """What JSON calls a value that is no string."""
    if value is None:
        return "null"
    names: dict[type, str] = {list: "a list", dict: "an object", bool: "true or false"}
    return names.get(type(value), "a number")


# -- values -----------------------------------------------------------------------------------


def _values(text: str) -> Iterator[tuple[Any, int]]:
    """The elements of a list, or values that follow one another, each with the place behind it."""
    at = _skip(text, 0)
    in_list = text.startswith("[", at)
    at = _skip(text, at + 1) if in_list else at
    while at < len(text) and not (in_list and text[at] == "]"):
        value, at, text = _value(text, at)
        yield value, SEPARATORS.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing too
        at = _skip(text, at)
        if text.startswith(",", at):
            at = _skip(text, at + 1)
        elif in_list and not text.startswith("]", at):
            raise _Broken(text, at, "',' or ']' is expected")
    if in_list and at == len(text):
        raise _Broken(text, at, "']' is expected")
    if in_list and _skip(text, at + 1) < len(text):
        raise _Broken(text, _skip(text, at + 1), "nothing is expected behind the list")


def _only_value(line: str) -> Any:
    value, at, line = _value(line, _skip(line, 0))
    at = _skip(line, at)
    if at < len(line) and (line[at] != "," or _skip(line, at + 1) < len(line)):
        raise _Broken(line, at, "the line's end is expected")
    return value


def _value(text: str, at: int) -> tuple[Any, int, str]:
    """(value, the place behind it, the text, in which trailing commas may have become spaces)."""
    try:
        return *_strict_value(text, at), text
    except _Broken:
        text = STRING_OR_TRAILING_COMMA.sub(lambda match: match[1] or " ", text)
        return *_strict_value(text, at), text


def _strict_value(text: str, at: int) -> tuple[Any, int]:
    try:
        return DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        raise _Broken(text, error.pos, error.msg) from error
    except RecursionError as error:
        raise _Broken(text, at, "brackets are nested too deeply") from error
    except ValueError as error:  # an integer of thousands of digits
        raise _Broken(text, at, str(error)) from error


def _skip(text: str, at: int) -> int:
    """The place of the next character that is not blank."""
    return BLANK.match(text, at).end()  # type: ignore[union-attr]  # it matches nothing too

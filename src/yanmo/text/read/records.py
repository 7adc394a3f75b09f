r"""JSON → texts: lists of strings or objects (.json), and one value to a line (.jsonl).

In: the text of a .json file, or the stream of a .jsonl file. Out: :class:`Record`, one for each value, with
its text or with the reason why it has none, so that every value is counted by somebody. A .json that is one
object around a list of records has one for each of these; a list of strings is a dialogue, whose turns are
lines. A .json file that cannot be read any further, or the wrong name of the field, is :class:`Unusable`.

Read as written by all kinds of programs: raw control characters in strings, trailing commas, a byte-order
mark, and .json files that hold one value after another are accepted.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from yanmo.core.commands import install_command
from yanmo.text.read.encodings import read_lines
from yanmo.text.read.fields import ABSENT, is_turns, small_fields, suggest, text_at, wrapped_records
from yanmo.text.read.json_values import Broken, Window, only_value

BROKEN = "broken JSON"
UNDECODABLE = "undecodable"
EMPTY = "empty"
NEITHER = "neither text nor object"
SHOWN_NAMES = 10
SHOWN_NAME_CHARACTERS = 40
"""How many fields an error names, and how much of each name."""


@dataclass(slots=True)
class Record:
    """The text of one value and its share of the file's bytes, or why there is none.

    There are millions of them, each filled in once; so it has slots and is not frozen.
    """

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
    fields: dict[str, Any] = field(default_factory=dict)
    """What else the value says: short strings and numbers."""
    undecodable_bytes: int = 0
    """Bytes that became U+FFFD."""
    is_part: bool = False
    """Whether the text is a part of one too large for a document."""
    value: Any = None
    """The whole value, where no field was asked for."""


class Unusable(Exception):
    """A file that cannot be used, or not any further.

    ``reason`` is what is counted, ``what``, ``place`` and ``hint`` what a person reads.
    """

    def __init__(self, reason: str, what: str, place: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.reason = reason
        self.what = what
        self.place = place
        self.hint = hint


class NeedsExtra(Unusable):
    """A file of a kind that takes a library of the extra ``files``."""

    def __init__(self, library: str, kind: str) -> None:
        super().__init__(
            "needs yanmo[files]", f"reading {kind} takes {library}", hint=install_command("files")
        )


def read_json(
    text: str, path: str | None, size: int, more: Iterator[tuple[str, int]] | None = None
) -> Iterator[Record]:
    """The records of a .json file.

    Args:
        text: the whole file, or its beginning.
        path: which field of an object is the text; None: the records have whole values.
        size: bytes of ``text``, shared out among the records.
        more: what follows ``text``, with its bytes.

    Raises:
        Unusable: the JSON is broken, or the first record is an object without the field.
    """
    characters, before = len(text), 0

    def following() -> Iterator[str]:
        nonlocal characters, size
        for piece, piece_size in more or ():
            characters += len(piece)
            size += piece_size
            yield piece

    window = Window(text, following() if more is not None else None)
    try:
        for number, (value, end) in enumerate(window.values(), 1):
            share = size * (end - before) / characters
            before = end
            # One object may be a record or be wrapped around records; of several each is a record.
            wrapped = wrapped_records(value, path) if window.is_only else None
            items, within = wrapped or ([value], path)
            for place, item in enumerate(items, number):
                record = Record(place, share / len(items), place=f"#{place}")
                yield record_of(item, within, record, is_first=place == 1)
    except Broken as error:
        raise Unusable(
            BROKEN,
            f"{BROKEN} at line {error.line}, column {error.column}: {error.why}",
            f":{error.line}:{error.column}",
            "fix the file there; or write one object to a line and name it .jsonl, then only broken lines"
            " are dropped",
        ) from error


def read_jsonl(stream: BinaryIO, path: str | None, encoding: str = "auto") -> Iterator[Record]:
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
            value = only_value(line.text)
        except Broken as error:
            place = f":{number}:{error.column}"
            yield replace(record, dropped=BROKEN, place=place, why=f"{BROKEN}: {error.why}")
            continue
        yield record_of(value, path, record, is_first)
        is_first = False


def record_of(value: Any, path: str | None, record: Record, is_first: bool) -> Record:
    """``record`` filled in with the text of a value, or with the reason why it has none.

    Without a path it has the value.

    Raises:
        Unusable: ``is_first``, and the value is an object without the field.
    """
    if path is None:
        record.value = value
        return record
    if isinstance(value, str):  # a list of texts, as GPT2-Chinese's train.json is
        record.text = value
        return record
    if is_turns(value):
        record.text = "\n".join(value)
        return record
    if not isinstance(value, dict):
        return _of_turns(value, path, record, is_first)
    text = value.get(path)
    if not isinstance(text, str):
        text = text_at(value, path)
    if isinstance(text, str):
        record.text, record.fields = text, small_fields(value, path)
        return record
    return _without_text(value, text, path, record, is_first)


def _of_turns(value: Any, path: str, record: Record, is_first: bool) -> Record:
    """The same of a list of objects, whose texts are lines."""
    if not (isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value)):
        return replace(record, dropped=NEITHER, why=f"{NEITHER}: {kind_name(value)}")
    text = text_at(value, path)
    if isinstance(text, str):
        record.text = text
        return record
    return _without_text(value[0], text, path, record, is_first)


def _without_text(value: dict[str, Any], text: Any, path: str, record: Record, is_first: bool) -> Record:
    """Why an object has none at a path, where ``text`` stands."""
    if text is not ABSENT:
        reason = f"field '{path}' is no string"
        return replace(record, dropped=reason, why=f"{reason}: {kind_name(text)}")
    reason = f"no field '{path}'"
    if is_first:
        raise Unusable(
            reason,
            f"the first record has {reason}; it has {field_names(value)}",
            record.place,
            f"say which one is the text: corpus.text_field={suggest(value) or 'NAME'}",
        )
    return replace(record, dropped=reason, why=f"{reason}; there is {field_names(value)}")


def field_names(value: dict[str, Any]) -> str:
    """The fields there are, for people."""
    names = [f"'{name[:SHOWN_NAME_CHARACTERS]}'" for name in list(value)[:SHOWN_NAMES]]
    return ", ".join([*names, "…"] if len(value) > SHOWN_NAMES else names) or "none"


def kind_name(value: Any) -> str:
    """What JSON calls a value; a .parquet has others."""
    if value is None:
        return "null"
    names: dict[type, str] = {
        str: "a string", list: "a list", dict: "an object", bool: "true or false", bytes: "bytes",
    }  # fmt: skip
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)

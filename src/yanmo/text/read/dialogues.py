"""Data sets of dialogues and of preferences → a stream of them, and counts that add up.

In: the [corpus] section: .jsonl, .json, .csv, .tsv and .parquet files (packed or not), folders and globs of
them. Out: :class:`Dialogue` or :class:`Pair` objects, and :class:`DialogueCounts`: read = kept + dropped by
reason. Nothing is registered: ``turns.py`` recognises each record by its keys. What is malformed never stops
reading, unless nothing is left.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

from yanmo.core.errors import DataError
from yanmo.settings.schema import CorpusConfig
from yanmo.text.read.containers import Entry
from yanmo.text.read.documents import DEMO, check_encoding, read_entries, records_in
from yanmo.text.read.records import BROKEN, EMPTY, UNDECODABLE, Record, Unusable
from yanmo.text.read.sources import find_files
from yanmo.text.read.tables import BROKEN as BROKEN_ROW
from yanmo.text.read.tables import RAGGED
from yanmo.text.read.turns import MENDS as MENDS_OF_VALUES
from yanmo.text.read.turns import Dialogue, Malformed, Pair, read_value, shape_of

Kind = Literal["dialogues", "pairs", "text"]
WITH_VALUES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""Kinds of files that have records; in others is text."""
LOOKED_AT = 100
"""Records at a file's beginning that say what it is."""
NAMED_PLACES = 3
"""So many places are named for each reason."""
OF_ANOTHER_KIND = "of another kind"
MENDS = MENDS_OF_VALUES | {
    BROKEN: "write one whole object to a line; a file that is one list is named .json",
    UNDECODABLE: "if the encoding is another one, name it: corpus.encoding=shift_jis",
    RAGGED: "put quotes around a field with commas in it",
    BROKEN_ROW: "close each quote, and double quotes within quotes",
    OF_ANOTHER_KIND: "keep dialogues and pairs in files of their own",
}


@dataclass
class DialogueCounts:
    """What became of every record that was read."""

    files: int = 0
    bytes: int = 0
    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """How many, by reason."""
    changed: Counter[str] = field(default_factory=Counter)
    """Of those that are kept, how many had to be changed, by what was done."""
    places: dict[str, list[str]] = field(default_factory=dict)
    """Where the first ones of each reason or change are."""
    files_passed_over: Counter[str] = field(default_factory=Counter)

    def keep(self, found: Dialogue | Pair, where: str) -> Dialogue | Pair:
        """Count one that is kept, and hand it on."""
        self.read += 1
        self.kept += 1
        for change in found.changes:
            self.changed[change] += 1
            self._name(change, where)
        return found

    def drop(self, reason: str, named: str) -> None:
        """Count one that is dropped, and say where and why."""
        self.read += 1
        self.dropped[reason] += 1
        self._name(reason, named)

    def _name(self, reason: str, named: str) -> None:
        places = self.places.setdefault(reason, [])
        if len(places) < NAMED_PLACES:
            places.append(named)

    def as_json(self) -> dict[str, Any]:
        """Plain dictionaries, for a manifest."""
        return {
            key: dict(value) if isinstance(value, Counter) else value for key, value in vars(self).items()
        }

    def lines(self) -> list[str]:
        """The same for people."""
        found = [f"kept       {self.kept:,} of {self.read:,} records"]
        for word, counted in (("dropped", self.dropped), ("changed", self.changed)):
            for reason, number in counted.most_common():
                found.append(f"{word}    {number:,}: {reason} ({'; '.join(self.places[reason])})")
        return found


def recognise(paths: Sequence[str], encoding: str = "auto") -> Kind:
    """What a corpus holds, by the first records of its files.

    Files whose records nobody knows say nothing; where all are so, it is text.

    Raises:
        DataError: a path is missing or unreadable, or files hold different kinds.
    """
    check_encoding(encoding)
    known: dict[Kind, str] = {}
    for where, kind in _kinds(paths, encoding):
        known.setdefault(kind, where)
        if len(known) > 1:
            (one, first), (other, second) = known.items()
            raise DataError(
                f"{first} holds {one}, and {second} holds {other}",
                where=", ".join(paths),
                hint="name files of one kind",
            )
    return next(iter(known), "text")


def read_dialogues(corpus: CorpusConfig, counts: DialogueCounts | None = None) -> Iterator[Dialogue | Pair]:
    """Stream the dialogues of a corpus, or its pairs, in a fixed order (as given; folders and globs by name).

    Args:
        corpus: paths, and their encoding.
        counts: filled in while reading.

    Raises:
        DataError: a path is missing, a file named as such is damaged, or nothing is left.
    """
    check_encoding(corpus.encoding)
    counts = counts if counts is not None else DialogueCounts()
    kept: type | None = None
    for found, where in _values(corpus, counts):
        kept = kept or type(found)
        if type(found) is not kept:
            counts.drop(OF_ANOTHER_KIND, where)
            continue
        yield counts.keep(found, where)
    if not counts.kept:
        raise _nothing_left(corpus, counts)


def _nothing_left(corpus: CorpusConfig, counts: DialogueCounts) -> DataError:
    reasons = ", ".join(f"{reason}: {number:,}" for reason, number in counts.dropped.most_common(3))
    first = next(iter(counts.places), EMPTY)
    return DataError(
        f"no dialogue is left of {counts.read:,} records ({reasons or EMPTY})",
        where=next(iter(counts.places.get(first, [])), ", ".join(corpus.path)),
        hint=MENDS.get(first, "give a file with dialogues"),
    )


def _values(corpus: CorpusConfig, counts: DialogueCounts) -> Iterator[tuple[Dialogue | Pair, str]]:
    """Each dialogue or pair, and where it lies."""

    def of_entry(entry: Entry, where: str, name: str) -> Iterator[tuple[Dialogue | Pair, str]]:
        before = counts.read
        for record in records_in(entry, None, corpus.encoding):
            place = f"{where}{record.place}"
            try:
                yield _read_record(record, f"{name}{record.place}"), place
            except Malformed as error:
                counts.drop(error.reason, f"{place}: {error}")
        if counts.read == before:
            raise Unusable(EMPTY, "the file is empty", hint="give a file with records")

    for path in corpus.path:
        source = find_files(path)
        counts.files_passed_over.update(source.passed_over)
        for file in source.files:
            yield from read_entries(file, source.name(file), source.is_search, counts, of_entry)


def _read_record(record: Record, where: str) -> Dialogue | Pair:
    if record.dropped:
        raise Malformed(record.dropped, record.why)
    return read_value(record.value, where)


def _kinds(paths: Sequence[str], encoding: str) -> Iterator[tuple[str, Kind]]:
    """Of each file whose kind is known, where it lies and its kind."""

    def of_entry(entry: Entry, where: str, _: str) -> Iterator[tuple[str, Kind]]:
        if entry.kind not in WITH_VALUES:
            yield where, "text"
            return
        for record in islice(records_in(entry, None, encoding), LOOKED_AT):
            if isinstance(record.value, list) and record.value and shape_of(record.value[0]):
                raise DataError(
                    "one line holds a whole list of records",
                    where=f"{where}{record.place}",
                    hint="name the file .json, or write one record to a line",
                )
            if kind := _kind_of(record):
                yield where, kind
                return

    for path in paths:
        if path == DEMO:
            yield path, "text"
            continue
        source = find_files(path)
        for file in source.files:
            yield from read_entries(file, source.name(file), source.is_search, DialogueCounts(), of_entry)


def _kind_of(record: Record) -> Kind | None:
    """What a record is: a text has no other shape."""
    value = record.value
    is_text = isinstance(value, str) or (isinstance(value, dict) and isinstance(value.get("text"), str))
    return shape_of(value) or ("text" if is_text else None)

"""Tables → records: .parquet and .csv or .tsv, a row for a record.

In: a stream. Out: :class:`Record`. Of a .parquet only the columns that are needed are read, in batches of a
few rows. A .csv or .tsv is read line by line; its first row names the columns. In a .csv a field may hold
line ends within quotes; a .tsv has no quotes. A row of another length, or with broken quotes, is dropped and
counted, and no row with it.
"""

import csv
import io
import itertools
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from yanmo.text.read.containers import DAMAGED, FREE_BYTES, UnpackBudget, read_whole
from yanmo.text.read.encodings import Line, read_lines
from yanmo.text.read.fields import BESIDE, roots
from yanmo.text.read.records import UNDECODABLE, NeedsExtra, Record, Unusable, record_of

BATCH_ROWS = 64
"""Rows of a .parquet in memory at a time."""
DENSE_RATIO = 20
"""A row group that is packed more densely than so many times is read in fewer rows at a time."""
RAGGED = "row of another length"
BROKEN = "broken row"
MAX_ROW_CHARACTERS = 1 << 26
"""Characters of a row of a .csv: more are taken for a quote that is missing."""
DELIMITERS = (",", ";", "\t", "|")
NAMED_DELIMITER = re.compile('"?sep=(.)"?', re.IGNORECASE)
"""How Excel names it in a line of its own."""
QUOTED = re.compile('"[^"]*+"')


def read_parquet(stream: BinaryIO, path: str | None) -> Iterator[Record]:
    """The rows of a .parquet.

    Raises:
        Unusable: the file is damaged, has no such column, or the library is missing.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise NeedsExtra("pyarrow", ".parquet") from error
    source = (
        stream
        if isinstance(stream, io.BufferedReader) and _is_plain(stream)
        else io.BytesIO(read_whole(stream))
    )
    try:
        yield from _rows(pyarrow.parquet, source, path)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        what = str(error).partition("\n")[0]
        raise Unusable(DAMAGED, f"the file is damaged: {what}", hint="fetch it again") from error


def _is_plain(stream: io.BufferedReader) -> bool:
    return isinstance(stream.raw, io.FileIO)


def _rows(parquet: Any, source: Any, path: str | None) -> Iterator[Record]:
    """The rows of all row groups; of several, a damaged one is a dropped record."""
    size = source.seek(0, io.SEEK_END)
    source.seek(0)
    with parquet.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20) as table:
        names = list(table.schema_arrow.names)
        wanted = roots(path, names) if path is not None else []
        columns = [n for n in names if n in wanted or n in BESIDE] if wanted else None
        share, number, is_first = size / max(table.metadata.num_rows, 1), 0, True
        budget = UnpackBudget(lambda: size)
        for group in range(table.num_row_groups):
            try:
                for row in _rows_of_group(table, group, columns, budget):
                    number += 1
                    record = Record(number, share, "", "parquet", place=f"#{number}")
                    if row is None:
                        yield replace(record, dropped=UNDECODABLE, why="not readable text")
                        continue
                    yield record_of(row, path, record, is_first)
                    is_first = False
            except (OSError, ValueError) as error:  # pyarrow's are both
                if table.num_row_groups == 1:
                    raise
                number += 1
                place = f"/row-group-{group}"
                yield Record(number, 0, dropped=DAMAGED, place=place, why=str(error).partition("\n")[0])


def _rows_of_group(table: Any, group: int, columns: list[str] | None, budget: UnpackBudget) -> Iterator[Any]:
    """The rows of a row group; None for one whose text cannot be decoded.

    What the file says of its size is believed where it speaks against it; what comes out is counted as well,
    for a value that is stored once may stand in every row.
    """
    said = table.metadata.row_group(group)
    chunks = [said.column(number) for number in range(said.num_columns)]
    if columns is not None:
        chunks = [chunk for chunk in chunks if chunk.path_in_schema.partition(".")[0] in columns]
    unpacked = sum(chunk.total_uncompressed_size for chunk in chunks)
    packed = sum(chunk.total_compressed_size for chunk in chunks)
    budget.refuse_beyond(unpacked)  # before pyarrow asks for so much memory
    rows = BATCH_ROWS if unpacked <= DENSE_RATIO * packed else min(max(FREE_BYTES // unpacked, 1), BATCH_ROWS)
    for batch in table.iter_batches(batch_size=rows, row_groups=[group], columns=columns):
        budget.spend(batch.nbytes)
        try:
            yield from batch.to_pylist()
        except UnicodeDecodeError:
            yield from map(_decoded_row, (batch.slice(number, 1) for number in range(batch.num_rows)))


def _decoded_row(batch: Any) -> Any:
    try:
        return batch.to_pylist()[0]
    except UnicodeDecodeError:
        return None


def read_csv(stream: BinaryIO, path: str | None, encoding: str) -> Iterator[Record]:
    """The rows of a .csv.

    Raises:
        Unusable: the first row has no such column.
        LookupError: no encoding has this name.
    """
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_CHARACTERS))
    lines = _Lines(stream, encoding)
    yield from _records(_quoted_rows(lines, lines.delimiter()), lines, path)


def read_tsv(stream: BinaryIO, path: str | None, encoding: str) -> Iterator[Record]:
    """The rows of a .tsv: a line each, in which quotes are characters like others.

    Raises: as :func:`read_csv`.
    """
    lines = _Lines(stream, encoding)
    lines.delimiter()
    rows = (line.rstrip("\r\n").split("\t") if line.strip() else [] for line in lines)
    yield from _records(((row, "") for row in rows), lines, path)


def _records(rows: Iterator[tuple[list[str], str]], lines: "_Lines", path: str | None) -> Iterator[Record]:
    """Records of (row, what is broken in it)."""
    header: list[str] = []
    number, is_first = 0, True
    for row, broken in rows:
        if not (row or broken or lines.undecodable):
            continue  # a blank line
        if row and not header and not lines.undecodable:  # the first row names the columns
            header = [name.strip() for name in row]
            continue
        number += 1
        record = Record(number, lines.spent(), "", lines.encoding, place=f":{lines.began}")
        if lines.undecodable:
            yield replace(record, dropped=UNDECODABLE, why=f"not readable text: {lines.undecodable}")
        elif broken:
            yield replace(record, dropped=BROKEN, why=f"{BROKEN}: {broken}")
        elif len(row) != len(header):
            yield replace(record, dropped=RAGGED, why=f"{RAGGED}: {len(row)} fields, not {len(header)}")
        else:
            yield record_of(dict(zip(header, row, strict=True)), path, record, is_first)
            is_first = False


def _quoted_rows(lines: "_Lines", delimiter: str) -> Iterator[tuple[list[str], str]]:
    """Rows whose fields may hold line ends within quotes.

    Where the quotes of a row do not fit, it is the line in which it begins that is lost. Of the lines behind
    it, each up to where that was noticed is a row or lost by itself; there, all begins anew. So no line is
    read more than three times.
    """
    alone = 0
    for line in lines:
        following = [line] if alone else itertools.chain([line], lines.rest_of_row(len(line)))
        alone -= alone > 0
        try:
            yield next(csv.reader(following, delimiter=delimiter, strict=True), []), ""
        except csv.Error as error:
            # Without this a missing quote in each line would read the whole rest again from each: quadratic.
            alone = max(alone, lines.give_back() - 1)
            yield [], str(error)


@dataclass(slots=True)
class _Line:
    """A line with its end; or why it cannot be decoded."""

    text: str
    number: int
    size: int
    encoding: str
    undecodable: str


class _Lines:
    """Lines for the csv reader, which may give those of a row back, and what was spent on them.

    A lone carriage return ends a line as well, as Excel on a Mac writes it.
    """

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._read = _cut_lines(read_lines(stream, encoding))
        self._given_back: deque[_Line] = deque()
        self._row: list[_Line] = []
        self._size = 0
        self.encoding = ""
        self.undecodable = ""
        """Why a line of the row could not be decoded."""

    def delimiter(self) -> str:
        """What stands between fields, by the first line; what only names it is passed over."""
        first = self._next()
        if first is None:
            return ","
        if named := NAMED_DELIMITER.fullmatch(first.text.strip(" \r\n")):
            return named[1]
        self._given_back.append(first)
        plain = QUOTED.sub("", first.text)
        return max(DELIMITERS, key=plain.count)

    @property
    def began(self) -> int:
        """The number of the row's first line."""
        return self._row[0].number

    def __iter__(self) -> Iterator[str]:
        """The first line of each row."""
        while line := self._next():
            self._row, self.undecodable = [], ""
            yield self._taken(line)

    def rest_of_row(self, size: int) -> Iterator[str]:
        """More lines, as far as a row goes."""
        while size <= MAX_ROW_CHARACTERS and (line := self._next()):
            size += len(line.text)
            yield self._taken(line)

    def give_back(self) -> int:
        """Take all lines of a row but the first as not read. Gives how many."""
        back = self._row[1:]
        self._given_back.extendleft(reversed(back))
        del self._row[1:]
        self.undecodable = ""
        return len(back)

    def spent(self) -> int:
        """Bytes since the last record."""
        spent, self._size = self._size, 0
        return spent

    def _next(self) -> _Line | None:
        return self._given_back.popleft() if self._given_back else next(self._read, None)

    def _taken(self, line: _Line) -> str:
        self._row.append(line)
        self._size += line.size
        line.size = 0  # it is spent once
        self.encoding = line.encoding or self.encoding
        self.undecodable = self.undecodable or line.undecodable
        return line.text


def _cut_lines(lines: Iterator[Line]) -> Iterator[_Line]:
    """Lines cut at lone carriage returns, each with its share of the bytes."""
    number = 0
    for line in lines:
        *heads, last = line.text.split("\r")
        texts = [f"{head}\r" for head in heads]
        if last or not heads:
            texts.append("")
        texts[-1] += f"{last}\n"
        length = sum(map(len, texts))
        for text in texts:
            number += 1
            yield _Line(text, number, line.size * len(text) // length, line.encoding, line.undecodable)

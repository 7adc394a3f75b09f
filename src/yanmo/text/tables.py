"""Tables → records: .parquet and .csv or .tsv, a row for a record.

In: a stream. Out: :class:`Record`. Of a .parquet only the columns that are needed are read, in batches of a
few rows. A .csv is read line by line; its first row names the columns; a field may hold line ends within
quotes. A row of another length, or with broken quotes, is dropped and counted.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

from yanmo.text.containers import DAMAGED, read_whole
from yanmo.text.encodings import LONGEST, read_lines
from yanmo.text.fields import roots
from yanmo.text.records import UNDECODABLE, NeedsExtra, Record, Unusable, record_of

ROWS = 64
"""Rows of a .parquet in memory at a time."""
BESIDE_NAMES = (
    "id url title author date time timestamp source category tags language lang"
    " 标题 作者 来源 时间 日期 分类 文件名"
)
BESIDE = frozenset(BESIDE_NAMES.split())
"""Columns of a .parquet that are kept beside the text."""
RAGGED = "row of another length"
BROKEN = "broken row"


def read_parquet(stream: BinaryIO, path: str) -> Iterator[Record]:
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
        raise Unusable(DAMAGED, f"the file is damaged: {what}", mend="fetch it again") from error


def _is_plain(stream: io.BufferedReader) -> bool:
    return isinstance(stream.raw, io.FileIO)


def _rows(parquet: Any, source: Any, path: str) -> Iterator[Record]:
    size = source.seek(0, io.SEEK_END)
    source.seek(0)
    with parquet.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20) as table:
        names = list(table.schema_arrow.names)
        wanted = roots(path, names)
        columns = [n for n in names if n in wanted or n in BESIDE] if wanted else None
        share, number = size / max(table.metadata.num_rows, 1), 0
        for batch in table.iter_batches(batch_size=ROWS, columns=columns):
            for row in batch.to_pylist():
                number += 1
                yield record_of(
                    row, path, Record(number, share, "", "parquet", place=f"#{number}"), number == 1
                )


def read_csv(stream: BinaryIO, path: str, encoding: str, delimiter: str = "") -> Iterator[Record]:
    """The rows of a .csv, or of a .tsv, whose delimiter is a tab.

    Raises:
        Unusable: the first row has no such column.
        LookupError: no encoding has this name.
    """
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST))
    lines = _LineSource(stream, encoding)
    first = lines.peek()
    rows = csv.reader(lines, delimiter=delimiter or _delimiter(first), strict=True)
    header: list[str] = []
    number, is_first = 0, True
    while True:
        began, broken, row = lines.number + 1, "", None
        try:
            row = next(rows, None)
            if row is None:
                return
        except csv.Error as error:
            broken = f"{BROKEN}: {error}"
        if not (row or broken or lines.undecodable):
            continue  # a blank line
        if row and not header and not lines.undecodable:
            header = [name.strip() for name in row]
            continue
        number += 1
        record = Record(number, lines.spent(), "", lines.encoding, place=f":{began}")
        if lines.undecodable:
            yield replace(record, dropped=UNDECODABLE, why=f"not readable text: {lines.undecodable}")
            lines.undecodable = ""
        elif row is None:
            yield replace(record, dropped=BROKEN, why=broken)
        elif len(row) != len(header):
            yield replace(record, dropped=RAGGED, why=f"{RAGGED}: {len(row)} fields, not {len(header)}")
        else:
            yield record_of(dict(zip(header, row, strict=True)), path, record, is_first)
            is_first = False


def _delimiter(first: str) -> str:
    return max((",", ";", "\t"), key=first.count)


class _LineSource:
    """Lines for the csv reader, and what was spent on them."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._lines = read_lines(stream, encoding)
        self._first = next(self._lines, None)
        self.number = 0
        self.encoding = ""
        self.undecodable = ""
        """Why a line since the last record could not be decoded."""
        self._size = 0

    def peek(self) -> str:
        """The first line."""
        return self._first.text if self._first is not None else ""

    def __iter__(self) -> "_LineSource":
        return self

    def __next__(self) -> str:
        line, self._first = self._first or next(self._lines), None
        self.number += 1
        self._size += line.size
        self.encoding = line.encoding or self.encoding
        self.undecodable = self.undecodable or line.undecodable
        return line.text + "\n"

    def spent(self) -> int:
        """Bytes since the last record."""
        spent, self._size = self._size, 0
        return spent

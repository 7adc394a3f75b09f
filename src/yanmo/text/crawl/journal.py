r"""The journal of a crawl: one line for each address that was fetched, forced to the disk.

In: rows (JSON objects with a ``key``). Out: the last row of a key. The file only grows; a line that a
kill cut off has no line end, and is removed when the journal is opened. So a fetched page is there once or
not at all, and the journal is the cache of a crawl that begins again. It holds pages compressed, so that a
changed selector needs no second visit.
"""

import base64
import json
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from yanmo.core.storage import disk_errors, not_through_a_link, sync_folder

Row = dict[str, Any]


class Journal:
    """Rows by key, on disk; memory holds only the offset of each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._where: dict[str, int] = {}
        self._file: BinaryIO | None = None

    def __enter__(self) -> "Journal":
        with disk_errors("opening the journal", self._path.parent):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "a+b", opener=not_through_a_link)
            self._read_through(self._file)
            sync_folder(self._path.parent)
        return self

    def __exit__(self, *exc: object) -> None:
        if self._file is not None:
            self._file.close()

    def find(self, key: str) -> Row | None:
        """The last row of a key."""
        if key not in self._where:
            return None
        assert self._file is not None
        self._file.seek(self._where[key])
        row: Row = json.loads(self._file.readline())
        return row

    def add(self, row: Row) -> None:
        """Append a row, which is on the disk when this returns."""
        assert self._file is not None
        line = json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"
        with disk_errors("writing the journal", self._path.parent):
            where = self._file.seek(0, os.SEEK_END)
            self._file.write(line.encode("utf-8", "replace"))
            self._file.flush()
            # before the frontier hears of the page: no site is asked again for what it has given
            os.fsync(self._file.fileno())
        self._where[row["key"]] = where

    def _read_through(self, file: BinaryIO) -> None:
        """Note where rows begin; cut off a last line that has no end, pass over a damaged one."""
        file.seek(0)
        end = 0
        for line in file:
            if not line.endswith(b"\n"):
                file.truncate(end)
                return
            if (row := _row(line)) is not None:
                self._where[row["key"]] = end
            end += len(line)


def pack(data: bytes) -> str:
    """Bytes as a row holds them."""
    return base64.b64encode(zlib.compress(data, 6)).decode("ascii")


def unpack(text: str) -> bytes:
    """The bytes that a row holds.

    Raises:
        ValueError: they are damaged.
    """
    try:
        return zlib.decompress(base64.b64decode(text))
    except (ValueError, zlib.error, TypeError) as error:
        raise ValueError(f"its page is damaged in the journal: {error}") from error


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and isinstance(row.get("key"), str) else None

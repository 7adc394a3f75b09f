"""A log as a file, and what it shows.

In: a run's metrics.jsonl, or any file with a JSON object on each line. Out: :class:`Checked`.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from yanmo.checkpoint.folder import find_model_folder, run_of
from yanmo.core.console import counted
from yanmo.core.errors import ConfigError, DataError
from yanmo.eval.health import Finding, Health
from yanmo.eval.history import Row

METRICS = "metrics.jsonl"
MAX_ROW_BYTES = 1 << 20
"""A longer line is read as several, none of which is a row."""


@dataclass(frozen=True)
class Checked:
    """What a log shows."""

    log: str
    rows: int
    unread: int
    """Lines that are no JSON objects."""
    health: list[Finding]

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {**asdict(self), "health": [finding.as_json() for finding in self.health]}

    def lines(self) -> list[str]:
        """For people."""
        said = [f"log    {self.log}: {counted(self.rows, 'row')}"]
        if self.unread:
            said.append(f"unread {counted(self.unread, 'line')} that are no JSON objects")
        return said + ([finding.said() for finding in self.health] or ["health: nothing is wrong"])


def find_log(run: Path | None) -> Path:
    """The log that RUN means: the file itself, or that of a run or of one of its checkpoints."""
    if run is not None and not run.is_dir():
        return run
    if run is None or not (run / METRICS).is_file():
        folder = find_model_folder(run)
        run = run_of(folder) or folder
    return run / METRICS


def check_log(path: Path) -> Checked:
    """What a run's metrics.jsonl shows, or any log with a JSON object on each line.

    Raises:
        ConfigError: there is no such file.
        DataError: it has no row.
    """
    health, found, rows, unread = Health(), list[Finding](), 0, 0
    try:
        with open(path, "rb") as file:
            for line in iter(lambda: file.readline(MAX_ROW_BYTES), b""):
                row = _row(line)
                rows, unread = rows + (row is not None), unread + (row is None and bool(line.strip()))
                found += health.add(row) if row is not None else []
    except OSError as error:
        what = f"the log cannot be read: {error.strerror}"
        raise ConfigError(what, str(path), "give a run, or a metrics.jsonl") from error
    if not rows:
        raise DataError("the log has no row", str(path), "a log has a JSON object on each line")
    return Checked(str(path), rows, unread, found)


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None

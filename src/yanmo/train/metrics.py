"""What a run says about itself: metrics.jsonl always, TensorBoard where it is installed.

One JSON object a line, flat but for lists of numbers or names (schema 1). Its ``event`` is one of

    start, resume, end    the baselines; the step from which a run goes on; how long it took
    train, overflow       loss, rate and speed of a step; a float16 step that overflowed
    eval, experts         loss on the held-out text; how evenly experts are used
    sample, health        facts of a sample; what is wrong with the run (``eval/health.py``)
    plan, memory          a new number of total steps; a smaller micro-batch after memory ran out
    checkpoint            a step that is saved
    diverged              why the run ended where its numbers were lost

When a run resumes, damaged rows and those of steps that are done again move to metrics.superseded.jsonl: no
step has two rows, and the losses are those of a run that was never interrupted.
"""

import contextlib
import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from pydantic import NonNegativeInt, model_validator

from yanmo.core.console import Console
from yanmo.core.records import TypedRecord, parse_record
from yanmo.core.storage import disk_errors, not_through_a_link, sync_file, write_atomic
from yanmo.eval.health import Health
from yanmo.eval.log import METRICS

SUPERSEDED = "metrics.superseded.jsonl"


class MetricsRow(TypedRecord):
    """The fields of a row that yanmo reads back; the others are for people and plots."""

    event: str
    step: NonNegativeInt | None = None
    loss_hex: str | None = None
    val_loss: float | None = None
    val_bits_per_char: float | None = None
    val_perplexity: float | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        values = (self.step, self.val_loss, self.val_bits_per_char, self.val_perplexity)
        if self.event == "eval" and None in values:
            raise ValueError("an evaluation lacks a value")
        if self.event == "train" and None in (self.step, self.loss_hex):
            raise ValueError("a step of training lacks a value")
        return self


class Board:
    """TensorBoard's files, a convenience: an error with them is reported once, and training goes on."""

    def __init__(self, folder: Path, step: int, warn: Callable[[str], None]) -> None:
        self._warn, self._writer = warn, None
        with self._as_convenience():
            from torch.utils.tensorboard import SummaryWriter

            # purge_step hides what an interrupted run wrote beyond its last checkpoint
            self._writer = SummaryWriter(folder, purge_step=step + 1)

    def add(self, name: str, value: float, step: int) -> None:
        """A number of a step."""
        with self._as_convenience():
            if self._writer is not None:
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush what is still held."""
        with self._as_convenience():
            if self._writer is not None:
                self._writer.close()

    @contextlib.contextmanager
    def _as_convenience(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever the library, its protocol buffers or the disk raise
            self._writer = None
            self._warn(f"TensorBoard files cannot be written ({error}); metrics.jsonl has all numbers")


class Metrics:
    """Appends rows.

    Args:
        folder: of the run.
        is_main: any rank but 0 writes nothing.
        step: where the run stands.
        console: is told of errors with files other than metrics.jsonl, and of what the rows show.
        health: looks at every row; what it finds becomes a row, too.
    """

    def __init__(
        self,
        folder: Path,
        is_main: bool = True,
        step: int = 0,
        console: Console | None = None,
        health: Health | None = None,
    ) -> None:
        self._path = folder / METRICS
        self._is_main = is_main
        self._console, self._health = console or Console(is_main=False), health
        self._board: Board | None = None
        if is_main and importlib.util.find_spec("tensorboard"):
            self._board = Board(folder / "tensorboard", step, self._console.warn)

    def write(self, event: str, **fields: Any) -> None:
        """Append a row, and what it shows of the run's health; numbers of a step also go to TensorBoard."""
        if not self._is_main:
            return
        row = {"event": event, **fields}
        self._append(row)
        if self._board is not None and "step" in fields:
            for name, value in fields.items():
                if isinstance(value, float):
                    self._board.add(f"{event}/{name}", value, fields["step"])
        for found in self._health.add(row) if self._health else ():
            # at the step of the row that shows it, so that a resume takes both back or neither
            self._append({"event": "health", **found.as_json()})
            self._console.print(found.said(), style="yellow")

    def _append(self, row: dict[str, Any]) -> None:
        line = json.dumps(row, ensure_ascii=False) + "\n"
        with (
            disk_errors("writing metrics", self._path.parent),
            # unbuffered: a process that is killed has lost no row, and a live plot sees each at once
            open(self._path, "ab", buffering=0, opener=not_through_a_link) as file,
        ):
            file.write(line.encode("utf-8"))

    def flush(self) -> None:
        """Force the rows to the disk, before the checkpoint that is saved after them."""
        if self._is_main and self._path.exists():
            sync_file(self._path)

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *exc: object) -> None:
        """Flush what TensorBoard still holds."""
        if self._board is not None:
            self._board.close()


def rewind(folder: Path, step: int) -> None:
    """Move rows beyond ``step`` (-1: all), and damaged ones, to metrics.superseded.jsonl."""
    _keep_rows(folder, lambda row: row.event != "end" and (row.step or 0) <= step)


def set_damaged_aside(folder: Path) -> None:
    """Move damaged rows to metrics.superseded.jsonl."""
    _keep_rows(folder, lambda row: True)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run, damaged ones left out."""
    path = folder / METRICS
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    rows = (_row(line) for line in lines)
    return [row.model_dump(exclude_unset=True) for row in rows if row is not None]


def _keep_rows(folder: Path, is_kept: Callable[[MetricsRow], bool]) -> None:
    path = folder / METRICS
    if not path.is_file():
        return
    kept: list[bytes] = []
    superseded: list[bytes] = []
    for line in path.read_bytes().split(b"\n"):
        if line:
            row = _row(line)
            # bytes, not JSON written anew: what is kept is identical to what was written
            (kept if row is not None and is_kept(row) else superseded).append(line + b"\n")
    # first to the other file, then out of this one: a kill between them doubles rows and loses none
    if superseded:
        with (
            disk_errors("writing metrics", folder),
            open(folder / SUPERSEDED, "ab", opener=not_through_a_link) as file,
        ):
            file.writelines(superseded)
        write_atomic(path, b"".join(kept))


def _row(line: bytes) -> MetricsRow | None:
    try:
        return parse_record(line, MetricsRow)
    except ValueError:
        return None

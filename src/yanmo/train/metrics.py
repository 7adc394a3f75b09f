"""What a run says about itself: metrics.jsonl always, TensorBoard where it is installed.

One JSON object a line, flat but for the loads of experts (schema 1). Its ``event`` is one of

    start, resume, end    the reference lines, where a run goes on, how long it took
    train, health         loss, rate and speed of a step; a float16 step that overflowed
    eval, experts         loss on the held-out text; how evenly experts are used
    plan, memory          another aim, in steps; a smaller micro-batch after memory ran out
    checkpoint            what is saved

When a run resumes, the rows of steps that are done again move to metrics.superseded.jsonl: no step is told
twice, and losses read as if the run had never stopped.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

from yanmo.storage import disk_errors, not_through_a_link, sync_file, write_atomic

METRICS = "metrics.jsonl"
SUPERSEDED = "metrics.superseded.jsonl"


class Metrics:
    """Appends rows; ``is_main`` False (any rank but 0) writes nothing, ``step`` is where the run stands."""

    def __init__(self, folder: Path, is_main: bool = True, step: int = 0) -> None:
        self._path = folder / METRICS
        self._is_main = is_main
        self._board: Any = None
        if is_main and importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(folder / "tensorboard", purge_step=step + 1)

    def write(self, event: str, **fields: Any) -> None:
        """Append a row; numbers of a step also go to TensorBoard."""
        if not self._is_main:
            return
        line = json.dumps({"event": event, **fields}, ensure_ascii=False) + "\n"
        with (
            disk_errors("writing metrics", self._path.parent),
            open(self._path, "ab", buffering=0, opener=not_through_a_link) as file,
        ):
            file.write(line.encode("utf-8"))
        if self._board is not None and "step" in fields:
            for name, value in fields.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{event}/{name}", value, fields["step"])

    def flush(self) -> None:
        """Force the rows to the disk, before a checkpoint that comes after them."""
        if self._is_main and self._path.exists():
            sync_file(self._path)

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *exc: object) -> None:
        """Flush what TensorBoard still holds."""
        if self._board is not None:
            self._board.close()


def rewind(folder: Path, step: int) -> None:
    """Move rows beyond ``step`` (-1: all), and a torn last line, to metrics.superseded.jsonl."""
    path = folder / METRICS
    if not path.is_file():
        return
    kept: list[bytes] = []
    superseded: list[bytes] = []
    for line in path.read_bytes().split(b"\n"):
        if line:
            (kept if _is_up_to(line, step) else superseded).append(line + b"\n")
    if superseded:
        with (
            disk_errors("writing metrics", folder),
            open(folder / SUPERSEDED, "ab", opener=not_through_a_link) as file,
        ):
            file.writelines(superseded)
        write_atomic(path, b"".join(kept))


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run, a torn last line left out."""
    rows: list[dict[str, Any]] = []
    path = folder / METRICS
    for line in path.read_bytes().split(b"\n") if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def _is_up_to(line: bytes, step: int) -> bool:
    try:
        row = json.loads(line)
    except ValueError:
        return False
    return row.get("event") != "end" and int(row.get("step", 0)) <= step

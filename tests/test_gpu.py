"""The benchmark for a GPU runs to its end in miniature, without one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
SECONDS = 300


@pytest.mark.long
def test_the_benchmark_of_a_gpu_runs_to_its_end_on_a_cpu() -> None:
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--tiny"]
    said = subprocess.run(command, timeout=SECONDS, capture_output=True, text=True, check=True).stdout
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines() if line[:1] == "|"
    ]
    speeds = {
        (row[0], row[1]): float(row[2].replace(",", "")) for row in rows if len(row) == 6 and number(row[2])
    }
    sides = ("yanmo, compiled", "transformers, compiled", "transformers")
    assert set(speeds) == {(model, side) for model in ("tiny", "modern") for side in sides}
    assert all(speed > 0 for speed in speeds.values())
    reached = {row[0]: row[3] for row in rows if len(row) == 4 and number(row[1])}
    assert set(reached) == {"yanmo modern, Muon", "yanmo, Muon", "yanmo, AdamW", "transformers, AdamW"}
    written = {(row[0], row[1]) for row in rows if len(row) == 3 and number(row[2])}
    assert written == {("1", "yanmo"), ("1", "transformers"), ("3", "yanmo")}
    assert re.search(r"^writing: [\d.]+ minutes", said, re.MULTILINE)


def number(cell: str) -> bool:
    """Whether a cell begins with one; not so in the head of a table."""
    return cell[:1].isdigit()

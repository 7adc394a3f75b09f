"""What all benchmarks share: workers that take turns, ratios by round, and a record of the machine.

Each side of a comparison is a process of its own (so that one's memory allocator, threads and packages
are not the other's) that stays alive and works only in its turn: a block of at least 0.7 seconds, A B
A B …, several rounds. A ratio is taken within a round, where the machine was as fast for both; what is
told is the median of the ratios and their range.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SECONDS = 0.7
ROUNDS = 7


class Worker:
    """A process that measures itself whenever it is told to."""

    def __init__(self, script: str, arguments: list[str], python: str = sys.executable) -> None:
        env = os.environ | {"TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            [python, "-u", script, *arguments], env=env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.facts = json.loads(self._answer())

    def measure(self, seconds: float = SECONDS) -> float:
        """Work for about so many seconds; units of work per second."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args} ended with {self._process.wait()}")
        return line


def work(unit: Callable[[], int], **facts: Any) -> None:
    """The worker's side: warm up, say some facts, then do ``unit`` (which counts its work) when told to."""
    for _ in range(3):
        unit()
    print(json.dumps(facts | {"versions": versions()}), flush=True)
    for line in sys.stdin:
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < float(line):
            count += unit()
        print(count / (time.perf_counter() - start), flush=True)


def take_turns(workers: Mapping[str, Worker], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """The rates of each worker, round by round; a first round that warms up is not counted."""
    rates: dict[str, list[float]] = {name: [] for name in workers}
    for number in range(rounds + 1):
        for name, worker in workers.items():
            rate = worker.measure()
            if number:
                rates[name].append(rate)
    return rates


def ratio(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """Median, least and greatest ratio within a round."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def told(ours: list[float], theirs: list[float]) -> str:
    """``3.12 (2.90 to 3.40)``."""
    median, low, high = ratio(ours, theirs)
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


def machine() -> dict[str, Any]:
    """What a figure belongs to."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        first = info.read_text(encoding="utf-8").split("\n\n")[0]
        pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
        lines = {name.strip(): value.strip() for name, value in pairs}
        flags = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag in lines.get("flags", "")]
        cpu = " ".join([lines.get("model name", cpu), *flags])
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        **versions(),
    }


def versions() -> dict[str, str | None]:
    """Of the packages that this environment has."""
    names = ("torch", "transformers", "litgpt", "yanmo")
    return {name: found for name in names if (found := installed(name))}


def installed(package: str) -> str | None:
    """A package's version here, None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def save(name: str, results: dict[str, Any]) -> Path:
    """Write benchmarks/results/NAME.json with the machine beside the results."""
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(
        json.dumps({"machine": machine(), **results}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return path

"""A `yanmo train` in a folder that is thrown away, and what it left there: for benchmarks of runs."""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file


@dataclass(frozen=True)
class Trained:
    """What a run left."""

    result: dict[str, Any]
    """Of ``--json``."""
    recipe: dict[str, Any]
    corpus: dict[str, Any]
    metrics: list[dict[str, Any]]
    shape: dict[str, Any]
    """config.json of its model."""
    parameters: int
    seconds: float
    made: dict[str, Any]
    """By which yanmo, where and when."""
    looked: Any = None
    """What ``look`` gave."""


def trained(text: str, settings: list[str], look: Callable[[Path], Any] | None = None) -> Trained:
    """Train with settings as behind `yanmo train TEXT`; ``look`` is given the run's folder at its end."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "run"
        command = [sys.executable, "-m", "yanmo", "train", text, *settings, "--out", str(folder), "--json"]
        # threads that wait for each other by spinning take the core of the run beside them
        env = os.environ | {"YANMO_CACHE": f"{tempfile.gettempdir()}/yanmo-runs", "GOMP_SPINCOUNT": "0"}
        start = time.monotonic()
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
        seconds = time.monotonic() - start
        parameters = sum(tensor.size for tensor in load_file(folder / "model" / "model.safetensors").values())
        return Trained(
            json.loads(done.stdout),
            tomllib.loads((folder / "recipe.toml").read_text("utf-8")),
            json.loads((folder / "corpus.json").read_text("utf-8")),
            [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()],
            json.loads((folder / "model" / "config.json").read_text("utf-8")),
            parameters,
            seconds,
            made(),
            look(folder) if look else None,
        )


def made() -> dict[str, Any]:
    """Which yanmo, on what, when."""
    machine = f"{os.cpu_count()} cores {platform.machine()}"
    date = datetime.now(UTC).date().isoformat()
    return {"yanmo": version("yanmo"), "commit": commit(), "machine": machine, "date": date}


def commit() -> str:
    """That of this working copy; ``-dirty`` where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    here = Path(__file__).parent
    return subprocess.run(command, cwd=here, capture_output=True, text=True, check=False).stdout.strip()

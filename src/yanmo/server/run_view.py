"""What a run left behind, for a page: its recipe, its curve, its samples.

In: a run folder. Out: a JSON object.
"""

from pathlib import Path
from typing import Any

from yanmo.report.record import read_sample, sample_files
from yanmo.train.metrics import read_metrics

MAX_ROWS = 2000
"""A longer run is shown by every second, third … of its training rows."""
MAX_SAMPLES = 200


def run_view(folder: Path) -> dict[str, Any]:
    """The recipe as TOML, metrics as rows, and the samples as they grew."""
    recipe = folder / "recipe.toml"
    return {
        "name": folder.name,
        "recipe": recipe.read_text(encoding="utf-8") if recipe.is_file() else "",
        "metrics": thinned(read_metrics(folder)),
        "samples": [
            {"step": step, "text": read_sample(path)} for step, path in sample_files(folder)[-MAX_SAMPLES:]
        ],
    }


def thinned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most about ``MAX_ROWS`` rows; only training rows are left out."""
    training = [row for row in rows if row.get("event") == "train"]
    step = -(-len(training) // MAX_ROWS) or 1
    kept = {id(row) for row in training[::step]}
    return [row for row in rows if row.get("event") != "train" or id(row) in kept]

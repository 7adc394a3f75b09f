"""Settings against each other: the same text, the same minutes, several seeds, one run after another.

    python benchmarks/ablate.py TABLE TEXT --minutes 2 --seeds 3 \
        -- 'optim.name=adamw' 'optim.name=muon optim.learning_rate=0.005'

Each run is a `yanmo train`, and one line of TABLE (.jsonl): what is there already is not done again, so
the command may be stopped and given again. Seeds are the outer loop: a machine that grows slower is
slower for all. At the end the table's rows of this text and these minutes are printed, best first.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("variants", nargs="+", help="settings, as behind `yanmo train TEXT`")
    asked = parser.parse_args()
    done = read(asked.table)
    for seed in range(1, asked.seeds + 1):
        for variant in asked.variants:
            key = {"text": asked.text.name, "minutes": asked.minutes, "settings": variant, "seed": seed}
            if not any(key.items() <= row.items() for row in done):
                row = key | run(asked.text, asked.minutes, variant, seed)
                done.append(row)
                with asked.table.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                print(
                    f"{row['best_bits_per_char']:.4f}  {row['steps']:6,} steps  seed {seed}  {variant}",
                    flush=True,
                )
    print_table([r for r in done if r["text"] == asked.text.name and r["minutes"] == asked.minutes])


def read(table: Path) -> list[dict[str, Any]]:
    """The rows of a table that may not exist yet."""
    lines = table.read_text(encoding="utf-8").splitlines() if table.exists() else []
    return [json.loads(line) for line in lines]


def run(text: Path, minutes: float, variant: str, seed: int) -> dict[str, Any]:
    """Train once, in a folder that is thrown away; what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "yanmo", "train", str(text), f"train.minutes={minutes}"]
        command += [f"train.seed={seed}", *variant.split(), "--out", f"{folder}/run", "--json"]
        env = os.environ | {"YANMO_CACHE": str(Path(tempfile.gettempdir()) / "yanmo-ablate")}
        said = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if said.returncode:
            raise SystemExit(f"{' '.join(command)}\n{said.stderr[-2000:]}")
        result = json.loads(said.stdout)
    return {
        "steps": result["steps"],
        "best_bits_per_char": round(result["best_val_bits_per_char"], 4),
        "last_bits_per_char": round(result["val_bits_per_char"], 4),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores {platform.machine()}",
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    """Mean and range over seeds of each variant, best first."""
    found = defaultdict(list)
    for row in rows:
        found[row["settings"]].append(row)
    print(
        "| settings | seeds | steps | bits/char, best | range | bits/char, last |\n|---|---|---|---|---|---|"
    )
    for settings, runs in sorted(found.items(), key=lambda item: statistics.mean(best(item[1]))):
        low, high = min(best(runs)), max(best(runs))
        steps = statistics.median(row["steps"] for row in runs)
        last = statistics.mean(row["last_bits_per_char"] for row in runs)
        print(
            f"| `{settings}` | {len(runs)} | {steps:,.0f} | {statistics.mean(best(runs)):.3f}"
            f" | {low:.3f} to {high:.3f} | {last:.3f} |"
        )


def best(rows: list[dict[str, Any]]) -> list[float]:
    """The lowest validation figure of each run."""
    return [row["best_bits_per_char"] for row in rows]


if __name__ == "__main__":
    main()

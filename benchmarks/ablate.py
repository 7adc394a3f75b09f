"""Settings against each other: the same text, the same minutes or steps, several seeds.

    python benchmarks/ablate.py TABLE TEXT --minutes 2 --seeds 3 \
        -- 'optim.name=adamw' 'optim.name=muon optim.learning_rate=0.005'
    python benchmarks/ablate.py TABLE TEXT --steps 1000 --at-once 2 -- 'model.dropout=0' 'model.dropout=0.1'

Each run is a `yanmo train`, and one line of TABLE (.jsonl): what is there already is not done again, so
the command may be stopped and given again. Seeds are the outer loop: a machine that grows slower is
slower for all. With minutes runs come one after another; with steps, which do not depend on the machine's
speed, ``--at-once`` may share the cores. At the end the table's rows of this text and this length are
printed, best first.
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
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("text", type=Path)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=2.0)
    length.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=1, help="runs that share the cores; with --steps")
    parser.add_argument("variants", nargs="+", help="settings, as behind `yanmo train TEXT`")
    asked = parser.parse_args()
    if asked.at_once > 1 and not asked.steps:
        parser.error("--at-once needs --steps: runs of so many minutes would slow each other down")
    done = read(asked.table)
    how_long = {"steps_asked": asked.steps} if asked.steps else {"minutes": asked.minutes}
    of_this = {"text": asked.text.name} | how_long
    asked_for = [
        of_this | {"settings": variant, "seed": seed}
        for seed in range(1, asked.seeds + 1)
        for variant in asked.variants
    ]
    missing = [key for key in asked_for if not any(key.items() <= row.items() for row in done)]
    threads = max((os.cpu_count() or 1) // asked.at_once, 1)
    with ThreadPoolExecutor(asked.at_once) as pool:
        runs = [pool.submit(run, asked.text, key, threads) for key in missing]
        for finished in as_completed(runs):
            row = finished.result()
            done.append(row)
            with asked.table.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            print(f"{row['best_bits_per_char']:.4f}  seed {row['seed']}  {row['settings']}", flush=True)
    print_table([row for row in done if of_this.items() <= row.items()])


def read(table: Path) -> list[dict[str, Any]]:
    """The rows of a table that may not exist yet."""
    lines = table.read_text(encoding="utf-8").splitlines() if table.exists() else []
    return [json.loads(line) for line in lines]


def run(text: Path, key: dict[str, Any], threads: int) -> dict[str, Any]:
    """Train once, in a folder that is thrown away; ``key`` and what came of it."""
    length = (
        f"train.max_steps={key['steps_asked']}" if "steps_asked" in key else f"train.minutes={key['minutes']}"
    )
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "yanmo", "train", str(text), length]
        command += [f"train.seed={key['seed']}", f"train.threads={threads}", *key["settings"].split()]
        env = os.environ | {"YANMO_CACHE": str(Path(tempfile.gettempdir()) / "yanmo-ablate")}
        said = subprocess.run(
            [*command, "--out", f"{folder}/run", "--json"],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        if said.returncode:
            raise SystemExit(f"{' '.join(command)}\n{said.stderr[-2000:]}")
        result = json.loads(said.stdout)
    return key | {
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

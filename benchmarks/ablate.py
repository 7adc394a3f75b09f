"""Settings against each other: the same text, the same minutes or steps, several seeds.

    python benchmarks/ablate.py TABLE TEXT --minutes 2 --seeds 3 \
        -- 'optim.name=adamw' 'optim.name=muon optim.learning_rate=0.005'
    python benchmarks/ablate.py TABLE TEXT --steps 1000 --at-once 2 -- 'model.dropout=0' 'model.dropout=0.1'

Each run is a `yanmo train`, and one line of TABLE (.jsonl): what is there already is not done again, so
the command may be stopped and given again. Seeds are the outer loop: a machine that grows slower is
slower for all. With minutes runs come one after another; with steps, which do not depend on the machine's
speed, ``--at-once`` may share the cores. First the runs that are missing are printed with the minutes they
will take, by the slowest step that an earlier row of the text recorded. At the end the table's rows of this
text and this length are printed, best first.

A row is found again by its text, length, settings (in any order) and seed, and by nothing else. A default
that has changed since is not noticed for rows that are there: name in the settings whatever matters. Of new
rows ``decided`` says what they were made with; where rows of the same settings disagree in it, a line below
the table says so.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

DECISIONS = (
    "model.family", "model.dropout", "optim.name", "optim.learning_rate", "train.batch_size",
    "train.seq_len_warmup", "data.document_mask",
)  # fmt: skip
"""What matters of a run and may be another without a word in its settings."""


def main() -> None:
    """Say what is missing, run it, then print the table."""
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
    missing = [key for key in asked_for if not any(is_of(row, key) for row in done)]
    print("\n".join(plan(missing, done, asked.at_once)), flush=True)
    threads = max((os.cpu_count() or 1) // asked.at_once, 1)
    with ThreadPoolExecutor(asked.at_once) as pool:
        runs = [pool.submit(run, asked.text, key, threads) for key in missing]
        for finished in as_completed(runs):
            row = finished.result()
            done.append(row)
            with asked.table.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            print(f"{row['best_bits_per_char']:.4f}  seed {row['seed']}  {row['settings']}", flush=True)
    found = [row for row in done if of_this.items() <= row.items()]
    print_table(found)
    for line in disagreements(found):
        print(f"\n{line}")


def is_of(row: dict[str, Any], key: dict[str, Any]) -> bool:
    """Whether a row is of this run; the order of settings, and spaces between them, mean nothing."""
    same = all(row.get(name) == value for name, value in key.items() if name != "settings")
    return same and sorted(row["settings"].split()) == sorted(key["settings"].split())


def read(table: Path) -> list[dict[str, Any]]:
    """The rows of a table that may not exist yet."""
    lines = table.read_text(encoding="utf-8").splitlines() if table.exists() else []
    return [json.loads(line) for line in lines]


def plan(missing: list[dict[str, Any]], done: list[dict[str, Any]], at_once: int) -> list[str]:
    """The runs that are to be done, and how long that will take."""
    lines, expected = [], [expected_minutes(key, done) for key in missing]
    for key, minutes in zip(missing, expected, strict=True):
        lines.append(f"{said(minutes)}  seed {key['seed']}  {key['settings']}")
    known = [minutes for minutes in expected if minutes is not None]
    rounds = math.ceil(len(missing) / at_once)
    total = max(known, default=0.0) * rounds if len(known) == len(expected) else None
    together = f", {at_once} at once" if at_once > 1 else ""
    return [f"{len(missing)} runs are missing{together}: {said(total)}", *lines]


def said(minutes: float | None) -> str:
    """``2.5 min``."""
    return "unknown minutes" if minutes is None else f"{minutes:.1f} min"


def expected_minutes(key: dict[str, Any], done: list[dict[str, Any]]) -> float | None:
    """Of a run: what was asked for, or its steps at the slowest pace that a row of the text recorded.

    None: no row did.
    """
    if "minutes" in key:
        return float(key["minutes"])
    paces = [row["seconds"] / row["steps"] for row in done if row["text"] == key["text"] and "seconds" in row]
    return max(paces) * key["steps_asked"] / 60 if paces else None


def run(text: Path, key: dict[str, Any], threads: int) -> dict[str, Any]:
    """Train once, in a folder that is thrown away; ``key`` and what came of it."""
    length = (
        f"train.max_steps={key['steps_asked']}" if "steps_asked" in key else f"train.minutes={key['minutes']}"
    )
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "yanmo", "train", str(text), length]
        command += [f"train.seed={key['seed']}", f"train.threads={threads}", *key["settings"].split()]
        start = time.monotonic()
        env = os.environ | {"YANMO_CACHE": str(Path(tempfile.gettempdir()) / "yanmo-ablate")}
        done = subprocess.run(
            [*command, "--out", f"{folder}/run", "--json"],
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
        seconds = time.monotonic() - start
        result = json.loads(done.stdout)
        decided = decisions(Path(folder) / "run" / "recipe.toml")
    return key | {
        "steps": result["steps"],
        "seconds": round(seconds, 1),
        "best_bits_per_char": round(result["best_val_bits_per_char"], 4),
        "last_bits_per_char": round(result["val_bits_per_char"], 4),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores {platform.machine()}",
        "decided": decided,
    }


def decisions(recipe: Path) -> dict[str, Any]:
    """What a run was made with, from its recipe; None where the recipe leaves it out."""
    sections = tomllib.loads(recipe.read_text(encoding="utf-8"))
    split = {name: name.split(".") for name in DECISIONS}
    return {name: sections.get(section, {}).get(key) for name, (section, key) in split.items()}


def print_table(rows: list[dict[str, Any]]) -> None:
    """Mean and range over seeds of each variant, best first."""
    print(
        "| settings | seeds | steps | bits/char, best | range | bits/char, last |\n|---|---|---|---|---|---|"
    )
    for settings, runs in sorted(by_settings(rows).items(), key=lambda item: statistics.mean(best(item[1]))):
        low, high = min(best(runs)), max(best(runs))
        steps = statistics.median(row["steps"] for row in runs)
        last = statistics.mean(row["last_bits_per_char"] for row in runs)
        print(
            f"| `{settings}` | {len(runs)} | {steps:,.0f} | {statistics.mean(best(runs)):.3f}"
            f" | {low:.3f} to {high:.3f} | {last:.3f} |"
        )


def disagreements(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each settings whose rows were not made under the same decisions, as far as is known."""
    lines = []
    for settings, runs in by_settings(rows).items():
        known = [row for row in runs if row.get("decided")]
        unknown = [row for row in runs if not row.get("decided")]
        found = [text for name in DECISIONS if (text := values_of(name, known))]
        if known and unknown:
            found.append(f"what {seeds_of(unknown)} had is not known")
        if found:
            lines.append(f"`{settings}` mixes runs of different decisions: {'; '.join(found)}")
    return lines


def values_of(name: str, rows: list[dict[str, Any]]) -> str:
    """``optim.name muon (seed 1, 2), adamw (seed 3)``; empty where all rows agree."""
    by_value = defaultdict(list)
    for row in rows:
        by_value[row["decided"].get(name)].append(row)
    if len(by_value) <= 1:
        return ""
    return f"{name} " + ", ".join(f"{value} ({seeds_of(runs)})" for value, runs in by_value.items())


def seeds_of(rows: list[dict[str, Any]]) -> str:
    """``seed 1, 2``."""
    return f"seed {', '.join(str(row['seed']) for row in rows)}"


def by_settings(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows that differ in their seeds only, under the settings as the first of them has them."""
    found, spellings = defaultdict(list), dict[tuple[str, ...], str]()
    for row in rows:
        spelling = spellings.setdefault(tuple(sorted(row["settings"].split())), row["settings"])
        found[spelling].append(row)
    return found


def best(rows: list[dict[str, Any]]) -> list[float]:
    """The lowest validation figure of each run."""
    return [row["best_bits_per_char"] for row in rows]


if __name__ == "__main__":
    main()

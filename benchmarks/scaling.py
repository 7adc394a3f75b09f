"""What a model of so many parameters learns of a text in so many steps: the runs behind the time dial.

    python benchmarks/scaling.py TEXT --depths 2 3 4 --steps 200 600 1800 --at-once 2
    python benchmarks/scaling.py TEXT --characters 200000 --depths 2 3 --steps 600 1800

Each run is a `yanmo train` whose shape has one number, its depth d: d layers and heads, 64 d wide; all that
is open besides is decided by yanmo. A line of ``results/scaling.jsonl`` has what it was made with, the
baselines of the text, and the whole curve; runs that are there are not done again, so a command may be
stopped and given again. ``--characters`` reads so many from the beginning of a text.
"""

import argparse
import json
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import product
from pathlib import Path
from typing import Any

from ablate import read
from runs import trained

TABLE = Path(__file__).parent / "results" / "scaling.jsonl"
HEAD_WIDTH = 64
Key = dict[str, Any]


def main() -> None:
    """Run what is missing, the shortest first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--characters", type=int)
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--steps", type=int, nargs="+", default=[200, 600])
    parser.add_argument("--settings", default="", help="besides, as behind `yanmo train TEXT`")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=1, help="runs that share the cores")
    parser.add_argument("--table", type=Path, default=TABLE)
    asked = parser.parse_args()
    wanted = [
        {"text": asked.text.name, "characters": asked.characters, "depth": depth, "steps": steps}
        | {"settings": asked.settings, "seed": asked.seed}
        for steps, depth in sorted(
            product(asked.steps, asked.depths), key=lambda pair: pair[0] * pair[1] ** 3
        )
    ]
    done = read(asked.table)
    missing = [key for key in wanted if not any(key.items() <= row.items() for row in done)]
    threads = max((os.cpu_count() or 1) // asked.at_once, 1)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(asked.at_once) as pool:
        text = beginning(asked.text, asked.characters, Path(folder))
        for finished in as_completed([pool.submit(run, text, key, threads) for key in missing]):
            row = finished.result()
            with asked.table.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            print(said(row), flush=True)


def beginning(text: Path, characters: int | None, folder: Path) -> Path:
    """The text, or a file with its first characters."""
    if characters is None:
        return text
    cut = folder / f"first.{text.name}"
    cut.write_text(text.read_text("utf-8")[:characters], "utf-8", newline="\n")
    return cut


def run(text: Path, key: Key, threads: int) -> Key:
    """Train once; ``key`` and what came of it."""
    depth = key["depth"]
    shape = [f"model.n_layer={depth}", f"model.n_head={depth}", f"model.n_embd={HEAD_WIDTH * depth}"]
    length = [f"train.max_steps={key['steps']}", f"train.eval_interval={max(key['steps'] // 10, 1)}"]
    settings = [*shape, *length, f"train.seed={key['seed']}", f"train.threads={threads}"]
    found = trained(str(text), [*settings, *key["settings"].split()])
    rows, recipe = found.metrics, found.recipe
    start = next(row for row in rows if row["event"] == "start")
    window, batch = recipe["model"]["block_size"], recipe["train"]["batch_size"]
    tokens = key["steps"] * window * batch
    evaluations = [row for row in rows if row["event"] == "eval"]
    of_text = {
        "learned": found.corpus["splits"]["train"]["characters"],
        "train_tokens": found.corpus["splits"]["train"]["tokens"],
        "vocabulary": found.shape["vocab_size"],
        **{name: round(start[f"{name}_bits_per_char"], 4) for name in ("uniform", "unigram", "bigram")},
    }
    of_run = {
        "parameters": found.parameters,
        "hidden": found.parameters - found.shape["vocab_size"] * found.shape["hidden_size"],
        "window": window,
        "tokens": tokens,
        "passes": round(tokens / of_text["train_tokens"], 3),
        "decay": recipe["optim"]["weight_decay"],
        "average": recipe["optim"]["average"],
        "rate": recipe["optim"]["learning_rate"],
    }
    losses = [row["loss"] for row in rows if row["event"] == "train"]
    ends = {
        "best": round(found.result["best_val_bits_per_char"], 4),
        "best_step": found.result["best_step"],
        "last": round(found.result["val_bits_per_char"], 4),
        "train_nats": round(sum(losses[-5:]) / len(losses[-5:]), 4),
        "curve": [[row["step"], round(row["val_bits_per_char"], 4)] for row in evaluations],
    }
    return key | of_text | of_run | ends | {"seconds": round(found.seconds)} | found.made


def said(row: Key) -> str:
    """A line for people."""
    return (
        f"{row['text']} {row['learned']:,} characters  depth {row['depth']}  {row['steps']:,} steps"
        f"  {row['passes']:.2f} passes  bits {row['best']:.3f} (step {row['best_step']:,}), at the end"
        f" {row['last']:.3f}, bigram {row['bigram']:.2f}  {row['seconds']:,} s"
    )


if __name__ == "__main__":
    main()

"""Fine-tuning, way beside way, in equal minutes: what is learned, forgotten, and ends (docs/results.md).

    python benchmarks/finetuning.py TABLE FOLDER BASE DATA… --minutes M [--ways full replay lora last]

Each way is a run in FOLDER, which goes on where it stopped; when it is done, its row is appended to TABLE
(.jsonl), and the table is printed. Bits per character are those of held-out answers, and of the base's text.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from yanmo.checkpoint.folder import find_model_folder
from yanmo.core.console import Console
from yanmo.generate.answers import write_answers
from yanmo.generate.writer import load
from yanmo.train.metrics import read_metrics
from yanmo.train.request import asked_finetuning
from yanmo.train.trainer import train

WAYS = {
    "full": ("finetune.method=full",),
    "replay": ("finetune.method=full", "finetune.replay=0.1"),
    "lora": ("finetune.method=lora",),
    "last": ("finetune.method=last",),
}
SAMPLES = 3


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("base")
    parser.add_argument("data", nargs="+")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--ways", nargs="+", choices=sorted(WAYS), default=list(WAYS))
    parser.add_argument("--questions", nargs="+", default=[], help="asked at the end, besides those held out")
    parser.add_argument("--set", nargs="+", default=[], help="settings of every way")
    asked = parser.parse_args()
    rows = (
        [json.loads(line) for line in asked.table.read_text(encoding="utf-8").splitlines()]
        if asked.table.exists()
        else []
    )
    done = {(row["base"], row["data"], row["way"], row["minutes"]) for row in rows}
    data = " ".join(Path(name).stem for name in asked.data)
    for way in asked.ways:
        if (Path(asked.base).name, data, way, asked.minutes) in done:
            continue
        settings = [f"train.minutes={asked.minutes}", "train.precision=float32", *WAYS[way], *asked.set]
        recipe, folder = asked_finetuning([asked.base, *asked.data, *settings], asked.folder / way, Path)
        train(recipe, folder, Console())
        row = {
            "base": Path(asked.base).name,
            "data": data,
            "way": way,
            "minutes": asked.minutes,
            **result_of(folder),
        }
        row["answers"] = answers_of(folder, asked.questions)
        with open(asked.table, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        rows.append(row)
    print("\n".join(table(rows)))


def result_of(run: Path) -> dict[str, Any]:
    """What the metrics of a run say of before, the best, and after."""
    rows = read_metrics(run)
    measured = [row for row in rows if row["event"] == "eval"]
    best = min(measured, key=lambda row: row["val_loss"])
    found = {"steps": measured[-1]["step"], "stop_rate": rows[-1].get("stop_rate")}
    for name, row in (("before", measured[0]), ("best", best)):
        found[name] = row["val_bits_per_char"]
        found[f"base_{name}"] = row.get("base_bits_per_char")
    return found


def answers_of(run: Path, questions: list[str]) -> list[str]:
    """What the best model answers, one seed, at the settings of its run."""
    writer = load(find_model_folder(run))
    chat = writer.chat
    assert chat is not None
    prompts = [chat.encode([{"role": "user", "content": question}]) for question in questions]
    config = writer.config(max_new_tokens=80, temperature=0.7, top_p=0.9, seed=1)
    if not prompts:
        return []
    found = write_answers(writer.model, writer.tokenizer, chat.end_of_turn, prompts, config)
    return [f"{question} → {answer.text}" for question, answer in zip(questions, found, strict=True)]


def table(rows: list[dict[str, Any]]) -> list[str]:
    """In Markdown."""
    head = "| base | data | way | steps | before | best | base: before | at the best | stop |"
    lines = [head, "|" + "---|" * 9]
    for row in rows:
        kept = [f"{row[name]:.3f}" if row[name] else "" for name in ("base_before", "base_best")]
        stop = "" if row["stop_rate"] is None else f"{row['stop_rate']:.0%}"
        lines.append(
            f"| {row['base']} | {row['data']} | {row['way']} | {row['steps']:,} | {row['before']:.3f} |"
            f" {row['best']:.3f} | {kept[0]} | {kept[1]} | {stop} |"
        )
    return lines


if __name__ == "__main__":
    main()

"""One core's speed in each stage of `yanmo scale`, and what stays beside one machine: docs/scale.md.

python benchmarks/scale.py novel.txt tokenizer.path=FOLDER [corpus.split_chapters=true …] [--runs 3]
python benchmarks/scale.py poems --tasks 4 --compare tokenizer.path=FOLDER    the texts kept here and there
python benchmarks/scale.py --parts 1000    one band, invented signatures of so many parts
"""

import argparse
import json
import resource
import runpy
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from datatrove.utils.logging import logger

from yanmo.cli.scale import plan_settings
from yanmo.core.console import Console
from yanmo.core.storage import read_json
from yanmo.scale import duplicates
from yanmo.scale.plan import Plan, Settings, make_plan
from yanmo.scale.script import script
from yanmo.text.clean.run import run

IN_A_PART = 2000
"""Signatures."""


def seconds(work: Callable[[], object]) -> float:
    """Processor time, of all threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(arguments: list[str], tasks: int, folder: Path) -> dict[str, float]:
    """Seconds of each stage, all its tasks one after another in this process."""
    plan, _ = make_plan(*plan_settings(arguments), tasks, folder)
    (folder / "pipeline.py").write_text(script(plan, "local", workers=1), encoding="utf-8")
    stages = [runpy.run_path(str(folder / "pipeline.py"))["pipeline"]()]
    while stages[-1].depends:
        stages.append(stages[-1].depends)
    found = {}
    for stage in reversed(stages):
        stage.depends = None
        found[Path(stage.logging_dir.path).name] = seconds(stage.run)
    return found


def stages(arguments: list[str], runs: int, tasks: int) -> None:
    """Measure a corpus."""
    took: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for stage, value in measure(arguments, tasks, folder).items():
                took[stage].append(value)
            manifest = read_json(folder / "corpus.manifest.json")
            shards = read_json(folder / "shards" / "manifest.json")
            work = {
                station.name: sum(file.stat().st_size for file in station.rglob("*") if file.is_file())
                for station in (folder / "work").iterdir()
            }
    characters, documents = manifest["read"]["characters"], manifest["read"]["documents_read"]
    tokens = sum(part["tokens"] for part in shards["splits"].values())
    print(f"{characters:,} characters, {documents:,} documents, {tokens:,} tokens, work {work}")
    print(f"dropped {manifest['dropped']}")
    for name, values in took.items():
        middle = statistics.median(values)
        spread = (max(values) - min(values)) / middle / 2 if middle else 0
        each = f"{middle / characters * 1e6:8.4f} µs a character, {middle / documents * 1e6:9.2f} a document"
        print(f"{name:<11} {middle:8.2f} s ±{spread:4.0%} {each}")


def compare(arguments: list[str], tasks: int) -> None:
    """Print how many texts stay on one machine, in a plan, and in one of them only."""
    cleaning, _ = plan_settings(arguments)
    with tempfile.TemporaryDirectory() as name:
        one = Path(name) / "one.jsonl"
        result = run(cleaning, one, Console(), dedup=True)
        (Path(name) / "plan").mkdir()
        measure(arguments, tasks, Path(name) / "plan")
        many = read_json(Path(name) / "plan" / "corpus.manifest.json")
        here, there = (_texts(files) for files in ([one], sorted((Path(name) / "plan/corpus").glob("*"))))
    print(f"read {result.counts.documents_read:,}")
    print(f"one machine kept {here.total():,}, dropped {dict(result.dropped)}")
    print(f"plan        kept {there.total():,}, dropped {many['dropped']}")
    only_here, only_there = (here - there).total(), (there - here).total()
    print(f"only one machine {only_here:,} ({only_here / here.total():.2%} of what it keeps)")
    print(f"only the plan {only_there:,} ({only_there / there.total():.2%} of what it keeps)")


def _texts(files: list[Path]) -> Counter[str]:
    lines = (line for file in files for line in file.read_text(encoding="utf-8").splitlines())
    return Counter("".join(json.loads(line)["text"].split()) for line in lines)


def band(parts: int) -> None:
    """Measure datatrove's search in one band, over so many parts; the more there are, the dearer."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(Path(folder), Settings())
        bands, numbers = duplicates.bands_of(plan.settings.dedup.near)
        for part in range(parts):
            table = rng.integers(0, 1 << 32, (IN_A_PART, numbers + 1), "<u4")
            table[:, -1] = np.arange(IN_A_PART)
            target = plan.work("near") / "bucket_000" / f"{part:05d}.minhash.sig"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(table[np.lexsort(table.T[::-1])].tobytes())
        took = seconds(lambda: duplicates.find_pairs(plan).run(None, 0, bands))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{parts:,} parts: {took / parts / IN_A_PART * 1e6:.2f} µs a document and band, {peak:,} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arguments", nargs="*")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=1)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--parts", type=int)
    asked = parser.parse_intermixed_args()
    logger.remove()
    if asked.parts:
        band(asked.parts)
    elif asked.compare:
        compare(asked.arguments, asked.tasks)
    else:
        stages(asked.arguments, asked.runs, asked.tasks)


if __name__ == "__main__":
    main()

"""One core's speed in each stage of `yanmo scale`: the figures of docs/scale.md and of scale/estimate.py.

python benchmarks/scale.py novel.txt tokenizer.path=FOLDER [corpus.split_chapters=true …] [--runs 3]
python benchmarks/scale.py --parts 1000    one band, invented signatures of so many parts
"""

import argparse
import resource
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from datatrove.data import Document
from datatrove.utils.logging import logger

from yanmo.cli.scale import plan_settings
from yanmo.core.storage import read_json
from yanmo.scale import steps
from yanmo.scale.corpus import clean_part
from yanmo.scale.plan import Plan, Settings, make_plan
from yanmo.scale.script import stages_of

IN_A_PART = 2000
"""Signatures."""


def seconds(work: Callable[[], object]) -> float:
    """Processor time, of all threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(plan: Plan) -> dict[str, float]:
    """Seconds of each stage, all its tasks in this process."""
    texts: list[str] = []
    found = {"clean": seconds(lambda: texts.extend(clean_part(plan, 0)))}
    documents = [Document(text=text, id=str(number)) for number, text in enumerate(texts)]
    found["sign"] = seconds(lambda: steps.CharacterSignature(plan).run(documents))

    for stage in stages_of(plan)[1:]:
        step = getattr(steps, stage.steps.partition("(")[0])(plan)
        found[stage.name] = 0.0
        for rank in range(stage.tasks):
            start = time.process_time()
            step(None, rank, stage.tasks)
            found[stage.name] += time.process_time() - start
    return found


def stages(arguments: list[str], runs: int) -> None:
    """Measure a corpus."""
    took: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            plan, _ = make_plan(*plan_settings(arguments), 1, Path(folder))
            for name, value in measure(plan).items():
                took[name].append(value)
            manifest = read_json(Path(folder) / "corpus.manifest.json")
            shards = read_json(Path(folder) / "shards" / "manifest.json")
            work = sum(file.stat().st_size for file in plan.work("").rglob("*") if file.is_file())
    characters, documents = manifest["read"]["characters"], manifest["read"]["documents_read"]
    tokens = sum(part["tokens"] for part in shards["splits"].values())
    print(f"{characters:,} characters, {documents:,} documents, {tokens:,} tokens, work {work:,} bytes")
    print(f"dropped {manifest['dropped']}")
    for name, values in took.items():
        middle = statistics.median(values)
        spread = (max(values) - min(values)) / middle / 2 if middle else 0
        each = f"{middle / characters * 1e6:8.4f} µs a character, {middle / documents * 1e6:9.2f} a document"
        print(f"{name:<11} {middle:8.2f} s ±{spread:4.0%} {each}")


def band(parts: int) -> None:
    """Measure datatrove's search in one band, over so many parts; the more there are, the dearer."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(Path(folder), Settings())
        for part in range(parts):
            table = rng.integers(0, 1 << 32, (IN_A_PART, 5), "<u4")
            table[:, 4] = np.arange(IN_A_PART)
            target = plan.work("signatures", "bucket_000") / f"{part:05d}.minhash.sig"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(table[np.lexsort(table.T[::-1])].tobytes())
        took = seconds(lambda: steps.Buckets(plan).run(None, 0, 33))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{parts:,} parts: {took / parts / IN_A_PART * 1e6:.2f} µs a document and band, {peak:,} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("arguments", nargs="*")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--parts", type=int)
    asked = parser.parse_args()
    logger.remove()
    if asked.parts:
        band(asked.parts)
    else:
        stages(asked.arguments, asked.runs)


if __name__ == "__main__":
    main()

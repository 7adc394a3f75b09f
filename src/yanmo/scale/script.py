"""pipeline.py: the stages of a plan for one of datatrove's executors, as a script to read and to edit.

In: a plan, and how it is to be run. Out: Python text. What is made stands in plan.toml and not here.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from yanmo.scale.duplicates import bands_of
from yanmo.scale.plan import Plan

Executor = Literal["local", "slurm", "ray"]
CLASSES = {"local": "LocalPipelineExecutor", "slurm": "SlurmPipelineExecutor", "ray": "RayPipelineExecutor"}


@dataclass(frozen=True)
class Running:
    """How a plan is run."""

    executor: Executor
    workers: int
    """Tasks at a time, at most; -1: all."""
    partition: str = ""
    time: str = ""
    copies_gb: int = 2
    """Memory of the stage that does not get smaller with more tasks."""


@dataclass(frozen=True)
class Stage:
    """A step of the pipeline, which begins when all tasks of the one before have finished."""

    name: str
    steps: str
    tasks: int
    says: str
    memory_gb: int = 2
    """For a processor; an estimate to begin with."""


def stages_of(plan: Plan) -> list[Stage]:
    """The stages that the settings ask for, in order."""
    dedup, parts = plan.settings.dedup, plan.parts
    bands = bands_of(dedup)
    sign = "CharacterSignature(plan)" if bands or dedup.paragraphs else "WriteRows(plan)"
    found = [
        Stage("clean", f"ReadAndClean(plan), {sign}", parts, "files → clean rows and their signatures", 4)
    ]
    if bands:
        found += [
            Stage(
                "buckets",
                "Buckets(plan)",
                bands,
                f"signatures → what agrees in a band; tasks: a multiple of {bands}",
                4,
            ),
            Stage("copies", "FindCopies(plan)", 1, "those, in order → copies; memory: docs/scale.md"),
        ]
    if dedup.paragraphs:
        found.append(Stage("paragraphs", "FindRepeatedParagraphs(plan)", parts, "repeated paragraphs", 4))
    return [
        *found,
        Stage("keep", "Keep(plan)", parts, "what stays → corpus/"),
        Stage("split", "PlanSplit(plan)", 1, "what is held out for validation", 8),
        Stage("tokenise", "Tokenise(plan)", parts, "corpus/ → tokens"),
        Stage("join", "JoinShards(plan)", parts, "tokens → shards/, in order"),
        Stage("finish", "Finish(plan)", 1, "where documents begin, manifests", 4),
    ]


def script(plan: Plan, running: Running) -> str:
    """The text of pipeline.py."""
    stages = stages_of(plan)
    steps = sorted(
        {part.partition("(")[0].strip(" ") for stage in stages for part in stage.steps.split(", ")}
    )
    lines = [
        '"""Clean, rid of duplicates, tokenise: written by `yanmo scale plan`, yours to edit.',
        "",
        "    python pipeline.py",
        "",
        "What is made stands in plan.toml. Run it again after any end: finished tasks are not done again",
        "(logs/STAGE/completions marks them). Afterwards: yanmo train shards; work/ may be deleted.",
        '"""',
        "",
        "from pathlib import Path",
        "",
        *(["import ray"] if running.executor == "ray" else []),
        f"from datatrove.executor import {CLASSES[running.executor]}",
        "",
        "from yanmo.scale.plan import Plan",
        "from yanmo.scale.steps import (",
        *(f"    {step}," for step in steps),
        ")",
        "",
        f"WORKERS = {running.workers}  # tasks at a time{', -1: all' if running.workers == -1 else ''}",
        *_constants(running),
        "plan = Plan.load(Path(__file__).resolve().parent)",
        "",
        "",
        "def stage(name, steps, tasks, memory_gb, depends=None):",
        '    """A stage: it begins when all tasks of the one before have finished."""',
        *_executor(running),
        "",
        "",
        'if __name__ == "__main__":',
        *(["    ray.init()  # the cluster this machine belongs to, or one of this machine alone"]
          if running.executor == "ray" else []),
    ]  # fmt: skip
    for number, one in enumerate(stages, 1):
        depends = f", {stages[number - 2].name}" if number > 1 else ""
        memory_gb = running.copies_gb if one.name == "copies" else one.memory_gb
        call = f'stage("{number}-{one.name}", [{one.steps}], {one.tasks}, {memory_gb}{depends})'
        lines += [f"    # {one.says}", f"    {one.name} = {call}"]
    return "\n".join([*lines, f"    {stages[-1].name}.run()", ""])


def _constants(running: Running) -> list[str]:
    if running.executor != "slurm":
        return []
    return [
        f"PARTITION, TIME = {json.dumps(running.partition)}, {json.dumps(running.time)}",
        f"ENVIRONMENT = {json.dumps(_environment())}  # run by each job first",
    ]


def _environment() -> str:
    """What puts a job into the environment this is run in."""
    return f"source {Path(sys.prefix, 'bin', 'activate')}" if sys.prefix != sys.base_prefix else ""


def _executor(running: Running) -> list[str]:
    more = {
        "local": ["        workers=min(WORKERS, tasks),", '        start_method="spawn",'],
        "slurm": [
            "        workers=WORKERS,",
            "        job_name=name,",
            "        partition=PARTITION,",
            "        time=TIME,",
            "        mem_per_cpu_gb=memory_gb,",
            "        env_command=ENVIRONMENT,",
            '        qos="",',
        ],
        "ray": ["        workers=WORKERS,", "        mem_per_cpu_gb=memory_gb,"],
    }
    return [
        f"    return {CLASSES[running.executor]}(",
        "        pipeline=steps,",
        "        tasks=tasks,",
        "        logging_dir=str(plan.logs(name)),",
        "        depends=depends,",
        *more[running.executor],
        "    )",
    ]

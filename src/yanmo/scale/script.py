"""pipeline.py: the stages of a plan for one of datatrove's executors, as a script to read and to edit.

In: a plan, and how it is to be run. Out: Python text, from the template ``pipeline.py.jinja``. plan.toml says
what is made; this script only says how.
"""

import sys
from pathlib import Path
from typing import Literal

from jinja2 import Environment, PackageLoader, StrictUndefined

from yanmo.scale.duplicates import bands_of
from yanmo.scale.plan import Plan

Executor = Literal["local", "slurm", "ray"]
CLASSES = {"local": "LocalPipelineExecutor", "slurm": "SlurmPipelineExecutor", "ray": "RayPipelineExecutor"}


def script(
    plan: Plan, executor: Executor, workers: int, partition: str = "", time: str = "", clusters_gb: int = 2
) -> str:
    """The text of pipeline.py.

    Args:
        plan: what is made.
        executor: who runs the tasks.
        workers: tasks at a time, at most; -1: all.
        partition: SLURM's.
        time: SLURM's limit for a job.
        clusters_gb: memory of the stage `clusters`, which is one task whatever the number of tasks.
    """
    templates = Environment(
        loader=PackageLoader("yanmo.scale", ""),
        undefined=StrictUndefined,  # a name that is missing is an error, not an empty place in the script
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    dedup = plan.settings.dedup
    return templates.get_template("pipeline.py.jinja").render(
        executor=executor,
        executor_class=CLASSES[executor],
        workers=workers,
        partition=partition,
        time=time,
        environment=_environment(),
        dedup=dedup,
        bands=bands_of(dedup.near)[0] if dedup.near else 0,
        clusters_gb=clusters_gb,
    )


def _environment() -> str:
    """The shell line that activates, in a job, the environment that this runs in."""
    return f"source {Path(sys.prefix, 'bin', 'activate')}" if sys.prefix != sys.base_prefix else ""

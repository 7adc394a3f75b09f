"""The base class of a plan's steps: a step knows its plan, and its rank is a part of the corpus."""

from typing import Never

from datatrove.pipeline.base import PipelineStep

from yanmo.scale.plan import Plan


class PlanStep(PipelineStep):  # type: ignore[misc]  # datatrove has no types
    """A step of a plan.

    A step keeps nothing about a task: datatrove may run several with one object, one after another.
    """

    type = "yanmo"

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan


def __getattr__(name: str) -> Never:
    """Say what is wrong with a pipeline.py that imports steps from here, as earlier versions wrote it."""
    if name.startswith("_"):  # what Python itself asks a module for
        raise AttributeError(name)
    raise ImportError(
        f"there is no step {name}: an earlier version of yanmo wrote this pipeline. Make it anew, in another"
        " folder, by the same `yanmo scale plan` command"
    )

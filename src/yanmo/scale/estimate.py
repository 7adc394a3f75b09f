"""What a plan will cost: processor hours and disk, from speeds measured on one core.

The figures are those of docs/scale.md, which says how they were measured; another corpus on another
processor may well take half or twice as much.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from yanmo.scale.duplicates import bands_of
from yanmo.scale.plan import PartFile, Plan
from yanmo.scale.script import Stage, stages_of
from yanmo.tokenizer import CharTokenizer

MICROSECONDS = {
    "clean": (0.23, 18),
    "sign": (0.23, 104),
    "buckets": (0, 4.6),
    "copies": (0, 30),
    "paragraphs": (0.001, 0),
    "keep": (0.03, 13),
    "split": (0.0002, 0),
    "char": (0.04, 0),
    "bpe": (1.0, 0),
    "join": (0.001, 0),
    "finish": (0, 0.1),
}
"""For a character and for a document, on one core. `buckets`: for each band; `copies`: for each document
that agrees with another; `char` and `bpe`: the stage `tokenise`."""
CHARACTERS_OF_A_DOCUMENT = 1000
"""Assumed; shorter ones make the search for duplicates dearer."""
AGREEING = 0.3
"""Share of documents that agree with another: assumed, as on the web. Half of them are equal to another."""
TOKENS_OF_A_CHARACTER = {"char": 1.0, "bpe": 0.62}
PLACES = 33 * 40
"""Bytes of memory for a document that agrees with another in all bands; an equal one takes 40."""


@dataclass(frozen=True)
class Estimate:
    """What will be done, at what cost."""

    stages: list[tuple[Stage, float]]
    """With core-hours."""
    files: int
    bytes: int
    characters: int
    largest_part: int
    """Bytes."""
    disk: dict[str, int]
    """Bytes, by folder."""
    memory: int
    """Bytes, of the stage `copies`; the others need less than a gigabyte for ten of a part's text."""

    @property
    def core_hours(self) -> float:
        """Of all stages."""
        return sum(hours for _, hours in self.stages)

    def hours(self, workers: int) -> float:
        """With so many tasks at a time."""
        return sum(hours / min(stage.tasks, workers) for stage, hours in self.stages)

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            "files": self.files,
            "bytes": self.bytes,
            "characters": self.characters,
            "stages": [
                {"name": stage.name, "tasks": stage.tasks, "core_hours": hours}
                for stage, hours in self.stages
            ],
            "core_hours": self.core_hours,
            "disk": self.disk,
            "memory": self.memory,
        }

    def lines(self, workers: int) -> list[str]:
        """For people; ``workers`` -1: as many as there are tasks."""
        at_once = workers if workers > 0 else max(stage.tasks for stage, _ in self.stages)
        parts = self.stages[0][0].tasks
        disk = ", ".join(f"{name} {_amount(size)}" for name, size in self.disk.items())
        found = [
            f"corpus     {self.files:,} files, {_amount(self.bytes)}, about {self.characters:,} characters"
        ]
        found += [
            f"{number}-{stage.name:<12} {stage.tasks:>6,} tasks {_hours(hours):>12}  {stage.says}"
            for number, (stage, hours) in enumerate(self.stages, 1)
        ]
        found += [
            f"in all     {_hours(self.core_hours)} of one core,"
            f" {_hours(self.hours(at_once))} with {at_once:,} cores",
            f"disk       {disk}",
            f"memory     about {_amount(self.memory)} in the stage copies",
        ]
        if self.largest_part * parts > 2 * self.bytes:
            largest = _amount(self.largest_part)
            found.append(
                f"largest    one part has {largest}: a file is never cut; give more and smaller ones"
            )
        return found


def estimate(plan: Plan, files: Sequence[PartFile]) -> Estimate:
    """The cost of a plan."""
    size = sum(file.size for file in files)
    characters = size // 3
    kind = "char" if isinstance(plan.tokenizer(), CharTokenizer) else "bpe"
    parts = [0] * plan.parts
    for file in files:
        parts[file.part] += file.size
    stages = [(stage, _core_hours(stage, plan, characters, kind)) for stage in stages_of(plan)]
    agreeing = int(characters // CHARACTERS_OF_A_DOCUMENT * AGREEING)
    memory = agreeing // 2 * (PLACES if plan.settings.dedup.near else 40) + agreeing // 2 * 40
    return Estimate(stages, len(files), size, characters, max(parts), _disk(plan, characters, kind), memory)


def _core_hours(stage: Stage, plan: Plan, characters: int, kind: str) -> float:
    documents = characters / CHARACTERS_OF_A_DOCUMENT
    names = [kind if stage.name == "tokenise" else stage.name]
    if stage.name == "clean" and plan.settings.dedup.near:
        names.append("sign")
    if stage.name == "buckets":
        documents *= stage.tasks
    if stage.name == "copies":
        documents *= AGREEING
    microseconds = sum(
        MICROSECONDS[name][0] * characters + MICROSECONDS[name][1] * documents for name in names
    )
    return microseconds / 3.6e9


def _disk(plan: Plan, characters: int, kind: str) -> dict[str, int]:
    """Bytes at most, if nothing is dropped."""
    documents, bands = characters // CHARACTERS_OF_A_DOCUMENT, bands_of(plan.settings.dedup)
    token = 2 if plan.tokenizer().vocab_size <= 1 << 16 else 4
    tokens = int(characters * TOKENS_OF_A_CHARACTER[kind]) * token
    marks = documents * bands * (16 + 20)  # digests, and datatrove's signatures with their number
    paragraphs = characters // 100 * 16 if plan.settings.dedup.paragraphs else 0
    return {"corpus": 3 * characters, "shards": tokens, "work": 3 * characters + marks + paragraphs + tokens}


def _hours(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{hours * 60:.1f} min" if hours * 60 >= 1 else f"{hours * 3600:.1f} s"


def _amount(size: int) -> str:
    for name, unit in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size / 1000:,.1f} kB"

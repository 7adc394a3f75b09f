"""What a run folder says of its run, whatever state it is in and whichever version made it.

In: a run folder, which is only read. Out: a :class:`RunRecord`. A value of another kind than meant is passed
over.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from yanmo.checkpoint.folder import find_model_folder, read_recipe, run_of
from yanmo.checkpoint.step_schedule import StepSchedule
from yanmo.core import storage
from yanmo.core.errors import ConfigError
from yanmo.core.records import Manifest, read_record
from yanmo.eval.baselines import NGramBaselines
from yanmo.eval.history import finite
from yanmo.settings.schema import Recipe
from yanmo.train.binding import read_plan
from yanmo.train.metrics import SUPERSEDED, read_metrics

COPIES = "copies.json"
"""In a run folder: what `yanmo evaluate RUN --copies --writing --json` printed."""
SAMPLE = "step-*.txt"
SHOWN_SAMPLES = 5

Point = tuple[float, float]
"""A step and a value."""
Row = dict[str, Any]


@dataclass(frozen=True)
class SavedSample:
    """What the model wrote at an evaluation."""

    step: int
    text: str


@dataclass(frozen=True)
class RunRecord:
    """A run as its folder has it."""

    folder: Path
    recipe: Recipe
    corpus: Manifest
    plan: StepSchedule
    rows: list[Row]
    superseded: int
    """Rows of steps that were done again."""
    samples: list[SavedSample]
    """The first, the last, and some between."""
    measured: Row
    """What was measured of copying and of writing, if it was."""

    def named(self, event: str) -> list[Row]:
        """The rows of an event, in order."""
        return [row for row in self.rows if row.get("event") == event]

    def points(self, event: str, key: str) -> list[Point]:
        """The values of a key by step, each step once."""
        found = {row.get("step"): finite(row.get(key)) for row in self.named(event)}
        return [(step, v) for step, v in found.items() if isinstance(step, int) and v is not None]

    @cached_property
    def lines(self) -> NGramBaselines | None:
        """The baselines, if the run began."""
        start = next(iter(self.named("start")), {})
        found = {
            name: finite(start.get(f"{name}_bits_per_char"))
            for name in ("uniform", "unigram", "bigram", "floor")
        }
        uniform, unigram, bigram = found["uniform"], found["unigram"], found["bigram"]
        if uniform is None or unigram is None or bigram is None:
            return None
        return NGramBaselines(uniform, unigram, bigram, found["floor"])

    @cached_property
    def held_out(self) -> list[Point]:
        """Bits per character of the held-out text, with the weights that are saved."""
        return self.points("eval", "val_bits_per_char")

    @cached_property
    def live(self) -> list[Point]:
        """The same with the weights that are trained, where those saved are their average."""
        return self.points("eval", "live_val_bits_per_char")

    @cached_property
    def unseen(self) -> list[Point]:
        """The same of the texts of ``data.held_out``, of which no part was read."""
        return self.points("eval", "held_out_bits_per_char")

    @cached_property
    def training(self) -> list[Point]:
        """Bits per character of the training text; none of pairs, whose loss is another."""
        if self.recipe.finetune.preference is not None:
            return []
        per_token = math.log(2) * self.corpus.splits.train.characters_per_token
        return [(step, nats / per_token) for step, nats in self.points("train", "loss")]

    @cached_property
    def passes_per_step(self) -> float | None:
        """How often a step reads the whole training text."""
        read, train = self.points("train", "tokens"), self.corpus.splits.train
        if not read or not read[-1][0]:
            return None
        # of pairs the row counts pairs, each of two documents
        is_pairs = self.recipe.finetune.preference is not None
        each = train.documents / 2 if is_pairs else train.targets or train.tokens
        step, tokens = read[-1]
        return tokens * (1 - self.recipe.finetune.replay) / max(each, 1) / step

    @property
    def place(self) -> str:
        """The run folder in commands, without what lies above it."""
        return f"runs/{self.name}" if self.folder.resolve().parent.name == "runs" else self.name

    @property
    def name(self) -> str:
        """What the run is called."""
        return self.folder.resolve().name


def find_run(path: Path | None) -> Path:
    """The run folder that RUN means: itself, or the one of a model or checkpoint; None: the newest.

    Raises:
        ConfigError: it is none.
    """
    if path is not None and (path / "corpus.json").is_file() and (path / "recipe.toml").is_file():
        return path
    model = find_model_folder(path)
    if run := run_of(model):
        return run
    hint = "give the folder of a run: it has recipe.toml and metrics.jsonl"
    raise ConfigError(f"{path} belongs to no run of yanmo's", where="RUN", hint=hint)


def read_run(folder: Path) -> RunRecord:
    """The record of a run.

    Raises:
        CheckpointError: recipe, plan or corpus.json is damaged.
    """
    superseded = folder / SUPERSEDED
    return RunRecord(
        folder,
        read_recipe(folder),
        read_record(folder / "corpus.json", Manifest),
        read_plan(folder),
        read_metrics(folder),
        superseded.read_bytes().count(b"\n") if superseded.is_file() else 0,
        [SavedSample(step, read_sample(path)) for step, path in _spread(sample_files(folder))],
        _measured(folder / COPIES),
    )


def sample_files(run: Path) -> list[tuple[int, Path]]:
    """The samples of a run, oldest first, with their steps."""
    numbered = [(path.stem.removeprefix("step-"), path) for path in sorted((run / "samples").glob(SAMPLE))]
    return [(int(step), path) for step, path in numbered if step.isdecimal()]


def read_sample(path: Path) -> str:
    """The text of a sample; one that breaks off within a character ends with its mark."""
    return path.read_text(encoding="utf-8", errors="replace").rstrip()


def _spread(files: list[tuple[int, Path]]) -> list[tuple[int, Path]]:
    """Some, evenly, the first and the last among them."""
    last = len(files) - 1
    chosen = {round(n * last / (SHOWN_SAMPLES - 1)) for n in range(SHOWN_SAMPLES)} if files else set()
    return [files[place] for place in sorted(chosen)]


def _measured(path: Path) -> Row:
    try:
        found = storage.read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

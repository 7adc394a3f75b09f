"""What of a run's wall time is no training step: one run, its parts timed where the trainer calls them.

    python benchmarks/overhead.py TEXT
    python benchmarks/overhead.py TEXT train.minutes=5 model.n_embd=128

TEXT and settings are those of `yanmo train`; without a length it is ``train.minutes=2``. The run is in this
process, in a temporary folder with an empty cache, so that everything that comes before the first step is
done anew: importing torch, reading and tokenising, measuring what is fastest. Each second is counted once:
what happens within a part (rows of metrics within a checkpoint) belongs to it. "Of it" is what a part is made
of, in as far as that is timed; "the rest" is what no part has. Timing adds about a microsecond a call.
"""

import argparse
import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import turns

MINUTES = "train.minutes=2"
LENGTHS = ("train.minutes=", "train.max_steps=", "train.epochs=")
BEFORE, STEPS, BATCHES = "before the first step", "training steps", "drawing batches"


@dataclass(frozen=True)
class Call:
    """One call of something timed."""

    part: str
    start: float
    seconds: float
    inside: str | None
    """The part in the middle of which it was called."""


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    part: str
    calls: int
    seconds: float
    of: str | None = None
    """The part it is a part of."""


class Stopwatch:
    """Notes every call of the functions that it wraps."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._open: list[str] = []

    def note(self, part: str, start: float) -> None:
        """Something that began at ``start`` ends now."""
        inside = self._open[-1] if self._open else None
        self.calls.append(Call(part, start, time.perf_counter() - start, inside))

    def wrap(self, owner: Any, name: str, part: str) -> None:
        """From now on, time ``owner.name`` as ``part``."""
        function: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            self._open.append(part)
            try:
                return function(*arguments, **named)
            finally:
                self._open.pop()
                self.note(part, start)

        setattr(owner, name, timed)


def main() -> None:
    """Train, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("settings", nargs="*", help="as behind `yanmo train TEXT`")
    asked = parser.parse_args()
    settings = with_length(asked.settings)
    watch, start = Stopwatch(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["YANMO_CACHE"] = f"{folder}/cache"
        done = train(watch, [str(asked.text), *settings], Path(folder) / "run")
    end = time.perf_counter()
    rows = summarise(watch.calls, start, end)
    print_table(rows, end - start)
    about = {"text": asked.text.name, "settings": settings, "wall_s": end - start, "run": done}
    print(turns.save("overhead", about | {"parts": [vars(row) for row in rows]}))


def with_length(settings: list[str]) -> list[str]:
    """The settings, and two minutes if they say nothing of how long."""
    return settings if any(setting.startswith(LENGTHS) for setting in settings) else [*settings, MINUTES]


def train(watch: Stopwatch, arguments: list[str], folder: Path) -> dict[str, Any]:
    """A run with its parts timed; its steps and what was decided."""
    start = time.perf_counter()
    from yanmo.core.console import Console
    from yanmo.settings.recipe import get, load_recipe
    from yanmo.train import trainer
    from yanmo.train.request import asked_recipe

    watch.note("importing", start)
    wrap_parts(watch)
    recipe, _ = asked_recipe(arguments)
    result = trainer.train(recipe, folder, Console(stream=sys.stderr))
    made = load_recipe(folder / "recipe.toml")
    return {
        "steps": result.progress.step,
        "tokens": result.progress.tokens,
        "decided": {name: get(made, name) for name in made.decided},
    }


def wrap_parts(watch: Stopwatch) -> None:
    """Put the stopwatch where ``trainer.py`` and ``run.py`` call what they are made of."""
    from yanmo.data.batches import Batches
    from yanmo.train import run, trainer
    from yanmo.train.metrics import Metrics

    parts: dict[str, list[tuple[Any, str]]] = {
        "preparing the text": [(run, "prepare_texts")],
        "measuring what is fastest": [(run, "measure"), (run, "decide_compile")],
        "making the process ready": [(run, "configure_torch")],
        "baselines": [(run, "baselines_of")],
        "telling the plan": [(run, "forecast"), (run, "describe")],
        "making the model": [(run, "adapted_model"), (run, "build_optimizer"), (trainer, "restore")],
        BATCHES: [(Batches, "at")],
        STEPS: [(trainer, "train_step_with_oom_retry")],
        "evaluation": [(trainer, "measure_now")],
        "samples": [(trainer, "write_sample")],
        "checkpoints": [(trainer, "save_now")],
        "metrics and console": [
            (trainer, "Metrics"), (Metrics, "write"), (Metrics, "__exit__"), (trainer, "log_step"),
            (trainer, "log_experts"), (trainer, "log_run_start"), (trainer, "finish"),
        ],
        "counting": [
            (trainer, "check_finite_and_update_loss_scale"), (trainer, "count_step"),
            (trainer, "replan_total_steps"),
        ],
    }  # fmt: skip
    for part, places in parts.items():
        for owner, name in places:
            watch.wrap(owner, name, part)


def summarise(calls: Iterable[Call], start: float, end: float) -> list[Row]:
    """Rows that add up to the wall time, but for those that are "of" another.

    Args:
        calls: all that were noted.
        start: when the run began.
        end: when it ended.
    """
    calls = sorted(calls, key=lambda call: call.start)
    first_step = next((call.start for call in calls if call.part == STEPS), end)
    outer = [call for call in calls if call.inside is None]
    before = [call for call in outer if call.start < first_step]
    after = [call for call in outer if call.start >= first_step]
    drawn = [call for call in calls if call.part == BATCHES and call.inside == STEPS]
    rows = [Row(BEFORE, 1, first_step - start), *rows_of(before, BEFORE)]
    for row in rows_of(after):
        rows += [row, *rows_of(drawn, STEPS)] if row.part == STEPS else [row]
    counted = sum(row.seconds for row in rows if row.of is None)
    return [*rows, Row("the rest", 1, end - start - counted)]


def rows_of(calls: list[Call], of: str | None = None) -> list[Row]:
    """A row for each part, the longest first."""
    parts = {call.part for call in calls}
    by_part = {part: [call.seconds for call in calls if call.part == part] for part in parts}
    rows = [Row(part, len(seconds), sum(seconds), of) for part, seconds in by_part.items()]
    return sorted(rows, key=lambda row: -row.seconds)


def print_table(rows: list[Row], wall: float) -> None:
    """In Markdown."""
    print("| part | calls | seconds | share of wall | a call |\n|---|---|---|---|---|")
    for row in [*rows, Row("wall", 1, wall)]:
        name = f"– of it {row.part}" if row.of else row.part
        each = 1e3 * row.seconds / row.calls
        print(f"| {name} | {row.calls:,} | {row.seconds:.2f} | {row.seconds / wall:.2%} | {each:,.2f} ms |")


if __name__ == "__main__":
    main()

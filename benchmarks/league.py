"""A league for two cores and a small text: a track is run, and a row is added to its table.

    python benchmarks/league.py plays TEXT --seeds 3
    python benchmarks/league.py unseen TEXT -- "optim.weight_decay=0.5" "model.n_layer=6"
    python benchmarks/league.py plays TEXT --pace "model.n_embd=384 model.n_head=6"

``docs/league.md`` has the rules, the tracks and where their texts are; a text whose sha256 is another one is
refused. A run is a `yanmo train` of so many steps, and its row is found again by track, settings and seed:
the command may be stopped and given again. ``--pace`` times the steps of other settings beside those of
the defaults, in turns: a shape whose steps take twice as long has half of the steps.
"""

import argparse
import hashlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import demo_floor
from ablate import read
from runs import trained

TABLE = Path(__file__).parent / "results" / "league.jsonl"
STEPS = 2700
"""Of the defaults in ten minutes on the machine of the first rows, measured beforehand (docs/league.md)."""
ROUNDS = 3


@dataclass(frozen=True)
class Track:
    """A text, how much of it is read and how much held out, and in what its figure is told."""

    what: str
    sha256: str
    steps: int = STEPS
    characters: int | None = None
    """So many from its beginning; None: all."""
    to_the_end: tuple[int, int] | None = None
    """A part, from character to character, that is put behind all others."""
    held_out: float | None = None
    """Its last part; None: as yanmo decides."""
    unit: Literal["bits per character", "nats per character", "bits above the entropy"] = "bits per character"


PLAYS = "69484c403a846660"
NOVELS = "1361774856aa9f2b"
GENTLEMEN = (629_752, 670_068)
TRACKS = {
    "shakespeare": Track(
        "tiny-shakespeare, its last tenth held out",
        "86c4e6aa9db7c042",
        held_out=0.1,
        unit="nats per character",
    ),
    "plays": Track("sixteen plays by Shakespeare in Zhu Shenghao's Chinese", PLAYS),
    "unseen": Track(
        "fifteen of them; The Two Gentlemen of Verona is held out",
        PLAYS,
        to_the_end=GENTLEMEN,
        held_out=0.049693,
    ),
    "novels": Track("eleven novels of Ming and Qing", NOVELS),
    "few_novels": Track("the first 800,000 characters of these", NOVELS, characters=800_000),
    "demo": Track("yanmo's own demo corpus", "", steps=STEPS * 3 // 10, unit="bits above the entropy"),
}
Key = dict[str, Any]


def main() -> None:
    """Run what is missing, then print the track's table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("track", choices=TRACKS)
    parser.add_argument("text", type=Path, nargs="?", help="not of the demo")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--steps", type=int, help="another number than the track's, for a slower or faster shape"
    )
    parser.add_argument("--at-once", type=int, default=1, help="runs that share the cores")
    parser.add_argument("--pace", metavar="SETTINGS", help="time these beside the defaults, and end")
    parser.add_argument("variants", nargs="*", default=[""], help="settings, as behind `yanmo train TEXT`")
    asked = parser.parse_intermixed_args()
    track = TRACKS[asked.track]
    with tempfile.TemporaryDirectory() as folder:
        text = prepared(track, asked.text, Path(folder))
        if asked.pace is not None:
            print(pace(text, asked.pace.split(), track.steps))
            return
        steps = asked.steps or track.steps
        wanted = [
            {"track": asked.track, "settings": settings, "steps": steps, "seed": seed}
            for seed in range(1, asked.seeds + 1)
            for settings in asked.variants
        ]
        done = read(TABLE)
        missing = [key for key in wanted if not any(key.items() <= row.items() for row in done)]
        threads = max((os.cpu_count() or 1) // asked.at_once, 1)
        with ThreadPoolExecutor(asked.at_once) as pool:
            for finished in as_completed([pool.submit(run, track, text, key, threads) for key in missing]):
                with TABLE.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(finished.result(), ensure_ascii=False) + "\n")
    print_table(asked.track)


def prepared(track: Track, text: Path | None, folder: Path) -> str:
    """What yanmo is given: the track's part of a text that is the right one."""
    if not track.sha256:
        return "yanmo:demo"
    if text is None:
        raise SystemExit("name the track's text")
    content = text.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if not found.startswith(track.sha256):
        raise SystemExit(f"{text} has sha256 {found}, the track's text {track.sha256}…")
    if track.characters is None and track.to_the_end is None:
        return str(text)
    whole = content.decode()[: track.characters]
    if track.to_the_end is not None:
        start, end = track.to_the_end
        whole = whole[:start] + whole[end:] + whole[start:end]
    cut = folder / text.name
    cut.write_text(whole, encoding="utf-8", newline="\n")
    return str(cut)


def run(track: Track, text: str, key: Key, threads: int) -> Key:
    """Train once; ``key`` and what came of it."""
    settings = [f"train.max_steps={key['steps']}", f"train.seed={key['seed']}", f"train.threads={threads}"]
    settings += [f"data.val_fraction={track.held_out}"] if track.held_out else []
    in_demo = track.unit == "bits above the entropy"
    found = trained(
        text, [*settings, *key["settings"].split()], demo_floor.excess_over_floor if in_demo else None
    )
    best, last = found.result["best_val_bits_per_char"], found.result["val_bits_per_char"]
    if track.unit == "nats per character":
        best, last = best * math.log(2), last * math.log(2)
    if in_demo:
        best, last = found.looked[1], None
    said = {"best": round(best, 4), "best_step": found.result["best_step"], "last": last and round(last, 4)}
    recipe = found.recipe
    chosen = {"decay": recipe["optim"]["weight_decay"], "average": recipe["optim"]["average"]}
    return key | said | chosen | {"seconds": round(found.seconds)} | found.made


def print_table(name: str) -> None:
    """Mean and range over seeds, best first."""
    rows: dict[tuple[str, int], list[Key]] = {}
    for row in read(TABLE):
        if row["track"] == name:
            rows.setdefault((row["settings"], row["steps"]), []).append(row)
    print(f"{TRACKS[name].what}; {TRACKS[name].unit}")
    print("| settings | steps | seeds | best | range | at the end |\n|---|---|---|---|---|---|")
    for (settings, steps), runs in sorted(rows.items(), key=lambda item: mean(item[1], "best")):
        found = [row["best"] for row in runs]
        last = "" if runs[0]["last"] is None else f"{mean(runs, 'last'):.3f}"
        print(
            f"| {f'`{settings}`' if settings else 'the defaults'} | {steps:,} | {len(runs)}"
            f" | {mean(runs, 'best'):.3f} | {min(found):.3f} to {max(found):.3f} | {last} |"
        )


def mean(rows: list[Key], name: str) -> float:
    """Over runs."""
    return statistics.mean(row[name] for row in rows)


def pace(text: str, settings: list[str], steps: int) -> str:
    """How much longer a step takes with other settings than with the defaults; and the steps left."""
    ratios = [seconds_per_step(text, settings) / seconds_per_step(text, []) for _ in range(ROUNDS)]
    ratio = statistics.median(ratios)
    low, high = min(ratios), max(ratios)
    return f"a step takes {ratio:.2f} ({low:.2f} to {high:.2f}) times as long: {round(steps / ratio):,} steps"


def seconds_per_step(text: str, settings: list[str]) -> float:
    """What `yanmo plan` measures here."""
    command = [sys.executable, "-m", "yanmo", "plan", text, "train.max_steps=1000", *settings, "--json"]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(said.stdout)["seconds_per_step"])


if __name__ == "__main__":
    main()

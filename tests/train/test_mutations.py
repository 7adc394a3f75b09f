"""Any file of a run, damaged in any way: the very same result, or an error that names the file."""

import io
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.makers.runs import RUN, StopAt, Trained, losses, tiny_recipe, weights
from yanmo.core.console import Console
from yanmo.core.errors import Stopped, YanmoError
from yanmo.train.metrics import METRICS
from yanmo.train.trainer import train

MORE = ("model.dropout=0.1", "train.eval_interval=4")
PASSED_OVER = {"samples", "tensorboard", "run.lock"}
"""What nothing is computed from."""
FREE = re.compile(
    r"(log_interval|eval_interval|checkpoint_interval|keep_last|save_every_epoch|workers)|\[sample\]|\[health\]"
)
"""Settings that may be others when a run goes on."""

Mutation = Callable[[bytes, random.Random], bytes]


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def flip_digit(data: bytes, rng: random.Random) -> bytes:
    places = [match.start() for match in re.finditer(rb"\d", data)]
    at = rng.choice(places) if places else rng.randrange(len(data))
    return data[:at] + str((data[at] - 47) % 10).encode() + data[at + 1 :]


def nest(data: bytes, rng: random.Random) -> bytes:
    return b"[" * 200_000 + data


def delete_key(data: bytes, rng: random.Random) -> bytes:
    return in_json(data, rng, lambda holder, key: holder.pop(key))


def rename_key(data: bytes, rng: random.Random) -> bytes:
    def rename(holder: Any, key: Any) -> None:
        if isinstance(holder, dict):
            holder[f"{key}x"] = holder.pop(key)
        else:
            holder.append(holder.pop(key))

    return in_json(data, rng, rename)


def change_type(data: bytes, rng: random.Random) -> bytes:
    other = rng.choice([None, "x", True, [], {}, -1, float("nan"), 1e300, [[[]]]])
    return in_json(data, rng, lambda holder, key: holder.__setitem__(key, other))


def in_json(data: bytes, rng: random.Random, change: Callable[[Any, Any], object]) -> bytes:
    """Change one value, somewhere; of what is no JSON, one line."""
    lines = data.split(b"\n")
    rows = [number for number, line in enumerate(lines) if line.startswith(b"{") and line.endswith(b"}")]
    number = rng.choice(rows) if rows else None
    try:
        value = json.loads(data if number is None else lines[number])
    except ValueError:
        del lines[rng.randrange(len(lines))]
        return b"\n".join(lines)
    places = list(_places(value))
    if not places:
        return b"null"
    change(*rng.choice(places))
    text = json.dumps(value).encode()
    return text if number is None else b"\n".join([*lines[:number], text, *lines[number + 1 :]])


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


MUTATIONS: tuple[Mutation, ...] = (truncate, flip_digit, nest, delete_key, rename_key, change_type)


def files_of(folder: Path) -> list[Path]:
    """The files that a result depends on; a link leads to one of them."""
    found = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return sorted(
        path
        for path in found
        if not PASSED_OVER & set(path.relative_to(folder).parts) and path.stat().st_size
    )


def is_free(before: bytes, after: bytes) -> bool:
    """Whether only a setting differs that may be another, or what is said of them all."""
    ours, theirs = (data.decode("utf-8", "replace").split("\n") for data in (before, after))
    section = ""
    for old, new in zip(ours, theirs, strict=False):
        section = old if old.startswith("[") else section
        if old != new:
            return bool(FREE.search(f"{section} {old.partition('#')[0]}")) or old.startswith(("#", "decided"))
    return len(ours) > len(theirs) and section == "[sample]"


def outcome(folder: Path) -> object:
    """What the same command gives: losses and weights, or what is said."""
    try:
        train(tiny_recipe("novel.txt", more=MORE), folder, Console(io.StringIO()))
    except YanmoError as error:
        return str(error)
    return losses(folder), weights(folder)


def damage(kept: dict[str, Path], whole: object, mutations: int, seed: int) -> None:
    """Damage a file of a run or of its cache, and give the same command again."""
    rng = random.Random(seed)
    cache = Path(os.environ["YANMO_CACHE"])
    for number in range(mutations):
        name = rng.choice(sorted(kept))
        shutil.rmtree(RUN, ignore_errors=True)
        shutil.rmtree(cache)
        shutil.copytree(kept[name], RUN, symlinks=True)
        shutil.copytree(Path("kept-cache"), cache)
        path = rng.choice(files_of(RUN) + files_of(cache))
        mutation, before = rng.choice(MUTATIONS), path.read_bytes()
        after = mutation(before, rng)
        path.write_bytes(after)
        found = outcome(RUN)
        said = f"seed {seed}, number {number}: {mutation.__name__} of {path}, a {name} run"
        if isinstance(found, str):
            assert path.name in found, f"{said}: {found}"
        elif path.name == METRICS:  # what is told of steps that are not done again
            assert found[1] == whole[1], said  # type: ignore[index]
        elif not (path.name == "recipe.toml" and is_free(before, after)):
            assert found == whole, said


@pytest.fixture
def kept(novel: Path, trained: Trained, own_cache: Path) -> dict[str, Path]:
    """A finished run and one that was stopped, and their cache."""
    runs = {name: Path(f"kept-{name}") for name in ("finished", "stopped")}
    outcome(runs["finished"])
    with pytest.raises(Stopped):
        train(tiny_recipe(novel, more=MORE), runs["stopped"], Console(io.StringIO()), take_step=StopAt(9))
    shutil.copytree(own_cache, "kept-cache")
    return runs


@pytest.mark.long
def test_a_damaged_file_gives_the_same_result_or_is_named(kept: dict[str, Path], drawn_seed: int) -> None:
    damage(kept, outcome(kept["finished"]), mutations=60, seed=drawn_seed)


@pytest.mark.nightly
def test_hundreds_of_damaged_files_give_the_same_result_or_are_named(
    kept: dict[str, Path], drawn_seed: int
) -> None:
    damage(kept, outcome(kept["finished"]), mutations=500, seed=drawn_seed + 1)


def test_every_mutation_changes_something() -> None:
    data = json.dumps({"a": {"b": [1, 2]}, "c": 0.5}).encode()
    for mutation in MUTATIONS:
        assert any(mutation(data, random.Random(seed)) != data for seed in range(5)), mutation.__name__

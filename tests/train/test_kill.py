"""SIGKILL at random moments, half of them inside a save: each resumed run is bit-identical."""

import io
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.makers.models import TOKENIZER, lively_model, our_folder
from tests.makers.parsers import shard_files
from tests.makers.processes import Child, as_yanmo, children_of, needs_proc
from tests.makers.ranks import run, words
from tests.makers.runs import DivergeAt, OverflowAt, losses, tiny_recipe, weights, without_times
from yanmo.checkpoint.folder import newest_first
from yanmo.core import storage
from yanmo.core.console import Console
from yanmo.train.metrics import METRICS
from yanmo.train.oom import TakeStep
from yanmo.train.step import training_step
from yanmo.train.trainer import train

STEPS = 24
SHORT = 12
"""Steps with the saves that a test of each point dies in, and some after them."""
TALK = ("corpus.path=['talk.jsonl']", "model.init=theirs")
KINDS = {
    "float32": (),
    "bfloat16": ("train.precision=bfloat16",),
    "float16": ("train.precision=float16",),
    "adamw": ("optim.name=adamw", "model.family=gpt2"),
    "accumulation": ("train.micro_batch_size=2", "train.batch_size=16"),
    "stride": ("data.stride=5", "optim.schedule=wsd"),
    "epochs": (
        "train.batch_size=64", "train.micro_batch_size=32", "train.epochs=4", "train.max_steps=1000",
        "train.save_every_epoch=true", "optim.schedule=linear",
    ),
    "moe": ("model.family=moe", "model.n_expert=4", "model.n_expert_active=2", "model.expert_inner=16"),
    "byte pieces": ("tokenizer.kind=bpe", "tokenizer.vocab_size=300"),
    "documents": ("corpus.path=['novel.txt','rows.jsonl']", "corpus.separator='。'", "data.document_mask=true"),
    "short windows": ("train.seq_len_warmup=0.5", "train.deterministic=true"),
    "every step": ("train.checkpoint_interval=1", "train.keep_last=1", "train.log_interval=3"),
    "other weights": ("model.init=theirs",),
    "lora": ("model.init=theirs", "finetune.method=lora", "finetune.rank=4"),
    "last": ("model.init=theirs", "finetune.method=last", "finetune.layers=1"),
    "shards": ("corpus.path=['shards']",),
    "dialogues": (*TALK, "finetune.method=lora", "finetune.rank=2", "finetune.replay=0.3", "finetune.keep=novel.txt"),
    "pairs": ("corpus.path=['pairs.jsonl']", "model.init=theirs", "finetune.method=full"),
    "taken back": ("optim.average=0.3", "train.checkpoint_interval=4"),
    "averages": ("optim.average=0.3", "optim.weight_decay=0.5", "model.family=moe"),
}  # fmt: skip
"""What a run may be made of; each must survive being killed."""
OVERFLOWS = {3, 11, 12, 20}
"""Steps at which a float16 gradient is made to overflow."""
DIVERGES = 10
"""The step whose loss is not finite until the run is slower."""
PRIMITIVES = ("sync_file", "sync_folder", "write_json", "sha256_of", "remove_folder", "remove_path", "point")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL"),
]


def child(folder: str, die_at: int | None, kind: str, steps: int) -> None:
    """Train; with ``die_at``, die by SIGKILL at that storage call: inside saves, or, negative, in set-up."""
    if die_at is not None:
        _die_at(abs(die_at), in_save=die_at > 0)
    more = (f"train.max_steps={steps}", "train.eval_interval=8", "model.dropout=0.1", *KINDS[kind])
    steps_of = {"float16": OverflowAt(OVERFLOWS), "taken back": DivergeAt(DIVERGES, Path(folder))}
    take_step: TakeStep = steps_of.get(kind, training_step)
    train(tiny_recipe("novel.txt", more=more), Path(folder), Console(io.StringIO()), take_step)


def put_inputs() -> None:
    """What some kinds of run are made of beside the novel."""
    Path("rows.jsonl").write_text('{"text": "江湖。夜雨。"}\n' * 3, encoding="utf-8")
    our_folder(Path("theirs"), lively_model(), TOKENIZER)
    talk = [
        {"messages": [{"role": "user", "content": f"{n}"}, {"role": "assistant", "content": "夜"}]}
        for n in range(40)
    ]
    pairs = [{"prompt": f"{n}", "chosen": "江湖夜", "rejected": "雨", "format": "text"} for n in range(40)]
    for name, rows in (("talk", talk), ("pairs", pairs)):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        Path(f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    Path("shards").mkdir()
    for name, data in shard_files().items():
        Path("shards", name).write_bytes(data)


def _die_at(die_at: int, in_save: bool) -> None:
    from yanmo.train import trainer

    calls, saving = 0, not in_save

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            nonlocal calls
            calls += saving
            if calls == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments)

        return call

    for name in PRIMITIVES:
        setattr(storage, name, counted(getattr(storage, name)))
    os.replace, os.rename = counted(os.replace), counted(os.rename)  # type: ignore[assignment]
    real_save = trainer.save_now

    def save(*arguments: object) -> object:
        nonlocal saving
        saving = True
        progress = real_save(*arguments)  # type: ignore[arg-type]
        saving = not in_save
        return progress

    trainer.save_now = save  # type: ignore[assignment]


def run_child(folder: Path, kind: str, die_at: int | None = None, steps: int = STEPS) -> int:
    return Child(child, str(folder), die_at, kind, steps).wait(120)


def kill_at_random(folder: Path, kind: str, rng: random.Random) -> None:
    """Kill a run some moment after a random row of its metrics appeared."""
    process = Child(child, str(folder), None, kind, STEPS)
    wait_for_rows(folder, rng.randrange(1, STEPS - 4), lambda: process.poll() is None)
    time.sleep(rng.random() * 0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"


def wait_for_rows(folder: Path, rows: int, is_alive: Callable[[], bool]) -> None:
    """Until a run has written so many rows of metrics."""
    deadline = time.monotonic() + 60
    while is_alive() and time.monotonic() < deadline:
        path = folder / METRICS
        if path.exists() and path.read_bytes().count(b"\n") >= rows:
            return
        time.sleep(0.0005)


def assert_equal_to_whole(folder: Path, said: str) -> None:
    assert losses(folder) == losses(Path("whole")), said
    assert weights(folder) == weights(Path("whole")), said
    assert without_times(folder) == without_times(Path("whole")), said


def kill_matrix(kills: int, seed: int, kind: str) -> None:
    rng = random.Random(seed)
    put_inputs()
    assert run_child(Path("whole"), kind) == 0
    for number in range(kills):
        folder = Path(f"killed-{number}")
        if number % 2:
            kill_at_random(folder, kind, rng)
        else:
            assert run_child(folder, kind, die_at=rng.randrange(1, 90)) == -signal.SIGKILL
        for checkpoint in newest_first(folder):
            storage.verify_folder(checkpoint)
        assert run_child(folder, kind) == 0
        assert_equal_to_whole(folder, f"seed {seed}, kill {number}")
        assert not list(folder.rglob(f"{storage.TEMPORARY}*"))
        shutil.rmtree(folder)


def test_four_kills_are_bit_identical(novel: Path, drawn_seed: int) -> None:
    kill_matrix(kills=4, seed=drawn_seed, kind="float32")


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_five_kills_of_each_kind_are_bit_identical(novel: Path, kind: str, drawn_seed: int) -> None:
    kill_matrix(kills=5, seed=drawn_seed, kind=kind)


@pytest.mark.nightly
@pytest.mark.parametrize("part", range(2))
@pytest.mark.parametrize("kind", KINDS)
def test_fifty_kills_of_each_kind_are_bit_identical(
    novel: Path, kind: str, part: int, drawn_seed: int
) -> None:
    kill_matrix(kills=25, seed=drawn_seed * 2 + part, kind=kind)


def kill_ranks(ranks: int, kills: int, seed: int) -> None:
    """A rank, now this one, now that one, dies at a random moment; the launcher ends the others.

    From three on the order in which ranks are summed is seen in the last bits.
    """
    rng = random.Random(seed)
    more = (f"train.max_steps={STEPS}", "train.eval_interval=8", "model.dropout=0.1")
    assert run(ranks, "whole", *more).returncode == 0
    for number in range(kills):
        folder = Path(f"killed-{number}")
        launcher = Child(as_yanmo, words(ranks, str(folder), *more))
        wait_for_rows(folder, rng.randrange(1, STEPS - 4), lambda: launcher.poll() is None)  # noqa: B023
        time.sleep(rng.random() * 0.005)
        os.kill(children_of(launcher.pid)[number % ranks], signal.SIGKILL)
        assert launcher.wait() == 128 + signal.SIGKILL, f"seed {seed}, kill {number}"
        assert run(ranks, str(folder), *more).returncode == 0
        assert_equal_to_whole(folder, f"seed {seed}, kill {number}")


@pytest.mark.long
@needs_proc
@pytest.mark.parametrize(("ranks", "kills"), [(2, 6), (3, 2)])
def test_kills_of_several_ranks_are_bit_identical(
    novel: Path, ranks: int, kills: int, drawn_seed: int
) -> None:
    kill_ranks(ranks, kills, drawn_seed)


@pytest.mark.nightly
@needs_proc
@pytest.mark.parametrize(("ranks", "kills"), [(2, 100), (3, 50)])
def test_many_kills_of_several_ranks_are_bit_identical(
    novel: Path, ranks: int, kills: int, drawn_seed: int
) -> None:
    kill_ranks(ranks, kills, drawn_seed)


@pytest.mark.long
def test_every_point_inside_a_save_is_survived(novel: Path) -> None:
    """Die at every second storage call of the first two checkpoints in turn."""
    assert run_child(Path("whole"), "float32", steps=SHORT) == 0
    for point in range(1, 50, 2):
        folder = Path(f"point-{point}")
        assert run_child(folder, "float32", die_at=point, steps=SHORT) == -signal.SIGKILL
        assert run_child(folder, "float32", steps=SHORT) == 0
        assert_equal_to_whole(folder, f"point {point}")


@pytest.mark.long
def test_every_point_of_the_set_up_is_survived(novel: Path) -> None:
    """Die at each storage call from the first on: reading, tokenising, and writing the recipe."""
    assert run_child(Path("whole"), "float32", steps=SHORT) == 0
    for point in range(1, 40, 3):
        shutil.rmtree(os.environ["YANMO_CACHE"], ignore_errors=True)
        folder = Path(f"early-{point}")
        assert run_child(folder, "float32", die_at=-point, steps=SHORT) == -signal.SIGKILL
        assert run_child(folder, "float32", steps=SHORT) == 0
        assert_equal_to_whole(folder, f"point {point}")

"""What tests share: a small text, a quiet voice, a cache of their own, and tiny recipes."""

import io
import os
import random
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from yanmo.config import Recipe
from yanmo.log import Voice
from yanmo.recipe import load_recipe

TINY = (
    "model.n_layer=2", "model.n_head=2", "model.n_embd=16", "model.block_size=16",
    "model.dropout=0",
    "train.batch_size=8", "train.micro_batch_size=4", "train.max_steps=12", "train.log_interval=1",
    "train.eval_interval=4", "train.checkpoint_interval=4", "train.device=cpu", "train.threads=1",
    "train.precision=float32", "train.attention=matmul", "train.matmul=torch", "train.compile=false",
    "sample.max_new_tokens=8",
)  # fmt: skip


# red once is red again, on any machine
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
torch.set_num_threads(1)  # tiny models; and two cores may run two tests
os.environ["OMP_NUM_THREADS"] = "1"  # nor have the processes that tests start more


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder with an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("YANMO_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def voice() -> Voice:
    return Voice(stream=io.StringIO())


@pytest.fixture
def novel(tmp_path: Path) -> Path:
    path = tmp_path / "novel.txt"
    path.write_text(invented_text(6000), encoding="utf-8")
    return path


def invented_text(characters: int, seed: int = 0) -> str:
    """Lines of a few words that follow each other with some regularity."""
    rng = random.Random(seed)
    words = ["春风", "夜雨", "江湖", "剑", "他说", "，", "。", "一碗酒", "不见", "山", "“走”", "\n"]
    text: list[str] = []
    while len("".join(text)) < characters:
        start = rng.randrange(len(words))
        text += [words[(start + i * i) % len(words)] for i in range(rng.randrange(2, 6))]
    return "".join(text)[:characters]


def tiny_recipe(*paths: Path | str, more: tuple[str, ...] = ()) -> Recipe:
    corpus = "corpus.path=[" + ", ".join(f"'{path}'" for path in paths) + "]"
    return load_recipe(None, [corpus, *TINY, *more])

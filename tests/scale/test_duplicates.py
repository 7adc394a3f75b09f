"""Many tasks decide what one machine decides: the stages one after another, in this process."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.makers.corpora import write_corpus
from yanmo.core.console import Console
from yanmo.core.storage import read_json
from yanmo.data.shards import ShardSet
from yanmo.data.split import plan_split
from yanmo.scale import tokens
from yanmo.scale.corpus import unwanted_in
from yanmo.scale.plan import Plan, deal, make_plan
from yanmo.scale.script import stages_of
from yanmo.settings.recipe import load_cleaning, load_recipe
from yanmo.text.clean.run import run
from yanmo.text.read.documents import corpus_fingerprint

pytestmark = pytest.mark.slow
pytest.importorskip("datatrove")


def run_here(plan: Plan) -> None:
    from yanmo.scale import steps

    for stage in stages_of(plan):
        chain = [getattr(steps, text.partition("(")[0])(plan) for text in stage.steps.split(", ")]
        for rank in range(stage.tasks):
            data: Any = None
            for step in chain:
                data = step(data, rank, stage.tasks)


def planned(texts: Path, vocabulary: Path, tasks: int, *asked: str) -> Plan:
    recipe = load_recipe(None, [f"tokenizer.path={vocabulary}", "data.val_fraction=0.1"])
    return make_plan(load_cleaning(asked, [str(texts)]), recipe, tasks, Path("plan"))[0]


@pytest.mark.parametrize(
    "asked",
    [
        (),
        ("dedup.near=0.5",),
        ("dedup.near=0",),
        ("dedup.exact=false",),
        ("dedup.exact=false", "dedup.near=0"),
        ("dedup.exact=false", "dedup.near=0", "dedup.paragraphs=0"),
        ('dedup.against=["texts/a.jsonl"]',),
        ('dedup.against=["passage.txt"]',),
        ("clean.ads=false", "clean.script=traditional", "dedup.paragraphs=20"),
    ],
    ids=" ".join,
)
def test_the_corpus_is_that_of_one_machine_whatever_is_asked(
    texts: Path, vocabulary: Path, console: Console, asked: tuple[str, ...]
) -> None:
    Path("passage.txt").write_text(passage_of(texts), encoding="utf-8")
    plan = planned(texts, vocabulary, 3, *asked)
    run_here(plan)
    alone = run(load_cleaning(asked, [str(texts)]), Path("one.jsonl"), console, dedup=True, workers=1)
    parts = sorted(plan.corpus.glob("*.jsonl"))
    assert b"".join(part.read_bytes() for part in parts) == Path("one.jsonl").read_bytes()
    together = read_json(Path("plan/corpus.manifest.json"))
    assert together["dropped"] == dict(alone.dropped)
    assert {
        key: together[key] for key in ("documents", "characters", "bytes", "sources", "read", "rules")
    } == {
        key: alone.as_json()[key] for key in ("documents", "characters", "bytes", "sources", "read", "rules")
    }
    if "passage" in "".join(asked):
        assert together["dropped"]["also in passage.txt"] >= 1
    dropped = sum(together["dropped"].values())
    assert together["read"]["documents_read"] == together["documents"] + dropped


def passage_of(texts: Path) -> str:
    """A hundred characters from within a longer text of the corpus."""
    rows = (texts / "a.jsonl").read_text(encoding="utf-8").splitlines()
    longest = max((json.loads(row)["text"] for row in rows), key=len)
    return longest[20:140]


def test_texts_that_must_stay_out_are_found_from_any_folder(
    texts: Path, vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("passage.txt").write_text(passage_of(texts), encoding="utf-8")
    planned(texts, vocabulary, 2, 'dedup.against=["passage.txt"]')
    plan = Plan.load(Path("plan").resolve())
    monkeypatch.chdir(tmp_path.parent)
    assert unwanted_in(plan).holds(f"别的话。{passage_of(texts)}") == "also in passage.txt"


@pytest.mark.parametrize("seed", range(1, 5))
def test_the_first_of_near_copies_stays_in_any_corpus(
    tmp_path: Path, vocabulary: Path, console: Console, seed: int
) -> None:
    folder = write_corpus(tmp_path / f"texts{seed}", seed, count=200)
    plan = planned(folder, vocabulary, 2 + seed)
    run_here(plan)
    run(load_cleaning((), [str(folder)]), Path("one.jsonl"), console, dedup=True, workers=1)
    together = b"".join(part.read_bytes() for part in sorted(plan.corpus.glob("*.jsonl")))
    assert together == Path("one.jsonl").read_bytes()


def test_shards_are_those_of_one_machine_however_the_files_are_cut(
    texts: Path, vocabulary: Path, console: Console
) -> None:
    plan = planned(texts, vocabulary, 4)
    run_here(plan)
    whole = b"".join(part.read_bytes() for part in sorted(plan.shards.glob("train-*.bin")))
    for file in plan.shards.glob("*-*.bin"):
        file.unlink()
    for task in range(3):
        tokens.join_shards(plan, task, 3, shard_tokens=1000)
    splits = tokens.finish(plan, shard_tokens=1000)
    files = splits["train"]["files"]
    assert len(files) == -(-splits["train"]["tokens"] // 1000) > 3
    assert b"".join((plan.shards / name).read_bytes() for name in files) == whole
    corpus = load_recipe(None, [f"corpus.path=['{plan.corpus.as_posix()}']"]).corpus
    shards = ShardSet(plan.shards, corpus_fingerprint(corpus), plan.tokenizer().fingerprint)
    assert len(shards.train) == splits["train"]["tokens"]
    assert np.array_equal(shards.train.at(shards.train.starts[1:] - 1),
                          np.full(len(shards.train.starts) - 1, plan.tokenizer().end_of_text))  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 200)), min_size=1, max_size=60),
    st.floats(0.005, 0.5),
)
def test_the_smallest_hashes_are_enough_to_split(documents: list[tuple[int, int]], share: float) -> None:
    length = dict(documents)  # equal hashes, equal sizes
    sizes = sorted((f"{name:02d}", length[name]) for name, _ in documents)
    characters = sum(size for _, size in sizes)
    some = tokens.smallest(sizes, share * characters)
    assert plan_split(some, share, characters) == plan_split(sizes, share)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=50), st.integers(1, 60))
def test_files_are_dealt_in_order_and_no_part_is_empty(sizes: list[int], tasks: int) -> None:
    parts = deal(sizes, tasks)
    assert parts == sorted(parts)
    assert {*parts} == {*range(parts[-1] + 1)} and parts[-1] < tasks

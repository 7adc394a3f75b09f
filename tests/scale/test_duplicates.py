"""Many tasks keep what one machine keeps: the script that a plan writes, run in this process."""

import json
import random
import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.corpora import some_text
from yanmo.core.console import Console
from yanmo.core.storage import read_json
from yanmo.data.shards import ShardSet, Tokens
from yanmo.settings.recipe import load_cleaning, load_recipe
from yanmo.text.clean.run import run
from yanmo.text.read.documents import corpus_fingerprint
from yanmo.tokenizer import Tokenizer

pytestmark = pytest.mark.slow
pytest.importorskip("datatrove")

from yanmo.scale import tokens  # noqa: E402 - what imports datatrove
from yanmo.scale.plan import Plan, deal, make_plan  # noqa: E402
from yanmo.scale.script import script  # noqa: E402


def made(texts: Path, vocabulary: Path, tasks: int, *asked: str) -> Plan:
    """A plan that was carried out."""
    recipe = load_recipe(None, [f"tokenizer.path={vocabulary}", "data.val_fraction=0.1"])
    plan, _ = make_plan(load_cleaning(asked, [str(texts)]), recipe, tasks, Path("plan"))
    Path("plan/pipeline.py").write_text(script(plan, "local", workers=1), encoding="utf-8")
    runpy.run_path("plan/pipeline.py", run_name="__main__")
    return plan


def alone(texts: Path, console: Console, *asked: str) -> tuple[list[str], dict[str, Any]]:
    """What one machine keeps, and its manifest."""
    result = run(load_cleaning(asked, [str(texts)]), Path("one.jsonl"), console, dedup=True, workers=1)
    return texts_of(Path("one.jsonl")), result.as_json()


def texts_of(*files: Path) -> list[str]:
    lines = (line for file in files for line in file.read_text(encoding="utf-8").splitlines())
    return [json.loads(line)["text"] for line in lines]


def kept(plan: Plan) -> list[str]:
    return texts_of(*sorted(plan.corpus.glob("*.jsonl")))


def letters(texts: list[str]) -> Counter[str]:
    return Counter("".join(text.split()) for text in texts)


def passage_of(texts: Path) -> str:
    """A hundred characters from within a longer text of the corpus."""
    longest = max(texts_of(texts / "a.jsonl"), key=len)
    return longest[20:140]


WITHOUT = ("dedup.near=0", "dedup.paragraphs=0")


@pytest.mark.parametrize(
    "asked",
    [
        (),
        ("dedup.near=0.5", "clean.ads=false"),
        ("dedup.exact=false",),
        ("dedup.exact=false", "dedup.near=0", "dedup.paragraphs=20"),
        ("dedup.exact=false", *WITHOUT),
    ],
    ids=" ".join,
)
def test_every_document_is_kept_or_counted_under_a_reason(
    texts: Path, vocabulary: Path, console: Console, asked: tuple[str, ...]
) -> None:
    plan = made(texts, vocabulary, 3, *asked)
    _, one = alone(texts, console, *asked)
    found = read_json(Path("plan/corpus.manifest.json"))
    assert found["read"] == one["read"]
    assert found["read"]["documents_read"] == found["documents"] + sum(found["dropped"].values())
    assert len(found["dropped_documents"]) == sum(found["dropped"].values())
    assert found["documents"] == len(kept(plan)) == sum(source["documents"] for source in found["sources"])
    assert found["characters"] == sum(map(len, kept(plan)))
    assert found["bytes"] == sum(file.stat().st_size for file in plan.corpus.glob("*.jsonl"))
    assert {*found["dropped"]} == {*one["dropped"]}


@pytest.mark.parametrize("tasks", [1, 4])
@pytest.mark.parametrize(
    "asked",
    [
        WITHOUT,
        ("dedup.exact=false", *WITHOUT),
        ('dedup.against=["texts/a.jsonl"]', *WITHOUT),
        ('dedup.against=["passage.txt"]', *WITHOUT),
    ],
    ids=" ".join,
)
def test_without_near_copies_the_same_texts_stay_as_on_one_machine(
    texts: Path, vocabulary: Path, console: Console, asked: tuple[str, ...], tasks: int
) -> None:
    Path("passage.txt").write_text(passage_of(texts), encoding="utf-8")
    plan = made(texts, vocabulary, tasks, *asked)
    one, manifest = alone(texts, console, *asked)
    assert letters(kept(plan)) == letters(one)
    dropped = read_json(Path("plan/corpus.manifest.json"))["dropped"]
    assert sorted(dropped.values()) == sorted(manifest["dropped"].values())
    assert any(reason.startswith("also in") for reason in dropped) == ("against" in "".join(asked))


def families(folder: Path, seed: int) -> Path:
    """Texts of which some have copies and near copies; a text's first line, too short to matter, names it."""
    rng = random.Random(seed)
    rows = []
    for number in range(60):
        text = "".join(some_text(rng) for _ in range(3)).replace("\n", "")
        for _ in range(rng.choice([1, 1, 2, 3])):
            letters = list(text)
            letters[rng.randrange(len(letters))] = rng.choice("天地人")
            rows.append(f"第{number}篇\n{rng.choice([text, ''.join(letters)])}")
    rng.shuffle(rows)
    folder.mkdir()
    for part in range(5):
        lines = (json.dumps({"text": row}, ensure_ascii=False) + "\n" for row in rows[part::5])
        (folder / f"{part}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.mark.parametrize("seed", range(2))
def test_one_of_each_cluster_of_near_copies_stays(
    tmp_path: Path, vocabulary: Path, console: Console, seed: int
) -> None:
    folder = families(tmp_path / "families", seed)
    asked = "dedup.paragraphs=0"
    names = [text.partition("\n")[0] for text in kept(made(folder, vocabulary, 3, asked))]
    one, manifest = alone(folder, console, asked)
    assert sorted(names) == sorted(text.partition("\n")[0] for text in one)
    assert len({*names}) == len(names) == 60
    dropped = read_json(Path("plan/corpus.manifest.json"))["dropped"]
    assert {*dropped} == {"a copy", "nearly a copy"}
    assert sum(dropped.values()) == sum(manifest["dropped"].values())


def test_a_paragraph_of_several_texts_stays_once_and_a_refrain_as_often_as_it_is_sung(
    tmp_path: Path, vocabulary: Path, console: Console
) -> None:
    rng = random.Random(7)
    own = [some_text(rng).replace("\n", "") for _ in range(7)]
    shared, refrain, both = (some_text(rng).replace("\n", "") * 2 for _ in range(3))
    songs = [f"{refrain}\n{own[0]}\n{refrain}", f"{both}\n{own[5]}\n{both}", f"{both}\n{own[6]}\n{both}"]
    rows = [*songs, *(f"{shared}\n{text}" for text in own[1:5]), shared]
    (tmp_path / "songs").mkdir()
    for number, row in enumerate(rows):
        (tmp_path / "songs" / f"{number}.txt").write_text(row, encoding="utf-8")
    plan = made(tmp_path / "songs", vocabulary, 4, "dedup.near=0", "clean.quality=false")
    lines = Counter(line for text in kept(plan) for line in text.split("\n"))
    assert lines[refrain] == 2 and lines[both] == 2 and lines[shared] == 1
    assert all(lines[text] == 1 for text in own)
    found = read_json(Path("plan/corpus.manifest.json"))
    assert found["rules"]["repeated_paragraphs"]["documents"] == 5


def documents_in(side: Tokens, tokenizer: Tokenizer) -> list[str]:
    ends = [*side.starts.tolist()[1:], len(side)]
    return [
        tokenizer.decode(side.slice(begin, end - 1)) for begin, end in zip(side.starts, ends, strict=True)
    ]


@pytest.mark.parametrize("shard_tokens", [1, 1000, 1 << 28])
def test_shards_hold_the_documents_of_the_corpus_in_order_however_files_are_joined(
    texts: Path, vocabulary: Path, shard_tokens: int
) -> None:
    plan = made(texts, vocabulary, 4)
    splits = tokens.finish(plan, shard_tokens)
    assert len(splits["train"]["files"]) == (4 if shard_tokens == 1 else 1 if shard_tokens > 1000 else 4)
    corpus = load_recipe(None, [f"corpus.path=['{plan.corpus.as_posix()}']"]).corpus
    shards = ShardSet(plan.shards, corpus_fingerprint(corpus), plan.tokenizer().fingerprint)
    held_out = [text for text in kept(plan) if tokens.is_held_out(text, 0.1)]
    others = [text for text in kept(plan) if not tokens.is_held_out(text, 0.1)]
    assert documents_in(shards.val, plan.tokenizer()) == held_out
    assert documents_in(shards.train, plan.tokenizer()) == others
    assert held_out and shards.manifest.counts.documents_read == len(kept(plan))


def test_a_share_of_all_texts_is_held_out() -> None:
    found = sum(tokens.is_held_out(f"第{number}篇", 0.05) for number in range(20_000))
    assert abs(found - 1000) < 150


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=50), st.integers(1, 60))
def test_files_are_dealt_in_order_and_no_part_is_empty(sizes: list[int], tasks: int) -> None:
    parts = deal(sizes, tasks)
    assert parts == sorted(parts)
    assert {*parts} == {*range(parts[-1] + 1)} and parts[-1] < tasks

import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.makers.models import TOKENIZERS
from tests.makers.runs import tiny_recipe
from tests.makers.texts import invented_text
from tests.makers.work import assert_linear, calls
from yanmo.core.console import Console
from yanmo.core.errors import ConfigError
from yanmo.core.records import Manifest
from yanmo.core.storage import cache_root, remove_path
from yanmo.data.prepare import prepare
from yanmo.data.shards import ShardWriter, Tokens
from yanmo.data.text_index import (
    DOCUMENT_END,
    TextIndex,
    build_index,
    documents_of,
    open_index,
    require_text,
)
from yanmo.settings.schema import Recipe
from yanmo.tokenizer import Tokenizer

LETTERS = "甲乙𠮷a\n"


def some(rng: random.Random, most: int) -> str:
    return "".join(rng.choices(LETTERS, k=rng.randrange(most + 1)))


def indexed(folder: Path, documents: list[str], block: int = 1 << 20) -> TextIndex:
    folder.mkdir(exist_ok=True)
    build_index(folder, [[text[:3], text[3:]] for text in documents], block)
    return TextIndex(folder)


def joined(documents: list[str]) -> str:
    return "".join(text + DOCUMENT_END for text in documents)


@pytest.mark.parametrize("trial", range(20))
def test_answers_are_those_of_a_search_through_the_text(trial: int, tmp_path: Path, drawn_seed: int) -> None:
    rng = random.Random(f"{drawn_seed} {trial}")
    documents = [some(rng, 40) for _ in range(rng.randrange(1, 6))]
    documents += [*documents, "甲" * 30] if trial % 3 == 0 else []  # repeats are the hard case
    index, text = indexed(tmp_path, documents, rng.choice((1, 3, 50, 1000))), joined(documents)
    for _ in range(40):
        before, at_least, length = some(rng, 5), some(rng, 2), rng.randrange(4)
        assert index.occurs(before) == (before in text)
        rests = [text[at + len(before) :] for at in range(len(text)) if text.startswith(before, at)]
        first = min((rest for rest in rests if rest >= at_least), default=None)
        assert index.continuation(before, length, at_least) == (None if first is None else first[:length])


def test_places_and_spans_are_those_of_a_search_through_the_text(tmp_path: Path, drawn_seed: int) -> None:
    rng = random.Random(drawn_seed)
    documents = [some(rng, 60) for _ in range(4)]
    index, text = indexed(tmp_path, documents), joined(documents)
    for at_most in (1, 3, 50):
        written = some(rng, 30) + documents[0][5:20] + some(rng, 30)
        ends = range(1, len(written) + 1)
        longest = [
            max(n for n in range(min(end, at_most) + 1) if written[end - n : end] in text) for end in ends
        ]
        assert [index.longest_end(written[:end], at_most) for end in ends] == longest
    copied = {
        at + k for at in range(len(written) - 4) if written[at : at + 5] in text for k in range(5)
    }  # the characters in any five that stand there
    spans = index.copied_spans(written, 5)
    assert [at for start, end in spans for at in range(start, end)] == sorted(copied)
    assert all(one[1] < other[0] for one, other in zip(spans, spans[1:], strict=False))
    assert any(end - start >= 15 for start, end in spans)


@pytest.mark.parametrize("trial", range(20))
def test_matches_are_those_of_a_search_through_the_text(trial: int, tmp_path: Path, drawn_seed: int) -> None:
    rng = random.Random(f"{drawn_seed} {trial}")
    documents = [some(rng, 60) for _ in range(4)]
    documents += [*documents, "甲" * 30] if trial % 3 == 0 else []
    index, text = indexed(tmp_path, documents), joined(documents)
    texts = [
        "",
        some(rng, 30) + documents[0][5:25] + some(rng, 30),
        "甲甲甲" + documents[1],
        some(rng, 9),
        "龘",
    ]
    at_most, block = rng.choice((1, 2, 7, 100)), rng.choice((1, 10, 1000))
    for written, found in zip(texts, index.matches(texts, at_most, block), strict=True):
        assert len(found.lengths) == len(written)
        for at, (length, slots) in enumerate(zip(found.lengths.tolist(), found.slots.T, strict=True)):
            rest = written[at : at + at_most]
            assert length == max(n for n in range(len(rest) + 1) if rest[:n] in text)
            if length:
                places = [place for place in range(len(text)) if text.startswith(rest[:length], place)]
                assert index.places(slots).tolist() == places
        for size in (1, 2, 5):
            copies = [at for at in range(len(written)) if size <= at_most and written[at : at + size] in text]
            inside = {at + k for at in copies if at + size <= len(written) for k in range(size)}
            assert np.flatnonzero(found.covered(found.lengths >= size)).tolist() == sorted(inside)
    place = rng.randrange(len(text))
    assert index.read(place, 7) == text[place : place + 7]


def test_a_long_match_costs_the_logarithm_of_its_length(tmp_path: Path) -> None:
    index = indexed(tmp_path, ["甲乙" * 2000])
    short, long = (calls(index.matches, ["乙甲" * 1000], at_most) for at_most in (32, 1024))
    assert long < 4 * short


def test_no_match_goes_beyond_a_document(tmp_path: Path) -> None:
    index = indexed(tmp_path, ["江湖夜雨", "十年灯", ""])
    assert index.occurs("夜雨") and index.occurs("十年灯")
    assert not index.occurs("雨十")
    assert index.copied_spans("江湖夜雨，十年灯", 3) == [(0, 4), (5, 8)]


def test_a_text_that_only_repeats_itself_is_sorted_in_a_few_rounds(tmp_path: Path) -> None:
    def work(length: int) -> int:
        return calls(build_index, tmp_path, [["甲乙" * length]], 64)

    assert_linear(work, 200)


def test_the_files_are_all_there_is(tmp_path: Path) -> None:
    indexed(tmp_path, ["江湖", "夜雨"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ranks.npy", "suffixes.npy", "text.npy"]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_documents_are_the_text_that_was_tokenised(kind: str, tmp_path: Path) -> None:
    tokenizer: Tokenizer = TOKENIZERS[kind]()
    texts = ["the 龘 other day, 我们", "", "𠮷 in the 江湖"]
    with ShardWriter(tmp_path, "train", tokenizer.vocab_size) as writer:
        for text in texts:
            writer.begin_document()
            ids = [*tokenizer.document_start, *tokenizer.encode(text), tokenizer.end_of_text]
            writer.write(np.array(ids), len(text))
        part = writer.close()
    files = [tmp_path / name for name in part["files"]]
    tokens = Tokens(files, "<u2", tmp_path / "train.starts.bin")
    found = ["".join(pieces) for pieces in documents_of(tokenizer, tokens)]
    assert found == [tokenizer.decode(tokenizer.encode(text)) for text in texts]


# -- of a run ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recorded:
    """What a run leaves behind of its text."""

    recipe: Recipe
    manifest: Manifest
    tokenizer: Tokenizer
    console: Console

    def index(self) -> TextIndex:
        return open_index(self.recipe, self.manifest, self.tokenizer, self.console)

    def require(self) -> None:
        require_text(self.recipe, self.manifest, self.console)


@pytest.fixture
def recorded(novel: Path, own_cache: Path, console: Console) -> Recorded:
    recipe = tiny_recipe(novel, more=("data.val_fraction=0.1",))
    done = prepare(recipe.corpus, recipe.tokenizer, recipe.data, recipe.model.block_size, console)
    return Recorded(recipe, done.shards.manifest, done.tokenizer, console)


def test_the_index_holds_the_training_part_and_not_what_is_held_out(recorded: Recorded, novel: Path) -> None:
    index, text = recorded.index(), novel.read_text(encoding="utf-8")
    assert index.occurs(text[:200]) and not index.occurs(text[-200:])
    assert index.characters == recorded.manifest.splits.train.characters + 1  # and the end of its document


def test_the_index_is_made_once_and_needs_neither_shards_nor_corpus(recorded: Recorded, novel: Path) -> None:
    known = novel.read_text(encoding="utf-8")[:50]
    assert recorded.index().occurs(known)
    novel.unlink()
    remove_path(cache_root() / "shards")
    recorded.require()
    assert recorded.index().occurs(known)


def test_of_shards_or_corpus_either_is_enough(recorded: Recorded, novel: Path) -> None:
    text = novel.read_text(encoding="utf-8")
    remove_path(cache_root())
    recorded.require()
    assert recorded.index().occurs(text[:50])  # the cache may be deleted: shards are made again
    remove_path(cache_root() / "index")
    novel.unlink()
    recorded.require()
    assert recorded.index().occurs(text[:50])


def test_of_a_text_that_is_too_long_an_even_part_is_indexed(own_cache: Path, console: Console) -> None:
    texts = [invented_text(100, seed) + str(1000 + seed) for seed in range(60)]
    Path("many.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    recipe = tiny_recipe("many.jsonl", more=("data.val_fraction=0.1",))
    done = prepare(recipe.corpus, recipe.tokenizer, recipe.data, recipe.model.block_size, console)
    manifest, documents = done.shards.manifest, documents_of(done.tokenizer, done.shards.train)
    trained = ["".join(pieces) for pieces in documents]
    known = manifest, done.tokenizer, console, manifest.splits.train.characters // 3 + 1
    index = open_index(recipe, *known)
    assert [index.occurs(text) for text in trained] == [at % 3 == 0 for at in range(len(trained))]
    whole = open_index(recipe, *known[:3])
    assert all(whole.occurs(text) for text in trained)


def test_without_either_it_is_refused(recorded: Recorded, novel: Path) -> None:
    remove_path(cache_root())
    novel.unlink()
    for ask in (recorded.index, recorded.require):
        with pytest.raises(ConfigError, match=r"(?s)trained on is not at hand: .*novel\.txt"):
            ask()
    novel.write_text("另一本书。" * 2000, encoding="utf-8")
    with pytest.raises(ConfigError, match="not the one that this run was trained on"):
        recorded.index()

"""Held-out text that stands in the training text is found, and nothing else."""

import random
import tracemalloc
from pathlib import Path

import pytest

from yanmo.data.contamination import contamination
from yanmo.data.split import Sizes, content_hash, plan_split, smallest
from yanmo.settings.schema import CorpusConfig
from yanmo.text.demo import stories

STORIES = [story.text for _, story in zip(range(300), stories.stories(), strict=False)]


def share(tmp_path, text):
    path = tmp_path / "novel.txt"
    path.write_text(text, encoding="utf-8")
    return contamination(CorpusConfig(path=(str(path),))).share


def test_a_novel_that_ends_as_it_began_is_found_out(tmp_path):
    novel = "".join(STORIES)
    end = novel[-len(novel) // 15 :]
    assert share(tmp_path, novel[: len(novel) // 2]) < 0.1
    assert share(tmp_path, end + novel) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    "texts", [[], ["甲"], ["甲" * 9] * 5, ["甲" * n for n in range(1, 400)] * 2, ["乙" * 9000, "丙"]]
)
def test_packed_sizes_hold_out_what_a_list_of_all_does(texts: list[str]) -> None:
    random.Random(1).shuffle(texts)
    packed = Sizes()
    for text in texts:
        packed.add(text)
    plain = [(content_hash(text), len(text)) for text in texts]
    assert [*packed.by_hash()] == sorted(plain)
    assert packed.characters == sum(map(len, texts))
    for share in (0.01, 0.1, 0.5):
        needed = smallest(packed.by_hash(), share * packed.characters)
        assert plan_split(needed, share, packed.characters) == plan_split(plain, share)


def test_a_document_costs_a_few_bytes(tmp_path: Path) -> None:
    def cost(documents: int) -> int:
        path = tmp_path / f"{documents}.csv"
        path.write_text("text\n" + "".join(f"第{n}句\n" for n in range(documents)), encoding="utf-8")
        tracemalloc.start()
        try:
            contamination(CorpusConfig(path=(str(path),)))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    cost(10)
    assert cost(8000) - cost(1000) < 80 * 7000

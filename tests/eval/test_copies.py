"""What stands word for word in the training text: every number is that of a search by hand."""

import random
from pathlib import Path

import numpy as np
import pytest

from tests.makers.texts import invented_text
from yanmo.data.text_index import DOCUMENT_END, TextIndex, build_index
from yanmo.eval.bootstrap import Estimate, Portion, estimate
from yanmo.eval.copies import CONTEXT_CHARACTERS, SPANS, Passage, copies_in

LETTERS = "甲乙丙𠮷 \n"


def indexed(folder: Path, documents: list[str]) -> TextIndex:
    build_index(folder, [[text] for text in documents])
    return TextIndex(folder)


def visible(text: str) -> int:
    return len("".join(text.split()))


def spans_in(text: str, trained: str) -> list[tuple[int, int]]:
    """All of a text's spans that stand in another."""
    ends = [(a, b) for a in range(len(text)) for b in range(a + 1, len(text) + 1)]
    return [(a, b) for a, b in ends if text[a:b] in trained]


@pytest.mark.parametrize("trial", range(10))
def test_every_number_is_that_of_a_search_through_the_text(
    trial: int, tmp_path: Path, drawn_seed: int
) -> None:
    rng = random.Random(f"{drawn_seed} {trial}")
    documents = ["".join(rng.choices(LETTERS, k=rng.randrange(1, 150))) for _ in range(5)]
    texts = ["".join(rng.choices(LETTERS, k=rng.randrange(60))) for _ in range(4)]
    for _ in range(rng.randrange(4)):  # copies of any length within what is new
        one, start = rng.choice(documents), rng.randrange(100)
        texts[rng.randrange(4)] += one[start : start + rng.randrange(70)]
    trained = "".join(text + DOCUMENT_END for text in documents)
    found = copies_in(texts, indexed(tmp_path, documents))
    assert found.characters == visible("".join(texts))
    spans = [[(a, b, visible(text[a:b])) for a, b in spans_in(text, trained)] for text in texts]
    for least in SPANS:
        copied = 0
        for text, of_text in zip(texts, spans, strict=True):
            inside = {at for a, b, size in of_text if size >= least for at in range(a, b)}
            copied += sum(not text[at].isspace() for at in inside)
        assert found.shares[least].value == pytest.approx(copied / found.characters)
    longest = max(size for of_text in spans for _, _, size in of_text)
    assert found.longest is not None and found.longest.characters == longest
    here, there = found.longest.here, found.longest.there
    assert visible(here.span) == longest and here.span == here.span.strip()
    places = [at for at in range(len(trained)) if trained.startswith(here.span, at)]
    assert found.longest.times == len(places)
    end = places[0] + len(here.span)
    before = trained[max(places[0] - CONTEXT_CHARACTERS, 0) : places[0]].rpartition(DOCUMENT_END)[2]
    after = trained[end : end + CONTEXT_CHARACTERS].partition(DOCUMENT_END)[0]
    assert there == Passage(before, here.span, after)
    text = texts[found.longest.text]
    at = text.index(here.span)
    assert here == Passage(text[max(at - 20, 0) : at], here.span, text[at + len(here.span) :][:20])


def test_blanks_in_a_row_are_no_copy(tmp_path: Path) -> None:
    index = indexed(tmp_path, ["江湖" + " " * 100 + "\n夜雨"])
    found = copies_in(["春风" + " " * 90, "夜" * 3], index)
    assert not any(share.value for share in found.shares.values())
    assert found.longest is not None and found.longest.here.span == "夜"


@pytest.mark.parametrize("times", [1, 10, 100])
def test_a_text_that_was_planted_is_found_with_its_count(times: int, tmp_path: Path) -> None:
    planted = "柜上的猫把算盘拨了七下掌柜数到八便再也不肯相信猫"
    documents = [invented_text(300, seed) for seed in range(20)]
    for number in range(times):
        at = number % 20
        documents[at] = f"{documents[at][:150]}{number}{planted}{number}{documents[at][150:]}"
    index = indexed(tmp_path, documents)
    found = copies_in([f"店里静得出奇，{planted}，从此不养猫了"], index)
    assert found.longest is not None
    assert (found.longest.here.span, found.longest.times) == (planted, times)
    there = found.longest.there
    assert there.before + there.span + there.after in documents[0]
    assert found.shares[20].value == len(planted) / (len(planted) + 14)
    assert found.shares[50].value == 0


def test_what_stands_nowhere_and_no_text_at_all_have_no_copies(tmp_path: Path) -> None:
    index = indexed(tmp_path, ["江湖夜雨十年灯"])
    for texts in (["abc"], [""], []):
        found = copies_in(texts, index)
        assert found.longest is None and not any(share.value for share in found.shares.values())


# -- intervals ------------------------------------------------------------------------------------


def test_an_interval_holds_its_value_and_is_the_same_for_a_seed(drawn_seed: int) -> None:
    rng = random.Random(drawn_seed)
    few = [Portion(rng.random(), 1) for _ in range(20)]
    found = estimate(few, 5)
    assert found == estimate(few, 5) != estimate(few, 6)
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(np.mean([one.part for one in few]))


def test_an_interval_is_as_wide_as_other_samples_say(drawn_seed: int) -> None:
    """Of many times twenty samples, the interval of one holds the true mean nineteen times of twenty."""
    rng = np.random.default_rng(drawn_seed)
    held = 0
    for _ in range(100):
        found = estimate([Portion(value, 1) for value in rng.normal(3, 1, 40).tolist()])
        held += found.low <= 3 <= found.high
    assert held >= 83


def test_longer_samples_count_more_and_empty_ones_nothing() -> None:
    assert estimate([Portion(1, 1), Portion(0, 9), Portion(0, 0)]).value == 0.1
    assert estimate([Portion(0, 0)]) == estimate([]) == Estimate(0, 0, 0)
    assert estimate([Portion(1, 4)] * 5) == Estimate(0.25, 0.25, 0.25)


def test_a_value_is_compared_with_what_as_many_pieces_of_the_control_have() -> None:
    rare = [Portion(1, 1)] + [Portion(0, 1)] * 99
    assert estimate(rare, draw=10).high == 0.1 > estimate(rare).high
    assert estimate(rare, draw=10).value == estimate(rare).value == 0.01
    control = Estimate(4, 3, 5)
    assert [Estimate(value, 0, 9).side_of(control) for value in (2, 3, 5, 6)] == [-1, 0, 0, 1]

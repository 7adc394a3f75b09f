"""How a text is written, as numbers, each beside what it has to tell apart."""

import doctest
import random

import pytest

from tests.makers.texts import invented_text
from yanmo.eval import writing
from yanmo.eval.bootstrap import Estimate, Portion
from yanmo.eval.writing import common_characters, distinct, loops, measured_writing, not_chinese, unbalanced


def test_the_examples_hold() -> None:
    assert doctest.testmod(writing).failed == 0


@pytest.mark.parametrize("n", [1, 2, 3])
def test_distinct_counts_each_n_characters_once(n: int, drawn_seed: int) -> None:
    text = "".join(random.Random(drawn_seed).choices("春江花月夜", k=50))
    grams = [text[at : at + n] for at in range(51 - n)]
    assert distinct(text, n) == Portion(len(set(grams)), 51 - n)
    assert distinct("江"[: n - 1], n) == Portion(0, 0)


def test_loops_are_sought_in_the_worst_part_of_a_text() -> None:
    fine = "".join(map(chr, range(0x4E00, 0x4E00 + 600)))
    assert loops(fine) == Portion(0, 200)
    looping = fine[:300] + "他说他说" * 30 + fine[300:]
    assert loops(looping).part == 120
    far = fine[:100] + fine[500:510] + fine[100:400] + fine[500:510]
    assert loops(far).part == 0  # a name that returns after 300 characters is no loop
    assert loops("“" * 300) == Portion(200, 200) and loops("") == Portion(0, 0)


@pytest.mark.parametrize(
    ("text", "alone", "marks"),
    [
        ("“走。”（他说）", 0, 4),
        ("“走。", 1, 1),
        ("走。”", 1, 1),
        ("“（走”）", 2, 4),
        ("“” " * 3, 0, 6),
        ("走", 0, 0),
        ("““““", 4, 4),
    ],
)
def test_a_quote_without_a_partner_is_counted(text: str, alone: int, marks: int) -> None:
    assert unbalanced(text) == Portion(alone, marks)


def test_other_scripts_digits_and_broken_characters_are_not_chinese() -> None:
    assert not_chinese("江湖，夜雨。\n“走！”……——") == Portion(0, 5)
    assert not_chinese("江湖ab1�") == Portion(4, 6)


def test_common_characters_are_the_fewest_that_make_up_the_text(drawn_seed: int) -> None:
    text = "".join(random.Random(drawn_seed).choices("春江花月夜客", [400, 300, 200, 80, 15, 5], k=2000))
    common = common_characters([text[:700], text[700:]])
    inside = [text.count(one) for one in common]
    assert sum(inside) >= 0.99 * 2000 > sum(inside) - min(inside)
    assert min(inside) >= max((text.count(one) for one in set(text) - common), default=0)


def test_tame_and_broken_texts_are_told_from_real_ones() -> None:
    real = [invented_text(300, seed) + "龘靐齉"[seed % 3] for seed in range(20)]
    common = common_characters([invented_text(5000, 99)])
    usual = measured_writing(real, common)
    for name, texts in {
        "rare": [invented_text(300, seed) for seed in range(20)],
        "distinct_2": ["他说，夜雨。" * 50] * 20,
        "loops": [text[:100] + "他说，夜雨。" * 30 for text in real],
        "unbalanced": [text.replace("”", "") for text in real],
        "not_chinese": [text[:250] + "ab1�" * 10 for text in real],
        "sentence_characters": [text.replace("。", "，") + "。" for text in real],
    }.items():
        assert measured_writing(texts, common)[name].side_of(usual[name]), name
    assert set(usual) == set(writing.measures(common))
    assert measured_writing([""], common)["rare"] == Estimate(0, 0, 0)

"""Duplicates: what is the same, nearly the same, and in both of two texts."""

import random

import pytest

from tests.makers.work import assert_linear
from yanmo.settings.schema import DedupConfig
from yanmo.text.clean.dedup import WINDOW_CHARACTERS, DuplicateIndex, NearIndex, marks_of, overlap, windows
from yanmo.text.demo import stories

TEXT = "".join(story.text for _, story in zip(range(400), stories.stories(), strict=False))


def test_spaces_and_case_make_no_copy_another_text():
    config = DedupConfig(near=0)
    seen = DuplicateIndex(config)
    assert not seen.judge(marks_of("第一章 Hello\n世界", config))
    assert seen.judge(marks_of("第一章hello　世界 ", config)) == "a copy"
    assert not seen.judge(marks_of("第一章hello世间", config))


@pytest.mark.parametrize(("changed", "found"), [(0.004, 40), (0.06, 0)])
def test_near_copies_are_found_and_others_are_not(changed, found):
    """Of 40 texts with so many characters changed."""
    config, chance = DedupConfig(), random.Random(1)
    seen = DuplicateIndex(config)
    texts = [TEXT[number * 1500 : (number + 1) * 1500] for number in range(40)]
    apart = [text for text in texts if not seen.judge(marks_of(text, config))]
    assert len(apart) >= 38
    near = ["".join("甲" if chance.random() < changed else c for c in text) for text in apart]
    said = [DuplicateIndex.judge(seen, marks_of(text, config)) for text in near]
    assert sum(reason == "nearly a copy" for reason in said) == pytest.approx(found, abs=2)


def notices(many: int, seed: int = 1) -> list[str]:
    """Written by one template: each is like each other, none is a near copy."""
    chance = random.Random(seed)
    return [
        f"尊敬的客户，您的订单{chance.randrange(10**12)}已由{chance.choice('赵钱孙李周吴')}师傅于{chance.randrange(1, 29)}"
        f"日从{chance.choice(['江城', '山城', '海城'])}发出，运单号{chance.randrange(10**12)}，请当面验收，如有破损请拒收，"
        f"并联系客服{chance.randrange(10**8)}，感谢您的支持，期待您再次光临。"
        for _ in range(many)
    ]


def compared(many: int) -> int:
    """With how many texts so many notices are compared."""
    config, index, number = DedupConfig(), NearIndex(), 0
    for text in notices(many):
        near = marks_of(text, config).near
        number += len(index.candidates(near))
        index.add(near)
    return number


def test_comparing_texts_of_one_template_is_linear():
    assert_linear(compared, 400)


def test_near_copies_among_texts_of_one_template_are_found_and_the_first_stays():
    config = DedupConfig(exact=False, paragraphs=0)
    seen, texts = DuplicateIndex(config), notices(1500)
    assert not any(seen.judge(marks_of(text, config)) for text in texts)
    copies = [text.replace("当面验收", "当面查收") for text in (*texts[:20], *texts[-20:])]
    assert [seen.judge(marks_of(text, config)) for text in copies] == ["nearly a copy"] * 40
    index = NearIndex()
    for text in ("甲" * 9 + TEXT[:900], TEXT[:900], TEXT[:900]):
        index.add(marks_of(text, config).near)
    assert index.nearest(marks_of(TEXT[:900], config).near, 0.8) == 0
    assert index.nearest(marks_of(TEXT[:900], config).near, 1.0) == 1


def test_windows_are_equal_where_their_fifty_letters_are():
    a, b = f"甲乙{TEXT[10:130]}", f"丙丙 丙{TEXT[10:130]}丁"
    shared = set(windows(a, 1).tolist()) & set(windows(b, 1).tolist())
    letters = len("".join(TEXT[10:130].split()))
    assert len(shared) == letters - WINDOW_CHARACTERS + 1
    assert len(windows("短", 1)) == 0


def test_overlap_counts_held_out_windows_that_training_has():
    held_out = TEXT[5000:8000]
    assert overlap([held_out], lambda: [TEXT[:2000], TEXT]).share == 1
    assert overlap([held_out], lambda: ["别的文字" * 100]).share == 0
    half = overlap([held_out], lambda: [TEXT[5000:6500]])
    assert half.share == pytest.approx(0.5, abs=0.06)
    assert overlap([], lambda: [TEXT]).share == 0

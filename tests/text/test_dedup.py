"""Duplicates: what is the same, nearly the same, and in both of two texts."""

import random

import pytest

from yanmo.config import DedupConfig
from yanmo.text import demo
from yanmo.text.dedup import WINDOW, Seen, marks_of, overlap, windows

TEXT = "".join(story.text for _, story in zip(range(400), demo.stories(), strict=False))


def test_spaces_and_case_make_no_copy_another_text():
    config = DedupConfig(near=0)
    seen = Seen(config)
    assert not seen.judge(marks_of("第一章 Hello\n世界", config))
    assert seen.judge(marks_of("第一章hello　世界 ", config)) == "a copy"
    assert not seen.judge(marks_of("第一章hello世间", config))


@pytest.mark.parametrize(("changed", "found"), [(0.004, 40), (0.06, 0)])
def test_near_copies_are_found_and_others_are_not(changed, found):
    """Of 40 texts with so many characters changed."""
    config, chance = DedupConfig(), random.Random(1)
    seen = Seen(config)
    texts = [TEXT[number * 1500 : (number + 1) * 1500] for number in range(40)]
    apart = [text for text in texts if not seen.judge(marks_of(text, config))]
    assert len(apart) >= 38
    near = ["".join("甲" if chance.random() < changed else c for c in text) for text in apart]
    said = [Seen.judge(seen, marks_of(text, config)) for text in near]
    assert sum(reason == "nearly a copy" for reason in said) == pytest.approx(found, abs=2)


def test_windows_are_equal_where_their_fifty_letters_are():
    a, b = f"甲乙{TEXT[10:130]}", f"丙丙 丙{TEXT[10:130]}丁"
    shared = set(windows(a, 1).tolist()) & set(windows(b, 1).tolist())
    letters = len("".join(TEXT[10:130].split()))
    assert len(shared) == letters - WINDOW + 1
    assert len(windows("短", 1)) == 0


def test_overlap_counts_held_out_windows_that_training_has():
    held_out = TEXT[5000:8000]
    assert overlap([held_out], lambda: [TEXT[:2000], TEXT]).share == 1
    assert overlap([held_out], lambda: ["别的文字" * 100]).share == 0
    half = overlap([held_out], lambda: [TEXT[5000:6500]])
    assert half.share == pytest.approx(0.5, abs=0.06)
    assert overlap([], lambda: [TEXT]).share == 0

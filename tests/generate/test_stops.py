"""Where a sample ends, however its characters come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.models import TOKENIZER, lively_model
from tests.makers.work import calls
from yanmo.generate.assembly import TextAssembler
from yanmo.generate.stops import find_end, overlap
from yanmo.generate.text import write_samples
from yanmo.settings.schema import SampleConfig
from yanmo.tokenizer import CharTokenizer

LETTER = CharTokenizer("他说走了吧我也是第一章回来。！？…“”「」』\n　 abc")


def assembled(text: str, stops: tuple[str, ...] = (), stop_at: str | None = None, early: int = 0) -> str:
    """What is released of a text that comes character by character."""
    assembler, released = TextAssembler(LETTER, [], stops, stop_at, early), ""
    for token in LETTER.encode(text).tolist():
        released += assembler.push(token)
        if assembler.ended:
            break
    return released + assembler.flush()


@pytest.mark.parametrize(
    ("unit", "text", "expected"),
    [
        ("sentence", "他走了。我也走。", "他走了。"),
        ("sentence", "他说：“走吧！”我走了。", "他说：“走吧！”"),
        ("sentence", "「走？！」他说", "「走？！」"),
        ("sentence", "他……走了。我", "他……走了。"),
        ("sentence", "“我……”他说", "“我……”"),
        ("sentence", "走了\n我", "走了"),
        ("sentence", "\n　走了。我", "\n　走了。"),
        ("sentence", "走了。", "走了。"),
        ("sentence", "走了", "走了"),
        ("line", "走了。\n我", "走了。"),
        ("line", "\n我", ""),
        ("paragraph", "\n\n　走了。我走\n我", "\n\n　走了。我走"),
        ("chapter", "走了。\n我\n第二章 回来\n他", "走了。\n我\n"),
        ("chapter", "第一章 回来\n走了。\n第二章 走\n", "第一章 回来\n走了。\n"),
        ("chapter", "走了。\n第一", "走了。\n第一"),
    ],
)
def test_a_sample_ends_with_its_first_unit(unit: str, text: str, expected: str) -> None:
    assert assembled(text, stop_at=unit) == expected


@given(
    st.text("他走了。！…”」\n第二章 ", max_size=30),
    st.sampled_from(["sentence", "paragraph", "chapter", "line"]),
)
def test_what_is_streamed_is_what_the_whole_text_gives(text: str, unit: str) -> None:
    whole = find_end(text + "\0", (), unit, has_text=False).end  # something follows that ends nothing
    streamed = assembled(text, stop_at=unit)
    assert streamed == (text if whole is None else text[:whole])


@given(st.text("他走了。", max_size=20), st.integers(0, 25))
def test_before_enough_tokens_nothing_ends_a_sample(text: str, early: int) -> None:
    found = assembled(text, stops=("走",), early=early)
    assert len(found) >= min(len(text), early - 1)
    if "走" not in text[max(early - 1, 0) :]:
        assert found == text


@given(st.text("他走了", max_size=12), st.text("他走了", min_size=1, max_size=6))
def test_what_may_become_a_stop_text_is_its_longest_beginning_at_the_end(text: str, stop: str) -> None:
    assert overlap(text, stop) == max(n for n in range(len(stop)) if text.endswith(stop[:n]))


def test_a_long_stop_text_is_not_tried_at_every_length() -> None:
    assert calls(overlap, "".join(map(chr, range(0x4E00, 0x5E00))), "雪" * 4000) < 10


def test_the_first_of_several_ends_counts() -> None:
    assert assembled("他走了。我", stops=("了",), stop_at="sentence") == "他走"
    assert assembled("他走。了我", stops=("了",), stop_at="sentence") == "他走。"


def test_a_model_writes_no_end_before_enough_tokens() -> None:
    model = lively_model()
    for seed in range(20):
        config = SampleConfig(temperature=1.5, top_p=1, max_new_tokens=12, min_new_tokens=8, seed=seed)
        (sample,) = write_samples(model, TOKENIZER, ["江湖"], config)
        assert len(sample.tokens) >= 8 and TOKENIZER.end_of_text not in sample.tokens[:7]

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.makers.texts import any_text
from yanmo.core.errors import TokenizerError
from yanmo.tokenizer import load_tokenizer
from yanmo.tokenizer.char import FIRST_CHARACTER, CharTokenizer, count_characters

SAMPLE = "萧炎大喝一声：“斗气！”……——《天地》 abc\n\t<|endoftext|><0x41>"
TOKENIZER = CharTokenizer.train(count_characters(SAMPLE))
MIXED = st.text(
    st.sampled_from(SAMPLE + "龘😀𠮷\x00\ufeff\u2028\x85") | st.characters(exclude_categories=["Cs"])
)


@given(MIXED)
@settings(max_examples=2000, deadline=None)
def test_decoding_gives_back_any_text(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@pytest.mark.long
@given(any_text())
@settings(max_examples=5_000, deadline=None)
def test_decoding_gives_back_any_text_at_length(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(MIXED)
@settings(max_examples=300, deadline=None)
def test_streaming_gives_the_same_text_and_never_half_a_character(text: str) -> None:
    stream = TOKENIZER.stream()
    parts = [stream.push(int(token)) for token in TOKENIZER.encode(text)]
    assert "".join(parts) + stream.flush() == text
    assert "\ufffd" not in "".join(parts) or "\ufffd" in text


@given(st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=30))
@settings(max_examples=500, deadline=None)
def test_streaming_equals_decoding_for_any_ids(ids: list[int]) -> None:
    stream = TOKENIZER.stream()
    assert "".join(stream.push(token) for token in ids) + stream.flush() == TOKENIZER.decode(ids)


def test_half_a_character_is_held_back_until_it_is_whole() -> None:
    stream = TOKENIZER.stream()
    ids = TOKENIZER.encode("龘").tolist()
    assert len(ids) == 3
    assert [stream.push(token) for token in ids] == ["", "", "龘"]
    stream.push(ids[0])
    assert stream.flush() == "\ufffd"


def test_the_vocabulary_is_bytes_then_characters_by_frequency() -> None:
    tokenizer = CharTokenizer.train(count_characters("乙甲乙丙丙丙"))
    assert tokenizer.vocab_size == 1 + 256 + 3
    assert tokenizer.encode("丙乙甲").tolist() == [257, 258, 259]
    assert tokenizer.end_of_text == 0


def test_a_limited_vocabulary_writes_rare_characters_as_bytes() -> None:
    tokenizer = CharTokenizer.train(count_characters("乙甲乙丙丙丙"), vocab_size=258)
    assert tokenizer.vocab_size == 258
    assert len(tokenizer.encode("丙乙")) == 1 + 3
    assert tokenizer.decode(tokenizer.encode("丙乙甲")) == "丙乙甲"
    with pytest.raises(TokenizerError, match="no room"):
        CharTokenizer.train(count_characters("甲"), vocab_size=100)


def test_rare_characters_are_bytes_as_long_as_they_are_few() -> None:
    common, twice, once = "的" * 1000, "甲甲", "乙"
    counts = count_characters(common + twice + once)
    assert CharTokenizer.train(counts).vocab_size == 257 + 3
    assert CharTokenizer.train(counts, min_count=2).entries[257:] == ["的", "甲"]
    assert CharTokenizer.train(counts, min_count=3).entries[257:] == ["的"]
    # 2 of 103 are more than a hundredth, 1 is not
    shorter = count_characters("的" * 100 + twice + once)
    assert CharTokenizer.train(shorter, min_count=3).entries[257:] == ["的", "甲"]
    assert CharTokenizer.train(count_characters("甲乙"), min_count=3).vocab_size == 257 + 2


def test_text_that_looks_special_stays_text() -> None:
    ids = TOKENIZER.encode("<|endoftext|><0x41>")
    assert TOKENIZER.end_of_text not in ids
    assert len(ids) == len("<|endoftext|><0x41>")


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        TOKENIZER.encode("\ud800")


def test_a_saved_tokenizer_is_the_same(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path, 128)
    again = load_tokenizer(tmp_path)
    assert again.fingerprint == TOKENIZER.fingerprint
    assert np.array_equal(again.encode(SAMPLE + "龘"), TOKENIZER.encode(SAMPLE + "龘"))


def test_another_tokenizer_json_is_refused_clearly(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text(
        json.dumps({"model": {"vocab": {"a": 0}, "merges": []}}), encoding="utf-8"
    )
    with pytest.raises(TokenizerError, match="no end-of-text token"):
        load_tokenizer(tmp_path)


def test_transformers_opens_it_and_gives_our_ids(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    TOKENIZER.save(tmp_path, 128)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.eos_token_id == TOKENIZER.end_of_text
    assert len(theirs) == TOKENIZER.vocab_size
    for text in [
        SAMPLE,
        "龘😀𠮷\x00\ufeff\u2028",
        "  两个 空格  ",
        "",
        "\n\n",
        "e\u0301 é",
        "<|endoftext|>",
        "🏳️‍🌈",
    ]:
        ids = TOKENIZER.encode(text).tolist()
        assert theirs(text)["input_ids"] == ids, text
        assert theirs.decode(ids) == text
    saved = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert saved["tokenizer_class"] == "PreTrainedTokenizerFast"


@given(MIXED)
@settings(max_examples=200, deadline=None)
def test_the_tokenizers_library_agrees_on_any_text(text: str) -> None:
    theirs = _library_tokenizer()
    assert theirs.encode(text, add_special_tokens=False).ids == TOKENIZER.encode(text).tolist()


def test_ids_of_characters_begin_behind_the_bytes() -> None:
    assert FIRST_CHARACTER == 257
    assert TOKENIZER.encode("龘").tolist() == [1 + byte for byte in "龘".encode()]


def _library_tokenizer():  # type: ignore[no-untyped-def]
    from tokenizers import Tokenizer

    global _LIBRARY
    if _LIBRARY is None:
        from yanmo.tokenizer.base import json_text

        _LIBRARY = Tokenizer.from_str(json_text(TOKENIZER._spec))
        _LIBRARY.encode_special_tokens = True
    return _LIBRARY


_LIBRARY = None

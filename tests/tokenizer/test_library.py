"""Byte BPE and unigram: nothing is lost, nothing looks special by accident, nothing depends on the pieces."""

import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.makers.texts import any_text, lesson, random_strings
from yanmo.core.errors import TokenizerError
from yanmo.tokenizer import LibraryTokenizer, load_tokenizer
from yanmo.tokenizer.base import END_OF_TEXT, json_text
from yanmo.tokenizer.cuts import MAX_RUN_CHARACTERS
from yanmo.tokenizer.fast import fast_encoder
from yanmo.tokenizer.library import CHUNK_CHARACTERS, FAST_FROM_CHARACTERS, byte_letters
from yanmo.tokenizer.spec import added_token, bpe_model
from yanmo.tokenizer.splits import CL100K, GPT2, KNOWN, O200K, QWEN2, byte_level, split_step
from yanmo.tokenizer.train import learn_bpe, learn_unigram, special_tokens

SPECIALS = special_tokens(chat=True, reserved=2)
LESSON = [lesson()]
LEARNED = {
    "bpe": learn_bpe(LESSON, 700, SPECIALS),
    "unigram": learn_unigram(LESSON, 700, SPECIALS),
}
kinds = pytest.mark.parametrize("kind", LEARNED)


def with_rule(rule: str) -> LibraryTokenizer:
    """The byte BPE, cutting by another rule."""
    steps = [split_step(rule), byte_level(use_regex=False)]
    spec = {**LEARNED["bpe"].spec, "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}
    return LibraryTokenizer(spec, "<|endoftext|>")


def with_joined_blanks() -> LibraryTokenizer:
    """The byte BPE with tokens of two line ends and two spaces, so that a cut between them shows."""
    model = LEARNED["bpe"].spec["model"]
    blanks = {"ĊĊ": len(model["vocab"]), "ĠĠ": len(model["vocab"]) + 1}
    joined = bpe_model({**model["vocab"], **blanks}, [*model["merges"], "Ċ Ċ", "Ġ Ġ"])
    return LibraryTokenizer({**LEARNED["bpe"].spec, "model": joined}, "<|endoftext|>")


RULES = {
    "gpt2": with_joined_blanks(),
    "cl100k": with_rule(CL100K),
    "qwen2": with_rule(QWEN2),
    "o200k": with_rule(O200K),
}


def check_everything_comes_back(text: str, kind: str) -> None:
    tokenizer = LEARNED[kind]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not set(ids.tolist()) & set(range(len(SPECIALS)))
    stream = tokenizer.stream()
    shown = [stream.push(token) for token in ids.tolist()]
    assert "".join(shown) + stream.flush() == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in shown)


@kinds
@given(text=any_text())
def test_everything_comes_back(text: str, kind: str) -> None:
    check_everything_comes_back(text, kind)


@pytest.mark.long
@kinds
@settings(max_examples=5_000)
@given(text=any_text())
def test_everything_comes_back_at_length(text: str, kind: str) -> None:
    check_everything_comes_back(text, kind)


@pytest.mark.parametrize("rule", RULES)
@given(text=any_text() | st.text(alphabet="他说，。“ \n\rab1.'\t", max_size=80), length=st.integers(1, 30))
def test_the_pieces_have_the_tokens_of_the_whole(text: str, rule: str, length: int) -> None:
    tokenizer = RULES[rule]
    library = tokenizers.Tokenizer.from_str(json_text(tokenizer.spec))
    library.encode_special_tokens = True
    whole = library.encode(text, add_special_tokens=False).ids
    parts = [token for piece in tokenizer.pieces(text, length) for token in tokenizer.encode(piece).tolist()]
    assert parts == whole


def test_each_known_rule_is_tried() -> None:
    assert len(RULES) == len(KNOWN)


def test_the_fast_encoder_is_proven_and_equal() -> None:
    tokenizer = copy.copy(LEARNED["bpe"])
    library = tokenizers.Tokenizer.from_str(json_text(tokenizer.spec))
    library.encode_special_tokens = True
    for text in (
        "\n".join(random_strings(2000, seed=8)),
        lesson(30_000, seed=8),
        " " * 20_000 + "a",
        "啊" * 20_000,
        "'s" * 10_000,
    ):
        assert len(text) > FAST_FROM_CHARACTERS
        assert tokenizer.encode(text).tolist() == library.encode(text, add_special_tokens=False).ids
    assert tokenizer._fast is not None


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "NFKC"}},
        {"added_tokens": [added_token("<|endoftext|>", 0), added_token("江湖", 900, special=False)]},
        {"added_tokens": [added_token("<|endoftext|>", 0), added_token("说，老", 901, special=False)]},
    ],
)
def test_what_is_no_plain_bpe_is_left_to_the_library(change: dict[str, object]) -> None:
    spec = {**LEARNED["bpe"].spec, **change}
    tokenizer = LibraryTokenizer(spec, "<|endoftext|>")
    library = tokenizers.Tokenizer.from_str(json_text(spec))
    library.encode_special_tokens = True
    text = "他说，老掌柜１２３江湖客栈。" * 2000
    assert tokenizer.encode(text).tolist() == library.encode(text, add_special_tokens=False).ids


def test_merges_that_tiktoken_would_read_otherwise_are_not_fast() -> None:
    """b+c comes before a+b, and only a+b leads on to abc: alone, abc is two tokens and never itself."""
    letters = byte_letters()
    base = {letter: number for number, letter in enumerate(letters)}
    vocab = base | {"bc": 256, "ab": 257, "abc": 258}
    token_bytes = [bytes(letters[letter] for letter in token) for token in vocab]
    spec = {**LEARNED["bpe"].spec, "added_tokens": [], "model": bpe_model(vocab, ["b c", "a b", "ab c"])}
    assert fast_encoder(spec, GPT2, letters, token_bytes) is None
    spec["model"] = bpe_model(vocab, ["a b", "b c", "ab c"])
    fast = fast_encoder(spec, GPT2, letters, token_bytes)
    assert fast is not None
    assert fast("abc").tolist() == [258]
    assert fast("xbc").tolist() == [base["x"], 256]


@kinds
def test_a_run_without_end_is_cut_and_comes_back(kind: str) -> None:
    text = "江湖客栈" * (MAX_RUN_CHARACTERS // 3) + "。" + "a" * (MAX_RUN_CHARACTERS + 333)
    tokenizer = LEARNED[kind]
    whole = tokenizer.encode(text).tolist()
    assert tokenizer.decode(whole) == text
    for length in (1, CHUNK_CHARACTERS, MAX_RUN_CHARACTERS - 1, 2 * MAX_RUN_CHARACTERS):
        assert [
            t for piece in tokenizer.pieces(text, length) for t in tokenizer.encode(piece).tolist()
        ] == whole


@kinds
def test_auto_tokenizer_gives_the_same(kind: str, tmp_path: Path) -> None:
    tokenizer = LEARNED[kind]
    tokenizer.save(tmp_path, 1024)
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in (*random_strings(300, seed=5), lesson(3000)):
        ids = tokenizer.encode(text).tolist()
        assert theirs(text, split_special_tokens=True)["input_ids"] == ids  # it has chat tokens
        assert theirs.decode(ids, skip_special_tokens=True) == text
    assert theirs.eos_token_id == tokenizer.end_of_text


@kinds
def test_saved_and_loaded_it_is_the_same(kind: str, tmp_path: Path) -> None:
    tokenizer = LEARNED[kind]
    tokenizer.save(tmp_path, 1024)
    loaded = load_tokenizer(tmp_path)
    assert isinstance(loaded, LibraryTokenizer)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.kind == kind
    assert loaded.lossless
    assert loaded.encode("老掌柜说：“……”").tolist() == tokenizer.encode("老掌柜说：“……”").tolist()


@kinds
def test_special_tokens_are_read_only_when_asked_for(kind: str) -> None:
    tokenizer = LEARNED[kind]
    text = "<|im_start|>江湖<|im_end|>"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    ids = tokenizer.encode(text, special=True).tolist()
    assert (ids[0], ids[-1]) == (1, 2)
    assert tokenizer.decode(ids) == "江湖"
    assert tokenizer.suppressed == (1, 2, 3, 4)


@kinds
def test_threads_read_special_tokens_only_where_they_asked_for_it(kind: str) -> None:
    tokenizer, text = LEARNED[kind], f"江湖{END_OF_TEXT}" * 40

    def is_right(special: bool) -> bool:
        return int((tokenizer.encode(text, special) == tokenizer.end_of_text).sum()) == 40 * special

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(is_right, [True, False] * 300))


@kinds
def test_half_a_character_is_never_shown(kind: str) -> None:
    tokenizer = LEARNED[kind]
    stream = tokenizer.stream()
    ids = tokenizer.encode("龘").tolist()
    assert len(ids) > 1
    assert [stream.push(token) for token in ids] == [*[""] * (len(ids) - 1), "龘"]
    stream.push(ids[0])
    assert stream.flush() == "\ufffd"


@kinds
def test_half_a_surrogate_pair_is_refused(kind: str) -> None:
    with pytest.raises(UnicodeEncodeError):
        LEARNED[kind].encode("他\ud800说")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": {"type": "BPE", "vocab": {}, "merges": []}}, "no whole number"),
        (
            {"model": {"type": "BPE", "vocab": {"a": 0, "b": 5_000_000}, "merges": []}},
            "largest id is 5,000,000",
        ),
        ({"model": {"type": "BPE", "vocab": {"a": 0, "b": -1}, "merges": []}}, "no whole number"),
        ({"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}}, "id 0 is given"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a zz"]}}, "cannot read it"),
        ({"model": {"type": "BPE"}}, "no vocabulary"),
        ({"decoder": {"type": "Magic"}}, "cannot read it"),
        ({"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}, "WordLevel"),
    ],
)
def test_a_damaged_file_is_refused(change: dict[str, object], said: str) -> None:
    spec = {**LEARNED["bpe"].spec, "added_tokens": [], **change}
    with pytest.raises(TokenizerError, match=said):
        LibraryTokenizer(spec, "a")


def test_ten_million_entries_are_refused() -> None:
    vocab = {f"{number}": number for number in range((1 << 20) + 1)}
    spec = {**LEARNED["bpe"].spec, "model": {"type": "BPE", "vocab": vocab, "merges": []}}
    with pytest.raises(TokenizerError, match="largest id is 1,048,576"):
        LibraryTokenizer(spec, "1")


def test_ids_with_gaps_are_known_and_never_written() -> None:
    spec = LEARNED["bpe"].spec
    vocab = {text: number + (10 if number > 300 else 0) for text, number in spec["model"]["vocab"].items()}
    tokenizer = LibraryTokenizer({**spec, "model": {**spec["model"], "vocab": vocab}}, "<|endoftext|>")
    assert tokenizer.vocab_size == LEARNED["bpe"].vocab_size + 10
    assert set(range(301, 311)) <= set(tokenizer.suppressed)
    assert tokenizer.decode(tokenizer.encode("江湖")) == "江湖"


def test_a_missing_end_is_said_with_the_special_tokens_there_are() -> None:
    with pytest.raises(TokenizerError, match=r"no <eos>") as caught:
        LibraryTokenizer(LEARNED["bpe"].spec, "<eos>")
    assert "<|im_end|>" in caught.value.hint

"""Tokens added to a vocabulary later, as transformers keeps them, and BERT's vocabulary in its two forms."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.makers.models import ENTRIES, bpe_tokenizer
from yanmo.core.errors import TokenizerError
from yanmo.tokenizer import Tokenizer, kind_of, load_tokenizer

OLDER: dict[str, dict[str, Any]] = {
    "special_tokens_map.json": {"additional_special_tokens": ["<|第一幕|>", {"content": "<|幕落|>"}]}
}


def added_later(base: int) -> dict[str, dict[str, Any]]:
    """added_tokens.json, with what says which of them are special."""
    return {"added_tokens.json": {"<|第一幕|>": base, "<|幕落|>": base + 1, "阿弥陀佛": base + 2}, **OLDER}


def in_config(base: int) -> dict[str, dict[str, Any]]:
    tokens = {base: ("<|第一幕|>", True), base + 1: ("<|幕落|>", True), base + 2: ("阿弥陀佛", False)}
    decoder = {str(n): {"content": text, "special": special} for n, (text, special) in tokens.items()}
    return {"tokenizer_config.json": {"added_tokens_decoder": decoder}}


FORMS = pytest.mark.parametrize("form", [added_later, in_config], ids=["added_tokens.json", "decoder"])


def put(folder: Path, files: dict[str, dict[str, Any]]) -> Path:
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return folder


def gpt2_files(folder: Path) -> int:
    model = bpe_tokenizer().spec["model"]
    vocab = {**model["vocab"], "<|endoftext|>": len(model["vocab"])}
    put(folder, {"vocab.json": vocab})
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *model["merges"], ""]), encoding="utf-8")
    return len(vocab)


def bert_files(folder: Path) -> int:
    (folder / "vocab.txt").write_text("\n".join(ENTRIES) + "\n", encoding="utf-8")
    return len(ENTRIES)


def tokenizer_json(folder: Path) -> int:
    bpe_tokenizer().save(folder, 64)
    return bpe_tokenizer().vocab_size


def check(tokenizer: Tokenizer, base: int) -> None:
    assert tokenizer.vocab_size == base + 3
    text = "<|第一幕|>他说阿弥陀佛<|幕落|>"
    ids = tokenizer.encode(text, special=True).tolist()
    assert (ids[0], ids[-2:]) == (base, [base + 2, base + 1])
    plain = tokenizer.encode(text).tolist()
    assert base + 2 in plain
    assert not {base, base + 1} & set(plain)
    assert {base, base + 1} <= set(tokenizer.suppressed)
    assert base + 2 not in tokenizer.suppressed
    assert tokenizer.decode([base + 2]) == "阿弥陀佛"


@FORMS
@pytest.mark.parametrize("files", [gpt2_files, bert_files, tokenizer_json])
def test_added_tokens_have_their_ids_and_what_was_read_is_saved_whole(
    form: Any, files: Any, tmp_path: Path
) -> None:
    base = files(tmp_path)
    first = load_tokenizer(put(tmp_path, form(base)))
    check(first, base)
    (tmp_path / "again").mkdir()
    first.save(tmp_path / "again", 64)
    again = load_tokenizer(tmp_path / "again")
    check(again, base)
    assert again.fingerprint == first.fingerprint


@pytest.mark.parametrize("files", [gpt2_files, bert_files])
@pytest.mark.parametrize("off", [-1, 5000])
def test_added_tokens_that_do_not_belong_to_the_vocabulary_are_refused(
    files: Any, off: int, tmp_path: Path
) -> None:
    base = files(tmp_path)
    put(tmp_path, {"added_tokens.json": {"<|第一幕|>": base + off}})
    with pytest.raises(TokenizerError):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("torn", ["{", "[]", '{"x": "y"}', '{"x": -1}', '{"x": null}', '{"": 3}'])
def test_a_torn_list_of_added_tokens_is_said(torn: str, tmp_path: Path) -> None:
    gpt2_files(tmp_path)
    (tmp_path / "added_tokens.json").write_text(torn, encoding="utf-8")
    with pytest.raises(TokenizerError):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("torn", [[], {"5": 3}, {"5": {"content": None}}, {"five": {"content": "x"}}])
def test_a_torn_decoder_of_added_tokens_is_said(torn: Any, tmp_path: Path) -> None:
    if torn:
        gpt2_files(tmp_path)
        put(tmp_path, {"tokenizer_config.json": {"added_tokens_decoder": torn}})
        with pytest.raises(TokenizerError):
            load_tokenizer(tmp_path)


# -- BERT's tokenizer.json --------------------------------------------------------------------


def bert_json(folder: Path, **normalizer: Any) -> Path:
    """What BertTokenizerFast saves."""
    special = [
        {"id": n, "content": text, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False}
        for n, text in enumerate(ENTRIES[:5])
    ]  # fmt: skip
    spec = {
        "version": "1.0",
        "added_tokens": special,
        "normalizer": {
            "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
            "lowercase": True, **normalizer,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": {text: n for n, text in enumerate(ENTRIES)},
        },
    }  # fmt: skip
    return put(folder, {"tokenizer.json": spec})


def test_a_bert_tokenizer_json_is_its_vocab_txt(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(bert_json(tmp_path))
    assert kind_of(tokenizer) == "wordpiece"
    assert tokenizer.document_start == (2,)
    assert tokenizer.end_of_text == 3
    for text in ("他说，我们走。", "the old man", "他the门"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("2024")) == 1  # as BERT cuts: not a digit each


def test_one_that_keeps_capitals_puts_no_spaces_between_hanzi_either(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(bert_json(tmp_path, lowercase=False))
    for text in ("他说，我们走。", "the old man"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
        stream = tokenizer.stream()
        assert "".join(map(stream.push, tokenizer.encode(text).tolist())) + stream.flush() == text


def test_tokens_added_to_a_bert_tokenizer_json_are_kept(tmp_path: Path) -> None:
    put(bert_json(tmp_path), in_config(len(ENTRIES)))
    check(load_tokenizer(tmp_path), len(ENTRIES))

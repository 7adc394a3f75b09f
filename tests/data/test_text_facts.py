"""What is known of a text before it is trained on equals what counting says."""

import re
from pathlib import Path

import pytest

from tests.makers.texts import invented_text
from yanmo.core.console import Console
from yanmo.data.prepare import prepare
from yanmo.data.prepared import Prepared
from yanmo.data.shards import Tokens
from yanmo.data.text_facts import facts_of_text, slices
from yanmo.settings.schema import CorpusConfig, DataConfig, TokenizerConfig


def prepared(text: str, console: Console, tokenizer: TokenizerConfig | None = None) -> Prepared:
    Path("a.txt").write_text(text, encoding="utf-8")
    data = DataConfig(val_fraction=0.2)
    return prepare(
        CorpusConfig(path=("a.txt",)), tokenizer or TokenizerConfig(kind="char"), data, 16, console
    )


def test_a_sound_text_has_none_of_it(console: Console) -> None:
    assert set(facts_of_text(prepared(invented_text(6000), console)).values()) == {0.0}


def test_characters_that_a_vocabulary_lacks_are_counted_but_for_rare_ones(console: Console) -> None:
    Path("theirs").mkdir()
    prepared(invented_text(6000), console).tokenizer.save(Path("theirs"), 16)
    text = invented_text(4000) + "龘" * 300 + "鱻" + invented_text(1500)
    found = prepared(text, console, TokenizerConfig(path="theirs"))
    train = found.tokenizer.decode(found.shards.train.slice(0, len(found.shards.train)))
    assert train.count("龘") == 300
    assert facts_of_text(found)["lacking_share"] == pytest.approx(300 / len(train), abs=1e-4)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_vocabulary_of_pieces_lacks_nothing_of_its_own_text(kind: str, console: Console) -> None:
    settings = TokenizerConfig.model_validate({"kind": kind, "vocab_size": 400})
    assert facts_of_text(prepared(invented_text(6000), console, settings))["lacking_share"] == 0.0


def test_passages_in_a_wrong_encoding_are_counted(console: Console) -> None:
    broken = invented_text(2000, seed=1).encode("utf-8").decode("latin-1").replace("\n", "")
    broken = re.sub("[\x80-\x9f]", "¤", broken)  # the reader takes controls away
    text = invented_text(6000) + broken + invented_text(6000)
    assert facts_of_text(prepared(text, console))["odd_share"] == pytest.approx(
        len(broken) / len(text), abs=0.15
    )


def test_held_out_text_that_is_trained_on_is_found(console: Console) -> None:
    text = invented_text(6000)
    assert facts_of_text(prepared(text[-1500:] + text, console))["held_out_found"] > 0.9
    half = text[-1500:-750] + text
    assert 0.3 < facts_of_text(prepared(half, console))["held_out_found"] < 0.7


def test_a_large_text_is_read_in_slices_all_over_it(console: Console) -> None:
    tokens: Tokens = prepared(invented_text(6000), console).shards.train
    parts = list(slices(tokens, 640))
    assert [len(part) for part in parts] == [10] * 64
    assert (parts[32] == tokens.slice(len(tokens) // 2, len(tokens) // 2 + 10)).all()
    (whole,) = slices(tokens, len(tokens))
    assert len(whole) == len(tokens)

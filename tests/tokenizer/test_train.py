"""What is learned from a corpus, and how much memory that may take."""

import re

import numpy as np
import pytest

from tests.makers.processes import python
from tests.makers.texts import lesson
from yanmo.core.errors import DataError, TokenizerError
from yanmo.settings.schema import TokenizerConfig
from yanmo.tokenizer import LibraryTokenizer, Tokenizer, kind_of
from yanmo.tokenizer.compare import texts_of
from yanmo.tokenizer.sample import STRETCH_CHARACTERS, Reservoir
from yanmo.tokenizer.train import (
    MAX_WORD_CHARACTERS,
    alphabet,
    building_merges,
    learn_bpe,
    learn_unigram,
    learner_for,
    special_tokens,
)

kinds = pytest.mark.parametrize("kind", ["bpe", "unigram"])
CODE = """
import sys
from tests.makers.texts import lesson
from yanmo.settings.schema import TokenizerConfig
from yanmo.tokenizer.train import learner_for
learner = learner_for(TokenizerConfig(vocab_size=900), sys.argv[1])
learner.add(lesson(60_000))
print(learner.learn().fingerprint)
"""


def learned(kind: str, text: str, **settings: int) -> LibraryTokenizer:
    learner = learner_for(TokenizerConfig(**settings), kind)
    learner.add(text)
    found = learner.learn()
    assert isinstance(found, LibraryTokenizer)
    return found


@pytest.mark.slow
@kinds
def test_the_same_text_gives_the_same_file_on_any_number_of_threads(kind: str) -> None:
    prints = set()
    for threads, seed in (("1", "0"), ("2", "1"), ("2", "2")):
        done = python("-c", CODE, kind, RAYON_NUM_THREADS=threads, PYTHONHASHSEED=seed)
        assert done.returncode == 0, done.stderr
        prints.add(done.stdout.strip())
    assert len(prints) == 1


@kinds
def test_the_vocabulary_has_the_size_asked_for(kind: str) -> None:
    assert learned(kind, lesson(), vocab_size=500).vocab_size == 500


@kinds
def test_a_text_too_small_for_the_vocabulary_gives_a_smaller_one(kind: str) -> None:
    found = learned(kind, "江湖江湖江湖，夜雨夜雨。" * 3, vocab_size=5000)
    assert 257 < found.vocab_size < 400
    assert found.decode(found.encode("江湖夜雨十年灯")) == "江湖夜雨十年灯"


@kinds
def test_no_piece_crosses_punctuation_or_is_too_long(kind: str) -> None:
    found = learned(kind, lesson(60_000) + "一二三四五六七八九十" * 50, vocab_size=900)
    limit = MAX_WORD_CHARACTERS * (1 if kind == "bpe" else 2)
    for text in texts_of(found):
        assert not re.search(r"[\u4e00-\u9fff][，。？：…”]|[，。？：…”][\u4e00-\u9fff]", text)
        assert len(re.findall(r"[\u4e00-\u9fff]", text)) <= limit


def test_a_token_of_a_bpe_is_bytes_of_one_character_or_whole_characters() -> None:
    found = learned("bpe", lesson(60_000), vocab_size=900)
    for ids in range(257, found.vocab_size):
        text = found.decode([ids])
        assert text.count("\ufffd") <= 1 and (len(text) == 1 or "\ufffd" not in text)


def test_special_tokens_come_first() -> None:
    assert special_tokens(chat=False, reserved=0) == ["<|endoftext|>"]
    assert special_tokens(chat=True, reserved=1)[1:] == ["<|im_start|>", "<|im_end|>", "<|reserved_0|>"]
    found = learned("bpe", lesson(), vocab_size=400, chat_tokens=1, reserved_tokens=3)
    assert found.encode("<|reserved_2|>", special=True).tolist() == [5]
    assert found.vocab_size == 400


def test_special_tokens_of_characters_come_last() -> None:
    def learned(**settings: int) -> Tokenizer:
        learner = learner_for(TokenizerConfig(**settings), "char")
        learner.add(lesson())
        return learner.learn()

    plain, found = learned(), learned(chat_tokens=1, reserved_tokens=2)
    assert found.vocab_size == plain.vocab_size + 4
    assert found.encode("<|reserved_1|>", special=True).tolist() == [plain.vocab_size + 3]
    limited = learned(vocab_size=270, chat_tokens=1)
    assert limited.vocab_size == 270
    with pytest.raises(TokenizerError, match="and for 2 special tokens"):
        learned(vocab_size=258, chat_tokens=1)


def test_rare_characters_are_written_as_bytes() -> None:
    text = "江湖夜雨，" * 2000 + "龘"
    assert "龘" not in alphabet([text])
    assert alphabet([text]) == sorted("江湖夜雨，")
    found = learn_bpe([text], 300, ["<|endoftext|>"])
    assert len(found.encode("龘")) == 3


def test_building_merges_share_their_beginnings() -> None:
    assert building_merges(["abc", "abd", "x", "ef"]) == [("a", "b"), ("e", "f"), ("ab", "c"), ("ab", "d")]


def test_literal_byte_pieces_in_the_text_are_no_bytes() -> None:
    found = learn_unigram(["<0x41>江湖<|endoftext|>\n" * 200], 400, ["<|endoftext|>"])
    text = "<0x41><|endoftext|><0x0A>江湖"
    assert found.decode(found.encode(text)) == text


@kinds
def test_no_room_for_bytes_is_a_clear_error(kind: str) -> None:
    with pytest.raises(TokenizerError, match="vocab_size=256 has no room") as caught:
        learned(kind, "江湖", vocab_size=256)
    assert "257" in caught.value.hint


@kinds
def test_an_empty_corpus_is_a_clear_error(kind: str) -> None:
    with pytest.raises(DataError, match="no text to learn"):
        learner_for(TokenizerConfig(), kind).learn()


def test_a_reservoir_keeps_what_fits_and_stays_in_order() -> None:
    text = lesson(50_000)
    whole = Reservoir(60_000, seed=1)
    whole.add(text)
    assert "".join(whole.texts()) == text
    part = Reservoir(20_000, seed=1)
    for start in range(0, 50_000, 10_000):
        part.add(text[start : start + 10_000])
    assert 20_000 - STRETCH_CHARACTERS <= part.characters <= 20_000
    assert part.offered == 50_000
    places = [text.find(stretch) for stretch in part.texts()]
    assert places == sorted(places)


def test_a_reservoir_chooses_evenly_and_by_seed() -> None:
    texts = [f"{number:0{STRETCH_CHARACTERS}d}" for number in range(400)]
    chosen = np.zeros(400)
    for seed in range(60):
        reservoir = Reservoir(100 * STRETCH_CHARACTERS, seed)
        for text in texts:
            reservoir.add(text)
        found = [int(text) for text in reservoir.texts()]
        assert len(found) == 100
        chosen[found] += 1
    assert abs(chosen[:200].sum() - 3000) < 4 * np.sqrt(6000 * 0.25 * 0.75)
    assert chosen.min() > 3 and chosen.max() < 30  # 15 on the average


def test_kind_of_what_is_learned() -> None:
    assert kind_of(learned("unigram", lesson(), vocab_size=400)) == "unigram"
    assert kind_of(learner_for(TokenizerConfig(), "char").learn()) == "char"

"""Interpolated n-grams are what the formula says, and their probabilities sum to one."""

import random
from collections import Counter

import numpy as np
import pytest

from tests.makers.texts import invented_text
from yanmo.eval.ngrams import HIGHEST_ORDER, ngram_bits
from yanmo.tokenizer.char import CharTokenizer, count_characters

END = 0


def by_hand(train: list[int], context: list[int], token: int, vocab_size: int, order: int) -> float:
    """Kneser and Ney's probability, by dictionaries."""
    padded = [END] * HIGHEST_ORDER + train
    places = range(HIGHEST_ORDER, len(padded))
    below = 1 / vocab_size
    for n in range(1, order + 1):
        if n == order:
            grams = Counter(tuple(padded[i - n + 1 : i + 1]) for i in places)
        else:
            grams = Counter(gram[1:] for gram in {tuple(padded[i - n : i + 1]) for i in places})
        once, twice = (sum(times == k for times in grams.values()) for k in (1, 2))
        discount = once / (once + 2 * twice) if once else 0.5
        before = tuple(context[len(context) - n + 1 :]) if n > 1 else ()
        follow = {gram: times for gram, times in grams.items() if gram[:-1] == before}
        total = sum(follow.values())
        if total:
            here = follow.get((*before, token), 0)
            below = (max(here - discount, 0) + discount * len(follow) * below) / total
    return below


def test_bits_are_those_of_the_formula(drawn_seed: int) -> None:
    rng = random.Random(drawn_seed)
    train = [rng.choice([1, 1, 2, 3, 4]) for _ in range(60)]
    text = [rng.choice([1, 1, 2, 3, 5]) for _ in range(20)]
    context = [END] * HIGHEST_ORDER + text
    for order, bits in ngram_bits(np.array(train), np.array(text), 6, END):
        expected = [by_hand(train, context[: HIGHEST_ORDER + i], text[i], 6, order) for i in range(len(text))]
        assert 2**-bits == pytest.approx(expected)


def test_probabilities_of_all_tokens_sum_to_one(drawn_seed: int) -> None:
    rng = random.Random(drawn_seed)
    train = np.array([rng.randrange(1, 8) for _ in range(200)])
    context = [rng.randrange(1, 8) for _ in range(6)]
    texts = [np.array([*context, token]) for token in range(8)]
    last = [[float(2 ** -bits[-1]) for _, bits in ngram_bits(train, text, 8, END)] for text in texts]
    assert np.sum(last, axis=0) == pytest.approx(np.ones(HIGHEST_ORDER))


def test_each_order_is_better_on_a_text_that_repeats() -> None:
    text = invented_text(20_000, seed=3)
    tokenizer = CharTokenizer.train(count_characters(text))
    ids = tokenizer.encode(text)
    found = {
        order: float(bits.mean())
        for order, bits in ngram_bits(ids[:18_000], ids[18_000:], tokenizer.vocab_size, END)
    }
    assert found[1] > found[2] > found[3]
    assert found[5] < found[2]

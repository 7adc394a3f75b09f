"""N-gram baselines, the lines beside a loss: bits per character of models that only count.

They are counted on the training tokens and measured on the validation tokens, as the model is.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from yanmo.data.shards import Ids, ShardSet, Tokens

COUNTED_TOKENS = 1 << 24
"""The baselines count at most so many training tokens."""


Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class NGramBaselines:
    """Bits per character of models that only count; ``floor`` where the text's true code length is known."""

    uniform: float
    unigram: float
    bigram: float
    floor: float | None = None

    def describe_rank(self, bits: float) -> str:
        """Where a model of so many bits per character stands among the lines, in words."""
        if self.floor is not None and bits < self.bigram:
            return f"{bits - self.floor:.2f} above the floor of {self.floor:.2f}"
        if bits < self.bigram:
            return f"below the bigram line of {self.bigram:.2f}"
        if bits < self.unigram:
            return f"between the unigram line of {self.unigram:.2f} and the bigram line of {self.bigram:.2f}"
        return f"above the unigram line of {self.unigram:.2f}: it has not learned the characters yet"

    def expectation(self, bits: float) -> str:
        """What a model above the bigram line will write, why, and the way out; nothing of one below it."""
        if bits < self.bigram:
            return ""
        knows = "which characters are common, but little about their order: expect words, not sentences"
        if bits >= self.unigram:
            knows = "not even how often each character occurs: expect random characters"
        return (
            f"the bigram baseline ({self.bigram:.2f}) is better than this model ({bits:.2f}). The model knows"
            f" {knows}. Most often it needs more training (a larger train.minutes, epochs or max_steps"
            " extends the run); or there is too little text, or the text differs from the training text, or"
            " optim.learning_rate is unusual"
        )


def baselines_of(shards: ShardSet, vocab_size: int, end_of_text: int) -> NGramBaselines:
    """The lines of a run: counted on its training tokens, measured on its held-out ones."""
    val = shards.val.slice(0, len(shards.val))
    characters = max(shards.manifest.splits.val.characters, 1)
    lines = fit_baselines(shards.train, val, characters, vocab_size, end_of_text)
    floor_bits = shards.manifest.val_floor_bits
    return replace(lines, floor=floor_bits / characters) if floor_bits is not None else lines


def fit_baselines(
    train: Tokens, text: Ids, characters: int, vocab_size: int, end_of_text: int
) -> NGramBaselines:
    """Uniform, unigram and bigram lines (interpolated Witten-Bell: Bell, Witten & Cleary 1990)."""
    counted = train.slice(0, COUNTED_TOKENS)
    unigram = _unigram(counted, vocab_size)  # (V,)
    bigram = _bigram(counted, text, unigram, end_of_text)  # (number of tokens of the text,)
    return NGramBaselines(
        uniform=math.log2(vocab_size) * len(text) / characters,
        unigram=float(-np.log2(unigram[text]).sum()) / characters,
        bigram=float(-np.log2(bigram).sum()) / characters,
    )


def _unigram(train: Ids, vocab_size: int) -> Probabilities:
    counts = np.bincount(train, minlength=vocab_size)
    types = np.count_nonzero(counts)
    return np.asarray((counts + types / vocab_size) / (len(train) + types))


def _bigram(train: Ids, text: Ids, unigram: Probabilities, end_of_text: int) -> Probabilities:
    """The probability of each token of ``text`` after the one before it."""
    V = len(unigram)
    pairs, times = np.unique(_pairs(train, V, end_of_text), return_counts=True)
    seen = np.bincount(pairs // V, weights=times, minlength=V)  # (V,) how often each token was a context
    types = np.bincount(pairs // V, minlength=V)  # (V,) how many tokens followed it
    wanted = _pairs(text, V, end_of_text)
    place = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    together = np.where(pairs[place] == wanted, times[place], 0)
    context = wanted // V
    # a context never seen has no types: the unigram decides alone
    weight = np.maximum(types[context], 1)
    return np.asarray((together + weight * unigram[text]) / (seen[context] + weight))


def _pairs(tokens: Ids, vocab_size: int, end_of_text: int) -> Ids:
    before = np.concatenate([[end_of_text], tokens[:-1]])
    return before * vocab_size + tokens

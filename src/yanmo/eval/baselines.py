"""N-gram baselines: bits per character of models that only count, to compare a loss with.

They are fitted on the training tokens and measured on the validation tokens, as the model is.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from yanmo.data.shards import Ids, ShardSet, Tokens

COUNTED_TOKENS = 1 << 24
"""Training tokens counted at most: more hardly change the baselines, and cost seconds."""


Probabilities = npt.NDArray[np.float64]
Learned = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class NGramBaselines:
    """Bits per character of models that only count; ``floor`` where the text's true code length is known."""

    uniform: float
    unigram: float
    bigram: float
    floor: float | None = None

    def describe_rank(self, bits: float) -> str:
        """The rank of a model with ``bits`` bits per character among the baselines, in words."""
        if self.floor is not None and bits < self.bigram:
            return f"{bits - self.floor:.2f} above the floor of {self.floor:.2f}"
        if bits < self.bigram:
            return f"below the bigram line of {self.bigram:.2f}"
        if bits < self.unigram:
            return f"between the unigram line of {self.unigram:.2f} and the bigram line of {self.bigram:.2f}"
        return f"above the unigram line of {self.unigram:.2f}: it has not learned the characters yet"

    def expectation(self, bits: float) -> str:
        """For a model worse than the bigram baseline: what it will write, why, and what to do; else empty."""
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
    """The baselines of a run, fitted on its training tokens and measured on its held-out ones."""
    val = shards.val.slice(0, len(shards.val))
    characters = max(shards.manifest.splits.val.characters, 1)
    lines = fit_baselines(shards.train, val, characters, vocab_size, end_of_text, shards.val.learned)
    floor_bits = shards.manifest.val_floor_bits
    return replace(lines, floor=floor_bits / characters) if floor_bits is not None else lines


def fit_baselines(
    train: Tokens,
    text: Ids,
    characters: int,
    vocab_size: int,
    end_of_text: int,
    learned: Learned | None = None,
) -> NGramBaselines:
    """Uniform, unigram and bigram baselines (interpolated Witten-Bell: Bell, Witten & Cleary 1990).

    Where only some tokens are learned (``learned`` says which of ``text``), only these count.
    """
    counted = train.slice(0, COUNTED_TOKENS)
    pairs = _pairs(counted, vocab_size, end_of_text)
    wanted = _pairs(text, vocab_size, end_of_text)
    if train.learned is not None and learned is not None:
        is_counted = train.learned[: len(counted)]
        counted, pairs, text, wanted = counted[is_counted], pairs[is_counted], text[learned], wanted[learned]
    unigram = _unigram(counted, vocab_size)  # (V,)
    bigram = _bigram(pairs, wanted, unigram)  # (number of tokens of the text,)
    # bits per character = Σ -log2 p(token) / characters; uniform: p = 1 / V. A model at the unigram baseline
    # has learned frequencies and no context; below the bigram it uses more than the token before
    return NGramBaselines(
        uniform=math.log2(vocab_size) * len(text) / characters,
        unigram=float(-np.log2(unigram[text]).sum()) / characters,
        bigram=float(-np.log2(bigram).sum()) / characters,
    )


def _unigram(train: Ids, vocab_size: int) -> Probabilities:
    counts = np.bincount(train, minlength=vocab_size)
    types = np.count_nonzero(counts)
    # Witten-Bell: p(w) = (c(w) + t / V) / (N + t), t the number of different tokens among N. The chance of a
    # new token is as high as new tokens have been so far, t / (N + t); no token ever gets probability 0
    return np.asarray((counts + types / vocab_size) / (len(train) + types))


def _bigram(train: Ids, wanted: Ids, unigram: Probabilities) -> Probabilities:
    """The probability of each token of a text after the one before it, by their pairs in ``wanted``."""
    V = len(unigram)
    # a pair is one number, so sorted counts replace a V x V table, which would need gigabytes
    pairs, times = np.unique(train, return_counts=True)
    seen = np.bincount(pairs // V, weights=times, minlength=V)  # (V,) how often each token was a context
    types = np.bincount(pairs // V, minlength=V)  # (V,) how many tokens followed it
    # look each wanted pair up in the sorted ones; the minimum keeps the index valid after the last
    place = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    together = np.where(pairs[place] == wanted, times[place], 0)
    context = wanted // V
    # p(w | v) = (c(v w) + t(v) p(w)) / (c(v) + t(v)), t(v) the number of different tokens after v: the more
    # varied they were, the more the unigram counts. A context never seen (t = 0) leaves it to the unigram
    weight = np.maximum(types[context], 1)
    return np.asarray((together + weight * unigram[wanted % V]) / (seen[context] + weight))


def _pairs(tokens: Ids, vocab_size: int, end_of_text: int) -> Ids:
    # (context, token) as context · V + token; the first token's context is end-of-text, as for the model
    before = np.concatenate([[end_of_text], tokens[:-1]])
    return before * vocab_size + tokens

"""What a loss means: nats per token, bits per character, and the lines to compare them with.

Bits per character are those of the original text, the cost of ending each document included, so models
with different tokenizers can be compared. The reference lines are counted on the training tokens and
measured on the validation tokens, as the model is.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from yanmo.core.errors import CheckpointError
from yanmo.data.batches import sliding_batches, validation_batches
from yanmo.data.shards import Ids, ShardSet, Tokens
from yanmo.model.gpt import GPT
from yanmo.parallel.distributed import World

Probabilities = npt.NDArray[np.float64]

TOKENS_AT_ONCE = {"cpu": 1 << 11}
"""Tokens of a pass without gradients: so many stay in a CPU's caches; elsewhere ``MANY_TOKENS``."""
MANY_TOKENS = 1 << 14
COUNTED_TOKENS = 1 << 24
"""The reference lines count at most so many training tokens."""


@dataclass(frozen=True)
class Evaluation:
    """A model on a text."""

    loss: float
    """Nats per token."""
    bits_per_char: float

    @property
    def perplexity(self) -> float:
        """e to the loss: the number of tokens the model wavers between."""
        return math.exp(min(self.loss, 700.0))


@dataclass(frozen=True)
class ReferenceLines:
    """Bits per character of models that only count; ``floor`` where the text's true code length is known."""

    uniform: float
    unigram: float
    bigram: float
    floor: float | None = None

    def standing(self, bits: float) -> str:
        """Where a model of so many bits per character stands among the lines, in words."""
        if self.floor is not None and bits < self.bigram:
            return f"{bits - self.floor:.2f} above the floor of {self.floor:.2f}"
        if bits < self.bigram:
            return f"below the bigram line of {self.bigram:.2f}"
        if bits < self.unigram:
            return f"between the unigram line of {self.unigram:.2f} and the bigram line of {self.bigram:.2f}"
        return f"above the unigram line of {self.unigram:.2f}: it does not know the characters yet"

    def expectation(self, bits: float) -> str:
        """What a model above the bigram line will write, why, and the way out; nothing of one below it."""
        if bits < self.bigram:
            return ""
        knows = "which characters are common, and little of what follows what: expect words, no sentences"
        if bits >= self.unigram:
            knows = "less than how often each character occurs: expect characters at random"
        return (
            f"counting pairs of tokens does better ({self.bigram:.2f}) than this model ({bits:.2f}). It knows"
            f" {knows}. Most often it was trained too shortly (a greater train.minutes, epochs or max_steps"
            " goes on); else the text is little, or unlike what it was trained on, or"
            " optim.learning_rate is far from usual"
        )


@torch.no_grad()
def evaluate(
    model: GPT,
    tokens: Tokens,
    characters: int,
    end_of_text: int,
    batch_size: int,
    autocast: Callable[[], AbstractContextManager[None]],
    world: World,
) -> Evaluation:
    """The model's loss on all of ``tokens``, in non-overlapping windows of its block size.

    Ranks take turns with the batches; all get the same result.
    """
    device, training, nats = model.tokens.weight.device, model.training, 0.0
    model.eval()
    batches = validation_batches(tokens, model.config.block_size, batch_size, end_of_text)
    for batch in islice(batches, world.rank, None, world.size):
        inputs = torch.from_numpy(batch.inputs).to(device)  # (B, T)
        targets = torch.from_numpy(batch.targets).to(device)  # (B, T)
        with autocast():
            nats += float(model.loss(inputs, targets))
    model.train(training)
    if world.size > 1:
        nats = float(world.sum(torch.tensor(nats, dtype=torch.float64, device=device)))
    return Evaluation(nats / len(tokens), nats / math.log(2) / max(characters, 1))


@torch.no_grad()
def evaluate_sliding(
    model: GPT,
    tokens: Ids,
    characters: int,
    stride: int,
    end_of_text: int,
    advance: Callable[[int], object] = lambda _: None,
) -> Evaluation:
    """The model's loss on ``tokens`` (N,), each predicted from as much text as the window holds, or nearly.

    Args:
        model: in float32, as it was saved.
        tokens: of the whole text.
        characters: of the original text.
        stride: tokens between windows; with 1 each token sees a full window before it.
        end_of_text: what stands before the first token.
        advance: told of each batch's windows when it is done.

    Raises:
        CheckpointError: the model gives no finite loss.
    """
    device, block_size, nats = model.tokens.weight.device, model.config.block_size, 0.0
    rows = max(TOKENS_AT_ONCE.get(device.type, MANY_TOKENS) // block_size, 1)
    model.eval()
    for batch in sliding_batches(tokens, block_size, stride, rows, end_of_text):
        inputs = torch.from_numpy(batch.inputs).to(device)  # (B, T)
        nats += float(model.loss(inputs, torch.from_numpy(batch.targets).to(device)))
        advance(len(inputs))
    if not math.isfinite(nats):
        raise CheckpointError(
            f"the model's loss on {len(tokens):,} tokens is {nats}",
            where="its logits are not finite",
            mend="its weights are too large or damaged: take it from its source again",
        )
    return Evaluation(nats / len(tokens), nats / math.log(2) / max(characters, 1))


def reference_lines(shards: ShardSet, vocab_size: int, end_of_text: int) -> ReferenceLines:
    """The lines of a run: counted on its training tokens, measured on its held-out ones."""
    val = shards.val.slice(0, len(shards.val))
    characters = max(shards.manifest["splits"]["val"]["characters"], 1)
    lines = lines_for(shards.train, val, characters, vocab_size, end_of_text)
    floor_bits = shards.manifest.get("val_floor_bits")
    return replace(lines, floor=floor_bits / characters) if floor_bits is not None else lines


def lines_for(train: Tokens, text: Ids, characters: int, vocab_size: int, end_of_text: int) -> ReferenceLines:
    """Uniform, unigram and bigram lines (interpolated Witten-Bell: Bell, Witten & Cleary 1990)."""
    counted = train.slice(0, COUNTED_TOKENS)
    unigram = _unigram(counted, vocab_size)  # (V,)
    bigram = _bigram(counted, text, unigram, end_of_text)  # (number of tokens of the text,)
    return ReferenceLines(
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

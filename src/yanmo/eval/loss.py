"""The loss of a model on a text: nats per token, perplexity, bits per character.

Bits per character are those of the original text, the cost of ending each document included, so models
with different tokenizers can be compared. The baselines to compare them with are in ``baselines.py``.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from yanmo.core.errors import CheckpointError
from yanmo.data.batches import Batch, sliding_batches
from yanmo.data.shards import Ids
from yanmo.model.config import IGNORED
from yanmo.model.gpt import GPT
from yanmo.parallel.distributed import World

TOKENS_AT_ONCE = {"cpu": 1 << 11}
"""Tokens of a pass without gradients; more leave a CPU's caches. Elsewhere ``MANY_TOKENS``."""
MANY_TOKENS = 1 << 14


@dataclass(frozen=True)
class Evaluation:
    """The loss of a model on a text."""

    loss: float
    """Nats per token."""
    bits_per_char: float

    @property
    def perplexity(self) -> float:
        """e^loss: the model is as uncertain as if it chose among so many equally likely tokens."""
        # e^709 is the largest double; a run that goes wrong shall say so, not overflow
        return math.exp(min(self.loss, 700.0))

    def row(self) -> dict[str, float]:
        """For metrics.jsonl."""
        return {
            "val_loss": self.loss,
            "val_bits_per_char": self.bits_per_char,
            "val_perplexity": self.perplexity,
        }

    def said(self) -> str:
        """For people."""
        return (
            f"validation loss {self.loss:.4f}, perplexity {self.perplexity:.1f},"
            f" {self.bits_per_char:.3f} bits/char"
        )


@torch.no_grad()
def evaluate(
    model: GPT,
    batches: Iterable[Batch],
    targets: int,
    characters: int,
    autocast: Callable[[], AbstractContextManager[None]],
    world: World,
) -> Evaluation:
    """The model's loss on batches with so many targets, which stand for so many characters.

    Ranks take turns with the batches; all get the same result.
    """
    device, training, nats = model.tokens.weight.device, model.training, 0.0
    model.eval()  # no dropout; it also draws no random numbers, so evaluating never changes the training
    # rank r computes batches r, r + size, …: no batch is measured twice
    for batch in islice(batches, world.rank, None, world.size):
        tensors = [torch.from_numpy(array).to(device) for array in batch.arrays()]  # (B, T) each
        with autocast():
            # a sum over all targets, in double precision: a mean of batch means would overweigh a short one
            nats += float(model.loss(*tensors))
    model.train(training)
    if world.size > 1:
        # float64: in float32 a sum of millions of nats loses the digits that tell two checkpoints apart
        nats = float(world.sum(torch.tensor(nats, dtype=torch.float64, device=device)))
    # bits = nats / ln 2. Divided by characters, not tokens: a vocabulary of longer tokens has fewer of them,
    # each with a higher loss, and the two cancel
    return Evaluation(nats / targets, nats / math.log(2) / max(characters, 1))


@torch.no_grad()
def token_nats(
    model: GPT,
    tokens: Ids,
    stride: int,
    end_of_text: int,
    advance: Callable[[int], object] = lambda _: None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Nats of each of ``tokens`` (N,), and how many tokens its window had before it, (N,) each.

    The same windows as those of :func:`evaluate_sliding`; all scores of a window are in memory at once.
    """
    device, block_size = model.tokens.weight.device, model.config.block_size
    nats, places = list[npt.NDArray[np.float64]](), list[npt.NDArray[np.int64]]()
    model.eval()
    for batch in sliding_batches(tokens, block_size, stride, 1, end_of_text):
        scores = model(torch.from_numpy(batch.inputs).to(device))[0].float().log_softmax(-1)  # (T, V)
        (counted,) = np.nonzero(batch.targets[0] != IGNORED)
        wanted = torch.from_numpy(batch.targets[0][counted]).to(device)
        chosen = scores[torch.from_numpy(counted).to(device)].gather(1, wanted[:, None])[:, 0]
        nats.append(-chosen.double().cpu().numpy())
        places.append(counted)
        advance(1)
    return np.concatenate(nats), np.concatenate(places)


@torch.no_grad()
def evaluate_sliding(
    model: GPT,
    tokens: Ids,
    characters: int,
    stride: int,
    end_of_text: int,
    advance: Callable[[int], object] = lambda _: None,
) -> Evaluation:
    """The model's loss on ``tokens`` (N,), each predicted from a nearly full window of context.

    Args:
        model: in float32, as it was saved.
        tokens: of the whole text.
        characters: of the original text.
        stride: tokens between windows; with 1 each token sees a full window before it.
        end_of_text: the token before the first one.
        advance: called with the number of windows after each batch.

    Raises:
        CheckpointError: the model gives no finite loss.
    """
    device, block_size, nats = model.tokens.weight.device, model.config.block_size, 0.0
    rows = max(TOKENS_AT_ONCE.get(device.type, MANY_TOKENS) // block_size, 1)
    model.eval()
    # each window computes T tokens and counts only its last `stride`: those have T - stride tokens of context
    # or more, where the non-overlapping windows of ``evaluate`` have T / 2 on average, and so a higher loss
    for batch in sliding_batches(tokens, block_size, stride, rows, end_of_text):
        inputs = torch.from_numpy(batch.inputs).to(device)  # (B, T)
        nats += float(model.loss(inputs, torch.from_numpy(batch.targets).to(device)))
        advance(len(inputs))
    if not math.isfinite(nats):
        raise CheckpointError(
            f"the model's loss on {len(tokens):,} tokens is {nats}",
            where="its logits are not finite",
            hint="the weights are too large or damaged: download the model again",
        )
    return Evaluation(nats / len(tokens), nats / math.log(2) / max(characters, 1))

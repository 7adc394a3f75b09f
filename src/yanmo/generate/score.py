"""How likely a given text is, token by token, in bounded memory.

In: ids of any number. Out: for each the log probability, and on request the likeliest tokens in its place.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from yanmo.data.batches import sliding_batches
from yanmo.data.shards import Ids
from yanmo.generate.engine import TokenChoice, likeliest
from yanmo.generate.memory import READ_TOKENS, Memory
from yanmo.model.cache import KVCache
from yanmo.model.config import IGNORED
from yanmo.model.gpt import GPT

SCORED_ROWS = 64
"""Positions whose logits exist at a time: a window of 1,024 with 50,000 tokens would be 200 MB of them."""


def score(
    model: GPT,
    ids: Ids,
    end_of_text: int,
    stride: int = 0,
    top: int = 0,
    memory: Memory | None = None,
    share: float = 0.0,
) -> Iterator[TokenChoice]:
    """Each of ``ids`` (N,) after those before it, the first after the end of another text.

    Args:
        model: in eval mode.
        ids: a text of any length; beyond a window, each token has at least window - stride others before it.
        end_of_text: what precedes the first.
        stride: how far the window moves; 0 is half a window, as in ``yanmo evaluate``.
        top: how many of the likeliest tokens are given beside each.
        memory: mixed in by ``share``; each token is noted in it once it is scored.
        share: of the memory in each probability.
    """
    for part in score_parts(model, ids, end_of_text, stride, top, memory, share):
        yield from part


@torch.no_grad()
def score_parts(
    model: GPT,
    ids: Ids,
    end_of_text: int,
    stride: int = 0,
    top: int = 0,
    memory: Memory | None = None,
    share: float = 0.0,
) -> Iterator[list[TokenChoice]]:
    """The same, some tokens at a time; a part is empty where they only lead up to those that count."""
    block_size, device = model.config.block_size, model.tokens.weight.device
    stride = stride or max(block_size // 2, 1)
    cache = KVCache(model.config, 1, like=model.tokens.weight)
    for batch in sliding_batches(ids, block_size, stride, 1, end_of_text) if len(ids) else ():
        cache.lengths[0] = 0
        inputs, targets = (torch.from_numpy(rows).to(device) for rows in (batch.inputs, batch.targets))
        parts = (torch.split(rows, READ_TOKENS, dim=-1) for rows in (inputs, targets[0]))
        for read, wanted in zip(*parts, strict=True):
            states = model.hidden_states(read, cache.rows([0]))[0]  # (T, C)
            counted = wanted != IGNORED
            yield _of_states(model, states[counted], wanted[counted], top, memory, share)


def _of_states(
    model: GPT, states: Tensor, targets: Tensor, top: int, memory: Memory | None, share: float
) -> list[TokenChoice]:
    """The choices that ``targets`` (N,) are after ``states`` (N, C)."""
    choices: list[TokenChoice] = []
    for rows, wanted in zip(*(torch.split(rows, SCORED_ROWS) for rows in (states, targets)), strict=True):
        logprobs = model.head(rows).float().log_softmax(dim=-1)  # (n, V)
        if memory is not None:
            logprobs = _mixed(logprobs, rows, wanted, memory, share)
        choices += _scored(logprobs, wanted, top)
    return choices


def _mixed(logprobs: Tensor, states: Tensor, targets: Tensor, memory: Memory, share: float) -> Tensor:
    """Log probabilities (N, V) with what is remembered at each place, which then is noted."""
    mixed = []
    for row, state, target in zip(logprobs, states, targets.tolist(), strict=True):
        before = memory.written.newest(2).followers.tolist()
        mixed.append(memory.mix(row, state, share, before))
        memory.note(state, target)
    return torch.stack(mixed)


def _scored(logprobs: Tensor, targets: Tensor, top: int) -> Iterator[TokenChoice]:
    """The choices that ``targets`` (N,) are, by logprobs (N, V)."""
    for row, (token, logprob) in enumerate(
        zip(targets.tolist(), logprobs.gather(1, targets[:, None]).flatten().tolist(), strict=True)
    ):
        yield TokenChoice(token, logprob, likeliest(logprobs[row], top) if top else ())

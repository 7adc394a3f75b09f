"""How likely a given text is, token by token, in bounded memory.

In: ids of any number. Out: for each the log probability, and on request the likeliest tokens in its place.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from yanmo.data.batches import sliding_batches
from yanmo.data.shards import Ids
from yanmo.generate.engine import TokenChoice, likeliest
from yanmo.model.config import IGNORED
from yanmo.model.gpt import GPT

SCORED_ROWS = 64
"""Positions whose logits exist at a time: a window of 1,024 with 50,000 tokens would be 200 MB of them."""


@torch.no_grad()
def score(model: GPT, ids: Ids, end_of_text: int, stride: int = 0, top: int = 0) -> Iterator[TokenChoice]:
    """Each of ``ids`` (N,) after those before it, the first after the end of another text.

    Args:
        model: in eval mode.
        ids: a text of any length; beyond a window, each token has at least window - stride others before it.
        end_of_text: what precedes the first.
        stride: how far the window moves; 0 is half a window, as in ``yanmo evaluate``.
        top: how many of the likeliest tokens are given beside each.
    """
    block_size, device = model.config.block_size, model.tokens.weight.device
    stride = stride or max(block_size // 2, 1)
    for batch in sliding_batches(ids, block_size, stride, 1, end_of_text) if len(ids) else ():
        targets = torch.from_numpy(batch.targets[0]).to(device)  # (T,)
        x = model.hidden_states(torch.from_numpy(batch.inputs).to(device))[0]  # (T, C)
        counted = targets != IGNORED
        parts = (torch.split(of_window[counted], SCORED_ROWS) for of_window in (x, targets))
        for states, wanted in zip(*parts, strict=True):
            yield from _scored(model.head(states).float().log_softmax(dim=-1), wanted, top)


def _scored(logprobs: Tensor, targets: Tensor, top: int) -> Iterator[TokenChoice]:
    """The choices that ``targets`` (N,) are, by logprobs (N, V)."""
    for row, (token, logprob) in enumerate(
        zip(targets.tolist(), logprobs.gather(1, targets[:, None]).flatten().tolist(), strict=True)
    ):
        yield TokenChoice(token, logprob, likeliest(logprobs[row], top) if top else ())

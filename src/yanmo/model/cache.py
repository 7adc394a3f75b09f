"""The KV cache: keys and values of the tokens a model has seen, for incremental decoding.

Each sequence has a slot, and its own length there. What a row gets from attention is a function of that row
alone, to the bit: it looks back on its own slot only, over as many tokens as stand there, whatever is written
beside it.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from yanmo.model.config import GPTConfig


def cache_dtype(weight: Tensor) -> torch.dtype:
    """Of keys and values, of a model with such weights: float32 at least on a CPU, else that of the weights.

    Looking back on bfloat16 takes 2.5 to 6 times as long there as on float32 (docs/performance.md).
    """
    return torch.promote_types(weight.dtype, torch.float32) if weight.device.type == "cpu" else weight.dtype


class Cache(Protocol):
    """What attention asks of a cache in one forward pass of B rows and T new tokens."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Keep k, v (B, n_kv_head, T, D), and let q (B, n_head, T, D) look back: (B, n_head, T, D)."""


class KVCache:
    """Slots for ``size`` sequences of at most ``block_size`` tokens, allocated once."""

    def __init__(self, config: GPTConfig, size: int, like: Tensor) -> None:
        shape = (config.n_layer, size, config.n_kv_head, config.block_size, config.head_dim)
        # zeros cost no memory until they are written over
        self.keys = torch.zeros(shape, dtype=cache_dtype(like), device=like.device)
        self.values = torch.zeros_like(self.keys)
        self.lengths = [0] * size

    def rows(self, slots: Sequence[int | None]) -> "CacheRows":
        """The slots of the rows of one forward pass; a row with None is there for the shape only."""
        return CacheRows(self, slots)

    def copy(self, source: int, to: int) -> None:
        """Give slot ``to`` what slot ``source`` holds."""
        length = self.lengths[source]
        for tensor in (self.keys, self.values):
            tensor[:, to, :, :length] = tensor[:, source, :, :length]
        self.lengths[to] = length


class CacheRows:
    """A :class:`KVCache` as one forward pass sees it."""

    def __init__(self, cache: KVCache, slots: Sequence[int | None]) -> None:
        self.cache, self.slots = cache, slots
        self.lengths = [0 if slot is None else cache.lengths[slot] for slot in slots]

    def positions(self, T: int) -> Tensor:
        """Where the next T tokens of each row stand: (T,) of a single row, else (B, T)."""
        device = self.cache.keys.device
        places = torch.arange(T, device=device)
        if len(self.lengths) == 1:
            return places + self.lengths[0]
        return torch.tensor(self.lengths, device=device)[:, None] + places

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Keep k, v (B, n_kv_head, T, D), and let q (B, n_head, T, D) look back: (B, n_head, T, D).

        Row by row: with several rows at once torch shares the work among threads by their number, and then
        sums in another order.
        """
        keys, values, T = self.cache.keys[layer], self.cache.values[layer], q.size(2)
        looked = []
        for row, (slot, start) in enumerate(zip(self.slots, self.lengths, strict=True)):
            if slot is None:
                looked.append(torch.zeros_like(q[row : row + 1]))
                continue
            end = start + T
            keys[slot, :, start:end] = k[row]
            values[slot, :, start:end] = v[row]
            one = slice(slot, slot + 1)
            looked.append(look_back(q[row : row + 1], keys[one, :, :end], values[one, :, :end]))
        return torch.cat(looked)

    def grow(self, T: int) -> None:
        """The rows are T tokens longer."""
        for slot, start in zip(self.slots, self.lengths, strict=True):
            if slot is not None:
                self.cache.lengths[slot] = start + T


def look_back(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √D) v of the last T of S tokens, each of which sees itself and what is before it.

    Args:
        q: (B, n_head, T, D).
        k: (B, n_kv_head, S, D); several query heads may share one head of keys and values.
        v: the same shape.
        mask: True where a token may look, in place of the causal one.

    Returns:
        (B, n_head, T, D), in the dtype of q.
    """
    T, S = q.size(2), k.size(2)
    if mask is None and 1 < T < S:
        mask = causal_mask(T, S, q.device)
    y = F.scaled_dot_product_attention(
        q.to(k.dtype), k, v, mask, is_causal=mask is None and T > 1, enable_gqa=q.size(1) != k.size(1)
    )
    return y.to(q.dtype)


def causal_mask(T: int, S: int, device: torch.device) -> Tensor:
    """True where token t, the last T of S, may look: at itself and everything before it. (T, S)"""
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)

"""The KV cache: keys and values of the tokens a model has seen, for incremental decoding."""

import copy

import torch
from torch import Tensor

from yanmo.model.config import GPTConfig


def cache_dtype(weight: Tensor) -> torch.dtype:
    """Of keys and values, of a model with such weights: float32 at least on a CPU, else that of the weights.

    Looking back on bfloat16 takes 2.5 to 6 times as long there as on float32 (docs/performance.md).
    """
    return torch.promote_types(weight.dtype, torch.float32) if weight.device.type == "cpu" else weight.dtype


class KVCache:
    """Keys and values of the tokens a model has already seen, for generation; each row has its length."""

    def __init__(self, config: GPTConfig, batch_size: int, like: Tensor) -> None:
        shape = (config.n_layer, batch_size, config.n_kv_head, config.block_size, config.head_dim)
        self.keys = torch.zeros(shape, dtype=cache_dtype(like), device=like.device)
        self.values = torch.zeros_like(self.keys)
        self.lengths = [0] * batch_size
        self._mask: Tensor | None = None

    @property
    def length(self) -> int:
        """Tokens in the longest row."""
        return max(self.lengths)

    def advance(self, T: int) -> Tensor:
        """Where the next T tokens of each row stand: (T,), or (B, T) where lengths differ."""
        device, past = self.keys.device, self.length
        self._end, self._mask = past + T, None
        self._places = torch.arange(past, self._end, device=device)  # (T,)
        if min(self.lengths) < past:
            lengths = torch.tensor(self.lengths, device=device)  # (B,)
            self._places = lengths[:, None] + torch.arange(T, device=device)  # (B, T)
            self._mask = torch.arange(self._end, device=device) <= self._places[:, None, :, None]
        return self._places

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Put k, v (B, n_kv_head, T, head_dim) of one layer in their places; gives all S so far.

        Where lengths differ also a mask (B, 1, T, S) of what each token may look at.
        """
        end, past = self._end, self._end - k.size(2)
        if self._mask is None:
            self.keys[layer, :, :, past:end] = k
            self.values[layer, :, :, past:end] = v
        else:
            rows = torch.arange(k.size(0), device=k.device)[:, None]  # (B, 1)
            k, v = (x.transpose(1, 2).to(self.keys.dtype) for x in (k, v))  # (B, T, n_kv_head, head_dim)
            self.keys[layer][rows, :, self._places] = k
            self.values[layer][rows, :, self._places] = v
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end], self._mask

    def rows(self, start: int, stop: int) -> "KVCache":
        """Some rows as a cache of their own, in the same memory, with lengths of its own."""
        rows = copy.copy(self)
        rows.keys, rows.values = self.keys[:, start:stop], self.values[:, start:stop]
        rows.lengths = self.lengths[start:stop]
        return rows

    def copy_row(self, source: int, to: int) -> None:
        """Give row ``to`` what row ``source`` holds."""
        length = self.lengths[source]
        for tensor in (self.keys, self.values):
            tensor[:, to, :, :length] = tensor[:, source, :, :length]
        self.lengths[to] = length

    def select_rows(self, rows: list[int]) -> None:
        """Drop all but ``rows``, which ascend and move together."""
        for to, row in enumerate(rows):
            if to != row:
                self.copy_row(row, to)
        kept = self.rows(0, len(rows))
        self.keys, self.values, self.lengths = kept.keys, kept.values, kept.lengths

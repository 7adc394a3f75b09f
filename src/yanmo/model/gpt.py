"""GPT-2, written to be read.

Shapes: B sequences in a batch, T tokens in a sequence, C = n_embd channels, V vocabulary size;
S >= T counts the tokens attention looks back on, those of the cache included.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners": a decoder-only transformer
with learned positions, LayerNorm before each sub-layer, tanh-GELU, biases everywhere, and an output
head that shares the token embedding's weights.
"""

import copy
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from yanmo.config import ModelConfig
from yanmo.model.fused import causal_attention, dropout, linear, linear_cross_entropy


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a model: [model] and the vocabulary's size."""

    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    block_size: int
    dropout: float = 0.0

    @classmethod
    def of(cls, model: ModelConfig, vocab_size: int) -> "GPTConfig":
        """From the settings of a recipe and the vocabulary of its tokenizer."""
        dropout = model.dropout or 0.0
        return cls(vocab_size, model.n_layer, model.n_head, model.n_embd, model.block_size, dropout)


class Cache:
    """Keys and values of the tokens a model has already seen, for generation; each row has its length."""

    def __init__(self, config: GPTConfig, batch_size: int, like: Tensor) -> None:
        head_dim = config.n_embd // config.n_head
        shape = (config.n_layer, batch_size, config.n_head, config.block_size, head_dim)
        self.keys = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.values = torch.zeros_like(self.keys)
        self.lengths = [0] * batch_size
        self._mask: Tensor | None = None

    @property
    def length(self) -> int:
        """Tokens in the longest row."""
        return max(self.lengths)

    def place(self, T: int) -> Tensor:
        """Where the next T tokens of each row stand: (T,), or (B, T) where lengths differ."""
        device, past = self.keys.device, self.length
        self._end, self._mask = past + T, None
        self._places = torch.arange(past, self._end, device=device)  # (T,)
        if min(self.lengths) < past:
            lengths = torch.tensor(self.lengths, device=device)  # (B,)
            self._places = lengths[:, None] + torch.arange(T, device=device)  # (B, T)
            self._mask = torch.arange(self._end, device=device) <= self._places[:, None, :, None]
        return self._places

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Put k, v (B, n_head, T, head_dim) of one layer in their places; gives all S so far.

        Where lengths differ also a mask (B, 1, T, S) of what each token may look at.
        """
        end, past = self._end, self._end - k.size(2)
        if self._mask is None:
            self.keys[layer, :, :, past:end] = k
            self.values[layer, :, :, past:end] = v
        else:
            rows = torch.arange(k.size(0), device=k.device)[:, None]  # (B, 1)
            self.keys[layer][rows, :, self._places] = k.transpose(1, 2)  # (B, T, n_head, head_dim)
            self.values[layer][rows, :, self._places] = v.transpose(1, 2)
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end], self._mask

    def part(self, start: int, stop: int) -> "Cache":
        """Some rows as a cache of their own, in the same memory, with lengths of its own."""
        part = copy.copy(self)
        part.keys, part.values = self.keys[:, start:stop], self.values[:, start:stop]
        part.lengths = self.lengths[start:stop]
        return part

    def copy_row(self, source: int, to: int) -> None:
        """Give row ``to`` what row ``source`` holds."""
        length = self.lengths[source]
        for tensor in (self.keys, self.values):
            tensor[:, to, :, :length] = tensor[:, source, :, :length]
        self.lengths[to] = length

    def keep(self, rows: list[int]) -> None:
        """Drop all but ``rows``, which ascend and move together."""
        for to, row in enumerate(rows):
            if to != row:
                self.copy_row(row, to)
        kept = self.part(0, len(rows))
        self.keys, self.values, self.lengths = kept.keys, kept.values, kept.lengths


class Linear(nn.Linear):
    """torch's, by ``fused.linear``."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class Attention(nn.Module):
    """Causal multi-head self-attention (Vaswani et al. 2017)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.kind: Literal["sdpa", "matmul"] = "sdpa"
        self.qkv = Linear(config.n_embd, 3 * config.n_embd)
        self.out = Linear(config.n_embd, config.n_embd)

    def forward(self, x: Tensor, layer: int, cache: Cache | None) -> Tensor:
        p = self.dropout if self.training else 0.0
        qkv = self.qkv(x)  # (B, T, 3C)
        if self.kind == "matmul" and cache is None:
            y = causal_attention(qkv, self.n_head, p)  # (B, T, C)
        else:
            y = sdpa_attention(qkv, self.n_head, p, layer, cache)
        return dropout(self.out(y), self.dropout, self.training)  # (B, T, C)


def sdpa_attention(qkv: Tensor, n_head: int, p: float, layer: int, cache: Cache | None) -> Tensor:
    """torch's own attention: (B, T, 3C) → (B, T, C), with a cache on all that came before as well."""
    B, T, C = qkv.size(0), qkv.size(1), qkv.size(2) // 3
    q, k, v = qkv.view(B, T, 3, n_head, C // n_head).permute(2, 0, 3, 1, 4)  # (B, n_head, T, head_dim) each
    mask = None
    if cache is not None:
        k, v, mask = cache.extend(layer, k, v)  # (B, n_head, S, head_dim)
    S = k.size(2)
    if mask is None and 1 < T < S:
        mask = causal_mask(T, S, q.device)
    y = F.scaled_dot_product_attention(q, k, v, mask, p, is_causal=mask is None and T > 1)
    return y.transpose(1, 2).reshape(B, T, C)


def causal_mask(T: int, S: int, device: torch.device) -> Tensor:
    """True where token t, the last T of S, may look: at itself and everything before it. (T, S)"""
    return torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)


class MLP(nn.Module):
    """Position-wise feed-forward network, four times as wide inside."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.up = Linear(config.n_embd, 4 * config.n_embd)
        self.down = Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.up(x), approximate="tanh")  # (B, T, 4C)
        return dropout(self.down(x), self.dropout, self.training)  # (B, T, C)


class Block(nn.Module):
    """Attention, then MLP, each on the normalised stream and added back to it."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(config.n_embd)
        self.attention = Attention(config)
        self.norm_2 = nn.LayerNorm(config.n_embd)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, layer: int, cache: Cache | None) -> Tensor:
        x = x + self.attention(self.norm_1(x), layer, cache)
        y: Tensor = self.mlp(self.norm_2(x))
        return x + y  # (B, T, C)


class GPT(nn.Module):
    """Token ids (B, T) → logits (B, T, V)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab_size, config.n_embd)
        self.positions = nn.Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.norm = nn.LayerNorm(config.n_embd)

    def forward(self, ids: Tensor, cache: Cache | None = None) -> Tensor:
        """Logits of the token after each of ``ids`` (B, T); with a cache, ids continue it."""
        return self.head(self.stream(ids, cache))  # (B, T, V)

    def stream(self, ids: Tensor, cache: Cache | None = None) -> Tensor:
        """What the head reads: the normalised residual stream (B, T, C) behind the last block.

        Raises:
            ValueError: more tokens than ``block_size``.
        """
        past, T = cache.length if cache is not None else 0, ids.size(1)
        if past + T > self.config.block_size:
            raise ValueError(f"{past + T} tokens do not fit a window of {self.config.block_size}")
        position = torch.arange(T, device=ids.device) if cache is None else cache.place(T)  # (T,) or (B, T)
        x = self.tokens(ids) + self.positions(position)  # (B, T, C)
        x = dropout(x, self.config.dropout, self.training)
        for layer, block in enumerate(self.blocks):
            x = block(x, layer, cache)
        if cache is not None:
            cache.lengths = [length + T for length in cache.lengths]
        y: Tensor = self.norm(x)
        return y  # (B, T, C)

    def head(self, x: Tensor) -> Tensor:
        """Logits (..., V) of a stream (..., C); the head shares the embedding's weights."""
        return linear(x, self.tokens.weight)

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Sum over all targets (B, T) of the negative log likelihood, in nats."""
        x = self.stream(ids).flatten(0, 1)  # (B * T, C)
        return linear_cross_entropy(x, self.tokens.weight, targets.flatten())

    def use_attention(self, kind: Literal["sdpa", "matmul"]) -> None:
        """Choose how attention is computed without a cache; the result is the same up to rounding."""
        for block in self.blocks:
            block.attention.kind = kind  # type: ignore[union-attr]

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """GPT-2's initialisation: N(0, 0.02), the projections into the stream scaled by 1/√(2L)."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.dim() >= 2:
                into_stream = name.endswith(("attention.out.weight", "mlp.down.weight"))
                scale = 1 / math.sqrt(2 * self.config.n_layer) if into_stream else 1.0
                nn.init.normal_(parameter, std=0.02 * scale, generator=generator)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.ones_(parameter)


def count_parameters(config: GPTConfig) -> int:
    """Parameters of a model, its shared head counted once; nothing is allocated."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in GPT(config).parameters())

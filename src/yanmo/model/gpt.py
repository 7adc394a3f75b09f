"""A GPT, written to be read: GPT-2, and what has become usual since.

Shapes: B sequences in a batch, T tokens in a sequence, C = n_embd channels, V vocabulary size, D = head_dim;
S >= T counts the tokens attention looks back on, those of the cache included.

    gpt2     Radford et al. 2019, "Language Models are Unsupervised Multitask Learners": a decoder-only
             transformer with learned positions, LayerNorm before each sub-layer, tanh-GELU, biases
             everywhere, and an output head that shares the token embedding's weights
    modern   Yang et al. 2025, "Qwen3 Technical Report": rotary positions, RMSNorm, gated MLP, keys and
             values shared by several queries, normalised queries and keys, no biases
    moe      the same, with experts for an MLP (``moe.py``)

What differs (``families.py``) is ``norm_of``, ``attention_of``, ``mlp_of`` and where positions come in;
all else is one.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from yanmo.model.cache import Cache, CacheRows, causal_mask
from yanmo.model.config import IGNORED, GPTConfig
from yanmo.model.fused import (
    apply_rope,
    causal_attention,
    dropout,
    linear,
    linear_cross_entropy,
    product_dtype,
)
from yanmo.model.layers import Embedding, GatedMLP, Linear, RMSNorm, TokenRows
from yanmo.model.moe import MixtureOfExperts
from yanmo.model.rotary import Rotation, rotation_at


@dataclass(frozen=True)
class ForwardContext:
    """What all layers share in one forward pass."""

    cache: Cache | None = None
    rotation: Rotation | None = None
    documents: Tensor | None = None
    """The number of the document that each token belongs to, (B, T); None: all may look at all before."""


class Attention(nn.Module):
    """Causal multi-head self-attention (Vaswani et al. 2017), with GPT-2's heads."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.dropout = layer, config.dropout
        self.heads, self.kv_heads, self.head_dim = config.n_head, config.n_kv_head, config.head_dim
        self.kind: Literal["sdpa", "matmul"] = "sdpa"
        self.make_projections(config.n_embd)

    def make_projections(self, C: int) -> None:
        """From the stream to heads, and from heads into the stream."""
        self.qkv = Linear(C, 3 * C)
        self.out = Linear(C, C)

    def project(self, x: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, T, n_head, D), keys and values (B, T, n_kv_head, D) of x (B, T, C)."""
        # one product for all three, (B, T, 3C), cut into heads: each attends for itself
        q, k, v = torch.unflatten(self.qkv(x), -1, (3, self.heads, self.head_dim)).unbind(2)
        return q, k, v

    def forward(self, x: Tensor, shared: ForwardContext) -> Tensor:
        p = self.dropout if self.training else 0.0
        q, k, v = self.project(x, shared.rotation)
        if self.kind == "matmul" and shared.cache is None:
            y = causal_attention(q, k, v, p, shared.documents)  # (B, T, n_head, D)
        else:
            y = sdpa_attention(q, k, v, p, self.layer, shared)
        # the heads' answers side by side, mixed and written into the residual stream
        return dropout(self.out(y.flatten(2)), self.dropout, self.training)  # (B, T, C)


class ModernAttention(Attention):
    """With rotary positions, shared keys and values, and normalised queries and keys.

    Su et al. 2021, "RoFormer"; Ainslie et al. 2023, "GQA"; Henry et al. 2020, "Query-Key Normalization".
    """

    def make_projections(self, C: int) -> None:
        """One matrix each; no biases."""
        D = self.head_dim
        self.q = Linear(C, self.heads * D, bias=False)
        self.k = Linear(C, self.kv_heads * D, bias=False)
        self.v = Linear(C, self.kv_heads * D, bias=False)
        self.q_norm, self.k_norm = RMSNorm(D), RMSNorm(D)
        self.out = Linear(self.heads * D, C, bias=False)

    def project(self, x: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, T, n_head, D), keys and values (B, T, n_kv_head, D) of x (B, T, C)."""
        assert rotation is not None
        # positions come in here: turning q and k by their place makes their product know the distance
        # normalised queries and keys keep the logits of attention in bounds, whatever the weights become
        q, k, v = (torch.unflatten(y, -1, (-1, self.head_dim)) for y in (self.q(x), self.k(x), self.v(x)))
        return apply_rope(self.q_norm(q), *rotation), apply_rope(self.k_norm(k), *rotation), v


def sdpa_attention(q: Tensor, k: Tensor, v: Tensor, p: float, layer: int, shared: ForwardContext) -> Tensor:
    """torch's own attention, with a cache on all that came before as well; gives (B, T, n_head, D)."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, heads, T, D)
    if shared.cache is not None:
        return shared.cache.attend(layer, q, k, v).transpose(1, 2)
    T, mask = q.size(2), None
    if shared.documents is not None:
        mask = causal_mask(T, T, q.device) & same_document(shared.documents)  # (B, 1, T, T)
    # softmax(q kᵀ / √D) v, where a token sees itself and what is before it; several query heads may share
    # one head of keys and values (enable_gqa)
    y = F.scaled_dot_product_attention(
        q, k, v, mask, p, is_causal=mask is None and T > 1, enable_gqa=q.size(1) != k.size(1)
    )
    return y.transpose(1, 2)


def same_document(documents: Tensor) -> Tensor:
    """True where two tokens of a row belong to one document: (B, T) → (B, 1, T, T)."""
    return (documents[:, :, None] == documents[:, None, :]).unsqueeze(1)


class MLP(nn.Module):
    """Position-wise feed-forward network."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.up = Linear(config.n_embd, config.n_inner)
        self.down = Linear(config.n_inner, config.n_embd)
        self.approximate = "tanh" if config.gelu == "tanh" else "none"

    def forward(self, x: Tensor) -> Tensor:
        # wider, bent, and back: each token by itself
        y: Tensor = self.down(F.gelu(self.up(x), approximate=self.approximate))
        return y  # (B, T, C)


def norm_of(config: GPTConfig) -> nn.Module:
    """What keeps the stream's size in bounds before it is read."""
    return nn.LayerNorm(config.n_embd) if config.kind.norm == "layer" else RMSNorm(config.n_embd)


def attention_of(config: GPTConfig, layer: int) -> Attention:
    """How tokens look at each other."""
    return Attention(config, layer) if config.kind.attention == "full" else ModernAttention(config, layer)


def mlp_of(config: GPTConfig, layer: int) -> nn.Module:
    """What each token goes through alone."""
    if config.has_experts(layer):
        return MixtureOfExperts(config)
    return MLP(config) if config.kind.mlp == "plain" else GatedMLP(config.n_embd, config.n_inner)


class Block(nn.Module):
    """Attention, then MLP, each on the normalised stream and added back to it."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.norm_1 = norm_of(config)
        self.attention = attention_of(config, layer)
        self.norm_2 = norm_of(config)
        self.mlp = mlp_of(config, layer)

    def forward(self, x: Tensor, shared: ForwardContext) -> Tensor:
        # pre-norm: the residual stream itself is never normalised, so gradients reach every layer
        x = x + self.attention(self.norm_1(x), shared)
        return x + dropout(self.mlp(self.norm_2(x)), self.dropout, self.training)  # (B, T, C)


class GPT(nn.Module):
    """Token ids (B, T) → hidden states (B, T, C) → logits (B, T, V)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.document_separator: int | None = None
        """The token that ends a document, where attention is to stay within one."""
        self.tokens = Embedding(config.vocab_size, config.n_embd)
        if config.kind.positions == "learned":
            self.positions = Embedding(config.block_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = norm_of(config)
        if not config.tied_head:
            self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False)
        self.token_rows: TokenRows | None = None
        self.lm_head_rows: TokenRows | None = None
        """What is trained of the two tables where the rest of them is frozen (``lora.py``)."""

    def forward(self, ids: Tensor, cache: CacheRows | None = None) -> Tensor:
        """Logits of the token after each of ``ids`` (B, T); with a cache, ids continue it."""
        return self.head(self.hidden_states(ids, cache))  # (B, T, V)

    def hidden_states(self, ids: Tensor, cache: CacheRows | None = None) -> Tensor:
        """The hidden states (B, T, C) after the last block, normalised: what the LM head reads.

        Raises:
            ValueError: more tokens than ``block_size``.
        """
        past, T = max(cache.lengths) if cache is not None else 0, ids.size(1)
        if past + T > self.config.block_size:
            raise ValueError(f"{past + T} tokens do not fit a window of {self.config.block_size}")
        if cache is None:
            return self.hidden_states_at(ids, torch.arange(T, device=ids.device), None, self.documents(ids))
        y = self.hidden_states_at(ids, cache.positions(T), cache)
        cache.grow(T)
        return y

    def hidden_states_at(
        self, ids: Tensor, position: Tensor, cache: Cache | None, documents: Tensor | None = None
    ) -> Tensor:
        """The same for tokens whose places are known, (T,) or (B, T), and within ``block_size``.

        ``documents`` (B, T) says which document each belongs to, where a row holds several.
        """
        config = self.config
        # a row of the table for each token
        x = self.tokens(ids).to(self.dtype)  # (B, T, C)
        if self.token_rows is not None:
            x = self.token_rows.read(ids, x)
        rotation = None
        if config.kind.positions == "learned":
            # gpt2 learns a vector for each place; the others turn queries and keys instead
            x = x + self.positions(position)
        else:
            rotation = rotation_at(position, config.head_dim, config.rope_theta, product_dtype(x))
        x = dropout(x, config.dropout, self.training)
        shared = ForwardContext(cache, rotation, documents)
        for block in self.blocks:
            x = block(x, shared)
        # normalised once more, since the LM head reads what all blocks added up
        y: Tensor = self.norm(x)
        return y  # (B, T, C)

    def documents(self, ids: Tensor) -> Tensor | None:
        """The number of the document that each of ``ids`` (B, T) belongs to, where that matters: (B, T)."""
        if self.document_separator is None:
            return None
        ends = ids == self.document_separator
        return ends.cumsum(1) - ends.long()  # what ends a document belongs to it

    @property
    def dtype(self) -> torch.dtype:
        """That of the residual stream; frozen matrices may be kept in fewer bits."""
        return self.norm.weight.dtype  # type: ignore[return-value]

    @property
    def head_weight(self) -> Tensor:
        """The matrix (V, C) of the output head."""
        # tied: the table that reads tokens also scores them (Press & Wolf 2017)
        return self.tokens.weight if self.config.tied_head else self.lm_head.weight

    @property
    def head_rows(self) -> TokenRows | None:
        """Rows that stand in place of the output head's own."""
        return self.token_rows if self.config.tied_head else self.lm_head_rows

    def head(self, x: Tensor) -> Tensor:
        """Logits (..., V) of a stream (..., C)."""
        logits, rows = linear(x, self.head_weight), self.head_rows
        return logits if rows is None else logits.index_copy(-1, rows.numbers, linear(x, rows.weight))

    def loss(self, ids: Tensor, targets: Tensor, positions: Tensor | None = None) -> Tensor:
        """Sum over all targets (B, T) of the negative log likelihood, in nats.

        With ``positions`` (B, T) a row holds several documents, each from its position 0 on.
        """
        if positions is None:
            x = self.hidden_states(ids)  # (B, T, C)
        else:
            x = self.hidden_states_at(ids, positions, None, (positions == 0).cumsum(1))  # (B, T, C)
        # the logits (B, T, V) are never whole in memory: loss and LM head are computed together, in parts
        rows = self.head_rows
        trained = () if rows is None else (rows.weight, rows.numbers)
        return linear_cross_entropy(x.flatten(0, 1), self.head_weight, targets.flatten(), *trained)

    def log_likelihoods(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Log likelihood of the targets of each row of ids (B, T), in nats: (B,)."""
        counted = targets != IGNORED  # (B, T)
        logits = self.head(self.hidden_states(ids)[counted]).float()  # (N, V)
        nats = F.cross_entropy(logits, targets[counted], reduction="none")  # (N,)
        return nats.new_zeros(len(ids)).index_add(0, counted.nonzero()[:, 0], -nats)

    def use_attention(self, kind: Literal["sdpa", "matmul"]) -> None:
        """Choose how attention is computed without a cache; the result is the same up to rounding."""
        for block in self.blocks:
            block.attention.kind = kind  # type: ignore[union-attr]

    @torch.no_grad()
    def initialise(self, seed: int, zero_projections: bool = False) -> None:
        """N(0, 0.02), the projections into the stream scaled by 1/√(2L), GPT-2's way, or zero."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.dim() >= 2:
                # 2L projections write into the stream: each smaller by √(2L), the sum is as large as one
                into_stream = name.endswith(("out.weight", "down.weight", "experts.down"))
                scale = 1 / math.sqrt(2 * self.config.n_layer) if into_stream else 1.0
                scale = 0.0 if into_stream and zero_projections else scale
                drawn = torch.empty(parameter.shape)  # on the CPU: the same weights on every device
                parameter.copy_(drawn.normal_(0.0, 0.02 * scale, generator=generator))
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.ones_(parameter)


def count_parameters(config: GPTConfig) -> int:
    """Parameters of a model, its shared head counted once; nothing is allocated."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in GPT(config).parameters())


def count_between(config: GPTConfig) -> int:
    """Parameters but those of the tables of tokens and positions and of a head of its own."""
    tables = config.vocab_size * (1 if config.tied_head else 2)
    tables += config.block_size if config.kind.positions == "learned" else 0
    return count_parameters(config) - tables * config.n_embd


def count_active(config: GPTConfig) -> int:
    """Parameters that a token goes through: of the routed experts only those it is sent to."""
    layers = sum(config.has_experts(layer) for layer in range(config.n_layer))
    idle = config.n_expert - config.n_expert_active
    return count_parameters(config) - layers * idle * 3 * config.n_embd * config.expert_inner

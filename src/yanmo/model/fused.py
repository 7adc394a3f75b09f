"""Four operations done another way than torch's, where that costs more than the arithmetic.

    causal_attention       blocks of queries, so that scores stay in the cache and what a causal mask
                           hides is never computed (after Dao et al. 2022, "FlashAttention")
    dropout                noise from whole random words, 16 bits for each value
    linear_cross_entropy   the output head and its loss, some rows at a time
    linear                 a row alone, as in writing, is a matrix-vector product

On a CPU a training step spends less than half of its time in matrix products; the rest is memory that
is written and read again, and random numbers. `docs/performance.md` has the figures. The results are
those of the plain formulas up to rounding; ``tests/model/test_fused.py`` holds them to it.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from yanmo.data.batches import IGNORED

QUERIES = 128
"""Queries that attend together."""
LOGITS = {"cpu": 1 << 22}
"""Logits that exist at a time; on other devices ``MANY_LOGITS``."""
MANY_LOGITS = 1 << 28
SMALLEST = torch.finfo(torch.float32).tiny
"""A token less likely than that counts as 87 nats."""


def causal_attention(qkv: Tensor, n_head: int, dropout: float = 0.0) -> Tensor:
    """Causal multi-head attention: queries, keys and values side by side (B, T, 3C) → (B, T, C).

    ``dropout`` is the probability that an attention weight is dropped; 0 outside training.
    """
    y: Tensor = _CausalAttention.apply(qkv, n_head, dropout)  # type: ignore[no-untyped-call]
    return y


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Each value is dropped with probability ``p``, to the nearest 1/65,536; the others grow by 1/(1-p)."""
    if not training or p == 0:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, p)
    kept = random_shorts(x.shape).ge_(_limit(p)).to(x.dtype)  # 1 or 0
    return x * kept.mul_(_growth(p))


def linear_cross_entropy(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Sum over targets (N,) of their negative log likelihood, in nats; logits are x (N, C) @ weight (V, C).T.

    Under autocast the products are in its dtype. The gradient is computed together with the loss, so no
    more than a few rows of logits ever exist. A target of ``IGNORED`` counts for nothing.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, weight = x.to(dtype), weight.to(dtype)
    with torch.autocast(device, enabled=False):
        if not (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)):
            return sum((_nats(*rows, weight) for rows in _parts(x, targets, weight)), x.new_zeros(()).float())
        loss: Tensor = _LinearCrossEntropy.apply(x, weight, targets)  # type: ignore[no-untyped-call]
        return loss


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., C) @ weight (N, C).T + bias (N): (..., N).

    oneDNN lays bfloat16 weights out anew for every call, which for one row costs more than reading them.
    """
    alone = x.numel() == x.size(-1) and x.dtype == weight.dtype == torch.bfloat16 and x.device.type == "cpu"
    if not alone or torch.is_grad_enabled():
        return F.linear(x, weight, bias)
    y = torch.mv(weight, x.flatten()) if bias is None else torch.addmv(bias, weight, x.flatten())
    return y.view(*x.shape[:-1], -1)


class _CausalAttention(torch.autograd.Function):
    """Softmax weights are kept for the backward pass; a negative one was dropped (its sign bit is free)."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, n_head: int, p: float) -> Tensor:
        B, T, C = qkv.size(0), qkv.size(1), qkv.size(2) // 3
        heads = qkv.view(B, T, 3, n_head, C // n_head).permute(2, 0, 3, 1, 4)  # (3, B, n_head, T, head_dim)
        q, k, v = heads.reshape(3, B * n_head, T, C // n_head).contiguous()  # (B * n_head, T, head_dim) each
        q = q * (1 / math.sqrt(C // n_head))
        y, kept = torch.empty_like(q), []
        with torch.autocast(qkv.device.type, enabled=False):
            for start, end in _blocks(T):
                weights = _causal_weights(q[:, start:end], k[:, :end])  # (B * n_head, end - start, end)
                if p:
                    weights = torch.copysign(weights, _signs(weights, p))
                y[:, start:end] = (weights.relu() if p else weights) @ v[:, :end]
                kept.append(weights)
        if p:
            y.mul_(_growth(p))
        ctx.save_for_backward(q, k, v, y, *kept)
        ctx.n_head, ctx.p = n_head, p
        return _join_heads(y, n_head)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        q, k, v, y, *kept = ctx.saved_tensors
        (rows, T, head_dim), p = q.shape, ctx.p
        B = rows // ctx.n_head
        dy = grad.view(B, T, ctx.n_head, head_dim).transpose(1, 2).reshape(rows, T, head_dim)
        shared = (dy * y).sum(-1, keepdim=True)  # (B * n_head, T, 1), what the softmax takes from each score
        if p:
            dy = dy * _growth(p)
        grads = torch.zeros(3, rows, T, head_dim, dtype=q.dtype, device=q.device)
        dq, dk, dv = grads
        for (start, end), weights in zip(_blocks(T), kept, strict=True):
            here = slice(start, end)
            used = weights.relu() if p else weights  # (B * n_head, end - start, end)
            dv[:, :end] += used.transpose(1, 2) @ dy[:, here]
            ds = dy[:, here] @ v[:, :end].transpose(1, 2)
            if p:
                ds.mul_(used).sub_(weights.abs().mul_(shared[:, here]))
            else:
                ds.sub_(shared[:, here]).mul_(weights)
            dq[:, here] = ds @ k[:, :end]
            dk[:, :end] += ds.transpose(1, 2) @ q[:, here]
        dq.mul_(1 / math.sqrt(head_dim))
        heads = grads.view(3, B, ctx.n_head, T, head_dim).permute(1, 3, 0, 2, 4)
        return heads.reshape(B, T, 3 * ctx.n_head * head_dim), None, None


class _LinearCrossEntropy(torch.autograd.Function):
    """Probabilities are float32, or those near 1 and their distance from it would be lost in 16 bits."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        nats = x.new_zeros((), dtype=torch.float32)
        dx, dw = torch.empty_like(x), None
        start = 0
        for rows, wanted in _parts(x, targets, weight):
            counted = (wanted != IGNORED).unsqueeze(1)  # (R, 1)
            wanted = torch.where(counted, wanted.unsqueeze(1), 0)
            p = F.linear(rows, weight).softmax(
                -1, dtype=torch.promote_types(x.dtype, torch.float32)
            )  # (R, V)
            right = p.gather(1, wanted)
            nats -= (right.clamp_min(SMALLEST).log() * counted).sum()
            dlogits = p.scatter_(1, wanted, right - 1).to(x.dtype)
            dx[start : start + len(rows)] = (dlogits @ weight) * counted
            part = dlogits.t() @ (rows * counted)  # (V, C)
            dw = part if dw is None else dw.to(p.dtype).add_(part)
            start += len(rows)
        ctx.save_for_backward(dx, dw)
        return nats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        dx, dw = ctx.saved_tensors
        return dx * grad, dw * grad, None


def random_shorts(shape: torch.Size) -> Tensor:
    """Uniform 16-bit integers from torch's own generator, four from each random word."""
    count = math.prod(shape)
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None)
    return words.view(torch.int16)[:count].view(shape)


def _limit(p: float) -> int:
    """Random shorts below it are dropped."""
    return round(p * 65536) - 32768


def _growth(p: float) -> float:
    return 65536 / (65536 - round(p * 65536))


def _signs(like: Tensor, p: float) -> Tensor:
    """Values of the dtype of ``like``, negative with probability ``p``."""
    if like.device.type != "cpu" or torch.compiler.is_compiling():
        return (torch.rand(like.shape, device=like.device) - p).to(like.dtype)
    negative = random_shorts(like.shape).lt_(_limit(p)).neg_()  # -1 has all bits set, the sign among them
    return negative.view(like.dtype) if like.element_size() == 2 else negative.to(like.dtype)


def _blocks(T: int) -> list[tuple[int, int]]:
    return [(start, min(start + QUERIES, T)) for start in range(0, T, QUERIES)]


def _causal_weights(q: Tensor, k: Tensor) -> Tensor:
    """How the last R queries (N, R, head_dim) of a text attend to its S keys (N, S, head_dim): (N, R, S)."""
    scores = q @ k.transpose(1, 2)  # (N, R, S)
    R = q.size(1)
    hidden = torch.full((R, R), -torch.inf, dtype=scores.dtype, device=scores.device).triu(1)
    scores[:, :, -R:] += hidden
    return scores.softmax(-1)


def _join_heads(y: Tensor, n_head: int) -> Tensor:
    """(B * n_head, T, head_dim) → (B, T, C)."""
    T, head_dim = y.shape[1:]
    return y.view(-1, n_head, T, head_dim).transpose(1, 2).reshape(-1, T, n_head * head_dim)


def _parts(x: Tensor, targets: Tensor, weight: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Rows and their targets, so many at a time as make few enough logits."""
    rows = max(LOGITS.get(x.device.type, MANY_LOGITS) // weight.size(0), 1)
    return list(zip(torch.split(x, rows), torch.split(targets, rows), strict=True))


def _nats(x: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(x, weight).float(), targets, ignore_index=IGNORED, reduction="sum")

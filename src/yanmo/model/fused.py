"""Six operations done another way than torch's, where that costs more than the arithmetic.

    causal_attention       blocks of queries, so that scores stay in the cache and what a causal mask
                           hides is never computed (after Dao et al. 2022, "FlashAttention")
    dropout                noise from whole random words, 16 bits for each value
    linear_cross_entropy   the output head and its loss, some rows at a time
    linear                 a row alone, as in writing, is a matrix-vector product; frozen weights in
                           fewer bits are cast only while they are used
    rms_norm, rotate       a few passes over memory, where the formula's own gradient takes many

On a CPU a training step spends less than half of its time in matrix products; the rest is memory that
is written and read again, and random numbers. `docs/performance.md` has the figures. The results are
those of the plain formulas up to rounding; ``tests/model/test_fused.py`` holds them to it.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.backends import mkldnn
from torch.nn import functional as F

from yanmo.model.config import IGNORED
from yanmo.model.packed import PackedWeight

QUERIES = 128
"""Queries that attend together."""
LOGITS = {"cpu": 1 << 23}
"""Logits that exist at a time; on other devices ``MANY_LOGITS``."""
MANY_LOGITS = 1 << 28
SMALLEST = torch.finfo(torch.float32).tiny
"""A token less likely than that counts as 87 nats."""


def causal_attention(
    q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, documents: Tensor | None = None
) -> Tensor:
    """Causal attention of queries (B, T, n_head, D) to keys and values (B, T, n_kv_head, D).

    Args:
        q: as many heads as keys have, or a multiple: then neighbouring heads share keys and values.
        k: keys.
        v: values.
        dropout: the probability that an attention weight is dropped; 0 outside training.
        documents: the number of the document each token belongs to (B, T), which attention does not leave.

    Returns:
        (B, T, n_head, D).
    """
    y: Tensor = _CausalAttention.apply(q, k, v, dropout, documents)  # type: ignore[no-untyped-call]
    return y


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Each value is dropped with probability ``p``, to the nearest 1/65,536; the others grow by 1/(1-p)."""
    if not training or p == 0:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, p)
    kept = random_shorts(x.shape).ge_(_limit(p)).to(x.dtype)  # 1 or 0
    return x * kept.mul_(_dropout_scale(p))


def linear_cross_entropy(
    x: Tensor, weight: Tensor, targets: Tensor, rows: Tensor | None = None, numbers: Tensor | None = None
) -> Tensor:
    """Sum over targets (N,) of their negative log likelihood, in nats; logits are x (N, C) @ weight (V, C).T.

    Under autocast the products are in its dtype. The gradient is computed together with the loss, so only
    some rows of logits exist at a time. A target of ``IGNORED`` counts for nothing. ``rows`` (R, C) stand in
    place of those of ``weight`` with these ``numbers`` (R,); it is frozen then, and has no gradient (V, C).
    """
    dtype = product_dtype(x)
    learns = weight.requires_grad
    x, weight, rows = x.to(dtype), weight.to(dtype), None if rows is None else rows.to(dtype)
    with torch.autocast(x.device.type, enabled=False):
        if not (torch.is_grad_enabled() and (x.requires_grad or learns or rows is not None)):
            counted = targets != IGNORED  # of windows that overlap, half
            parts = _parts(x[counted], targets[counted], weight)
            return sum((_nats(*part, weight, rows, numbers) for part in parts), x.new_zeros(()).float())
        loss: Tensor = _LinearCrossEntropy.apply(x, weight, targets, rows, numbers, learns)  # type: ignore[no-untyped-call]
        return loss


def product_dtype(x: Tensor) -> torch.dtype:
    """In which matrix products of x are computed here: that of autocast, where it is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., C) @ weight (N, C).T + bias (N): (..., N)."""
    if isinstance(weight, PackedWeight):
        y = weight.product(x)
        return y if bias is None else y.add_(bias)
    if not weight.requires_grad and weight.dtype != product_dtype(x):
        y = product(x, weight)
        return y if bias is None else y + bias
    alone = x.dtype == weight.dtype == torch.bfloat16 and x.device.type == "cpu" and x.numel() == x.size(-1)
    if not alone or torch.is_grad_enabled():
        return F.linear(x, weight, bias)
    y = _row_product(weight, x.flatten())
    return (y if bias is None else y.add_(bias)).view(*x.shape[:-1], -1)


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., M, C) @ weight (..., N, C).mT; what is frozen in another dtype is cast while it is used."""
    dtype = product_dtype(x)
    if weight.requires_grad or weight.dtype == dtype:
        return x @ weight.mT
    with torch.autocast(x.device.type, enabled=False):
        y: Tensor = _FrozenProduct.apply(x.to(dtype), weight)  # type: ignore[no-untyped-call]
        return y


def _row_product(weight: Tensor, x: Tensor) -> Tensor:
    """weight (N, C) @ x (C): (N,), by torch's own kernel, which only reads the weights.

    oneDNN lays bfloat16 weights out anew for every call, which for one row costs more than the product.
    """
    if not mkldnn.enabled:  # nobody wants it, or another thread is here
        return torch.mv(weight, x)
    mkldnn.enabled = False  # type: ignore[assignment]
    try:
        return torch.mv(weight, x)
    finally:
        mkldnn.enabled = True  # type: ignore[assignment]


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """The last dimension divided by its root mean square, times ``weight``, in the dtype of products."""
    dtype = product_dtype(x)
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.rms_norm(x, x.shape[-1:], weight.to(x.dtype), epsilon).to(dtype)
    if not torch.is_grad_enabled():  # of a single row, as in writing, apply costs nearly as much as the sums
        return _normalised(x, weight, epsilon, dtype)[0]
    y: Tensor = _RMSNorm.apply(x, weight, epsilon, dtype)  # type: ignore[no-untyped-call]
    return y


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn channel i and channel i + D/2 of x (..., D) by an angle: ``cos`` (..., D), ``sin`` (..., D).

    All of one dtype; in the first half of ``sin`` are the negative sines.
    """
    if not torch.is_grad_enabled():
        return _apply_rope(x, cos, sin)
    y: Tensor = _Rotate.apply(x, cos, sin)  # type: ignore[no-untyped-call]
    return y


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> Tensor:
        y, scale = _normalised(x, weight, epsilon, dtype)
        ctx.save_for_backward(x, weight, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        given, weight, scale = ctx.saved_tensors
        x, grad = given.to(scale.dtype), grad.to(scale.dtype)
        along = (x * grad).flatten(0, -2)  # (N, C)
        dweight = along.t() @ scale.flatten() if ctx.needs_input_grad[1] else None
        shared = (along @ weight.to(x.dtype)).view_as(scale).mul_(scale.square()).div_(-x.size(-1))
        dx = (grad * weight).addcmul_(x, shared).mul_(scale)
        return dx.to(given.dtype), dweight, None, None


def _normalised(x: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What the norm gives, and what it multiplied x by, (..., 1)."""
    x = x.to(_accumulation_dtype(x))  # one copy is less than what torch does to tensors of mixed dtypes
    squares: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
    scale = squares.div_(x.size(-1)).add_(epsilon).rsqrt_()
    return (x * scale).mul_(weight).to(dtype), scale


class _FrozenProduct(torch.autograd.Function):
    """Autograd would keep the cast copy of the weight until the backward pass: the whole model once more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return x @ weight.to(x.dtype).mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return grad @ weight.to(grad.dtype), None


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _apply_rope(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _apply_rope(grad, cos, -sin), None, None


def _apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return (x * cos).addcmul_(x.roll(x.size(-1) // 2, -1), sin)


def _accumulation_dtype(x: Tensor) -> torch.dtype:
    """In which sums are kept."""
    return torch.promote_types(x.dtype, torch.float32)


class _CausalAttention(torch.autograd.Function):
    """Softmax weights are kept for the backward pass; a negative one was dropped (its sign bit is free).

    N = B * n_kv_head rows; G = n_head / n_kv_head queries share a key, and R queries attend together.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, p: float, documents: Tensor | None) -> Tensor:
        (T, D), kv_heads = (q.size(1), q.size(3)), k.size(2)
        q = _to_rows(q, kv_heads) * (1 / math.sqrt(D))  # (N, G, T, D)
        k, v = _to_rows(k, kv_heads).squeeze(1), _to_rows(v, kv_heads).squeeze(1)  # (N, T, D)
        y, kept = torch.empty_like(q), []
        with torch.autocast(q.device.type, enabled=False):
            for start, end in _blocks(T):
                scores = q[:, :, start:end].flatten(1, 2) @ k[:, :end].transpose(1, 2)  # (N, G * R, end)
                weights = _causal_weights(scores, start, end, documents)
                if p:
                    weights = torch.copysign(weights, _signs(weights, p))
                part = (weights.relu() if p else weights) @ v[:, :end]  # (N, G * R, D)
                y[:, :, start:end] = torch.unflatten(part, 1, (-1, end - start))
                kept.append(weights)
        if p:
            y.mul_(_dropout_scale(p))
        ctx.save_for_backward(q, k, v, y, *kept)
        ctx.kv_heads, ctx.p = kv_heads, p
        return _from_rows(y, kv_heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, y, *kept = ctx.saved_tensors
        (T, D), p = q.shape[2:], ctx.p
        dy = _to_rows(grad, ctx.kv_heads)  # (N, G, T, D)
        shared = (dy * y).sum(-1, keepdim=True)  # (N, G, T, 1), what the softmax takes from each score
        if p:
            dy = dy * _dropout_scale(p)
        dq, dk, dv = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for (start, end), weights in zip(_blocks(T), kept, strict=True):
            here = slice(start, end)
            queries, dy_here = q[:, :, here].flatten(1, 2), dy[:, :, here].flatten(1, 2)  # (N, G * R, D)
            used = weights.relu() if p else weights  # (N, G * R, end)
            dv[:, :end] += used.transpose(1, 2) @ dy_here
            ds = dy_here @ v[:, :end].transpose(1, 2)  # (N, G * R, end)
            taken = shared[:, :, here].flatten(1, 2)  # (N, G * R, 1)
            if p:
                ds.mul_(used).sub_(weights.abs().mul_(taken))
            else:
                ds.sub_(taken).mul_(weights)
            dq[:, :, here] = torch.unflatten(ds @ k[:, :end], 1, (-1, end - start))
            dk[:, :end] += ds.transpose(1, 2) @ queries
        dq.mul_(1 / math.sqrt(D))
        dk, dv = dk.unsqueeze(1), dv.unsqueeze(1)
        return (*(_from_rows(x, ctx.kv_heads) for x in (dq, dk, dv)), None, None)


class _LinearCrossEntropy(torch.autograd.Function):
    """Probabilities are float32, or those near 1 and their distance from it would be lost in 16 bits."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        targets: Tensor,
        rows: Tensor | None,
        numbers: Tensor | None,
        learns: bool,
    ) -> Tensor:
        nats = x.new_zeros((), dtype=torch.float32)
        dx, dw, drows = torch.empty_like(x), None, None
        start = 0
        for part, wanted in _parts(x, targets, weight):
            counted = (wanted != IGNORED).unsqueeze(1)  # (R, 1)
            wanted = torch.where(counted, wanted.unsqueeze(1), 0)
            logits = _logits(part, weight, rows, numbers)  # (R, V)
            p = logits.softmax(-1, dtype=_accumulation_dtype(x))  # (R, V)
            right = p.gather(1, wanted)
            nats -= (right.clamp_min(SMALLEST).log() * counted).sum()
            dlogits = p.scatter_(1, wanted, right - 1).to(x.dtype)
            here = slice(start, start + len(part))
            if learns:
                dw = _added(dw, dlogits.t() @ (part * counted), p.dtype)  # (V, C)
            if rows is not None:
                of_rows = dlogits[:, numbers]
                dlogits[:, numbers] = 0
                drows = _added(drows, of_rows.t() @ (part * counted), p.dtype)
                dx[here] = (dlogits @ weight + of_rows @ rows) * counted
            else:
                dx[here] = (dlogits @ weight) * counted
            start = here.stop
        ctx.save_for_backward(dx, dw, drows)
        return nats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        dx, dw, drows = (None if found is None else found * grad for found in ctx.saved_tensors)
        return dx, dw, None, drows, None, None


def random_shorts(shape: torch.Size) -> Tensor:
    """Uniform 16-bit integers from torch's own generator, four from each random word."""
    count = math.prod(shape)
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None)
    return words.view(torch.int16)[:count].view(shape)


def _limit(p: float) -> int:
    """Random shorts below it are dropped."""
    return round(p * 65536) - 32768


def _dropout_scale(p: float) -> float:
    return 65536 / (65536 - round(p * 65536))


def _signs(like: Tensor, p: float) -> Tensor:
    """Values of the dtype of ``like``, negative with probability ``p``."""
    if like.device.type != "cpu" or torch.compiler.is_compiling():
        return (torch.rand(like.shape, device=like.device) - p).to(like.dtype)
    negative = random_shorts(like.shape).lt_(_limit(p)).neg_()  # -1 has all bits set, the sign among them
    return negative.view(like.dtype) if like.element_size() == 2 else negative.to(like.dtype)


def _blocks(T: int) -> list[tuple[int, int]]:
    return [(start, min(start + QUERIES, T)) for start in range(0, T, QUERIES)]


def _causal_weights(scores: Tensor, start: int, end: int, documents: Tensor | None) -> Tensor:
    """Softmax of the scores (N, G * R, end) of the queries from ``start`` on, less what they may not see."""
    R = end - start
    of_queries = torch.unflatten(scores, 1, (-1, R))  # (N, G, R, end)
    hidden = torch.full((R, R), -torch.inf, dtype=scores.dtype, device=scores.device).triu(1)
    of_queries[..., start:] += hidden
    if documents is not None:
        B = documents.size(0)
        others = documents[:, start:end, None] != documents[:, None, :end]  # (B, R, end)
        torch.unflatten(of_queries, 0, (B, -1)).masked_fill_(others[:, None, None], -torch.inf)
    return scores.softmax(-1)


def _to_rows(x: Tensor, kv_heads: int) -> Tensor:
    """(B, T, heads, D) → (B * kv_heads, G, T, D), contiguous."""
    return torch.unflatten(x, 2, (kv_heads, -1)).permute(0, 2, 3, 1, 4).flatten(0, 1).contiguous()


def _from_rows(x: Tensor, kv_heads: int) -> Tensor:
    """(B * kv_heads, G, T, D) → (B, T, heads, D)."""
    return torch.unflatten(x, 0, (-1, kv_heads)).permute(0, 3, 1, 2, 4).flatten(2, 3)


def _parts(x: Tensor, targets: Tensor, weight: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Rows and their targets in parts of one size but for a row, as few as make few enough logits each."""
    most = max(LOGITS.get(x.device.type, MANY_LOGITS) // weight.size(0), 1)
    count = max(math.ceil(len(x) / most), 1)
    return list(zip(x.tensor_split(count), targets.tensor_split(count), strict=True))


def _added(total: Tensor | None, part: Tensor, dtype: torch.dtype) -> Tensor:
    """A sum of parts in ``dtype``; the first part alone stays as it is."""
    return part if total is None else total.to(dtype).add_(part)


def _logits(x: Tensor, weight: Tensor, rows: Tensor | None, numbers: Tensor | None) -> Tensor:
    """Logits (R, V) of x (R, C), some of them by ``rows``."""
    logits = F.linear(x, weight)
    if rows is None or numbers is None:
        return logits
    return logits.index_copy_(1, numbers, F.linear(x, rows))


def _nats(x: Tensor, targets: Tensor, weight: Tensor, rows: Tensor | None, numbers: Tensor | None) -> Tensor:
    logits = _logits(x, weight, rows, numbers).float()
    return F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")

"""The hand-written backward passes against the plain formulas."""

import math

import pytest
import torch
from torch import Tensor
from torch.backends import mkldnn
from torch.nn import functional as F

from yanmo.model import fused
from yanmo.model.fused import (
    apply_rope,
    causal_attention,
    dropout,
    linear,
    linear_cross_entropy,
    rms_norm,
)


def plain_attention(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None = None, documents: Tensor | None = None
) -> Tensor:
    """The formula, with keys and values repeated for the queries that share them."""
    T, shared = q.size(1), q.size(2) // k.size(2)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, heads, T, D)
    k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
    hidden = torch.ones(T, T).triu(1).bool()
    if documents is not None:
        hidden = hidden | (documents[:, None, :, None] != documents[:, None, None, :])
    weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    if keep is not None:
        weights = weights * keep
    return (weights @ v).transpose(1, 2)  # (B, T, n_head, D)


def heads(T: int, count: int, kv_count: int, D: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Queries, keys and values."""
    return [torch.randn(2, T, n, D, dtype=dtype) for n in (count, kv_count, kv_count)]


def gradient_of(function: object, *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    y = function(*leaves)  # type: ignore[operator]
    torch.manual_seed(1)
    (y * torch.randn_like(y)).sum().backward()
    return y.detach(), [leaf.grad for leaf in leaves if leaf.grad is not None]


@pytest.mark.parametrize("T", [1, 5, 128, 129, 300])
@pytest.mark.parametrize(("count", "kv_count"), [(3, 3), (4, 2), (3, 1)])
def test_attention_and_its_gradient_are_those_of_the_formula(T: int, count: int, kv_count: int) -> None:
    qkv = heads(T, count, kv_count, 8, torch.float64)
    torch.testing.assert_close(gradient_of(causal_attention, *qkv), gradient_of(plain_attention, *qkv))


@pytest.mark.parametrize("T", [6, 200])
def test_attention_stays_within_a_document(T: int) -> None:
    qkv = heads(T, 4, 2, 8, torch.float64)
    documents = (torch.rand(2, T) < 0.2).cumsum(1)
    ours = gradient_of(lambda q, k, v: causal_attention(q, k, v, 0.0, documents), *qkv)
    torch.testing.assert_close(
        ours, gradient_of(lambda q, k, v: plain_attention(q, k, v, None, documents), *qkv)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_drops_weights_and_the_gradient_knows_which(dtype: torch.dtype) -> None:
    T, p = 150, 0.25
    qkv = heads(T, 2, 2, 8)
    torch.manual_seed(7)
    noise = [fused.random_shorts(torch.Size((4, e - s, e))) >= fused._limit(p) for s, e in fused._blocks(T)]
    keep = torch.zeros(4, T, T)
    for (start, end), block in zip(fused._blocks(T), noise, strict=True):
        keep[:, start:end, :end] = block * fused._dropout_scale(p)

    def ours(*qkv: Tensor) -> Tensor:
        torch.manual_seed(7)
        return causal_attention(*(x.to(dtype) for x in qkv), p).float()  # type: ignore[arg-type]

    found = gradient_of(ours, *qkv)
    expected = gradient_of(lambda q, k, v: plain_attention(q, k, v, keep.view(2, 2, T, T)), *qkv)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.05}
    torch.testing.assert_close(found, expected, **tolerance)


def test_attention_in_bfloat16_errs_no_more_than_the_plain_formula() -> None:
    qkv = [3 * x for x in heads(200, 2, 2, 16)]
    exact = gradient_of(plain_attention, *(x.double() for x in qkv))[1]

    def error(function: object) -> float:
        rounded = gradient_of(lambda *qkv: function(*(x.bfloat16() for x in qkv)).float(), *qkv)[1]  # type: ignore[operator]
        return sum(float((a - b).norm()) for a, b in zip(rounded, exact, strict=True))

    assert error(causal_attention) < 1.2 * error(plain_attention)


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_a_share_and_keeps_the_mean(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.ones(1000, 1001, dtype=dtype, requires_grad=True)
    y = dropout(x, p, training=True)
    assert abs(float((y == 0).float().mean()) - p) < 0.002
    assert abs(float(y.detach().float().mean()) - 1) < 0.005
    y.sum().backward()
    assert x.grad is not None and torch.equal(x.grad, y.detach())
    assert dropout(x, p, training=False) is x


def test_dropout_follows_the_seed_alone() -> None:
    x = torch.randn(7, 33)
    drawn = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        drawn.append(dropout(x, 0.3, training=True))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_random_shorts_are_uniform_and_independent() -> None:
    torch.manual_seed(0)
    drawn = fused.random_shorts(torch.Size((1 << 20,))).float()
    counts = torch.histc(drawn, 64, -32768, 32768)
    assert float(((counts - counts.mean()) ** 2 / counts.mean()).sum()) < 63 + 5 * math.sqrt(2 * 63)
    for distance in (1, 2, 3, 4):
        pairs = torch.stack([drawn[:-distance], drawn[distance:]])
        assert abs(float(torch.corrcoef(pairs)[0, 1])) < 0.005


@pytest.mark.parametrize("logits", [1 << 22, 40, 1])
def test_loss_and_gradients_of_the_head_are_those_of_the_formula(
    logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fused.LOGITS, "cpu", logits)
    x, weight = torch.randn(9, 8, dtype=torch.float64), torch.randn(20, 8, dtype=torch.float64)
    targets = torch.tensor([3, 0, -1, 19, 7, -1, 7, 2, 11])

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(x, weight), targets, ignore_index=-1, reduction="sum")

    ours = gradient_of(lambda x, w: linear_cross_entropy(x, w, targets), x, weight)
    theirs = gradient_of(plain, x, weight)
    torch.testing.assert_close(ours, theirs, check_dtype=False, rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        loss = linear_cross_entropy(x, weight, targets).double()  # summed in float32
        torch.testing.assert_close(loss, plain(x, weight), rtol=1e-6, atol=1e-6)


def test_no_targets_cost_nothing() -> None:
    x, weight = torch.randn(0, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    loss = linear_cross_entropy(x, weight, torch.empty(0, dtype=torch.long))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0.0
    assert weight.grad is not None and not weight.grad.any()


def test_an_impossible_target_costs_much_and_not_infinity() -> None:
    x, weight = torch.tensor([[200.0]], requires_grad=True), torch.tensor([[1.0], [-1.0]])
    loss = linear_cross_entropy(x, weight, torch.tensor([1]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert 87 < float(loss.detach()) < 88  # as its docstring says; without a gradient it is 400
    assert x.grad is not None and float(x.grad) == 2.0


def test_a_target_that_does_not_exist_is_an_error() -> None:
    x, weight = torch.randn(2, 4, requires_grad=True), torch.randn(5, 4)
    for wrong in (-100, 5):
        with pytest.raises((IndexError, RuntimeError)):
            linear_cross_entropy(x, weight, torch.tensor([1, wrong]))


@pytest.mark.parametrize("confidence", [0.0, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("logits", [1 << 22, 30 * 7])
def test_in_16_bits_the_head_errs_no_more_than_torchs_own(
    confidence: float, dtype: torch.dtype, logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the model is sure: at 0.7 a token costs 0.002 nats."""
    monkeypatch.setitem(fused.LOGITS, "cpu", logits)
    torch.manual_seed(0)
    targets, weight = torch.randint(30, (64,)), torch.randn(30, 32)
    x = torch.randn(64, 32) * 0.2 + confidence * weight[targets]

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(x, weight), targets, reduction="sum")

    exact = gradient_of(plain, x.double(), weight.double())
    with torch.autocast("cpu", dtype=dtype):
        theirs = gradient_of(plain, x, weight)
        ours = gradient_of(lambda x, w: linear_cross_entropy(x, w, targets), x, weight)
    assert all(gradient.dtype == torch.float32 for gradient in ours[1])

    def errors(found: tuple[Tensor, list[Tensor]]) -> list[float]:
        pairs = zip([found[0], *found[1]], [exact[0], *exact[1]], strict=True)
        return [float((a - b).norm() / b.norm()) for a, b in pairs]

    for our, their in zip(errors(ours), errors(theirs), strict=True):
        assert our < 1.3 * their + 1e-3
    assert not torch.equal(ours[1][0], exact[1][0].float())


def test_the_head_never_holds_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fused.LOGITS, "cpu", 4 * 50)
    seen, linear = [], F.linear

    def counting(x: Tensor, weight: Tensor) -> Tensor:
        seen.append(len(x))
        return linear(x, weight)

    monkeypatch.setattr(F, "linear", counting)
    x, weight = torch.randn(10, 4, requires_grad=True), torch.randn(50, 4)
    linear_cross_entropy(x, weight, torch.zeros(10, dtype=torch.long)).backward()
    with torch.no_grad():
        linear_cross_entropy(x, weight, torch.zeros(10, dtype=torch.long))
    assert seen == [4, 3, 3] * 2


@pytest.mark.parametrize("shape", [(24,), (1, 24), (1, 1, 24), (3, 24), (2, 1, 24)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_row_alone_is_multiplied_as_rows_together_are(shape: tuple[int, ...], with_bias: bool) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(shape, dtype=torch.bfloat16), torch.randn(40, 24, dtype=torch.bfloat16)
    bias = torch.randn(40, dtype=torch.bfloat16) if with_bias else None
    with torch.no_grad():
        found = linear(x, weight, bias)
    assert found.shape == (*shape[:-1], 40) and found.dtype == torch.bfloat16
    exact = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    torch.testing.assert_close(found.double(), exact, atol=0.05, rtol=0.02)


@pytest.mark.parametrize("enabled", [True, False])
def test_a_row_alone_does_not_go_to_onednn_which_is_then_as_it_was(
    enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mkldnn, "enabled", enabled)
    product, seen = torch.mv, []

    def watched(weight: Tensor, x: Tensor) -> Tensor:
        seen.append(mkldnn.enabled)
        return product(weight, x)

    monkeypatch.setattr(torch, "mv", watched)
    weight = torch.randn(40, 24, dtype=torch.bfloat16)
    with torch.no_grad():
        linear(torch.randn(1, 24, dtype=torch.bfloat16), weight)
        with pytest.raises(RuntimeError, match="size mismatch"):
            linear(torch.randn(1, 23, dtype=torch.bfloat16), weight)
    assert seen == [False, False] and mkldnn.enabled is enabled


def test_a_row_alone_still_has_gradients() -> None:
    weight = torch.randn(40, 24, dtype=torch.bfloat16, requires_grad=True)
    linear(torch.randn(1, 24, dtype=torch.bfloat16), weight).sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_norm_and_its_gradient_are_those_of_the_formula(dtype: torch.dtype) -> None:
    x, weight = torch.randn(3, 5, 2, 16, dtype=torch.float64), torch.randn(16, dtype=torch.float64)

    def formula(x: Tensor, weight: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight

    found = gradient_of(lambda x, w: rms_norm(x.to(dtype), w, 1e-6).double(), x, weight)
    tolerance = {"rtol": 0.05, "atol": 0.05} if dtype == torch.bfloat16 else {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(found, gradient_of(formula, x, weight), **tolerance)


def test_the_norm_of_nothing_is_nothing() -> None:
    assert torch.equal(rms_norm(torch.zeros(2, 4), torch.ones(4), 1e-6), torch.zeros(2, 4))


def test_a_rotation_turns_pairs_and_its_gradient_turns_back() -> None:
    x, angle = torch.randn(2, 7, 3, 8, dtype=torch.float64), torch.randn(7, 4, dtype=torch.float64)
    cos, sin = angle.cos().unsqueeze(1), angle.sin().unsqueeze(1)  # (T, 1, D / 2)

    def formula(x: Tensor) -> Tensor:
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)

    found = gradient_of(lambda x: apply_rope(x, torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)), x)
    torch.testing.assert_close(found, gradient_of(formula, x))
    torch.testing.assert_close(found[0].norm(dim=-1), x.norm(dim=-1))


def test_without_gradients_the_head_is_computed_for_targets_that_count_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, weight = torch.randn(64, 8), torch.randn(11, 8)
    targets = torch.randint(11, (64,))
    targets[torch.arange(64) % 4 != 0] = fused.IGNORED
    rows, real = list[int](), fused._nats

    def counting(part: Tensor, *rest: Tensor) -> Tensor:
        rows.append(len(part))
        return real(part, *rest)

    monkeypatch.setattr(fused, "_nats", counting)
    with torch.no_grad():
        found = fused.linear_cross_entropy(x, weight, targets)
        nothing = fused.linear_cross_entropy(x, weight, torch.full((64,), fused.IGNORED))
    assert sum(rows) == 16 and float(nothing) == 0
    expected = F.cross_entropy(x @ weight.T, targets, ignore_index=fused.IGNORED, reduction="sum")
    assert float(found) == pytest.approx(float(expected), rel=1e-5)

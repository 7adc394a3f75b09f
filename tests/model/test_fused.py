"""The hand-written backward passes against the plain formulas."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from yanmo.model import fused
from yanmo.model.fused import causal_attention, dropout, linear, linear_cross_entropy


def plain_attention(qkv: Tensor, n_head: int, keep: Tensor | None = None) -> Tensor:
    B, T, C = qkv.size(0), qkv.size(1), qkv.size(2) // 3
    q, k, v = (y.view(B, T, n_head, -1).transpose(1, 2) for y in qkv.split(C, dim=-1))
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))
    weights = scores.masked_fill(torch.ones(T, T).triu(1).bool(), -torch.inf).softmax(-1)
    if keep is not None:
        weights = weights * keep
    return (weights @ v).transpose(1, 2).reshape(B, T, C)


def gradient_of(function: object, *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    y = function(*leaves)  # type: ignore[operator]
    torch.manual_seed(1)
    (y * torch.randn_like(y)).sum().backward()
    return y.detach(), [leaf.grad for leaf in leaves if leaf.grad is not None]


@pytest.mark.parametrize("T", [1, 5, 128, 129, 300])
def test_attention_and_its_gradient_are_those_of_the_formula(T: int) -> None:
    qkv = torch.randn(2, T, 3 * 24, dtype=torch.float64)
    ours, theirs = (
        gradient_of(lambda x, f=f: f(x, 3), qkv)
        for f in (causal_attention, plain_attention)  # type: ignore[misc]
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_drops_weights_and_the_gradient_knows_which(dtype: torch.dtype) -> None:
    T, p = 150, 0.25
    qkv = torch.randn(2, T, 3 * 16)
    torch.manual_seed(7)
    noise = [fused.random_shorts(torch.Size((4, e - s, e))) >= fused._limit(p) for s, e in fused._blocks(T)]
    keep = torch.zeros(4, T, T)
    for (start, end), block in zip(fused._blocks(T), noise, strict=True):
        keep[:, start:end, :end] = block * fused._growth(p)

    def ours(x: Tensor) -> Tensor:
        torch.manual_seed(7)
        return causal_attention(x.to(dtype), 2, p).float()

    found = gradient_of(ours, qkv)
    expected = gradient_of(lambda x: plain_attention(x, 2, keep.view(2, 2, T, T)), qkv)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 0.05, "atol": 0.05}
    torch.testing.assert_close(found, expected, **tolerance)


def test_attention_in_bfloat16_errs_no_more_than_the_plain_formula() -> None:
    qkv = 3 * torch.randn(2, 200, 3 * 32)
    exact = gradient_of(lambda x: plain_attention(x, 2), qkv.double())[1][0]

    def error(function: object) -> float:
        rounded = gradient_of(lambda x: function(x.bfloat16(), 2).float(), qkv)[1][0]  # type: ignore[operator]
        return float((rounded - exact).norm())

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
        torch.testing.assert_close(linear_cross_entropy(x, weight, targets).double(), plain(x, weight))


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
    assert seen == [4, 4, 2] * 2


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


def test_a_row_alone_still_has_gradients() -> None:
    weight = torch.randn(40, 24, dtype=torch.bfloat16, requires_grad=True)
    linear(torch.randn(1, 24, dtype=torch.bfloat16), weight).sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None

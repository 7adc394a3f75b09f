"""Experts: who computes what, and that none is left idle."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from yanmo.model.config import GPTConfig
from yanmo.model.gpt import GPT
from yanmo.model.moe import (
    BIAS_STEP,
    Experts,
    MixtureOfExperts,
    reset_expert_load,
    routers_of,
    update_router_bias,
)

CONFIG = GPTConfig(
    50, 3, 2, 16, 12, family="moe", n_expert=6, n_expert_active=2, n_expert_shared=2, expert_inner=8,
    expert_scaling=1.5, n_dense_layer=1,
)  # fmt: skip


def layer(config: GPTConfig = CONFIG) -> MixtureOfExperts:
    torch.manual_seed(0)
    found = MixtureOfExperts(config)
    for parameter in found.parameters():
        torch.nn.init.normal_(parameter)
    return found


def token_by_token(mlp: MixtureOfExperts, x: Tensor) -> Tensor:
    """The formula of the papers, for each token alone."""
    router, experts, rows = mlp.router, mlp.experts, []
    for token in x.flatten(0, 1):
        scores = (router.weight @ token).sigmoid()
        chosen = (scores + router.bias).sort(descending=True).indices[: router.active].tolist()
        y = mlp.shared(token)
        for e in chosen:
            weight = scores[e] / scores[chosen].sum() * router.scaling
            inner = F.silu(experts.gate[e] @ token) * (experts.up[e] @ token)
            y = y + weight * (experts.down[e] @ inner)
        rows.append(y)
    return torch.stack(rows).view_as(x)


@pytest.mark.parametrize("T", [1, 2, 12])
def test_a_token_goes_through_its_best_experts_and_the_shared_ones(T: int) -> None:
    mlp, x = layer(), torch.randn(2, T, 16)
    mlp.router.bias.copy_(torch.randn(6))
    torch.testing.assert_close(mlp(x), token_by_token(mlp, x), atol=1e-4, rtol=1e-4)


def test_gradients_reach_router_and_experts_and_not_the_bias() -> None:
    mlp, x = layer(), torch.randn(3, 12, 16)
    found = []
    for function in (mlp, lambda y: token_by_token(mlp, y)):
        mlp.zero_grad()
        function(x).square().sum().backward()
        found.append({name: p.grad.clone() for name, p in mlp.named_parameters() if p.grad is not None})
    assert "router.weight" in found[0]
    assert "router.bias" not in found[0]
    assert set(found[0]) == set(found[1]) == {name for name, _ in mlp.named_parameters()}
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("load", [[0, 3, 40, 0], [43, 0, 0, 0], [1, 0, 1, 1], [0, 2, 0, 0]])
def test_experts_without_tokens_are_no_trouble(load: list[int]) -> None:
    torch.manual_seed(0)
    experts, x = Experts(4, 16, 8), torch.randn(sum(load), 16)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter)
    expected = torch.cat([
        (F.silu(part @ g.t()) * (part @ u.t())) @ d.t()
        for part, g, u, d in zip(x.split(load), experts.gate, experts.up, experts.down, strict=True)
    ])  # fmt: skip
    torch.testing.assert_close(experts(x, torch.tensor(load)), expected, atol=1e-4, rtol=1e-4)
    chosen = torch.arange(4).repeat_interleave(torch.tensor(load))[:, None]  # one expert for each token
    one_by_one = experts.token_by_token(x, chosen).flatten(0, 1)
    torch.testing.assert_close(one_by_one, expected, atol=1e-4, rtol=1e-4)


def test_the_grouped_product_gives_the_same_and_the_same_gradients() -> None:
    """A GPU's way; torch can compute it on a CPU as well."""
    torch.manual_seed(0)
    experts, load = Experts(4, 16, 8), torch.tensor([5, 0, 20, 7])
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, wanted = torch.randn(32, 16), torch.randn(32, 16)
    found = []
    for way in (experts.padded, experts.grouped):
        experts.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = way(x.bfloat16(), load).float()
        (y * wanted).sum().backward()
        found.append([y.detach(), *(p.grad for p in experts.parameters())])
        assert not any(p.grad[1].any() for p in experts.parameters() if p.grad is not None)
    torch.testing.assert_close(*found, atol=0.02, rtol=0.02)


def test_the_busy_become_less_likely_and_the_idle_more() -> None:
    model = GPT(CONFIG)
    model.initialise(0)
    router = routers_of(model)[0]
    assert len(routers_of(model)) == 2
    for tensor, load in zip(routers_of(model), ([6, 0, 3, 3, 3, 3], [3.0] * 6), strict=True):
        tensor.load.copy_(torch.tensor(load))
    loads = update_router_bias(model, lambda loads: loads)
    assert loads is not None
    assert loads.tolist() == [[6, 0, 3, 3, 3, 3], [3] * 6]
    assert torch.equal(router.bias, BIAS_STEP * torch.tensor([-1.0, 1, 0, 0, 0, 0]))
    assert torch.equal(routers_of(model)[1].bias, torch.zeros(6))


def test_loads_are_counted_in_training_only_and_forgotten_before_a_step() -> None:
    model, ids = GPT(CONFIG), torch.randint(50, (2, 12))
    model.initialise(0)
    for training, expected in ((False, 0), (True, 48), (True, 96)):
        model.train(training)(ids)
        assert [float(router.load.sum()) for router in routers_of(model)] == [expected] * 2
    reset_expert_load(model)
    assert float(routers_of(model)[0].load.sum()) == 0


def test_a_model_without_experts_has_nothing_to_balance() -> None:
    assert (
        update_router_bias(GPT(replace(CONFIG, family="modern", n_dense_layer=3)), lambda loads: loads)
        is None
    )


def test_the_count_of_tokens_is_not_part_of_the_model() -> None:
    assert not any("load" in name for name in GPT(CONFIG).state_dict())
    assert "blocks.1.mlp.router.bias" in GPT(CONFIG).state_dict()

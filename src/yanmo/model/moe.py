"""Experts: each token goes through a few of many small MLPs, and through one that all share.

DeepSeek-AI 2024, "DeepSeekMoE" and "DeepSeek-V3 Technical Report". A router scores every expert for a token;
the best few are taken and weighted by their scores. So that no expert is forgotten, a bias is added to the
scores when experts are chosen, not when they are weighted; after each step it falls a little for experts that
had more than their share of tokens, and rises for the others. No gradient and no further loss is needed (Wang
et al. 2024, "Auxiliary-Loss-Free Load Balancing Strategy for Mixture-of-Experts"). Theirs moves by the sign
alone, 0.001 a step, over many thousands of steps; ours by how much an expert lacks, so that a run of some
hundred steps is balanced too, and a long one comes to rest.

N tokens, C channels, E routed experts, K of them for a token, I the inner width of one.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from yanmo.model.config import GPTConfig, rounded
from yanmo.model.fused import linear, product, product_dtype
from yanmo.model.layers import GatedMLP, gated

BIAS_STEP = 0.02
"""How far a bias moves at most after a step; scores lie between 0 and 1, at first some 0.1 apart."""


class Router(nn.Module):
    """Which experts a token goes to, and with what weights."""

    bias: Tensor
    load: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.active, self.scaling = config.n_expert_active, config.expert_scaling
        self.weight = nn.Parameter(torch.empty(config.n_expert, config.n_embd))
        self.register_buffer("bias", torch.zeros(config.n_expert))
        # tokens each expert was given since the last update; not part of the model
        self.register_buffer("load", torch.zeros(config.n_expert, device="cpu"), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weights and numbers of the experts chosen for x (N, C), (N, K) each, and their loads (E,)."""
        with torch.autocast(x.device.type, enabled=False):
            scores = F.linear(x.float(), self.weight.float()).sigmoid()  # (N, E), float32
        chosen = (scores.detach() + self.bias).topk(self.active, dim=-1, sorted=False).indices  # (N, K)
        numbers = torch.arange(len(self.weight), device=x.device)
        load = (chosen.flatten()[:, None] == numbers).sum(0)  # (E,)
        if self.training:
            self.load += load
        weights = scores.gather(1, chosen)  # (N, K)
        return weights / (weights.sum(-1, keepdim=True) + 1e-20) * self.scaling, chosen, load


class Experts(nn.Module):
    """E gated MLPs, whose matrices lie behind each other."""

    def __init__(self, count: int, width: int, inner: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.empty(count, inner, width))
        self.up = nn.Parameter(torch.empty(count, inner, width))
        self.down = nn.Parameter(torch.empty(count, width, inner))

    def forward(self, x: Tensor, load: Tensor) -> Tensor:
        """Of x (M, C) the first ``load[0]`` tokens go to the first expert, and so on; gives (M, C)."""
        if self.has_grouped_product(x):
            return self.grouped(x.bfloat16(), load)
        return self.padded(x, load)

    def has_grouped_product(self, x: Tensor) -> bool:
        """Whether torch's is there and right: bfloat16, rows of 16 bytes, Ampere to Hopper.

        On newer GPUs wrong gradients of experts without tokens have been reported.
        """
        if x.device.type != "cuda" or product_dtype(x) != torch.bfloat16:
            return False
        aligned = all(width % 8 == 0 for width in self.gate.shape[1:])
        return aligned and torch.cuda.get_device_capability(x.device)[0] in (8, 9)

    def grouped(self, x: Tensor, load: Tensor) -> Tensor:
        """All experts in one grouped matrix product, which GPUs have in bfloat16."""
        ends = load.cumsum(0).to(torch.int32)  # (E,)

        def grouped_product(y: Tensor, matrices: Tensor) -> Tensor:
            return F.grouped_mm(y, matrices.bfloat16().mT, offs=ends)

        return gated(x, grouped_product, self.gate, self.up, self.down)

    def token_by_token(self, x: Tensor, chosen: Tensor) -> Tensor:
        """Each of x (N, C) through its experts (N, K), by itself: (N, K, C).

        In writing a row's numbers must not depend on what rows beside it choose, and few experts are busy.
        """
        return torch.stack([
            torch.cat([gated(x[n : n + 1], linear, self.gate[e], self.up[e], self.down[e]) for e in experts])
            for n, experts in enumerate(chosen.tolist())
        ])  # fmt: skip

    def padded(self, x: Tensor, load: Tensor) -> Tensor:
        """All experts as one batch, each with as many places as the busiest needs.

        A CPU's matrix library prepares itself for every new shape; so there are few of them.
        """
        places = rounded(int(load.max()))
        numbers = torch.arange(len(load), device=x.device)  # (E,)
        shift = numbers * places - (load.cumsum(0) - load)  # (E,) from where a token stands to its place
        token = torch.arange(len(x), device=x.device)  # (M,)
        place = token + shift.repeat_interleave(load, output_size=len(x))  # (M,)
        spread = x.new_zeros(len(load) * places, x.size(1)).index_copy(0, place, x)
        spread = spread.view(len(load), places, -1)  # (E, places, C)
        y = gated(spread, product, self.gate, self.up, self.down)
        return y.flatten(0, 1).index_select(0, place)

    def all_for_each(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """For exported graphs, which have no branches: all experts for each of x (N, C), most of weight 0."""
        of_each = weights.new_zeros(x.size(0), len(self.gate)).scatter(1, chosen, weights)  # (N, E)
        y = gated(x, product, self.gate, self.up, self.down)  # (E, N, C)
        return (y * of_each.t().unsqueeze(-1)).sum(0)  # (N, C)


class MixtureOfExperts(nn.Module):
    """The MLP of a ``moe`` layer."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.router = Router(config)
        self.experts = Experts(config.n_expert, config.n_embd, config.expert_inner)
        self.shared = GatedMLP(config.n_embd, config.n_expert_shared * config.expert_inner)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)  # (N, C)
        weights, chosen, load = self.router(tokens)
        if torch.compiler.is_exporting():
            whole: Tensor = self.experts.all_for_each(tokens, weights, chosen).view_as(x) + self.shared(x)
            return whole
        if x.size(1) == 1 and not torch.is_grad_enabled():  # decoding
            y: Tensor = self.experts.token_by_token(tokens, chosen)  # (N, K, C)
        else:
            order = chosen.flatten().argsort(stable=True)  # (N * K,) by expert
            y = self.experts(tokens.index_select(0, order // chosen.size(1)), load)  # (N * K, C)
            y = y.index_select(0, order.argsort()).view(*chosen.shape, -1)  # (N, K, C)
        shared: Tensor = self.shared(x)
        y = (y * weights.unsqueeze(-1)).sum(1)  # (N, C)
        return shared + y.to(shared.dtype).view_as(x)  # (B, T, C)


def routers_of(model: nn.Module) -> list[Router]:
    """The routers of a model, layer by layer."""
    return [module for module in model.modules() if isinstance(module, Router)]


def trained_routers_of(model: nn.Module) -> list[Router]:
    """Those that are not frozen."""
    return [router for router in routers_of(model) if router.weight.requires_grad]


@torch.no_grad()
def reset_expert_load(model: nn.Module) -> None:
    """Count the experts' tokens from nothing."""
    for router in routers_of(model):
        router.load.zero_()


@torch.no_grad()
def update_router_bias(
    model: nn.Module, sum_over_ranks: Callable[[Tensor], Tensor], step: float = BIAS_STEP
) -> Tensor | None:
    """Make experts with too many tokens since :func:`reset_expert_load` less likely, and the others more.

    Gives the tokens of every expert (layers, E); None for a model without experts, or with frozen ones.
    """
    routers = trained_routers_of(model)
    if not routers:
        return None
    loads = sum_over_ranks(torch.stack([router.load for router in routers]))  # (layers, E)
    for router, load in zip(routers, loads, strict=True):
        lacking = (load.mean() - load) / load.mean()  # (E,) 1: it had none
        router.bias += step * lacking.clamp(-1, 1)
    return loads

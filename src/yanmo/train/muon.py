"""Muon: momentum whose matrices are made orthogonal before they are applied (Jordan et al. 2024).

torch has one (``torch.optim.Muon``); this one takes matrices of the same shape together, which on small
models halves its cost, and takes a matrix that is several matrices below each other (queries, keys and
values) as those. Both give the same update otherwise (``tests/train/test_muon.py``).
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.775, 2.0315)
"""Of the quintic whose repetition drives all singular values towards 1, roughly and fast."""
ITERATIONS = 5
RMS = 0.2
"""An update's root mean square in learning rates, that of AdamW's (Liu et al. 2025)."""


class Muon(torch.optim.Optimizer):
    """For matrices; a group's ``parts`` says how many lie below each other in a parameter of two dimensions.

    In one of three dimensions matrices lie behind each other.

    Args:
        params: groups.
        lr: of AdamW's scale.
        weight_decay: decoupled, as AdamW's.
        momentum: of Nesterov's kind.
        dtype: in which updates are made orthogonal; bfloat16 is enough, and slow where a CPU lacks it.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "parts": 1})
        self.momentum, self.dtype = momentum, dtype

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        alike: dict[tuple[Any, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alone = id(parameter) if parameter.dim() > 2 else None  # many matrices already
                    key = (group["parts"], parameter.shape, group["lr"], group["weight_decay"], alone)
                    alike[key].append((parameter, self._with_momentum(parameter)))
        for (parts, shape, rate, decay, _), pairs in alike.items():
            rows, columns = shape[-2] // parts, shape[-1]
            stacked = torch.stack([update for _, update in pairs]).view(-1, rows, columns)
            updates = orthogonalise(stacked.to(self.dtype)).view(-1, *shape)
            size = RMS * math.sqrt(max(rows, columns))
            for (parameter, _), update in zip(pairs, updates, strict=True):
                parameter.mul_(1 - rate * decay)
                parameter.add_(update, alpha=-rate * size)

    def _with_momentum(self, parameter: Tensor) -> Tensor:
        """Nesterov's momentum of the gradient."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        buffer: Tensor = state["momentum_buffer"].lerp_(gradient, 1 - self.momentum)
        return gradient.lerp(buffer, self.momentum)


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest matrices with orthogonal rows or columns, roughly: (N, R, C) → (N, R, C).

    Newton-Schulz iteration: singular values come to lie between about 0.7 and 1.2.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.size(1) > matrices.size(2)
    x = matrices.mT if tall else matrices  # (N, R, C), R <= C
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT  # (N, R, R)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x

"""Layers that the families share."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from yanmo.model.families import NORM_EPSILON
from yanmo.model.fused import linear, rms_norm


class Embedding(nn.Embedding):
    """torch's, zero until ``GPT.initialise`` draws it or a file is read: torch's own draw takes seconds."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)


class Linear(nn.Linear):
    """torch's, by ``fused.linear``; zero until drawn or read."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class TokenRows(nn.Module):
    """Rows of a frozen table (V, C) of tokens that are trained: those of the tokens ``numbers`` (R,)."""

    numbers: Tensor

    def __init__(self, numbers: Tensor, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(len(numbers), width, device=numbers.device))
        self.register_buffer("numbers", numbers, persistent=False)

    def read(self, ids: Tensor, x: Tensor) -> Tensor:
        """x (..., C), what the table has for ids (...), with these rows in place of its own."""
        found = ids.unsqueeze(-1) == self.numbers  # (..., R)
        rows = F.embedding(found.int().argmax(-1), self.weight)  # (..., C), of other ids the first
        return torch.where(found.any(-1, keepdim=True), rows, x)


class RMSNorm(nn.Module):
    """Divide the last dimension by its root mean square (Zhang & Sennrich 2019); keeps the shape."""

    EPSILON = NORM_EPSILON

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.EPSILON)


class GatedMLP(nn.Module):
    """A feed-forward network whose inner values are let through by a gate (SwiGLU, Shazeer 2020)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate = Linear(width, inner, bias=False)
        self.up = Linear(width, inner, bias=False)
        self.down = Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return y


def gated(
    x: Tensor, product: Callable[[Tensor, Tensor], Tensor], gate: Tensor, up: Tensor, down: Tensor
) -> Tensor:
    """The gated MLP of three matrices, which ``product`` multiplies with."""
    return product(F.silu(product(x, gate)) * product(x, up), down)

"""Muon: momentum whose matrices are made orthogonal before they are applied (Jordan et al. 2024).

torch has one (``torch.optim.Muon``). This one differs in three ways. It stacks matrices of the same shape,
which halves its cost on small models. It splits a fused matrix (queries, keys and values) into its parts. It
evens out the update of rows or columns, so that every neuron learns (Li et al. 2025, "NorMuon"). Without the
last both give the same update (``tests/train/test_muon.py``).
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.775, 2.0315)
"""a, b, c of the quintic p(s) = a s + b s³ + c s⁵ that the Newton-Schulz iteration repeats."""
ITERATIONS = 5
RMS = 0.2
"""Root mean square of an update, as a multiple of the learning rate; AdamW's is about the same."""
MEMORY = 0.95
"""Decay of the running mean of each neuron's squared update, like Adam's beta2."""
TINY = 1e-20
"""Keeps the division finite where a neuron or a matrix has no update at all."""


class Muon(torch.optim.Optimizer):
    """For matrices: parameters of two dimensions, or of three, where the first one counts matrices (experts).

    Args:
        params: groups; the ``parts`` of a group says how many matrices are fused, one below the other, in
            each of its parameters.
        lr: on the same scale as AdamW's.
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
        alike: dict[tuple[Any, ...], list[Tensor]] = defaultdict(list)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alone = id(parameter) if parameter.dim() > 2 else None  # many matrices already
                    key = (group["parts"], parameter.shape, group["lr"], group["weight_decay"], alone)
                    alike[key].append(parameter)
        for (parts, shape, rate, decay, _), parameters in alike.items():
            rows, columns = shape[-2] // parts, shape[-1]
            # matrices of one shape go through the iteration together: fewer, larger products
            momenta = torch.stack([self._with_momentum(parameter) for parameter in parameters])
            updates = orthogonalise(momenta.view(-1, rows, columns).to(self.dtype))
            # from here on in float32: the weights are, and bfloat16 would round the small change away
            updates = updates.float().contiguous()  # (N, R, C); tall ones come transposed
            # an orthogonal R x C matrix has entries of about 1/√max(R, C); now their RMS is 0.2, as AdamW's
            scales = self._scales(updates, parameters) * RMS * math.sqrt(max(rows, columns))
            updates, scales = updates.view(-1, *shape), scales.view(-1, *neurons(shape))
            for parameter, update, scale in zip(parameters, updates, scales, strict=True):
                # decoupled weight decay (Loshchilov & Hutter 2019): W ← (1 - ηλ) W - η update
                parameter.mul_(1 - rate * decay)
                parameter.addcmul_(update, scale, value=-rate)

    def _with_momentum(self, parameter: Tensor) -> Tensor:
        """Nesterov's momentum of the gradient."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        # m ← β m + (1 - β) g, and Nesterov looks one step ahead: (1 - β) g + β m
        buffer: Tensor = state["momentum_buffer"].lerp_(gradient, 1 - self.momentum)
        return gradient.lerp(buffer, self.momentum)

    def _scales(self, updates: Tensor, parameters: list[Tensor]) -> Tensor:
        """The factor that divides each neuron's part of ``updates`` (N, R, C) by its usual length.

        (N, R, 1), or (N, 1, C) where there are more columns than rows.
        """
        lengths = torch.linalg.vector_norm(updates, dim=across(updates.shape), keepdim=True)
        # NorMuon: v ← β v + (1 - β) |u|² for each neuron's update u, which is then divided by √v. Muon alone
        # gives a few neurons most of the update; there is no bias correction, as the norm is restored below
        scales: Tensor = self._usual_squares(parameters, lengths.square()).clamp_min(TINY).rsqrt()
        norm = lengths.norm(dim=(1, 2), keepdim=True)  # (N, 1, 1)
        new_norm = (lengths * scales).norm(dim=(1, 2), keepdim=True)
        # each matrix keeps its Frobenius norm: only the shares of its neurons change, not the step's size
        scales *= norm / new_norm.clamp_min(TINY)
        return scales

    def _usual_squares(self, parameters: list[Tensor], squares: Tensor) -> Tensor:
        """The running mean of ``squares``, a part of it kept with each parameter."""
        means, shape = [], neurons(parameters[0].shape)
        for parameter, new in zip(parameters, squares.chunk(len(parameters)), strict=True):
            state = self.state[parameter]
            if "squares" not in state:
                state["squares"] = new.new_zeros(shape)
            means.append(state["squares"].lerp_(new.view(shape), 1 - MEMORY))
        return torch.stack(means).view_as(squares)


def across(shape: torch.Size) -> int:
    """The dimension a neuron's weights lie along in matrices (…, R, C): the shorter side, -1 or -2.

    Along the longer one all are equally long when a matrix is orthogonal.
    """
    return -1 if shape[-2] >= shape[-1] else -2


def neurons(shape: torch.Size) -> torch.Size:
    """(…, R, 1) or (…, 1, C): a number for each neuron of matrices (…, R, C)."""
    sizes = list(shape)
    sizes[across(shape)] = 1
    return torch.Size(sizes)


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest matrices with orthogonal rows or columns, roughly: (N, R, C) → (N, R, C).

    Newton-Schulz iteration: singular values come to lie between about 0.7 and 1.2.
    """
    a, b, c = COEFFICIENTS
    # the iteration multiplies R x R matrices, so let R be the shorter side; p(Xᵀ) = p(X)ᵀ
    tall = matrices.size(1) > matrices.size(2)
    x = matrices.mT if tall else matrices  # (N, R, C), R <= C
    # the iteration wants singular values of at most 1: no one is larger than the Frobenius norm
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    # p acts on each singular value: its slope 3.44 at 0 lifts small ones up to 485-fold in five rounds, and
    # its coefficients trade convergence to exactly 1 for that speed. The result is close to U Vᵀ of the SVD
    for _ in range(ITERATIONS):
        gram = x @ x.mT  # (N, R, R)
        # x ← a x + (b G + c G²) x with G = x xᵀ: a quintic in each singular value, their vectors stay
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x

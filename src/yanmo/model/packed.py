"""Matrices laid out once for writing on a CPU: torch lays one out anew for every product with a few rows.

In: a model in float32 that only writes from now on. Out: the same model, whose ``fused.linear`` multiplies
with what oneDNN laid out; up to rounding the numbers are the same.
"""

import platform

import torch
from torch import Tensor, nn


class PackedWeight(nn.Parameter):
    """A matrix (N, C) laid out for products. What it holds as a tensor may say no more than its shape."""

    packed: Tensor

    def product(self, x: Tensor) -> Tensor:
        """x (..., C) @ self.T: (..., N)."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, None, "none", [], "")
        return y


def can_pack(device: torch.device) -> bool:
    """Whether torch has oneDNN's products for this processor."""
    has_library: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return device.type == "cpu" and has_library and platform.machine().lower() in ("x86_64", "amd64")


@torch.no_grad()
def pack(model: nn.Module) -> None:
    """Lay the matrices of a model out; those of experts stay as they are."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            of_shape = module.weight.new_zeros(1).expand(module.weight.shape)
            module.weight = _packed(module.weight.detach(), of_shape)
        elif isinstance(module, nn.Embedding) and getattr(model, "head_weight", None) is module.weight:
            # tokens are looked up in it, too
            module.weight = _packed(module.weight.detach(), module.weight.detach())


def _packed(weight: Tensor, shown: Tensor) -> PackedWeight:
    """``weight`` laid out; as a tensor it is ``shown``."""
    found = PackedWeight(shown, requires_grad=False)
    found.packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
    return found

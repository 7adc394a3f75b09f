"""Matrices made ready once for writing on a CPU: a weight that knows its own product.

    LaidOutWeight   float32, as oneDNN wants it: torch lays one out anew for every product with a few rows
    Int8Weight      whole numbers of 8 bits, a scale for each output; the rest of the model is bfloat16

In: a model that only writes from now on. Out: the same, whose ``fused.linear`` asks its weights. Laid out,
the numbers are the same up to rounding; in 8 bits the text is not.
"""

import platform

import torch
from torch import Tensor, nn

from yanmo.core.errors import ConfigError, DeviceError

X86, ARM = ("x86_64", "amd64"), ("arm64", "aarch64")
INT8_LIMIT = 127
"""The largest whole number: as large on both sides of zero."""
INT8_WIDTH = 32
"""torch's 8-bit product reads so many inputs at a time, and past the end of a row that is no multiple."""


class PackedWeight(nn.Parameter):
    """A matrix (N, C) ready for products. What it holds as a tensor may say no more than its shape."""

    def product(self, x: Tensor) -> Tensor:
        """x (..., C) @ self.T: (..., N)."""
        raise NotImplementedError

    @classmethod
    def of(cls, weight: Tensor, shown: Tensor) -> "PackedWeight":
        """``weight`` made ready; as a tensor it is ``shown``."""
        found = cls(shown, requires_grad=False)
        found.keep(weight.float().contiguous())
        return found

    def keep(self, weight: Tensor) -> None:
        """Make a matrix (N, C) in float32 ready."""
        raise NotImplementedError


class LaidOutWeight(PackedWeight):
    """By oneDNN."""

    laid_out: Tensor

    def keep(self, weight: Tensor) -> None:
        self.laid_out = torch.ops.mkldnn._reorder_linear_weight(weight, None)

    def product(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.laid_out, None, "none", [], "")
        return y


class Int8Weight(PackedWeight):
    """By torch's product of bfloat16 with int8, which sums in float32."""

    numbers: Tensor  # (N, C) int8
    scales: Tensor  # (N,) bfloat16, like the inputs

    def keep(self, weight: Tensor) -> None:
        largest = weight.abs().amax(dim=1)  # (N,)
        # of a row of zeros any scale is right but zero
        self.scales = (largest.masked_fill(largest == 0, 1.0) / INT8_LIMIT).bfloat16()
        numbers = (weight / self.scales.float()[:, None]).round()  # by the scale as it was rounded
        self.numbers = numbers.clamp(-INT8_LIMIT, INT8_LIMIT).to(torch.int8)

    def product(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.size(-1)).contiguous()
        return torch._weight_int8pack_mm(rows, self.numbers, self.scales).view(*x.shape[:-1], -1)


def can_lay_out(device: torch.device) -> bool:
    """Whether torch has oneDNN's products for this processor."""
    has_library: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return device.type == "cpu" and has_library and platform.machine().lower() in X86


def refuse_int8(model: nn.Module, device: torch.device) -> None:
    """Say so where there are no 8-bit products.

    Raises:
        DeviceError: the device is no CPU for which torch has them.
        ConfigError: a matrix of the model is of a width that they cannot read.
    """
    hint = "--precision bfloat16, or float32"
    is_known = platform.machine().lower() in (*X86, *ARM) and hasattr(torch, "_weight_int8pack_mm")
    if device.type != "cpu" or not is_known:
        raise DeviceError(
            "8-bit weights are for CPUs, x86-64 or ARM", where=f"--precision int8 on {device}", hint=hint
        )
    widths = {module.in_features for module in model.modules() if isinstance(module, nn.Linear)}
    if odd := sorted(width for width in widths if width % INT8_WIDTH):
        raise ConfigError(
            f"8-bit weights need widths that are multiples of {INT8_WIDTH}; this model has {odd[0]}",
            where="--precision int8",
            hint=hint,
        )


@torch.no_grad()
def pack(model: nn.Module, kind: type[PackedWeight], dtype: torch.dtype) -> None:
    """Make the matrices of a model ready, which will be in ``dtype``; those of experts stay as they are."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            of_shape = torch.zeros(1, dtype=dtype).expand(module.weight.shape)
            module.weight = kind.of(module.weight.detach(), of_shape)
        elif isinstance(module, nn.Embedding) and getattr(model, "head_weight", None) is module.weight:
            # tokens are looked up in it, too
            module.weight = kind.of(module.weight.detach(), module.weight.detach().to(dtype))

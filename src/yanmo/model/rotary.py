"""Rotary positions: a query and a key are turned by angles that grow with their place in the text.

Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding". Their product then depends
on the distance between them only. Channel i turns together with channel i + D/2, as Hugging Face has it.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """Cosines and sines of all angles, (..., T, 1, D); those of the first half negative sines."""

    cos: Tensor
    sin: Tensor


def rotation_at(position: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> Rotation:
    """The rotation of tokens at ``position`` (T,) or (B, T); wavelengths grow from 2π to 2π theta."""
    channel = torch.arange(0, head_dim, 2, device=position.device, dtype=torch.float32)  # (D / 2,)
    angle = position[..., None].float() * (1.0 / theta ** (channel / head_dim))  # (..., T, D / 2)
    cos, sin = angle.cos().to(dtype), angle.sin().to(dtype)
    return Rotation(torch.cat((cos, cos), -1).unsqueeze(-2), torch.cat((-sin, sin), -1).unsqueeze(-2))

"""Ranks and devices: who computes which rows, and where.

The loop asks a :class:`World` for its rows and for sums over all ranks, and never counts ranks itself.
One process is a world of size 1.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from yanmo.environment import device_names
from yanmo.errors import DeviceError


@dataclass(frozen=True)
class World:
    """All processes of a run, seen from one of them."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Rank 0 writes files and speaks."""
        return self.rank == 0

    def rows(self, batch_size: int) -> range:
        """The rows of a global batch that this rank computes."""
        return range(self.rank * batch_size // self.size, (self.rank + 1) * batch_size // self.size)

    def sum(self, value: Tensor) -> Tensor:
        """``value`` summed over all ranks, in place."""
        if self.size > 1:
            torch.distributed.all_reduce(value)
        return value

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Every gradient summed over all ranks; one without rows adds zeros."""
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            self.sum(parameter.grad)

    def largest(self, value: int) -> int:
        """The largest ``value`` of any rank: what all of them go by."""
        if self.size == 1:
            return value
        shared = torch.tensor(value, device=self.device)
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
        return int(shared)


def find_device(name: str | None) -> torch.device:
    """The device called ``name``; None: the first accelerator, else the CPU.

    Raises:
        DeviceError: there is no such device. Another one is never taken instead.
    """
    if name is None:
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    mend = f"there are: {', '.join(device_names())}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"'{name}' is no device", where="train.device", mend=mend) from error
    if str(device) not in device_names():
        raise DeviceError(f"device '{name}' is not there", where="train.device", mend=mend)
    return device


def autocast_for(device: torch.device, precision: str | None) -> Callable[[], AbstractContextManager[None]]:
    """The context in which forward passes run: bfloat16 where asked, nothing otherwise."""
    if precision == "bfloat16":
        return lambda: torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext

"""Data parallelism (DDP): ranks and devices, who computes which rows, and how ranks agree.

The loop asks a :class:`World` for its rows and for sums over all ranks, and never counts ranks itself.
One process is a world of size 1. Several are started by ``parallel/launch.py`` or by torchrun; each finds
its rank in the environment; they connect when rank 0 has prepared everything.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from yanmo.core.errors import ConfigError, DeviceError, LostError
from yanmo.parallel.environment import device_names

TIMEOUT = timedelta(minutes=10)
"""How long a rank waits for the others in a step: a checkpoint may be written meanwhile."""
SET_UP = timedelta(days=7)
"""How long the other ranks wait while the first reads and tokenises."""


@dataclass(frozen=True)
class World:
    """The processes of a run, seen from one of them."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Rank 0 writes files and speaks."""
        return self.rank == 0

    def rows(self, batch_size: int) -> range:
        """The rows of a global batch that this rank computes."""
        # integer arithmetic: the parts cover the batch exactly and differ by one row at most
        return range(self.rank * batch_size // self.size, (self.rank + 1) * batch_size // self.size)

    def sum(self, value: Tensor) -> Tensor:
        """``value`` summed over all ranks, in place."""
        if self.size > 1:
            torch.distributed.all_reduce(value)
        return value

    def all_reduce_max(self, value: int) -> int:
        """The largest ``value`` of any rank, so that all of them decide alike."""
        if self.size == 1:
            return value
        shared = torch.tensor(value, device=self.device)
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
        return int(shared)

    def wrap_ddp(self, module: nn.Module) -> nn.Module:
        """``module``, whose gradients become the mean over all ranks (Li et al. 2020, torch's DDP)."""
        if self.size == 1:
            return module
        # DDP all-reduces a bucket of gradients as soon as the backward pass has filled it, so that
        # communication and computation overlap; it also copies the weights of rank 0 to all at the start
        shared = DistributedDataParallel(module)
        # counted loads of experts are buffers and differ by rank: a broadcast would overwrite them with those
        # of rank 0. Set as an attribute, since torch is removing the argument
        shared.broadcast_buffers = False
        return shared

    def no_sync(self, module: nn.Module) -> AbstractContextManager[None]:
        """A context in which gradients only accumulate on their rank."""
        # g₁ + g₂ + … is summed over ranks once, in the last backward of a step: one all-reduce, not one each
        return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


def find_world(device: str | None, batch_size: int) -> World:
    """This process's place, from the environment that torchrun sets; alone without one.

    Raises:
        DeviceError: there is no such device, or not one for each rank.
        ConfigError: more ranks than rows in a batch.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if size > batch_size:
        raise ConfigError(
            f"{size} processes are too many for train.batch_size={batch_size}",
            where="--nproc",
            hint=f"use at most {batch_size} processes, or a larger train.batch_size",
        )
    # RANK counts over all machines, LOCAL_RANK on this one: it chooses the GPU
    local = int(os.environ.get("LOCAL_RANK", "0")) if size > 1 else 0
    return World(device_for(device, local, size), rank, size)


def device_for(name: str | None, local_rank: int, size: int) -> torch.device:
    """The device of one rank of this machine."""
    named = split_devices(name)
    if len(set(named)) < len(named):
        raise ConfigError(f"{name} names a device twice", "train.device", "name each device once")
    if size == 1 or ":" not in (named[0] or ""):
        device = find_device(named[0])
        alone = size == 1 or device.type == "cpu"
        return device if alone else find_device(f"{device.type}:{local_rank}")
    if local_rank >= len(named):
        raise DeviceError(
            f"process {local_rank + 1} has no device in {name}",
            where="train.device",
            hint="name one device per process",
        )
    return find_device(named[local_rank])


def split_devices(name: str | None) -> list[str | None]:
    """``"cuda:0,1"`` → ``["cuda:0", "cuda:1"]``."""
    if name is None:
        return [None]
    kind, _, numbers = name.partition(":")
    return [f"{kind}:{number.strip()}" for number in numbers.split(",")] if numbers else [kind]


class Rendezvous:
    """The place where the ranks of a run find each other; a single process never waits here.

    Rank 0 prepares while the others wait on the store, without a connection that could time out; then all
    join the process group. On leaving it is destroyed.
    """

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self._store: Any = None

    def __enter__(self) -> "Rendezvous":
        if self.size > 1:
            try:
                self._store, _, _ = next(rendezvous("env://", timeout=SET_UP))
            except RuntimeError as error:
                raise lost(self.rank) from error
        return self

    def __exit__(self, kind: object, error: BaseException | None, *rest: object) -> None:
        """Destroy the process group; torch's errors about a broken connection become one sentence."""
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        if is_lost(error):
            raise lost(self.rank) from error

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The other ranks enter this block after rank 0 has left it."""
        if self.rank > 0:
            # a key in the store: a barrier of NCCL or gloo times out, and tokenising may take hours. If
            # rank 0 fails, the key never comes, and the launcher ends those who wait
            self._store.wait(["yanmo/ready"], SET_UP)
        yield
        if self.size > 1 and self.rank == 0:
            self._store.set("yanmo/ready", "1")

    def connect(self, device: torch.device) -> None:
        """Join the process group; from here on ranks can sum."""
        if self.size == 1:
            return
        if device.type == "cuda":
            # before NCCL starts: else every rank would allocate its context on GPU 0
            torch.cuda.set_device(device)
        torch.distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=self._store, rank=self.rank, world_size=self.size, timeout=TIMEOUT,
        )  # fmt: skip


def is_lost(error: BaseException | None) -> bool:
    """Whether an error of torch says that another process no longer answers."""
    # gloo's errors are plain RuntimeErrors; only their text tells them apart
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )


def lost(rank: int) -> LostError:
    """The error of a rank that cannot reach the others."""
    return LostError(
        "this process lost its connection to the other processes of the run",
        where=f"rank {rank}",
        hint="one of them, or the launcher, has ended; the same command resumes",
    )


def find_device(name: str | None, where: str = "train.device") -> torch.device:
    """The device called ``name``; None: the first accelerator, else the CPU. ``where`` it was named.

    Raises:
        DeviceError: there is no such device. Falling back to another would train for days on the wrong one.
    """
    if name is None:
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    hint = f"available: {', '.join(device_names())}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"'{name}' is not a device", where, hint) from error
    if str(device) not in device_names():
        raise DeviceError(f"device '{name}' is not available", where, hint)
    return device


def autocast_for(device: torch.device, precision: str | None) -> Callable[[], AbstractContextManager[None]]:
    """The context in which forward passes run: bfloat16 or float16 where asked, nothing otherwise."""
    if precision in (None, "float32"):
        return nullcontext
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float16
    # a new context each time, as one cannot be entered twice. Matrix products run in the short type; weights
    # and their updates stay in float32 (mixed precision)
    return lambda: torch.autocast(device.type, dtype=dtype)

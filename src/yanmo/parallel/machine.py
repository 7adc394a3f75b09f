"""Preparing the process for a run: threads, deterministic algorithms, matmul route, memory.

Only what the recipe records changes results: threads, matmul route, ``deterministic``.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator

import torch

from yanmo.core.errors import DeviceError
from yanmo.settings.schema import TrainConfig

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_NEVER = -1
_THREADS = torch.get_num_threads()  # of this process before anything sets another number


def configure_torch(train: TrainConfig) -> None:
    """Set up torch, and this process, as the recipe says."""
    # the number of threads decides how a sum is cut into parts, and so its last bits: it is in the recipe
    torch.set_num_threads(train.threads or torch.get_num_threads())
    # otherwise compiled code adds the gradients of the embedding in no fixed order (atomic additions)
    use_deterministic(train.deterministic or bool(train.compile))
    if train.device in (None, "cpu"):
        use_matmul(train.matmul or "torch")
    keep_freed_memory()


def leave_a_core() -> None:
    """Let torch use a thread fewer, unless the environment says how many, so that others need not wait."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(_THREADS - 1, 1))


def use_deterministic(on: bool) -> None:
    """Whether equal inputs give equal bits; on a GPU, call this before its first matrix product."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it once, at its first product
    # torch would fill new memory with NaN to expose reads of unwritten memory; there are none here, and it
    # costs time
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(on)


def use_matmul(route: str) -> None:
    """Which library multiplies float32 matrices on a CPU: torch's choice, or oneDNN."""
    torch.set_float32_matmul_precision("medium" if route == "onednn" else "highest")


def onednn_keeps_float32() -> bool:
    """Whether oneDNN's route computes in float32 here; on a CPU with AMX it rounds to bfloat16."""
    # bfloat16 has 8 bits of precision, a relative error near 4e-3: one product tells the two apart
    a = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
    before = torch.get_float32_matmul_precision()
    use_matmul("torch")
    expected = a @ a
    use_matmul("onednn")
    found = a @ a
    torch.set_float32_matmul_precision(before)
    return torch.allclose(found, expected, rtol=1e-4, atol=1e-4)


def keep_freed_memory() -> bool:
    """Let glibc's malloc keep what is freed; False where there is no such malloc.

    Every step allocates the same tensors again. Given back to the system and fetched anew, their pages
    cost a CPU 15 to 35% of its training speed (docs/performance.md).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER))


def return_freed_memory() -> None:
    """Return what malloc keeps to the system, once: blocks of one kind of work do not fit the next."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # macOS, musl, Windows
        ctypes.CDLL(None).malloc_trim(0)


def physical_memory() -> int | None:
    """Bytes of this machine's memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows
        return None


@contextlib.contextmanager
def oom_as_error(what: str, where: str) -> Iterator[None]:
    """A block whose memory does not depend on the micro-batch, so that halving it would not help.

    Raises:
        DeviceError: it does not fit.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(
            f"not enough memory for {what}",
            where=where,
            hint="free some memory and repeat the command, or choose a smaller model.n_layer or n_embd",
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or this machine, has no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # torch raises a plain RuntimeError where a CPU has no memory, and where cuBLAS or NCCL have none
    return any(said in str(error) for said in ("can't allocate memory", "out of memory"))

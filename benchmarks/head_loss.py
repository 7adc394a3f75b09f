"""The output head and its loss, forward and backward: ours beside torch's own, in time, memory and accuracy.

    python benchmarks/head_loss.py

Sides: ``ours`` (``yanmo.model.fused.linear_cross_entropy``), ``torch`` (``F.linear_cross_entropy`` of torch
2.13, with the options that it chooses itself for this device and dtype), and torch's with as many rows at a
time as ours. Shapes are those of training_step.py, dtypes those of a CPU; for bfloat16 the weights
are float32 and are rounded within the step, as autocast does it. Each side is a process; they take turns.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import turns
from torch import Tensor
from torch.nn import functional as F
from training_step import SIZES, Size

from yanmo.model.config import IGNORED
from yanmo.model.fused import LOGITS, linear_cross_entropy
from yanmo.parallel.machine import keep_freed_memory

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
TINY = Size(8, 1, 1, 8, 8, 2, 0.0)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main() -> None:
    """Parent: let the sides take turns and print the table. Worker (``--side``): be one side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--rounds", type=int, default=turns.ROUNDS)
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES), choices=list(DTYPES))
    parser.add_argument("--side", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        size = SIZES[asked.sizes[0]]
        be_side(sides(size)[asked.side], size, DTYPES[asked.dtypes[0]])
    else:
        compare(asked)


def be_side(loss: Loss, size: Size, dtype: torch.dtype) -> None:
    """Measure memory and error once, then steps whenever told to."""
    keep_freed_memory()  # as in training
    loss(*drawn(TINY)).backward()  # type: ignore[no-untyped-call]  # what is imported then is no memory of a step
    x, weight, targets = drawn(size)

    def step() -> tuple[Tensor, Tensor, Tensor]:
        x.grad = weight.grad = None
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            nats = loss(x, weight, targets)
        nats.backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None
        assert weight.grad is not None
        return nats.detach(), x.grad, weight.grad

    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # peak memory is counted from here
    found = step()
    peak = resident_bytes("VmHWM") - before
    errors = [error(*pair) for pair in zip(found, exact(x, weight, targets), strict=True)]
    turns.work(lambda: step() and len(targets), peak=peak, errors=errors)


def drawn(size: Size) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, a head, and targets, of which some count for nothing."""
    torch.manual_seed(0)
    N = size.batch_size * size.block_size
    x = torch.randn(N, size.n_embd).requires_grad_()
    weight = (torch.randn(size.vocab_size, size.n_embd) * 0.1).requires_grad_()
    targets = torch.randint(size.vocab_size, (N,))
    targets[:: size.block_size] = IGNORED
    return x, weight, targets


def exact(x: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and gradients in float64."""
    x, weight = (tensor.detach().double().requires_grad_() for tensor in (x, weight))
    nats = F.cross_entropy(x @ weight.T, targets, ignore_index=IGNORED, reduction="sum")
    return nats.detach(), *torch.autograd.grad(nats, (x, weight))


def error(found: Tensor, right: Tensor) -> float:
    """Of all values together, relative."""
    return float((found.double() - right).norm() / right.norm())


def resident_bytes(what: str) -> int:
    """VmRSS or VmHWM of this process (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(what))


def by_torch(options: torch.nn.LinearCrossEntropyOptions) -> Loss:
    """Autocast does not know the operation: it is given what autocast would give it."""

    def loss(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        with torch.autocast("cpu", enabled=False):
            nats: Tensor = F.linear_cross_entropy(
                x.to(dtype), weight.to(dtype), targets, reduction="sum", ignore_index=IGNORED, options=options
            )
        return nats.float()

    return loss


def sides(size: Size) -> dict[str, Loss]:
    """What is compared, by name."""
    rows = LOGITS["cpu"] // size.vocab_size
    usual = torch.nn.LinearCrossEntropyOptions()
    parts = torch.nn.LinearCrossEntropyOptions(chunking_method=None, batch_chunk_size=rows)
    return {"ours": linear_cross_entropy, "torch": by_torch(usual), "torch, our parts": by_torch(parts)}


def compare(asked: argparse.Namespace) -> None:
    """Print a row for each size, dtype and side; write the JSON."""
    results: dict[str, Any] = {}
    print(
        "| tokens x width x vocabulary | dtype | side | ms | speed to ours | peak, MB | error: loss, dx, dw |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in asked.sizes:
        for dtype in asked.dtypes:
            arguments = ["--sizes", name, "--dtypes", dtype]
            workers = {
                side: turns.Worker(__file__, ["--side", side, *arguments]) for side in sides(SIZES[name])
            }
            rates = turns.take_turns(workers, asked.rounds)
            for worker in workers.values():
                worker.close()
            facts = {side: worker.facts for side, worker in workers.items()}
            results[f"{name} {dtype}"] = {"per_second": rates, "facts": facts}
            print_sides(SIZES[name], dtype, rates, facts)
    print(turns.save("head_loss", {"threads": torch.get_num_threads(), "results": results}))


def print_sides(size: Size, dtype: str, rates: dict[str, list[float]], facts: dict[str, Any]) -> None:
    """The rows of one size and dtype."""
    N = size.batch_size * size.block_size
    for side, found in rates.items():
        cells = [
            f"{N:,} x {size.n_embd} x {size.vocab_size:,}", dtype, side,
            f"{1e3 * N / statistics.median(found):.1f}", turns.told(found, rates["ours"]),
            f"{facts[side]['peak'] / 1e6:.0f}", ", ".join(f"{e:.1e}" for e in facts[side]["errors"]),
        ]  # fmt: skip
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

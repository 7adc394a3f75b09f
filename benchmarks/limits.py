"""What this machine gives to the four models of training_step.py: matrix products, and memory.

    python benchmarks/limits.py

For each model: the products of its weights, the head's included, with all tokens of one training step,
forward and the two backward ones, in float32 and bfloat16. Beside them a large square matrix, a plain sum
over memory, and the products of the 82M weights with one vector, as in writing. All take turns, in blocks,
several rounds; the median counts. On two cores that is less than a minute.

From these come the milliseconds of a step that is nothing but its matrix products: 6 FLOP for each token and
parameter that multiplies (tables of positions, biases and norms do not), and those of attention, which are
taken to be as fast. Of attention only what a causal mask leaves is counted.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import turns
from training_step import SIZES, Size

from yanmo.model.config import GPTConfig
from yanmo.model.fused import linear
from yanmo.model.gpt import GPT
from yanmo.parallel.machine import keep_freed_memory

ROUNDS = 5
SECONDS = 0.2
"""A block is at least as long."""
SQUARE = 4096
SUMMED = 1 << 28
"""Values of float32: a gigabyte, more than any cache holds."""
WRITER = "large"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Work:
    """Something to repeat, and how much it is: FLOP or bytes."""

    do: Callable[[], object]
    amount: float


def main() -> None:
    """Measure, print two tables, write the JSON."""
    keep_freed_memory()  # as in training
    start = time.perf_counter()
    with torch.inference_mode():
        rates = measure(all_work())
    gives = {name: statistics.median(found) for name, found in rates.items()}
    print_steps(gives)
    print_plain(gives)
    steps = {name: step_facts(name, gives) for name in SIZES}
    path = turns.save("limits", {"threads": torch.get_num_threads(), "steps": steps, "per_second": rates})
    print(f"\n{path}, {time.perf_counter() - start:.0f} s")


def all_work() -> dict[str, Work]:
    """What is measured, by name."""
    found: dict[str, Work] = {}
    for kind, dtype in DTYPES.items():
        for name, size in SIZES.items():
            found[f"{name} {kind}"] = step_products(size, dtype)
        found[f"square {kind}"] = square_product(dtype)
        found[f"writing {kind}"] = vector_products(SIZES[WRITER], dtype)
    return found | {"sum": memory_sum()}


def measure(work: dict[str, Work]) -> dict[str, list[float]]:
    """FLOP or bytes a second, round by round; a first round that warms up is not counted."""
    rates: dict[str, list[float]] = {name: [] for name in work}
    for number in range(ROUNDS + 1):
        for name, one in work.items():
            rate = rate_of(one)
            if number:
                rates[name].append(rate)
    return rates


def rate_of(work: Work) -> float:
    """Over one block."""
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        work.do()
        count += 1
    return count * work.amount / (time.perf_counter() - start)


# -- what is done -----------------------------------------------------------------------------


def shapes_of(size: Size) -> list[tuple[int, int]]:
    """The matrices (out, in) that tokens are multiplied with, in the model's order; the head is the last."""
    with torch.device("meta"):
        model = GPT(GPTConfig(size.vocab_size, size.n_layer, size.n_head, size.n_embd, size.block_size))
    inside = [tuple(p.shape) for p in model.blocks.parameters() if p.dim() == 2]
    return [*inside, tuple(model.head_weight.shape)]  # type: ignore[list-item]


def step_products(size: Size, dtype: torch.dtype) -> Work:
    """All weights with all tokens of a step: forward, then back."""
    shapes, tokens = shapes_of(size), size.batch_size * size.block_size
    weights = [torch.randn(shape, dtype=dtype) for shape in shapes]
    widths = {width for shape in shapes for width in shape}
    stream = {width: torch.randn(tokens, width, dtype=dtype) for width in widths}

    def do() -> None:
        for weight in weights:
            stream[weight.size(1)] @ weight.T
        for weight in reversed(weights):
            gradient = stream[weight.size(0)]
            gradient @ weight
            gradient.T @ stream[weight.size(1)]

    return Work(do, product_flop(size))


def square_product(dtype: torch.dtype) -> Work:
    """A matrix with itself."""
    matrix = torch.randn(SQUARE, SQUARE, dtype=dtype)
    return Work(lambda: matrix @ matrix, 2.0 * SQUARE**3)


def vector_products(size: Size, dtype: torch.dtype) -> Work:
    """All weights with one vector, as yanmo multiplies them when it writes; the amount is their bytes."""
    weights = [torch.randn(shape, dtype=dtype) for shape in shapes_of(size)]
    rows = {weight.size(1): torch.randn(1, weight.size(1), dtype=dtype) for weight in weights}

    @torch.no_grad()
    def do() -> None:
        for weight in weights:
            linear(rows[weight.size(1)], weight)

    return Work(do, sum(weight.nbytes for weight in weights))


def memory_sum() -> Work:
    """A gigabyte read once."""
    values = torch.ones(SUMMED)
    return Work(values.sum, values.nbytes)


# -- what follows -----------------------------------------------------------------------------


def product_flop(size: Size) -> float:
    """Of a step's products with weights: 2 FLOP a parameter and token, three times."""
    parameters = sum(rows * columns for rows, columns in shapes_of(size))
    return 6.0 * parameters * size.batch_size * size.block_size


def attention_flop(size: Size) -> float:
    """Of a step's attention, forward and back: queries with keys, weights with values; half is masked."""
    seen = (size.block_size + 1) / 2
    return 12.0 * size.n_layer * size.n_embd * seen * size.batch_size * size.block_size


def step_facts(name: str, gives: dict[str, float]) -> dict[str, Any]:
    """FLOP of a model's step, and the milliseconds they take at the rates found."""
    size = SIZES[name]
    flop = {"weights": product_flop(size), "attention": attention_flop(size)}
    return {
        "size": vars(size),
        "flop": flop,
        "milliseconds": {kind: 1e3 * sum(flop.values()) / gives[f"{name} {kind}"] for kind in DTYPES},
    }


def print_steps(gives: dict[str, float]) -> None:
    """The table of models."""
    print("| model | parameters that multiply | GFLOP a step | " + " | ".join(
        f"{kind}, GFLOP/s | a step of products alone, ms" for kind in DTYPES) + " |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for name, size in SIZES.items():
        facts = step_facts(name, gives)
        cells = [
            f"{gives[f'{name} {kind}'] / 1e9:,.0f} | {facts['milliseconds'][kind]:,.1f}" for kind in DTYPES
        ]
        parameters = sum(rows * columns for rows, columns in shapes_of(size))
        done = sum(facts["flop"].values()) / 1e9
        print(f"| {name} | {parameters / 1e6:.1f}M | {done:,.1f} | {' | '.join(cells)} |")


def print_plain(gives: dict[str, float]) -> None:
    """The table of what no model stands for."""
    print("\n| what | float32 | bfloat16 |\n|---|---|---|")
    square = [f"{gives[f'square {kind}'] / 1e9:,.0f} GFLOP/s" for kind in DTYPES]
    print(f"| {SQUARE:,} x {SQUARE:,} with itself | {' | '.join(square)} |")
    writing = [f"{gives[f'writing {kind}'] / 1e9:.1f} GB/s" for kind in DTYPES]
    print(f"| the {WRITER} model's weights with one vector | {' | '.join(writing)} |")
    print(f"| a sum over a gigabyte | {gives['sum'] / 1e9:.1f} GB/s | |")


if __name__ == "__main__":
    main()

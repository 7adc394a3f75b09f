"""What a GPU gives: training, memory, time to a loss, and writing; meant to take less than ten minutes.

    python benchmarks/gpu.py            (make bench-gpu)
    python benchmarks/gpu.py --device cpu --tiny

GPT-2 of 124M and 350M and `modern` of the smaller shape, window 1024, bfloat16, fused AdamW, torch.compile
and torch's attention on both sides: yanmo's own step beside the same architecture of transformers, which is
also measured as its users write it (not compiled). The sides live in one process and take turns. Model
FLOPs utilisation counts 6 FLOPs for each parameter but the table of positions and each token, and attention
in full, against the bfloat16 rate that a large matrix product reaches here.
``--tiny`` runs the same lines in miniature, to see that they work.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import turns
from peers import transformers_twin

from yanmo.config import OptimConfig, SampleConfig
from yanmo.generate import generate_batch
from yanmo.model.gpt import GPT, count_parameters
from yanmo.model.shape import GPTConfig
from yanmo.sampling import Rules
from yanmo.text.demo import stories
from yanmo.train.optim import build_optimizer

ROUNDS = 5
Step = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Plan:
    """How much is done; ``tiny`` does next to nothing."""

    sizes: dict[str, tuple[GPTConfig, int]]
    """Name → shape and batch."""
    seconds: float
    matrix: int
    reader: GPTConfig
    reader_loss: float
    reader_seconds: float
    batches: tuple[int, ...]
    tokens: int


FULL = Plan(
    sizes={
        "124M": (GPTConfig(50257, 12, 12, 768, 1024), 32),
        "350M": (GPTConfig(50257, 24, 16, 1024, 1024), 16),
        "modern 124M": (GPTConfig(50257, 12, 12, 768, 1024, family="modern"), 32),
    },
    seconds=2.0, matrix=8192,
    reader=GPTConfig(0, 6, 6, 384, 256), reader_loss=0.60, reader_seconds=60.0,
    batches=(1, 16, 256), tokens=200,
)  # fmt: skip
TINY = Plan(
    sizes={
        "tiny": (GPTConfig(100, 2, 2, 32, 32), 2),
        "modern": (GPTConfig(100, 2, 2, 32, 32, family="modern"), 2),
    },
    seconds=0.1, matrix=256,
    reader=GPTConfig(0, 2, 2, 32, 32), reader_loss=5.0, reader_seconds=5.0, batches=(1, 3), tokens=5,
)  # fmt: skip


def main() -> None:
    """All of it, one table after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    asked = parser.parse_args()
    device, plan = torch.device(asked.device), TINY if asked.tiny else FULL
    start = time.perf_counter()
    results: dict[str, Any] = {"device": device_name(device), "ceiling_tflops": ceiling(device, plan.matrix)}
    print(f"{results['device']}: {results['ceiling_tflops']:.0f} TFLOP/s in bfloat16\n")
    results["training"] = training(device, plan, results["ceiling_tflops"])
    results["time_to_loss"] = time_to_loss(device, plan)
    results["writing"] = writing(device, plan)
    results["minutes"] = round((time.perf_counter() - start) / 60, 1)
    print("" if asked.tiny else turns.save("gpu", results), f"{results['minutes']} minutes")


def device_name(device: torch.device) -> str:
    """What it is called."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def wait(device: torch.device) -> None:
    """Until the device has done all it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ceiling(device: torch.device, size: int) -> float:
    """TFLOP/s of a large bfloat16 product, the best of ten."""
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    seconds = []
    for _ in range(12):
        wait(device)
        start = time.perf_counter()
        a @ a
        wait(device)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds[2:]) / 1e12


# -- training ---------------------------------------------------------------------------------


def training(device: torch.device, plan: Plan, tflops: float) -> dict[str, Any]:
    """Tokens per second and utilisation of all sides, in turns."""
    print("| model | side | tokens/s, median | of the ceiling | yanmo to it (range) | peak memory |")
    print("|---|---|---|---|---|---|")
    results = {}
    for name, (config, batch) in plan.sizes.items():
        ids = torch.randint(config.vocab_size, (batch, config.block_size + 1), device=device)
        sides = {
            "yanmo, compiled": yanmo_step(config, device, compiled=True),
            "transformers, compiled": transformers_step(config, device, compiled=True),
            "transformers": transformers_step(config, device, compiled=False),
        }
        memory = {side: peak_memory(step, ids, device) for side, step in sides.items()}
        rates: dict[str, list[float]] = {side: [] for side in sides}
        for number in range(ROUNDS + 1):
            for side, step in sides.items():
                rate = tokens_per_second(step, ids, device, plan.seconds)
                if number:
                    rates[side].append(rate)
        for side, found in rates.items():
            share = flops_per_token(config) * statistics.median(found) / tflops / 1e12
            ratio = turns.told(rates["yanmo, compiled"], found)
            print(
                f"| {name} | {side} | {statistics.median(found):,.0f} | {share:.1%} | {ratio}"
                f" | {memory[side] / 1e9:.1f} GB |",
                flush=True,
            )
        results[name] = {"batch": batch, "tokens_per_s": rates, "peak_bytes": memory}
        del sides, step
        torch.compiler.reset()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return results


def flops_per_token(config: GPTConfig) -> float:
    """Of a forward and backward pass (Chowdhery et al. 2022, appendix B); the head counts, tables do not."""
    table = config.block_size * config.n_embd if config.family == "gpt2" else 0
    attention = 12 * config.n_layer * config.n_head * config.head_dim * config.block_size
    return 6 * (count_parameters(config) - table) + attention


def yanmo_step(config: GPTConfig, device: torch.device, compiled: bool, name: str = "adamw") -> Step:
    """Forward, backward, clip, update; the loss."""
    model = GPT(config).to(device)
    model.initialise(0)
    model.train()
    optimizer = build_optimizer(model, OptimConfig(name=name, learning_rate=1e-3), "bfloat16")  # type: ignore[arg-type]
    optimizer.set_learning_rate(6e-3 if name == "muon" else 1e-3)
    loss_of = torch.compile(model.loss) if compiled else model.loss

    def step(ids: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss: torch.Tensor = (
                loss_of(ids[:, :-1].contiguous(), ids[:, 1:].contiguous()) / ids[:, 1:].numel()
            )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    step.model = model  # type: ignore[attr-defined]
    return step


def transformers_step(config: GPTConfig, device: torch.device, compiled: bool) -> Step:
    """The same with transformers' model."""
    model = transformers_twin(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    forward = torch.compile(model) if compiled else model

    def step(ids: torch.Tensor) -> torch.Tensor:
        x, y = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
        with torch.autocast(device.type, dtype=torch.bfloat16):
            logits = forward(input_ids=x).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), y.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    step.model = model  # type: ignore[attr-defined]
    return step


def peak_memory(step: Step, ids: torch.Tensor, device: torch.device) -> int:
    """Bytes a step needs beyond what others hold, after two that warm up."""
    step(ids)
    step(ids)
    if device.type != "cuda":
        return 0
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step(ids)
    own = sum(p.numel() * 12 for p in step.model.parameters())  # type: ignore[attr-defined]
    return torch.cuda.max_memory_allocated(device) - before + own


def tokens_per_second(step: Step, ids: torch.Tensor, device: torch.device, seconds: float) -> float:
    """Over about so many seconds."""
    wait(device)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(4):
            step(ids)
            count += ids[:, 1:].numel()
        wait(device)
    return count / (time.perf_counter() - start)


# -- time to a loss ---------------------------------------------------------------------------


def time_to_loss(device: torch.device, plan: Plan) -> dict[str, Any]:
    """The embedded demo corpus, character by character: seconds of training until a validation loss."""
    text = "\n".join(story.text for story in stories(400 if plan is TINY else 4000))
    number = {character: i for i, character in enumerate(sorted(set(text)))}
    ids = torch.tensor([number[character] for character in text], device=device)
    train, val = ids[: -len(ids) // 20], ids[-len(ids) // 20 :]
    config = replace(plan.reader, vocab_size=len(number))
    modern = replace(config, family="modern", n_inner=0)
    print(f"\n| to {plan.reader_loss} nats per character | seconds | steps | loss |\n|---|---|---|---|")
    results = {}
    sides = {
        "yanmo modern, Muon": lambda: yanmo_step(modern, device, False, "muon"),
        "yanmo, Muon": lambda: yanmo_step(config, device, False, "muon"),
        "yanmo, AdamW": lambda: yanmo_step(config, device, False),
        "transformers, AdamW": lambda: transformers_step(config, device, False),
    }
    for side, make in sides.items():
        found = until(make(), config, train, val, plan)
        print(f"| {side} | {found['seconds']:.1f} | {found['steps']} | {found['loss']:.4f} |", flush=True)
        results[side] = found
    return results


def until(
    step: Step, config: GPTConfig, train: torch.Tensor, val: torch.Tensor, plan: Plan
) -> dict[str, Any]:
    """Train on batches of 64 windows; every 25 steps, outside the clock, the whole validation part."""
    T, spent, steps, loss = config.block_size, 0.0, 0, float("inf")
    generator = torch.Generator().manual_seed(0)
    while spent < plan.reader_seconds and loss > plan.reader_loss:
        wait(train.device)
        start = time.perf_counter()
        for _ in range(25):
            first = torch.randint(len(train) - T - 1, (64,), generator=generator).to(train.device)
            step(train[first[:, None] + torch.arange(T + 1, device=train.device)])
        wait(train.device)
        spent, steps = spent + time.perf_counter() - start, steps + 25
        loss = validation_loss(step.model, val, T)  # type: ignore[attr-defined]
    return {"seconds": spent, "steps": steps, "loss": loss}


@torch.no_grad()
def validation_loss(model: torch.nn.Module, val: torch.Tensor, T: int) -> float:
    """Nats per character in windows that do not overlap."""
    count = (len(val) - 1) // T
    x, y = val[: count * T].view(-1, T), val[1 : count * T + 1].view(-1, T)
    with evaluating(model):
        said = model(x)
        logits = said if isinstance(said, torch.Tensor) else said.logits
        return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten()))


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Without dropout for a while."""
    model.eval()
    yield
    model.train()


# -- writing ----------------------------------------------------------------------------------


def writing(device: torch.device, plan: Plan) -> dict[str, Any]:
    """Tokens per second of the smallest model, in bfloat16, for several samples at once."""
    config = next(iter(plan.sizes.values()))[0]
    model = GPT(config)
    model.initialise(0)
    model.eval().to(device, torch.bfloat16)
    print("\n| samples at once | tokens/s |\n|---|---|")
    rates = {}
    for batch in plan.batches:
        settings = SampleConfig(temperature=1.0, top_p=1.0, max_new_tokens=plan.tokens, num_samples=batch)
        for _ in range(2):  # the first warms up
            start = time.perf_counter()
            count = sum(len(rows) for rows in generate_batch(model, [[1]], settings, Rules(-1)))
            rates[batch] = count / (time.perf_counter() - start)
        print(f"| {batch} | {rates[batch]:,.0f} |", flush=True)
    return rates


if __name__ == "__main__":
    main()

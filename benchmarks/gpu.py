"""What a GPU gives: training, memory, time to a loss, and writing, beside transformers.

    python benchmarks/gpu.py            (make bench-gpu)
    python benchmarks/gpu.py --only training
    python benchmarks/gpu.py --device cpu --tiny

`training`: `gpt2` and `modern` of 124M's and 350M's shape, window 1024, batches of 16 (what yanmo reads at a
time on a GPU), bfloat16, fused AdamW. yanmo takes the step of its trainer, compiled and with deterministic
algorithms, as `yanmo train` does where it compiles; beside it the same architecture of transformers,
compiled, and as its users write it (not compiled). All draw their batches as yanmo's trainer does. The sides
live in one process and take turns. Model FLOPs utilisation counts 6 FLOPs for each parameter but the table of
positions and each token, and attention in full, against the bfloat16 rate that a large matrix product
reaches here. `loss`: the embedded demo corpus, not compiled (`yanmo train` does not compile so short a run),
at the learning rates that yanmo decides, constant, whole windows; three seeds. `writing`: the smallest model
draws from all tokens; transformers at one sample at once.

An estimate for an H200, which nobody has checked: training six minutes, of which five are compiling, the
losses two and a half, writing half a minute; nine in all. A part that is done is written before the next.
``--tiny`` runs the same lines in miniature, to see that they work; there nothing but the tracing is compiled.
"""

import argparse
import contextlib
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import turns
from peers import transformers_twin

from yanmo.data.batches import Batches
from yanmo.data.shards import Tokens
from yanmo.generate.engine import generate_batch
from yanmo.generate.sampling import TokenConstraints
from yanmo.model.config import IGNORED, GPTConfig
from yanmo.model.gpt import GPT, count_parameters
from yanmo.parallel.distributed import World, autocast_for
from yanmo.parallel.machine import configure_torch
from yanmo.settings.recipe import decide, load_recipe
from yanmo.settings.schema import Recipe, SampleConfig, TrainConfig
from yanmo.text.demo.stories import stories
from yanmo.train.decide import decide_optimizer, usual_rate
from yanmo.train.optim import build_optimizer
from yanmo.train.probe import micro_batches
from yanmo.train.step import Loss, StepSettings, training_step

ROUNDS = 5
WRITTEN = 3
"""Rounds of writing."""
TOKENS = 2_000_000
EVERY = 25
"""Steps between two looks at the validation loss."""


@dataclass(frozen=True)
class Plan:
    """How much is done; ``tiny`` does next to nothing."""

    sizes: dict[str, GPTConfig]
    batch: int
    seconds: float
    matrix: int
    backend: str
    """Of torch.compile."""
    stories: int
    reader: GPTConfig
    reader_batch: int
    reader_loss: float
    reader_seconds: float
    seeds: tuple[int, ...]
    batches: tuple[int, ...]
    tokens: int


FULL = Plan(
    sizes={
        "124M": GPTConfig(50257, 12, 12, 768, 1024),
        "350M": GPTConfig(50257, 24, 16, 1024, 1024),
        "modern 124M": GPTConfig(50257, 12, 12, 768, 1024, family="modern"),
        "modern 350M": GPTConfig(50257, 24, 16, 1024, 1024, family="modern"),
    },
    batch=16, seconds=1.0, matrix=8192, backend="inductor",
    stories=4000, reader=GPTConfig(1, 6, 6, 384, 256), reader_batch=64, reader_loss=0.60, reader_seconds=30.0,
    seeds=(1, 2, 3), batches=(1, 16, 256), tokens=200,
)  # fmt: skip
TINY = Plan(
    sizes={
        "tiny": GPTConfig(100, 2, 2, 32, 32),
        "modern": GPTConfig(100, 2, 2, 32, 32, family="modern"),
    },
    batch=2, seconds=0.1, matrix=256, backend="eager",
    stories=200, reader=GPTConfig(1, 2, 2, 32, 32), reader_batch=16, reader_loss=6.0, reader_seconds=2.0,
    seeds=(1, 2), batches=(1, 3), tokens=5,
)  # fmt: skip


@dataclass
class Side:
    """A model that trains, one step a call."""

    model: torch.nn.Module
    train: TrainConfig
    """What the process is made ready for whenever it is this side's turn."""
    step: Callable[[], float]
    """One update; its loss."""


def main() -> None:
    """All of it, one table after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    asked = parser.parse_args()
    device, plan = torch.device(asked.device), TINY if asked.tiny else FULL
    results: dict[str, Any] = {"device": device_name(device), "ceiling_tflops": ceiling(device, plan.matrix)}
    print(f"{results['device']}: {results['ceiling_tflops']:.3g} TFLOP/s in bfloat16")
    for part in asked.only:
        start = time.perf_counter()
        print()
        results[part] = PARTS[part](device, plan, results["ceiling_tflops"])
        results[f"{part}_minutes"] = round((time.perf_counter() - start) / 60, 1)
        saved = "" if asked.tiny else turns.save("_".join(["gpu", *part_names(asked.only)]), results)
        print(f"\n{part}: {results[f'{part}_minutes']} minutes {saved}", flush=True)


def part_names(parts: list[str]) -> list[str]:
    """For the name of the file; none if it is all of them."""
    return [] if list(parts) == list(PARTS) else parts


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
    """Tokens per second and memory of the sides, in turns."""
    print("| model | side | tokens/s, median | of the ceiling | yanmo to it (range) | peak memory |")
    print("|---|---|---|---|---|---|")
    results = {}
    for name, config in plan.sizes.items():
        with as_tokens(np.random.default_rng(0).integers(config.vocab_size, size=TOKENS)) as tokens:
            results[name] = train_in_turns(name, config, tokens, device, plan, tflops)
        torch.compiler.reset()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return results


def train_in_turns(
    name: str, config: GPTConfig, tokens: Tokens, device: torch.device, plan: Plan, tflops: float
) -> dict[str, Any]:
    """The rows of one shape."""
    common = (config, tokens, plan.batch, device)
    sides = {
        "yanmo, compiled": yanmo_side(*common, backend=plan.backend),
        "transformers, compiled": transformers_side(*common, backend=plan.backend),
        "transformers": transformers_side(*common),
    }
    memory = {side: peak_memory(one, device) for side, one in sides.items()}
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(ROUNDS + 1):
        for side, one in sides.items():
            rate = tokens_per_second(one, plan.batch * config.block_size, device, plan.seconds)
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
    return {"batch": plan.batch, "tokens_per_s": rates, "peak_bytes": memory}


@contextlib.contextmanager
def as_tokens(ids: np.ndarray[Any, Any]) -> Iterator[Tokens]:
    """Ids as the trainer reads them: mapped from a file."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        data, starts = Path(folder) / "tokens", Path(folder) / "starts"
        ids.astype("<u2").tofile(data)
        np.zeros(1, dtype="<u8").tofile(starts)
        yield Tokens([data], "<u2", starts)


def flops_per_token(config: GPTConfig) -> float:
    """Of a forward and backward pass (Chowdhery et al. 2022, appendix B); the head counts, tables do not."""
    table = config.block_size * config.n_embd if config.family == "gpt2" else 0
    attention = 12 * config.n_layer * config.n_head * config.head_dim * config.block_size
    return 6 * (count_parameters(config) - table) + attention


def recipe_for(config: GPTConfig, batch: int, device: torch.device, seed: int, *more: str) -> Recipe:
    """The recipe of a run of this shape in bfloat16, with what `yanmo train` decides by rule."""
    shape = ("family", "n_layer", "n_head", "n_embd", "block_size")
    settings = [f"model.{key}={getattr(config, key)}" for key in shape]
    settings += [f"train.batch_size={batch}", f"train.device={device}", f"train.seed={seed}"]
    recipe = load_recipe(None, [*settings, "train.precision=bfloat16", "model.dropout=0", *more])
    return decide(recipe, decide_optimizer(recipe))


def yanmo_side(
    config: GPTConfig,
    tokens: Tokens,
    batch: int,
    device: torch.device,
    seed: int = 0,
    name: str = "adamw",
    backend: str = "",
) -> Side:
    """The trainer's own step, put together as it does; compiled where there is a ``backend``."""
    compiled = f"train.compile={str(bool(backend)).lower()}"
    recipe = recipe_for(config, batch, device, seed, compiled, f"optim.name={name}")
    train, world = recipe.train, World(device)
    configure_torch(train)
    model = GPT(config).to(device)
    model.initialise(seed)
    model.use_attention("sdpa")
    model.train()
    optimizer = build_optimizer(model, recipe.optim, train.precision)
    loss_of, batches = Loss(model), Batches(tokens, config.block_size, batch, seed)
    if backend:
        loss_of.compile(backend=backend)
    settings = StepSettings(
        seed=seed,
        batch_size=batch,
        micro_batch_size=micro_batches(recipe, world)[0],
        grad_clip=recipe.optim.grad_clip,
        autocast=autocast_for(device, train.precision),
    )
    numbers = itertools.count()

    def step() -> float:
        optimizer.set_learning_rate(recipe.optim.learning_rate or 0.0)
        return training_step(loss_of, optimizer, batches, next(numbers), settings, world).loss

    return Side(model, train, step)


def transformers_side(
    config: GPTConfig, tokens: Tokens, batch: int, device: torch.device, seed: int = 0, backend: str = ""
) -> Side:
    """The same with transformers' model and torch's AdamW."""
    train = recipe_for(config, batch, device, seed).train
    configure_torch(train)
    torch.manual_seed(seed)
    model = transformers_twin(config).to(device).train()
    rate = usual_rate("adamw", config.n_embd)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.99), fused=True)
    forward = torch.compile(model, backend=backend) if backend else model
    batches, numbers = Batches(tokens, config.block_size, batch, seed), itertools.count()

    def step() -> float:
        drawn = batches.at(next(numbers))
        x, y = (
            torch.from_numpy(part).to(device, non_blocking=True) for part in (drawn.inputs, drawn.targets)
        )
        with torch.autocast(device.type, dtype=torch.bfloat16):
            logits = forward(input_ids=x).logits.flatten(0, 1).float()
            loss = torch.nn.functional.cross_entropy(logits, y.flatten(), ignore_index=IGNORED)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return Side(model, train, step)


def peak_memory(side: Side, device: torch.device) -> int:
    """Bytes a step needs beyond what others hold, after two that warm up."""
    configure_torch(side.train)
    side.step()
    side.step()
    if device.type != "cuda":
        return 0
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    side.step()
    own = sum(p.numel() * 12 for p in side.model.parameters())
    return torch.cuda.max_memory_allocated(device) - before + own


def tokens_per_second(side: Side, tokens: int, device: torch.device, seconds: float) -> float:
    """Over about so many seconds; a step has so many ``tokens``."""
    configure_torch(side.train)
    wait(device)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(4):
            side.step()
            count += tokens
        wait(device)
    return count / (time.perf_counter() - start)


# -- time to a loss ---------------------------------------------------------------------------


def time_to_loss(device: torch.device, plan: Plan, tflops: float) -> dict[str, Any]:
    """The embedded demo corpus, character by character: seconds of training until a validation loss."""
    text = "\n".join(story.text for story in stories(plan.stories))
    number = {character: i for i, character in enumerate(sorted(set(text)))}
    ids = np.array([number[character] for character in text])
    val = torch.tensor(ids[-len(ids) // 20 :], device=device)
    config = replace(plan.reader, vocab_size=len(number))
    modern = GPTConfig(
        len(number), config.n_layer, config.n_head, config.n_embd, config.block_size, family="modern"
    )
    print(f"| to {plan.reader_loss} nats per character | seconds, median (range) | steps | reached |")
    print("|---|---|---|---|")
    results = {}
    with as_tokens(ids[: -len(ids) // 20]) as tokens:
        common = (tokens, plan.reader_batch, device)
        sides: dict[str, Callable[[int], Side]] = {
            "yanmo modern, Muon": lambda seed: yanmo_side(modern, *common, seed, "muon"),
            "yanmo, Muon": lambda seed: yanmo_side(config, *common, seed, "muon"),
            "yanmo, AdamW": lambda seed: yanmo_side(config, *common, seed),
            "transformers, AdamW": lambda seed: transformers_side(config, *common, seed),
        }
        for side, make in sides.items():
            results[side] = [until(make(seed), val, config.block_size, plan) for seed in plan.seeds]
            print(loss_row(side, results[side]), flush=True)
    return results


def loss_row(side: str, found: list[dict[str, Any]]) -> str:
    """Of the table: the seeds of a side."""
    seconds = [one["seconds"] for one in found]
    spread = f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})"
    steps, reached = statistics.median(one["steps"] for one in found), sum(one["reached"] for one in found)
    return f"| {side} | {spread} | {steps:,.0f} | {reached} of {len(found)} |"


def until(side: Side, val: torch.Tensor, T: int, plan: Plan) -> dict[str, Any]:
    """Train; every so many steps, outside the clock, the loss on the whole validation part."""
    configure_torch(side.train)
    spent, steps, loss = 0.0, 0, float("inf")
    while spent < plan.reader_seconds and loss > plan.reader_loss:
        wait(val.device)
        start = time.perf_counter()
        for _ in range(EVERY):
            side.step()
        wait(val.device)
        spent, steps = spent + time.perf_counter() - start, steps + EVERY
        loss = validation_loss(side.model, val, T)
    return {"seconds": spent, "steps": steps, "loss": loss, "reached": loss <= plan.reader_loss}


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


def writing(device: torch.device, plan: Plan, tflops: float) -> dict[str, Any]:
    """Tokens per second of the smallest model, in bfloat16, for several samples at once; in turns."""
    config = next(iter(plan.sizes.values()))
    configure_torch(TrainConfig(device=str(device)))
    print("| samples at once | side | tokens/s, median (range) |\n|---|---|---|")
    results: dict[str, dict[str, list[float]]] = {}
    writers = {"yanmo": yanmo_writer(config, device, plan.tokens)}
    beside = writers | {"transformers": transformers_writer(config, device, plan.tokens)}
    for batch in plan.batches:
        rates: dict[str, list[float]] = {side: [] for side in (beside if batch == 1 else writers)}
        for number in range(WRITTEN + 1):
            for side, found in rates.items():
                wait(device)
                start = time.perf_counter()
                written = beside[side](batch)
                wait(device)
                if number:  # the first warms up
                    found.append(written / (time.perf_counter() - start))
        for side, found in rates.items():
            spread = f"({min(found):,.0f} to {max(found):,.0f})"
            print(f"| {batch} | {side} | {statistics.median(found):,.0f} {spread} |", flush=True)
        results[str(batch)] = rates
    return results


def yanmo_writer(config: GPTConfig, device: torch.device, tokens: int) -> Callable[[int], int]:
    """Writes so many samples; gives the number of tokens."""
    model = GPT(config)
    model.initialise(0)
    model.eval().to(device, torch.bfloat16)

    def write(batch: int) -> int:
        settings = SampleConfig(temperature=1.0, top_p=1.0, max_new_tokens=tokens, num_samples=batch)
        return sum(len(rows) for rows in generate_batch(model, [[1]], settings, TokenConstraints(-1)))

    return write


def transformers_writer(config: GPTConfig, device: torch.device, tokens: int) -> Callable[[int], int]:
    """The same by transformers' generate with its cache."""
    model = transformers_twin(config, eos_token_id=None, use_cache=True).eval().to(device, torch.bfloat16)

    def write(batch: int) -> int:
        start = torch.ones(batch, 1, dtype=torch.long, device=device)
        ids = model.generate(
            start, attention_mask=torch.ones_like(start), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
            pad_token_id=0, min_new_tokens=tokens, max_new_tokens=tokens,
        )  # fmt: skip
        return int(ids[:, 1:].numel())

    return write


PARTS: dict[str, Callable[[torch.device, Plan, float], dict[str, Any]]] = {
    "training": training,
    "loss": time_to_loss,
    "writing": writing,
}


if __name__ == "__main__":
    main()

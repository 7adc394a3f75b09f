"""Training speed beside others: the same architecture, batch, context and dropout, AdamW, tokens per second.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --sizes medium --nanogpt CLONE --litgpt VENV/bin/python

transformers is measured as its users write it (GPT2LMHeadModel, torch's AdamW, float32, eager), nanoGPT
from a clone of yours (its GPT, its optimizer groups, float32, as on a CPU), litgpt by a Python that has
it (a Llama-shaped model of the same width and depth: RoPE, SwiGLU; float32). yanmo takes the step its
own trainer takes, with what its probe chose. Each side draws a new batch for every step.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import turns


@dataclass(frozen=True)
class Size:
    """A model and a batch."""

    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    block_size: int
    batch_size: int
    dropout: float


SIZES = {
    "small": Size(65, 4, 4, 128, 64, 12, 0.0),
    "novel": Size(4000, 4, 4, 256, 128, 8, 0.0),
    "medium": Size(65, 6, 6, 384, 256, 8, 0.2),
    "large": Size(13317, 10, 12, 768, 1024, 1, 0.1),
}
TOKENS = 200_000


def main() -> None:
    """Parent: let the sides take turns and print the table. Worker (``--side``): be one side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--rounds", type=int, default=turns.ROUNDS)
    parser.add_argument("--nanogpt", help="a clone of nanoGPT")
    parser.add_argument("--litgpt", help="a Python that has litgpt")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        size = SIZES[asked.sizes[0]]
        if asked.nanogpt:
            sys.path.insert(0, asked.nanogpt)
        with redirect_stdout(sys.stderr):  # nanoGPT talks
            step, facts = SIDES[asked.side](size)
        turns.work(lambda: step() or size.batch_size * size.block_size, **facts)
    else:
        compare(asked)


def compare(asked: argparse.Namespace) -> None:
    results = {}
    print("| size | side | tokens/s, median | ratio to transformers (range) | yanmo to this side (range) |")
    print("|---|---|---|---|---|")
    for name in asked.sizes:
        sides = {"transformers": sys.executable, "yanmo": sys.executable}
        sides |= {"nanoGPT": sys.executable} if asked.nanogpt else {}
        sides |= {"litgpt": asked.litgpt} if asked.litgpt else {}
        more = ["--nanogpt", asked.nanogpt] if asked.nanogpt else []
        workers = {
            side: turns.Worker(__file__, ["--side", side, "--sizes", name, *more], python)
            for side, python in sides.items()
        }
        rates = turns.take_turns(workers, asked.rounds)
        facts = {side: worker.facts for side, worker in workers.items()}
        for worker in workers.values():
            worker.close()
        for side, found in rates.items():
            print(
                f"| {name} | {side} {facts[side].get('note', '')} | {statistics.median(found):,.0f}"
                f" | {turns.told(found, rates['transformers'])} | {turns.told(rates['yanmo'], found)} |",
                flush=True,
            )
        results[name] = {"size": vars(SIZES[name]), "facts": facts, "tokens_per_s": rates}
    print(turns.save("training_step", {"sizes": results}))


# -- the sides --------------------------------------------------------------------------------


def yanmo_side(size: Size) -> tuple[Callable[[], None], dict[str, Any]]:
    """The trainer's own step on random shards."""
    import numpy as np

    from yanmo.data.batches import Batches
    from yanmo.data.shards import Tokens
    from yanmo.model.config import GPTConfig
    from yanmo.model.gpt import GPT
    from yanmo.parallel.distributed import World, autocast_for
    from yanmo.parallel.machine import configure_torch
    from yanmo.settings.recipe import decide, load_recipe
    from yanmo.train.decide import decide_device, decide_optimizer
    from yanmo.train.optim import build_optimizer
    from yanmo.train.probe import measure
    from yanmo.train.step import Loss, StepSettings, training_step

    keys = ("n_layer", "n_head", "n_embd", "block_size", "dropout")
    shape = ["model.family=gpt2", *(f"model.{key}={getattr(size, key)}" for key in keys)]
    recipe = load_recipe(
        None, [*shape, f"train.batch_size={size.batch_size}", "optim.name=adamw", "train.device=cpu"]
    )
    world = World(torch.device("cpu"))
    recipe = decide(recipe, decide_device(recipe, world) | decide_optimizer(recipe))
    config = GPTConfig.of(recipe.model, size.vocab_size)
    configure_torch(recipe.train)
    decisions, _ = measure(recipe, config, world)
    recipe = decide(recipe, decisions)
    configure_torch(recipe.train)
    model = GPT(config)
    model.initialise(0)
    model.use_attention(recipe.train.attention or "sdpa")
    model.train()
    optimizer = build_optimizer(model, recipe.optim, recipe.train.precision)
    optimizer.set_learning_rate(1e-3)
    folder = Path(tempfile.mkdtemp())
    np.random.default_rng(0).integers(size.vocab_size, size=TOKENS, dtype=np.uint16).tofile(folder / "tokens")
    np.zeros(1, dtype="<u8").tofile(folder / "starts")
    batches = Batches(
        Tokens([folder / "tokens"], "uint16", folder / "starts"), size.block_size, size.batch_size, seed=0
    )
    settings = StepSettings(
        seed=0,
        batch_size=size.batch_size,
        micro_batch_size=recipe.train.micro_batch_size or 1,
        grad_clip=1.0,
        autocast=autocast_for(world.device, recipe.train.precision),
    )
    loss_of, done = Loss(model), [0]

    def step() -> None:
        training_step(loss_of, optimizer, batches, done[0], settings, world)
        done[0] += 1

    note = f"({recipe.train.precision}, {recipe.train.attention})"
    return step, {"note": note, "decided": {key: str(value) for key, value in decisions.items()}}


def transformers_side(size: Size) -> tuple[Callable[[], None], dict[str, Any]]:
    """GPT2LMHeadModel and AdamW as in transformers' examples."""
    from peers import transformers_twin

    from yanmo.model.config import GPTConfig

    shape = (size.vocab_size, size.n_layer, size.n_head, size.n_embd, size.block_size, size.dropout)
    model = transformers_twin(GPTConfig(*shape)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    return plain_step(model, optimizer, size, lambda x, y: model(input_ids=x, labels=x).loss), {
        "note": "(float32)",
        "transformers": turns.installed("transformers"),
    }


def nanogpt_side(size: Size) -> tuple[Callable[[], None], dict[str, Any]]:
    """nanoGPT's model and optimizer."""
    from model import GPT, GPTConfig  # type: ignore[import-not-found]

    model = GPT(
        GPTConfig(
            block_size=size.block_size,
            vocab_size=size.vocab_size,
            n_layer=size.n_layer,
            n_head=size.n_head,
            n_embd=size.n_embd,
            dropout=size.dropout,
            bias=True,
        )
    ).train()
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    return plain_step(model, optimizer, size, lambda x, y: model(x, y)[1]), {"note": "(float32)"}


def litgpt_side(size: Size) -> tuple[Callable[[], None], dict[str, Any]]:
    """A Llama-shaped model of litgpt; it has no dropout."""
    from litgpt import GPT, Config  # type: ignore[import-not-found]

    model = GPT(
        Config(
            block_size=size.block_size,
            vocab_size=size.vocab_size,
            padded_vocab_size=size.vocab_size,
            n_layer=size.n_layer,
            n_head=size.n_head,
            n_embd=size.n_embd,
            rotary_percentage=1.0,
            parallel_residual=False,
            bias=False,
            norm_class_name="RMSNorm",
            mlp_class_name="LLaMAMLP",
            intermediate_size=size.n_embd * 8 // 3,
        )
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())

    return plain_step(model, optimizer, size, loss), {"note": "(float32, Llama-shaped, no dropout)"}


def plain_step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    size: Size,
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Callable[[], None]:
    """Draw a batch, forward, backward, clip, update: the loop of the examples."""
    data = torch.randint(size.vocab_size, (TOKENS,))

    def step() -> None:
        first = torch.randint(TOKENS - size.block_size - 1, (size.batch_size,))
        rows = first[:, None] + torch.arange(size.block_size + 1)
        ids = data[rows]
        loss = loss_of(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return step


SIDES = {
    "transformers": transformers_side,
    "yanmo": yanmo_side,
    "nanoGPT": nanogpt_side,
    "litgpt": litgpt_side,
}


if __name__ == "__main__":
    main()

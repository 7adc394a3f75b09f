"""nanoGPT's CPU recipe for tiny-shakespeare, and its loss by two estimators.

usage: python benchmarks/nanogpt_cpu.py TEXT [section.key=value ...]

Prints nats per character over the whole validation part in non-overlapping windows (nanoGPT reaches
1.92 by this measure), and over 20 random batches of 12 windows, nanoGPT's own estimate (1.88). The figures
of each seed go to ``benchmarks/results/nanogpt_cpu-SEED.json``.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import turns

from yanmo.checkpoint.folder import load_model, newest_first
from yanmo.core.console import Console
from yanmo.data.prepare import prepare
from yanmo.data.shards import Tokens
from yanmo.model.gpt import GPT
from yanmo.settings.recipe import load_recipe, recipe_path
from yanmo.train.trainer import train


@torch.no_grad()
def random_batches(model: GPT, tokens: Tokens, batches: int = 20, batch_size: int = 12) -> float:
    T, rng, losses = model.config.block_size, np.random.default_rng(1337), []
    for _ in range(batches):
        starts = rng.integers(0, len(tokens) - T - 1, batch_size)
        ids = torch.from_numpy(tokens.at(starts[:, None] + np.arange(T + 1)))  # (B, T + 1)
        losses.append(float(model.loss(ids[:, :-1], ids[:, 1:])) / (batch_size * T))
    return float(np.mean(losses))


def main(text: str, settings: list[str]) -> None:
    recipe = load_recipe(recipe_path("nanogpt_cpu"), [f"corpus.path={json.dumps([text])}", *settings])
    folder, console = Path("runs") / f"nanogpt_cpu-{recipe.train.seed}", Console()
    result = train(recipe, folder, console)
    model = load_model(next(newest_first(folder))).eval()
    prepared = prepare(recipe.corpus, recipe.tokenizer, recipe.data, recipe.model.block_size, console)
    characters = prepared.shards.manifest["splits"]["val"]["characters"]
    per_character = (result.progress.val_loss or 0) * len(prepared.shards.val) / characters
    estimate = random_batches(model, prepared.shards.val)
    print(f"whole validation part    {per_character:.4f} nats per character")
    print(f"20 random batches of 12  {estimate:.4f} nats per character")
    print(f"{result.progress.step} steps in {result.progress.elapsed_s:.1f} s")
    found = {
        "text": Path(text).name,
        "settings": settings,
        "nats_per_character": {"whole": per_character, "random_batches": estimate},
        "steps": result.progress.step,
        "seconds": result.progress.elapsed_s,
    }
    print(turns.save(folder.name, found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

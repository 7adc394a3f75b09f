"""A model of the demo corpus against the corpus's exact entropy, story by story.

usage: python benchmarks/demo_floor.py RUN

Adds up the model's bits over each held-out story (its end-of-text token included), in the windows of
``evaluate``, and subtracts the story's true code length. No model can be below zero but by chance:
the mean excess must not be below minus three standard errors over stories.
"""

import math
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from yanmo.checkpoint.folder import find_model_folder, load_model_and_tokenizer
from yanmo.core.console import Console
from yanmo.data.batches import validation_batches
from yanmo.data.prepare import prepare
from yanmo.model.config import IGNORED
from yanmo.settings.recipe import load_recipe
from yanmo.text.demo.stories import stories


@torch.no_grad()
def token_bits(run: Path) -> tuple[np.ndarray, list[float], list[int]]:
    """Bits of every held-out token; the true bits and the first token of every held-out story."""
    recipe = load_recipe(run / "recipe.toml")
    prepared = prepare(recipe.corpus, recipe.tokenizer, recipe.data, recipe.model.block_size, Console())
    model, tokenizer = load_model_and_tokenizer(find_model_folder(run))
    bits, val = [], prepared.shards.val
    for batch in validation_batches(val, model.config.block_size, 32, tokenizer.end_of_text):
        logits = model.eval()(torch.from_numpy(batch.inputs)).flatten(0, 1)
        targets = torch.from_numpy(batch.targets).flatten()
        nats = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")
        bits.append((nats / math.log(2))[targets != IGNORED].numpy())
    true = {story.text: story.bits for story in stories()}
    starts = val.starts.tolist()
    ends = [*starts[1:], len(val)]
    texts = [tokenizer.decode(val.slice(a, b)) for a, b in zip(starts, ends, strict=True)]
    return np.concatenate(bits), [true[text] for text in texts], starts


def excess_over_floor(run: Path) -> tuple[float, float, float]:
    """(floor, mean excess, its standard error), in bits per character."""
    bits, true, starts = token_bits(run)
    lengths = np.diff([*starts, len(bits)]) - 1  # characters: all tokens but the last
    excess = np.add.reduceat(bits, starts) - np.array(true)
    per_story = float(np.mean(lengths))
    error = float(np.std(excess, ddof=1) / math.sqrt(len(excess)))
    return sum(true) / float(lengths.sum()), float(np.mean(excess)) / per_story, error / per_story


if __name__ == "__main__":
    floor, excess, error = excess_over_floor(Path(sys.argv[1]))
    print(
        f"floor {floor:.4f}  model {floor + excess:.4f}  excess {excess:.4f} ± {error:.4f} bits per character"
    )

"""Direct preference optimisation (Rafailov et al. 2023): what was chosen becomes likelier than what was not.

With r(y) = β (log π(y|x) - log π_base(y|x)), the loss of a pair is -log σ(r(chosen) - r(rejected)).
``dpo_norm`` divides each r by the length of y in tokens (Lambert et al. 2024, "Tülu 3"). What the base says
is computed once and kept.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from yanmo.core import storage
from yanmo.data.batches import Floats
from yanmo.data.pairs import PairRows
from yanmo.data.prepared import Prepared, Sides
from yanmo.model.config import IGNORED
from yanmo.model.gpt import GPT

PAIRS_AT_ONCE = 4
"""Pairs of a pass without gradients."""
KL_PAIRS = 32
"""Held-out pairs on which the distance to the base is measured."""


class PreferenceLoss(nn.Module):
    """The loss of pairs, summed, as a module of its own that compile and DDP can wrap."""

    def __init__(self, model: GPT, beta: float, is_normalised: bool) -> None:
        super().__init__()
        self.model, self.beta, self.is_normalised = model, beta, is_normalised

    def forward(self, inputs: Tensor, targets: Tensor, reference: Tensor) -> Tensor:
        chosen, rejected = self.rewards(inputs, targets, reference)
        return -F.logsigmoid(chosen - rejected).sum()

    def rewards(self, inputs: Tensor, targets: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """r of what was chosen and of what was rejected, (B,) each."""
        gain = self.model.log_likelihoods(inputs, targets) - reference  # (2B,)
        if self.is_normalised:
            gain = gain / (targets != IGNORED).sum(1)
        chosen, rejected = torch.unflatten(self.beta * gain, 0, (-1, 2)).unbind(1)
        return chosen, rejected


@dataclass(frozen=True)
class PreferenceEvaluation:
    """What a model makes of held-out pairs."""

    loss: float
    """Nats per pair."""
    bits_per_char: float
    perplexity: float
    """Both of what was chosen."""
    reward_gap: float
    """Mean of r(chosen) - r(rejected)."""
    accuracy: float
    """Share of pairs in which it is above 0."""
    kl: float
    """KL(π ‖ base) per token, in nats, at the places of the held-out texts."""

    def row(self) -> dict[str, float]:
        """For metrics.jsonl."""
        return {
            "val_loss": self.loss,
            "val_bits_per_char": self.bits_per_char,
            "val_perplexity": self.perplexity,
            "reward_gap": self.reward_gap,
            "reward_accuracy": self.accuracy,
            "kl": self.kl,
        }

    def said(self) -> str:
        """For people."""
        return (
            f"validation loss {self.loss:.4f}, reward gap {self.reward_gap:+.3f}, {self.accuracy:.0%} of"
            f" pairs right, KL to the base {self.kl:.4f} nats per token, what was chosen"
            f" {self.bits_per_char:.3f} bits/char"
        )


@torch.no_grad()
def evaluate_pairs(
    loss_of: PreferenceLoss,
    base: GPT,
    pairs: PairRows,
    reference: Floats,
    characters: int,
    autocast: Callable[[], AbstractContextManager[None]],
) -> PreferenceEvaluation:
    """Held-out pairs, of which ``characters`` were chosen; ``base`` is the model at the beginning."""
    model, training = loss_of.model, loss_of.model.training
    device, gaps, divergences = model.tokens.weight.device, list[Tensor](), list[Tensor]()
    nats, tokens = 0.0, 0
    model.eval()
    for number, batch in enumerate(pairs.in_order(PAIRS_AT_ONCE, reference)):
        inputs, targets, said = (torch.from_numpy(array).to(device) for array in batch.arrays())
        with autocast():
            chosen, rejected = loss_of.rewards(inputs, targets, said)
            nats -= float(model.log_likelihoods(inputs[::2], targets[::2]).sum())
            tokens += int((targets[::2] != IGNORED).sum())
            if number * PAIRS_AT_ONCE < KL_PAIRS:
                divergences.append(divergence(model, base, inputs, targets))
        gaps.append((chosen - rejected).float())
    model.train(training)
    gap = torch.cat(gaps)
    return PreferenceEvaluation(
        loss=float(-F.logsigmoid(gap).mean()),
        bits_per_char=nats / math.log(2) / max(characters, 1),
        perplexity=math.exp(min(nats / tokens, 700.0)),
        reward_gap=float(gap.mean()),
        accuracy=float((gap > 0).float().mean()),
        kl=float(torch.cat(divergences).mean()),
    )


def divergence(model: GPT, base: GPT, inputs: Tensor, targets: Tensor) -> Tensor:
    """KL(model ‖ base) in nats at each place that has a target, (N,)."""
    counted = targets != IGNORED
    ours, theirs = (
        one.head(one.hidden_states(inputs)[counted]).float().log_softmax(-1) for one in (model, base)
    )
    return (ours.exp() * (ours - theirs)).sum(-1)


def reference_of(
    prepared: Prepared,
    base: Callable[[], GPT],
    named: dict[str, Any],
    autocast: Callable[[], AbstractContextManager[None]],
) -> Sides[Floats]:
    """What the base says of every row of the pairs, in nats; computed once and kept by content.

    Args:
        prepared: with pairs.
        base: gives the model at the beginning.
        named: what tells this base and arithmetic from others.
        autocast: the context of forward passes.
    """
    assert prepared.pairs is not None
    sides = {"train": prepared.pairs.train, "val": prepared.pairs.val}

    def fill(folder: Path) -> None:
        model = base()
        for side, pairs in sides.items():
            np.save(folder / f"{side}.npy", log_likelihoods(model, pairs, autocast), allow_pickle=False)

    # the name of the folder of dialogues stands for all that its pairs depend on, the template too
    key = storage.fingerprint([prepared.shards.folder.name, named])
    folder = storage.cached("references", key, fill)
    return Sides(*(np.load(folder / f"{side}.npy", allow_pickle=False) for side in sides))


@torch.no_grad()
def log_likelihoods(
    model: GPT, pairs: PairRows, autocast: Callable[[], AbstractContextManager[None]]
) -> Floats:
    """Of every row, (2 pairs,)."""
    device, found = model.tokens.weight.device, list[Tensor]()
    model.eval()
    for batch in pairs.in_order(PAIRS_AT_ONCE):
        inputs, targets = (torch.from_numpy(array).to(device) for array in batch.arrays())
        with autocast():
            found.append(model.log_likelihoods(inputs, targets).float())
    return torch.cat(found).cpu().numpy().astype(np.float32)

"""What the rules of health (``eval/health.py``) must know of a run and of its steps.

In: an open run, and the results of its steps. Out: fields for the rows of metrics.jsonl, cheaply: a sample
of each matrix is looked at before and after the steps that are logged.
"""

from typing import Any

import torch
from torch import Tensor

from yanmo.checkpoint.step_schedule import StepSchedule
from yanmo.data.text_facts import facts_of_text
from yanmo.train.decide import decide_optimizer
from yanmo.train.run import Run
from yanmo.train.step import StepResult

SAMPLED_WEIGHTS = 1 << 13
"""Weights of each matrix that are looked at."""
FROZEN = 1e-3
"""An update so much smaller than the median one is none."""


def facts_of_run(run: Run, plan: StepSchedule) -> dict[str, Any]:
    """Facts for the first row of the metrics."""
    recipe, prepared = run.recipe, run.prepared
    kind = "pairs" if prepared.pairs else "dialogues" if prepared.dialogues else "text"
    return {
        "learns": kind,
        "from_weights": recipe.model.init is not None,
        "method": recipe.finetune.method,
        "optimizer": recipe.optim.name,
        "learning_rate": recipe.optim.learning_rate,
        "usual_rate": decide_optimizer(recipe)["optim.learning_rate"],
        "warmup_steps": recipe.optim.warmup_steps or 0,
        "planned_steps": plan.total_steps_before(1),
        "precision": recipe.train.precision,
        "dropout": run.model.config.dropout,
        "width": run.model.config.n_embd,
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "vocab_size": prepared.tokenizer.vocab_size,
        "own_vocabulary": recipe.tokenizer.path is None or recipe.model.init is not None,
        "characters": prepared.shards.manifest.splits.train.characters,
        "characters_per_token": run.prepared.shards.manifest.splits.train.characters_per_token,
        "batch_size": recipe.train.batch_size,
        "windows": run.batches.windows_per_epoch,
        **facts_of_text(prepared),
    }


class Vitals:
    """Looks at the steps since the last one that was logged."""

    def __init__(self, run: Run) -> None:
        names = {parameter: name for name, parameter in run.model.named_parameters()}
        # as the optimizer has them: what somebody freezes later belongs to them, too
        self._matrices = [
            (names[parameter], parameter, group)
            for group in run.optimizer.groups
            for parameter in group["params"]
            if parameter.dim() >= 2
        ]
        self._before: list[Tensor] = []
        self._waited_s = 0.0

    def look(self) -> None:
        """Keep a sample of the weights, before a step that will be logged."""
        self._before = [sample.clone() for sample in self._samples()]

    def count(self, result: StepResult) -> None:
        """Count what a step waited for its batch."""
        self._waited_s += result.fed.seconds

    def row(self, result: StepResult, seconds: float) -> dict[str, Any]:
        """Fields for the row of a step, ``seconds`` after the last logged one."""
        waited, self._waited_s = self._waited_s, 0.0
        wait = {"data_wait": round(waited / max(seconds, 1e-9), 4)}
        return result.fed.row() | wait | (self._updates() if result.updated else {})

    @torch.no_grad()
    def _updates(self) -> dict[str, Any]:
        """Sizes of the updates relative to their matrices, weight decay left out: it pulls at all of them."""
        sizes, lengths = [], []
        for before, after, (_, _, group) in zip(self._before, self._samples(), self._matrices, strict=True):
            sizes.append((after - before * (1 - group["lr"] * group["weight_decay"])).norm())
            lengths.append(before.norm())
        # one transfer for all matrices
        found, length = torch.stack([torch.stack(sizes), torch.stack(lengths)]).double().cpu()
        ratios = (found / length)[length > 0]  # a matrix may begin at zero
        if not len(ratios):
            return {}
        least, middle, most = ratios.min(), ratios.median(), ratios.max()
        names = [name for name, _, _ in self._matrices]
        is_frozen = (found < FROZEN * middle * length) & (length > 0)
        frozen = [name for name, is_one in zip(names, is_frozen.tolist(), strict=True) if is_one]
        return {
            "update_least": float(least), "update_median": float(middle), "update_most": float(most),
            **({"frozen": frozen} if frozen else {}),
        }  # fmt: skip

    def _samples(self) -> list[Tensor]:
        # an odd distance: an even one might meet the same few columns in every row
        return [
            parameter.detach().flatten()[:: parameter.numel() // SAMPLED_WEIGHTS | 1]
            for _, parameter, _ in self._matrices
        ]

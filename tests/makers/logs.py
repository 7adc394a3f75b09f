"""Logs of runs: sound ones of several kinds, and what is wrong with a spoiled one; and steps that go wrong."""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from yanmo.data.batches import Batch, BatchSource
from yanmo.train.optim import trained_parameters
from yanmo.train.step import StepResult, training_step

Row = dict[str, Any]
STEPS = 1000
START: Row = {
    "event": "start", "schema": 1, "uniform_bits_per_char": 12.1, "unigram_bits_per_char": 8.6,
    "bigram_bits_per_char": 5.8, "learns": "text", "from_weights": False, "optimizer": "muon",
    "learning_rate": 6e-3, "usual_rate": 6e-3, "warmup_steps": 50, "planned_steps": STEPS, "precision": "float32",
    "dropout": 0.0, "width": 256, "parameters": 3_600_000, "vocab_size": 4000, "characters": 800_000,
    "characters_per_token": 1.0, "batch_size": 16, "own_vocabulary": True, "windows": 6250, "lacking_share": 0.0, "odd_share": 0.0,
    "held_out_found": 0.0,
}  # fmt: skip
KINDS: dict[str, Row] = {
    "muon": {},
    "adamw": {"optimizer": "adamw", "learning_rate": 1e-3, "usual_rate": 1e-3, "dropout": 0.1},
    "fine-tuning": {
        "from_weights": True, "optimizer": "adamw", "learning_rate": 5e-5, "usual_rate": 1e-3, "method": "full",
        "characters": 20_000, "windows": 200,
    },
    "lora": {
        "from_weights": True, "optimizer": "adamw", "learning_rate": 5e-3, "usual_rate": 5e-3, "method": "lora",
        "learns": "dialogues",
    },
    "pairs": {
        "from_weights": True, "optimizer": "adamw", "learning_rate": 1e-5, "usual_rate": 1e-5, "learns": "pairs",
    },
    "experts": {},
}  # fmt: skip
UPDATES = {"muon": 0.04, "adamw": 0.01, "fine-tuning": 4e-4, "lora": 0.4, "pairs": 8e-5, "experts": 0.05}


def sound_log(kind: str = "muon", **start: Any) -> list[Row]:
    """The rows of a run that goes well."""
    rng, facts = random.Random(kind), START | KINDS[kind] | start
    rows = [facts]
    for step in (1, *range(10, STEPS + 1, 10)):
        rows.append(train_row(kind, step, facts, rng))
        if step % 100 == 0:
            rows += evaluation_rows(kind, step)
    return [*rows, {"event": "end", "step": STEPS, "elapsed_s": 2.0 * STEPS}]


def loss_at(kind: str, step: int) -> float:
    """The training loss without its noise: from scratch, from weights, or of pairs."""
    share = math.exp(-step / 150)
    return {"pairs": 0.3 + 0.39 * share, "fine-tuning": 3.8 + 0.6 * share, "lora": 3.5 + 1.5 * share}.get(
        kind, 3.6 + 4.7 * share
    )


def train_row(kind: str, step: int, facts: Row, rng: random.Random) -> Row:
    loss = loss_at(kind, step) + rng.gauss(0, 0.05)
    row = {
        "event": "train", "step": step, "loss": loss, "loss_hex": loss.hex(),
        "lr": facts["learning_rate"] * min(step / 50, 1.0), "grad_norm": rng.lognormvariate(-0.5, 0.2),
        "tokens": step * 2048, "tokens_per_s": rng.uniform(900, 1100), "elapsed_s": 2.0 * step,
        "batch": step, "aligned": 1.0, "data_wait": 0.006, "update_least": UPDATES[kind] / 2,
        "update_median": UPDATES[kind] * min(step / 50, 1.0), "update_most": UPDATES[kind] * 4,
    }  # fmt: skip
    return row | ({"spread": rng.uniform(0.24, 0.33)} if facts["learns"] == "text" else {})


def evaluation_rows(kind: str, step: int) -> Iterator[Row]:
    loss = loss_at(kind, step) + 0.1
    if kind == "experts":
        yield from ({"event": "experts", "step": step, "layer": n, "load": [1.2, 0.8, 1.0]} for n in range(2))
    yield {
        "event": "eval", "step": step, "val_loss": loss, "val_bits_per_char": loss / math.log(2),
        "val_perplexity": math.exp(loss),
    }  # fmt: skip
    yield {
        "event": "sample",
        "step": step,
        "commonest": 0.09,
        "repeated": 0.02,
        "lost": 0.0,
        "unbalanced": 1.0,
    }


def changed(event: str, since: int, **values: Any) -> list[Row]:
    """A sound log whose rows of a kind have other values from a step on; a function is given the row."""
    return [
        row | {name: value(row) if callable(value) else value for name, value in values.items()}
        if row["event"] == event and row.get("step", 0) >= since
        else row
        for row in sound_log("experts")
    ]


def nats(bits: float, after: int = 0) -> Callable[[Row], float]:
    """A loss that comes to rest at so many bits per character."""
    return lambda row: max(loss_at("muon", row["step"] - after), bits * math.log(2))


def at_rest(bits: float) -> list[Row]:
    """A run whose losses come to rest at so many bits per character."""
    rows = changed("train", 0, loss=nats(bits))
    at = nats(bits)
    return [
        row | {"val_loss": at(row), "val_bits_per_char": at(row) / math.log(2)}
        if row["event"] == "eval"
        else row
        for row in rows
    ]


def overfitted() -> list[Row]:
    """The held-out loss rises from step 500 on, and the training loss falls."""
    rows = changed("train", 0, loss=lambda row: 5.0 - row["step"] / 400 if row["step"] > 1 else 8.3)
    return [
        row | {"val_loss": 4.5 + abs(row["step"] - 500) / 500, "val_bits_per_char": 6.5}
        if row["event"] == "eval"
        else row
        for row in rows
    ]


def with_overflows(event: Row) -> list[Row]:
    """Many float16 steps that are lost, written as rows of this kind."""
    rows = []
    for row in sound_log():
        rows.append(row)
        if row["event"] == "train" and 300 <= row["step"] < 400:
            rows.append({**event, "step": row["step"] + 1, "loss_scale": 64.0})
    return rows


SPOILED: dict[str, Callable[[], list[Row]]] = {
    "first_loss": lambda: changed(
        "train", 1, loss=lambda r: 14.0 if r["step"] == 1 else loss_at("muon", r["step"])
    ),
    "stuck_at_unigram": lambda: at_rest(8.55),
    "stuck_at_bigram": lambda: at_rest(5.75),
    "rate_too_low": lambda: changed("train", 0, update_median=1e-4),
    "rate_too_high": lambda: changed("train", 20, update_median=0.2),
    "warmup_too_long": lambda: sound_log(warmup_steps=2000),
    "dropout_too_high": lambda: sound_log(dropout=0.9),
    "spike": lambda: changed("train", 0, grad_norm=lambda r: 30.0 if r["step"] == 700 else r["grad_norm"]),
    "diverged": lambda: changed("train", 700, loss=7.5),
    "overfitting": overfitted,
    "too_little_text": lambda: sound_log(characters=8000, windows=62),
    "leaked_validation": lambda: sound_log(held_out_found=1.0),
    "repeated_batches": lambda: changed("train", 0, batch=7),
    "unshuffled": lambda: changed("train", 0, spread=0.001),
    "shifted_targets": lambda: changed("train", 0, aligned=0.03),
    "wrong_vocabulary": lambda: sound_log(lacking_share=0.01, own_vocabulary=False),
    "damaged_text": lambda: sound_log(odd_share=0.5),
    "frozen_layer": lambda: changed("train", 0, frozen=["blocks.0.mlp.up.weight"]),
    "dead_experts": lambda: changed("experts", 0, load=[1.5, 1.5, 0.0]),
    "float16_overflow": lambda: with_overflows({"event": "overflow"}),
    "data_wait": lambda: changed("train", 0, data_wait=0.4),
    "slow_machine": lambda: changed("train", 600, tokens_per_s=300.0),
    "degenerate_samples": lambda: changed("sample", 0, commonest=0.8),
}
"""A log for each rule, which only this rule speaks about."""


# -- steps that go wrong ----------------------------------------------------------------------


class Fed:
    """The training step, with a batch that something was done to; nothing else knows."""

    def __init__(self, spoil: Callable[[BatchSource, int, range | None], Batch]) -> None:
        self.spoil = spoil

    def __call__(self, loss_of: Any, optimizer: Any, batches: Any, step: int, *rest: Any) -> StepResult:
        return training_step(loss_of, optimizer, Spoiled(batches, self.spoil), step, *rest)


class Spoiled(BatchSource):
    """Batches as ``spoil`` makes them of sound ones."""

    def __init__(self, sound: BatchSource, spoil: Callable[[BatchSource, int, range | None], Batch]) -> None:
        super().__init__(sound.batch_size)
        self.sound, self.spoil, self.windows_per_epoch = sound, spoil, sound.windows_per_epoch

    def at(self, step: int, rows: range | None = None) -> Batch:
        return self.spoil(self.sound, step, rows)

    def samples(self, numbers: Any) -> Batch:
        return self.sound.samples(numbers)

    def targets_of(self, numbers: Any) -> int:
        return self.sound.targets_of(numbers)


def shifted(sound: BatchSource, step: int, rows: range | None) -> Batch:
    """Targets one place too early."""
    batch = sound.at(step, rows)
    return replace(batch, targets=np.roll(batch.targets, -1, axis=1))


def repeated(sound: BatchSource, step: int, rows: range | None) -> Batch:
    """The first batch for ever."""
    return sound.at(0, rows)


def in_order(sound: BatchSource, step: int, rows: range | None) -> Batch:
    """Windows one after another, as they stand in the text."""
    epoch = sound.samples(np.arange(sound.windows_per_epoch))
    assert epoch.places is not None
    order = np.argsort(epoch.places)
    here = order[(step * sound.batch_size + np.asarray(rows)) % len(order)]
    return Batch(epoch.inputs[here], epoch.targets[here], places=epoch.places[here])


class Frozen:
    """The training step, with a matrix that gets no gradient."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, loss_of: Any, *rest: Any) -> StepResult:
        parameter = next(p for name, p in trained_parameters(loss_of).items() if name.endswith(self.name))
        handle = parameter.register_hook(lambda gradient: gradient * 0)
        try:
            return training_step(loss_of, *rest)
        finally:
            handle.remove()

"""Ideas for a small text that is read many times: one run each, to the end of its schedule.

    python benchmarks/small_text.py TABLE TEXT -- "" "decay=0.5" "decay=0.5 dropout=0"
    python benchmarks/small_text.py TABLE TEXT --steps 540 --seeds 3 --at-once 2 -- "decay=0.5 cautious=true"

A run learns the first ``--characters`` of TEXT by yanmo's own model, batches and optimizers, with what its
settings say (:class:`Idea`; ``""`` are yanmo's defaults until 2026-11-29, but for the width: 160,000
characters are about as few for each parameter as the whole plays are at twice the width). Two texts are held
out: ``near``, what follows what is learned, and ``far``, the end of TEXT, whose names nobody has seen. Both
are measured in windows that do not overlap, with the last weights and with averages of weights: exponential
ones over shares of the run, and the mean of the last quarter's evaluations. Each run is a line of TABLE
(.jsonl); those that are there are not done again. With ``--at-once 2`` each has one thread.
"""

import argparse
import copy
import json
import math
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from ablate import read
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F

from yanmo.data.batches import Batches, validation_batches
from yanmo.data.shards import Ids
from yanmo.model.config import IGNORED, GPTConfig
from yanmo.model.gpt import GPT
from yanmo.tokenizer.char import CharTokenizer, count_characters
from yanmo.train.muon import Muon
from yanmo.train.optim import hidden_matrices
from yanmo.train.schedule import height_at
from yanmo.train.step import in_parts

AVERAGES = (0.05, 0.12)
"""Shares of a run that an exponential average of its weights looks back over."""
AVERAGE_EVERY = 5
EVALUATIONS = 20
TAIL = 5
"""Evaluations whose weights are averaged: those of the last quarter."""
CURVE = (0.4, 0.6, 0.8)
HELD_OUT = 16_000
LOOPED_FROM = 0.7
FURTHER_UNTIL = 0.66
TEMPERATURE, TEACHER_SHARE = 1.2, 0.45
NEIGHBOURS = 16


class Idea(BaseModel):
    """What a run does otherwise than yanmo does by itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rate: float = 6e-3
    table_rate: float = 1.0
    """Of embedding and head, as a multiple."""
    vector_rate: float = 1.0
    schedule: Literal["cosine", "linear", "wsd"] = "cosine"
    last_rate: float = 0.1
    """As a share of the peak."""
    cycles: int = 0
    """The last so many passes each fall from half the peak to the end's rate; their ends are averaged."""
    decay: float = 0.1
    table_decay: float | None = None
    flat_decay: bool = False
    """Decay goes by the peak of the rate all the time."""
    cautious: bool = False
    """Decay only where the update goes the same way."""
    dropout: float = 0.1
    layers: int = 4
    width: int = 128
    heads: int = 4
    tied: bool = True
    window: int = 128
    batch: int = 16
    small_batches: float = 0.0
    """For this share of the run, batches of half as many windows."""
    short_windows: float = 0.4
    long_windows: float = 0.0
    """For this last share of the run, windows of twice the length, half as many of them."""
    further: str = ""
    """Weights of the targets two, three … tokens ahead, by the same head; gone after two thirds."""
    skip: float = 0.0
    """The chance that the last block is left out of a step; earlier ones less."""
    loops: int = 1
    """How often the middle blocks are gone through in the last 30%."""
    rare: int = 1
    """Characters that occur less often are bytes."""
    swap: float = 0.0
    """The share of windows in which characters that come in bursts, as those of names do, change places."""
    chain: int = 0
    """How many teachers come one after another before this run."""
    teachers: int = 1
    """How many there are at once, whose probabilities are averaged."""
    teacher_share: float = TEACHER_SHARE
    knn: float = 0.0
    """Share of the nearest neighbours among the training text's hidden states in what is predicted."""
    smoothing: float = 0.0


@dataclass
class Text:
    """Ids of what is learned and of what is held out."""

    train: Ids
    held_out: dict[str, tuple[Ids, int]]
    """Ids and characters."""
    tokenizer: CharTokenizer


class Row:
    """Ids as :class:`Batches` reads them."""

    def __init__(self, ids: Ids) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def at(self, positions: Ids) -> Ids:
        """The ids at positions of any shape."""
        return self.ids[positions]


@dataclass
class Trial:
    """A run under way."""

    idea: Idea
    text: Text
    seed: int
    steps: int
    model: GPT
    optimizers: list[torch.optim.Optimizer]
    groups: list[dict[str, Any]]
    decays: list[tuple[nn.Parameter, float]]
    blocks: list[nn.Module]
    teachers: list[GPT] = field(default_factory=list)


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--characters", type=int, default=160_000)
    parser.add_argument("--steps", type=int, default=540)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("ideas", nargs="+")
    asked = parser.parse_intermixed_args()
    of_text = {"text": asked.text.name, "characters": asked.characters, "steps": asked.steps}
    if asked.one:
        row = of_text | {"settings": asked.ideas[0], "seed": asked.seeds}
        print(json.dumps(row | run(asked.text, row)))
        return
    wanted = [
        of_text | {"settings": idea, "seed": seed}
        for seed in range(1, asked.seeds + 1)
        for idea in asked.ideas
    ]
    done = read(asked.table)
    missing = [key for key in wanted if not any(key.items() <= row.items() for row in done)]
    threads = max((os.cpu_count() or 1) // asked.at_once, 1)
    with ThreadPoolExecutor(asked.at_once) as pool:
        for finished in as_completed([pool.submit(apart, asked.text, key, threads) for key in missing]):
            row = finished.result()
            with asked.table.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
            print(said(row), flush=True)
    print("\nall, by the best of near:")
    for row in sorted(
        (r for r in read(asked.table) if of_text.items() <= r.items()), key=lambda r: best(r, "near")
    ):
        print(said(row))


def best(row: dict[str, Any], name: str) -> float:
    """The lowest end of a run, whichever weights gave it."""
    return min(row["end"][name].values())


def said(row: dict[str, Any]) -> str:
    """A line for people."""
    ends = "  ".join(
        f"{name} {found['live']:.3f} {min(found, key=found.get):>9} {min(found.values()):.3f}"
        for name, found in row["end"].items()
    )
    settings = row["settings"] or "(as it is)"
    return f"{ends}  train {row['train']:.2f}  {row['seconds']:4.0f} s  seed {row['seed']}  {settings}"


def apart(text: Path, key: dict[str, Any], threads: int) -> dict[str, Any]:
    """A run in a process of its own."""
    command = [
        sys.executable,
        __file__,
        os.devnull,
        str(text),
        "--one",
        "--characters",
        str(key["characters"]),
    ]
    command += ["--steps", str(key["steps"]), "--seeds", str(key["seed"]), "--", key["settings"]]
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "0"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def run(path: Path, key: dict[str, Any]) -> dict[str, Any]:
    """Train once; what came of it."""
    idea = Idea(**dict(pair.split("=") for pair in key["settings"].split()))  # type: ignore[arg-type]
    text = read_text(path, key["characters"], idea.rare)
    start = time.monotonic()
    found = train(idea, text, key["seed"], key["steps"])
    return found | {
        "seconds": round(time.monotonic() - start, 1),
        "date": datetime.now(UTC).date().isoformat(),
    }


def read_text(path: Path, characters: int, rare: int) -> Text:
    """What is learned, what follows it, and the end."""
    whole = path.read_text("utf-8")
    learned = whole[:characters]
    counts = count_characters(learned)
    counts[counts < rare] = 0
    tokenizer = CharTokenizer.train(counts)
    parts = {"near": whole[characters : characters + HELD_OUT], "far": whole[-HELD_OUT:]}
    return Text(
        tokenizer.encode(learned),
        {name: (tokenizer.encode(part), len(part)) for name, part in parts.items()},
        tokenizer,
    )


def train(idea: Idea, text: Text, seed: int, steps: int) -> dict[str, Any]:
    """A run, its teachers before it."""
    teachers = []
    if idea.chain:
        for number in range(idea.teachers):
            before = idea.model_copy(update={"chain": idea.chain - 1})
            teachers.append(trained(before, text, seed + 1000 * (number + 1), steps)[0])
    return trained(idea, text, seed, steps, teachers)[1]


def trained(
    idea: Idea, text: Text, seed: int, steps: int, teachers: list[GPT] | None = None
) -> tuple[GPT, dict[str, Any]]:
    """The best weights of a run and its figures."""
    trial = begun(idea, text, seed, steps)
    trial.teachers = teachers or []
    source, kept = Source(trial), Kept(trial)
    curve, losses, step = {}, [], 0
    while source.share < 1:
        share = source.share
        set_rates(trial, share, source.passes)
        ids, targets = source.next()
        torch.manual_seed(seed * 1_000_003 + step)  # dropout
        choose_blocks(trial, share, source.chance)
        trial.model.train()
        loss = loss_of(trial, ids, targets, share) / int((targets != IGNORED).sum())
        loss.backward()  # type: ignore[no-untyped-call]
        update(trial)
        losses.append(float(loss.detach()))
        step += 1
        kept.after(step, share, source)
        for at in CURVE:
            if share < at <= source.share:
                curve[str(at)] = round(measure(trial, text)["near"], 4)
    choose_blocks(trial, 1.0, None)
    ends = kept.measured()
    last = np.mean(losses[-max(len(losses) // 20, 1) :]) / math.log(2)
    figures = {"train": round(float(last), 4), "passes": round(source.passes, 2), "updates": step}
    return copy.deepcopy(trial.model).eval(), {"end": ends, "curve": curve} | figures


class Source:
    """The batches of a run, in its order."""

    def __init__(self, trial: Trial) -> None:
        self.trial, idea = trial, trial.idea
        self.chance = np.random.default_rng(trial.seed)
        self.batches = {
            window: Batches(Row(trial.text.train), window, idea.batch, trial.seed)  # type: ignore[arg-type]
            for window in (idea.window, 2 * idea.window)
        }
        self.bursty = bursty_ids(trial.text) if idea.swap else None
        self.rows, self.total = 0, trial.steps * idea.batch
        self.passes = self.total / self.batches[idea.window].windows_per_epoch

    @property
    def share(self) -> float:
        """Of the run that is done."""
        return self.rows / self.total

    def next(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets (B, T) of the next step."""
        idea, share = self.trial.idea, self.share
        count = idea.batch // 2 if share < idea.small_batches else idea.batch
        window, numbers = idea.window, np.arange(self.rows, self.rows + count)
        if share >= 1 - idea.long_windows:
            window, numbers = 2 * window, np.arange(self.rows // 2, (self.rows + count) // 2)
        batch = self.batches[window].samples(numbers)
        self.rows += count
        ids, targets = batch.inputs, batch.targets
        if self.bursty is not None:
            size = self.trial.text.tokenizer.vocab_size
            ids, targets = swapped(ids, targets, self.bursty, idea.swap, self.chance, size)
        both = torch.from_numpy(ids), torch.from_numpy(targets)
        return (in_parts(both[0], 2), in_parts(both[1], 2)) if share < idea.short_windows else both


class Kept:
    """Averages of the weights of a run."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.parameters = trial, list(trial.model.parameters())
        self.averages = {share: self.copied() for share in AVERAGES}
        self.tail: list[list[Tensor]] = []
        self.ends: list[list[Tensor]] = []

    def copied(self) -> list[Tensor]:
        """The weights as they are now."""
        return [parameter.detach().clone() for parameter in self.parameters]

    def after(self, step: int, share: float, source: Source) -> None:
        """Follow the weights after a step, which began at this share of the run."""
        idea, now = self.trial.idea, source.share
        if step % AVERAGE_EVERY == 0:
            for of_run, average in self.averages.items():
                steps = max(min(of_run * self.trial.steps, step / 4), 1)
                weight = 1 - math.exp(-AVERAGE_EVERY / steps)
                torch._foreach_lerp_(average, [p.detach() for p in self.parameters], weight)
        if int(now * EVALUATIONS) > int(share * EVALUATIONS):
            self.tail = [*self.tail, self.copied()][-TAIL:]
        cycles = [cycle_of(at, source.passes, idea.cycles)[0] for at in (share, now)]
        if idea.cycles and cycles[1] > cycles[0]:
            self.ends.append(self.copied())

    def measured(self) -> dict[str, dict[str, float]]:
        """Bits per character of what is held out, for each average; the model keeps the best."""
        sets = {"live": self.copied()} | {f"ema{share}": kept for share, kept in self.averages.items()}
        sets |= {"tail": mean_of(self.tail)} if self.tail else {}
        sets |= {"cycles": mean_of(self.ends)} if len(self.ends) > 1 else {}
        found: dict[str, dict[str, float]] = {name: {} for name in self.trial.text.held_out}
        for name, weights in sets.items():
            give(self.parameters, weights)
            for part, bits in measure(self.trial, self.trial.text).items():
                found[part][name] = round(bits, 4)
        give(self.parameters, sets[min(found["near"], key=lambda name: found["near"][name])])
        return found


def mean_of(sets: list[list[Tensor]]) -> list[Tensor]:
    """The mean of several weights."""
    return [torch.stack(parts).mean(0) for parts in zip(*sets, strict=True)]


def begun(idea: Idea, text: Text, seed: int, steps: int) -> Trial:
    """Model and optimizers at the beginning."""
    config = GPTConfig(
        vocab_size=text.tokenizer.vocab_size, family="modern", n_layer=idea.layers, n_head=idea.heads,
        n_embd=idea.width, block_size=2 * idea.window, dropout=idea.dropout, tied_head=idea.tied,
    )  # fmt: skip
    model = GPT(config)
    model.initialise(seed)
    model.use_attention("matmul")
    hidden = list(hidden_matrices(model).values())
    inside = {id(p) for p in hidden}
    tables = [p for p in model.parameters() if p.dim() >= 2 and id(p) not in inside]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    muon = Muon([{"params": hidden, "parts": 1}], idea.rate, 0.0, 0.95, torch.float32)
    groups: list[dict[str, Any]] = [{"params": tables}, {"params": vectors}]
    adamw = torch.optim.AdamW(groups, lr=idea.rate, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.0, fused=True)
    groups = [*muon.param_groups, *adamw.param_groups]
    for group, multiple in zip(groups, (1.0, idea.table_rate, idea.vector_rate), strict=True):
        group["multiple"] = multiple * math.sqrt(256 / idea.width)
    of_table = idea.decay if idea.table_decay is None else idea.table_decay
    decays = [(p, idea.decay) for p in hidden] + [(p, of_table) for p in tables]
    return Trial(idea, text, seed, steps, model, [muon, adamw], groups, decays, list(model.blocks))


def cycle_of(share: float, passes: float, cycles: int) -> tuple[int, float]:
    """Which of the last passes' cycles it is, from 1 on, and how much of it is done."""
    place = share * passes - (passes - cycles)
    return (0, 0.0) if place < 0 else (int(place) + 1, place % 1)


def set_rates(trial: Trial, share: float, passes: float) -> None:
    """The learning rates at this share of the run."""
    idea = trial.idea
    warm = share * 20
    if warm < 1:
        height = (share + 1 / trial.steps) * 20
    elif idea.cycles and (place := cycle_of(share, passes, idea.cycles))[0]:
        height = idea.last_rate + (0.5 - idea.last_rate) * 0.5 * (1 + math.cos(math.pi * place[1]))
    elif idea.cycles:
        height = 1.0
    else:
        done = (share - 0.05) / 0.95
        height = idea.last_rate + (1 - idea.last_rate) * height_at(done, idea.schedule)
    for group in trial.groups:
        group["lr"] = idea.rate * min(height, 1.0) * group["multiple"]


def update(trial: Trial) -> None:
    """Clip, step, and decay."""
    nn.utils.clip_grad_norm_(trial.model.parameters(), 1.0)
    before = [p.detach().clone() for p, _ in trial.decays]
    for optimizer in trial.optimizers:
        optimizer.step()
        optimizer.zero_grad()
    rate = trial.idea.rate if trial.idea.flat_decay else trial.groups[0]["lr"]
    with torch.no_grad():
        for (parameter, decay), old in zip(trial.decays, before, strict=True):
            pull = old * (-rate * decay)
            if trial.idea.cautious:
                pull *= (parameter - old) * pull > 0
            parameter += pull


def choose_blocks(trial: Trial, share: float, rng: np.random.Generator | None) -> None:
    """Which blocks the next step goes through, in order."""
    idea, blocks = trial.idea, trial.blocks
    if idea.skip and rng is not None:
        chances = [idea.skip * number / (len(blocks) - 1) for number in range(len(blocks))]
        blocks = [block for block, chance in zip(blocks, chances, strict=True) if rng.random() >= chance]
    if idea.loops > 1 and share >= LOOPED_FROM:
        blocks = [blocks[0], *blocks[1:-1] * idea.loops, blocks[-1]]
    trial.model.blocks = nn.ModuleList(blocks)


def loss_of(trial: Trial, ids: Tensor, targets: Tensor, share: float) -> Tensor:
    """The sum over all targets of what is to become small."""
    idea, model = trial.idea, trial.model
    weights = [float(weight) for weight in idea.further.split(",") if weight]
    if not weights and not trial.teachers and not idea.smoothing:
        return model.loss(ids, targets)
    logits = model(ids)  # (B, T, V)
    scores = logits.log_softmax(-1)
    loss = picked(scores, targets)
    if idea.smoothing:
        loss = (1 - idea.smoothing) * loss - idea.smoothing * scores.mean(-1).sum()
    for ahead, weight in enumerate(weights, start=1):
        # the furthest is gone first
        gone = FURTHER_UNTIL * (len(weights) - ahead + 1) / len(weights)
        now = weight * max(1 - share / gone, 0.0)
        if now:
            loss = loss + now * picked(scores[:, :-ahead], targets[:, ahead:])
    if trial.teachers:
        with torch.no_grad():
            theirs = torch.stack([(t(ids) / TEMPERATURE).softmax(-1) for t in trial.teachers]).mean(0)
        ours = (logits / TEMPERATURE).log_softmax(-1)
        apart_by = F.kl_div(ours, theirs, reduction="sum") * TEMPERATURE**2
        loss = (1 - idea.teacher_share) * loss + idea.teacher_share * apart_by
    return loss


def picked(scores: Tensor, targets: Tensor) -> Tensor:
    """The sum of the targets' negative scores."""
    return F.nll_loss(scores.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")


def give(parameters: list[nn.Parameter], weights: list[Tensor]) -> None:
    """Put weights in."""
    with torch.no_grad():
        for parameter, weight in zip(parameters, weights, strict=True):
            parameter.copy_(weight)


@torch.no_grad()
def measure(trial: Trial, text: Text) -> dict[str, float]:
    """Bits per character of what is held out."""
    trial.model.eval()
    found = {}
    store = memory(trial) if trial.idea.knn else None
    for name, (ids, characters) in text.held_out.items():
        nats = 0.0
        for batch in validation_batches(Row(ids), trial.idea.window, 16, text.tokenizer.end_of_text):  # type: ignore[arg-type]
            inputs, targets = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)
            if store is None:
                nats += float(trial.model.loss(inputs, targets))
            else:
                nats += remembered(trial, store, inputs, targets)
        found[name] = nats / math.log(2) / characters
    return found


def memory(trial: Trial) -> tuple[Tensor, Tensor]:
    """Hidden states of the training text and what followed them."""
    keys, values = [], []
    ids = trial.text.train
    for batch in validation_batches(Row(ids), trial.idea.window, 16, trial.text.tokenizer.end_of_text):  # type: ignore[arg-type]
        x = trial.model.hidden_states(torch.from_numpy(batch.inputs)).flatten(0, 1)
        keys.append(x)
        values.append(torch.from_numpy(batch.targets).flatten())
    return torch.cat(keys), torch.cat(values)


def remembered(trial: Trial, store: tuple[Tensor, Tensor], inputs: Tensor, targets: Tensor) -> float:
    """Nats of the targets with the nearest neighbours' share (Khandelwal et al. 2020, "kNN-LM")."""
    keys, values = store
    x = trial.model.hidden_states(inputs).flatten(0, 1)
    p = trial.model.head(x).softmax(-1)
    distance = torch.cdist(x, keys)  # (N, M)
    near, where = distance.topk(NEIGHBOURS, largest=False)
    weight = (-near.square() / near.square().mean()).softmax(-1)
    copied = torch.zeros_like(p).scatter_add_(1, values[where].clamp_min(0), weight)
    p = (1 - trial.idea.knn) * p + trial.idea.knn * copied
    wanted = targets.flatten()
    counted = wanted != IGNORED
    return float(-p[counted].gather(1, wanted[counted, None]).log().sum())


def bursty_ids(text: Text, chunks: int = 40, number: int = 200) -> Ids:
    """The ids whose occurrences come in bursts: the variance of their counts in chunks beside the mean."""
    size = text.tokenizer.vocab_size
    counts = np.stack([np.bincount(part, minlength=size) for part in np.array_split(text.train, chunks)])
    mean = counts.mean(0)
    burst = np.where(mean * chunks >= 8, counts.var(0) / np.maximum(mean, 1e-9), 0.0)
    found: Ids = np.argsort(-burst)[:number]
    return found


def swapped(
    ids: Ids, targets: Ids, bursty: Ids, share: float, rng: np.random.Generator, size: int
) -> tuple[Ids, Ids]:
    """Some windows with these characters in other places of the vocabulary, alike in a window."""
    ids, targets = ids.copy(), targets.copy()
    for row in np.flatnonzero(rng.random(len(ids)) < share):
        other = np.arange(size)
        other[bursty] = rng.permutation(bursty)
        known = targets[row] != IGNORED
        ids[row] = other[ids[row]]
        targets[row, known] = other[targets[row, known]]
    return ids, targets


if __name__ == "__main__":
    main()

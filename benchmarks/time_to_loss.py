"""How soon a loss is reached: yanmo's families beside GPT-2 trained the usual way.

    python benchmarks/time_to_loss.py TEXT --loss 1.92 --seeds 3
    python benchmarks/time_to_loss.py TEXT --minutes 10 --seeds 3 --shape 4 4 256 128 --batch 8
    python benchmarks/time_to_loss.py TEXT --loss 1.92 --families gpt2 modern

One side is transformers' GPT2LMHeadModel (or nanoGPT's GPT without biases, with ``--nanogpt CLONE``) in
float32 with AdamW (0.9, 0.99), weight decay 0.1, clipping 1.0, warm-up 100 steps and cosine to a tenth:
nanoGPT's CPU recipe. The other sides are yanmo's families of the same shape: Muon, in the arithmetic that
its probe finds fastest, warm-up a twentieth, ``--our-schedule`` to a tenth, windows in halves for the first
``--short-windows`` of the run (yanmo's default; 0: never). ``--rates`` and ``--our-rates``
are the learning rates tried on each side, the same number of them; the tuning is by the loss on the 5% of
the text before the validation part, at seed 0. Each run is a process of its own; the probe, and evaluations
(on the validation part, of which at most 200,000 characters count, in windows that do not overlap) are
outside the clock.

With ``--loss`` a run ends when the validation loss (nats per character) is reached, or ``--minutes`` are
over; schedules have a horizon of ``--steps`` (the other side) and ``--our-steps`` (ours). Without it both
schedules follow the clock.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import turns
from peers import transformers_twin

from yanmo.model.config import GPTConfig
from yanmo.model.gpt import GPT
from yanmo.parallel.distributed import World, autocast_for
from yanmo.parallel.machine import configure_torch
from yanmo.settings.recipe import decide, load_recipe
from yanmo.settings.schema import OptimConfig
from yanmo.train.decide import SEQ_LEN_WARMUP
from yanmo.train.optim import build_optimizer
from yanmo.train.probe import measure
from yanmo.train.schedule import height_at
from yanmo.train.step import in_parts

EVALUATIONS = 20


@dataclass
class Data:
    """Token ids of the three parts."""

    train: torch.Tensor
    tuning: torch.Tensor
    val: torch.Tensor
    vocab_size: int


@dataclass(frozen=True)
class Setting:
    """What is trained, and for how long."""

    layers: int
    heads: int
    width: int
    block: int
    batch: int
    steps: int | None
    """Horizon of the schedule; None: it follows the clock."""
    seconds: float
    loss: float | None
    schedule: str
    warmup: int | None
    """Steps; None: a twentieth."""
    dropout: float = 0.0
    seq_len_warmup: float = 0.0
    """Share of the run in which windows are read in halves."""


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    side: str
    seed: int
    rate: float
    steps: int
    seconds: float
    loss: float
    reached: bool
    curve: list[tuple[float, int, float]]

    def row(self) -> str:
        """Of the Markdown table."""
        bits = self.loss / math.log(2)
        return (
            f"| {self.side} | {self.rate:g} | {self.seed} | {self.steps:,} | {self.seconds:.1f}"
            f" | {self.loss:.4f} | {bits:.3f} | {'yes' if self.reached else 'no'} |"
        )


@dataclass
class Trained:
    """A model, its optimizer step and its loss, however they are made."""

    model: torch.nn.Module
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    """Mean over all targets, in nats."""
    update: Callable[[float], None]
    """Clip, step with this learning rate, forget the gradients."""


def main() -> None:
    """Tune both sides, then race them seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--loss", type=float)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shape", type=int, nargs=4, default=(4, 4, 128, 64), metavar=("L", "H", "C", "T"))
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--our-batch", type=int)
    parser.add_argument("--steps", type=int, help="horizon of the other side's schedule")
    parser.add_argument("--our-steps", type=int, help="horizon of ours")
    parser.add_argument("--our-schedule", choices=["cosine", "linear"], default="cosine")
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3])
    parser.add_argument("--our-rates", type=float, nargs="+", default=[6e-3])
    parser.add_argument("--dropout", type=float, default=0.0, help="of our sides")
    parser.add_argument("--short-windows", type=float, default=SEQ_LEN_WARMUP, help="of our sides")
    parser.add_argument("--families", nargs="+", choices=["gpt2", "modern", "moe"], default=["gpt2"])
    parser.add_argument("--held-out", type=float, default=0.1)
    parser.add_argument("--nanogpt", help="a clone of nanoGPT; without it the other side is transformers")
    parser.add_argument("--name", default="time_to_loss", help="of the JSON file")
    parser.add_argument("--run", nargs=3, metavar=("SIDE", "RATE", "SEED"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if len(asked.rates) != len(asked.our_rates):
        parser.error("give as many --rates as --our-rates: equal effort")
    if asked.run:
        print(json.dumps(asdict(run(asked, *asked.run))))
        return
    other = "nanoGPT" if asked.nanogpt else "transformers"
    tried = {other: asked.rates} | dict.fromkeys(asked.families, asked.our_rates)
    trials = {side: tune(side, its_rates) for side, its_rates in tried.items()}
    rates = {side: best_rate(its_rates, trials[side]) for side, its_rates in tried.items()}
    runs = []
    for seed in range(1, asked.seeds + 1):
        for side in tried:
            runs.append(in_a_process(side, rates[side], seed))
            print(runs[-1].row(), flush=True)
    conclude(asked, other, rates, [trial for side in tried for trial in trials[side]], runs)


def in_a_process(side: str, rate: float, seed: int) -> Outcome:
    """This script's own arguments, and one run."""
    command = [sys.executable, __file__, *sys.argv[1:], "--run", side, str(rate), str(seed)]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Outcome(**json.loads(said.stdout.splitlines()[-1]))


def setting_of(asked: argparse.Namespace, side: str) -> Setting:
    """What the command line says of a side."""
    length = (60 * asked.minutes, asked.loss)
    if side not in asked.families:
        return Setting(*asked.shape, asked.batch, asked.steps, *length, "cosine", 100)
    batch = asked.our_batch or asked.batch
    ours = (asked.our_schedule, None, asked.dropout, asked.seq_len_warmup)
    return Setting(*asked.shape, batch, asked.our_steps, *length, *ours)


def read(text: Path, held_out: float) -> Data:
    """The characters of a text as ids; the last part is for validation, what stands before it for tuning."""
    characters = text.read_text(encoding="utf-8")
    number = {character: i for i, character in enumerate(sorted(set(characters)))}
    ids = torch.tensor([number[character] for character in characters])
    end = int(len(ids) * (1 - held_out))
    return Data(ids[:end], ids[end - end // 20 : end], ids[end:][:200_000], len(number))


def tune(side: str, rates: list[float]) -> list[Outcome]:
    """A run with each learning rate, at seed 0; none where there is one rate only."""
    trials = []
    for rate in rates if len(rates) > 1 else ():
        trials.append(in_a_process(side, rate, 0))
        print(f"tuning {side} {rate:g}: {trials[-1].loss:.4f} after {trials[-1].seconds:.1f} s", flush=True)
    return trials


def best_rate(rates: list[float], trials: list[Outcome]) -> float:
    """The one that was soonest at the loss, or lowest in the end, on the tuning part."""
    if not trials:
        return rates[0]
    return min(trials, key=lambda trial: (trial.seconds if trial.reached else math.inf, trial.loss)).rate


def run(asked: argparse.Namespace, side: str, rate: str, seed: str) -> Outcome:
    """Train once; the clock stands still during evaluations. Seed 0 is for tuning."""
    setting, data = setting_of(asked, side), read(asked.text, asked.held_out)
    train, held_out = data.train, data.val
    if seed == "0":
        train, held_out = data.train[: -len(data.tuning)], data.tuning
    torch.manual_seed(int(seed))
    if side in asked.families:
        trained = yanmo_side(setting, side, data.vocab_size, int(seed))
    else:
        trained = other_side(setting, data.vocab_size, asked.nanogpt)
    generator = torch.Generator().manual_seed(int(seed))
    spent, step, curve, reached = 0.0, 0, [], False
    interval = (setting.steps or 0) // EVALUATIONS or 25
    while spent < setting.seconds and not (setting.steps and step >= setting.steps) and not reached:
        start = time.perf_counter()
        share = step / setting.steps if setting.steps else spent / setting.seconds
        height = 0.1 + 0.9 * height_at(share, setting.schedule)
        warm = (step + 1) / setting.warmup if setting.warmup else 20 * share + 0.01
        first = torch.randint(len(train) - setting.block - 1, (setting.batch,), generator=generator)
        ids = train[first[:, None] + torch.arange(setting.block + 1)]  # (B, T + 1)
        parts = 2 if share < setting.seq_len_warmup else 1
        x, y = (in_parts(half, parts).contiguous() for half in (ids[:, :-1], ids[:, 1:]))
        loss = trained.loss_of(x, y)
        loss.backward()  # type: ignore[no-untyped-call]
        trained.update(float(rate) * height * min(warm, 1.0))
        loss.item()
        step += 1
        spent += time.perf_counter() - start
        if setting.loss and step % interval == 0:
            curve.append((round(spent, 2), step, evaluate(trained, held_out, setting.block)))
            reached = curve[-1][2] <= setting.loss
    if not curve or curve[-1][1] < step:  # no whole interval fits the last steps
        curve.append((round(spent, 2), step, evaluate(trained, held_out, setting.block)))
    final = curve[-1][2]
    reached = setting.loss is not None and final <= setting.loss
    return Outcome(side, int(seed), float(rate), step, round(spent, 2), round(final, 4), reached, curve)


@torch.no_grad()
def evaluate(trained: Trained, held_out: torch.Tensor, block: int) -> float:
    """Nats per token over all of ``held_out``, in windows that do not overlap."""
    trained.model.eval()
    count = (len(held_out) - 1) // block
    x, y = held_out[: count * block].view(-1, block), held_out[1 : count * block + 1].view(-1, block)
    parts = [float(trained.loss_of(a, b)) * len(a) for a, b in zip(x.split(32), y.split(32), strict=True)]
    trained.model.train()
    return sum(parts) / count


def yanmo_side(setting: Setting, family: Any, vocab_size: int, seed: int) -> Trained:
    """A family with Muon, computed as the product decides on this machine."""
    shape = (setting.layers, setting.heads, setting.width, setting.block, setting.dropout)
    config = GPTConfig(vocab_size, *shape, family=family)
    way = decisions(setting, config)
    model = GPT(config)
    model.initialise(seed)
    model.use_attention(way["train.attention"])
    model.train()
    optimizer = build_optimizer(model, OptimConfig(name="muon"), way["train.precision"])
    autocast = autocast_for(torch.device("cpu"), way["train.precision"])

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with autocast():
            return model.loss(x, y) / y.numel()

    def update(rate: float) -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.set_learning_rate(rate)
        optimizer.step()
        optimizer.zero_grad()

    return Trained(model, loss_of, update)


def decisions(setting: Setting, config: GPTConfig) -> dict[str, Any]:
    """What yanmo's probe chooses here."""
    settings = [f"train.batch_size={setting.batch}", f"model.block_size={setting.block}"]
    settings += [f"model.dropout={setting.dropout}", "optim.name=muon", "train.device=cpu"]
    recipe = load_recipe(None, settings)
    configure_torch(recipe.train)
    found, _ = measure(recipe, config, World(torch.device("cpu")))
    configure_torch(decide(recipe, found).train)
    return found


def other_side(setting: Setting, vocab_size: int, nanogpt: str | None) -> Trained:
    """The same architecture by transformers or nanoGPT, float32, AdamW."""
    if nanogpt:
        sys.path.insert(0, nanogpt)
        import model as nano  # type: ignore[import-not-found]

        model = nano.GPT(
            nano.GPTConfig(
                setting.block, vocab_size, setting.layers, setting.heads, setting.width, 0.0, False
            )
        )
        optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    else:
        shape = (vocab_size, setting.layers, setting.heads, setting.width, setting.block)
        model = transformers_twin(GPTConfig(*shape))
        matrices = [p for p in model.parameters() if p.dim() >= 2]
        vectors = [p for p in model.parameters() if p.dim() < 2]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99))
    model.train()

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if nanogpt:
            loss: torch.Tensor = model(x, y)[1]
            return loss
        return torch.nn.functional.cross_entropy(model(input_ids=x).logits.flatten(0, 1), y.flatten())

    def update(rate: float) -> None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return Trained(model, loss_of, update)


def conclude(
    asked: argparse.Namespace, other: str, rates: dict[str, float], trials: list[Outcome], runs: list[Outcome]
) -> None:
    """Print all runs, and the ratios seed by seed of those in which both sides came to the loss asked for."""
    print(
        "| side | learning rate | seed | steps | seconds | nats/char | bits/char | reached |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    print("\n".join(run.row() for run in runs))
    by_side = {side: [run for run in runs if run.side == side] for side in rates}
    ratios = {}
    for family in asked.families:
        pairs = zip(by_side[other], by_side[family], strict=True)
        both = [pair for pair in pairs if not asked.loss or all(run.reached for run in pair)]
        found = [a.seconds / b.seconds if asked.loss else a.loss / b.loss for a, b in both]
        ratios[family] = found
        unit = "seconds" if asked.loss else "loss"
        if found:
            low, middle, high = min(found), statistics.median(found), max(found)
            print(f"{unit}, {other} / {family}: {middle:.3f} ({low:.3f} to {high:.3f}), {len(found)} seeds")
    said = {key: value for key, value in vars(asked).items() if key not in ("text", "nanogpt", "name", "run")}
    results = {"text": asked.text.name, "asked": said, "rates": rates, "ratios": ratios}
    results |= {"tuning": [vars(trial) for trial in trials], "runs": [vars(run) for run in runs]}
    print(turns.save(asked.name, results))


if __name__ == "__main__":
    main()

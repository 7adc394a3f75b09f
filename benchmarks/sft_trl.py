"""Supervised fine-tuning beside TRL: the same base, data, window, batch and rate, in equal minutes.

    python benchmarks/sft_trl.py BASE TALK.jsonl --minutes 2 --rounds 2 [--precision float32 bfloat16]

BASE is a run or model folder; it first gets the marks of ChatML as tokens, so that both begin from one
folder. One dialogue in ten is held out by both. TRL packs (``bfd``) and learns answers only, as yanmo does.
Each side is a process of its own, in turns; tokens are the places of the rows that were read.
Held-out answers are measured by yanmo for both: bits per character. Needs trl, accelerate and datasets.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from yanmo.checkpoint.folder import find_model_folder, load_model_and_tokenizer, write_model
from yanmo.data.dialogues import DialogueEncoder, EncodingCounts, rounds
from yanmo.model.config import IGNORED
from yanmo.model.gpt import GPT
from yanmo.settings.schema import CorpusConfig
from yanmo.text.read.dialogues import read_dialogues
from yanmo.text.read.turns import Dialogue
from yanmo.tokenizer.chat_template import ChatTemplate, with_chat
from yanmo.train.base import with_rows

BATCH, RATE = 8, 5e-4


def main() -> None:
    """Run both sides in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("talk", type=Path)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precision", nargs="+", default=["float32"])
    parser.add_argument("--folder", type=Path, default=Path("sft_trl"))
    parser.add_argument("--side", choices=("yanmo", "trl"), help="one side, in this process")
    asked = parser.parse_args()
    if asked.side:
        side = train_here if asked.side == "yanmo" else train_with_trl
        print(json.dumps(side(asked.folder, asked.minutes, asked.precision[0])))
        return
    make_inputs(asked.folder, asked.base, asked.talk)
    before = held_out_bits(asked.folder / "base", asked.folder / "held_out.jsonl")
    print(f"held-out answers before: {before:.3f} bits per character\n")
    print("| precision | side | tokens/s | steps | bits per character after |\n|---|---|---|---|---|")
    for precision in asked.precision:
        found: dict[str, list[dict[str, Any]]] = {"yanmo": [], "trl": []}
        for _ in range(asked.rounds):
            for side_name, rows in found.items():
                words = [sys.executable, __file__, str(asked.base), str(asked.talk), "--side", side_name]
                words += [
                    "--minutes",
                    str(asked.minutes),
                    "--precision",
                    precision,
                    "--folder",
                    str(asked.folder),
                ]
                done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
                row = json.loads(done.stdout.splitlines()[-1])
                row["bits"] = held_out_bits(Path(row["model"]), asked.folder / "held_out.jsonl")
                rows.append(row)
        for side_name, rows in found.items():
            speed, steps, bits = (statistics.median(r[k] for r in rows) for k in ("speed", "steps", "bits"))
            print(f"| {precision} | {side_name} | {speed:,.0f} | {steps:.0f} | {bits:.3f} |")


def make_inputs(folder: Path, base: Path, talk: Path) -> None:
    """A base with the markers and the template, and dialogues to learn and to measure on."""
    folder.mkdir(parents=True, exist_ok=True)
    model, tokenizer = load_model_and_tokenizer(find_model_folder(base))
    tokenizer, template = with_chat(tokenizer, None)
    weights = with_rows(model.state_dict(), tokenizer.vocab_size, seed=0)
    config = model.config.__class__(**{**vars(model.config), "vocab_size": tokenizer.vocab_size})
    (folder / "base").mkdir(exist_ok=True)
    write_model(folder / "base", config, weights, tokenizer, template)
    lines: dict[str, list[str]] = {"learned": [], "held_out": []}
    for number, record in enumerate(read_dialogues(CorpusConfig(path=(str(talk),)))):
        assert isinstance(record, Dialogue)
        # TRL cuts what is too long, so both are given single rounds
        for messages in rounds(record.messages):
            rows = [{"role": one.role, "content": one.content} for one in messages]
            side = "held_out" if number % 10 == 0 else "learned"
            lines[side].append(json.dumps({"messages": rows}, ensure_ascii=False))
    for name, found in lines.items():
        (folder / f"{name}.jsonl").write_text("\n".join(found) + "\n", encoding="utf-8")


def train_here(folder: Path, minutes: float, precision: str) -> dict[str, Any]:
    """yanmo's side."""
    from yanmo.core.console import Console
    from yanmo.core.storage import remove_folder
    from yanmo.train.metrics import read_metrics
    from yanmo.train.request import asked_finetuning
    from yanmo.train.trainer import train

    out = folder / f"yanmo-{precision}"
    if out.exists():
        remove_folder(out)
    settings = [
        f"train.minutes={minutes}", f"train.precision={precision}", f"train.batch_size={BATCH}",
        f"optim.learning_rate={RATE}", "train.eval_interval=100000", "data.val_fraction=0.005",
    ]  # fmt: skip
    words = [str(folder / "base"), str(folder / "learned.jsonl"), *settings]
    train(*asked_finetuning(words, out, Path), Console(is_main=False))
    rows = [row for row in read_metrics(out) if row["event"] == "train"]
    return {
        "model": str(out / "model"),
        "speed": statistics.median(r["tokens_per_s"] for r in rows),
        "steps": rows[-1]["step"],
    }


def train_with_trl(folder: Path, minutes: float, precision: str) -> dict[str, Any]:
    """TRL's side."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    out, base = folder / f"trl-{precision}", folder / "base"
    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base)
    rows = [json.loads(line) for line in (folder / "learned.jsonl").read_text(encoding="utf-8").splitlines()]
    window = model.config.max_position_embeddings

    class Clock(TrainerCallback):  # type: ignore[misc]
        began = ended = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.monotonic()

        def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
            self.ended = time.monotonic()
            control.should_training_stop = self.ended - self.began >= 60 * minutes

    clock = Clock()
    config = SFTConfig(
        output_dir=str(out), max_length=window, packing=True, assistant_only_loss=True, use_cpu=True,
        bf16=precision == "bfloat16", per_device_train_batch_size=BATCH, learning_rate=RATE,
        max_steps=100_000, lr_scheduler_type="constant_with_warmup", warmup_steps=10, report_to=[],
        save_strategy="no",
        logging_steps=1_000_000, include_num_input_tokens_seen=True, disable_tqdm=True, seed=1,
    )  # fmt: skip
    trainer = SFTTrainer(
        model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[clock],
    )
    trainer.train()
    trainer.save_model(str(out))
    seen = trainer.state.num_input_tokens_seen
    return {
        "model": str(out),
        "speed": seen / (clock.ended - clock.began),
        "steps": trainer.state.global_step,
    }


@torch.no_grad()
def held_out_bits(folder: Path, talk: Path) -> float:
    """Bits per character of held-out answers."""
    model, tokenizer = load_model_and_tokenizer(find_model_folder(folder), verify=False)
    _, template = with_chat(tokenizer, None)
    encoder = DialogueEncoder(
        tokenizer, ChatTemplate(template, tokenizer), model.config.block_size, EncodingCounts()
    )
    nats, characters = 0.0, 0
    for record in read_dialogues(CorpusConfig(path=(str(talk),))):
        for document in encoder.encode(record):
            nats += nats_of(model, document.ids, document.learned)
            characters += document.characters
    return nats / math.log(2) / characters


def nats_of(model: GPT, ids: list[int], learned: list[bool]) -> float:
    """Of the tokens that are learned."""
    targets = [token if is_learned else IGNORED for token, is_learned in zip(ids, learned, strict=True)][1:]
    return float(model.loss(torch.tensor([ids[:-1]]), torch.tensor([targets])))


if __name__ == "__main__":
    main()

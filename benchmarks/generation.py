"""How fast a model writes, beside transformers' generate with its cache: greedy, the same weights.

    python benchmarks/generation.py
    python benchmarks/generation.py --batches 1 16 --tokens 100 --rounds 3

An 82M GPT-2 (10 layers, 768 wide, window 1024, vocabulary 13,317) with random weights writes ``--tokens``
tokens behind one. In float32 both must write the same text: all tokens of all rows are compared. Ratios
are to transformers in float32 and in bfloat16.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
import turns
from peers import transformers_twin

from yanmo.checkpoint.hf_names import to_hugging_face
from yanmo.generate.engine import generate_batch, make_writer
from yanmo.generate.sampling import TokenConstraints
from yanmo.model.config import GPTConfig
from yanmo.model.families import GPT2
from yanmo.model.gpt import GPT
from yanmo.settings.schema import SampleConfig

CONFIG = GPTConfig(13317, 10, 12, 768, 1024)
NEVER = CONFIG.vocab_size
"""An id that no model writes: nothing ends early."""
EXACT, HALVED = "transformers float32", "transformers bfloat16"
Writer = Callable[[int], list[list[int]]]
"""Writes so many tokens in each row; gives the rows."""


def main() -> None:
    """Parent: let the sides take turns and print the table. Worker (``--side``): be one side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=turns.ROUNDS)
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        batch = asked.batches[0]
        write = SIDES[asked.side](batch)
        turns.work(lambda: sum(map(len, write(asked.tokens))), text=write(asked.tokens))
    else:
        compare(asked)


def compare(asked: argparse.Namespace) -> None:
    """The table: a block is one text, or as many as fit into a turn."""
    results: dict[str, Any] = {}
    print(
        "| batch | side | tokens/s, median | to transformers float32 (range) | to its bfloat16 | same text |"
    )
    print("|---|---|---|---|---|---|")
    for batch in asked.batches:
        options = ["--batches", str(batch), "--tokens", str(asked.tokens)]
        workers = {side: turns.Worker(__file__, ["--side", side, *options]) for side in SIDES}
        rates = turns.take_turns(workers, asked.rounds)
        texts = {side: worker.facts["text"] for side, worker in workers.items()}
        for worker in workers.values():
            worker.close()
        for side, found in rates.items():
            same = "yes" if texts[side] == texts[EXACT] else "no"
            exact, halved = (turns.told(found, rates[theirs]) for theirs in (EXACT, HALVED))
            shown = f"{statistics.median(found):.1f} | {exact} | {halved}"
            print(f"| {batch} | {side} | {shown} | {same} |", flush=True)
        results[str(batch)] = {"tokens_per_s": rates, "same": texts["yanmo float32"] == texts[EXACT]}
        results[str(batch)]["versions"] = workers[EXACT].facts["versions"]
    print(turns.save("generation", {"tokens": asked.tokens, "batches": results}))


def yanmo_side(batch: int, precision: str) -> Writer:
    """Our own loop."""
    model = GPT(CONFIG)
    model.initialise(0)
    model = make_writer(model, torch.device("cpu"), precision, None)

    def write(tokens: int) -> list[list[int]]:
        config = SampleConfig(temperature=0, max_new_tokens=tokens, num_samples=batch)
        texts: list[list[int]] = [[] for _ in range(batch)]
        for rows in generate_batch(model, [[1]], config, TokenConstraints(NEVER)):
            for row in rows:
                texts[row.number].append(row.past.ids[-1])
        return texts

    return write


def transformers_side(batch: int, dtype: torch.dtype) -> Writer:
    """GPT2LMHeadModel.generate."""
    ours = GPT(CONFIG)
    ours.initialise(0)
    model = transformers_twin(CONFIG, eos_token_id=None, use_cache=True).eval()
    model.load_state_dict(to_hugging_face(GPT2, ours.state_dict()), strict=False)
    model.tie_weights()
    model.to(dtype)
    start = torch.ones(batch, 1, dtype=torch.long)

    def write(tokens: int) -> list[list[int]]:
        ids = model.generate(
            start, attention_mask=torch.ones_like(start), do_sample=False, pad_token_id=0,
            min_new_tokens=tokens, max_new_tokens=tokens,
        )  # fmt: skip
        texts: list[list[int]] = ids[:, 1:].tolist()
        return texts

    return write


SIDES: dict[str, Callable[[int], Writer]] = {
    EXACT: lambda batch: transformers_side(batch, torch.float32),
    HALVED: lambda batch: transformers_side(batch, torch.bfloat16),
    "yanmo float32": lambda batch: yanmo_side(batch, "float32"),
    "yanmo bfloat16": lambda batch: yanmo_side(batch, "bfloat16"),
    "yanmo int8": lambda batch: yanmo_side(batch, "int8"),
}


if __name__ == "__main__":
    sys.exit(main())

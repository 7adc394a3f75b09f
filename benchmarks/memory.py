"""What a memory of the manuscript is worth: bits per character, names written whole, loops (docs/memory.md).

    python benchmarks/memory.py TABLE --runs RUN… --texts TEXT… --play PLAY

Each measurement is one line of TABLE (.jsonl): what is there already is not done again, so the command may be
stopped and given again. Runs and texts are known by the names of their folders and files.

bits     each TEXT's first ``--characters``, each token after those before it: the model alone; with a memory
         of what stood before, by theta and share, also by its states only, without sure tokens; and dynamic
         evaluation (Krause et al. 2018): after each half window one AdamW step on the window, by rate,
         on a copy that is thrown away
writing  on from the first ``--manuscript`` characters of PLAY, three times 400 characters: the model alone,
         with a memory of the manuscript, of its own writing too, and after a pass of gradient steps over the
         manuscript. Names are PLAY's speakers that the manuscript mentions. ``labels`` counts the speaker
         lines that were written, ``whole`` those of such a name; ``names`` all its mentions; ``pairs`` is the
         loop measure, different pairs of characters in the worst 200 (1.0: no pair twice)
"""

import argparse
import copy
import json
import math
import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from yanmo.checkpoint.folder import find_model_folder, load_model_and_tokenizer
from yanmo.generate.memory import THETA, Memory, MemoryReader, Places, sure_share, windows
from yanmo.generate.score import score
from yanmo.generate.text import write_samples
from yanmo.model.gpt import GPT
from yanmo.settings.schema import SampleConfig
from yanmo.tokenizer import Tokenizer

THETAS = (10.0, 15.0, 20.0)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
WRITING_RATES = (1e-4, 3e-4, 1e-3)
SPEAKER = re.compile(r"^　　([^\s，。：；！？、…—（）①-⑳]{1,8}) ", re.MULTILINE)
"""How a speech begins in the plays: its speaker stands first, before a space."""
WORST_CHARACTERS = 200


def main() -> None:
    """Measure what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--texts", type=Path, nargs="+", required=True)
    parser.add_argument("--play", type=Path, required=True)
    parser.add_argument("--characters", type=int, default=8_000)
    parser.add_argument("--manuscript", type=int, default=8_000)
    parser.add_argument("--share", type=float, default=0.3, help="of the memory that is written with")
    parser.add_argument("--rates", type=float, nargs="*", default=[1e-4], help="of dynamic evaluation")
    asked = parser.parse_args()
    rows = read(asked.table)
    play = asked.play.read_text(encoding="utf-8")
    for run in asked.runs:
        model, tokenizer = load_model_and_tokenizer(find_model_folder(run))
        model.eval()
        at = {"run": run.name, "what": "writing", "text": asked.play.stem, "manuscript": asked.manuscript}
        for way, write in writers(asked.share).items():
            judge = partial(written, write, model, tokenizer, play, asked.manuscript)
            measure(asked.table, rows, at | {"way": way}, judge)
        for path in asked.texts:
            text = path.read_text(encoding="utf-8")[: asked.characters]
            at = {"run": run.name, "text": path.stem, "characters": len(text)}
            measure(asked.table, rows, at | {"what": "bits"}, partial(bits, model, tokenizer, text))
            for rate in asked.rates:
                key = at | {"what": "dynamic", "rate": rate}
                measure(asked.table, rows, key, partial(dynamic_bits, model, tokenizer, text, rate))
    print("\n".join([*bits_table(rows), "", *writing_table(rows)]))


def measure(
    table: Path, rows: list[dict[str, Any]], key: dict[str, Any], work: Callable[[], dict[str, Any]]
) -> None:
    """Add the row of this key, unless it is there."""
    if not any(key.items() <= row.items() for row in rows):
        rows.append(key | work())
        with table.open("a", encoding="utf-8") as file:
            file.write(json.dumps(rows[-1], ensure_ascii=False) + "\n")
        print(rows[-1], flush=True)


def read(table: Path) -> list[dict[str, Any]]:
    """The rows of a table that may not exist yet."""
    lines = table.read_text(encoding="utf-8").splitlines() if table.exists() else []
    return [json.loads(line) for line in lines]


# -- bits ---------------------------------------------------------------------------------------


def bits(model: GPT, tokenizer: Tokenizer, text: str) -> dict[str, Any]:
    """Bits per character alone, and by theta and share with a memory's states, and with all of it."""
    ids = tokenizer.encode(text)
    alone = torch.tensor([one.logprob for one in score(model, ids, tokenizer.end_of_text)])
    read = MemoryReader(model).remember([[tokenizer.end_of_text, *ids.tolist()]]).read
    memory = Memory(Places(0, read.states.size(1)), len(ids))
    found = {theta: torch.zeros(len(ids)) for theta in THETAS}
    sure: list[int | None] = []
    for place, (state, token) in enumerate(zip(read.states.float(), ids.tolist(), strict=True)):
        sure.append(memory.sure(ids[max(place - 2, 0) : place].tolist()))
        for theta in THETAS if place else ():
            memory.theta = theta
            tokens, chances = memory.recall(state)
            found[theta][place] = chances[tokens == token].sum()
        memory.note(state, token)
    is_sure = torch.tensor([one is not None for one in sure])
    is_right = torch.tensor([one == token for one, token in zip(sure, ids.tolist(), strict=True)])
    states, whole = {}, {}
    for theta, chances in found.items():
        for share in SHARES:
            name = f"{theta:g}/{share:g}"
            chances[0] = alone[0].exp()  # there is nothing to mix in
            mixed = both(alone, chances, share)
            states[name] = per_character(mixed, text)
            whole[name] = per_character(
                torch.where(is_sure, both(mixed, is_right, sure_share(share)), mixed), text
            )
    return {
        "alone": per_character(alone, text),
        "states": states,
        "memory": whole,
        "sure": int(is_sure.sum()),
        "right": int(is_right.sum()),
    }


def both(logprobs: Tensor, chances: Tensor, share: float) -> Tensor:
    """Log probabilities (N,) of the mixture."""
    return torch.logaddexp(logprobs + math.log1p(-share), chances.log() + math.log(share))


def per_character(logprobs: Tensor, text: str) -> float:
    """Bits per character of a text."""
    return float(-logprobs.sum()) / math.log(2) / len(text)


def dynamic_bits(model: GPT, tokenizer: Tokenizer, text: str, rate: float) -> dict[str, Any]:
    """Bits per character of a copy that learns from what it has read."""
    ids = [tokenizer.end_of_text, *tokenizer.encode(text).tolist()]
    return {"bits": learn(copy.deepcopy(model), ids, rate) / math.log(2) / len(text)}


def learn(model: GPT, ids: list[int], rate: float) -> float:
    """One AdamW step after each half window; the nats that each token cost before it was learned."""
    row, nats = torch.tensor(ids), 0.0
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    for start, counted in windows(len(ids) - 1, model.config.block_size):
        inputs, targets = row[start : counted.stop], row[start + 1 : counted.stop + 1]
        losses = F.cross_entropy(model(inputs[None])[0], targets, reduction="none")  # (T,)
        nats += float(losses[-len(counted) :].detach().sum())
        losses.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return nats


def bits_table(rows: list[dict[str, Any]]) -> list[str]:
    """Each run and text: alone, states only, all of it by share, the best theta/share, dynamic evaluation."""
    lines = [
        "| run | text | alone | states 0.3 |"
        + "".join(f" {share:g} |" for share in SHARES)
        + " best | dynamic |"
    ]
    lines.append("|---" * (6 + len(SHARES)) + "|")
    for row in rows:
        if row["what"] == "bits":
            memory: dict[str, float] = row["memory"]
            best = min(memory, key=lambda name: memory[name])
            shown = [f"{row['states'][f'{THETA:g}/0.3']:.3f}"]
            shown += [f"{memory[f'{THETA:g}/{share:g}']:.3f}" for share in SHARES]
            same = [other for other in rows if other["what"] == "dynamic"]
            same = [one for one in same if (one["run"], one["text"]) == (row["run"], row["text"])]
            learned = min(same, key=lambda one: float(one["bits"]), default=None)
            cells = [row["run"], row["text"], f"{row['alone']:.3f}", *shown, f"{memory[best]:.3f} ({best})"]
            cells.append(f"{learned['bits']:.3f} ({learned['rate']:g})" if learned else "")
            lines.append("| " + " | ".join(cells) + " |")
    return lines


# -- writing ------------------------------------------------------------------------------------


Write = Callable[[GPT, Tokenizer, str], list[str]]
"""Texts that continue a manuscript."""


def writers(share: float) -> dict[str, Write]:
    """The ways of writing that are compared, by their names."""

    def with_settings(**given: Any) -> Write:
        config = SampleConfig(num_samples=3, max_new_tokens=400, min_new_tokens=400, seed=1, **given)

        def write(model: GPT, tokenizer: Tokenizer, manuscript: str) -> list[str]:
            return [one.text for one in write_samples(model, tokenizer, [manuscript], config, say=len)]

        return write

    def learned(rate: float) -> Write:
        def write(model: GPT, tokenizer: Tokenizer, manuscript: str) -> list[str]:
            model = copy.deepcopy(model)
            learn(model, [tokenizer.end_of_text, *tokenizer.encode(manuscript).tolist()], rate)
            return with_settings()(model, tokenizer, manuscript)

        return write

    return {
        "alone": with_settings(),
        f"memory {share:g}": with_settings(memory=share),
        f"memory {share:g}, written too": with_settings(memory=share, memory_written=True),
        **{f"dynamic {rate:g}": learned(rate) for rate in WRITING_RATES},
        "the play itself": lambda *_: [],
    }


def written(write: Write, model: GPT, tokenizer: Tokenizer, play: str, manuscript: int) -> dict[str, Any]:
    """What can be counted in texts; none: in as many characters of the play, where the manuscript ends."""
    texts = write(model, tokenizer, play[:manuscript])
    texts = texts or [play[at : at + 400] for at in range(manuscript, manuscript + 1200, 400)]
    names = sorted(name for name in set(SPEAKER.findall(play)) if name in play[:manuscript])
    labels = [label for text in texts for label in SPEAKER.findall(text)]
    return {
        "labels": len(labels),
        "whole": sum(label in names for label in labels),
        "broken": Counter(label for label in labels if label not in names).most_common(5),
        "names": sum(text.count(name) for text in texts for name in names),
        "different": sum(any(name in text for text in texts) for name in names),
        "pairs": [round(different_pairs(text), 2) for text in texts],
    }


def different_pairs(text: str) -> float:
    """The share of pairs of characters that differ, in the worst ``WORST_CHARACTERS`` in a row."""
    pairs = [text[at : at + 2] for at in range(len(text) - 1)]
    length = min(WORST_CHARACTERS, len(pairs))
    return min(len(set(pairs[at : at + length])) / length for at in range(len(pairs) - length + 1))


def writing_table(rows: list[dict[str, Any]]) -> list[str]:
    """Each run and way of writing."""
    lines = ["| run | way | speaker lines | whole | names | different | pairs, worst 200 |", "|---" * 7 + "|"]
    for row in rows:
        if row["what"] == "writing":
            pairs = " ".join(f"{value:.2f}" for value in row["pairs"])
            cells = [row[name] for name in ("run", "way", "labels", "whole", "names", "different")]
            lines.append("| " + " | ".join(map(str, [*cells, pairs])) + " |")
    return lines


if __name__ == "__main__":
    main()

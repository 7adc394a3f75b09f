"""The model card (README.md) of an exported model, from the records of its run."""

import json
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from yanmo.checkpoint.folder import run_of
from yanmo.core.records import Manifest, read_record
from yanmo.model.gpt import GPT, count_active, count_parameters
from yanmo.settings.schema import SECTIONS, Recipe
from yanmo.tokenizer import Tokenizer, kind_of
from yanmo.train.metrics import read_metrics

PLACES = ("path", "init", "device", "workers", "threads")
"""Settings of one machine: paths and devices; they are private, and of no use to others."""


@dataclass(frozen=True)
class RunRecords:
    """The records of a model's run; all empty for a model without one."""

    recipe: Recipe | None = None
    corpus: Manifest | None = None
    metrics: tuple[dict[str, Any], ...] = ()

    @classmethod
    def of(cls, model_folder: Path, recipe: Recipe | None) -> "RunRecords":
        """Of the run that a model folder belongs to."""
        run = run_of(model_folder)
        # what came from elsewhere has no run; nothing is made up for it
        if recipe is None or run is None:
            return cls()
        return cls(recipe, read_record(run / "corpus.json", Manifest), tuple(read_metrics(run)))


def model_card(
    name: str, folder: Path, model: GPT, tokenizer: Tokenizer, past: RunRecords, sample: str
) -> str:
    """README.md of an exported ``folder``, as the Hugging Face hub shows it."""
    parts = [_front(past), f"# {in_markdown(name)}", _what(model, tokenizer, past), _use(folder)]
    if past.corpus:
        parts.append(_corpus(past.corpus))
    if any(row["event"] == "eval" for row in past.metrics):
        parts.append(_results(past.metrics, tokenizer.lossless))
    if sample.strip():
        parts.append(f"## What it writes\n\n{fenced(sample.strip(), 'text')}\n\n(one sample, unedited)")
    parts.append(
        "## Limits\n\nIt continues texts; it was not trained to answer questions or to follow instructions,"
        " and it may repeat its training text. You must state the licence of that text."
    )
    if past.recipe:
        parts.append(f"## Recipe\n\n{fenced(_settings(past.recipe), 'toml')}")
    return "\n\n".join(parts) + "\n"


def in_markdown(text: str) -> str:
    """A text within a line of Markdown, escaped so that nothing in it is markup."""
    # an underscore between letters or digits is no markup: my_run stays readable
    line = " ".join(text.split())
    return re.sub(r"(?<!\w)_|_(?!\w)|[\\`*\[\]<>&~|#$]", r"\\\g<0>", line)


def fenced(text: str, language: str) -> str:
    """A text as it is, between fences longer than any that it holds."""
    # a fence ends at as many backticks as it began with
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip(chr(10))}\n{fence}"


def _front(past: RunRecords) -> str:
    language = "language: zh\n" if past.recipe else ""  # the language of an imported model is unknown
    return f"---\n{language}library_name: transformers\npipeline_tag: text-generation\ntags:\n- yanmo\n---"


def _what(model: GPT, tokenizer: Tokenizer, past: RunRecords) -> str:
    config = model.config
    size, active = count_parameters(config), count_active(config)
    said = f"{config.kind.title} (`{config.kind.architecture}`) of {size:,} parameters"
    said += f", {active:,} of them active per token" if active < size else ""
    made = "trained" if past.recipe else "trained elsewhere and written"
    return (
        f"{said[0].upper()}{said[1:]}, {made} with [yanmo](https://pypi.org/project/yanmo)"
        f" {version('yanmo')}: {config.n_layer} layers, {config.n_head} heads, {config.n_embd} wide, a window"
        f" of {config.block_size} tokens, a {kind_of(tokenizer)} vocabulary of {tokenizer.vocab_size:,}."
    )


def _use(folder: Path) -> str:
    place = folder.as_posix() if folder.is_absolute() else f"./{folder.as_posix()}"
    code = (
        "from transformers import pipeline\n\n"
        f'write = pipeline("text-generation", model={place!r})\n'
        'print(write("从前", max_new_tokens=100, do_sample=True, temperature=0.8)[0]["generated_text"])'
    )
    return f"## Use\n\n{fenced(code, 'python')}"


def _corpus(manifest: Manifest) -> str:
    rows = [
        f"| {name} | {part.documents:,} | {part.characters:,} | {part.tokens:,} |"
        for name, part in (("train", manifest.splits.train), ("val", manifest.splits.val))
    ]
    dropped = sum(manifest.counts.documents_dropped.values())
    table = "| part | documents | characters | tokens |\n|---|---|---|---|\n" + "\n".join(rows)
    read = f"Documents read: {manifest.counts.documents_read:,}; dropped: {dropped:,}."
    return f"## Text\n\n{table}\n\n{read}"


def _results(metrics: tuple[dict[str, Any], ...], lossless: bool) -> str:
    evaluations = [row for row in metrics if row["event"] == "eval"]
    # `model` leads to the best checkpoint by validation loss, so these are its numbers, not the last ones
    best = min(evaluations, key=lambda row: float(row["val_loss"]))
    start = next((row for row in metrics if row["event"] == "start"), {})
    lines = ", ".join(
        f"{name} {start[key]:.2f}"
        for name in ("uniform", "unigram", "bigram")
        if (key := f"{name}_bits_per_char") in start
    )
    lossy = "" if lossless else " (the vocabulary loses characters: do not compare)"
    return (
        f"## Results\n\nOn held-out text, step {best['step']:,}: {best['val_bits_per_char']:.3f} bits per"
        f" character{lossy}, loss {best['val_loss']:.3f} nats per token, perplexity"
        f" {best['val_perplexity']:.1f}."
        + (f" N-gram baselines, bits per character: {lines}." if lines else "")
    )


def _settings(recipe: Recipe) -> str:
    """The recipe as TOML, without where its text and vocabulary lay on somebody's disk."""
    parts = []
    for section, values in recipe.model_dump(exclude_none=True, include={*SECTIONS}).items():
        # paths of somebody's disk are nobody else's business
        kept = {key: value for key, value in values.items() if key not in PLACES and value not in ("", ())}
        lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in kept.items()]
        parts.append("\n".join([f"[{section}]", *lines]))
    return "\n\n".join(parts) + "\n"

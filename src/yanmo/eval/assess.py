"""``yanmo evaluate``: a finished model on a text, beside the n-gram baselines.

In: a run (or any model folder) and texts; without texts, the run's own held-out part. Out: an
:class:`Assessment`. Each token is predicted from a window that slides over the text, so only the first one
has no context.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from yanmo.checkpoint.folder import find_model_folder, load_model_and_tokenizer, recorded_recipe
from yanmo.core.commands import short_path
from yanmo.core.console import Console, ProgressLine
from yanmo.core.errors import ConfigError, DataError
from yanmo.data.batches import sliding_starts
from yanmo.data.prepare import prepare
from yanmo.data.prepared import Prepared
from yanmo.data.shards import Ids
from yanmo.eval.baselines import COUNTED_TOKENS, NGramBaselines, fit_baselines
from yanmo.eval.detail import Detail, TextTokens, detail_of
from yanmo.eval.loss import Evaluation, evaluate_sliding
from yanmo.eval.ngrams import ngram_bits
from yanmo.generate.memory import MemoryReader
from yanmo.generate.score import score
from yanmo.model.gpt import GPT
from yanmo.parallel.distributed import find_device
from yanmo.parallel.machine import keep_freed_memory
from yanmo.settings.schema import CorpusConfig, Recipe
from yanmo.text.read.documents import corpus_fingerprint, read_documents
from yanmo.tokenizer import Tokenizer
from yanmo.tokenizer.roundtrip import RoundTripLoss

NAME_CHARACTERS = 24
"""Characters of a document's first line that name it."""


@dataclass(frozen=True)
class Assessment:
    """The result of a model on a text."""

    model: str
    text: str
    tokens: int
    characters: int
    window: int
    stride: int
    """Tokens between windows."""
    evaluation: Evaluation
    reference: NGramBaselines | None
    """None where the text the model was trained on is not at hand."""
    memory: float | None
    """The share of a memory of the text so far, where that was measured too."""
    with_memory: Evaluation | None
    """The same with that memory; beside the model's own figures, never in their place."""
    lossy: bool
    """The vocabulary loses characters: bits per character cannot be compared with others."""
    trained_on_it: bool
    ngrams: dict[int, float]
    """Bits per character of interpolated n-grams by their order, beside ``reference``."""
    detail: Detail | None
    """By document and by place in the window, where that was asked for."""

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        apart = ("evaluation", "with_memory", "reference", "ngrams", "detail")
        values = {key: value for key, value in vars(self).items() if key not in apart}
        by_name = {f"{order}-gram": bits for order, bits in self.ngrams.items()}
        return {
            **values,
            "loss": self.evaluation.loss,
            "perplexity": self.evaluation.perplexity,
            "bits_per_char": self.evaluation.bits_per_char,
            "bits_per_char_with_memory": self.with_memory.bits_per_char if self.with_memory else None,
            "reference_bits_per_char": asdict(self.reference) | by_name if self.reference else None,
            **(asdict(self.detail) if self.detail else {}),
        }

    def lines(self) -> list[str]:
        """For people."""
        found, lossy = self.evaluation, " (lossy: do not compare)" if self.lossy else ""
        said = [
            f"model  {self.model}",
            f"text   {self.text}: {self.characters:,} characters, {self.tokens:,} tokens",
            f"loss   {found.loss:.4f} nats per token, perplexity {found.perplexity:.2f},"
            f" {found.bits_per_char:.4f} bits per character{lossy}",
            f"by     windows of {self.window:,} tokens, a new one every {self.stride:,}"
            f" (--stride 1: full context for each token, {self.stride:,} times slower)",
        ]
        if self.with_memory:
            bits = self.with_memory.bits_per_char
            said.append(f"memory {bits:.4f} bits per character with a memory of share {self.memory:g}{lossy}")
        if self.reference:
            shown = ", ".join(f"{name} {v:.2f}" for name, v in asdict(self.reference).items() if v)
            shown += "".join(f", {order}-gram {bits:.2f}" for order, bits in self.ngrams.items())
            said.append(f"baselines  {shown}: {self.reference.describe_rank(found.bits_per_char)}")
            if expected := self.reference.expectation(found.bits_per_char):
                said.append(f"expect {expected}")
        else:
            said.append("baselines  none: the training text of this model is not available")
        said += self.detail.lines() if self.detail else ()
        if self.trained_on_it:
            said.append("warning: the model was trained on this text; the result says nothing about new text")
        return said


def evaluate(
    model: str | Path | None,
    texts: str | Path | Sequence[str | Path] = (),
    stride: int | None = None,
    device: str | None = None,
    memory: float | None = None,
) -> Assessment:
    """Bits per character of a model on ``texts``, or on its run's held-out text, for programs.

    Raises:
        YanmoError: as :func:`assess`.
    """
    several = [texts] if isinstance(texts, str | Path) else texts
    folder = None if model is None else Path(model)
    return assess(folder, tuple(map(str, several)), stride, Console(is_main=False), device, memory=memory)


def assess(
    run: Path | None,
    corpus: tuple[str, ...],
    stride: int | None,
    console: Console,
    device: str | None = None,
    verify: bool = True,
    memory: float | None = None,
    detail: bool = False,
) -> Assessment:
    """Measure the model of ``run`` on ``corpus``, or on the run's held-out text.

    Args:
        run: run, checkpoint or model folder; None: the newest run.
        corpus: files and folders.
        stride: tokens between windows; None: half a window.
        console: for progress.
        device: where to compute; None: a GPU where there is one.
        verify: verify the checksums of the model first.
        memory: measure also with a memory of the text so far, of this share.
        detail: also by document and by place in the window.

    Raises:
        ConfigError: there is no such model, the stride is larger than its window, or no text.
    """
    folder = find_model_folder(run)
    place = find_device(device, "--device")
    model, tokenizer = load_model_and_tokenizer(folder, verify)
    model.to(place)
    window, end = model.config.block_size, tokenizer.end_of_text
    stride = stride_within(window, stride)
    recipe = recorded_recipe(folder)
    if recipe and recipe.data.document_mask:
        # as in training: attention must not look across documents there either
        model.document_separator = end
    own = training_text(recipe, tokenizer, console)
    # read as the run's corpus was (field, encoding, chapters): another reading would be another text
    config = (recipe.corpus if recipe else CorpusConfig()).model_copy(update={"path": corpus})
    if not corpus and own is None:
        raise no_text(folder, recipe)
    tokens = held_out(own) if own and not corpus else read_tokens(config, tokenizer)
    ids, characters = tokens.ids, tokens.total_characters
    evaluation = measured(model, ids, characters, stride, end, console)
    remembered = with_memory(model, ids, characters, stride, end, memory, console) if memory else None
    return Assessment(
        model=str(folder),
        text=", ".join(corpus) or "the held-out part of " + ", ".join(recipe.corpus.path if recipe else ()),
        tokens=len(ids),
        characters=characters,
        window=window,
        stride=stride,
        evaluation=evaluation,
        # on this text, from the run's training part: what counting would have achieved in the model's place
        reference=fit_baselines(own.shards.train, ids, characters, tokenizer.vocab_size, end)
        if own
        else None,
        memory=memory or None,
        with_memory=remembered,
        lossy=tokens.lossy,
        ngrams=ngrams_of(own, ids, characters, tokenizer.vocab_size, end) if own else {},
        detail=parts_of(model, tokens, stride, end, console) if detail else None,
        trained_on_it=bool(corpus and own and own.shards.manifest.corpus == corpus_fingerprint(config)),
    )


def measured(
    model: GPT, ids: Ids, characters: int, stride: int, end_of_text: int, console: Console
) -> Evaluation:
    """The measure itself, by windows that overlap."""
    keep_freed_memory()  # every batch allocates the same tensors again
    starts = sliding_starts(len(ids), model.config.block_size, stride)
    with ProgressLine(console, "measuring", len(starts)) as progress:
        return evaluate_sliding(model, ids, characters, stride, end_of_text, progress.advance)


def with_memory(
    model: GPT, ids: Ids, characters: int, stride: int, end_of_text: int, share: float, console: Console
) -> Evaluation:
    """The same measure with a memory of the text before each token."""
    memory, nats = MemoryReader(model).remember([]).growing(len(ids)), 0.0
    with ProgressLine(console, "measuring with memory", len(ids)) as progress:
        for choice in score(model, ids, end_of_text, stride, memory=memory, share=share):
            nats -= choice.logprob
            progress.advance(1)
    return Evaluation(nats / len(ids), nats / math.log(2) / max(characters, 1))


def no_text(folder: Path, recipe: Recipe | None) -> ConfigError:
    """There is nothing to measure a model on."""
    sought = ", ".join(recipe.corpus.path) if recipe else "it has no recipe"
    what = "no text is named, and the run's own text is not available"
    return ConfigError(what, f"{short_path(str(folder))}: {sought}", "name one: --corpus TEXT")


def stride_within(window: int, stride: int | None) -> int:
    """Tokens between windows: as asked, else half a window.

    Raises:
        ConfigError: tokens between two windows would not be counted.
    """
    if stride is not None and stride > window:
        raise ConfigError(
            f"--stride {stride} is larger than the model's window of {window}",
            where="--stride",
            hint=f"choose at most {window}",
        )
    return stride or max(window // 2, 1)


def ngrams_of(own: Prepared, ids: Ids, characters: int, vocab_size: int, end: int) -> dict[int, float]:
    """What interpolated n-grams reach, fitted on the run's training text."""
    train = own.shards.train.slice(0, COUNTED_TOKENS)
    found = ngram_bits(train, ids, vocab_size, end)
    return {order: float(bits.sum()) / max(characters, 1) for order, bits in found if order > 2}


def parts_of(model: GPT, tokens: TextTokens, stride: int, end: int, console: Console) -> Detail:
    """By document and by place, with a bar."""
    windows = sum(
        len(sliding_starts(len(tokens.ids), model.config.block_size, step))
        for step in (stride, model.config.block_size)
    )
    with ProgressLine(console, "measuring parts", windows) as progress:
        return detail_of(model, tokens, stride, end, progress.advance)


def held_out(own: Prepared) -> TextTokens:
    """The held-out text of a run."""
    val = own.shards.val
    ids, ends = val.slice(0, len(val)), [*val.starts[1:].tolist(), len(val)]
    parts = [own.tokenizer.decode(ids[a:b].tolist()) for a, b in pairwise([0, *ends])]
    # the characters of the text itself, also where the vocabulary lost some: shared out by length
    total = own.shards.manifest.splits.val.characters
    whole = sum(map(len, parts)) or 1
    characters = [round(len(part) * total / whole) for part in parts]
    names = [part.strip().split("\n", 1)[0][:NAME_CHARACTERS] for part in parts]
    return TextTokens(ids, names, ends, characters, total, own.is_lossy)


def training_text(recipe: Recipe | None, tokenizer: Tokenizer, console: Console) -> Prepared | None:
    """The run's prepared text, from the cache or made again; None where its files are gone or changed."""
    if recipe is None:
        return None
    try:
        found = prepare(recipe.corpus, recipe.tokenizer, recipe.data, recipe.model.block_size, console)
    except (DataError, ConfigError):
        return None  # a model outlives its corpus: it can be measured without baselines
    # files may have changed since: ids of another vocabulary would give meaningless baselines
    return found if found.tokenizer.fingerprint == tokenizer.fingerprint else None


def read_tokens(corpus: CorpusConfig, tokenizer: Tokenizer) -> TextTokens:
    """A corpus as one row of tokens, each document ended."""
    parts, names, characters, lost = list[Ids](), list[str](), list[int](), RoundTripLoss()
    for document in read_documents(corpus):
        ids = tokenizer.encode(document.text)
        lost.count(document.text, tokenizer.decode(ids))
        # the same tokens around a document as in training shards, or the model would be surprised by each
        parts.append(
            np.concatenate([tokenizer.document_start, ids, [tokenizer.end_of_text]]).astype(np.int64)
        )
        names.append(Path(document.id).name)
        characters.append(len(document.text))
    if not parts:
        raise DataError("the corpus has no text", where=", ".join(corpus.path), hint="name another")
    ends = np.cumsum([len(part) for part in parts]).tolist()
    return TextTokens(np.concatenate(parts), names, ends, characters, lost.characters, bool(lost.total))

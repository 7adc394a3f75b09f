"""``yanmo evaluate --copies --writing``: does a model write, or recite, and how?

In: a run whose text is at hand. Out: an :class:`Examination`: numbers of what the model writes beside the
same numbers of held-out text. None of them is a mark for quality.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from yanmo.core.console import Console, ProgressLine
from yanmo.core.errors import ConfigError
from yanmo.data.prepare import recorded_shards
from yanmo.data.shards import ShardSet
from yanmo.data.text_index import documents_of, open_index
from yanmo.eval.bootstrap import Estimate
from yanmo.eval.copies import CONTEXT_CHARACTERS, Copies, LongestSpan, Passage, copies_in
from yanmo.eval.recall import RECALL_TOKENS, Recall, plain, recall_of
from yanmo.eval.samples import SAMPLES, Samples, draw_samples
from yanmo.eval.writing import common_characters, measured_writing
from yanmo.generate.rules import recorded_text
from yanmo.generate.writer import Writer, load

SEED = 0
MAX_INDEXED = 1 << 27
"""Characters of a training text that are indexed; of a longer one a sample, for 12 bytes each are looked up
all over the place. Longer ones take hours, too."""
COUNTED_CHARACTERS = 1_000_000
"""Characters of the training text, about, that say which are rare."""
SHOWN_CHARACTERS = 80
"""Of the longest span; a longer one is shown without its middle."""
WRITING = {
    "distinct_1": "different characters",
    "distinct_2": "different pairs",
    "distinct_3": "different triples",
    "loops": "in loops, worst 200 characters",
    "unbalanced": "quotes and brackets alone",
    "sentence_characters": "characters in a sentence",
    "rare": "rare characters",
    "not_chinese": "not Chinese",
}
"""Measures, as they are called in the table."""
INTERVALS = "in brackets, 95% of drawn samples, and of as many pieces of held-out text"
WIDE_SPACE = "\u3000"


@dataclass(frozen=True)
class CopyMeter:
    """What a model has from its training text, beside held-out text."""

    samples: Copies
    held_out: Copies
    recall: Recall
    indexed: float
    """The share of the training text in the index: of a sampled one, shares and counts are too low."""

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        longest, control = self.samples.longest, self.held_out.longest
        return {
            "samples": self.samples.shares_json(),
            "held_out": self.held_out.shares_json(),
            "longest": asdict(longest) if longest else None,
            "longest_held_out": asdict(control) if control else None,
            "indexed": self.indexed,
            **self.recall.as_json(),
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"copies: characters that stand in a row in the training text; {INTERVALS}"
        shares = self.samples.shares, self.held_out.shares
        yield from table({f"{span} or more": (share, shares[1][span]) for span, share in shares[0].items()})
        if self.indexed < 1:
            yield f"the index holds {self.indexed:.0%} of the training text, drawn: shares are lower bounds"
        if self.samples.longest:
            yield from longest_lines(self.samples.longest, self.held_out.longest)
        yield from self.recall.lines()


@dataclass(frozen=True)
class Examination:
    """What was asked for of a model."""

    model: str
    samples: Samples
    copies: CopyMeter | None
    writing: dict[str, dict[str, Estimate]] | None
    """For samples and held-out text, each measure."""

    def as_json(self) -> dict[str, Any]:
        """For ``--json``, with the samples."""
        found: dict[str, Any] = {"model": self.model, **self.samples.as_json()}
        if self.copies:
            found["copies"] = self.copies.as_json()
        if self.writing:
            sides = self.writing.items()
            found["writing"] = {side: {k: asdict(v) for k, v in of.items()} for side, of in sides}
        return found

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"model  {self.model}"
        yield self.samples.said()
        if self.copies:
            yield from self.copies.lines()
        if self.writing:
            samples, held_out = self.writing["samples"], self.writing["held_out"]
            yield f"writing: {INTERVALS}"
            yield from table({said: (samples[name], held_out[name]) for name, said in WRITING.items()})


def examine(
    run: Path | None,
    console: Console,
    copies: bool = True,
    writing: bool = True,
    samples: int = SAMPLES,
    device: str | None = None,
    verify: bool = True,
) -> Examination:
    """Write samples, and measure them and the model.

    Raises:
        ConfigError: there is no such model, its text is not at hand, or it was not taught a text.
    """
    writer = load(run, device, "float32", verify)
    shards = training_shards(writer, console)
    with ProgressLine(console, "writing samples", samples) as progress:
        written = draw_samples(writer, shards, samples, SEED, progress.advance)
    return Examination(
        model=str(writer.folder),
        samples=written,
        copies=copy_meter(writer, shards, written, console) if copies else None,
        writing=writing_of(writer, shards, written) if writing else None,
    )


def training_shards(writer: Writer, console: Console) -> ShardSet:
    """Both sides of the text of a model's run.

    Raises:
        ConfigError: it is not at hand, or the model was taught answers.
    """
    recipe, manifest = recorded_text(writer.folder)
    if manifest.splits.train.targets is not None:
        raise ConfigError(
            "this model was taught what to answer, not a text: its samples continue nothing",
            where=str(writer.folder),
            hint="leave out --copies and --writing, or name its base",
        )
    return recorded_shards(recipe, manifest, console)


def copy_meter(writer: Writer, shards: ShardSet, samples: Samples, console: Console) -> CopyMeter:
    """All about copies."""
    index = open_index(*recorded_text(writer.folder), writer.tokenizer, console, MAX_INDEXED)
    train = shards.manifest.splits.train
    with ProgressLine(console, "asking for the training text", RECALL_TOKENS) as progress:
        recall = recall_of(writer, shards, index, SEED, progress.advance)
    return CopyMeter(
        samples=copies_in(samples.written, index, SEED),
        held_out=copies_in(samples.held_out, index, SEED, len(samples.written)),
        recall=recall,
        indexed=index.characters / train.characters if train.characters > MAX_INDEXED else 1.0,
    )


def writing_of(writer: Writer, shards: ShardSet, samples: Samples) -> dict[str, dict[str, Estimate]]:
    """How the samples are written, and the held-out text."""
    common = common_characters(drawn_text(writer, shards))
    return {
        "samples": measured_writing(samples.written, common, SEED),
        "held_out": measured_writing(samples.held_out, common, SEED, len(samples.written)),
    }


def drawn_text(writer: Writer, shards: ShardSet) -> Iterator[str]:
    """Some of the training text, from all of it."""
    every = max(shards.manifest.splits.train.characters // COUNTED_CHARACTERS, 1)
    return ("".join(document) for document in documents_of(writer.tokenizer, shards.train, every))


# -- lines --------------------------------------------------------------------------------------


def table(rows: dict[str, tuple[Estimate, Estimate]]) -> Iterator[str]:
    """Samples beside held-out text."""
    width = max(map(len, rows))
    yield f"  {'':<{width}}  {'samples':<24}  held-out text"
    for name, (sample, control) in rows.items():
        apart = ("", "higher", "lower")[sample.side_of(control)]
        shown = percent if name != WRITING["sentence_characters"] else plain
        yield f"  {name:<{width}}  {shown(sample):<24}  {shown(control):<24}  {apart}".rstrip()


def percent(found: Estimate) -> str:
    """``12.3% (10.1 to 14.5)``."""
    return f"{found.value:.1%} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def longest_lines(longest: LongestSpan, control: LongestSpan | None) -> Iterator[str]:
    """The longest span of the samples, as it stands in both."""
    beside = f"; the longest of held-out text has {control.characters:,}" if control else ""
    times = "once" if longest.times == 1 else f"{longest.times:,} times"
    yield f"longest  {longest.characters:,} characters, {times} in the training text{beside}"
    yield f"  sample    {shown_passage(longest.here)}"
    yield f"  training  {shown_passage(longest.there)}"


def shown_passage(passage: Passage) -> str:
    """In one line, the span in ⟦ ⟧, such that two stand below each other."""
    before = passage.before.rjust(CONTEXT_CHARACTERS, WIDE_SPACE)
    half = SHOWN_CHARACTERS // 2
    is_long = len(passage.span) > SHOWN_CHARACTERS
    span = f"{passage.span[:half]} … {passage.span[-half:]}" if is_long else passage.span
    return f"{before}⟦{span}⟧{passage.after}".replace("\n", "⏎")

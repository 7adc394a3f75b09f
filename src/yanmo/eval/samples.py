"""What a model writes where held-out text begins, and that text in pieces of the same length.

In: a model and the shards of its run. Out: :class:`Samples`, the same for a seed. Held-out text is the only
fair measure beside a sample: it is as the training text is, and nobody copied it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from yanmo.core.console import counted
from yanmo.data.prepared import Prepared
from yanmo.data.shards import ShardSet
from yanmo.data.text_index import documents_of
from yanmo.generate.engine import RunningSequence, rows_together
from yanmo.generate.sampling import TokenConstraints
from yanmo.generate.text import encode_prompt
from yanmo.generate.text_engine import TextEngine
from yanmo.generate.writer import Writer
from yanmo.settings.schema import SampleConfig

SAMPLES = 20
SAMPLE_CHARACTERS = 300
HELD_OUT_PIECES = 1000
"""Pieces of held-out text at most, from all of it."""


@dataclass(frozen=True)
class Samples:
    """Texts that a model wrote, and texts to compare them with."""

    openings: tuple[str, ...]
    """What each sample continues: the beginnings of lines spread over the held-out text."""
    written: tuple[str, ...]
    """Without the opening; shorter than others where the model ended it."""
    held_out: tuple[str, ...]
    config: SampleConfig

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        pairs = zip(self.openings, self.written, strict=True)
        config = self.config
        return {
            "seed": config.seed,
            "temperature": config.temperature,
            "top_p": config.top_p,
            "samples": [{"prompt": opening, "text": text} for opening, text in pairs],
            "held_out_pieces": len(self.held_out),
        }

    def said(self) -> str:
        """For people."""
        config = self.config
        return (
            f"{counted(len(self.written), 'sample')} of up to {SAMPLE_CHARACTERS} characters (seed"
            f" {config.seed}, temperature {config.temperature:g}, top_p {config.top_p:g}; --json lists them)"
            f" beside {counted(len(self.held_out), 'piece')} of held-out text"
        )


def draw_samples(
    writer: Writer, shards: ShardSet, count: int, seed: int, advance: Callable[[int], object]
) -> Samples:
    """Write ``count`` samples with the usual settings; ``advance`` is called with the number that ended."""
    prepared = Prepared(writer.tokenizer, shards, 0.0)
    openings = prepared.openings(count, writer.model.config.block_size)
    # more tokens than characters: those of rare characters are parts of one
    config = SampleConfig(seed=seed, max_new_tokens=SAMPLE_CHARACTERS)
    written = [text[:SAMPLE_CHARACTERS] for text in continued(writer, openings, config, advance)]
    documents = ("".join(document) for document in documents_of(writer.tokenizer, shards.val))
    pieces = [piece for document in documents for piece in pieces_of(document)]
    held_out = pieces[:: -(-len(pieces) // HELD_OUT_PIECES) or 1]
    return Samples(tuple(openings), tuple(written), tuple(held_out), config)


def pieces_of(document: str) -> list[str]:
    """A document in pieces as long as a sample; a short one is whole, a short end is left out."""
    size = SAMPLE_CHARACTERS
    ends = range(size, max(len(document), size) + 1, size)
    return [piece for end in ends if (piece := document[end - size : end])]


def continued(
    writer: Writer, prompts: Sequence[str], config: SampleConfig, advance: Callable[[int], object]
) -> list[str]:
    """What follows each prompt, without it; each with random numbers of its own."""
    model, tokenizer = writer.model, writer.tokenizer
    rules, window = TokenConstraints.of(tokenizer, config), model.config.block_size
    ids = [encode_prompt(tokenizer, one, config, window, say=lambda _: None).ids for one in prompts]
    texts = {RunningSequence(one, config, rules, number=n): [""] for n, one in enumerate(ids)}
    engine = TextEngine(model, tokenizer, max(min(len(texts), rows_together(model)), 1))
    for row in texts:
        engine.add(row)
    while engine.is_busy:
        for row, pieces in engine.step():
            texts[row] += [piece.text for piece in pieces]
            advance(row.ended)
    return ["".join(text) for text in texts.values()]

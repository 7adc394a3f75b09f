"""How much of its training text a model knows by heart: passages that it goes on with, bits that it saves.

In: a model, its training and its held-out text. Out: for both the share of passages whose next characters it
writes exactly (Carlini et al. 2021), and the bits that a character costs (Morris et al. 2025).
"""

import math
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from yanmo.data.shards import Ids, ShardSet, Tokens
from yanmo.data.text_index import DOCUMENT_END, TextIndex, documents_of
from yanmo.eval.bootstrap import Estimate, Portion, estimate
from yanmo.eval.loss import evaluate_sliding
from yanmo.eval.samples import continued
from yanmo.generate.writer import Writer
from yanmo.settings.schema import SampleConfig

PASSAGES = 100
PROMPT_CHARACTERS = 50
EXACT_CHARACTERS = 50
DRAWS_PER_PASSAGE = 20
"""Places looked at for a passage: some have the end of a document too near."""
MEASURED_TOKENS = 1 << 16
PIECE_TOKENS = 512
"""Bits are measured on so many tokens of either text, in pieces of so many, or of a window that is longer."""

WRITTEN_COSTS = 10
"""Tokens that are read in the time in which one is written, about."""
RECALL_TOKENS = 2 * (MEASURED_TOKENS + WRITTEN_COSTS * PASSAGES * EXACT_CHARACTERS)


@dataclass(frozen=True)
class Extraction:
    """Of passages of 50 characters, how many a model goes on with for 50 more, word for word."""

    passages: int
    exact: Estimate


@dataclass(frozen=True)
class Recall:
    """What a model knows of its training text, beside text that it never saw."""

    training: Extraction
    held_out: Extraction
    training_bits: Estimate
    """Per character."""
    held_out_bits: Estimate
    characters: int
    """Of the training text."""

    @property
    def learned_megabits(self) -> float:
        """What the training text costs less than as much held-out text would."""
        return max(self.held_out_bits.value - self.training_bits.value, 0.0) * self.characters / 1e6

    @property
    def text_megabits(self) -> float:
        """What as much held-out text would cost."""
        return self.held_out_bits.value * self.characters / 1e6

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        sizes = {"prompt_characters": PROMPT_CHARACTERS, "exact_characters": EXACT_CHARACTERS}
        bits = {
            "training": asdict(self.training_bits),
            "held_out": asdict(self.held_out_bits),
            "learned_megabits": self.learned_megabits,
            "text_megabits": self.text_megabits,
        }
        sides = {"training": asdict(self.training), "held_out": asdict(self.held_out)}
        return {"extraction": sizes | sides, "bits": bits}

    def lines(self) -> list[str]:
        """For people."""
        exact = ", ".join(
            f"{side.exact.value:.1%} of {side.passages} passages of {text} text"
            for side, text in ((self.training, "the training"), (self.held_out, "held-out"))
        )
        return [
            f"extraction  {PROMPT_CHARACTERS} characters are continued with the next {EXACT_CHARACTERS}"
            f" exactly: {exact}",
            f"bits per character  {plain(self.training_bits)} of training text,"
            f" {plain(self.held_out_bits)} of held-out text",
            f"learned by heart  {self.learned_megabits:.2f} Mbit of {self.text_megabits:.2f}, if held-out"
            " text is as hard as the training text",
        ]


def plain(found: Estimate) -> str:
    """``4.81 (4.75 to 4.88)``."""
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


def recall_of(
    writer: Writer, shards: ShardSet, index: TextIndex, seed: int, advance: Callable[[int], object]
) -> Recall:
    """Measure a model; ``advance`` is called with the tokens that are done, about ``RECALL_TOKENS``."""
    documents = ("".join(document) for document in documents_of(writer.tokenizer, shards.val))
    held_out = DOCUMENT_END.join(documents)
    known = draw_passages(index.read, index.characters, seed)
    unknown = draw_passages(lambda at, size: held_out[at : at + size], len(held_out), seed)
    return Recall(
        training=extraction(writer, known, advance),
        held_out=extraction(writer, unknown, advance),
        training_bits=bits_per_character(writer, shards.train, seed, advance),
        held_out_bits=bits_per_character(writer, shards.val, seed, advance),
        characters=shards.manifest.splits.train.characters,
    )


def draw_passages(read: Callable[[int, int], str], characters: int, seed: int) -> list[str]:
    """Passages from drawn places of a text, each within a document; ``read`` reads it from a place on."""
    size = PROMPT_CHARACTERS + EXACT_CHARACTERS
    places = range(max(characters - size, 0))
    drawn = random.Random(seed).sample(places, min(PASSAGES * DRAWS_PER_PASSAGE, len(places)))
    found = (read(place, size) for place in drawn)
    return list(islice((text for text in found if DOCUMENT_END not in text), PASSAGES))


def extraction(writer: Writer, passages: list[str], advance: Callable[[int], object]) -> Extraction:
    """How many of the passages are continued as they go on, greedily."""
    wanted = [text[PROMPT_CHARACTERS:] for text in passages]
    longest = max((len(writer.tokenizer.encode(text)) for text in wanted), default=1)
    config = SampleConfig(temperature=0, max_new_tokens=longest)
    prompts = [text[:PROMPT_CHARACTERS] for text in passages]
    written = continued(writer, prompts, config, lambda done: advance(done * WRITTEN_COSTS * longest))
    exact = [Portion(new.startswith(text), 1) for new, text in zip(written, wanted, strict=True)]
    return Extraction(len(passages), estimate(exact))


def bits_per_character(
    writer: Writer, tokens: Tokens, seed: int, advance: Callable[[int], object]
) -> Estimate:
    """Of pieces of a text, drawn where there are more than are measured; each is read by itself."""
    size = max(PIECE_TOKENS, writer.model.config.block_size)
    starts = range(0, len(tokens), size)
    found = []
    for start in sorted(random.Random(seed).sample(starts, min(MEASURED_TOKENS // size, len(starts)))):
        found.append(bits_of(writer, tokens.slice(start, start + size)))
        advance(size)
    return estimate(found, seed)


def bits_of(writer: Writer, ids: Ids) -> Portion:
    """Of a piece, in windows that do not overlap: its bits, and its characters."""
    model, tokenizer = writer.model, writer.tokenizer
    stream = tokenizer.stream()
    characters = sum(len(stream.push(token)) for token in ids.tolist())
    found = evaluate_sliding(model, ids, characters, model.config.block_size, tokenizer.end_of_text)
    return Portion(found.loss * len(ids) / math.log(2), characters)

"""Where a model's bits lie: by document, and by place in the window.

In: nats of each token of a text. Out: bits per character of each document; and of tokens that have so many
others before them in their window, which says what a longer window would be worth.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from yanmo.data.shards import Ids
from yanmo.eval.loss import token_nats
from yanmo.model.gpt import GPT

Nats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MeasuredPart:
    """A document, or places of the window."""

    name: str
    tokens: int
    bits_per_char: float


@dataclass(frozen=True)
class TextTokens:
    """A text as one row of tokens, each document ended."""

    ids: Ids
    names: Sequence[str]
    """Of the documents."""
    ends: Sequence[int]
    """Where they end in the row."""
    characters: Sequence[int]
    """That they have."""
    total_characters: int
    lossy: bool
    """Whether the vocabulary lost some."""


@dataclass(frozen=True)
class Detail:
    """The parts."""

    documents: tuple[MeasuredPart, ...]
    positions: tuple[MeasuredPart, ...]

    def lines(self) -> Iterator[str]:
        """For people; the documents with the most bits first, and no more than ``SHOWN``."""
        worst = sorted(self.documents, key=lambda part: -part.bits_per_char)
        yield f"documents  bits per character, the hardest of {len(worst):,} first"
        for part in worst[:SHOWN]:
            yield f"  {part.bits_per_char:7.3f}  {part.tokens:>9,} tokens  {part.name}"
        yield "window     bits per character by the tokens before one, in windows that do not overlap"
        for part in self.positions:
            yield f"  {part.bits_per_char:7.3f}  {part.tokens:>9,} tokens  {part.name}"


SHOWN = 20


def detail_of(
    model: GPT, text: TextTokens, stride: int, end_of_text: int, advance: Callable[[int], object]
) -> Detail:
    """Both, by two passes over the text."""
    nats, _ = token_nats(model, text.ids, stride, end_of_text, advance)
    fresh, places = token_nats(model, text.ids, model.config.block_size, end_of_text, advance)
    per_token = text.total_characters / max(len(text.ids), 1)
    return Detail(tuple(by_document(nats, text)), tuple(by_place(fresh, places, per_token)))


def by_document(nats: Nats, text: TextTokens) -> Iterator[MeasuredPart]:
    """Each document, the cost of ending it included."""
    for name, first, end, characters in zip(
        text.names, (0, *text.ends), text.ends, text.characters, strict=False
    ):
        yield MeasuredPart(name, end - first, float(nats[first:end].sum()) / math.log(2) / max(characters, 1))


def by_place(
    nats: Nats, places: npt.NDArray[np.int64], characters_per_token: float
) -> Iterator[MeasuredPart]:
    """Tokens with 0, 1, 2 to 3, 4 to 7 … others before them in their window."""
    bounds = [0, *(1 << n for n in range(int(places.max(initial=0)).bit_length() + 1))]
    for first, end in pairwise(bounds):
        here = nats[(places >= first) & (places < end)]
        if len(here):
            said = f"{first:,}" if end == first + 1 else f"{first:,} to {end - 1:,}"
            # a token stands for so many characters on average, wherever it is in the window
            yield MeasuredPart(said, len(here), float(here.mean()) / math.log(2) / characters_per_token)

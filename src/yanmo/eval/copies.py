"""How much of some texts stands word for word in the training text.

In: the index of the training text (``data/text_index.py``) and texts. Out: :class:`Copies`: the share of
characters in long spans that stand there, and the longest span with what stands around it in both.

Any two texts of a language have short spans in common, and a formula or a proverb is a long one. So a share
says something beside that of text that is known not to be copied: the held-out text.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from yanmo.data.text_index import DOCUMENT_END, Matches, TextIndex
from yanmo.eval.bootstrap import Estimate, Part, estimate

SPANS = (8, 13, 20, 50)
"""Characters in a row from which on a span counts."""
CONTEXT_CHARACTERS = 20
"""What is shown on each side of the longest span."""


@dataclass(frozen=True)
class Passage:
    """A span, and what stands around it."""

    before: str
    span: str
    after: str

    @classmethod
    def of(cls, text: str, start: int, length: int) -> "Passage":
        """A span of a text, with some characters on each side."""
        end = start + length
        before = text[max(start - CONTEXT_CHARACTERS, 0) : start]
        return cls(before, text[start:end], text[end : end + CONTEXT_CHARACTERS])


@dataclass(frozen=True)
class LongestSpan:
    """The longest span of some texts that stands in the training text; of several, the first."""

    characters: int
    times: int
    """How often it stands there."""
    text: int
    """The number of the text that has it, from 0."""
    here: Passage
    there: Passage
    """The first place of the training text; nothing of another document stands around it."""


@dataclass(frozen=True)
class Copies:
    """What some texts have in common with the training text."""

    texts: int
    characters: int
    shares: dict[int, Estimate]
    """For each length of ``SPANS``: the share of characters in spans of so many or more."""
    longest: LongestSpan | None
    """None: not even one character stands there."""

    def shares_json(self) -> dict[str, Any]:
        """The shares, by the length of spans."""
        return {str(span): asdict(share) for span, share in self.shares.items()}


def copies_in(texts: Sequence[str], index: TextIndex, seed: int = 0) -> Copies:
    """Measure some texts; ``seed`` is that of the intervals."""
    found = index.matches(texts, max(map(len, texts), default=0))
    shares = {
        span: estimate([Part(int(one.covered(span).sum()), len(one.lengths)) for one in found], seed)
        for span in SPANS
    }
    return Copies(len(texts), sum(map(len, texts)), shares, longest_span(texts, found, index))


def longest_span(texts: Sequence[str], found: Sequence[Matches], index: TextIndex) -> LongestSpan | None:
    """The longest of the matches, and where it stands."""
    lengths = [int(one.lengths.max(initial=0)) for one in found]
    characters = max(lengths, default=0)
    if not characters:
        return None
    number = lengths.index(characters)
    start = int(found[number].lengths.argmax())
    places = index.places(found[number].slots[:, start])
    here = Passage.of(texts[number], start, characters)
    return LongestSpan(characters, len(places), number, here, passage_at(int(places[0]), characters, index))


def passage_at(place: int, length: int, index: TextIndex) -> Passage:
    """A span of the training text with what stands around it in its document."""
    start = max(place - CONTEXT_CHARACTERS, 0)
    text = index.read(start, place - start + length + CONTEXT_CHARACTERS)
    found = Passage.of(text, place - start, length)
    before, after = found.before.rpartition(DOCUMENT_END)[2], found.after.partition(DOCUMENT_END)[0]
    return Passage(before, found.span, after)

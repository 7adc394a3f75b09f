"""How much of some texts stands word for word in the training text.

In: the index of the training text (``data/text_index.py``) and texts. Out: :class:`Copies`: the share of
characters in long spans that stand there, and the longest span with what stands around it in both.

Any two texts of a language have short spans in common, and a formula or a proverb is a long one. So a share
says something beside that of text that is known not to be copied: the held-out text. Blanks do not count.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from yanmo.data.text_index import DOCUMENT_END, Matches, Places, TextIndex
from yanmo.eval.bootstrap import Estimate, Portion, estimate

SPANS = (8, 13, 20, 50)
"""Characters in a row, without blanks, from which on a span counts."""
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


def copies_in(texts: Sequence[str], index: TextIndex, seed: int = 0, draw: int | None = None) -> Copies:
    """Measure some texts; the rest is for their intervals."""
    matched = index.matches(texts, max(map(len, texts), default=0))
    found = [MatchedText.of(text, one) for text, one in zip(texts, matched, strict=True)]
    shares = {span: estimate([one.copied(span) for one in found], seed, draw) for span in SPANS}
    characters = sum(int(one.is_visible.sum()) for one in found)
    return Copies(len(texts), characters, shares, longest_span(found, index))


@dataclass(frozen=True)
class MatchedText:
    """A text of N characters with its matches."""

    text: str
    is_visible: npt.NDArray[np.bool_]
    """(N,) Blanks are not: a hundred in a row are no copy."""
    matches: Matches
    sizes: Places
    """(N,) The visible characters of each match."""

    @classmethod
    def of(cls, text: str, matches: Matches) -> "MatchedText":
        """Count what is visible."""
        is_visible = np.array([not one.isspace() for one in text], dtype=bool)
        before = np.append(0, is_visible.cumsum())  # (N + 1,)
        places = np.arange(len(text))
        return cls(text, is_visible, matches, before[places + matches.lengths] - before[places])

    def copied(self, span: int) -> Portion:
        """Of its visible characters, those in matches with so many of them."""
        covered = self.matches.covered(self.sizes >= span)
        return Portion(int((covered & self.is_visible).sum()), int(self.is_visible.sum()))


def longest_span(found: Sequence[MatchedText], index: TextIndex) -> LongestSpan | None:
    """The longest of the matches, and where it stands."""
    sizes = [int(one.sizes.max(initial=0)) for one in found]
    characters = max(sizes, default=0)
    if not characters:
        return None
    number = sizes.index(characters)
    text, start = found[number].text, int(found[number].sizes.argmax())
    span = text[start : start + int(found[number].matches.lengths[start])].strip()
    # without the blanks at its ends it may stand in more places
    places = index.places(index.matches([span], len(span))[0].slots[:, 0])
    here = Passage.of(text, text.index(span, start), len(span))
    return LongestSpan(characters, len(places), number, here, passage_at(int(places[0]), len(span), index))


def passage_at(place: int, length: int, index: TextIndex) -> Passage:
    """A span of the training text with what stands around it in its document."""
    start = max(place - CONTEXT_CHARACTERS, 0)
    text = index.read(start, place - start + length + CONTEXT_CHARACTERS)
    found = Passage.of(text, place - start, length)
    before, after = found.before.rpartition(DOCUMENT_END)[2], found.after.partition(DOCUMENT_END)[0]
    return Passage(before, found.span, after)

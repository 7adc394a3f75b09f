"""No N characters in a row of the training text are ever completed by what is written.

In: the index of the training text (``data/text_index.py``), a tokenizer, N. Out: a rule of the text for the
engine.

A token is judged by every character that it would complete. It is barred if for some i its first i characters
follow the last N - i characters of the text in the training text, or if N of its own characters in a row
stand there. While no end of the text as long as N minus the longest token occurs, nothing is looked up.
End-of-text completes no character, so it is never barred, and a text can always end.
"""

from bisect import bisect_left
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from yanmo.data.text_index import TextIndex
from yanmo.tokenizer import Tokenizer
from yanmo.tokenizer.base import TextStream

KEPT_TABLES = 8
"""States of a stream whose tokens are kept: one, and those between the bytes of rare characters."""


class NoCopy:
    """Bars every token that would complete ``characters`` characters in a row of the training text."""

    def __init__(self, index: TextIndex, tokenizer: Tokenizer, characters: int) -> None:
        """
        Raises:
            TokenizerError: what each token would write is not known.
        """
        self.index, self.tokenizer, self.characters = index, tokenizer, characters
        # an unfinished character may become � before a token's own text
        self.longest = 1 + max(len(text) for text, _ in tokenizer.stream().next_pieces())
        self._tables: dict[Hashable, TokenTexts] = {}

    def begin(self, prompt: Sequence[int]) -> "NoCopyState":
        """The state after these ids: a copy may begin in the prompt."""
        return NoCopyState(self, prompt)

    def token_texts(self, stream: TextStream) -> "TokenTexts":
        """What each token would add to a stream."""
        state = stream.state
        found = self._tables.pop(state, None) or TokenTexts(
            [text for text, _ in stream.next_pieces()], self.index, self.characters
        )
        self._tables[state] = found  # the one used last stands last
        if len(self._tables) > KEPT_TABLES:
            del self._tables[next(iter(self._tables))]
        return found


class NoCopyState:
    """The end of a text, and how much of it stands in the training text."""

    def __init__(self, rule: NoCopy, prompt: Sequence[int]) -> None:
        self._rule, self._stream = rule, rule.tokenizer.stream()
        self._end, self._matched = "", 0
        self._grow("".join(map(self._stream.push, prompt)))

    def push(self, token: int) -> None:
        """This token was written."""
        self._grow(self._stream.push(token))

    def barred(self) -> Tensor | None:
        """(V,) True for the tokens that would complete a copy."""
        rule, size = self._rule, self._rule.characters
        # how many of a token's characters may complete a copy that began before it
        counts = range(size - self._matched, min(rule.longest, size - 1) + 1)
        if not counts and rule.longest < size:
            return None
        tokens = rule.token_texts(self._stream)
        barred = tokens.copies.copy()
        for count in counts:
            tokens.bar_following(barred, rule.index, self._end[len(self._end) - size + count :], count)
        return torch.from_numpy(barred) if barred.any() else None

    def _grow(self, text: str) -> None:
        kept = self._rule.characters - 1
        self._end = (self._end + text)[-kept:] if kept else ""
        self._matched = self._rule.index.longest_end(self._end, self._matched + len(text))


class TokenTexts:
    """What each token would add to a text, sorted: those that begin alike stand together."""

    def __init__(self, texts: Sequence[str], index: TextIndex, characters: int) -> None:
        order = sorted((token for token, text in enumerate(texts) if text), key=texts.__getitem__)
        self._ids, self._texts = np.array(order, dtype=np.int64), [texts[token] for token in order]
        self.copies = np.zeros(len(texts), dtype=bool)
        """(V,) Tokens that are a copy, or hold one."""
        found = index.matches(self._texts, characters)
        self.copies[order] = [bool((one.lengths == characters).any()) for one in found]

    def bar_following(self, barred: npt.NDArray[np.bool_], index: TextIndex, before: str, count: int) -> None:
        """Bar each token whose first ``count`` characters follow ``before`` in the training text.

        What follows, and the tokens, are both sorted, and each leaps to where the other stands: the work is
        that of the shorter of the two lists.
        """
        at, found = 0, index.continuation(before, count)
        while found is not None:
            here = found
            at = bisect_left(self._texts, here, at)
            end = bisect_left(self._texts, True, at, key=lambda text: not text.startswith(here))
            barred[self._ids[at:end]] = True
            at = end
            later = self._texts[at][:count] if at < len(self._texts) else None
            found = None if later is None else index.continuation(before, count, later)

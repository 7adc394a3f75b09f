"""From tokens to text as it grows: whole characters, up to a stop text, without banned phrases.

In: the tokens of one sample, one by one. Out: the characters that are certain, and where to go back to when a
banned phrase stands there.
"""

from collections.abc import Iterable, Sequence

from yanmo.generate.stops import find_end, overlap
from yanmo.tokenizer import Tokenizer


class TextAssembler:
    """The text of one sample as it grows: whole characters, up to a stop text."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: list[int],
        stops: Sequence[str],
        stop_at: str | None = None,
        min_tokens: int = 0,
    ) -> None:
        self._stream = tokenizer.stream()
        # in some vocabularies the space between two tokens depends on both, so the first one needs the prompt
        for token in prompt:
            self._stream.push(token)
        self._end_of_text = tokenizer.end_of_text
        self._stops, self._stop_at = [stop for stop in stops if stop], stop_at
        self._early = min_tokens  # tokens that are still to come before any stop counts
        self._held = ""  # characters that may begin a stop text, not yet released
        self._has_text = False
        self.ended = False

    def push(self, token: int) -> str:
        """The characters that are certain now."""
        self._early -= 1
        return "" if token == self._end_of_text else self._release(self._stream.push(token))

    def flush(self) -> str:
        """The rest, when no more tokens come; nothing after a stop text."""
        if self.ended:
            return ""
        text = self._release(self._stream.flush())
        return text + self._held

    def _release(self, text: str) -> str:
        text, self._held = self._held + text, ""
        if self._early > 0:
            self._has_text |= bool(text.strip())
            return text
        end, certain = find_end(text, self._stops, self._stop_at, self._has_text)
        self.ended = end is not None
        if not self.ended:
            self._held = text[certain:]
        self._has_text |= bool(text[:certain].strip())
        return text[:certain]


class PhraseWatch:
    """Finds banned phrases as they are completed, and knows with which token each began."""

    def __init__(
        self, tokenizer: Tokenizer, prompt: Sequence[int], phrases: Sequence[str], written: Iterable[int] = ()
    ) -> None:
        self._phrases = [phrase for phrase in phrases if phrase]
        self._stream = tokenizer.stream()
        before = "".join(map(self._stream.push, prompt)) if self._phrases else ""
        self._tail = before[len(before) - self._longest() :]
        """The end of the text, in which a phrase may have begun."""
        self._tokens = [0] * len(self._tail)
        """For each of its characters the written token that completed it; the prompt counts as the first."""
        self._written = 0
        self.certain = 0
        """Written tokens that no phrase can take back any more."""
        for token in written:
            self.push(token)

    def push(self, token: int) -> int | None:
        """The place of the written token with which a phrase began that is complete now."""
        self._written += 1
        if not self._phrases:
            self.certain = self._written
            return None
        new = self._stream.push(token)
        text, tokens = self._tail + new, self._tokens + [self._written - 1] * len(new)
        begun = [at for phrase in self._phrases if (at := text.find(phrase, self._earliest(phrase))) >= 0]
        if begun:
            return tokens[min(begun)]
        open_end = len(text) - max(overlap(text, phrase) for phrase in self._phrases)
        self.certain = tokens[open_end] if open_end < len(text) else self._written
        keep = max(len(text) - self._longest(), 0)
        self._tail, self._tokens = text[keep:], tokens[keep:]
        return None

    def _earliest(self, phrase: str) -> int:
        """Where it may begin in tail and new text, at least one character of which is new."""
        return max(len(self._tail) - len(phrase) + 1, 0)

    def _longest(self) -> int:
        """Characters that a phrase may have before its last."""
        return max((len(phrase) - 1 for phrase in self._phrases), default=0)

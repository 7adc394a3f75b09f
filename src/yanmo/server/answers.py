"""Answers in the shapes of OpenAI's API: pieces of text and tokens → JSON.

In: events of the engine's thread. Out: ``Part`` s, each a choice's next text with its tokens, and the JSON of
a whole answer, of a piece of a stream, or of an error.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from yanmo.generate.engine import RunningSequence, TokenChoice
from yanmo.generate.text_engine import WrittenPiece
from yanmo.tokenizer import Tokenizer

BARRED = -9999.0
"""The log probability of what cannot be: JSON has no infinity."""
Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class TokenEntry:
    """A token of a text, for the answer's log probabilities."""

    choice: TokenChoice
    offset: int
    """Where its first character begins, in code points."""
    is_first: bool = False
    """Nothing stands before it, so that it has no log probability."""


@dataclass
class Part:
    """What a choice gained: the next piece of a stream, or all of it."""

    index: int
    text: str = ""
    entries: list[TokenEntry] = field(default_factory=list)
    finish_reason: Finish | None = None
    mean_logprob: float | None = None


class EchoedText:
    """A prompt that is given back, as it is scored, in front of each of its texts."""

    def __init__(self, tokenizer: Tokenizer, indices: Sequence[int]) -> None:
        self._tokenizer, self._indices, self._length = tokenizer, indices, 0
        self._stream = tokenizer.stream()
        self._has_begun = False

    def push(self, choices: Iterable[TokenChoice]) -> list[Part]:
        """The characters that these tokens complete."""
        entries: list[TokenEntry] = []
        text = ""
        for choice in choices:
            new = self._stream.push(choice.id)
            offset = self._length + len(text) + broken_before(self._tokenizer, choice.id, new)
            entries.append(TokenEntry(choice, offset, not self._has_begun))
            self._has_begun = True
            text += new
        self._length += len(text)
        return [Part(index, text, list(entries)) for index in self._indices]

    def end(self) -> list[Part]:
        """The last parts, where nothing is written behind it."""
        text = self._stream.flush()
        return [Part(index, text, finish_reason="length") for index in self._indices]


class GrowingChoice:
    """One choice of an answer as it is written."""

    def __init__(self, tokenizer: Tokenizer, row: RunningSequence, index: int, base: int) -> None:
        """``base``: the characters of the prompt, which offsets count."""
        self.row, self.index, self._tokenizer = row, index, tokenizer
        self._stream, self._length, self._base = tokenizer.stream(), 0, base
        for token in row.prompt_ids:
            self._stream.push(token)
        self._released = 0
        self._held: list[TokenEntry] = []
        self.is_done = False

    def push(self, pieces: Sequence[WrittenPiece], is_last: bool) -> Part:
        """The next part; tokens wait until their text is released, those of a stop text for ever."""
        for piece in pieces:
            self._released += len(piece.text)
            if piece.choice:
                new = self._stream.push(piece.choice.id)
                offset = self._length + broken_before(self._tokenizer, piece.choice.id, new)
                self._held.append(TokenEntry(piece.choice, self._base + offset))
                self._length += len(new)
        part = Part(self.index, "".join(piece.text for piece in pieces))
        limit = self._base + self._released
        is_whole = is_last and not self._is_cut
        part.entries = [one for one in self._held if one.offset < limit or is_whole]
        self._held = [one for one in self._held if one.offset >= limit]
        return self.finish(part) if is_last else part

    def finish(self, part: Part) -> Part:
        """The last part of it."""
        self.is_done = True
        part.finish_reason = self.row.finish_reason
        part.mean_logprob = mean_logprob(self.row)
        return part

    @property
    def _is_cut(self) -> bool:
        """Whether it ended before a stop text."""
        row = self.row
        has_ended_itself = bool(row.choices) and row.choices[-1].id == row.rules.end_of_text
        return row.finish_reason == "stop" and not has_ended_itself


def broken_before(tokenizer: Tokenizer, token: int, text: str) -> int:
    """Of ``text``, which a token completed: the � of bytes before it that became no character."""
    raw = tokenizer.bytes_of(token)
    try:
        return max(len(text) - len(raw.decode()), 0) if raw else 0
    except UnicodeDecodeError:  # it is itself a part of a character
        return 0


def mean_logprob(row: RunningSequence) -> float | None:
    """How likely the model found what it wrote, a token; by it candidates are ranked."""
    return sum(choice.logprob for choice in row.choices) / len(row.choices) if row.choices else None


def join(parts: Iterable[Part]) -> list[Part]:
    """One part for each choice, in their order."""
    of: dict[int, list[Part]] = {}
    for part in parts:
        of.setdefault(part.index, []).append(part)
    return [_whole(of[index]) for index in sorted(of)]


def _whole(parts: Sequence[Part]) -> Part:
    """All parts of a choice as one; the last says how it ended."""
    text = "".join(part.text for part in parts)
    return replace(parts[-1], text=text, entries=[one for part in parts for one in part.entries])


# -- JSON -------------------------------------------------------------------------------------


def completion_choice(part: Part, names: Sequence[str], logprobs: int | None) -> dict[str, Any]:
    """A choice of /v1/completions."""
    found: dict[str, Any] = {
        "index": part.index,
        "text": part.text,
        "logprobs": None if logprobs is None else legacy_logprobs(part.entries, names, logprobs),
        "finish_reason": part.finish_reason,
    }
    return found | _mean(part)


def chat_choice(part: Part, names: Sequence[str], raw: Sequence[bytes], top: int | None) -> dict[str, Any]:
    """A choice of /v1/chat/completions, without its message or delta."""
    content = None if top is None else [_chat_token(one.choice, names, raw, top) for one in part.entries]
    found: dict[str, Any] = {
        "index": part.index,
        "logprobs": None if content is None else {"content": content, "refusal": None},
        "finish_reason": part.finish_reason,
    }
    return found | _mean(part)


def legacy_logprobs(entries: Sequence[TokenEntry], names: Sequence[str], top: int) -> dict[str, Any]:
    """Four lists of equal length; a top-list has the chosen token too, with the very same number."""
    return {
        "tokens": [names[one.choice.id] for one in entries],
        "token_logprobs": [None if one.is_first else as_json(one.choice.logprob) for one in entries],
        "top_logprobs": [
            None if one.is_first or not top else _top(one.choice, names, top) for one in entries
        ],
        "text_offset": [one.offset for one in entries],
    }


def as_json(logprob: float) -> float:
    """A log probability as JSON can say it."""
    return logprob if math.isfinite(logprob) else BARRED


def _top(choice: TokenChoice, names: Sequence[str], top: int) -> dict[str, float]:
    found = {names[token]: as_json(logprob) for token, logprob in choice.top[:top]}
    return found | {names[choice.id]: as_json(choice.logprob)}


def _chat_token(choice: TokenChoice, names: Sequence[str], raw: Sequence[bytes], top: int) -> dict[str, Any]:
    def one(token: int, logprob: float) -> dict[str, Any]:
        return {"token": names[token], "logprob": as_json(logprob), "bytes": list(raw[token])}

    others = [one(*pair) for pair in choice.top[:top]]
    return one(choice.id, choice.logprob) | {"top_logprobs": others}


def _mean(part: Part) -> dict[str, Any]:
    return {} if part.finish_reason is None else {"yanmo": {"mean_logprob": part.mean_logprob}}


def error_body(message: str, kind: str, param: str | None = None) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    return {
        "error": {
            "message": sendable(message),
            "type": kind,
            "param": param and sendable(param),
            "code": None,
        }
    }


def sendable(text: str) -> str:
    """A text that quotes what a client sent, without half characters: no answer can have them."""
    return text.encode("utf-8", "replace").decode()


def in_pieces(value: object) -> bytes:
    """A value as JSON, made piece by piece.

    ``json.dumps`` is faster, but for seconds, where there are millions of numbers, no other thread would run.
    """
    encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return "".join(encoder.iterencode(value)).encode()


def event(value: dict[str, Any] | str) -> bytes:
    """A server-sent event."""
    return f"data: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}\n\n".encode()

"""How good a vocabulary is for a text: the numbers behind ``yanmo tokenizer compare`` and ``inspect``.

In: a tokenizer and texts. Out: :class:`Comparison`, plain numbers. Speeds are those of one process.
"""

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from yanmo.tokenizer.base import Tokenizer
from yanmo.tokenizer.roundtrip import RoundTripLoss

WORDS = ("萧炎", "斗气", "龘", "𠮷")
"""Names, and rare and astral characters, where no text is given to take such from."""
MARKS = ("……", "——", "👩‍👩‍👧", "说：“", "\n", "　　", "123", "Hello")
"""What tells Chinese vocabularies apart beside words: marks, a family of emoji, blanks."""
SENTENCE = "萧炎大喝一声：“斗气化马！”……龘——𠮷野家，👍 GPT-2 写了123个字。"
FREQUENT, RARE = 4, 2
"""So many words of a text are shown, and so many of its rare characters."""
MAX_LINE_CHARACTERS = 60
"""Characters of a line that is shown."""
HANZI_RUN = re.compile("[\u3400-\u9fff\U00020000-\U000323af]+")
SAMPLE_CHARACTERS = 1 << 20
"""Samples are taken from so much text at most."""
MAX_WORD_CHARACTERS = 12


@dataclass(frozen=True)
class Comparison:
    """What a vocabulary makes of a text."""

    name: str
    kind: str
    vocab_size: int
    characters: int
    bytes: int
    tokens: int
    used: int
    """Tokens of the vocabulary that occur."""
    unknown: int
    """Tokens that stand for something the vocabulary does not know."""
    byte_tokens: int
    """Tokens that are a part of a character."""
    lost: dict[str, Any]
    """Empty if the whole text came back."""
    longest: tuple[str, ...]
    """The longest tokens that occur."""
    encode_mb_per_s: float
    decode_mb_per_s: float

    @property
    def characters_per_token(self) -> float:
        """Characters that a token stands for."""
        return self.characters / max(self.tokens, 1)

    @property
    def bytes_per_token(self) -> float:
        """Bytes that a token stands for."""
        return self.bytes / max(self.tokens, 1)

    def embedding_share(self, n_layer: int, n_embd: int) -> float:
        """The share of a GPT-2's parameters that its token table takes, window apart."""
        table = self.vocab_size * n_embd
        return table / (table + n_layer * (12 * n_embd**2 + 13 * n_embd) + 2 * n_embd)

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        more = {"characters_per_token": self.characters_per_token, "bytes_per_token": self.bytes_per_token}
        return {**asdict(self), **more}


def judge(name: str, kind: str, tokenizer: Tokenizer, texts: Sequence[str]) -> Comparison:
    """What ``tokenizer`` makes of ``texts``."""
    counts, lost, broken = np.zeros(tokenizer.vocab_size, dtype=np.int64), RoundTripLoss(), 0
    for text in texts:
        ids = tokenizer.encode(text)
        counts += np.bincount(ids, minlength=tokenizer.vocab_size)
        back = tokenizer.decode(ids)
        if back != text:
            broken += 1
            lost.count(text, back)
    shown = texts_of(tokenizer)
    used = np.flatnonzero(counts).tolist()
    suppressed = set(tokenizer.suppressed)
    encode_speed, decode_speed = _speeds(tokenizer, texts)
    return Comparison(
        name=name,
        kind=kind,
        vocab_size=tokenizer.vocab_size,
        characters=sum(map(len, texts)),
        bytes=sum(len(text.encode()) for text in texts),
        tokens=int(counts.sum()),
        used=len(used),
        unknown=int(sum(counts[token] for token in used if token in suppressed)),
        byte_tokens=int(sum(counts[token] for token in used if "�" in shown[token])),
        lost=lost.as_json() if broken else {},
        longest=tuple(
            sorted((shown[token] for token in used), key=lambda text: (-len(text), text))[
                :MAX_WORD_CHARACTERS
            ]
        ),
        encode_mb_per_s=encode_speed,
        decode_mb_per_s=decode_speed,
    )


def holds(tokenizer: Tokenizer) -> dict[str, Any]:
    """What stands in the vocabulary."""
    shown = texts_of(tokenizer)
    lengths = Counter(len(text) for text in shown if _is_chinese(text))
    hanzi = {text for text in shown if len(text) == 1 and _is_chinese(text)}
    # level 1 and 2 of GB2312: rows 16 to 87, here with 0xA0 added
    common = {chr_ for row in range(0xB0, 0xF8) for chr_ in _gb2312_row(row)}
    return {
        "tokens": tokenizer.vocab_size,
        "lossless": tokenizer.lossless,
        "ends a text": tokenizer.end_of_text,
        "never written": len(tokenizer.suppressed),
        "Chinese tokens": sum(lengths.values()),
        "by characters": {f"{n}": lengths[n] for n in sorted(lengths)},
        "of GB2312's 6,763 hanzi": len(common & hanzi),
        "fingerprint": tokenizer.fingerprint,
    }


def telling_words(texts: Iterable[str]) -> tuple[str, ...]:
    """Words to show: a text's most frequent pairs of hanzi and its rarest hanzi, and marks of any text."""
    pairs: Counter[str] = Counter()
    hanzi: Counter[str] = Counter()
    for text in _first(texts, SAMPLE_CHARACTERS):
        for run in HANZI_RUN.findall(text):
            hanzi.update(run)
            pairs.update(map("".join, pairwise(run)))
    frequent = [pair for pair, _ in pairs.most_common(FREQUENT)]
    rare = [character for character, _ in hanzi.most_common()[: -RARE - 1 : -1]]
    return (*((*frequent, *rare) or WORDS), *MARKS)


def telling_line(texts: Iterable[str]) -> str:
    """A line to show: of a text the one with the most different characters, of those that are short."""
    lines = (line.strip() for text in _first(texts, SAMPLE_CHARACTERS) for line in text.split("\n"))
    best = max(lines, key=lambda line: len({*line[:MAX_LINE_CHARACTERS]}), default="")
    return best[:MAX_LINE_CHARACTERS] or SENTENCE


def _is_chinese(text: str) -> bool:
    return bool(text) and all("\u3400" <= c <= "\u9fff" or "\U00020000" <= c <= "\U000323af" for c in text)


def _gb2312_row(row: int) -> str:
    return bytes(value for cell in range(0xA1, 0xFF) for value in (row, cell)).decode("gb2312", "ignore")


def texts_of(tokenizer: Tokenizer) -> list[str]:
    """What each token alone is written as; � where it is a part of a character."""
    return [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]


def split(tokenizer: Tokenizer, text: str) -> list[tuple[int, str]]:
    """The tokens of a text with what each shows; the parts of a character show it together at its end."""
    stream = tokenizer.stream()
    shown = [(int(token), stream.push(int(token))) for token in tokenizer.encode(text)]
    rest = stream.flush()
    # an unfinished character at the very end belongs to the last token
    return [*shown[:-1], (shown[-1][0], shown[-1][1] + rest)] if shown and rest else shown


def _speeds(tokenizer: Tokenizer, texts: Iterable[str]) -> tuple[float, float]:
    """MB of UTF-8 encoded and decoded in a second."""
    some = list(_first(texts, SAMPLE_CHARACTERS))
    size = sum(len(text.encode()) for text in some) / 1e6
    start = time.perf_counter()
    # all are encoded before any is decoded, so that each clock runs over one thing
    found = [tokenizer.encode(text) for text in some]
    middle = time.perf_counter()
    for ids in found:
        tokenizer.decode(ids)
    end = time.perf_counter()
    return size / max(middle - start, 1e-9), size / max(end - middle, 1e-9)


def _first(texts: Iterable[str], characters: int) -> Iterator[str]:
    for text in texts:
        if characters <= 0:
            return
        yield text[:characters]
        characters -= len(text)

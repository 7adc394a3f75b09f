"""What the rules of health must know of a text before it is trained on.

In: a text made ready. Out: shares of characters that the vocabulary lacks, of garbled passages, and of the
held-out text that stands in the training text too. Large texts are sampled, so this takes a second at most.
"""

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np

from yanmo.data.prepared import Prepared
from yanmo.data.shards import Ids, Tokens
from yanmo.text.clean.dedup import WINDOW_CHARACTERS, Sought, windows_of
from yanmo.text.clean.filters import measure
from yanmo.tokenizer import Tokenizer

COMPARED_TOKENS = 1 << 22
"""Tokens that are compared with the held-out ones."""
READ_TOKENS = 1 << 18
"""Tokens whose text is looked at."""
SLICES = 64
"""Parts of a larger text that are read, evenly spaced."""
PASSAGE = 400
"""Characters that are judged together."""
OFTEN = 3
"""Times that a character occurs in what is read, from which on a vocabulary should have it."""
BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def facts_of_text(prepared: Prepared) -> dict[str, float]:
    """For the first row of the metrics."""
    tokenizer, shards, lost = prepared.tokenizer, prepared.shards, prepared.shards.manifest.lost
    texts = [tokenizer.decode(ids) for ids in slices(shards.train, READ_TOKENS)]
    found = {
        "lacking_share": lost["unknown"] / max(lost["characters"], 1)
        if lost
        else lacking_share(tokenizer, texts),
        "odd_share": odd_share(texts),
    }
    if prepared.is_text:  # dialogues share their system prompts
        found["held_out_found"] = held_out_found(shards.train, shards.val)
    return {name: round(share, 4) for name, share in found.items()}


def slices(tokens: Tokens, most: int) -> Iterator[Ids]:
    """All tokens, or so many of them, in slices."""
    if len(tokens) <= most:
        yield tokens.slice(0, len(tokens))
        return
    for number in range(SLICES):
        start = number * len(tokens) // SLICES
        yield tokens.slice(start, start + most // SLICES)


def lacking_share(tokenizer: Tokenizer, texts: list[str]) -> float:
    """Share of characters that are no rare ones and that the vocabulary has no token for."""
    counts = Counter("".join(texts))
    lacking = (
        times
        for character, times in counts.items()
        if times >= OFTEN
        and any(is_piece(tokenizer, token) for token in tokenizer.encode(character).tolist())
    )
    return sum(lacking) / max(counts.total(), 1)


def is_piece(tokenizer: Tokenizer, token: int) -> bool:
    """Whether a token is a byte, or a part of a character."""
    if BYTE.fullmatch(tokenizer.spelling(token)):
        return True
    try:
        (tokenizer.bytes_of(token) or b"").decode()
    except UnicodeDecodeError:
        return True
    return False


def odd_share(texts: list[str]) -> float:
    """Share of passages that `yanmo clean` would call garbled."""
    passages = [text[start : start + PASSAGE] for text in texts for start in range(0, len(text), PASSAGE)]
    return sum(measure(passage).is_garbled for passage in passages) / max(len(passages), 1)


def held_out_found(train: Tokens, val: Tokens) -> float:
    """Share of the held-out tokens, in runs of 50 side by side, that stand in the training text too."""
    held_out = val.slice(0, COMPARED_TOKENS).astype(np.uint32)
    sought = Sought(windows_of(held_out, WINDOW_CHARACTERS))
    is_found = np.zeros(len(sought.hashes), bool)
    for ids in slices(train, COMPARED_TOKENS) if len(is_found) else ():
        is_found[sought.among(windows_of(ids.astype(np.uint32), 1))] = True
    return float(is_found.mean()) if len(is_found) else 0.0

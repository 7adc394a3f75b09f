"""What the rules of health must know of a text before it is trained on.

In: a text made ready. Out: shares of tokens that are no characters, of garbled passages, and of the held-out
text that stands in the training text too. Large texts are sampled, so this takes a second at most.
"""

import re
from collections.abc import Iterator

import numpy as np

from yanmo.data.prepare import Prepared
from yanmo.data.shards import Ids, Tokens
from yanmo.text.clean.dedup import WINDOW_CHARACTERS, Sought, windows_of
from yanmo.text.clean.filters import measure
from yanmo.tokenizer import Tokenizer

COMPARED_TOKENS = 1 << 22
"""Tokens that are compared with the held-out ones, and counted."""
READ_TOKENS = 1 << 18
"""Tokens whose text is looked at."""
SLICES = 64
"""Parts of a larger text that are read, evenly spaced."""
PASSAGE = 400
"""Characters that are judged together."""
PIECE = re.compile(r"<0x[0-9A-Fa-f]{2}>|\[UNK\]|<unk>")
"""Spellings of bytes and of what is unknown."""


def facts_of_text(prepared: Prepared) -> dict[str, float]:
    """For the first row of the metrics."""
    tokenizer, shards = prepared.tokenizer, prepared.shards
    found = {
        "piece_share": piece_share(tokenizer, shards.train),
        "odd_share": odd_share(tokenizer, shards.train),
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


def piece_share(tokenizer: Tokenizer, tokens: Tokens) -> float:
    """Share of tokens that are bytes and no characters, or unknown ones."""
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for ids in slices(tokens, COMPARED_TOKENS):
        counts += np.bincount(ids, minlength=tokenizer.vocab_size)
    pieces = [token for token in np.flatnonzero(counts).tolist() if is_piece(tokenizer, token)]
    return float(counts[pieces].sum() / max(counts.sum(), 1))


def is_piece(tokenizer: Tokenizer, token: int) -> bool:
    """Whether a token stands for no whole character: a byte, a part of one, or an unknown."""
    if PIECE.fullmatch(tokenizer.spelling(token)):
        return True
    try:
        (tokenizer.bytes_of(token) or b"").decode()
    except UnicodeDecodeError:
        return True
    return False


def odd_share(tokenizer: Tokenizer, tokens: Tokens) -> float:
    """Share of passages that `yanmo clean` would call garbled."""
    texts = [tokenizer.decode(ids) for ids in slices(tokens, READ_TOKENS)]
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

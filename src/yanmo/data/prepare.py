"""Documents → tokenizer → token shards, reused by content hash.

1. The corpus is read once to count characters and to note each document's size and content hash.
2. ``plan_split`` decides what is held out; a pure function of those sizes.
3. The corpus is read again and written as shards, in pieces of at most ``PIECE`` characters.

Each step's result lies in ``.yanmo/<station>/<hash of all it depends on>/`` and is made only if absent.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from yanmo import storage
from yanmo.config import CorpusConfig, DataConfig, TokenizerConfig
from yanmo.data.shards import ShardSet, ShardWriter, write_manifest
from yanmo.errors import DataError
from yanmo.log import Progress, Voice
from yanmo.text.documents import (
    CorpusCounts,
    Document,
    corpus_bytes,
    corpus_fingerprint,
    read_documents,
)
from yanmo.tokenizer import CharTokenizer, Tokenizer, load_tokenizer
from yanmo.tokenizer.char import CODE_POINTS, count_characters

PIECE = 1 << 18
"""Characters encoded at a time: at most 1 MB of UTF-8. Characters may be cut anywhere."""
HELD_OUT_CHARACTERS = 100_000


@dataclass(frozen=True)
class Prepared:
    """What training needs of the text."""

    tokenizer: Tokenizer
    shards: ShardSet
    val_fraction: float


def prepare(
    corpus: CorpusConfig,
    tokenizer: TokenizerConfig,
    data: DataConfig,
    block_size: int,
    voice: Voice,
) -> Prepared:
    """Tokenizer and shards of a corpus, made where they are missing.

    Raises:
        DataError: a path is missing or unreadable, or the text is shorter than one window.
    """
    if not corpus.path:
        raise DataError("no corpus is named", where="corpus.path", mend="yanmo train novel.txt")
    content = corpus_fingerprint(corpus.path, corpus.encoding)
    survey = _survey(corpus, tokenizer, content, voice)
    model = load_tokenizer(survey)
    sizes = _read_sizes(survey)
    val_fraction = data.val_fraction or default_val_fraction(sum(n for _, n in sizes))
    key = storage.fingerprint([content, model.fingerprint, val_fraction, block_size])

    def fill(folder: Path) -> None:
        split = plan_split(sizes, val_fraction)
        _write_shards(folder, corpus, content, model, split, block_size, voice)

    shards = ShardSet(storage.cached("shards", key, fill), content, model.fingerprint)
    _check_long_enough(shards, block_size)
    return Prepared(model, shards, val_fraction)


def default_val_fraction(characters: int) -> float:
    """100,000 characters, but between 0.5% and 5% of the text."""
    return round(min(max(HELD_OUT_CHARACTERS / max(characters, 1), 0.005), 0.05), 6)


# -- what is held out -------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """Which documents are validation, whole (``held_out``) or by their end (``cuts``), by content hash."""

    held_out: frozenset[str]
    cuts: dict[str, int]
    """Content hash -> how many of the last characters are validation."""


def plan_split(sizes: Sequence[tuple[str, int]], val_fraction: float) -> Split:
    """Hold out ``val_fraction`` of the characters; equal documents always fall on the same side.

    Documents go to validation in the order of their hash until the share is reached. One (with all its
    copies) that is larger than half the share is never taken whole; if the share is not reached, the
    ends of those large documents are cut off, each in proportion to its size.

    Args:
        sizes: (content hash, characters) of every document, in any order.
        val_fraction: share of all characters to hold out.
    """
    copies = Counter(name for name, _ in sizes)
    length = dict(sizes)
    share = val_fraction * sum(n for _, n in sizes)
    held_out: set[str] = set()
    missing = share
    for name in sorted(length):
        if missing > 0 and length[name] * copies[name] <= share / 2:
            held_out.add(name)
            missing -= length[name] * copies[name]
    if missing < share / 100:  # small documents filled it
        return Split(frozenset(held_out), {})
    large = {name: n for name, n in length.items() if name not in held_out}
    total = sum(n * copies[name] for name, n in large.items())
    cuts = {name: int(missing * n / total) for name, n in large.items()}
    return Split(frozenset(held_out), {name: cut for name, cut in cuts.items() if cut})


def cut_document(text: str, val_characters: int, gap: int) -> tuple[str, str]:
    """A document's training and validation part: cut at paragraphs, at least ``gap`` characters apart."""
    target = max(len(text) - val_characters, 0)
    paragraph = text.find("\n", target, target + val_characters // 2)
    val_start = paragraph + 1 if paragraph >= 0 else target
    train_end = max(val_start - gap, 0)
    paragraph = text.rfind("\n", max(train_end - gap, 0), train_end)
    return text[: paragraph + 1 if paragraph >= 0 else train_end], text[val_start:]


# -- the two passes ---------------------------------------------------------------------------


def _survey(corpus: CorpusConfig, tokenizer: TokenizerConfig, content: str, voice: Voice) -> Path:
    """First pass: a folder with the tokenizer and with every document's hash and size."""

    def fill(folder: Path) -> None:
        characters = np.zeros(CODE_POINTS, dtype=np.int64)
        sizes = []
        for document in _documents(corpus, CorpusCounts(), "reading", voice):
            count_characters(document.text, characters)
            sizes.append([content_hash(document.text), len(document.text)])
        if not sizes:
            raise DataError(
                "no document could be read",
                where=", ".join(corpus.path),
                mend="see the reasons above",
            )
        CharTokenizer.train(characters, tokenizer.vocab_size).save(folder, 1 << 30)
        storage.write_json(folder / "documents.json", sizes)

    key = storage.fingerprint([content, tokenizer.model_dump()])
    return storage.cached("tokenizers", key, fill)


def _read_sizes(survey: Path) -> list[tuple[str, int]]:
    return [(name, length) for name, length in storage.read_json(survey / "documents.json")]


def _write_shards(
    folder: Path,
    corpus: CorpusConfig,
    content: str,
    tokenizer: Tokenizer,
    split: Split,
    gap: int,
    voice: Voice,
) -> None:
    """Second pass: every document to its side, in order."""
    train = ShardWriter(folder, "train", tokenizer.vocab_size)
    val = ShardWriter(folder, "val", tokenizer.vocab_size)
    counts, left_out, floor_bits = CorpusCounts(), 0, 0.0
    for document in _documents(corpus, counts, "tokenising", voice):
        name = content_hash(document.text)
        if name in split.held_out:
            _write_document(val, document.text, tokenizer)
            floor_bits += document.meta.get("bits", float("nan"))
        elif name in split.cuts:
            before, after = cut_document(document.text, split.cuts[name], gap)
            left_out += len(document.text) - len(before) - len(after)
            _write_document(train, before, tokenizer)
            _write_document(val, after, tokenizer)
            floor_bits = float("nan")
        else:
            _write_document(train, document.text, tokenizer)
    for reason, number in counts.documents_dropped.items():
        voice.warn(f"{number} documents dropped: {reason}")
    splits = {"train": train.close(), "val": val.close()}
    more: dict[str, Any] = {
        "counts": counts.as_json(),
        "split": {
            "held_out_documents": len(split.held_out),
            "cut_documents": len(split.cuts),
            "characters_left_out_between": left_out,
        },
    }
    if floor_bits == floor_bits:  # every held-out document knows its own code length
        more["val_floor_bits"] = floor_bits
    write_manifest(folder, content, tokenizer.fingerprint, tokenizer.vocab_size, splits, more)


def _write_document(writer: ShardWriter, text: str, tokenizer: Tokenizer) -> None:
    writer.begin_document()
    for piece in pieces_of(text):
        writer.write(tokenizer.encode(piece), characters=len(piece))
    writer.write(np.array([tokenizer.end_of_text], dtype=np.int64), characters=0)


def pieces_of(text: str, size: int = PIECE) -> Iterator[str]:
    """A text in pieces; their tokens one after the other are the tokens of the whole."""
    for start in range(0, len(text), size):
        yield text[start : start + size]


def content_hash(text: str) -> str:
    """A name for a text's content."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=12).hexdigest()


def _documents(corpus: CorpusConfig, counts: CorpusCounts, doing: str, voice: Voice) -> Iterator[Document]:
    with Progress(voice, doing, corpus_bytes(corpus.path)) as progress:
        yield from read_documents(corpus.path, corpus.encoding, counts, progress.advance)


def _check_long_enough(shards: ShardSet, block_size: int) -> None:
    if len(shards.train) <= block_size or len(shards.val) < 2:
        raise DataError(
            f"the text is shorter than one window: {len(shards.train)} training tokens and"
            f" {len(shards.val)} validation tokens for model.block_size={block_size}",
            where="the corpus",
            mend="give more text, or a smaller model.block_size",
        )

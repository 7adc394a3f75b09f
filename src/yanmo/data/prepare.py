"""Documents → tokenizer → token shards, reused by content hash.

1. The corpus is read once to count characters and to note each document's size and content hash.
2. ``plan_split`` decides what is held out; a pure function of those sizes.
3. The corpus is read again and written as shards, in pieces of at most ``PIECE`` characters.

Each step's result lies in ``.yanmo/<station>/<hash of all it depends on>/`` and is made only if absent.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
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
    corpus_fingerprint,
    corpus_size,
    read_documents,
)
from yanmo.tokenizer import CharTokenizer, Tokenizer, find_tokenizer, load_tokenizer
from yanmo.tokenizer.char import CODE_POINTS, count_characters
from yanmo.tokenizer.lost import Lost, describe

VERSION = 1
"""Part of every cache key: raise it when the same text would give other shards."""
PIECE = 1 << 18
"""Characters encoded at a time: at most 1 MB of UTF-8."""
HELD_OUT_CHARACTERS = 100_000
OPENING_CHARACTERS = 12
SHOWN = 5


@dataclass(frozen=True)
class Prepared:
    """What training needs of the text."""

    tokenizer: Tokenizer
    shards: ShardSet
    val_fraction: float

    @property
    def is_lossy(self) -> bool:
        """Whether the vocabulary lost something of this text."""
        return bool(self.shards.manifest.get("lost", {}).get("total"))

    def openings(self, count: int, max_tokens: int) -> list[str]:
        """The first words of ``count`` lines, spread over the validation text, for samples to continue."""
        tokens, found = self.shards.val, []
        for number in range(count):
            start = number * len(tokens) // count
            lines = self.tokenizer.decode(tokens.slice(start, start + 1000)).split("\n")
            whole = [line.strip() for line in (lines[1:] if number and len(lines) > 1 else lines)]
            opening = max([line for line in whole if line][:3], key=len, default="")
            opening = opening[:OPENING_CHARACTERS].rstrip()
            while len(self.tokenizer.encode(opening)) > max_tokens:
                opening = opening[:-1]
            found.append(opening)
        return found


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
    content = corpus_fingerprint(corpus)
    found = find_tokenizer(tokenizer)
    survey = _survey(corpus, tokenizer if found is None else None, content, voice)
    trained = found or load_tokenizer(survey)
    sizes = _read_sizes(survey)
    val_fraction = data.val_fraction or default_val_fraction(sum(n for _, n in sizes))
    key = storage.fingerprint([VERSION, content, trained.fingerprint, val_fraction, block_size])

    def fill(folder: Path) -> None:
        split = plan_split(sizes, val_fraction)
        _write_shards(folder, corpus, content, trained, split, block_size, voice)

    shards = ShardSet(storage.cached("shards", key, fill), content, trained.fingerprint)
    _check_long_enough(shards, block_size)
    prepared = Prepared(trained, shards, val_fraction)
    if prepared.is_lossy:
        voice.warn(f"{describe(shards.manifest['lost'])}; bits per character are lossy")
    return prepared


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
    ends of the largest documents are cut off, at most half of each, of as few as it takes.

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
        size = length[name] * copies[name]
        if missing > 0 and size <= share / 2:
            held_out.add(name)
            missing -= size
    cuts: dict[str, int] = {}
    for name in sorted(length.keys() - held_out, key=lambda name: (-length[name], name)):
        if missing <= share / 100:
            break
        cuts[name] = min(math.ceil(missing / copies[name]), length[name] // 2)
        missing -= cuts[name] * copies[name]
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


def _survey(corpus: CorpusConfig, tokenizer: TokenizerConfig | None, content: str, voice: Voice) -> Path:
    """First pass: a folder with every document's hash and size, and the tokenizer if one is to be made."""

    def fill(folder: Path) -> None:
        characters = np.zeros(CODE_POINTS, dtype=np.int64)
        sizes, counts = [], CorpusCounts()
        with Progress(voice, "reading", corpus_size(corpus.path)) as progress:
            for document in read_documents(corpus, counts):
                for start in range(0, len(document.text), PIECE):
                    piece = document.text[start : start + PIECE]
                    if tokenizer is not None:
                        count_characters(piece, characters)
                    progress.advance(_share(document, piece))
                sizes.append([content_hash(document.text), len(document.text)])
        for dropped in counts.dropped[:SHOWN]:
            voice.warn(f"dropped {dropped}")
        dropped_in_all = counts.documents_dropped.total()
        if dropped_in_all > SHOWN:
            voice.warn(f"dropped {dropped_in_all:,} documents in all; corpus.json names them")
        if counts.control_characters_removed:
            voice.say(f"{counts.control_characters_removed:,} control characters removed")
        if not sizes:
            raise DataError(
                f"none of {counts.documents_read} documents could be used",
                where=", ".join(corpus.path),
                mend=f"the first: {counts.dropped[0]}",
            )
        if tokenizer is not None:
            CharTokenizer.train(characters, tokenizer.vocab_size).save(folder, 1 << 30)
        storage.write_json(folder / "documents.json", sizes)

    key = storage.fingerprint([VERSION, content, tokenizer.vocab_size if tokenizer is not None else "sizes"])
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
    writers = {side: ShardWriter(folder, side, tokenizer.vocab_size) for side in ("train", "val")}
    counts, left_out, floor_bits = CorpusCounts(), 0, 0.0
    lost = None if tokenizer.lossless else Lost(tokenizer)
    with Progress(voice, "tokenising", corpus_size(corpus.path)) as progress:
        for document in read_documents(corpus, counts):
            parts = assign(document, split, gap)
            left_out += len(document.text) - sum(len(part.text) for _, part in parts)
            for side, part in parts:
                _write_document(writers[side], part, tokenizer, lost, progress)
            if any(side == "val" for side, _ in parts):
                floor_bits += document.meta.get("bits", math.nan) if len(parts) == 1 else math.nan
    if left_out:
        voice.say(f"{left_out:,} characters between training and held-out text are left out")
    splits = {side: writer.close() for side, writer in writers.items()}
    more: dict[str, Any] = {
        "counts": counts.as_json(),
        "split": {
            "held_out_documents": len(split.held_out),
            "cut_documents": len(split.cuts),
            "characters_left_out_between": left_out,
        },
    }
    if math.isfinite(floor_bits):  # every held-out document knows its own code length
        more["val_floor_bits"] = floor_bits
    if lost is not None:
        more["lost"] = lost.as_json()
    write_manifest(folder, content, tokenizer.fingerprint, tokenizer.vocab_size, splits, more)


def assign(document: Document, split: Split, gap: int) -> list[tuple[str, Document]]:
    """The side a document belongs to, or its two parts with theirs; an empty part is none."""
    name = content_hash(document.text)
    if name in split.held_out:
        return [("val", document)]
    if name not in split.cuts:
        return [("train", document)]
    before, after = cut_document(document.text, split.cuts[name], gap)
    share = document.meta["size"] / len(document.text)
    return [
        (side, Document(text, document.id, {"size": share * len(text)}))
        for side, text in (("train", before), ("val", after))
        if text
    ]


def _write_document(
    writer: ShardWriter, document: Document, tokenizer: Tokenizer, lost: Lost | None, progress: Progress
) -> None:
    writer.begin_document()
    writer.write(np.array(tokenizer.document_start, dtype=np.int64), characters=0)
    for piece in tokenizer.pieces(document.text, PIECE):
        ids = tokenizer.encode(piece)
        writer.write(ids, characters=len(piece))
        if lost is not None:
            lost.count(piece, ids)
        progress.advance(_share(document, piece))
    writer.write(np.array([tokenizer.end_of_text], dtype=np.int64), characters=0)


def _share(document: Document, piece: str) -> float:
    """A piece's share of its document's size."""
    return float(document.meta.get("size", 0) * len(piece) / len(document.text))


def content_hash(text: str) -> str:
    """A name for a text's content."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=12).hexdigest()


def _check_long_enough(shards: ShardSet, block_size: int) -> None:
    if len(shards.train) <= block_size or len(shards.val) < 2:
        raise DataError(
            f"the text is shorter than one window: {len(shards.train)} training tokens and"
            f" {len(shards.val)} validation tokens for model.block_size={block_size}",
            where="the corpus",
            mend="give more text, or a smaller model.block_size",
        )

"""Documents → tokenizer → token shards, reused by content hash.

1. The corpus is read once to learn a vocabulary and to note each document's size and content hash.
2. ``plan_split`` decides what is held out; a pure function of those sizes.
3. The corpus is read again and written as shards, in pieces of about ``PIECE`` characters, on all cores
   (``encode.py``). What is on the disk is marked now and then; cut off, the work goes on from there.

Each step's result lies in ``.yanmo/<station>/<hash of all it depends on>/`` and is made only if absent.
"""

import contextlib
import hashlib
import math
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from yanmo import storage
from yanmo.config import CorpusConfig, DataConfig, TokenizerConfig
from yanmo.data.encode import Ids, encode_all, processes_for
from yanmo.data.shards import ShardSet, ShardWriter, write_manifest
from yanmo.errors import DataError
from yanmo.log import Progress, Voice, span
from yanmo.text.documents import (
    CorpusCounts,
    Document,
    corpus_fingerprint,
    corpus_size,
    read_documents,
)
from yanmo.text.mix import times_of
from yanmo.tokenizer import Tokenizer, find_tokenizer, kind_of, load_tokenizer
from yanmo.tokenizer.learn import Learner, learner_for, peak_memory
from yanmo.tokenizer.lost import Lost, describe

VERSION = 2
"""Part of every cache key: raise it when the same text would give other shards."""
PIECE = 1 << 18
"""Characters encoded at a time: at most 1 MB of UTF-8."""
MARK_EVERY = 16
"""Batches of pieces between two marks: about 12 MB of text."""
MARK = "mark.json"
"""How far the shards in an unfinished folder are."""
BPE_FROM = 20_000_000
"""Bytes of text from which on a vocabulary of pieces is learned where none is asked for."""
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

    def as_json(self) -> dict[str, Any]:
        """Where things are and how many there are."""
        manifest = self.shards.manifest
        return {
            "shards": str(self.shards.folder),
            "tokenizer": kind_of(self.tokenizer),
            "vocab_size": self.tokenizer.vocab_size,
            "dtype": manifest["dtype"],
            "splits": manifest["splits"],
            "counts": manifest["counts"],
        }

    def lines(self) -> list[str]:
        """The same for people."""
        splits = self.shards.manifest["splits"]
        characters = sum(part["characters"] for part in splits.values())
        tokens = sum(part["tokens"] for part in splits.values())
        return [
            f"shards     {self.shards.folder}",
            f"tokenizer  {kind_of(self.tokenizer)}, {self.tokenizer.vocab_size:,} tokens",
            *(
                f"{side:<10} {part['documents']:,} documents, {part['tokens']:,} tokens"
                for side, part in splits.items()
            ),
            f"{'a token':<10} {characters / max(tokens, 1):.3f} characters",
        ]

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
    if (shards_folder := _shards_in(corpus)) is not None:
        return _open_shards(shards_folder, tokenizer, data, block_size)
    content = corpus_fingerprint(corpus)
    found = find_tokenizer(tokenizer)
    survey = _survey(corpus, tokenizer if found is None else None, content, voice)
    trained = found or load_tokenizer(survey)
    sizes = _read_sizes(survey)
    val_fraction = data.val_fraction or default_val_fraction(sum(n for _, n in sizes))
    key = storage.fingerprint([VERSION, content, trained.fingerprint, val_fraction, block_size])

    def fill(folder: Path) -> None:
        split = plan_split(sizes, val_fraction)
        names = [name for name, _ in sizes]
        manifest = _write_shards(folder, corpus, trained, names, split, block_size, data.workers, voice)
        write_manifest(folder, content, trained.fingerprint, trained.vocab_size, **manifest)

    folder = storage.cached("shards", key, fill, goes_on=True)
    shards = ShardSet(folder, content, trained.fingerprint)
    _check_long_enough(shards, block_size)
    prepared = Prepared(trained, shards, val_fraction)
    if prepared.is_lossy:
        voice.warn(f"{describe(shards.manifest['lost'])}; bits per character are lossy")
    return prepared


def _shards_in(corpus: CorpusConfig) -> Path | None:
    """The folder, if the corpus is one of shards that were made elsewhere (``scale/``), with a tokenizer."""
    folder = Path(corpus.path[0])
    is_one = len(corpus.path) == 1 and (folder / "manifest.json").is_file()
    return folder if is_one and (folder / "train.starts.bin").is_file() else None


def _open_shards(folder: Path, asked: TokenizerConfig, data: DataConfig, block_size: int) -> Prepared:
    """Shards as they are; what is asked of them must be what they were made with."""
    tokenizer = load_tokenizer(folder)
    manifest = storage.read_json(folder / "manifest.json")
    split = manifest["split"]
    other = find_tokenizer(asked) if asked.path is not None else tokenizer
    if other is not None and other.fingerprint != tokenizer.fingerprint:
        raise DataError(
            f"the shards were made with another tokenizer than tokenizer.path={asked.path}",
            where=str(folder),
            mend="leave tokenizer.path out",
        )
    if data.val_fraction not in (None, split["val_fraction"]):
        raise DataError(
            f"the shards hold out {split['val_fraction']}, not data.val_fraction={data.val_fraction}",
            where=str(folder),
            mend="leave data.val_fraction out",
        )
    if split["cut_documents"] and block_size > split["block_size"]:
        raise DataError(
            f"the shards were cut for windows of {split['block_size']} tokens, not"
            f" model.block_size={block_size}",
            where=str(folder),
            mend="a smaller model.block_size, or shards made with this one",
        )
    shards = ShardSet(folder, manifest["corpus"], tokenizer.fingerprint)
    _check_long_enough(shards, block_size)
    return Prepared(tokenizer, shards, split["val_fraction"])


def learn_tokenizer(corpus: CorpusConfig, config: TokenizerConfig, voice: Voice) -> Tokenizer:
    """The tokenizer that a corpus gives; a pure function of both.

    Raises:
        DataError: a path is missing or unreadable.
        TokenizerError: the vocabulary has no room for what it must hold.
    """
    return load_tokenizer(_survey(corpus, config, corpus_fingerprint(corpus), voice))


def default_val_fraction(characters: int) -> float:
    """100,000 characters, but between 0.5% and 5% of the text."""
    return round(min(max(HELD_OUT_CHARACTERS / max(characters, 1), 0.005), 0.05), 6)


# -- what is held out -------------------------------------------------------------------------


class Names(Protocol):
    """A set of content hashes that may be larger than memory."""

    def __contains__(self, name: object, /) -> bool: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Split:
    """Which documents are validation, whole (``held_out``) or by their end (``cuts``), by content hash."""

    held_out: Names
    cuts: dict[str, int]
    """Content hash -> how many of the last characters are validation."""


def plan_split(sizes: Sequence[tuple[str, int]], val_fraction: float, characters: int | None = None) -> Split:
    """Hold out ``val_fraction`` of the characters; equal documents always fall on the same side.

    Documents go to validation in the order of their hash until the share is reached. One (with all its
    copies) that is larger than half the share is never taken whole; if the share is not reached, the
    ends of the largest documents are cut off, at most half of each, of as few as it takes.

    Args:
        sizes: (content hash, characters) of every document, in any order.
        val_fraction: share of all characters to hold out.
        characters: of all documents, where only those of the smallest hashes are given, enough to reach
            the share.
    """
    copies = Counter(name for name, _ in sizes)
    length = dict(sizes)
    share = val_fraction * (characters or sum(n for _, n in sizes))
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


def _survey(corpus: CorpusConfig, config: TokenizerConfig | None, content: str, voice: Voice) -> Path:
    """First pass: a folder with every document's hash and size, and the tokenizer if one is to be learned."""
    size = corpus_size(corpus.path)
    kind = (config.kind or ("char" if size < BPE_FROM else "bpe")) if config is not None else None

    def fill(folder: Path) -> None:
        learner = learner_for(config, kind) if config is not None and kind is not None else None
        sizes, counts = [], CorpusCounts()
        with Progress(voice, "reading", size) as progress:
            for document in read_documents(corpus, counts):
                for start in range(0, len(document.text), PIECE):
                    piece = document.text[start : start + PIECE]
                    progress.advance(_share(document, len(piece)))
                if learner is not None:
                    learner.add(document.text)
                sizes.append([content_hash(document.text), len(document.text)])
        _say_counts(counts, voice)
        if not sizes:
            raise DataError(
                f"none of {counts.documents_read} documents could be used",
                where=", ".join(corpus.path),
                mend=f"the first: {counts.dropped[0]}",
            )
        if learner is not None:
            _learn(learner, voice).save(folder, 1 << 30)
        storage.write_json(folder / "documents.json", sizes)

    settings = (
        [kind, config.vocab_size, config.sample_mb, config.chat_tokens, config.reserved_tokens]
        if config is not None
        else "sizes"
    )
    return storage.cached("tokenizers", storage.fingerprint([VERSION, content, settings]), fill)


def _say_counts(counts: CorpusCounts, voice: Voice) -> None:
    for dropped in counts.dropped[:SHOWN]:
        voice.warn(f"dropped {dropped}")
    dropped_in_all = counts.documents_dropped.total()
    if dropped_in_all > SHOWN:
        voice.warn(f"dropped {dropped_in_all:,} documents in all; corpus.json names them")
    if counts.control_characters_removed:
        voice.say(f"{counts.control_characters_removed:,} control characters removed")
    if counts.undecodable_bytes:
        voice.warn(f"{counts.undecodable_bytes:,} bytes are broken; U+FFFD stands for them")
    if counts.texts_in_parts:
        voice.say(f"{counts.texts_in_parts:,} texts are too large for one document and cut into parts")


def _learn(learner: Learner, voice: Voice) -> Tokenizer:
    """Learn, with a clock on the console, for the library does not say how far it is."""
    what, start = learner.said(), time.monotonic()
    if not what:
        return learner.learn()
    outcome: list[Tokenizer | Exception] = []

    def work() -> None:
        try:
            outcome.append(learner.learn())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True)  # so that Ctrl-C does not wait for it
    thread.start()
    while thread.is_alive():
        voice.live(f"{what}, {span(time.monotonic() - start)}, {peak_memory() >> 20:,} MB of memory")
        thread.join(0.2)
    voice.settle()
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    learned, took = outcome[0], span(time.monotonic() - start)
    voice.say(f"{what}: {took}, {peak_memory() >> 20:,} MB of memory at most")
    if learned.vocab_size < learner.wanted:
        voice.warn(f"the text has {learned.vocab_size:,} tokens to learn, not {learner.wanted:,}")
    return learned


def _read_sizes(survey: Path) -> list[tuple[str, int]]:
    return [(name, length) for name, length in storage.read_json(survey / "documents.json")]


@dataclass(frozen=True)
class Piece:
    """A part of a document on its way into the shards of one side."""

    side: str
    text: str
    begins: bool
    """Whether it is the first of its document."""
    ends: bool
    """Whether it is the last."""
    size: float
    """Its share of the corpus's size."""


@dataclass
class Tally:
    """What is counted on the way."""

    left_out: int = 0
    """Characters between training and held-out text."""
    read_again: int = 0
    """Documents that a mix has in the training part more than once."""
    floor_bits: float = 0.0
    """The code length of the held-out documents, where each of them knows its own."""


def _write_shards(
    folder: Path,
    corpus: CorpusConfig,
    tokenizer: Tokenizer,
    names: Sequence[str],
    split: Split,
    gap: int,
    workers: int | None,
    voice: Voice,
) -> dict[str, Any]:
    """Second pass: every document (``names`` are their hashes) to its side, in order; goes on where
    ``folder`` was left. Gives the manifest's parts."""
    counts, tally, size = CorpusCounts(), Tally(), corpus_size(corpus.path)
    done = _read_mark(folder)
    lost = Lost.of(done["lost"])
    documents = assigned(zip(read_documents(corpus, counts), names, strict=True), split, gap, tally)
    batches = _batches(piece for side, part in documents for piece in pieces_of(side, part, tokenizer))
    processes = workers or processes_for(tokenizer, size)
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(Progress(voice, "tokenising", size))
        writers = {
            side: stack.enter_context(
                ShardWriter(folder, side, tokenizer.vocab_size, mark=done["writers"].get(side))
            )
            for side in ("train", "val")
        }
        for batch in islice(batches, done["batches"]):
            progress.skip(sum(piece.size for piece in batch))
        encoded = encode_all(batches, lambda batch: [piece.text for piece in batch], tokenizer, processes)
        for number, (batch, found) in enumerate(encoded, done["batches"] + 1):
            for piece, ids in zip(batch, found.ids, strict=True):
                write_piece(writers[piece.side], piece, ids, tokenizer)
            if found.lost is not None:
                lost.add(found.lost)
            if number % MARK_EVERY == 0:
                _write_mark(folder, number, writers, lost)
            progress.advance(sum(piece.size for piece in batch))
        splits = {side: writer.close() for side, writer in writers.items()}
    (folder / MARK).unlink(missing_ok=True)
    if tally.left_out:
        voice.say(f"{tally.left_out:,} characters between training and held-out text are left out")
    if tally.read_again:
        voice.say(
            f"{tally.read_again:,} documents are in the training part several times, as the mix has them"
        )
    more = more_of(counts.as_json(), split, tally, None if tokenizer.lossless else lost)
    return {"splits": splits, "more": more}


def more_of(counts: dict[str, Any], split: Split, tally: Tally, lost: Lost | None) -> dict[str, Any]:
    """What a manifest says beside its splits; ``lost`` is None where nothing can be."""
    more: dict[str, Any] = {
        "counts": counts,
        "split": {
            "held_out_documents": len(split.held_out),
            "cut_documents": len(split.cuts),
            "characters_left_out_between": tally.left_out,
            "documents_read_again": tally.read_again,
        },
    }
    if math.isfinite(tally.floor_bits):
        more["val_floor_bits"] = tally.floor_bits
    if lost is not None:
        more["lost"] = lost.as_json()
    return more


def assigned(
    documents: Iterable[tuple[Document, str]], split: Split, gap: int, tally: Tally
) -> Iterator[tuple[str, Document]]:
    """The parts of each document (given with its content hash) with their sides."""
    for document, name in documents:
        parts = assign(document, name, split, gap)
        tally.left_out += len(document.text) - sum(len(part.text) for _, part in parts)
        if any(side == "val" for side, _ in parts):
            tally.floor_bits += document.meta.get("bits", math.nan) if len(parts) == 1 else math.nan
        times = times_of(document.meta.get("fields", {}))
        tally.read_again += times > 1
        for side, part in parts:
            yield from [(side, part)] * (times if side == "train" else 1)


def assign(document: Document, name: str, split: Split, gap: int) -> list[tuple[str, Document]]:
    """The side a document belongs to, or its two parts with theirs; an empty part is none.

    ``name`` is its content hash.
    """
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


def pieces_of(side: str, document: Document, tokenizer: Tokenizer) -> Iterator[Piece]:
    """A document's pieces."""
    begins = True
    texts = [*tokenizer.pieces(document.text, PIECE), None]
    for text, following in pairwise(texts):
        assert text is not None
        yield Piece(side, text, begins, following is None, _share(document, len(text)))
        begins = False


def _batches(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Pieces by about ``PIECE`` characters; short documents go together."""
    batch: list[Piece] = []
    characters = 0
    for piece in pieces:
        batch.append(piece)
        characters += len(piece.text)
        if characters >= PIECE // 2:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def write_piece(writer: ShardWriter, piece: Piece, ids: Ids, tokenizer: Tokenizer) -> None:
    """Append a piece's ids, with what stands before and behind its document."""
    if piece.begins:
        writer.begin_document()
        writer.write(np.array(tokenizer.document_start, dtype=np.int64), characters=0)
    writer.write(ids, characters=len(piece.text))
    if piece.ends:
        writer.write(np.array([tokenizer.end_of_text], dtype=np.int64), characters=0)


def _write_mark(folder: Path, batches: int, writers: Mapping[str, ShardWriter], lost: Lost) -> None:
    """Note how far the shards are on the disk."""
    marks = {side: writer.mark() for side, writer in writers.items()}
    storage.write_json(folder / MARK, {"batches": batches, "writers": marks, "lost": lost.as_counts()})


def _read_mark(folder: Path) -> dict[str, Any]:
    """The last mark, or the beginning."""
    if not (folder / MARK).is_file():
        return {"batches": 0, "writers": {}, "lost": {}}
    mark: dict[str, Any] = storage.read_json(folder / MARK)
    return mark


def _share(document: Document, characters: int) -> float:
    """So many characters' share of their document's size."""
    return float(document.meta.get("size", 0) * characters / len(document.text))


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

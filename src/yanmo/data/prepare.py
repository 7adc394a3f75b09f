"""Documents → tokenizer → token shards, reused by content hash.

1. ``survey.py`` reads the corpus once, for a vocabulary and for each document's size and content hash.
2. ``split.py`` decides what is held out; a pure function of those sizes.
3. The corpus is read again and written as shards, in pieces of ``PIECE_CHARACTERS`` characters, on all cores
   (``encode.py``). A mark records from time to time what is on disk, and interrupted work resumes from it.

Each step's result lies in ``.yanmo/<station>/<hash of all it depends on>/`` and is made only if absent.
"""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, NonNegativeInt

from yanmo.core import storage
from yanmo.core.console import Console, ProgressLine
from yanmo.core.errors import ConfigError, DataError, YanmoError
from yanmo.core.records import Manifest, TypedRecord, parse_record, read_record, sealed
from yanmo.data.encode import encode_all, processes_for
from yanmo.data.prepared import Prepared, Unseen
from yanmo.data.shards import ShardSet, ShardWriter, WriterMark, write_manifest
from yanmo.data.split import Split, SplitTally, assigned, content_hash, default_val_fraction, plan_split
from yanmo.data.survey import MIN_COUNT, SURVEY_VERSION, kind_by_size, read_sizes, survey
from yanmo.settings.schema import CorpusConfig, DataConfig, Recipe, TokenizerConfig
from yanmo.text.read.documents import CorpusCounts, Document, corpus_fingerprint, corpus_size, read_documents
from yanmo.tokenizer import Tokenizer, find_tokenizer, load_tokenizer
from yanmo.tokenizer.base import Ids
from yanmo.tokenizer.roundtrip import RoundTripLoss, describe

PIECE_CHARACTERS = 1 << 18
"""Characters encoded at a time: at most 1 MB of UTF-8."""
MARK_EVERY_BATCHES = 16
"""Batches of pieces between two marks: about 12 MB of text."""
MARK_FILE = "mark.json"
"""The file in an unfinished folder that says how much of the shards is on disk."""


def prepare(
    corpus: CorpusConfig,
    tokenizer: TokenizerConfig,
    data: DataConfig,
    block_size: int,
    console: Console,
) -> Prepared:
    """Tokenizer and shards of a corpus, made where they are missing.

    Raises:
        DataError: a path is missing or unreadable, or the text is shorter than one window.
    """
    if not corpus.path:
        raise DataError("no corpus is named", where="corpus.path", hint="yanmo train novel.txt")
    if (shards_folder := _shards_in(corpus)) is not None:
        return _open_shards(shards_folder, tokenizer, data, block_size)
    content = corpus_fingerprint(corpus)
    found = find_tokenizer(tokenizer)
    never_read = texts_held_out(corpus, data)
    never = hashes_of(never_read)
    surveyed = survey(corpus, tokenizer if found is None else None, content, console, never)
    trained = found or load_tokenizer(surveyed)
    names = [name for name, _ in read_sizes(surveyed)]
    sizes = [(name, size) for name, size in read_sizes(surveyed) if name not in never]
    if not sizes:
        raise DataError(
            f"the texts of data.held_out are the whole corpus: nothing is left of {len(names)} documents",
            where=", ".join(data.held_out),
            hint="hold out fewer texts",
        )
    val_fraction = data.val_fraction or default_val_fraction(sum(n for _, n in sizes))
    key = _key_of(content, trained.fingerprint, val_fraction, block_size, never)

    def fill(folder: Path) -> None:
        split = replace(plan_split(sizes, val_fraction), never=never)
        manifest = _write_shards(folder, corpus, trained, names, split, block_size, data.workers, console)
        write_manifest(folder, content, trained.fingerprint, trained.vocab_size, **manifest)

    folder = storage.cached("shards", key, fill, goes_on=True)
    shards = ShardSet(folder, content, trained.fingerprint)
    _check_long_enough(shards, block_size)
    prepared = Prepared(trained, shards, val_fraction, unseen=Unseen.of(never_read, trained))
    if shards.manifest.lost and prepared.is_lossy:
        console.warn(f"{describe(shards.manifest.lost)}; bits per character are lossy")
    return prepared


def decide_vocabulary(corpus: CorpusConfig, config: TokenizerConfig) -> dict[str, Any]:
    """The kind of vocabulary that a corpus gets, and how rare a character must be to be written as bytes.

    Settings by ``section.key``; none where a vocabulary is given.
    """
    if config.path is not None or not corpus.path or _shards_in(corpus) is not None:
        return {}
    kind = config.kind or kind_by_size(corpus_size(corpus.path))
    return {"tokenizer.kind": kind, "tokenizer.min_count": MIN_COUNT if kind == "char" else None}


def _key_of(
    corpus: str, tokenizer: str, val_fraction: float | None, block_size: int, never: frozenset[str]
) -> str:
    """What shards are called in the cache, by the fingerprints of corpus and tokenizer."""
    # block_size is in it, as it is the gap between the parts of a document that is cut
    besides = [sorted(never)] if never else []
    return storage.fingerprint([SURVEY_VERSION, corpus, tokenizer, val_fraction, block_size, *besides])


def texts_held_out(corpus: CorpusConfig, data: DataConfig) -> list[str]:
    """The texts of ``data.held_out``, read as the corpus is.

    Raises:
        DataError: one is missing or unreadable.
    """
    if not data.held_out:
        return []
    counts = CorpusCounts()
    config = corpus.model_copy(update={"path": data.held_out})
    texts = [document.text for document in read_documents(config, counts)]
    # a text that is asked for and cannot be used must not be missing without a word
    if counts.dropped or not texts:
        why = ", ".join(counts.dropped[:3]) or "there are none"
        raise DataError(
            f"not all texts of data.held_out can be used: {why}",
            where=", ".join(data.held_out),
            hint="name files that have text, or leave them out",
        )
    return texts


def hashes_of(texts: Iterable[str]) -> frozenset[str]:
    """By which documents of the corpus are known."""
    return frozenset(map(content_hash, texts))


def recorded_shards(recipe: Recipe, recorded: Manifest, console: Console) -> ShardSet:
    """The shards that a run was trained on, by its recipe and corpus.json; made again where they are missing.

    Raises:
        ConfigError: they are missing, and its corpus is gone or has changed.
    """
    asked = recipe.corpus, recipe.tokenizer, recipe.data, recipe.model.block_size
    hint = "put the text back where recipe.toml names it (corpus.path, data.held_out)"
    try:
        never = hashes_of(texts_held_out(recipe.corpus, recipe.data))
        key = _key_of(
            recorded.corpus, recorded.tokenizer, recipe.data.val_fraction, recipe.model.block_size, never
        )
        folder = storage.cache_root() / "shards" / key
        if folder.is_dir():  # then the corpus itself is not needed
            return ShardSet(folder, recorded.corpus, recorded.tokenizer)
        shards = prepare(*asked, console).shards
    except YanmoError as error:
        what = f"the text that this run was trained on is not at hand: {error.what}"
        raise ConfigError(what, error.where, hint) from error
    found = shards.manifest
    if (found.tokenizer, found.splits) != (recorded.tokenizer, recorded.splits):
        what = "the corpus is not the one that this run was trained on any more"
        raise ConfigError(what, ", ".join(recipe.corpus.path), hint)
    return shards


def _shards_in(corpus: CorpusConfig) -> Path | None:
    """The folder, if the corpus is a folder of finished shards (made by ``scale/``), with a tokenizer."""
    folder = Path(corpus.path[0])
    is_one = len(corpus.path) == 1 and (folder / "manifest.json").is_file()
    return folder if is_one and (folder / "train.starts.bin").is_file() else None


class OpenSplit(TypedRecord):
    """The split as recorded in shards that were made elsewhere."""

    val_fraction: float
    cut_documents: NonNegativeInt
    block_size: NonNegativeInt


class OpenManifest(Manifest):
    """manifest.json of shards that were made elsewhere."""

    split: OpenSplit


def _open_shards(folder: Path, asked: TokenizerConfig, data: DataConfig, block_size: int) -> Prepared:
    """Finished shards; settings that are given must be those they were made with."""
    tokenizer = load_tokenizer(folder)
    hint = "restore it from a copy, or prepare the shards again"
    manifest = read_record(folder / "manifest.json", OpenManifest, DataError, hint)
    split = manifest.split
    other = find_tokenizer(asked) if asked.path is not None else tokenizer
    if other is not None and other.fingerprint != tokenizer.fingerprint:
        raise DataError(
            f"the shards were not made with tokenizer.path={asked.path}",
            where=str(folder),
            hint="leave tokenizer.path out",
        )
    if data.held_out:
        raise DataError(
            f"data.held_out={', '.join(data.held_out)} cannot be taken out of finished shards",
            where=str(folder),
            hint="leave data.held_out out",
        )
    if data.val_fraction not in (None, split.val_fraction):
        raise DataError(
            f"the shards have data.val_fraction={split.val_fraction}, not {data.val_fraction}",
            where=str(folder),
            hint="leave data.val_fraction out",
        )
    # the gap between training and held-out text of a cut document is too short for longer windows
    if split.cut_documents and block_size > split.block_size:
        raise DataError(
            f"the shards were made for windows of {split.block_size} tokens, not"
            f" model.block_size={block_size}",
            where=str(folder),
            hint="choose a smaller model.block_size, or prepare the shards with this one",
        )
    shards = ShardSet(folder, manifest.corpus, tokenizer.fingerprint)
    _check_long_enough(shards, block_size)
    return Prepared(tokenizer, shards, split.val_fraction)


@dataclass(frozen=True)
class EncodedPiece:
    """A part of a document on its way into the shards of one side."""

    side: str
    text: str
    begins: bool
    """Whether it is the first of its document."""
    ends: bool
    """Whether it is the last."""
    size: float
    """Its share of the corpus's size."""


def _write_shards(
    folder: Path,
    corpus: CorpusConfig,
    tokenizer: Tokenizer,
    names: Sequence[str],
    split: Split,
    gap: int,
    workers: int | None,
    console: Console,
) -> dict[str, Any]:
    """Second pass: write every document (``names`` are their hashes) to its side, in order.

    Resumes from the mark in ``folder``, if there is one. Returns parts of the manifest.
    """
    counts, tally, size = CorpusCounts(), SplitTally(), corpus_size(corpus.path)
    done = _read_mark(folder, tokenizer.vocab_size)
    lost = RoundTripLoss.of(done.lost)
    documents = assigned(zip(read_documents(corpus, counts), names, strict=True), split, gap, tally)
    batches = _batches(piece for side, part in documents for piece in pieces_of(side, part, tokenizer))
    processes = workers or processes_for(tokenizer, size)
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(ProgressLine(console, "tokenising", size))
        writers = {
            side: stack.enter_context(
                ShardWriter(folder, side, tokenizer.vocab_size, mark=done.writers.get(side))
            )
            for side in ("train", "val")
        }
        # batches are cut the same way every time, so a resume skips those done: reading is cheap
        for batch in islice(batches, done.batches):
            progress.skip(sum(piece.size for piece in batch))
        encoded = encode_all(batches, lambda batch: [piece.text for piece in batch], tokenizer, processes)
        for number, (batch, found) in enumerate(encoded, done.batches + 1):
            for piece, ids in zip(batch, found.ids, strict=True):
                write_piece(writers[piece.side], piece, ids, tokenizer)
            if found.lost is not None:
                lost.add(found.lost)
            if number % MARK_EVERY_BATCHES == 0:
                _write_mark(folder, number, writers, lost)
            progress.advance(sum(piece.size for piece in batch))
        splits = {side: writer.close() for side, writer in writers.items()}
    # before the manifest, which makes the folder finished
    (folder / MARK_FILE).unlink(missing_ok=True)
    if tally.left_out:
        console.print(f"{tally.left_out:,} characters between training and held-out text are not used")
    if tally.never_read:
        console.print(f"{tally.never_read:,} documents of the corpus are those of data.held_out: left out")
    if tally.read_again:
        console.print(
            f"{tally.read_again:,} documents are repeated in the training part, as the mix requires"
        )
    more = more_of(counts.as_json(), split, tally, None if tokenizer.lossless else lost)
    return {"splits": splits, "more": more}


def more_of(
    counts: dict[str, Any], split: Split, tally: SplitTally, lost: RoundTripLoss | None
) -> dict[str, Any]:
    """The rest of the manifest; ``lost`` is None for a lossless tokenizer."""
    more: dict[str, Any] = {
        "counts": counts,
        "split": {
            "held_out_documents": len(split.held_out),
            "cut_documents": len(split.cuts),
            "characters_left_out_between": tally.left_out,
            "documents_read_again": tally.read_again,
            **({"documents_never_read": tally.never_read} if tally.never_read else {}),
        },
    }
    if math.isfinite(tally.floor_bits):
        more["val_floor_bits"] = tally.floor_bits
    if lost is not None:
        more["lost"] = lost.as_json()
    return more


def pieces_of(side: str, document: Document, tokenizer: Tokenizer) -> Iterator[EncodedPiece]:
    """A document's pieces."""
    # the tokenizer cuts only where its pre-tokenizer cuts anyway: the pieces' ids are those of the whole text
    begins = True
    texts = [*tokenizer.pieces(document.text, PIECE_CHARACTERS), None]
    for text, following in pairwise(texts):
        assert text is not None
        yield EncodedPiece(side, text, begins, following is None, _share(document, len(text)))
        begins = False


def _batches(pieces: Iterable[EncodedPiece]) -> Iterator[list[EncodedPiece]]:
    """Pieces by ``PIECE_CHARACTERS`` characters; short documents go together."""
    batch: list[EncodedPiece] = []
    characters = 0
    for piece in pieces:
        batch.append(piece)
        characters += len(piece.text)
        # sending one short text at a time to another process would cost more than encoding it
        if characters >= PIECE_CHARACTERS // 2:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def write_piece(writer: ShardWriter, piece: EncodedPiece, ids: Ids, tokenizer: Tokenizer) -> None:
    """Append a piece's ids, with the special tokens that begin and end its document."""
    if piece.begins:
        writer.begin_document()
        writer.write(np.array(tokenizer.document_start, dtype=np.int64), characters=0)
    writer.write(ids, characters=len(piece.text))
    # end-of-text counts as no character: bits per character include the cost of ending a document
    if piece.ends:
        writer.write(np.array([tokenizer.end_of_text], dtype=np.int64), characters=0)


class Mark(TypedRecord):
    """mark.json of an unfinished folder."""

    batches: NonNegativeInt = 0
    writers: dict[str, WriterMark] = Field(default_factory=dict)
    lost: dict[str, int | dict[str, int]] = Field(default_factory=dict)


def _write_mark(folder: Path, batches: int, writers: Mapping[str, ShardWriter], lost: RoundTripLoss) -> None:
    """Record how much of the shards is on disk."""
    marks = {side: writer.mark().model_dump() for side, writer in writers.items()}
    # data, then directory entries, then the mark: it never vouches for what a power loss can take away
    storage.sync_folder(folder)
    mark = {"batches": batches, "writers": marks, "lost": lost.as_counts()}
    storage.write_json(folder / MARK_FILE, sealed(mark))


def _read_mark(folder: Path, vocab_size: int) -> Mark:
    """The last mark; an empty one, where there is none or the data before it is not what was written."""
    try:
        mark = parse_record((folder / MARK_FILE).read_bytes(), Mark)
    except (OSError, ValueError):
        return Mark()
    sides = mark.writers.items()
    is_whole = all(ShardWriter.is_whole(folder, side, vocab_size, writer) for side, writer in sides)
    return mark if is_whole else Mark()


def _share(document: Document, characters: int) -> float:
    """The part of a document's size in bytes that belongs to ``characters`` of its characters."""
    return float(document.meta.get("size", 0) * characters / len(document.text))


def _check_long_enough(shards: ShardSet, block_size: int) -> None:
    if len(shards.train) <= block_size or len(shards.val) < 2:
        raise DataError(
            f"the text is shorter than one window: {len(shards.train)} training tokens and"
            f" {len(shards.val)} validation tokens for model.block_size={block_size}",
            where="the corpus",
            hint="give more text, or a smaller model.block_size",
        )

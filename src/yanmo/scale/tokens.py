"""Clean documents → shards that `yanmo train` reads: the same bytes that ``data/prepare.py`` writes.

1. ``write_split``: what is held out, from the documents' hashes and sizes (``plan_split``).
2. ``tokenise_part``: the tokens of a part, in a folder of their own.
3. ``join_shards``: each task copies its share of the shard files from the parts, in order.
4. ``finish``: where documents begin, the manifests, the tokenizer.
"""

import heapq
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from yanmo.core import storage
from yanmo.core.errors import DataError
from yanmo.data.encode import encode
from yanmo.data.prepare import more_of, pieces_of, write_piece
from yanmo.data.shards import SHARD_TOKENS, ShardWriter, dtype_for, write_manifest
from yanmo.data.split import (
    Split,
    SplitTally,
    assigned,
    content_hash,
    default_val_fraction,
    plan_split,
    smallest,
)
from yanmo.scale.corpus import added, part_of, whole_manifest
from yanmo.scale.plan import Plan, whole
from yanmo.settings.schema import CorpusConfig
from yanmo.text.clean.run import manifest_path
from yanmo.text.read.documents import CorpusCounts, content_of, fingerprint_of, read_documents
from yanmo.tokenizer.roundtrip import RoundTripLoss

SIDES = ("train", "val")
COPY_BYTES = 16 << 20
"""Bytes copied at a time."""
ONE_FILE = 1 << 62
"""Tokens: a part's are never cut."""


# -- what is held out -------------------------------------------------------------------------


@dataclass(frozen=True)
class HeldOut:
    """Hashes up to one of them, without a few: a hundred million names in a line."""

    last: str
    passed_over: frozenset[str]
    count: int

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name <= self.last and name not in self.passed_over

    def __len__(self) -> int:
        return self.count


def write_split(plan: Plan) -> None:
    """Decide what is held out, as ``prepare`` does with all sizes in memory.

    Raises:
        DataError: nothing is left of the corpus.
    """
    totals = [storage.read_json(plan.work("sizes", f"{part:05d}.json")) for part in _parts(plan)]
    characters = sum(total["characters"] for total in totals)
    if not characters:
        raise DataError("nothing is left of the corpus", str(plan.folder), "look at work/counts/*.json")
    val_fraction = plan.settings.data.val_fraction or default_val_fraction(characters)
    sizes = smallest(_merged_sizes(plan), val_fraction * characters)
    split = plan_split(sizes, val_fraction, characters)
    held_out = sorted({name for name, _ in sizes if name in split.held_out})
    last = held_out[-1] if held_out else ""
    passed_over = {name for name, _ in sizes if name <= last} - {*held_out}
    storage.write_json(
        plan.work("split", "split.json"),
        {
            "val_fraction": val_fraction,
            "last": last,
            "passed_over": sorted(passed_over),
            "count": len(held_out),
            "cuts": split.cuts,
        },
    )


def read_split(plan: Plan) -> tuple[Split, float]:
    """What is held out, and which share it was to be."""
    found = storage.read_json(plan.work("split", "split.json"))
    held_out = HeldOut(found["last"], frozenset(found["passed_over"]), found["count"])
    return Split(held_out, found["cuts"]), found["val_fraction"]


def _merged_sizes(plan: Plan) -> Iterator[tuple[str, int]]:
    return heapq.merge(*(_sizes(plan.work("sizes", f"{part:05d}.txt")) for part in _parts(plan)))


def _sizes(path: Path) -> Iterator[tuple[str, int]]:
    with open(path, encoding="ascii") as file:
        for line in file:
            name, size = line.split()
            yield name, int(size)


# -- tokens -----------------------------------------------------------------------------------


def tokenise_part(plan: Plan, part: int) -> int:
    """Write the tokens of a part; gives how many."""
    if plan.is_against(part):
        return 0
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the tasks are the parallelism
    tokenizer, (split, _) = plan.tokenizer(), read_split(plan)
    folder = plan.work("pieces", f"{part:05d}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    corpus, counts, tally, lost = part_of(plan, part), CorpusCounts(), SplitTally(), RoundTripLoss()
    documents = read_documents(corpus, counts) if corpus is not None else ()
    named = ((document, content_hash(document.text)) for document in documents)
    writers = {side: ShardWriter(folder, side, tokenizer.vocab_size, ONE_FILE) for side in SIDES}
    with storage.disk_errors("writing tokens", folder), writers["train"], writers["val"]:
        for side, document in assigned(named, split, plan.settings.scale.block_size, tally):
            for piece in pieces_of(side, document, tokenizer):
                found = encode(tokenizer, [piece.text])
                write_piece(writers[piece.side], piece, found.ids[0], tokenizer)
                if found.lost is not None:
                    lost.add(found.lost)
        for writer in writers.values():
            writer.mark()
        splits = {side: writer.close() for side, writer in writers.items()}
    storage.write_json(
        folder / "piece.json",
        {
            "splits": splits,
            "counts": counts.as_json(),
            "left_out": tally.left_out,
            "lost": lost.as_counts(),
            "content": content_of(plan.corpus_file(part)).hex() if corpus is not None else "",
        },
    )
    return sum(int(part["tokens"]) for part in splits.values())


def join_shards(plan: Plan, task: int, tasks: int, shard_tokens: int = SHARD_TOKENS) -> int:
    """Write every ``tasks``-th shard file from the tokens of the parts; gives the bytes written."""
    size, written = dtype_for(plan.tokenizer().vocab_size).itemsize, 0
    for side in SIDES:
        tokens = [_piece(plan, part)["splits"][side]["tokens"] for part in _parts(plan)]
        for number in range(task, -(-sum(tokens) // shard_tokens), tasks):
            with whole(plan.shards / f"{side}-{number:05d}.bin") as file:
                begin = number * shard_tokens * size
                written += _copy(
                    plan, side, [n * size for n in tokens], begin, begin + shard_tokens * size, file
                )
    return written


def _copy(plan: Plan, side: str, sizes: list[int], begin: int, end: int, target: BinaryIO) -> int:
    """Copy the bytes from ``begin`` to ``end`` of the parts' tokens as one row."""
    before, written = 0, 0
    for part, size in zip(_parts(plan), sizes, strict=True):
        first, last = max(begin - before, 0), min(end - before, size)
        before += size
        if first >= last:
            continue
        with open(plan.work("pieces", f"{part:05d}") / f"{side}-00000.bin", "rb") as source:
            source.seek(first)
            while first < last:
                chunk = source.read(min(COPY_BYTES, last - first))
                first += target.write(chunk)
                written += len(chunk)
    return written


def finish(plan: Plan, shard_tokens: int = SHARD_TOKENS) -> dict[str, Any]:
    """Write what belongs to all shards, the manifest last; gives the manifest's splits."""
    tokenizer, (split, val_fraction) = plan.tokenizer(), read_split(plan)
    pieces = [_piece(plan, part) for part in _parts(plan)]
    splits = {side: _finish_side(plan, side, pieces, shard_tokens) for side in SIDES}
    counts, lost = CorpusCounts().as_json(), RoundTripLoss()
    for piece in pieces:
        counts = added(counts, piece["counts"])
        lost.add(RoundTripLoss.of(piece["lost"]))
    tally = SplitTally(left_out=sum(piece["left_out"] for piece in pieces), floor_bits=math.nan)
    more = more_of(counts, split, tally, None if tokenizer.lossless else lost)
    more["split"] |= {"val_fraction": val_fraction, "block_size": plan.settings.scale.block_size}
    tokenizer.save(plan.shards, 1 << 30)
    storage.write_json(manifest_path(plan.corpus), whole_manifest(plan))
    content = fingerprint_of(CorpusConfig(), (bytes.fromhex(piece["content"]) for piece in pieces))
    write_manifest(plan.shards, content, tokenizer.fingerprint, tokenizer.vocab_size, splits, more)
    return splits


def _finish_side(plan: Plan, side: str, pieces: list[dict[str, Any]], shard_tokens: int) -> dict[str, Any]:
    """Write where the documents of a side begin; gives its part of the manifest."""
    tokens = 0
    with whole(plan.shards / f"{side}.starts.bin") as file:
        for part, piece in zip(_parts(plan), pieces, strict=True):
            starts = np.fromfile(plan.work("pieces", f"{part:05d}") / f"{side}.starts.bin", "<u8")
            file.write((starts + np.uint64(tokens)).tobytes())
            tokens += piece["splits"][side]["tokens"]
    totals = {
        key: sum(piece["splits"][side][key] for piece in pieces)
        for key in ("documents", "tokens", "characters")
    }
    files = [f"{side}-{number:05d}.bin" for number in range(-(-tokens // shard_tokens))]
    return {"files": files, **totals}


def _piece(plan: Plan, part: int) -> dict[str, Any]:
    found: dict[str, Any] = storage.read_json(plan.work("pieces", f"{part:05d}") / "piece.json")
    return found


def _parts(plan: Plan) -> list[int]:
    """The parts that are kept."""
    return [part for part in range(plan.parts) if not plan.is_against(part)]

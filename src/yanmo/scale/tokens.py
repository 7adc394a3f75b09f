"""Clean documents → shards that `yanmo train` reads, in the order of the parts.

1. ``Tokenise``: the tokens of a part, in files of its own. Each document is held out or not by its own hash,
   so that no task needs to know of the others.
2. ``Finish``: the files of all parts → ``shards/``, with document starts, manifests and the tokenizer.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yanmo.core import storage
from yanmo.core.errors import DataError
from yanmo.data.encode import encode
from yanmo.data.prepare import pieces_of, write_piece
from yanmo.data.shards import SHARD_TOKENS, ShardWriter, dtype_for, write_manifest
from yanmo.data.split import HASH_BYTES, content_hash
from yanmo.scale.corpus import added, whole_manifest
from yanmo.scale.plan import Plan
from yanmo.scale.steps import PlanStep
from yanmo.settings.schema import CorpusConfig
from yanmo.text.clean.mix import times_of
from yanmo.text.clean.run import manifest_path
from yanmo.text.read.documents import CorpusCounts, content_of, fingerprint_of, read_documents
from yanmo.tokenizer.roundtrip import RoundTripLoss

SIDES = ("train", "val")
COPY_BYTES = 16 << 20
"""Bytes copied at a time."""


def is_held_out(text: str, val_fraction: float) -> bool:
    """Whether a document is held out: whether its hash is among the smallest ``val_fraction`` of hashes.

    Copies fall on the same side, and no document moves when others come or go. ``prepare`` takes the smallest
    hashes, too, until their documents have that share of the characters: that needs the sizes of all.
    """
    return int(content_hash(text), 16) < val_fraction * (1 << 8 * HASH_BYTES)


class Tokenise(PlanStep):
    """Documents of a part → tokens of a part."""

    name = "tokenise"

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Write them, and their counts."""
        with self.track_time(unit="task"):
            found = _tokenise(self.plan, rank)
        self.stat_update("tokens", value=sum(part["tokens"] for part in found["splits"].values()))
        storage.write_json(_piece(self.plan, rank), found)


def _tokenise(plan: Plan, part: int) -> dict[str, Any]:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the tasks are the parallelism
    tokenizer, val_fraction = plan.tokenizer(), plan.settings.data.val_fraction or 0.0
    folder, file = plan.work("tokens"), plan.corpus_file(part)
    folder.mkdir(parents=True, exist_ok=True)
    corpus = CorpusConfig(path=(str(file),) if file.is_file() else ())
    counts, lost, again = CorpusCounts(), RoundTripLoss(), 0
    writers = {side: ShardWriter(folder, f"{side}-{part:05d}", tokenizer.vocab_size) for side in SIDES}
    with storage.disk_errors("writing tokens", folder), writers["train"], writers["val"]:
        for document in read_documents(corpus, counts):
            side = "val" if is_held_out(document.text, val_fraction) else "train"
            times = times_of(document.meta.get("fields", {})) if side == "train" else 1
            again += times > 1
            for piece in [*pieces_of(side, document, tokenizer)] * times:
                found = encode(tokenizer, [piece.text])
                write_piece(writers[side], piece, found.ids[0], tokenizer)
                if found.lost is not None:
                    lost.add(found.lost)
        for writer in writers.values():
            # flush and fsync before the counts are written: a part with a .json is complete
            writer.mark()
    return {
        "splits": {side: writer.close() for side, writer in writers.items()},
        "counts": counts.as_json(),
        "read_again": again,
        "lost": lost.as_counts(),
        "content": content_of(file).hex() if corpus.path else "",
    }


class Finish(PlanStep):
    """Tokens of all parts → shards/, and the manifests. One task."""

    name = "finish"

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Join the parts, and write the manifest of the shards last.

        Raises:
            DataError: nothing is left of the corpus.
        """
        with self.track_time(unit="task"):
            for side, part in finish(self.plan).items():
                self.stat_update(f"{side} tokens", value=part["tokens"])


def finish(plan: Plan, shard_tokens: int = SHARD_TOKENS) -> dict[str, Any]:
    """Join the parts; returns the manifest's splits."""
    tokenizer, manifest = plan.tokenizer(), whole_manifest(plan)
    storage.write_json(manifest_path(plan.corpus), manifest)
    if not manifest["documents"]:
        raise DataError("nothing is left of the corpus", str(manifest_path(plan.corpus)), "it says why")
    plan.shards.mkdir(exist_ok=True)
    pieces = [storage.read_json(_piece(plan, part)) for part in range(plan.parts)]
    splits = {side: _join_side(plan, side, pieces, shard_tokens) for side in SIDES}
    counts, lost = CorpusCounts().as_json(), RoundTripLoss()
    for piece in pieces:
        counts = added(counts, piece["counts"])
        lost.add(RoundTripLoss.of(piece["lost"]))
    more = {
        "counts": counts,
        "split": {
            "held_out_documents": splits["val"]["documents"],
            "cut_documents": 0,  # no cut, no gap: windows of any size may be read
            "characters_left_out_between": 0,
            "documents_read_again": sum(piece["read_again"] for piece in pieces),
            "val_fraction": plan.settings.data.val_fraction,
            "block_size": 0,
        },
    }
    if not tokenizer.lossless:
        more["lost"] = lost.as_json()
    tokenizer.save(plan.shards, 1 << 30)
    content = fingerprint_of(CorpusConfig(), (bytes.fromhex(piece["content"]) for piece in pieces))
    write_manifest(plan.shards, content, tokenizer.fingerprint, tokenizer.vocab_size, splits, more)
    return splits


def _join_side(plan: Plan, side: str, pieces: Sequence[Any], shard_tokens: int) -> dict[str, Any]:
    """Write the tokens of a side and its document starts; returns its part of the manifest."""
    found = [piece["splits"][side] for piece in pieces]
    # A document starts at its place in the part, plus all tokens of the parts before it.
    # uint64 throughout: int64 and uint64 together would become float64, which rounds above 2^53
    before = np.cumsum([0, *(one["tokens"] for one in found)], dtype=np.uint64)
    starts = [
        np.fromfile(plan.work("tokens") / f"{side}-{part:05d}.starts.bin", "<u8") + before[part]
        for part in range(plan.parts)
    ]
    storage.write_atomic(plan.shards / f"{side}.starts.bin", np.concatenate(starts).astype("<u8").tobytes())
    itemsize = dtype_for(plan.tokenizer().vocab_size).itemsize
    sources = [plan.work("tokens") / name for one in found for name in one["files"]]
    files = _join(sources, plan.shards, side, shard_tokens * itemsize)
    totals = {key: sum(one[key] for one in found) for key in ("documents", "tokens", "characters")}
    return {"files": files, **totals}


def _join(sources: Sequence[Path], folder: Path, side: str, least: int) -> list[str]:
    """Concatenate files into as few as possible of at least ``least`` bytes: training maps all of them."""
    names: list[str] = []
    size = least
    for source in sources:
        if size >= least:
            names.append(f"{side}-{len(names):05d}.bin")
            (folder / names[-1]).unlink(missing_ok=True)
            size = 0
        with open(source, "rb") as one, open(folder / names[-1], "ab") as all_of_them:
            shutil.copyfileobj(one, all_of_them, COPY_BYTES)
        size += source.stat().st_size
    for name in names:  # on the disk before the manifest vouches for them
        storage.sync_file(folder / name)
    return names


def _piece(plan: Plan, part: int) -> Path:
    return plan.work("tokens") / f"{part:05d}.json"

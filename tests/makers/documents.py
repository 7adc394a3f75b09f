"""Reading as a test wants it: all documents at once, their counts looked over."""

import json
from pathlib import Path

from yanmo.settings.schema import CorpusConfig
from yanmo.text.read.dialogues import DialogueCounts, read_dialogues
from yanmo.text.read.documents import CorpusCounts, Document, corpus_fingerprint, read_documents
from yanmo.text.read.turns import Dialogue, Pair


def read(*paths: Path | str, counts: CorpusCounts | None = None, **how: str | bool) -> list[Document]:
    corpus = CorpusConfig(path=tuple(map(str, paths)), **how)  # type: ignore[arg-type]
    counts = counts or CorpusCounts()
    found = list(read_documents(corpus, counts))
    assert counts.documents_read == counts.documents_kept + counts.documents_dropped.total()
    assert counts.documents_kept == len(found)
    assert counts.characters == sum(len(d.text) for d in found)
    json.dumps(counts.as_json())
    return found


def dialogues(*paths: Path | str, counts: DialogueCounts | None = None, **how: str) -> list[Dialogue | Pair]:
    corpus = CorpusConfig(path=tuple(map(str, paths)), **how)  # type: ignore[arg-type]
    counts = counts or DialogueCounts()
    found = list(read_dialogues(corpus, counts))
    assert counts.read == counts.kept + counts.dropped.total()
    assert counts.kept == len(found)
    assert counts.places.keys() == counts.dropped.keys() | counts.changed.keys()
    json.dumps(counts.as_json())
    return found


def fingerprint(path: Path, **how: str | bool) -> str:
    return corpus_fingerprint(CorpusConfig(path=(str(path),), **how))  # type: ignore[arg-type]

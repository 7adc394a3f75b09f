"""The station ``yanmo clean``: corpora → one .jsonl of clean documents, and a manifest that adds up.

1. Documents are read in order, each with the source it comes from.
2. The rules and the marks of duplicates are worked out on all cores, in batches of about 1 MB.
3. In order again: duplicates are dropped, repeated paragraphs taken out, rows written.
4. With weights, each row is told how often it is to be read (``mix.py``).

Plays may be written as conversations instead (``drama.py``), several rows for each.

The output appears whole or not at all; beside it ``NAME.manifest.json`` says where every document went.
"""

import glob
import json
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

from yanmo.core import storage
from yanmo.core.console import Console, ProgressLine
from yanmo.core.errors import DataError
from yanmo.core.workers import cores, in_order, processes
from yanmo.settings.schema import Cleaning, DedupConfig
from yanmo.text.clean.dedup import ONLY_REPEATED, DuplicateIndex, Marks, marks_of
from yanmo.text.clean.drama import DramaCounts, rows_of_plays
from yanmo.text.clean.mix import REPEAT, passes, repeats
from yanmo.text.clean.rules import Cleaned, Rule, clean, rules_for
from yanmo.text.read.documents import NAMED, CorpusCounts, Document, corpus_size, read_documents
from yanmo.text.read.kinds import MANIFEST_SUFFIX
from yanmo.text.read.sources import legible

BATCH_CHARACTERS = 1 << 18
"""Characters of documents worked on at a time: about 1 MB."""
DOCUMENT_CHARACTERS = 1 << 10
"""What a document takes beside its text, in characters: tiny ones are not thousands to a batch."""
PARALLEL_FROM_BYTES = 8 << 20
"""Bytes of text from which on other processes save more time than their start takes."""
LICENCE_FIELDS = ("licence", "license")
LICENCE_FILES = ("LICENSE", "LICENCE", "LICENSE.txt", "LICENCE.txt", "LICENSE.md", "COPYING")
UNKNOWN = "not known"
MADE_BY = "yanmo clean"
NO_PLAY = "no play"
"""Fewer speeches than make a character, or in a layout that is not known."""


@dataclass
class SourceCounts:
    """What became of one of the corpora."""

    path: str
    documents_read: int = 0
    documents: int = 0
    characters: int = 0
    """Of the documents that are written."""
    characters_in_the_mix: int = 0
    """The same as often as they are to be read."""
    licences: Counter[str] = field(default_factory=Counter)
    """Documents, by what their records or a file beside them say."""


@dataclass
class CleaningResult:
    """What was read, changed, dropped and written."""

    out: Path
    counts: CorpusCounts
    sources: list[SourceCounts]
    settings: dict[str, Any]
    weights: list[float]
    documents: int = 0
    characters: int = 0
    bytes: int = 0
    changed: Counter[str] = field(default_factory=Counter)
    """Documents that a rule changed."""
    removed: Counter[str] = field(default_factory=Counter)
    """Characters that a rule took out; fewer than none where it put more in."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Documents, by reason."""
    dropped_names: list[str] = field(default_factory=list)
    overlap: float | None = None
    """Share of what would be held out that stands in the training text as well, where that was looked for."""
    drama: DramaCounts | None = None
    """Of plays that are written as conversations."""

    @classmethod
    def of(cls, config: Cleaning, out: Path, dedup: bool, weights: Sequence[float] = ()) -> "CleaningResult":
        """Nothing yet, of these sources."""
        parts = {"clean", "dedup"} if dedup else {"clean"}
        sources = [SourceCounts(path) for path in config.corpus.path]
        return cls(out, CorpusCounts(), sources, config.model_dump(include=parts, mode="json"), [*weights])

    def read(self, number: int, cleaned: Cleaned) -> None:
        """Count a document of a source, and what the rules changed of it."""
        self.sources[number].documents_read += 1
        for rule, removed in cleaned.changes.items():
            self.changed[rule] += 1
            self.removed[rule] += removed

    def drop(self, reason: str, name: str) -> None:
        """Count a document that is left out, and name it."""
        self.dropped[reason] += 1
        if len(self.dropped_names) < NAMED:
            self.dropped_names.append(f"{name}: {reason}")

    def keep(self, number: int, characters: int, licence: str) -> None:
        """Count a document that is written."""
        source = self.sources[number]
        source.licences[licence] += 1
        source.documents += 1
        source.characters += characters
        self.documents += 1
        self.characters += characters

    def shorten(self, text: str, left: str) -> None:
        """Count what was taken out because an earlier document has it."""
        if len(left) < len(text):
            self.changed["repeated_paragraphs"] += 1
            self.removed["repeated_paragraphs"] += len(text) - len(left)

    def as_json(self) -> dict[str, Any]:
        """The manifest."""
        return {
            "format": 1,
            "made_by": f"{MADE_BY} {version('yanmo')}",
            "file": self.out.name,
            "documents": self.documents,
            "characters": self.characters,
            "bytes": self.bytes,
            "weights": self.weights,
            "sources": [vars(source) | {"licences": dict(source.licences)} for source in self.sources],
            "read": self.counts.as_json(),
            "rules": {
                name: {"documents": self.changed[name], "characters_removed": self.removed[name]}
                for name in self.changed
            },
            "dropped": dict(self.dropped),
            "dropped_documents": self.dropped_names,
            "held_out_in_training": self.overlap,
            "settings": self.settings,
        } | ({"drama": self.drama.as_json()} if self.drama is not None else {})


def run(
    config: Cleaning,
    out: Path,
    console: Console,
    weights: Sequence[float] = (),
    dedup: bool = False,
    workers: int | None = None,
    as_dialogues: bool = False,
) -> CleaningResult:
    """Clean, and write ``out`` and its manifest.

    Args:
        config: what to read, and which rules.
        out: the .jsonl to write.
        console: is told how far it is.
        weights: of the sources in the mix, one each; none: every document is read once.
        dedup: whether to look for duplicates.
        workers: processes; left out: one for each core.
        as_dialogues: whether the documents are plays, to be written as conversations.

    Raises:
        DataError: a path is missing or unreadable, or nothing is left.
        StorageError: the disk is full or refuses.
    """
    result = CleaningResult.of(config, out, dedup, weights)
    result.drama = DramaCounts() if as_dialogues else None
    with storage.whole_file(out) as unfinished:
        with open(unfinished, "wb") as file:
            rows = _write_rows(file, config, result, dedup, workers, console)
        _check_something_left(result)
        if weights:
            _tell_repeats(unfinished, rows, result)
        result.bytes = unfinished.stat().st_size
    write_manifest(result)
    return result


def write_manifest(result: CleaningResult) -> None:
    """Say beside the corpus where every document went."""
    storage.write_json(manifest_path(result.out), result.as_json())


def manifest_path(out: Path) -> Path:
    """Where the manifest of a corpus lies."""
    return out.with_suffix(MANIFEST_SUFFIX)


def is_cleaned(out: Path) -> bool:
    """Whether a corpus is one of ours as it was written: its manifest says so, and its size."""
    try:
        said = storage.read_json(manifest_path(out))
        return str(said["made_by"]).startswith(MADE_BY) and said["bytes"] == out.stat().st_size
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False


Numbered = tuple[int, Document]
Finished = tuple[Cleaned, Marks]


def documents_of(config: Cleaning, counts: CorpusCounts) -> Iterator[Numbered]:
    """Every document in order, with the number of its source."""
    for number, path in enumerate(config.corpus.path):
        for document in read_documents(config.corpus.model_copy(update={"path": (path,)}), counts):
            yield number, document


def cleaned_documents(
    documents: Iterable[Numbered], config: Cleaning, dedup: bool, many: int
) -> Iterator[tuple[int, Document, Cleaned, Marks]]:
    """Every document in order, with what the rules made of it and its marks, by ``many`` processes."""
    rules, compared = rules_for(config.clean), config.dedup if dedup else None
    for batch, finished in _on_all_cores(_batches(documents), config, rules, compared, many):
        for (number, document), (cleaned, marks) in zip(batch, finished, strict=True):
            yield number, document, cleaned, marks


def processes_for(config: Cleaning, asked: int | None) -> int:
    """How many processes to clean with; 1 is this one alone."""
    return asked or (cores() if corpus_size(config.corpus.path) >= PARALLEL_FROM_BYTES else 1)


# -- on all cores -----------------------------------------------------------------------------


def _batches(documents: Iterable[Numbered]) -> Iterator[list[Numbered]]:
    batch: list[Numbered] = []
    characters = 0
    for number, document in documents:
        batch.append((number, document))
        characters += len(document.text) + DOCUMENT_CHARACTERS
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _on_all_cores(
    batches: Iterable[list[Numbered]],
    config: Cleaning,
    rules: list[Rule],
    compared: DedupConfig | None,
    many: int,
) -> Iterator[tuple[list[Numbered], list[Finished]]]:
    if many == 1:
        for batch in batches:
            yield batch, _finish(rules, compared, [document.text for _, document in batch])
        return
    hint = "the same command begins again; --nproc 1 needs the least memory"
    with processes(many, _begin, (config, compared), "cleans", hint) as pool:
        yield from in_order(
            batches, lambda batch: pool.submit(_finish_here, [document.text for _, document in batch]), many
        )


def _finish(rules: list[Rule], compared: DedupConfig | None, texts: Sequence[str]) -> list[Finished]:
    """What the rules make of each text, and the marks of what is left."""
    cleaned = [clean(text, rules) for text in texts]
    return [
        (done, marks_of(done.text, compared) if compared is not None and not done.dropped else Marks())
        for done in cleaned
    ]


_here: tuple[list[Rule], DedupConfig | None] | None = None
"""In a process of the pool: what it works with."""


def _begin(config: Cleaning, compared: DedupConfig | None) -> None:
    global _here
    _here = rules_for(config.clean), compared


def _finish_here(texts: Sequence[str]) -> list[Finished]:
    assert _here is not None
    return _finish(*_here, texts)


# -- in order again ---------------------------------------------------------------------------


@dataclass
class Rows:
    """Of each row that was written, in order."""

    sources: "array[int]" = field(default_factory=lambda: array("l"))
    characters: "array[int]" = field(default_factory=lambda: array("l"))


def _write_rows(
    file: BinaryIO,
    config: Cleaning,
    result: CleaningResult,
    dedup: bool,
    workers: int | None,
    console: Console,
) -> Rows:
    """Write every document that stays, count all others."""
    rows = Rows()
    for stale in result.out.parent.glob(f"*{storage.TEMPORARY}{glob.escape(result.out.name)}-*"):
        if Path(file.name) != stale:
            stale.unlink()  # of a run that was killed, and may be as large as the corpus
    seen = seen_before(config) if dedup else None
    licences = [licence_beside(Path(source.path)) for source in result.sources]
    with ProgressLine(console, "cleaning", corpus_size(config.corpus.path)) as progress:
        documents = documents_of(config, result.counts)
        many = processes_for(config, workers)
        for number, document, cleaned, marks in cleaned_documents(documents, config, dedup, many):
            progress.advance(document.meta["size"])
            result.read(number, cleaned)
            text, reason = cleaned.text, cleaned.dropped
            if seen is not None and not reason:  # what is dropped anyway must not drop its copies
                text, reason = unlike_others(text, marks, seen)
                result.shorten(cleaned.text, text)
            if reason:
                result.drop(reason, document.id)
                continue
            written = [row_of(text, document, result.sources[number].path)]
            if result.drama is not None:
                written = rows_of_plays(text, document.id, result.drama)
            if not written:
                result.drop(NO_PLAY, document.id)
                continue
            # A row's own licence comes before that of the file or folder it lies in.
            result.keep(number, len(text), licence_of(document) or licences[number])
            rows.sources.append(number)
            rows.characters.append(len(text))
            file.writelines(map(line_of, written))
    return rows


def seen_before(config: Cleaning) -> DuplicateIndex:
    """What must not be in the corpus is seen before its first document."""
    seen = DuplicateIndex(config.dedup)
    if config.dedup.against:
        other = config.model_copy(
            update={"corpus": config.corpus.model_copy(update={"path": config.dedup.against})}
        )
        counts = CorpusCounts()
        for number, _, cleaned, marks in cleaned_documents(documents_of(other, counts), config, True, 1):
            if not cleaned.dropped:
                seen.block(cleaned.text, marks, f"also in {config.dedup.against[number]}")
        if not counts.documents_kept:
            raise DataError(
                "nothing in it can be read",
                where=f"dedup.against: {', '.join(config.dedup.against)}",
                hint="; ".join(counts.dropped[:3]) or "give a text",
            )
    return seen


def unlike_others(text: str, marks: Marks, seen: DuplicateIndex) -> tuple[str, str]:
    """(text without paragraphs that were seen, why it is to be dropped)."""
    if reason := seen.holds(text) or seen.judge(marks):
        return text, reason
    return without_lines(text, seen.repeated(marks))


def without_lines(text: str, repeated: Collection[int]) -> tuple[str, str]:
    """(text without these lines, which other documents have, why it is to be dropped then)."""
    if not repeated:
        return text, ""
    lines = text.split("\n")
    left = "\n".join(line for number, line in enumerate(lines) if number not in repeated)
    return left, "" if left.strip() else ONLY_REPEATED


def row_of(text: str, document: Document, source: str) -> dict[str, Any]:
    """What is written of a document; a record's own id and source stay, as an earlier cleaning wrote them."""
    # "text" twice: first in the row, and last in value, for a record may have a field of that name.
    return {"text": text, "id": document.id, "source": source, **_fields(document)} | {"text": text}


def line_of(row: dict[str, Any]) -> bytes:
    """A row as a line of a .jsonl; what is no character becomes U+FFFD."""
    return legible(json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8")


def _fields(document: Document) -> dict[str, Any]:
    found: dict[str, Any] = document.meta.get("fields", {})
    return found


def licence_of(document: Document) -> str:
    """What a document's own record says of its licence, or an empty string."""
    fields = _fields(document)
    return next((str(fields[name]) for name in LICENCE_FIELDS if fields.get(name)), "")


def licence_beside(path: Path) -> str:
    """What the manifest of a text, or a licence file in its folder, says."""
    if path.is_file() and manifest_path(path).is_file():
        return _licence_of_manifest(manifest_path(path))
    folder = path if path.is_dir() else path.parent
    for name in LICENCE_FILES:
        if (folder / name).is_file():
            with open(folder / name, encoding="utf-8", errors="replace") as file:
                return f"{name}: {file.readline(200).strip()}"
    return UNKNOWN


def _licence_of_manifest(manifest: Path) -> str:
    """What a manifest of ours says; a file of somebody else's that has the name of one says nothing."""
    try:
        found = storage.read_json(manifest)
        if found.get("permission"):
            return str(found["permission"])
        names = Counter[str]()
        for source in found.get("sources", []):
            names.update(source.get("licences", {}))
        return ", ".join(names) or UNKNOWN
    except (ValueError, AttributeError, TypeError):
        return UNKNOWN


def _check_something_left(result: CleaningResult) -> None:
    if result.documents:
        return
    reasons = result.dropped + result.counts.documents_dropped
    why = ", ".join(f"{reason}: {number:,}" for reason, number in reasons.most_common(3))
    raise DataError(
        f"nothing is left of {result.counts.documents_read:,} documents ({why})",
        where=", ".join(source.path for source in result.sources),
        hint="a line that begins a speech looks like 麦克白：… or MACBETH: … (docs/dialogues.md)"
        if result.dropped[NO_PLAY]
        else "look at what the rules do: yanmo clean --explain",
    )


def _tell_repeats(written: Path, rows: Rows, result: CleaningResult) -> None:
    """Put into each row how often it is to be read, and count what that makes of the sources."""
    often = passes([source.characters for source in result.sources], result.weights)
    times = repeats(list(zip(rows.sources, rows.characters, strict=True)), often)
    with storage.whole_file(written) as told, open(written, "rb") as plain, open(told, "wb") as file:
        for line, number, size, repeat in zip(plain, rows.sources, rows.characters, times, strict=True):
            result.sources[number].characters_in_the_mix += repeat * size
            file.write(line_of({**json.loads(line), REPEAT: repeat}))

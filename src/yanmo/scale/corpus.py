"""Text in, text out: the parts of a corpus cleaned, and rid of their duplicates.

1. ``clean_part``: files → documents → the rules of ``text/clean`` → rows in ``work/rows``.
2. ``keep_part``: rows that are no copies, without paragraphs others have → ``corpus/<part>.jsonl``, and the
   content hash and size of each document for the split.

Each counts what it read, changed, dropped and kept; ``whole_manifest`` adds the parts up.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from yanmo.core import storage
from yanmo.data.split import content_hash
from yanmo.scale.duplicates import copies_of, repeated_lines_of, unwanted_reason
from yanmo.scale.plan import Plan, whole
from yanmo.settings.schema import CorpusConfig
from yanmo.text.clean.dedup import DuplicateIndex, Marks
from yanmo.text.clean.rules import clean, rules_for
from yanmo.text.clean.run import (
    CleaningResult,
    licence_beside,
    licence_of,
    line_of,
    row_of,
    without_lines,
)
from yanmo.text.read.documents import NAMED, CorpusCounts, read_documents, read_file

COUNTED = ("documents", "characters", "bytes", "sources", "read", "rules", "dropped", "dropped_documents")
"""Of a manifest, what is added up."""


def clean_part(plan: Plan, part: int) -> Iterator[str]:
    """The clean texts of a part, in order; they are written as rows on the way."""
    settings, result = plan.settings, _nothing(plan)
    rules = rules_for(settings.clean)
    licences = {} if plan.is_against(part) else _licences(settings.corpus.path)
    unwanted = DuplicateIndex(settings.dedup) if plan.is_against(part) else unwanted_in(plan)
    with whole(_rows(plan, part)) as rows:
        for file in plan.files_of(part):
            place = Path(file.path), file.name, file.is_searched
            for document in read_file(*place, settings.corpus, result.counts):
                cleaned = clean(document.text, rules)
                if not plan.is_against(part):
                    result.read(file.source, cleaned)
                reason = cleaned.dropped or unwanted.holds(cleaned.text)
                if reason:
                    result.drop(reason, document.id)
                    continue
                if not plan.is_against(part):
                    licence = licence_of(document) or licences[file.source]
                    row = row_of(cleaned.text, document, settings.corpus.path[file.source])
                    rows.write(line_of({"number": file.source, "licence": licence, "row": row}))
                yield cleaned.text
    _write_counts(plan, part, "clean", result)


def unwanted_in(plan: Plan) -> DuplicateIndex:
    """The texts of dedup.against, whose passages keep a document out; whole copies are found later."""
    seen, settings = DuplicateIndex(plan.settings.dedup), plan.settings
    rules = rules_for(settings.clean)
    for file in plan.files_of(0) if settings.scale.against else ():
        place = Path(file.path), file.name, file.is_searched
        for document in read_file(*place, settings.corpus, CorpusCounts()):
            cleaned = clean(document.text, rules)
            if not cleaned.dropped:
                seen.block(cleaned.text, Marks(), unwanted_reason(settings.dedup))
    return seen


def keep_part(plan: Plan, part: int) -> int:
    """Write the documents of a part that stay, and their sizes; gives how many there are."""
    if plan.is_against(part):
        return 0
    result = _nothing(plan)
    copies, repeated = copies_of(plan, part), repeated_lines_of(plan, part)
    target = plan.corpus_file(part)
    with whole(target) as file, open(_rows(plan, part), encoding="utf-8", errors="surrogatepass") as rows:
        for number, line in enumerate(rows):
            found = json.loads(line)
            row = found["row"]
            reason = copies.get(number, "")
            if not reason:
                left, reason = without_lines(row["text"], repeated.get(number, ()))
                result.shorten(row["text"], left)
                row["text"] = left
            if reason:
                result.drop(reason, row["id"])
                continue
            result.keep(found["number"], len(row["text"]), found["licence"])
            file.write(line_of(row))
    result.bytes = target.stat().st_size
    if not result.documents:
        target.unlink()
    _write_counts(plan, part, "keep", result)
    _write_sizes(plan, part)
    return result.documents


def part_of(plan: Plan, part: int) -> CorpusConfig | None:
    """How ``prepare`` reads the clean documents of a part; None where there are none."""
    file = plan.corpus_file(part)
    return CorpusConfig(path=(str(file),)) if file.is_file() else None


def whole_manifest(plan: Plan) -> dict[str, Any]:
    """What became of every document, as `yanmo clean` says it."""
    manifest = _nothing(plan).as_json()
    for part in range(plan.parts):
        for stage in ("clean", "keep"):
            if not plan.is_against(part):
                counts = storage.read_json(_counts(plan, part, stage))
                manifest |= {key: added(manifest[key], counts[key]) for key in COUNTED}
    return manifest | {"made_by": manifest["made_by"].replace("yanmo clean", "yanmo scale")}


def added(one: Any, other: Any) -> Any:
    """Counts of two parts together: numbers are added up wherever they stand, names are joined.

    >>> added({"a": 1, "b": ["x"]}, {"a": 2, "c": 3, "b": ["y"]})
    {'a': 3, 'b': ['x', 'y'], 'c': 3}
    """
    if isinstance(one, dict):
        return {key: added(one[key], other[key]) if key in one and key in other else {**one, **other}[key]
                for key in {**one, **other}}  # fmt: skip
    if isinstance(one, list):
        if one and isinstance(one[0], dict):
            return [added(mine, others) for mine, others in zip(one, other, strict=True)]
        return [*one, *other][:NAMED]
    return one if isinstance(one, str) else one + other


def _nothing(plan: Plan) -> CleaningResult:
    return CleaningResult.of(plan.settings.cleaning, plan.corpus, dedup=True)


def _licences(paths: Sequence[str]) -> dict[int, str]:
    return {number: licence_beside(Path(path)) for number, path in enumerate(paths)}


def _rows(plan: Plan, part: int) -> Path:
    return plan.work("rows", f"{part:05d}.jsonl")


def _counts(plan: Plan, part: int, stage: str) -> Path:
    return plan.work("counts", f"{part:05d}.{stage}.json")


def _write_counts(plan: Plan, part: int, stage: str, result: CleaningResult) -> None:
    storage.write_json(_counts(plan, part, stage), result.as_json())


def _write_sizes(plan: Plan, part: int) -> None:
    """(content hash, characters) of each document as ``prepare`` will read it, by hash."""
    corpus = part_of(plan, part)
    documents = read_documents(corpus) if corpus is not None else ()
    sizes = sorted((content_hash(document.text), len(document.text)) for document in documents)
    with whole(plan.work("sizes", f"{part:05d}.txt")) as file:
        file.writelines(b"%s %d\n" % (name.encode("ascii"), size) for name, size in sizes)
    total = sum(size for _, size in sizes)
    storage.write_json(plan.work("sizes", f"{part:05d}.json"), {"documents": len(sizes), "characters": total})

"""Cleaning and deduplicating the parts of a corpus: text in, text out.

1. ``Clean``: files → documents → the rules of ``text/clean`` → rows in ``work/rows``.
2. ``Unlike``: rows → documents, without the duplicates that are known at that stage.
3. ``Keep``: the documents that stay, without paragraphs that others have → ``corpus/<part>.jsonl``.

1 and 3 count what they read, changed, dropped and kept; ``whole_manifest`` adds the parts up. A killed task
starts again from its beginning and rewrites its files.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datatrove.data import Document

from yanmo.core import storage
from yanmo.scale.duplicates import Drop, all_places, exact_filter, near_filter, repeated_lines_of
from yanmo.scale.plan import Plan
from yanmo.scale.steps import PlanStep
from yanmo.text.clean.run import (
    CleaningResult,
    Numbered,
    cleaned_documents,
    licence_beside,
    licence_of,
    line_of,
    row_of,
    seen_before,
    unlike_others,
    without_lines,
)
from yanmo.text.read.documents import NAMED, CorpusCounts, read_file

COUNTED = ("documents", "characters", "bytes", "sources", "read", "rules", "dropped", "dropped_documents")
"""Keys of a manifest whose values are added up."""


class Clean(PlanStep):
    """Files of a part → clean documents: the rules of `yanmo clean`, and nothing of dedup.against."""

    name = "clean"

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield clean documents, and write them for the next stages, which read them again."""
        plan, config = self.plan, self.plan.settings.cleaning
        result, unwanted = _nothing(plan), seen_before(config)
        unwanted.is_closed = True  # documents of the corpus are compared with each other later
        licences = [licence_beside(Path(path)) for path in config.corpus.path]
        documents = _documents_of(plan, rank, result.counts)
        # Under its last name at once: a killed task has no mark of completion, and nobody reads its file.
        with open(_rows(plan, rank), "wb") as rows:
            for number, document, cleaned, marks in cleaned_documents(
                documents, config, bool(config.dedup.against), 1
            ):
                result.read(number, cleaned)
                text, reason = cleaned.text, cleaned.dropped
                if not reason:
                    text, reason = unlike_others(text, marks, unwanted)
                    result.shorten(cleaned.text, text)
                if reason:
                    result.drop(reason, document.id)
                    continue
                licence = licence_of(document) or licences[number]
                row = row_of(text, document, config.corpus.path[number])
                rows.write(line_of({"number": number, "licence": licence, "row": row}))
                self.stat_update("documents")
                yield Document(text, document.id)
        _write_counts(plan, rank, "clean", result)


def _documents_of(plan: Plan, part: int, counts: CorpusCounts) -> Iterator[Numbered]:
    for file in plan.files_of(part):
        place = Path(file.path), file.name, file.is_searched
        for document in read_file(*place, plan.settings.corpus, counts):
            yield file.source, document


class Unlike(PlanStep):
    """The clean documents of a part without copies and, once clusters are known, near copies."""

    name = "unlike others"

    def __init__(self, plan: Plan, near: bool = False) -> None:
        super().__init__(plan)
        self.near = near

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Documents, always in the same order."""
        return _unlike(self.plan, rank, self.near, lambda reason, name: self.stat_update(reason))


def _unlike(plan: Plan, part: int, near: bool, drop: Drop) -> Iterator[Document]:
    """The rows of a part that are not dropped, as datatrove's filters decide."""
    documents = _read_rows(plan, part)
    # This order, in every stage: a near copy is known by its number among documents that are no copies.
    if plan.settings.dedup.exact:
        documents = exact_filter(plan, drop).run(documents, part)
    if plan.settings.dedup.near and near:
        documents = near_filter(plan, drop).run(documents, part)
    return documents


class Keep(PlanStep):
    """Documents of a part that stay → corpus/."""

    name = "keep"

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:
        """Write them, and the counts of the others."""
        plan, result = self.plan, _nothing(self.plan)
        repeated, target = repeated_lines_of(plan, rank), plan.corpus_file(rank)
        target.parent.mkdir(exist_ok=True)
        with self.track_time(unit="task"), open(target, "wb") as file:
            for number, document in enumerate(_unlike(plan, rank, True, result.drop)):
                row = document.metadata["row"]
                lines = all_places(plan, row["text"], repeated.get(number, set()))
                left, reason = without_lines(row["text"], lines)
                result.shorten(row["text"], left)
                if reason:
                    result.drop(reason, document.id)
                    continue
                result.keep(document.metadata["number"], len(left), document.metadata["licence"])
                file.write(line_of(row | {"text": left}))
        result.bytes = target.stat().st_size
        if not result.documents:
            target.unlink()  # an empty file would be counted as a document that was dropped
        self.stat_update("documents", value=result.documents)
        _write_counts(plan, rank, "keep", result)


def whole_manifest(plan: Plan) -> dict[str, Any]:
    """The counts of all documents, in the form of `yanmo clean`."""
    manifest = _nothing(plan).as_json()
    for part in range(plan.parts):
        # each document is counted by the one stage that dropped or kept it, so sums over both are complete
        for stage in ("clean", "keep"):
            counts = storage.read_json(_counts(plan, part, stage))
            manifest |= {key: added(manifest[key], counts[key]) for key in COUNTED}
    return manifest | {"made_by": manifest["made_by"].replace("yanmo clean", "yanmo scale")}


def added(one: Any, other: Any) -> Any:
    """Counts of two parts together: numbers are added at every depth, names are joined.

    >>> added({"a": 1, "b": ["x"]}, {"a": 2, "c": 3, "b": ["y"]})
    {'a': 3, 'b': ['x', 'y'], 'c': 3}
    """
    if isinstance(one, dict):
        both = {key: added(one[key], other[key]) for key in one if key in other}
        return {**one, **other, **both}
    if isinstance(one, list):
        if one and isinstance(one[0], dict):
            return [added(mine, others) for mine, others in zip(one, other, strict=True)]
        return [*one, *other][:NAMED]
    return one if isinstance(one, str) else one + other


def _nothing(plan: Plan) -> CleaningResult:
    return CleaningResult.of(plan.settings.cleaning, plan.corpus, dedup=True)


def _rows(plan: Plan, part: int) -> Path:
    folder = plan.work("rows")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{part:05d}.jsonl"


def _read_rows(plan: Plan, part: int) -> Iterator[Document]:
    with open(_rows(plan, part), encoding="utf-8") as rows:
        for line in rows:
            found = json.loads(line)
            yield Document(found["row"]["text"], found["row"]["id"], metadata=found)


def _counts(plan: Plan, part: int, stage: str) -> Path:
    return plan.work("counts") / f"{part:05d}.{stage}.json"


def _write_counts(plan: Plan, part: int, stage: str, result: CleaningResult) -> None:
    storage.write_json(_counts(plan, part, stage), result.as_json())

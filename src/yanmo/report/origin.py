"""Where a run comes from: what was asked for, what was decided, its text, and the commands to make it again.

In: a recipe or a :class:`~yanmo.report.record.RunRecord`. Out: settings, counts, sentences and commands,
without paths of the machine.
"""

import json
from collections.abc import Iterator

from yanmo.core.commands import as_command
from yanmo.report.record import RunRecord
from yanmo.report.words import Said, file_name
from yanmo.settings.places import PATHS
from yanmo.settings.recipe import get, settings
from yanmo.settings.schema import Recipe

PRIVATE = ("sample.prompt", "sample.pinned", "sample.banned", "sample.stop", "sample.acrostic")
"""Settings that are texts."""
NAMED_FILES = (*PATHS, "finetune.keep")
"""Settings that are paths."""


def asked_settings(recipe: Recipe) -> list[str]:
    """What was asked for, as settings: what differs from the defaults and was not decided."""
    usual = Recipe()
    return [
        f"{name}={shown_value(recipe, name)}"
        for name, _ in settings()
        if name not in (*recipe.decided, *PRIVATE) and get(recipe, name) != get(usual, name)
    ]


def decided_settings(recipe: Recipe) -> list[str]:
    """What was decided when the run was made."""
    return [f"{name}={shown_value(recipe, name)}" for name in recipe.decided if name not in PRIVATE]


def shown_value(recipe: Recipe, name: str) -> str:
    """The value of a setting; of a path only the name."""
    value = get(recipe, name)
    values = value if isinstance(value, tuple) else () if value is None else (value,)
    if name in NAMED_FILES:
        values = tuple(map(file_name, values))
    shown = ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
    if len(values) > 1:
        return json.dumps(list(values), ensure_ascii=False)
    return shown.lower() if isinstance(value, bool) else shown


def text_rows(record: RunRecord) -> Iterator[tuple[str, int]]:
    """What was read, kept, dropped and held out."""
    counts, splits = record.corpus.counts.model_dump(), record.corpus.splits
    yield "documents read", record.corpus.counts.documents_read
    if isinstance(kept := counts.get("documents_kept"), int):
        yield "documents kept", kept
    for reason, number_dropped in record.corpus.counts.documents_dropped.items():
        yield f"dropped: {reason}", number_dropped
    yield "characters to train on", splits.train.characters
    yield "characters held out", splits.val.characters


def held_out_how(record: RunRecord) -> Said:
    """Whole documents, the ends of documents, or shares of dialogues."""
    split = record.corpus.model_dump().get("split")
    cut = split.get("cut_documents") if isinstance(split, dict) else None
    whole = split.get("held_out_documents") if isinstance(split, dict) else record.corpus.splits.val.documents
    english, chinese = [f"{whole} whole"] if whole else [], [f"{whole} 篇全文"] if whole else []
    if cut:  # a model that read the beginning of a text knows more of its end than of another text
        english.append(f"the ends of {cut}, of which the beginnings were read")
        chinese.append(f"{cut} 篇的结尾（开头用于训练）")
    return Said(f"Held out of the documents: {' and '.join(english)}.", f"留出：{'，'.join(chinese)}。")


def again(record: RunRecord) -> list[str]:
    """The commands that make such a run again: by its recipe with all decisions; by what was asked for."""
    recipe, place = record.recipe, record.place
    texts = [file_name(path) for path in recipe.corpus.path]
    base = [file_name(recipe.model.init)] if recipe.model.init else []
    asked = [
        s
        for s in asked_settings(recipe)
        if not s.startswith(("corpus.path", "model.init", "finetune.method=full"))
    ]
    verb = "finetune" if recipe.finetune.method else "train"
    return [
        as_command(["yanmo", "train", f"{place}/recipe.toml", "--out", f"{place}-again"]),
        as_command(["yanmo", verb, *base, *texts, *asked]),
    ]

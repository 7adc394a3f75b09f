"""The folder of a plan: what is to be made, and where.

In: the settings of ``yanmo clean`` and ``yanmo prepare``, and a number of tasks. Out: ``plan.toml`` (every
setting), ``files.jsonl`` (every file and the part it belongs to), ``tokenizer/``. A part is a run of files in
their order, the work of one task. ``pipeline.py`` (from ``script.py``) says how it is run; the work is in
``corpus.py``, ``duplicates.py`` and ``tokens.py``.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import PositiveInt

from yanmo.core import storage
from yanmo.core.errors import ConfigError
from yanmo.data.shards import dtype_for
from yanmo.data.split import default_val_fraction
from yanmo.settings.recipe import read_settings, section_toml
from yanmo.settings.schema import (
    CleanConfig,
    Cleaning,
    CorpusConfig,
    DataConfig,
    DedupConfig,
    Recipe,
    Section,
    TokenizerConfig,
)
from yanmo.text.read.documents import DEMO, corpus_size
from yanmo.text.read.sources import find_files
from yanmo.tokenizer import Tokenizer, find_tokenizer, load_tokenizer

PLAN, FILES = "plan.toml", "files.jsonl"
HEAD = (
    "# What is made, with every setting. How it is run stands in pipeline.py, which files in files.jsonl.",
    "# After a change here delete logs/ and work/: finished tasks are not done again.",
    "",
)
BYTES_OF_A_CHARACTER = 3
"""Bytes of a Chinese character in UTF-8."""
MOST_FINDERS = 32
"""Tasks that look for equal documents, each in a range of hashes. Each opens a file of every part, and a part
writes a file for each, so the number of files is their product."""


class ScaleConfig(Section):
    """How the work is divided."""

    parts: PositiveInt = 1
    """Parts of the corpus, each the work of one task."""


class Settings(Section):
    """All settings of a plan."""

    corpus: CorpusConfig = CorpusConfig()
    clean: CleanConfig = CleanConfig()
    dedup: DedupConfig = DedupConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    data: DataConfig = DataConfig()
    scale: ScaleConfig = ScaleConfig()

    @property
    def cleaning(self) -> Cleaning:
        """The settings of `yanmo clean`."""
        return Cleaning(corpus=self.corpus, clean=self.clean, dedup=self.dedup)


@dataclass(frozen=True)
class PartFile:
    """A file of the corpus and the part it belongs to."""

    part: int
    source: int
    """Which of the corpus's paths it was found by."""
    name: str
    """The name from which its documents get theirs."""
    is_searched: bool
    """Whether it was found in a folder or by a glob."""
    path: str
    size: int
    """Bytes."""


@dataclass(frozen=True)
class Plan:
    """The folder of a plan and its settings."""

    folder: Path
    settings: Settings

    @classmethod
    def load(cls, folder: Path) -> "Plan":
        """The plan that was written in ``folder``.

        Raises:
            ConfigError: there is none, or a setting in it cannot be.
        """
        return cls(folder, read_settings(Settings, folder / PLAN))

    @property
    def parts(self) -> int:
        """Tasks of the stages that work on documents."""
        return self.settings.scale.parts

    @property
    def finders(self) -> int:
        """Tasks of the stages that look for equal documents and paragraphs."""
        return min(self.parts, MOST_FINDERS)

    @property
    def corpus(self) -> Path:
        """The folder of the clean documents, one .jsonl for each part."""
        return self.folder / "corpus"

    @property
    def shards(self) -> Path:
        """The folder `yanmo train` reads."""
        return self.folder / "shards"

    def corpus_file(self, part: int) -> Path:
        """The clean documents of a part; missing where none is left."""
        return self.corpus / f"{part:05d}.jsonl"

    def work(self, station: str) -> Path:
        """A folder of intermediate results, which are of no use after the last stage."""
        return self.folder / "work" / station

    def logs(self, stage: str) -> Path:
        """datatrove's logs and marks of finished tasks."""
        return self.folder / "logs" / stage

    def files_of(self, part: int) -> list[PartFile]:
        """The files of a part, in order."""
        with open(self.folder / FILES, encoding="utf-8") as file:
            found = (PartFile(**json.loads(line)) for line in file)
            return [one for one in found if one.part == part]

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the plan."""
        return load_tokenizer(self.folder / "tokenizer")


def make_plan(cleaning: Cleaning, recipe: Recipe, tasks: int, folder: Path) -> tuple[Plan, list[PartFile]]:
    """Write a plan; an identical plan that exists stays as it is.

    Raises:
        ConfigError: no tokenizer is named, or the folder holds another plan.
        DataError: a path is missing.
    """
    tokenizer = find_tokenizer(recipe.tokenizer)
    if tokenizer is None:
        raise ConfigError(
            "a plan needs a tokenizer that is ready: no machine sees the whole corpus to learn one",
            where="tokenizer.path",
            hint="yanmo tokenizer train SAMPLE --out tok, then tokenizer.path=tok",
        )
    files = share_out(cleaning.corpus, tasks)
    plan = Plan(folder.resolve(), _settings(cleaning, recipe, files))
    named = (line for name, section in plan.settings for line in section_toml(name, section))
    text = "\n".join([*HEAD, *named])
    lines = "".join(json.dumps(vars(file), ensure_ascii=False) + "\n" for file in files)
    if (folder / PLAN).is_file():
        _require_the_same(folder, text, lines, tokenizer)
    else:
        # plan.toml comes last: where it is, the rest is there.
        storage.write_atomic(folder / FILES, lines)
        (folder / "tokenizer").mkdir(exist_ok=True)
        tokenizer.save(folder / "tokenizer", 1 << 30)
        storage.write_atomic(folder / PLAN, text)
    return plan, files


def _settings(cleaning: Cleaning, recipe: Recipe, files: Sequence[PartFile]) -> Settings:
    """Everything a task must know, so that it decides the same wherever and whenever it runs."""
    # Tasks may run in another folder; files of the corpus are written down as whole paths, too.
    against = tuple(path if path == DEMO else str(Path(path).absolute()) for path in cleaning.dedup.against)
    corpus_size(against)  # raises now for a missing path, instead of in each task
    characters = sum(file.size for file in files) // BYTES_OF_A_CHARACTER
    held_out = recipe.data.val_fraction or default_val_fraction(characters)
    return Settings(
        corpus=cleaning.corpus,
        clean=cleaning.clean,
        dedup=cleaning.dedup.model_copy(update={"against": against}),
        tokenizer=recipe.tokenizer,
        data=recipe.data.model_copy(update={"val_fraction": held_out}),
        scale=ScaleConfig(parts=files[-1].part + 1),
    )


def _require_the_same(folder: Path, text: str, lines: str, tokenizer: Tokenizer) -> None:
    said = (folder / PLAN).read_text(encoding="utf-8")
    hint = "choose another folder"
    if "\nblock_size" in said.partition("[scale]")[2]:
        what = "a plan of an earlier version, whose pipeline.py no longer runs"
    elif said != text:
        what = "a plan with other settings"
    elif (folder / FILES).read_text(encoding="utf-8") != lines:
        what = "a plan with other files"
    elif load_tokenizer(folder / "tokenizer").fingerprint != tokenizer.fingerprint:
        what = "a plan with another tokenizer"
    else:
        return
    raise ConfigError(f"this folder holds {what}", f"--out {folder}", hint)


def share_out(corpus: CorpusConfig, tasks: int) -> list[PartFile]:
    """Every file of a corpus with its part, in order."""
    files = [file for number, path in enumerate(corpus.path) for file in _files_of_source(number, path)]
    parts = deal([file.size for file in files], tasks)
    return [PartFile(**{**vars(file), "part": part}) for file, part in zip(files, parts, strict=True)]


def _files_of_source(number: int, path: str) -> Iterator[PartFile]:
    if path == DEMO:
        raise ConfigError("the demo corpus needs no second machine", path, "yanmo train yanmo:demo")
    source = find_files(path)
    for file in source.files:
        place, size = str(file.resolve()), file.stat().st_size
        yield PartFile(0, number, source.name(file), source.is_search, place, size)


def deal(sizes: Sequence[int], tasks: int) -> list[int]:
    """The part of each file: runs of files in order, of about equal bytes, none of them empty.

    >>> deal([5, 5, 5, 5], 2)
    [0, 0, 1, 1]
    >>> deal([1, 30, 1], 8)
    [0, 1, 2]
    """
    total, before, parts = max(sum(sizes), 1), 0, []
    for size in sizes:
        # By its middle: a file that is larger than a part's share skips numbers, which `dense` closes up.
        parts.append(min(int((before + size / 2) * tasks / total), tasks - 1))
        before += size
    dense = {part: number for number, part in enumerate(sorted({*parts}))}
    return [dense[part] for part in parts]


# -- what it costs ----------------------------------------------------------------------------

CORE_MICROSECONDS = 4.0
"""For a character, all stages together with a `bpe` tokenizer, on one core: docs/scale.md."""
CLUSTER_BYTES = 60
"""Memory of the stage `clusters` for a document of 1,000 characters, if 30% have near ones: docs/scale.md."""


def costs(plan: Plan, files: Sequence[PartFile]) -> dict[str, Any]:
    """About what a plan needs at most; another corpus on another processor needs half or twice as much."""
    # upper bounds from bytes alone, as nothing is read yet: no duplicates, and one token for each character
    size = sum(file.size for file in files)
    characters = size // BYTES_OF_A_CHARACTER
    tokens = characters * dtype_for(plan.tokenizer().vocab_size).itemsize
    return {
        "files": len(files),
        "bytes": size,
        "characters": characters,
        "core_hours": characters * CORE_MICROSECONDS / 3.6e9,
        "disk": {"corpus": size, "shards": tokens, "work": 2 * size + tokens},
        "memory": characters // 1000 * CLUSTER_BYTES if plan.settings.dedup.near else 0,
    }

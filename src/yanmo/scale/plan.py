"""What is to be made, and where it lies: the folder of a plan.

In: the settings of ``yanmo clean`` and ``yanmo prepare``, and a number of tasks. Out: ``plan.toml`` (every
setting), ``files.jsonl`` (every file and the part it belongs to), ``tokenizer/``. A part is a run
of files in their order: the documents of the parts, one part after another, are those of ``yanmo clean``. How
it is run stands in ``pipeline.py`` (``script.py``); the work is in ``corpus.py``, ``duplicates.py`` and
``tokens.py``.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydantic import PositiveInt

from yanmo.core import storage
from yanmo.core.errors import ConfigError
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
from yanmo.text.read.documents import DEMO
from yanmo.text.read.sources import find_files
from yanmo.tokenizer import Tokenizer, find_tokenizer, load_tokenizer

PLAN, FILES = "plan.toml", "files.jsonl"
HEAD = (
    "# What is made, with every setting. How it is run stands in pipeline.py, which files in files.jsonl.",
    "# After a change here delete logs/ and work/: finished tasks are not done again.",
    "",
)


class ScaleConfig(Section):
    """How the work is shared out."""

    parts: PositiveInt = 1
    """Parts of the corpus, each the work of one task."""
    against: bool = False
    """Whether the first part holds the texts of dedup.against, which are compared and not kept."""
    block_size: PositiveInt = 128
    """model.block_size: the characters left out between the two parts of a document that is cut."""


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
        """What `yanmo clean` is told."""
        return Cleaning(corpus=self.corpus, clean=self.clean, dedup=self.dedup)


@dataclass(frozen=True)
class PartFile:
    """A file of the corpus and the part it belongs to."""

    part: int
    source: int
    """Which of the corpus's paths it was found by; -1: one of dedup.against."""
    name: str
    """What its documents are called by."""
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

    def work(self, station: str, name: str = "") -> Path:
        """What is needed between the stages, and of no use after them."""
        return self.folder / "work" / station / name

    def logs(self, stage: str) -> Path:
        """datatrove's logs and marks of finished tasks."""
        return self.folder / "logs" / stage

    def is_against(self, part: int) -> bool:
        """Whether a part's texts must not be in the corpus."""
        return self.settings.scale.against and part == 0

    def files_of(self, part: int) -> list[PartFile]:
        """The files of a part, in order."""
        with open(self.folder / FILES, encoding="utf-8") as file:
            found = (PartFile(**json.loads(line)) for line in file)
            return [one for one in found if one.part == part]

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the plan."""
        return load_tokenizer(self.folder / "tokenizer")


def make_plan(cleaning: Cleaning, recipe: Recipe, tasks: int, folder: Path) -> tuple[Plan, list[PartFile]]:
    """Write a plan; the same plan again is left as it is.

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
    files, has_against = share_out(cleaning, tasks)
    settings = Settings(
        corpus=cleaning.corpus,
        clean=cleaning.clean,
        dedup=cleaning.dedup,
        tokenizer=recipe.tokenizer,
        data=recipe.data,
        scale=ScaleConfig(parts=files[-1].part + 1, against=has_against, block_size=recipe.model.block_size),
    )
    plan = Plan(folder.resolve(), settings)
    text = "\n".join([*HEAD, *(line for name, section in settings for line in section_toml(name, section))])
    lines = "".join(json.dumps(vars(file), ensure_ascii=False) + "\n" for file in files)
    if (folder / PLAN).is_file():
        _require_the_same(folder, text, lines, tokenizer)
    else:
        storage.write_atomic(folder / FILES, lines)
        (folder / "tokenizer").mkdir(exist_ok=True)
        tokenizer.save(folder / "tokenizer", 1 << 30)
        storage.write_atomic(folder / PLAN, text)
    return plan, files


def _require_the_same(folder: Path, text: str, lines: str, tokenizer: Tokenizer) -> None:
    same_files = (folder / FILES).read_text(encoding="utf-8") == lines
    same_settings = (folder / PLAN).read_text(encoding="utf-8") == text
    if (
        same_files
        and same_settings
        and load_tokenizer(folder / "tokenizer").fingerprint == tokenizer.fingerprint
    ):
        return
    what = "other settings" if not same_settings else "other files" if not same_files else "another tokenizer"
    raise ConfigError(f"this folder holds a plan with {what}", f"--out {folder}", "choose another folder")


def share_out(cleaning: Cleaning, tasks: int) -> tuple[list[PartFile], bool]:
    """Every file with its part, in order, and whether the first part is that of dedup.against."""
    against = [file for path in cleaning.dedup.against for file in _files_of_source(-1, path)]
    files = [
        file for number, path in enumerate(cleaning.corpus.path) for file in _files_of_source(number, path)
    ]
    first = 1 if against else 0
    numbers = deal([file.size for file in files], tasks)
    return [
        *against,
        *(
            PartFile(**{**vars(file), "part": part + first})
            for file, part in zip(files, numbers, strict=True)
        ),
    ], bool(against)


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
        parts.append(min(int((before + size / 2) * tasks / total), tasks - 1))
        before += size
    dense = {part: number for number, part in enumerate(sorted({*parts}))}
    return [dense[part] for part in parts]


@contextlib.contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write; it takes its name when all is written, for a killed task leaves half of one."""
    with storage.whole_file(path) as unfinished, open(unfinished, "wb") as file:
        yield file

"""The corpus doctor: what a corpus is, what is wrong with it, and what ``clean`` would do about it.

In: a corpus and the rules of ``clean``. Out: :class:`Report`, numbers and samples in plain values, for the
terminal, JSON or a page (``page.py``). One pass, in order; lines and documents are compared by hashes and
counts, so a corpus may be larger than memory.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from yanmo.core.console import Console, ProgressLine
from yanmo.core.errors import ConfigError, DataError
from yanmo.settings.schema import Cleaning
from yanmo.text.clean import filters
from yanmo.text.clean.ads import ads, letters
from yanmo.text.clean.characters import NARROW, QUOTES, UNSEEN_CHARACTER
from yanmo.text.clean.dedup import DuplicateIndex, Marks
from yanmo.text.clean.rules import Cleaned
from yanmo.text.clean.run import cleaned_documents, processes_for, seen_before, unlike_others
from yanmo.text.clean.scanned import COMPATIBILITY, RADICAL, SPACED
from yanmo.text.inspect.notes import Notes
from yanmo.text.read.chapters import chapter_starts
from yanmo.text.read.documents import DEMO, CorpusCounts, Document, corpus_size, read_documents
from yanmo.text.read.encodings import ILLEGAL, PRIVATE
from yanmo.text.read.sources import find_files

ACTS = re.compile(
    r"^[ \t　]*(?:第[一二三四五六七八九十]+[幕场場折齣出本]|楔子)[ \t　]*\S{0,20}$", re.MULTILINE
)
VERSE = re.compile("[，。！？；、\n　]+")
VERSE_LENGTHS = (4, 5, 6, 7)
MIN_VERSES = 4
REPEATED_TIMES = 3
"""Documents that have a line, or times that fewer documents repeat it, from which on it is reported."""
MIN_REPEATED_LETTERS = 4
SHOWN_ROWS = 20
UNSAFE = re.compile(r"[\"'`$\\\\;&<>!]")
"""A line with one of these is not proposed for a command line: a shell would interpret it."""
MAX_SHOWN_CHARACTERS = 100
MAX_COUNTED_LINES = 250_000
"""Different lines counted at a time; beyond that the rarest are forgotten."""
WIDE_MARKS, NARROW_MARKS = "，。！？：；", ",.!?:;"
ODD = {
    "control": re.compile(f"{ILLEGAL.pattern}|{UNSEEN_CHARACTER.pattern}"),
    "private-use": PRIVATE,
    "Kangxi radicals": RADICAL,
    "compatibility forms": COMPATIBILITY,
    "lost": re.compile("\ufffd"),
}
BINS = (100, 300, 1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000)


@dataclass
class FileReport:
    """One file."""

    path: str
    location: str
    """Its path from the current folder."""
    bytes: int = 0
    encodings: list[str] = field(default_factory=list)
    documents: int = 0
    characters: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """Documents that cannot be read, by reason."""
    unreadable: str = ""


@dataclass
class Report:
    """Counts and samples of a corpus."""

    files: list[FileReport] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    documents: int = 0
    bytes: int = 0
    characters: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    """About how many tokens there would be, by kind of tokenizer."""
    lengths: list[int] = field(default_factory=list)
    """Documents with up to 100, 300, 1,000… characters, and more."""
    longest: int = 0
    median: int = 0
    lines: int = 0
    """Lines that are not blank."""
    notes: Notes = field(default_factory=Notes)
    """Remarks for before training."""
    forms: Counter[str] = field(default_factory=Counter)
    """Chapters, acts and poems found."""
    scripts: Counter[str] = field(default_factory=Counter)
    """Letters by script; hanzi that have only a traditional or a simplified form apart."""
    odd_characters: dict[str, dict[str, int]] = field(default_factory=dict)
    """Control, private-use and lost characters, and those of PDF readers: kind -> code point -> how often."""
    punctuation: dict[str, int] = field(default_factory=dict)
    unbalanced: Counter[str] = field(default_factory=Counter)
    """Documents whose numbers of opening and closing marks differ, by mark."""
    repeated_lines: list[tuple[str, int]] = field(default_factory=list)
    """Lines that occur in several documents, and in how many."""
    repeated_within: list[tuple[str, int]] = field(default_factory=list)
    """Lines that occur often in one document or two, and how often."""
    ads: list[str] = field(default_factory=list)
    """The first lines that the rule against ads removes."""
    changed: Counter[str] = field(default_factory=Counter)
    """Documents that a rule of ``clean`` would change."""
    removed: Counter[str] = field(default_factory=Counter)
    """Characters that a rule would remove."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Documents that ``clean --dedup`` would drop, by reason."""
    dropped_names: list[str] = field(default_factory=list)
    lacking: dict[str, int] = field(default_factory=dict)
    """Characters that a vocabulary lacks, and how often each occurs in the text."""
    characters_seen: Counter[str] = field(default_factory=Counter, repr=False)
    overlap: float | None = None
    """Share of the held-out text that occurs in the training text as well."""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        plain = {key: _plain(value) for key, value in vars(self).items() if key != "characters_seen"}
        different = {"different_characters": len(self.characters_seen), "notes": [*self.notes.said()]}
        return plain | different

    def proposal(self) -> str:
        """The setting that removes the lines that look like boilerplate, or an empty string."""
        repeated = [*self.repeated_lines, *self.repeated_within]
        # lines that the rule against ads removes anyway need no setting
        lines = [line for line, _ in repeated if _looks_like_boilerplate(line) and ads(line)]
        plain = [line for line in lines if not UNSAFE.search(line)]
        return "clean.drop_lines=" + json.dumps(plain[:SHOWN_ROWS], ensure_ascii=False) if plain else ""


def inspect(config: Cleaning, processes: int | None, console: Console) -> Report:
    """Read a corpus and report on it.

    Raises:
        DataError: a path is missing. A file that cannot be read is part of the report.
    """
    report, lines, seen = Report(), LineCounts(), seen_before(config)
    lengths: Counter[int] = Counter()
    with ProgressLine(console, "reading", corpus_size(config.corpus.path)) as progress:
        documents = _documents(config, report)
        # the very pipeline of `yanmo clean`, so that the report promises what that does
        found = cleaned_documents(documents, config, True, processes_for(config, processes))
        for number, document, cleaned, marks in found:
            file = report.files[number]
            file.documents += 1
            file.characters += len(document.text)
            lengths[len(document.text)] += 1
            _look_at(document.text, report)
            lines.add(document)
            _count_cleaning(document, cleaned, marks, seen, report)
            progress.advance(document.meta["size"])
    _sum_up(report, lengths, lines)
    return report


def _documents(config: Cleaning, report: Report) -> Iterator[tuple[int, Document]]:
    """Every document with the number of its file; unreadable files are noted."""
    for found in _files(config, report):
        # file by file, with counts of its own: an error then belongs to one file, and the next is still read
        counts, number = CorpusCounts(), len(report.files)
        report.files.append(found)
        try:
            corpus = config.corpus.model_copy(update={"path": (found.location,)})
            for document in read_documents(corpus, counts):
                yield number, document
        except (ConfigError, DataError) as error:
            found.unreadable = f"{error.what}; {error.hint}" if error.hint else error.what
        found.bytes = counts.bytes
        found.encodings = sorted(counts.encodings)
        found.dropped = dict(counts.documents_dropped)


def _files(config: Cleaning, report: Report) -> Iterator[FileReport]:
    for path in config.corpus.path:
        if path == DEMO:
            yield FileReport(DEMO, DEMO)
            continue
        source = find_files(path)
        report.passed_over.update(source.passed_over)
        for file in source.files:
            yield FileReport(source.name(file), str(file))


def _look_at(text: str, report: Report) -> None:
    """Count the features of one document."""
    characters = Counter(text)
    report.characters_seen.update(characters)
    chapters = len(chapter_starts(text))
    report.forms["chapters"] += chapters
    report.notes.add(text, chapters)
    report.forms["acts and scenes"] += len(ACTS.findall(text)) if "第" in text or "楔子" in text else 0
    report.forms["poems"] += is_poem(text)
    for opening, closing in QUOTES.items():
        report.unbalanced[opening + closing] += characters[opening] != characters[closing]
    # a straight quote opens and closes: an odd number of them is unbalanced
    report.unbalanced['"'] += characters['"'] % 2
    marks = report.punctuation
    marks["half-width between hanzi"] = marks.get("half-width between hanzi", 0) + len(NARROW.findall(text))
    marks["spaces between hanzi"] = marks.get("spaces between hanzi", 0) + len(SPACED.findall(text))


def is_poem(text: str) -> bool:
    """Whether a text is verse: most of its lines have one and the same short length."""
    # classical verse has lines of 4 to 7 characters; 70% leaves room for a title and an author
    if len(text) > 1000:
        return False
    verses = [part for part in VERSE.split(text.strip()) if part]
    if len(verses) < MIN_VERSES:
        return False
    length, number = Counter(map(len, verses)).most_common(1)[0]
    return length in VERSE_LENGTHS and number >= 0.7 * len(verses)


class LineCounts:
    """Counts how often a line occurs in the corpus, and in how many documents."""

    def __init__(self) -> None:
        self.not_blank = 0
        self._times: Counter[bytes] = Counter()
        self._documents: Counter[bytes] = Counter()
        self._samples: dict[bytes, str] = {}

    def add(self, document: Document) -> None:
        """Count the lines of a document."""
        here: dict[bytes, str] = {}
        for line in document.text.split("\n"):
            line = line.strip()
            self.not_blank += bool(line)
            # longer lines are prose; a refrain, an advertisement or a page number is short
            if 2 <= len(line) <= 100:
                # 8 bytes instead of the line, whose text is kept once it has come back often enough
                key = hashlib.blake2b(line.encode(), digest_size=8).digest()
                self._times[key] += 1
                here[key] = line
        for key, line in here.items():
            self._documents[key] += 1
            if self._times[key] >= REPEATED_TIMES:
                self._samples.setdefault(key, line)
        if len(self._times) > MAX_COUNTED_LINES:
            self._forget()

    def _forget(self) -> None:
        """Forget the rarest lines, until half the room is free."""
        # lossy counting: a line that returns all over the corpus is counted again soon after it was forgotten
        least = 1
        while len(self._times) > MAX_COUNTED_LINES // 2:
            least += 1
            self._times = Counter({key: n for key, n in self._times.items() if n >= least})
        self._documents = Counter({key: self._documents[key] for key in self._times})
        self._samples = {key: line for key, line in self._samples.items() if key in self._times}

    def repeated(self) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
        """The most frequent lines: those of several documents, with their number; those often in fewer."""
        # a line of dashes or a page number repeats everywhere and says nothing
        lines = {k: line for k, line in self._samples.items() if len(letters(line)) >= MIN_REPEATED_LETTERS}
        across = {
            line: self._documents[k] for k, line in lines.items() if self._documents[k] >= REPEATED_TIMES
        }
        within = {line: self._times[k] for k, line in lines.items() if self._documents[k] < REPEATED_TIMES}
        return _most_frequent(across), _most_frequent(within)


def _most_frequent(lines: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(lines.items(), key=lambda pair: (-pair[1], pair[0]))[: 2 * SHOWN_ROWS]


def _looks_like_boilerplate(line: str) -> bool:
    """Whether a repeated line looks like a slogan, and not like something that people say again and again."""
    # names of sites, books and chapters, but no quotation marks: "是。" is repeated in every novel
    return re.search(
        r"[A-Za-z]{3}|网|站|书|本|版|载|目录|章节|更新|[|｜]", line
    ) is not None and not re.search("[“”「」]", line)


def _short(line: str) -> str:
    return line if len(line) <= MAX_SHOWN_CHARACTERS else f"{line[:MAX_SHOWN_CHARACTERS]}…"


def _count_cleaning(
    document: Document, cleaned: Cleaned, marks: Marks, seen: DuplicateIndex, report: Report
) -> None:
    for rule, removed in cleaned.changes.items():
        report.changed[rule] += 1
        report.removed[rule] += removed
    if "ads" in cleaned.changes and len(report.ads) < SHOWN_ROWS:
        lines = (line.strip() for line in document.text.split("\n"))
        gone = [_short(line) for line in lines if line and ads(line) != line]
        report.ads += gone[: SHOWN_ROWS - len(report.ads)]
    reason = cleaned.dropped
    if not reason:
        # after the rules, as in `yanmo clean`: two pages may differ in their advertisements alone
        left, reason = unlike_others(cleaned.text, marks, seen)
        if len(left) < len(cleaned.text):
            report.changed["repeated_paragraphs"] += 1
            report.removed["repeated_paragraphs"] += len(cleaned.text) - len(left)
    if reason:
        report.dropped[reason] += 1
        if len(report.dropped_names) < SHOWN_ROWS:
            report.dropped_names.append(f"{document.id}: {reason}")


def _sum_up(report: Report, lengths: Counter[int], lines: LineCounts) -> None:
    """Compute what needs the whole corpus."""
    report.documents = lengths.total()
    report.bytes = sum(file.bytes for file in report.files)
    report.characters = sum(length * number for length, number in lengths.items())
    report.lengths = [0] * (len(BINS) + 1)
    for length, number in lengths.items():
        # the number of bounds below a length is the index of its bin
        report.lengths[sum(length > bound for bound in BINS)] += number
    report.longest, report.median = max(lengths, default=0), _median(lengths)
    report.repeated_lines, report.repeated_within = lines.repeated()
    report.lines = lines.not_blank
    characters = report.characters_seen
    report.scripts = Counter(dict(scripts(characters).most_common()))
    latin = report.scripts["latin"]
    # byte BPE of 32,000 makes about 1.5 hanzi or 4 Latin letters a token
    report.tokens = {
        "char": report.characters,
        "bpe of 32,000, about": round((report.characters - latin) / 1.5 + latin / 4),
    }
    report.odd_characters = {name: found for name, kind in ODD.items() if (found := _odd(characters, kind))}
    report.punctuation["full-width"] = sum(characters[c] for c in WIDE_MARKS)
    report.punctuation["half-width"] = sum(characters[c] for c in NARROW_MARKS)
    # +counter drops the zeros
    report.unbalanced = +report.unbalanced
    report.forms = +report.forms


def _median(lengths: Counter[int]) -> int:
    """The median length; 0 if there are none."""
    # from counts by length: a list of all lengths would grow with the corpus
    middle = lengths.total() // 2
    for length in sorted(lengths):
        middle -= lengths[length]
        if middle < 0:
            return length
    return 0


def _odd(characters: Counter[str], kind: re.Pattern[str]) -> dict[str, int]:
    found = Counter({f"U+{ord(c):04X}": n for c, n in characters.items() if kind.match(c)})
    return dict(found.most_common())


def scripts(characters: Counter[str]) -> Counter[str]:
    """Letters by script; hanzi that occur only in traditional or only in simplified text separately.

    Without opencc all of them are hanzi.
    """
    found = filters.scripts(characters)
    hanzi = {c: n for c, n in characters.items() if "\u3400" <= c <= "\u9fff"}
    try:
        import opencc
    except ImportError:
        return +found
    for name, direction in (("traditional only", "t2s"), ("simplified only", "s2t")):
        converter = opencc.OpenCC(direction)
        # a character that t2s changes is traditional only, one that s2t changes is simplified only
        found[name] = sum(n for c, n in hanzi.items() if converter.convert(c) != c)
    found["both"] = found.pop("zh", 0) - found["traditional only"] - found["simplified only"]
    return +found


def _plain(value: Any) -> Any:
    if isinstance(value, Counter):
        return dict(value.most_common())
    if isinstance(value, list):
        return [vars(item) if isinstance(item, FileReport) else item for item in value]
    return value

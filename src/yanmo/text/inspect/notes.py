"""Remarks about a corpus before it is trained on, each with the setting or rule that helps.

In: documents as they are read. Out: :class:`Notes`, numbers, and sentences where they are large:
a novel of hundreds of chapters in one document, characters of a site's font, separators between texts that
were read as text, spaces between hanzi.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from yanmo.core.console import counted
from yanmo.text.clean.scanned import RADICAL, gaps
from yanmo.text.read.chapters import chapter_starts
from yanmo.text.read.encodings import MAX_PRIVATE_SHARE, PRIVATE

MANY_CHAPTERS = 100
"""Chapters in one document from which on it should be split."""
MIN_MARKS = 2
MIN_RADICALS = 10
MARKS = re.compile(
    r"<\|(?:endoftext|startoftext|begin_of_text|end_of_text|eot_id|endofdoc)\|>"
    r"|^[ \t]*(?:<s>|</s>|<eos>|<EOS>|<bos>|<eod>|<EOD>|\[SEP\]|\[EOS\])[ \t]*$",
    re.MULTILINE,
)
"""Separators that other tools write between texts."""


@dataclass
class Notes:
    """Counts of what was found."""

    characters: int = 0
    chapters: int = 0
    """Chapters in the documents that have many."""
    documents_of_chapters: int = 0
    private_use: int = 0
    """Characters in the documents that have many of them."""
    scrambled_documents: int = 0
    scrambled_characters: int = 0
    """All characters in those documents."""
    marks: dict[str, int] = field(default_factory=dict)
    """Separators that were read as text, and how often each occurs."""

    radicals: int = 0
    spaced_documents: int = 0
    """Documents with spaces between hanzi that a program put there."""
    spaces: int = 0
    """Spaces between hanzi in those documents."""
    places: int = 0
    """Places between two hanzi in those documents, with or without a space."""

    def add(self, text: str, chapters: int | None = None) -> None:
        """Look at a document; ``chapters`` says how many it has, if that is known."""
        self.characters += len(text)
        found = len(chapter_starts(text)) if chapters is None else chapters
        # a window never reaches across chapters then, and the split holds out whole chapters
        if found >= MANY_CHAPTERS:
            self.documents_of_chapters += 1
            self.chapters += found
        # search first: it stops at once in texts without any, which are nearly all
        if PRIVATE.search(text):
            private = len(PRIVATE.findall(text))
            # a share, not a number: a few private-use characters are rare hanzi of an old font, not a cipher
            if private > MAX_PRIVATE_SHARE * len(text):
                self.scrambled_documents += 1
                self.private_use += private
                self.scrambled_characters += len(text)
        # a test of one character is far cheaper than the pattern with its many alternatives
        if "<" in text or "[" in text:
            marks = Counter(mark.strip() for mark in MARKS.findall(text))
            self.marks = dict(Counter(self.marks) + marks)

        self.radicals += len(RADICAL.findall(text))
        # only regular gaps: a poem may separate half-verses by spaces, and those are its author's
        if (found_gaps := gaps(text)).is_systematic:
            self.spaced_documents += 1
            self.spaces += found_gaps.spaced
            self.places += found_gaps.spaced + found_gaps.joined

    def as_json(self) -> dict[str, Any]:
        """Plain values, from which ``Notes(**values)`` makes it again."""
        return asdict(self)

    def said(self) -> Iterator[str]:
        """Each of them in a sentence, with the way out."""
        if self.documents_of_chapters:
            yield (
                f"{self.chapters:,} chapters stand in {counted(self.documents_of_chapters, 'document')}:"
                " corpus.split_chapters=true makes each a document of its own"
            )
        if self.scrambled_documents:
            share = self.private_use / self.scrambled_characters
            yield (
                f"{share:.0%} of the characters of {counted(self.scrambled_documents, 'document')} are"
                " private-use ones: a font of the site they come from draws them, and without it they are no"
                " text in any encoding; get the text elsewhere, or let `yanmo clean` drop what is garbled"
            )
        if self.spaced_documents:
            yield (
                f"{self.spaces / self.places:.0%} of the places between hanzi have a space in"
                f" {counted(self.spaced_documents, 'document')}, as OCR or a word segmenter leaves them:"
                " `yanmo clean` removes them"
            )
        if self.radicals >= MIN_RADICALS:
            yield (
                f"{self.radicals:,} Kangxi radicals of a PDF stand for characters that look the same:"
                " `yanmo clean` puts these"
            )
        for mark, number in sorted(self.marks.items(), key=lambda pair: (-pair[1], pair[0])):
            # a text about language models may name a separator once; a real one comes back
            if number >= MIN_MARKS:
                yield (
                    f"{mark} stands in the text {number:,} times and is read as text:"
                    f" corpus.separator='{mark}' makes what stands between documents of their own"
                )

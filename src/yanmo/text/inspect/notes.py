"""What a reader of a corpus should know before it is trained on, and the setting or rule that helps.

In: documents as they are read. Out: :class:`Notes`, numbers, and sentences where they are large:
a novel of hundreds of chapters in one document, characters of a site's font, marks between texts that
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
"""In one document."""
MIN_MARKS = 2
MIN_RADICALS = 10
MARKS = re.compile(
    r"<\|(?:endoftext|startoftext|begin_of_text|end_of_text|eot_id|endofdoc)\|>"
    r"|^[ \t]*(?:<s>|</s>|<eos>|<EOS>|<bos>|<eod>|<EOD>|\[SEP\]|\[EOS\])[ \t]*$",
    re.MULTILINE,
)
"""What other tools write between texts."""


@dataclass
class Notes:
    """What was found."""

    characters: int = 0
    chapters: int = 0
    """In the documents that have many."""
    documents_of_chapters: int = 0
    private_use: int = 0
    """Characters in the documents that have many of them."""
    scrambled_documents: int = 0
    scrambled_characters: int = 0
    """Of those documents in all."""
    marks: dict[str, int] = field(default_factory=dict)
    """Ends of text that were read as text, and how often each stands there."""

    radicals: int = 0
    spaced_documents: int = 0
    """With spaces between hanzi that a program put there."""
    spaces: int = 0
    """Theirs, between hanzi."""
    places: int = 0
    """Theirs, between two hanzi, with or without a space."""

    def add(self, text: str, chapters: int | None = None) -> None:
        """Look at a document; ``chapters`` says how many it has, if that is known."""
        self.characters += len(text)
        found = len(chapter_starts(text)) if chapters is None else chapters
        if found >= MANY_CHAPTERS:
            self.documents_of_chapters += 1
            self.chapters += found
        if PRIVATE.search(text):
            private = len(PRIVATE.findall(text))
            if private > MAX_PRIVATE_SHARE * len(text):
                self.scrambled_documents += 1
                self.private_use += private
                self.scrambled_characters += len(text)
        if "<" in text or "[" in text:
            marks = Counter(mark.strip() for mark in MARKS.findall(text))
            self.marks = dict(Counter(self.marks) + marks)

        self.radicals += len(RADICAL.findall(text))
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
                " `yanmo clean` takes them out"
            )
        if self.radicals >= MIN_RADICALS:
            yield (
                f"{self.radicals:,} Kangxi radicals of a PDF stand for characters that look the same:"
                " `yanmo clean` puts these"
            )
        for mark, number in sorted(self.marks.items(), key=lambda pair: (-pair[1], pair[0])):
            if number >= MIN_MARKS:
                yield (
                    f"{mark} stands in the text {number:,} times and is read as text:"
                    f" corpus.separator='{mark}' makes what stands between documents of their own"
                )

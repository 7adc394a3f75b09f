"""What a vocabulary loses of a text, counted: the difference between the text and what comes back.

Our own tokenizers lose nothing. An imported BERT vocabulary drops characters it does not know, case,
accents and spaces; nobody should learn of it from what the model cannot write.
"""

import unicodedata
from collections import Counter
from collections.abc import Mapping
from typing import Any

SHOWN_CHARACTERS = 12


class RoundTripLoss:
    """Counts what is missing from ``decode(encode(text))``, piece by piece."""

    def __init__(self) -> None:
        self.characters = 0
        self.spaces = 0
        self.case = 0
        self.unknown: Counter[str] = Counter()

    def count(self, text: str, back: str) -> None:
        """Compare a text with what came back of it."""
        # as bags of characters: where something is missing does not matter, and no texts need to be aligned
        before, after = Counter(text), Counter(back)
        self.characters += len(text)
        for character, times in (before - after).items():
            if character.isspace():
                self.spaces += times
            elif _has_plain_form(character, after):
                self.case += times
            else:
                self.unknown[character] += times

    @classmethod
    def of(cls, counts: Mapping[str, Any]) -> "RoundTripLoss":
        """The counts that :meth:`as_counts` gave."""
        lost = cls()
        vars(lost).update({**counts, "unknown": Counter(counts.get("unknown", {}))})
        return lost

    def as_counts(self) -> dict[str, Any]:
        """Everything, to go on counting from."""
        return {**vars(self), "unknown": dict(self.unknown)}

    def add(self, other: "RoundTripLoss") -> None:
        """Add the counts of another part of the text."""
        self.characters += other.characters
        self.spaces += other.spaces
        self.case += other.case
        self.unknown += other.unknown

    @property
    def total(self) -> int:
        """Characters that did not come back as they were."""
        return self.spaces + self.case + self.unknown.total()

    def as_json(self) -> dict[str, Any]:
        """For a manifest."""
        return {
            "characters": self.characters,
            "total": self.total,
            "unknown": self.unknown.total(),
            "unknown_characters": dict(self.unknown.most_common(SHOWN_CHARACTERS)),
            "spaces_and_line_ends": self.spaces,
            "case_and_accents": self.case,
        }


def describe(lost: dict[str, Any]) -> str:
    """The counts of :meth:`RoundTripLoss.as_json` in a sentence."""
    names = ", ".join(f"{_shown(c)} ×{n:,}" for c, n in list(lost["unknown_characters"].items())[:6])
    parts = [
        f"{lost['unknown']:,} characters it does not know ({names})" if lost["unknown"] else "",
        f"{lost['spaces_and_line_ends']:,} spaces and line ends"
        " (of a vocab.txt, tokenizer.newline_token=[SEP] keeps the line ends)"
        if lost["spaces_and_line_ends"]
        else "",
        f"case or accents of {lost['case_and_accents']:,} letters" if lost["case_and_accents"] else "",
    ]
    said = "; ".join(part for part in parts if part)
    return f"of {lost['characters']:,} characters the vocabulary loses {said}"


def _has_plain_form(character: str, after: Counter[str]) -> bool:
    """Whether it came back without its case or accents."""
    plain = unicodedata.normalize("NFD", character).lower()
    return plain[0] != character and plain[0] in after


def _shown(character: str) -> str:
    return character if character.isprintable() else f"U+{ord(character):04X}"

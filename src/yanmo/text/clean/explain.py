"""Every change of ``yanmo clean`` as a diff: rule by rule, line by line, what went and what came.

In: a corpus and its rules. Out: :class:`Change` objects in order, for the terminal to colour.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from yanmo.settings.schema import Cleaning
from yanmo.text.clean.rules import Rule, clean, rules_for
from yanmo.text.read.documents import CorpusCounts, Document, read_documents

REACH_LINES = 60
"""Lines looked ahead for the place where two texts meet again."""
CONTEXT_CHARACTERS = 30
"""Characters shown on each side of a change within a long line."""

MAX_COMPARED_CHARACTERS = 2000
"""Characters compared one by one; of more all goes and all comes."""

Kind = Literal["same", "out", "in"]


@dataclass(frozen=True)
class Change:
    """A line, or some, that a rule changed; or a document that was dropped, with no parts."""

    document: str
    line: int
    """From 1, in the text as the rule found it."""
    rule: str
    parts: tuple[tuple[Kind, str], ...] = ()


def explain(config: Cleaning) -> Iterator[Change]:
    """Every change of every document, and every document that is dropped."""
    rules = rules_for(config.clean)
    for document in read_documents(config.corpus, CorpusCounts()):
        yield from explain_document(document, rules)


def explain_document(document: Document, rules: list[Rule]) -> Iterator[Change]:
    """The changes of one document."""
    steps: list[tuple[str, str, str]] = []
    cleaned = clean(document.text, rules, lambda *step: steps.append(step))
    for rule, before, after in steps:
        for line, gone, come in hunks(before.split("\n"), after.split("\n")):
            yield Change(document.id, line, rule, tuple(_parts("\n".join(gone), "\n".join(come))))
    if cleaned.dropped:
        yield Change(document.id, 1, f"dropped: {cleaned.dropped}")


def hunks(before: Sequence[str], after: Sequence[str]) -> Iterator[tuple[int, Sequence[str], Sequence[str]]]:
    """(line, lines that go, lines that come) of each place where two texts differ.

    Rules change a line here and there, so the next lines that are the same again are looked for nearby;
    difflib compares every line with every other, which takes minutes for a novel.
    """
    a = b = 0
    while a < len(before) or b < len(after):
        if a < len(before) and b < len(after) and before[a] == after[b]:
            a, b = a + 1, b + 1
            continue
        gone, come = _until_they_meet(before[a : a + REACH_LINES], after[b : b + REACH_LINES])
        yield a + 1, before[a : a + gone], after[b : b + come]
        a, b = a + gone, b + come


def _until_they_meet(before: Sequence[str], after: Sequence[str]) -> tuple[int, int]:
    """How many lines of each come before the nearest one they share; of both all, if there is none."""
    for distance in range(1, len(before) + len(after)):
        for gone in range(min(distance, len(before) - 1), -1, -1):
            come = distance - gone
            # Blank lines are everywhere: to meet at one says nothing.
            if come < len(after) and before[gone] == after[come] and before[gone].strip():
                return gone, come
    return len(before), len(after)


def _parts(before: str, after: str) -> Iterator[tuple[Kind, str]]:
    """What is the same, what goes and what comes; the same is shown near a change only."""
    if not after or not before:
        yield ("out", before) if before else ("in", after)
        return
    start = _shared(before, after)
    end = _shared(before[start:][::-1], after[start:][::-1])
    head, tail = before[:start], before[len(before) - end :]
    # What both begin and end with is cut off first: difflib's time is the square of what it is given.
    before, after = before[start : len(before) - end], after[start : len(after) - end]
    found: list[tuple[Kind, str]] = [("same", head)] if head else []
    if max(len(before), len(after)) > MAX_COMPARED_CHARACTERS:
        found += [("out", before), ("in", after)]
        before = after = ""
    for operation, i, j, k, m in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if operation == "equal":
            found.append(("same", before[i:j]))
            continue
        if i < j:
            found.append(("out", before[i:j]))
        if k < m:
            found.append(("in", after[k:m]))
    if tail:
        found.append(("same", tail))
    for number, (kind, text) in enumerate(found):
        yield kind, _shortened(text, number == 0, number == len(found) - 1) if kind == "same" else text


def _shared(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _shortened(text: str, is_first: bool, is_last: bool) -> str:
    """A stretch without changes, of which only the ends are shown that touch one."""
    if is_first and is_last:
        return text
    head = "" if is_first else text[:CONTEXT_CHARACTERS]
    tail = "" if is_last else text[-CONTEXT_CHARACTERS:]
    return text if len(head) + len(tail) >= len(text) else f"{head}…{tail}"

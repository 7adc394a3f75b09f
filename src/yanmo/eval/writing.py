"""How a text is written, as numbers: how varied it is, whether it loops, whether its quotes close.

In: a text. Out: for each measure a part and a whole, which are added up over texts. None of
them says how good a text is. They stand beside the same measures of held-out text in pieces of the same
length: a model that is too tame writes less varied and fewer rare characters, a broken one loops, forgets
quotes, or slips into other scripts.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set

import numpy as np

from yanmo.eval.bootstrap import Estimate, Portion, estimate
from yanmo.text.clean.characters import HAN, QUOTES

LOOP_WINDOW = 200
LOOP_GRAM = 8
LOOP_STEP = 10
COMMON_SHARE = 0.99
PAIRS = QUOTES | {"〈": "〉", "(": ")", "[": "]"}
CLOSING = set(PAIRS.values())
SENTENCE_END = re.compile("[。！？!?…]+")
IS_HAN = re.compile(f"[{HAN}]")


def distinct(text: str, n: int) -> Portion:
    """Different ones among the n characters that follow each other (Li et al. 2016).

    >>> distinct("江湖江湖", 2)
    Portion(part=2, whole=3)
    """
    grams = [text[at : at + n] for at in range(len(text) - n + 1)]
    return Portion(len(set(grams)), len(grams))


def loops(text: str) -> Portion:
    """In the worst 200 characters: those in some 8 characters that come there more than once.

    >>> loops("一二三四五六七八" * 2)
    Portion(part=16, whole=16)
    """
    last = max(len(text) - LOOP_WINDOW, 0)
    windows = [text[at : at + LOOP_WINDOW] for at in (*range(0, last, LOOP_STEP), last)]
    return Portion(max(map(_repeated, windows)), len(windows[0]))


def _repeated(text: str) -> int:
    grams = [text[at : at + LOOP_GRAM] for at in range(len(text) - LOOP_GRAM + 1)]
    times = Counter(grams)
    covered = np.zeros(len(text), dtype=bool)
    for at in (at for at, gram in enumerate(grams) if times[gram] > 1):
        covered[at : at + LOOP_GRAM] = True
    return int(covered.sum())


def unbalanced(text: str) -> Portion:
    """Quotes and brackets without a partner.

    >>> unbalanced("“他说：「走。」")
    Portion(part=1, whole=3)
    """
    open_marks: list[str] = []
    marks = alone = 0
    for mark in text:
        if mark in PAIRS:
            open_marks.append(PAIRS[mark])
        elif mark in CLOSING and mark in open_marks:
            # what was opened within it is alone
            while open_marks.pop() != mark:
                alone += 1
        elif mark in CLOSING:
            alone += 1
        else:
            continue
        marks += 1
    return Portion(alone + len(open_marks), marks)


def sentence_characters(text: str) -> Portion:
    """Characters of a sentence; what the text breaks off in is none.

    >>> sentence_characters("走吧。他说！但")
    Portion(part=6, whole=2)
    """
    ends = [found.end() for found in SENTENCE_END.finditer(text)]
    return Portion(max(ends, default=0), len(ends))


def not_chinese(text: str) -> Portion:
    """Letters, digits and signs that are no hanzi, of all that is no punctuation.

    >>> not_chinese("江湖，OK。")
    Portion(part=2, whole=4)
    """
    signs = [one for one in text if not one.isspace() and unicodedata.category(one)[0] != "P"]
    return Portion(sum(not IS_HAN.match(one) for one in signs), len(signs))


def rare(text: str, common: Set[str]) -> Portion:
    """Characters that are none of the common ones.

    >>> rare("江湖客", {"江", "湖"})
    Portion(part=1, whole=3)
    """
    return Portion(sum(one not in common for one in text), len(text))


def common_characters(texts: Iterable[str]) -> set[str]:
    """The fewest characters that make up 99% of some texts.

    >>> sorted(common_characters(["江" * 60, "湖" * 39, "客"]))
    ['江', '湖']
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update("".join(text.split()))
    found, left = set[str](), COMMON_SHARE * counts.total()
    for character, times in counts.most_common():
        if left <= 0:
            break
        found.add(character)
        left -= times
    return found


def measures(common: Set[str]) -> dict[str, Callable[[str], Portion]]:
    """All measures by name, for characters that are ``common`` in the training text."""
    return {
        "distinct_1": lambda text: distinct(text, 1),
        "distinct_2": lambda text: distinct(text, 2),
        "distinct_3": lambda text: distinct(text, 3),
        "loops": loops,
        "unbalanced": unbalanced,
        "sentence_characters": sentence_characters,
        "rare": lambda text: rare(text, common),
        "not_chinese": not_chinese,
    }


def measured_writing(
    texts: Sequence[str], common: Set[str], seed: int = 0, draw: int | None = None
) -> dict[str, Estimate]:
    """Every measure over all texts, with its interval; blanks are no part of a text."""
    dense = ["".join(text.split()) for text in texts]
    return {
        name: estimate([measure(text) for text in dense], seed, draw)
        for name, measure in measures(common).items()
    }

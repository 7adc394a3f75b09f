"""Where a text can be cut without changing its tokens.

A tokenizer first cuts text into words and never joins what lies in two of them, so a long text may be
encoded in parts if they meet where two words meet anyway. The rules below hold for every split rule in
``splits.py`` whatever stands around them; tests try them with hypothesis. A run without such a place is
cut at ``MAX_RUN_CHARACTERS`` from its beginning: that is part of what ``encode`` means, so parts of any
length still give the tokens of the whole.
"""

import re
from collections.abc import Iterator

MAX_RUN_CHARACTERS = 1 << 16
"""Characters without a natural cut that are encoded together; longer runs are cut."""
HAN = "\u3400-\u4db5\u4e00-\u9fa5"
"""Characters that every Unicode table, however old, calls letters."""

SAFE = re.compile(
    rf"(?<=[{HAN}])(?=[，。、：；？！…—（）《》“”‘’「」『』])"  # before punctuation behind hanzi
    r"|(?<=\S\n)(?=\S)"  # behind a single line end
    r"|(?<=[A-Za-z])(?= [A-Za-z])"  # before the space between two Latin words
)
LOOK_BACK_CHARACTERS = 1 << 8


def pieces(text: str, length: int, max_run: int = MAX_RUN_CHARACTERS) -> Iterator[str]:
    """``text`` in pieces of about ``length`` characters whose ids, joined, are those of the whole."""
    start = 0
    while start < len(text):
        end = _next_cut(text, start, start + length, max_run)
        yield text[start:end]
        start = end


def _next_cut(text: str, start: int, limit: int, max_run: int) -> int:
    """The last cut behind ``start`` up to ``limit``; without one the first beyond it."""
    if limit >= len(text):
        return len(text)
    # a line end at the start follows a forced cut; whether it is single cannot be seen from the piece alone
    first = start + 2 if text[start] == "\n" else start + 1
    return _last_safe(text, first, limit) or _first_safe(text, first, start + max_run)


def _last_safe(text: str, first: int, limit: int) -> int:
    """The last natural cut in ``first`` … ``limit``, or 0."""
    reach = LOOK_BACK_CHARACTERS
    while True:
        low = max(limit - reach, first)
        # a rule looks at two characters behind a cut at most, and a search sees nothing beyond its end
        found = [match.start() for match in SAFE.finditer(text, low, limit + 2) if match.start() <= limit]
        if found:
            return found[-1]
        if low == first:
            return 0
        # mostly a cut is near; searching the whole piece backwards each time would be quadratic
        reach *= 8


def _first_safe(text: str, first: int, limit: int) -> int:
    """The first natural cut from ``first`` on, but at most at ``limit``."""
    found = SAFE.search(text, first, limit + 2)
    return min(found.start() if found else len(text), limit)

"""Which part of a record is its text: the path language of ``corpus.text_field``.

In: a JSON object (or a row) and a path. Out: the text, the other small fields, or a path to suggest.

``content`` is a field; ``段落.内容`` descends, and of a list on the way every element's value counts, joined
by line ends; ``title+content`` joins fields by a line end and leaves out what is missing or empty. A field
whose own name has a dot or a plus is found first.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

ABSENT = object()
"""No such field."""
SMALL = 500
"""Characters of a field that is kept beside the text."""
MANY = 20
"""So many fields are kept beside the text."""
DEEPEST = 50
"""Lists within lists that are gone into."""
DEPTH = 4
ELEMENTS = 100
"""How far a record is searched for a path to suggest."""


def text_at(value: dict[str, Any], path: str) -> Any:
    """The string at a path; :data:`ABSENT`, or the value that stands there and is no string."""
    if path in value or "+" not in path:
        return _follow(value, path)
    found = [_follow(value, part.strip()) for part in path.split("+")]
    present = [item for item in found if item is not ABSENT and item is not None]
    if not present:
        return ABSENT
    strange = [item for item in present if not isinstance(item, str)]
    return strange[0] if strange else "\n".join(item for item in present if item.strip())


def roots(path: str, names: Sequence[str]) -> list[str]:
    """Those of a record's field names that a path begins with."""
    if path in names:
        return [path]
    parts = [part.strip() for part in path.split("+")]
    return [name for name in names if any(p == name or p.startswith(f"{name}.") for p in parts)]


def small_fields(value: dict[str, Any], path: str) -> dict[str, str | int | float]:
    """What else a record says in short strings and numbers: its address, title, author, time…"""
    own = [path] if path in value else roots(path, list(value))
    kept = {
        name: item
        for name, item in value.items()
        if (0 < len(item) <= SMALL if type(item) is str else type(item) in (int, float))
        and len(name) <= SMALL
        and name not in own
    }
    return kept if len(kept) <= MANY else dict(list(kept.items())[:MANY])


def suggest(value: dict[str, Any]) -> str:
    """The path of the longest text in a record, or nothing."""
    lengths: Counter[str] = Counter()
    _measure(value, "", lengths, DEPTH)
    best = max(lengths, key=lengths.__getitem__, default="")
    return best if best and isinstance(text_at(value, best), str) else ""


def _follow(value: Any, path: str, depth: int = 0) -> Any:
    if isinstance(value, list):
        if depth > DEEPEST:
            return ABSENT
        return _joined([_follow(item, path, depth + 1) for item in value])
    if not isinstance(value, dict):
        return ABSENT
    if path in value:
        found = value[path]
        return _joined(found) if isinstance(found, list) else found
    for at, letter in enumerate(path):
        if letter == "." and path[:at] in value:
            return _follow(value[path[:at]], path[at + 1 :], depth + 1)
    return ABSENT


def _joined(items: list[Any]) -> Any:
    """The strings of a list as lines; the list itself where it holds something else."""
    present = [item for item in items if item is not ABSENT and item is not None]
    if not present:
        return ABSENT if items and items[0] is ABSENT else ""
    return "\n".join(present) if all(isinstance(item, str) for item in present) else items


def _measure(value: Any, path: str, lengths: Counter[str], depth: int) -> None:
    if isinstance(value, str):
        lengths[path] += len(value.strip().encode("utf-8", "replace"))  # a character of Chinese says more
    elif isinstance(value, list) and depth:
        for item in value[:ELEMENTS]:
            _measure(item, path, lengths, depth - 1)
    elif isinstance(value, dict) and depth:
        for name, item in value.items():
            _measure(item, f"{path}.{name}" if path else name, lengths, depth - 1)

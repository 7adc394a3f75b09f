"""Which part of a record is its text: the path language of ``corpus.text_field``.

In: a JSON object (or a row) and a path. Out: the text, the other small fields, or a path to suggest.

``content`` is a field; ``段落.内容`` descends, and of a list on the way every element's value counts, joined
by line ends; ``title+content`` joins fields by a line end and leaves out what is missing or empty. A field
whose own name has a dot or a plus is found first.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

ABSENT = object()
"""No such field."""
MAX_FIELD_CHARACTERS = 500
"""Characters of a field that is kept beside the text."""
MAX_FIELDS = 20
"""So many fields are kept beside the text."""
MAX_LIST_DEPTH = 50
"""Lists within lists that are gone into."""
MAX_SEARCH_DEPTH = 32
MAX_SEARCHED_ELEMENTS = 100
"""How far a record is searched for a path to suggest."""
BESIDE_NAMES = (
    "id url title author date time timestamp source category tags language lang"
    " 标题 作者 来源 时间 日期 分类 文件名"
)
BESIDE = frozenset(BESIDE_NAMES.split())
"""Fields that say something of a text and are never the text."""
WRAPPING_NAMES = (
    "records record data rows items results result docs documents list entries articles posts objects hits"
    " examples train test dev valid validation 数据 记录 列表 文章"
)
WRAPPING = frozenset(WRAPPING_NAMES.split())
"""What a list of records is called in an object that is wrapped around it."""
TURNS = frozenset(["role", "from", "speaker"])
"""Fields of the turns of a dialogue, which together are one text."""


def text_at(value: dict[str, Any] | list[Any], path: str) -> Any:
    """The string at a path; :data:`ABSENT`, or the value that stands there and is no string."""
    if path in value or "+" not in path:  # a field may be called "a+b" or "a.b": its own name comes first
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
        if (0 < len(item) <= MAX_FIELD_CHARACTERS if type(item) is str else type(item) in (int, float))
        and len(name) <= MAX_FIELD_CHARACTERS
        and name not in own
    }
    return kept if len(kept) <= MAX_FIELDS else dict(list(kept.items())[:MAX_FIELDS])


def suggest(value: Any) -> str:
    """The path of the most text in a record, or nothing."""
    lengths: Counter[str] = Counter()
    _measure(value, "", lengths, MAX_SEARCH_DEPTH)
    # The longest, but for an address or an id, however long.
    texts = (path for path, _ in lengths.most_common() if path.rpartition(".")[2].lower() not in BESIDE)
    return next((path for path in texts if path and isinstance(text_at(value, path), str)), "")


def wrapped_records(value: Any, path: str | None) -> tuple[list[Any], str | None] | None:
    """The records that an object is only wrapped around, and the path within one of them."""
    if not isinstance(value, dict):
        return None
    lists = list(_lists_of_records(value, "", MAX_SEARCH_DEPTH, says_more=False))
    if path is None:
        return ([item for _, items in lists for item in items], None) if lists else None
    for name, items in lists:
        if path.startswith(f"{name}.") and name.rpartition(".")[2].lower() in WRAPPING:
            return items, path[len(name) + 1 :]
    parts = [path] if path in value else path.split("+")
    if all(isinstance(_follow(value, part.strip()), str) for part in parts):
        return None
    return ([item for _, items in lists for item in items], path) if lists else None


def _lists_of_records(
    value: dict[str, Any], path: str, depth: int, says_more: bool
) -> Iterator[tuple[str, list[Any]]]:
    """Lists in an object, or in the objects in it, whose elements are records; with their paths.

    An object that says more than numbers is itself a record, if its list is not called as wrapped lists are.
    """
    says_more = says_more or any(isinstance(item, str) for item in value.values())
    for name, item in value.items():
        place = f"{path}.{name}" if path else name
        is_named_so = name.lower() in WRAPPING
        if isinstance(item, dict) and depth:
            yield from _lists_of_records(item, place, depth - 1, says_more)
        elif isinstance(item, list) and item and (is_named_so or not says_more):
            kinds = {dict if isinstance(i, dict) and not TURNS & i.keys() else is_turns(i) for i in item}
            if kinds in ({dict}, {True}) or (is_named_so and all(isinstance(i, str) for i in item)):
                yield place, item


def is_turns(value: Any) -> bool:
    """Whether a value is a list of strings, such as the turns of a dialogue."""
    return isinstance(value, list) and bool(value) and all(isinstance(turn, str) for turn in value)


def _follow(value: Any, path: str, depth: int = 0) -> Any:
    if isinstance(value, list):
        if depth > MAX_LIST_DEPTH:
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
        lengths[path] += _amount(value.strip())
    elif isinstance(value, list) and depth:
        for item in value[:MAX_SEARCHED_ELEMENTS]:
            _measure(item, path, lengths, depth - 1)
    elif isinstance(value, dict) and depth:
        for name, item in value.items():
            _measure(item, f"{path}.{name}" if path else name, lengths, depth - 1)


def _amount(text: str) -> int:
    """Bytes, as a character of Chinese says more; an address or a hash is no text, however long."""
    return len(text.encode("utf-8", "replace")) if " " in text or not text.isascii() else 0

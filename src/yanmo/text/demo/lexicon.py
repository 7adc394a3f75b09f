"""The grammar of the demo corpus: pools of words and plots, read from ``lexicon.txt`` beside this file."""

from collections.abc import Mapping
from pathlib import Path

Row = Mapping[str, str]
"""An entry: its plain form under "", others by their names."""
PLOT = "plot"


def read_pools(text: str) -> dict[str, tuple[Row, ...]]:
    """The pools in a lexicon, by name.

    >>> read_pools("## hero ta\\n阿青/她 阿福/他\\n")
    {'hero': ({'': '阿青', 'ta': '她'}, {'': '阿福', 'ta': '他'})}
    """
    lines = [line for line in text.split("\n") if not line.startswith("# ")]
    heads = [number for number, line in enumerate(lines) if line.startswith("## ")]
    pools: dict[str, tuple[Row, ...]] = {}
    for head, following in zip(heads, [*heads[1:], len(lines)], strict=True):
        name, *forms = lines[head].removeprefix("## ").split()
        body = "\n".join(lines[head + 1 : following]).strip("\n")
        # a plot has several lines and no other form; other entries are single words, forms after slashes
        entries = [[plot] for plot in body.split("\n\n")] if name == PLOT else map(_forms, body.split())
        pools[name] = tuple(dict(zip(["", *forms], entry, strict=True)) for entry in entries)
    return pools


def _forms(entry: str) -> list[str]:
    return entry.split("/")


POOLS = read_pools(Path(__file__).with_name("lexicon.txt").read_text(encoding="utf-8"))

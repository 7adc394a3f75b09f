"""Writes the tables of docs/interop.md from ``tests/makers/interop.py``: ``make docs``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.makers.interop import FAMILIES, SOURCES, TARGETS, VOCABULARIES, not_from, not_to

PAGE = Path(__file__).with_name("interop.md")
BEGIN, END = "<!-- made by `make docs` -->\n", "<!-- until here -->\n"


def tables() -> str:
    reasons: list[str] = []

    def cell(*found: str | None) -> str:
        why = next((reason for reason in found if reason), None)
        if why is None:
            return "yes"
        if why not in reasons:
            reasons.append(why)
        return f"no ({reasons.index(why) + 1})"

    lines = ["| from | family | vocabulary | " + " | ".join(f"to {target}" for target in TARGETS) + " |"]
    lines.append("|---" * (3 + len(TARGETS)) + "|")
    for source in SOURCES:
        for family in FAMILIES:
            came = {v: not_from(source, family, v) for v in VOCABULARIES}
            if all(came.values()):
                lines.append(f"| {source} | {family} | all |" + f" {cell(*came.values())} |" * len(TARGETS))
                continue
            for vocabulary, why in came.items():
                cells = [cell(why, not_to(target, family, vocabulary)) for target in TARGETS]
                lines.append(f"| {source} | {family} | {vocabulary} | {' | '.join(cells)} |")
    lines += ["", *(f"{number}. {why}" for number, why in enumerate(reasons, 1)), ""]
    return "\n".join(lines)


def page() -> str:
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n" + tables() + "\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")

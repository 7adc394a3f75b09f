"""What was measured of a run's writing: copies.json in its folder, as `yanmo evaluate` printed it.

In: a :class:`~yanmo.report.record.RunRecord`. Out: rows of tables; none where nothing was measured, and a
value of another kind than meant counts as none.
"""

from typing import Any, NamedTuple

from yanmo.eval.bootstrap import Estimate
from yanmo.eval.copies import Passage
from yanmo.eval.history import finite
from yanmo.report.record import RunRecord

TO = "\u2060–\u2060"
"""A dash at which no line breaks."""


def read_estimate(found: Any) -> Estimate | None:
    """From JSON."""
    parts = found if isinstance(found, dict) else {}
    value, low, high = (finite(parts.get(key)) for key in ("value", "low", "high"))
    return None if value is None or low is None or high is None else Estimate(value, low, high)


def as_share(found: Estimate | None) -> str:
    """In percent, with its interval; empty where there is none."""
    return f"{found.value:.1%} ({100 * found.low:.1f}{TO}{100 * found.high:.1f})" if found else ""


def as_figure(found: Estimate | None) -> str:
    """As it is, with its interval; empty where there is none."""
    return f"{found.value:.3g} ({found.low:.3g}{TO}{found.high:.3g})" if found else ""


class Beside(NamedTuple):
    """A measure of what the model writes, and the same of held-out text."""

    name: str
    samples: Estimate
    held_out: Estimate | None


def copied(record: RunRecord) -> list[Beside]:
    """Shares of characters in spans that stand in the training text, by the spans' length."""
    found = _beside(_part(record.measured, "copies"))
    return sorted((row for row in found if row.name.isdecimal()), key=lambda row: int(row.name))


def writing(record: RunRecord) -> list[Beside]:
    """Each measure of writing."""
    return _beside(_part(record.measured, "writing"))


def longest_copy(record: RunRecord) -> list[tuple[str, Passage]]:
    """The longest span that a sample has from the training text, as it stands in either."""
    longest = _part(_part(record.measured, "copies"), "longest")
    sides = {"in a sample": _part(longest, "here"), "in the training text": _part(longest, "there")}
    return [
        (name, Passage(*(str(side.get(key, "")) for key in ("before", "span", "after"))))
        for name, side in sides.items()
        if side
    ]


def recalled(record: RunRecord) -> tuple[Estimate | None, Estimate | None]:
    """Of passages that the model was given the beginnings of, how many it went on with word for word."""
    extraction = _part(_part(record.measured, "copies"), "extraction")
    training, held_out = (_part(extraction, side).get("exact") for side in ("training", "held_out"))
    return read_estimate(training), read_estimate(held_out)


def _beside(sides: dict[str, Any]) -> list[Beside]:
    samples, held_out = _part(sides, "samples"), _part(sides, "held_out")
    return [
        Beside(name, found, read_estimate(held_out.get(name)))
        for name, value in samples.items()
        if (found := read_estimate(value)) is not None
    ]


def _part(values: dict[str, Any], key: str) -> dict[str, Any]:
    found = values.get(key)
    return found if isinstance(found, dict) else {}

"""What was measured of a run's writing: copies.json in its folder, as `yanmo evaluate` printed it.

In: a :class:`~yanmo.report.record.RunRecord`. Out: rows of tables; none where nothing was measured.
"""

from typing import Any, NamedTuple

from yanmo.report.record import RunRecord, number


class Copied(NamedTuple):
    """Shares of characters in spans that stand in the training text."""

    span: int
    samples: float
    held_out: float | None


def copied(record: RunRecord) -> list[Copied]:
    """By the length of spans, as the copy meter measured it."""
    copies = _part(record.measured, "copies")
    samples, held_out = _part(copies, "samples"), _part(copies, "held_out")
    found = [
        Copied(int(span), share, _share(held_out.get(span)))
        for span, value in samples.items()
        if span.isdecimal() and (share := _share(value)) is not None
    ]
    return sorted(found, key=lambda row: row.span)


def longest_copy(record: RunRecord) -> str:
    """The longest span that a sample has from the training text."""
    longest = _part(record.measured, "copies").get("longest")
    if isinstance(longest, dict):
        longest = longest.get("text")
    return longest if isinstance(longest, str) else ""


def writing(record: RunRecord) -> list[tuple[str, str, str]]:
    """Each measure of writing, of samples and of the held-out text."""
    found = _part(record.measured, "writing")
    samples, held_out = _part(found, "samples"), _part(found, "held_out")
    return [
        (name.replace("_", " "), _figure(samples[name]), _figure(held_out.get(name)))
        for name in samples
        if number(samples[name]) is not None
    ]


def _part(values: dict[str, Any], key: str) -> dict[str, Any]:
    found = values.get(key)
    return found if isinstance(found, dict) else {}


def _share(value: Any) -> float | None:
    return number(value.get("share")) if isinstance(value, dict) else number(value)


def _figure(value: Any) -> str:
    return "" if (found := number(value)) is None else f"{found:.3g}"

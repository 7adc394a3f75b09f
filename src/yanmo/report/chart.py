"""Curves as a picture: where lines, levels and marks lie in a square of ``SIDE`` units.

In: named points. Out: a :class:`Chart`, which the template draws. Only lines are a picture, stretched to any
width; all text is laid out by the browser, so that it can be read on a phone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from yanmo.report.record import Point

SIDE = 1000
MAX_POINTS = 100
"""A longer line is drawn by the means of neighbours."""
MARGIN = 0.06
"""Of the height, above and below what is shown."""
TICKS = 5
LABEL_ROOM = 7.0
"""Percent of the height between the labels of levels."""


@dataclass(frozen=True)
class Curve:
    """A curve: its name, its class in CSS, its points by step."""

    name: str
    kind: str
    points: Sequence[Point]
    is_main: bool = True
    """Whether all of it is shown; others are cut off above what is higher than those."""


@dataclass(frozen=True)
class Label:
    """A text at so many percent from the left, or from the top."""

    text: str
    at: float
    name: str = ""
    """A word before it, which the page may translate."""


@dataclass(frozen=True)
class Chart:
    """A drawing."""

    paths: list[tuple[str, str, str]]
    """Name, class and outline of each line."""
    dots: list[tuple[str, float, float]]
    """Class and place in percent of lines of a single point."""
    levels: list[float]
    """Percent from the top."""
    level_labels: list[Label]
    left: list[Label]
    bottom: list[Label]
    top: list[Label]


def draw(
    lines: Sequence[Curve], levels: dict[str, float], passes_per_step: float | None = None
) -> Chart | None:
    """The chart of some curves over steps; None where there is nothing to see."""
    lines = [Curve(line.name, line.kind, binned(line.points), line.is_main) for line in lines if line.points]
    if not lines:
        return None
    last = max(line.points[-1][0] for line in lines) or 1
    low, high = shown_range(lines, levels)

    def top(value: float) -> float:
        return 100 * (high - value) / (high - low)

    return Chart(
        paths=[(line.name, line.kind, _outline(line.points, last, top)) for line in lines],
        dots=[
            (line.kind, 100 * line.points[0][0] / last, top(line.points[0][1]))
            for line in lines
            if len(line.points) == 1
        ],
        levels=[top(value) for value in levels.values()],
        level_labels=_apart([Label(f"{v:.2f}", top(v), name) for name, v in levels.items()]),
        left=[Label(f"{value:g}", top(value)) for value in nice_ticks(low, high)],
        bottom=[
            Label(f"{step:,.0f}", 100 * step / last) for step in nice_ticks(0, last) if step >= 1 or not step
        ],
        top=_marks(last, passes_per_step),
    )


def shown_range(lines: Sequence[Curve], levels: dict[str, float]) -> tuple[float, float]:
    """From what value to what value is shown."""
    values = [*levels.values(), *(value for line in lines for _, value in line.points)]
    main = [*levels.values(), *(value for line in lines if line.is_main for _, value in line.points)]
    lowest, highest = min(values), max(main or values)
    room = MARGIN * ((highest - lowest) or 1)
    return lowest - room, highest + room


def binned(points: Sequence[Point]) -> list[Point]:
    """At most ``MAX_POINTS`` points: means of neighbours, the last one as it is."""
    if len(points) <= MAX_POINTS:
        return list(points)
    size = math.ceil(len(points) / MAX_POINTS)
    groups = [[p for _, p in g] for _, g in groupby(enumerate(points), lambda pair: pair[0] // size)]
    return [(group[-1][0], fmean(value for _, value in group)) for group in groups]


def nice_ticks(low: float, high: float) -> list[float]:
    """Round numbers between two, about ``TICKS`` of them.

    >>> nice_ticks(0, 600)
    [0.0, 200.0, 400.0, 600.0]
    """
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 5, 10) if power * nice >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    # rounded: 3 * 0.1 is not 0.3
    return [round(n * step, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _outline(points: Sequence[Point], last: float, top: Callable[[float], float]) -> str:
    places = [f"{SIDE * step / last:.1f} {SIDE * top(value) / 100:.1f}" for step, value in points]
    return "M" + "L".join(places)


def _marks(last: float, passes_per_step: float | None) -> list[Label]:
    """Whole passes over the text."""
    if not passes_per_step or passes_per_step * last < 1:
        return []
    each = max(1, math.ceil(passes_per_step * last / (2 * TICKS)))
    count = math.floor(passes_per_step * last + 1e-6)
    return [Label(str(n), min(100 * n / passes_per_step / last, 100)) for n in range(each, count + 1, each)]


def _apart(labels: list[Label]) -> list[Label]:
    """The same labels from the top, none on another."""
    placed: list[Label] = []
    for label in sorted(labels, key=lambda label: label.at):
        least = placed[-1].at + LABEL_ROOM if placed else 0
        placed.append(Label(label.text, max(label.at, least), label.name))
    return placed

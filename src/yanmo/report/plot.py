"""Curves of runs as a picture for papers, by matplotlib.

In: records of runs. Out: a .png, .svg or .pdf: bits per character of training and held-out text over steps,
with the baselines; passes over the text above those of a single run.
"""

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from yanmo.core.commands import install_command
from yanmo.core.errors import ConfigError
from yanmo.core.storage import whole_file
from yanmo.report.chart import Curve, binned, shown_range
from yanmo.report.chinese import CHINESE
from yanmo.report.comparison import names_of, shared_levels
from yanmo.report.page import curves
from yanmo.report.record import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MADE = "made by yanmo"
FORMATS: dict[str, dict[str, str | None]] = {
    ".png": {"Software": MADE},
    ".svg": {"Creator": MADE, "Date": None},
    ".pdf": {"Creator": MADE, "CreationDate": None},
}
"""Ending -> what such a file says of itself."""
FONTS = (
    "Noto Sans CJK SC", "Source Han Sans SC", "Noto Serif CJK SC", "Source Han Serif SC", "PingFang SC",
    "Heiti SC", "Songti SC", "Microsoft YaHei", "SimHei", "SimSun", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    # of a collection of faces matplotlib knows the first, and its glyphs are the same file's
    "Noto Sans CJK JP", "Noto Serif CJK JP", "Arial Unicode MS",
)  # fmt: skip
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Told apart by colour-blind readers too (Okabe & Ito 2008)."""
STYLES = {"training": (0.8, "-"), "live": (1.2, ":"), "unseen": (1.2, "--"), "held-out": (1.8, "-")}
"""Kind of curve -> width and dashes."""
INCHES, DOTS_PER_INCH = (6.4, 4.0), 200

MAX_NAME_CHARACTERS = 40
"""Of a name in the legend."""

Words = Callable[[str], str]


def plot(
    records: Sequence[RunRecord], out: Path, in_chinese: bool | None = None, fonts: Sequence[str] = FONTS
) -> bool:
    """Draw runs into ``out``; returns whether one of ``fonts`` was found.

    Args:
        records: of runs.
        out: a picture.
        in_chinese: the language of its words; None: Chinese where there is a font for it.
        fonts: those with Chinese characters.

    Raises:
        ConfigError: matplotlib is missing, the ending is of no kind of picture, or there is no curve yet.
    """
    ending = out.suffix.lower()
    if ending not in FORMATS:
        raise ConfigError(
            f"a picture is one of {', '.join(FORMATS)}", f"--out {out}", "choose such an ending"
        )
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("matplotlib is not installed", "yanmo plot", install_command("plot")) from error
    font = installed_font(fonts)
    is_chinese = font is not None if in_chinese is None else in_chinese
    family = [font, "DejaVu Sans"] if font else ["DejaVu Sans"]
    # a $ in a name is no formula; the salt is fixed and dates are left out: the same runs give the same bytes
    with mpl.rc_context({"font.family": family, "text.parse_math": False, "svg.hashsalt": MADE}):
        figure = Figure(figsize=INCHES, layout="constrained")
        draw(figure.add_subplot(), records, (lambda text: CHINESE.get(text, text)) if is_chinese else str)
        with whole_file(out) as unfinished:
            figure.savefig(unfinished, format=ending[1:], dpi=DOTS_PER_INCH, metadata=FORMATS[ending])
    return font is not None


def installed_font(fonts: Sequence[str]) -> str | None:
    """The first of these that is installed."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return next((name for name in fonts if name in installed), None)


def is_plot(path: Path) -> bool:
    """Whether a picture is one of ours."""
    return path.is_file() and MADE.encode() in path.read_bytes()


def draw(axes: "Axes", records: Sequence[RunRecord], words: Words) -> None:
    """Draw the curves of runs, and the baselines that they have in common.

    Raises:
        ConfigError: none of them has any.
    """
    names = names_of(records)
    shown = [line for record in records for line in curves(record) if line.points]
    if not shown:
        hint = "let the run come to its first evaluation"
        raise ConfigError("there is no curve yet", ", ".join(names), hint)
    for name, record, colour in zip(names, records, cycle(COLOURS), strict=False):
        for line in curves(record):
            label = words(line.name) if len(records) == 1 else name if line.kind == "held-out" else ""
            draw_line(axes, line, colour, label)
    levels = shared_levels(records)
    for name, bits in levels.items():
        draw_level(axes, f"{words(name)} {bits:.2f}", bits)
    axes.set_ylim(*shown_range(shown, levels))
    axes.set_xlim(left=0)
    axes.set_xlabel(words("steps"))
    axes.set_ylabel(words("bits per character"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    if len(records) == 1 and (each := records[0].passes_per_step):
        to_passes, to_steps = (lambda steps: np.multiply(steps, each)), (lambda done: np.divide(done, each))
        above = axes.secondary_xaxis("top", functions=(to_passes, to_steps))
        above.set_xlabel(words("passes over the text"))


def draw_line(axes: "Axes", line: Curve, colour: str, label: str) -> None:
    """Draw a curve; one without a label is not in the legend."""
    if not line.points:
        return
    steps, bits = zip(*binned(line.points), strict=True)
    width, dashes = STYLES[line.kind]
    name = label if len(label) <= MAX_NAME_CHARACTERS else label[: MAX_NAME_CHARACTERS - 1] + "…"
    axes.plot(
        steps,
        bits,
        color=colour,
        label=name or None,
        linewidth=width,
        linestyle=dashes,
        alpha=1.0 if line.is_main else 0.45,
        marker="o" if len(steps) == 1 else None,
    )


def draw_level(axes: "Axes", label: str, bits: float) -> None:
    """Draw a baseline."""
    axes.axhline(bits, color="0.4", linewidth=0.8, linestyle=(0, (4, 3)))
    axes.annotate(
        label,
        (1, bits),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize="small",
    )

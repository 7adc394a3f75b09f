"""The rules of ``yanmo clean``, in their order, as the [clean] section switches them.

A rule is text → text, or raises :class:`Dropped` with its reason. The order matters: what is decoded
wrongly is no ad yet, an ad in full-width letters is known by them, and only what is left of a text is
judged.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from yanmo.settings.schema import CleanConfig
from yanmo.text.clean import ads, characters, filters, lines, privacy, scanned
from yanmo.text.clean.filters import Dropped
from yanmo.text.read.records import EMPTY

NOTHING_LEFT = "nothing left"


@dataclass(frozen=True)
class Rule:
    """A step of cleaning and the setting that switches it."""

    name: str
    apply: Callable[[str], str]


@dataclass
class Cleaned:
    """What became of a text: what is left, or the reason why it is ``dropped``."""

    text: str
    dropped: str = ""
    changes: dict[str, int] = field(default_factory=dict)
    """For each rule that changed it, by how many characters it grew shorter."""


Watch = Callable[[str, str, str], None]
"""Is told (rule, text before, text after) of every change."""


def rules_for(config: CleanConfig) -> list[Rule]:
    """The rules that are switched on, in order."""
    return [Rule(name, apply) for name, apply in _rules(config)]


def _rules(config: CleanConfig) -> Iterator[tuple[str, Callable[[str], str]]]:
    if config.mojibake:
        yield "mojibake", characters.mojibake
    if config.markup:
        yield "markup", partial(characters.markup, read_right=characters.mojibake if config.mojibake else str)
    if config.controls:
        yield "controls", characters.controls
    if config.spaces:
        yield "spaces", scanned.spaces
    if config.ads:
        yield "ads", ads.ads
    if config.drop_lines:
        yield "drop_lines", partial(ads.drop_lines, unwanted=frozenset(map(ads.letters, config.drop_lines)))
    if config.width != "keep":
        yield "width", characters.letters_width if config.width == "letters" else characters.all_width
    if config.unwrap:
        yield "unwrap", lines.unwrap
    if config.radicals:
        # after unwrap, which knows an upright ︰ in the middle of a line from a ： at its end
        yield "radicals", scanned.ordinary
    if config.whitespace:
        yield "whitespace", lines.whitespace
    if config.indentation != "keep":
        yield "indentation", partial(lines.indentation, how=config.indentation)
    if config.repeated_lines:
        yield "repeated_lines", lines.repeated_lines
    if config.privacy:
        yield "privacy", privacy.privacy
    if config.script != "keep":
        yield "script", partial(characters.script, to=config.script)
    # Last, for they drop: a text is judged by what is left of it when all else is repaired.
    yield "languages", partial(filters.languages, kept=config.languages)
    if config.quality:
        yield "quality", filters.quality


def clean(text: str, rules: list[Rule], watch: Watch | None = None) -> Cleaned:
    """Apply the rules to a text one after another."""
    if not text.strip():
        return Cleaned("", EMPTY)
    cleaned = Cleaned(text)
    for rule in rules:
        try:
            after = rule.apply(cleaned.text)
        except Dropped as dropped:
            cleaned.dropped = dropped.reason
            break
        if after == cleaned.text:
            continue
        if watch is not None:
            watch(rule.name, cleaned.text, after)
        cleaned.changes[rule.name] = len(cleaned.text) - len(after)
        cleaned.text = after
        if not after.strip():
            cleaned.dropped = NOTHING_LEFT  # the rules after this one would be asked about nothing
            break
    return cleaned

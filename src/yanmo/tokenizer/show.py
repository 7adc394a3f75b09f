"""Verdicts as people read them: a table, bars, and the tokens of a sentence in colours.

Everything here returns rich's renderables; who prints them decides where to.
"""

from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from yanmo.core.console import visible
from yanmo.tokenizer.base import Tokenizer
from yanmo.tokenizer.compare import Comparison, split
from yanmo.tokenizer.roundtrip import describe

COLOURS = ("on #cfe8ff", "on #ffe3b8", "on #d6f5d0", "on #f6d3e6", "on #e3dcff")
UNKNOWN = "bold white on #c62828"
BAR_COLUMNS = 40
SIGNS = {"\n": "⏎", " ": "·", "\t": "⇥", "\u3000": "□", "\r": "␍"}


def table(verdicts: Sequence[Comparison], n_layer: int, n_embd: int) -> Table:
    """A column for each vocabulary, a row for each measure."""
    found = Table(
        title=f"{verdicts[0].characters:,} characters, {verdicts[0].bytes / 1e6:.1f} MB", show_lines=False
    )
    found.add_column("")
    for verdict in verdicts:
        found.add_column(visible(verdict.name), justify="right", overflow="fold")
    rows: dict[str, Callable[[Comparison], str]] = {
        "kind": lambda v: v.kind,
        "vocabulary": lambda v: f"{v.vocab_size:,}",
        "tokens": lambda v: f"{v.tokens:,}",
        "characters per token": lambda v: f"{v.characters_per_token:.3f}",
        "bytes per token": lambda v: f"{v.bytes_per_token:.3f}",
        "of the vocabulary used": lambda v: f"{v.used / v.vocab_size:.1%}",
        "unknown tokens": lambda v: f"{v.unknown / max(v.tokens, 1):.3%}",
        "parts of characters": lambda v: f"{v.byte_tokens / max(v.tokens, 1):.3%}",
        "comes back whole": lambda v: "no" if v.lost else "yes",
        f"table at {n_layer}x{n_embd}": lambda v: f"{v.embedding_share(n_layer, n_embd):.1%}",
        "encodes MB/s": lambda v: f"{v.encode_mb_per_s:.1f}",
        "decodes MB/s": lambda v: f"{v.decode_mb_per_s:.1f}",
    }
    for name, value in rows.items():
        found.add_row(name, *(value(verdict) for verdict in verdicts))
    return found


def bars(verdicts: Sequence[Comparison]) -> RenderableType:
    """Characters per token as bars: longer is better, the model reads more text in the same window."""
    most = max(verdict.characters_per_token for verdict in verdicts)
    names = [visible(verdict.name) for verdict in verdicts]
    widest = max(map(len, names))
    lines = [Text("characters per token", style="bold")]
    for name, verdict in zip(names, verdicts, strict=True):
        length = round(BAR_COLUMNS * verdict.characters_per_token / most)
        lines.append(
            Text.assemble(
                f"{name:<{widest}}  ", ("█" * length, "#2f6fab"), f" {verdict.characters_per_token:.2f}"
            )
        )
    return Group(*lines)


def losses(verdicts: Sequence[Comparison]) -> list[str]:
    """A sentence for each vocabulary that loses something."""
    return [f"{verdict.name}: {describe(verdict.lost)}" for verdict in verdicts if verdict.lost]


def longest(verdict: Comparison) -> str:
    """The longest tokens that occur."""
    return "longest  " + "  ".join(with_signs(text) for text in verdict.longest)


def coloured(tokenizer: Tokenizer, sentence: str) -> Text:
    """A sentence with each token on a colour of its own.

    Tokens that are only a part of a character are shown as ‹n›, n of them before the character; what the
    vocabulary does not know stands in red.
    """
    found, parts, suppressed = Text(), 0, set(tokenizer.suppressed)
    tokens = split(tokenizer, sentence)
    for number, (token, text) in enumerate(tokens):
        colour = COLOURS[number % len(COLOURS)]
        if token in suppressed:
            found.append("[?]", UNKNOWN)
        elif not text:
            parts += 1
        else:
            found.append((f"‹{parts + 1}›" if parts else "") + with_signs(text), f"black {colour}")
            parts = 0
    return found.append(f"  {len(tokens)} token{'s' * (len(tokens) != 1)}", "dim")


def word_by_token(tokenizer: Tokenizer, word: str) -> Text:
    """A word, and beside it its tokens."""
    return Text(f"{with_signs(word)}  ").append_text(coloured(tokenizer, word))


def in_words(value: object) -> str:
    """A value as people write it: yes and no, thousands apart, a table as `1: 3,400, 2: 12`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {in_words(number)}" for name, number in value.items()) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


def heading(name: str) -> Text:
    """The name of a vocabulary above its tokens."""
    return Text(visible(name), style="bold")


def with_signs(text: str) -> str:
    """A text with signs for blanks, and nothing that a terminal obeys."""
    return visible("".join(SIGNS.get(character, character) for character in text))

"""How surprised a model was by each character that it wrote, and what else it thought of, for a terminal.

In: what was written, piece by piece, each with the choice that made it. Out: text with colours, or lines.
"""

import math
from collections.abc import Callable, Iterator

from yanmo.core.console import visible
from yanmo.generate.engine import TokenChoice
from yanmo.generate.text_engine import WrittenPiece

SHADES = (22, 58, 94, 130, 124)
"""Background colours of a terminal with 256, from what the model was sure of to what surprised it."""
BITS_PER_SHADE = 2.0
SHOWN_PLACES = 5
SHOWN_ALTERNATIVES = 5
CONTEXT_CHARACTERS = 6


def bits_of(choice: TokenChoice) -> float:
    """The surprise of a token: -log₂ p."""
    return -choice.logprob / math.log(2)


def by_character(pieces: list[WrittenPiece]) -> Iterator[tuple[str, float]]:
    """Text with its surprise in bits; that of a character in several tokens is the sum of theirs."""
    bits = 0.0
    for piece in pieces:
        bits += bits_of(piece.choice) if piece.choice else 0.0
        if piece.text:
            yield piece.text, bits
            bits = 0.0


class Coloured(str):
    """Text with commands of a terminal, all of them ours: what a model wrote is made visible in it."""


def coloured(pieces: list[WrittenPiece], with_colours: bool) -> str:
    """What was written, on a background by surprise; without colours, with the bits after each piece."""
    if not with_colours:
        return " ".join(f"{text}({bits:.1f})" for text, bits in by_character(pieces)) + "\n"
    shown = []
    for text, bits in by_character(pieces):
        shade = SHADES[min(int(bits / BITS_PER_SHADE), len(SHADES) - 1)]
        # a line end keeps no background, or the rest of the line would have it
        shown.append(
            "\n".join(
                f"\x1b[48;5;{shade}m{visible(line)}\x1b[0m" if line else "" for line in text.split("\n")
            )
        )
    return Coloured("".join(shown) + "\n")


def alternatives(pieces: list[WrittenPiece], text_of: Callable[[int], str]) -> str:
    """The places that surprised most, with the likeliest tokens there and their probabilities."""
    chosen_at = {place: piece.choice for place, piece in enumerate(pieces) if piece.choice}
    lines = []
    for place in sorted(sorted(chosen_at, key=lambda place: chosen_at[place].logprob)[:SHOWN_PLACES]):
        choice = chosen_at[place]
        before = "".join(piece.text for piece in pieces[:place])[-CONTEXT_CHARACTERS:].replace("\n", "↵")
        others = [
            f"{text_of(token)} {math.exp(logprob):.0%}"
            for token, logprob in choice.top[:SHOWN_ALTERNATIVES]
            if token != choice.id
        ]
        chosen = f"{text_of(choice.id)} {math.exp(choice.logprob):.1%}"
        lines.append(f"…{before}[{chosen}]  {'  '.join(others)}")
    return "\n".join(lines) + "\n"

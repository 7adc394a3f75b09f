"""Finds every derivation of a text in the demo grammar, by search from the text alone.

It shares the grammar data with the generator and nothing else: matching goes left to right,
keeps what each slot is bound to, and follows every alternative to the end.
"""

import math
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache

from yanmo.text.demo.stories import START, Choice, Fork, Mention, Template, grammar

Rest = tuple[Template, int, "Rest"] | None  # what is still to be matched, innermost first
Bound = dict[str, int]


@dataclass(frozen=True)
class Parse:
    choices: tuple[Choice, ...]
    bits: float


@dataclass(frozen=True)
class _State:
    """One way to have read the text up to `at`."""

    at: int
    rest: Rest
    bound: Bound = field(default_factory=dict)
    choices: tuple[Choice, ...] = ()
    bits: float = 0.0


def parses(text: str) -> list[Parse]:
    """All derivations of the text, in no particular order."""
    found: list[Parse] = []
    states = [_State(0, (((Mention(START, ""),)), 0, None))]
    while states:
        state = states.pop()
        at, rest = state.at, state.rest
        while rest is not None:
            template, index, outer = rest
            if index == len(template):
                rest = outer
                continue
            part, rest = template[index], (template, index + 1, outer)
            if isinstance(part, str):
                if not text.startswith(part, at):
                    break
                at += len(part)
            elif isinstance(part, Mention) and _settled(part, state.bound):
                entry = grammar()[part.pool][state.bound.get(part.slot, 0)]
                rest = (entry[part.form], 0, rest)
            else:
                states += _branches(text, at, part, rest, state)
                break
        else:
            if at == len(text):
                found.append(Parse(state.choices, state.bits))
    return found


def _settled(mention: Mention, bound: Bound) -> bool:
    return mention.slot in bound or len(grammar()[mention.pool]) == 1


def _branches(text: str, at: int, part: Mention | Fork, rest: Rest, state: _State) -> list[_State]:
    """The state continued with each alternative that can start at this place."""
    if isinstance(part, Fork):
        options, held = part.options, set[int]()
        probability = [1 / len(options)] * len(options)
    else:
        entries = grammar()[part.pool]
        options = tuple(entry[part.form] for entry in entries)
        held = {i for slot, i in state.bound.items() if slot.partition(":")[0] == part.pool}
        weights = [0 if i in held else 1 / (10 + i) for i in range(len(entries))]
        probability = [weight / sum(weights) for weight in weights]
    branches = []
    for index in _starting_with(options, text[at : at + 1]):
        if index in held:
            continue
        bound = state.bound if isinstance(part, Fork) else {**state.bound, part.slot: index}
        choices = (*state.choices, (part.slot, index))
        bits = state.bits - math.log2(probability[index])
        branches.append(_State(at, (options[index], 0, rest), bound, choices, bits))
    return branches


def _starting_with(options: tuple[Template, ...], character: str) -> list[int]:
    by_character, anything = _openings(options)
    return sorted({*by_character.get(character, ()), *anything})


@cache
def _openings(options: tuple[Template, ...]) -> tuple[dict[str, list[int]], list[int]]:
    """Options by their first character, and those whose first character is not fixed."""
    by_character: dict[str, list[int]] = defaultdict(list)
    anything = []
    for index, template in enumerate(options):
        if template and isinstance(template[0], str):
            by_character[template[0][0]].append(index)
        else:
            anything.append(index)
    return dict(by_character), anything

"""The demo corpus: micro-stories of the jianghu (江湖), told by a seeded grammar.

The corpus is ours from the first character to the last: nobody else's text is in it.
``lexicon.txt`` holds the grammar as data, this module tells stories with it.

Grammar.  A *pool* is a list of entries (surnames, weapons, weathers, plots); an entry has one
or more named *forms*, and every form is a template:

    {weapon}        the slot "weapon" draws an entry from the pool "weapon" at its first
                    mention and keeps it to the end of the story; this writes its plain form
    {weapon.art}    writes another form of the entry the slot has drawn (长剑 -> 剑法)
    {weapon:rival}  a second slot of the same pool; two slots of one pool never share an entry
    [早|晚|]        one of these, drawn on the spot (they may nest, and may be empty)

Probability.  Entry number r of a pool has weight 1/(r + 10): the first names are common, the
last ones rare.  Entries already held by another slot of the pool are left out and the
rest renormalised.  Bracketed options are equally likely.  A pool with one entry is an
abbreviation, not a choice.

Floor.  `Story.bits` adds up -log2 p over the choices, with the very p each one was drawn with.
No two sequences of choices write the same text (the tests parse thousands of stories back and
find exactly one derivation each), so the probability of a text is the product of those p and
`bits` is its exact code length.  No model can do better than its mean over fresh stories:
that mean is the entropy of the corpus, the floor under the loss.
"""

import hashlib
import math
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate

from yanmo.text.demo.lexicon import POOLS

STORY_COUNT = 4_000
START = "plot"
PROMPTS: tuple[str, str, str] = ("《断虹桥之约》", "《迟到三年的信》", "《半山客栈的秘密》")

Choice = tuple[str, int]


@dataclass(frozen=True)
class Story:
    """One story, what was chosen to tell it (slot, index), and its exact code length."""

    text: str
    choices: tuple[Choice, ...]
    bits: float


@dataclass(frozen=True)
class Mention:
    """`{slot.form}` in a template; `slot` is `pool` or `pool:label`."""

    slot: str
    form: str

    @property
    def pool(self) -> str:
        """The pool the slot draws from."""
        return self.slot.partition(":")[0]


@dataclass(frozen=True)
class Fork:
    """`[a|b|c]` in a template; `slot` names it in `Story.choices`."""

    slot: str
    options: "tuple[Template, ...]"


Template = tuple[str | Mention | Fork, ...]
Entry = Mapping[str, Template]

_TOKEN = re.compile(r"\{[^{}]*\}|[\[\]|]|[^{}\[\]|]+")


def compile_template(source: str, name: str) -> Template:
    """Read a template; its forks are called `name/0`, `name/1`, ... in reading order."""
    tokens = _TOKEN.findall(source)
    if "".join(tokens) != source:
        raise ValueError(f"unbalanced braces in {source!r}")
    forks = 0

    # recursive descent: options nest, and each call reads up to the bracket that closes its own
    def read_options() -> list[Template]:
        nonlocal forks
        options: list[Template] = []
        parts: list[str | Mention | Fork] = []
        while tokens:
            token = tokens.pop(0)
            if token == "]":
                break
            if token == "|":
                options.append(tuple(parts))
                parts = []
            elif token == "[":
                slot, forks = f"{name}/{forks}", forks + 1
                parts.append(Fork(slot, tuple(read_options())))
            elif token.startswith("{"):
                slot, _, form = token[1:-1].partition(".")
                parts.append(Mention(slot, form))
            else:
                parts.append(token)
        return [*options, tuple(parts)]

    whole = read_options()
    if len(whole) != 1 or tokens or source.count("[") != source.count("]"):
        raise ValueError(f"unbalanced brackets in {source!r}")
    return whole[0]


@cache
def grammar() -> dict[str, tuple[Entry, ...]]:
    """Every pool of the lexicon with its templates compiled."""
    return {
        pool: tuple(
            {form: compile_template(text, f"{pool}.{index}.{form}".rstrip(".")) for form, text in row.items()}
            for index, row in enumerate(rows)
        )
        for pool, rows in POOLS.items()
    }


@cache
def free_entries(pool: str, held: frozenset[int]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The entries of a pool that are still free, and their probabilities (which sum to one)."""
    free = tuple(index for index in range(len(grammar()[pool])) if index not in held)
    weights = [1 / (index + 10) for index in free]
    total = math.fsum(weights)
    # fsum rounds once, so the p that a choice is drawn with are those that bits adds up
    return free, tuple(weight / total for weight in weights)


@cache
def _cumulative(probabilities: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(accumulate(probabilities))


def _draw(rng: random.Random, probabilities: tuple[float, ...]) -> int:
    # inverse transform by hand: random.choices may consume random numbers differently in another Python, and
    # the corpus must be the same bytes everywhere
    point = rng.random()
    for index, bound in enumerate(_cumulative(probabilities)):
        if point < bound:
            return index
    return len(probabilities) - 1  # the sum fell short of one by a rounding error


@dataclass
class _Telling:
    """A story while it is being told."""

    rng: random.Random
    bound: dict[str, int] = field(default_factory=dict)
    held: dict[str, frozenset[int]] = field(default_factory=dict)
    choices: list[Choice] = field(default_factory=list)
    surprises: list[float] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    def write(self, template: Template) -> None:
        for part in template:
            if isinstance(part, str):
                self.pieces.append(part)
            elif isinstance(part, Mention):
                self.write(self.entry(part)[part.form])
            else:
                size = len(part.options)
                index = _draw(self.rng, (1 / size,) * size)
                self.note(part.slot, index, 1 / size)
                self.write(part.options[index])

    def entry(self, mention: Mention) -> Entry:
        """The entry the mentioned slot holds, drawn now if this is its first mention."""
        entries = grammar()[mention.pool]
        # an abbreviation: -log2 1 = 0 bits, and no random number is drawn
        if len(entries) == 1:
            return entries[0]
        if mention.slot not in self.bound:
            held = self.held.get(mention.pool, frozenset())
            free, probabilities = free_entries(mention.pool, held)
            place = _draw(self.rng, probabilities)
            self.bound[mention.slot] = free[place]
            # kept for the whole story, so that no two slots of a pool hold the same entry
            self.held[mention.pool] = held | {free[place]}
            self.note(mention.slot, free[place], probabilities[place])
        return entries[self.bound[mention.slot]]

    def note(self, slot: str, index: int, probability: float) -> None:
        self.choices.append((slot, index))
        self.surprises.append(-math.log2(probability))


def story(rng: random.Random) -> Story:
    """Tell one story, drawing every choice with `rng.random()`."""
    telling = _Telling(rng)
    telling.write((Mention(START, ""),))
    text = "".join(telling.pieces)
    # Σ -log2 p over the choices: the shortest expected code, and so the lowest loss that a model can reach
    return Story(text, tuple(telling.choices), math.fsum(telling.surprises))


def fingerprint() -> str:
    """A name for the corpus: it changes with the words, and with how stories are told."""
    # twenty stories represent the code: a change in how stories are told almost surely changes these
    told = "".join(story.text for story in stories(count=20))
    return hashlib.sha256(f"{STORY_COUNT}{POOLS!r}{told}".encode()).hexdigest()


def stories(count: int = STORY_COUNT, seed: int = 0) -> Iterator[Story]:
    """Tell `count` stories from one stream seeded with `seed`.

    Story i depends on the seed and on the stories before it, so a longer corpus begins with
    the shorter one.
    """
    rng = random.Random(seed)
    for _ in range(count):
        yield story(rng)

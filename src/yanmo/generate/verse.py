"""Verse: lines of five or seven Chinese characters, the first ones given (藏头), even lines rhyming.

In: [sample] settings, a tokenizer. Out: a rule of the text for the engine.

A poem is a row of places: those of a line, ``，`` behind odd lines and ``。`` behind even ones and the last,
and, if the vocabulary has one, a line end between two pairs of lines and behind a prompt that ends in the
middle of a line. Each place has characters that may stand there. A token may come if all characters that it
completes fit their places, and bytes that it leaves open begin a character that fits the next one. Every
character can be written by itself, as a token or byte by byte, so a poem can always go on. Behind the last
place only end-of-text may come.

Characters rhyme if their modern finals are the same but for a medial i, u or ü, each in the commonest reading
that pypinyin knows, tones aside. No rhyme word comes twice.
"""

import re
from collections.abc import Hashable, Iterable, Sequence
from functools import cache

import numpy as np
import regex
import torch
from torch import Tensor

from yanmo.core.commands import install_command
from yanmo.core.errors import ConfigError, YanmoError
from yanmo.generate.sampling import TokenConstraints
from yanmo.settings.schema import SampleConfig
from yanmo.tokenizer import Tokenizer
from yanmo.tokenizer.base import TextStream

HAN = [chr(code) for code in range(0x4E00, 0xA000)]
"""CJK Unified Ideographs; rarer characters come only where they are given."""
COMMA, STOP, LINE_END = "，", "。", "\n"
FREE, RHYME = "free", "rhyme"
"""Kinds of places; those of one given character are called by it."""
MEDIAL = re.compile("^[iuv](?=a|o|e[in])")
BUZZING = re.compile("(zh|ch|sh|r|z|c|s)i")
"""Syllables whose i is another vowel than that of 衣."""
KEPT_TABLES = 8
"""States of a stream whose tokens are kept."""


def why_no_verse(tokenizer: Tokenizer) -> str | None:
    """Why no poem can be written with a vocabulary; None: it can."""
    try:
        Verse(tokenizer, SampleConfig(verse=5))
    except YanmoError as error:
        return error.what
    return None


class Verse:
    """Lets through what keeps to the form of a poem, and nothing else."""

    def __init__(self, tokenizer: Tokenizer, config: SampleConfig) -> None:
        """
        Raises:
            ConfigError: nothing that keeps to the form can be written, or another setting would break it off.
            TokenizerError: what each token would write is not known.
        """
        _refuse_what_breaks_off(config)
        never = {*TokenConstraints.of(tokenizer, config).never, tokenizer.end_of_text}
        self.tokenizer, self.characters = tokenizer, config.verse
        self.usable = [token for token in range(tokenizer.vocab_size) if token not in never]
        raw = [tokenizer.bytes_of(token) or b"" for token in self.usable]
        self.bytes = frozenset(one[0] for one in raw if len(one) == 1)
        pieces = _between_others(tokenizer).next_pieces()
        self._whole = frozenset(pieces[token][0] for token in self.usable if not pieces[token][1])
        self.line_end = LINE_END if self.writes(LINE_END) else ""
        self.form = form_of(config, self.line_end)
        self.places = {kind: self.place([kind]) for kind in {*self.line_end, *self.form} - {FREE, RHYME}}
        self.places[FREE] = self.place(HAN)
        self.rhymes = self._rhymes(self.form.count(RHYME)) if RHYME in self.form else {}
        """The characters of each rhyme that has enough of them."""
        self.places[RHYME] = self.place([one for them in self.rhymes.values() for one in them])
        self._refuse_what_cannot_be(config)
        self._tables: dict[Hashable, TokenTable] = {}

    def begin(self, prompt: Sequence[int]) -> "VerseState":
        """The state before the first line."""
        return VerseState(self, prompt)

    def table(self, stream: TextStream) -> "TokenTable":
        """What each token would add to a stream."""
        state = stream.state
        if state not in self._tables:
            if len(self._tables) == KEPT_TABLES:
                self._tables.clear()
            self._tables[state] = TokenTable(stream, self)
        return self._tables[state]

    def writes(self, character: str) -> bool:
        """Whether the vocabulary has this character, or all its bytes."""
        return character in self._whole or self.bytes >= {*character.encode()}

    def place(self, characters: Iterable[str]) -> "Place":
        """A place for those of ``characters`` that the vocabulary can write."""
        return Place(list(filter(self.writes, characters)), self.bytes)

    def _rhymes(self, lines: int) -> dict[str, frozenset[str]]:
        found: dict[str, set[str]] = {}
        for character in self.places[FREE].characters:
            if rhyme := rhyme_of(character):
                found.setdefault(rhyme, set()).add(character)
        return {rhyme: frozenset(them) for rhyme, them in found.items() if len(them) >= lines}

    def _refuse_what_cannot_be(self, config: SampleConfig) -> None:
        missing = [kind for kind in self.places if kind != RHYME and not self.places[kind].characters]
        if missing:
            said = "Chinese characters" if FREE in missing else " and no ".join(missing)
            hint = "train with a vocabulary that has them, or choose other first characters (sample.acrostic)"
            raise ConfigError(f"the vocabulary has no {said}", "sample.verse", hint)
        if RHYME in self.form and not self.rhymes:
            raise ConfigError(
                f"no rhyme has {self.form.count(RHYME)} characters in this vocabulary",
                "sample.rhyme",
                "ask for fewer lines (sample.verse_lines), or for none that rhyme",
            )
        given = "".join(kind if len(kind) == 1 else "\0" for kind in self.form)
        if banned := next((text for text in config.banned if text and text in given), None):
            raise ConfigError(
                f"the poem must have {banned!r}, which is banned",
                "sample.banned",
                "take it out of one of them",
            )
        longest = sum(self.places[kind].most_tokens for kind in [*self.line_end, *self.form])
        if config.max_new_tokens < longest:
            raise ConfigError(
                f"a poem of {config.verse_lines} lines may need {longest:,} tokens,"
                f" and {config.max_new_tokens:,} are to be written",
                "sample.max_new_tokens",
                f"set it to {longest}",
            )


class Place:
    """The characters that may stand somewhere, and how their bytes may begin."""

    def __init__(self, characters: Sequence[str], spelled: frozenset[int]) -> None:
        self.characters = frozenset(characters)
        self.codes = np.array([ord(character) for character in characters], dtype=np.int64)
        encoded = [character.encode() for character in characters]
        # what is open must be finished byte by byte
        self.beginnings = {raw[:n] for raw in encoded for n in range(1, len(raw)) if spelled >= {*raw[n:]}}
        self.most_tokens = max(map(len, encoded), default=0) if self.beginnings else 1


NOWHERE = Place([], frozenset())


class VerseState:
    """A poem as far as it is written."""

    def __init__(self, rule: Verse, prompt: Sequence[int]) -> None:
        self._rule, self._stream = rule, rule.tokenizer.stream()
        before = "".join(self._stream.push(token) for token in prompt)
        is_in_line = before and prompt[-1] != rule.tokenizer.end_of_text and not before.endswith(LINE_END)
        self._form = [*(rule.line_end if is_in_line else ""), *rule.form]
        self._at = 0  # the next place
        self._rhyming: list[str] = []

    def push(self, token: int) -> None:
        """This token was written."""
        for character in self._stream.push(token):
            if self._kind(0) == RHYME:
                self._rhyming.append(character)
            self._at += 1

    def barred(self) -> Tensor:
        """(V,) True for all tokens but those that keep to the form."""
        barred = np.ones(self._rule.tokenizer.vocab_size, dtype=bool)
        barred[self._fitting() or [self._rule.tokenizer.end_of_text]] = False
        return torch.from_numpy(barred)

    def _kind(self, ahead: int) -> str | None:
        """What the place so far ahead is; None: it lies behind the poem."""
        at = self._at + ahead
        return self._form[at] if at < len(self._form) else None

    def _place(self, ahead: int) -> Place:
        rule, kind = self._rule, self._kind(ahead)
        if kind == RHYME and self._rhyming:
            return rule.place(rule.rhymes[rhyme_of(self._rhyming[0])].difference(self._rhyming))
        return rule.places[kind] if kind else NOWHERE

    def _fitting(self) -> list[int]:
        """The tokens that may come."""
        table, found = self._rule.table(self._stream), list[int]()
        rows, ahead = np.arange(len(table.ids)), 0
        while len(rows):
            place, ends = self._place(ahead), table.lengths[rows] == ahead
            found += [table.ids[row] for row in rows[ends] if table.fits(row, place)]
            rows = rows[~ends]
            rows = rows[np.isin(table.codes[rows, ahead], place.codes)]
            ahead += 1
        return found


class TokenTable:
    """What tokens would write next, in the middle of a text."""

    def __init__(self, stream: TextStream, rule: Verse) -> None:
        pieces = stream.next_pieces()
        nothing = pieces[rule.tokenizer.end_of_text]
        longest = rule.characters  # so no token has the ends of two lines
        self.ids = [
            token for token in rule.usable if pieces[token] != nothing and len(pieces[token][0]) <= longest
        ]
        texts = [pieces[token][0] for token in self.ids]
        self.opened = [pieces[token][1] for token in self.ids]
        """(n,) Bytes that each leaves open."""
        self.lengths = np.array([*map(len, texts)], dtype=np.int64)
        """(n,) Characters that each token completes."""
        self.codes = np.array([[*map(ord, text.ljust(longest + 1))] for text in texts], dtype=np.int64)
        """(n, longest + 1) These characters, and spaces."""

    def fits(self, row: int, place: Place) -> bool:
        """Whether the bytes that a token leaves open begin a character of the place behind it."""
        return not self.opened[row] or self.opened[row] in place.beginnings


def form_of(config: SampleConfig, line_end: str) -> list[str]:
    """The kinds of all places of a poem."""
    form: list[str] = []
    for line in range(config.verse_lines):
        is_even, is_last = line % 2 == 1, line == config.verse_lines - 1
        head = config.acrostic[line : line + 1] or FREE
        end = RHYME if config.rhyme and is_even else FREE
        form += [head, *[FREE] * (config.verse - 2), end, STOP if is_even or is_last else COMMA]
        form += [line_end] if line_end and is_even and not is_last else []
    return form


@cache
def rhyme_of(character: str) -> str:
    """The modern final of a character without its medial; nothing where it has no reading.

    Raises:
        ConfigError: pypinyin is not installed.
    """
    try:
        from pypinyin import Style, lazy_pinyin
    except ImportError as error:
        hint = f"{install_command('verse')}, or leave it out"
        raise ConfigError("rhymes need pypinyin", "sample.rhyme", hint) from error
    syllable = "".join(lazy_pinyin(character, errors="ignore"))
    final = "".join(lazy_pinyin(character, style=Style.FINALS, errors="ignore"))
    return "buzzing i" if BUZZING.fullmatch(syllable) else MEDIAL.sub("", final)


def _between_others(tokenizer: Tokenizer) -> TextStream:
    """A stream in the middle of a text: at its beginning a space may be left out."""
    stream = tokenizer.stream()
    for token in tokenizer.encode(COMMA):
        stream.push(int(token))
    return stream


def _refuse_what_breaks_off(config: SampleConfig) -> None:
    """Settings that do not go with a poem.

    Raises:
        ConfigError: there is one.
    """
    stops = {"stop": any(config.stop), "stop_at": config.stop_at, "no_copy": config.no_copy}
    if name := next((name for name, value in stops.items() if value), None):
        raise ConfigError(
            f"a poem cannot be written with {name}, which may break it off", f"sample.{name}", "leave one out"
        )
    if not regex.fullmatch(r"\p{Han}*", config.acrostic) or len(config.acrostic) > config.verse_lines:
        raise ConfigError(
            f"the first characters {config.acrostic!r} are not one Chinese character for each line"
            f" of {config.verse_lines} at most",
            "sample.acrostic",
            "give as many as there are lines (sample.verse_lines), or fewer",
        )

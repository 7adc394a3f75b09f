"""A BERT vocab.txt as GPT2-Chinese uses it: the tokenizer of a thousand Chinese GPT-2s.

Text is lower-cased and stripped of accents and control characters; each Chinese character, each digit
and each punctuation mark stands alone (BERT itself leaves numbers whole, ``Roles.digits_alone``); what is
left are words, cut greedily into the longest known pieces, with ``##`` before a piece that continues a word
(Wu et al. 2016; Devlin et al. 2019). What the vocabulary lacks becomes [UNK]: this tokenizer loses
text, and ``tokenizer/roundtrip.py`` counts what.

The ids are those of the file's lines, so weights trained elsewhere keep their meaning. Two things are
ours: the entry that stands for a line end is renamed to it in tokenizer.json, so that every reader
writes real line ends; and decoding puts no spaces between Chinese characters.
The splitting itself is done by the ``tokenizers`` library, from the tokenizer.json written here.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from yanmo.core.errors import TokenizerError
from yanmo.tokenizer.base import Ids, fingerprint_of, json_text, write_tokenizer
from yanmo.tokenizer.spec import added_token, replace, sequence, tokenizer_json
from yanmo.tokenizer.splits import split_step

UNKNOWN = "[UNK]"
SPECIALS = ("[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]")
MAX_WORD_CHARACTERS = 100
CHUNK_CHARACTERS = 1 << 12
"""Characters the library is given at a time; its work grows faster than the text."""

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002ceaf\U0002f800-\U0002fa1f"
# the characters of str.isdigit(): decimal digits, superscripts, subscripts, circled and dotted ones
DIGITS = (
    r"\p{Nd}²³¹⁰⁴-⁹₀-₉①-⑨⑴-⑼⒈-⒐⓪⓵-⓽⓿❶-❾➀-➈➊-➒"
    "\u1369-\u1371\u19da\U00010a40-\U00010a43\U00010e60-\U00010e68\U00011052-\U0001105a\U0001f100-\U0001f10a"
)
PUNCTUATION = r"!-/:-@\[-`{-~\p{P}"
_CUT = re.compile(rf"\n|(?=[{HAN}])")


@dataclass(frozen=True)
class Roles:
    """The vocabulary entries with a part to play; an empty name is none."""

    newline: str = ""
    start: str = ""
    end: str = "[SEP]"
    digits_alone: bool = True
    """As in GPT2-Chinese; BERT itself leaves a number one word."""


class WordPieceTokenizer:
    """Text ↔ the line numbers of a vocab.txt."""

    lossless = False  # case, spaces and characters that the vocabulary lacks are lost

    def __init__(self, entries: list[str], roles: Roles, added: Mapping[str, bool] | None = None) -> None:
        """``entries`` are the lines of vocab.txt; ``added`` are those that stand outside its rules.

        Of these, special ones (True) are read only when asked for and never written, others are words.

        Raises:
            TokenizerError: an entry that is needed is missing.
        """
        _require(entries, (UNKNOWN, roles.end, roles.start, roles.newline))
        if roles.newline and roles.newline in (roles.end, roles.start, UNKNOWN):
            raise TokenizerError(
                f"{roles.newline} is to be a line end and to begin or end a text",
                where="tokenizer.newline_token",
                hint="choose another tokenizer.end_token or start_token, such as [CLS]",
            )
        self._roles = roles
        written = _written_entries(entries, roles.newline)
        self.vocab_size = len(written)
        self._entries = written
        self._ids = {entry: number for number, entry in enumerate(written)}
        self.end_of_text = self._ids[roles.end]
        self.document_start = (self._ids[roles.start],) if roles.start else ()
        self._added = dict(added or {})
        # an added token with a line end or a Chinese character in it could be cut in two
        self._may_cut = not any(_CUT.search(text, 1) for text in self._added)
        outside = {entry: True for entry in SPECIALS if entry in self._ids} | self._added
        self._spec = _tokenizer_json(self._ids, roles.digits_alone, outside)
        named = {"newline": roles.newline, "start": roles.start, "end": roles.end}
        self.fingerprint = fingerprint_of({"tokenizer": self._spec, "roles": named})
        self._library = tokenizers.Tokenizer.from_str(json_text(self._spec))
        # special tokens are never shown; added words are
        specials = {entry: self._ids[entry] for entry, is_special in outside.items() if is_special}
        self._texts = [entry if entry not in specials else "" for entry in written]
        self.suppressed = tuple(sorted(n for entry, n in specials.items() if entry != roles.end))

    @classmethod
    def from_vocabulary(
        cls, path: Path, roles: Roles, beside: Sequence[tuple[str, int, bool]] = ()
    ) -> "WordPieceTokenizer":
        """From a vocab.txt: one entry a line, its id the line's number; the last line end may be missing.

        ``beside`` are tokens added later, with their ids, and whether they are special.

        Raises:
            TokenizerError: the file cannot be read, or lacks an entry that is needed.
        """
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise TokenizerError(
                f"the vocabulary cannot be read: {error}", where=str(path), hint="give a BERT vocab.txt"
            ) from error
        # a line end at the end of the file begins no further entry; Windows writes \r\n
        lines = [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]
        try:
            entries, added = _with_added(lines, beside)
            return cls(entries, roles, added)
        except TokenizerError as error:
            raise TokenizerError(error.what, where=str(path), hint=error.hint) from error

    @classmethod
    def from_json(cls, spec: dict[str, Any], config: dict[str, Any], where: Path) -> "WordPieceTokenizer":
        """From a tokenizer.json of ours and the roles in its tokenizer_config.json."""
        try:
            vocabulary: dict[str, int] = spec["model"]["vocab"]
            end = config.get("document_end", config["eos_token"])  # of dialogues eos_token ends a turn
            named = config["line_end"], config["document_start"], end
            roles = Roles(*named, digits_alone=config.get("digits_alone", True))
            entries = sorted(vocabulary, key=lambda entry: vocabulary[entry])
            # back to the name in vocab.txt, from which everything is made again and compared
            entries = [roles.newline if entry == "\n" else entry for entry in entries]
            tokenizer = cls(entries, roles, config.get("added"))
        except (KeyError, TypeError, AttributeError, ValueError):
            tokenizer = None
        if tokenizer is None or tokenizer._spec != spec:
            raise TokenizerError(
                "this WordPiece tokenizer.json was not made by yanmo",
                where=str(where),
                hint="name the vocab.txt it was made from: tokenizer.path=vocab.txt",
            )
        return tokenizer

    def spelling(self, token: int) -> str:
        """The entry of a token, with its ##."""
        return self._entries[token]

    def bytes_of(self, token: int) -> None:
        """None: tokens are words and parts of words."""

    def encode(self, text: str, special: bool = False) -> Ids:
        """Ids of a text, shape (number of tokens,)."""
        text.encode("utf-8")  # a lone surrogate raises here, where its place is known
        if special and self._roles.newline:
            text = text.replace(self._roles.newline, "\n")
        self._library.encode_special_tokens = not special
        chunks = list(self.pieces(text, CHUNK_CHARACTERS))
        found = self._library.encode_batch_fast(chunks, add_special_tokens=False)
        return np.array([token for chunk in found for token in chunk.ids], dtype=np.int64)

    def decode(self, ids: Ids | list[int]) -> str:
        """Text of ids, lower-cased; spaces stand between Latin words only."""
        stream = self.stream()
        return "".join(map(stream.push, ids))

    def stream(self) -> "WordPieceStream":
        """A decoder for ids that arrive one by one."""
        return WordPieceStream(self._texts)

    def pieces(self, text: str, length: int) -> Iterator[str]:
        """``text`` cut behind line ends or before Chinese characters, where words end anyway."""
        start = 0
        while start < len(text):
            end = _cut(text, start, start + length) if self._may_cut else len(text)
            yield text[start:end]
            start = end

    def with_markers(self, markers: Sequence[str]) -> "WordPieceTokenizer":
        """The same with more special tokens behind its last id."""
        entries = [self._roles.newline if entry == "\n" else entry for entry in self._entries]
        return WordPieceTokenizer(
            [*entries, *markers], self._roles, self._added | dict.fromkeys(markers, True)
        )

    def save(
        self, folder: Path, model_max_length: int, chat_template: str | None = None, end_of_turn: str = ""
    ) -> None:
        """Write tokenizer.json and tokenizer_config.json."""
        more = {
            "eos_token": self._roles.end,
            "bos_token": self._roles.start or self._roles.end,
            "unk_token": UNKNOWN,
            "line_end": self._roles.newline,
            "document_start": self._roles.start,
            "digits_alone": self._roles.digits_alone,
        }
        more |= {"added": self._added} if self._added else {}
        more |= {"document_end": self._roles.end} if chat_template else {}
        write_tokenizer(folder, self._spec, model_max_length, (chat_template, end_of_turn), more)


class WordPieceStream:
    """Joins pieces to words, and puts a space between two Latin ones."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts
        self._before = ""

    def push(self, token: int) -> str:
        """The text of a token, after those before it."""
        text = _joined(self._texts[token], self.state)
        self._before = text or self._before
        return text

    def flush(self) -> str:
        """Nothing: every token is whole characters."""
        return ""

    @property
    def state(self) -> bool:
        """Whether the text ends with a Latin letter."""
        return _is_latin(self._before[-1:])

    def next_pieces(self) -> list[tuple[str, bytes]]:
        """The text of every token, after those before it; no bytes are held back."""
        is_latin = self.state
        return [(_joined(text, is_latin), b"") for text in self._texts]


def _joined(entry: str, is_after_latin: bool) -> str:
    """The text of an entry of the vocabulary, after a Latin letter or not."""
    if entry.startswith("##") and len(entry) > 2:
        return entry[2:]
    # the vocabulary keeps no spaces: between two Latin words there must have been one
    return " " + entry if is_after_latin and _is_latin(entry[:1]) else entry


def _cut(text: str, start: int, limit: int) -> int:
    """The last cut after ``start`` up to ``limit``, else the first one beyond it."""
    if limit >= len(text):
        return len(text)
    # behind the last line end within the limit; without one the search goes on beyond it
    place = max(text.rfind("\n", start, limit), start)
    if place > start:
        return place + 1
    found = _CUT.search(text, limit)
    return found.end() if found else len(text)


def _is_latin(character: str) -> bool:
    return "a" <= character <= "z"


def _require(entries: list[str], needed: tuple[str, ...]) -> None:
    known = set(entries)
    for entry in needed:
        if entry and entry not in known:
            special = [e for e in entries if e[:1] == "[" and e[-1:] == "]" and not e.startswith("[unused")]
            raise TokenizerError(
                f"the vocabulary of {len(entries)} entries has no {entry}",
                where="vocab.txt",
                hint=f"its special entries are: {', '.join(special[:8]) or 'none'}; set tokenizer.end_token,"
                " start_token and newline_token to those it has",
            )


def _with_added(
    lines: list[str], beside: Sequence[tuple[str, int, bool]]
) -> tuple[list[str], dict[str, bool]]:
    """Entries, and which of them were added behind the lines of vocab.txt."""
    entries, added = list(lines), {}
    for text, number, is_special in sorted(beside, key=lambda token: token[1]):
        # ids that go on where the lines end; others must name the very entry that stands there
        if number == len(entries):
            entries.append(text)
            added[text] = is_special
        elif number > len(entries) or entries[number] != text:
            raise TokenizerError(
                f"the token {text} was added with id {number:,}, which is"
                f" {entries[number] if number < len(entries) else f'beyond the {len(entries):,} before it'}",
                where="vocab.txt",
                hint="vocab.txt and added_tokens.json do not belong together",
            )
    return entries, added


def _written_entries(entries: list[str], newline: str) -> list[str]:
    """Entries as tokenizer.json names them: of equal lines the last counts (as in BERT's own loader)."""
    last = {entry: number for number, entry in enumerate(entries)}
    written = [
        entry if last[entry] == number else f"[line {number + 1} repeated at {last[entry] + 1}]"
        for number, entry in enumerate(entries)
    ]
    return ["\n" if newline and entry == newline else entry for entry in written]


def without_spaces(letters: str) -> dict[str, Any] | None:
    """A decoder that puts a space between two words of ``letters``, and none between Chinese characters."""
    steps = [
        replace("^(?!##.)", " "),  # a space before each word,
        replace("^##(?=.)", ""),  # none before what continues one,
        {"type": "Fuse"},
        replace(f"(?<![{letters}]) | (?![{letters}])", ""),  # and none but between Latin words
    ]
    return sequence("decoders", steps)


def _tokenizer_json(ids: dict[str, int], digits_alone: bool, added: Mapping[str, bool]) -> dict[str, Any]:
    before = [
        replace(r"\x{FFFD}|(?![\t\n\r])\p{C}", ""),
        {"type": "NFD"},
        replace(r"\p{Mn}", ""),
        {"type": "Lowercase"},
    ]
    cuts = [
        split_step(r"[^\S\n]+" if "\n" in ids else r"\s+", "Removed"),
        split_step(rf"[\n{HAN}{DIGITS if digits_alone else ''}{PUNCTUATION}]"),
    ]
    model = {
        "type": "WordPiece",
        "unk_token": UNKNOWN,
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": MAX_WORD_CHARACTERS,
        "vocab": ids,
    }
    spec = tokenizer_json(
        {},
        model,
        normalizer=sequence("normalizers", before),
        pre_tokenizer=sequence("pretokenizers", cuts),
        decoder=without_spaces("a-z"),
    )
    outside = sorted(added, key=ids.__getitem__)
    spec["added_tokens"] = [added_token(entry, ids[entry], special=added[entry]) for entry in outside]
    return spec

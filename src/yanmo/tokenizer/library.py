"""Any tokenizer.json, run by the ``tokenizers`` library: byte BPE, unigram, and what others made.

What is ours around it: text that looks like a special token stays text; long texts go through the
library in parts (``cuts.py``), many at once; decoding works on the bytes of each token, so that a stream
never shows half a character; and the file says whether the vocabulary can lose anything.
"""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers.decoders import DecodeStream

from yanmo.core.errors import TokenizerError
from yanmo.settings.schema import MOST_TOKENS
from yanmo.tokenizer.base import ByteStream, Ids, TextStream, fingerprint_of, write_tokenizer
from yanmo.tokenizer.cuts import MAX_RUN_CHARACTERS, SAFE, pieces
from yanmo.tokenizer.fast import fast_encoder
from yanmo.tokenizer.spec import SPACE, added_token
from yanmo.tokenizer.splits import split_rule

KINDS = ("bpe", "unigram", "wordpiece")
FAST_FROM_CHARACTERS = 1 << 14
"""Characters from which on the fast encoder is worth being made."""
CHUNK_CHARACTERS = 1 << 13
"""Characters the library is given at a time."""
TRIAL = "Ａ é\u0301 “龘”…\n①👍 ﬁ 2024"
"""What a damaged table of characters stumbles over."""
CLS = "[CLS]"
"""What begins a text in models of BERT's vocabulary."""


class LibraryTokenizer:
    """Text ↔ ids by a tokenizer.json."""

    def __init__(self, spec: dict[str, Any], end_of_text: str, where: str = "tokenizer.json") -> None:
        """``end_of_text`` is the token that ends a document.

        Raises:
            TokenizerError: the library cannot read it, or its ids are unusable.
        """
        self.spec = spec
        self._where = where
        self._texts = token_texts(spec, where)
        self.vocab_size = len(self._texts)
        self.kind = str(spec["model"].get("type", "BPE")).lower()
        if self.kind not in KINDS:
            raise TokenizerError(
                f"vocabularies of type {spec['model']['type']} are not read",
                where,
                f"yanmo reads {', '.join(KINDS)}",
            )
        self._library = _load(spec, where)
        self._specials = {t["id"]: t["content"] for t in spec.get("added_tokens", []) if t.get("special")}
        self.end_of_text = _find_end(self._texts, end_of_text, self._specials, where)
        starts = [number for number, text in self._specials.items() if text == CLS]
        self.document_start: tuple[int, ...] = tuple(starts[:1]) if self.kind == "wordpiece" else ()
        self._bytes = _token_bytes(self._texts, spec, self._specials)
        # a cut could fall into an added token; then nothing is known of where a text may be cut
        self._rule = None if any(SAFE.search(text) for text in _added(spec)) else split_rule(spec)
        self.lossless = _keeps_everything(spec, self._texts)
        # an id without an entry stands for no text, so it must never be written
        holes = {token for token, text in enumerate(self._texts) if text is None}
        self.suppressed = tuple(sorted((holes | set(self._specials)) - {self.end_of_text}))
        self._fast: Callable[[str], Ids] | None = None
        self._lock = threading.Lock()
        self._switch = threading.Lock()  # the library's, for special tokens, is one for all threads
        self._may_be_fast = self._rule is not None and self._bytes is not None and _is_plain_bpe(spec)
        self.fingerprint = fingerprint_of({"tokenizer": spec, "end_of_text": end_of_text})

    def __reduce__(self) -> tuple[type["LibraryTokenizer"], tuple[dict[str, Any], str]]:
        return LibraryTokenizer, (self.spec, self._texts[self.end_of_text] or "")  # for other processes

    def spelling(self, token: int) -> str:
        """What tokenizer.json has written for a token; nothing for an id without an entry."""
        return self._texts[token] or ""

    def bytes_of(self, token: int) -> bytes | None:
        """The bytes of a token, none of a special one; None where the decoder is of another kind."""
        return self._bytes[token] if self._bytes else None

    def encode(self, text: str, special: bool = False) -> Ids:
        """Ids of a text, shape (number of tokens,)."""
        text.encode("utf-8")  # a lone surrogate raises here, where its place is known
        if len(text) >= FAST_FROM_CHARACTERS and not special and (fast := self._fast_encoder()):
            return np.concatenate([fast(piece) for piece in self.pieces(text, MAX_RUN_CHARACTERS)])
        # in parts: its work grows faster than the text, and it encodes a batch on all cores
        parts = list(self.pieces(text, CHUNK_CHARACTERS))
        with self._switch, fence(self._where):
            self._library.encode_special_tokens = not special
            found = self._library.encode_batch_fast(parts, add_special_tokens=False)
        return np.fromiter(chain.from_iterable(part.ids for part in found), dtype=np.int64)

    def _fast_encoder(self) -> Callable[[str], Ids] | None:
        """What gives the same ids faster, looked for once."""
        with self._lock:  # one thread makes it, the others wait
            # only once: for a large vocabulary the proof takes seconds
            if self._may_be_fast and self._fast is None and self._rule and self._bytes:
                self._fast = fast_encoder(self.spec, self._rule, byte_letters(), self._bytes)
                self._may_be_fast = self._fast is not None
        return self._fast

    def decode(self, ids: Ids | list[int]) -> str:
        """Text of ids; special tokens are left out, bytes that form no character become �."""
        tokens = np.asarray(ids, dtype=np.int64).tolist()
        if self._bytes is None:
            with fence(self._where):
                return str(self._library.decode(tokens, skip_special_tokens=True))
        # joined first: the bytes of one character may be several tokens
        text = b"".join(map(self._bytes.__getitem__, tokens)).decode("utf-8", "replace")
        return text.removeprefix(" ") if _strips_space(self.spec) else text

    def stream(self) -> TextStream:
        """A decoder for ids that arrive one by one."""
        if self._bytes is None:
            return LibraryStream(self._library)
        return ByteStream(self._bytes, strips_space=_strips_space(self.spec))

    def pieces(self, text: str, length: int) -> Iterator[str]:
        """``text`` in pieces; whole, if it is not known where its tokenizer cuts."""
        return pieces(text, length if self._rule is not None else len(text))

    def with_markers(self, markers: Sequence[str]) -> "LibraryTokenizer":
        """The same with more special tokens behind its last id."""
        added = [added_token(text, self.vocab_size + number) for number, text in enumerate(markers)]
        spec = self.spec | {"added_tokens": [*self.spec.get("added_tokens", []), *added]}
        return LibraryTokenizer(spec, self._texts[self.end_of_text] or "", self._where)

    def save(
        self, folder: Path, model_max_length: int, chat_template: str | None = None, end_of_turn: str = ""
    ) -> None:
        """Write tokenizer.json and tokenizer_config.json."""
        end = self._texts[self.end_of_text]
        more = {"eos_token": end, "bos_token": end}
        chat = chat_template, end_of_turn
        write_tokenizer(folder, self.spec, model_max_length, chat, more, self._unused())

    def _unused(self) -> str | None:
        """The token of the byte 0xFF, which no UTF-8 text has, unless a text may spell its name."""
        if not self._bytes or b"\xff" not in self._bytes:
            return None
        token = self._bytes.index(b"\xff")
        text = self._texts[token] or ""
        # a text that spells the token's name may be encoded to it; then it is no token to pad with
        return None if token in self.encode(text) else text


class LibraryStream:
    """For decoders whose tokens are not plain bytes: the library's own stream."""

    def __init__(self, library: tokenizers.Tokenizer) -> None:
        self._library = library
        self._stream = DecodeStream(skip_special_tokens=True)

    def push(self, token: int) -> str:
        """The text that ``token`` completes."""
        return self._stream.step(self._library, token) or ""

    def flush(self) -> str:
        """Nothing."""
        return ""

    @property
    def state(self) -> None:
        """It lies in the library."""

    def next_pieces(self) -> list[tuple[str, bytes]]:
        """Not known: the library says it of one token at a time only."""
        raise TokenizerError(
            "what each token would write next is not known for a decoder of this kind",
            where="tokenizer.json",
            hint="leave out what asks for it (no_copy, verse), or use a model with a tokenizer of yanmo's",
        )


def token_texts(spec: dict[str, Any], where: str) -> list[str | None]:
    """What is written in the vocabulary for each id; None where it has no entry.

    Raises:
        TokenizerError: ids are missing, too large or given twice.
    """
    hint = "the file is damaged, or not a tokenizer; take it from its source again"
    try:
        vocabulary = spec["model"]["vocab"]
        pairs = (
            [(str(entry[0]), number) for number, entry in enumerate(vocabulary)]
            if isinstance(vocabulary, list)
            else list(vocabulary.items())
        )
        added = [(token["content"], token["id"]) for token in spec.get("added_tokens", [])]
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise TokenizerError(f"it has no vocabulary: {error!r}", where, hint) from error
    ids = [number for _, number in (*pairs, *added)]
    if not ids or any(type(number) is not int or number < 0 for number in ids):
        raise TokenizerError("a token's id is no whole number from 0 up", where, hint)
    size = max(ids) + 1
    # a row is made for each id: a single one of two thousand million would take all memory
    if size > MOST_TOKENS or size > 2 * len(ids) + 1024:
        raise TokenizerError(
            f"its largest id is {size - 1:,} with {len(ids):,} entries; at most {MOST_TOKENS:,} ids,"
            " half of them used, make sense in a model",
            where,
            hint,
        )
    texts: list[str | None] = [None] * size
    for text, number in (*pairs, *added):
        if texts[number] not in (None, text):
            raise TokenizerError(f"id {number} is given to {texts[number]!r} and to {text!r}", where, hint)
        texts[number] = text
    return texts


def _load(spec: dict[str, Any], where: str) -> tokenizers.Tokenizer:
    with fence(where):
        library = tokenizers.Tokenizer.from_str(json.dumps(spec))
        # a damaged file may load, and panic when it is used: better here, where its name is known
        library.encode_batch_fast([TRIAL], add_special_tokens=False)
        return library


@contextlib.contextmanager
def fence(where: str) -> Iterator[None]:
    """What the library raises, panics of its Rust included, which are no Exceptions, is said in words."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise TokenizerError(
            f"the tokenizers library cannot read it or use it: {' '.join(str(error).split())[:300]}",
            where=where,
            hint="a tokenizer.json of the library's own form is needed; was the file cut short?",
        ) from error


def _find_end(texts: list[str | None], end: str, specials: dict[int, str], where: str) -> int:
    if end in texts:
        return texts.index(end)
    raise TokenizerError(
        f"the vocabulary has no {end or 'end-of-text token'}",
        where=where,
        hint=f"name the token that ends a document, tokenizer.end_token=…; its special tokens are:"
        f" {', '.join(list(specials.values())[:8]) or 'none'}",
    )


# -- tokens as bytes --------------------------------------------------------------------------


def byte_letters() -> dict[str, int]:
    """GPT-2's letter for each byte: printable ones stand for themselves, the others for U+0100 and up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    # bytes that are no printable character are shifted to letters that are, as in GPT-2's encoder
    others = [value for value in range(256) if value not in printable]
    letters = {chr(value): value for value in printable}
    return letters | {chr(256 + number): value for number, value in enumerate(others)}


def decoder_steps(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The decoder's steps, one after the other."""
    decoder = spec.get("decoder")
    if decoder is None:
        return []
    return list(decoder["decoders"]) if decoder.get("type") == "Sequence" else [decoder]


def _token_bytes(
    texts: list[str | None], spec: dict[str, Any], specials: dict[int, str]
) -> list[bytes] | None:
    """The bytes each token stands for; None if the decoder is not of a kind that has such."""
    kinds = {step["type"] for step in decoder_steps(spec)}
    added = set(_added(spec))
    if spec["model"].get("type") == "WordPiece":
        return None
    if kinds == {"ByteLevel"}:
        letters = byte_letters()

        def as_bytes(text: str) -> bytes:
            if text in added:
                return text.encode()
            return bytes(letters[letter] for letter in text)
    elif kinds and kinds <= {"ByteFallback", "Fuse", "Metaspace", "Replace", "Strip"}:
        spaced = kinds & {"Metaspace", "Replace"}
        raw = {f"<0x{value:02X}>": bytes([value]) for value in range(256)}

        def as_bytes(text: str) -> bytes:
            if "ByteFallback" in kinds and text in raw:
                return raw[text]
            return (text.replace(SPACE, " ") if spaced else text).encode()
    else:
        return None
    try:
        return [
            b"" if text is None or token in specials else as_bytes(text) for token, text in enumerate(texts)
        ]
    except KeyError:  # a letter that stands for no byte: the library leaves such tokens as they are
        return None


def _is_plain_bpe(spec: dict[str, Any]) -> bool:
    """Whether merges alone decide: nothing is normalised, no token but special ones stands outside."""
    added = spec.get("added_tokens", [])
    return (
        spec["model"].get("type") == "BPE"
        and not spec.get("normalizer")
        and all(t.get("special") for t in added)
    )


def _added(spec: dict[str, Any]) -> list[str]:
    """The tokens that are looked for in the text before anything else."""
    return [token["content"] for token in spec.get("added_tokens", [])]


def _strips_space(spec: dict[str, Any]) -> bool:
    """Whether the decoder takes the space away that encoding put before the text."""
    for step in decoder_steps(spec):
        if step["type"] == "Strip" and step.get("start"):
            return True
        if step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never":
            return True
    return False


def _keeps_everything(spec: dict[str, Any], texts: list[str | None]) -> bool:
    kinds = {step["type"] for step in decoder_steps(spec)}
    if spec.get("normalizer") is not None or any(
        token.get("lstrip") or token.get("rstrip") for token in spec.get("added_tokens", [])
    ):
        return False
    # all 256 bytes have a token and no rule drops anything
    if kinds == {"ByteLevel"}:
        return split_rule(spec) is not None and set(byte_letters()) <= set(texts)
    if kinds == {"ByteFallback", "Fuse"}:
        return all(f"<0x{value:02X}>" in texts for value in range(256)) and bool(
            spec["model"].get("byte_fallback")
        )
    return False

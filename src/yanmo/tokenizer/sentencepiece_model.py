"""A SentencePiece .model → a tokenizer.json with the same pieces and ids.

The file is a protocol buffer (``sentencepiece_model.proto``); the few fields that matter are read here.
Unigram models (Kudo 2018) keep their scores; BPE models get every merge that leads to a piece, in the
order of the scores, which is what SentencePiece itself merges by (Kudo & Richardson 2018).
"""

import base64
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from yanmo.core.errors import TokenizerError
from yanmo.tokenizer.spec import NEVER, SPACE, added_token, bpe_model, replace, sequence, tokenizer_json

UNIGRAM, BPE = 1, 2
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
MEND = "take the .model from its source again"


@dataclass(frozen=True)
class VocabularyPiece:
    """One entry of the vocabulary."""

    text: str
    score: float
    kind: int


def read_sentencepiece(data: bytes, where: str) -> tuple[dict[str, Any], str]:
    """(tokenizer.json, the token that ends a text).

    Raises:
        TokenizerError: it is damaged, or neither unigram nor BPE.
    """
    try:
        return _converted(_fields(data), where)
    except (ValueError, LookupError, struct.error, TypeError, AttributeError) as error:
        raise TokenizerError(f"it is no SentencePiece model: {error}", where, MEND) from error


def _converted(model: dict[int, list[Any]], where: str) -> tuple[dict[str, Any], str]:
    """As :func:`read_sentencepiece`; a field of another type than it should have is any of several errors."""
    pieces = [_piece(raw) for raw in model.get(1, [])]
    # 2: trainer_spec, 3: normalizer_spec; a field that comes twice counts as its last
    trainer, normalizer = (_fields(model.get(number, [b""])[-1]) for number in (2, 3))
    kind = trainer.get(3, [UNIGRAM])[-1]
    if not pieces or kind not in (UNIGRAM, BPE):
        raise TokenizerError(
            f"it has {len(pieces)} pieces and type {kind}; unigram and BPE models are read", where, MEND
        )
    texts = [piece.text for piece in pieces]
    if len({*texts}) < len(texts):
        raise TokenizerError("a piece stands in it twice", where, MEND)
    unknown = next((number for number, piece in enumerate(pieces) if piece.kind == UNKNOWN), None)
    if unknown is None:
        raise TokenizerError("it has no piece for what is unknown", where, MEND)
    bytes_too = any(piece.kind == BYTE for piece in pieces)
    steps = _steps(normalizer, bytes_too)
    build = _unigram if kind == UNIGRAM else _bpe
    spec = tokenizer_json({}, build(pieces, unknown, bytes_too), **steps)
    spec["added_tokens"] = [
        added_token(piece.text, number, special=piece.kind != USER_DEFINED)
        for number, piece in enumerate(pieces)
        if piece.kind in (UNKNOWN, CONTROL, USER_DEFINED)
    ]
    controls = [piece.text for piece in pieces if piece.kind == CONTROL]
    ends = trainer.get(48, [b"</s>"])[-1].decode()  # eos_piece
    return spec, ends if ends in controls else next(iter(controls[::-1]), "")


def _steps(normalizer: dict[int, list[Any]], bytes_too: bool) -> dict[str, Any]:
    """What happens to the text before the model and after it."""
    table = normalizer.get(2, [b""])[-1]
    adds_prefix, trims, escapes = (bool(normalizer.get(number, [1])[-1]) for number in (3, 4, 5))
    before: list[dict[str, Any]] = []
    if table:
        if b"nmt_nfkc" in normalizer.get(1, [b""])[-1]:
            # the library looks up whole graphemes: composed first and marks parted it finds the same
            before += [{"type": "NFC"}, replace(r"(?<=[\s\S])(?=\p{M})", "\u0001")]
        before.append({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(table).decode()})
    if trims:
        # remove_extra_whitespaces: at both ends, and runs to one
        before += [replace("^ +| +$", ""), replace(" {2,}", " ")]
    if adds_prefix:
        # add_dummy_prefix: a word at the beginning is the same piece as one behind a space
        before.append({"type": "Prepend", "prepend": " "})
    if escapes:
        before.append(replace(" ", SPACE))
    after: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}]
    if bytes_too:
        after.append({"type": "ByteFallback"})
    after.append({"type": "Fuse"})
    if adds_prefix:
        # the space that was put before the text goes again
        after.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"normalizer": sequence("normalizers", before), "decoder": sequence("decoders", after)}


def _unigram(pieces: list[VocabularyPiece], unknown: int, bytes_too: bool) -> dict[str, Any]:
    vocab = [[piece.text, piece.score if piece.kind == NORMAL else NEVER] for piece in pieces]
    return {"type": "Unigram", "unk_id": unknown, "vocab": vocab, "byte_fallback": bytes_too}


def _bpe(pieces: list[VocabularyPiece], unknown: int, bytes_too: bool) -> dict[str, Any]:
    numbers = {piece.text: number for number, piece in enumerate(pieces)}
    usable = {piece.text: piece.score for piece in pieces if piece.kind in (NORMAL, UNUSED)}
    merges = []
    # a higher score is merged earlier; of equal ones the piece that stands first
    for text in sorted(usable, key=lambda text: (-usable[text], numbers[text])):
        halves = ((text[:at], text[at:]) for at in range(1, len(text)))
        merges += [f"{left} {right}" for left, right in halves if left in usable and right in usable]
    more = {"unk_token": pieces[unknown].text, "fuse_unk": True, "byte_fallback": bytes_too}
    return bpe_model(numbers, merges, **more)


def _piece(raw: bytes) -> VocabularyPiece:
    fields = _fields(raw)
    # a missing score is 0, as protocol buffers leave defaults out
    (score,) = struct.unpack("<f", fields.get(2, [bytes(4)])[-1])
    return VocabularyPiece(fields[1][-1].decode("utf-8"), score, fields.get(3, [NORMAL])[-1])


# -- protocol buffers -------------------------------------------------------------------------


def _fields(data: bytes) -> dict[int, list[Any]]:
    """A message's fields by number: whole numbers, or bytes."""
    found: dict[int, list[Any]] = {}
    for number, value in _read(data):
        found.setdefault(number, []).append(value)
    return found


def _read(data: bytes) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        # kind 2 says its length, 1 and 5 have eight and four bytes
        size, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}.get(kind, 0), at)
        if (kind not in (1, 2, 5)) or at + size > len(data):
            raise ValueError(f"a field breaks off at byte {at:,} of {len(data):,}")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        # or a damaged file could ask for a number of a million bits
        if shift > 63:
            raise ValueError(f"a number is too long at byte {at:,}")

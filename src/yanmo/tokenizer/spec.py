"""The form of a tokenizer.json, as the ``tokenizers`` library writes it."""

from collections.abc import Mapping, Sequence
from typing import Any

SPACE = "▁"
"""SentencePiece's sign for a space."""
NEVER = -1e6
"""The log probability of pieces that no text is cut into by choice: bytes write what nothing else can."""


def tokenizer_json(specials: Mapping[str, int], model: dict[str, Any], **steps: Any) -> dict[str, Any]:
    """A whole file; ``steps`` are normalizer, pre_tokenizer and decoder where there are such.

    Special tokens are never read out of plain text: ``normalized`` off, and matched only when asked for.
    """
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(content, number) for content, number in specials.items()],
        "normalizer": steps.get("normalizer"),
        "pre_tokenizer": steps.get("pre_tokenizer"),
        "post_processor": None,
        "decoder": steps.get("decoder"),
        "model": model,
    }


def added_token(content: str, number: int, special: bool = True) -> dict[str, Any]:
    """A token that stands outside the model's own vocabulary rules."""
    return {
        "id": number,
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }


def bpe_model(vocab: Mapping[str, int], merges: Sequence[str], **more: Any) -> dict[str, Any]:
    """A byte-pair encoding; each merge is two pieces with a space between."""
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": dict(vocab),
        "merges": list(merges),
        **more,
    }


def replace(pattern: str, content: str) -> dict[str, Any]:
    """A step that replaces what a regular expression finds."""
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def sequence(kind: str, steps: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Steps one after the other; ``kind`` is normalizers, pretokenizers or decoders."""
    return {"type": "Sequence", kind: list(steps)} if steps else None

"""What every tokenizer is: text ↔ token ids, one saved form (tokenizer.json), streaming without �.

In: text. Out: ``numpy`` arrays of ids, and text again. The kinds are the sibling files; choosing among
them is ``tokenizer/__init__.py``'s job.
"""

import codecs
import hashlib
import json
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

END_OF_TEXT = "<|endoftext|>"
CHAT_TOKENS = ("<|im_start|>", "<|im_end|>")
CHAT = "chat_template.jinja"
PADS = ("[PAD]", "<pad>", "<|pad|>", "<|padding|>", END_OF_TEXT)
"""Tokens that pad where they do not end a text, the usual names first."""
Ids = npt.NDArray[np.int64]


class TextStream(Protocol):
    """Turns ids into text as they come, giving whole characters only."""

    def push(self, token: int) -> str:
        """The characters that ``token`` completes: often one, sometimes none."""
        ...

    def flush(self) -> str:
        """What is left at the end: an incomplete character becomes �."""
        ...

    @property
    def state(self) -> Hashable:
        """All that the characters of the next token depend on."""
        ...

    def next_pieces(self) -> list[tuple[str, bytes]]:
        """For every token, the characters that it would complete now, and the bytes held back after it.

        Raises:
            TokenizerError: the decoder cannot say so.
        """
        ...


class ByteStream:
    """A decoder for tokens that are plain bytes: it holds those of an unfinished character back."""

    def __init__(self, token_bytes: Sequence[bytes], strips_space: bool = False) -> None:
        self._bytes = token_bytes
        self._strips_space = strips_space
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The characters that ``token`` completes."""
        text = self._decoder.decode(self._bytes[token])
        if self._strips_space and text:
            self._strips_space = False
            return text.removeprefix(" ")
        return text

    def flush(self) -> str:
        """� for an unfinished character, else nothing."""
        return self._decoder.decode(b"", final=True)

    @property
    def state(self) -> tuple[bytes, bool]:
        """The bytes of an unfinished character, and whether a space would be left out."""
        return self._decoder.getstate()[0], self._strips_space

    def next_pieces(self) -> list[tuple[str, bytes]]:
        """For every token, the characters that it would complete now, and the bytes held back after it."""
        pending, strips_space = self.state
        pieces = []
        for raw in (pending + part for part in self._bytes):
            text, used = codecs.utf_8_decode(raw, "replace", False)
            pieces.append((text.removeprefix(" ") if strips_space else text, raw[used:]))
        return pieces


class Tokenizer(Protocol):
    """Text ↔ ids. ``decode(encode(s)) == s`` for every string of Unicode scalar values, if ``lossless``."""

    @property
    def lossless(self) -> bool:
        """Whether no text loses anything; False only for vocabularies that others made."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of ids; all ids are below it."""
        ...

    @property
    def end_of_text(self) -> int:
        """The id that ends a document."""
        ...

    @property
    def document_start(self) -> tuple[int, ...]:
        """The ids that stand before every document; mostly none."""
        ...

    @property
    def suppressed(self) -> tuple[int, ...]:
        """Ids that stand for no text and are never written: [UNK], [PAD] and their like."""
        ...

    @property
    def fingerprint(self) -> str:
        """A short name of tokenizer.json's content."""
        ...

    def spelling(self, token: int) -> str:
        """What the vocabulary has written for a token, such as ``##ing``; nothing where it has no entry."""
        ...

    def bytes_of(self, token: int) -> bytes | None:
        """The bytes that a token stands for; None where tokens are no plain bytes."""
        ...

    def encode(self, text: str, special: bool = False) -> Ids:
        """The ids of a text; text that looks like a special token stays text, unless ``special``."""
        ...

    def decode(self, ids: Ids | list[int]) -> str:
        """The text of ids; special tokens are left out."""
        ...

    def stream(self) -> TextStream:
        """A decoder for ids that arrive one by one; push those of a prompt first, if there is one."""
        ...

    def pieces(self, text: str, length: int) -> Iterator[str]:
        """``text`` in pieces of about ``length`` characters whose ids, joined, are those of the whole."""
        ...

    def with_markers(self, markers: Sequence[str]) -> "Tokenizer":
        """The same with more special tokens behind its last id, which no text is read as."""
        ...

    def save(
        self, folder: Path, model_max_length: int, chat_template: str | None = None, end_of_turn: str = ""
    ) -> None:
        """Write tokenizer.json and tokenizer_config.json as ``AutoTokenizer`` reads them.

        With a chat template, ``end_of_turn`` is the token that ends an answer; none: end-of-text does.
        """
        ...


def chat_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids of those of ``CHAT_TOKENS`` that a vocabulary has."""
    found = []
    for token in CHAT_TOKENS:
        ids = tokenizer.encode(token, special=True)
        if len(ids) == 1 and tokenizer.spelling(int(ids[0])) == token:
            found.append(int(ids[0]))
    return tuple(found)


def write_tokenizer(
    folder: Path,
    spec: dict[str, Any],
    model_max_length: int,
    chat: tuple[str | None, str],
    more: dict[str, Any],
    unused: str | None = None,
) -> None:
    """Write the two files, and the template where there is one.

    The class name is one that transformers 4 and 5 both know; of that class transformers gives
    ``token_type_ids`` too, which GPT-2 would add to every position, unless the inputs are named. Text that
    looks like a special token stays text, but where dialogues are written: transformers tokenises the markup
    of a rendered template.

    ``chat`` is a template and the token that ends an answer in it. ``more`` are keys of tokenizer_config.json
    beside or instead of the usual ones; ``unused`` is a token that no text is ever written with.
    """
    template, end_of_turn = chat
    special = [token["content"] for token in spec["added_tokens"] if token.get("special")]
    splits = template is None and not set(CHAT_TOKENS) & set(special)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": ["input_ids", "attention_mask"],
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "split_special_tokens": splits,
        "clean_up_tokenization_spaces": False,
        "model_max_length": model_max_length,
        **more,
    }
    if template is not None:
        # older readers look for the template here, newer ones for its own file
        config |= {"eos_token": end_of_turn or config["eos_token"], "chat_template": template}
    # a token that ends a text must not pad: trainers mask padding, and the model would never learn to end
    pad = next((p for p in PADS if p in special and p != config["eos_token"]), unused if splits else None)
    config |= {"pad_token": pad} if pad else {}
    _write(folder / "tokenizer.json", json_text(spec))
    _write(folder / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")
    if template is not None:
        _write(folder / CHAT, template)


def _write(path: Path, text: str) -> None:
    # the same bytes on Windows, or its checksums would differ
    path.write_text(text, encoding="utf-8", newline="\n")


def json_text(spec: dict[str, Any]) -> str:
    """tokenizer.json's text: one form, so that equal tokenizers have equal fingerprints."""
    return json.dumps(spec, ensure_ascii=False, indent=1)


def fingerprint_of(spec: dict[str, Any]) -> str:
    """The short name of a tokenizer.json."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode("ascii")).hexdigest()[:16]

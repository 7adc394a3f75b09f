"""What libraries do with what is damaged or too large is said in words, and settings that were examples work."""

import base64
import json
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.makers.console import here
from tests.makers.models import ENTRIES, LETTERS, TOKENIZERS
from yanmo.core.errors import TokenizerError
from yanmo.settings.schema import TokenizerConfig
from yanmo.tokenizer import library, read_tokenizer
from yanmo.tokenizer.library import LibraryTokenizer
from yanmo.tokenizer.spec import tokenizer_json

META = pickle.dumps({"itos": dict(enumerate(LETTERS[:40])), "vocab_size": 40})


class Panic(BaseException):
    """What a panic of Rust is to Python."""


def spec_with(charsmap: bytes) -> dict[str, Any]:
    model = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], *([c, -1.0] for c in LETTERS)]}
    table = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()}
    return tokenizer_json({"<unk>": 0}, model, normalizer=table)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 8, 100])
@pytest.mark.parametrize("value", [0, 0x41, 0xFF])
def test_a_damaged_table_of_characters_is_an_error_or_harmless(size: int, value: int, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    for header in (b"", (4).to_bytes(4, "little"), (1 << 20).to_bytes(4, "little")):
        path.write_text(json.dumps(spec_with(header + bytes([value]) * size)), encoding="utf-8")
        try:
            found = read_tokenizer(path, TokenizerConfig(end_token="<unk>"))
            found.encode("Ａ龘，他说：é")
        except TokenizerError as error:
            assert error.where and error.hint


def test_a_panic_while_a_text_is_encoded_or_decoded_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_with(b"")
    spec["normalizer"] = None
    tokenizer = LibraryTokenizer(spec, "<unk>", "somewhere")

    class Broken:
        encode_special_tokens = True

        def encode_batch_fast(self, parts: list[str], add_special_tokens: bool) -> None:
            raise Panic("index out of bounds")

        def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
            raise Panic("index out of bounds")

    monkeypatch.setattr(tokenizer, "_library", Broken())
    for use in (lambda: tokenizer.encode("他"), lambda: tokenizer.decode([1])):
        with pytest.raises(TokenizerError, match="index out of bounds") as caught:
            use()
        assert caught.value.where == "somewhere"


def number(value: int) -> bytes:
    """A whole number as protocol buffers write it."""
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + number(value >> 7)


def field(place: int, value: bytes | int) -> bytes:
    """A field of a protocol buffer."""
    if isinstance(value, int):
        return number(place << 3) + number(value)
    return number(place << 3 | 2) + number(len(value)) + value


def piece(text: bytes | int, kind: int) -> bytes:
    return field(1, field(1, text) + number(2 << 3 | 5) + struct.pack("<f", -1.0) + field(3, kind))


PIECES = b"".join([piece(b"<unk>", 2), piece(b"</s>", 3), *(piece(c.encode(), 1) for c in LETTERS)])
PIECES_MODEL = PIECES + field(2, field(3, 1) + field(48, b"</s>")) + field(3, field(1, b"identity"))
PIECES_MODELS = {
    "a piece without text": PIECES + field(1, field(3, 1)),
    "a piece that is a number": PIECES + field(1, 7),
    "a text that is a number": PIECES + piece(7, 1),
    "a score of two bytes": PIECES + field(1, field(1, b"x") + field(2, b"xx")),
    "an end that is a number": PIECES + field(2, field(48, 7)),
    "an end that is no UTF-8": PIECES + field(2, field(48, b"\xff")),
    "a kind that is a text": PIECES + field(2, field(3, b"unigram")),
    "rules that are a number": PIECES + field(3, 7),
    "a table that is a number": PIECES + field(3, field(2, 7)),
    "rules with a name that is a number": PIECES + field(3, field(1, 7) + field(2, b"table")),
    "nothing": b"",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "a page": b"<!doctype html><html><body>404 Not Found</body></html>",
    "a pointer to what git keeps elsewhere": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
}


def damaged(whole: bytes) -> Iterator[bytes]:
    """Cut short, with a byte turned over, with one taken out, and with one too many."""
    for at in range(0, len(whole), 5):
        yield whole[:at]
        yield whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :]
        yield whole[:at] + whole[at + 1 :]
        yield whole[:at] + b"\x07" + whole[at:]


def test_a_sentencepiece_model_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.model").write_bytes(PIECES_MODEL)
    found = read_tokenizer(tmp_path / "a.model", TokenizerConfig())
    assert found.decode(found.encode("他说")) == "他说"


@pytest.mark.parametrize("name", PIECES_MODELS)
def test_a_model_of_other_content_is_refused_by_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.model"
    path.write_bytes(PIECES_MODELS[name])
    with pytest.raises(TokenizerError) as caught:
        read_tokenizer(path, TokenizerConfig())
    assert caught.value.where == str(path) and caught.value.hint


@pytest.mark.parametrize("name", ["a.model", "meta.pkl", "vocab.txt"])
def test_a_damaged_vocabulary_is_an_error_or_harmless(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    whole = {"a.model": PIECES_MODEL, "meta.pkl": META, "vocab.txt": "\n".join(ENTRIES).encode()}[name]
    for content in damaged(whole[:1500]):
        path.write_bytes(content)
        try:
            found = read_tokenizer(path, TokenizerConfig())
            found.decode(found.encode("他说"))
        except TokenizerError as error:
            assert path.name in error.where and error.hint


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_who_stops_the_program_stops_it(end: type[BaseException]) -> None:
    with pytest.raises(end), library.fence("here"):
        raise end


@pytest.mark.parametrize("setting", ["vocab_size", "reserved_tokens"])
@pytest.mark.parametrize("kind", ["bpe", "char", "unigram"])
def test_more_tokens_than_any_model_has_are_refused_before_a_library_sees_them(
    setting: str, kind: str, novel: Path
) -> None:
    for value in (10**8, 2**63, 1048577):
        done = here("tokenizer", "train", str(novel), "--kind", kind, f"tokenizer.{setting}={value}")
        assert done.returncode == 2
        assert setting in done.stderr


def test_fewer_tokens_than_asked_for_are_explained() -> None:
    Path("short.txt").write_text("山高水长" * 20, encoding="utf-8")
    for kind in ("char", "bpe"):
        done = here("tokenizer", "train", "short.txt", "--kind", kind, "--vocab-size", "3000", "--out", kind)
        assert done.returncode == 0, done.stderr
        assert "3,000 tokens were asked for, the text gives" in done.stdout


def test_the_documented_line_end_is_read_and_written(tmp_path: Path) -> None:
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(ENTRIES), encoding="utf-8")
    found = read_tokenizer(file, TokenizerConfig(newline_token="[SEP]"))
    assert found.decode(found.encode("他说\n我们")) == "他说\n我们"
    assert found.end_of_text == ENTRIES.index("[CLS]")


@pytest.mark.parametrize(
    "roles",
    [
        {"newline_token": "[SEP]", "end_token": "[SEP]"},
        {"newline_token": "[MASK]", "start_token": "[MASK]"},
        {"newline_token": "[CLS]", "end_token": "[CLS]"},
        {"newline_token": "[UNK]"},
    ],
)
def test_an_entry_has_one_part_to_play(roles: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(ENTRIES), encoding="utf-8")
    with pytest.raises(TokenizerError, match="is to be a line end"):
        read_tokenizer(file, TokenizerConfig(**roles))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("key", ["byte_fallback", "type", "ignore_merges", "dropout", "unk_id"])
def test_what_a_vocabulary_leaves_out_is_no_traceback(kind: str, key: str, tmp_path: Path) -> None:
    TOKENIZERS[kind]().save(tmp_path, 48)
    path = tmp_path / "tokenizer.json"
    spec = json.loads(path.read_text(encoding="utf-8"))
    spec["model"].pop(key, None)
    path.write_text(json.dumps(spec), encoding="utf-8")
    try:
        found = read_tokenizer(tmp_path, TokenizerConfig())
    except TokenizerError as error:
        assert error.where and error.hint
    else:
        assert found.decode(found.encode("我们")) and found.lossless in (True, False)

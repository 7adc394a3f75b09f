"""A BERT vocab.txt splits as GPT2-Chinese splits: against its rules, written out in plain Python."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yanmo.core.errors import ConfigError, TokenizerError
from yanmo.settings.schema import TokenizerConfig
from yanmo.tokenizer import find_tokenizer, load_tokenizer
from yanmo.tokenizer.roundtrip import RoundTripLoss, describe
from yanmo.tokenizer.wordpiece import SPECIALS, UNKNOWN, Roles, WordPieceTokenizer

HAN = "萧炎大喝一声第章二三的了是我不在人们有来他上着个地到说就去子得也和那要下看天时过出"
ENTRIES = [
    "[PAD]", "“", "”", *SPECIALS[1:], *HAN, *"，。！？：；,.!?'\"()-", *"0123456789abcdefghijklmnopqrstuvwxyz",
    *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"), "hello", "world", "##ing", "un", "##able", "①", "é",
]  # fmt: skip
DOUPO = Roles("[SEP]", "[MASK]", "[CLS]")
TEXT = st.text(
    st.one_of(
        st.sampled_from(HAN + "…—“”Helo WorldING１②²é\n\t\u3000"),
        st.characters(exclude_categories=["Cs", "Cn", "Co"]),
    ),
    max_size=60,
)


def tokenizer(roles: Roles = DOUPO) -> WordPieceTokenizer:
    return WordPieceTokenizer(ENTRIES, roles)


def gpt2_chinese(text: str) -> list[int]:
    """Clean, isolate Chinese characters and digits, split at white space and punctuation, cut greedily."""
    kept = [
        c for c in text if c in "\t\n\r" or (not unicodedata.category(c).startswith("C") and c != "\ufffd")
    ]
    spaced = "".join(f" {c} " if _is_chinese(ord(c)) or c.isdigit() else c for c in kept)
    found: list[int] = []
    for word in spaced.split():
        plain = unicodedata.normalize("NFD", "".join(c.lower() for c in word))
        plain = "".join(c for c in plain if unicodedata.category(c) != "Mn")
        marked = "".join(f" {c} " if _is_punctuation(c) else c for c in plain)
        for part in marked.split():
            found += _greedy(part)
    return found


def _greedy(word: str) -> list[int]:
    ids, start = [], 0
    while start < len(word):
        cuts = [end for end in range(len(word), start, -1) if _piece(word, start, end) in ENTRIES]
        if not cuts or len(word) > 100:
            return [ENTRIES.index(UNKNOWN)]
        ids.append(ENTRIES.index(_piece(word, start, cuts[0])))
        start = cuts[0]
    return ids


def _piece(word: str, start: int, end: int) -> str:
    return ("##" if start else "") + word[start:end]


def _is_chinese(code: int) -> bool:
    ranges = (
        (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
        (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
    )  # fmt: skip
    return any(first <= code <= last for first, last in ranges)


def _is_punctuation(c: str) -> bool:
    return (c.isascii() and c.isprintable() and not c.isalnum() and c != " ") or unicodedata.category(c)[
        0
    ] == "P"


@given(TEXT)
@settings(max_examples=300)
def test_it_splits_as_gpt2_chinese_does(text: str) -> None:
    assert tokenizer(Roles(end="[CLS]")).encode(text).tolist() == gpt2_chinese(text)


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("萧炎1998年", ["萧", "炎", "1", "9", "9", "8", UNKNOWN]),
        ("Hello WORLD", ["hello", "world"]),
        ("helloing,unable", ["hello", "##ing", ",", "un", "##able"]),
        ("Café①", ["c", "##a", "##f", "##e", "①"]),
        ("一\n二", ["一", "\n", "二"]),
        ("…—", [UNKNOWN, UNKNOWN]),
        ("[CLS]一", [UNKNOWN, "c", "##l", "##s", UNKNOWN, "一"]),
        ("a" * 101, [UNKNOWN]),
    ],
)
def test_what_becomes_what(text: str, entries: list[str]) -> None:
    made = tokenizer()
    names = ["\n" if entry == "[SEP]" else entry for entry in ENTRIES]
    assert [names[i] for i in made.encode(text)] == entries


@given(TEXT, st.integers(1, 20))
@settings(max_examples=200)
def test_tokens_of_pieces_are_tokens_of_the_whole(text: str, size: int) -> None:
    made = tokenizer()
    pieces = list(made.pieces(text, size))
    assert "".join(pieces) == text
    encoded = [np.zeros(0, int), *(made.encode(piece) for piece in pieces)]
    assert np.concatenate(encoded).tolist() == made.encode(text).tolist()


def test_a_long_text_is_cut_into_small_pieces() -> None:
    text = "萧炎大喝，" * 1000 + "x" * 50
    assert max(len(piece) for piece in tokenizer().pieces(text, 100)) <= 155
    assert len(tokenizer().encode(text)) == 5001 + 49


@given(TEXT)
@settings(max_examples=200)
def test_decoding_loses_nothing_more_and_streams_the_same(text: str) -> None:
    made = tokenizer()
    ids = made.encode(text)
    once = made.decode(ids)
    assert "".join(map(made.stream().push, [])) == ""
    stream = made.stream()
    assert "".join(stream.push(int(i)) for i in ids) + stream.flush() == once
    assert made.decode(made.encode(once)) == once


def test_spaces_stand_between_latin_words_only() -> None:
    made = tokenizer()
    assert (
        made.decode(made.encode("Hello World，萧炎 说 hello!  1 2\n 一")) == "hello world，萧炎说hello!12\n一"
    )
    stream = made.stream()
    stream.push(ENTRIES.index("hello"))
    assert stream.push(ENTRIES.index("world")) == " world"
    assert stream.push(ENTRIES.index("##ing")) == "ing"


def test_special_tokens_are_text_unless_asked_for() -> None:
    made, cls = tokenizer(), ENTRIES.index("[CLS]")
    assert made.encode("[CLS]萧炎", special=True).tolist() == [cls, *made.encode("萧炎")]
    assert cls not in made.encode("[CLS]萧炎")
    assert made.encode("一[SEP]二", special=True).tolist() == made.encode("一\n二").tolist()
    assert made.end_of_text == cls
    assert made.document_start == (ENTRIES.index("[MASK]"),)
    assert set(made.suppressed) == {ENTRIES.index(s) for s in ("[PAD]", UNKNOWN, "[MASK]")}
    assert made.decode([cls, ENTRIES.index("一"), ENTRIES.index(UNKNOWN)]) == "一"


def test_a_saved_tokenizer_is_the_same_and_opens_in_transformers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    for number, roles in enumerate((DOUPO, Roles(end="[CLS]"))):
        made, folder = tokenizer(roles), tmp_path / str(number)
        folder.mkdir()
        made.save(folder, 64)
        again = load_tokenizer(folder)
        assert again.fingerprint == made.fingerprint
        assert again.document_start == made.document_start
        theirs = AutoTokenizer.from_pretrained(folder)
        assert theirs.eos_token_id == made.end_of_text
        for text in (
            "萧炎大喝一声，Hello World 1998年\n第二章",
            "hello…world",
            "[CLS]一",
            "“不”！\n\n he's unable…",
        ):
            ids = made.encode(text).tolist()
            assert theirs(text, add_special_tokens=False)["input_ids"] == ids
            assert theirs.decode(ids, skip_special_tokens=True) == made.decode(ids)


def write_vocabulary(path: Path, lines: list[str], end: str = "\n") -> Path:
    path.write_bytes(("\n".join(lines) + end).encode())
    return path


def test_the_last_line_end_may_be_missing_and_windows_lines_are_lines(tmp_path: Path) -> None:
    whole = write_vocabulary(tmp_path / "a.txt", ENTRIES)
    cut = write_vocabulary(tmp_path / "b.txt", ENTRIES, end="")
    windows = tmp_path / "c.txt"
    windows.write_bytes("\r\n".join(ENTRIES).encode())
    prints = {WordPieceTokenizer.from_vocabulary(p, DOUPO).fingerprint for p in (whole, cut, windows)}
    assert prints == {tokenizer().fingerprint}


def test_of_equal_lines_the_last_counts_and_ids_stay_line_numbers(tmp_path: Path) -> None:
    path = write_vocabulary(tmp_path / "v.txt", ["萧", *ENTRIES])
    made = WordPieceTokenizer.from_vocabulary(path, Roles())
    assert made.vocab_size == len(ENTRIES) + 1
    assert made.encode("萧").tolist() == [ENTRIES.index("萧") + 1]
    made.save(tmp_path, 10)
    assert load_tokenizer(tmp_path).vocab_size == made.vocab_size


def test_special_ids_may_stand_anywhere(tmp_path: Path) -> None:
    order = ["[SEP]", "[CLS]", "[MASK]", "[PAD]", UNKNOWN]
    made = WordPieceTokenizer([*order, *HAN], DOUPO)
    assert (made.end_of_text, made.document_start, made.encode("\n").tolist()) == (1, (2,), [0])


@pytest.mark.parametrize("missing", [UNKNOWN, "[CLS]", "[MASK]", "[SEP]"])
def test_a_missing_special_entry_is_a_clear_error(tmp_path: Path, missing: str) -> None:
    path = write_vocabulary(tmp_path / "v.txt", [e for e in ENTRIES if e != missing])
    with pytest.raises(TokenizerError) as caught:
        WordPieceTokenizer.from_vocabulary(path, DOUPO)
    assert missing in caught.value.what
    assert str(path) == caught.value.where
    assert "its special entries are: [PAD]" in caught.value.hint


def test_files_that_are_no_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(TokenizerError, match="cannot be read"):
        find_tokenizer(TokenizerConfig(path=str(tmp_path / "binary.txt")))
    with pytest.raises(ConfigError, match="no tokenizer at nowhere"):
        find_tokenizer(TokenizerConfig(path="nowhere.txt"))
    with pytest.raises(ConfigError, match="needs a vocabulary"):
        find_tokenizer(TokenizerConfig(kind="wordpiece"))
    path = write_vocabulary(tmp_path / "v.txt", ENTRIES)
    with pytest.raises(ConfigError, match="is a wordpiece tokenizer, not tokenizer.kind=char"):
        find_tokenizer(TokenizerConfig(kind="char", path=str(path)))
    spec = {"model": {"type": "WordPiece", "vocab": {"a": 0}}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(TokenizerError, match="missing field"):
        load_tokenizer(tmp_path)


def test_what_is_lost_is_counted() -> None:
    made, text = tokenizer(), "萧炎 Hello——一World一é…\n龘"
    lost = RoundTripLoss()
    lost.count(text, made.decode(made.encode(text)))
    assert lost.spaces == 1
    assert lost.case == 3
    assert dict(lost.unknown) == {"—": 2, "…": 1, "龘": 1}
    assert lost.total == 8
    assert "4 characters it does not know (— ×2, … ×1, 龘 ×1)" in describe(lost.as_json())
    nothing = RoundTripLoss()
    nothing.count("萧炎\n", made.decode(made.encode("萧炎\n")))
    assert nothing.total == 0

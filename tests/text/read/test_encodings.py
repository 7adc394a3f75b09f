import io

import pytest

from yanmo.text.read import encodings
from yanmo.text.read.encodings import (
    WEAK_EVIDENCE_BYTES,
    common_share,
    decode,
    read_lines,
    remove_controls,
    unify_line_ends,
)

TEXT = "天地玄黄，宇宙洪荒。\n“喆镕㐂”——他说……\n"
BIG5 = "話說天下大勢，分久必合，合久必分。週末七國分爭，併入於秦。"
SIMPLIFIED = "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。"
BIG5_NAMES = {"big5hkscs", "big5", "cp950"}


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (TEXT.encode("utf-8"), "utf-8"),
        (b"\xef\xbb\xbf" + TEXT.encode("utf-8"), "utf-8-sig"),
        (TEXT.encode("gb18030"), "gb18030"),
        (TEXT.encode("utf-16"), "utf-16"),
        (b"\xfe\xff" + TEXT.encode("utf-16-be"), "utf-16"),
        ((TEXT + "abc\n").encode("utf-16-le"), "utf-16-le"),
        ((TEXT + "abc\n").encode("utf-16-be"), "utf-16-be"),
    ],
)
def test_text_is_decoded_on_evidence(data: bytes, encoding: str) -> None:
    text, found = decode(data)
    assert text.removesuffix("abc\n") == TEXT
    assert found == encoding


def test_english_utf_16_without_a_mark_is_found() -> None:
    for order in ("utf-16-le", "utf-16-be"):
        assert decode("The café “Ça va” is “déjà” vu.\n".encode(order))[1] == order


@pytest.mark.parametrize("length", [6, 10, len(BIG5), 5000])
def test_big5_and_gb18030_are_told_apart(length: int) -> None:
    big5 = (BIG5 * 200)[:length]
    text, found = decode(big5.encode("big5"))
    assert text == big5
    assert found in BIG5_NAMES
    simplified = (SIMPLIFIED * 200)[:length]
    assert decode(simplified.encode("gb18030")) == (simplified, "gb18030")
    assert decode(big5.encode("gb18030")) == (big5, "gb18030")


def test_plausibility_is_high_for_the_right_text_and_low_for_a_wrong_one() -> None:
    assert common_share(BIG5) > 0.9
    assert common_share(BIG5.encode("big5").decode("gb18030")) < 0.4
    assert common_share("abc") == 1


def test_a_named_encoding_is_used() -> None:
    assert decode("諸葛亮".encode("big5"), "big5") == ("諸葛亮", "big5")
    assert decode("諸葛亮".encode("utf-16-le"), "utf-16-le") == ("諸葛亮", "utf-16-le")
    assert decode(b"\xef\xbb\xbf" + "字".encode(), "utf-8") == ("字", "utf-8")
    assert decode("吾輩は猫".encode("shift_jis"), "shift_jis") == ("吾輩は猫", "shift_jis")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00", r"binary \(it contains NUL bytes\)"),
        (b"\x00\x01", r"binary \(it contains NUL bytes\)"),
        (b"%PDF-1.4 \xff\xfe\x80\x80" * 5 + b"\x00", r"binary \(it contains NUL bytes\)"),
        (b"\xff\xfd\x80\x80", "not utf-8 at byte 0; not gb18030 at byte 0; not big5hkscs at byte 0"),
        ("吾輩は猫である。名前はまだ無い。".encode("shift_jis"), "only .* would be common characters"),
        ((TEXT * 9).encode()[:-2], "not utf-8 at byte"),
        (
            ("字" * 9800 + "\ue000" * 200).encode("gb18030"),
            "18030, 2% of its characters are private-use ones",
        ),
        (("字" * 800 + "\x01" * 200).encode(), "read as utf-8, 20% of its characters are control characters"),
    ],
)
def test_what_is_no_text_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode(data)


def test_a_short_text_is_not_refused_for_a_few_strange_characters() -> None:
    assert decode("字\ue000\x7f".encode()) == ("字\ue000\x7f", "utf-8")


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "big5"])
def test_a_stray_nul_makes_no_binary(encoding: str) -> None:
    data = (BIG5 * 100).encode(encoding)
    assert decode(data + b"\x00")[0] == BIG5 * 100 + "\x00"
    assert decode((BIG5 + "\x00").encode(encoding))[0] == BIG5 + "\x00"


@pytest.mark.parametrize(
    ("text", "clean", "removed"),
    [
        ("字\t字\n", "字\t字\n", 0),
        ("a\x00b\x0c\x1b\x7f\x85\x9fc", "abc", 6),
        ("字\ufeff字\ufffe\uffff", "字字", 3),
        ("字\ud800字\udfff", "字字", 2),
        ("\u2028\ue000\ufffd\u00a0\u3000𠀀", "\u2028\ue000\ufffd\u00a0\u3000𠀀", 0),
    ],
)
def test_illegal_characters_are_removed_and_counted(text: str, clean: str, removed: int) -> None:
    assert remove_controls(text) == (clean, removed)


def test_line_ends_are_unified_and_counted() -> None:
    assert unify_line_ends("甲\r\n乙\r丙\n") == ("甲\n乙\n丙\n", 2)
    assert unify_line_ends("甲\x85乙") == ("甲\n乙", 1)


def lines_of(data: bytes, encoding: str = "auto") -> list[str]:
    lines = list(read_lines(io.BytesIO(data), encoding))
    assert sum(line.size for line in lines) in (len(data), len(data) - 2)  # but for the mark of UTF-16
    assert not any(line.undecodable for line in lines)
    return [line.text for line in lines]


def test_lines_end_at_line_feeds_and_nowhere_else() -> None:
    assert lines_of("甲\u2028乙\x85丙\x0b\x0c\x1c\r丁\n戊".encode()) == [
        "甲\u2028乙\x85丙\x0b\x0c\x1c\r丁",
        "戊",
    ]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "gb18030", "big5", "utf-8-sig"])
def test_lines_of_any_encoding_are_read(encoding: str) -> None:
    text = f"{BIG5}abc\n\n" * 3000 + "一"
    assert lines_of(text.encode(encoding)) == text.split("\n")
    assert lines_of(text.encode(encoding), encoding) == text.split("\n")


def test_every_line_is_judged_alone_and_a_short_one_by_the_file() -> None:
    assert decode("一".encode("gb18030"))[0] != "一"  # two bytes that are UTF-8, too
    lines = [SIMPLIFIED.encode(), BIG5.encode("big5"), SIMPLIFIED.encode("gb18030"), "一".encode("gb18030")]
    assert all(len(line) > WEAK_EVIDENCE_BYTES for line in lines[:3])
    assert lines_of(b"\n".join(lines)) == [SIMPLIFIED, BIG5, SIMPLIFIED, "一"]


def test_a_line_that_is_no_text_is_reported_and_the_next_is_read() -> None:
    lines = list(read_lines(io.BytesIO("甲\n".encode() + b"\xff\xff\n" + "乙\x00\ue000\n".encode())))
    assert [line.text for line in lines] == ["甲", "", "乙\x01\ue000"]
    assert lines[1].undecodable.startswith("not utf-8 at byte 0")


def test_utf_16_that_ends_in_the_middle_of_a_character_is_reported() -> None:
    lines = list(read_lines(io.BytesIO("甲\n乙\n".encode("utf-16") + b"\x00")))
    assert "truncated data" in lines[-1].undecodable


def test_half_a_pair_in_utf_16_lines_is_kept_to_be_removed() -> None:
    data = "甲\ud800乙\n".encode("utf-16-le", "surrogatepass")
    assert lines_of(b"\xff\xfe" + data) == ["甲\ud800乙"]


def test_a_line_longer_than_any_text_is_reported_and_the_next_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encodings, "MAX_LINE_BYTES", 1 << 17)
    data = b"a\n" + b"b" * 500_000 + b"\nc\n" + b"d" * 500_000
    lines = list(read_lines(io.BytesIO(data)))
    assert [line.text for line in lines] == ["a", "", "c", ""]
    assert sum(line.size for line in lines) == len(data)
    assert "the line is longer than" in lines[1].undecodable and lines[3].undecodable

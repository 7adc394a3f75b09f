import pytest

from yanmo.text.read.damage import MAX_BROKEN_PLACES, declared, decode_lenient, decode_page
from yanmo.text.read.encodings import decode

SIMPLIFIED = "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。\n"
TRADITIONAL = "話說天下大勢，分久必合，合久必分。週末七國分爭，併入於秦。\n"


@pytest.mark.parametrize(
    ("text", "codec", "name"),
    [
        (SIMPLIFIED * 9, "utf-8", "utf-8"),
        (SIMPLIFIED * 9, "utf-8-sig", "utf-8"),
        (SIMPLIFIED * 9, "gb18030", "gb18030"),
        (TRADITIONAL * 9, "cp950", "big5hkscs"),
        (SIMPLIFIED * 9, "utf-16", "utf-16-le"),
        (SIMPLIFIED * 9 + "abc" * 99, "utf-16-be", "utf-16-be"),
    ],
)
def test_a_text_torn_in_its_last_character_is_read_but_for_that(text: str, codec: str, name: str) -> None:
    data = (text + "秦").encode(codec)[:-1]
    with pytest.raises(ValueError):
        decode(data)
    assert decode_lenient(data) == (text + "\ufffd", name, len("秦".encode(name)) - 1)


@pytest.mark.parametrize("codec", ["utf-8", "gb18030", "big5"])
def test_a_stray_byte_costs_no_more_than_its_line(codec: str) -> None:
    source = (TRADITIONAL if codec == "big5" else SIMPLIFIED) * 400
    lines = source.encode(codec).split(b"\n")
    lines[200] = lines[200][:12] + b"\xff" + lines[200][12:]
    text, _, lost = decode_lenient(b"\n".join(lines))
    found, expected = text.split("\n"), source.split("\n")
    assert found[:200] + found[201:] == expected[:200] + expected[201:]
    assert "\ufffd" in text.split("\n")[200]
    assert 1 <= lost <= 2


@pytest.mark.parametrize("codec", ["utf-8", "gb18030"])
def test_many_broken_places_are_refused(codec: str) -> None:
    data = (SIMPLIFIED * 4000).encode(codec)
    few = data.replace("秦".encode(codec), b"\xff", len(data) // 10_000)
    many = data.replace("秦".encode(codec), b"\xff", len(data) // 10_000 + 2)
    assert decode_lenient(few)[2] == len(data) // 10_000
    with pytest.raises(ValueError, match="not utf-8 at byte"):
        decode_lenient(many)
    huge = data * 20
    with pytest.raises(ValueError):
        decode_lenient(huge.replace("秦".encode(codec), b"\xff", MAX_BROKEN_PLACES + 1))


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff",
        b"\x00\x01",
        b"\xff",
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9,
        b"%PDF-1.4 \xff\xfe\x80\x80" * 50 + b"\x00",
        ("吾輩は猫である。名前はまだ無い。" * 9).encode("shift_jis"),
        ("Съешь ещё этих мягких булок. " * 9).encode("cp1251"),
    ],
)
def test_what_is_no_text_stays_none(data: bytes) -> None:
    with pytest.raises(ValueError):
        decode_lenient(data)


def test_a_text_joined_from_several_encodings_is_read_line_by_line() -> None:
    parts = [
        (SIMPLIFIED * 99).encode(),
        (TRADITIONAL * 99).encode("big5"),
        (SIMPLIFIED * 99).encode("gb18030"),
    ]
    text, found, lost = decode_lenient(b"".join(parts))
    assert (text, lost) == (SIMPLIFIED * 99 + TRADITIONAL * 99 + SIMPLIFIED * 99, 0)
    assert found == "big5hkscs+gb18030+utf-8"


def test_a_named_encoding_is_used_and_its_damage_is_borne() -> None:
    data = ("吾輩は猫である。" * 99).encode("shift_jis")
    assert decode_lenient(data + b"\x81", "shift_jis") == ("吾輩は猫である。" * 99 + "\ufffd", "shift_jis", 1)
    with pytest.raises(LookupError):
        decode_lenient(data, "nonsense")


NO_ENCODINGS = ["unicode_escape", "raw_unicode_escape", "idna", "punycode", "rot13", "hex", "zlib", "bz2", "undefined", "base64", "utf-7", "mbcs", "palmos"]  # fmt: skip
"""Python has codecs of these names; no page is written in them."""


@pytest.mark.parametrize("label", NO_ENCODINGS)
@pytest.mark.parametrize("place", ["header", "meta", "http-equiv", "xml"])
def test_a_label_that_is_no_encoding_of_pages_is_not_believed(label: str, place: str) -> None:
    where = {
        "header": "",
        "meta": f"<meta charset={label}>",
        "http-equiv": f'<meta http-equiv="Content-Type" content="text/html; charset={label}">',
        "xml": f'<?xml version="1.0" encoding="{label}"?>',
    }[place]
    content_type = f"text/html; charset={label}" if place == "header" else "text/html"
    escapes = "caf\xe9 \\u4f60\\x3cscript\\x3e 5L2g5aW9"
    with pytest.raises(ValueError):
        decode_page(f"{where}{escapes}".encode("latin-1") * 30, content_type=content_type)
    page = f"{where}<p>{SIMPLIFIED * 9}\\u4f60</p>"
    for codec in ("utf-8", "gb18030"):
        assert decode_page(page.encode(codec), content_type=content_type)[0] == page


@pytest.mark.parametrize(
    ("label", "codec"),
    [("EUC-KR", "cp949"), ("euc-jp", "euc-jp"), ("Shift_JIS", "cp932"), ("windows-1251", "cp1251"), ("ISO-8859-2", "iso8859-2")],
)  # fmt: skip
def test_a_label_of_another_language_decides(label: str, codec: str) -> None:
    text = {
        "cp949": "나는 어제 서울에서 친구를 만났다. " * 9,
        "euc-jp": "吾輩は猫である。名前はまだ無い。" * 9,
        "cp932": "吾輩は猫である。名前はまだ無い。",
        "cp1251": "Съешь ещё этих мягких булок. " * 9,
        "iso8859-2": "Příliš žluťoučký kůň úpěl ďábelské ódy. " * 9,
    }[codec]
    assert decode_page(text.encode(codec), content_type=f"text/html; charset={label}") == (text, codec, 0)


def test_the_label_of_the_header_comes_first_if_it_is_one() -> None:
    assert declared(b"<meta charset='big5'>", "text/html; charset=GB2312") == ("gb18030",)
    assert declared(b"<meta charset='utf8'>", "text/html; charset=hex") == ("utf-8",)
    assert declared(b"<p>", "text/html") == ()


def test_a_page_may_have_more_broken_places_than_a_text() -> None:
    data = (SIMPLIFIED * 90).encode("gb18030")
    broken = data.replace("秦".encode("gb18030"), b"\xff\xff", 9)
    with pytest.raises(ValueError):
        decode_lenient(broken)
    text, name, lost = decode_page(broken, content_type="text/html; charset=gbk")
    assert (name, lost >= 9) == ("gb18030", True) and text.count("话说天下大势") == 90
    with pytest.raises(ValueError):
        decode_page(data.replace("。".encode("gb18030"), b"\xff\xff"), content_type="text/html; charset=gbk")


def test_gb2312_means_its_superset_whoever_says_it() -> None:
    assert decode_page("𠮷".encode("gb18030"), "gb2312") == ("𠮷", "gb18030", 0)
    with pytest.raises(ValueError, match="not utf-8"):
        decode_page("今天".encode("gbk"), "utf-8")

"""What was read in a wrong encoding before it came here is read right, and real accents stay."""

import json

import pytest

from tests.makers.work import assert_linear, calls
from yanmo.settings.schema import CleanConfig, CorpusConfig
from yanmo.text.clean.characters import mojibake
from yanmo.text.clean.rules import clean, rules_for
from yanmo.text.read.documents import read_documents
from yanmo.text.read.encodings import remove_controls, unify_line_ends

SIMPLIFIED = "第三章 山路\n　　他们在山里走了一天，什么也没有看见。“你还走吗？”她说：“走，天要黑了。”\n好。\n"
TRADITIONAL = (
    "第三章 山路\n　　他們在山裡走了一天，什麼也沒有看見。「你還走嗎？」她說：「走，天要黑了。」\n好。\n"
)
WESTERN = (
    "« Où êtes-vous ? » demanda-t-il à l’évêque… Çà et là, ÉTÉ À NOËL, œuvre.\n"
    "Grüße aus Köln; ÄÖÜ äöü ß. Straßenbahnhaltestelle für Fußgänger.\n"
    "¿Dónde está el niño? ¡Mañana! São João não é fácil. Smørrebrød på Ærø.\n"
    "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞß ÷ × ±\n"
)
KINDS = [(SIMPLIFIED, "gbk"), (SIMPLIFIED, "utf-8"), (TRADITIONAL, "big5"), (TRADITIONAL, "utf-8")]


def read_wrongly(text: str, encoding: str, as_what: str) -> str:
    """Bytes read as Latin-1, or as Windows-1252 with the five bytes it lacks as controls."""
    found = text.encode(encoding).decode("latin-1")
    if as_what == "latin-1":
        return found
    return "".join(bytes([ord(c)]).decode("cp1252", "ignore") or c for c in found)


@pytest.mark.parametrize("as_what", ["latin-1", "windows-1252"])
@pytest.mark.parametrize(("text", "encoding"), KINDS)
def test_chinese_read_as_a_western_encoding_is_read_right(text, encoding, as_what):
    wrong = read_wrongly(text, encoding, as_what)
    assert mojibake(wrong) == text
    assert mojibake(f"{WESTERN}{wrong}咖啡馆“café”……") == f"{WESTERN}{text}咖啡馆“café”……"


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
@pytest.mark.parametrize(("text", "encoding"), KINDS)
def test_reading_leaves_what_the_repair_needs(tmp_path, text, encoding, name):
    wrong = read_wrongly(text * 60, encoding, "latin-1")  # a third of it is U+0080 to U+009F
    written = wrong if name == "a.txt" else json.dumps({"text": wrong})
    (tmp_path / name).write_text(written, encoding="utf-8", newline="")
    found = [one.text for one in read_documents(CorpusConfig(path=(str(tmp_path / name),)))]
    assert clean(found[0], rules_for(CleanConfig(quality=False))).text == (text * 60).rstrip()


@pytest.mark.parametrize("text", [WESTERN, WESTERN.replace(" ", "\xa0"), WESTERN.upper(), "Noël.", "“é”"])
def test_real_western_text_stays_to_the_letter(text):
    assert mojibake(text) == text
    assert clean(text, rules_for(CleanConfig())).dropped == ""


def test_next_line_ends_a_line_and_other_controls_go_where_nothing_was_misread():
    assert unify_line_ends("甲\x85乙\r丙") == ("甲\n乙\n丙", 2)
    assert remove_controls("甲\x80乙\x9f café\x93") == ("甲乙 café", 3)


def test_hz_and_typed_escapes_are_read():
    hz = SIMPLIFIED.replace("\u3000", "").encode("hz").decode("ascii")
    typed = "".join(c if c == "\n" else f"\\u{ord(c):04x}" for c in SIMPLIFIED)
    assert mojibake(hz) == SIMPLIFIED.replace("\u3000", "")
    assert mojibake(typed) == mojibake(typed.replace("\\u", "\\\\u")) == SIMPLIFIED


@pytest.mark.parametrize(
    "text",
    [
        r"他写道：\u4f60\u597d 是两个转义字符，程序里常见，读者不必害怕，慢慢就会习惯的。",
        r"\u0041\u0042\u0043\u0044\u0045\u0046\u0047",
        "In LaTeX one writes a~{b}~{c d e f}~ and nothing more.",
        "C:\\users\\ud\\uk and ~{~}",
    ],
)
def test_a_text_about_escapes_stays(text):
    assert mojibake(text) == text


def test_what_cannot_be_repaired_any_more_is_garbled():
    lost = read_wrongly(SIMPLIFIED * 9, "gbk", "latin-1").replace("Ä", "")
    cleaned = clean(lost, rules_for(CleanConfig()))
    assert cleaned.dropped == "garbled"


def test_looking_for_bytes_is_linear():
    assert_linear(lambda n: calls(mojibake, "é\xa0" + "a b" * n), 500)
    mojibake("é\xa0" + "a b " * 300_000)

import io
import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.work import assert_linear, calls
from yanmo.text.read import parts
from yanmo.text.read.json_values import Broken, Window
from yanmo.text.read.parts import read_json_file, read_pieces, read_text
from yanmo.text.read.records import Unusable

LINE = "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。"
TRADITIONAL = "話說天下大勢，分久必合，合久必分。週末七國分爭，併入於秦。"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "WHOLE_UP_TO_BYTES", 3000)
    monkeypatch.setattr(parts, "PART_BYTES", 1000)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "gb18030", "big5", "utf-16", "utf-16-le", "utf-16-be"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
@pytest.mark.usefixtures("small")
def test_a_large_text_comes_in_parts_that_joined_are_the_text(encoding: str, end: str) -> None:
    lines = ["，" * (n % 3) + TRADITIONAL + "abc" * (n % 5) + end for n in range(600)]
    data = "".join(lines).encode(encoding)
    found = list(read_pieces(io.BytesIO(data)))
    assert len(found) > 10 and all(piece.is_part for piece in found)
    assert "".join(piece.text for piece in found) == "".join(lines)
    assert sum(piece.size for piece in found) in (len(data), len(data) - 2)  # but for the mark of UTF-16
    assert not end or all(piece.text.endswith(end) for piece in found)
    named = list(read_pieces(io.BytesIO(data), encoding))
    assert "".join(piece.text for piece in named) == "".join(lines)


def test_a_text_that_is_not_large_is_whole() -> None:
    assert [(p.text, p.is_part) for p in read_pieces(io.BytesIO(LINE.encode() * 9000))] == [
        (LINE * 9000, False)
    ]


@pytest.mark.usefixtures("small")
def test_a_part_that_is_no_text_is_unusable() -> None:
    found = read_pieces(io.BytesIO((LINE + "\n").encode() * 99 + b"\x00\xff" * 3000))
    assert next(found).text.startswith(LINE)
    with pytest.raises(Unusable, match="not readable text"):
        list(found)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("by_line", [True, False])
def test_a_large_json_gives_its_records_one_by_one(by_line: bool) -> None:
    values = [{"text": LINE * (n % 60), "n": n} for n in range(300)]
    parts = [json.dumps(value, ensure_ascii=False, indent=None if by_line else 1) for value in values]
    text = "\n".join(parts) if by_line else "[" + ",\n".join(parts) + ",]"
    found = list(read_json_file(io.BytesIO(text.encode("gb18030")), "text"))
    assert [(r.text, r.fields["n"]) for r in found] == [(v["text"], v["n"]) for v in values]
    assert sum(r.size for r in found) == pytest.approx(len(text.encode("gb18030")), rel=0.05)


def in_pieces(text: str, size: int) -> Iterator[str]:
    return (text[at : at + size] for at in range(0, len(text), size))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.lists(VALUES, max_size=6), st.integers(1, 9), st.booleans(), st.booleans())
def test_a_window_of_any_size_gives_the_same_values(
    values: list[object], size: int, ascii_only: bool, in_list: bool
) -> None:
    parts = [json.dumps(value, ensure_ascii=ascii_only) for value in values]
    text = "[" + ", ".join(parts) + "]" if in_list else "\n".join(parts)
    if not in_list and text.startswith("["):
        text = "null\n" + text
        values = [None, *values]
    found = [value for value, _ in Window("", in_pieces(text, size)).values()]
    assert found == values
    assert found == [value for value, _ in Window(text).values()]


@pytest.mark.parametrize(
    "text",
    ['["甲",\n "乙', '["甲"\n\n "乙"]', '["甲", "乙"] x', '[\n{"a" 1}]', "[" * 5000, '["甲", tru]', "甲"],
)
def test_a_window_of_any_size_breaks_at_the_same_place(text: str) -> None:
    with pytest.raises(Broken) as whole:
        list(Window(text).values())
    for size in (1, 3, 7):
        with pytest.raises(Broken) as caught:
            list(Window("", in_pieces(text, size)).values())
        assert (caught.value.line, caught.value.column) == (whole.value.line, whole.value.column)


def article(number: int, title: str, text: str, end: str = "\n</doc>\n") -> str:
    return f'<doc id="{number}" url="https://example.org/?curid={number}" title="{title}">\n{title}\n\n{text}\n{end}'


def articles(text: str, encoding: str = "utf-8") -> list[tuple[str, str]]:
    data = text.encode(encoding)
    found = list(read_text(io.BytesIO(data)))
    assert sum(r.size for r in found) <= len(data)
    assert [r.place for r in found] == [f"#{n}" for n in range(1, len(found) + 1)]
    return [(str(r.fields.get("title")), r.dropped or r.text) for r in found]


DUMP = article(1, "砚台", LINE) + article(23, "A &amp; B", "甲\n\n<doc>乙 </doc>")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_each_article_of_an_extracted_dump_is_a_document(encoding: str, end: str) -> None:
    found = articles(DUMP.replace("\n", end), encoding)
    assert [(title, text.replace("\r", "").strip()) for title, text in found] == [
        ("砚台", f"砚台\n\n{LINE}"),
        ("A & B", "A &amp; B\n\n甲\n\n<doc>乙 </doc>"),
    ]


@pytest.mark.parametrize(
    ("dump", "found"),
    [
        (article(1, "甲", "乙", "") + article(2, "丙", "丁", ""), [("甲", "甲\n\n乙"), ("丙", "丙\n\n丁")]),
        (article(1, "甲", "乙") + "戊\n" + article(2, "丙", "丁"),
         [("甲", "甲\n\n乙"), ("None", "outside of articles"), ("丙", "丙\n\n丁")]),
        ('\n<doc id="1" title="他说"走"了">\n乙\n</doc>', [('他说"走"了', "乙")]),
        ('<doc id="1" revid="9" url="u" title="x">\n\n</doc>\n\n\n', [("x", "")]),
        ("甲\n" + DUMP, [("None", "甲\n" + DUMP)]),
    ],
)  # fmt: skip
def test_articles_that_are_cut_off_are_kept_and_what_is_outside_is_counted(
    dump: str, found: list[tuple[str, str]]
) -> None:
    if dump.startswith("甲"):
        assert [r.text for r in read_text(io.BytesIO(dump.encode()))] == [dump]
    else:
        assert articles(dump) == found


@pytest.mark.usefixtures("small")
def test_an_article_may_be_longer_than_a_part() -> None:
    text = "\n".join([LINE] * 99)
    dump = article(1, "长", text) + article(2, "短", LINE) + article(3, "长", text)
    assert articles(dump) == [("长", f"长\n\n{text}"), ("短", f"短\n\n{LINE}"), ("长", f"长\n\n{text}")]


@pytest.mark.parametrize("line", ["<doc ", '<doc a="', "<doc " + 'a="' * 600 + ">", "</doc>", '<doc a="b">'])
def test_a_hostile_dump_takes_linear_time(line: str) -> None:
    assert_linear(lambda n: calls(articles, DUMP + (line + "\n") * n), 100)

import json

import pytest

from yanmo.text.read.fields import ABSENT, roots, small_fields, suggest, text_at

MNBVC = {
    "文件名": "a.txt",
    "是否重复文件": False,
    "段落数": 2,
    "段落": [{"行号": 0, "是否重复": False, "内容": "话说天下大势"}, {"行号": 1, "内容": "分久必合"}],
}
CHAT = {
    "conversations": [
        {"role": "user", "content": "你好"},
        {"role": "assistant", "content": "你好，有什么事？"},
    ]
}


@pytest.mark.parametrize(
    ("value", "path", "text"),
    [
        ({"content": "甲"}, "content", "甲"),
        (MNBVC, "段落.内容", "话说天下大势\n分久必合"),
        (CHAT, "conversations.content", "你好\n你好，有什么事？"),
        ({"a": {"b": {"c": "甲"}}}, "a.b.c", "甲"),
        (
            {"a": [{"b": [{"c": "甲"}, {"c": "乙"}]}, {"b": []}, {"c": 1}, {"b": [{"c": "丙"}]}]},
            "a.b.c",
            "甲\n乙\n\n丙",
        ),
        ({"paragraphs": ["甲", "乙", None]}, "paragraphs", "甲\n乙"),
        ({"title": "题", "content": "甲"}, "title+content", "题\n甲"),
        ({"title": "", "content": "甲"}, "title + content", "甲"),
        ({"content": "甲", "title": None}, "title+content", "甲"),
        ({"meta": {"title": "题"}, "content": "甲"}, "meta.title+content", "题\n甲"),
        ({"a.b": "甲", "a": {"b": "乙"}}, "a.b", "甲"),
        ({"a+b": "甲", "a": "乙"}, "a+b", "甲"),
        ({"a.b": {"c.d": "甲"}}, "a.b.c.d", "甲"),
        ({"a": []}, "a.b", ""),
        ({"a": []}, "a", ""),
    ],
)
def test_a_path_leads_to_the_text(value: dict[str, object], path: str, text: str) -> None:
    assert text_at(value, path) == text


@pytest.mark.parametrize("path", ["x", "a.x", "a.b.x", "x+y", "l.x", "a.", ".a", "", "a..b", "+"])
def test_a_path_that_leads_nowhere_is_absent(path: str) -> None:
    assert text_at({"a": {"b": "甲"}, "l": [{"y": 1}, 2]}, path) is ABSENT


@pytest.mark.parametrize(
    ("path", "found"), [("n", 3), ("a.n", None), ("l", [1, "甲"]), ("a", {"n": None}), ("n+t", 3)]
)
def test_what_is_no_string_is_given_back(path: str, found: object) -> None:
    assert text_at({"n": 3, "a": {"n": None}, "l": [1, "甲"], "t": "甲"}, path) == found


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (MNBVC, "段落.内容"),
        (CHAT, "conversations.content"),
        ({"id": "1", "url": "http://a", "content": "话说天下大势，分久必合"}, "content"),
        ({"data": {"text": "话说天下大势"}}, "data.text"),
        ({"a.b": "话说"}, "a.b"),
        ({"lines": ["话说", "天下"]}, "lines"),
        ({"title": "很长很长的标题", "content": "短"}, "content"),
        ({"标题": "很长很长的标题", "content": ""}, "content"),
        (
            {"meta": {"title": "很长很长的标题", "body": {"parts": [{"lines": [{"v": "短"}]}]}}},
            "meta.body.parts.lines.v",
        ),
        ({"link": "https://example.org/" + "a" * 99, "hash": "0" * 64, "q": "短"}, "q"),
        ({"title": "题", "url": "x"}, ""),
        ({"n": 1}, ""),
        ({}, ""),
        (json.loads('{"a":' * 50 + '"x"' + "}" * 50), ""),
    ],
)
def test_the_longest_text_is_suggested_and_the_suggestion_works(value: dict[str, object], path: str) -> None:
    assert suggest(value) == path
    assert not path or isinstance(text_at(value, path), str)


def test_small_fields_are_kept_and_the_text_is_not() -> None:
    value = {
        "text": "甲",
        "url": "a",
        "n": 3,
        "f": 0.5,
        "b": True,
        "long": "x" * 501,
        "": "y",
        "e": "",
        "o": {},
        "z": None,
    }
    assert small_fields(value, "text") == {"url": "a", "n": 3, "f": 0.5, "": "y"}
    assert small_fields({"title": "题", "content": "甲", "u": "x"}, "title+content") == {"u": "x"}
    assert len(small_fields({str(n): n for n in range(1000)}, "text")) == 20


def test_roots_are_the_fields_that_a_path_needs() -> None:
    assert roots("段落.内容", ["文件名", "段落"]) == ["段落"]
    assert roots("title+body.text", ["body", "title", "url"]) == ["body", "title"]
    assert roots("a.b", ["a", "a.b"]) == ["a.b"]


def test_lists_within_lists_are_no_way_to_break_it() -> None:
    value = json.loads('{"a": ' + "[" * 900 + "]" * 900 + "}")
    assert text_at(value, "a.b") is ABSENT
    assert suggest(value) == ""

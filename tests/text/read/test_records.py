import io
import json

import pytest

from tests.makers.work import assert_linear, calls
from yanmo.text.read.records import Record, Unusable, read_json, read_jsonl


def texts(text: str, field: str = "text") -> list[str]:
    return [r.text for r in read_json(text, field, len(text)) if not r.dropped]


def lines(data: str | bytes, field: str = "text") -> list[Record]:
    return list(read_jsonl(io.BytesIO(data.encode() if isinstance(data, str) else data), field))


@pytest.mark.parametrize(
    "text",
    [
        '["甲", "乙"]',
        '[{"text": "甲"}, {"id": 1, "text": "乙"}]',
        '{"text": "甲"}\n{"text": "乙"}\n',
        '{"text": "甲"}{"text": "乙"}',
        '{"text": "甲"},\n{"text": "乙"},\n',
        '  ["甲", "乙",]  \n',
        '[{"text": "甲",}, {"text": "乙", "tags": [1, 2,],},]',
        '["\\u7532", "\\u4e59"]',
        '\ufeff["甲", "乙"]',
        '"甲" "乙"',
    ],
)
def test_all_shapes_of_json_are_read(text: str) -> None:
    assert texts(text) == ["甲", "乙"]


def test_strings_are_read_as_written() -> None:
    assert texts('["a\x01b\n\r\tc,]", "\\ud800", "\\ud83d\\ude00", ",]"]') == [
        "a\x01b\n\r\tc,]",
        "\ud800",
        "😀",
        ",]",
    ]
    assert texts('[{"text": "甲,]  ,}\\",]",}]') == ['甲,]  ,}",]']  # a trailing comma, and none


def test_each_record_has_its_share_of_the_size() -> None:
    text = '[ "甲",\n "乙乙乙乙乙" ,"丙", ] \n'
    records = list(read_json(text, "text", 1000))
    assert sum(r.size for r in records) == pytest.approx(1000)
    assert records[1].size > records[2].size


@pytest.mark.parametrize(
    ("text", "place", "why"),
    [
        ('["甲",\n "乙', ":2:2", "Unterminated string"),
        ('["甲",\n "乙"', ":2:5", r"',' or '\]' is expected"),
        ('["甲",\n "乙",', ":2:6", r"^[^,]*, column 6: '\]' is expected"),
        ('["甲"\n "乙"]', ":2:2", r"',' or '\]' is expected"),
        ('["甲"] x', ":1:7", "nothing is expected behind the list"),
        ('[\n\n{"text" "甲"}]', ":3:9", "Expecting ':' delimiter"),
        ("甲", ":1:1", "Expecting value"),
        ("[" * 100_000, ":1:2", "nested too deeply"),
        ('[{"text": "甲", "n": ' + "9" * 5000 + "}]", ":1:2", "digits"),
        ('{"a":' * 100_000, ":1:1", "nested too deeply"),
    ],
)
def test_broken_json_is_unusable_and_says_where(text: str, place: str, why: str) -> None:
    with pytest.raises(Unusable, match=why) as caught:
        texts(text)
    assert caught.value.place == place
    assert caught.value.reason == "broken JSON"
    assert f"line {place.split(':')[1]}, column {place.split(':')[2]}" in caught.value.what


def test_what_has_no_text_is_dropped_under_its_reason() -> None:
    text = '[{"text": "甲"}, {"body": "乙"}, {"text": 3}, {"text": null}, 4, ["丙", 1], true, [], null]'
    dropped = [(r.number, r.dropped) for r in read_json(text, "text", len(text)) if r.dropped]
    assert dropped == [
        (2, "no field 'text'"),
        (3, "field 'text' is no string"),
        (4, "field 'text' is no string"),
        *[(number, "neither text nor object") for number in (5, 6, 7, 8, 9)],
    ]


@pytest.mark.parametrize("text", ['[{"body": "甲", "id": 1}, {"text": "乙"}]', '{"body": "甲", "id": 1}\n'])
def test_the_wrong_field_is_an_error_that_names_the_fields(text: str) -> None:
    for read in (texts, lines):
        if read is lines and text.startswith("["):
            continue
        with pytest.raises(Unusable, match="no field 'text'; it has 'body', 'id'") as caught:
            read(text)
        assert caught.value.hint.endswith("corpus.text_field=body")
    assert texts('[{"body": "甲"}]', field="body") == ["甲"]


def test_lines_are_read_one_by_one() -> None:
    data = '\ufeff{"text": "甲\u2028\x85\x0c乙"}\r\n\n  \n"丙"\n{"text": "丁",},\n'
    records = lines(data)
    assert [(r.number, r.text) for r in records] == [(1, "甲\u2028\x85\x0c乙"), (4, "丙"), (5, "丁")]
    assert sum(r.size for r in records) == len(data.encode())


def test_a_broken_line_is_dropped_and_named_and_the_next_is_read() -> None:
    deep = '{"text":' * 100_000
    data = '"甲"\n{"text": "乙\n\n{"text": "丙"} x\n' + deep + '\n[1]\n{"id": 1}\n"丁"'
    records = lines(data.encode() + b"\n\xff\xff\xff\n" + b'{"text": "a\x00b"}')
    assert [r.text for r in records if not r.dropped] == ["甲", "丁", "a\x01b"]
    assert [(r.place, r.dropped) for r in records if r.dropped] == [
        (":2:10", "broken JSON"),
        (":4:15", "broken JSON"),
        (":5:1", "broken JSON"),
        (":6", "neither text nor object"),
        (":7", "no field 'text'"),
        (":9", "undecodable"),
    ]


def test_lines_in_utf_16_and_in_several_encodings_are_read() -> None:
    text = '{"text": "话说天下大势，分久必合，合久必分。周末七国分争"}\n'
    assert len({r.text for r in lines((text * 3).encode("utf-16"))}) == 1
    assert (
        len({r.text for r in lines(text.encode() + text.encode("gb18030") + text.encode("utf-8-sig"))}) == 1
    )


def test_a_long_line_and_a_hostile_one_are_read_like_others() -> None:
    long = json.dumps({"text": "长" * 7_000_000}, ensure_ascii=False)
    hostile = '{"text": "' + '\\"' * 1_000_000 + ", " * 1_000_000
    records = lines(f"{long}\n{hostile}\n")
    assert len(records[0].text) == 7_000_000
    assert records[1].dropped == "broken JSON"
    assert_linear(lambda n: calls(lines, '{"text": "' + '\\"' * n + ", " * n), 1000)


DIALOGUES = '["你好", "你好，有什么事？"], ["再见"]'


def test_a_list_of_strings_is_a_dialogue_whose_turns_are_lines() -> None:
    found = ["你好\n你好，有什么事？", "再见"]
    assert texts(f"[{DIALOGUES}]") == found
    assert texts('{"data": [' + DIALOGUES + "]}") == found
    assert [r.text for r in lines(DIALOGUES.replace("], ", "]\n"))] == found
    turns = '[{"role": "user", "content": "你好"}, {"role": "bot", "content": "你好，有什么事？"}]'
    assert texts(f'[{turns}, [{{"content": "再见"}}]]', field="content") == found
    with pytest.raises(Unusable, match="it has 'role', 'content'") as caught:
        texts(f"[{turns}]")
    assert caught.value.hint.endswith("corpus.text_field=content")


RECORDS = '[{"id": 1, "text": "甲"}, {"text": "乙"}]'


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"RECORDS": ' + RECORDS + "}", "text"),
        ('{"RECORDS": ' + RECORDS + "}", "RECORDS.text"),
        ('{"version": "1.1", "data": ' + RECORDS + ', "count": 2}', "text"),
        ('{"t_news": ' + RECORDS + ', "total": 2}', "text"),
        ('{"response": {"status": 0, "docs": ' + RECORDS + "}}", "text"),
        ('{"response": {"status": 0, "docs": ' + RECORDS + "}}", "response.docs.text"),
        ('{"hits": {"hits": [{"_source": {"text": "甲"}}, {"_source": {"text": "乙"}}]}}', "_source.text"),
        ('{"train": [{"text": "甲"}], "test": [{"text": "乙"}]}', "text"),
        ('{"data": ["甲", "乙"]}', "text"),
    ],
)
def test_a_list_that_an_object_is_wrapped_around_is_its_records(text: str, field: str) -> None:
    found = list(read_json(text, field, 100))
    assert [(r.text, r.place) for r in found] == [("甲", "#1"), ("乙", "#2")]
    assert sum(r.size for r in found) == pytest.approx(100)


@pytest.mark.parametrize(
    ("text", "field", "found"),
    [
        ('{"text": "甲", "data": ' + RECORDS + "}", "text", ["甲"]),
        ('{"文件名": "a", "段落": [{"内容": "甲"}, {"内容": "乙"}]}', "段落.内容", ["甲\n乙"]),
        (
            '{"conversations": [{"from": "a", "value": "甲"}, {"from": "b", "value": "乙"}]}',
            "conversations.value",
            ["甲\n乙"],
        ),
        ('{"data": ' + RECORDS + '}\n{"data": ' + RECORDS + "}", "data.text", ["甲\n乙"] * 2),
    ],
)
def test_a_record_that_holds_a_list_is_one_record(text: str, field: str, found: list[str]) -> None:
    assert texts(text, field) == found


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"RECORDS": [{"标题": "很长很长的标题", "正文": "短"}]}', "正文"),
        ('{"data": [{"title": "题", "paragraphs": [{"context": "话说天下大势"}]}]}', "paragraphs.context"),
        ('{"conversations": [{"role": "u", "content": "你好"}]}', "conversations.content"),
        ('{"文件名": "很长很长的文件名", "段落": [{"行号": 1, "内容": "甲"}]}', "段落.内容"),
        ('{"content": "甲乙", "metadata": {"found": [{"label": "zh", "prob": 1}]}}', "content"),
    ],
)
def test_the_field_of_wrapped_records_is_suggested(text: str, path: str) -> None:
    with pytest.raises(Unusable) as caught:
        texts(text)
    assert caught.value.hint.endswith(f"corpus.text_field={path}")
    assert len(texts(text, path)) == 1


@pytest.mark.parametrize(
    "text", ['{"data":' * 900 + "1" + "}" * 900, '{"data": [' * 400 + '"a"' + "]}" * 400]
)
def test_objects_within_objects_are_no_way_to_break_it(text: str) -> None:
    with pytest.raises(Unusable, match="no field 'text'"):
        texts(text)

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.makers.documents import dialogues, read
from tests.makers.spoiled import zipped
from yanmo.core.errors import DataError
from yanmo.text.read.dialogues import DialogueCounts, recognise
from yanmo.text.read.turns import Dialogue, Message, Pair

Said = list[tuple[str, str]]
ASKED: Said = [("user", "船几时开？"), ("assistant", "涨潮就开。")]
SYSTEM: Said = [("system", "你是船夫。"), *ASKED]
AGAIN: Said = [*ASKED, ("user", "涨潮是几时？"), ("assistant", "月亮出来以后。")]


def messages(said: Said, role: str = "role", content: str = "content", **names: str) -> list[dict[str, Any]]:
    return [{role: names.get(side, side), content: text} for side, text in said]


def said(found: Dialogue | Pair) -> Said:
    assert isinstance(found, Dialogue)
    return [(message.role, message.content) for message in found.messages]


def rows(folder: Path, *values: Any, name: str = "a.jsonl") -> Path:
    file = folder / name
    lines = [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"messages": messages(SYSTEM)}, SYSTEM),
        ({"messages": messages(SYSTEM, system="developer")}, SYSTEM),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "船几时"}, {"type": "text", "text": "开？"}]},
                       *messages(ASKED[1:])]}, ASKED),
        ({"conversations": messages(AGAIN, "from", "value", user="human", assistant="gpt"), "id": 7}, AGAIN),
        ({"conversations": messages(AGAIN, "from", "value", user="User", assistant="bot")}, AGAIN),
        ({"conversations": messages(AGAIN)}, AGAIN),
        ({"system": "你是船夫。", "conversations": messages(ASKED)}, SYSTEM),
        ({"system": "别的", "messages": messages(SYSTEM)}, SYSTEM),
        (messages(ASKED), ASKED),
        ({"instruction": "船几时开？", "input": "", "output": "涨潮就开。"}, ASKED),
        ({"instruction": "译成白话", "input": "夜发清溪", "output": "夜里出发"},
         [("user", "译成白话\n夜发清溪"), ("assistant", "夜里出发")]),
        ({"instruction": "涨潮是几时？", "output": "月亮出来以后。", "history": [["船几时开？", "涨潮就开。"]],
          "system": None}, AGAIN),
        ({"prompt": "船几时开？", "completion": " 涨潮就开。\n"}, ASKED),
        ({"prompt": messages(ASKED[:1]), "completion": messages(ASKED[1:])}, ASKED),
        ({"prompt": messages(AGAIN[:3]), "completion": AGAIN[3][1]}, AGAIN),
        ({"问": "船几时开？", "答": "涨潮就开。"}, ASKED),
        ({"问题": "船几时开？", "回答": "涨潮就开。"}, ASKED),
        ({"Question": "船几时开？", "Answer": "涨潮就开。", "score": 3}, ASKED),
        ({"query": "船几时开？", "response": "涨潮就开。"}, ASKED),
        ({"input": "船几时开？", "output": "涨潮就开。"}, ASKED),
        ({"system_prompt": "你是船夫。", "question": "船几时开？", "response": "涨潮就开。"}, SYSTEM),
        ({"id": "a", "instruction": "别的", "answer": "别的", "conversations": messages(ASKED)}, ASKED),
        ({"messages": [{"role": "system", "content": ""}, *messages(ASKED)]}, ASKED),
    ],
)  # fmt: skip
def test_each_usual_shape_is_recognised_and_read(tmp_path: Path, value: Any, expected: Said) -> None:
    file = rows(tmp_path, value)
    assert recognise([str(file)]) == "dialogues"
    [found] = dialogues(file)
    assert said(found) == expected and found.where == "a.jsonl:1"


CHOSEN, REJECTED = [("assistant", "涨潮就开。")], [("assistant", "不知道。")]


@pytest.mark.parametrize(
    "value",
    [
        {"prompt": "船几时开？", "chosen": "涨潮就开。", "rejected": "不知道。 "},
        {"question": "船几时开？", "chosen": "涨潮就开。", "rejected": "不知道。", "system": ""},
        {"chosen": messages(ASKED), "rejected": messages(ASKED[:1] + REJECTED)},
        {"prompt": "船几时开？", "chosen": messages(ASKED), "rejected": messages(ASKED[:1] + REJECTED)},
        {"prompt": messages(ASKED[:1]), "chosen": messages(CHOSEN), "rejected": messages(REJECTED)},
        {
            "conversations": messages(ASKED[:1], "from", "value", user="human"),
            "chosen": messages(CHOSEN, "from", "value", assistant="gpt")[0],
            "rejected": messages(REJECTED, "from", "value", assistant="gpt")[0],
        },
    ],
)
def test_two_answers_to_the_same_messages_are_a_pair(tmp_path: Path, value: Any) -> None:
    file = rows(tmp_path, value)
    assert recognise([str(file)]) == "pairs"
    [found] = dialogues(file)
    assert found == Pair((Message("user", "船几时开？"),), "涨潮就开。", "不知道。", "a.jsonl:1")


def test_a_system_message_stands_before_a_pair(tmp_path: Path) -> None:
    [found] = dialogues(
        rows(tmp_path, {"system": "你是船夫。", "prompt": "开吗？", "chosen": "开。", "rejected": "不。"})
    )
    assert isinstance(found, Pair)
    assert found.prompt == (Message("system", "你是船夫。"), Message("user", "开吗？"))


def test_continuations_of_a_text_stay_as_they_stand(tmp_path: Path) -> None:
    row = {"prompt": "船\n", "chosen": " 开了。\n", "rejected": "\n没有。", "format": "text"}
    assert dialogues(rows(tmp_path, row)) == [Pair("船\n", " 开了。\n", "\n没有。", "a.jsonl:1")]


def test_all_kinds_of_files_give_the_same(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    values = [{"问": "船几时开？", "答": "涨潮就开。"}] * 2
    plain = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
    table = '问,答\r\n船几时开？,"涨潮\r\n就开。"\r\n船几时开？,涨潮就开。\r\n'.replace("涨潮\r\n", "涨潮")
    packed = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(values), packed)
    files = {
        "a.jsonl": plain.encode(),
        "a.json": json.dumps(values).encode(),
        "lines.json": plain.encode(),
        "wrapped.json": json.dumps({"version": "1", "data": values}).encode(),
        "parts.json": json.dumps({"train": values[:1], "test": values[1:]}).encode(),
        "a.csv": table.encode(),
        "mark.csv": b"\xef\xbb\xbf" + table.encode(),
        "excel.csv": table.encode("gbk"),
        "semicolon.csv": table.replace(",", ";").encode(),
        "wide.csv": table.encode("utf-16"),
        "a.tsv": table.replace(",", "\t").replace('"', "").encode(),
        "a.parquet": packed.getvalue(),
        "a.jsonl.gz": gzip.compress(plain.encode()),
        "no_suffix": plain.encode(),
        "a.zip": zipped({"in.jsonl": plain.encode(), "picture.png": b"x"}),
    }
    for name, data in files.items():
        file = tmp_path / name
        file.write_bytes(data)
        assert recognise([str(file)]) == "dialogues", name
        assert [said(found) for found in dialogues(file)] == [ASKED, ASKED], name
    places = [
        found.where
        for name in ("a.jsonl", "a.csv", "a.json", "a.zip")
        for found in dialogues(tmp_path / name)
    ]
    assert places == [
        "a.jsonl:1", "a.jsonl:2", "a.csv:2", "a.csv:3", "a.json#1", "a.json#2",
        "a.zip/in.jsonl:1", "a.zip/in.jsonl:2",
    ]  # fmt: skip


CALL = [*messages(ASKED[:1]), {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}]
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, *messages(CHOSEN)]
MALFORMED: list[tuple[str, Any, str]] = [
    ("broken JSON", '{"messages": [', "Expecting value"),
    ("not an object", '"船几时开？"', "a string"),
    ("not an object", "null", "null"),
    ("no known fields", {"标题": "渡口", "正文": "…"}, "there is '标题', '正文'"),
    ("no known fields", {"question": "a", "answer": None}, "there is 'question', 'answer'"),
    ("not text", {"question": "1+1", "answer": 2}, "'answer' is a number"),
    ("not text", {"messages": IMAGE}, "messages 1 has a part that is no text"),
    ("not text", {"messages": "[{'role': 'user'}]"}, "'messages' is a string"),
    ("not text", {"messages": ["船几时开？", "涨潮就开。"]}, "messages 1 is a string"),
    ("not text", {"messages": [{"role": "user"}]}, "messages 1 is null"),
    (
        "not text",
        {"instruction": "a", "output": "b", "history": ["c"]},
        "'history' is not a list of [question",
    ),
    ("unknown role", {"messages": messages(ASKED, assistant="船夫")}, "messages 2 is by '船夫'"),
    ("unknown role", {"messages": [{"role": ["user"], "content": "a"}]}, "messages 1 is without a role"),
    ("tool calls", {"messages": CALL}, "messages 2 calls a tool"),
    (
        "tool calls",
        {"conversations": messages(ASKED, "from", "value", user="observation")},
        "conversations 1",
    ),
    ("too many messages", {"messages": messages(ASKED * 501)}, "1,002 messages"),
    ("empty question", {"instruction": " ", "input": "", "output": "好"}, ""),
    ("empty answer", {"prompt": "好吗", "completion": "\n"}, ""),
    ("empty answer", {"messages": messages([*ASKED[:1], ("assistant", "")])}, ""),
    ("no question", {"messages": messages(CHOSEN)}, ""),
    ("no answer", {"messages": messages(ASKED[:1])}, ""),
    ("no answer", {"messages": []}, ""),
    ("two answers in a row", {"messages": messages(ASKED + REJECTED)}, ""),
    ("system message inside", {"messages": messages(ASKED + SYSTEM)}, ""),
]


@pytest.mark.parametrize(("reason", "value", "why"), MALFORMED)
def test_what_is_malformed_is_counted_with_its_line_and_what_is_wrong(
    tmp_path: Path, reason: str, value: Any, why: str
) -> None:
    counts = DialogueCounts()
    assert len(dialogues(rows(tmp_path, {"messages": messages(ASKED)}, value), counts=counts)) == 1
    assert counts.dropped == {reason: 1}
    [place] = counts.places[reason]
    assert f"a.jsonl:2:{'' if reason == 'broken JSON' else ' '}" in place and why in place


def test_what_is_malformed_stops_nothing(tmp_path: Path) -> None:
    good = {"messages": messages(ASKED)}
    counts = DialogueCounts()
    found = dialogues(rows(tmp_path, *(row for _, bad, _ in MALFORMED for row in (bad, good))), counts=counts)
    assert len(found) == len(MALFORMED) == counts.dropped.total()


@pytest.mark.parametrize(
    ("reason", "value"),
    [
        ("chosen equals rejected", {"prompt": "a", "chosen": "b", "rejected": "b "}),
        ("chosen equals rejected", {"prompt": "a", "chosen": "b", "rejected": "b", "format": "text"}),
        ("empty answer", {"prompt": "a", "chosen": "b", "rejected": ""}),
        ("empty answer", {"prompt": "a", "chosen": "\n", "rejected": "b", "format": "text"}),
        ("not text", {"prompt": 1, "chosen": "b", "rejected": "c", "format": "text"}),
        ("not text", {"prompt": "a", "chosen": 5, "rejected": 1}),
        ("no question", {"chosen": "b", "rejected": "c"}),
        ("not one answer to choose", {"chosen": messages(ASKED), "rejected": messages(AGAIN)}),
        (
            "not one answer to choose",
            {"prompt": "a", "chosen": messages(ASKED[:1]), "rejected": messages(REJECTED)},
        ),
        ("of another kind", {"messages": messages(ASKED)}),
    ],
)
def test_malformed_pairs_are_counted(tmp_path: Path, reason: str, value: Any) -> None:
    counts = DialogueCounts()
    good = {"prompt": "a", "chosen": "b", "rejected": "c"}
    assert len(dialogues(rows(tmp_path, good, value, good), counts=counts)) == 2
    assert counts.dropped == {reason: 1} and "a.jsonl:2" in counts.places[reason][0]


def test_what_can_be_mended_is_mended_and_counted(tmp_path: Path) -> None:
    counts = DialogueCounts()
    greeting, more = [("assistant", "客官好。")], [("user", "哦？")]
    two = [("user", "船夫，"), *ASKED]
    found = dialogues(
        rows(tmp_path, {"messages": messages(greeting + ASKED)}, {"messages": messages(ASKED + more + more)},
             {"messages": messages(two)}),
        counts=counts,
    )  # fmt: skip
    assert [said(one) for one in found] == [ASKED, ASKED, [("user", "船夫，\n船几时开？"), *CHOSEN]]
    assert counts.changed == {"opening answer cut": 1, "unanswered end cut": 1, "user messages joined": 2}
    assert counts.places["unanswered end cut"] == [f"{tmp_path}/a.jsonl:2"]


def test_counts_are_told_with_the_first_three_places(tmp_path: Path) -> None:
    counts = DialogueCounts()
    dialogues(rows(tmp_path, {"问": "a", "答": "b"}, *[{"问": "a", "答": ""}] * 5), counts=counts)
    kept, dropped = counts.lines()
    assert kept.split() == ["kept", "1", "of", "6", "records"]
    assert dropped.startswith("dropped    5: empty answer (") and dropped.count("a.jsonl:") == 3
    assert counts.as_json()["dropped"] == {"empty answer": 5}


@pytest.mark.parametrize(
    ("name", "text", "what", "place", "mend"),
    [
        ("x.jsonl", json.dumps([{"问": "a", "答": "b"}], indent=1), "broken JSON: 6", ":1", "named .json"),
        ("x.json", '[{"问": "a", "答": "b"},\n {"问": "a"', "broken JSON", ":2:11", "name it .jsonl"),
        ("x.csv", "船几时开？,涨潮就开。\n好吗,好\n", "no known fields: 1", ":2", "first row of a table"),
        ("x.csv", "问,答\n好吗，好\n", "row of another length: 1", ":2", "quotes"),
        ("x.jsonl", '{"text": "话说天下"}\n' * 3, "no known fields: 3", ":1", '"messages"'),
        ("x.json", '{"instruction": ["a", "b"], "output": ["c", "d"]}', "not text: 1", "#1", "string"),
        ("x.json", '[{"role": "user", "content": "a"}]', "no known fields: 1", "#1", '"messages"'),
        (
            "x.jsonl",
            '{"messages": [{"role": "旁白", "content": "a"}]}',
            "unknown role: 1",
            ":1",
            "human and gpt",
        ),
        ("x.jsonl", '{"问": "a", "答": ""}', "empty answer: 1", ":1", "write the answers"),
        ("x.jsonl", '{"messages": [{"role": "user", "content": "a"}]}', "no answer: 1", ":1", "end each"),
        ("x.jsonl", '["a", "b"]', "not an object: 1", ":1", '"question"'),
        (
            "x.jsonl",
            '{"prompt": "a", "chosen": "b", "rejected": "b"}',
            "chosen equals rejected",
            ":1",
            "choose",
        ),
        ("x.jsonl", "", "the file is empty", "", "with records"),
    ],
)
def test_a_data_set_of_which_nothing_is_left_is_a_sentence_with_the_line_and_the_mend(
    tmp_path: Path, name: str, text: str, what: str, place: str, mend: str
) -> None:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        dialogues(file)
    assert what in caught.value.what
    assert caught.value.where.startswith(f"{file}{place}")
    assert mend in caught.value.hint


def test_files_of_different_kinds_are_refused_by_name(tmp_path: Path) -> None:
    one = rows(tmp_path, {"问": "a", "答": "b"})
    other = rows(tmp_path, {"prompt": "a", "chosen": "b", "rejected": "c"}, name="b.jsonl")
    novel = rows(tmp_path, "话说天下", name="c.txt")
    for two in ([one, other], [one, novel], [tmp_path]):
        with pytest.raises(DataError, match="holds") as caught:
            recognise([str(path) for path in two])
        assert "a.jsonl holds dialogues" in caught.value.what
        assert ("b.jsonl holds pairs" if novel not in two else "c.txt holds text") in caught.value.what


def test_plain_text_and_rows_of_text_are_text(tmp_path: Path) -> None:
    files = [
        rows(tmp_path, "话说天下", name="a.txt"),
        rows(tmp_path, {"text": "话说天下"}),
        rows(tmp_path, ["话说天下"], name="a.json"),
        rows(tmp_path, {"content": "话说天下"}, name="unknown.jsonl"),
    ]
    assert [recognise([str(file)]) for file in files] == ["text"] * 4
    assert recognise([str(tmp_path)]) == recognise(["yanmo:demo"]) == "text"


def test_malformed_records_at_the_beginning_do_not_hide_what_a_file_is(tmp_path: Path) -> None:
    file = rows(tmp_path, "{", *[{"标题": "渡口"}] * 20, {"问": "a", "答": "b"})
    assert recognise([str(file)]) == "dialogues"
    assert len(dialogues(file)) == 1


def test_in_a_folder_a_damaged_file_is_counted_and_the_others_are_read(tmp_path: Path) -> None:
    counts = DialogueCounts()
    rows(tmp_path, {"问": "a", "答": "b"}, name="sub.jsonl")
    rows(tmp_path, '[{"问": ', name="broken.json")
    (tmp_path / "cover.png").write_bytes(b"x")
    assert len(dialogues(tmp_path, counts=counts)) == 1
    assert counts.dropped == {"broken JSON": 1} and counts.files_passed_over == {".png": 1}


def test_what_is_no_character_is_taken_out_of_messages(tmp_path: Path) -> None:
    [found] = dialogues(rows(tmp_path, '{"q": "船\\ud800\\u0000", "a": "开\\r\\n了"}'))
    assert said(found) == [("user", "船"), ("assistant", "开\n了")]


def test_the_same_file_is_still_text_for_who_asks_for_a_field(tmp_path: Path) -> None:
    file = rows(tmp_path, {"messages": messages(ASKED)})
    assert [document.text for document in read(file, text_field="messages.content")] == [
        "船几时开？\n涨潮就开。"
    ]

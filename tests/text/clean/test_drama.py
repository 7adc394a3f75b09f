"""A play of two who talk at a ferry, made here, in all layouts."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.makers.documents import dialogues
from tests.makers.work import assert_linear, calls
from yanmo.core.console import Console
from yanmo.core.errors import DataError
from yanmo.settings.recipe import load_cleaning
from yanmo.text.clean.drama import HEARD, MIN_SPEECHES, Conversation, DramaCounts, conversations
from yanmo.text.clean.run import manifest_path, run
from yanmo.text.read.dialogues import recognise
from yanmo.text.read.turns import Dialogue

Lines = list[tuple[str, str]]
CHINESE, LATIN = ("船夫", "客人"), ("FERRYMAN", "Old Guest")


def talk(names: tuple[str, str], rounds: int = MIN_SPEECHES) -> Lines:
    """The second asks, the first answers."""
    word = "第{}句{}" if names == CHINESE else "line {} of {}"
    return [(name, word.format(n, name.lower())) for n in range(rounds) for name in reversed(names)]


def made(text: str) -> tuple[list[Conversation], DramaCounts]:
    counts = DramaCounts()
    found = list(conversations(text, counts))
    assert counts.speeches == counts.answers + counts.unused.total()
    assert counts.conversations == len(found) and counts.answers == counts.characters.total()
    assert counts.answers == sum(len(one.messages) // 2 for one in found)
    return found, counts


def colon(lines: Lines, mark: str = "：") -> str:
    return "\n".join(f"{name}{mark}{said}" for name, said in lines)


LAYOUTS: dict[str, tuple[tuple[str, str], Callable[[str, str], str]]] = {
    "colon": (CHINESE, lambda name, said: f"{name}：{said}\n"),
    "colon, direction first": (CHINESE, lambda name, said: f"　　{name}（笑）：{said}（指着船）\n\n"),
    "space": (CHINESE, lambda name, said: f"　　{name} {said}\n\n"),
    "wide space": (CHINESE, lambda name, said: f"{name[0]}　{name[1]}　（低声）{said}\n"),
    "direction for a space": (CHINESE, lambda name, said: f"{name}（低声）{said}\n"),
    "own line": (CHINESE, lambda name, said: f"{name}：\n{said}\n\n"),
    "own line, Latin": (LATIN, lambda name, said: f"{name}:\n{said}\n\n"),
    "colon, Latin": (LATIN, lambda name, said: f"{name}: {said} [Aside]\n"),
    "full stop": (("FERRYMAN", "OLD GUEST"), lambda name, said: f"{name}. {said}\n"),
    "full stop, own line": (("FERRYMAN", "OLD GUEST"), lambda name, said: f"{name}.\n{said}\n\n[_Exit\n\n"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_gives_a_conversation_for_each_character(layout: str) -> None:
    names, line = LAYOUTS[layout]
    spoken = talk(names)
    found, counts = made("".join(line(*one) for one in spoken))
    assert {one.character for one in found} == set(names) and len(found) == 2
    answers = next(one.messages for one in found if one.character == names[0])
    is_chinese = names == CHINESE
    assert answers[0].content == ("你是船夫。" if is_chinese else "You are FERRYMAN.")
    mark = "：" if is_chinese else ": "
    assert [(m.role, m.content) for m in answers[1:3]] == [
        ("user", f"{names[1]}{mark}{spoken[0][1]}"),
        ("assistant", spoken[1][1]),
    ]
    assert len(answers) == 1 + 2 * MIN_SPEECHES
    assert counts.unused == {"speeches that open a scene": 1}


def test_what_several_say_is_heard_with_their_names_a_line_each() -> None:
    lines = [("客人", "开船吗？"), ("渔夫", "涨潮了。"), ("船夫", "开。"), *talk(CHINESE)]
    found, counts = made(colon(lines))
    [ferryman] = [one for one in found if one.character == "船夫"]
    assert ferryman.messages[1].content == "客人：开船吗？\n渔夫：涨潮了。"
    assert counts.unused["speeches of characters with fewer than 20"] == 1
    assert counts.characters.keys() == {"船夫", "客人"}


def test_lines_that_follow_a_speech_belong_to_it_and_comings_and_goings_do_not() -> None:
    text = colon(talk(CHINESE)) + (
        "\n\n客人：唱一支吧。\n船夫：好。\n\n　　江水长，\n\n　　我在船上。\n\n　　渔夫及其他二人上。\n号角声。\n\n（幕落）\n客人：好！"
    )
    found, counts = made(text)
    [guest] = [one for one in found if one.character == "客人"]
    [ferryman] = [one for one in found if one.character == "船夫"]
    assert ferryman.messages[-1].content == "好。\n江水长，\n我在船上。"
    assert guest.messages[-2].content == "船夫：好。江水长，我在船上。"
    assert counts.left_out == {"stage directions, and lines that nobody speaks": 3}


def test_words_in_round_brackets_are_said_in_latin_and_directions_in_chinese() -> None:
    latin, _ = made(colon([*talk(LATIN), ("Old Guest", "Row (if you can)."), ("FERRYMAN", "Aye.")], ": "))
    assert latin[-1].messages[-2].content.endswith("Row (if you can).") or latin[0].messages[
        -2
    ].content.endswith("Row (if you can).")
    chinese, _ = made(colon([*talk(CHINESE), ("客人", "划(指船)吧。"), ("船夫", "好。")]))
    assert any(one.messages[-2].content == "客人：划吧。" for one in chinese)


@pytest.mark.parametrize(
    ("act", "scenes", "labels"),
    [
        ("第一幕", ["第一场　渡口", "第二场"], ["第一幕 第一场", "第一幕 第二场"]),
        ("第一折", ["", "楔子"], ["第一折", "第一折 楔子"]),
        ("ACT I", ["SCENE I. A ferry.", "Scene 2"], ["ACT I SCENE I", "ACT I Scene 2"]),
    ],
)
def test_each_scene_has_conversations_of_its_own(act: str, scenes: list[str], labels: list[str]) -> None:
    """Before the first and behind notes stands what nobody says; 20 speeches in the whole play are enough."""
    half = colon(talk(CHINESE, MIN_SPEECHES // 2))
    text = "\n\n".join(
        [
            "《渡口》",
            "剧中人物",
            "船夫：老人",
            act,
            scenes[0],
            half,
            scenes[1],
            half,
            "注释：",
            "一、渡口在南方",
        ]
    )
    found, counts = made(text)
    assert [(one.character, one.scene) for one in found] == [
        (name, label) for label in labels for name in reversed(CHINESE)
    ]
    assert counts.scenes == 2 and counts.plays == 1
    assert counts.left_out == {"lines of a cast, a preface or notes": 5}


def test_another_first_act_is_another_play_with_characters_of_its_own() -> None:
    half = colon(talk(CHINESE, MIN_SPEECHES // 2))
    whole = colon(talk(CHINESE))
    acts = ["第一幕", whole, "第二幕", "船夫：到了。\n客人：到了。", "第一幕", half, "第二幕", half[:40]]
    found, counts = made("\n".join(acts))
    assert counts.plays == 2
    assert {one.scene for one in found} == {"第一幕", "第二幕"} and len(found) == 3
    assert counts.unused["speeches of characters with fewer than 20"] >= MIN_SPEECHES


def test_who_is_long_silent_begins_anew_and_hears_the_last_speeches() -> None:
    others = [(("客人", "渔夫")[n % 2], f"第{n}声") for n in range(3 * HEARD)]
    found, _ = made(colon([*talk(CHINESE), *others, ("船夫", "来了。"), ("客人", "走！"), ("船夫", "走。")]))
    first, second = (one.messages for one in found if one.character == "船夫")
    assert len(first) == 1 + 2 * MIN_SPEECHES
    assert [m.role for m in second] == ["system", "user", "assistant", "user", "assistant"]
    assert second[1].content.split("\n") == [f"{name}：{said}" for name, said in others[-HEARD:]]


def test_a_scene_with_one_speaker_is_counted() -> None:
    _, counts = made("\n".join(["第一场", colon(talk(CHINESE)), "第二场", "船夫：江水长。", "第三场", ""]))
    assert counts.unused == {"speeches that open a scene": 1, "speeches in scenes with one speaker": 1}
    assert counts.scenes == 2


@pytest.mark.parametrize(
    "text", ["", "话说天下大势。\n" * 50, colon(talk(CHINESE, MIN_SPEECHES - 1)), "船夫：到了。\n" * 50]
)
def test_what_is_no_play_has_no_conversations(text: str) -> None:
    assert made(text) == ([], DramaCounts())


@pytest.mark.parametrize(
    "line",
    [
        "船夫" + "　" * 100_000,
        "（" * 100_000,
        "(" + "船" * 100_000,
        "[" * 100_000,
        "A. " * 30_000,
        "第一场" * 30_000,
    ],
)
def test_a_hostile_line_takes_linear_time(line: str) -> None:
    made("\n".join([colon(talk(CHINESE)), line]))


def test_a_long_play_takes_linear_time() -> None:
    def work(rounds: int) -> int:
        return calls(made, colon(talk(CHINESE, rounds)) + "\n江水长，" * rounds)

    assert_linear(work, 100)


def test_plays_are_written_as_dialogues_with_a_manifest_that_adds_up(
    tmp_path: Path, console: Console
) -> None:
    (tmp_path / "plays").mkdir()
    (tmp_path / "plays" / "渡口.txt").write_bytes(("第一场\n" + colon(talk(CHINESE))).encode("gb18030"))
    (tmp_path / "plays" / "小说.txt").write_text("话说天下大势，分久必合，合久必分。\n" * 2, encoding="utf-8")
    out = tmp_path / "渡口.jsonl"
    result = run(load_cleaning([], [str(tmp_path / "plays")]), out, console, workers=1, as_dialogues=True)
    assert result.dropped == {"no play": 1}
    row, _ = map(json.loads, out.read_text(encoding="utf-8").splitlines())
    assert row.keys() == {"messages", "character", "scene", "source"}
    assert (row["character"], row["scene"], row["source"]) == ("客人", "第一场", "渡口.txt")
    assert recognise([str(out)]) == "dialogues"
    [guest, ferryman] = dialogues(out)
    assert (
        isinstance(ferryman, Dialogue) and ferryman.messages[0].content == "你是船夫。" and not guest.changes
    )
    said = json.loads(manifest_path(out).read_text(encoding="utf-8"))
    assert said["documents"] == 1 and said["dropped"] == {"no play": 1}
    assert said["drama"]["answers"] == 2 * MIN_SPEECHES - 1 and said["drama"]["speeches"] == 2 * MIN_SPEECHES


def test_where_no_play_is_found_the_error_shows_what_a_speech_looks_like(
    tmp_path: Path, console: Console
) -> None:
    (tmp_path / "a.txt").write_text("话说天下大势，分久必合，合久必分。", encoding="utf-8")
    config = load_cleaning([], [str(tmp_path / "a.txt")])
    with pytest.raises(DataError, match="no play: 1") as caught:
        run(config, tmp_path / "a.jsonl", console, workers=1, as_dialogues=True)
    assert "docs/dialogues.md" in caught.value.hint

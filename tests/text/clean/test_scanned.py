"""What PDF readers and OCR leave is mended where it is systematic, told before, and nothing else is touched."""

import json

import pytest

from tests.makers.work import assert_linear, calls
from yanmo.core.console import Console
from yanmo.settings.recipe import load_cleaning
from yanmo.settings.schema import CleanConfig
from yanmo.text.clean.rules import clean, rules_for
from yanmo.text.clean.run import run
from yanmo.text.clean.scanned import gaps, ordinary, spaces
from yanmo.text.inspect.notes import Notes
from yanmo.text.inspect.report import inspect

PLAIN = "一个人走了很长的路，天黑了才看见山里的灯。小门开着，里面有一张方桌，一只白鸟，两本高高的旧书。"
FROM_PDF = "⼀个⼈⾛了很⻓的路，天⿊了才看⻅⼭⾥的灯。⼩⻔开着，⾥⾯有⼀张⽅桌，⼀只⽩⻦，两本⾼⾼的旧书。"


def said(text: str) -> str:
    notes = Notes()
    notes.add(text)
    return "\n".join(notes.said())


def test_radicals_become_the_characters_they_look_like():
    assert ordinary(FROM_PDF) == PLAIN
    assert ordinary("\uf900\uf91d \ufb01nd ﹁灯﹂︵山︶︐") == "豈欄 find 「灯」（山），"
    assert "Kangxi radicals" in said(FROM_PDF) and said(PLAIN) == ""


@pytest.mark.parametrize(
    "text", [PLAIN, "Ａ１％（全角）", "㎡ ① Ⅳ ½ ² ㈱ ｶﾅ …", "⿰氵每〾", "⺡⺮⺅", "﨑﨎", "é e\u0301"]
)
def test_other_forms_stay(text):
    assert ordinary(text) == text


def test_a_copy_from_a_pdf_is_found_to_be_one(tmp_path):
    rows = "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in (PLAIN, FROM_PDF))
    (tmp_path / "a.jsonl").write_text(rows, encoding="utf-8")
    config = load_cleaning([], [str(tmp_path / "a.jsonl")])
    assert run(config, tmp_path / "out.jsonl", Console(is_main=False), dedup=True).dropped == {"a copy": 1}
    found = inspect(config, None, Console(is_main=False))
    assert found.odd_characters["Kangxi radicals"]["U+2F00"] == 3


@pytest.mark.parametrize(
    "text",
    [
        " ".join(PLAIN * 3),
        PLAIN.replace("，", " ， ").replace("的", " 的 ").replace("了", " 了 ").replace("。", " 。 ") * 3
        + "完",
        "他 今天 没有 来 ， 我 等 了 很 久 。 我们 一起 回 家 。",
        " ".join("天地玄黄宇宙洪荒日月盈昃辰宿列张" * 5),
    ],
)
def test_systematic_spaces_go_and_are_told(text):
    assert spaces(text) == text.replace(" ", "")
    assert "places between hanzi" in said(text)
    assert clean(text, rules_for(CleanConfig(quality=False, spaces=False))).text.count(" ") > 5


@pytest.mark.parametrize(
    "text",
    [
        PLAIN * 9,
        "白日依山尽 黄河入海流\n欲穷千里目 更上一层楼\n" * 9,
        "到会的有 张山 李河 王水 赵木 周石 吴土 郑金，还有 孙火 钱日 冯月。\n" * 9,
        "我 用 Python 写了 3 个 程序，跑 了 2 天，都 没有 错。" * 3,
        "To be, or not to be, that is the question: 他说。 " * 20,
        "天 地 玄 黄",
    ],
)
def test_spaces_that_somebody_typed_stay(text):
    assert spaces(text) == text and said(text) == ""


def test_counting_gaps_is_linear():
    assert_linear(lambda n: calls(gaps, "天 地 ， 玄 黄 。" * n), 300)
    gaps(" " * 300_000 + "天")

"""The page before a server that plays prepared answers: what a writer does with it, and what can befall them."""

import json
import random
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, expect

from tests.makers.desk import PHONE, Desk
from tests.makers.page_server import PageServer, Play, logprob_of

pytestmark = pytest.mark.browser

OPENING = "她推开门，"
WRITTEN = "雨停了。他走了出去。"
OTHER = "门外没有人。"


@pytest.fixture(scope="module")
def shared_server() -> Iterator[PageServer]:
    found = PageServer()
    yield found
    found.stop()


@pytest.fixture
def server(shared_server: PageServer) -> PageServer:
    shared_server.play = Play(texts=[WRITTEN, OTHER, "风很大。"])
    return shared_server


@pytest.fixture
def desk(browser: Browser, server: PageServer) -> Iterator[Desk]:
    with Desk(browser, server.url) as found:
        yield found.open()
        assert not found.wrong


# -- writing ----------------------------------------------------------------------------------


def test_a_continuation_stands_as_ghost_until_tab_takes_all_of_it(desk: Desk) -> None:
    desk.write(OPENING)
    desk.go_on()
    desk.ghost(WRITTEN)
    desk.reads(OPENING)
    desk.press("Tab")
    desk.ghost(None)
    desk.reads(OPENING + WRITTEN)
    desk.write("完")
    desk.reads(OPENING + WRITTEN + "完")


def test_the_text_in_front_of_the_caret_is_continued(desk: Desk, server: PageServer) -> None:
    desk.write("一二三四")
    desk.press("ArrowLeft", "ArrowLeft")
    desk.go_on()
    desk.press("Tab")
    desk.reads(f"一二{WRITTEN}三四")
    assert server.play.bodies("/v1/completions")[0]["prompt"] == "一二"


def test_an_arrow_takes_one_sentence(desk: Desk) -> None:
    desk.write(OPENING)
    desk.go_on()
    desk.press("ArrowRight")
    desk.reads(OPENING + "雨停了。")
    desk.ghost("他走了出去。")
    desk.press("ArrowRight")
    desk.reads(OPENING + WRITTEN)
    desk.ghost(None)


def test_escape_rejects_and_again_asks_anew(desk: Desk) -> None:
    desk.write(OPENING)
    desk.go_on()
    desk.press("Escape")
    desk.ghost(None)
    desk.go_on()
    desk.ghost(OTHER)
    desk.click("again")
    desk.ghost("风很大。")
    desk.click("reject")
    desk.ghost(None)
    desk.reads(OPENING)


def test_who_types_what_the_ghost_says_keeps_it_and_another_word_ends_it(desk: Desk) -> None:
    desk.write(OPENING)
    desk.go_on()
    desk.write("雨")
    desk.ghost(WRITTEN[1:])
    desk.write("雪")
    desk.ghost(None)
    desk.reads(OPENING + "雨雪")


def test_a_stream_is_seen_as_it_comes_and_stopping_frees_its_place(desk: Desk, server: PageServer) -> None:
    server.play.pieces = 1
    desk.write(OPENING)
    desk.press("Control+Enter")
    desk.ghost(WRITTEN[:4])
    expect(desk.at("#continue")).to_have_text("停下")
    desk.click("continue")
    expect(desk.at("#continue")).to_have_text("续写")
    desk.page.wait_for_timeout(100)
    assert server.play.streams == 0
    desk.press("Tab")
    desk.reads(OPENING + WRITTEN[:4])


def test_a_model_that_ends_the_text_says_so(desk: Desk, server: PageServer) -> None:
    server.play.texts = [""]
    desk.write(OPENING)
    desk.go_on()
    expect(desk.at(".notice")).to_contain_text("完了")


def test_candidates_stand_side_by_side_with_their_mean_probability(desk: Desk) -> None:
    desk.write(OPENING)
    desk.at("#ways").select_option("3")
    desk.go_on()
    cards = desk.at(".card")
    expect(cards.locator(".text")).to_have_text([WRITTEN, OTHER, "风很大。"])
    expect(cards.locator(".measure").nth(1)).to_contain_text("平均概率 ")
    shares = [float(re.findall(r"[\d.]+", text)[0]) for text in cards.locator(".measure").all_inner_texts()]
    expect(desk.at(".likeliest .text")).to_have_text([WRITTEN, OTHER, "风很大。"][shares.index(max(shares))])
    desk.press("Tab", "ArrowRight")
    desk.ghost(OTHER)
    desk.press("Enter")
    desk.reads(OPENING + OTHER)
    expect(cards).to_have_count(0)
    desk.write("完")
    desk.reads(OPENING + OTHER + "完")


def test_a_card_begins_with_what_can_be_read_and_fades_where_it_is_cut(
    desk: Desk, server: PageServer
) -> None:
    long = "\n \n　　雪还在下。" + "夜很深。" * 200
    server.play.texts = [long, OTHER]
    desk.write(OPENING)
    desk.at("#ways").select_option("2")
    desk.go_on()
    texts = desk.at(".card .text")
    expect(texts.first).to_have_class("text cut")
    expect(texts.last).to_have_class("text")
    assert (texts.first.text_content() or "").startswith("　　雪还在下。")
    texts.first.evaluate("(text) => text.scrollTo(0, text.scrollHeight)")
    expect(texts.first).to_have_class("text")
    texts.first.click()
    desk.reads(OPENING + long)


def test_what_was_taken_is_kept_beside_what_was_not(desk: Desk, server: PageServer) -> None:
    desk.write(OPENING)
    desk.go_on()
    desk.click("again")
    desk.ghost(OTHER)
    desk.press("Tab")
    desk.reads(OPENING + OTHER)
    desk.page.wait_for_timeout(100)
    assert server.play.bodies("/yanmo/choices") == [{"prompt": OPENING, "chosen": OTHER, "rejected": WRITTEN}]


def test_what_an_input_method_composes_is_not_handled(desk: Desk) -> None:
    desk.write(OPENING)
    desk.go_on()
    typing = desk.context.new_cdp_session(desk.page)
    typing.send("Input.imeSetComposition", {"text": "yu", "selectionStart": 2, "selectionEnd": 2})
    for key in ("Tab", "ArrowRight", "Escape", "Enter"):
        desk.at("#text").dispatch_event("keydown", {"key": key, "ctrlKey": key == "Enter", "bubbles": True})
    desk.reads(OPENING + "yu")
    expect(desk.at("#layer")).to_have_text(OPENING + "yu")
    typing.send("Input.insertText", {"text": "雨"})
    desk.reads(OPENING + "雨")
    desk.ghost(WRITTEN[1:])


# -- what the model thinks ----------------------------------------------------------------------


def test_typed_and_written_text_is_coloured_by_its_surprise(desk: Desk) -> None:
    desk.write("入冬以后，镇上的人便不大出门了。")
    desk.go_on()
    desk.press("Tab")
    desk.click("colours")
    expect(desk.at("#layer > div > span").first).to_be_attached()
    seen = sorted(zip(map(logprob_of, desk.text[1:]), desk.levels()[1:], strict=True))
    assert [level for _, level in seen] == sorted((level for _, level in seen), reverse=True)
    assert len({level for _, level in seen}) >= 5
    desk.click("colours")
    expect(desk.at("#layer span")).to_have_count(0)


def test_a_character_of_many_tokens_has_one_colour_and_typing_moves_the_others(desk: Desk) -> None:
    desk.write("甲😀乙丙")
    desk.click("colours")
    expect(desk.at("#layer > div > span").first).to_be_attached()
    before = desk.levels()
    assert before[1] == 6  # the sum of four tokens
    desk.press("Home")
    desk.write("丁")
    assert desk.levels()[2:] == before[1:]


def test_a_click_shows_alternatives_and_choosing_one_goes_on_from_there(
    desk: Desk, server: PageServer
) -> None:
    desk.write("她推开门，外面下着雨。")
    desk.click("colours")
    expect(desk.at("#layer > div > span").first).to_be_attached()
    desk.click_character(9)
    rows = desk.at("#alternatives button")
    expect(rows).to_have_count(3)
    expect(desk.at("#alternatives .head b")).to_have_text("雨")
    expect(rows.filter(has_text="雪")).to_contain_text("60.7%")
    rows.filter(has_text="雪").click()
    desk.reads("她推开门，外面下着雪")
    desk.ghost(WRITTEN)
    desk.press("Escape")
    desk.click("undo")
    desk.reads("她推开门，外面下着雨。")
    assert [body["prompt"] for body in server.play.bodies("/v1/completions")][-1] == "她推开门，外面下着雪"


def test_alternatives_are_what_the_model_thought_of_and_beside_the_line(
    desk: Desk, server: PageServer
) -> None:
    server.play.alternatives = {f"{n}": -1.5 - n / 2 for n in range(40)}
    desk.write("她推开门，外面下着雨。\n" * 30)
    desk.click("colours")
    expect(desk.at("#layer > div > span").first).to_be_attached()
    for line in (0, 8, 15, 22, 29):
        desk.click_character(line * 12 + 9)
        expect(desk.at("#alternatives button")).to_have_count(12)  # the character, and those above 0.1 %
        assert desk.page.evaluate(APART, line), line
        desk.press("Escape")


APART = """(line) => {
  const list = document.getElementById("alternatives").getBoundingClientRect();
  const row = document.getElementById("layer").children[line].getBoundingClientRect();
  const middle = (row.top + row.bottom) / 2;
  return list.height > 0 && (list.top > middle || list.bottom < middle);
}"""


def test_alternatives_open_by_keyboard_and_bytes_and_the_end_cannot_be_chosen(
    desk: Desk, server: PageServer
) -> None:
    server.play.alternatives = {"bytes:\\xe6": -0.1, "<|endoftext|>": -0.2, "\n": -0.3, "雪": -0.4}
    desk.write("门外下雨")
    desk.click("colours")
    expect(desk.at("#layer > div > span").first).to_be_attached()
    desk.at("#text").focus()
    desk.press("Alt+ArrowDown")
    expect(desk.at("#alternatives button:disabled")).to_have_text([re.compile("E6"), re.compile("完")])
    desk.press("ArrowDown", "Enter")
    desk.reads("门外下雪")


def test_alternatives_go_with_the_text_that_they_are_of(desk: Desk) -> None:
    desk.write("她推开门，外面下着雨。")
    desk.click("colours")
    expect(desk.at("#layer > div > span").first).to_be_attached()
    desk.click_character(9)
    expect(desk.at("#alternatives")).to_be_visible()
    desk.press("Control+z")
    desk.reads("")
    expect(desk.at("#alternatives")).to_be_hidden()


def test_what_is_copied_is_underlined(desk: Desk, server: PageServer) -> None:
    server.play.copied = "抄来的话有这么长才算是抄"
    desk.write(f"😀{server.play.copied}，别的不是。")
    desk.click("underlines")
    expect(desk.at(".copied")).to_have_text(server.play.copied)
    asked = server.play.bodies("/yanmo/copied")[0]
    assert (asked["model"], asked["characters"]) == ("novel", 12)


# -- history ----------------------------------------------------------------------------------


def test_everything_can_be_undone_and_redone(desk: Desk) -> None:
    desk.write("一。")
    desk.press("Enter")
    desk.write("二")
    desk.go_on()
    desk.press("ArrowRight", "Tab")
    desk.press("Control+A", "Delete")
    states = ["", f"一。\n二{WRITTEN}", "一。\n二雨停了。", "一。\n二"]
    for state in states:
        desk.reads(state)
        desk.press("Control+z")
    while desk.text:
        desk.press("Control+z")
    expect(desk.at("#undo")).to_be_disabled()
    for _ in range(8):
        desk.press("Control+Shift+Z")
    desk.reads("")
    expect(desk.at("#redo")).to_be_disabled()
    desk.click("undo")
    desk.reads(states[1])


def test_branches_can_be_looked_at_and_returned_to(desk: Desk) -> None:
    desk.write(OPENING)
    desk.go_on()
    desk.press("Tab", "Control+z")
    desk.go_on()
    desk.press("Tab")
    desk.reads(OPENING + OTHER)
    desk.click("show-branches")
    other = desk.at(".branches li:not(.here)")
    expect(other.locator(".own")).to_have_text(WRITTEN)
    other.locator("summary").click()
    expect(other.locator(".whole")).to_have_text(OPENING + WRITTEN)
    other.locator("button").click()
    desk.reads(OPENING + WRITTEN)
    expect(desk.at(".branches li:not(.here) .own")).to_have_text(OTHER)


def test_a_reload_keeps_everything(desk: Desk) -> None:
    desk.at("#title").fill("雪夜")
    desk.write(OPENING)
    desk.go_on()
    desk.press("Tab")
    desk.click("show-notes")
    desk.at("#pinned").fill("沈砚清：画师")
    desk.click("show-settings")
    desk.at("#setting-temperature").fill("0.35")
    desk.at("#setting-temperature").blur()
    desk.click("theme")
    desk.page.wait_for_timeout(500)
    desk.reload()
    desk.reads(OPENING + WRITTEN)
    assert desk.at("#title").input_value() == "雪夜"
    assert desk.at("#pinned").input_value() == "沈砚清：画师"
    assert desk.at("#setting-temperature").input_value() == "0.35"
    assert desk.at("html").get_attribute("data-theme") == "dark"
    desk.press("Control+z")
    desk.reads(OPENING)


def test_a_reload_right_after_a_key_loses_nothing(desk: Desk) -> None:
    written = ""
    for character in "雨停了。":
        desk.write(character)
        written += character
        desk.open().reads(written)
        desk.press("Control+End")
    desk.click("undo")
    desk.reads("")
    desk.click("redo")
    desk.reads(written)


def test_a_page_that_went_and_came_back_keeps_its_history(desk: Desk) -> None:
    desk.write("雨")
    desk.page.evaluate("dispatchEvent(new Event('pagehide'))")
    desk.write("停了。")
    desk.reload()
    desk.reads("雨停了。")
    desk.click("undo")
    desk.reads("")
    desk.click("redo")
    desk.reads("雨停了。")


def test_what_cannot_be_recovered_does_not_keep_the_page_from_being_written_on(desk: Desk) -> None:
    desk.page.evaluate("localStorage.setItem('yanmo.left.broken', '{')")
    desk.open()
    expect(desk.at(".notice.unsaved")).to_be_visible()
    desk.write(OPENING)
    desk.reads(OPENING)
    assert desk.page.evaluate("localStorage.getItem('yanmo.left.broken')") == "{"


def test_a_tab_that_crashes_loses_nothing_that_was_saved(desk: Desk) -> None:
    desk.write(OPENING)
    expect(desk.at("#saved")).to_have_text("已存")
    with desk.page.expect_event("crash"), suppress(Error):
        desk.page.goto("chrome://crash")
    desk.page = desk.context.new_page()
    desk.open().reads(OPENING)


def test_manuscripts_are_kept_apart_and_what_is_open_is_never_put_back(desk: Desk) -> None:
    desk.at("#title").fill("甲")
    desk.write("第一部")
    desk.click("show-books")
    desk.at("#panel-books button", has_text="新文稿").click()
    desk.reads("")
    desk.write("第二部")
    desk.click("show-books")
    desk.click("show-books")
    desk.write("，还在写")
    desk.at(".books .row[aria-current]").click()
    desk.reads("第二部，还在写")
    desk.at(".books .row", has_text="甲").click()
    desk.reads("第一部")
    desk.at(".books li", has_text="甲").locator("button").last.click()
    desk.reads("第二部，还在写")
    expect(desk.at(".books .row")).to_have_count(1)
    assert len(desk.dialogs) == 1


def test_text_and_json_are_exported_and_json_comes_back_with_its_history(desk: Desk) -> None:
    desk.at("#title").fill("雪/夜")
    desk.write("😀")
    desk.press("Shift+ArrowLeft")
    desk.write("😁")  # begins with the same unit
    desk.press("Shift+ArrowLeft", "Delete")
    desk.write(OPENING)
    desk.go_on()
    desk.press("Tab")
    desk.click("show-books")
    saved = {}
    for ending in (".txt", ".json"):
        with desk.page.expect_download() as download:
            desk.at("#panel-books button", has_text=ending).click()
        assert download.value.suggested_filename == f"雪_夜{ending}"
        saved[ending] = Path("saved" + ending)
        download.value.save_as(saved[ending])
    assert saved[".txt"].read_bytes().decode() == OPENING + WRITTEN
    assert "\\ud" not in saved[".json"].read_text(encoding="utf-8")  # no half of a character
    spoiled = json.loads(saved[".json"].read_text(encoding="utf-8"))
    spoiled["text"] += "?"
    Path("spoiled.json").write_text(json.dumps(spoiled), encoding="utf-8")
    desk.at("#panel-books input").set_input_files("spoiled.json")
    expect(desk.at(".notice")).to_contain_text("不是研墨的文稿")
    desk.at("#panel-books input").set_input_files(saved[".json"])
    expect(desk.at(".books .row")).to_have_count(2)
    desk.reads(OPENING + WRITTEN)
    desk.click("undo")
    desk.reads(OPENING)


def test_two_tabs_on_one_manuscript_lose_no_branch(desk: Desk) -> None:
    desk.write(OPENING)
    expect(desk.at("#saved")).to_have_text("已存")
    first, desk.page = desk.page, desk.context.new_page()
    desk.open()
    desk.press("Control+End")
    desk.write("第二个标签页写的")
    expect(desk.at("#saved")).to_have_text("已存")
    second, desk.page = desk.page, first
    desk.write("前一个标签页写的")
    desk.page.wait_for_timeout(500)
    second.close()
    desk.reload()
    desk.click("show-branches")
    expect(desk.at(".branches li:not(.here) .own")).to_have_text("第二个标签页写的")


# -- around the manuscript ------------------------------------------------------------------------


def test_pinned_notes_stand_in_front_of_the_window_and_a_bar_shows_how_full_it_is(
    desk: Desk, server: PageServer
) -> None:
    desk.write("一二三四五六七八九十")
    expect(desk.at("#window-words")).to_have_text("窗口 10／64（到光标）")
    desk.click("show-notes")
    desk.at("#pinned").fill("沈砚清：画师")
    expect(desk.at("#window-words")).to_have_text("窗口 16／64（到光标）")
    desk.at("#pinned").fill("沈砚清：画师。" * 10)
    expect(desk.at("#window-words")).to_have_text("窗口已满 64")
    desk.at("#text").focus()
    desk.go_on()
    assert server.play.bodies("/v1/completions")[-1]["pinned"] == "沈砚清：画师。" * 10


def test_colours_are_those_of_the_text_alone(desk: Desk, server: PageServer) -> None:
    desk.click("show-notes")
    desk.at("#pinned").fill("沈砚清：画师")
    desk.write(OPENING)
    desk.click("colours")
    desk.levels_of_typed()
    (asked,) = (body for body in server.play.bodies("/v1/completions") if body.get("echo"))
    assert "pinned" not in asked and "memory" not in asked


def test_the_outline_leads_to_chapters(desk: Desk) -> None:
    desk.write("第一章 来信😀\n" + "正文。\n" * 60 + "第二章 雪夜\n他")
    desk.click("show-outline")
    chapters = desk.at(".outline button")
    expect(chapters).to_have_text(["第一章 来信😀", "第二章 雪夜"])
    chapters.nth(1).click()
    desk.write("又\n")
    desk.reads("第一章 来信😀\n" + "正文。\n" * 60 + "又\n第二章 雪夜\n他")
    desk.write("第三章 开门\n")
    expect(chapters).to_have_text(["第一章 来信😀", "第三章 开门", "第二章 雪夜"])


RUN = {
    "name": "novel",
    "recipe": "[model]\nn_layer = 2\n",
    "metrics": [
        {"event": "start", "uniform_bits_per_char": 9.0, "unigram_bits_per_char": 7.0, "bigram_bits_per_char": 5.5},
        *({"event": "train", "step": step, "loss": 6 - step / 100} for step in range(0, 300, 10)),
        {"event": "eval", "step": 100, "val_loss": 5.0, "val_bits_per_char": 7.2},
        {"event": "eval", "step": 200, "val_loss": 4.0, "val_bits_per_char": 5.8},
    ],
    "samples": [{"step": 100, "text": "的了是。"}, {"step": 200, "text": "他推开门。"}],
}  # fmt: skip


def test_a_second_tab_shows_the_run(desk: Desk, server: PageServer) -> None:
    desk.click("tab-run")
    expect(desk.at("#run")).to_contain_text("没有带训练记录")
    server.play.run = RUN
    desk.open().click("tab-run")
    expect(desk.at("#run h1")).to_have_text("novel")
    expect(desk.at(".chart path.curve")).to_have_count(2)
    expect(desk.at(".chart path.level")).to_have_count(3)
    expect(desk.at(".chart text.validation")).to_have_text("验证 5.80")
    expect(desk.at(".sample p")).to_have_text(["的了是。", "他推开门。"])
    expect(desk.at("#run pre")).to_contain_text("n_layer = 2")
    desk.click("tab-write")
    expect(desk.at("#text")).to_be_visible()
    server.play.run = RUN | {"metrics": [], "recipe": "prompt = " + "江" * 500}
    desk.open().click("tab-run")
    expect(desk.at("#run")).to_contain_text("还没有评估过")
    assert desk.at("#run pre").evaluate("(pre) => pre.scrollWidth <= pre.clientWidth")


def test_settings_are_sent_where_they_act(desk: Desk, server: PageServer) -> None:
    desk.write(OPENING)
    desk.go_on()
    assert set(server.play.bodies("/v1/completions")[0]) == {
        "model", "prompt", "n", "logprobs", "max_tokens", "stream",
    }  # fmt: skip
    desk.click("show-settings")
    settings = {"temperature": "0.35", "memory": "0.3", "max_tokens": "20", "no_copy": "0"}
    for name, value in settings.items():
        desk.at(f"#setting-{name}").fill(value)
    desk.at("#setting-banned").fill("禁一\n\n禁二")
    desk.at("#setting-banned").blur()
    desk.at("#setting-stop_at").select_option("sentence")
    expect(desk.at("#memory")).to_be_visible()
    desk.go_on()
    sent = server.play.bodies("/v1/completions")[1]
    assert (sent["temperature"], sent["memory"], sent["max_tokens"]) == (0.35, 0.3, 20)
    assert (sent["banned"], sent["stop_at"], sent["no_copy"]) == (["禁一", "禁二"], "sentence", 0)
    assert "verse" not in sent and "rhyme" not in sent
    desk.at("#setting-on").check()
    desk.at("#setting-acrostic").fill("春夏")
    desk.at("#setting-acrostic").blur()
    desk.go_on()
    sent = server.play.bodies("/v1/completions")[2]
    form = {"verse": 5, "verse_lines": 4, "acrostic": "春夏", "rhyme": True, "max_tokens": 1000}
    assert form.items() <= sent.items()


def test_what_a_model_cannot_do_is_not_offered(desk: Desk, server: PageServer) -> None:
    server.play.model = dict.fromkeys(("no_copy", "verse", "memory"), "The corpus is gone.")
    desk.open().click("show-settings")
    expect(desk.at("#setting-temperature")).to_be_visible()
    for name in ("no_copy", "memory", "on"):
        expect(desk.at(f"#setting-{name}")).to_have_count(0)
    expect(desk.at("#panel-settings")).to_contain_text("不抄原文 — The corpus is gone.")
    expect(desk.at("#underlines")).to_be_hidden()


# -- the server ---------------------------------------------------------------------------------


def test_a_server_that_is_gone_is_said_and_writing_goes_on(desk: Desk, server: PageServer) -> None:
    desk.write(OPENING)
    server.stop()
    try:
        desk.press("Control+Enter")
        expect(desk.at(".notice.offline")).to_be_visible()
        desk.write("外面下着雪。")
        expect(desk.at("#saved")).to_have_text("已存")
    finally:
        server.start()
    expect(desk.at(".notice.offline")).to_have_count(0)
    desk.go_on()
    desk.ghost(WRITTEN)


def test_a_stream_that_breaks_leaves_what_came(desk: Desk, server: PageServer) -> None:
    server.play.pieces = 1
    desk.write(OPENING)
    desk.press("Control+Enter")
    desk.ghost(WRITTEN[:4])
    server.stop()
    server.start()
    expect(desk.at(".notice.offline")).to_be_visible()
    desk.press("Tab")
    desk.reads(OPENING + WRITTEN[:4])


def test_a_refusal_is_shown_until_the_same_is_answered(desk: Desk, server: PageServer) -> None:
    server.play.refusal = (429, "8 requests wait already; come back in 2 s.")
    desk.write(OPENING)
    desk.go_on()
    expect(desk.at(".notice.refused")).to_contain_text("8 requests wait")
    desk.click("colours")
    expect(desk.at("#layer > div > span").first).to_be_attached()
    expect(desk.at(".notice.refused")).to_be_visible()
    server.play.refusal = None
    desk.at("#text").focus()
    desk.go_on()
    expect(desk.at(".notice.refused")).to_have_count(0)


@pytest.mark.parametrize("token", ["sesame", "芝麻开门"])
def test_a_server_with_a_token_is_asked_with_it(desk: Desk, server: PageServer, token: str) -> None:
    server.play.token = token
    desk.open()
    expect(desk.at("#token")).to_be_visible()
    for tried in ("wrong", "错的", token):
        desk.at("#token-text").fill(tried)
        desk.press("Enter")
    expect(desk.at("#token")).to_be_hidden()
    expect(desk.at("#model option")).to_have_text("novel")
    desk.open()
    expect(desk.at("#model option")).to_have_text("novel")
    assert desk.page.evaluate(
        "(token) => Object.keys(localStorage).every((key) => localStorage[key] !== token)", token
    )


def test_escape_leaves_the_tokens_dialog_and_nothing_behind_it(desk: Desk, server: PageServer) -> None:
    desk.click("show-notes")
    server.play.token = "sesame"
    desk.at("#pinned").fill("沈砚清")  # how much of the window it fills is asked
    expect(desk.at("#token")).to_be_visible()
    desk.press("Escape")
    expect(desk.at("#token")).to_be_hidden()
    expect(desk.at("#panel-notes")).to_be_visible()


def test_who_does_not_know_the_token_can_still_write_and_try_again(desk: Desk, server: PageServer) -> None:
    server.play.token = "sesame"
    desk.open()
    expect(desk.at("#token")).to_be_visible()
    desk.press("Escape")
    expect(desk.at(".notice.refused")).to_be_visible()
    desk.write(OPENING)
    desk.reads(OPENING)
    desk.click("continue")
    desk.at("#token-text").fill("sesame")
    desk.click("token-enter")
    expect(desk.at("#model option")).to_have_text("novel")
    expect(desk.at(".notice.refused")).to_have_count(0)


# -- hostile text ---------------------------------------------------------------------------------

HIT = "window.hit=1"
FRAGMENTS = [
    f"<script>{HIT}</script>", f"<img src=x onerror={HIT}>", f"<svg onload={HIT}>", f"javascript:{HIT}",
    f'"><iframe srcdoc="<script>parent.{HIT}</script>">', f"' autofocus onfocus='{HIT}", f"${{{HIT}}}",
    f"{{{{constructor.constructor('{HIT}')()}}}}", f"</textarea></div><script>{HIT}</script>", "</title>",
    f"<details open ontoggle={HIT}>", f"<a href='javascript:{HIT}'>点</a>", f"alert(1);{HIT}//", "<!--", "]]>",
    "<link rel=stylesheet href=//evil.invalid/a.css>", "<meta http-equiv=refresh content='0;url=//evil.invalid'>",
    "<base href=//evil.invalid>", "<style>@import'//evil.invalid';*{display:none}</style>",
    "<form action=//evil.invalid><button>", "url(//evil.invalid/a.png)", "[x](http://evil.invalid)", "&lt;b&gt;&#60;",
    "data: [DONE]\n\n", "event: error\n", '{"error":{"message":"x"}}', "__proto__", "constructor", "toString",
    "\u202e反", "\u2066\u2067", "\u200b\ufeff", "\x00", "\x01\x1b[31m", "\x7f\x85", "\u2028\u2029", "\r\n", "\r",
    "\ud83d半", "半\udc00", "😀", "👨\u200d👩\u200d👧", "\ufffe\uffff", "\U0010ffff", "e" + "\u0301" * 200,
    "长" * 900, "W" * 900, " " * 300, "\t" * 40, "\n" * 30, "bytes:\\xe6", "<|endoftext|>", "%00%n%s", "../../..",
]  # fmt: skip


def hostile(count: int) -> list[str]:
    draw = random.Random(0)
    rest = ["".join(draw.choices(FRAGMENTS, k=draw.randint(2, 3))) for _ in range(count - len(FRAGMENTS))]
    return FRAGMENTS + rest


HALVES = "[\ud800-\udfff]"
ALL_KINDS = "[...new Set([...document.querySelectorAll('*')].map((element) => element.tagName))].sort()"
NOTHING_HAPPENED = """() => window.hit === undefined
  && document.querySelectorAll('script').length === 1 && location.pathname === '/'
  && ![...document.querySelectorAll('*')].some((e) => [...e.attributes].some(({ name }) => name.startsWith('on')))"""


@pytest.fixture
def guarded(desk: Desk) -> Iterator[Desk]:
    """Whatever is written, nothing runs, nothing is asked for elsewhere, no new kind of element appears."""
    yield desk
    assert desk.page.evaluate(NOTHING_HAPPENED)
    assert set(desk.page.evaluate(ALL_KINDS)) <= {
        "A", "ARTICLE", "ASIDE", "B", "BODY", "BUTTON", "CIRCLE", "DETAILS", "DIALOG", "DIV", "FIELDSET", "FOOTER",
        "FORM", "G", "H1", "H2", "H3", "HEAD", "HEADER", "HTML", "I", "INPUT", "KBD", "LABEL", "LEGEND", "LI", "LINK", "MAIN",
        "MARK", "META", "NAV", "OL", "OPTION", "P", "PATH", "PRE", "SCRIPT", "SELECT", "SMALL", "SPAN", "SUMMARY",
        "SVG", "TEXT", "TEXTAREA", "TITLE", "UL", "circle", "g", "path", "svg", "text",
    }  # fmt: skip
    assert desk.page.evaluate("document.querySelectorAll('link, meta').length") == 5
    assert not desk.dialogs


def test_200_hostile_strings_of_a_model_are_only_text(guarded: Desk, server: PageServer) -> None:
    texts = hostile(200)
    server.play.texts = list(texts)
    guarded.click("colours")
    guarded.at("#ways").select_option("4")
    guarded.at("#text").focus()
    for number in range(0, 200, 4):
        server.play.alternatives = dict.fromkeys(texts[number : number + 4], -1.0)
        guarded.go_on()
        shown = guarded.at(".card .text").evaluate_all(
            "(all) => all.map((e) => e.textContent.replaceAll('\\n', '¶'))"
        )
        for seen, text in zip(shown, texts[number : number + 4], strict=True):
            whole = re.sub(HALVES, "\ufffd", re.sub("[\n\r]", "¶", text))
            assert whole.endswith(seen) and not whole.removesuffix(seen).strip("¶ \t\u3000")
            assert seen or not whole
        guarded.press("Tab", "ArrowRight", "ArrowLeft")
        guarded.at(".card").nth(number // 4 % 4).click()
        expect(guarded.at(".card")).to_have_count(0)
        guarded.press("Alt+ArrowDown")
        guarded.press("Escape")
        if number % 20 == 0:
            guarded.press("Control+A", "Delete")


def test_200_hostile_strings_that_are_typed_are_only_text(guarded: Desk, server: PageServer) -> None:
    guarded.click("colours")
    typed = ""
    for number, text in enumerate(hostile(200)):
        typed += re.sub("\r\n|\r", "\n", re.sub(HALVES, "\ufffd", text))
        assert guarded.page.evaluate(PASTE, text) == [typed, typed]
        if number % 20 == 19:
            guarded.go_on()
            guarded.press("Escape", "Control+A", "Delete")
            typed = ""
    assert len(server.play.bodies("/v1/completions")) >= 10


PASTE = """(text) => {
  const [area, layer] = ["text", "layer"].map((id) => document.getElementById(id));
  area.setRangeText(text, area.selectionStart, area.selectionEnd, "end");
  area.dispatchEvent(new InputEvent("input", { inputType: "insertFromPaste" }));
  return [area.value, [...layer.children].map((line) => line.textContent).join("\\n")];
}"""


def test_a_hostile_server_names_and_says_only_text(guarded: Desk, server: PageServer) -> None:
    text = re.sub(HALVES, "", "".join(FRAGMENTS))
    server.play.run = {
        "name": text,
        "recipe": text,
        "metrics": RUN["metrics"],
        "samples": [{"step": 1, "text": text}],
    }
    server.play.model = {"sample": {"temperature": text}}
    server.play.refusal = (400, text)
    guarded.open()
    guarded.at("#title").fill(text)
    guarded.write("第一章 " + text)
    guarded.press("Control+Enter")
    expect(guarded.at(".notice.refused")).to_be_visible()
    for panel in ("books", "notes", "outline", "branches", "settings"):
        guarded.click(f"show-{panel}")
        expect(guarded.at(f"#panel-{panel}")).to_be_visible()
    guarded.click("tab-run")
    expect(guarded.at(".sample")).to_be_visible()
    guarded.page.wait_for_timeout(300)


# -- how it looks ---------------------------------------------------------------------------------

LAYERED = [
    "入冬以后，镇上的人便不大出门了。“沈砚清”坐在窗下——磨墨……", "W" * 400, "长" * 300, "a\tb\t\tc " * 40,
    "mixed 混排 text，with words that break " * 12, "😀👨\u200d👩\u200d👧 e\u0301\u0301 " * 30, "\u202e反\u202c שלום عربي " * 20,
    " " * 200, "行\n\n\n  行\n", "—" * 120, "……" * 80, "！？。，、；：" * 30,
]  # fmt: skip


@pytest.mark.parametrize("width", [360, 1280])
def test_what_is_seen_lies_where_it_is_typed(browser: Browser, server: PageServer, width: int) -> None:
    with Desk(browser, server.url, viewport={"width": width, "height": 800}) as desk:
        desk.open()
        for text in LAYERED:
            desk.at("#text").fill(text)
            layer, area = desk.page.evaluate(
                """() => {
                  const [layer, area] = ["layer", "text"].map((id) => document.getElementById(id));
                  const lines = [...layer.children].reduce((sum, line) => sum + line.getBoundingClientRect().height, 0);
                  area.style.height = "0";
                  const typed = area.scrollHeight;
                  area.style.height = "";
                  return [lines, typed];
                }"""
            )
            assert abs(layer - area) <= 2, text[:20]


def everything(desk: Desk) -> Iterator[str]:
    """Each thing that can be seen, after it has been opened."""
    desk.write("第一章 来信\n入冬以后，镇上的人便不大出门了，连狗也不叫。")
    desk.go_on()
    yield "ghost"
    desk.press("Tab", "Control+z")
    desk.at("#ways").select_option("3")
    desk.at("#text").focus()
    desk.go_on()
    yield "candidates"
    desk.at(".card").nth(1).click()
    desk.click("colours")
    expect(desk.at("#layer > div > span").first).to_be_attached()
    desk.click("underlines")
    yield "colours"
    desk.click_character(12)
    expect(desk.at("#alternatives")).to_be_visible()
    yield "alternatives"
    desk.press("Escape")
    for panel in ("books", "notes", "outline", "branches", "settings"):
        desk.click(f"show-{panel}")
        desk.page.wait_for_timeout(150)
        yield panel
        desk.click("panel-close")
    desk.click("tab-run")
    expect(desk.at(".chart")).to_be_visible()
    yield "run"


def test_a_phone_shows_that_the_text_is_saved(browser: Browser, server: PageServer) -> None:
    with Desk(browser, server.url, viewport=PHONE) as desk:
        desk.open()
        desk.write("雨")
        expect(desk.at("#saved")).to_be_visible()
        expect(desk.at("#saved")).to_have_attribute("title", "已存")


@pytest.mark.parametrize("language", ["zh-CN", "en-GB"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_letters_can_be_read_and_a_phone_does_not_scroll_sideways(
    browser: Browser, server: PageServer, language: str, theme: Any
) -> None:
    server.play.run = RUN
    with Desk(browser, server.url, locale=language, color_scheme=theme, viewport=PHONE) as desk:
        desk.open()
        expect(desk.at("#tab-run")).to_have_text("训练" if language == "zh-CN" else "Run")
        for sight in everything(desk):
            assert desk.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), sight
            assert not desk.page.evaluate(PALE), sight
        assert not desk.wrong


PALE = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => top.slice(0, 3).map((value, i) => value * top[3] + below[i] * (1 - top[3]));
  const behind = (element) => {
    if (!element) return rgba("white");
    const { backgroundColor } = getComputedStyle(element);
    return over(rgba(backgroundColor), behind(element.parentElement));
  };
  const luminance = (colour) => {
    const [r, g, b] = colour.map((value) => value / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const pale = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest(":disabled, option, #text")) continue;
    const ground = behind(element);
    const style = getComputedStyle(element);
    const ink = over(rgba(element.closest("svg") ? style.fill : style.color), ground);
    const [light, dark] = [luminance(ink), luminance(ground)].sort((a, b) => b - a);
    const contrast = (light + 0.05) / (dark + 0.05);
    if (contrast < 4.5) pale.push([element.textContent.slice(0, 20), element.className, contrast]);
  }
  return pale;
}"""


def test_the_language_and_the_theme_are_switched_and_kept(desk: Desk) -> None:
    desk.click("show-settings")
    desk.click("language")
    expect(desk.at("#panel-title")).to_have_text("Settings")
    words = desk.page.evaluate("document.body.innerText").replace("中文", "").replace("研墨", "")
    assert not re.findall("[\u4e00-\u9fff]+", words)
    ground = desk.page.evaluate("getComputedStyle(document.body).backgroundColor")
    desk.click("theme")
    assert desk.page.evaluate("getComputedStyle(document.body).backgroundColor") != ground
    desk.open()
    expect(desk.at("#continue")).to_have_text("Continue")
    assert desk.at("html").get_attribute("lang") == "en"
    assert desk.page.evaluate("getComputedStyle(document.body).backgroundColor") != ground


def test_everything_is_reached_by_keyboard_alone(desk: Desk) -> None:
    desk.press("Shift+Tab")
    reached = []
    for _ in range(40):
        reached.append(desk.page.evaluate("document.activeElement.id"))
        desk.press("Tab")
    assert {
        "tab-write", "tab-run", "show-books", "show-notes", "show-outline", "show-branches", "show-settings",
        "language", "theme", "title", "text", "continue", "ways", "colours", "underlines",
    } <= set(reached)  # fmt: skip
    desk.at("#show-settings").focus()
    desk.press("Enter")
    expect(desk.at("#panel-settings")).to_be_visible()
    desk.press("Escape")
    expect(desk.at("#panel")).to_be_hidden()
    assert desk.page.evaluate("document.activeElement.id") == "text"


def test_every_word_stands_in_both_languages_and_is_used(server: PageServer) -> None:
    folder = Path(__file__).parents[2] / "src/yanmo/server/page"
    words = (folder / "strings.js").read_text(encoding="utf-8")
    keys = re.findall(r'^  (\w+): \["[^"]+", "[^"]+"\],$', words, re.MULTILINE)
    assert len(keys) == len(re.findall(r"^  \w+: \[", words, re.MULTILINE)) > 100
    used = "".join(
        path.read_text(encoding="utf-8") for path in folder.glob("*.*") if path.name != "strings.js"
    )
    assert not [key for key in keys if not re.search(rf"\b{key.removesuffix('Help')}\b", used)]
    assert not [
        path.name
        for path in folder.glob("*.js")
        if re.search(r"innerHTML|outerHTML|\beval\(|document\.write", path.read_text(encoding="utf-8"))
    ]

"""The page before the real server with a tiny model."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.makers.desk import Desk
from tests.makers.page_server import ServerThread
from tests.makers.runs import tiny_recipe
from tests.makers.texts import invented_text
from yanmo import load
from yanmo.core.console import Console
from yanmo.generate.writer import Writer
from yanmo.server.app import create_app
from yanmo.server.served import ServedModel
from yanmo.train.trainer import train

LONGER = (
    "train.max_steps=120",
    "train.eval_interval=40",
    "train.checkpoint_interval=40",
    "model.block_size=32",
)
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Writer:
    folder = tmp_path_factory.mktemp("page")
    text = folder / "novel.txt"
    text.write_text(invented_text(6000), encoding="utf-8")
    run = train(tiny_recipe(text, more=LONGER), folder / "novel", Console(io.StringIO()))
    return load(run.folder)


@pytest.fixture(scope="module")
def choices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("choices") / "choices.jsonl"


@pytest.fixture(scope="module")
def server(writer: Writer, choices: Path) -> Iterator[ServerThread]:
    found = ServerThread(create_app([ServedModel("novel", writer)], keep_choices=choices))
    yield found
    found.stop()


@pytest.fixture
def desk(browser: Browser, server: ServerThread) -> Iterator[Desk]:
    with Desk(browser, server.url) as found:
        yield found.open()
        expect(found.at(".notice")).to_have_count(0)
        assert not found.wrong


def greedy(desk: Desk, tokens: int = 12) -> None:
    desk.click("show-settings")
    desk.at("#setting-temperature").fill("0")
    desk.at("#setting-max_tokens").fill(str(tokens))
    desk.at("#setting-max_tokens").blur()
    desk.click("panel-close")


OPENING = "😀他推开门，"


def test_the_page_writes_what_the_model_writes(desk: Desk, writer: Writer) -> None:
    greedy(desk)
    desk.write(OPENING)
    desk.go_on()
    desk.press("Tab")
    desk.reads(OPENING + writer.write(OPENING, temperature=0, max_new_tokens=12))


def test_a_poem_has_the_form_that_the_settings_ask_for(desk: Desk) -> None:
    desk.click("show-settings")
    desk.at("#setting-on").check()
    desk.at("#setting-acrostic").fill("雨门")
    desk.at("#setting-acrostic").blur()
    desk.click("panel-close")
    desk.write(OPENING)
    desk.go_on()
    han = "[\u4e00-\u9fff]"
    # behind what was written before, a poem begins a line of its own
    lines = f"\\s*雨{han}{{4}}，门{han}{{4}}。\\s*{han}{{5}}，{han}{{5}}。"
    expect(desk.at(".ghost")).to_have_text(re.compile(f"^{lines}$"))


def test_colours_are_the_models_surprise_typed_and_written(desk: Desk, writer: Writer) -> None:
    greedy(desk, 6)  # so that nothing leaves the window
    desk.write(OPENING[1:])
    desk.go_on()
    desk.press("Tab")
    desk.click("colours")
    written = desk.levels_of_typed()
    desk.reload()  # the same text is scored whole, as if it had been typed
    desk.click("colours")
    assert desk.levels_of_typed() == written
    assert len(set(written)) >= 2


def test_an_alternative_goes_on_from_there(desk: Desk) -> None:
    greedy(desk)
    desk.write("他推开门，外面下着雨，他就走了。")
    desk.click("colours")
    expect(desk.at("#layer > div > span").first).to_be_attached()
    desk.click_character(9)
    row = desk.at("#alternatives button:enabled").first
    expect(row).to_contain_text("%")
    chosen = row.locator(".token").inner_text()
    row.click()
    expect(desk.at(".ghost")).not_to_be_empty()
    desk.reads("他推开门，外面下着" + chosen.replace("↵", "\n").replace("空格", " "))


def test_candidates_have_their_probability_and_what_is_chosen_is_kept(desk: Desk, choices: Path) -> None:
    desk.write(OPENING)
    desk.at("#ways").select_option("3")
    desk.at("#text").focus()
    desk.go_on()
    expect(desk.at(".card .measure")).to_have_text([re.compile(r"平均概率 \d")] * 3)
    texts = desk.at(".card .text").all_inner_texts()
    desk.at(".card").nth(1).click()
    expect(desk.at(".card")).to_have_count(0)
    assert desk.text.startswith(OPENING) and len(desk.text) > len(OPENING)
    desk.page.wait_for_timeout(200)
    assert choices.read_text(encoding="utf-8").count('"chosen"') == len({*texts} - {texts[1], ""})


def test_who_stops_frees_the_slot(desk: Desk) -> None:
    desk.click("show-settings")
    desk.at("#setting-max_tokens").fill("2000")
    desk.at("#setting-max_tokens").blur()
    desk.write(OPENING)
    desk.press("Control+Enter")
    expect(desk.at(".ghost")).not_to_be_empty()
    desk.click("continue")
    expect(desk.at("#continue")).to_have_text("续写")
    desk.page.wait_for_timeout(300)
    health = desk.page.evaluate("fetch('health').then((answer) => answer.json())")
    assert (health["running"], health["waiting"]) == (0, 0)


def test_the_run_the_outline_the_window_and_every_setting_are_understood(desk: Desk) -> None:
    desk.click("tab-run")
    expect(desk.at("#run h1")).to_have_text("novel")
    expect(desk.at(".chart path.curve")).to_have_count(2)
    expect(desk.at(".chart path.level")).to_have_count(3)
    expect(desk.at("#run pre")).to_contain_text("n_layer = 2")
    desk.click("tab-write")
    desk.write("第一章 来信\n正文。\n第二章 雪夜\n正文。\n")
    desk.click("show-outline")
    expect(desk.at(".outline button")).to_have_text(["第一章 来信", "第二章 雪夜"])
    expect(desk.at("#window-words")).to_have_text("窗口已满 32")
    desk.click("show-notes")
    desk.at("#pinned").fill("沈砚清")
    desk.click("show-settings")
    for box in desk.at("#panel-settings input[type=number]").all():
        box.fill(
            box.get_attribute("max")
            if box.get_attribute("id") == "setting-top_p"
            else box.get_attribute("min")
        )
    desk.at("#setting-max_tokens").fill("5")
    desk.at("#setting-banned").fill("雨")
    for end in ("sentence", "paragraph", "chapter", "line"):
        desk.at("#setting-stop_at").select_option(end)
        desk.at("#text").focus()
        desk.go_on()
    assert desk.at(".notice").all_inner_texts() == []


def test_what_stands_in_the_training_text_is_underlined_and_not_written_where_it_must_not(
    desk: Desk, writer: Writer
) -> None:
    copied = invented_text(6000)[1000:1020].replace("\n", "")
    greedy(desk)
    desk.write(f"😀囧{copied}囧")
    desk.click("underlines")
    expect(desk.at(".copied")).to_have_text(copied)
    desk.click("show-settings")
    desk.at("#setting-no_copy").fill("3")
    desk.at("#setting-memory").fill("0.3")
    desk.at("#setting-memory").blur()
    expect(desk.at("#memory")).to_be_visible()
    desk.press("Control+A", "Delete")
    desk.at("#text").fill(OPENING)
    desk.at("#text").focus()
    desk.go_on()
    desk.press("Tab")
    desk.reads(OPENING + writer.write(OPENING, temperature=0, max_new_tokens=12, no_copy=3, memory=0.3))


def test_a_token_is_asked_for(browser: Browser, writer: Writer) -> None:
    server = ServerThread(create_app([ServedModel("novel", writer)], token="sesame"))
    try:
        with Desk(browser, server.url) as desk:
            desk.open()
            desk.at("#token-text").fill("wrong")
            desk.press("Enter")
            expect(desk.at("#token-wrong")).not_to_be_empty()
            desk.at("#token-text").fill("sesame")
            desk.press("Enter")
            expect(desk.at("#model option")).to_have_text("novel")
            desk.write(OPENING)
            desk.go_on()
            expect(desk.at(".ghost")).not_to_be_empty()
            assert not desk.wrong
    finally:
        server.stop()

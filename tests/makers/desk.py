"""A writer at the page, in a real Chromium: what they press and what they see."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

PATIENCE_MS = 15_000
PHONE = {"width": 360, "height": 720}


@contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    """Debian's own; as root it has no sandbox."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        options = [*arguments, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        yield browser
        browser.close()


class Desk:
    """A browser of one's own with the page open. Whatever the page does that it never should is in ``wrong``."""

    def __init__(self, browser: Browser, url: str, **habits: Any) -> None:
        self.url = url
        self.wrong: list[str] = []
        self.dialogs: list[str] = []
        self.context = browser.new_context(**{"locale": "zh-CN", **habits})
        self.context.set_default_timeout(PATIENCE_MS)
        self.context.on("page", self._watch)
        self.page = self.context.new_page()

    def __enter__(self) -> "Desk":
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def _watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.wrong.append(f"an error: {error}"))
        page.on("request", lambda request: self._asked(request.url))
        page.on("console", lambda message: self._said(message.text))
        page.on("dialog", self._asks)

    def _asked(self, url: str) -> None:
        if not url.startswith((self.url, "data:", "blob:")):
            self.wrong.append(f"a request to {url}")

    def _said(self, text: str) -> None:
        if "Content Security Policy" in text:
            self.wrong.append(text)

    def _asks(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.accept()

    # -- what a writer does ---------------------------------------------------------------------

    def open(self) -> "Desk":
        self.page.goto(self.url)
        expect(self.page.locator("body[data-ready]")).to_be_attached()
        return self

    def reload(self) -> None:
        expect(self.at("#saved")).to_have_text("已存")
        self.open()

    def write(self, text: str) -> None:
        """At the caret, as from a clipboard."""
        self.at("#text").focus()
        self.page.keyboard.insert_text(text)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def go_on(self) -> None:
        """Ask for a continuation, and wait for its end."""
        self.press("Control+Enter")
        expect(self.at("#continue")).to_have_text(re.compile("续写|Continue"))

    def click(self, name: str) -> None:
        self.at(f"#{name}").click()

    def click_character(self, place: int) -> None:
        x, y = self.page.evaluate(MIDDLE, place)
        self.page.mouse.click(x, y)

    # -- what a writer sees ---------------------------------------------------------------------

    def at(self, selector: str, **narrowed: Any) -> Locator:
        return self.page.locator(selector, **narrowed)

    @property
    def text(self) -> str:
        return self.at("#text").input_value()

    def reads(self, text: str) -> None:
        expect(self.at("#text")).to_have_value(text)

    def ghost(self, text: str | None) -> None:
        if text is None:
            expect(self.at(".ghost")).to_have_count(0)
        else:
            expect(self.at(".ghost")).to_have_text(text)

    def levels(self) -> list[int]:
        """Of every UTF-16 unit of the manuscript its colour; -1 for none."""
        return self.page.evaluate(LEVELS)

    def levels_of_typed(self) -> list[int]:
        """The same, as soon as the second character, which nobody foresees, has one: typed text comes last."""
        self.page.wait_for_function(f"() => ({LEVELS})()[1] > 0")
        return self.levels()


WALK = """
  const walker = document.createTreeWalker(document.getElementById("layer"), NodeFilter.SHOW_TEXT);
"""
MIDDLE = f"""(place) => {{
  {WALK}
  const lines = document.getElementById("text").value.slice(0, place).split("\\n").length - 1;
  for (let left = place - lines; walker.nextNode(); left -= walker.currentNode.length) {{
    if (left >= walker.currentNode.length) continue;
    const range = document.createRange();
    range.setStart(walker.currentNode, left);
    range.setEnd(walker.currentNode, left + 1);
    range.startContainer.parentElement.scrollIntoView({{ block: "center" }});
    const {{ x, y, width, height }} = range.getBoundingClientRect();
    return [x + width / 2, y + height / 2];
  }}
}}"""
LEVELS = f"""() => {{
  {WALK}
  const found = [];
  while (walker.nextNode()) {{
    const level = Number(/surprise-(\\d)/.exec(walker.currentNode.parentElement.className)?.[1] ?? -1);
    for (const unit of walker.currentNode.data.split("")) found.push(level);
  }}
  return found;
}}"""

"""The pages of runs in Chromium: in both languages and themes, on a desk and on a phone."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.makers.console import here
from tests.makers.desk import PHONE, chromium
from tests.makers.runs import Trained

pytestmark = pytest.mark.browser
LONG = "a" * 400
WIDTHS = "[document.documentElement.scrollWidth, window.innerWidth]"
OUTSIDE = """() => [...document.querySelectorAll('.said foreignObject')]
  .filter(one => one.getClientRects().length && one.scrollHeight > one.getBoundingClientRect().height + 1)
  .map(one => one.textContent)"""
"""Texts that need more room than was laid out for them."""


@pytest.fixture
def pages(trained: Trained) -> list[Path]:
    """A report and a comparison, with all that could break a layout."""
    name = f"run{LONG[:180]}"
    trained(name)
    trained("b", "model.n_embd=32")
    Path(name, "samples", "step-00000012.txt").write_text(f"{LONG}\n{'“' * 300}\n江湖", encoding="utf-8")
    rows = Path(name, "metrics.jsonl")
    health = {"event": "health", "step": 8, "name": "spike", "sentence": LONG, "hint": LONG}
    rows.write_text(rows.read_text(encoding="utf-8") + json.dumps(health) + "\n", encoding="utf-8")
    share = {"value": 0.3, "low": 0.2, "high": 0.4}
    spans, span = {"8": share, "20": share}, {"before": LONG, "span": LONG, "after": LONG}
    copies = {"samples": spans, "held_out": spans, "longest": {"here": span, "there": span}}
    Path(name, "copies.json").write_text(json.dumps({"copies": copies}), encoding="utf-8")
    assert here("report", name).returncode == 0
    assert here("report", name, "b", "--out", "both.html").returncode == 0
    return [Path(name, "report.html"), Path("both.html")]


@pytest.mark.parametrize(("language", "asked"), [("zh-CN", "是什么"), ("en-US", "What it is")])
def test_a_page_speaks_the_browsers_language_and_fits_its_width(
    pages: list[Path], language: str, asked: str
) -> None:
    with chromium(f"--lang={language}", f"--accept-lang={language}") as browser:
        for size in (PHONE, {"width": 1200, "height": 900}):
            view = browser.new_page(viewport=size, color_scheme="dark")
            for page in pages:
                view.goto(page.resolve().as_uri())
                width, window = view.evaluate(WIDTHS)
                assert width <= window, f"{page} is {width} wide at {window}"
                assert not view.evaluate(OUTSIDE)
            view.goto(pages[0].resolve().as_uri())
            assert visible_heading(view) == asked


def visible_heading(view: Page) -> str:
    """Of the two texts under a heading the one that is drawn."""
    shown = "one => [...one.querySelectorAll('foreignObject')].filter(o => o.getClientRects().length)"
    texts = view.locator(".answers h3").first.evaluate(f"one => ({shown})(one).map(o => o.textContent)")
    assert len(texts) == 1
    return str(texts[0])

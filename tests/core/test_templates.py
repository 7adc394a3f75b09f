"""Pages: what is put in is text, and nothing is forgotten in silence."""

import jinja2
import pytest

from yanmo.core.templates import PAGES, render


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "</title><img src=x>", "a & b", "\"'<"])
def test_what_is_put_in_is_text(text: str) -> None:
    shown = render("page.html", title=text)
    assert text not in shown and "<img" not in shown and "<script" not in shown
    assert shown.count("<title>") == shown.count("<h1>") == 1


@pytest.mark.parametrize("name", PAGES.list_templates(extensions=["html"]))
def test_a_forgotten_value_is_no_gap(name: str) -> None:
    if "{{" in PAGES.loader.get_source(PAGES, name)[0].partition("{% macro")[0]:  # type: ignore[union-attr]
        with pytest.raises(jinja2.UndefinedError):
            render(name)

import importlib.util

import pytest

from yanmo.cli.crawl import check_extra, describe
from yanmo.core.commands import install_command
from yanmo.core.errors import ConfigError


def test_a_missing_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    check_extra()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        check_extra()
    assert caught.value.hint == install_command("crawl")


def test_a_page_is_described_in_lines() -> None:
    links = {"chapter": [f"http://a.example/{n}" for n in range(9)], "list": [], "next": []}
    page = {
        "url": "http://a.example/",
        "title": "题",
        "author": "",
        "by": "selector",
        "text": "正文",
        "links": links,
    }
    lines = describe(page)
    assert "title        题" in lines and not any(line.startswith("author") for line in lines)
    assert "chapter      9 links" in lines and sum("http://a.example/" in line for line in lines) == 6
    assert lines[-1] == "正文"

"""Held-out text that stands in the training text is found, and nothing else."""

import pytest

from yanmo.config import CorpusConfig
from yanmo.data.contamination import contamination
from yanmo.text import demo

STORIES = [story.text for _, story in zip(range(300), demo.stories(), strict=False)]


def share(tmp_path, text):
    path = tmp_path / "novel.txt"
    path.write_text(text, encoding="utf-8")
    return contamination(CorpusConfig(path=(str(path),))).share


def test_a_novel_that_ends_as_it_began_is_found_out(tmp_path):
    novel = "".join(STORIES)
    end = novel[-len(novel) // 15 :]
    assert share(tmp_path, novel[: len(novel) // 2]) < 0.1
    assert share(tmp_path, end + novel) == pytest.approx(1, abs=0.1)

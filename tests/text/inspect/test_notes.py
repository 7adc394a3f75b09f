"""What should be known of a corpus before training is said, with the way out, and of a plain one nothing."""

import json

import pytest

from tests.makers.console import here
from yanmo.settings.schema import CorpusConfig
from yanmo.text.inspect.notes import Notes
from yanmo.text.read.documents import CorpusCounts, read_documents

STORY = "他走到河边，坐下来，很久没有说话。天慢慢黑了，对岸的灯一盏一盏亮起来。\n"


def said(*texts: str) -> str:
    notes = Notes()
    for text in texts:
        notes.add(text)
    again = Notes(**json.loads(json.dumps(notes.as_json())))
    assert [*again.said()] == [*notes.said()]
    return "\n".join(notes.said())


def novel(chapters: int) -> str:
    return "".join(f"第{number}章 夜\n{STORY}" for number in range(1, chapters + 1))


def scrambled(text: str) -> str:
    """As a site writes it whose font draws the commonest characters from the private-use area."""
    return "".join(chr(0xE400 + ord(c) % 64) if c in "他了来的一很边天" else c for c in text)


def test_a_novel_of_hundreds_of_chapters_is_told_of_the_setting_that_cuts_it():
    assert "120 chapters stand in 1 document: corpus.split_chapters=true" in said(novel(120))
    assert said(novel(99), novel(99)) == ""


def test_characters_of_a_font_are_named_as_such():
    found = said(STORY * 9, scrambled(STORY) * 9)
    assert "of 1 document are private-use ones: a font" in found and "another encoding" not in found
    assert said(STORY * 60 + "\ue001") == ""


@pytest.mark.parametrize("mark", ["<|endoftext|>", "<|startoftext|>", "</s>", "[SEP]", "<eos>"])
def test_marks_between_texts_are_told(mark):
    assert f"{mark} stands in the text 3 times" in said(f"{STORY}\n{mark}\n" * 3)
    assert said(f"{STORY}{mark}\n") == ""


def test_marks_within_a_line_of_html_are_none():
    assert said("<p><s>划掉</s>他走了</p>\n" * 9) == ""


def test_a_separator_parts_documents_and_counts_add_up(tmp_path):
    (tmp_path / "a.txt").write_text(f"{STORY}<|endoftext|>\n\n{STORY}\n<|endoftext|>\n \n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text(
        json.dumps({"text": f"{STORY}<|endoftext|>{STORY}"}) + '\n{"text": "<|endoftext|> <|endoftext|>"}',
        encoding="utf-8",
    )
    counts = CorpusCounts()
    found = [*read_documents(CorpusConfig(path=(str(tmp_path),), separator="<|endoftext|>"), counts)]
    assert [one.text for one in found] == [*[STORY.strip()] * 4]
    assert [one.id for one in found] == ["a.txt#1", "a.txt#2", "b.jsonl#1#1", "b.jsonl#1#2"]
    assert counts.documents_dropped == {"empty": 1} and counts.documents_read == 5
    plain = [*read_documents(CorpusConfig(path=(str(tmp_path),)))]
    assert len(plain) == 3 and plain[0].text.count("<|endoftext|>") == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_inspect_and_plan_say_it_and_clean_drops_it(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    text = scrambled(STORY) * 40
    (tmp_path / name).write_text(text if name == "a.txt" else json.dumps({"text": text}), encoding="utf-8")
    looked, planned = here("inspect", name), here("plan", name, "model.block_size=32")
    again = here("plan", name, "model.block_size=32")
    assert all("a font of the site" in one.stdout + one.stderr for one in (looked, planned, again))
    cleaned = here("clean", name)
    assert cleaned.returncode != 0 and "garbled: 1" in cleaned.stderr

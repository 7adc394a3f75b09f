"""The corpus doctor: what it says of a corpus is true, and its page shows no text as HTML."""

import json
import tracemalloc
from collections import Counter
from html.parser import HTMLParser

import pytest

from yanmo.cli.corpus import report_lines
from yanmo.core.console import Console
from yanmo.core.outputs import MARK
from yanmo.settings.recipe import load_cleaning
from yanmo.text.clean.run import run
from yanmo.text.demo import stories
from yanmo.text.inspect import report as report_module
from yanmo.text.inspect.page import page
from yanmo.text.inspect.report import BINS, Report, inspect, is_poem, scripts
from yanmo.text.read.documents import Document

STORIES = [story.text for _, story in zip(range(12), stories.stories(), strict=False)]
BANNER = "墨香书屋，好书天天见"


@pytest.fixture
def corpus(tmp_path):
    texts = [*STORIES[:6], STORIES[0], "“" * 300, "他说：“没有完。\x07\ue001\ufffd,好."]
    rows = [json.dumps({"text": f"{text}\n{BANNER}"}, ensure_ascii=False) for text in texts]
    (tmp_path / "a.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "b.txt").write_bytes(
        "第一回　雪夜\n\n他来了。\n\n第二回　雨夜\n\n她走了。www.xiaoshuo9.com".encode("gb18030")
    )
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\x00\x00\x01" * 99)
    (tmp_path / "d.doc").write_bytes(b"x")
    return tmp_path


@pytest.fixture
def report(corpus):
    return inspect(load_cleaning([], [str(corpus)]), None, Console(is_main=False))


def test_files_are_listed_with_their_encoding_or_their_trouble(report):
    assert [file.path for file in report.files] == ["a.jsonl", "b.txt", "c.txt"]
    assert [file.encodings for file in report.files] == [["utf-8"], ["gb18030"], []]
    assert [bool(file.unreadable) for file in report.files] == [False, False, True]
    assert report.passed_over == {".doc": 1}
    assert report.bytes == sum(file.bytes for file in report.files)


def test_counts_are_exact(report):
    assert report.documents == 10 == sum(file.documents for file in report.files) == sum(report.lengths)
    assert report.characters == sum(file.characters for file in report.files)
    assert report.characters == report.characters_seen.total() == report.tokens["char"]
    assert report.forms["chapters"] == 2
    assert report.odd_characters["private-use"] == {"U+E001": 1}
    assert report.odd_characters["lost"] == {"U+FFFD": 1}
    assert report.unbalanced["“”"] == 2


def test_what_it_says_clean_would_do_is_what_clean_does(report, corpus, tmp_path):
    (corpus / "c.txt").unlink()
    done = run(load_cleaning([], [str(corpus)]), tmp_path / "out.jsonl", Console(is_main=False), dedup=True)
    assert report.dropped == done.dropped
    assert report.removed == {k: v for k, v in done.removed.items() if k != "repeated_paragraphs"}
    assert report.ads


def test_repeated_lines_are_found_and_proposed_and_the_proposal_works(report, corpus, tmp_path):
    assert (BANNER, 9) in report.repeated_lines
    name, _, value = report.proposal().partition("=")
    config = load_cleaning([f"{name}={value.strip(chr(39))}", "clean.ads=false"], [str(corpus / "a.jsonl")])
    run(config, tmp_path / "out.jsonl", Console(is_main=False))
    assert BANNER not in (tmp_path / "out.jsonl").read_text(encoding="utf-8")


def test_a_line_repeated_within_one_document_is_not_told_as_of_many(tmp_path):
    chapters = "".join(f"第{n}章 夜\n他走了{n}里路。\n{BANNER}\n" for n in range(1, 8))
    (tmp_path / "a.txt").write_text(chapters, encoding="utf-8")
    found = inspect(load_cleaning([], [str(tmp_path / "a.txt")]), None, Console(is_main=False))
    assert found.repeated_lines == [] and found.repeated_within == [(BANNER, 7)]
    assert found.forms["chapters"] == 7 and found.lines == 21
    assert BANNER in found.proposal()
    assert any("7 times" in line for line in report_lines(found))
    assert not any("documents:" in line for line in report_lines(found))


def test_a_document_costs_little_memory(tmp_path):
    def cost(documents):
        path = tmp_path / f"{documents}.jsonl"
        rows = (json.dumps({"text": f"第{n}句，他走了{n * 7919}里。\n{BANNER}"}) for n in range(documents))
        path.write_text("\n".join(rows), encoding="utf-8")
        config = load_cleaning(["dedup.near=0"], [str(path)])
        tracemalloc.start()
        try:
            found = inspect(config, 1, Console(is_main=False))
            return tracemalloc.get_traced_memory()[1], found
        finally:
            tracemalloc.stop()

    cost(10)
    (once, _), (more, found) = cost(300), cost(2400)
    assert found.documents == 2400 == sum(found.lengths) and found.repeated_lines == [(BANNER, 2400)]
    assert more - once < 450 * 2100


def test_lines_are_counted_in_bounded_memory_and_the_frequent_ones_stay(monkeypatch):
    monkeypatch.setattr(report_module, "MAX_COUNTED_LINES", 100)
    lines = report_module.LineCounts()
    for number in range(1000):
        lines.add(Document(f"{BANNER}\n第{number}行，只有一次\n两次的第{number // 2}行", "x", {}))
        assert len(lines._times) <= 103 and lines._documents.keys() == lines._times.keys()
        assert len(lines._samples) <= 103
    across, within = lines.repeated()
    assert across[0] == (BANNER, 1000) and within == []


def test_lines_that_are_all_frequent_are_bounded_too(monkeypatch):
    monkeypatch.setattr(report_module, "MAX_COUNTED_LINES", 100)
    lines = report_module.LineCounts()
    text = "\n".join(f"每篇都有的第{number}行" for number in range(500))
    for _ in range(3):
        lines.add(Document(text, "x", {}))
        assert len(lines._times) <= 500
    assert lines.not_blank == 1500


@pytest.mark.parametrize("lengths", [[1], [1, 2], [3, 1, 2], [1, 1, 1, 9], [5, 5, 5, 5], [0, 7, 7, 2, 2]])
def test_the_median_is_the_length_in_the_middle(lengths):
    assert report_module._median(Counter(lengths)) == sorted(lengths)[len(lengths) // 2]


@pytest.mark.slow
def test_the_embedded_corpus_can_be_looked_at_too():
    found = inspect(load_cleaning(["dedup.near=0"], ["yanmo:demo"]), None, Console(is_main=False))
    assert found.documents == stories.STORY_COUNT and not found.dropped.get("garbled")


def test_as_json_is_plain(report):
    assert json.loads(json.dumps(report.as_json()))["documents"] == 10


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def test_the_page_stands_alone_and_shows_text_as_text(report):
    report.repeated_lines.append(("<script>alert(1)</script><img src=x onerror=y>", 3))
    tags = Tags()
    report.files[0].path = '"><iframe></iframe>.txt'
    shown = page(report, "<i>报告</i>")
    tags.feed(shown)
    names = {tag for tag, _ in tags.seen}
    assert shown.startswith(f"<!doctype html>\n{MARK}\n")
    assert {"svg", "table", "style"} <= names and not names & {"script", "img", "link", "iframe", "i"}
    assert not any(name in attrs for _, attrs in tags.seen for name in ("src", "href", "onerror", "onload"))


def test_the_page_of_one_novel_counts_chapters_and_lines_and_draws_no_bar_of_length_one(tmp_path):
    chapters = "".join(
        f"第{n}章 夜\n他走了{n}里路，“没有完。\n看书就到墨香书屋第{n}站\n" for n in range(1, 8)
    )
    (tmp_path / "a.txt").write_text(chapters * 3, encoding="utf-8")
    found = inspect(load_cleaning([], [str(tmp_path / "a.txt")]), None, Console(is_main=False))
    shown = page(found, "书")
    assert (
        "<b>21</b>" in shown
        and f"<b>{found.lines:,}</b>" in shown
        and f"<b>{len(chapters) * 3:,}</b>" in shown
    )
    assert "Length in characters" not in shown and "clean would change" not in shown
    assert "<p>“”</p>" in shown  # and no bar for the one document
    assert "看书就到墨香书屋第1站 (+6)" in shown and "第2站" not in shown.split("<code>")[0]


def test_the_page_speaks_chinese_to_a_chinese_browser_and_is_laid_out_by_any_width(report):
    shown = page(report, "书")
    tags = Tags()
    tags.feed(shown)
    asked = [attrs["systemlanguage"] for tag, attrs in tags.seen if "systemlanguage" in attrs]
    switches = sum(tag == "switch" for tag, _ in tags.seen)
    assert len(asked) == switches > 20 and all({"zh", "zh-CN", "zh-TW"} <= {*one.split(",")} for one in asked)
    assert "文字种类" in shown and "Letters by script" in shown
    assert (
        "font-size: 13px" not in shown and 'viewBox="0 0 900' not in shown
    )  # no text shrinks with a picture


def test_bars_are_as_long_as_their_numbers():
    picture = Tags()
    nothing = [0] * (len(BINS) + 1)
    found = Report(documents=1, lengths=nothing, scripts=Counter({"甲": 100, "乙": 50, "丙": 0}))
    picture.feed(page(found, "书"))
    widths = [float(attrs["width"]) for tag, attrs in picture.seen if tag == "rect"]
    assert len(widths) == 2 and widths[0] == pytest.approx(2 * widths[1], rel=0.01)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("床前明月光，疑是地上霜。\n举头望明月，低头思故乡。", True),
        ("朝辞白帝彩云间，千里江陵一日还。两岸猿声啼不住，轻舟已过万重山。", True),
        (STORIES[0], False),
        ("他来了。她走了。", False),
    ],
)
def test_poems_are_told_from_prose(text, is_one):
    assert is_poem(text) is is_one


def test_scripts_tell_traditional_from_simplified():
    from collections import Counter

    found = scripts(Counter("頭髮 头发 人 абв あ abc"))
    assert found == {"traditional only": 2, "simplified only": 2, "both": 1, "ru": 3, "ja": 1, "latin": 3}

"""Whole crawls of a site on loopback: what comes out, and that nothing is lost on the way."""

import hashlib
import io
import json
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from benchmarks.crawl_kill import measure

from tests.makers.processes import Child, as_yanmo
from tests.makers.site import Answer, Site, html, links, moved, robots, text_page, toml, zipped
from yanmo.core.console import Console
from yanmo.core.errors import BusyError, ConfigError, DataError
from yanmo.core.storage import file_lock
from yanmo.text.crawl import runner
from yanmo.text.crawl.profile import load_profile
from yanmo.text.crawl.runner import Found
from yanmo.text.read.documents import find_files

pytestmark = pytest.mark.slow

OUT = Path("x.jsonl")
RARE = "镕𠮷"  # not in GB2312; the second has four bytes in GB18030
GBK = {"encoding": "gb18030", "label": "gb2312"}


def crawl(site: Site | str, more: str = "", budget: str = "", **how: str) -> Found:
    Path("x.toml").write_text(toml(site, more, budget, **how), encoding="utf-8")
    return runner.crawl(load_profile("x.toml"), OUT, Console(stream=io.StringIO()))


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in OUT.read_text(encoding="utf-8").splitlines()]


def library() -> dict[str, Any]:
    """Two books in GBK; lists in two pages; a 503 on the way, a redirect, a duplicate, a 404, a fallback."""
    prose = "那年冬天，祖母死了，父亲的差使也交卸了，正是祸不单行的日子，我从北京到徐州。"
    return {
        "/robots.txt": robots("User-agent: *", "Disallow: /private/"),
        "/": html(links("/b1/", "/b2/", kind="l"), **GBK),
        "/b1/": html(
            "<h1>边城</h1>" + links("/b1/1.html", "/b1/2.html", "/private/x.html")
            + "<a class=n href='/b1/index_2.html'>下一页</a>", **GBK,
        ),
        "/b1/index_2.html": html(links("/b1/3.html", "/b1/4.html", "/b1/5.html"), **GBK),
        "/b1/1.html": text_page("第一章", f"正文一{RARE}。", "又一段<i class=ad>广告</i>。", **GBK),
        "/b1/2.html": lambda path, number: (
            Answer(status=503, headers={"Retry-After": "1"}) if number == 1
            else text_page("第二章", "正文二上。", more="<a class=n href='/b1/2_2.html'>x</a>", **GBK)
        ),
        "/b1/2_2.html": text_page("第二章", "正文二下。", **GBK),
        "/b1/3.html": moved("/b1/three.html"),
        "/b1/three.html": zipped(text_page("第三章", "正文三。", **GBK)),
        "/b1/4.html": html("<h1>第四章</h1><article>" + f"<p>{prose}</p>" * 5 + "</article>", **GBK),
        "/b1/5.html": html("<h1>第五章</h1>", **GBK),
        "/b2/": html("<h1>呼兰河传</h1>" + links("/b2/1.html", "/b2/2.html", "/b2/gone.html"), **GBK),
        "/b2/1.html": text_page("第一章", "另一本书。", **GBK),
        "/b2/2.html": text_page("第一章", "另一本书。", **GBK),
        "/private/x.html": text_page("私", "不可以。"),
    }  # fmt: skip


def test_a_library_becomes_books_with_chapters_in_order() -> None:
    with Site(library()) as site:
        found = crawl(site)
    first, second = rows()
    lines = first["text"].split("\n")
    assert [line for line in lines if line.startswith("第")] == ["第一章", "第二章", "第三章", "第四章"]
    assert lines[:3] == ["第一章", f"正文一{RARE}。", "又一段。"]
    assert "正文二上。\n\n正文二下。" in first["text"]
    assert (first["title"], first["url"], first["chapters"]) == ("边城", f"{site.url}/b1/", 5)
    assert (second["title"], second["text"], second["chapters"]) == ("呼兰河传", "第一章\n另一本书。", 1)
    assert set(first) == {"text", "url", "title", "author", "time", "hash", "chapters"}
    assert first["hash"] == hashlib.sha256(first["text"].encode()).hexdigest()
    manifest = json.loads(Path("x.manifest.json").read_text(encoding="utf-8"))
    assert manifest["counts"] == {
        "list": 4, "kept": 6, "duplicate": 1, "redirected": 1, "empty": 1, "refused": 1, "failed": 1,
    }  # fmt: skip
    assert manifest["found"] == sum(manifest["counts"].values()) == 15
    assert manifest["reasons"] == {"refused": {"robots.txt": 1}, "failed": {"404": 1}}
    assert manifest["texts_found_by"] == {"selector": 5, "trafilatura": 1}
    assert manifest["encodings"] == {"gb18030": 6}
    assert manifest["sha256"] == hashlib.sha256(OUT.read_bytes()).hexdigest()
    assert manifest["unfinished"] == ""
    assert found.as_json()["counts"] == manifest["counts"]
    asked = site.pages_asked()
    assert "/private/x.html" not in asked
    assert asked["/b1/2.html"] == 2
    again = [i for i, path in enumerate(site.asked) if path == "/b1/2.html"]
    assert site.times[again[1]] - site.times[again[0]] >= 1  # Retry-After
    assert site.most_open == 1
    assert site.agents == {"yanmo/0.1.0 (+mail@example.org)"}


def test_a_finished_crawl_asks_for_nothing_and_says_the_same() -> None:
    pages = library()
    del pages["/b2/"]
    pages["/b2/"] = html(links("/b2/1.html"))
    with Site(pages) as site:
        crawl(site)
        before, output = len(site.asked), OUT.read_bytes()
        crawl(site)
        assert len(site.asked) == before
    assert OUT.read_bytes() == output


def test_what_failed_is_tried_again_by_the_same_command_and_takes_its_place() -> None:
    pages = {"/": html(links("/1", "/2", "/3")), "/*": lambda path, n: text_page(path, f"正文{path}")}
    pages["/2"] = lambda path, number: Answer(status=503) if number <= 3 else text_page(path, "正文二")
    with Site(pages) as site:
        assert crawl(site).manifest["reasons"] == {"failed": {"503": 1}}
        assert site.pages_asked()["/2"] == 3
        assert rows()[0]["chapters"] == 2
        again = crawl(site)
        assert again.manifest["counts"] == {"list": 1, "kept": 3}
        assert site.pages_asked() == {"/": 1, "/1": 1, "/2": 4, "/3": 1}
    assert (
        rows()[0]["text"].index("正文/1")
        < rows()[0]["text"].index("正文二")
        < rows()[0]["text"].index("正文/3")
    )


def test_another_selector_needs_no_second_visit() -> None:
    page = html("<h1>题</h1><div class=body>旧</div><div class=new>新的正文</div>")
    with Site({"/": html(links("/1")), "/1": page}) as site:
        crawl(site)
        assert rows()[0]["text"].endswith("旧")
        Path("x.toml").write_text(toml(site).replace('".body"', '".new"'), encoding="utf-8")
        runner.crawl(load_profile("x.toml"), OUT, Console(stream=io.StringIO()))
        assert rows()[0]["text"].endswith("新的正文")
        assert site.pages_asked() == {"/": 1, "/1": 1}


def test_essays_are_documents_of_their_own() -> None:
    with Site({"/": html(links("/1", "/2")), "/*": lambda path, n: text_page(path, f"散文{path}")}) as site:
        crawl(site, join="page")
    assert [(row["text"], row["title"]) for row in rows()] == [("散文/1", "/1"), ("散文/2", "/2")]
    assert "chapters" not in rows()[0]


def test_a_crawl_without_text_is_an_error_that_says_why() -> None:
    problem = pytest.raises(DataError, match="no text was found: 1 addresses found: 1 list")
    with Site({"/": html("nothing here")}) as site, problem as caught:
        crawl(site)
    assert "--dry-run" in caught.value.hint


@pytest.mark.parametrize("kind", ["text/html", "text/plain", ""])
@pytest.mark.parametrize("body", [b"", b"<!-- -->", "第一章".encode()])
def test_a_list_that_is_no_list_leads_nowhere(body: bytes, kind: str) -> None:
    answer = Answer(body, headers={"Content-Type": kind})
    with Site(
        {"/": html(links("/l", kind="l") + links("/1")), "/l": answer, "/1": text_page("题", "文")}
    ) as site:
        assert crawl(site).manifest["counts"] == {"kept": 1, "list": 2}


def test_the_output_of_a_crawl_is_a_corpus_and_its_journal_is_none() -> None:
    with Site({"/": html(links("/1")), "/1": text_page("题", "正文")}) as site:
        crawl(site)
    assert [file.name for file in find_files("*.jsonl").files] == ["x.jsonl"]
    assert "journal.jsonl" not in [file.name for file in find_files(".").files]


def test_one_output_has_one_crawler() -> None:
    with file_lock(Path("x.crawl/run.lock")), pytest.raises(BusyError, match="another process crawls"):
        crawl("http://127.0.0.1:9")


def test_an_output_of_another_name_is_refused() -> None:
    Path("x.toml").write_text(toml("http://127.0.0.1:9"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"called x\.txt"):
        runner.crawl(load_profile("x.toml"), Path("x.txt"), Console(stream=io.StringIO()))


def test_a_run_that_is_out_of_time_goes_on() -> None:
    with Site({"/": html(links(*(f"/{n}" for n in range(30)))), "/*": lambda p, n: text_page(p, p)}) as site:
        found = crawl(site, budget="max_minutes = 0.001")
        assert found.manifest["unfinished"] == "max_minutes is over"
        counts = found.manifest["counts"]
        assert counts["waiting"] > 0 and found.manifest["found"] == sum(counts.values())
        assert crawl(site).manifest["counts"] == {"list": 1, "kept": 30}
        assert set(site.pages_asked().values()) == {1}


def test_a_dry_run_shows_one_page_and_writes_nothing(console: Console) -> None:
    with Site(library()) as site:
        Path("x.toml").write_text(toml(site), encoding="utf-8")
        profile = load_profile("x.toml")
        page = runner.dry_run(profile, f"{site.url}/b1/1.html", console)
        assert (page["title"], page["by"], page["encoding"]) == ("第一章", "selector", "gb18030")
        assert page["text"].startswith(f"正文一{RARE}")
        listed = runner.dry_run(profile, f"{site.url}/b1/", console)
        assert [len(listed["links"][kind]) for kind in ("chapter", "list", "next")] == [3, 0, 1]
        assert listed["book_title"] == "边城"
        assert runner.dry_run(profile, f"{site.url}/private/x.html", console)["refused"] == "robots.txt"
        assert runner.dry_run(profile, f"{site.url}/gone", console)["failed"] == "404"
        with pytest.raises(ConfigError, match="off-site"):
            runner.dry_run(profile, "http://elsewhere.example/", console)
    assert [path.name for path in Path().iterdir() if path.name != "cache"] == ["x.toml"]


# -- as a command -----------------------------------------------------------------------------


def command(*words: str) -> Child:
    return Child(strict, ["crawl", *words])


def strict(words: list[str]) -> None:
    """A warning is an error there, too."""
    warnings.simplefilter("error")
    as_yanmo(words)


def test_the_command_prints_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # would fail if it were used
    with Site(library()) as site:
        Path("x.toml").write_text(toml(site).replace("verified = true", ""), encoding="utf-8")
        done = command("x.toml", "--json", "--out", "y.jsonl").done()
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["counts"]["kept"] == 6
        assert "unverified" in done.stderr and "permission: a test" in done.stderr
        done = command("x.toml", "--dry-run", f"{site.url}/b1/1.html").done()
        assert done.returncode == 0 and f"正文一{RARE}" in done.stdout, done.stderr
    assert Path("y.jsonl").exists() and Path("y.manifest.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_at_once_and_the_crawl_goes_on_later(number: signal.Signals) -> None:
    def slow(path: str, asked: int) -> Answer:
        time.sleep(30 if path == "/3" and asked == 1 else 0)
        return text_page(path, path)

    with Site({"/": html(links(*(f"/{n}" for n in range(6)))), "/*": slow}) as site:
        Path("x.toml").write_text(toml(site, budget="").replace("page_seconds = 5", ""), encoding="utf-8")
        crawler = command("x.toml")
        while "/3" not in site.asked:
            time.sleep(0.01)
        crawler.send_signal(number)
        done = crawler.done(timeout=20)  # the page it waits for takes 30 seconds
        assert done.returncode == 128 + number, done.stderr
        assert "the same command goes on" in done.stderr and "Traceback" not in done.stderr
        assert rows()[0]["chapters"] == 3
        assert crawl(site).manifest["counts"] == {"list": 1, "kept": 6}
        assert site.pages_asked() == {"/": 1, **{f"/{n}": 1 for n in range(6)}, "/3": 2}


@pytest.mark.parametrize("pause", ["Retry-After", "Crawl-delay"])
def test_a_signal_ends_a_pause_at_once(pause: str) -> None:
    pages: dict[str, Any] = {"/": html(links("/1", "/2")), "/1": text_page("一", "一的正文")}
    pages["/2"] = Answer(status=503, headers={"Retry-After": "60"})
    if pause == "Crawl-delay":
        pages["/robots.txt"] = robots("User-agent: *", "Crawl-delay: 60")
    last = {"Retry-After": "/2", "Crawl-delay": "/robots.txt"}[pause]
    with Site(pages) as site:
        Path("x.toml").write_text(toml(site), encoding="utf-8")
        crawler = command("x.toml")
        while last not in site.asked:
            time.sleep(0.01)
        time.sleep(0.5)  # so that the pause has begun
        crawler.send_signal(signal.SIGTERM)
        done = crawler.done(timeout=20)
        assert done.returncode == 128 + signal.SIGTERM, done.stderr
        assert "the same command goes on" in done.stderr and "Traceback" not in done.stderr
    assert site.pages_asked()[last] <= 1


def test_no_page_is_lost_or_doubled_by_a_kill(tmp_path: Path) -> None:
    found = measure(pages=120, kills=1, folder=tmp_path)
    assert (found.lost, found.doubled, found.out_of_order) == (0, 0, 0)
    assert found.asked_twice <= found.kills


@pytest.mark.long
def test_no_page_of_500_is_lost_or_doubled_by_five_kills(tmp_path: Path) -> None:
    for seed in range(3):
        folder = tmp_path / str(seed)
        folder.mkdir()
        found = measure(pages=500, kills=5, folder=folder, seed=seed)
        assert (found.lost, found.doubled, found.out_of_order) == (0, 0, 0)
        assert found.asked_twice <= found.kills

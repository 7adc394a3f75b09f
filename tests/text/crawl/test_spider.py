"""A site that means harm: nothing forbidden is connected to, every page ends within its limits."""

import asyncio
import gzip
import io
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.makers.site import Answer, Site, html, links, moved, robots, text_page, toml
from yanmo.core.console import Console
from yanmo.core.errors import DataError
from yanmo.text.crawl import runner
from yanmo.text.crawl.addresses import CheckedLoop
from yanmo.text.crawl.components import retry_after
from yanmo.text.crawl.frontier import Frontier
from yanmo.text.crawl.journal import Journal, Row
from yanmo.text.crawl.profile import load_profile
from yanmo.text.crawl.spider import run, settings_of

pytestmark = pytest.mark.slow

OUT = Path("x.jsonl")


ONCE = {"RETRY_TIMES": 0}


def crawl(text: str, **settings: Any) -> dict[str, Any]:
    Path("x.toml").write_text(text, encoding="utf-8")
    return runner.crawl(load_profile("x.toml"), OUT, Console(stream=io.StringIO()), settings).manifest


def site_with(**pages: Any) -> dict[str, Any]:
    """A home page that leads to each of these, and to a good one last."""
    named = {f"/{name}": page for name, page in pages.items()}
    return {"/": html(links(*named, "/good")), "/good": text_page("好", "好的正文"), **named}


def endless() -> Iterator[bytes]:
    while True:
        yield b"x" * 65536


def drip() -> Iterator[bytes]:
    for _ in range(600):
        time.sleep(0.1)
        yield b"x"


def failures(manifest: dict[str, Any]) -> set[str]:
    return {line.rpartition("/")[2] + ": " + line.split(": ")[1] for line in manifest["named"]}


def test_large_slow_and_broken_pages_end_within_their_limits() -> None:
    bomb = gzip.compress(b"<p>" + b"0" * 50_000_000)
    pages = site_with(
        bomb=Answer(bomb, headers={"Content-Encoding": "gzip"}),
        nested=Answer(gzip.compress(bomb), headers={"Content-Encoding": "gzip, gzip"}),
        endless=Answer(chunks=endless),
        drip=Answer(chunks=drip),
        large=Answer(b"x" * 2_500_000),
        image=Answer(b"\x89PNG", headers={"Content-Type": "image/png"}),
        binary=Answer(bytes(range(128, 256)) * 99),
        torn=Answer(b"not gzip", headers={"Content-Encoding": "gzip"}),
        refresh=html("<meta http-equiv=refresh content='0; url=http://169.254.169.254/'>"),
        file=moved("file:///etc/passwd"),
        nowhere=Answer(status=302),
    )
    with Site(pages) as site:
        manifest = crawl(
            toml(site, budget="max_page_mb = 2").replace("page_seconds = 5", "page_seconds = 1"), **ONCE
        )
    said = failures(manifest)
    assert {f"{name}: max_page_mb" for name in ("bomb", "nested", "endless", "large")} <= said
    assert {
        "drip: timeout",
        "image: type image/png",
        "binary: undecodable",
        "nowhere: 302",
        "file: 302",
    } <= said
    assert manifest["counts"]["kept"] == 1
    assert manifest["found"] == sum(manifest["counts"].values())


def test_headers_without_end_are_given_up_and_the_connection_with_them() -> None:
    few = {f"X-{n}": "x" * 1000 for n in range(100)}
    many = {f"X-{n}": "x" * 1000 for n in range(3000)}
    pages = site_with(
        many=Answer(text_page("多", "太多的头").body, headers=many),
        folded=Answer(
            text_page("折", "折起来的头").body, headers={"X-Long": "\r\n ".join(["x" * 1000] * 3000)}
        ),
        short=Answer(text_page("短", "短的正文").body, headers=few),
        again=Answer(text_page("又", "又一篇正文").body, headers=few),
    )
    with Site(pages) as site:
        manifest = crawl(toml(site), **ONCE)
    assert {"many: connection lost", "folded: connection lost"} == failures(manifest)
    assert manifest["counts"] == {"list": 1, "kept": 3, "failed": 2}


def test_redirects_end_and_obey_robots_and_stay_on_the_site() -> None:
    with Site({"/*": text_page("受害", "内网的秘密")}, "127.0.0.2") as victim:
        pages = site_with(
            loop=moved("/loop/2"),
            self=moved("/self"),
            long=moved("/long/1"),
            private=moved("/forbidden/x"),
            cloud=moved("http://169.254.169.254/latest/meta-data/"),
            elsewhere=moved(f"{victim.url}/x"),
            decimal=moved(f"http://2130706434:{victim.port}/"),
        )  # fmt: skip
        pages["/loop/2"] = moved("/loop")
        pages["/long/*"] = lambda path, number: moved(path + "1")
        pages["/forbidden/x"] = text_page("禁", "不许看")
        pages["/robots.txt"] = robots("User-agent: *", "Disallow: /forbidden/")
        with Site(pages) as site:
            manifest = crawl(toml(site))
    assert manifest["reasons"]["failed"] == {"redirect loop": 2, "more than 5 redirects": 1}
    assert manifest["reasons"]["refused"] == {"robots.txt": 1, "private address": 1, "off-site": 2}
    assert "/forbidden/x" not in site.asked
    assert victim.connections == 0
    assert manifest["found"] == sum(manifest["counts"].values())


class Names(asyncio.SelectorEventLoop):
    """A system whose names resolve as a test says: to these addresses one after the other, then to the last."""

    addresses: ClassVar[dict[str, list[str]]] = {}

    async def getaddrinfo(self, host: Any, port: Any, **how: Any) -> list[Any]:
        known = self.addresses.get(host)
        address = host if known is None else known.pop(0) if len(known) > 1 else known[0]
        return await super().getaddrinfo(address, port, **how)


class PublicLoopback(CheckedLoop, Names):
    """Lets 127.0.0.1 stand in for a public address, 127.0.0.2 for one of an inner network."""

    def check(self, address: str) -> None:
        if address != "127.0.0.1":
            super().check(address)


PUBLIC = {"ASYNCIO_EVENT_LOOP": PublicLoopback, "DOWNLOAD_DELAY": 0, "AUTOTHROTTLE_START_DELAY": 0, **ONCE}


def public(text: str) -> str:
    """A profile as of a site of somebody else's."""
    return text.replace("private_network = true", "").replace("delay = 0", "delay = 1")


def test_a_name_that_is_bound_anew_leads_to_no_inner_network(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = [f"{name}.example" for name in ("public", "inner", "later")]
    monkeypatch.setattr(
        Names, "addresses",
        {hosts[0]: ["127.0.0.1"], hosts[1]: ["127.0.0.2"], hosts[2]: ["127.0.0.1", "127.0.0.2"]},
    )  # fmt: skip
    closing = {"Connection": "close"}  # so that each page needs a connection of its own
    pages: dict[str, Any] = {
        "/robots.txt": Answer(status=404, headers=closing),
        "/*": lambda path, number: Answer(text_page(path, f"正文{path}").body, headers=closing),
    }
    with Site(pages) as site, Site({"/*": text_page("秘", "秘密")}, "127.0.0.2", site.port) as victim:
        urls = [f"http://{host}:{site.port}" for host in hosts]
        pages["/"] = Answer(
            links("/1", f"{urls[1]}/2", f"{urls[2]}/3", f"{urls[2]}/4").encode(), headers=closing
        )
        named = ", ".join(f'"{host}:{site.port}"' for host in hosts)
        manifest = crawl(public(toml(urls[0], more=f"hosts = [{named}]")), **PUBLIC)
    assert victim.connections == 0
    assert manifest["counts"]["kept"] >= 1
    assert manifest["counts"]["kept"] + sum(manifest["reasons"]["failed"].values()) == 4
    assert manifest["reasons"]["failed"]["robots.txt: private address"] == 1


class OtherResolver(PublicLoopback):
    """As where names are resolved past the loop, by aiodns."""

    async def getaddrinfo(self, host: Any, port: Any, **how: Any) -> list[Any]:
        return await Names.getaddrinfo(self, host, port, **how)


def test_a_name_that_was_resolved_unseen_leads_to_no_inner_network(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {"public.example": ["127.0.0.1"], "inner.example": ["127.0.0.2"]}
    monkeypatch.setattr(Names, "addresses", named)
    pages: dict[str, Any] = {"/1": text_page("一", "一的正文")}
    with Site(pages) as site, Site({"/*": text_page("秘", "秘密")}, "127.0.0.2", site.port) as victim:
        start, inner = (f"http://{host}:{site.port}" for host in named)
        pages["/"] = html(links("/1", f"{inner}/2"))
        hosts = f'hosts = ["public.example:{site.port}", "inner.example:{site.port}"]'
        manifest = crawl(public(toml(start, more=hosts)), **PUBLIC | {"ASYNCIO_EVENT_LOOP": OtherResolver})
    assert victim.connections == 0
    assert manifest["counts"] == {"list": 1, "kept": 1, "failed": 1}
    assert manifest["reasons"] == {"failed": {"robots.txt: private address": 1}}


def test_a_public_site_leads_to_no_private_address_by_links_or_redirects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Names, "addresses", {"site.example": ["127.0.0.1"]})
    with Site({"/*": text_page("秘", "秘密")}, "127.0.0.2") as victim:
        inner = f"127.0.0.2:{victim.port}"
        hosts = f'hosts = ["127.0.0.1:PORT", "{inner}", "localhost:{victim.port}"]'
        pages = site_with(redirect=moved(f"http://{inner}/"), short=moved(f"http://127.2:{victim.port}/"))
        pages["/"] = html(links(f"http://{inner}/x", "/redirect", "/short", "http://[::1]/", "/good"))
        with Site(pages) as site:
            start = f"http://site.example:{site.port}"
            named = hosts.replace("127.0.0.1:PORT", f"site.example:{site.port}")
            manifest = crawl(public(toml(start, more=named)), **PUBLIC)
    assert manifest["reasons"]["refused"] == {"private address": 4}
    assert manifest["counts"]["kept"] == 1
    assert victim.connections == 0


def test_a_calendar_and_shallow_wide_facets_cost_their_budget_and_no_more() -> None:
    def calendar(path: str, number: int) -> Answer:
        year, month = (int(part) for part in path.strip("/").split("/")[1:3])
        after = f"/cal/{year + month // 12}/{month % 12 + 1:02d}/"
        return html(links(after, kind="l") + links(f"/event/{year}-{month}.html"))

    def facets(path: str, number: int) -> Answer:
        return html(links(*(f"{path}{n}/" for n in range(20)), kind="l"))

    pages = {
        "/": html(links("/cal/2024/01/", "/shop/", kind="l") + links("/good")),
        "/cal/*": calendar, "/shop/*": facets,
        "/event/*": lambda path, number: text_page(path, "没有活动"),
        "/good": text_page("好", "好的正文"),
    }  # fmt: skip
    with Site(pages) as site:
        manifest = crawl(toml(site, budget="max_calendar = 5\nmax_lists = 20\nmax_depth = 9"))
    assert manifest["counts"]["list"] <= 20
    assert sum(path.startswith("/cal/") for path in site.asked) <= 5
    assert {"max_calendar", "max_lists"} <= set(manifest["reasons"]["refused"]) | {"max_depth"}
    assert len(site.asked) <= 32
    assert manifest["counts"]["kept"] == 2


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=503, body=b"User-agent: *\nAllow: /"),
        moved("/robots.txt"),
        moved("http://169.254.169.254/"),
        moved("file:///etc/passwd"),
        Answer(chunks=drip),
        Answer(b"not gzip", headers={"Content-Encoding": "gzip"}),
    ],
)
def test_a_site_whose_robots_txt_cannot_be_had_is_not_crawled(answer: Answer) -> None:
    with (
        Site(site_with() | {"/robots.txt": answer}) as site,
        pytest.raises(DataError, match=r"no text was found: .*failed: 1 × robots\.txt: "),
    ):
        crawl(toml(site), **ONCE)
    assert set(site.asked) == {"/robots.txt"}


def test_a_robots_txt_behind_a_login_closes_its_site() -> None:
    pages = site_with() | {"/r.txt": robots("User-agent: *", "Allow: /")}
    with Site(pages) as site:
        pages["/robots.txt"] = moved(f"http://user:secret@127.0.0.1:{site.port}/r.txt")
        with pytest.raises(DataError, match=r"1 × robots\.txt: login in the address"):
            crawl(toml(site))
    assert set(site.asked) == {"/robots.txt"}


def test_a_robots_txt_on_another_host_is_read() -> None:
    with Site({"/r.txt": robots("User-agent: *", "Disallow: /a")}, "127.0.0.2") as other:
        pages = site_with(a=text_page("一", "一的正文")) | {"/robots.txt": moved(f"{other.url}/r.txt")}
        with Site(pages) as site:
            manifest = crawl(toml(site))
    assert manifest["reasons"] == {"refused": {"robots.txt": 1}} and manifest["counts"]["kept"] == 1


def test_a_robots_txt_elsewhere_on_the_site_is_read() -> None:
    pages = site_with() | {
        "/robots.txt": moved("/r.txt"),
        "/r.txt": robots("User-agent: yanmo", "Disallow: /good"),
    }
    with Site(pages) as site, pytest.raises(Exception, match=r"1 × robots\.txt"):
        crawl(toml(site))
    assert "/good" not in site.asked


@pytest.mark.parametrize("status", [403, 204])
def test_a_site_that_turns_us_away_is_left_alone(status: int) -> None:
    pages = {
        "/": html(links(*(f"/{n}" for n in range(40)))),
        "/0": text_page("好", "好的正文"),
        "/*": Answer(status=status),
    }
    with Site(pages) as site:
        manifest = crawl(toml(site))
    assert manifest["unfinished"].startswith("10 pages in a row failed")
    assert manifest["reasons"] == {"failed": {str(status): 10}}
    assert manifest["counts"]["waiting"] == 29


def test_a_crawl_whose_last_pages_fail_is_finished() -> None:
    pages = {"/": html(links("/good", *(f"/{n}" for n in range(10)))), "/good": text_page("好", "好的正文")}
    with Site(pages) as site:
        manifest = crawl(toml(site))
    assert manifest["unfinished"] == "" and manifest["counts"] == {"list": 1, "kept": 1, "failed": 10}


def test_requests_keep_their_distance_and_come_one_by_one() -> None:
    slow = "User-agent: *", "Crawl-delay: 0.5"
    pages = site_with(a=text_page("一", "一的正文"), b=text_page("二", "二的正文")) | {
        "/robots.txt": robots(*slow)
    }
    with Site(pages) as site:
        crawl(toml(site))
    gaps = [after - before for before, after in zip(site.times[1:], site.times[2:], strict=False)]
    assert min(gaps) >= 0.49
    assert site.most_open == 1


def test_a_slow_site_is_asked_less_often() -> None:
    def slow(path: str, number: int) -> Answer:
        time.sleep(0.6)
        return text_page("慢", "慢的正文")

    with Site(site_with(slow=slow, fast=text_page("快", "快的正文"))) as site:
        crawl(toml(site))
    when = dict(zip(site.asked, site.times, strict=True))
    assert when["/good"] - when["/fast"] >= 0.25


def test_a_certificate_that_nobody_signed_is_refused(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    with Site(site_with()) as site:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        site.serve_tls(context)
        with pytest.raises(Exception, match="no text was found"):
            crawl(toml(site).replace("http://", "https://"))
    assert site.asked == []


def self_signed(folder: Path) -> Path:
    """A key and a certificate for 127.0.0.1 in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    signed = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    how = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path = folder / "self.pem"
    path.write_bytes(key.private_bytes(*how) + signed)
    return path


def test_scrapy_listens_remembers_and_pickles_nothing() -> None:
    """What its defaults would do, and what nothing here may turn on."""
    Path("x.toml").write_text('start = ["http://a.example/"]\npermission = "x"', encoding="utf-8")
    settings = settings_of(load_profile("x.toml"))
    assert settings["DOWNLOAD_DELAY"] >= 1 and settings["DOWNLOAD_DELAY_JITTER"] == 0
    assert settings["AUTOTHROTTLE_ENABLED"] and settings["CONCURRENT_REQUESTS"] == 1
    assert {name.rpartition(".")[2] for name in settings["EXTENSIONS_BASE"]} == {
        "AutoThrottle",
        "CloseSpider",
    }
    assert settings["DOWNLOAD_VERIFY_CERTIFICATES"]
    assert "JOBDIR" not in settings and settings["HTTPCACHE_STORAGE"].startswith("yanmo.")
    assert settings["DOWNLOAD_MAXSIZE"] == 10_000_000 and settings["DOWNLOAD_TIMEOUT"] == 30


def test_a_crawl_leaves_nothing_but_its_output_and_its_journal() -> None:
    with Site(site_with()) as site:
        crawl(toml(site))
    written = {path.as_posix() for path in Path().rglob("*") if path.is_file() and "cache" not in path.parts}
    made = {"x.jsonl", "x.manifest.json", "x.crawl/journal.jsonl"}
    assert made <= written and written - made <= {"x.toml", "x.crawl/run.lock"}


def test_a_redirect_to_a_known_page_is_counted_and_not_fetched_again() -> None:
    with Site(site_with(old=moved("/good"), older=moved("/old"))) as site:
        manifest = crawl(toml(site))
    assert manifest["counts"] == {"list": 1, "kept": 1, "redirected": 2}
    assert site.pages_asked() == {"/": 1, "/good": 1, "/old": 1, "/older": 1}


def test_a_site_that_asks_for_a_long_pause_is_left_alone_at_once() -> None:
    with Site(site_with(busy=Answer(status=503, headers={"Retry-After": "86400"}))) as site:
        manifest = crawl(toml(site))
    assert manifest["reasons"] == {"failed": {"503": 1}}
    assert site.pages_asked()["/busy"] == 1


def test_a_crawl_goes_on_through_a_page_without_content() -> None:
    with Site(site_with(nothing=Answer(status=204))) as site:
        assert crawl(toml(site))["reasons"] == {"failed": {"204": 1}}


class FullDisk(Journal):
    def add(self, row: Row) -> None:
        raise DataError("the disk is full", row["url"], "make room")


@pytest.mark.parametrize("is_there", [True, False])
def test_a_journal_that_cannot_be_written_ends_the_crawl(is_there: bool) -> None:
    with Site(site_with() if is_there else {}) as site, FullDisk(Path("x.crawl/j")) as journal:
        Path("x.toml").write_text(toml(site), encoding="utf-8")
        profile = load_profile("x.toml")
        with pytest.raises(DataError, match="the disk is full"):
            run(profile, Frontier(profile), journal, Console(stream=io.StringIO()), None)
    assert site.pages_asked() == {"/": 1}


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("120", 120), ("", 0), ("soon", 0), ("-5", 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)],
)
def test_retry_after(value: str, seconds: float) -> None:
    assert retry_after(value) == seconds


def test_retry_after_may_be_a_date() -> None:
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 100))
    assert 98 <= retry_after(date) <= 100

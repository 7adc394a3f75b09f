"""The spider: asks the frontier for a page, fetches it through Scrapy, writes the journal, and again.

In: a frontier, a journal, a profile. Out: a journal with a row for every address that was tried, and a
frontier that has heard of each. One page at a time: that is polite, and makes the order of a crawl a
property of the site. Scrapy does the downloading (delays, autothrottle, decompression, limits of size and
time); what Scrapy would do out of sight is done here and counted: robots.txt, redirects, retries.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import scrapy
from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadCancelledError,
    DownloadConnectionRefusedError,
    DownloadFailedError,
    DownloadTimeoutError,
    IgnoreRequest,
    ResponseDataLossError,
)
from scrapy.http import Response
from scrapy.utils.reactor import install_reactor
from w3lib.url import safe_url_string

from yanmo.core.console import Console
from yanmo.core.signals import StopSignal
from yanmo.text.crawl.addresses import OFF_SITE, PRIVATE, CheckedResolver, why_refused
from yanmo.text.crawl.frontier import MAX_REDIRECTS, MEGABYTE, Frontier, Task
from yanmo.text.crawl.journal import Journal, Row, pack
from yanmo.text.crawl.page import media_type
from yanmo.text.crawl.profile import Profile
from yanmo.text.crawl.robots import AGENT, Answer, Robots, is_allowed
from yanmo.text.crawl.rows import known_row, read_row, rules_of

TRIES = 3
"""Times a page is asked for, when the trouble may pass."""
PASSING = frozenset(map(str, (408, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524))) | {
    "timeout",
    "connection refused",
    "connection lost",
}
"""Failures that may be over a little later."""
MOVED = (301, 302, 303, 307, 308)
MAX_RETRY_AFTER = 600.0
"""Seconds: a site that asks for a longer pause is left alone until the command is given again."""
GIVE_UP_AFTER = 10
"""So many failures in a row end the run: the site is down, or turns us away."""
TEXT_TYPES = ("", "text/html", "application/xhtml+xml", "text/plain", "application/xml", "text/xml")
CLOSING_SECONDS = 3.0
REACTOR = "twisted.internet.asyncioreactor.AsyncioSelectorReactor"
ROBOTS = "robots.txt"
TOO_LARGE = "max_page_mb"

T = TypeVar("T")


@dataclass(frozen=True)
class Fetched:
    """What asking for one address gave: an answer, or the reason why there is none."""

    response: Response | None = None
    refused: str = ""
    failed: str = ""


class StopAsked(Exception):
    """Somebody wants the crawl to end now."""


class SiteSpider(scrapy.Spider):
    """Walks one site in the order of its frontier."""

    name = AGENT

    def __init__(
        self,
        profile: Profile,
        resolver: CheckedResolver,
        console: Console,
        stop: asyncio.Event,
        work: Callable[["SiteSpider"], Coroutine[Any, Any, Any]],
    ) -> None:
        super().__init__()
        self._profile = profile
        self._resolver = resolver
        self._console = console
        self._stop = stop
        self._robots = Robots(self._fetch_robots)
        self._failures_in_a_row = 0
        self._last_request = 0.0
        self._work = work
        self.result: Any = None
        """What the work gave; None where it was stopped."""
        self.error: BaseException | None = None

    async def start(self) -> AsyncIterator[Any]:
        """Scrapy's way in: do the work; nothing is left to Scrapy's scheduler."""
        try:
            self.result = await self._work(self)
        except StopAsked:
            pass
        except Exception as error:  # Scrapy would log it and go on
            self.error = error
        return
        yield  # makes it the generator that Scrapy asks for

    async def walk(self, frontier: Frontier, journal: Journal) -> str:
        """Visit page after page. Gives the reason why it ended early, or an empty string."""
        deadline = time.monotonic() + 60 * self._profile.budget.max_minutes
        while (task := frontier.next()) is not None:
            try:
                row = known_row(journal, task, self._profile)
                if row is None and (why := self._why_end(deadline)):
                    frontier.put_back(task)
                    return why
                if row is None:
                    row = await self.visit(task)
                    journal.add(row)
            except StopAsked:
                frontier.put_back(task)
                raise
            settle(frontier, task, row)
            self._say(frontier)
        return ""

    async def visit(self, task: Task) -> Row:
        """Fetch one page and read it; the row that the journal keeps."""
        row: Row = {"key": task.key, "url": task.url, "rules": rules_of(self._profile, task)}
        row["fetched"] = datetime.now(UTC).isoformat(timespec="seconds")
        fetched = await self.fetch(task.url)
        self._failures_in_a_row = self._failures_in_a_row + 1 if fetched.failed else 0
        if fetched.failed:
            return row | {"failed": fetched.failed}
        if fetched.response is None:
            return row | {"refused": fetched.refused}
        response = fetched.response
        if target := redirect_target(response):
            return row | {"to": target}
        content_type = header(response, "Content-Type")
        if media_type(content_type) not in TEXT_TYPES:
            return row | {"refused": f"type {media_type(content_type)}"}
        row |= {"type": content_type, "size": len(response.body), "page": pack(response.body)}
        return row | read_row(row, task, self._profile)

    async def fetch(self, url: str) -> Fetched:
        """One address, if the site allows it; asked for again where the trouble may pass."""
        rules = await self._robots.rules_of(url)
        if rules.problem:
            return Fetched(failed=rules.problem)
        if not is_allowed(rules, url):
            return Fetched(refused=ROBOTS)
        return await self._fetch(url, rules.delay)

    async def _fetch(self, url: str, delay: float = 0.0) -> Fetched:
        fetched = Fetched(failed="not tried")
        for number in range(TRIES):
            await self._wait(self._last_request + delay - time.monotonic())
            fetched = await self._ask(url)
            self._last_request = time.monotonic()
            pause = self._pause_before_retry(fetched, number)
            if pause is None:
                break
            await self._wait(pause)
        return fetched

    async def _ask(self, url: str) -> Fetched:
        """One request."""
        try:
            request = scrapy.Request(url, dont_filter=True)
            response = await self._unless_stopped(self.crawler.engine.download_async(request))
        except CannotResolveHostError:
            refused = self._resolver.refused.get(urlsplit(url).hostname or "")
            return Fetched(refused=PRIVATE) if refused else Fetched(failed="no such host")
        except DownloadTimeoutError:
            return Fetched(failed="timeout")
        except DownloadConnectionRefusedError:
            return Fetched(failed="connection refused")
        except (DownloadFailedError, ResponseDataLossError):
            return Fetched(failed="connection lost")
        except (DownloadCancelledError, IgnoreRequest):  # the limits of size: sent, unpacked, of headers
            return Fetched(refused=TOO_LARGE)
        except (StopAsked, asyncio.CancelledError):
            raise
        except Exception as error:  # a site can break a connection in more ways than have names
            return Fetched(failed=type(error).__name__)
        is_good = response.status == 200 or redirect_target(response)
        return Fetched(response, failed="" if is_good else str(response.status))

    def _pause_before_retry(self, fetched: Fetched, number: int) -> float | None:
        """Seconds until the next try; None where another try is no use."""
        if fetched.failed not in PASSING or number + 1 == TRIES:
            return None
        asked = retry_after(header(fetched.response, "Retry-After")) if fetched.response else 0.0
        if asked > MAX_RETRY_AFTER:
            return None
        return max(asked, 5 * self._profile.delay * (1 + number))

    async def _fetch_robots(self, url: str) -> Answer:
        """A robots.txt, through up to five redirects."""
        for _ in range(MAX_REDIRECTS + 1):
            if (reason := why_refused(url, self._profile)) and reason != OFF_SITE:
                return Answer(0, problem=reason)
            fetched = await self._fetch(url)
            if fetched.failed.isdigit():
                return Answer(int(fetched.failed))
            if fetched.response is None:
                return Answer(0, problem=fetched.refused or fetched.failed)
            target = redirect_target(fetched.response)
            if not target:
                return Answer(fetched.response.status, fetched.response.body)
            url = target
        return Answer(0, problem=f"more than {MAX_REDIRECTS} redirects")

    async def _wait(self, seconds: float) -> None:
        if seconds > 0:
            await self._unless_stopped(asyncio.sleep(seconds))

    async def _unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for ``work``, or for the wish to stop, whichever comes first."""
        if self._stop.is_set():
            work.close()
            raise StopAsked
        doing = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({doing, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if doing.done():
            return doing.result()
        doing.cancel()
        raise StopAsked

    def _why_end(self, deadline: float) -> str:
        if self._stop.is_set():
            raise StopAsked
        if time.monotonic() > deadline:
            return "max_minutes is over"
        if self._failures_in_a_row >= GIVE_UP_AFTER:
            return f"{GIVE_UP_AFTER} pages in a row failed: the site is down, or turns us away"
        return ""

    def _say(self, frontier: Frontier) -> None:
        counts = frontier.tally.outcomes
        known = ", ".join(f"{number:,} {name}" for name, number in sorted(counts.items()))
        self._console.status(f"{known}; {frontier.waiting:,} waiting")


# -- telling the frontier ---------------------------------------------------------------------


def settle(frontier: Frontier, task: Task, row: Row) -> None:
    """Tell the frontier what became of a page."""
    if "refused" in row:
        frontier.refuse(task, row["refused"])
    elif "failed" in row:
        frontier.fail(task, row["failed"])
    elif "to" in row:
        frontier.redirect(task, row["to"])
    elif "undecodable" in row:
        frontier.refuse(task, "undecodable")
    elif task.kind == "list":
        frontier.list_read(task, row["read"]["links"], row["size"])
    else:
        frontier.text_read(task, row["hash"], row["read"]["links"].get("next", []), row["size"])


# -- answers ----------------------------------------------------------------------------------


def header(response: Response, name: str) -> str:
    """A header as text."""
    return (response.headers.get(name) or b"").decode("latin-1")


def redirect_target(response: Response) -> str:
    """Where an answer sends us; empty where it is no redirect."""
    location = header(response, "Location")
    if response.status not in MOVED or not location:
        return ""
    with contextlib.suppress(ValueError):
        return str(safe_url_string(urljoin(response.url, location)))
    return ""


def retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks for, written as seconds or as a date."""
    if value.strip().isdecimal():
        return float(value)
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0


# -- Scrapy -----------------------------------------------------------------------------------


def user_agent(profile: Profile) -> str:
    """Who we are and whom to write to."""
    return f"{AGENT}/{version('yanmo')}" + (f" (+{profile.contact})" if profile.contact else "")


def settings_of(profile: Profile) -> dict[str, Any]:
    """Scrapy's settings: polite, bounded, and nothing that listens, remembers or pickles."""
    off = dict.fromkeys(
        [
            "scrapy.downloadermiddlewares.offsite.OffsiteMiddleware",  # frontier.py
            "scrapy.downloadermiddlewares.robotstxt.RobotsTxtMiddleware",  # robots.py, which is stricter
            "scrapy.downloadermiddlewares.httpauth.HttpAuthMiddleware",
            "scrapy.downloadermiddlewares.retry.RetryMiddleware",
            "scrapy.downloadermiddlewares.redirect.MetaRefreshMiddleware",
            "scrapy.downloadermiddlewares.redirect.RedirectMiddleware",
            "scrapy.downloadermiddlewares.cookies.CookiesMiddleware",
            "scrapy.downloadermiddlewares.httpproxy.HttpProxyMiddleware",  # it obeys http_proxy
            "scrapy.downloadermiddlewares.httpcache.HttpCacheMiddleware",  # it pickles
        ]
    )
    size = int(profile.budget.max_page_mb * MEGABYTE)
    return {
        "USER_AGENT": user_agent(profile),
        "DOWNLOADER_MIDDLEWARES": off,
        "EXTENSIONS_BASE": {"scrapy.extensions.throttle.AutoThrottle": 0},
        "TELNETCONSOLE_ENABLED": False,
        "REMOTE_CONTROL_ENABLED": False,  # it runs whatever code is sent to its port
        "DOWNLOAD_HANDLERS": dict.fromkeys(["data", "file", "ftp", "s3"])
        | dict.fromkeys(["http", "https"], "yanmo.text.crawl.handler.BoundedHandler"),
        "DOWNLOAD_VERIFY_CERTIFICATES": True,
        "CONCURRENT_REQUESTS": 1,
        "CONCURRENT_REQUESTS_PER_DOMAIN": 1,
        "DOWNLOAD_DELAY": profile.delay,
        "DOWNLOAD_DELAY_JITTER": 0.0,  # it would go below the delay too
        "AUTOTHROTTLE_ENABLED": True,
        "AUTOTHROTTLE_START_DELAY": profile.delay,
        "AUTOTHROTTLE_MAX_DELAY": max(60.0, profile.delay),
        "DOWNLOAD_TIMEOUT": profile.budget.page_seconds,
        "DOWNLOAD_MAXSIZE": size,
        "DOWNLOAD_WARNSIZE": 0,
        "LOG_ENABLED": False,
        "TWISTED_REACTOR": REACTOR,
    }


def run(
    profile: Profile, console: Console, work: Callable[[SiteSpider], Coroutine[Any, Any, T]]
) -> tuple[T | None, int]:
    """Let Scrapy run until ``work`` is done. Gives (its result, the signal that ended it early or 0)."""

    install_reactor(REACTOR)
    from scrapy.crawler import Crawler
    from twisted.internet import reactor

    loop = reactor._asyncioEventloop  # driven by us, so that one process can crawl twice
    if not reactor.running:
        reactor.startRunning(installSignalHandlers=False)
    crawler = Crawler(SiteSpider, settings_of(profile))
    stop, resolver = asyncio.Event(), CheckedResolver(profile.private_network)
    before = reactor.installNameResolver(resolver)
    try:
        with StopSignal(lambda: loop.call_soon_threadsafe(stop.set)) as signal:
            crawl = crawler.crawl_async(
                profile=profile, resolver=resolver, console=console, stop=stop, work=work
            )
            loop.run_until_complete(until_stopped(crawl, stop))
    finally:
        reactor.installNameResolver(before)
        console.clear_status()
    spider = crawler.spider
    assert isinstance(spider, SiteSpider)
    if spider.error is not None:
        raise spider.error
    return spider.result, signal.number or 0


async def until_stopped(crawl: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
    """Wait for a crawl; once it is to stop, for a few seconds only: the journal has all it needs."""
    running, stopped = asyncio.ensure_future(crawl), asyncio.ensure_future(stop.wait())
    await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not running.done():
        await asyncio.wait({running}, timeout=CLOSING_SECONDS)
    if running.done():
        running.result()
    else:
        running.cancel()

"""The spider: takes a page from the frontier, lets Scrapy fetch it, tells the frontier the outcome.

In: a profile, a frontier, a journal. Out: a journal with a row for every address that was tried, and a
frontier that knows the outcome of each. Scrapy does the rest, under the settings below: robots.txt, retries,
redirects, delays, limits, the cache. One page at a time: that is polite, and makes the order of a crawl a
property of the site.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import partial
from importlib.metadata import version
from typing import Any

import scrapy
from scrapy import signals
from scrapy.crawler import Crawler
from scrapy.exceptions import CloseSpider
from scrapy.http import Response
from w3lib.url import safe_url_string

from yanmo.core.console import Console
from yanmo.core.errors import YanmoError
from yanmo.core.signals import StopSignal
from yanmo.text.crawl.addresses import CheckedLoop
from yanmo.text.crawl.components import AGENT, PASSING, ROW, TASK, outcome_of
from yanmo.text.crawl.frontier import MAX_REDIRECTS, MEGABYTE, Frontier, Task
from yanmo.text.crawl.journal import Journal, Row
from yanmo.text.crawl.profile import Profile
from yanmo.text.crawl.rows import new_row, settle

PASSING_STATUSES = [408, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524]
"""Status codes that may pass: worth another try a little later."""
GIVE_UP_AFTER = 10
"""Failures in a row that end the run: the site is down, or turns us away."""
CLOSING_SECONDS = 3.0
STOPPED = "stopped by a signal"
ENDS = {"finished": "", "shutdown": STOPPED, "closespider_timeout": "max_minutes is over"}
"""Scrapy's reasons for an end, in our words; our own reasons need no translation."""


class SiteSpider(scrapy.Spider):
    """Walks one site in the order of its frontier."""

    name = AGENT

    def __init__(self, profile: Profile, frontier: Frontier, journal: Journal, console: Console) -> None:
        super().__init__()
        self.profile, self.frontier, self.journal = profile, frontier, journal
        self._console = console
        self._failures_in_a_row = 0
        self.task: Task | None = None
        """The page whose turn it is, until the frontier has heard of it."""
        self.upcoming: scrapy.Request | None = None
        """The request for it, until the scheduler has handed it out."""
        self.ended = STOPPED
        """Why the crawl ended early; empty where it did not."""
        self.error: BaseException | None = None
        """What went wrong on our side, not on the site's."""

    async def start(self) -> AsyncIterator[Any]:
        """Scrapy's way in: all requests come from the scheduler."""
        self.crawler.signals.connect(self.broken, signal=signals.spider_error)
        self._turn()
        return
        yield  # makes it the generator that Scrapy asks for

    def _turn(self) -> None:
        """The next page's turn."""
        self.task = self.frontier.next()
        if self.task is not None:
            # As the site writes it: aiohttp would take `..` out of it after robots.txt was asked about it.
            meta, url = {"verbatim_url": True}, safe_url_string(self.task.url)
            self.upcoming = scrapy.Request(
                url, self.read, errback=self.failed, cb_kwargs={TASK: self.task}, meta=meta
            )

    def read(self, response: Response, task: Task) -> None:
        """A page has its row, from the journal or from the site."""
        row = response.meta.get(ROW)
        if row is None:  # a success that is no page, like 204
            row = self._write(task, {"failed": str(response.status)})
        self._settle(task, row, is_known="cached" in response.flags)

    def failed(self, failure: Any) -> None:
        """A page has no answer that can be read."""
        if isinstance(failure.value, asyncio.CancelledError):  # by `_hang_up`
            return
        if isinstance(failure.value, YanmoError):  # the journal could not be written
            self.error = failure.value
            raise CloseSpider
        task = failure.request.cb_kwargs[TASK]
        self._settle(task, self._write(task, outcome_of(failure.value)))

    def broken(self, failure: Any) -> None:
        """One of our own functions raised; Scrapy would log it and wait for the page for ever."""
        self.error = failure.value

    def closed(self, reason: str) -> None:
        """Scrapy has ended."""
        self.ended = ENDS.get(reason, reason)

    def _write(self, task: Task, outcome: Row) -> Row:
        row = new_row(task, self.profile) | outcome
        self.journal.add(row)
        return row

    def _settle(self, task: Task, row: Row, is_known: bool = False) -> None:
        if not is_known:  # the journal says nothing about how the site is today
            self._failures_in_a_row = self._failures_in_a_row + 1 if "failed" in row else 0
        settle(self.frontier, task, row)
        self._turn()
        self._say()
        if self.task is not None and self._failures_in_a_row >= GIVE_UP_AFTER:
            raise CloseSpider(f"{GIVE_UP_AFTER} pages in a row failed: the site is down, or turns us away")

    def _say(self) -> None:
        counts = self.frontier.tally.outcomes
        known = ", ".join(f"{number:,} {name}" for name, number in sorted(counts.items()))
        self._console.status(f"{known}; {self.frontier.waiting:,} waiting")


# -- Scrapy -----------------------------------------------------------------------------------


def user_agent(profile: Profile) -> str:
    """Who we are and whom to write to."""
    return f"{AGENT}/{version('yanmo')}" + (f" (+{profile.contact})" if profile.contact else "")


THEIRS, OURS = "scrapy.downloadermiddlewares", "yanmo.text.crawl.components"
REPLACED = {
    # Twisted's reactor starts once in a process, and Twisted keeps headers without end. Without it Scrapy
    # runs on asyncio, where a loop of ours can check each connection, and downloads by aiohttp, which accepts
    # 128 headers of 8 KB.
    "TWISTED_REACTOR_ENABLED": False,
    "ASYNCIO_EVENT_LOOP": CheckedLoop,
    # With JOBDIR Scrapy's scheduler pickles its queue, which runs whatever is put there, and writes it at an
    # orderly end only: a kill loses pages.
    "SCHEDULER": f"{OURS}.FrontierScheduler",
    # Scrapy's storages pickle too. The cache stands before all the rest: what the journal knows is asked
    # neither of robots.txt nor of the site, and what it is given has been unpacked and tried again.
    "HTTPCACHE_ENABLED": True,
    "HTTPCACHE_STORAGE": f"{OURS}.JournalStorage",
    "DOWNLOADER_MIDDLEWARES": {
        f"{THEIRS}.httpcache.HttpCacheMiddleware": 10,
        # lets through subdomains, other ports, private addresses
        f"{THEIRS}.offsite.OffsiteMiddleware": None,
        f"{OURS}.Guard": 50,
        # fails open: where robots.txt cannot be had, everything is allowed
        f"{THEIRS}.robotstxt.RobotsTxtMiddleware": None,
        f"{OURS}.Robots": 100,
        # tries again at once, whatever Retry-After says
        f"{THEIRS}.retry.RetryMiddleware": None,
        f"{OURS}.PatientRetry": 550,
        # fetches what the frontier has not heard of: uncounted, past the budget, twice
        f"{THEIRS}.redirect.RedirectMiddleware": None,
        f"{OURS}.FrontierRedirect": 600,
    },
}
"""Where a part of Scrapy's breaks a promise, one of ours in its place."""
OFF = {
    "COOKIES_ENABLED": False,
    "HTTPPROXY_ENABLED": False,  # it obeys http_proxy, and a proxy connects where we cannot look
    "METAREFRESH_ENABLED": False,
    "DOWNLOAD_HANDLERS": dict.fromkeys(["data", "file", "ftp", "s3"]),
    # What stays on is named, since an update may bring more: Scrapy's list has a telnet console, and a remote
    # control that runs whatever code is sent to its port.
    "EXTENSIONS_BASE": dict.fromkeys(
        ["scrapy.extensions.throttle.AutoThrottle", "scrapy.extensions.closespider.CloseSpider"], 0
    ),
}
"""Features of Scrapy that are on by default and must be off."""


def settings_of(profile: Profile) -> dict[str, Any]:
    """Scrapy's settings: polite, bounded, and nothing that listens, remembers or pickles."""
    return {
        "USER_AGENT": user_agent(profile),
        "CONCURRENT_REQUESTS": 1,
        "CONCURRENT_REQUESTS_PER_DOMAIN": 1,
        "DOWNLOAD_DELAY": profile.delay,
        "DOWNLOAD_DELAY_JITTER": 0.0,  # it would go below the delay too
        "AUTOTHROTTLE_ENABLED": True,
        "AUTOTHROTTLE_START_DELAY": profile.delay,
        "AUTOTHROTTLE_MAX_DELAY": max(60.0, profile.delay),
        "ROBOTSTXT_OBEY": True,
        "ROBOTSTXT_USER_AGENT": AGENT,  # rules name the program, without its version and contact
        "RETRY_TIMES": 2,
        "RETRY_HTTP_CODES": PASSING_STATUSES,
        "RETRY_EXCEPTIONS": list(PASSING),  # Scrapy's list has names without an address, which will not pass
        "REDIRECT_MAX_TIMES": MAX_REDIRECTS,
        "DOWNLOAD_TIMEOUT": profile.budget.page_seconds,
        "DOWNLOAD_MAXSIZE": int(profile.budget.max_page_mb * MEGABYTE),
        "DOWNLOAD_WARNSIZE": 0,
        "DOWNLOAD_VERIFY_CERTIFICATES": True,
        "CLOSESPIDER_TIMEOUT": 60 * profile.budget.max_minutes,
        "CLOSESPIDER_ERRORCOUNT": 1,  # a fault of ours ends the crawl instead of losing a page
        **REPLACED,
        **OFF,
    }


def run(
    profile: Profile, frontier: Frontier, journal: Journal, console: Console, settings: dict[str, Any] | None
) -> tuple[str, int]:
    """Walk a site. Gives (the reason why it ended early or an empty text, the signal that ended it or 0)."""
    logging.getLogger("scrapy").setLevel(logging.CRITICAL)  # outcomes of pages are counted, not logged
    crawler = Crawler(SiteSpider, settings_of(profile) | (settings or {}))
    stop, loop_class = asyncio.Event(), crawler.settings["ASYNCIO_EVENT_LOOP"]
    try:
        with asyncio.Runner(loop_factory=partial(loop_class, profile.private_network)) as runner:
            wake = partial(runner.get_loop().call_soon_threadsafe, stop.set)
            with StopSignal(wake) as signal:
                parts = {"profile": profile, "frontier": frontier, "journal": journal, "console": console}
                runner.run(_crawl(crawler, stop, parts))
    finally:
        console.clear_status()
    spider = crawler.spider
    assert isinstance(spider, SiteSpider)
    if spider.error is not None:
        raise spider.error
    if spider.task is not None:  # it was not visited after all
        frontier.put_back(spider.task)
    return spider.ended, signal.number or 0


async def _crawl(crawler: Crawler, stop: asyncio.Event, parts: dict[str, Any]) -> None:
    """Let Scrapy run to its end, or until somebody wants it to stop."""
    crawling = asyncio.ensure_future(crawler.crawl_async(**parts))
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait({crawling, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if crawling.done():
        crawling.result()
    else:
        await _hang_up(crawler, crawling)


async def _hang_up(crawler: Crawler, crawling: "asyncio.Task[None]") -> None:
    """Give up the page that is on its way, and end: the journal has all the others."""
    for task in asyncio.all_tasks() - {asyncio.current_task(), crawling}:
        task.cancel()
    closing = asyncio.ensure_future(crawler.stop_async())
    await asyncio.wait({crawling, closing}, timeout=CLOSING_SECONDS)

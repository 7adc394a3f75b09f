"""Components of Scrapy, replaced where our promises ask for more than its own keep.

In: Scrapy's requests, responses and failures. Out: the same, or an :class:`Outcome`, which ends a page under
a name: refused, failed, or moved to another address. ``spider.REPLACED`` puts each of these in the place of
Scrapy's own and says why. Requests with a task are pages; the others ask for robots.txt.
"""

import asyncio
import contextlib
import time
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from scrapy import Request
from scrapy.core.scheduler import BaseScheduler
from scrapy.downloadermiddlewares.offsite import OffsiteMiddleware
from scrapy.downloadermiddlewares.redirect import RedirectMiddleware
from scrapy.downloadermiddlewares.retry import RetryMiddleware
from scrapy.downloadermiddlewares.robotstxt import RobotsTxtMiddleware
from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadCancelledError,
    DownloadConnectionRefusedError,
    DownloadFailedError,
    DownloadTimeoutError,
    IgnoreRequest,
    ResponseDataLossError,
)
from scrapy.extensions.throttle import AutoThrottle
from scrapy.http import Response
from scrapy.http.request import NO_CALLBACK
from scrapy.robotstxt import ProtegoRobotParser, RobotParser
from scrapy.spidermiddlewares.httperror import HttpError

from yanmo.text.crawl.addresses import OFF_SITE, PRIVATE, is_private, why_refused
from yanmo.text.crawl.frontier import MAX_REDIRECTS
from yanmo.text.crawl.journal import Row
from yanmo.text.crawl.profile import host_of
from yanmo.text.crawl.rows import known_row, page_row

AGENT = "yanmo"
"""Our name in robots.txt."""
ROBOTS = "robots.txt"
MAX_ROBOTS_BYTES = 512 * 1024
"""Bytes read of a robots.txt: the least that RFC 9309 asks for."""
MAX_CRAWL_DELAY = 300.0
"""Seconds: a Crawl-delay beyond this counts as this; otherwise one line could stop a crawl for good."""
MAX_RETRY_AFTER = 600.0
"""Seconds: a site that asks for a longer pause is left alone until the command is given again."""
TOO_LARGE = "max_page_mb"
TASK, ROW = "task", "row"
"""Keys under which a request carries its page's task, and its row once there is one."""
PASSING = {
    DownloadTimeoutError: "timeout",
    DownloadConnectionRefusedError: "connection refused",
    DownloadFailedError: "connection lost",
    ResponseDataLossError: "connection lost",
}
"""Failures that may pass: worth another try a little later."""
FAILURES = PASSING | {CannotResolveHostError: "no such host"}

T = TypeVar("T")


class Outcome(IgnoreRequest):
    """The end of a page, as the part of its row that says so: ``refused``, ``failed`` or ``to``."""

    def __init__(self, **row: str) -> None:
        super().__init__(*row.values())
        self.row: Row = row


def outcome_of(error: BaseException) -> Row:
    """The outcome of a page whose request ended in an error."""
    if isinstance(error, Outcome):
        return error.row
    if isinstance(error, HttpError):
        return {"failed": str(error.response.status)}
    if is_private(error):
        return {"refused": PRIVATE}
    # only limits of size are left here, of what was sent and of what it unpacks to
    if isinstance(error, DownloadCancelledError | IgnoreRequest):
        return {"refused": TOO_LARGE}
    known = (name for kind, name in FAILURES.items() if isinstance(error, kind))
    # a site can break a response in more ways than have names
    return {"failed": next(known, type(error).__name__)}


class FrontierScheduler(BaseScheduler):
    """Hands out the one request whose turn it is; the spider takes it from the frontier."""

    def __init__(self, spider: Any) -> None:
        self._spider = spider

    @classmethod
    def from_crawler(cls, crawler: Any) -> "FrontierScheduler":
        """Scrapy's way in."""
        return cls(crawler.spider)

    def has_pending_requests(self) -> bool:
        """Whether there is a page to wait for."""
        return self._spider.task is not None

    def enqueue_request(self, request: Request) -> bool:
        """Take a page's further try: redirects end at the frontier, so nothing else comes here."""
        self._spider.upcoming = request
        return True

    def next_request(self) -> Request | None:
        """The next request; None while the page before it is being fetched or read."""
        request: Request | None = self._spider.upcoming
        self._spider.upcoming = None
        return request


class JournalStorage:
    """The journal as Scrapy's HTTP cache: known pages come from it, fetched pages are written at once."""

    def __init__(self, settings: Any) -> None:
        """The journal needs none of Scrapy's settings."""

    def open_spider(self, spider: Any) -> None:
        """The journal is open for longer than the spider: the output is made of it."""

    def close_spider(self, spider: Any) -> None:
        """As above."""

    def retrieve_response(self, spider: Any, request: Request) -> Response | None:
        """An empty response that carries the journal's row of a page."""
        row = known_row(spider.journal, request.cb_kwargs[TASK], spider.profile)
        if row is None:
            return None
        request.meta[ROW] = row
        return Response(request.url)

    def store_response(self, spider: Any, request: Request, response: Response) -> None:
        """Read a page and write its row, which is on the disk when this returns."""
        if response.status == 200:
            kind = header(response, "Content-Type")
            row = page_row(request.cb_kwargs[TASK], spider.profile, kind, response.body)
            spider.journal.add(row)
            request.meta[ROW] = row


class Guard(OffsiteMiddleware):
    """Checks the address of every request, including those that Scrapy makes itself."""

    def should_follow(self, request: Request, spider: Any) -> bool:
        """Hosts to the letter and with their port, no private address, no login.

        A robots.txt may lie on another host (RFC 9309, 2.3.1.2), but nowhere else that is forbidden.
        """
        reason = why_refused(request.url, spider.profile)
        if reason and (reason != OFF_SITE or is_page(request)):
            raise Outcome(refused=reason)
        return True


class Robots(RobotsTxtMiddleware):
    """robots.txt by RFC 9309; a site whose robots.txt cannot be had is not crawled.

    Scrapy allows everything where its request fails, and reads the body of a 503 or 404 as rules.
    """

    def __init__(self, crawler: Any) -> None:
        super().__init__(crawler)
        self._rules: dict[str, ProtegoRobotParser | str] = {}

    async def robot_parser(self, request: Request) -> ProtegoRobotParser:
        """The rules of a page's site, fetched once a run; Scrapy has one entry for http and https."""
        site = f"{request.url.partition(':')[0]}://{host_of(request.url)}"
        if site not in self._rules:
            self._rules[site] = await self._fetch(site)
        rules = self._rules[site]
        if isinstance(rules, str):
            raise Outcome(failed=f"{ROBOTS}: {rules}")
        return rules

    def process_request_2(self, rp: RobotParser | None, request: Request) -> None:
        """Scrapy's check of one address, with our name for what it refuses."""
        try:
            super().process_request_2(rp, request)
        except IgnoreRequest as error:
            raise Outcome(refused=ROBOTS) from error

    async def _fetch(self, site: str) -> ProtegoRobotParser | str:
        # never from the journal: a site may have changed its rules since
        meta = {"dont_obey_robotstxt": True, "dont_cache": True}
        request = Request(f"{site}/robots.txt", callback=NO_CALLBACK, meta=meta)
        try:
            response = await self.crawler.engine.download_async(request)
        except Exception as error:
            return str(*outcome_of(error).values())
        rules = read_robots(response.status, response.body)
        if isinstance(rules, ProtegoRobotParser):
            self._slow_down(crawl_delay(rules))
        return rules

    def _slow_down(self, delay: float) -> None:
        """Keep at least ``delay`` seconds between requests: Scrapy reads a Crawl-delay but ignores it."""
        throttle = self.crawler.get_extension(AutoThrottle)
        assert throttle is not None  # the settings turn it on
        throttle.mindelay = max(throttle.mindelay, delay)
        throttle.maxdelay = max(throttle.maxdelay, delay)
        for slot in self.crawler.engine.downloader.slots.values():
            slot.delay = max(slot.delay, delay)


class PatientRetry(RetryMiddleware):
    """Waits before a further try, as long as the site asks: Scrapy's comes at once.

    Scrapy awaits what a middleware returns where it can be awaited, and passes no ``spider`` any more.
    """

    async def process_response(  # type: ignore[override]
        self, request: Request, response: Response
    ) -> Request | Response:
        """A further request after a pause; the answer itself where there is to be none."""
        asked = retry_after(header(response, "Retry-After"))
        if asked > MAX_RETRY_AFTER:
            return response
        return await self._later(super().process_response(request, response), asked)

    async def process_exception(  # type: ignore[override]
        self, request: Request, exception: Exception
    ) -> Request | Response | None:
        """A further request after a pause, where the trouble may pass."""
        return await self._later(super().process_exception(request, exception))

    async def _later(self, found: T, asked: float = 0.0) -> T:
        if isinstance(found, Request):
            delay = self.crawler.settings.getfloat("DOWNLOAD_DELAY")
            await asyncio.sleep(max(asked, 5 * delay * found.meta["retry_times"]))
        return found


class FrontierRedirect(RedirectMiddleware):
    """Tells where a page has moved to; the frontier decides whether that address is visited, and counts it.

    Scrapy would fetch it unseen: past the budget, and again where it was fetched before.
    """

    def process_response(  # type: ignore[override]
        self, request: Request, response: Response
    ) -> Request | Response:
        """Scrapy's way for a robots.txt, an outcome for a page."""
        try:
            found = super().process_response(request, response)
        except IgnoreRequest as error:
            raise Outcome(failed=f"more than {MAX_REDIRECTS} redirects") from error
        except ValueError:  # a Location that is no address: the answer fails by its status
            return response
        if isinstance(found, Request) and is_page(request):
            raise Outcome(to=found.url)
        return found


def is_page(request: Request) -> bool:
    """Whether a request is the spider's, for a page of the frontier."""
    return TASK in request.cb_kwargs


# -- answers ----------------------------------------------------------------------------------


def read_robots(status: int, body: bytes) -> ProtegoRobotParser | str:
    """The rules that an answer for robots.txt means; as text the reason why nothing may be fetched."""
    if 200 <= status < 300:
        return ProtegoRobotParser(body[:MAX_ROBOTS_BYTES], None)
    if 400 <= status < 500 and status != 429:  # there are no rules
        return ProtegoRobotParser(b"", None)
    return str(status)


def crawl_delay(rules: ProtegoRobotParser) -> float:
    """Seconds that a site asks to wait between two requests."""
    return min(rules.crawl_delay(AGENT) or 0.0, MAX_CRAWL_DELAY)


def header(response: Response, name: str) -> str:
    """A header as text."""
    return (response.headers.get(name) or b"").decode("latin-1")


def retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks for, written as seconds or as a date."""
    if value.strip().isdecimal():
        return float(value)
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0

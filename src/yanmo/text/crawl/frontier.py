"""The order of a crawl and its limits: which page comes next. Nothing is fetched here.

In: the outcome of each page, one after the other. Out: the next page to visit, and in the end every address
that was found, under one heading: list, kept, duplicate, redirected, empty, refused, failed.

The walk goes depth first, in the order of a page: a list's texts, then its lists, then its `next`. So the
order of visits is the reading order, and it depends on the pages alone, not on clocks or kills: a crawl that
was interrupted repeats its walk from the start, with answers from the journal, and goes on from there.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from w3lib.url import canonicalize_url

from yanmo.text.crawl.addresses import why_refused
from yanmo.text.crawl.page import Kind
from yanmo.text.crawl.profile import Profile, host_of

MAX_REDIRECTS = 5
NAMED = 1000
"""Refused and failed addresses that are named; all are counted."""
MEGABYTE = 1_000_000
CALENDAR = re.compile(
    r"(?:^|[/_-])(?:1[89]|2\d|[3-9]\d)\d\d[/_.-]?(?:0?[1-9]|1[0-2])(?:[/_.-]?(?:0?[1-9]|[12]\d|3[01]))?/?(?:index\.\w+)?$"
    r"|(?:calendar|rili)(?:/|$|\?)"
)
CALENDAR_QUERY = re.compile(r"(?:^|&)(?:date|day|week|month|year|ym|ymd|rili)=", re.IGNORECASE)


@dataclass(frozen=True)
class Task:
    """A page to visit."""

    url: str
    key: str
    kind: Kind
    book: str
    """The first page of the list that led here."""
    depth: int = 0
    redirects: tuple[str, ...] = ()
    """The addresses that redirected here."""
    link: str = ""
    """The key of the link on a list that led here, or of the text that goes on here."""


@dataclass
class CrawlTally:
    """The outcomes of every address that was found."""

    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, Counter[str]] = field(default_factory=dict)
    """For refused and failed: how many, by reason."""
    named: list[str] = field(default_factory=list)

    def count(self, outcome: str, url: str, reason: str = "") -> None:
        """Count one address."""
        self.outcomes[outcome] += 1
        if reason:
            self.reasons.setdefault(outcome, Counter())[reason] += 1
            if len(self.named) < NAMED:
                self.named.append(f"{outcome}: {reason}: {url}")


class Frontier:
    """Hands out pages in reading order, within the profile's limits."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self.tally = CrawlTally()
        self.kept: list[Task] = []
        """Texts, in reading order."""
        self.lists: dict[str, Task] = {}
        """List pages by address."""
        self._order: dict[str, dict[str, bool]] = {}
        """For each book, the links of its lists in reading order, and whether one was twice on a page."""
        self._known: set[str] = set()
        self._hashes: set[str] = set()
        self._spent: Counter[tuple[str, str]] = Counter()
        self._bytes = 0
        self._stack: list[Task] = []
        kind: Kind = "list" if profile.select.chapter or profile.select.list else "chapter"
        self._push([self._task(url, kind, 0, "") for url in profile.start])

    @property
    def found(self) -> int:
        """Addresses found so far."""
        return len(self._known)

    @property
    def waiting(self) -> int:
        """Addresses found that have no outcome yet."""
        return len(self._stack)

    def next(self) -> Task | None:
        """The page to visit now; those that must not be visited are counted on the way."""
        while self._stack:
            task = self._stack.pop()
            reason = why_refused(task.url, self._profile) or self._over_budget(task)
            if not reason:
                return task
            self.tally.count("refused", task.url, reason)
        return None

    def put_back(self, task: Task) -> None:
        """The page was not visited after all: it stays the next one."""
        self._stack.append(task)

    def refuse(self, task: Task, reason: str) -> None:
        """The page must not be visited."""
        self.tally.count("refused", task.url, reason)

    def fail(self, task: Task, reason: str) -> None:
        """The page could not be fetched."""
        self.tally.count("failed", task.url, reason)

    def redirect(self, task: Task, target: str) -> None:
        """The page is elsewhere: that address comes next, in this one's place."""
        chain = (*task.redirects, task.key)
        book = task.book if task.book != task.url else ""
        there = self._task(target, task.kind, task.depth, book, chain, task.link)
        if there.key in chain:
            self.fail(task, "redirect loop")
        elif len(chain) > MAX_REDIRECTS:
            self.fail(task, f"more than {MAX_REDIRECTS} redirects")
        else:
            self.tally.count("redirected", task.url)
            self._push([there])

    def list_read(self, task: Task, links: dict[str, list[str]], size: int) -> None:
        """A list was visited; what it leads to comes next."""
        self._bytes += size
        self.tally.count("list", task.url)
        self.lists[task.url] = task
        is_new = self._put_in_order(task.book, links["chapter"], {*links.get("twice", ())})
        children = [
            self._task(url, "chapter", task.depth + 1, task.book, link=key_of(url))
            for url in links["chapter"]
        ]
        children += [self._task(url, "list", task.depth + 1, "") for url in links["list"]]
        on = [self._task(url, "list", task.depth, task.book) for url in links["next"]]
        if is_new or any(child.key not in self._known for child in children):
            # a list with nothing new ends its chain: a trap of `next` links may be endless
            self._push([*children, *on])

    def text_read(self, task: Task, digest: str, goes_on: list[str], size: int) -> None:
        """A text was visited; ``digest`` is its hash, empty where there is no text."""
        self._bytes += size
        if not digest:
            self.tally.count("empty", task.url)
        elif digest in self._hashes:
            self.tally.count("duplicate", task.url)
        else:
            self._hashes.add(digest)
            self.kept.append(task)
            self.tally.count("kept", task.url)
            self._push([self._task(url, "chapter", task.depth, task.book, link=task.key) for url in goes_on])

    def in_order(self, book: str, tasks: list[Task]) -> list[Task]:
        """The texts of a book, given in the order of visits, as its lists have them.

        What is on none follows the text that led there.
        """
        places = {key: place for place, key in enumerate(self._order.get(book, ()))}
        for task in tasks:
            places.setdefault(task.key, places.get(task.link, -1))
        return sorted(tasks, key=lambda task: places[task.key])

    def _put_in_order(self, book: str, urls: list[str], twice: set[str]) -> bool:
        """Take the links of the next page of a book's list; whether one of them is new there.

        One that stands on several pages belongs to the last that has it twice, in a block of the latest and
        in the list, or where none has it twice, to the last.
        """
        order = self._order.setdefault(book, {})
        before = len(order)
        for url in urls:
            key = key_of(url)
            if url in twice or not order.get(key):
                order.pop(key, None)
                order[key] = url in twice
        return len(order) > before

    def _task(
        self, url: str, kind: Kind, depth: int, book: str, redirects: tuple[str, ...] = (), link: str = ""
    ) -> Task:
        return Task(url, key_of(url), kind, book or url, depth, redirects, link)

    def _push(self, tasks: list[Task]) -> None:
        new = []
        for task in tasks:
            if task.key not in self._known:
                self._known.add(task.key)
                new.append(task)
        # a stack: the first of the new pages is on top, so the walk is depth first in the order of the page
        self._stack += reversed(new)

    def _over_budget(self, task: Task) -> str:
        """The limit that a page is beyond; if there is none, the page is charged to all of them."""
        limits: dict[str, Any] = self._profile.budget.model_dump()
        if task.depth > limits["max_depth"]:
            return "max_depth"
        if self._bytes > limits["max_mb"] * MEGABYTE:
            return "max_mb"
        shares = _shares(task)
        for share in shares:
            if self._spent[share] >= limits[share[0]]:
                return share[0]
        self._spent.update(shares)
        return ""


def key_of(url: str) -> str:
    """One key for all spellings of an address: order of the query, port, escapes, fragment."""
    key = str(canonicalize_url(url))
    try:
        return urlsplit(key)._replace(netloc=host_of(key)).geturl()
    except ValueError:  # no port of this world; it will be refused
        return key


def _shares(task: Task) -> list[tuple[str, str]]:
    """What a page is charged to: (limit, of what)."""
    parts = urlsplit(task.url)
    site = host_of(task.url)
    folder = parts.path.rstrip("/").rpartition("/")[0]
    shares = [("max_pages", ""), ("max_per_folder", f"{site}{folder}")]
    if task.kind == "list":
        shares.append(("max_lists", ""))
    if parts.query:
        shares.append(("max_query_variants", f"{site}{parts.path}"))
    if CALENDAR.search(parts.path) or CALENDAR_QUERY.search(parts.query):
        shares.append(("max_calendar", ""))
    return shares

"""robots.txt, obeyed as RFC 9309 says. There is no switch that turns this off.

In: a URL, and a way to fetch. Out: whether it may be fetched, and how long the site asks to wait.
Scrapy's own rule lets everything through where robots.txt cannot be had; here a site whose robots.txt
answers with a server error, or not at all, is not crawled. 4xx means there are no rules.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from protego import Protego

from yanmo.text.crawl.profile import host_of

AGENT = "yanmo"
"""Our name in robots.txt."""
MAX_BYTES = 512 * 1024
"""Of a robots.txt so much is read."""
MAX_DELAY = 300.0
"""Seconds: a Crawl-delay beyond this counts as this."""


@dataclass(frozen=True)
class Answer:
    """What came back for robots.txt: a status and a body, or why nothing came."""

    status: int
    body: bytes = b""
    problem: str = ""


@dataclass(frozen=True)
class Rules:
    """What one host says."""

    parser: Protego | None
    """None: nothing may be fetched."""
    problem: str = ""
    """Why nothing may be fetched, where it is not the rules that say so."""

    @property
    def delay(self) -> float:
        """Seconds the host asks to wait between two requests."""
        asked = self.parser.crawl_delay(AGENT) if self.parser else None
        return min(asked or 0.0, MAX_DELAY)


class Robots:
    """The rules of every host that was met, each fetched once."""

    def __init__(self, fetch: Callable[[str], Awaitable[Answer]]) -> None:
        self._fetch = fetch
        self._rules: dict[str, Rules] = {}

    async def rules_of(self, url: str) -> Rules:
        """The rules of a URL's host."""
        parts = urlsplit(url)
        site = f"{parts.scheme}://{host_of(url)}"
        if site not in self._rules:
            self._rules[site] = read_rules(await self._fetch(f"{site}/robots.txt"))
        return self._rules[site]


def read_rules(answer: Answer) -> Rules:
    """What an answer for robots.txt means."""
    if answer.problem:
        return Rules(None, f"robots.txt: {answer.problem}")
    if answer.status >= 500 or answer.status == 429:
        return Rules(None, f"robots.txt: {answer.status}")
    if answer.status != 200:
        return Rules(Protego.parse(""))
    return Rules(Protego.parse(answer.body[:MAX_BYTES].decode("utf-8-sig", "ignore")))


def is_allowed(rules: Rules, url: str) -> bool:
    """Whether a host's rules let us fetch a URL of its."""
    return rules.parser is not None and bool(rules.parser.can_fetch(url, AGENT))

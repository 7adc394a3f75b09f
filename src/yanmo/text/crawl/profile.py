"""A site as one TOML file: where it begins, what its links and texts look like, how much is enough.

In: a bare name (a profile of ours, from ``sites/``) or the path of a .toml. Out: a frozen
:class:`Profile`, or a ConfigError that names the key and a hint. Nothing is fetched here.
"""

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError, field_validator

from yanmo.core.errors import ConfigError
from yanmo.settings.places import shipped
from yanmo.settings.schema import Section

MIN_DELAY = 1.0
"""Seconds between two requests to a site of somebody else's, at least."""
TEMPLATE = "template"
"""The profile that is there to be copied."""


class Selectors(Section):
    """CSS selectors: which links to follow, and where the text is. `::text` and `::attr(name)` work."""

    list: str = ""
    """Links on a list page to further list pages: categories, books."""
    next: str = ""
    """The link to the page that goes on: from a list to the rest of the list, from a text to the rest of
    the text or the next chapter."""
    chapter: str = ""
    """Links on a list page to pages with text: chapters, essays. Without it the start pages are texts
    themselves."""
    title: str = ""
    """A text's title. Left out: the only h1, og:title, the title tag."""
    author: str = ""
    """A text's author. Left out: the meta tag `author`."""
    time: str = ""
    """When a text was published. Left out: the meta tags and the time tag."""
    body: str = ""
    """The elements that hold the text. Left out, or where nothing fits: trafilatura finds the main text."""
    drop: tuple[str, ...] = ()
    """Elements taken out of the body: advertisements, links to the next page."""
    book_title: str = ""
    """With join = "book": the book's title on its list page. Left out: as with title."""
    book_author: str = ""
    """With join = "book": the book's author on its list page. Left out: as with author."""


class CrawlBudget(Section):
    """Where enough is enough; what lies beyond is counted as refused, by the key that refused it."""

    max_pages: PositiveInt = 10_000
    """Pages visited, lists and texts together."""
    max_lists: PositiveInt = 1_000
    """List pages visited: what a trap of endless lists can cost."""
    max_depth: PositiveInt = 8
    """Links between a start page and a page; `next` does not count."""
    max_query_variants: PositiveInt = 200
    """Pages that differ only behind the question mark."""
    max_per_folder: PositiveInt = 5_000
    """Pages in one folder of the site (`/book/12/` of `/book/12/3.html`)."""
    max_calendar: PositiveInt = 100
    """Pages whose address ends in a date or asks for one, as calendars without end have."""
    max_mb: PositiveInt = 2_000
    """Megabytes of pages, unpacked."""
    max_minutes: PositiveFloat = 720
    """Minutes of one command; the same command again goes on."""
    max_page_mb: PositiveFloat = 10
    """Megabytes of one page, unpacked; a larger one is refused."""
    page_seconds: PositiveFloat = 30
    """Seconds for one page, from the request to its last byte."""


class Profile(Section):
    """One site."""

    start: Annotated[tuple[str, ...], Field(min_length=1)]
    """Pages to begin with."""
    hosts: tuple[str, ...] = ()
    """Hosts to stay on, with the port where it is an unusual one. Left out: those of the start pages."""
    permission: Annotated[str, Field(min_length=1)]
    """Who allowed the crawl, where and when; or what you rely on."""
    verified: bool = False
    """Whether somebody has seen this profile work on the site."""
    contact: Annotated[str, Field(pattern=r"^[\x20-\x7e]*$")] = ""
    """An address of yours, in ASCII, that the site's owner finds in the log (part of the User-Agent)."""
    encoding: str = "auto"
    """`auto` goes by evidence; any other name is used as given. `gb2312` and `gbk` mean gb18030."""
    join: Literal["book", "page"] = "book"
    """`book`: the texts that one list leads to become one document, in the list's order, with their
    titles as headings. `page`: each text is a document."""
    delay: NonNegativeFloat = MIN_DELAY
    """Seconds between two requests, at least 1; grows by itself where the site is slow or its robots.txt
    asks for more."""
    private_network: bool = False
    """Let the crawler reach private addresses (an intranet, a test); delay may then be below 1."""
    select: Selectors = Selectors()
    """What is what on a page."""
    budget: CrawlBudget = CrawlBudget()
    """How much is enough."""

    @field_validator("start")
    @classmethod
    def _are_web_pages(cls, start: tuple[str, ...]) -> tuple[str, ...]:
        for url in start:
            if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
                raise ValueError(f"'{url}' is no http:// or https:// page")
        return start

    @property
    def allowed_hosts(self) -> frozenset[str]:
        """Hosts to stay on, as ``host`` or ``host:port``."""
        return frozenset(map(_host, self.hosts)) or frozenset(host_of(url) for url in self.start)


def _host(name: str) -> str:
    """A host as a profile names it; an IPv6 address may lack its brackets."""
    name = name.lower()
    return f"[{name}]" if name.count(":") > 1 and not name.startswith("[") else name


def host_of(url: str) -> str:
    """``host``, with the port where it is not the scheme's own; ``[::1]:8000`` as in a URL."""
    parts = urlsplit(url)
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    host = (parts.hostname or "").rstrip(".")
    host = f"[{host}]" if ":" in host else host
    return host if parts.port in (None, usual) else f"{host}:{parts.port}"


def load_profile(name: str) -> Profile:
    """Read the profile a name means, and check it.

    Raises:
        ConfigError: there is none, or a key or value in it is wrong.
    """
    path = profile_path(name)
    try:
        profile = Profile.model_validate(_read(path))
    except ValidationError as error:
        raise _as_config_error(error, path) from error
    if profile.delay < MIN_DELAY and not profile.private_network:
        raise ConfigError(
            f"delay={profile.delay:g}: a site gets at most one request a second",
            str(path), f"set delay to {MIN_DELAY:g} or more",
        )  # fmt: skip
    _check_selectors(profile.select, path)
    _check_encoding(profile.encoding, path)
    return profile


def profile_path(name: str) -> Path:
    """The file a name means: a path ending in .toml, or the bare name of a profile of ours."""
    if name.endswith(".toml"):
        return Path(name)
    ours = {path.stem: path for path in shipped("sites").glob("*.toml") if path.stem != TEMPLATE}
    if name in ours:
        return ours[name]
    known = sorted(ours)
    here = [f"{name}.toml"] if Path(f"{name}.toml").is_file() else []
    near = here or difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"ours are {', '.join(known)}; or give a .toml of yours"
    raise ConfigError(f"there is no site called '{name}'", "yanmo crawl", hint)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(
            "the site's profile cannot be read", f"{path}: {error.strerror}", "check its path"
        ) from error
    except (ValueError, RecursionError) as error:  # tomllib's are ValueErrors, and so are long numbers
        raise ConfigError(
            "the site's profile is not valid TOML", f"{path}: {error}", "fix that line"
        ) from error


def _as_config_error(error: ValidationError, path: Path) -> ConfigError:
    problem = error.errors()[0]
    loc = [str(part) for part in problem["loc"]]
    name = ".".join(loc[:2])
    if problem["type"] == "extra_forbidden":
        return ConfigError(f"unknown key '{name}'", str(path), _nearest(loc))
    if problem["type"] == "missing":
        return ConfigError(f"'{name}' is missing", str(path), "add it; sites/template.toml shows every key")
    said = problem["msg"].removeprefix("Value error, ")
    return ConfigError(f"{name}={problem['input']!r}: {said[:1].lower()}{said[1:]}", str(path), "change it")


def _nearest(loc: list[str]) -> str:
    """The known key that an unknown one was meant to be."""
    keys = {key: key for key in Profile.model_fields}
    keys |= {key: f"[select] {key}" for key in Selectors.model_fields}
    keys |= {key: f"[budget] {key}" for key in CrawlBudget.model_fields}
    near = difflib.get_close_matches(loc[-1], keys, n=1, cutoff=0.6)
    return f"did you mean '{keys[near[0]]}'?" if near else "sites/template.toml shows every key"


def _check_selectors(select: Selectors, path: Path) -> None:
    given = {key: getattr(select, key) for key in Selectors.model_fields if key != "drop"}
    given |= {f"drop {number}": css for number, css in enumerate(select.drop, 1)}
    for key, css in given.items():
        if css and (problem := _selector_problem(css)):
            raise ConfigError(
                f"select.{key}='{css}' is no CSS selector: {problem}", str(path), "fix the selector"
            )


def _check_encoding(name: str, path: Path) -> None:
    try:
        "\n".encode(name if name != "auto" else "utf-8")
    except (LookupError, ValueError) as error:
        raise ConfigError(f"no encoding is called '{name}'", str(path), "gb18030, big5, utf-8…") from error


def _selector_problem(css: str) -> str:
    """What is wrong with a CSS selector; empty where nothing is."""
    from parsel import Selector

    try:
        Selector(text="<p></p>").css(css)
    except ValueError as error:  # cssselect's errors and parsel's are ValueErrors
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""

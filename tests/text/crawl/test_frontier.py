"""The walk, on a site that is a dictionary: lists lead to pages, and nothing is fetched."""

from collections.abc import Callable

import pytest

from yanmo.text.crawl.frontier import Frontier, Task
from yanmo.text.crawl.profile import CrawlBudget, Profile, Selectors

HOME = "http://a.example/"
Links = dict[str, list[str]]


def frontier(**budget: int) -> Frontier:
    select = Selectors(chapter="a", list="b", next="c")
    return Frontier(Profile(start=(HOME,), permission="x", select=select, budget=CrawlBudget(**budget)))


def at(*paths: str) -> list[str]:
    return [HOME + path for path in paths]


def page(chapter: list[str] = [], lists: list[str] = [], on: list[str] = []) -> Links:  # noqa: B006
    return {"chapter": chapter, "list": lists, "next": on}


def walk(
    walker: Frontier, site: Callable[[Task], Links], text: Callable[[Task], str] = lambda task: task.key
) -> list[str]:
    """Visit everything; paths in the order of the visits."""
    visited = []
    while (task := walker.next()) is not None:
        visited.append(task.url.removeprefix(HOME))
        assert len(visited) < 100_000
        if task.kind == "list":
            walker.list_read(task, site(task), 1000)
        else:
            walker.text_read(task, text(task), site(task)["next"], 1000)
    assert walker.found == walker.tally.outcomes.total()
    assert not walker.waiting
    return visited


def test_the_order_of_visits_is_the_order_of_reading() -> None:
    site = {
        "": page(lists=at("b1", "b2")),
        "b1": page(chapter=at("1", "2"), on=at("b1p2")),
        "b1p2": page(chapter=at("3")),
        "2": page(on=at("2b")),
        "2b": page(on=at("3")),
        "b2": page(chapter=at("4", "1")),
    }
    walker = frontier()
    visited = walk(walker, lambda task: site.get(task.url.removeprefix(HOME), page()))
    assert visited == ["", "b1", "1", "2", "2b", "3", "b1p2", "b2", "4"]
    assert [task.book.removeprefix(HOME) for task in walker.kept] == ["b1", "b1", "b1", "b1", "b2"]


def listed(*chapters: int, on: str = "") -> Links:
    """A page of a list as it is read: each link where it stands last, and those that stand twice."""
    last = sorted({*chapters}, key=lambda chapter: max(i for i, c in enumerate(chapters) if c == chapter))
    twice = [chapter for chapter in last if chapters.count(chapter) > 1]
    return {**page(at(*map(str, last)), on=at(on) if on else []), "twice": at(*map(str, twice))}


LATEST = (9, 8, 7)
LISTS = {
    "a block on every page": [
        listed(*LATEST, 1, 2, 3, on="p2"),
        listed(*LATEST, 4, 5, 6, on="p3"),
        listed(*LATEST, 7, 8, 9),
    ],
    "a block on the first page": [
        listed(*LATEST, 1, 2, 3, on="p2"),
        listed(4, 5, 6, on="p3"),
        listed(7, 8, 9),
    ],
    "where to begin, above": [listed(1, *LATEST, 1, 2, 3, on="p2"), listed(1, *LATEST, 4, 5, 6, 7, 8, 9)],
    "where to begin, below": [listed(*LATEST, 1, 2, 3, on="p2"), listed(*LATEST, 4, 5, 6, 7, 8, 9)],
    "no block": [listed(1, 2, 3, on="p2"), listed(4, 5, on="p3"), listed(6, 7, 8, 9)],
    "one page": [listed(*LATEST, 1, 2, 3, 4, 5, 6, 7, 8, 9)],
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("texts_go_on", [False, True])
def test_a_block_of_the_latest_is_not_the_beginning_of_a_book(name: str, texts_go_on: bool) -> None:
    pages = {"" if n == 0 else f"p{n + 1}": links for n, links in enumerate(LISTS[name])}
    texts = {f"{n}": page(on=at(f"{n}b")) for n in range(1, 10)}
    if texts_go_on:
        texts |= {f"{n}b": page(on=at(f"{n + 1}")) for n in range(1, 9)}
    site = pages | texts
    walker = frontier()
    visited = walk(walker, lambda task: site.get(task.url.removeprefix(HOME), page()))
    found = [task.url.removeprefix(HOME) for task in walker.in_order(HOME, walker.kept)]
    assert found == [f"{n}{half}" for n in range(1, 10) for half in ("", "b")]
    assert sorted(visited) == sorted([*pages, *found])


def test_a_text_that_is_elsewhere_keeps_its_place() -> None:
    walker = frontier()
    site = {"": listed(3, 1, 2, on="p2"), "p2": listed(3, 4)}
    while (task := walker.next()) is not None:
        path = task.url.removeprefix(HOME)
        if path == "3":
            walker.redirect(task, f"{HOME}three")
        elif task.kind == "list":
            walker.list_read(task, site[path], 1)
        else:
            walker.text_read(task, task.key, [], 1)
    found = [task.url.removeprefix(HOME) for task in walker.in_order(HOME, walker.kept)]
    assert found == ["1", "2", "three", "4"]


def test_spellings_of_one_address_are_one_page() -> None:
    spellings = [f"{HOME}x?a=1&b=2", f"{HOME}x?b=2&a=1", "http://A.example:80/x?a=1&b=2#top"]
    assert len(walk(frontier(), lambda task: page(chapter=spellings))) == 2


def test_an_equal_text_is_a_duplicate_and_its_chain_ends() -> None:
    walker = frontier()
    visited = walk(
        walker,
        lambda task: page(chapter=at("1")) if task.kind == "list" else page(on=[task.url + "1"]),
        lambda task: "same",
    )
    assert visited == ["", "1", "11"]
    assert walker.tally.outcomes == {"list": 1, "kept": 1, "duplicate": 1}


def test_a_list_that_brings_nothing_new_ends_its_chain() -> None:
    def endless(task: Task) -> Links:
        number = int(task.url.partition("=")[2] or 1)
        return page(chapter=at("1", "2"), on=[f"{HOME}?page={number + 1}"])

    assert walk(frontier(), endless) == ["", "1", "2", "?page=2"]


@pytest.mark.parametrize(
    ("limit", "trap"),
    [
        ("max_pages", lambda task: page(lists=[f"{task.url}a/", f"{task.url}b/"])),
        ("max_lists", lambda task: page(lists=at(*(f"f{n}/" for n in range(99))))),
        ("max_depth", lambda task: page(lists=[f"{task.url}a/"])),
        ("max_query_variants", lambda task: page(lists=[f"{HOME}?n={len(task.url) * 3 + n}" for n in range(50)])),
        ("max_per_folder", lambda task: page(chapter=at(*(f"shop/{n}.html" for n in range(99))))),
        ("max_calendar", lambda task: page(lists=at(*(f"cal/{2000 + n}/05/" for n in range(99))))),
        ("max_calendar", lambda task: page(lists=at(*(f"k?month={n}" for n in range(99))))),
    ],
)  # fmt: skip
def test_every_trap_has_a_limit_and_what_lies_beyond_is_counted(
    limit: str, trap: Callable[[Task], Links]
) -> None:
    walker = frontier(**({"max_depth": 12, "max_pages": 900} | {limit: 7}))
    visited = walk(walker, lambda task: trap(task) if task.depth < 60 else page())
    assert len(visited) <= 900
    assert walker.tally.reasons["refused"][limit] > 0
    if limit not in ("max_pages", "max_depth"):
        assert len(visited) <= 7 + 1


def test_megabytes_are_limited() -> None:
    walker = frontier(max_mb=1)
    visited = 0
    while (task := walker.next()) is not None:
        visited += 1
        links = page(chapter=at(*map(str, range(50))))
        if task.kind == "list":
            walker.list_read(task, links, 300_000)
        else:
            walker.text_read(task, task.key, [], 300_000)
    assert visited == 4
    assert walker.tally.reasons["refused"] == {"max_mb": 47}


@pytest.mark.parametrize(
    "path",
    [
        "/2019/03/05/",
        "/2019-03-05",
        "/calendar/x",
        "/x?date=1",
        "/rili?y=1",
        "/a/201903",
        "/7749/12/index.html",
    ],
)
def test_calendar_like_addresses(path: str) -> None:
    walker = frontier(max_calendar=1)
    walk(walker, lambda task: page(lists=[f"http://a.example{path}", "http://a.example/2000/01/"]))
    assert walker.tally.reasons["refused"] == {"max_calendar": 1}


@pytest.mark.parametrize(
    "path", ["/2019/03/05/essay.html", "/book/20190/1.html", "/b/1234.html", "/a/199001011.html"]
)
def test_addresses_of_texts_are_no_calendar(path: str) -> None:
    walker = frontier(max_calendar=1)
    walk(walker, lambda task: page(lists=["http://a.example/2000/01/"], chapter=[f"http://a.example{path}"]))
    assert not walker.tally.reasons


def test_addresses_off_the_site_are_refused_and_named() -> None:
    walker = frontier()
    walk(walker, lambda task: page(chapter=["http://b.example/", "javascript:;", "http://10.0.0.1/"]))
    assert walker.tally.reasons["refused"] == {"off-site": 1, "not http": 1, "private address": 1}
    assert "refused: off-site: http://b.example/" in walker.tally.named


def test_redirects_keep_their_place_and_loops_end() -> None:
    walker = frontier()
    targets = {
        "1": "1x",
        "1x": "1y",
        "2": "2x",
        "2x": "2",
        **{f"r{n}": f"r{n + 1}" for n in range(9)},
        "4": "1y",
    }
    order = []
    while (task := walker.next()) is not None:
        path = task.url.removeprefix(HOME)
        order.append(path)
        if path in targets:
            walker.redirect(task, HOME + targets[path])
        elif task.kind == "list":
            walker.list_read(task, page(chapter=at("1", "2", "r0", "3", "4")), 1)
        else:
            walker.text_read(task, task.key, [], 1)
    assert order == ["", "1", "1x", "1y", "2", "2x", "r0", "r1", "r2", "r3", "r4", "r5", "3", "4"]
    assert [task.url.removeprefix(HOME) for task in walker.kept] == ["1y", "3"]
    assert walker.tally.reasons["failed"] == {"redirect loop": 1, "more than 5 redirects": 1}
    assert walker.found == walker.tally.outcomes.total()


def test_without_selectors_of_lists_the_start_pages_are_texts() -> None:
    walker = Frontier(Profile(start=(HOME,), permission="x", select=Selectors(next="a")))
    task = walker.next()
    assert task and task.kind == "chapter"

import asyncio

import pytest

from yanmo.text.crawl.robots import MAX_BYTES, MAX_DELAY, Answer, Robots, is_allowed, read_rules

RULES = b"User-agent: *\nDisallow: /private/\nCrawl-delay: 7\n"
PAGE, PRIVATE = "http://a.example/x", "http://a.example/private/x"


def allowed(answer: Answer, url: str) -> bool:
    return is_allowed(read_rules(answer), url)


def test_rules_are_obeyed() -> None:
    assert allowed(Answer(200, RULES), PAGE)
    assert not allowed(Answer(200, RULES), PRIVATE)
    assert read_rules(Answer(200, RULES)).delay == 7


def test_a_rule_for_yanmo_counts_before_one_for_all() -> None:
    rules = b"User-agent: *\nAllow: /\n\nUser-agent: yanmo\nDisallow: /\n"
    assert not allowed(Answer(200, rules), PAGE)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_site_without_rules_may_be_crawled(status: int) -> None:
    assert allowed(Answer(status, b"User-agent: *\nDisallow: /"), PAGE)


@pytest.mark.parametrize(
    "answer",
    [Answer(500), Answer(503, b"x"), Answer(429), Answer(0, problem="timeout"), Answer(0, problem="x")],
)
def test_a_site_whose_rules_cannot_be_had_is_not_crawled(answer: Answer) -> None:
    rules = read_rules(answer)
    assert not is_allowed(rules, PAGE)
    assert rules.problem.startswith("robots.txt: ")


def test_a_huge_robots_txt_is_read_to_a_limit() -> None:
    padding = b"#" * (MAX_BYTES - len(RULES)) + b"\n"
    assert not allowed(Answer(200, RULES + padding), PRIVATE)
    assert allowed(Answer(200, b"#" * MAX_BYTES + b"\n" + RULES), PRIVATE)


def test_a_hostile_delay_is_bounded() -> None:
    assert read_rules(Answer(200, b"User-agent: *\nCrawl-delay: 999999999\n")).delay == MAX_DELAY


def test_rules_are_fetched_once_for_a_host_and_for_each_host() -> None:
    asked: list[str] = []

    async def fetch(url: str) -> Answer:
        asked.append(url)
        return Answer(200, RULES)

    async def ask() -> None:
        robots = Robots(fetch)
        for url in (
            PAGE,
            PRIVATE,
            "http://a.example:80/y",
            "https://a.example/y",
            "http://a.example:8080/y",
            "http://[::1]:8000/a",
        ):
            await robots.rules_of(url)

    asyncio.run(ask())
    assert asked == [
        f"{host}/robots.txt"
        for host in ("http://a.example", "https://a.example", "http://a.example:8080", "http://[::1]:8000")
    ]

import pytest
from scrapy.robotstxt import ProtegoRobotParser

from yanmo.text.crawl.components import AGENT, MAX_CRAWL_DELAY, MAX_ROBOTS_BYTES, crawl_delay, read_robots

RULES = b"User-agent: *\nDisallow: /private/\nCrawl-delay: 7\n"
PAGE, PRIVATE = "http://a.example/x", "http://a.example/private/x"


def rules(body: bytes, status: int = 200) -> ProtegoRobotParser:
    found = read_robots(status, body)
    assert isinstance(found, ProtegoRobotParser)
    return found


def test_rules_are_obeyed() -> None:
    assert rules(RULES).allowed(PAGE, AGENT)
    assert not rules(RULES).allowed(PRIVATE, AGENT)
    assert crawl_delay(rules(RULES)) == 7


def test_a_rule_for_yanmo_counts_before_one_for_all() -> None:
    assert not rules(b"User-agent: *\nAllow: /\n\nUser-agent: yanmo\nDisallow: /\n").allowed(PAGE, AGENT)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_site_without_rules_may_be_crawled(status: int) -> None:
    assert rules(b"User-agent: *\nDisallow: /", status).allowed(PAGE, AGENT)


@pytest.mark.parametrize("status", [500, 503, 429, 302, 304])
def test_a_status_that_is_no_answer_opens_nothing(status: int) -> None:
    assert read_robots(status, b"User-agent: *\nAllow: /") == str(status)


def test_a_huge_robots_txt_is_read_to_a_limit() -> None:
    padding = b"#" * (MAX_ROBOTS_BYTES - len(RULES)) + b"\n"
    assert not rules(RULES + padding).allowed(PRIVATE, AGENT)
    assert rules(b"#" * MAX_ROBOTS_BYTES + b"\n" + RULES).allowed(PRIVATE, AGENT)


def test_a_hostile_delay_is_bounded() -> None:
    assert crawl_delay(rules(b"User-agent: *\nCrawl-delay: 999999999\n")) == MAX_CRAWL_DELAY

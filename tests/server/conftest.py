"""A browser for the page's tests."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.makers.desk import chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found

"""Here caches are what is tested."""

import pytest


@pytest.fixture(autouse=True)
def nothing_cached(own_cache: object) -> None:
    """Each test makes its shards itself."""

"""Pickles are opened in forked processes; how the true one is started, one test shows."""

import pytest

from yanmo.hub.imports import pickled


@pytest.fixture(autouse=True)
def own_readers(forked_readers: None) -> None:
    """For all tests here."""


@pytest.fixture
def true_readers(own_readers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    monkeypatch.setattr(pickled, "subprocess", subprocess)

"""Pickles are opened in forked processes; how the true one is started, one test shows."""

from types import SimpleNamespace

import pytest

from tests.makers.processes import run_like_python
from yanmo.hub import pickled


@pytest.fixture(autouse=True)
def forked_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    real = pickled.subprocess
    forked = SimpleNamespace(run=run_like_python, TimeoutExpired=real.TimeoutExpired)
    monkeypatch.setattr(pickled, "subprocess", forked)


@pytest.fixture
def true_readers(forked_readers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    monkeypatch.setattr(pickled, "subprocess", subprocess)

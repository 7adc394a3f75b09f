"""What every test has: an empty folder, a cache, a quiet console, a small novel; and what holds for all of them.

Tests come in tiers (CONTRIBUTING.md says which is which): a test without a mark is one of every day, and no
such test may take more than ``BUDGET_S`` seconds of a processor.
"""

import io
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.makers.runs import Trained
    from yanmo.core.console import Console

ROOT = Path(__file__).parents[1]
MEMORY = Path("/dev/shm")
ROOM_BYTES = 4 << 30
"""Free memory from which on the tests' folders are kept there: tests write thousands of small files."""
BUDGET_S = 5.0
NIGHTLY = "nightly"
TIERS = {"slow", "browser", "long", NIGHTLY, "compiler", "interop"}
GROUPS = {
    **dict.fromkeys(("train", "model", "tokenizer", "parallel", "checkpoint", "generate", "eval", "server"), "models"),
    "report": "models",
    **dict.fromkeys(("hub", "imports", "exports"), "hub"), "crawl": "crawl", "scale": "scale",
}  # fmt: skip
"""Folder -> the tests that one worker does, for they load the same libraries."""
SEED = "YANMO_TEST_SEED"
"""Drawn where nightly tests run, printed, and the same for all workers."""

os.environ["OMP_NUM_THREADS"] = "1"  # of torch, too: models are tiny, and two cores may run two tests
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
sync_to_disk = os.fsync


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Budget())
    if MEMORY.is_dir() and free_bytes(MEMORY) > ROOM_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    settings.register_profile("repeatable", derandomize=True, deadline=None)  # red once is red again
    settings.register_profile(NIGHTLY, deadline=None, print_blob=True)
    settings.load_profile(NIGHTLY if is_nightly(config) else "repeatable")
    if is_nightly(config):
        os.environ.setdefault(SEED, str(random.SystemRandom().randrange(10**6)))
        config.option.hypothesis_seed = os.environ[SEED]


def free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def is_nightly(config: pytest.Config) -> bool:
    return NIGHTLY in str(config.option.markexpr).replace(f"not {NIGHTLY}", "")


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed {os.environ[SEED]} (again: make test-nightly SEED=…)" if is_nightly(config) else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Heavy libraries are loaded by one worker; properties are tried again at night, with other values."""
    for item in items:
        group = GROUPS.get(item.path.parent.name)
        if "trained" in getattr(item, "fixturenames", ()):
            group = group or GROUPS["train"]
        if group and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(group))
        if group == GROUPS["train"]:
            item.fixturenames.insert(0, "optimizers")  # type: ignore[attr-defined]  # not in a test's time
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            item.add_marker("property")


@pytest.fixture(scope="session")
def optimizers() -> None:
    """The first optimizer that is made imports torch's compiler, for three seconds."""
    import torch._dynamo  # noqa: F401


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_cache: Path) -> Path:
    """Every test runs in an empty folder, and makes again nothing that another one has made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("YANMO_CACHE", str(shared_cache))
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # nobody pulls the plug
    return tmp_path


@pytest.fixture(autouse=True)
def own_chance(drawn_seed: int) -> None:
    """What a test draws does not depend on the tests before it."""
    random.seed(drawn_seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(drawn_seed)


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def own_cache(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one, for tests about it and of what is made anew."""
    monkeypatch.setenv("YANMO_CACHE", str(own_folder / "cache"))
    return own_folder / "cache"


@pytest.fixture
def real_fsync(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests about what reaches the disk."""
    monkeypatch.setattr(os, "fsync", sync_to_disk)


@pytest.fixture
def console() -> "Console":
    from yanmo.core.console import Console

    return Console(stream=io.StringIO())


@pytest.fixture
def novel(own_folder: Path) -> Path:
    """novel.txt, in the current folder."""
    from tests.makers.texts import invented_text

    path = Path("novel.txt")
    path.write_text(invented_text(6000), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def trained_runs(tmp_path_factory: pytest.TempPathFactory) -> "Trained":
    from tests.makers.runs import Trained

    return Trained(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def trained(trained_runs: "Trained", novel: Path) -> "Trained":
    """Finished runs of the novel: ``trained(folder, *settings)`` puts a copy of one there."""
    return trained_runs


@pytest.fixture
def drawn_seed() -> int:
    """For what a test draws: fixed by day, another one every night."""
    return int(os.environ.get(SEED, "0"))


@pytest.fixture
def forked_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pickles are opened in forked processes, which begin where torch is imported."""
    from tests.makers.processes import run_like_python, start_server
    from yanmo.hub.imports import pickled

    start_server()
    real = pickled.subprocess
    forked = SimpleNamespace(run=run_like_python, TimeoutExpired=real.TimeoutExpired)
    monkeypatch.setattr(pickled, "subprocess", forked)


# -- the budget of a test ---------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    began = processor_seconds()
    yield
    item.user_properties.append(("processor_s", processor_seconds() - began))


def processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    return sum(os.times()[:4])


def over_budget(report: pytest.TestReport) -> bool:
    """Whether a test of every day took longer than such a test may."""
    spent = dict(report.user_properties).get("processor_s", 0.0)
    return report.when == "call" and spent > BUDGET_S and not TIERS & set(report.keywords)


class Budget:
    """Names the tests that would slow down every day, and fails."""

    def __init__(self) -> None:
        self.over: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if over_budget(report):
            self.over.append(report.nodeid)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for name in self.over:
            terminalreporter.write_line(f"over {BUDGET_S:g} s of a processor, mark it slow: {name}", red=True)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.over and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

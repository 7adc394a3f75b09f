"""Rules that tests themselves follow: where helpers are, which tier a test is of, no clock, forked children."""

import ast
import os
import signal
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests import conftest
from tests.makers.processes import Child, needs_proc, python
from tests.makers.work import assert_linear, calls

TESTS = Path(__file__).parent
CLOCKS = {"time.time", "time.monotonic", "time.perf_counter", "time.process_time"}


def modules_of_tests() -> Iterator[tuple[Path, ast.Module]]:
    for path in TESTS.rglob("test_*.py"):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def test_no_test_module_imports_another() -> None:
    for path, tree in modules_of_tests():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tests."):
                assert "test_" not in node.module, f"{path.name}:{node.lineno}"


def test_no_test_asserts_what_a_clock_says() -> None:
    for path, tree in modules_of_tests():
        for node in ast.walk(tree):
            if isinstance(node, ast.Assert):
                called = {ast.unparse(n.func) for n in ast.walk(node.test) if isinstance(n, ast.Call)}
                assert not called & CLOCKS, f"{path.name}:{node.lineno}"


@pytest.mark.parametrize(
    ("mark", "seconds", "ends"),
    [("", 5.1, "over 5 s"), ("", 4.9, ""), *((f"@pytest.mark.{mark}", 60, "") for mark in ("slow", "long"))],
)
def test_a_test_over_its_budget_must_be_marked(
    mark: str,
    seconds: float,
    ends: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Tests within this one, on a clock of their own."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  slow\n  long\n", encoding="utf-8")
    name = f"test_{tmp_path.name}.py"  # a module of its own
    (tmp_path / name).write_text(f"import pytest\n\n{mark}\ndef test(): pass\n", encoding="utf-8")
    ticks = count(step=seconds)
    with monkeypatch.context() as clock:
        clock.setattr(conftest, "processor_seconds", lambda: next(ticks))
        options = [
            "-p",
            "no:cacheprovider",
        ]
        found = pytest.main([*options, str(tmp_path)], plugins=[conftest])
    assert found == (pytest.ExitCode.TESTS_FAILED if ends else pytest.ExitCode.OK)
    assert ends in capfd.readouterr().out


def test_every_mark_of_a_tier_is_run_by_a_target_of_the_makefile() -> None:
    makefile = (TESTS.parent / "Makefile").read_text(encoding="utf-8")
    for tier in conftest.TIERS - {"compiler"}:
        assert f"test-{tier}:" in makefile
    assert "test-compile:" in makefile
    run = (TESTS.parent / ".ci" / "run").read_text(encoding="utf-8")
    assert [line for line in run.splitlines() if line.startswith("make ")] == [
        "make check", "make test", "make test-slow", "make test-browser", "make test-long",
    ]  # fmt: skip


def test_calls_are_counted_and_quadratic_work_is_told_from_linear() -> None:
    def pairs(n: int) -> None:
        for _ in range(n):
            for _ in range(n):
                ord("a")

    def once(n: int) -> None:
        for _ in range(n):
            ord("a")

    assert calls(once, 50) >= 50
    assert_linear(lambda n: calls(once, n), 50)
    with pytest.raises(AssertionError, match="operations at 50"):
        assert_linear(lambda n: calls(pairs, n), 50)


# -- children ---------------------------------------------------------------------------------


def look(code: int) -> None:
    print(os.environ["WORD"], Path.cwd(), "tests.makers.preloaded" in sys.modules, input())
    print("说", file=sys.stderr)
    sys.exit(code)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@needs_proc
def test_a_child_has_a_folder_an_environment_files_and_an_end_of_its_own(tmp_path: Path) -> None:
    done = Child(look, 7, typed="词\n", WORD="字").done()
    assert done.returncode == 7
    assert done.stdout == f"字 {tmp_path} True 词\n"
    assert done.stderr == "说\n"
    assert "WORD" not in os.environ
    assert Child(die).wait() == -signal.SIGKILL


@pytest.mark.slow
def test_a_new_interpreter_has_none_of_it() -> None:
    done = python("-c", "import sys; print('torch' in sys.modules, 'tests' in sys.modules)")
    assert done.stdout == "False False\n"

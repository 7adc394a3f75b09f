"""Spoiled input of every kind: a result, or an error that says what is wrong; never a traceback, never a hang."""

import contextlib
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.makers.parsers import PARSERS, Files
from tests.makers.spoiled import SPOILERS, spoiled
from yanmo.core.errors import YanmoError

CASES, CASES_OF_A_SAMPLE = 4000, 250
SLOW_CASES, SLOW_CASES_OF_A_SAMPLE = 1000, 4
"""Of those that open pickles, each in a process of its own."""
CASE_S = 60
"""A case takes milliseconds; one that takes so long does not end."""
SPARE_BYTES = 4 << 30
"""Memory that all cases of a parser may take beyond what is there."""
FOLDER = Path("case")

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of libraries, about what they are given
    pytest.mark.usefixtures("forked_readers"),
    pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="this system has no SIGALRM"),
]


def put(files: Files) -> Path:
    """The folder with exactly these files."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    for name, data in files.items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return FOLDER


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """No hang and no gigabytes, where the system has such limits."""

    def end(*_: object) -> None:
        raise AssertionError(f"it does not end within {CASE_S} s")

    before = signal.signal(signal.SIGALRM, end)
    try:
        with less_memory():
            yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def less_memory() -> Iterator[None]:
    import resource

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + SPARE_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def fuzz(name: str, cases: int, seed: int) -> None:
    """Spoil one file of a good input, again and again."""
    parser, rng = PARSERS[name], random.Random(f"{name}, {seed}")
    good = parser.good()
    with bounded():
        for number in range(cases):
            chosen = rng.choice(sorted(good))
            data = spoiled(good[chosen], rng, tuple(good.values()))
            put({**good, chosen: data})
            signal.alarm(CASE_S)
            try:
                parser.read(FOLDER)
            except YanmoError as error:
                assert error.what, f"seed {seed}, case {number}: an error that says nothing"
            except BaseException as error:
                error.add_note(f"{name}, seed {seed}, case {number}: {chosen} = {data[:300]!r}")
                raise


@pytest.mark.slow
@pytest.mark.parametrize("name", PARSERS)
def test_the_input_that_is_spoiled_is_good(name: str) -> None:
    assert PARSERS[name].read(put(PARSERS[name].good())) is not None


@pytest.mark.long
@pytest.mark.parametrize("name", PARSERS)
def test_spoiled_input_is_read_or_refused(name: str, drawn_seed: int) -> None:
    fuzz(name, SLOW_CASES_OF_A_SAMPLE if PARSERS[name].is_slow else CASES_OF_A_SAMPLE, drawn_seed)


@pytest.mark.nightly
@pytest.mark.parametrize("name", PARSERS)
def test_thousands_of_spoiled_inputs_are_read_or_refused(name: str, drawn_seed: int) -> None:
    fuzz(name, SLOW_CASES if PARSERS[name].is_slow else CASES, drawn_seed + 1)


def test_everything_that_spoils_changes_something() -> None:
    data = b'{"a": [1, 2], "b": "text"}' * 3
    for spoil in SPOILERS:
        assert any(spoil(data, random.Random(seed)) != data for seed in range(5)), spoil.__name__
    assert spoiled(data, random.Random(1)) == spoiled(data, random.Random(1))

"""`yanmo report A B --out x.html`: runs beside each other."""

from pathlib import Path

import pytest

from tests.makers.console import here
from tests.makers.runs import Trained


@pytest.fixture
def two(trained: Trained) -> tuple[str, str]:
    trained("a")
    trained("b", "model.n_embd=32")
    return "a", "b"


def compared(*runs: str) -> str:
    done = here("report", *runs, "--out", "both.html")
    assert done.returncode == 0 and done.stdout == "both.html\n", done.stderr
    return Path("both.html").read_text(encoding="utf-8")


def test_figures_curves_and_what_differs_stand_side_by_side(two: tuple[str, str]) -> None:
    page = compared(*two)
    assert 'class="c0"' in page and 'class="c1"' in page and "cannot be compared" not in page
    assert "<td>model.n_embd</td><td>16</td><td>32</td>" in page and "model.n_layer" not in page
    assert "unigram" in page  # of the one text that they hold out


def test_runs_with_other_held_out_texts_are_said_not_to_compare(two: tuple[str, str]) -> None:
    corpus = Path("b/corpus.json")
    text = corpus.read_text(encoding="utf-8")
    corpus.write_text(text.replace('"corpus": "', '"corpus": "f'), encoding="utf-8")
    rows = Path("b/metrics.jsonl")
    text = rows.read_text(encoding="utf-8")
    rows.write_text(text.replace('"unigram_bits_per_char": ', '"unigram_bits_per_char": 1'), encoding="utf-8")
    page = compared(*two)
    assert "their bits per character cannot be compared" in page and "unigram" not in page


def test_runs_of_one_name_are_told_apart(trained: Trained) -> None:
    trained("x/run")
    trained("y/run")
    assert "run (1)" in (page := compared("x/run", "y/run")) and "run (2)" in page


def test_it_is_written_where_one_says_and_over_no_file_of_others(two: tuple[str, str]) -> None:
    unnamed = here("report", *two)
    assert unnamed.returncode == 2 and "--out" in unnamed.stderr
    for taken in ("a/metrics.jsonl", "novel.txt"):
        before = Path(taken).read_bytes()
        refused = here("report", *two, "--out", taken)
        assert refused.returncode == 2 and Path(taken).read_bytes() == before
    compared(*two)
    compared(*two)  # over its own page


def test_a_folder_that_is_no_run_is_refused_by_name(two: tuple[str, str]) -> None:
    done = here("report", "a", "nothing", "--out", "both.html")
    assert done.returncode == 2 and "nothing" in done.stderr and not Path("both.html").exists()

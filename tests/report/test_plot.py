"""`yanmo plot`: pictures of runs."""

import sys
from pathlib import Path

import pytest

from tests.makers.console import here
from tests.makers.runs import Trained
from yanmo.report.plot import draw, plot
from yanmo.report.record import read_run
from yanmo.train.metrics import read_metrics

pytestmark = pytest.mark.slow
MAGIC = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.fixture
def run(trained: Trained) -> Path:
    trained("run$a$")  # no formula
    return Path("run$a$")


@pytest.mark.parametrize("ending", MAGIC)
def test_a_picture_is_of_its_kind_and_the_same_each_time(run: Path, ending: str) -> None:
    out = Path(f"x.{ending}")
    done = here("plot", str(run), "--out", str(out))
    assert done.returncode == 0 and done.stdout == f"{out}\n", done.stderr
    first = out.read_bytes()
    assert first.startswith(MAGIC[ending])
    assert here("plot", str(run), "--out", str(out)).returncode == 0  # over its own picture
    assert out.read_bytes() == first


def test_its_curves_are_those_of_the_run_with_the_baselines(run: Path) -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    draw(axes, [read_run(run)], str)
    rows = read_metrics(run)
    held_out = [(row["step"], row["val_bits_per_char"]) for row in rows if row["event"] == "eval"]
    drawn = {str(line.get_label()): list(zip(*line.get_data(), strict=True)) for line in axes.get_lines()}
    assert drawn["held-out text"] == held_out and len(drawn["training text"]) == 12
    texts = [text.get_text() for text in axes.texts]
    assert any(text == f"bigram {rows[0]['bigram_bits_per_char']:.2f}" for text in texts)


def test_several_runs_are_told_apart_by_name(run: Path, trained: Trained) -> None:
    from matplotlib.figure import Figure

    trained("other")
    axes = Figure().add_subplot()
    draw(axes, [read_run(run), read_run(Path("other"))], str)
    named = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    assert [line.get_label() for line in named] == ["run$a$", "other"]
    assert named[0].get_color() != named[1].get_color()


def test_without_a_chinese_font_the_words_are_english(run: Path) -> None:
    assert not plot([read_run(run)], Path("x.svg"), fonts=())
    plot([read_run(run)], Path("y.svg"), in_chinese=False, fonts=())
    assert Path("x.svg").read_bytes() == Path("y.svg").read_bytes()


def test_a_missing_library_an_unknown_ending_and_a_file_of_others_are_said(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = here("plot", str(run), "--out", "x.bmp")
    assert odd.returncode == 2 and ".pdf" in odd.stderr
    Path("mine.png").write_bytes(b"mine")
    refused = here("plot", str(run), "--out", "mine.png")
    assert refused.returncode == 2 and Path("mine.png").read_bytes() == b"mine"
    (run / "metrics.jsonl").write_text("", encoding="utf-8")
    early = here("plot", str(run), "--out", "x.png")
    assert early.returncode == 2 and "no curve yet" in early.stderr
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    missing = here("plot", str(run), "--out", "x.png")
    assert missing.returncode == 2 and '"yanmo[plot]"' in missing.stderr

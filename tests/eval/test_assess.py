"""A finished model on a text: the same numbers as counting and full contexts give."""

import io
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.makers.runs import Trained
from tests.makers.texts import invented_text
from yanmo.checkpoint.folder import Progress as Progressed
from yanmo.checkpoint.folder import find_model_folder, load_model_and_tokenizer
from yanmo.cli.app import summary
from yanmo.core.console import Console, ProgressLine
from yanmo.core.errors import ConfigError, DataError
from yanmo.eval.assess import assess
from yanmo.eval.loss import TOKENS_AT_ONCE
from yanmo.train.trainer import TrainResult

RUN = Path("runs/novel")


@pytest.fixture
def run(trained: Trained) -> Path:
    trained(RUN)
    return RUN


@torch.no_grad()
def test_with_stride_one_every_token_has_a_full_window(run: Path, console: Console) -> None:
    Path("other.txt").write_text(invented_text(80, seed=5), encoding="utf-8")
    found = assess(run, ("other.txt",), 1, console)
    model, tokenizer = load_model_and_tokenizer(find_model_folder(run))
    model.eval()
    ids = [
        tokenizer.end_of_text,
        *tokenizer.encode(invented_text(80, seed=5)).tolist(),
        tokenizer.end_of_text,
    ]
    nats = 0.0
    for place in range(1, len(ids)):
        window = torch.tensor([ids[max(place - 16, 0) : place]])
        nats -= float(model(window)[0, -1].log_softmax(-1)[ids[place]])
    assert found.tokens == 81
    assert found.evaluation.loss == pytest.approx(nats / 81, rel=1e-5)
    assert found.evaluation.bits_per_char == pytest.approx(nats / math.log(2) / 80, rel=1e-5)
    assert not found.lossy


def test_a_memory_is_measured_beside_the_model_and_never_in_its_place(run: Path, console: Console) -> None:
    Path("names.txt").write_text("卡普莱特与茂丘西奥同行，罗瑟琳不来。" * 20, encoding="utf-8")
    plain, found = (assess(run, ("names.txt",), None, console, memory=share) for share in (None, 0.3))
    assert found.evaluation == plain.evaluation
    assert plain.with_memory is None and found.with_memory is not None
    assert found.with_memory.bits_per_char < found.evaluation.bits_per_char - 1
    said = [line for line in found.lines() if line.startswith("memory")]
    assert said == [
        f"memory {found.with_memory.bits_per_char:.4f} bits per character with a memory of share 0.3"
    ]
    assert not any(line.startswith("memory") for line in plain.lines())
    assert found.as_json()["bits_per_char_with_memory"] == found.with_memory.bits_per_char
    assert plain.as_json()["bits_per_char_with_memory"] is None


def test_more_context_does_not_hurt_a_trained_model_and_lines_stand_beside(
    run: Path, console: Console
) -> None:
    held_out = assess(run, (), None, console)
    assert held_out.stride == 8
    assert held_out.reference is not None
    assert held_out.reference.uniform > held_out.reference.unigram > held_out.reference.bigram
    assert "the held-out part of" in held_out.text
    assert any("bigram" in line for line in held_out.lines())
    last = assess(None, (), 16, console)  # the newest run
    assert last.evaluation.loss == pytest.approx(held_out.evaluation.loss, abs=0.1)
    assert last.as_json()["bits_per_char"] == last.evaluation.bits_per_char


def test_its_own_training_text_is_named_as_such(run: Path, novel: Path, console: Console) -> None:
    found = assess(run, (str(novel),), None, console)
    assert found.trained_on_it
    assert "was trained on this text" in found.lines()[-1]


def test_a_folder_that_is_no_run_needs_a_text_and_has_no_lines(run: Path, console: Console) -> None:
    shutil.copytree(find_model_folder(run), "plain")
    with pytest.raises(ConfigError, match="no text is named"):
        assess(Path("plain"), (), None, console)
    Path("other.txt").write_text(invented_text(200, seed=5), encoding="utf-8")
    found = assess(Path("plain"), ("other.txt",), None, console)
    assert found.reference is None
    assert "not available" in found.lines()[4]


def test_a_run_whose_text_is_gone_measures_others(run: Path, novel: Path, console: Console) -> None:
    Path("other.txt").write_text(invented_text(200, seed=5), encoding="utf-8")
    novel.unlink()
    assert assess(run, ("other.txt",), None, console).reference is None


@pytest.mark.parametrize(("stride", "windows"), [(None, 20), (5, 30), (16, 11), (1, 146)])
def test_progress_counts_every_window_and_the_stride_is_said(
    run: Path, novel: Path, monkeypatch: pytest.MonkeyPatch, stride: int | None, windows: int
) -> None:
    Path("other.txt").write_text(invented_text(160, seed=5), encoding="utf-8")
    novel.unlink()  # or its own measuring would be counted too
    seen, shown, real = list[float](), io.StringIO(), ProgressLine.advance

    def advance(progress: ProgressLine, amount: float) -> None:
        seen.append(amount)
        real(progress, amount)

    monkeypatch.setattr(ProgressLine, "advance", advance)
    found = assess(run, ("other.txt",), stride, Console(shown))
    assert sum(seen) == windows and len(seen) == -(-windows // (TOKENS_AT_ONCE["cpu"] // 16))
    assert "measuring" in shown.getvalue() and "left" in shown.getvalue()
    assert f"windows of 16 tokens, a new one every {stride or 8}" in found.lines()[3]


def raises_no_text(*_: object) -> None:
    raise DataError("the text is gone")


def test_how_many_windows_are_measured_together_does_not_matter(
    run: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("other.txt").write_text(invented_text(500, seed=5), encoding="utf-8")
    found = [assess(run, ("other.txt",), None, console)]
    for tokens in (1, 48, 1 << 20):
        monkeypatch.setitem(TOKENS_AT_ONCE, "cpu", tokens)
        found.append(assess(run, ("other.txt",), None, console))
    assert [one.evaluation.loss for one in found] == pytest.approx([found[0].evaluation.loss] * 4, rel=1e-6)


def test_a_model_that_counting_beats_is_told_apart_in_evaluate_and_after_training(
    run: Path, console: Console
) -> None:
    found = assess(run, (), None, console)
    assert found.reference is not None
    beaten = replace(found, evaluation=replace(found.evaluation, bits_per_char=found.reference.bigram + 0.1))
    better = replace(found, evaluation=replace(found.evaluation, bits_per_char=found.reference.bigram - 0.1))
    assert any(line.startswith("expect the bigram baseline") for line in beaten.lines())
    assert not any(line.startswith("expect") for line in better.lines())
    for bits, is_said in [(found.reference.bigram + 0.1, True), (found.reference.bigram - 0.1, False)]:
        progress = Progressed(step=9, best_step=9, best_val_bits_per_char=bits)
        assert ("expect the bigram" in summary(TrainResult(run, progress, 9, found.reference, ()))) == is_said


def test_mistakes_are_said(run: Path, console: Console) -> None:
    with pytest.raises(ConfigError, match="--stride 17 is larger than the model's window of 16"):
        assess(run, (), 17, console)
    with pytest.raises(DataError, match="no such file"):
        assess(run, ("nowhere.txt",), None, console)
    with pytest.raises(ConfigError, match="there is no such folder: nowhere"):
        assess(Path("nowhere"), (), None, console)

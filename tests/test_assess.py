"""A finished model on a text: the same numbers as counting and full contexts give."""

import math
import shutil
from pathlib import Path

import pytest
import torch

from tests.makers.runs import Trained
from tests.makers.texts import invented_text
from yanmo.assess import assess
from yanmo.checkpoint import find_model_folder, load_model_and_tokenizer
from yanmo.errors import ConfigError, DataError
from yanmo.log import Voice

RUN = Path("runs/novel")


@pytest.fixture
def run(trained: Trained) -> Path:
    trained(RUN)
    return RUN


@torch.no_grad()
def test_with_stride_one_every_token_has_a_full_window(run: Path, voice: Voice) -> None:
    Path("other.txt").write_text(invented_text(80, seed=5), encoding="utf-8")
    found = assess(run, ("other.txt",), 1, voice)
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


def test_more_context_does_not_hurt_a_trained_model_and_lines_stand_beside(run: Path, voice: Voice) -> None:
    held_out = assess(run, (), None, voice)
    assert held_out.stride == 8
    assert held_out.reference is not None
    assert held_out.reference.uniform > held_out.reference.unigram > held_out.reference.bigram
    assert "the held-out part of" in held_out.text
    assert any("bigram" in line for line in held_out.lines())
    last = assess(None, (), 16, voice)  # the newest run
    assert last.evaluation.loss == pytest.approx(held_out.evaluation.loss, abs=0.1)
    assert last.as_json()["bits_per_char"] == last.evaluation.bits_per_char


def test_its_own_training_text_is_named_as_such(run: Path, novel: Path, voice: Voice) -> None:
    found = assess(run, (str(novel),), None, voice)
    assert found.trained_on_it
    assert "was trained on this text" in found.lines()[-1]


def test_a_folder_that_is_no_run_needs_a_text_and_has_no_lines(run: Path, voice: Voice) -> None:
    shutil.copytree(find_model_folder(run), "plain")
    with pytest.raises(ConfigError, match="no text is named"):
        assess(Path("plain"), (), None, voice)
    Path("other.txt").write_text(invented_text(200, seed=5), encoding="utf-8")
    found = assess(Path("plain"), ("other.txt",), None, voice)
    assert found.reference is None
    assert "not at hand" in found.lines()[3]


def test_a_run_whose_text_is_gone_measures_others(run: Path, novel: Path, voice: Voice) -> None:
    Path("other.txt").write_text(invented_text(200, seed=5), encoding="utf-8")
    novel.unlink()
    assert assess(run, ("other.txt",), None, voice).reference is None


def test_mistakes_are_said(run: Path, voice: Voice) -> None:
    with pytest.raises(ConfigError, match="--stride 17 is larger than the model's window of 16"):
        assess(run, (), 17, voice)
    with pytest.raises(DataError, match="no such file"):
        assess(run, ("nowhere.txt",), None, voice)
    with pytest.raises(ConfigError, match="no run or model folder"):
        assess(Path("nowhere"), (), None, voice)

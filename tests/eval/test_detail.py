"""The parts of a text add up to the whole, and each is what its tokens cost."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.makers.models import TOKENIZER, lively_model, our_folder
from tests.makers.runs import RUN, Trained
from yanmo.cli.app import app
from yanmo.core.console import Console
from yanmo.data.batches import sliding_batches
from yanmo.eval.assess import assess
from yanmo.eval.detail import TextTokens, by_place, detail_of
from yanmo.eval.loss import evaluate_sliding, token_nats
from yanmo.model.config import IGNORED

TEXTS = ["江湖夜雨十年灯。", "桃李春风一杯酒，一杯酒。", "灯。"]


def text_of(*texts: str) -> TextTokens:
    parts = [np.append(TOKENIZER.encode(text), TOKENIZER.end_of_text) for text in texts]
    ends = np.cumsum([len(part) for part in parts]).tolist()
    sizes = [len(text) for text in texts]
    return TextTokens(np.concatenate(parts), texts, ends, sizes, sum(sizes), lossy=False)


@pytest.mark.parametrize("stride", [1, 3, 8, 16])
def test_nats_of_tokens_sum_to_the_loss_of_the_same_windows(stride: int) -> None:
    model, text = lively_model(), text_of(*TEXTS)
    nats, places = token_nats(model, text.ids, stride, TOKENIZER.end_of_text)
    whole = evaluate_sliding(model, text.ids, 1, stride, TOKENIZER.end_of_text)
    assert len(nats) == len(text.ids)
    assert nats.mean() == pytest.approx(whole.loss, rel=1e-5)
    counted = [
        np.nonzero(row != IGNORED)[0]
        for batch in sliding_batches(text.ids, 16, stride, 1, TOKENIZER.end_of_text)
        for row in batch.targets
    ]
    assert places.tolist() == np.concatenate(counted).tolist()


def test_documents_weighted_by_their_characters_are_the_whole() -> None:
    model, text = lively_model(), text_of(*TEXTS)
    found = detail_of(model, text, 8, TOKENIZER.end_of_text, lambda _: None)
    assert [part.name for part in found.documents] == TEXTS
    assert [part.tokens for part in found.documents] == [len(t) + 1 for t in TEXTS]
    bits = sum(p.bits_per_char * len(t) for p, t in zip(found.documents, TEXTS, strict=True))
    whole = evaluate_sliding(model, text.ids, text.total_characters, 8, TOKENIZER.end_of_text)
    assert bits / text.total_characters == pytest.approx(whole.bits_per_char, rel=1e-5)
    # alone, the first document costs the same: nothing stands before it
    alone = detail_of(model, text_of(TEXTS[0]), 8, TOKENIZER.end_of_text, lambda _: None)
    assert alone.documents[0].bits_per_char == pytest.approx(found.documents[0].bits_per_char, rel=1e-5)


def test_places_of_the_window_are_told_apart() -> None:
    nats = np.array([4.0, 2.0, 1.0, 3.0, 1.0]) * math.log(2)
    parts = list(by_place(nats, np.array([0, 1, 2, 3, 0]), characters_per_token=0.5))
    assert [(part.name, part.tokens) for part in parts] == [("0", 2), ("1", 1), ("2 to 3", 2)]
    assert [part.bits_per_char for part in parts] == pytest.approx([5.0, 4.0, 4.0])


def test_evaluate_says_the_parts_of_any_texts(tmp_path: Path) -> None:
    folder = our_folder(tmp_path / "model", lively_model(), TOKENIZER)
    for number, text in enumerate(TEXTS):
        (tmp_path / f"{number}.txt").write_text(text, encoding="utf-8")
    words = ["evaluate", str(folder), "--detail", "--stride", "8"]
    words += [word for number in range(3) for word in ("--corpus", str(tmp_path / f"{number}.txt"))]
    said = CliRunner().invoke(app, [*words, "--json"])
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    assert [part["name"] for part in found["documents"]] == ["0.txt", "1.txt", "2.txt"]
    assert sum(part["tokens"] for part in found["positions"]) == found["tokens"]
    shown = CliRunner().invoke(app, words).stdout
    assert "the hardest of 3 first" in shown and "8 to 15" in shown


def test_n_grams_stand_beside_the_other_baselines(trained: Trained, console: Console) -> None:
    trained(RUN)
    found = assess(RUN, (), None, console)
    assert set(found.ngrams) == {3, 4, 5}
    assert found.reference is not None
    assert found.ngrams[5] < found.reference.unigram
    assert "5-gram" in "\n".join(found.lines())
    assert found.as_json()["reference_bits_per_char"]["5-gram"] == found.ngrams[5]


def test_measuring_changes_nothing_of_the_model() -> None:
    model = lively_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    token_nats(model, text_of(*TEXTS).ids, 8, TOKENIZER.end_of_text)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

"""The files for reading: pure Python that computes what yanmo computes, and a backward pass that is right."""

import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.makers.models import TOKENIZER, bpe_tokenizer, lively_model, our_folder
from yanmo.model.config import GPTConfig
from yanmo.model.gpt import GPT

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
sys.path.insert(0, str(NOTEBOOKS))
import micro  # noqa: E402
import micro_train  # noqa: E402

sys.path.remove(str(NOTEBOOKS))


@pytest.mark.parametrize("gelu", ["tanh", "erf"])
def test_logits_are_those_of_yanmo(tmp_path: Path, gelu: str) -> None:
    model = lively_model()
    if gelu == "erf":
        config = GPTConfig(TOKENIZER.vocab_size, 2, 2, 16, 16, gelu="erf")
        erf = GPT(config).eval()
        erf.load_state_dict(model.state_dict())
        model = erf
    found = micro.Model(our_folder(tmp_path / "model", model, TOKENIZER))
    text = "江湖夜雨，龘。"  # a character that the vocabulary lacks is three bytes
    ids = found.tokenizer.encode(text)
    assert ids == TOKENIZER.encode(text).tolist()
    assert found.tokenizer.decode(ids) == text
    with torch.no_grad():
        expected = model(torch.tensor([ids]))[0]
    assert torch.tensor(micro.logits(found, ids)).sub(expected).abs().max() < 1e-5


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(NOTEBOOKS / "micro.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)


@pytest.mark.slow
def test_the_script_writes_the_same_with_the_same_seed(tmp_path: Path) -> None:
    folder = str(our_folder(tmp_path / "model", lively_model(64), TOKENIZER))
    first, second, other = (run(folder, "江湖", "20", seed) for seed in ("7", "7", "8"))
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("江湖") and "种子 7" in first.stdout
    assert first.stdout == second.stdout
    assert first.stdout.splitlines()[0] != other.stdout.splitlines()[0]


@pytest.mark.slow
def test_what_it_cannot_read_is_answered_with_a_sentence(tmp_path: Path) -> None:
    bpe = bpe_tokenizer()
    pieces = our_folder(tmp_path / "bpe", lively_model(16, bpe.vocab_size), bpe)
    modern = GPT(GPTConfig(TOKENIZER.vocab_size, 1, 1, 16, 16, family="modern"))
    modern.initialise(1)
    for folder, said in (
        (pieces, "tokenizer.kind=char"),
        (our_folder(tmp_path / "m", modern, TOKENIZER), "gpt2"),
    ):
        refused = run(str(folder), "江湖")
        assert refused.returncode == 1
        assert said in refused.stderr and "Traceback" not in refused.stderr


def test_the_backward_pass_is_the_derivative(drawn_seed: int) -> None:
    chance = random.Random(drawn_seed)
    p = micro_train.new_parameters(6, 5, chance)
    ids, targets = ([chance.randrange(6) for _ in range(5)] for _ in range(2))
    _, gradient = micro_train.loss_and_gradient(p, ids, targets)
    step = 1e-5
    for name, matrix in p.items():
        for _ in range(4):
            row, column = chance.randrange(len(matrix)), chance.randrange(len(matrix[0]))
            before, losses = matrix[row][column], []
            for sign in (1, -1):
                matrix[row][column] = before + sign * step
                losses.append(micro_train.loss_and_gradient(p, ids, targets)[0])
            matrix[row][column] = before
            slope = (losses[0] - losses[1]) / (2 * step)
            assert math.isclose(gradient[name][row][column], slope, rel_tol=1e-3, abs_tol=1e-6), name


@pytest.mark.slow
def test_ten_lines_are_learned_by_heart() -> None:
    said: list[str] = []
    p, alphabet, steps = micro_train.train(say=said.append)
    assert steps <= 1000
    assert all(micro_train.recite(p, alphabet, line[:2]) == line for line in micro_train.LINES)
    assert "背下 10/10 行" in said[-1]
    assert not all("10/10" in line for line in said)

"""What `import yanmo` gives a program: the same as the commands, nothing loaded before it is used."""

import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import yanmo
from tests.makers.console import here
from tests.makers.processes import python
from tests.makers.runs import RUN, Trained
from yanmo.core.errors import ConfigError

DOCS = Path(__file__).parents[1] / "docs"
HEAVY = ("torch", "numpy", "pydantic", "transformers", "tokenizers", "safetensors", "rich", "typer")


def example() -> str:
    found = re.search(r"```python\n(.*?)```", (DOCS / "api.md").read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found[1]


def test_importing_loads_nothing() -> None:
    code = (
        f"import sys, yanmo\nassert yanmo.__all__\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = python("-c", code)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'train_it'"):
        _ = yanmo.train_it
    assert set(yanmo.__all__) <= set(dir(yanmo))


@pytest.mark.slow
def test_no_folder_takes_the_place_of_a_function() -> None:
    for found in pkgutil.walk_packages(yanmo.__path__, "yanmo."):
        if found.name != "yanmo.__main__" and not found.name.endswith("_child"):
            importlib.import_module(found.name)
    assert all(callable(getattr(yanmo, name)) for name in yanmo.__all__)


def test_a_run_is_trained_loaded_and_measured(novel: Path) -> None:
    done = yanmo.train_run(
        novel, "train.max_steps=2", "model.n_layer=1", "model.n_embd=16", "model.n_head=2", out=RUN
    )
    assert done.folder == RUN and done.progress.step == 2
    again = yanmo.train_run(novel, out=RUN)
    assert again.progress == done.progress
    measured = yanmo.evaluate(RUN)
    assert measured.evaluation.bits_per_char == pytest.approx(done.progress.val_bits_per_char, rel=0.05)


def test_documents_are_those_of_the_corpus(novel: Path) -> None:
    Path("more.jsonl").write_text('{"say": "甲"}\n{"say": "乙"}\n', encoding="utf-8")
    found = list(yanmo.read(["novel.txt", "more.jsonl"], "corpus.text_field=say"))
    assert [document.text for document in found] == [novel.read_text(encoding="utf-8"), "甲", "乙"]
    with pytest.raises(ConfigError, match="unknown setting"):
        next(yanmo.read("novel.txt", "corpus.field=say"))


def test_what_is_written_is_what_the_command_writes(trained: Trained) -> None:
    trained(RUN)
    writer = yanmo.load(RUN)
    text = writer.write("江湖", seed=3, max_new_tokens=20)
    assert "".join(writer.stream("江湖", seed=3, max_new_tokens=20)) == text
    said = here("generate", str(RUN), "-p", "江湖", "--seed", "3", "--max-new-tokens", "20")
    assert said.stdout.strip() == ("江湖" + text).strip()
    with pytest.raises(ConfigError, match="heat"):
        writer.write("江湖", heat=1)


def test_log_probabilities_are_those_of_the_model(trained: Trained) -> None:
    trained(RUN)
    writer = yanmo.load(RUN)
    size = writer.model.config.block_size
    text = "江湖夜雨十年灯" * size  # longer than the window
    found = writer.logprobs(text)
    ids = writer.tokenizer.encode(text).tolist()
    assert [token.id for token in found] == ids and "".join(token.text for token in found) == text
    row = torch.tensor([[writer.tokenizer.end_of_text, *ids[: size - 1]]])
    expected = writer.model(row)[0].log_softmax(-1)  # (T, V)
    for place, token in enumerate(found[:size]):
        assert token.logprob == pytest.approx(expected[place, token.id].item(), abs=1e-5)
    assert writer.logprobs("") == []
    three = writer.logprobs(text, top=3)
    assert [token[:3] for token in three] == [token[:3] for token in found]
    for place in (0, 5, size - 1):
        assert [token for token, _ in three[place].top] == expected[place].topk(3).indices.tolist()


@pytest.mark.slow
def test_the_example_of_the_page_runs(novel: Path) -> None:
    Path("example.py").write_text(example(), encoding="utf-8")
    done = python("example.py")
    assert done.returncode == 0, done.stderr
    assert "novel.txt" in done.stdout


@pytest.mark.slow
def test_a_program_that_uses_it_is_typed() -> None:
    Path("program.py").write_text(
        "import yanmo\n\n\ndef run(folder: str) -> float:\n"
        "    writer: yanmo.Writer = yanmo.load(folder)\n"
        "    text: str = writer.write('江湖', seed=1)\n"
        "    return sum(token.logprob for token in writer.logprobs(text))\n\n\n"
        "measured: yanmo.Assessment = yanmo.evaluate('runs/x', ['a.txt'])\n"
        "done: yanmo.TrainResult = yanmo.train_run('a.txt', out='runs/x')\n"
        "texts: list[str] = [document.text for document in yanmo.read('a.txt')]\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir=cache", "program.py"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    Path("program.py").write_text("import yanmo\n\nyanmo.load(3).write(4)\n", encoding="utf-8")
    assert subprocess.run(command, capture_output=True, text=True).returncode == 1

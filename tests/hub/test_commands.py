import json
import shlex
from pathlib import Path

import pytest

from tests.makers.console import here, yanmo
from tests.makers.models import char_tokenizer, our_folder, reader

pytestmark = pytest.mark.slow


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return our_folder(tmp_path / "ours", reader(), char_tokenizer())


def test_import_prints_what_it_found_and_what_comes_next(source: Path) -> None:
    done = here("import", str(source), "--out", "taken")
    assert done.returncode == 0, done.stderr
    assert "2 layers, 4 heads, 64 wide" in done.stdout
    assert "logits equal transformers" in done.stdout
    assert "yanmo train TEXT model.init=taken" in done.stdout
    odd = here("import", str(source), "--out", "两 个 'it'")
    assert f"""yanmo train TEXT {shlex.quote("model.init=两 个 'it'")}\n""" in odd.stdout
    again = here("import", str(source), "--out", "taken")
    assert again.returncode == 2 and "there already" in again.stderr


def test_import_and_export_speak_json(source: Path) -> None:
    taken = json.loads(here("import", str(source), "--json").stdout)
    assert taken["folder"] == str(Path("models/ours"))
    assert taken["proof"]["difference"] <= 1e-5 * taken["proof"]["largest"]
    gone = json.loads(yanmo("export", "models/ours", "--to", "onnx", "--json").stdout)
    assert gone["path"] == str(Path("exports/ours-onnx"))
    assert gone["verified"]["by"].startswith("onnxruntime")


def test_a_wrong_number_of_heads_ends_with_4_and_the_numbers(source: Path) -> None:
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (source / "config.json").write_text(json.dumps(config | {"n_head": 1}), encoding="utf-8")
    done = here("import", str(source))
    assert done.returncode == 4
    assert "with n_head=1 it reads a sentence at" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["import"], 2),
        (["import", "a", "b"], 2),
        (["import", "nowhere.pt"], 2),
        (["import", "novel.txt"], 2),
        (["import", "x", "train.seed=1"], 2),
        (["export", "nowhere"], 2),
        (["export", "--to", "exe"], 2),
    ],
)
def test_mistakes_are_said_without_a_traceback(words: list[str], code: int, novel: Path) -> None:
    done = here(*words)
    assert done.returncode == code
    assert "Traceback" not in done.stderr

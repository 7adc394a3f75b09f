"""The script that the command line writes: run for real, killed, run again; and written for clusters."""

import ast
import importlib
import inspect
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.makers.console import here
from tests.makers.runs import TINY
from yanmo.core.console import Console
from yanmo.core.errors import DataError
from yanmo.data.prepare import prepare
from yanmo.settings.schema import CorpusConfig, DataConfig, TokenizerConfig

pytestmark = pytest.mark.slow

pytest.importorskip("datatrove.executor")


def done(*words: str) -> str:
    result = here(*words)
    assert result.returncode == 0, result.stderr
    return result.stdout


def start(script: str) -> subprocess.Popen[bytes]:
    with open("log.txt", "ab") as log:
        return subprocess.Popen([sys.executable, script], stdout=log, stderr=log, start_new_session=True)


def kill_when(process: subprocess.Popen[bytes], there: Path) -> None:
    while process.poll() is None and not there.exists():
        time.sleep(0.01)
    assert process.poll() is None, Path("log.txt").read_text(encoding="utf-8")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def products(folder: str) -> dict[str, bytes]:
    """All that a plan leaves for others to read, but for times and versions."""
    files = (
        path for name in ("corpus", "shards") for path in Path(folder, name).rglob("*") if path.is_file()
    )
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


ASKED = ("texts", "tokenizer.path=tok", "data.val_fraction=0.1")


def test_the_script_leaves_shards_that_train_reads(
    texts: Path, vocabulary: Path, console: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_here("scale", "plan", *ASKED, "--tasks", "2", "--out", "plan", capsys=capsys)[0] == 0
    assert start("plan/pipeline.py").wait() == 0, Path("log.txt").read_text(encoding="utf-8")
    assert not [path for path in Path("plan").rglob("*") if path.suffix in (".pkl", ".pickle", ".pik")]
    shutil.rmtree("plan/work")
    done("train", "plan/shards", *TINY, "train.max_steps=4", "--out", "run")
    assert Path("run/model/model.safetensors").is_file()
    shards = CorpusConfig(path=("plan/shards",))
    opened = prepare(shards, TokenizerConfig(), DataConfig(), 16, console)
    assert opened.shards.folder == Path("plan/shards") and opened.val_fraction == 0.1
    with pytest.raises(DataError, match="have data.val_fraction=0.1"):
        prepare(shards, TokenizerConfig(), DataConfig(val_fraction=0.2), 16, console)


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="processes are killed as a group")
def test_a_script_killed_twice_and_run_again_leaves_the_same(texts: Path, vocabulary: Path) -> None:
    for plan in ("plan", "other"):
        done("scale", "plan", *ASKED, "--tasks", "2", "--out", plan)
    assert start("other/pipeline.py").wait() == 0, Path("log.txt").read_text(encoding="utf-8")
    kill_when(start("plan/pipeline.py"), Path("plan/logs/clean/completions"))
    kill_when(start("plan/pipeline.py"), Path("plan/logs/keep/completions/00000"))
    first = Path("plan/logs/clean/completions/00000").stat().st_mtime_ns
    assert start("plan/pipeline.py").wait() == 0, Path("log.txt").read_text(encoding="utf-8")
    assert Path("plan/logs/clean/completions/00000").stat().st_mtime_ns == first  # not done again
    assert products("plan") == products("other")


@pytest.mark.parametrize(
    ("executor", "more"),
    [("local", ()), ("slurm", ("--partition", "cpu", "--time", "4:00:00")), ("ray", ())],
)
def test_scripts_for_every_executor_name_what_exists(
    texts: Path, vocabulary: Path, executor: str, more: tuple[str, ...]
) -> None:
    done("scale", "plan", "texts", "tokenizer.path=tok", "--executor", executor, *more, "--out", "plan")
    tree = ast.parse(Path("plan/pipeline.py").read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    steps = [node.func for node in calls if isinstance(node.func, ast.Attribute)]
    named = [(step.value.id, step.attr) for step in steps if isinstance(step.value, ast.Name)]
    ours = [name for name in named if name[0] in ("corpus", "duplicates", "tokens")]
    assert len(ours) == 13
    assert all(hasattr(importlib.import_module(f"yanmo.scale.{module}"), name) for module, name in ours)
    call = next(node for node in calls if ast.unparse(node.func).endswith("PipelineExecutor"))
    kind = getattr(importlib.import_module("datatrove.executor"), ast.unparse(call.func))
    assert {keyword.arg for keyword in call.keywords} <= {*inspect.signature(kind).parameters}
    stages = [node for node in calls if ast.unparse(node.func) == "stage"]
    assert len(stages) == 10 and sum(len(node.args) == 5 for node in stages) == 9  # each waits for one
    assert not {ast.unparse(node.func) for node in calls} & {"eval", "exec"}


def test_what_is_written_into_a_script_is_text_and_no_code(texts: Path, vocabulary: Path) -> None:
    odd = '"); import os #'
    done(
        "scale",
        "plan",
        "texts",
        "tokenizer.path=tok",
        "--executor",
        "slurm",
        "--partition",
        odd,
        "--out",
        "p",
    )
    tree = ast.parse(Path("p/pipeline.py").read_text(encoding="utf-8"))
    assert odd in {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["tokenizer.path=tok"], 2, "no corpus is named"),
        (["texts"], 2, "yanmo tokenizer train"),
        (["none", "tokenizer.path=tok"], 3, "no such file or folder"),
        (["yanmo:demo", "tokenizer.path=tok"], 2, "needs no second machine"),
        (["texts", "tokenizer.path=tok", "train.max_steps=3"], 2, "changes nothing in a plan"),
        (["texts", "tokenizer.path=tok", "model.block_size=64"], 2, "changes nothing in a plan"),
        (["texts", "tokenizer.path=tok", "clean.add=true"], 2, "clean.ads"),
        (["texts", "tokenizer.path=tok", 'dedup.against=["none.txt"]'], 3, "no such file or folder"),
        (["texts", "tokenizer.path=tok", "--executor", "slurm"], 2, "--partition NAME"),
        (["texts", "tokenizer.path=tok", "--partition", "cpu"], 2, "are for SLURM"),
    ],
)
def test_mistakes_are_answered(
    texts: Path, vocabulary: Path, words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = call_here("scale", "plan", *words, "--out", "plan", capsys=capsys)
    assert (result[0], said in result[1]) == (code, True), result
    assert not Path("plan").exists()


def call_here(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    from yanmo.cli.app import main

    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", ["yanmo", *words])
        main()
    return int(end.value.code or 0), capsys.readouterr().err


def test_the_same_plan_again_keeps_an_edited_script_and_another_plan_is_refused(
    texts: Path, vocabulary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("scale", "plan", "texts", "tokenizer.path=tok", "--out", "plan")
    assert call_here(*words, capsys=capsys)[0] == 0
    script = Path("plan/pipeline.py")
    script.write_text("# mine\n", encoding="utf-8")
    assert call_here(*words, capsys=capsys)[0] == 0
    assert script.read_text(encoding="utf-8") == "# mine\n"
    code, said = call_here(*words, "dedup.near=0.7", capsys=capsys)
    assert code == 2 and "a plan with other settings" in said
    (texts / "e.txt").write_text("春风夜雨。", encoding="utf-8")
    code, said = call_here(*words, capsys=capsys)
    assert code == 2 and "other files" in said


def test_a_pipeline_of_an_earlier_version_is_named_as_one(
    texts: Path, vocabulary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("scale", "plan", "texts", "tokenizer.path=tok", "--out", "plan")
    assert call_here(*words, capsys=capsys)[0] == 0
    plan = Path("plan/plan.toml")
    plan.write_text(plan.read_text(encoding="utf-8") + "block_size = 128\n", encoding="utf-8")
    code, said = call_here(*words, capsys=capsys)
    assert code == 2 and "a plan of an earlier version" in said
    with pytest.raises(ImportError, match="Make it anew"):
        from yanmo.scale.steps import FindCopies  # noqa: F401


def test_a_missing_datatrove_is_named_with_its_extra(
    texts: Path, vocabulary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("yanmo.cli.scale.find_spec", lambda name: None)
    code, said = call_here("scale", "plan", "texts", "tokenizer.path=tok", "--out", "plan", capsys=capsys)
    assert code == 2 and 'pip install "yanmo[scale]"' in said

"""The script that the command line writes: run for real, killed, run again; and written for clusters."""

import ast
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
from yanmo.data.shards import ShardSet
from yanmo.settings.recipe import load_cleaning
from yanmo.settings.schema import CorpusConfig, DataConfig, TokenizerConfig
from yanmo.text.clean.run import run
from yanmo.text.read.documents import corpus_fingerprint

pytestmark = pytest.mark.slow

datatrove_executor = pytest.importorskip("datatrove.executor")


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


def same_as_alone(corpus: Path, console: Console) -> None:
    """The shards of plan/ are those that clean --dedup and prepare make of the corpus."""
    run(load_cleaning((), [str(corpus)]), Path("one.jsonl"), console, dedup=True, workers=1)
    one, tokenizer = CorpusConfig(path=("one.jsonl",)), TokenizerConfig(path="tok")
    alone = prepare(one, tokenizer, DataConfig(val_fraction=0.1), 16, console).shards
    for side in ("train", "val"):
        for name in (f"{side}-00000.bin", f"{side}.starts.bin"):
            assert (alone.folder / name).read_bytes() == Path("plan/shards", name).read_bytes(), name
    made = ShardSet(
        Path("plan/shards"),
        corpus_fingerprint(CorpusConfig(path=("plan/corpus",))),
        alone.manifest.tokenizer,
    )
    assert made.manifest.splits == alone.manifest.splits


ASKED = ("texts", "tokenizer.path=tok", "data.val_fraction=0.1", "model.block_size=16")


def test_the_script_leaves_the_shards_of_one_machine(
    texts: Path, vocabulary: Path, console: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_here("scale", "plan", *ASKED, "--tasks", "2", "--out", "plan", capsys=capsys)[0] == 0
    assert start("plan/pipeline.py").wait() == 0, Path("log.txt").read_text(encoding="utf-8")
    same_as_alone(texts, console)
    shutil.rmtree("plan/work")
    opened = prepare(CorpusConfig(path=("plan/shards",)), TokenizerConfig(), DataConfig(), 16, console)
    assert opened.shards.folder == Path("plan/shards") and opened.val_fraction == 0.1
    with pytest.raises(DataError, match="hold out 0.1"):
        other = DataConfig(val_fraction=0.2)
        prepare(CorpusConfig(path=("plan/shards",)), TokenizerConfig(), other, 16, console)


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="processes are killed as a group")
def test_a_script_killed_twice_and_run_again_leaves_the_same_and_train_reads_it(
    texts: Path, vocabulary: Path, console: Console
) -> None:
    done("scale", "plan", *ASKED, "--tasks", "2", "--out", "plan")
    kill_when(start("plan/pipeline.py"), Path("plan/logs/1-clean/completions"))
    kill_when(start("plan/pipeline.py"), Path("plan/logs/5-keep/completions/00000"))
    first = Path("plan/logs/1-clean/completions/00000").stat().st_mtime_ns
    assert start("plan/pipeline.py").wait() == 0, Path("log.txt").read_text(encoding="utf-8")
    assert Path("plan/logs/1-clean/completions/00000").stat().st_mtime_ns == first  # not done again
    same_as_alone(texts, console)
    done("train", "plan/shards", *TINY, "train.max_steps=4", "--out", "run")
    assert Path("run/model/model.safetensors").is_file()


@pytest.mark.parametrize(
    ("executor", "more"),
    [("local", ()), ("slurm", ("--partition", "cpu", "--time", "4:00:00")), ("ray", ())],
)
def test_scripts_for_every_executor_name_what_exists(
    texts: Path, vocabulary: Path, executor: str, more: tuple[str, ...]
) -> None:
    import inspect

    import yanmo.scale.steps as steps

    done("scale", "plan", "texts", "tokenizer.path=tok", "--executor", executor, *more, "--out", "plan")
    tree = ast.parse(Path("plan/pipeline.py").read_text(encoding="utf-8"))
    imported = {
        (node.module, name.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    named = next(name for module, name in imported if module == "datatrove.executor")
    assert all(hasattr(steps, name) for module, name in imported if module == "yanmo.scale.steps")
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    call = next(node for node in calls if ast.unparse(node.func) == named)
    parameters = inspect.signature(getattr(datatrove_executor, named)).parameters
    assert {keyword.arg for keyword in call.keywords} <= {*parameters}
    stages = [node for node in calls if ast.unparse(node.func) == "stage"]
    assert len(stages) == 9 and sum(len(node.args) == 5 for node in stages) == 8  # each waits for one
    assert not {ast.unparse(node.func) for node in calls} & {"eval", "exec"}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["tokenizer.path=tok"], 2, "no corpus is named"),
        (["texts"], 2, "yanmo tokenizer train"),
        (["none", "tokenizer.path=tok"], 3, "no such file or folder"),
        (["yanmo:demo", "tokenizer.path=tok"], 2, "needs no second machine"),
        (["texts", "tokenizer.path=tok", "train.max_steps=3"], 2, "changes nothing in a plan"),
        (["texts", "tokenizer.path=tok", "clean.add=true"], 2, "clean.ads"),
        (["texts", "tokenizer.path=tok", "--executor", "slurm"], 2, "--partition NAME"),
        (["texts", "tokenizer.path=tok", "--partition", "cpu"], 2, "are of SLURM"),
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


def test_a_missing_datatrove_is_named_with_its_extra(
    texts: Path, vocabulary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("yanmo.cli.scale.find_spec", lambda name: None)
    code, said = call_here("scale", "plan", "texts", "tokenizer.path=tok", "--out", "plan", capsys=capsys)
    assert code == 2 and 'pip install "yanmo[scale]"' in said

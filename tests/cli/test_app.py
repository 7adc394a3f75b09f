"""The command line as a person meets it; what the process itself does, in one of its own."""

import json
import os
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.makers.console import here, yanmo
from tests.makers.processes import python
from tests.makers.runs import RUN, TINY, Trained
from yanmo.cli.app import INTERRUPTED, main
from yanmo.core.console import visible
from yanmo.settings.recipe import split_arguments
from yanmo.train.request import names_a_recipe

HEAVY = ("torch", "numpy", "pydantic", "transformers", "scrapy", "trafilatura", "tokenizers", "safetensors")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom yanmo.cli.app import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    for verb in ("quickstart", "train", "generate", "env"):
        assert verb in done.stdout


@pytest.mark.slow
def test_writing_does_not_wait_for_torchs_compiler(trained: Trained) -> None:
    """It takes three seconds to import; what draws weights on the meta device imports it."""
    trained("run")
    code = (
        "import sys\nfrom yanmo.cli.app import app\n"
        "try: app(['generate', 'run', '-p', '江湖', '--max-new-tokens', '2'])\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'torch._dynamo') if name in sys.modules])"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("江湖")
    assert done.stdout.splitlines()[-1] == "['torch']"


@pytest.mark.slow
def test_train_then_write_then_train_again(novel: Path) -> None:
    trained = yanmo("train", "novel.txt", "--json", *TINY)
    assert trained.returncode == 0, trained.stderr
    result = json.loads(trained.stdout)
    assert result["run"] == os.path.join("runs", "novel")
    assert result["step"] == 12
    assert "bits/char" in trained.stderr
    assert "Next:" in trained.stderr
    assert "Warning" not in trained.stderr
    written = yanmo("generate", "runs/novel", "-p", "江湖", "--max-new-tokens", "5", "--seed", "3")
    assert written.returncode == 0, written.stderr
    assert written.stdout.startswith("江湖")
    assert 1 < len(written.stdout.strip()) <= 2 + 5
    again = yanmo("generate", "runs/novel", "-p", "江湖", "--max-new-tokens", "5", "--seed", "3")
    assert again.stdout == written.stdout
    assert "; float32 on cpu" in written.stderr
    halved = here("generate", "runs/novel", "-p", "江湖", "--device", "cpu", "--precision", "bfloat16")
    assert halved.stdout.startswith("江湖") and "; bfloat16 on cpu" in halved.stderr
    eighth = here("generate", "runs/novel", "-p", "江湖", "--device", "cpu", "--precision", "int8")
    assert eighth.returncode == 2 and "multiples of 32; this model has 16" in eighth.stderr
    elsewhere = here("generate", "runs/novel", "--device", "cuda:9")
    assert elsewhere.returncode == 2 and "where: --device" in elsewhere.stderr
    several = here("generate", "-p", "江湖", "--num-samples", "3", "--json")
    assert len(json.loads(several.stdout)["samples"]) == 3
    finished = here("train", "novel.txt", *TINY)
    assert finished.returncode == 0
    assert "is finished (12 steps)" in finished.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["train"], 2, ["no text is named", "yanmo train novel.txt"]),
        (["train", "none.txt"], 3, ["there is no such file or folder", "none.txt"]),
        (["train", "empty.txt"], 3, ["the file is empty", "empty.txt"]),
        (["train", "image.txt"], 3, ["binary", "image.txt"]),
        (["train", "short.txt"], 3, ["shorter than one window", "block_size=128"]),
        (["train", "novel.txt", "train.max_step=3"], 2, ["unknown setting", "train.max_steps"]),
        (["train", "novel.txt", "lr=3"], 2, ["unknown setting 'lr'", "optim.learning_rate"]),
        (["train", "demo", "train.max_step=3"], 2, ["unknown setting", "where: command line"]),
        (["train", "novel.txt", "model.n_head=3"], 2, ["n_embd=256", "n_head=3"]),
        (
            ["train", "novel.txt", "train.max_steps=5", "optim.warmup_steps=5"],
            2,
            ["warmup_steps=5"],
        ),
        (["train", "novel.txt", "train.device=cuda:9"], 2, ["cuda:9", "available: cpu"]),
        (["train", "none.toml"], 2, ["the recipe cannot be read", "none.toml"]),
        (["generate"], 2, ["there is no run yet", "yanmo train"]),
        (["generate", "nowhere"], 2, ["there is no such folder: nowhere"]),
        (["generate", "."], 2, [". is not a run or model folder"]),
        (["evaluate", ".", "novel.txt", "--memory", "0.3"], 2, ["--corpus novel.txt"]),
    ],
)
def test_mistakes_are_answered_without_a_traceback(
    novel: Path, arguments: list[str], code: int, said: list[str]
) -> None:
    Path("empty.txt").write_bytes(b"")
    Path("image.txt").write_bytes(b"\x89PNG\x00\x00")
    Path("short.txt").write_text("短", encoding="utf-8")
    done = here(*arguments)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "where:" in done.stderr and "hint:" in done.stderr
    for words in said:
        assert words in done.stderr
    assert done.stdout == ""


def test_a_prompt_longer_than_the_window_is_answered_clearly(trained: Trained) -> None:
    trained(RUN)
    done = here("generate", "runs/novel", "-p", "江湖" * 20)
    assert done.returncode == 0 and done.stdout.startswith("江湖" * 20)
    said = "the prompt has 40 tokens; the model only reads the last 16 of them"
    assert f"{said}\n" in done.stderr
    remembered = here("generate", "runs/novel", "-p", "江湖" * 20, "--memory", "0.3")
    assert f"{said}, and its memory has the rest\n" in remembered.stderr
    assert here("generate", "runs/novel", "--top-p", "3").returncode == 2
    broken = here("generate", "runs/novel", "-p", "龘\udc80")
    assert broken.returncode == 2
    assert "the prompt holds half a character" in broken.stderr


ESCAPES = "\x1b[2J", "\x9b31m", "\u202e\u2066", "\x07"


@pytest.mark.parametrize("escape", ESCAPES)
@pytest.mark.parametrize(
    "words",
    ["train {}.txt", "train novel.txt train.{}=1", "generate {}", "inspect {}", "{}", "plan novel.txt --{}",
     "train novel.txt corpus.text_field={} corpus.path=none"],
)  # fmt: skip
def test_no_error_carries_a_command_to_a_terminal(novel: Path, escape: str, words: str) -> None:
    given = [word.format(f"甲{escape}乙") for word in words.split()]
    shown, piped = here(*given, on_terminal=True), here(*given)
    assert shown.returncode == piped.returncode != 0
    assert escape not in shown.stdout + shown.stderr
    assert visible(piped.stderr) == shown.stderr


@pytest.mark.parametrize("escape", ESCAPES)
def test_names_of_fields_and_files_are_shown_to_a_terminal(tmp_path: Path, escape: str) -> None:
    rows = [json.dumps({f"字{escape}段": "春风又绿江南岸。" * 9, "别": "另"})] * 3
    Path(f"书{escape}卷.jsonl").write_text("\n".join(rows), encoding="utf-8")
    for words in (
        ["inspect", "."],
        ["clean", ".", "--explain"],
        ["prepare", ".", f"corpus.text_field=字{escape}段"],
    ):
        done = here(*words, on_terminal=True)
        assert "Traceback" not in done.stderr
        assert escape not in done.stdout + done.stderr


def test_the_version_and_help_are_told_however_they_are_asked_for() -> None:
    assert here("--version").stdout == f"yanmo {version('yanmo')}\n"
    for words in ([], ["train"], ["tokenizer"], ["tokenizer", "compare"], ["scale", "plan"]):
        short, long = here(*words, "-h"), here(*words, "--help")
        assert short.returncode == 0 and short.stdout == long.stdout and "Usage:" in short.stdout


def test_the_shell_is_told_what_can_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    for shell in ("bash", "zsh", "fish"):
        monkeypatch.setattr("typer.completion._get_shell_name", lambda shell=shell: shell, raising=False)
        assert "YANMO_COMPLETE" in here("--show-completion").stdout.upper()


@pytest.mark.parametrize(
    ("words", "called"),
    [
        ("env", "yanmo.parallel.environment.describe_environment"),
        ("evaluate", "yanmo.eval.assess.assess"),
        ("plan novel.txt", "yanmo.train.run.prepare_run"),
        ("generate", "yanmo.generate.writer.find_model_folder"),
        ("chat", "yanmo.generate.writer.find_model_folder"),
        ("prepare novel.txt", "yanmo.data.prepare.prepare"),
        ("tokenizer inspect x", "yanmo.tokenizer.read_tokenizer"),
    ],
)
def test_ctrl_c_says_a_line_whatever_was_being_done(
    novel: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, called: str
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(called, interrupted)
    monkeypatch.setattr("sys.argv", ["yanmo", *words.split()])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 130
    out, err = capsys.readouterr()
    last = err.splitlines()[-1]
    assert out == "" and last.startswith(INTERRUPTED)
    assert ("resumes" in last) == (words in ("prepare novel.txt",))


@pytest.mark.slow
def test_env_prints_what_a_bug_report_needs() -> None:
    found = json.loads(yanmo("env", "--json").stdout)
    assert {"yanmo", "python", "torch", "numpy", "devices", "threads", "cache"} <= set(found)
    assert "torch" in yanmo("env").stdout


def test_a_run_folder_alone_goes_on_with_that_run(novel: Path, trained: Trained) -> None:
    trained(RUN)
    metrics = (RUN / "metrics.jsonl").read_bytes()
    for words in (["runs/novel"], ["runs/novel/"], [str(RUN.resolve())], ["--out", "runs/novel"]):
        done = here("train", *words)
        assert done.returncode == 0, done.stderr
        assert "12" in done.stderr
    assert (RUN / "metrics.jsonl").read_bytes() == metrics
    longer = here("train", "runs/novel", "train.max_steps=14")
    assert longer.returncode == 0, longer.stderr
    assert (RUN / "checkpoints" / "step-00000014").is_dir()
    assert [path.name for path in Path("runs").iterdir()] == ["novel"]


@pytest.mark.parametrize(
    "words",
    [
        ["other.txt", "runs/novel"],
        ["runs/novel", "--out", "runs/new"],
        ["runs/novel", "other.txt", "--out", "runs/new"],
    ],
)
def test_a_run_folder_is_no_text(novel: Path, trained: Trained, words: list[str]) -> None:
    trained(RUN)
    Path("other.txt").write_bytes(novel.read_bytes())
    done = here("train", *words)
    assert done.returncode == 3
    assert "the folder is a run" in done.stderr and "yanmo train runs/novel, alone" in done.stderr


def test_a_dry_run_prints_a_recipe_and_trains_nothing(novel: Path) -> None:
    done = here("train", "novel.txt", "--dry-run", "model.n_layer=3")
    assert done.returncode == 0
    assert "n_layer = 3  # Transformer blocks." in done.stdout
    assert not Path("runs").exists()


def test_what_exists_is_a_text_and_the_rest_are_settings(tmp_path: Path) -> None:
    (tmp_path / "a=b.txt").write_text("", encoding="utf-8")
    assert split_arguments(["./x.txt", "a=b.txt", "train.seed=1"]) == (
        ["x.txt", "a=b.txt"],
        ["train.seed=1"],
    )


@pytest.mark.parametrize("encoding", ["cp1252", "gbk", "ascii"])
def test_chinese_is_written_whatever_the_consoles_code_page(novel: Path, encoding: str) -> None:
    done = python("-m", "yanmo", "--help", PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert "研墨" in done.stdout


def test_a_text_wins_over_a_recipe_of_its_name(novel: Path) -> None:
    Path("demo").write_text("字" * 500, encoding="utf-8")
    assert names_a_recipe("nanogpt_cpu") and not names_a_recipe("demo")
    assert 'path = ["demo"]' in here("train", "demo", "--dry-run").stdout

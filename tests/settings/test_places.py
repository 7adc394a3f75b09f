"""What a run is called, what it leaves, and where its paths lead."""

import os
import shutil
from pathlib import Path

import pytest

from tests.makers.console import here
from tests.makers.runs import RUN, TINY, Trained, tiny_recipe
from tests.makers.texts import invented_text
from yanmo.checkpoint.folder import find_model_folder, recorded_recipe
from yanmo.core import storage
from yanmo.core.console import Console
from yanmo.core.errors import CheckpointError, ConfigError, DataError
from yanmo.settings.places import run_name
from yanmo.settings.recipe import load_recipe, split_arguments
from yanmo.train import run, trainer
from yanmo.train.request import asked_recipe
from yanmo.train.trainer import train


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("books/小说.txt", "小说"),
        ("yanmo:demo", "demo"),
        ("books/*.txt", "books"),
        ("books/**/*.txt", "books"),
        ("b*/x.txt", "here"),
        ("*.txt", "here"),
        ("..", "above"),
        (".", "here"),
        ("../here/..", "above"),
        ("/", "run"),
        ("", "here"),
        ("v1.2", "v1.2"),
        ("a[1]?.txt", "here"),
        ("kept[1].txt", "kept_1_"),
        ('he said "hi": <yes>|no.txt', "he said _hi__ _yes__no"),
        ("aux.txt", "aux_"),
        ("COM1.tar.gz", "COM1.tar_"),
        ("...txt", "run"),
        ("甲" * 90 + ".txt", "甲" * 60),
        (os.fsdecode("中文.txt".encode("gb18030")), "中文"),
        (os.fsdecode(b"\xff\x80\xff.txt"), "\ufffd\ufffd\ufffd"),
    ],
)
def test_a_run_is_called_by_what_was_trained_in_letters_every_system_takes(
    text: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "above" / "here"
    (folder / "v1.2").mkdir(parents=True)
    (folder / "kept[1].txt").touch()
    monkeypatch.chdir(folder)
    assert run_name(text) == name
    (Path("runs") / name).mkdir(parents=True)
    assert [path.name for path in Path("runs").iterdir()] == [name]


def test_a_recipe_of_a_run_is_a_run_on_the_same_text(trained: Trained) -> None:
    trained("elsewhere/x")
    assert asked_recipe(["elsewhere/x/recipe.toml"])[1] == RUN
    assert asked_recipe(["demo"])[1] == Path("runs/demo")
    assert asked_recipe(["demo", "novel.txt"])[1] == Path("runs/demo")


# -- what it leaves ---------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["prepare_texts", "measure", "write_records", "adapted_model"])
def test_a_run_that_fails_before_its_first_step_leaves_nothing(
    place: str, novel: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object, **named: object) -> None:
        raise DataError("no")

    monkeypatch.setattr(run, place, fail)
    with pytest.raises(DataError):
        train(tiny_recipe(novel), Path("some/where/run"), console)
    assert list(Path().iterdir()) == [novel]
    Path("mine").mkdir()
    with pytest.raises(DataError):
        train(tiny_recipe(novel), Path("mine"), console)
    assert not list(Path("mine").iterdir())


def test_a_run_that_fails_later_keeps_what_it_has(
    novel: Path, trained: Trained, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(RUN)
    before = sorted(RUN.rglob("*"))

    def fail(*given: object) -> None:
        raise DataError("no")

    with monkeypatch.context() as patched, pytest.raises(DataError):
        patched.setattr(run, "prepare_texts", fail)
        train(tiny_recipe(novel), RUN, console)
    assert sorted(RUN.rglob("*")) == before
    monkeypatch.setattr(trainer, "train_step_with_oom_retry", fail)
    with pytest.raises(DataError):
        train(tiny_recipe(novel), Path("begun"), console)
    assert (Path("begun") / "recipe.toml").is_file()


@pytest.mark.parametrize("name", ["recipe.toml", "plan.json", "corpus.json"])
def test_a_record_that_is_not_read_as_it_was_written_ends_the_run_before_it_begins(
    name: str, novel: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = storage.write_atomic

    def garble(path: Path, data: bytes | str) -> None:
        real(
            path,
            str(data).replace("novel.txt", "navel.txt").replace("1", "2", 3) if path.name == name else data,
        )

    monkeypatch.setattr(storage, "write_atomic", garble)
    with pytest.raises((ConfigError, CheckpointError)):
        train(tiny_recipe(novel), RUN, console)
    assert not Path("runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("raw", ["中文".encode("gb18030"), "雨夜".encode("big5"), b"\xff\xfe"])
def test_a_text_whose_name_is_no_utf8_is_trained_on_and_opened_again(raw: bytes) -> None:
    file = Path(os.fsdecode(raw + b".txt"))
    try:
        file.write_text(invented_text(6000), encoding="utf-8")
    except OSError:
        pytest.skip("this disk takes no such name")
    done = here("train", str(file), *TINY)
    assert done.returncode == 0, done.stderr
    (folder,) = Path("runs").iterdir()
    recipe = recorded_recipe(find_model_folder(folder))
    assert recipe and recipe.corpus.path == (str(file),)
    assert "is finished" in here("train", "--out", str(folder)).stderr


# -- the same command again -------------------------------------------------------------------


def test_a_setting_left_out_is_that_of_the_run(novel: Path, trained: Trained) -> None:
    trained(RUN, "model.n_embd=24", "model.n_head=3")
    for words in (
        ["novel.txt"],
        ["--out", str(RUN)],
        [f"{RUN}/recipe.toml"],
        ["novel.txt", "model.n_head=3"],
    ):
        done = here("train", *words)
        assert done.returncode == 0, done.stderr
        assert "is finished (12 steps)" in done.stderr and "None" not in done.stderr
    for named, said in (
        ("model.n_embd=32", "model.n_embd: 24 in the run, 32 requested"),
        ("train.minutes=3", "train.minutes: left open in the run, 3.0 requested"),
        ("train.max_steps=3", "train.max_steps: 12 in the run, 3 requested"),
    ):
        done = here("train", "novel.txt", named)
        assert done.returncode == 2 and said in done.stderr
    assert "no text is named" in here("train", "--out", "nowhere").stderr
    assert not Path("nowhere").exists()


def test_a_run_works_from_any_folder_and_after_it_was_moved(
    novel: Path, own_cache: Path, console: Console, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    train(tiny_recipe(novel), RUN, console)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    Path("novel.txt").write_text("another text of this name", encoding="utf-8")
    for folder in (tmp_path / RUN, Path("..") / RUN):
        assert here("evaluate", str(folder)).returncode == 0
        assert "is finished" in here("train", str(folder / "recipe.toml"), "--out", str(folder)).stderr
    shutil.move(tmp_path / RUN, "moved")  # the run alone
    assert here("evaluate", "moved").returncode == 0
    assert "is finished" in here("train", "moved/recipe.toml", "--out", "moved").stderr
    shutil.move("moved", tmp_path / RUN)
    shutil.move(tmp_path / "novel.txt", tmp_path / "kept.txt")
    shutil.copytree(tmp_path, (copied := tmp_path.parent / f"{tmp_path.name}-copied"), symlinks=True)
    shutil.move(copied / "kept.txt", copied / "novel.txt")  # text and run together
    done = here("evaluate", str(copied / RUN))
    assert done.returncode == 0 and str(copied) in done.stdout
    Path("novel.txt").unlink()
    done = here("evaluate", str(tmp_path / RUN))
    assert done.returncode == 2 and str(tmp_path / "novel.txt") in done.stderr  # where it looked
    done = here("train", "--out", str(tmp_path / RUN))
    assert done.returncode == 3 and str(tmp_path / "novel.txt") in done.stderr
    done = here("train", str(tmp_path / "kept.txt"), "--out", str(tmp_path / RUN))  # the content decides
    assert "is finished" in done.stderr
    assert load_recipe(tmp_path / RUN / "recipe.toml").corpus.path == (str(tmp_path / "kept.txt"),)


def test_paths_are_those_of_the_recipe_and_never_of_what_is_typed(
    novel: Path, console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tiny_recipe(novel), RUN, console)
    recorded = (RUN / "recipe.toml").resolve()
    Path("other").mkdir()
    monkeypatch.chdir("other")
    assert load_recipe(recorded).corpus.path == (str(tmp_path / "novel.txt"),)
    assert load_recipe(recorded, ["corpus.path=novel.txt"]).corpus.path == ("novel.txt",)


# -- how others spell it ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train novel.txt --lr 3e-4", "settings are written optim.learning_rate=3e-4, without dashes"),
        ("train novel.txt --n-layer=6", "settings are written model.n_layer=6, without dashes"),
        ("prepare novel.txt --vocab-size", "settings are written tokenizer.vocab_size=VALUE"),
        ("train novel.txt --fp16", "in yanmo it is train.precision=float16"),
        ("train novel.txt --use_wandb", "leave it out: metrics.jsonl"),
        ("generate runs/x sample.temperature=.5", "here it is an option: --temperature .5"),
        ("generate sample.temperature=.5", "here it is an option: --temperature .5"),
        ("generate runs/x topk=5", "here it is an option: --top-k 5"),
        ("chat --max-tokens 9", "here it is an option: --max-new-tokens 9"),
        ("generate runs/x --length 20", "here it is an option: --max-new-tokens 20"),
        ("train nanogpt-cpu novel.txt", "did you mean 'nanogpt_cpu'?"),
        ("train duopo.toml", "did you mean the built-in recipe 'doupo'?"),
    ],
)
def test_a_setting_spelt_as_another_command_spells_it_is_answered(novel: Path, words: str, said: str) -> None:
    done = here(*words.split())
    assert done.returncode == 2 and said in done.stderr
    assert "Usage" not in done.stderr


def test_what_is_no_setting_is_answered_by_usage_as_ever(novel: Path) -> None:
    done = here("train", "novel.txt", "--dryrun")
    assert done.returncode == 2 and "--dry-run" in done.stderr and "Usage" in done.stderr
    assert "there is no such folder" in here("generate", "a=b").stderr


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), ValueError("embedded null byte")]
)
def test_the_last_net_is_no_traceback(error: Exception, novel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> None:
        raise error

    monkeypatch.setattr("yanmo.data.prepare.prepare", fail)
    done = here("prepare", "novel.txt")
    assert done.returncode == (74 if isinstance(error, OSError) else 2)
    assert str(error) in done.stderr and "line" in done.stderr and "hint:" in done.stderr


@pytest.mark.parametrize("command", ["train", "prepare", "clean", "inspect", "generate", "evaluate", "plan"])
def test_no_word_of_a_command_line_ends_in_a_traceback(command: str, novel: Path) -> None:
    for word in ("山" * 86, "a" * 4000, "a\0b", "\ud800", "novel.txt/x", "/nowhere" * 300, "[", "~x", "a=\0"):
        done = here(command, word)
        assert done.returncode in (2, 3, 74), (word, done.stderr)
        assert "hint:" in done.stderr or "Error:" in done.stderr
    assert split_arguments(["a=\0"]) == ([], ["a=\0"])

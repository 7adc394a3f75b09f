"""What a command writes destroys nothing: no input, and no file that yanmo did not make."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.makers.console import here
from tests.makers.runs import RUN, Trained
from yanmo.core import storage
from yanmo.core.errors import ConfigError, StorageError
from yanmo.core.outputs import MARK, is_marked, require_file, require_folder

MINE = "somebody wrote this, and has no copy"


def write(name: str, text: str = MINE) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "words",
    [
        ("inspect", "novel.txt", "--html", "novel.txt"),
        ("inspect", "novel.txt", "--html", "novel.txt", "--force"),
        ("inspect", "*.txt", "--html", "novel.txt", "--force"),
        ("inspect", ".", "--html", "page.html", "--force"),
        ("inspect", "novel.txt", "--html", "linked.html", "--force"),
        ("clean", "corpus.jsonl", "--out", "corpus.jsonl", "--force"),
        ("tokenizer", "train", "novel.txt", "--out", "novel.txt"),
        ("tokenizer", "import", "bert", "--out", "bert", "--force"),
        ("tokenizer", "compare", "bert", "--corpus", "novel.txt", "--out", "novel.txt", "--force"),
        ("train", "novel.txt", "--out", "novel.txt"),
        ("train", "novel.txt", "--out", "novel.txt/run"),
        ("import", "bert", "--out", "novel.txt"),
        ("generate", "--save", "novel.txt"),
    ],
)
def test_no_input_is_ever_replaced_and_no_file_taken_for_a_folder(
    novel: Path, words: tuple[str, ...]
) -> None:
    write("corpus.jsonl", json.dumps({"text": novel.read_text(encoding="utf-8")}))
    write("bert/vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n江\n湖\n")
    os.link("novel.txt", "linked.html")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    done = here(*words)
    assert done.returncode == 2, done.stderr
    assert (
        done.stderr.startswith("ConfigError") and words[-2 if words[-1] == "--force" else -1] in done.stderr
    )
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (("inspect", "novel.txt", "--html", "a.html"), "a.html"),
        (("clean", "novel.txt", "--out", "a.jsonl"), "a.jsonl"),
        (("clean", "novel.txt", "--out", "a.jsonl"), "a.manifest.json"),
        (("clean", "novel.txt"), "novel.clean.jsonl"),
        (("tokenizer", "train", "novel.txt", "--kind", "char", "--out", "a"), "a/tokenizer.json"),
        (("tokenizer", "import", "bert", "--out", "a"), "a/tokenizer_config.json"),
        (("tokenizer", "compare", "bert", "--corpus", "novel.txt", "--out", "a.svg"), "a.svg"),
    ],
)
def test_what_yanmo_did_not_make_is_replaced_by_force_alone_and_its_own_at_once(
    novel: Path, words: tuple[str, ...], out: str
) -> None:
    write("bert/vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n江\n湖\n")
    path = write(out)
    refused = here(*words)
    assert refused.returncode == 2 and out in refused.stderr and "--force" in refused.stderr
    assert path.read_text(encoding="utf-8") == MINE
    assert here(*words, "--force").returncode == 0
    made = path.read_bytes()
    assert made != MINE.encode()
    assert here(*words).returncode == 0, "its own may be made again"


def test_a_cleaned_corpus_that_somebody_edited_is_theirs(novel: Path) -> None:
    assert here("clean", "novel.txt").returncode == 0
    out = Path("novel.clean.jsonl")
    out.write_text(out.read_text(encoding="utf-8") + '{"text": "一行"}\n', encoding="utf-8")
    assert "--force" in here("clean", "novel.txt").stderr
    assert "一行" in out.read_text(encoding="utf-8")


def test_nothing_is_exported_over_a_model(trained: Trained) -> None:
    trained(RUN)
    weights = RUN / "model" / "model.safetensors"
    before = weights.read_bytes()
    words = ("export", str(RUN), "--to", "gguf", "--no-verify", "--out")
    assert "would be replaced" in here(*words, str(weights), "--force").stderr
    assert "--force" in here(*words, str(write("a.gguf"))).stderr
    folder = write("a/mine.txt").parent
    for more in ((), ("--force",)):
        done = here("export", str(RUN), "--no-verify", "--out", str(folder), *more)
        assert done.returncode == 2 and "there already" in done.stderr
    assert weights.read_bytes() == before and (folder / "mine.txt").is_file()


def test_a_dangling_link_and_a_name_too_long_are_answered() -> None:
    Path("away.html").symlink_to("nowhere")
    with pytest.raises(ConfigError, match="there already"):
        require_file(Path("away.html"), "--html")
    with pytest.raises(StorageError):
        require_file(Path("长" * 300), "--out")
    with pytest.raises(StorageError):
        require_folder(Path("长" * 300), "--out")


def test_only_the_beginning_of_a_page_says_whose_it_is() -> None:
    assert is_marked(write("ours.html", f"<!doctype html>\n{MARK}\n"))
    assert not is_marked(write("quoted.html", "<!doctype html>" + " " * 500 + MARK))
    assert not is_marked(Path("none.html"))


# -- a place that cannot be written -----------------------------------------------------------


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Lets a folder look as if its disk could only be read, whoever runs the tests."""
    real_open, real_access = os.open, os.access
    closed: list[Path] = []

    def is_closed(path: object) -> bool:
        return any(Path(os.fspath(path)).absolute().is_relative_to(folder) for folder in closed)  # type: ignore[call-overload]

    def opened(path: object, flags: int, *rest: object, **more: object) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR) and is_closed(path):
            raise OSError(30, "Read-only file system", str(path))
        return real_open(path, flags, *rest, **more)  # type: ignore[call-overload, no-any-return]

    def accessed(path: object, mode: int) -> bool:
        return not (mode & os.W_OK and is_closed(path)) and real_access(path, mode)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "access", accessed)
    return lambda folder: closed.append(folder.absolute())


def everything_in(folder: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "words", [("train", "runs/novel/recipe.toml", "--out"), ("evaluate",), ("generate",)]
)
def test_a_finished_run_in_a_read_only_place_can_be_looked_at(
    trained: Trained, read_only: Callable[[Path], None], words: tuple[str, ...]
) -> None:
    trained(RUN)
    before = everything_in(RUN)
    read_only(RUN)
    done = here(*words, str(RUN))
    assert done.returncode == 0, done.stderr
    assert everything_in(RUN) == before


def test_a_run_that_is_to_go_on_in_a_read_only_place_is_an_error_of_storage(
    trained: Trained, read_only: Callable[[Path], None]
) -> None:
    trained(RUN)
    read_only(RUN)
    done = here("train", f"{RUN}/recipe.toml", "--out", str(RUN), "train.max_steps=24")
    assert done.returncode == 74 and "Read-only" in done.stderr


def test_a_cache_that_can_only_be_read_is_read(own_cache: Path, read_only: Callable[[Path], None]) -> None:
    def fill(folder: Path) -> None:
        (folder / "a").write_bytes(b"1")

    made = storage.cached("station", "key", fill)
    read_only(own_cache)
    assert storage.cached("station", "key", fill) == made
    with pytest.raises(StorageError):
        storage.cached("station", "other", fill)

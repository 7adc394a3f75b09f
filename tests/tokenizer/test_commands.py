"""`yanmo tokenizer` and `yanmo prepare` as a person meets them."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.makers.console import here, yanmo
from tests.makers.texts import lesson
from yanmo.core.outputs import MARK
from yanmo.tokenizer import load_tokenizer
from yanmo.tokenizer.train import learn_bpe


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "novel.txt"
    path.write_text(lesson(30_000), encoding="utf-8")
    return path


def test_learn_compare_inspect_and_prepare(text: Path) -> None:
    learned = here("tokenizer", "train", "novel.txt", "--vocab-size", "600", "--out", "mine")
    assert learned.returncode == 0, learned.stderr
    assert learned.stdout.splitlines()[0] == "mine: bpe, 600 tokens, lossless"
    assert "MB of memory" in learned.stderr
    here("tokenizer", "train", "novel.txt", "--kind", "char")
    again = here("tokenizer", "train", "novel.txt", "--vocab-size", "600", "--out", "mine")
    assert again.returncode == 0
    other = here("tokenizer", "train", "novel.txt", "--vocab-size", "500", "--out", "mine")
    assert other.returncode == 2
    assert "there already" in other.stderr and "--force" in other.stderr

    compared = here(
        "tokenizer", "compare", "mine", "tokenizers/novel-char", "--corpus", "novel.txt", "--out", "p.svg"
    )
    assert compared.returncode == 0, compared.stderr
    assert "novel-char" in compared.stdout and "characters per token" in compared.stdout
    assert Path("p.svg").read_text(encoding="utf-8").startswith(f"{MARK}\n<svg")
    both = json.loads(
        here(
            "tokenizer", "compare", "mine", "tokenizers/novel-char", "--corpus", "novel.txt", "--json"
        ).stdout
    )
    assert both[1]["characters_per_token"] == 1.0
    assert both[0]["characters_per_token"] > 1.5
    assert both[0]["lost"] == {}
    inspected = here("tokenizer", "inspect", "mine", "老掌柜：“龘”")
    assert "老掌柜" in inspected.stdout
    assert "‹" in inspected.stdout, "a character written in bytes is marked"

    prepared = here("prepare", "novel.txt", "tokenizer.path=mine", "model.block_size=16", "--json")
    assert prepared.returncode == 0, prepared.stderr
    found = json.loads(prepared.stdout)
    assert (found["tokenizer"], found["vocab_size"], found["dtype"]) == ("bpe", 600, "<u2")
    assert Path(found["shards"], "manifest.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("train", "nowhere.txt"), 3, "no such file"),
        (("train",), 2, "Missing argument"),
        (("train", "novel.txt", "--kind", "wordpiece"), 2, "cannot learn kind 'wordpiece'"),
        (("train", "novel.txt", "--vocab-size", "100"), 4, "no room for 256 bytes"),
        (("train", "novel.txt", "tokenizer.vocabsize=3"), 2, "did you mean"),
        (("import", "nowhere/file.xyz/deep"), 2, "no tokenizer at"),
        (("import", "novel.txt"), 4, "has no [UNK]"),
        (("import", "a", "b"), 2, "2 vocabularies are named"),
        (("compare", "novel.txt", "--corpus", "novel.txt"), 4, "has no [UNK]"),
        (("compare", "x"), 2, "no tokenizer at x"),
        (("inspect", "novel.txt", "--shape", "12"), 2, "'12' is not a shape"),
    ],
)
def test_mistakes_are_answered(
    arguments: tuple[str, ...], code: int, said: str, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = here("tokenizer", *arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_what_a_vocabulary_holds_is_said_in_words(kind: str, text: Path) -> None:
    here("tokenizer", "train", "novel.txt", "--kind", kind, "--vocab-size", "600", "--out", "mine")
    for more in ((), ("甲乙",), ("--corpus", "novel.txt")):
        said = here("tokenizer", "inspect", "mine", *more).stdout.partition("fingerprint")[0]
        assert re.search("^lossless +yes$", said, re.MULTILINE)
        assert re.search(r"^by characters +1: [\d,]+", said, re.MULTILINE)
        assert not any(sign in said for sign in ("True", "False", "None", *"{}[]"))


def without_marks(shown: str) -> str:
    """What is shown token by token, without the numbers of bytes."""
    return re.sub("‹\\d+›", "", shown)


def test_what_is_shown_of_a_corpus_stands_in_it(text: Path) -> None:
    lines = ["红叶红叶满山", "红叶飘", "甲乙丙丁戊己庚辛，一行最多的字。", "红叶 GPT"]
    Path("poem.txt").write_text("\n".join([*lines * 3, "癸"]), encoding="utf-8")
    here("tokenizer", "train", "novel.txt", "--kind", "char", "--out", "mine")
    for name in ("compare", "inspect"):
        said = without_marks(here("tokenizer", name, "mine", "--corpus", "poem.txt").stdout)
        assert lines[2] in said
        assert "萧炎" not in said
    assert "\n红叶  " in said and "\n癸  " in said
    for words in (("compare", "mine", "--text", "别的一句"), ("inspect", "mine", "别的一句")):
        chosen = without_marks(here("tokenizer", *words, "--corpus", "poem.txt").stdout)
        assert "别的一句" in chosen and lines[2] not in chosen


def test_a_corpus_without_hanzi_has_words_to_show_too(text: Path) -> None:
    here("tokenizer", "train", "novel.txt", "--kind", "bpe", "--vocab-size", "600", "--out", "mine")
    for content in ("a", "Hello world\n", "。。。\n\n"):
        Path("other.txt").write_text(content, encoding="utf-8")
        done = here("tokenizer", "inspect", "mine", "--corpus", "other.txt")
        assert done.returncode == 0, done.stderr
        assert "Hello" in done.stdout


def test_a_small_text_is_said_to_have_fewer_tokens(tmp_path: Path) -> None:
    (tmp_path / "small.txt").write_text("江湖夜雨十年灯。" * 20, encoding="utf-8")
    done = here("tokenizer", "train", "small.txt", "--vocab-size", "9000")
    assert done.returncode == 0
    assert "tokens to learn, not 9,000" in done.stderr


class Hub(BaseHTTPRequestHandler):
    """As much of a hub as a download needs: one repository with one file."""

    file = b""

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def answer(self, with_body: bool) -> None:
        there = self.path.startswith("/ink/stone/resolve/main/tokenizer.json")
        self.send_response(200 if there else 404)
        self.send_header("ETag", f'"{hashlib.sha256(self.file).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        if not there:
            self.send_header(
                "X-Error-Code", "EntryNotFound" if "/ink/stone/" in self.path else "RepoNotFound"
            )
        self.send_header("Content-Length", str(len(self.file) if there else 0))
        self.end_headers()
        if there and with_body:
            self.wfile.write(self.file)

    def log_message(self, *arguments: object) -> None:
        """Keep quiet."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    learn_bpe([lesson()], 500, ["<|endoftext|>"]).save(tmp_path, 10)
    Hub.file = (tmp_path / "tokenizer.json").read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_a_name_is_fetched_from_the_hub(hub: str, tmp_path: Path) -> None:
    online = {"HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*"}
    done = yanmo("tokenizer", "import", "ink/stone", "--out", "stone", **online)
    assert done.returncode == 0, done.stderr
    assert load_tokenizer(Path("stone")).vocab_size == 500
    missing = yanmo("tokenizer", "import", "ink/brush", **online)
    assert missing.returncode == 4
    assert "could not be fetched" in missing.stderr


@pytest.mark.slow
def test_a_name_without_a_connection_is_a_clear_error(tmp_path: Path) -> None:
    done = yanmo("tokenizer", "import", "ink/stone", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 4
    assert "could not be fetched from the hub" in done.stderr
    assert "local file" in done.stderr

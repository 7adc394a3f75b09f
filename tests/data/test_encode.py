"""Tokenising on several processes: the same shards, whoever makes them and however often it is cut off."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.makers.processes import children_of, gone, needs_proc
from tests.makers.texts import lesson, lesson_bpe
from yanmo.core.console import Console
from yanmo.core.errors import DataError
from yanmo.data import prepare as prepare_module
from yanmo.data.encode import PARALLEL_FROM_BYTES, encode, encode_all, processes_for
from yanmo.data.prepare import MARK_FILE, prepare
from yanmo.data.prepared import Prepared
from yanmo.settings.schema import CorpusConfig, DataConfig, TokenizerConfig
from yanmo.tokenizer import CharTokenizer, Tokenizer, kind_of

BPE = lesson_bpe(500)
VOCABULARY = "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"江湖客栈老掌柜说的，。"])
KINDS = ("char", "bpe", "wordpiece")


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Long and short documents; pieces of 1,000 characters, so that there are many."""
    monkeypatch.setattr(prepare_module, "PIECE_CHARACTERS", 1000)
    monkeypatch.setattr(prepare_module, "MARK_EVERY_BATCHES", 3)
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number:02d}.txt").write_text(lesson(60 + number * 200, seed=number), encoding="utf-8")
    return folder


def prepared(corpus: Path, kind: str, workers: int = 1) -> Prepared:
    (corpus.parent / "vocab.txt").write_text(VOCABULARY, encoding="utf-8")
    tokenizer = TokenizerConfig(kind="char")
    if kind == "bpe":
        tokenizer = TokenizerConfig(kind="bpe", vocab_size=500)
    elif kind == "wordpiece":
        tokenizer = TokenizerConfig(path=str(corpus.parent / "vocab.txt"))
    with open(os.devnull, "w", encoding="utf-8") as quiet:
        console = Console(stream=quiet)
        return prepare(CorpusConfig(path=(str(corpus),)), tokenizer, DataConfig(workers=workers), 16, console)


def content(found: Prepared) -> dict[str, bytes]:
    folder = found.shards.folder
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_shards_do_not_depend_on_the_number_of_processes(
    kind: str, corpus: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alone = content(prepared(corpus, kind))
    monkeypatch.setenv("YANMO_CACHE", str(tmp_path / "other"))
    assert content(prepared(corpus, kind, workers=2)) == alone


@pytest.mark.parametrize("kind", KINDS)
def test_the_shards_hold_the_ids_of_the_documents(kind: str, corpus: Path) -> None:
    found = prepared(corpus, kind)
    row = found.shards.train.slice(0, len(found.shards.train))
    starts = [*found.shards.train.starts.tolist(), len(row)]
    texts = {path.read_text(encoding="utf-8") for path in corpus.iterdir()}
    ids = {(*found.tokenizer.encode(text).tolist(), found.tokenizer.end_of_text) for text in texts}
    documents = [tuple(row[a:b].tolist()) for a, b in zip(starts, starts[1:], strict=False)]
    whole = [document for document in documents if document in ids]
    assert len(whole) >= len(documents) - 1  # one is cut for the held-out part
    assert len(documents) > 20


class Cut(BaseException):
    """The process is killed here."""


@pytest.mark.parametrize(
    ("kind", "after"), [*(("char", after) for after in (0, 1, 4, 9, 22)), ("bpe", 9), ("wordpiece", 4)]
)
def test_cut_off_anywhere_it_goes_on_to_the_same_shards(
    kind: str, after: int, corpus: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    encoded: list[int] = []

    def until(number: int) -> Callable[..., Iterator[object]]:
        def cut(*arguments: object) -> Iterator[object]:
            for count, found in enumerate(encode_all(*arguments)):  # type: ignore[arg-type]
                if count == number:
                    raise Cut
                encoded.append(count)
                yield found

        return cut

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "encode_all", until(1 << 30))
        whole = content(prepared(corpus, kind))
    in_all = len(encoded)
    encoded.clear()
    monkeypatch.setenv("YANMO_CACHE", str(tmp_path / "other"))
    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(prepare_module, "encode_all", until(after))
        prepared(corpus, kind)
    done = len(encoded)
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "encode_all", until(1 << 30))
        assert content(prepared(corpus, kind)) == whole
    assert len(encoded) - done + (after // 3) * 3 == in_all  # up to the last mark nothing is done again
    assert MARK_FILE not in whole


def test_a_large_text_gets_a_vocabulary_of_pieces(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(path.stat().st_size for path in corpus.iterdir())
    for threshold, kind in ((size + 1, "char"), (size, "bpe")):
        monkeypatch.setattr("yanmo.data.survey.BPE_FROM_BYTES", threshold)
        with open(os.devnull, "w", encoding="utf-8") as quiet:
            found = prepare(
                CorpusConfig(path=(str(corpus),)), TokenizerConfig(), DataConfig(), 16, Console(stream=quiet)
            )
        assert kind_of(found.tokenizer) == kind


def test_few_bytes_and_characters_are_encoded_here() -> None:
    characters = CharTokenizer("江湖")
    assert processes_for(BPE, PARALLEL_FROM_BYTES - 1) == 1
    assert processes_for(characters, 1 << 40) == 1
    assert processes_for(BPE, 1 << 40) == len(os.sched_getaffinity(0))


@pytest.mark.slow
def test_results_come_in_order_and_not_all_at_once() -> None:
    given: list[int] = []

    def batches() -> Iterator[int]:
        for number in range(40):
            given.append(number)
            yield number

    for number, (batch, found) in enumerate(encode_all(batches(), lambda n: [lesson(50 + n)], BPE, 2)):
        assert batch == number
        assert len(given) <= number + 2 + 3 * 2
        assert np.array_equal(found.ids[0], BPE.encode(lesson(50 + number)))


class Dying(CharTokenizer):
    """Ends the process that encodes with it."""

    def encode(self, text: str, special: bool = False) -> np.ndarray:  # type: ignore[type-arg]
        os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(text, special)

    def __reduce__(self) -> tuple[type[Tokenizer], tuple[str]]:
        return Dying, ("江湖",)


@pytest.mark.slow
def test_a_process_ended_from_outside_is_a_clear_error() -> None:
    with pytest.raises(DataError, match="ended from outside") as caught:
        list(encode_all(["江湖"] * 9, lambda text: [text], Dying("江湖"), 2))
    assert "the same command resumes" in caught.value.hint


PARENT = """
from tests.makers.texts import lesson, lesson_bpe
from yanmo.data.encode import encode_all
if __name__ == "__main__":
    for _ in encode_all(range(10**9), lambda n: [lesson(200)], lesson_bpe(500), 2):
        print("going", flush=True)
"""


@pytest.mark.slow
@needs_proc
def test_the_processes_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT, encoding="utf-8")
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    parent.stdout.readline()
    pids = children_of(parent.pid)
    assert len(pids) >= 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while not gone(pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert gone(pids)


@pytest.mark.slow
def test_what_is_lost_is_the_same_counted_by_anyone() -> None:
    from yanmo.tokenizer import WordPieceTokenizer
    from yanmo.tokenizer.wordpiece import Roles

    tokenizer = WordPieceTokenizer(VOCABULARY.split("\n"), Roles())
    texts = [lesson(300, seed) for seed in range(5)]
    alone = encode(tokenizer, texts).lost
    assert alone is not None
    for _, found in encode_all([texts], lambda batch: batch, tokenizer, 2):
        assert found.lost is not None
        assert found.lost.as_json() == alone.as_json()


@pytest.mark.parametrize(
    "damage", ["shorter", "zeros", "missing", "starts", "batches", "renamed", "nested", "list"]
)
def test_unfinished_shards_are_trusted_only_as_far_as_they_are_what_was_written(
    damage: str, corpus: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After a power loss, or a flipped digit in the mark, they are made from the beginning."""
    whole = content(prepared(corpus, "char"))
    monkeypatch.setenv("YANMO_CACHE", str(tmp_path / "other"))

    def cut(*arguments: object) -> Iterator[object]:
        for count, found in enumerate(encode_all(*arguments)):  # type: ignore[arg-type]
            if count == 9:
                raise Cut
            yield found

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(prepare_module, "encode_all", cut)
        prepared(corpus, "char")
    (mark,) = (tmp_path / "other" / "shards").glob(f".unfinished-*/{MARK_FILE}")
    tokens, said = mark.with_name("train-00000.bin"), mark.read_text(encoding="utf-8")
    data = tokens.read_bytes()
    if damage == "shorter":
        tokens.write_bytes(data[:40])
    elif damage == "zeros":
        tokens.write_bytes(data[:40] + bytes(len(data) - 40))
    elif damage == "missing":
        tokens.unlink()
    elif damage == "starts":
        mark.with_name("train.starts.bin").write_bytes(b"")
    else:
        changed = {
            "batches": said.replace('"batches": 9', '"batches": 6'),
            "renamed": said.replace('"tokens"', '"token"'),
            "nested": "[" * 100_000,
            "list": "[1, 2]",
        }
        assert changed[damage] != said
        mark.write_text(changed[damage], encoding="utf-8")
    assert content(prepared(corpus, "char")) == whole

"""Does a model write or recite: the numbers of ``yanmo evaluate --copies --writing``, from run to report."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.makers.console import here
from tests.makers.runs import Trained, tiny_recipe
from yanmo.checkpoint.folder import find_model_folder
from yanmo.core.console import Console
from yanmo.core.storage import remove_path
from yanmo.data.text_index import TextIndex, build_index
from yanmo.eval.copies import copies_in
from yanmo.eval.examine import examine
from yanmo.eval.recall import draw_passages
from yanmo.eval.samples import pieces_of
from yanmo.train.trainer import train

RUN = Path("runs/novel")
LIVELY = (
    "model.n_embd=64", "model.block_size=32", "train.micro_batch_size=8", "optim.weight_decay=0",
    "optim.average=0", "train.eval_interval=1000", "train.checkpoint_interval=1000",
)  # fmt: skip


def words_at_random(characters: int) -> str:
    """Sentences of 300 words: there is little to learn but the words, or the text itself."""
    rng = random.Random(1)
    letters = [chr(0x4E00 + number) for number in range(150)]
    words = ["".join(rng.choices(letters, k=rng.choice((1, 2, 2, 3)))) for _ in range(300)]
    clauses = (
        "".join(rng.choices(words, k=rng.randrange(3, 9))) + rng.choice("，。。\n") for _ in range(9**5)
    )
    text = ""
    while len(text) < characters:
        text += next(clauses)
    return text[:characters]


@pytest.mark.slow
def test_a_model_that_recites_and_one_that_writes_are_told_apart(console: Console) -> None:
    found = {}
    for name, characters, steps in (("recites", 1500, 300), ("writes", 40_000, 100)):
        text = Path(f"{name}.txt")
        text.write_text(words_at_random(characters), encoding="utf-8")
        run = Path("runs", name)
        train(tiny_recipe(text, more=(*LIVELY, f"train.max_steps={steps}")), run, console)
        found[name] = examine(run, console, writing=False, samples=8).copies
    recites, writes = found["recites"], found["writes"]
    assert recites is not None and writes is not None
    for span in (13, 20, 50):
        assert recites.samples.shares[span].side_of(recites.held_out.shares[span]) == 1
        assert recites.samples.shares[span].low > 0.5
        assert not writes.samples.shares[span].side_of(writes.held_out.shares[span])
    assert recites.recall.training.exact.low > 0.5 > recites.recall.held_out.exact.high
    assert writes.recall.training.exact.value == writes.recall.held_out.exact.value == 0
    heart = [one.recall.learned_megabits / one.recall.text_megabits for one in (recites, writes)]
    assert heart[0] > 0.5 and heart[1] < 0.1
    assert any("higher" in line for line in recites.lines())
    assert not any("higher" in line for line in writes.lines())


@pytest.mark.slow
def test_what_is_said_is_what_the_listed_samples_have(
    trained: Trained, novel: Path, console: Console
) -> None:
    trained(RUN)
    seen = examine(RUN, console, samples=3)
    found: dict[str, Any] = json.loads(json.dumps(seen.as_json()))
    known = novel.read_text(encoding="utf-8")
    train_part = known[: json.loads((RUN / "corpus.json").read_text())["splits"]["train"]["characters"]]
    written = [sample["text"] for sample in found["samples"]]
    assert len(written) == 3 and all(0 < len(text) <= 300 for text in written)
    assert all(sample["prompt"] in known for sample in found["samples"])
    build_index(Path.cwd(), [[train_part]])
    copies, searched = found["copies"], copies_in(written, TextIndex(Path.cwd()))
    assert copies["samples"] == searched.shares_json() and searched.longest is not None
    assert copies["longest"]["times"] == searched.longest.times
    assert copies["longest"]["here"]["span"] in written[copies["longest"]["text"]]
    assert copies["longest"]["there"]["span"] in train_part
    assert copies["indexed"] == 1 and set(copies["samples"]) == set(copies["held_out"]) == {
        "8",
        "13",
        "20",
        "50",
    }
    assert copies["extraction"]["training"]["passages"] == 100
    assert set(found["writing"]["samples"]) == set(found["writing"]["held_out"])
    said = "\n".join(seen.lines())
    assert f"{copies['samples']['8']['value']:.1%}" in said
    for words in (
        "3 samples of up to 300",
        "held-out text",
        "longest",
        "learned by heart",
        "rare characters",
    ):
        assert words in said
    only = json.loads(here("evaluate", str(RUN), "--writing", "--samples", "3", "--json").stdout)
    assert "copies" not in only and only["samples"] == found["samples"]  # a seed, the same samples
    assert only["writing"] == found["writing"]


def test_without_its_text_it_says_so(trained: Trained, novel: Path, own_cache: Path) -> None:
    trained(RUN)
    shutil.copytree(find_model_folder(RUN), "plain")
    done = here("evaluate", "plain", "--copies")
    assert done.returncode == 2
    assert (
        "the text that this model was trained on is not at hand: the folder belongs to no run" in done.stderr
    )
    novel.unlink()
    remove_path(own_cache)
    for option in ("--copies", "--writing"):
        done = here("evaluate", str(RUN), option)
        assert done.returncode == 2 and "is not at hand" in done.stderr and "Traceback" not in done.stderr


def test_a_model_that_was_taught_answers_is_refused(trained: Trained, novel: Path) -> None:
    trained(RUN)
    manifest = json.loads((RUN / "corpus.json").read_text(encoding="utf-8"))
    manifest["splits"]["train"]["targets"] = 9
    (RUN / "corpus.json").write_text(json.dumps(manifest), encoding="utf-8")
    done = here("evaluate", str(RUN), "--writing")
    assert done.returncode == 2 and "was taught what to answer, not a text" in done.stderr


def test_samples_are_not_measured_on_another_text() -> None:
    done = here("evaluate", "anything", "--copies", "--corpus", "other.txt")
    assert done.returncode == 2 and "--corpus has no effect with --copies" in done.stderr


def test_passages_lie_within_documents_and_pieces_are_as_long_as_samples() -> None:
    text = "\udfff".join(["一" * 150, "二" * 99, "三" * 400])
    drawn = draw_passages(lambda at, size: text[at : at + size], len(text), 1)
    assert {one[0] for one in drawn} == {"一", "三"} and {len(one) for one in drawn} == {100}
    assert drawn == draw_passages(lambda at, size: text[at : at + size], len(text), 1)
    assert draw_passages(lambda at, size: text[:50], 50, 1) == []
    assert [len(piece) for piece in pieces_of("一" * 650)] == [300, 300]
    assert pieces_of("一" * 60) == ["一" * 60] and pieces_of("") == []

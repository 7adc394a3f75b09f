"""yanmo finetune: from a base and data to a run that answers."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.makers.console import here, yanmo
from tests.makers.models import bpe_tokenizer, drawn, our_folder, small
from tests.makers.runs import Trained
from yanmo.checkpoint.folder import find_model_folder, load_shape
from yanmo.settings.recipe import load_recipe
from yanmo.train.metrics import read_metrics

pytestmark = pytest.mark.slow
SHORT = ("train.max_steps=2", "train.precision=float32", "train.batch_size=4", "sample.max_new_tokens=4")


def talk(path: Path = Path("talk.jsonl")) -> Path:
    rows = [{"instruction": f"{n}？", "input": "", "output": f"春风{n}。"} for n in range(30)]
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_a_run_is_taught_and_the_same_command_or_the_folder_alone_goes_on(
    novel: Path, trained: Trained
) -> None:
    trained("runs/first", "model.block_size=64")
    talk()
    done = yanmo("finetune", "runs/first", "talk.jsonl", *SHORT)
    assert done.returncode == 0, done.stderr
    assert "the embedding gains 2 rows" in done.stderr
    assert "⟦春风" in done.stderr and "30 dialogues or pairs are used" in done.stderr
    assert "chat runs/first-talk" in done.stderr
    run = Path("runs/first-talk")
    assert load_recipe(run / "recipe.toml").finetune.method == "full"
    for again in (("runs/first", "talk.jsonl", *SHORT), ("runs/first-talk",)):
        repeated = here("finetune", *again)
        assert repeated.returncode == 0 and "is finished" in repeated.stderr, repeated.stderr
    said = here("chat", "runs/first-talk", typed="3？\n/bye\n")
    assert said.returncode == 0, said.stderr
    longer = here("finetune", "runs/first-talk", "train.max_steps=4")
    assert longer.returncode == 0 and "goes on to step 4" in longer.stderr, longer.stderr


def test_a_recipe_a_checkpoint_and_lora(novel: Path, trained: Trained) -> None:
    trained("runs/first", "model.block_size=64")
    talk()
    checkpoint = next(Path("runs/first/checkpoints").iterdir())
    asked = ("drama", str(checkpoint), "talk.jsonl", "finetune.method=lora", "finetune.rank=2", *SHORT)
    done = here("finetune", *asked)
    assert done.returncode == 0, done.stderr
    run = Path("runs/first-talk")
    made = load_recipe(run / "recipe.toml")
    assert (made.finetune.method, made.sample.top_p) == ("lora", 0.9)
    adapter = find_model_folder(run) / "adapter" / "adapter_config.json"
    indices = json.loads(adapter.read_text(encoding="utf-8"))["trainable_token_indices"]
    size = load_shape(find_model_folder(run)).vocab_size
    assert list(indices.values()) == [[size - 2, size - 1]]
    assert read_metrics(run)[-1]["stop_rate"] is not None


def test_a_folder_that_does_not_open_as_it_is_gets_imported_once(tmp_path: Path) -> None:
    tokenizer = bpe_tokenizer()
    config = small("modern", tokenizer, block_size=64)
    rows = -(-tokenizer.vocab_size // 8) * 8 + 8
    our_folder(Path("padded"), drawn(replace(config, vocab_size=rows)), tokenizer)
    talk()
    done = here("finetune", "padded", "talk.jsonl", *SHORT)
    assert done.returncode == 0, done.stderr
    assert "padding rows of the embedding were removed" in done.stderr and "imported into" in done.stderr
    base = load_recipe(Path("runs/padded-talk/recipe.toml")).model.init
    assert base is not None and load_shape(Path(base)).vocab_size == tokenizer.vocab_size
    again = here("finetune", "padded", "talk.jsonl", *SHORT)
    assert "is finished" in again.stderr and "padding" not in again.stderr, again.stderr


def test_a_plain_text_goes_on_training_and_a_template_stays(novel: Path, trained: Trained) -> None:
    trained("runs/first", "model.block_size=64")
    talk()
    assert here("finetune", "runs/first", "talk.jsonl", *SHORT).returncode == 0
    done = here("finetune", "runs/first-talk", "novel.txt", *SHORT)
    assert done.returncode == 0, done.stderr
    template = find_model_folder(Path("runs/first-talk-novel")) / "chat_template.jinja"
    assert template.read_bytes() == (find_model_folder(Path("runs/first-talk")) / template.name).read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no base and no data are named"),
        (("runs/first",), "no data is named"),
        (("nowhere", "talk.jsonl"), "'nowhere' is not a local file"),
        (("runs/first", "gone.jsonl"), "gone.jsonl"),
        (("runs/first", "empty.jsonl"), "empty.jsonl"),
        (("runs/first", "list.jsonl"), "one line holds a whole list of records"),
        (("runs/first", "talk.jsonl", "finetune.replay=2"), "finetune.replay"),
        (("runs/first", "talk.jsonl", "finetune.preference=dpo"), "learns from pairs"),
        (
            ("runs/first", "talk.jsonl", "data.stride=8"),
            "data.stride=8 is for texts, and the data is dialogues",
        ),
    ],
)
def test_mistakes_are_sentences_and_leave_nothing(
    words: tuple[str, ...], said: str, novel: Path, trained: Trained
) -> None:
    trained("runs/first", "model.block_size=64")
    talk()
    Path("empty.jsonl").touch()
    Path("list.jsonl").write_text('[{"问": "甲", "答": "乙"}]', encoding="utf-8")
    done = here("finetune", *words)
    assert done.returncode in (2, 3, 4) and said in done.stderr and "Traceback" not in done.stderr, (
        done.stderr
    )
    assert [path.name for path in Path("runs").iterdir()] == ["first"]

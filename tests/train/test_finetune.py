"""Dialogues taught to a tiny run, and what it leaves."""

import json
import math
import shutil
from pathlib import Path

import pytest

from tests.makers.ranks import loss_values, run
from tests.makers.runs import StopAt, Trained, losses, weights
from yanmo.checkpoint.folder import find_model_folder, load_model_and_tokenizer
from yanmo.core.console import Console
from yanmo.core.errors import ConfigError, Stopped
from yanmo.settings.recipe import load_recipe
from yanmo.settings.schema import Recipe
from yanmo.tokenizer.base import CHAT_TOKENS
from yanmo.tokenizer.chat_template import CHATML, ChatTemplate, read_chat_template
from yanmo.train.metrics import read_metrics
from yanmo.train.trainer import train

pytestmark = pytest.mark.slow
TUNED = Path("tuned")
QUICK = (
    "train.max_steps=12", "train.eval_interval=4", "train.checkpoint_interval=4", "train.log_interval=1",
    "train.batch_size=4", "train.micro_batch_size=2", "train.device=cpu", "train.threads=1",
    "train.precision=float32", "train.attention=matmul", "train.matmul=torch", "train.compile=false",
    "optim.learning_rate=0.003", "sample.max_new_tokens=4", "model.block_size=64",
)  # fmt: skip


def questions(path: Path, count: int = 40) -> Path:
    lines = [
        {"messages": [{"role": "user", "content": f"{n}？"}, {"role": "assistant", "content": f"春风{n}。"}]}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def tuning(*more: str) -> Recipe:
    data = questions(Path("talk.jsonl"))
    asked = [f"corpus.path=['{data}']", "model.init=first", "finetune.method=full", *QUICK, *more]
    return load_recipe(None, asked)


def test_a_run_that_learned_dialogues_is_a_folder_that_answers_and_ends(
    novel: Path, trained: Trained, console: Console
) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    trained("first", "model.block_size=64")
    train(tuning(), TUNED, console)
    folder = find_model_folder(TUNED)
    model, tokenizer = load_model_and_tokenizer(folder)
    base, plain = load_model_and_tokenizer(find_model_folder(Path("first")))
    assert tokenizer.vocab_size == plain.vocab_size + 2 == model.config.vocab_size
    assert read_chat_template(folder) == CHATML
    theirs, generation = AutoTokenizer.from_pretrained(folder), GenerationConfig.from_pretrained(folder)
    end = ChatTemplate(CHATML, tokenizer).end_of_turn
    assert generation.eos_token_id == [end, tokenizer.end_of_text] and generation.pad_token_id != end
    assert theirs.eos_token_id == end and theirs.chat_template == CHATML
    written = (folder / "chat_template.jinja").read_bytes()
    assert json.loads((folder / "tokenizer_config.json").read_text())["chat_template"].encode() == written
    rows = read_metrics(TUNED)
    evaluations = [row for row in rows if row["event"] == "eval"]
    assert [row["step"] for row in evaluations] == [0, 4, 8, 12]  # 0: before
    assert evaluations[-1]["val_loss"] < evaluations[0]["val_loss"]
    # the base's own text is at hand: what is forgotten of it stands beside each evaluation
    assert all(row["base_bits_per_char"] > 0 for row in evaluations)
    assert rows[-1]["event"] == "end" and 0 <= rows[-1]["stop_rate"] <= 1
    assert base.config.block_size == model.config.block_size


def test_the_base_text_is_measured_as_the_base_itself_is(
    novel: Path, trained: Trained, console: Console
) -> None:
    first = trained("first", "model.block_size=64")
    train(tuning("optim.learning_rate=0", "optim.min_lr=0"), TUNED, console)
    (row, *_) = [row for row in read_metrics(TUNED) if row["event"] == "eval"]
    # at rate 0 only the two new rows differ, which take a little probability from all others
    assert row["base_bits_per_char"] == pytest.approx(first.progress.best_val_bits_per_char or 0, rel=0.02)


def test_a_fine_tuning_that_was_stopped_goes_on_bit_for_bit(
    novel: Path, trained: Trained, console: Console
) -> None:
    trained("first", "model.block_size=64")
    asked = tuning("finetune.replay=0.25")
    train(asked, TUNED, console)
    other = Path("other")
    with pytest.raises(Stopped):
        train(asked, other, console, take_step=StopAt(7))
    train(asked, other, console)
    assert losses(other) == losses(TUNED) and weights(other) == weights(TUNED)


def test_of_a_base_that_learned_dialogues_the_text_is_that_of_its_own_base(
    novel: Path, trained: Trained, console: Console
) -> None:
    trained("first", "model.block_size=64")
    train(tuning(), TUNED, console)
    (*_, before) = [row for row in read_metrics(TUNED) if row["event"] == "eval"]
    again = tuning(f"corpus.path=['{preferences(Path('pairs.jsonl'))}']", f"model.init={TUNED}")
    train(again, Path("again"), console)
    (first, *_) = [row for row in read_metrics(Path("again")) if row["event"] == "eval"]
    assert first["base_bits_per_char"] == pytest.approx(before["base_bits_per_char"], abs=1e-6)
    train(tuning(f"model.init={TUNED}", "finetune.replay=0.25"), Path("repeated"), console)


def test_what_is_repeated_of_the_base_is_forgotten_less(
    novel: Path, trained: Trained, console: Console
) -> None:
    trained("first", "model.block_size=64")
    more = ("train.max_steps=30", "train.eval_interval=30", "optim.learning_rate=0.01")
    kept = {}
    for share in (0.0, 0.5):
        folder = Path(f"replay{share}")
        train(tuning(f"finetune.replay={share}", *more), folder, console)
        kept[share] = read_metrics(folder)[-3]["base_bits_per_char"]
    assert kept[0.5] < kept[0.0]


def test_replay_without_a_text_of_the_base_is_refused(
    novel: Path, trained: Trained, console: Console
) -> None:
    trained("first", "model.block_size=64")
    find_model_folder(Path("first")).rename("alone")
    asked = tuning("model.init=alone", "finetune.replay=0.1")
    with pytest.raises(ConfigError, match="no text of the base to repeat"):
        train(asked, TUNED, console)
    assert not TUNED.exists()
    train(tuning("model.init=alone", "finetune.replay=0.1", f"finetune.keep={novel}"), TUNED, console)


def preferences(path: Path) -> Path:
    rows = [
        {"prompt": f"春{n}", "chosen": "风夜雨。", "rejected": "江湖剑客。", "format": "text"}
        for n in range(30)
    ]
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["dialogues", "pairs"])
def test_two_ranks_learn_as_one(kind: str, novel: Path, trained: Trained) -> None:
    trained("first", "model.block_size=64")
    data = questions(Path("talk.jsonl")) if kind == "dialogues" else preferences(Path("pairs.jsonl"))
    more = (*QUICK, f"corpus.path=['{data}']", "model.init=first", "finetune.method=full")
    replay = ("finetune.replay=0.25",) if kind == "dialogues" else ()
    for ranks in (1, 2):
        done = run(ranks, f"ranks-{ranks}", *more, *replay)
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
    assert loss_values("ranks-2") == pytest.approx(loss_values("ranks-1"), abs=1e-5)
    one, two = (
        [row for row in read_metrics(Path(f"ranks-{ranks}")) if row["event"] in ("eval", "end")]
        for ranks in (1, 2)
    )
    for here, there in zip(one, two, strict=True):
        assert here.keys() == there.keys()
        numbers = [name for name, value in here.items() if isinstance(value, float) and "elapsed" not in name]
        assert [there[name] for name in numbers] == pytest.approx([here[name] for name in numbers], abs=1e-4)


def test_pairs_make_what_was_chosen_likelier_and_a_stop_changes_nothing(
    novel: Path, trained: Trained, console: Console
) -> None:
    trained("first", "model.block_size=64")
    preferences(Path("pairs.jsonl"))
    for kind in ("dpo", "dpo_norm"):
        asked = tuning(
            "corpus.path=['pairs.jsonl']", f"finetune.preference={kind}", "optim.learning_rate=0.001"
        )
        train(asked, Path(kind), console)
        found = [row for row in read_metrics(Path(kind)) if row["event"] == "eval"]
        gaps, distances = ([row[name] for row in found] for name in ("reward_gap", "kl"))
        # before, the model is its base: the loss of a pair is ln 2
        assert gaps[0] == pytest.approx(0, abs=1e-5) and distances[0] == pytest.approx(0, abs=1e-6)
        assert found[0]["val_loss"] == pytest.approx(math.log(2), abs=1e-5)
        assert 0 < gaps[1] < gaps[-1] and 0 < distances[1] < distances[-1]
        assert found[-1]["reward_accuracy"] == 1.0 and found[-1]["val_loss"] < found[0]["val_loss"]
        other = Path(f"{kind}-again")
        with pytest.raises(Stopped):
            train(asked, other, console, take_step=StopAt(7))
        train(asked, other, console)
        assert losses(other) == losses(Path(kind)) and weights(other) == weights(Path(kind))
    # without a setting it is seen by looking, and recorded
    train(tuning("corpus.path=['pairs.jsonl']", "train.max_steps=1"), Path("seen"), console)
    assert load_recipe(Path("seen/recipe.toml")).finetune.preference == "dpo"
    with pytest.raises(ConfigError, match="learns from pairs, and the data is dialogues"):
        train(tuning("finetune.preference=dpo"), Path("wrong"), console)


def test_pairs_go_on_beside_the_base_they_began_from_alone(
    novel: Path, trained: Trained, console: Console
) -> None:
    trained("first", "model.block_size=64")
    asked = tuning(f"corpus.path=['{preferences(Path('pairs.jsonl'))}']")
    with pytest.raises(Stopped):
        train(asked, TUNED, console, take_step=StopAt(7))
    shutil.rmtree("first")
    trained("first", "model.block_size=64", "train.seed=7")
    with pytest.raises(ConfigError, match="the weights of model.init have changed"):
        train(asked, TUNED, console)


@pytest.mark.parametrize("kind", ["dialogues", "pairs"])
def test_a_prompt_of_any_length_is_answered_or_refused_before_the_run(
    kind: str, novel: Path, trained: Trained, console: Console
) -> None:
    trained("first", "model.block_size=64")
    data = preferences(Path("pairs.jsonl")) if kind == "pairs" else questions(Path("talk.jsonl"))
    asked = (f"corpus.path=['{data}']", "train.max_steps=1")
    train(tuning(*asked, "sample.prompt=''"), TUNED, console)
    long = tuning(*asked, f"sample.prompt={'春' * 100}")
    if kind == "pairs":  # a text, of which the end is read
        train(long, Path("long"), console)
        return
    with pytest.raises(ConfigError, match="the last turn with the system prompt has"):
        train(long, Path("long"), console)
    assert not Path("long").exists()


def test_the_markers_are_tokens_of_the_checkpoint(novel: Path, trained: Trained, console: Console) -> None:
    trained("first", "model.block_size=64")
    train(tuning("train.max_steps=1"), TUNED, console)
    _, tokenizer = load_model_and_tokenizer(find_model_folder(TUNED))
    for marker in CHAT_TOKENS:
        assert len(tokenizer.encode(marker, special=True)) == 1

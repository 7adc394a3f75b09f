"""Runs that begin from weights."""

import shutil
from pathlib import Path

import pytest

from tests.makers.runs import RUN, Trained, tiny_recipe
from tests.makers.texts import invented_text
from yanmo.checkpoint.folder import find_model_folder
from yanmo.core.console import Console
from yanmo.core.errors import ConfigError, DeviceError
from yanmo.settings.recipe import load_recipe
from yanmo.tokenizer import load_tokenizer
from yanmo.train.metrics import read_metrics
from yanmo.train.step import StepResult
from yanmo.train.trainer import train


@pytest.mark.slow
def test_a_run_may_begin_from_weights(novel: Path, trained: Trained, console: Console) -> None:
    first = trained("first")
    other = Path("other.txt")
    other.write_text(invented_text(5000, seed=9) + "龘", encoding="utf-8")
    free = (
        "train.max_steps=4",
        "train.eval_interval=4",
        "train.device=cpu",
        "train.threads=1",
        "train.batch_size=8",
    )
    asked = load_recipe(None, [f"corpus.path=['{other}']", "model.init=first", *free])
    result = train(asked, RUN, console)
    recipe = load_recipe(RUN / "recipe.toml")
    assert (recipe.model.n_layer, recipe.model.n_embd, recipe.model.block_size) == (2, 16, 16)
    assert (
        load_tokenizer(find_model_folder(RUN)).fingerprint
        == load_tokenizer(find_model_folder(Path("first"))).fingerprint
    )
    assert losses_of(RUN)[0] < losses_of(Path("first"))[0] - 0.1
    assert first.progress.best_val_loss is not None and result.progress.step == 4
    assert train(asked, RUN, console).progress.step == 4  # the same command again: finished
    trained("deeper", "model.n_layer=3", "tokenizer.kind=char")
    train(
        load_recipe(RUN / "recipe.toml", ["model.init=deeper", f"corpus.path=['{novel}']"]),
        Path("b"),
        console,
    )
    deeper = load_recipe(Path("b/recipe.toml"))
    assert deeper.model.n_layer == 3 and "deeper" in (deeper.tokenizer.path or "")
    assert len(set(deeper.decided)) == len(deeper.decided)


def test_a_compiled_run_goes_on_only_where_there_is_a_compiler(
    trained: Trained, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(RUN, "train.max_steps=2")
    recipe = RUN / "recipe.toml"
    said = recipe.read_text(encoding="utf-8")
    recipe.write_text(said.replace("\ncompile = false", "\ncompile = true"), encoding="utf-8")
    assert load_recipe(recipe).train.compile
    shutil.rmtree(RUN / "checkpoints")  # they say that it was not
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(DeviceError, match=r"needs a C\+\+ compiler"):
        train(load_recipe(recipe), RUN, console)


def losses_of(folder: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(folder) if row["event"] == "train"]


def test_weights_that_do_not_fit_are_refused(novel: Path, trained: Trained, console: Console) -> None:
    trained("first")
    with pytest.raises(ConfigError, match=r"model.n_layer=3, but the weights have 2"):
        train(tiny_recipe(novel, more=("model.init=first", "model.n_layer=3")), RUN, console)
    other = Path("other.txt")
    other.write_text(invented_text(5000, seed=9) + "龘龖", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"the tokenizer has \d+ ids, the weights know \d+"):
        train(tiny_recipe(other, more=("model.init=first", "tokenizer.kind=char")), RUN, console)
    alike, other_words = Path("alike.txt"), str.maketrans("春风夜雨", "秋水长天")
    alike.write_text(novel.read_text(encoding="utf-8").translate(other_words), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"id \d+ is '.' in the tokenizer, and the weights know it as '.'"):
        train(tiny_recipe(alike, more=("model.init=first", "tokenizer.kind=char")), RUN, console)
    with pytest.raises(ConfigError, match="there is no such folder: nowhere"):
        train(tiny_recipe(novel, more=("model.init=nowhere",)), RUN, console)


def test_weights_that_changed_before_the_first_checkpoint_are_refused(
    novel: Path, trained: Trained, console: Console
) -> None:
    trained("first")
    asked = tiny_recipe(novel, more=("model.init=first",))

    def died(*_: object) -> StepResult:
        raise RuntimeError("died")

    with pytest.raises(RuntimeError, match="died"):
        train(asked, RUN, console, take_step=died)
    train(tiny_recipe(novel, more=("train.max_steps=16",)), Path("first"), console)
    with pytest.raises(ConfigError, match="weights of model.init have changed"):
        train(asked, RUN, console)

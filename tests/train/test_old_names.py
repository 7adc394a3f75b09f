"""A run that was begun when things were called otherwise goes on as if they had never been renamed."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.makers.runs import RUN, StopAt, losses, tiny_recipe, weights
from yanmo.checkpoint.folder import newest_first
from yanmo.core import storage
from yanmo.core.console import Console
from yanmo.core.errors import CheckpointError, ConfigError, Stopped
from yanmo.settings.old_names import PARAMETERS, SETTINGS
from yanmo.settings.recipe import load_recipe
from yanmo.settings.schema import Recipe
from yanmo.text.read.documents import earlier_fingerprint
from yanmo.train.trainer import train

OLD_SETTINGS = {new.partition(".")[2]: old.partition(".")[2] for old, new in SETTINGS.items()}
OLD_PARAMETERS = {new: old for old, new in PARAMETERS.items()}


def with_old_settings(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for new, old in OLD_SETTINGS.items():
        assert new in text
        text = text.replace(new, old)
    path.write_text(text, encoding="utf-8")


def with_old_tensors(path: Path) -> None:
    def old(name: str) -> str:
        parameter, slash, kind = name.partition("/")
        return OLD_PARAMETERS.get(parameter, parameter) + slash + kind

    tensors = load_file(path)
    renamed = {old(name): tensor for name, tensor in tensors.items()}
    assert renamed.keys() != tensors.keys()
    save_file(renamed, path)


def make_old(run: Path) -> None:
    """The run as version 4 of reading and earlier names would have left it."""
    with_old_settings(run / "recipe.toml")
    corpus = storage.read_json(run / "corpus.json")
    corpus["corpus"] = earlier_fingerprint(load_recipe(run / "recipe.toml").corpus)
    (run / "corpus.json").write_text(json.dumps(corpus), encoding="utf-8")
    newest = next(newest_first(run))
    aside = newest.rename(run / "aside")
    with_old_settings(aside / "training/state.json")
    with_old_tensors(aside / "training/state.safetensors")
    (aside / storage.MANIFEST).unlink()
    storage.commit_folder(newest, lambda folder: shutil.copytree(aside, folder, dirs_exist_ok=True) and None)
    shutil.rmtree(aside)


def recipe_of(novel: Path) -> Recipe:
    return tiny_recipe(
        novel, more=("model.family=modern", "model.tied_head=false", "train.seq_len_warmup=0.5")
    )


def begin(novel: Path, console: Console) -> None:
    with pytest.raises(Stopped):
        train(recipe_of(novel), RUN, console, take_step=StopAt(7))


def test_a_run_of_before_ends_with_the_losses_it_would_have_had(novel: Path, console: Console) -> None:
    train(recipe_of(novel), Path("whole"), console)
    begin(novel, console)
    make_old(RUN)
    train(load_recipe(RUN / "recipe.toml"), RUN, console)
    assert (losses(RUN), weights(RUN)) == (losses(Path("whole")), weights(Path("whole")))


def test_what_is_renamed_is_bound_to_its_checkpoint_as_before(novel: Path, console: Console) -> None:
    begin(novel, console)
    make_old(RUN)
    recipe = RUN / "recipe.toml"
    recipe.write_text(
        recipe.read_text(encoding="utf-8").replace("short_windows = 0.5", "short_windows = 0.3"), "utf-8"
    )
    with pytest.raises(CheckpointError, match=r"train\.seq_len_warmup=0\.3"):
        train(load_recipe(recipe), RUN, console)


def test_a_text_with_other_bytes_is_another_corpus(novel: Path, console: Console) -> None:
    begin(novel, console)
    make_old(RUN)
    novel.write_text(novel.read_text(encoding="utf-8")[::-1], encoding="utf-8")
    with pytest.raises(ConfigError, match="the corpus is not the one"):
        train(load_recipe(RUN / "recipe.toml"), RUN, console)


@pytest.mark.parametrize("old", SETTINGS)
def test_an_old_name_that_is_typed_is_answered_with_the_new_one(old: str) -> None:
    with pytest.raises(ConfigError, match="unknown setting") as caught:
        load_recipe(None, [f"{old}=0.5"])
    assert caught.value.hint == f"it is now called {SETTINGS[old]}"
    section, _, key = old.partition(".")
    Path("mine.toml").write_text(f"[{section}]\n{key} = 0.5\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_recipe(Path("mine.toml"))
    assert SETTINGS[old] in caught.value.hint

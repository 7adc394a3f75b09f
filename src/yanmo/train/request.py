"""From the arguments of `yanmo train` (texts or a recipe, settings, a folder) and `yanmo finetune` to a run.

In: the words of these commands. Out: the recipe and the run folder they mean; from a program, the run.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from yanmo.core.console import Console
from yanmo.core.errors import ConfigError
from yanmo.core.storage import is_file, is_there
from yanmo.settings.constraints import check_relations
from yanmo.settings.places import run_name
from yanmo.settings.recipe import load_recipe, our_recipes, recipe_meant, recipe_path, split_arguments
from yanmo.settings.schema import Recipe
from yanmo.text.read.sources import is_run, spooled_stdin
from yanmo.train.trainer import TrainResult, train


def train_run(
    *asked: str | Path, out: str | Path | None = None, console: Console | None = None
) -> TrainResult:
    """Train or resume; if the run is finished, return its state: `yanmo train` for programs.

    Args:
        asked: texts (files, folders, globs), or a recipe; then settings, such as ``"train.max_steps=200"``.
        out: the run folder; None: ``runs/<name of the text or recipe>``.
        console: shows progress; None: silent.

    Raises:
        YanmoError: see ``core/errors.py``.
    """
    recipe, folder = asked_recipe([str(word) for word in asked], None if out is None else Path(out))
    return train(recipe, folder, console or Console(is_main=False))


def asked_recipe(
    arguments: Sequence[str], out: Path | None = None, needs_text: bool = True
) -> tuple[Recipe, Path]:
    """The recipe that texts or a recipe and settings mean, and its run folder.

    A setting left out for a run that exists is that of the run, so ``train`` checks the whole later.
    """
    texts, settings = split_arguments(list(arguments))
    if out is None and len(texts) == 1 and is_run(Path(texts[0])):
        texts, out = [], Path(texts[0])  # go on with that run
    source = recipe_path(texts[0]) if texts and names_a_recipe(texts[0]) else None
    if texts and source is None:
        require_text_or_recipe(texts[0])
    texts = [text if text != "-" else str(spooled_stdin()) for text in texts]
    named = texts[1:] if source else texts
    if named:
        # first, so that a corpus.path=… among the settings overrides it
        settings = [f"corpus.path={json.dumps(named, ensure_ascii=False)}", *settings]
    recipe = load_recipe(source, settings, is_whole=False)
    # a run's own recipe.toml says nothing about the name; its corpus does
    names = [*texts, *recipe.corpus.path] if not source or source.stem != "recipe" else recipe.corpus.path
    folder = out or Path("runs") / run_name(next(iter(names), ""))
    has_text = recipe.corpus.path or (out and is_file(out / "recipe.toml"))
    if needs_text and not has_text:
        raise ConfigError("no text is named", where="yanmo train", hint="yanmo train novel.txt")
    if not is_file(folder / "recipe.toml"):
        check_relations(recipe)
    return recipe, folder


def asked_finetuning(
    arguments: Sequence[str], out: Path | None, find_base: Callable[[str], Path]
) -> tuple[Recipe, Path]:
    """The recipe and the run folder that ``[RECIPE] BASE DATA… settings`` mean.

    ``find_base`` gives the folder of a base, which may have to be imported first. A run alone goes on.

    Raises:
        ConfigError: base or data are missing.
    """
    words, settings = split_arguments(list(arguments))
    recipe = words[:1] if words and recipe_path(words[0]) and names_a_recipe(words[0]) else []
    base, data = words[len(recipe) : len(recipe) + 1], words[len(recipe) + 1 :]
    if not recipe and base and not data and is_finetuning(Path(base[0])):
        return asked_recipe(arguments, out)
    if not base or not data:
        raise ConfigError(
            f"{'no base and no data are' if not base else 'no data is'} named",
            where="yanmo finetune",
            hint="yanmo finetune BASE DATA: a run or model folder, and dialogues, pairs or a text",
        )
    folder = out or Path("runs") / f"{base_name(base[0])}-{run_name(data[0])}"
    given = [f"model.init={json.dumps(str(find_base(base[0])), ensure_ascii=False)}"]
    source = recipe_path(recipe[0]) if recipe else None
    if not is_file(folder / "recipe.toml") and not load_recipe(source, settings, False).finetune.method:
        given.append("finetune.method=full")
    return asked_recipe([*recipe, *data, *given, *settings], folder)


def is_finetuning(folder: Path) -> bool:
    """Whether a folder is a run that began from a base."""
    return is_run(folder) and load_recipe(folder / "recipe.toml").finetune.method is not None


def base_name(base: str) -> str:
    """What a base is called: a run by its folder, also where its model or a checkpoint of it is named."""
    folder = Path(base)
    run = next((f for f in (folder, *folder.parents[:2]) if is_file(f / "recipe.toml")), folder)
    return run_name(str(run))


def require_text_or_recipe(name: str) -> None:
    """Refuse a word that is neither; the error names the recipes there are."""
    meant = recipe_meant(name)
    if is_there(name) or not (meant or name.isidentifier()):
        return  # a path: reading it says what is wrong with it
    hint = f"did you mean '{meant}'?" if meant else f"the recipes are: {', '.join(our_recipes())}"
    raise ConfigError(f"'{name}' is not a file, folder or recipe", "command line", hint)


def names_a_recipe(name: str) -> bool:
    """A .toml file, or a word that no file here is called."""
    return name.endswith(".toml") or not is_there(name)

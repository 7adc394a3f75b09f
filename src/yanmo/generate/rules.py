"""The rules of the text that settings ask for, made once for all texts that are written with them.

In: [sample] settings, a tokenizer, and the index of the training text where one is needed. Out: what
``write`` and the engine take as ``text_rules``.
"""

from collections.abc import Callable
from pathlib import Path

from yanmo.checkpoint.folder import read_recipe, run_of
from yanmo.core.console import Console
from yanmo.core.errors import ConfigError, YanmoError
from yanmo.core.records import Manifest, read_record
from yanmo.data.text_index import TextIndex, open_index, require_text
from yanmo.generate.engine import TextRule
from yanmo.generate.no_copy import NoCopy
from yanmo.generate.verse import Verse
from yanmo.settings.schema import Recipe, SampleConfig
from yanmo.tokenizer import Tokenizer


def text_rules(
    config: SampleConfig, tokenizer: Tokenizer, index: Callable[[], TextIndex]
) -> tuple[TextRule, ...]:
    """A rule for each setting that needs one; ``index`` is only called where the training text matters.

    Raises:
        ConfigError: there is no index, or no poem of this form can be written.
        TokenizerError: what each token would write is not known.
    """
    if config.verse:
        return (Verse(tokenizer, config),)
    if config.acrostic or config.rhyme:
        name = "acrostic" if config.acrostic else "rhyme"
        hint = "set sample.verse to 5 or 7 characters a line, or leave it out"
        raise ConfigError(f"{name} is of a poem, and prose is asked for", f"sample.{name}", hint)
    return (NoCopy(index(), tokenizer, config.no_copy),) if config.no_copy else ()


def training_index(model_folder: Path, tokenizer: Tokenizer, console: Console) -> TextIndex:
    """The index of the text that a model was trained on, made where it is missing.

    Raises:
        ConfigError: the folder belongs to no run, or the run's text is gone.
    """
    return open_index(*recorded_text(model_folder), tokenizer, console)


def why_no_index(model_folder: Path) -> str | None:
    """Why that index cannot be had, as far as this is known before any text is read; None: it can."""
    try:
        require_text(*recorded_text(model_folder), Console())
    except YanmoError as error:
        return error.what
    return None


def recorded_text(model_folder: Path) -> tuple[Recipe, Manifest]:
    """What the run that a model belongs to has recorded of its text.

    Raises:
        ConfigError: the folder belongs to no run.
    """
    run = run_of(model_folder)
    if run is None:
        raise ConfigError(
            "the text that this model was trained on is not at hand: the folder belongs to no run",
            where=str(model_folder),
            hint="name a run that yanmo trained, or leave out what asks for its text",
        )
    return read_recipe(run), read_record(run / "corpus.json", Manifest)

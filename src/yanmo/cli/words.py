"""What the words of a command line mean: a setting spelt as other commands spell it.

In: arguments. Out: a :class:`ConfigError` with the right spelling.
"""

import traceback
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from yanmo.core.errors import ConfigError, StorageError, YanmoError
from yanmo.core.storage import is_file, is_there


def unforeseen(error: OSError | ValueError) -> YanmoError:
    """The last net: what no other place has put in words."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    kind = StorageError if isinstance(error, OSError) else ConfigError
    return kind(
        f"{type(error).__name__}: {error}",
        where=f"{Path(frame.filename).name}, line {frame.lineno}, {frame.name}",
        hint="check paths, settings and the disk; if they are right, report this as a bug of yanmo",
    )


class Verb(TyperCommand):
    """A command that knows how others spell what it is given."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Words to parameters.

        Raises:
            ConfigError: a setting spelt as an option or the other way round, or a text without its option.
        """
        words = list(args)
        try:
            rest = super().parse_args(ctx, args)
        except Exception as error:  # typer brings its own click, or takes the installed one
            if hasattr(error, "format_message"):
                self.respell(words, getattr(error, "option_name", None))
                self.respell_text(words, error.format_message())
            raise
        for parameter in self.params:
            value = ctx.params.get(parameter.name)
            if (
                parameter.param_type_name == "argument"
                and isinstance(value, str | Path)
                and "=" in str(value)
            ):
                self.respell([str(value)], None)
        return rest

    def respell(self, words: list[str], option: str | None) -> None:
        """Refuse an unknown option, or the first word that is a setting, where another spelling is meant."""
        for place, word in enumerate(words):
            dashed, equals, value = word.partition("=")
            if dashed != option if option else not equals or word.startswith("-") or is_there(word):
                continue
            if not equals:
                value = next(iter(words[place + 1 :]), "")
            if hint := self.spelling_of(dashed.lstrip("-"), value):
                where = f"yanmo {self.name}"
                kind = "option" if option else "argument"
                raise ConfigError(f"'{dashed}' is not an {kind} here", where, hint)

    def respell_text(self, words: list[str], said: str) -> None:
        """Refuse a file as a further argument of a command that has an option for texts."""
        text = next((word for word in words if f"({word})" in said and is_file(word)), None)
        if text and any("--corpus" in parameter.opts for parameter in self.params):
            where, hint = f"yanmo {self.name}", f"a text is named by an option here: --corpus {text}"
            raise ConfigError(f"'{text}' is one argument too many", where, hint)

    def spelling_of(self, name: str, value: str) -> str:
        """How this command wants that setting, or an empty string."""
        from yanmo.settings.recipe import setting_meant
        from yanmo.settings.spelling import PEER_HABITS

        options = {spelling for parameter in self.params for spelling in parameter.opts}
        takes_settings = any(parameter.name == "arguments" for parameter in self.params)
        meant = setting_meant(name)
        if meant and takes_settings:
            return f"settings are written {meant}={value or 'VALUE'}, without dashes"
        if meant and (option := "--" + meant.partition(".")[2].replace("_", "-")) in options:
            return f"here it is an option: {option} {value or 'VALUE'}"
        return PEER_HABITS.get(name.replace("-", "_"), "") if takes_settings else ""

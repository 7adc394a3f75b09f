"""Recipes: read, changed on the command line, compared, decided, written.

A recipe is TOML with the sections of ``schema.py``; any key is also set as ``section.key=value`` on the
command line. In: TOML text and such strings. Out: a frozen :class:`Recipe`, or a :class:`ConfigError` that
names the key, the value and a hint.
"""

import functools
import json
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from yanmo.core.errors import ConfigError
from yanmo.core.storage import is_there
from yanmo.settings.constraints import check_relations, reopened
from yanmo.settings.old_names import SETTINGS, renamed_recipe
from yanmo.settings.places import PATHS, has_moved, located, same_place, shipped
from yanmo.settings.schema import (
    FREE_ON_RESUME,
    LENGTHS,
    MICRO_BATCH,
    SECTIONS,
    Cleaning,
    Recipe,
    Section,
    TrainConfig,
)
from yanmo.settings.spelling import PEER_HABITS, PEER_NAMES, nearest, shortened

T = TypeVar("T", bound=Section)

MAX_RECIPE_BYTES = 1 << 20
"""Of a file with settings."""
MANY_NAMES = re.compile(r"""(?<![\w"'-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){64}""")
"""Names with dots between them, more than any file of settings has: tomllib takes memory by their square."""
UNWRITABLE = re.compile("[\0\ud800-\udfff]")
"""What TOML has no text for: halves of characters, as in a path whose bytes are no UTF-8."""
QUOTED = re.compile("'([^']*)'")
MARKED = re.compile("\0([0-9A-F]{4})")
"""What stands for it: a NUL and the number."""


# -- reading ----------------------------------------------------------------------------------


def load_recipe(source: Path | None, overrides: Iterable[str] = (), is_whole: bool = True) -> Recipe:
    """The recipe in ``source`` (None: all defaults) with ``section.key=value`` overrides.

    Args:
        source: a TOML file. Its relative paths are found from where its run was started.
        overrides: what was typed.
        is_whole: whether relations are checked; not where what is left out is that of a run.

    Raises:
        ConfigError: unknown key, value of the wrong kind, or settings that contradict each other.
    """
    values = located(renamed_recipe(_read_toml(source)), source) if source else {}
    resolved = _validate(Recipe, values, str(source)) if values.get("decided") else None
    typed = _override(values, overrides, Recipe)
    recipe = _validate(Recipe, values, str(source), typed)
    if resolved is not None:
        changed = {name for name in typed if get(recipe, name) != get(resolved, name)}
        _forget(values, typed, reopened(set(resolved.decided) - typed, changed))
        recipe = _validate(Recipe, values, str(source), typed)
    if is_whole:
        check_relations(recipe)
    return recipe


def load_cleaning(overrides: Iterable[str] = (), paths: Iterable[str] = ()) -> Cleaning:
    """The settings of `yanmo clean` with ``section.key=value`` overrides, for these paths.

    Raises:
        ConfigError: unknown key, or value of the wrong kind.
    """
    values: dict[str, Any] = {"corpus": {"path": list(paths)}}
    typed = _override(values, overrides, Cleaning)
    return _validate(Cleaning, values, "command line", typed)


def read_settings(kind: type[T], path: Path) -> T:
    """The settings in a TOML file whose sections are the fields of ``kind``.

    Raises:
        ConfigError: the file cannot be read, an unknown key, or a value of the wrong kind.
    """
    return _validate(kind, _read_toml(path), str(path))


def split_arguments(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Positional arguments → (texts or recipe, settings).

    What begins as a setting of ours is one, whatever files there are; else what exists is a text.
    """
    texts = [a for a in arguments if not is_setting(a) and ("=" not in a or is_there(a))]
    settings = [a for a in arguments if a not in texts]
    return [text if ":" in text else Path(text).as_posix() for text in texts], settings


def is_setting(argument: str) -> bool:
    """Whether it begins with a known ``section.key=``, of any command."""
    name, equals, _ = argument.partition("=")
    return bool(equals) and name in known_names()


@functools.cache
def known_names() -> frozenset[str]:
    """``section.key`` of all settings, those of `yanmo clean` among them."""
    return frozenset(name for kind in (Recipe, Cleaning) for name, _ in settings(kind))


def recipe_path(name: str) -> Path | None:
    """The file a recipe's name means: a path ending in .toml, or the bare name of a recipe of ours."""
    if name.endswith(".toml"):
        return Path(name)
    return shipped("recipes") / f"{name}.toml" if name in our_recipes() else None


def our_recipes() -> list[str]:
    """Bare names of the recipes that come with yanmo."""
    return sorted(path.stem for path in shipped("recipes").glob("*.toml"))


def recipe_meant(name: str) -> str | None:
    """The recipe of ours that a misspelt name means: `nanogpt-cpu`, `Doupo`, `doupu.toml`."""
    return nearest(name.removesuffix(".toml").lower().replace("-", "_"), our_recipes())


def _forget(values: dict[str, Any], typed: Collection[str], again: Collection[str]) -> None:
    """Take the decisions ``again`` out of a resolved recipe; what is typed is no decision any more."""
    for name in again:
        section, _, key = name.partition(".")
        values.get(section, {}).pop(key, None)
    values["decided"] = [name for name in values["decided"] if name not in typed and name not in again]


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_RECIPE_BYTES + 1)
    except (OSError, ValueError) as error:
        meant = recipe_meant(path.name)
        raise ConfigError(
            "the recipe cannot be read",
            where=f"{path}: {getattr(error, 'strerror', None) or error}",
            hint=f"did you mean the built-in recipe '{meant}'?" if meant else "check its path",
        ) from error
    if len(raw) > MAX_RECIPE_BYTES:
        hint = "a recipe holds settings; to train on a text: yanmo train TEXT"
        raise ConfigError(f"the file is larger than {MAX_RECIPE_BYTES >> 20} MB", str(path), hint)
    try:
        found: dict[str, Any] = _unmarked(_parse_toml(raw.decode("utf-8-sig")))
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            "the recipe is not valid TOML", where=f"{path}: {error}", hint="fix that line"
        ) from error
    return found


def _parse_toml(text: str) -> dict[str, Any]:
    """The values in TOML.

    Raises:
        ValueError: it is none, or has too many dotted names in a row.
        RecursionError: it is nested too deep.
    """
    if MANY_NAMES.search(text):
        raise ValueError("a name has more than 64 parts")
    return tomllib.loads(text.replace("\r\n", "\n"))


def _unmarked(value: Any) -> Any:
    """A value of TOML with the halves of characters that :func:`_toml` had to mark."""
    if isinstance(value, dict):
        return {key: _unmarked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unmarked(item) for item in value]
    return MARKED.sub(lambda found: chr(int(found[1], 16)), value) if isinstance(value, str) else value


def _override(values: dict[str, Any], overrides: Iterable[str], kind: type[Section]) -> set[str]:
    """Put what is typed into ``values``; gives the names of those settings."""
    typed = set()
    for override in overrides:
        section, key, value = _parse_override(override, kind)
        if isinstance(values.setdefault(section, {}), dict):  # else it is told what is wrong with the file
            values[section][key] = value
        typed.add(f"{section}.{key}")
    return typed


def _parse_override(text: str, kind: type[Section]) -> tuple[str, str, Any]:
    """``"train.max_steps=200"`` -> ``("train", "max_steps", 200)``; an unquoted word is a string."""
    name, _, written = text.partition("=")
    section, dot, key = name.partition(".")
    if not dot or section not in _section_names(kind):
        raise ConfigError(
            f"unknown setting '{shortened(name)}'",
            where="command line",
            hint=_elsewhere(section, kind)
            or _suggest(name, kind)
            or f"settings are written section.key=value; {_sections(kind)}",
        )
    try:
        found = _parse_toml(f"v = {written}")
    except (ValueError, RecursionError):
        found = {}
    value = found["v"] if list(found) == ["v"] else written  # other names come of a text with line ends
    return section, key, _as_text(value, written, type(getattr(kind(), section)).model_fields.get(key))


def _as_text(value: Any, written: str, field: FieldInfo | None) -> Any:
    """What a setting that is text is given: ``2024`` is no number there, and one text is a list of one."""
    wanted = field.annotation if field else None
    text = value if isinstance(value, str) else written
    if wanted in (str, str | None):
        return text
    return [text] if get_origin(wanted) is tuple and not isinstance(value, list) else value


def _elsewhere(section: str, kind: type[Section]) -> str:
    """Which command has this section, if this one has not."""
    if section in Cleaning.model_fields:
        return f"[{section}] belongs to `yanmo clean`: clean first, then train on its output"
    if section in SECTIONS:
        return f"[{section}] belongs to `yanmo train`; here {_sections(kind)}"
    return ""


def _validate(kind: type[T], values: dict[str, Any], where: str, typed: Collection[str] = ()) -> T:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(str(part) for part in problem["loc"][:2])
        where = "command line" if name in typed else where
        if problem["type"] == "extra_forbidden":
            raise ConfigError(
                f"unknown setting '{shortened(name)}'",
                where=where,
                hint=_suggest(name, kind) or _sections(kind),
            ) from error
        value, why = shortened(repr(problem["input"])), problem["msg"][:1].lower() + problem["msg"][1:]
        raise ConfigError(
            f"{shortened(name)}={value}: {why}",
            where=where,
            hint=_meant(problem) or _describe(name, kind) or _sections(kind),
        ) from error


def _meant(problem: Mapping[str, Any]) -> str:
    """The value that a misspelt one means, where a setting has few, or an empty string."""
    expected = QUOTED.findall(problem.get("ctx", {}).get("expected", ""))
    meant = nearest(str(problem["input"]), expected) if problem["type"] == "literal_error" else None
    return f"did you mean '{meant}'?" if meant else ""


def _suggest(name: str, kind: type[Section]) -> str:
    """What to do about a name that is not ours, or an empty string."""
    key = key_of(name)
    known = dict(settings(kind))
    for old, new in SETTINGS.items():
        if key == key_of(old) and new in known:
            return f"it is now called {new}"
    if PEER_NAMES.get(key) in known:
        return f"in yanmo it is called {PEER_NAMES[key]}"
    if key in PEER_HABITS and kind is Recipe:
        return PEER_HABITS[key]
    by_key = {full.partition(".")[2]: full for full in known}
    slip = key if key in by_key else nearest(key, by_key)
    near = nearest(name, known) or by_key.get(slip or "")
    return f"did you mean '{near}'?" if near else ""


def setting_meant(name: str) -> str | None:
    """The ``section.key`` that a name means, by itself, without its section, or in another tool."""
    by_key = {key_of(full): full for full, _ in reversed(list(settings()))}
    return name if name in by_key.values() else by_key.get(key_of(name)) or PEER_NAMES.get(key_of(name))


def key_of(name: str) -> str:
    """`n-layer`, `model.n_layer` → `n_layer`."""
    return name.rpartition(".")[2].lower().replace("-", "_")


def _describe(name: str, kind: type[Section]) -> str:
    description = dict(settings(kind)).get(name)
    return f"{name}: {description}" if description else ""


def _sections(kind: type[Section]) -> str:
    return f"the sections are {', '.join(_section_names(kind))}; docs/settings.md lists every key"


def _section_names(kind: type[Section]) -> list[str]:
    return [name for name, values in kind() if isinstance(values, Section)]


# -- listing, comparing, writing --------------------------------------------------------------


def settings(kind: type[Section] = Recipe) -> Iterator[tuple[str, str]]:
    """Every setting as (``section.key``, what it says about itself), in order."""
    for section, values in kind():
        if not isinstance(values, Section):
            continue
        fields = type(values).model_fields
        for key, field in fields.items():
            yield f"{section}.{key}", " ".join((field.description or "").split())


def get(recipe: Recipe, name: str) -> Any:
    """The value of ``section.key``."""
    section, _, key = name.partition(".")
    return getattr(getattr(recipe, section), key)


def with_values(recipe: Recipe, values: dict[str, Any], where: str = "options") -> Recipe:
    """The recipe with some ``section.key`` replaced.

    Raises:
        ConfigError: a value of the wrong kind.
    """
    plain = recipe.model_dump()
    for name, value in values.items():
        section, _, key = name.partition(".")
        plain[section][key] = value
    return _validate(Recipe, plain, where)


def decide(recipe: Recipe, decisions: dict[str, Any]) -> Recipe:
    """The recipe with those of ``decisions`` filled in that nobody asked for, and recorded as decided."""
    taken = {name: v for name, v in decisions.items() if get(recipe, name) is None and v is not None}
    decided = with_values(recipe, taken, "decisions")
    return decided.model_copy(update={"decided": (*recipe.decided, *taken)})


def differences(asked: Recipe, recorded: Recipe) -> list[str]:
    """Keys in which ``asked`` is another recipe than the one a run was made with, with both values.

    Not among them: what may change on resume, a longer run, and what is left out: it is as in the run.
    """
    changed, given = [], given_keys(asked)
    for name, _ in settings():
        ours, theirs = get(asked, name), get(recorded, name)
        if name not in given or ours in (None, theirs) or name in lengthened(asked, recorded):
            continue
        if name in PATHS and theirs and same_place(ours, theirs):
            continue
        if name.startswith(FREE_ON_RESUME) or (name in recorded.decided and name == MICRO_BATCH):
            continue
        said = "left open" if theirs is None else _toml(theirs)
        changed.append(f"{name}: {said} in the run, {_toml(ours)} requested")
    return changed


def lengthened(asked: Recipe, recorded: Recipe) -> dict[str, Any]:
    """The lengths that are asked to be larger than recorded."""
    return {
        name: get(asked, name)
        for name in LENGTHS
        if get(asked, name) is not None and get(recorded, name) is not None
        and get(asked, name) > get(recorded, name)
    }  # fmt: skip


def longer_setting(train: TrainConfig, step: int, elapsed_s: float) -> str:
    """Three times the length of a run that has come so far, as a setting."""
    if train.minutes is not None and elapsed_s > 0.9 * 60 * train.minutes:
        return f"train.minutes={3 * train.minutes:g}"  # the clock ended it, whatever else was set
    if train.max_steps is not None and (train.epochs is None or step >= train.max_steps):
        return f"train.max_steps={3 * train.max_steps}"
    if train.epochs is not None:
        return f"train.epochs={3 * train.epochs:g}"
    return f"train.minutes={3 * (train.minutes or 10):g}"


def given_keys(recipe: Recipe) -> set[str]:
    """The keys somebody wrote down, in a file or on the command line."""
    return {f"{section}.{key}" for section in SECTIONS for key in getattr(recipe, section).model_fields_set}


def resumed(asked: Recipe, recorded: Recipe) -> Recipe:
    """The recorded recipe with those free keys that were asked for now."""
    free = [
        name for name in given_keys(asked)
        if name.startswith(FREE_ON_RESUME) or (name in PATHS and has_moved(get(recorded, name)))
    ]  # fmt: skip
    return with_values(recorded, {n: get(asked, n) for n in free if get(asked, n) is not None}, "resume")


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML that says of each key what it does, and that can be run again."""
    lines = ["# A yanmo recipe: run it again with `yanmo train THIS_FILE --out FOLDER`.", ""]
    if recipe.decided:
        lines += [
            "# Keys that were not set, decided by measurement or rule when the run was made:",
            f"decided = {_toml(recipe.decided)}",
            "",
        ]
    if recipe.started_in:
        lines += [
            "# Folder where the run was started, relative to the run and absolute; paths are relative to it.",
            f"started_in = {_toml(recipe.started_in)}",
            "",
        ]
    for section in SECTIONS:
        lines += section_toml(section, getattr(recipe, section))
    return "\n".join(lines)


def section_toml(name: str, section: Section) -> list[str]:
    """A section's lines of TOML, and an empty one."""
    lines = [f"[{name}]"]
    for key, value in section:
        comment = " ".join((type(section).model_fields[key].description or "").split())
        assignment = f"{key} =" if value is None else f"{key} = {_toml(value)}"
        lines.append(f"# {assignment}  # {comment}" if value is None else f"{assignment}  # {comment}")
    return [*lines, ""]


def _toml(value: Any) -> str:
    """A value in TOML (JSON's strings, numbers and lists are TOML's too)."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, str):
        marked = UNWRITABLE.sub(lambda found: f"\0{ord(found[0]):04X}", value)
        return json.dumps(marked, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)

"""Recipes: read, changed on the command line, compared, decided, written.

A recipe is TOML with the sections of ``config.py``; any key is also set as ``section.key=value`` on the
command line. In: TOML text and such strings. Out: a frozen :class:`Recipe`, or a :class:`ConfigError` that
names the key, the value and the mend.
"""

import difflib
import json
import tomllib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from yanmo.config import FREE_ON_RESUME, LENGTHS, MICRO_BATCH, SECTIONS, Cleaning, Recipe, Section
from yanmo.errors import ConfigError
from yanmo.relations import check_relations, reopened

T = TypeVar("T", bound=Section)

PEER_NAMES = {
    "n_ctx": "model.block_size",
    "n_positions": "model.block_size",
    "context_len": "model.block_size",
    "context_length": "model.block_size",
    "max_length": "model.block_size",
    "seq_len": "model.block_size",
    "emb_dim": "model.n_embd",
    "hidden_size": "model.n_embd",
    "d_model": "model.n_embd",
    "num_layers": "model.n_layer",
    "num_hidden_layers": "model.n_layer",
    "n_layers": "model.n_layer",
    "depth": "model.n_layer",
    "n_heads": "model.n_head",
    "num_heads": "model.n_head",
    "num_attention_heads": "model.n_head",
    "num_key_value_heads": "model.n_kv_head",
    "num_kv_heads": "model.n_kv_head",
    "n_kv_heads": "model.n_kv_head",
    "intermediate_size": "model.n_inner",
    "tie_word_embeddings": "model.tied_head",
    "num_experts": "model.n_expert",
    "n_routed_experts": "model.n_expert",
    "num_experts_per_tok": "model.n_expert_active",
    "n_shared_experts": "model.n_expert_shared",
    "moe_intermediate_size": "model.expert_inner",
    "drop_rate": "model.dropout",
    "lr": "optim.learning_rate",
    "wd": "optim.weight_decay",
    "warmup_iters": "optim.warmup_steps",
    "num_warmup_steps": "optim.warmup_steps",
    "max_grad_norm": "optim.grad_clip",
    "max_iters": "train.max_steps",
    "num_train_epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "lr_scheduler_type": "optim.schedule",
    "init_from": "model.init",
    "pretrained_model": "model.init",
    "vocab": "tokenizer.path",
    "vocab_file": "tokenizer.path",
    "tokenizer_path": "tokenizer.path",
    "raw_data_path": "corpus.path",
    "no_repeat_ngram_size": "sample.no_repeat_ngram",
    "bad_words": "sample.banned",
    "stop_strings": "sample.stop",
    "context_size": "model.block_size",
    "max_train_steps": "train.max_steps",
    "num_train_steps": "train.max_steps",
    "per_device_train_batch_size": "train.micro_batch_size",
    "save_interval": "train.checkpoint_interval",
    "save_steps": "train.checkpoint_interval",
    "eval_steps": "train.eval_interval",
    "log_step": "train.log_interval",
    "logging_steps": "train.log_interval",
    "dtype": "train.precision",
    "length": "sample.max_new_tokens",
    "nsamples": "sample.num_samples",
    "topk": "sample.top_k",
    "topp": "sample.top_p",
    "prefix": "sample.prompt",
    "start": "sample.prompt",
}
"""Names people know from other tools, and ours."""


# -- reading ----------------------------------------------------------------------------------


def load_recipe(source: Path | None, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe in ``source`` (None: all defaults) with ``section.key=value`` overrides.

    Raises:
        ConfigError: unknown key, value of the wrong kind, or settings that contradict each other.
    """
    values = _read_toml(source) if source else {}
    resolved = _validate(Recipe, values, str(source)) if values.get("decided") else None
    typed = _override(values, overrides, Recipe)
    recipe = _validate(Recipe, values, str(source), typed)
    if resolved is not None:
        changed = {name for name in typed if get(recipe, name) != get(resolved, name)}
        _forget(values, typed, reopened(set(resolved.decided) - typed, changed))
        recipe = _validate(Recipe, values, str(source), typed)
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
    """Positional arguments → (texts or recipe, settings). What exists as a file is never a setting."""
    texts = [a for a in arguments if "=" not in a or Path(a).exists()]
    settings = [a for a in arguments if a not in texts]
    return [text if ":" in text else Path(text).as_posix() for text in texts], settings


def recipe_path(name: str) -> Path | None:
    """The file a recipe's name means: a path ending in .toml, or the bare name of a recipe of ours."""
    if name.endswith(".toml"):
        return Path(name)
    folder = recipes_folder() / f"{name}.toml"
    return folder if folder.is_file() and name.isidentifier() else None


def recipes_folder() -> Path:
    """Where our own recipes lie: in the package, or at the root of a clone."""
    here = Path(__file__).resolve().parent
    installed = here / "recipes"
    return installed if installed.is_dir() else here.parents[1] / "recipes"


def _forget(values: dict[str, Any], typed: Collection[str], again: Collection[str]) -> None:
    """Take the decisions ``again`` out of a resolved recipe; what is typed is no decision any more."""
    for name in again:
        section, _, key = name.partition(".")
        values.get(section, {}).pop(key, None)
    values["decided"] = [name for name in values["decided"] if name not in typed and name not in again]


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(
            "the recipe cannot be read", where=f"{path}: {error.strerror}", mend="check its path"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            "the recipe is not valid TOML", where=f"{path}: {error}", mend="mend that line"
        ) from error


def _override(values: dict[str, Any], overrides: Iterable[str], kind: type[Section]) -> set[str]:
    """Put what is typed into ``values``; gives the names of those settings."""
    typed = set()
    for override in overrides:
        section, key, value = _parse_override(override, kind)
        values.setdefault(section, {})[key] = value
        typed.add(f"{section}.{key}")
    return typed


def _parse_override(text: str, kind: type[Section]) -> tuple[str, str, Any]:
    """``"train.max_steps=200"`` -> ``("train", "max_steps", 200)``; an unquoted word is a string."""
    name, _, written = text.partition("=")
    section, dot, key = name.partition(".")
    if not dot or section not in _section_names(kind):
        raise ConfigError(
            f"unknown setting '{name}'",
            where="command line",
            mend=_elsewhere(section, kind)
            or _suggest(name, kind)
            or f"settings are written section.key=value; {_sections(kind)}",
        )
    try:
        value = tomllib.loads(f"v = {written}")["v"]
    except tomllib.TOMLDecodeError:
        value = written
    return section, key, _as_text(value, written, type(getattr(kind(), section)).model_fields.get(key))


def _as_text(value: Any, written: str, field: FieldInfo | None) -> Any:
    """What a setting that is text is given: ``2024`` is no number there, and one text is a list of one."""
    wanted = field.annotation if field else None
    text = value if isinstance(value, str) else written
    if wanted in (str, str | None):
        return text
    return [text] if wanted == tuple[str, ...] and not isinstance(value, list) else value


def _elsewhere(section: str, kind: type[Section]) -> str:
    """Which command has this section, if this one has not."""
    if section in Cleaning.model_fields:
        return f"[{section}] belongs to `yanmo clean`: clean first, and train on what it writes"
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
                f"unknown setting '{name}'", where=where, mend=_suggest(name, kind) or _sections(kind)
            ) from error
        raise ConfigError(
            f"{name}={problem['input']!r}: {problem['msg'][:1].lower()}{problem['msg'][1:]}",
            where=where,
            mend=_describe(name, kind) or _sections(kind),
        ) from error


def _suggest(name: str, kind: type[Section]) -> str:
    """ "did you mean" for a name that is not ours, or an empty string."""
    key = name.rpartition(".")[2]
    known = dict(settings(kind))
    if PEER_NAMES.get(key) in known:
        return f"in yanmo it is called {PEER_NAMES[key]}"
    same = [full for full in known if full.partition(".")[2] == key]
    near = same or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not near:
        by_key = {full.partition(".")[2]: full for full in known}
        near = [by_key[match] for match in difflib.get_close_matches(key, by_key, n=1, cutoff=0.6)]
    return f"did you mean '{near[0]}'?" if near else ""


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

    Not among them: what may change on resume, a longer run, and what was decided for lack of an answer.
    """
    changed, given = [], given_keys(asked)
    for name, _ in settings():
        ours, theirs = get(asked, name), get(recorded, name)
        if ours == theirs or name.startswith(FREE_ON_RESUME) or name in lengthened(asked, recorded):
            continue
        if name in recorded.decided and (ours is None or name not in given or name == MICRO_BATCH):
            continue
        changed.append(f"{name}: {_toml(theirs)} in the run, {_toml(ours)} asked")
    return changed


def lengthened(asked: Recipe, recorded: Recipe) -> dict[str, Any]:
    """The lengths that are asked to be larger than recorded."""
    return {
        name: get(asked, name)
        for name in LENGTHS
        if get(asked, name) is not None and get(recorded, name) is not None
        and get(asked, name) > get(recorded, name)
    }  # fmt: skip


def given_keys(recipe: Recipe) -> set[str]:
    """The keys somebody wrote down, in a file or on the command line."""
    return {f"{section}.{key}" for section in SECTIONS for key in getattr(recipe, section).model_fields_set}


def resumed(asked: Recipe, recorded: Recipe) -> Recipe:
    """The recorded recipe with those free keys that were asked for now."""
    free = [name for name in given_keys(asked) if name.startswith(FREE_ON_RESUME)]
    return with_values(recorded, {n: get(asked, n) for n in free if get(asked, n) is not None}, "resume")


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML that says of each key what it does, and that can be run again."""
    lines = ["# A yanmo recipe: run it again with `yanmo train THIS_FILE --out FOLDER`.", ""]
    if recipe.decided:
        lines += [
            "# Keys nobody asked for, decided by measurement or rule when the run was made:",
            f"decided = {_toml(recipe.decided)}",
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
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)

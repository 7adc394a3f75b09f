"""The base of a fine-tuning: a run, a checkpoint or a model folder as it is, anything else imported first."""

from pathlib import Path

from yanmo.checkpoint.folder import find_model_folder, load_shape
from yanmo.core import storage
from yanmo.core.console import Console
from yanmo.core.errors import CheckpointError, ConfigError, TokenizerError
from yanmo.hub.imports.importer import import_
from yanmo.settings.schema import TokenizerConfig
from yanmo.tokenizer import load_tokenizer


def find_base(name: str, console: Console) -> Path:
    """The folder that ``model.init`` names for a base; an import of it lies in the cache and is made once.

    Raises:
        ConfigError: there is no such base.
        CheckpointError: its import failed.
    """
    path = Path(name)
    if opens_as_it_is(path):
        return path
    files = sorted(file for file in path.glob("*") if file.is_file()) if path.is_dir() else []
    about = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    where = str(path.resolve()) if path.exists() else name
    target = storage.cache_root() / "bases" / storage.fingerprint([where, about])
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        for line in import_(name, target, TokenizerConfig(), console).said:
            console.print(f"  {line}")
    console.print(f"the base is {name}, imported into {target}")
    return target


def opens_as_it_is(path: Path) -> bool:
    """Whether a folder is a model of ours, whose weights and tokens belong together."""
    try:
        folder = find_model_folder(path)
        return load_shape(folder).vocab_size == load_tokenizer(folder).vocab_size
    except (ConfigError, CheckpointError, TokenizerError):
        return False

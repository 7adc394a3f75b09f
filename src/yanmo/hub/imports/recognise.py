"""Recognising what is to be imported by its content: a model folder, a nanoGPT checkpoint, token files.

Only the first bytes of a file are read here. A name that does not exist on this disk may be that of a
repository on a model hub.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from yanmo.core.errors import ConfigError

Kind = Literal["model folder", "nanoGPT checkpoint", "token files", "nanoGPT config", "hub"]
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
ZIP = b"PK\x03\x04"
# a pickle of protocol 2 whose first object is the number 0x1950a86a20f9469cfc6c: torch.save before 1.6
OLD_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
FILES = {
    ".bin",
    ".npy",
    ".pt",
    ".pth",
    ".ckpt",
    ".py",
    ".safetensors",
    ".json",
    ".txt",
    ".pkl",
    ".jsonl",
    ".zip",
}
"""A name that ends so is that of a missing file; a name on the hub may have a dot, too (Qwen3-0.6B)."""
KNOWN = (
    "a Hugging Face folder (config.json and weights), nanoGPT's ckpt.pt or the folder with it, its .bin"
    " tokens, its config .py, llm.c's .bin or .npy tokens, or the name of a model on the hub"
)


@dataclass(frozen=True)
class ImportSource:
    """What was recognised, and the files it consists of."""

    kind: Kind
    path: Path
    files: tuple[Path, ...] = ()


def recognise(name: str) -> ImportSource:
    """What ``name`` is: a path here, or the name of a repository.

    Raises:
        ConfigError: it is nothing that is imported.
    """
    path = Path(name)
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return _file(path)
    # only what is nothing here may be a name elsewhere; a mistyped file is not asked for on the hub
    if HUB_NAME.fullmatch(name) and path.suffix not in FILES:
        return ImportSource("hub", path)
    raise ConfigError(f"there is no {name}", where="yanmo import", hint=f"name {KNOWN}")


def _folder(path: Path) -> ImportSource:
    if (path / "config.json").is_file():
        return ImportSource("model folder", path)
    if (path / "ckpt.pt").is_file():
        return ImportSource("nanoGPT checkpoint", path, (path / "ckpt.pt",))
    files = [file for file in (*path.glob("*.bin"), *path.glob("*.npy")) if file.is_file()]
    # .bin is what nanoGPT calls its tokens, and torch its pickles
    tokens = [file for file in files if not is_pickle(file)]
    if tokens:
        return ImportSource("token files", path, tuple(sorted(tokens, key=_validation_last)))
    raise ConfigError("the folder has nothing that yanmo can import", where=str(path), hint=f"name {KNOWN}")


def _file(path: Path) -> ImportSource:
    if (
        path.name == "config.json"
        or path.suffix == ".safetensors"
        or (path.suffix == ".bin" and is_pickle(path))
    ):
        if (path.parent / "config.json").is_file():
            return ImportSource("model folder", path.parent)
        raise ConfigError(
            f"there is no config.json next to {path.name}, so its shape is unknown",
            where=str(path),
            hint="give a folder with both",
        )
    if path.suffix in (".bin", ".npy"):
        return ImportSource("token files", path.parent, (path,))
    if path.suffix in (".pt", ".pth", ".ckpt"):
        return ImportSource("nanoGPT checkpoint", path.parent, (path,))
    if path.suffix == ".py":
        return ImportSource("nanoGPT config", path.parent, (path,))
    if path.suffix in (".pkl", ".model", ".tiktoken", ".txt", ".json", ".bpe"):
        raise ConfigError(
            f"{path.name} is not a model; is it a vocabulary?",
            where="yanmo import",
            hint=f"yanmo tokenizer import {path}",
        )
    raise ConfigError(f"yanmo cannot import {path.name}", where=str(path), hint=f"name {KNOWN}")


def is_pickle(path: Path) -> bool:
    """Whether a file is what torch.save writes: a zip archive, or in its old form a pickled magic number."""
    with open(path, "rb") as file:
        return file.read(len(OLD_TORCH)).startswith((ZIP, OLD_TORCH))


def _validation_last(path: Path) -> tuple[bool, str]:
    # a text that was cut into two files goes on from one into the other
    return "val" in path.name, path.name

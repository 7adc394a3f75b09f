"""Choosing a tokenizer: the one in a folder, or the one a recipe names."""

import json
from pathlib import Path
from typing import Any

from yanmo.config import TokenizerConfig
from yanmo.errors import ConfigError, TokenizerError
from yanmo.tokenizer.base import Tokenizer
from yanmo.tokenizer.char import CharTokenizer
from yanmo.tokenizer.wordpiece import Roles, WordPieceTokenizer

__all__ = ["CharTokenizer", "Tokenizer", "WordPieceTokenizer", "find_tokenizer", "kind_of", "load_tokenizer"]


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer saved in ``folder``.

    Raises:
        TokenizerError: there is none, or it is not of a kind yanmo reads.
    """
    path = folder / "tokenizer.json"
    spec = _read(path)
    kind = spec["model"].get("type") if isinstance(spec.get("model"), dict) else None
    if kind == "WordPiece":
        return WordPieceTokenizer.from_json(spec, _read(folder / "tokenizer_config.json"), path)
    return CharTokenizer.from_json(spec, path)


def find_tokenizer(config: TokenizerConfig) -> Tokenizer | None:
    """The tokenizer ``tokenizer.path`` leads to; None if one is to be made from the corpus.

    Raises:
        ConfigError: the path leads nowhere, or to another kind than ``tokenizer.kind``.
        TokenizerError: the file there cannot be used.
    """
    if config.path is None:
        if config.kind == "wordpiece":
            raise ConfigError(
                "tokenizer.kind=wordpiece needs a vocabulary",
                where="tokenizer.path",
                mend="name a BERT vocab.txt: tokenizer.path=vocab.txt",
            )
        return None
    path = Path(config.path)
    if path.name == "tokenizer.json":
        path = path.parent
    if (path / "tokenizer.json").is_file():
        found = load_tokenizer(path)
    else:
        vocabulary = path / "vocab.txt" if path.is_dir() else path
        if not vocabulary.is_file():
            raise ConfigError(
                f"there is no tokenizer at {config.path}",
                where="tokenizer.path",
                mend="name a vocab.txt, a tokenizer.json, or a folder with one of them",
            )
        roles = Roles(config.newline_token, config.start_token, config.end_token or Roles.end)
        found = WordPieceTokenizer.from_vocabulary(vocabulary, roles)
    kind = kind_of(found)
    if config.kind not in (None, kind):
        raise ConfigError(
            f"{config.path} is a {kind} tokenizer, not tokenizer.kind={config.kind}",
            where="[tokenizer]",
            mend="leave tokenizer.kind out, or name another file",
        )
    return found


def kind_of(tokenizer: Tokenizer) -> str:
    """What ``tokenizer.kind`` calls it."""
    return "wordpiece" if isinstance(tokenizer, WordPieceTokenizer) else "char"


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TokenizerError(
            f"there is no readable {path.name}",
            where=str(path.parent),
            mend="give a model folder written by yanmo",
        ) from error
    return value if isinstance(value, dict) else {}

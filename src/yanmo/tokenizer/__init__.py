"""Choosing a tokenizer: load the one in a folder."""

import json
from pathlib import Path

from yanmo.errors import TokenizerError
from yanmo.tokenizer.base import Tokenizer
from yanmo.tokenizer.char import CharTokenizer

__all__ = ["CharTokenizer", "Tokenizer", "load_tokenizer"]


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer saved in ``folder``.

    Raises:
        TokenizerError: there is none, or it is not of a kind yanmo reads.
    """
    path = folder / "tokenizer.json"
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TokenizerError(
            "there is no readable tokenizer.json",
            where=str(folder),
            mend="give a model folder written by yanmo",
        ) from error
    return CharTokenizer.from_json(spec, path)

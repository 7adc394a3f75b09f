"""Choosing a tokenizer: the one in a folder, the one a recipe names, or one learned from the corpus."""

from pathlib import Path

from yanmo.core.errors import ConfigError
from yanmo.settings.schema import TokenizerConfig
from yanmo.tokenizer.base import Tokenizer
from yanmo.tokenizer.char import CharTokenizer
from yanmo.tokenizer.files import read_tokenizer
from yanmo.tokenizer.library import LibraryTokenizer
from yanmo.tokenizer.wordpiece import WordPieceTokenizer

__all__ = [
    "CharTokenizer",
    "LibraryTokenizer",
    "Tokenizer",
    "WordPieceTokenizer",
    "find_tokenizer",
    "kind_of",
    "load_tokenizer",
    "read_tokenizer",
]


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer saved in ``folder``.

    Raises:
        TokenizerError: there is none, or it cannot be used.
    """
    return read_tokenizer(folder, TokenizerConfig())


def find_tokenizer(config: TokenizerConfig) -> Tokenizer | None:
    """The tokenizer ``tokenizer.path`` leads to; None if one is to be learned from the corpus.

    Raises:
        ConfigError: the path leads nowhere, or to another kind than ``tokenizer.kind``.
        TokenizerError: the file there cannot be used.
    """
    if config.path is None:
        if config.kind == "wordpiece":
            raise ConfigError(
                "tokenizer.kind=wordpiece needs a vocabulary",
                where="tokenizer.path",
                hint="name a BERT vocab.txt: tokenizer.path=vocab.txt",
            )
        return None
    found = read_tokenizer(Path(config.path), config)
    kind = kind_of(found)
    if config.kind not in (None, kind):
        raise ConfigError(
            f"{config.path} is a {kind} tokenizer, not tokenizer.kind={config.kind}",
            where="[tokenizer]",
            hint="leave tokenizer.kind out, or name another file",
        )
    return found


def kind_of(tokenizer: Tokenizer) -> str:
    """What ``tokenizer.kind`` calls it."""
    if isinstance(tokenizer, LibraryTokenizer):
        return tokenizer.kind
    return "wordpiece" if isinstance(tokenizer, WordPieceTokenizer) else "char"

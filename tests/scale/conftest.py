"""A corpus of several files and a vocabulary learned from it."""

from pathlib import Path

import pytest

from tests.makers.corpora import write_corpus
from yanmo.core.console import Console
from yanmo.data.survey import learn_tokenizer
from yanmo.settings.schema import CorpusConfig, TokenizerConfig


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "texts", seed=0)


@pytest.fixture
def vocabulary(texts: Path, console: Console) -> Path:
    learned = learn_tokenizer(
        CorpusConfig(path=(str(texts),)), TokenizerConfig(kind="bpe", vocab_size=600), console
    )
    Path("tok").mkdir()
    learned.save(Path("tok"), 1 << 30)
    return Path("tok")


@pytest.fixture(autouse=True)
def nothing_cached(own_cache: object) -> None:
    """Each test makes its shards itself."""

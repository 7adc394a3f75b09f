"""The first reading of a corpus: every document's hash and size, and the vocabulary if one is to be learned.

Both lie in ``.yanmo/tokenizers/<hash of all they depend on>/`` and are made only if absent.
"""

import threading
import time
from pathlib import Path
from typing import Literal

from yanmo.core import storage
from yanmo.core.console import Console, ProgressLine, span
from yanmo.core.errors import DataError
from yanmo.data.split import content_hash
from yanmo.settings.schema import CorpusConfig, TokenizerConfig
from yanmo.text.inspect.notes import Notes
from yanmo.text.read.documents import CorpusCounts, corpus_fingerprint, corpus_size, read_documents
from yanmo.tokenizer import Tokenizer, load_tokenizer
from yanmo.tokenizer.train import TokenizerTrainer, learner_for, peak_memory

SURVEY_VERSION = 3
"""Part of every cache key: raise it when the same text would give another vocabulary or other shards."""
MIN_COUNT = 3
"""Characters that occur less often are written as bytes (docs/experiments.md)."""
BPE_FROM_BYTES = 20_000_000
"""Bytes of text from which on byte BPE is the default: less text shows each merged token too seldom."""
SHOWN_LOST_CHARACTERS = 5


def learn_tokenizer(corpus: CorpusConfig, config: TokenizerConfig, console: Console) -> Tokenizer:
    """The tokenizer learned from a corpus; a pure function of corpus and config.

    Raises:
        DataError: a path is missing or unreadable.
        TokenizerError: the vocabulary has no room for what it must hold.
    """
    return load_tokenizer(survey(corpus, config, corpus_fingerprint(corpus), console))


def kind_by_size(size: int) -> Literal["char", "bpe"]:
    """The kind of vocabulary for a corpus of so many bytes."""
    return "char" if size < BPE_FROM_BYTES else "bpe"


def survey(
    corpus: CorpusConfig,
    config: TokenizerConfig | None,
    content: str,
    console: Console,
    never: frozenset[str] = frozenset(),
) -> Path:
    """A folder with every document's hash and size, and the tokenizer if one is to be learned.

    Notes about the text go to the console. ``content`` is the corpus's fingerprint; without ``config`` no
    tokenizer is learned. From documents whose hash is in ``never`` nothing is learned.
    """
    size = corpus_size(corpus.path)
    kind = (config.kind or kind_by_size(size)) if config is not None else None

    def fill(folder: Path) -> None:
        # one reading for everything that needs the whole text: it is by far the slowest part
        learner = learner_for(config, kind) if config is not None and kind is not None else None
        sizes, counts, notes = [], CorpusCounts(), Notes()
        with ProgressLine(console, "reading", size) as progress:
            for document in read_documents(corpus, counts):
                progress.advance(document.meta.get("size", 0))
                name = content_hash(document.text)
                if learner is not None and name not in never:
                    learner.add(document.text)
                notes.add(document.text)
                sizes.append([name, len(document.text)])
        _say_counts(counts, console)
        if not sizes:
            raise DataError(
                f"none of {counts.documents_read} documents could be used",
                where=", ".join(corpus.path),
                hint=f"the first: {counts.dropped[0]}",
            )
        if learner is not None:
            # no limit of length: transformers would warn about every long text
            _learn(learner, console).save(folder, 1 << 30)
        storage.write_json(folder / "notes.json", notes.as_json())
        storage.write_json(folder / "documents.json", sizes)

    # only what changes the vocabulary is part of the key: another batch size must not learn it again
    settings: list[object] | str = "sizes"
    if config is not None:
        settings = [kind, config.vocab_size, config.sample_mb, config.chat_tokens, config.reserved_tokens]
        if kind == "char" and (config.chat_tokens or config.reserved_tokens):
            settings.append("markers")  # an earlier yanmo left them out of vocabularies of characters
        if kind == "char" and (config.min_count or 1) > 1:
            settings.append({"min_count": config.min_count})
        if never:
            settings.append({"never": sorted(never)})
    folder = storage.cached("tokenizers", storage.fingerprint([SURVEY_VERSION, content, settings]), fill)
    for note in Notes(**storage.read_json(folder / "notes.json")).said():
        console.warn(note)
    return folder


def _say_counts(counts: CorpusCounts, console: Console) -> None:
    for dropped in counts.dropped[:SHOWN_LOST_CHARACTERS]:
        console.warn(f"dropped {dropped}")
    dropped_in_all = counts.documents_dropped.total()
    if dropped_in_all > SHOWN_LOST_CHARACTERS:
        console.warn(f"dropped {dropped_in_all:,} documents in all; corpus.json names them")
    if counts.control_characters_removed:
        console.print(f"{counts.control_characters_removed:,} control characters removed")
    if counts.undecodable_bytes:
        console.warn(f"{counts.undecodable_bytes:,} broken bytes became U+FFFD")
    if counts.texts_in_parts:
        console.print(f"{counts.texts_in_parts:,} texts are too large for one document and were split")


def _learn(learner: TokenizerTrainer, console: Console) -> Tokenizer:
    """Learn, with a clock on the console, as the library reports no progress."""
    what, start = learner.said(), time.monotonic()
    if not what:
        return learner.learn()
    outcome: list[Tokenizer | Exception] = []

    def work() -> None:
        try:
            outcome.append(learner.learn())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True)  # daemon: Ctrl-C does not wait for it
    thread.start()
    while thread.is_alive():
        console.status(f"{what}, {span(time.monotonic() - start)}, {peak_memory() >> 20:,} MB of memory")
        thread.join(0.2)
    console.clear_status()
    # an exception ends only the thread it is raised in: hand it on
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    learned, took = outcome[0], span(time.monotonic() - start)
    console.print(f"{what}: {took}, {peak_memory() >> 20:,} MB of memory at most")
    if learned.vocab_size < learner.wanted:
        console.warn(f"the text has {learned.vocab_size:,} tokens to learn, not {learner.wanted:,}")
    return learned


def read_sizes(folder: Path) -> list[tuple[str, int]]:
    """(content hash, characters) of every document that a survey found.

    Raises:
        DataError: the list is damaged.
    """
    path = folder / "documents.json"
    try:
        return [(str(name), int(length)) for name, length in storage.read_json(path)]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(
            "the list of documents is damaged",
            where=str(path),
            hint="delete its folder; yanmo makes it again",
        ) from error

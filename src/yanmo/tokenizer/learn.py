"""Learning a vocabulary from a corpus, for a text without spaces.

Characters are only counted. Byte BPE (Sennrich et al. 2016, Radford et al. 2019) and unigram (Kudo 2018)
are learned by the ``tokenizers`` library from a sample of bounded size. To the library a stretch between
two spaces or punctuation marks is one word, in Chinese a whole clause: the number of different words, and
with it the memory, grows with the text. So for learning only, runs of Chinese characters are cut at
``LONGEST_WORD``, and no piece grows beyond such a cut; encoding knows no such cuts.

In: texts. Out: a tokenizer, a pure function of the texts, their order and the settings.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from yanmo.config import TokenizerConfig
from yanmo.errors import DataError, TokenizerError
from yanmo.tokenizer.base import END_OF_TEXT, Tokenizer
from yanmo.tokenizer.char import BYTES, CharTokenizer, count_characters
from yanmo.tokenizer.library import LibraryTokenizer, byte_letters
from yanmo.tokenizer.sample import Reservoir
from yanmo.tokenizer.spec import bpe_model, sequence, tokenizer_json
from yanmo.tokenizer.splits import GPT2, byte_level, split_step

CHAT_TOKENS = ("<|im_start|>", "<|im_end|>")
USUAL_SIZE = 32_000
LONGEST_WORD = 8
"""Chinese characters in one piece at most."""
RARELY = 2
"""A pair seen less often is not merged."""
NEVER = -1e6
"""The log probability of byte pieces: they write what nothing else can."""
SEED = 1337
BYTES_PER_CHARACTER = 3


class Learner(Protocol):
    """Takes a corpus text by text, then gives a tokenizer."""

    def add(self, text: str) -> None:
        """Take a part of the corpus."""
        ...

    def learn(self) -> Tokenizer:
        """The tokenizer of all that was added."""
        ...

    @property
    def wanted(self) -> int:
        """How many tokens are asked for; 0: as many as there are."""
        ...

    def said(self) -> str:
        """What is about to be learned from how much, for the user; empty if it takes no time."""
        ...


def learner_for(config: TokenizerConfig, kind: str) -> Learner:
    """Who learns a tokenizer of this kind.

    Raises:
        TokenizerError: the vocabulary has no room for what it must hold.
    """
    if kind == "char":
        return CharLearner(config)
    return PieceLearner(config, kind)


class CharLearner:
    """Counts characters."""

    def __init__(self, config: TokenizerConfig) -> None:
        self.wanted = config.vocab_size
        self._counts = count_characters("")

    def add(self, text: str) -> None:
        """Count the characters of a text."""
        count_characters(text, self._counts)

    def learn(self) -> CharTokenizer:
        """A token for each character."""
        return CharTokenizer.train(self._counts, self.wanted)

    def said(self) -> str:
        """Nothing: it is done."""
        return ""


class PieceLearner:
    """Keeps a sample, and learns pieces from it."""

    def __init__(self, config: TokenizerConfig, kind: str) -> None:
        self._kind = kind
        self._specials = special_tokens(config.chat_tokens, config.reserved_tokens)
        self.wanted = config.vocab_size or USUAL_SIZE
        if self.wanted < len(self._specials) + len(BYTES):
            raise TokenizerError(
                f"tokenizer.vocab_size={self.wanted} has no room for 256 bytes and"
                f" {len(self._specials)} special tokens",
                where="[tokenizer]",
                mend=f"choose at least {len(self._specials) + len(BYTES)}; {USUAL_SIZE} is usual",
            )
        self._sample = Reservoir((config.sample_mb << 20) // BYTES_PER_CHARACTER, SEED)

    def add(self, text: str) -> None:
        """Offer a text to the sample."""
        self._sample.add(text)

    def learn(self) -> LibraryTokenizer:
        """Pieces by frequency or probability.

        Raises:
            DataError: nothing was added.
        """
        if not self._sample.characters:
            raise DataError("there is no text to learn a vocabulary from", "the corpus", "give some text")
        learn = learn_bpe if self._kind == "bpe" else learn_unigram
        return learn(self._sample.texts(), self.wanted, self._specials)

    def said(self) -> str:
        """How much of the corpus is used."""
        kept, offered = self._sample.characters, self._sample.offered
        of = f" of {offered:,}, evenly chosen" if kept < offered else ""
        return f"learning {self.wanted:,} {self._kind} tokens from {kept:,} characters{of}"


def peak_memory() -> int:
    """The most bytes of memory this process ever had; 0 where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def special_tokens(chat: bool, reserved: int) -> list[str]:
    """End-of-text, then the marks of a dialogue, then places kept for later; their ids are 0, 1, …"""
    return [END_OF_TEXT, *(CHAT_TOKENS if chat else ()), *(f"<|reserved_{n}|>" for n in range(reserved))]


def learn_bpe(texts: Iterable[str], vocab_size: int, specials: Sequence[str]) -> LibraryTokenizer:
    """A byte BPE of at most ``vocab_size`` tokens: specials, the 256 bytes, and what is merged of them."""
    letters = sorted(byte_letters(), key=byte_letters().__getitem__)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(specials),
        min_frequency=RARELY,
        show_progress=False,
        initial_alphabet=letters,
    )
    steps = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    merges = [f"{left} {right}" for left, right in _learn(models.BPE(), steps, trainer, texts)["merges"]]
    entries = [*specials, *letters, *(merge.replace(" ", "") for merge in merges)]
    vocab = {entry: number for number, entry in enumerate(dict.fromkeys(entries))}
    return LibraryTokenizer(
        tokenizer_json(
            {special: vocab[special] for special in specials},
            bpe_model(vocab, merges),
            pre_tokenizer=byte_level(use_regex=True),
            decoder=byte_level(use_regex=True),
        ),
        END_OF_TEXT,
    )


def learn_unigram(texts: Iterable[str], vocab_size: int, specials: Sequence[str]) -> LibraryTokenizer:
    """A unigram vocabulary of at most ``vocab_size`` tokens: specials, 256 bytes, pieces by probability."""
    first = [*specials, *BYTES]
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size - len(first),
        show_progress=False,
        max_piece_length=2 * LONGEST_WORD,
        initial_alphabet=[chr(code) for code in range(0x20, 0x7F)],
    )
    steps = [pre_tokenizers.Split(tokenizers.Regex(GPT2), "isolated")]
    learned = _learn(models.Unigram(), steps, trainer, texts)["vocab"]
    pieces = [[piece, score] for piece, score in learned if piece not in set(first)]
    return LibraryTokenizer(
        tokenizer_json(
            {special: number for number, special in enumerate(specials)},
            {
                "type": "Unigram",
                "unk_id": 0,  # never given: every byte has a token
                "vocab": [*([token, NEVER] for token in first), *pieces],
                "byte_fallback": True,
            },
            pre_tokenizer=split_step(GPT2),
            decoder=sequence("decoders", [{"type": "ByteFallback"}, {"type": "Fuse"}]),
        ),
        END_OF_TEXT,
    )


def _learn(model: Any, steps: Sequence[Any], trainer: Any, texts: Iterable[str]) -> dict[str, Any]:
    """The library's trained model, as in its JSON."""
    library = tokenizers.Tokenizer(model)
    word = tokenizers.Regex(rf"\p{{Han}}{{1,{LONGEST_WORD}}}")
    library.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(word, "isolated"), *steps])
    library.train_from_iterator(texts, trainer)
    learned: dict[str, Any] = json.loads(library.to_str())["model"]
    return learned

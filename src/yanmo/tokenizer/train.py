"""Learning a vocabulary from a corpus, for a text without spaces.

Characters are only counted. Byte BPE (Sennrich et al. 2016, Radford et al. 2019) is learned by the
``tokenizers`` library and unigram (Kudo 2018) by SentencePiece, from a sample of bounded size. To both a
stretch between two spaces or punctuation marks is one word, in Chinese a whole clause: the number of
different words, and with it the memory, grows with the text. So for learning only, runs of Chinese are cut
at ``MAX_WORD_CHARACTERS``, and no piece grows beyond such a cut; encoding knows no such cuts.

In: texts. Out: a tokenizer, a pure function of the texts, their order and the settings.
"""

import contextlib
import json
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any, Protocol

import numpy as np
import regex
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from yanmo.core.commands import install_command
from yanmo.core.errors import DataError, TokenizerError
from yanmo.settings.schema import TokenizerConfig
from yanmo.tokenizer.base import CHAT_TOKENS, END_OF_TEXT, Tokenizer
from yanmo.tokenizer.char import BYTES, CharTokenizer, count_characters
from yanmo.tokenizer.library import LibraryTokenizer, byte_letters
from yanmo.tokenizer.sample import Reservoir
from yanmo.tokenizer.spec import NEVER, SPACE, bpe_model, sequence, tokenizer_json
from yanmo.tokenizer.splits import GPT2, byte_level, split_step

USUAL_VOCAB_SIZE = 32_000
MAX_WORD_CHARACTERS = 8
"""Chinese characters in one piece at most."""
HAN_RUN = rf"\p{{Han}}{{1,{MAX_WORD_CHARACTERS}}}"
UNUSUAL = re.compile(rf"[{SPACE}\t\n\r\0]|^\s+$")
"""Words that SentencePiece's lines of words cannot hold; they are written with other pieces."""
PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
"""Pieces in any case: without them a special token would be read out of the plain text that looks like it."""
COVERED_SHARE = 0.9995
"""Share of a text's characters that are tokens of their own; those beyond it are written as bytes."""
MIN_PAIR_TIMES = 2
"""A pair seen less often is not merged."""
SAMPLE_SEED = 1337
BYTES_PER_CHARACTER = 3


class TokenizerTrainer(Protocol):
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


def learner_for(config: TokenizerConfig, kind: str) -> TokenizerTrainer:
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
        self._min_count = config.min_count or 1  # a run made before there was one has all characters
        self._markers = special_tokens(config.chat_tokens, config.reserved_tokens)[1:]
        self._counts = count_characters("")

    def add(self, text: str) -> None:
        """Count the characters of a text."""
        count_characters(text, self._counts)

    def learn(self) -> CharTokenizer:
        """A token for each character that occurs often enough."""
        return CharTokenizer.train(self._counts, self.wanted, self._markers, self._min_count)

    def said(self) -> str:
        """Nothing: it is done."""
        return ""


class PieceLearner:
    """Keeps a sample, and learns pieces from it."""

    def __init__(self, config: TokenizerConfig, kind: str) -> None:
        self._kind = kind
        self._specials = special_tokens(config.chat_tokens, config.reserved_tokens)
        self.wanted = config.vocab_size or USUAL_VOCAB_SIZE
        if self.wanted < len(self._specials) + len(BYTES):
            raise TokenizerError(
                f"tokenizer.vocab_size={self.wanted} has no room for 256 bytes and"
                f" {len(self._specials)} special tokens",
                where="[tokenizer]",
                hint=f"choose at least {len(self._specials) + len(BYTES)}; {USUAL_VOCAB_SIZE} is usual",
            )
        self._sample = Reservoir((config.sample_mb << 20) // BYTES_PER_CHARACTER, SAMPLE_SEED)

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
    """End-of-text, the marks of a dialogue, and places kept for later, in the order of a vocabulary."""
    return [END_OF_TEXT, *(CHAT_TOKENS if chat else ()), *(f"<|reserved_{n}|>" for n in range(reserved))]


def learn_bpe(texts: Sequence[str], vocab_size: int, specials: Sequence[str]) -> LibraryTokenizer:
    """A byte BPE of at most ``vocab_size`` tokens: specials, the 256 bytes, and what is merged of them.

    Bytes are merged to the characters of the text first (but the rarest), then characters to words: so no
    token joins the end of one character to the beginning of another, and there is a third to learn from.
    """
    letters = sorted(byte_letters(), key=byte_letters().__getitem__)
    spelled = {
        character: "".join(letters[byte] for byte in character.encode()) for character in alphabet(texts)
    }
    # from bytes to characters by merges we write ourselves; from characters to words the library learns them
    building = building_merges(spelled.values())
    trainer = trainers.BpeTrainer(
        # what specials, bytes and building merges take is gone; its own alphabet the library counts in
        vocab_size=vocab_size - len(specials) - len(letters) - len(building) + len(spelled),
        min_frequency=MIN_PAIR_TIMES,
        show_progress=False,
        initial_alphabet=list(spelled),
        limit_alphabet=len(spelled),
    )
    steps = [pre_tokenizers.Split(tokenizers.Regex(GPT2), "isolated")]
    # words as encoding cuts them; runs of Chinese characters are cut besides
    learned = _learn(models.BPE(), steps, trainer, texts)["merges"]
    merges = [*building, *((_spell(left, spelled), _spell(right, spelled)) for left, right in learned)]
    # ids in the order of merging, specials and bytes first
    entries = [*specials, *letters, *("".join(pair) for pair in merges)]
    vocab = {entry: number for number, entry in enumerate(dict.fromkeys(entries))}
    return LibraryTokenizer(
        tokenizer_json(
            {special: vocab[special] for special in specials},
            bpe_model(vocab, [" ".join(pair) for pair in merges]),
            pre_tokenizer=byte_level(use_regex=True),
            decoder=byte_level(use_regex=True),
        ),
        END_OF_TEXT,
    )


def alphabet(texts: Sequence[str]) -> list[str]:
    """The most frequent characters that make up ``COVERED_SHARE`` of the texts, by their code points."""
    counts = count_characters("")
    for text in texts:
        count_characters(text, counts)
    # stable: equally frequent characters in the order of their code points
    by_frequency = np.argsort(-counts, kind="stable")
    covered = np.cumsum(counts[by_frequency])
    enough = int(np.searchsorted(covered, COVERED_SHARE * covered[-1])) + 1
    return [chr(code) for code in sorted(by_frequency[:enough].tolist())]


def building_merges(spellings: Iterable[str]) -> list[tuple[str, str]]:
    """The merges that build characters out of their bytes, from the left; shared beginnings once."""
    # three bytes a, b, c: first a+b, which other characters share, then ab+c
    steps = {(spelling[:end], spelling[end]) for spelling in spellings for end in range(1, len(spelling))}
    return sorted(steps, key=lambda step: (len(step[0]), step))


def _spell(text: str, spelled: Mapping[str, str]) -> str:
    return "".join(spelled[character] for character in text)


def learn_unigram(texts: Sequence[str], vocab_size: int, specials: Sequence[str]) -> LibraryTokenizer:
    """A unigram vocabulary of at most ``vocab_size`` tokens: specials, 256 bytes, pieces by probability.

    Learned by SentencePiece: the ``tokenizers`` library's result differs from one process to the next.
    """
    first, words = [*specials, *BYTES], count_words(texts)
    # SentencePiece drops words of blanks alone; those that occur are given the probability of their share
    blanks = {
        word: times
        for word, times in words.items()
        if word.isspace() and word != " " and times >= MIN_PAIR_TIMES
    }
    learned = _learn_pieces(
        (f"{word}\t{times}" for word, times in sorted(words.items()) if not UNUSUAL.search(word)),
        vocab_size - len(first) - len(blanks),
    )
    # its sign for a space is a plain space here, since nothing is escaped
    pieces = {piece.replace(SPACE, " "): score for piece, score in learned}
    pieces |= {word: math.log(times / words.total()) for word, times in blanks.items()}
    vocabulary = [[piece, score] for piece, score in pieces.items() if piece not in first]
    return LibraryTokenizer(
        tokenizer_json(
            {special: number for number, special in enumerate(specials)},
            {
                "type": "Unigram",
                "unk_id": 0,  # never given: every byte has a token
                "vocab": [*([token, NEVER] for token in first), *vocabulary],
                "byte_fallback": True,
            },
            pre_tokenizer=split_step(GPT2),
            decoder=sequence("decoders", [{"type": "ByteFallback"}, {"type": "Fuse"}]),
        ),
        END_OF_TEXT,
    )


def count_words(texts: Iterable[str]) -> Counter[str]:
    """What GPT-2's rule cuts, runs of Chinese characters cut again, and how often it occurs."""
    rule = regex.compile(rf"{HAN_RUN}|{GPT2}")
    words: Counter[str] = Counter()
    for text in texts:
        words.update(rule.findall(text))
    return words


def _learn_pieces(words: Iterable[str], vocab_size: int) -> list[tuple[str, float]]:
    """SentencePiece's pieces with their log probabilities."""
    try:
        import sentencepiece
    except ImportError as error:
        raise TokenizerError(
            "unigram vocabularies are learned by SentencePiece, which is not installed",
            where="tokenizer.kind=unigram",
            hint=install_command("unigram"),
        ) from error
    model = BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=words, input_format="tsv", model_writer=model, model_type="unigram",
            vocab_size=vocab_size + 1, hard_vocab_limit=False, character_coverage=COVERED_SHARE,
            required_chars=PRINTABLE + SPACE, max_sentencepiece_length=2 * MAX_WORD_CHARACTERS, num_threads=1,
            normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False,
            split_by_whitespace=False, split_by_unicode_script=False, split_by_number=False,
            shuffle_input_sentence=False, unk_id=0, bos_id=-1, eos_id=-1, pad_id=-1, minloglevel=3,
        )  # fmt: skip
        found = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    except (RuntimeError, OSError) as error:
        raise TokenizerError(
            f"tokenizer.vocab_size is too small, or the text too short: {' '.join(str(error).split())}",
            where="[tokenizer]",
            hint="choose a larger vocab_size, give more text, or choose tokenizer.kind=bpe",
        ) from error
    return [(found.id_to_piece(n), found.get_score(n)) for n in range(1, found.get_piece_size())]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keep the library from using several threads."""
    # the library looks at the environment and at nothing else
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        yield
    finally:
        del os.environ["TOKENIZERS_PARALLELISM"]
        if before is not None:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def _learn(model: Any, steps: Sequence[Any], trainer: Any, texts: Iterable[str]) -> dict[str, Any]:
    """The library's trained model, as in its JSON."""
    library = tokenizers.Tokenizer(model)
    word = tokenizers.Regex(HAN_RUN)
    library.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(word, "isolated"), *steps])
    with one_thread():  # no slower, with less memory, and sums of probabilities in one order
        library.train_from_iterator(texts, trainer)
    learned: dict[str, Any] = json.loads(library.to_str())["model"]
    return learned

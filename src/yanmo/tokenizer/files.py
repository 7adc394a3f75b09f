"""Vocabulary files, ours and other people's → a tokenizer with the ids of its maker.

In: a path. What it is is told by its name and content: a tokenizer.json or a folder with one, BERT's
vocab.txt, GPT-2's encoder.json with vocab.bpe (or vocab.json with merges.txt), a .tiktoken file, a
SentencePiece .model, nanoGPT's meta.pkl. Out: a :class:`Tokenizer`, which is saved as one tokenizer.json.
Nothing here runs what a file contains.
"""

import base64
import binascii
import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yanmo.core.errors import ConfigError, TokenizerError
from yanmo.settings.schema import TokenizerConfig
from yanmo.tokenizer.base import CHAT_TOKENS, END_OF_TEXT, Tokenizer
from yanmo.tokenizer.char import CharTokenizer
from yanmo.tokenizer.library import LibraryTokenizer, byte_letters
from yanmo.tokenizer.meta_pickle import read_meta
from yanmo.tokenizer.sentencepiece_model import read_sentencepiece
from yanmo.tokenizer.spec import added_token, bpe_model, sequence, tokenizer_json
from yanmo.tokenizer.splits import CL100K, GPT2, O200K, byte_level, split_step
from yanmo.tokenizer.wordpiece import Roles, WordPieceTokenizer, without_spaces

TIKTOKEN_FILES: dict[int, tuple[str, dict[str, int]]] = {
    50256: (GPT2, {END_OF_TEXT: 50256}),  # r50k_base
    50280: (GPT2, {END_OF_TEXT: 50256}),  # p50k_base
    100256: (
        CL100K,
        {
            END_OF_TEXT: 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
    199998: (O200K, {END_OF_TEXT: 199999, "<|endofprompt|>": 200018}),
}
"""Split rule and special tokens by the number of ranks: a .tiktoken file has neither."""
ENDS = (END_OF_TEXT, "</s>", "<|end_of_text|>", "<eos>", "<|im_end|>", "[SEP]")
"""What ends a text in vocabularies that do not say so."""
MERGES = {"encoder.json": "vocab.bpe", "vocab.json": "merges.txt"}
KINDS = (
    "vocab.txt, tokenizer.json, encoder.json with vocab.bpe, vocab.json with merges.txt, *.tiktoken, "
    "*.model (SentencePiece), meta.pkl, or a folder with one of them"
)
HALF = re.compile("[\ud800-\udfff]")
"""A surrogate without its other half."""
AGAIN = "take the file from its source again"
MAX_VOCABULARY_BYTES = 256 << 20
"""Bytes; no vocabulary is larger."""


def read_tokenizer(path: Path, config: TokenizerConfig) -> Tokenizer:
    """The tokenizer that a file or folder holds.

    Raises:
        ConfigError: there is none.
        TokenizerError: it is damaged, or of a kind that is not read.
    """
    file = _file_in(path) if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"there is no tokenizer at {path}", "tokenizer.path", f"name a {KINDS}")
    # before anything is read: a wrong path may name a file of weights
    if file.stat().st_size > MAX_VOCABULARY_BYTES:
        raise TokenizerError(
            f"{file.stat().st_size >> 20} MB are no vocabulary", str(file), f"name a {KINDS}"
        )
    return _reader(file)(file, config)


def _file_in(folder: Path) -> Path:
    """The file of a folder that says most."""
    names = ("tokenizer.json", *MERGES, "vocab.txt", "meta.pkl")
    found = [folder / name for name in names if (folder / name).is_file()]
    found += sorted([*folder.glob("*.tiktoken"), *folder.glob("*.model")])
    if not found:
        raise TokenizerError("the folder holds no tokenizer", str(folder), f"give a {KINDS}")
    return found[0]


def _reader(file: Path) -> Callable[[Path, TokenizerConfig], Tokenizer]:
    suffix = file.suffix.lower()
    if suffix == ".json":
        # a vocab.json has no model, it is a plain table of tokens
        return _read_tokenizer_json if isinstance(_json(file).get("model"), dict) else _read_gpt2
    readers = {".txt": _read_vocab_txt, ".bpe": _read_gpt2, ".tiktoken": _read_tiktoken}
    readers |= {".model": _read_sentencepiece, ".pkl": _read_meta}
    if file.name.endswith("merges.txt"):
        return _read_gpt2
    if suffix not in readers:
        raise TokenizerError(
            f"a tokenizer in a {suffix or 'nameless'} file is not read", str(file), f"name a {KINDS}"
        )
    return readers[suffix]


def _read_vocab_txt(file: Path, config: TokenizerConfig) -> Tokenizer:
    return read_vocabulary(file, Roles(config.newline_token, config.start_token, _end_of(config)))


def _end_of(config: TokenizerConfig) -> str:
    """The entry that ends a text: GPT2-Chinese's, where the usual one is a line end."""
    return config.end_token or ("[CLS]" if config.newline_token == Roles.end else Roles.end)


def read_vocabulary(file: Path, roles: Roles) -> WordPieceTokenizer:
    """A vocab.txt, with the tokens that were added beside it.

    Raises:
        TokenizerError: it cannot be read, lacks an entry, or does not belong to what is beside it.
    """
    return WordPieceTokenizer.from_vocabulary(file, roles, added_beside(file))


def added_beside(file: Path) -> list[tuple[str, int, bool]]:
    """Tokens that were added later, as files beside a vocabulary say: text, id, and whether it is special.

    transformers keeps them in added_tokens.json, since 4.34 in tokenizer_config.json; which of the former
    are special stands in special_tokens_map.json.
    """
    names = ("added_tokens.json", "tokenizer_config.json", "special_tokens_map.json")
    older, about, named = (_json_beside(file.with_name(name)) for name in names)
    # special: whatever any of these files names as a token with a part to play
    special = {_content(said) for said in (*_named_tokens(named), *_named_tokens(about))}
    found = {text: (number, text in special) for text, number in older.items()}
    try:
        for number, token in (about.get("added_tokens_decoder") or {}).items():
            found[token["content"]] = (int(number), bool(token.get("special")))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise TokenizerError(f"its added_tokens_decoder is damaged: {error!r}", str(file), AGAIN) from error
    if strange := [text for text, (n, _) in found.items() if type(n) is not int or n < 0 or not text]:
        raise TokenizerError(f"the token {strange[0]!r} was added with no id", str(file), AGAIN)
    if halves := [text for text in found if HALF.search(str(text))]:
        raise TokenizerError(f"the token {halves[0]!r} holds half a character", str(file), AGAIN)
    return [(text, number, is_special) for text, (number, is_special) in found.items()]


def _json_beside(file: Path) -> dict[str, Any]:
    """What a file says that may be missing; or torn, if it is tokenizer_config.json."""
    with contextlib.suppress(*([TokenizerError] if file.name == "tokenizer_config.json" else [])):
        return _json(file) if file.is_file() else {}
    return {}


def _named_tokens(about: dict[str, Any]) -> list[Any]:
    """Whatever a file names as a token with a part to play."""
    more = [about.get(key) for key in ("additional_special_tokens", "extra_special_tokens")]
    lists = [list(m.values()) if isinstance(m, dict) else m for m in more]
    alone = [value for key, value in about.items() if key.endswith("_token")]
    return [*alone, *(token for m in lists if isinstance(m, list) for token in m)]


def _content(said: Any) -> str:
    """A token's text, which may stand in a record of its own."""
    said = said.get("content") if isinstance(said, dict) else said
    return said if isinstance(said, str) else ""


def _read_tokenizer_json(file: Path, config: TokenizerConfig) -> Tokenizer:
    """Ours, or a Hugging Face file: of that, what would shorten, pad or frame a text is taken out."""
    spec = {**_json(file), "truncation": None, "padding": None, "post_processor": None}
    model = spec["model"]
    beside = file.with_name("tokenizer_config.json")
    about = _json(beside) if beside.is_file() else {}
    if model.get("type") == "WordPiece" and "line_end" in about:
        return WordPieceTokenizer.from_json(spec, about, file)
    spec["added_tokens"] = _with_added(spec, added_beside(file))
    # without merges there are only the characters themselves
    if model.get("type") == "BPE" and not model.get("merges"):
        with contextlib.suppress(TokenizerError):  # somebody else's character vocabulary
            return CharTokenizer.from_json(spec, file)
    if model.get("type") == "WordPiece":
        spec["decoder"] = without_spaces("A-Za-z")
    said, begin = (_content(about.get(name)) for name in ("eos_token", "bos_token"))
    # where dialogues were learned the end of a turn stands there, and no text ends with one; what ends a
    # text also begins one, if we wrote the file
    if begin in ENDS:
        said = begin
    elif said == CHAT_TOKENS[1] and END_OF_TEXT in _contents(spec):
        said = END_OF_TEXT
    return LibraryTokenizer(spec, config.end_token or said or _usual_end(spec), str(file))


def _with_added(spec: dict[str, Any], beside: list[tuple[str, int, bool]]) -> Any:
    """The added tokens of a tokenizer.json, and those that stand only beside it."""
    given = spec.get("added_tokens") or []
    if not isinstance(given, list) or not all(isinstance(token, dict) for token in given):
        return given  # damaged: said where it is read
    known = {token.get("content") for token in given}
    return [*given, *(added_token(*token) for token in beside if token[0] not in known)]


def _usual_end(spec: dict[str, Any]) -> str:
    """The token that ends a text by its name, where the file does not say so; or nothing."""
    contents = _contents(spec)
    return next((end for end in ENDS if end in contents), "")


def _contents(spec: dict[str, Any]) -> set[Any]:
    """The added tokens."""
    return {token.get("content") for token in spec.get("added_tokens") or [] if isinstance(token, dict)}


def _read_gpt2(file: Path, config: TokenizerConfig) -> Tokenizer:
    """encoder.json and vocab.bpe, under any name they share a beginning with."""
    vocabulary, merges = _pair(file)
    pairs = []
    for number, line in enumerate(_text(merges).split("\n"), 1):
        # GPT-2's file begins with its version
        if line and not (number == 1 and line.startswith("#version")):
            if line.count(" ") != 1:
                raise TokenizerError(f"line {number} is not two pieces", str(merges), AGAIN)
            pairs.append(line)
    vocab = _json(vocabulary)
    beside = added_beside(vocabulary)
    end = config.end_token or END_OF_TEXT
    specials = {end: vocab[end]} if end in vocab else {}
    spec = _byte_bpe(vocab, pairs, GPT2, specials)
    spec["added_tokens"] = _with_added(spec, beside)
    return LibraryTokenizer(spec, end, str(vocabulary))


def _pair(file: Path) -> tuple[Path, Path]:
    for left, right in MERGES.items():
        for name, other in ((left, right), (right, left)):
            if file.name.endswith(name):
                partner = file.with_name(file.name.removesuffix(name) + other)
                if not partner.is_file():
                    raise TokenizerError(
                        f"{partner.name} is missing beside it", str(file), "put both into one folder"
                    )
                return (file, partner) if name == left else (partner, file)
    raise TokenizerError("this JSON is no tokenizer", str(file), f"name a {KINDS}")


def _read_tiktoken(file: Path, config: TokenizerConfig) -> Tokenizer:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(_text(file).splitlines(), 1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise TokenizerError(
                f"line {number} is not a token in base64 and its rank", str(file), AGAIN
            ) from error
    # the rule that cuts text stands in no file: a wrong guess would give other tokens without a word
    if len(ranks) not in TIKTOKEN_FILES:
        raise TokenizerError(
            f"a .tiktoken file of {len(ranks):,} tokens is not known, and it does not say how it cuts text",
            str(file),
            "known are r50k_base, p50k_base, cl100k_base and o200k_base; of others import the tokenizer.json",
        )
    rule, specials = TIKTOKEN_FILES[len(ranks)]
    # bytes are written as GPT-2's letters in a tokenizer.json
    letter = {value: letter for letter, value in byte_letters().items()}
    vocab = {"".join(letter[value] for value in token): rank for token, rank in ranks.items()}
    return LibraryTokenizer(
        _byte_bpe(vocab | specials, all_merges(vocab), rule, specials),
        config.end_token or END_OF_TEXT,
        str(file),
    )


def all_merges(ranks: dict[str, int]) -> list[str]:
    """Every way to put a token together from two others, in the order of the tokens' ranks.

    tiktoken merges any two neighbours that together are a token; a list of merges says the same only if
    it has them all.
    """
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        halves = [(token[:at], token[at:]) for at in range(1, len(token))]
        known = [(left, right) for left, right in halves if left in ranks and right in ranks]
        # the pair that was there first is merged first, as tiktoken does
        known.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += [f"{left} {right}" for left, right in known]
    return merges


def _read_sentencepiece(file: Path, config: TokenizerConfig) -> Tokenizer:
    spec, ends = read_sentencepiece(_bytes(file), str(file))
    return LibraryTokenizer(spec, config.end_token or ends, str(file))


def _read_meta(file: Path, config: TokenizerConfig) -> Tokenizer:
    return CharTokenizer(read_meta(_bytes(file), str(file)), characters_first=True)


def _byte_bpe(
    vocab: dict[str, int], merges: list[str], rule: str, specials: dict[str, int]
) -> dict[str, Any]:
    steps = [byte_level(use_regex=True)]
    if rule != GPT2:
        steps = [split_step(rule), byte_level(use_regex=False)]
    return tokenizer_json(
        specials,
        bpe_model(vocab, merges),
        pre_tokenizer=steps[0] if len(steps) == 1 else sequence("pretokenizers", steps),
        decoder=byte_level(use_regex=True),
    )


# -- reading ----------------------------------------------------------------------------------


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise TokenizerError(
            f"it cannot be read: {error.strerror}", str(file), "check its permissions"
        ) from error


def _text(file: Path) -> str:
    try:
        return _bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"it is no UTF-8 text: {error}", str(file), AGAIN) from error


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(file))
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"it is no whole JSON: {error}", str(file), AGAIN) from error
    if not isinstance(value, dict):
        raise TokenizerError("it is JSON, but no tokenizer", str(file), f"name a {KINDS}")
    return value

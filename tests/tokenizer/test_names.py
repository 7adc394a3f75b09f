"""Names of tokens: what a server calls them."""

from collections.abc import Callable

import pytest

from tests.makers.models import bpe_tokenizer, char_tokenizer, unigram_tokenizer, wordpiece_tokenizer
from yanmo.tokenizer import Tokenizer
from yanmo.tokenizer.char import CharTokenizer
from yanmo.tokenizer.names import token_names

MAKERS: list[Callable[[], Tokenizer]] = [
    char_tokenizer, bpe_tokenizer, unigram_tokenizer, wordpiece_tokenizer,
]  # fmt: skip


@pytest.mark.parametrize("make", MAKERS)
def test_every_token_has_a_name_of_its_own(make: Callable[[], Tokenizer]) -> None:
    names = token_names(make())
    assert len(set(names)) == len(names) and all(names)


@pytest.mark.parametrize("make", MAKERS[:3])
def test_names_of_tokens_joined_are_their_text_where_no_bytes_are_in_it(
    make: Callable[[], Tokenizer],
) -> None:
    tokenizer = make()
    names, read = token_names(tokenizer), 0
    for text in ("江湖", "夜雨。\n江湖", "a b", "江 湖\n\n夜", "雨", " ", "\n"):
        named = [names[token] for token in tokenizer.encode(text)]
        is_spelled = any(name.startswith("bytes:") for name in named)
        read += not is_spelled
        assert is_spelled or "".join(named) == text
    assert read


def test_a_character_is_called_by_itself_and_its_byte_by_the_byte() -> None:
    tokenizer = CharTokenizer("\n a江")
    names = token_names(tokenizer)
    assert [names[token] for token in tokenizer.encode("a 江\n")] == ["a", " ", "江", "\n"]
    assert {"bytes:\\x0a", "bytes:\\x20", "bytes:\\x61", "b"} <= set(names)  # no other token writes a b

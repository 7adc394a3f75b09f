"""A name for each token of a vocabulary, all of them different: keys of a server's probabilities.

In: a tokenizer. Out: ``江``, `` the``, ``bytes:\\xe6`` for what is no whole character, ``<|endoftext|>``.
"""

from yanmo.tokenizer.base import Tokenizer
from yanmo.tokenizer.char import BYTES


def token_names(tokenizer: Tokenizer) -> list[str]:
    """The name of each id (V,): the characters that it writes, where no other token has them.

    A character that is a token is called by itself, and the byte token that could write it by its byte.
    """
    plain = [_name(tokenizer, token) for token in range(tokenizer.vocab_size)]
    spelled = [tokenizer.spelling(token) for token in range(tokenizer.vocab_size)]
    owners: dict[str, int] = {}
    for token in sorted(range(tokenizer.vocab_size), key=lambda token: spelled[token] in BYTES):
        owners.setdefault(plain[token], token)
    names = [name if name and owners[name] == token else "" for token, name in enumerate(plain)]
    taken = set(names)
    for token in (token for token, name in enumerate(names) if not name):
        raw = (tokenizer.bytes_of(token) or b"") if spelled[token] in BYTES else b""
        # the last of them where somebody's vocabulary spells another token so
        ways = (of_bytes(raw) if raw else "", spelled[token], f"token:{token}", f"token:{token}:{token}")
        names[token] = next(name for name in ways if name not in taken)
        taken.add(names[token])
    return names


def _name(tokenizer: Tokenizer, token: int) -> str:
    """What a token writes; its bytes where they are no characters."""
    raw = tokenizer.bytes_of(token)
    if raw is None:
        return tokenizer.decode([token])
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return of_bytes(raw)


def of_bytes(raw: bytes) -> str:
    """Bytes that are no characters, or not called by them."""
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)

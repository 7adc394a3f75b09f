"""A name for each token of a vocabulary, all of them different: keys of a server's probabilities.

In: a tokenizer. Out: ``江``, `` the``, ``bytes:\\xe6`` for what is no whole character, ``<|endoftext|>``.
"""

from yanmo.tokenizer.base import Tokenizer


def token_names(tokenizer: Tokenizer) -> list[str]:
    """The name of each id (V,): the characters that it writes, where no other token has them."""
    names: list[str] = []
    taken: set[str] = set()
    for token in range(tokenizer.vocab_size):
        for name in (_name(tokenizer, token), tokenizer.spelling(token), f"token:{token}"):
            if name and name not in taken:
                taken.add(name)
                names.append(name)
                break
        else:  # somebody's vocabulary spells another token so
            names.append(f"token:{token}:{token}")
    return names


def _name(tokenizer: Tokenizer, token: int) -> str:
    """What a token writes; its bytes where they are no characters."""
    raw = tokenizer.bytes_of(token)
    if raw is None:
        return tokenizer.decode([token])
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)

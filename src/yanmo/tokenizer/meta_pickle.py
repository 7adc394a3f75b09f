"""nanoGPT's meta.pkl → its characters, without running anything.

A pickle is a small program. Only the instructions that build dictionaries of strings and whole numbers
are followed here; ``pickletools`` reads them, nothing is imported or called, and any other instruction
is refused by name.
"""

import pickletools
from typing import Any

from yanmo.core.errors import TokenizerError

VALUES = {
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BININT", "BININT1", "BININT2", "INT",
    "LONG", "LONG1",
}  # fmt: skip
IGNORED = {"PROTO", "FRAME"}
MARK = object()


def read_meta(data: bytes, where: str) -> list[str]:
    """The characters of a meta.pkl by their ids.

    Raises:
        TokenizerError: it is damaged, or holds anything but plain dictionaries.
    """
    hint = "nanoGPT's prepare.py writes it; write your own vocabulary as a text file if this is another one"
    try:
        meta = _follow(data)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise TokenizerError(f"it is no meta.pkl of nanoGPT: {error}", where, hint) from error
    itos = meta.get("itos") if isinstance(meta, dict) else None
    # ids without a gap, or the embedding would have rows that mean nothing
    if not isinstance(itos, dict) or set(itos) != {*range(len(itos))} or not itos:
        raise TokenizerError("it has no table 'itos' of characters by id", where, hint)
    characters = [itos[number] for number in range(len(itos))]
    if any(not isinstance(c, str) or len(c) != 1 or "\ud800" <= c <= "\udfff" for c in characters) or len(
        {*characters}
    ) < len(itos):
        raise TokenizerError("'itos' holds something that is not one character, or one twice", where, hint)
    return characters


def _follow(data: bytes) -> Any:
    """The value that a pickle of dictionaries, strings and numbers stands for."""
    stack: list[Any] = []
    memory: dict[int, Any] = {}
    argument: Any
    for opcode, argument, position in pickletools.genops(data):
        name = opcode.name
        if name in VALUES:
            stack.append(argument)
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "MARK":
            stack.append(MARK)
        # the memory is what a pickle refers back to: equal texts are stored once
        elif name == "MEMOIZE":
            memory[len(memory)] = stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memory[int(argument)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memory[int(argument)])
        elif name == "SETITEM":
            key, value = stack[-2:]
            del stack[-2:]
            stack[-1][key] = value
        elif name == "SETITEMS":
            # the innermost mark: dictionaries may lie in dictionaries
            mark = max(place for place, value in enumerate(stack) if value is MARK)
            items = stack[mark + 1 :]
            del stack[mark:]
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        elif name == "STOP":
            return stack.pop()
        elif name not in IGNORED:
            raise ValueError(f"instruction {name} at byte {position} does more than hold a table")
    raise ValueError("it ends too early")

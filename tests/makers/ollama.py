"""How Ollama reads: names of models (types/model/name.go) and Modelfiles (parser/parser.go), told again."""

import re


def is_valid_name(name: str) -> bool:
    """A model's name alone, without host, namespace and tag; two dots in a row were refused until 2024."""
    return bool(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}", name)) and ".." not in name


def read_modelfile(text: str) -> list[tuple[str, str]]:
    """Commands and what they say, character by character.

    Raises:
        ValueError: it is none.
    """
    found: list[tuple[str, str]] = []
    state, name, buffer = "nothing", "", ""
    for letter in f"{text}\n":
        if state == "nothing":
            if not letter.isspace():
                state, buffer = ("comment", "") if letter == "#" else ("name", letter)
        elif state == "comment":
            state = "nothing" if letter in "\r\n" else state
        elif state in ("name", "parameter"):
            if letter in " \t":
                state, name = _after(state, buffer)
                buffer = ""
            elif letter.isascii() and (letter.isalnum() or letter == "_"):
                buffer += letter
            else:
                raise ValueError(f"{buffer}{letter}")
        else:
            value = _unquoted(buffer.strip())
            if letter in "\r\n" and value is not None:
                found.append((name, value))
                state, buffer = "nothing", ""
            elif letter in " \t\r\n" or letter.isprintable():
                buffer += letter
    if state != "nothing" or not any(name == "model" for name, _ in found):
        raise ValueError(f"unexpected end in {buffer!r}")
    return found


def _after(state: str, word: str) -> tuple[str, str]:
    if state == "parameter":
        return "value", word
    if word.lower() not in ("from", "parameter", "template", "system", "license", "adapter", "message"):
        raise ValueError(f"no command {word}")
    return ("parameter" if word.lower() == "parameter" else "value"), {"from": "model"}.get(
        word.lower(), word.lower()
    )


def _unquoted(text: str) -> str | None:
    for fence in ('"""', '"'):
        if text.startswith(fence):
            return (
                text[len(fence) : -len(fence)]
                if text.endswith(fence) and len(text) >= 2 * len(fence)
                else None
            )
    return text

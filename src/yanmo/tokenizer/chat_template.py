"""A model's chat template: a dialogue → the ids that the model was taught to answer after.

In: the template that lies in a model folder, and messages. Out: ids, and the token that ends a turn.
A template is code of others, so it runs in jinja2's sandbox, which lets it read values and change nothing.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from yanmo.core.errors import ConfigError
from yanmo.tokenizer.base import CHAT, Tokenizer

MAX_TEMPLATE_BYTES = 1 << 20
FIRST_GUARD = 0xE000
"""Code points of private use begin here: one that no message has breaks what looks like a marker."""
Message = Mapping[str, Any]


def read_chat_template(model_folder: Path) -> str | None:
    """The template of a model folder, from its own file or tokenizer_config.json; None: it has none."""
    try:
        file = model_folder / CHAT
        if file.is_file() and file.stat().st_size <= MAX_TEMPLATE_BYTES:
            return file.read_text(encoding="utf-8")
        said = json.loads((model_folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    template = said.get("chat_template") if isinstance(said, dict) else None
    return template if isinstance(template, str) and len(template) <= MAX_TEMPLATE_BYTES else None


class ChatTemplate:
    """Renders dialogues as a template says, and encodes its markers, but none that a message spells."""

    def __init__(self, text: str, tokenizer: Tokenizer) -> None:
        """
        Raises:
            ConfigError: the template cannot be read, or cannot render a dialogue.
        """
        self.tokenizer = tokenizer
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals |= {"raise_exception": _refuse, "strftime_now": _now}
        environment.filters["tojson"] = _as_json
        self._markers = sorted(_special_texts(tokenizer), key=len, reverse=True)
        with _template_errors():
            self._template = environment.from_string(text)
        self.end_of_turn = self._end_of_turn()
        """The id that ends an answer; None: end-of-text does."""

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """The ids of a dialogue, up to where its answer begins.

        Raises:
            ConfigError: the template refuses these messages.
        """
        guard = _guard_for(messages)
        safe = [
            dict(one) | {"content": self._broken(str(one.get("content") or ""), guard)} for one in messages
        ]
        # a marker that a message spells is cut in two here, and its parts are text
        parts = self._render(safe, add_generation_prompt=True).split(guard)
        return [int(token) for part in parts for token in self.tokenizer.encode(part, special=True)]

    def _broken(self, text: str, guard: str) -> str:
        """A message with the guard inside whatever looks like a marker."""
        for marker in self._markers:
            text = text.replace(marker, marker[:1] + guard + marker[1:])
        return text

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        end = self.tokenizer.spelling(self.tokenizer.end_of_text)
        with _template_errors():
            return self._template.render(
                messages=messages,
                add_generation_prompt=add_generation_prompt,
                bos_token=end,
                eos_token=end,
                tools=None,
                documents=None,
            )

    def _end_of_turn(self) -> int | None:
        """The first marker behind an answer, in a dialogue of one question."""
        question, answer = {"role": "user", "content": "甲"}, {"role": "assistant", "content": "乙"}
        _, _, behind = self._render([question, answer], add_generation_prompt=False).rpartition("乙")
        markers = set(self.tokenizer.suppressed)
        ids = (int(token) for token in self.tokenizer.encode(behind, special=True))
        return next((token for token in ids if token in markers), None)


def _special_texts(tokenizer: Tokenizer) -> list[str]:
    """What is written for the tokens that stand for no text."""
    special = (*tokenizer.suppressed, tokenizer.end_of_text)
    return [spelling for token in special if (spelling := tokenizer.spelling(token))]


def _guard_for(messages: Sequence[Message]) -> str:
    """A character that no message has."""
    there = {character for one in messages for character in str(one.get("content") or "")}
    return next(chr(code) for code in range(FIRST_GUARD, 0x110000) if chr(code) not in there)


@contextmanager
def _template_errors() -> Iterator[None]:
    """What a template can raise, as a mistake that the caller can mend."""
    try:
        yield
    except (TemplateError, ArithmeticError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise ConfigError(
            f"the model's chat template cannot render these messages: {error}",
            where="messages",
            hint="give messages with a role (system, user, assistant) and a content, in the usual order",
        ) from error


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _as_json(value: object, indent: int | None = None, **_: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)

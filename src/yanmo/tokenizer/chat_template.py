"""A model's chat template: a dialogue → ids, for an answer and for learning to answer.

In: the template that lies in a model folder, or ours (``chatml.jinja``), and messages. Out: ids, which of
them the model is to write, and the token that ends a turn. A template is code of others, so it runs in
jinja2's sandbox, which lets it read values and change nothing.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from yanmo.core.errors import ConfigError
from yanmo.tokenizer.base import CHAT, CHAT_TOKENS, Tokenizer

MAX_TEMPLATE_BYTES = 1 << 20
FIRST_GUARD = 0xE000
"""Code points of private use begin here: one that no message has breaks what looks like a marker."""
WITHOUT_TEMPLATE = "delete the template from a copy of the model: it then learns yanmo's own (ChatML)"
Message = Mapping[str, Any]
CHATML = (Path(__file__).parent / "chatml.jinja").read_text(encoding="utf-8")
"""The template of what learns dialogues here and has none."""


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


def with_chat(tokenizer: Tokenizer, template: str | None) -> tuple[Tokenizer, str]:
    """A tokenizer that can write dialogues, and their template: ``template``, or ours.

    Ours needs its markers as tokens; those that are missing come behind the last id.
    """
    if template is not None:
        return tokenizer, template
    missing = [marker for marker in CHAT_TOKENS if len(tokenizer.encode(marker, special=True)) != 1]
    return tokenizer.with_markers(missing) if missing else tokenizer, CHATML


class OtherRenderingError(ConfigError):
    """A template that renders an answer another way than it asks for it, such as one with thoughts."""


class GenerationMarks(Extension):
    """``{% generation %}`` marks answers for other trainers; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """What stands between the marks."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """Renders dialogues as a template says, and encodes its markers, but none that a message spells."""

    def __init__(self, text: str, tokenizer: Tokenizer) -> None:
        """
        Raises:
            ConfigError: the template cannot be read, or cannot render a dialogue.
        """
        self.text, self.tokenizer = text, tokenizer
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", GenerationMarks]
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
        return self._ids(self._render(self._safe(messages, guard), add_generation_prompt=True), guard)

    def encode_learned(
        self, messages: Sequence[Message], only_last: bool = False
    ) -> tuple[list[int], list[bool]]:
        """The ids of a whole dialogue, and which of them the model is to write.

        That is every answer with the end of its turn, or the last one. Each is encoded by itself, as it will
        be written.

        Raises:
            OtherRenderingError: an answer is not written where the template asks for it.
            ConfigError: the template refuses these messages, or an answer has no end in it.
        """
        guard = _guard_for(messages)
        safe = self._safe(messages, guard)
        whole, ids, learned, place = self._render(safe, add_generation_prompt=False), list[int](), [], 0
        answers = [number for number, one in enumerate(messages) if one["role"] == "assistant"]
        for number in answers[-1:] if only_last else answers:
            before = self._render(safe[:number], add_generation_prompt=True)
            if not whole.startswith(before):
                raise OtherRenderingError(
                    "the model's chat template does not write an answer where it asks for one",
                    where="chat_template.jinja",
                    hint=WITHOUT_TEMPLATE,
                )
            # no message can spell the marker, so the first one from here on ends this answer
            end = whole.find(self.end_marker, len(before)) + len(self.end_marker)
            if end < len(before):
                raise ConfigError(
                    "the model's chat template does not end an answer",
                    "chat_template.jinja",
                    WITHOUT_TEMPLATE,
                )
            for text, is_learned in ((whole[place : len(before)], False), (whole[len(before) : end], True)):
                found = self._ids(text, guard)
                ids += found
                learned += [is_learned] * len(found)
            place = end
        rest = self._ids(whole[place:], guard)
        return ids + rest, learned + [False] * len(rest)

    @property
    def end_marker(self) -> str:
        """What ends an answer, as the template writes it."""
        end = self.tokenizer.end_of_text if self.end_of_turn is None else self.end_of_turn
        return self.tokenizer.spelling(end)

    def _safe(self, messages: Sequence[Message], guard: str) -> list[dict[str, Any]]:
        """The messages, with the guard inside whatever looks like a marker."""
        return [
            dict(one) | {name: self._broken(text, guard) for name, text in _texts_of(one).items()}
            for one in messages
        ]

    def _ids(self, rendered: str, guard: str) -> list[int]:
        # a marker that a message spells is cut in two here, and its parts are text
        parts = rendered.split(guard)
        return [token for part in parts for token in self.tokenizer.encode(part, special=True).tolist()]

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
                enable_thinking=False,  # of templates that know it: an answer, and no thoughts before it
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


def end_of_turn_in(template: str | None, tokenizer: Tokenizer) -> int | None:
    """The id that ends an answer in a template; None: there is no template, or it cannot be used."""
    if template is None:
        return None
    try:
        return ChatTemplate(template, tokenizer).end_of_turn
    except ConfigError:  # said when it is used
        return None


def _special_texts(tokenizer: Tokenizer) -> list[str]:
    """What is written for the tokens that stand for no text."""
    special = (*tokenizer.suppressed, tokenizer.end_of_text)
    return [spelling for token in special if (spelling := tokenizer.spelling(token))]


def _texts_of(message: Message) -> dict[str, str]:
    """What of a message a template writes."""
    return {name: str(message.get(name) or "") for name in ("role", "content")}


def _guard_for(messages: Sequence[Message]) -> str:
    """A character that no message has."""
    there = {character for one in messages for text in _texts_of(one).values() for character in text}
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

"""One value of a data set → a dialogue or a pair of answers, recognised by its keys.

In: what a line of .jsonl, an entry of .json or a row of a table holds. Out: :class:`Dialogue` or
:class:`Pair`, or :class:`Malformed` with its reason. Known are lists of messages in the keys of OpenAI and of
ShareGPT, a question and an answer by any of their usual names (Alpaca, prompt and completion, 问 and 答), and
either of these with ``chosen`` and ``rejected``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

from yanmo.text.read.encodings import remove_controls, unify_line_ends
from yanmo.text.read.records import field_names, kind_name

Role = Literal["system", "user", "assistant"]
Shape = Literal["dialogues", "pairs"]

TURNS = ("messages", "conversations", "conversation")
ROLE_KEYS = ("role", "from")
CONTENT_KEYS = ("content", "value")
QUESTIONS = ("instruction", "prompt", "question", "query", "ask", "q", "input", "问题", "提问", "问")
ANSWERS = ("output", "completion", "response", "answer", "a", "回答", "答案", "答")
"""Names of a question and of its answer; of several that a record has, the first in this order."""
BESIDE_QUESTION = ("input", "context")
"""What a question is about: it follows the question on a line of its own."""
SYSTEMS = ("system", "system_prompt")
ROLES: Mapping[str, Role] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model"), "assistant"),
}
TOOLS = frozenset(["tool", "function", "observation", "function_call", "tool_call", "tool_response"])
TOOL_KEYS = ("tool_calls", "function_call")
MAX_MESSAGES = 1000
"""A longer list of messages is a log of something."""
SHOWN_CHARACTERS = 40
"""Characters of a role that is not known, in a sentence."""

NOT_AN_OBJECT = "not an object"
NO_FIELDS = "no known fields"
NOT_TEXT = "not text"
UNKNOWN_ROLE = "unknown role"
TOOL_CALLS = "tool calls"
TOO_MANY = "too many messages"
EMPTY_QUESTION = "empty question"
EMPTY_ANSWER = "empty answer"
NO_QUESTION = "no question"
NO_ANSWER = "no answer"
TWO_ANSWERS = "two answers in a row"
LATE_SYSTEM = "system message inside"
NOT_ONE_ANSWER = "not one answer to choose"
SAME_ANSWERS = "chosen equals rejected"

JOINED = "user messages joined"
OPENING_CUT = "opening answer cut"
UNANSWERED_CUT = "unanswered end cut"
"""What is changed of a dialogue that is kept."""

MENDS = {
    NOT_AN_OBJECT: 'a record is an object such as {"question": "…", "answer": "…"}',
    NO_FIELDS: 'name the fields as in {"messages": [{"role": "user", "content": "…"}, …]} or'
    ' {"question": "…", "answer": "…"}; the first row of a table has the names of its columns',
    NOT_TEXT: "write what is said as a string",
    UNKNOWN_ROLE: "name the roles system, user and assistant (or human and gpt)",
    TOOL_CALLS: "leave out dialogues with calls of tools",
    TOO_MANY: f"cut it into dialogues of at most {MAX_MESSAGES:,} messages",
    EMPTY_QUESTION: "write the questions, or leave these records out",
    EMPTY_ANSWER: "write the answers, or leave these records out",
    NO_QUESTION: 'put what is asked before the answers: "prompt", or messages of the user',
    NO_ANSWER: "end each dialogue with an answer of the assistant",
    TWO_ANSWERS: "join answers that follow one another, or put between them what the user says",
    LATE_SYSTEM: "put the system message first, once",
    NOT_ONE_ANSWER: "let chosen and rejected be one answer each, to the same messages",
    SAME_ANSWERS: "leave out pairs that have nothing to choose",
}
"""How each is mended."""


@dataclass(frozen=True)
class Message:
    """What one side says."""

    role: Role
    content: str


@dataclass(frozen=True)
class Dialogue:
    """Perhaps a system message, then user and assistant in turns; an answer is last."""

    messages: tuple[Message, ...]
    where: str
    """``kdconv.jsonl:17``: the line; of .json and .parquet ``faq.json#17``, the entry."""
    changes: tuple[str, ...] = ()
    """What was changed to make it one."""


@dataclass(frozen=True)
class Pair:
    """Two answers to the same messages, or two continuations of the same text."""

    prompt: tuple[Message, ...] | str
    """A string is a text that both continue, as it stands."""
    chosen: str
    rejected: str
    where: str
    changes: tuple[str, ...] = ()


class Malformed(Exception):
    """A value that is neither: the reason it is counted under, and what is wrong in this case."""

    def __init__(self, reason: str, why: str = "") -> None:
        super().__init__(why or reason)
        self.reason = reason


def shape_of(value: Any) -> Shape | None:
    """What a value looks like, by its keys alone."""
    if not isinstance(value, dict):
        return "dialogues" if _is_messages(value) else None
    fields = _fields(value)
    if fields.keys() >= {"chosen", "rejected"}:
        return "pairs"
    is_dialogue = _first(fields, TURNS) or (_first(fields, QUESTIONS) and _first(fields, ANSWERS))
    return "dialogues" if is_dialogue else None


def read_value(value: Any, where: str) -> Dialogue | Pair:
    """The dialogue or the pair that a value is.

    Raises:
        Malformed: it is neither.
    """
    if _is_messages(value):
        value = {"messages": value}
    if not isinstance(value, dict):
        raise Malformed(NOT_AN_OBJECT, f"{kind_name(value)}, not an object")
    fields = _fields(value)
    match shape_of(value):
        case "pairs":
            return _pair(fields, where)
        case "dialogues":
            messages, changes = in_turns([*_asked(fields), *_answer(fields)])
            return Dialogue(tuple(messages), where, changes)
    raise Malformed(NO_FIELDS, f"there is {field_names(value)}")


# -- fields -----------------------------------------------------------------------------------


def _fields(value: dict[str, Any]) -> dict[str, Any]:
    """The fields by their names in small letters; what is null is not there."""
    return {str(name).strip().lower(): item for name, item in value.items() if item is not None}


def _first(fields: Mapping[str, Any], names: Sequence[str]) -> str:
    return next((name for name in names if name in fields), "")


def _is_messages(value: Any) -> bool:
    """Whether a value is a bare list of messages."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(v, dict) and _first(v, ROLE_KEYS) for v in value)
    )


def _asked(fields: Mapping[str, Any]) -> list[Message]:
    """The system message and all messages of a record, or its history and question."""
    if name := _first(fields, TURNS):
        messages = _said(fields[name], "user", name)
    elif name := _first(fields, QUESTIONS):
        messages = [*_history(fields.get("history", [])), *_question(fields, name)]
    else:
        messages = []
    system = [m for name in SYSTEMS if name in fields for m in _said(fields[name], "system", name)]
    return messages if any(m.role == "system" for m in messages) else [*system[:1], *messages]


def _question(fields: Mapping[str, Any], name: str) -> list[Message]:
    """The question, and below it what it is about."""
    if not isinstance(fields[name], str):
        return _said(fields[name], "user", name)
    parts = [
        _text(fields[part], part)
        for part in (name, *(p for p in BESIDE_QUESTION if p != name and p in fields))
    ]
    return [Message("user", "\n".join(filter(None, parts)))]


def _history(rounds: Any) -> list[Message]:
    """Earlier questions with their answers, ``[[q, a], …]``."""
    if not isinstance(rounds, list) or any(not isinstance(r, list) or len(r) != 2 for r in rounds):
        raise Malformed(NOT_TEXT, "'history' is not a list of [question, answer]")
    sides: tuple[Role, Role] = ("user", "assistant")
    return [
        Message(side, _text(said, "history"))
        for both in rounds
        for side, said in zip(sides, both, strict=True)
    ]


def _answer(fields: Mapping[str, Any]) -> list[Message]:
    name = "" if _first(fields, TURNS) else _first(fields, ANSWERS)
    return _said(fields[name], "assistant", name) if name else []


def _said(value: Any, role: Role, name: str) -> list[Message]:
    """The messages of a field: a text of that role, a list of messages, or a single one."""
    if isinstance(value, str) and name not in TURNS:
        return [Message(role, _text(value, name))]
    turns = [value] if isinstance(value, dict) else value
    if not isinstance(turns, list):
        raise Malformed(NOT_TEXT, f"'{name}' is {kind_name(value)}")
    if len(turns) > MAX_MESSAGES:
        raise Malformed(TOO_MANY, f"{len(turns):,} messages")
    return [_message(turn, f"{name} {number}") for number, turn in enumerate(turns, 1)]


def _message(turn: Any, named: str) -> Message:
    if not isinstance(turn, dict):
        raise Malformed(NOT_TEXT, f"{named} is {kind_name(turn)}, no message")
    said = turn.get(_first(turn, ROLE_KEYS))
    name = said.strip().lower() if isinstance(said, str) else ""
    if name in TOOLS or any(turn.get(key) for key in TOOL_KEYS):
        raise Malformed(TOOL_CALLS, f"{named} calls a tool or answers for one")
    if name not in ROLES:
        by = f"by '{name[:SHOWN_CHARACTERS]}'" if name else "without a role"
        raise Malformed(UNKNOWN_ROLE, f"{named} is {by}")
    return Message(ROLES[name], _text(turn.get(_first(turn, CONTENT_KEYS)), named))


def _text(value: Any, named: str) -> str:
    """A text without blanks at its ends; a list of parts that are texts is one."""
    if isinstance(value, list):
        parts = [part.get("text") if isinstance(part, dict) else part for part in value]
        if not all(isinstance(part, str) for part in parts):
            raise Malformed(NOT_TEXT, f"{named} has a part that is no text")
        value = "".join(map(str, parts))
    return _legal(value, named).strip()


def _legal(value: Any, named: str) -> str:
    if not isinstance(value, str):
        raise Malformed(NOT_TEXT, f"{named} is {kind_name(value)}")
    return remove_controls(unify_line_ends(value)[0])[0]


# -- turns ------------------------------------------------------------------------------------


def in_turns(messages: Sequence[Message]) -> tuple[list[Message], tuple[str, ...]]:
    """Messages as user and assistant in turns, of which an answer is the last; and what was changed for it.

    Raises:
        Malformed: they cannot be.
    """
    system = [m for m in messages[:1] if m.role == "system" and m.content]
    joined: list[Message] = []
    for message in messages[1:] if messages and messages[0].role == "system" else messages:
        if message.role == "system":
            raise Malformed(LATE_SYSTEM)
        if not joined or joined[-1].role != message.role:
            joined.append(message)
        elif message.role == "assistant":
            raise Malformed(TWO_ANSWERS)
        else:
            joined[-1] = Message("user", f"{joined[-1].content}\n{message.content}".strip())
    start = int(bool(joined) and joined[0].role == "assistant")
    end = len(joined) - int(bool(joined) and joined[-1].role == "user")
    if start >= end:
        raise Malformed(NO_QUESTION if start else NO_ANSWER)
    kept = joined[start:end]
    if empty := next((m for m in kept if not m.content), None):
        raise Malformed(EMPTY_ANSWER if empty.role == "assistant" else EMPTY_QUESTION)
    is_joined = len(joined) < len(messages) - (messages[0].role == "system")
    changes = {JOINED: is_joined, OPENING_CUT: start > 0, UNANSWERED_CUT: end < len(joined)}
    return [*system, *kept], tuple(name for name, is_done in changes.items() if is_done)


# -- pairs ------------------------------------------------------------------------------------


def _pair(fields: Mapping[str, Any], where: str) -> Pair:
    if fields.get("format") == "text":
        return _text_pair(fields, where)
    chosen, rejected = (_said(fields[name], "assistant", name) for name in ("chosen", "rejected"))
    if chosen == rejected:
        raise Malformed(SAME_ANSWERS)
    shared = len(list(takewhile(lambda both: both[0] == both[1], zip(chosen, rejected, strict=False))))
    before = chosen[:shared] or _asked(fields)
    answers = [*chosen[shared:], *rejected[shared:]]
    if len(chosen) != len(rejected) or [m.role for m in answers] != ["assistant"] * 2:
        raise Malformed(NOT_ONE_ANSWER)
    if not all(m.content for m in answers):
        raise Malformed(EMPTY_ANSWER)
    messages, changes = in_turns([*before, answers[0]])
    return Pair(tuple(messages[:-1]), answers[0].content, answers[1].content, where, changes)


def _text_pair(fields: Mapping[str, Any], where: str) -> Pair:
    """Two continuations of a text, as the page to write on keeps them: no blank of theirs is taken off."""
    prompt, chosen, rejected = (_legal(fields.get(name), name) for name in ("prompt", "chosen", "rejected"))
    if not (chosen.strip() and rejected.strip()):
        raise Malformed(EMPTY_ANSWER)
    if chosen == rejected:
        raise Malformed(SAME_ANSWERS)
    return Pair(prompt, chosen, rejected, where)

"""A dialogue as a model reads it: the ids that its answer is written after.

In: messages, and the chat template of a model. Out: a :class:`Prompt` with room for the answer. What does not
fit are the oldest turns, each whole; system messages always stay.
"""

from bisect import bisect_left
from collections.abc import Sequence

from yanmo.core.errors import ConfigError
from yanmo.generate.sampling import half_character
from yanmo.generate.text import Prompt, prompt_of
from yanmo.settings.schema import SampleConfig
from yanmo.tokenizer.chat_template import ChatTemplate, Message

SYSTEM = ("system", "developer")
"""Roles of what holds for the whole dialogue."""


def answer_prompt(
    chat: ChatTemplate,
    messages: Sequence[Message],
    config: SampleConfig,
    window: int,
    begun: Sequence[int] = (),
) -> Prompt:
    """What the answer to ``messages`` is written after; ``begun`` are those of its tokens that are there.

    There is room for the whole answer, up to half of the window; in a longer one the window moves over the
    answer, and what was said before it stays.

    Raises:
        ConfigError: a poem is asked for, the template refuses the messages, or the window holds no turn.
    """
    if config.verse:
        hint = "leave it out, or continue a text: yanmo chat --text, /v1/completions of a server"
        raise ConfigError("an answer is no poem", "verse", hint)
    said = _encode(chat, messages)
    whole = prompt_of(chat.tokenizer, [*said, *begun], config, window)
    room = window - whole.pinned - min(len(begun) + config.max_new_tokens, window // 2)
    kept = said if len(said) <= room else _newest_turns(chat, messages, room)
    before = [*whole.ids[: whole.pinned], *kept]
    if len(before) > window:
        what = f"the last turn with the system prompt has {len(before):,} tokens"
        raise ConfigError(f"{what}, and the model reads {window:,}", "messages", "shorten them")
    ids, pinned = [*before, *begun], min(len(before), window // 2)
    if len(ids) > window:
        ids = ids[:pinned] + ids[len(ids) - (window - pinned) :]
    return Prompt(ids, pinned, len(said) - len(kept), whole.texts)


def _newest_turns(chat: ChatTemplate, messages: Sequence[Message], room: int) -> list[int]:
    """The ids of the newest turns that have room, at least of the last one; each begins with a question."""

    def ids_from(begin: int) -> list[int]:
        rules = [one for one in messages[:begin] if one.get("role") in SYSTEM]
        return _encode(chat, [*rules, *messages[begin:]])

    questions = [place for place, one in enumerate(messages) if one.get("role") == "user"]
    begins = [0, *questions[1:]]
    # halving: a dialogue of a thousand turns is rendered ten times, not a thousand
    found = bisect_left(begins[:-1], True, key=lambda begin: len(ids_from(begin)) <= room)
    return ids_from(begins[found])


def _encode(chat: ChatTemplate, messages: Sequence[Message]) -> list[int]:
    """
    Raises:
        ConfigError: the template refuses the messages, or one of them holds half a character.
    """
    try:
        return chat.encode(messages)
    except UnicodeEncodeError as error:
        raise half_character("a message", "messages") from error

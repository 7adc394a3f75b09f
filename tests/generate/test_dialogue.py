"""Dialogues: what of them a model reads, and the console where it answers."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.makers.models import CHATML, chat_tokenizer, lively_model, our_folder, talking_model
from yanmo.core.errors import ConfigError
from yanmo.generate.chat import DialogueChat, TextChat, chat_with
from yanmo.generate.dialogue import answer_prompt
from yanmo.generate.terminal import converse
from yanmo.generate.text import encode_prompt
from yanmo.generate.writer import Writer
from yanmo.settings.schema import SampleConfig
from yanmo.tokenizer.base import CHAT_TOKENS
from yanmo.tokenizer.chat_template import ChatTemplate, Message

TOKENIZER = chat_tokenizer()
TEMPLATE = ChatTemplate(CHATML, TOKENIZER)
START, END = (int(TOKENIZER.encode(marker, special=True)[0]) for marker in CHAT_TOKENS)
CONFIG = SampleConfig(max_new_tokens=40, temperature=1, top_p=1, seed=0)
SYSTEM: Message = {"role": "system", "content": "You rhyme."}
TURNS: list[Message] = [
    {"role": role, "content": f"{role[0]}{number} " * (number + 2)}
    for number in range(6)
    for role in ("user", "assistant")
]
QUESTION: Message = {"role": "user", "content": "and now?"}
DIALOGUE = [SYSTEM, *TURNS, QUESTION]


# -- what a model reads -----------------------------------------------------------------------


def test_a_dialogue_that_fits_is_read_whole() -> None:
    ids = TEMPLATE.encode(DIALOGUE)
    prompt = answer_prompt(TEMPLATE, DIALOGUE, CONFIG, len(ids) + 40)
    assert (prompt.ids, prompt.dropped) == (ids, 0)
    assert answer_prompt(TEMPLATE, DIALOGUE, CONFIG, len(ids) + 39).dropped > 0  # the answer has no room


@pytest.mark.parametrize("room", range(70, 480, 41))
def test_as_few_of_the_oldest_turns_as_possible_are_left_out_and_each_is_whole(room: int) -> None:
    prompt = answer_prompt(TEMPLATE, DIALOGUE, CONFIG.model_copy(update={"max_new_tokens": 30}), room + 30)
    kept = [TEMPLATE.encode([SYSTEM, *TURNS[2 * left_out :], QUESTION]) for left_out in range(7)]
    fitting = next(ids for ids in kept if len(ids) <= room)
    assert prompt.ids == fitting
    assert prompt.dropped == len(kept[0]) - len(fitting)
    assert prompt.texts == (kept[0], [])  # a memory remembers all of it


def test_the_last_question_is_read_also_where_little_room_is_left_for_its_answer() -> None:
    ids = TEMPLATE.encode([SYSTEM, QUESTION])
    assert answer_prompt(TEMPLATE, DIALOGUE, CONFIG, len(ids)).ids == ids
    with pytest.raises(
        ConfigError, match=f"{len(ids)} tokens, and the model reads {len(ids) - 1}"
    ) as refused:
        answer_prompt(TEMPLATE, DIALOGUE, CONFIG, len(ids) - 1)
    assert refused.value.where == "messages"


@pytest.mark.parametrize("tokens", [30, 2000])
def test_what_was_said_stays_in_the_window_however_long_the_answer(tokens: int) -> None:
    window = 240
    config = CONFIG.model_copy(update={"max_new_tokens": tokens, "pinned": "Notes."})
    prompt = answer_prompt(TEMPLATE, DIALOGUE, config, window)
    assert TOKENIZER.decode(prompt.ids).startswith("Notes.system\nYou rhyme.")
    assert len(prompt.ids) + tokens <= window or prompt.pinned == len(prompt.ids) <= window // 2


def test_an_answer_that_has_begun_is_part_of_what_is_read_up_to_its_end() -> None:
    window, begun = 240, [int(token) for token in TOKENIZER.encode("well, " * 100)]
    for length in (0, 20, 60, 600):
        prompt = answer_prompt(TEMPLATE, DIALOGUE, CONFIG, window, begun[:length])
        said = len(prompt.texts[0]) - length - prompt.dropped
        assert said + length + 40 <= window or said <= window // 2
        newest = prompt.ids.count(START) - 2  # beside the system prompt and the beginning of the answer
        assert prompt.ids[:said] == TEMPLATE.encode([SYSTEM, *DIALOGUE[-newest:]])
        assert prompt.ids[said:] == begun[max(length - (window - said), 0) : length]


def test_a_dialogue_of_a_thousand_turns_is_rendered_a_few_times() -> None:
    class Counting(ChatTemplate):
        rendered = 0

        def encode(self, messages: Sequence[Message]) -> list[int]:
            self.rendered += 1
            return super().encode(messages)

    chat = Counting(CHATML, TOKENIZER)
    assert answer_prompt(chat, TURNS * 100 + [QUESTION], CONFIG, 200).dropped > 10_000
    assert chat.rendered <= 13


@pytest.mark.parametrize(
    ("message", "settings", "words"),
    [
        ("half \ud800", {}, "a message holds half a character"),
        ("hello", {"verse": 7}, "an answer is no poem"),
        ("hello", {"pinned": "long " * 100}, "the pinned text has"),
    ],
)
def test_what_no_answer_can_be_written_to_is_refused(
    message: str, settings: dict[str, object], words: str
) -> None:
    config = SampleConfig.model_validate(settings)
    with pytest.raises(ConfigError, match=words):
        answer_prompt(TEMPLATE, [{"role": "user", "content": message}], config, 128)


# -- the console ------------------------------------------------------------------------------


@pytest.fixture
def chat() -> DialogueChat:
    return DialogueChat(talking_model(TOKENIZER, 256), TOKENIZER, CONFIG, template=TEMPLATE)


def said(chat: DialogueChat, *lines: str) -> str:
    return "".join("".join(chat.answer(line)) for line in lines)


def last(chat: DialogueChat) -> int:
    """The last token that was written."""
    choice = chat.written[-1].choice
    assert choice is not None
    return choice.id


def test_an_answer_ends_with_the_end_of_its_turn_and_shows_no_marker(chat: DialogueChat) -> None:
    shown = said(chat, "hello", "<|im_end|> how are you?", "/show", "/alternatives", "/more")
    answers = [one["content"] for one in chat.messages if one["role"] == "assistant"]
    assert last(chat) == END and len(chat.written) < CONFIG.max_new_tokens
    assert all(shown.count(f"{answer}\n") for answer in answers) and len(answers) == 2
    assert "<|" not in shown and "im_end" not in shown and "endoftext" not in shown
    assert (
        "the answer is whole" in shown and [one["role"] for one in chat.messages] == ["user", "assistant"] * 2
    )


def test_an_answer_is_that_of_the_whole_dialogue(chat: DialogueChat) -> None:
    said(chat, "/system You rhyme.", "hello", "again")
    told = answer_prompt(TEMPLATE, [SYSTEM, *chat.messages[1:-1]], CONFIG, 256)
    same = "".join(TextChat(chat.model, TOKENIZER, CONFIG).write(told, END))
    assert same == chat.text + "\n"
    alone = DialogueChat(chat.model, TOKENIZER, CONFIG, template=TEMPLATE)
    said(alone, "again")
    assert alone.text != chat.text


def test_retry_answers_the_same_question_with_another_seed(chat: DialogueChat) -> None:
    said(chat, "hello", "again")
    asked, first = chat.asked, chat.text
    said(chat, "/retry")
    assert chat.asked == asked and chat.text != first and chat.config.seed == CONFIG.seed + 1
    other = DialogueChat(chat.model, TOKENIZER, chat.config, template=TEMPLATE, asked=asked)
    said(other, "/retry", f"/seed {CONFIG.seed + 1}", "/retry")
    said(chat, "/retry")
    assert other.text == chat.text


def test_more_goes_on_with_an_answer_that_was_cut_and_the_dialogue_has_it_whole(chat: DialogueChat) -> None:
    shown = said(chat, "/len 2", "hello")
    first = chat.text
    assert shown.endswith(f"{first}\n(cut after 2 tokens; /more goes on)\n")
    said(chat, "/len 90", "/more")
    told = answer_prompt(TEMPLATE, chat.asked, chat.config, 256, TOKENIZER.encode(first).tolist())
    rest = "".join(TextChat(chat.model, TOKENIZER, chat.config).write(told, END))
    assert chat.text + "\n" == first + rest and rest.strip() and last(chat) == END
    said(chat, "and you?")
    assert [one["role"] for one in chat.asked] == ["user", "assistant", "user"]
    assert chat.asked[1]["content"].startswith(first) and chat.asked[1]["content"] != first


def test_system_role_and_reset_begin_anew(chat: DialogueChat) -> None:
    assert said(chat, "/system") == "no system prompt\n"
    said(chat, "hello")
    assert said(chat, "/system 你是诗人。\\n写诗。").endswith(
        "a new dialogue; system prompt: 你是诗人。\n写诗。\n"
    )
    assert chat.messages == [] and said(chat, "/retry") == "there is no text yet: type some\n"
    said(chat, "hello")
    assert chat.messages[0] == {"role": "system", "content": "你是诗人。\n写诗。"} and len(chat.messages) == 3
    assert "你是哈姆莱特。" in said(chat, "/role 哈姆莱特")
    said(chat, "hello", "/reset", "who are you?")
    assert [one["content"] for one in chat.asked] == ["你是哈姆莱特。", "who are you?"]
    assert said(chat, "/system") == "system prompt: 你是哈姆莱特。\n" and len(chat.messages) == 3
    assert "needs a name" in said(chat, "/role")


def test_that_old_turns_are_left_out_is_said_once_in_a_dialogue(chat: DialogueChat) -> None:
    lines = ["x" * 60] * 3
    shown = said(chat, "/system You rhyme.", *lines, *lines)
    assert shown.count("the dialogue is longer than the model reads: its oldest turns") == 1
    assert len(chat.messages) == 13  # they are still there to be saved
    assert "longer" not in said(chat, "/reset", "x") and "longer" in said(chat, *lines, *lines)


def test_a_question_that_no_window_holds_is_refused_in_a_line_and_forgotten(chat: DialogueChat) -> None:
    said(chat, "hello")
    before = chat.messages
    lines = iter(["长" * 300, "half \udc80", "/tmp 3"])
    shown: list[str] = []

    def read() -> str:
        if (line := next(lines, None)) is None:
            raise EOFError
        return line

    converse(chat, read, shown.append)
    assert "the model reads 256" in shown[0] and "half a character" in shown[1]
    assert all(command in shown[2] for command in chat.commands()) and "/role" in shown[2]
    assert "".join(shown).count("\n") == 3 and chat.messages == before


def test_ctrl_c_keeps_what_was_answered(chat: DialogueChat) -> None:
    chat.config = chat.config.model_copy(update={"min_new_tokens": 20})
    answer = chat.answer("hello")
    begun = next(answer) + next(answer) + next(answer)
    answer.close()
    said(chat, "again")
    assert chat.asked[1] == {"role": "assistant", "content": begun}


def test_a_dialogue_is_saved_as_text_or_as_messages(chat: DialogueChat, tmp_path: Path) -> None:
    said(chat, "/system You rhyme.", "hello", "again")
    system, first, answer, second, other = (one["content"] for one in chat.messages)
    assert said(chat, "/save talk.txt") == "saved to talk.txt\n"
    saved = (tmp_path / "talk.txt").read_text(encoding="utf-8")
    assert saved == f"> /system {system}\n> {first}\n{answer}\n> {second}\n{other}\n"
    said(chat, "/save talk.jsonl", "/reset", "你好", "/save talk.jsonl")
    lines = (tmp_path / "talk.jsonl").read_text(encoding="utf-8").splitlines()
    contents = [[one["content"] for one in json.loads(line)["messages"]] for line in lines]
    assert contents == [[system, first, answer, second, other], [system, "你好", chat.text]]
    assert "你好" in lines[1]


def test_help_of_dialogues_is_in_both_languages(chat: DialogueChat) -> None:
    shown = said(chat, "/help")
    assert "扮演" in shown and "quit" in shown and shown != TextChat.help
    assert all(command in shown for command in chat.commands())
    assert "模型作答" in chat.welcome and "the model answers" in chat.welcome


# -- which of the two -------------------------------------------------------------------------


def test_a_model_with_a_template_answers_and_any_other_continues(tmp_path: Path) -> None:
    model = lively_model(16, TOKENIZER.vocab_size)
    taught = Writer(our_folder(tmp_path / "chat", model, TOKENIZER, CHATML), model, TOKENIZER, CONFIG)
    other = Writer(our_folder(tmp_path / "text", model, TOKENIZER), model, TOKENIZER, CONFIG)
    answering = chat_with(taught, CONFIG, "You rhyme.")
    assert isinstance(answering, DialogueChat) and answering.system == "You rhyme."
    for chat in (chat_with(taught, CONFIG, only_text=True), chat_with(other, CONFIG)):
        assert isinstance(chat, TextChat) and chat.welcome != answering.welcome
        "".join(chat.answer("the"))
        read = encode_prompt(TOKENIZER, "the", CONFIG, 16)
        assert chat.text == "the" + "".join(TextChat(model, TOKENIZER, CONFIG).write(read))[:-1]
    with pytest.raises(ConfigError, match="continues a text"):
        chat_with(other, CONFIG, "You rhyme.")

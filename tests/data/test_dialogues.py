"""Dialogues as documents of a window: what is learned of them, and what becomes of long ones."""

import json
from pathlib import Path

import pytest

from tests.makers.models import TOKENIZERS
from yanmo.core.console import Console
from yanmo.data.dialogues import (
    DialogueEncoder,
    EncodedDialogue,
    EncodingCounts,
    counts_of,
    prepare_dialogues,
    said_of,
)
from yanmo.settings.schema import CorpusConfig
from yanmo.text.read.turns import Dialogue, Message, Pair
from yanmo.tokenizer.chat_template import ChatTemplate, with_chat

WINDOW = 64


def encoder(kind: str = "char", window: int = WINDOW) -> DialogueEncoder:
    tokenizer, template = with_chat(TOKENIZERS[kind](), None)
    return DialogueEncoder(tokenizer, ChatTemplate(template, tokenizer), window, EncodingCounts())


def dialogue(*lengths: int) -> Dialogue:
    """Questions and answers in turns, of so many characters."""
    roles = ("user", "assistant")
    messages = (Message(roles[number % 2], "我们"[number % 2] * n) for number, n in enumerate(lengths))
    return Dialogue(tuple(messages), "talk.jsonl:1")


def targets(found: EncodedDialogue) -> list[int]:
    """What a window has to learn: its first token is none."""
    return [token for token, learned in list(zip(found.ids, found.learned, strict=True))[1:] if learned]


@pytest.mark.parametrize("answer", range(50, 70))
def test_of_a_long_round_the_whole_answer_is_learned_or_nothing(answer: int) -> None:
    by = encoder()
    found = by.encode(dialogue(100, answer))
    whole = [*by.tokenizer.encode("们" * answer).tolist(), by.chat.end_of_turn if by.chat else None]
    assert len(found) == (answer < WINDOW - 1)  # before it one token at least, behind its end a line end
    for one in found:
        assert targets(one) == whole and not one.learned[0] and len(one.ids) == WINDOW + 1


def test_rounds_that_no_window_holds_are_counted() -> None:
    by = encoder()
    found = by.encode(dialogue(3, 5, 3, 80, 3, 5))
    assert [one.characters for one in found] == [5, 5]
    counts = by.counts
    assert (counts.encoded, counts.parts, counts.rounds_dropped, counts.dropped.total()) == (1, 2, 1, 0)
    assert any("1 rounds of theirs dropped" in line for line in said_of(counts_of(counts)))
    assert not by.encode(dialogue(3, 80)) and counts.dropped.total() == 1
    assert counts.rounds_dropped == 1


THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}想：\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}想：\n\n{% endif %}{% endif %}"
)
"""As in Qwen3: thoughts stand before the last answer only, and before the one that is asked for."""


def test_of_a_template_that_changes_earlier_answers_each_is_learned_as_the_last() -> None:
    tokenizer, _ = with_chat(TOKENIZERS["char"](), None)
    chat = ChatTemplate(THINKING, tokenizer)
    by = DialogueEncoder(tokenizer, chat, 1000, EncodingCounts())
    talk = dialogue(3, 5, 4, 6)
    found = by.encode(talk)
    assert [one.characters for one in found] == [5, 6]
    for one, count in zip(found, (2, 4), strict=True):
        asked = [vars(message) for message in talk.messages[: count - 1]]
        # what is learned follows the very ids that the model is asked with
        assert one.ids[: one.learned.index(True)] == chat.encode(asked)
        assert targets(one) == [
            *tokenizer.encode(talk.messages[count - 1].content).tolist(),
            chat.end_of_turn,
        ]


def test_a_pair_asks_one_question(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}？", "chosen": "山中", "rejected": "们"} for n in range(20)]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    by, corpus, quiet = encoder(), CorpusConfig(path=(str(data),)), Console(is_main=False)
    found = prepare_dialogues(corpus, by.tokenizer, by.chat, 0.5, WINDOW, quiet, are_pairs=True)
    asked = found.questions(100, WINDOW)
    assert len(asked) == len({tuple(ids) for ids in asked}) == len(found.shards.val.starts) // 2


@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_of_a_pair_after_several_rounds_the_last_answer_alone_is_learned(kind: str) -> None:
    by = encoder(kind, 256)
    prompt = dialogue(3, 4, 5).messages
    for one, answer in zip(
        by.encode(Pair(prompt, "山中", "们", "pairs.jsonl:1")), ("山中", "们"), strict=True
    ):
        ids = by.tokenizer.encode(answer).tolist()
        assert targets(one)[:-1] == ids and sum(one.learned) == len(ids) + 1

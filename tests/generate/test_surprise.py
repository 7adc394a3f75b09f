"""Colours and alternatives of what was written."""

import math
import re

import pytest

from tests.makers.models import TOKENIZER, lively_model
from yanmo.generate.chat import TextChat
from yanmo.generate.engine import TokenChoice
from yanmo.generate.surprise import Coloured, alternatives, by_character, coloured
from yanmo.generate.text import WrittenPiece
from yanmo.settings.schema import SampleConfig


def piece(text: str, p: float, *top: tuple[int, float]) -> WrittenPiece:
    return WrittenPiece(text, TokenChoice(ord(text[-1]) if text else 0, math.log(p), top))


def test_a_character_of_several_tokens_has_the_sum_of_their_surprise() -> None:
    pieces = [piece("江", 0.5), piece("", 0.25), piece("湖", 0.5), piece("", 0.5)]
    assert list(by_character(pieces)) == [("江", 1.0), ("湖", 3.0)]
    assert coloured(pieces, with_colours=False) == "江(1.0) 湖(3.0)\n"


def test_colours_hold_the_text_and_none_of_its_own_terminal_commands() -> None:
    pieces = [piece("江\x1b[2J", 0.9), piece("湖\n夜", 0.001), piece("\n", 0.5), piece("雨", 1e-9)]
    shown = coloured(pieces, with_colours=True)
    assert isinstance(shown, Coloured)
    assert re.sub("\x1b\\[(48;5;\\d+|0)m", "", shown) == "江\\x1b[2J湖\n夜\n雨\n"
    shades = [int(shade) for shade in re.findall(r"48;5;(\d+)m", shown)]
    assert len(shades) == 4 and shades[0] != shades[1] == shades[2] == shades[3]


def test_the_places_that_surprise_most_come_with_what_was_likelier() -> None:
    pieces = [piece("江", 0.5), piece("湖", 0.01, (ord("夜"), math.log(0.7)), (ord("湖"), math.log(0.01)))]
    shown = alternatives(pieces, chr)
    assert shown.splitlines() == ["…[江 50.0%]  ", "…江[湖 1.0%]  夜 70%"]


@pytest.mark.parametrize("command", ["/show", "/alternatives"])
def test_chat_shows_how_sure_its_last_answer_was(command: str) -> None:
    chat = TextChat(lively_model(), TOKENIZER, SampleConfig(max_new_tokens=9, min_new_tokens=9, seed=3))
    assert "no text yet" in "".join(chat.answer(command))
    answer = "".join(chat.answer("江湖"))
    assert len(chat.written) == 9 and "".join(piece.text for piece in chat.written) == answer[:-1]
    shown = "".join(chat.answer(command))
    assert shown.endswith("\n") and len(shown.splitlines()) >= (5 if command == "/alternatives" else 1)
    assert re.search(r"\d", shown)

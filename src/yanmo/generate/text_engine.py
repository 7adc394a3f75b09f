"""An engine that gives text: tokens become pieces of text, and banned phrases are taken back.

TextEngine.step()  pieces of whole characters
  Engine.step() (``engine.py``)  a token for each row
  PhraseWatch, TextAssembler (``assembly.py``)  which tokens are certain, and their characters
"""

from typing import NamedTuple

from yanmo.generate.assembly import PhraseWatch, TextAssembler
from yanmo.generate.engine import Engine, RunningSequence, TokenChoice
from yanmo.model.gpt import GPT
from yanmo.tokenizer import Tokenizer

MAX_TAKEN_BACK = 200
"""Banned phrases after which a sample ends: it writes little else."""


class WrittenPiece(NamedTuple):
    """Characters that became certain with a token; none where the token is a part of one."""

    text: str
    choice: TokenChoice | None
    """None: only the end made them certain."""


class TextEngine:
    """An :class:`Engine` that gives text: whole characters, up to a stop text, without banned phrases."""

    def __init__(self, model: GPT, tokenizer: Tokenizer, rows: int) -> None:
        self.engine, self.tokenizer = Engine(model, rows), tokenizer
        self._texts: dict[RunningSequence, GrowingText] = {}

    @property
    def is_busy(self) -> bool:
        """Whether there is anything left to write."""
        return self.engine.is_busy

    def add(self, row: RunningSequence) -> None:
        """Write this one as well, as soon as there is a slot."""
        self._texts[row] = GrowingText(self.tokenizer, row)
        self.engine.add(row)

    def call_off(self, row: RunningSequence) -> None:
        """Nobody reads it any more: its slot is free from the next step on."""
        row.ended = True
        self._texts.pop(row, None)

    def step(self) -> list[tuple[RunningSequence, list[WrittenPiece]]]:
        """A step of the engine; for each row the tokens that are certain now, with their characters.

        A row that ended gives at least one piece.

        Raises:
            CheckpointError: the model gives no numbers to choose by.
        """
        grown = []
        for row in self.engine.step():
            text = self._texts[row]
            if (place := text.watch.push(row.past.ids[-1])) is None:
                grown.append((row, text.release()))
            elif row.taken_back < MAX_TAKEN_BACK:
                self.engine.take_back(row, place)
                text.watch_again()
            else:  # it writes nothing but banned phrases
                grown.append((row, text.give_up(place)))
            if row.ended:
                del self._texts[row]
        return grown


class GrowingText:
    """The text of one row: which of its tokens are certain, and which characters they are."""

    def __init__(self, tokenizer: Tokenizer, row: RunningSequence) -> None:
        self.tokenizer, self.row, config = tokenizer, row, row.config
        self.assembler = TextAssembler(
            tokenizer, row.prompt_ids, config.stop, config.stop_at, config.min_new_tokens
        )
        self.released = 0
        self.watch_again()

    def watch_again(self) -> None:
        """Look for banned phrases from the prompt on: tokens were taken back."""
        written = [choice.id for choice in self.row.choices]
        self.watch = PhraseWatch(self.tokenizer, self.row.prompt_ids, self.row.config.banned, written)

    def release(self) -> list[WrittenPiece]:
        """Tokens that are certain now; a stop text among them ends the row."""
        row = self.row
        pieces: list[WrittenPiece] = []
        certain = len(row.choices) if row.ended else self.watch.certain
        for choice in row.choices[self.released : certain]:
            self.released += 1
            pieces.append(WrittenPiece(self.assembler.push(choice.id), choice))
            if self.assembler.ended:
                del row.choices[self.released :]
                row.ended, row.finish_reason = True, "stop"
                break
        if row.ended:
            last = pieces.pop() if pieces else WrittenPiece("", None)
            pieces.append(last._replace(text=last.text + self.assembler.flush()))
        return pieces

    def give_up(self, place: int) -> list[WrittenPiece]:
        """End the row before the token at ``place``."""
        del self.row.choices[place:]
        self.row.ended, self.row.finish_reason = True, "stop"
        return self.release()

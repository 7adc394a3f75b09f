"""Answers to dialogues, several at once: samples of a run, and whether a model ends what it says.

In: prompts as ids, up to where an answer begins. Out: the answers, and whether each came to its end.
"""

from collections.abc import Sequence
from typing import NamedTuple

from yanmo.generate.engine import RunningSequence, rows_together
from yanmo.generate.sampling import TokenConstraints
from yanmo.generate.text_engine import TextEngine
from yanmo.model.gpt import GPT
from yanmo.settings.schema import SampleConfig
from yanmo.tokenizer import Tokenizer


class Answer(NamedTuple):
    """What a model said."""

    text: str
    ended: bool
    """Whether it came to the end of its turn, and was not cut."""


def write_answers(
    model: GPT, tokenizer: Tokenizer, end: int | None, prompts: Sequence[Sequence[int]], config: SampleConfig
) -> list[Answer]:
    """An answer to each prompt; ``end`` is the token that ends one, where end-of-text does not."""
    rules = TokenConstraints.of(tokenizer, config).ending_with(end)
    engine = TextEngine(model, tokenizer, min(len(prompts), rows_together(model)))
    texts: dict[RunningSequence, list[str]] = {}
    for number, ids in enumerate(prompts):
        row = RunningSequence(list(ids), config, rules, number, 0, 0, (), 0, None)
        texts[row] = []
        engine.add(row)
    while engine.is_busy:
        for row, pieces in engine.step():
            texts[row] += [piece.text for piece in pieces]
    return [Answer("".join(parts), row.finish_reason == "stop") for row, parts in texts.items()]

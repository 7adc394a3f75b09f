"""A trained model with its tokenizer, for commands and programs: writing, and log probabilities of a text.

In: a run, a checkpoint, or any Hugging Face folder of our families. Out: a :class:`Writer`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from yanmo.checkpoint.folder import find_model_folder, load_model_and_tokenizer, recorded_recipe
from yanmo.core.console import Console
from yanmo.data.text_index import TextIndex
from yanmo.generate.engine import TextRule, make_writer
from yanmo.generate.rules import text_rules, training_index
from yanmo.generate.score import score
from yanmo.generate.text import write, write_all
from yanmo.model.gpt import GPT
from yanmo.parallel.distributed import find_device
from yanmo.settings.recipe import with_values
from yanmo.settings.schema import Recipe, SampleConfig
from yanmo.tokenizer import Tokenizer
from yanmo.tokenizer.chat_template import ChatTemplate, read_chat_template


class TokenLogprob(NamedTuple):
    """A token of a text, and its log probability given the tokens before it, in nats."""

    id: int
    text: str
    """The characters that it completes: a token may be a part of one."""
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens in its place (id, log probability), as many as were asked for."""


@dataclass(frozen=True)
class Writer:
    """A model, its tokenizer, and the [sample] settings of its run."""

    folder: Path
    model: GPT
    tokenizer: Tokenizer
    sample: SampleConfig

    def write(self, prompt: str = "", **settings: Any) -> str:
        """Continue ``prompt`` once; the text without it.

        Args:
            prompt: if longer than the window, its end is continued.
            settings: those of [sample], such as ``seed``, ``max_new_tokens``, ``temperature``, ``stop``.

        Raises:
            ConfigError: there is no such setting, or the prompt holds half a character.
        """
        config = self.config(**settings, num_samples=1)
        return write_all(self.model, self.tokenizer, prompt, config, text_rules=self.text_rules(config))[0]

    def stream(self, prompt: str = "", **settings: Any) -> Iterator[str]:
        """The same, in whole characters as they are written."""
        config = self.config(**settings, num_samples=1)
        rules = self.text_rules(config)
        for _, text in write(self.model, self.tokenizer, prompt, config, text_rules=rules):
            yield text

    def logprobs(self, text: str, top: int = 0) -> list[TokenLogprob]:
        """The log probability of each token of a text, the first one after the end of another text.

        Args:
            text: of any length; beyond a window, each token has at least half a window before it.
            top: how many of the likeliest tokens are given beside each.
        """
        ids = self.tokenizer.encode(text)
        characters = self.tokenizer.stream()
        return [
            TokenLogprob(one.id, characters.push(one.id), one.logprob, one.top)
            for one in score(self.model, ids, self.tokenizer.end_of_text, top=top)
        ]

    @cached_property
    def index(self) -> TextIndex:
        """Of the text that the model was trained on.

        Raises:
            ConfigError: that text is not at hand.
        """
        return training_index(self.folder, self.tokenizer, Console())

    @cached_property
    def chat(self) -> ChatTemplate | None:
        """How it reads dialogues; None: it was not taught to answer.

        Raises:
            ConfigError: its template cannot be read.
        """
        template = read_chat_template(self.folder)
        return ChatTemplate(template, self.tokenizer) if template else None

    def text_rules(self, config: SampleConfig) -> tuple[TextRule, ...]:
        """The rules of the text that settings ask for.

        Raises:
            ConfigError: a setting needs the training text, which is not at hand.
        """
        return text_rules(config, self.tokenizer, lambda: self.index)

    def config(self, **settings: Any) -> SampleConfig:
        """The [sample] settings of the run, replaced by those given; None means not given."""
        values = {f"sample.{name}": value for name, value in settings.items() if value is not None}
        return with_values(Recipe(sample=self.sample), values).sample


def load(
    folder: str | Path | None = None,
    device: str | None = None,
    precision: str | None = None,
    verify: bool = True,
) -> Writer:
    """The model that a folder holds, ready to write.

    Args:
        folder: a run (its best model), a checkpoint or a model folder; None: the newest run.
        device: where to compute; None: a GPU where there is one.
        precision: ``float32``, ``bfloat16`` or ``int8``; None: by rule.
        verify: look at the checksums of the weights first.

    Raises:
        ConfigError: there is no such model or device, or the device has no such precision.
        CheckpointError: a file of it is damaged.
    """
    found = find_model_folder(None if folder is None else Path(folder))
    place = find_device(device, "--device")
    model, tokenizer = load_model_and_tokenizer(found, verify)
    recipe = recorded_recipe(found) or Recipe()
    return Writer(
        found, make_writer(model, place, precision, recipe.train.precision), tokenizer, recipe.sample
    )

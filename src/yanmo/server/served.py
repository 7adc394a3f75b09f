"""One model as the server has it: its engine's thread, its names, and what is asked of it as jobs.

In: a Writer and requests. Out: jobs for the engine's thread, and what they give, as parts of an answer.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np

from yanmo.checkpoint.folder import run_of
from yanmo.core.errors import ConfigError, YanmoError
from yanmo.generate.dialogue import answer_prompt
from yanmo.generate.engine import RunningSequence, TokenChoice, arithmetic_of, drawn_seed, rows_together
from yanmo.generate.memory import MAX_PLACES, MemoryReader
from yanmo.generate.rules import why_no_index
from yanmo.generate.sampling import TokenConstraints, encode
from yanmo.generate.score import score_parts
from yanmo.generate.text import Prompt, prompt_of
from yanmo.generate.verse import why_no_verse
from yanmo.generate.writer import Writer
from yanmo.server.answers import EchoedText, GrowingChoice, Part
from yanmo.server.engine_thread import ROWS, Done, EngineThread, Event, Grown, Job
from yanmo.server.requests import ChatRequest, CompletionRequest, WritingRequest
from yanmo.settings.schema import SampleConfig
from yanmo.tokenizer.names import token_names

MAX_SCORED = 2_000_000
"""Log probabilities that one answer may have: tokens x (1 + alternatives)."""


@dataclass
class Asked:
    """A request that was understood, with what its answer needs."""

    job: Job
    choices: dict[RunningSequence, GrowingChoice]
    echoes: list[EchoedText]
    seed: int
    texts: int
    """Those that are given: ``n`` of each prompt."""
    n: int
    best_of: int
    prompt_tokens: int
    dropped_tokens: int
    events: asyncio.Queue[Event]

    @property
    def about(self) -> dict[str, Any]:
        """What yanmo says beside the answer."""
        return {"seed": self.seed, "dropped_tokens": self.dropped_tokens}

    def ends(self) -> Iterator[Part]:
        """The last part of each text where nothing is written."""
        for echo in self.echoes:
            yield from echo.end()
        for index in range(0 if self.echoes else self.texts):
            yield Part(index, finish_reason="length")

    @property
    def usage(self) -> dict[str, int]:
        """Tokens read and written."""
        written = sum(len(row.choices) for row in self.choices)
        read = self.prompt_tokens
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


@dataclass
class ServedModel:
    """A model that a server offers under its name."""

    name: str
    writer: Writer
    rows: int = ROWS
    created: int = 0
    thread: EngineThread = field(init=False)
    loop: asyncio.AbstractEventLoop = field(init=False)
    """Where the engine's events are delivered; set by the application when it starts."""

    def __post_init__(self) -> None:
        model, tokenizer = self.writer.model, self.writer.tokenizer
        self.thread = EngineThread(model, tokenizer, min(self.rows, rows_together(model)))
        self.names = token_names(tokenizer)
        raw = (tokenizer.bytes_of(token) for token in range(tokenizer.vocab_size))
        self.bytes = [
            name.encode() if one is None else one for one, name in zip(raw, self.names, strict=True)
        ]
        self.run = run_of(self.writer.folder)
        self.reader = MemoryReader(model)
        """Used by the engine's thread alone."""
        self.chat = self.writer.chat
        self.why_no_verse = why_no_verse(tokenizer)
        self.why_no_copy = why_no_index(self.writer.folder)

    def about(self) -> dict[str, Any]:
        """Its entry in /v1/models."""
        model, sample = self.writer.model, self.writer.sample
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "yanmo",
            "yanmo": {
                "family": model.config.family,
                "parameters": sum(p.numel() for p in model.parameters()),
                "window": model.config.block_size,
                **arithmetic_of(model),
                "chat": self.chat is not None,
                "has_run": self.run is not None,
                "no_copy": self.why_no_copy,
                "verse": self.why_no_verse,
                "memory": None,
                "sample": sample.model_dump(mode="json", exclude={"prompt", "num_samples", "seed"}),
            },
        }

    # -- requests → jobs ----------------------------------------------------------------------

    def completion(self, asked: CompletionRequest) -> Asked:
        """What a request for text asks of the engine.

        Raises:
            ConfigError: a field cannot be meant so, or is unknown.
        """
        config, writes = self.config_of(asked)
        ids = [self.ids_of(prompt) for prompt in asked.prompts]
        rows = asked.written_rows if writes else 0
        prompts = [prompt_of(self.writer.tokenizer, one, config, self.window) for one in ids]
        top = asked.logprobs or 0
        given_back = sum(map(len, ids)) * (rows or asked.n) if asked.echo else 0
        check_size(given_back + rows * len(ids) * config.max_new_tokens, top, "logprobs")
        found = self._asked(asked, prompts, config, rows, top, self._bases(asked, ids))
        if asked.echo:
            self._echo(found, ids, top)
        return found

    def dialogue(self, asked: ChatRequest) -> Asked:
        """What a request for an answer asks of the engine.

        Raises:
            ConfigError: the model has no template, or a field cannot be meant so.
        """
        if self.chat is None:
            raise ConfigError(
                f"{self.name} has no chat template: it continues texts, and was not taught to answer",
                where="model",
                hint="use /v1/completions, or a model that was trained on dialogues",
            )
        config, writes = self.config_of(asked)
        messages = [{"role": one.role, "content": one.text} for one in asked.messages]
        prompt = answer_prompt(self.chat, messages, config, self.window)
        top = asked.top_logprobs if asked.logprobs else 0
        rows = asked.n if writes else 0
        check_size(rows * config.max_new_tokens, top, "top_logprobs")
        return self._asked(asked, [prompt], config, rows, top, [0])

    @property
    def window(self) -> int:
        """Tokens that the model reads at once."""
        return self.writer.model.config.block_size

    def config_of(self, asked: WritingRequest) -> tuple[SampleConfig, bool]:
        """The settings of a request, with a seed, and whether anything is to be written.

        Raises:
            ConfigError: a field cannot be meant so, or is unknown.
        """
        settings = asked.settings()
        writes = settings.get("max_new_tokens") != 0
        if not writes:
            del settings["max_new_tokens"]
        settings.setdefault("seed", drawn_seed())
        try:
            return self.writer.config(**settings), writes
        except ConfigError as error:
            raise asked.in_their_words(error) from error

    def ids_of(self, prompt: str | list[int]) -> list[int]:
        """A prompt as ids.

        Raises:
            ConfigError: it holds half a character, or an id that the vocabulary lacks.
        """
        if isinstance(prompt, str):
            return encode(self.writer.tokenizer, prompt, "the prompt")
        self._require_tokens(prompt, "prompt")
        return prompt

    def _require_tokens(self, ids: Iterable[int], where: str) -> None:
        """
        Raises:
            ConfigError: the vocabulary lacks one of the ids.
        """
        if wrong := next((token for token in ids if not 0 <= token < len(self.names)), None):
            hint = f"the vocabulary has {len(self.names):,} tokens"
            raise ConfigError(f"there is no token {str(wrong)[:20]}", where, hint)

    def _asked(
        self,
        asked: WritingRequest,
        prompts: list[Prompt],
        config: SampleConfig,
        rows: int,
        top: int,
        bases: list[int],
    ) -> Asked:
        tokenizer = self.writer.tokenizer
        rules, text_rules = self._constraints(asked, config), self.writer.text_rules(config)
        choices: dict[RunningSequence, GrowingChoice] = {}
        for place, (prompt, base) in enumerate(zip(prompts, bases, strict=True)):
            for number in range(rows):
                row = RunningSequence(
                    prompt.ids, config, rules, place, number, top, text_rules, prompt.pinned
                )
                choices[row] = GrowingChoice(tokenizer, row, place * rows + number, base)
        events: asyncio.Queue[Event] = asyncio.Queue()
        loop = self.loop

        def deliver(found: list[Event]) -> None:
            for one in found:
                loop.call_soon_threadsafe(events.put_nowait, one)

        read = sum(len(prompt.texts[0]) for prompt in prompts)
        # a text that is only scored is scored whole
        dropped = sum(prompt.dropped for prompt in prompts) if rows else 0
        job = Job(deliver, list(choices))
        if config.memory and rows:
            check_memory(prompts)
            for place, prompt in enumerate(prompts):
                of_prompt = [row for row in choices if row.prompt == place]
                job.readings.append(self._remember(prompt, of_prompt))
            job.size += len(prompts)
        return Asked(
            job, choices, [], config.seed, len(prompts) * asked.n, asked.n, rows, read, dropped, events
        )

    def _remember(self, prompt: Prompt, rows: list[RunningSequence]) -> Iterator[list[TokenChoice]]:
        """Read what is to be remembered, some tokens at a time, and give it to the rows."""
        for memory in self.reader.read_parts(prompt.texts):
            for row in rows if memory is not None else ():
                assert memory is not None
                is_own = row.config.memory_written
                row.memory = memory.growing(row.config.max_new_tokens) if is_own else memory
            yield []

    def _constraints(self, asked: WritingRequest, config: SampleConfig) -> TokenConstraints:
        """Tokens that are never written, made likelier, or end an answer.

        Raises:
            ConfigError: logit_bias names a token that the vocabulary lacks.
        """
        rules = TokenConstraints.of(self.writer.tokenizer, config)
        bias = asked.logit_bias or {}
        self._require_tokens(bias, "logit_bias")
        end = self.chat.end_of_turn if isinstance(asked, ChatRequest) and self.chat else None
        return replace(rules.ending_with(end), bias=tuple(bias.items()))

    def _bases(self, asked: CompletionRequest, ids: list[list[int]]) -> list[int]:
        """The characters of each prompt: as it was sent, or as its ids give it back."""
        is_sent = asked.echo is False
        pairs = zip(asked.prompts, ids, strict=True)
        return [
            len(prompt) if is_sent and isinstance(prompt, str) else self._characters(one)
            for prompt, one in pairs
        ]

    def _characters(self, ids: list[int]) -> int:
        """The whole characters of a prompt; one that is begun may become whole with what is written."""
        stream = self.writer.tokenizer.stream()
        return sum(len(stream.push(token)) for token in ids)

    def _echo(self, found: Asked, ids: list[list[int]], top: int) -> None:
        """Give each prompt back in front of its texts, scored as ``yanmo evaluate`` does."""
        tokenizer, each = self.writer.tokenizer, found.best_of or found.n
        end = tokenizer.end_of_text
        for place, one in enumerate(ids):
            found.echoes.append(EchoedText(tokenizer, range(place * each, (place + 1) * each)))
            unscored = one[:1] if one[:1] == [end] else []  # the beginning of a document
            rest = np.asarray(one[len(unscored) :], dtype=np.int64)
            scored = score_parts(self.writer.model, rest, end, top=top)
            # before what is read into memories: places among readings are those of prompts
            given = chain([[TokenChoice(token, 0.0) for token in unscored]], scored)
            found.job.readings.insert(place, given)
        found.job.size += len(ids)

    # -- what comes of them -------------------------------------------------------------------

    async def parts(self, asked: Asked) -> AsyncGenerator[Part, None]:
        """The parts of an answer as they come; whoever stops reading them frees the rows.

        Raises:
            YanmoError: the engine failed.
            Busy: too many wait already.
        """
        self.thread.submit(asked.job)
        try:
            while not isinstance(event := await asked.events.get(), Done):
                if isinstance(event, YanmoError):
                    raise event
                if isinstance(event, Grown):
                    yield asked.choices[event.row].push(event.pieces, event.is_last)
                else:
                    for part in asked.echoes[event.text].push(event.choices):
                        yield part
            for choice in asked.choices.values():
                if not choice.is_done:  # its time was over
                    yield choice.finish(Part(choice.index))
            if not asked.choices:
                for part in asked.ends():
                    yield part
        finally:
            asked.job.is_called_off = True


def check_size(tokens: int, top: int, field: str) -> None:
    """Refuse an answer that would not fit into memory.

    Raises:
        ConfigError: it would have too many log probabilities, or texts.
    """
    if tokens * (1 + top) > MAX_SCORED:
        raise ConfigError(
            f"{tokens:,} tokens with {top} alternatives each are too much for one answer",
            where=field if top else "n",
            hint=f"ask for {MAX_SCORED:,} log probabilities at most; for a part of the text, or fewer",
        )


def check_memory(prompts: Sequence[Prompt]) -> None:
    """Refuse to remember more at once than one memory holds.

    Raises:
        ConfigError: the texts together are too long.
    """
    places = sum(min(sum(map(len, prompt.texts)), MAX_PLACES) for prompt in prompts)
    if places > MAX_PLACES:
        raise ConfigError(
            f"{places:,} tokens of {len(prompts)} texts are too many to remember for one request",
            where="memory",
            hint="send fewer texts at once; of a single one the end is remembered",
        )


def ranked(parts: list[Part], asked: Asked) -> list[Part]:
    """Of each prompt's texts the ``n`` that the model found likeliest, in that order if there were more."""
    if asked.best_of <= asked.n:
        return parts
    found: list[Part] = []
    for start in range(0, len(parts), asked.best_of):
        best = sorted(parts[start : start + asked.best_of], key=likelihood, reverse=True)
        found += best[: asked.n]
    return [replace(part, index=index) for index, part in enumerate(found)]


def likelihood(part: Part) -> float:
    """By what texts are ranked; one without a token comes last."""
    return -math.inf if part.mean_logprob is None else part.mean_logprob

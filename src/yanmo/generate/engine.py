"""The engine: sequences of ids go in, and grow by a token a step, some of them at a time.

    write(...), write_samples(...) (``text.py``)  text   for the command line, chat, samples in training
      TextEngine.step() (``text_engine.py``)  pieces of text
        Engine.step()      prefill in chunks, decode all rows in one pass, choose a token for each
          apply_logits_processors, sample (``sampling.py``)

**A sequence is written the same alone and in a crowd, to the bit of its log probabilities**, on one machine,
device and dtype, with as many rows. Its prompt is read by itself, in chunks that are cut at fixed places. New
tokens are computed in one pass of a fixed number of rows: there a matrix product gives a row the same numbers
beside any others. Attention, which torch would sum in another order, looks back row by row (``cache.py``),
and experts work token by token (``moe.py``). Random numbers follow from (seed, sample, position).
"""

import math
import secrets
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from yanmo.core.errors import CheckpointError
from yanmo.generate.memory import Memory
from yanmo.generate.sampling import (
    TokenConstraints,
    TokenHistory,
    apply_logits_processors,
    cut_distribution,
    describe_sampler,
    sample,
    uniform,
)
from yanmo.model.cache import KVCache, cache_dtype
from yanmo.model.config import GPTConfig
from yanmo.model.gpt import GPT, count_parameters
from yanmo.model.moe import routers_of
from yanmo.model.packed import Int8Weight, LaidOutWeight, can_lay_out, pack, refuse_int8
from yanmo.parallel.machine import leave_a_core
from yanmo.settings.schema import SampleConfig

MAX_ROWS = 8
"""Sequences that are decoded together: reading the weights costs more than computing so many rows of them."""
CHUNK_TOKENS = 64
"""A prompt is read so many tokens at a time; between two chunks the other sequences go on."""
CACHE_BYTES = 2 << 30
"""Memory for keys and values on a CPU; elsewhere a quarter of the device's."""
SEEDS = 1_000_000
"""The number of seeds to draw from where none is named: short enough to be typed again."""
SMALL_MODEL_PARAMETERS = 1 << 24
"""A CPU's caches hold much of a model with no more parameters: half the bytes hardly make it faster."""


def is_small(config: GPTConfig) -> bool:
    """Whether a CPU's caches hold much of such a model."""
    return count_parameters(config) <= SMALL_MODEL_PARAMETERS


def set_threads(models: Iterable[GPT]) -> None:
    """Small models write with a thread fewer, if all are small.

    Their steps are so short that threads wait longer for each other, and for the cores that the clients of a
    server need, than they compute (docs/performance.md). The last bits depend on the number of threads: so
    writing in a terminal has as many as a server.
    """
    if all(is_small(model.config) for model in models):
        leave_a_core()


def make_writer(model: GPT, device: torch.device, precision: str | None, trained: str | None) -> GPT:
    """``model`` ready to write on ``device``, in ``precision`` or by rule: the same seed, the same text.

    By rule: bfloat16 on a GPU, and on a CPU for a large model if its run measured it as faster (``trained``).

    Raises:
        ConfigError: ``int8`` was asked for where there is no such product.
    """
    # decoding a token reads every weight once and does little with it, so its speed is that of memory:
    # half the bytes, twice the speed
    large = not is_small(model.config)
    fast = device.type == "cuda" or (device.type == "cpu" and large and trained == "bfloat16")
    precision = precision or ("bfloat16" if fast else "float32")
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    biases = [router.bias for router in routers_of(model)]
    if precision == "int8":
        refuse_int8(model, device)
        pack(model, Int8Weight, dtype)
    elif precision == "float32" and can_lay_out(device):
        pack(model, LaidOutWeight, dtype)
    model.eval().to(device, dtype)
    for router, bias in zip(routers_of(model), biases, strict=True):
        # the bias only breaks near ties between experts: rounded to bfloat16 it would choose others
        router.bias = bias.to(device)
    return model


def drawn_seed() -> int:
    """A seed where none is named; the caller shows it, so that the text can be written again."""
    return secrets.randbelow(SEEDS)


def describe(config: SampleConfig, model: GPT) -> str:
    """Everything that decides what is written, in one line."""
    used = arithmetic_of(model)
    return f"{describe_sampler(config)}; {used['precision']} on {used['device']}"


def arithmetic_of(model: GPT) -> dict[str, str]:
    """A model's precision and device, for a record."""
    weight = model.tokens.weight
    in_8_bits = isinstance(model.head_weight, Int8Weight)
    precision = "int8" if in_8_bits else str(weight.dtype).removeprefix("torch.")
    return {"precision": precision, "device": str(weight.device)}


# -- tokens -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class TokenChoice:
    """A token that was chosen, beside the likeliest ones."""

    id: int
    logprob: float
    """Its log probability in nats, before any change by the sampler: what the model says, or with a memory
    what both say."""
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens (id, log probability), before the sampler; as many as were asked for."""
    top_sampled: tuple[tuple[int, float], ...] = ()
    """The same of what was drawn from, after the sampler; only tokens that could be drawn."""


class RuleState(Protocol):
    """A :class:`TextRule` in the middle of one text."""

    def barred(self) -> Tensor | None:
        """(V,) True where a token must not come next, never everywhere; None: all may come."""

    def push(self, token: int) -> None:
        """This token was written."""


class TextRule(Protocol):
    """Decides by the text so far what may be written next. The sampler never overrules it."""

    def begin(self, prompt: Sequence[int]) -> RuleState:
        """The state after these ids, with which a text begins."""


@dataclass(eq=False)
class RunningSequence:
    """One sample that is being written."""

    prompt_ids: list[int]
    """At least one token, at most a window."""
    config: SampleConfig
    rules: TokenConstraints
    prompt: int = 0
    """The place of its prompt among all prompts."""
    number: int = 0
    """Which sample of that prompt it is."""
    alternatives: int = 0
    """How many of the likeliest tokens are noted beside each chosen one."""
    text_rules: Sequence[TextRule] = ()
    pinned: int = 0
    """So many tokens of the prompt stay at the beginning of the window when it moves; at most half of it."""
    memory: Memory | None = None
    """Mixed in by ``config.memory``; with ``config.memory_written`` it is this sequence's own, and grows."""
    choices: list[TokenChoice] = field(default_factory=list)
    ended: bool = False
    """Set by the engine, or by its reader when the text is whole."""
    finish_reason: Literal["stop", "length"] = "length"
    """Why it ended: the model or a stop text ended it, or it is as long as was asked for."""

    def __post_init__(self) -> None:
        self.barred: dict[int, list[int]] = {}
        """Tokens that were taken back, by their place among the written: they do not come there again."""
        self.start = self.pinned
        """The first token of the window behind the pinned ones, as a place in ``past.ids``."""
        self.taken_back = 0
        """How often tokens were."""
        self.unread = list(self.prompt_ids)
        """What is to be read before the next token: the prompt at first, later half a full window."""
        self._begin([])

    def _begin(self, choices: list[TokenChoice]) -> None:
        """What follows from the prompt and these choices."""
        self.choices = choices
        self.past = TokenHistory(self.prompt_ids, self.config.no_repeat_ngram)
        self.rule_states = [rule.begin(self.prompt_ids) for rule in self.text_rules]
        for choice in choices:
            self.heard(choice.id)

    def heard(self, token: int) -> None:
        """All that follows the text learns of a token."""
        self.past.push(token)
        for state in self.rule_states:
            state.push(token)

    def move_window(self, window: int, read: int = 0) -> None:
        """Have the pinned tokens read again, and the newer half of the others: that leaves room to go on.

        So many as ``read`` of these were read ahead.
        """
        self.start = self.next_start(window, len(self.past.ids))
        self.unread = self.window_from(self.start)[read:]

    def next_start(self, window: int, length: int) -> int:
        """Where the window begins, behind the pinned tokens, once it moved in a text of ``length`` tokens."""
        return max(length - max((window - self.pinned) // 2, 1), self.pinned)

    def window_from(self, start: int) -> list[int]:
        """The pinned tokens, and those from ``start`` on."""
        return self.past.ids[: self.pinned] + self.past.ids[start:]

    def take_back(self, place: int) -> None:
        """Forget the written tokens from ``place`` on, of which the first does not come there again."""
        barred = {at: ids for at, ids in self.barred.items() if at <= place}
        self.taken_back += 1
        self.barred = barred | {place: [*barred.get(place, ()), self.choices[place].id]}
        if self.memory is not None and self.config.memory_written:
            self.memory.forget(len(self.choices) - place)
        self._begin(self.choices[:place])
        self.ended, self.finish_reason = False, "length"


class Prediction(NamedTuple):
    """What a model says of the next token."""

    logits: Tensor  # (V,)
    state: Tensor  # (C,), the hidden state that they were read from


class Engine:
    """Writes sequences, ``rows`` of them at a time; further ones wait for a slot."""

    def __init__(self, model: GPT, rows: int) -> None:
        self.model, self.window = model, model.config.block_size
        self.cache = KVCache(model.config, 2 * rows, like=model.tokens.weight)
        self.slots: list[RunningSequence | None] = [None] * rows
        self.places = list(range(rows))
        """Where in the cache each slot's window stands."""
        self.spares = list(range(rows, 2 * rows))
        """Where its next window is read ahead, so that a text that grows long never waits for it."""
        self.waiting: deque[RunningSequence] = deque()

    def add(self, sequence: RunningSequence) -> None:
        """Write this one as well, as soon as there is a slot."""
        self.waiting.append(sequence)

    @property
    def is_busy(self) -> bool:
        """Whether there is anything left to write."""
        return bool(self.waiting) or any(self._running())

    def take_back(self, one: RunningSequence, place: int) -> None:
        """Go back to the written token at ``place``, and choose another one there."""
        one.take_back(place)
        slot, read = self.slots.index(one), len(one.past.ids) - 1 - one.start
        # all but the last token stand in the cache as they did; unless the window has moved past the place
        if read < 0:
            one.move_window(self.window)
        self.cache.lengths[self.places[slot]] = one.pinned + read if read >= 0 else 0
        ahead = max(len(one.window_from(self._next_start(one))) - 1, 0)
        kept = min(ahead, self.cache.lengths[self.spares[slot]]) // CHUNK_TOKENS * CHUNK_TOKENS
        self.cache.lengths[self.spares[slot]] = kept if read >= 0 else 0

    @torch.no_grad()
    def step(self) -> list[RunningSequence]:
        """A token more for each sequence of which all is read, and a chunk read for the others.

        Gives those with a new token, in the order of their slots.

        Raises:
            CheckpointError: the model gives no numbers to choose by.
        """
        self._admit()
        predicted = self._decode() | self._prefill()
        self._read_ahead()
        grown = []
        for slot in sorted(predicted):
            sequence = self.slots[slot]
            assert sequence is not None
            choose(sequence, predicted[slot], self.window)
            grown.append(sequence)
        return grown

    def _running(self) -> Iterator[tuple[int, RunningSequence]]:
        """Slots and what is written there."""
        for slot, sequence in enumerate(self.slots):
            if sequence is not None and not sequence.ended:
                yield slot, sequence

    def _admit(self) -> None:
        """Give the slots of what has ended to those who wait, in their order."""
        for slot, sequence in enumerate(self.slots):
            if sequence is None or sequence.ended:
                self.slots[slot] = self._next()
                self.cache.lengths[self.places[slot]] = self.cache.lengths[self.spares[slot]] = 0

    def _next(self) -> RunningSequence | None:
        """The first of those who wait that was not called off in the meantime."""
        while self.waiting:
            if not (sequence := self.waiting.popleft()).ended:
                return sequence
        return None

    def _decode(self) -> dict[int, Prediction]:
        """Predictions by slot, of the sequences of which all but their last token is read."""
        ready = []
        for slot, one in self._running():
            if one.unread:
                continue
            if self.cache.lengths[self.places[slot]] < self.window:
                ready.append(slot)
                continue
            self.cache.lengths[self.places[slot]] = 0
            self.places[slot], self.spares[slot] = self.spares[slot], self.places[slot]
            one.move_window(self.window, read=self.cache.lengths[self.places[slot]])
        if not ready:
            return {}
        # always as many rows: a product of another shape would sum in another order
        rows = [place if slot in ready else None for slot, place in enumerate(self.places)]
        last = [self._at(slot).past.ids[-1] if slot in ready else 0 for slot in range(len(rows))]
        predicted = self._forward([[token] for token in last], rows)
        return {slot: predicted[slot] for slot in ready}

    def _prefill(self) -> dict[int, Prediction]:
        """Read a chunk of what is unread; predictions by slot, of the sequences that are read now."""
        found: dict[int, Prediction] = {}
        for slot, *others in self._readers():
            one = self._at(slot)
            chunk, one.unread = one.unread[:CHUNK_TOKENS], one.unread[CHUNK_TOKENS:]
            (predicted,) = self._forward([chunk], [self.places[slot]])
            if one.unread:
                continue
            found[slot] = predicted
            for other in others:
                self.cache.copy(self.places[slot], self.places[other])
                self._at(other).unread = []
                found[other] = predicted
        return found

    def _read_ahead(self) -> None:
        """Read a chunk of the window that comes next, where one more token than a chunk is there of it."""
        for slot, one in self._running():
            spare, start = self.spares[slot], self._next_start(one)
            read = self.cache.lengths[spare]
            if not one.unread and one.pinned + len(one.past.ids) - start > read + CHUNK_TOKENS:
                self._forward([one.window_from(start)[read : read + CHUNK_TOKENS]], [spare])

    def _next_start(self, one: RunningSequence) -> int:
        """Where a text's next window begins: it moves when this one is full and a token is to be read."""
        return one.next_start(self.window, one.start + self.window - one.pinned + 1)

    def _readers(self) -> list[list[int]]:
        """Slots with something to read; the samples of one prompt together, for it is read once."""
        groups: dict[int, list[int]] = {}
        for slot, one in self._running():
            if one.unread:
                # one that went back to its beginning may have to read less of the prompt than the others
                is_new = not one.choices and not one.taken_back
                groups.setdefault(id(one.prompt_ids if is_new else one), []).append(slot)
        return list(groups.values())

    def _at(self, slot: int) -> RunningSequence:
        one = self.slots[slot]
        assert one is not None
        return one

    def _forward(self, ids: list[list[int]], places: list[int | None]) -> list[Prediction]:
        """What comes after each row of ``ids`` (B, T), which continue what stands there in the cache."""
        tokens = torch.tensor(ids, device=self.cache.keys.device)
        x = self.model.hidden_states(tokens, self.cache.rows(places))  # (B, T, C)
        # only the last token's logits are needed: the LM head is the dearest product of a step
        last = x[:, -1]  # (B, C)
        return [Prediction(*row) for row in zip(self.model.head(last), last, strict=True)]


def choose(one: RunningSequence, predicted: Prediction, window: int) -> None:
    """Give a sequence its next token, by what the model says after it.

    Raises:
        CheckpointError: the model gives no numbers to choose by.
    """
    config = one.config
    said = predicted.logits.float()[None]  # (1, V): by itself, whatever is written beside it
    if not torch.isfinite(said).all():
        raise CheckpointError(
            f"{int((~torch.isfinite(said)).sum()):,} of {said.numel():,} logits are not finite",
            where=f"the token after {len(one.past.ids):,} others",
            hint="the weights are too large or damaged: try --precision float32, or download the model again",
        )
    logprobs = said.log_softmax(dim=-1)  # (1, V)
    if one.memory is not None:
        logprobs = one.memory.mix(logprobs[0], predicted.state, config.memory, one.past.ids[-2:])[None]
        # as high as the logits were: the repetition penalty asks whether they are positive
        said = logprobs + said.logsumexp(dim=-1)
    # rules of the text come first: where nothing else is left, the sampler keeps a token that they allow
    masks = [mask.to(said.device) for state in one.rule_states if (mask := state.barred()) is not None]
    allowed = said.masked_fill(torch.stack(masks).any(dim=0), -math.inf) if masks else said  # (1, V)
    place = len(one.choices)
    barred = one.barred.get(place, [])
    rules = replace(one.rules, never=(*one.rules.never, *barred)) if barred else one.rules
    processed = apply_logits_processors(allowed, [one.past], config, rules, window)
    chance = uniform(config.seed, one.number, place, len(barred)) if config.temperature else 0.0
    (token,) = sample(processed, config, [chance])
    choice = TokenChoice(token, float(logprobs[0, token]))
    if one.alternatives:
        drawn_from = cut_distribution(processed, config).log_softmax(dim=-1)[0]  # (V,)
        top, top_sampled = (likeliest(found, one.alternatives) for found in (logprobs[0], drawn_from))
        choice = replace(choice, top=top, top_sampled=top_sampled)
    one.choices.append(choice)
    one.heard(token)
    if one.memory is not None and config.memory_written:
        one.memory.note(predicted.state, token)
    one.ended = token == one.rules.end_of_text or len(one.choices) == config.max_new_tokens
    one.finish_reason = "stop" if token == one.rules.end_of_text else "length"


def likeliest(logprobs: Tensor, count: int) -> tuple[tuple[int, float], ...]:
    """The ``count`` likeliest ids of logprobs (V,) with their log probabilities; none that cannot be."""
    values, ids = logprobs.topk(min(count, logprobs.numel()))
    pairs = zip(ids.tolist(), values.tolist(), strict=True)
    return tuple((token, value) for token, value in pairs if value > -math.inf)


def generate(model: GPT, prompt: list[int], config: SampleConfig, end_of_text: int) -> Iterator[list[int]]:
    """Continue one prompt of ids; yields the new token of each sample that has not ended, step by step."""
    for rows in generate_batch(model, [prompt], config, TokenConstraints(end_of_text)):
        yield [row.past.ids[-1] for row in rows]


def generate_batch(
    model: GPT,
    prompts: Sequence[list[int]],
    config: SampleConfig,
    rules: TokenConstraints,
    cache_bytes: int = CACHE_BYTES,
    alternatives: int = 0,
) -> Iterator[list[RunningSequence]]:
    """Continue each of ``prompts`` ``num_samples`` times; yields, step by step, those with a new token."""
    count = len(prompts) * config.num_samples
    engine = Engine(model, min(count, rows_together(model, cache_bytes)))
    for index, prompt in enumerate(prompts):
        for number in range(config.num_samples):
            engine.add(RunningSequence(prompt, config, rules, index, number, alternatives))
    while engine.is_busy:
        yield engine.step()


def rows_together(model: GPT, cache_bytes: int = CACHE_BYTES) -> int:
    """How many sequences are decoded together: ``MAX_ROWS``, or as many as there is memory for."""
    config, weight = model.config, model.tokens.weight
    row = 2 * config.block_size * config.cached_values * cache_dtype(weight).itemsize  # a spare one beside it
    if weight.device.type == "cuda":
        cache_bytes = torch.cuda.get_device_properties(weight.device).total_memory // 4
    return max(min(cache_bytes // row, MAX_ROWS), 1)

"""A model and prompts of ids go in, ids come out: one step function, one sampler.

    write(...), write_samples(...) (``text.py``)  text   for the command line, chat, samples in training
      generate_batch(...)  ids   the loop: prefill, then sample and decode a token a step
        step(model, cache, ids) → logits   one look at the model
        apply_logits_processors, sample (``sampling.py``)  one choice

Each sample is a row with a window and a random generator of its own, seeded by (seed, sample number): it
does not depend on what is written beside it, up to rounding.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice

import torch
from torch import Tensor

from yanmo.core.errors import CheckpointError
from yanmo.generate.sampling import (
    TokenConstraints,
    TokenHistory,
    apply_logits_processors,
    describe_sampler,
    sample,
)
from yanmo.model.cache import KVCache, cache_dtype
from yanmo.model.gpt import GPT, count_parameters
from yanmo.model.moe import routers_of
from yanmo.settings.schema import SampleConfig

CACHE_BYTES = 2 << 30
"""Memory for keys and values of samples written together on a CPU; elsewhere a quarter of the device's."""
SEEDS = 1_000_000
"""A seed that nobody named is one of so many: short enough to be typed."""
SMALL_MODEL_PARAMETERS = 1 << 24
"""A CPU's caches hold much of a model with fewer parameters: half the bytes hardly make it faster."""


def make_writer(model: GPT, device: torch.device, precision: str | None, trained: str | None) -> GPT:
    """``model`` ready to write on ``device``, in ``precision`` or by rule: the same seed, the same text.

    Writing is reading all weights for each token, so bfloat16 doubles its speed: on a GPU, and on a CPU for
    a large model whose run has measured (``trained``) that bfloat16 is the faster arithmetic there.
    """
    large = count_parameters(model.config) > SMALL_MODEL_PARAMETERS
    fast = device.type == "cuda" or (device.type == "cpu" and large and trained == "bfloat16")
    precision = precision or ("bfloat16" if fast else "float32")
    biases = [router.bias for router in routers_of(model)]
    model.eval().to(device, torch.bfloat16 if precision == "bfloat16" else torch.float32)
    for router, bias in zip(routers_of(model), biases, strict=True):
        router.bias = bias.to(device)  # bfloat16 would choose other experts
    return model


def drawn_seed() -> int:
    """A seed where none is named; whoever draws it says it."""
    return secrets.randbelow(SEEDS)


def describe(config: SampleConfig, model: GPT) -> str:
    """Everything that decides what is written, in one line."""
    used = arithmetic_of(model)
    return f"{describe_sampler(config)}; {used['precision']} on {used['device']}"


def arithmetic_of(model: GPT) -> dict[str, str]:
    """Its precision and device, for a record."""
    weight = model.tokens.weight
    return {"precision": str(weight.dtype).removeprefix("torch."), "device": str(weight.device)}


# -- tokens -----------------------------------------------------------------------------------


@dataclass(eq=False)
class RunningSequence:
    """One sample that is being written."""

    prompt: int
    """The place of its prompt among all prompts."""
    number: int
    """Which sample of that prompt it is."""
    past: TokenHistory
    generator: torch.Generator
    logprobs: list[float] = field(default_factory=list)
    ended: bool = False
    """Set by the loop, or by its reader when the text is whole."""


def generate(model: GPT, prompt: list[int], config: SampleConfig, end_of_text: int) -> Iterator[list[int]]:
    """Continue one prompt of ids by the model and ``config`` alone; each step's tokens of those not ended."""
    for rows in generate_batch(model, [prompt], config, TokenConstraints(end_of_text)):
        yield [row.past.ids[-1] for row in rows]


@torch.no_grad()
def generate_batch(
    model: GPT, prompts: Sequence[list[int]], config: SampleConfig, rules: TokenConstraints
) -> Iterator[list[RunningSequence]]:
    """Continue each of ``prompts`` ``num_samples`` times; yields, step by step, the rows with a new token."""
    rows = (
        RunningSequence(
            index, number, TokenHistory(prompt, config.no_repeat_ngram), _generator(config.seed, number)
        )
        for index, prompt in enumerate(prompts)
        for number in range(config.num_samples)
    )
    while group := list(islice(rows, rows_together(model))):
        yield from _write_together(model, group, config, rules)


def rows_together(model: GPT) -> int:
    """How many samples are written at once; further ones wait for their turn."""
    config, weight = model.config, model.tokens.weight
    row = config.block_size * config.cached_values * cache_dtype(weight).itemsize
    if weight.device.type == "cuda":
        return max(torch.cuda.get_device_properties(weight.device).total_memory // 4 // row, 1)
    return max(CACHE_BYTES // row, 1)


def _write_together(
    model: GPT, rows: list[RunningSequence], config: SampleConfig, rules: TokenConstraints
) -> Iterator[list[RunningSequence]]:
    # continuous only in leaving: a row that ends makes the batch smaller, none comes in
    cache = KVCache(model.config, len(rows), like=model.tokens.weight)
    logits = prefill(model, cache, rows)  # (B, V)
    for left in reversed(range(config.max_new_tokens)):
        for row, token in zip(
            rows, sample_next(logits, rows, config, rules, model.config.block_size), strict=True
        ):
            row.past.push(token)
            row.ended = token == rules.end_of_text or left == 0
        yield rows
        going = [place for place, row in enumerate(rows) if not row.ended]
        if not going:
            return
        if len(going) < len(rows):
            cache.select_rows(going)
            rows = [rows[place] for place in going]
        logits = decode_step(model, cache, rows)  # (B, V)


def prefill(model: GPT, cache: KVCache, rows: list[RunningSequence]) -> Tensor:
    """Logits (B, V) of the first new token of each row; a prompt is read once for all its rows."""
    logits = []
    for _, group in groupby(range(len(rows)), key=lambda place: rows[place].prompt):
        first, *others = group
        # prefill: all tokens of a prompt in one pass, which fills the KV cache; its copies share the work
        said = forward_rows(model, cache, [first], [rows[first].past.ids])  # (1, V)
        for other in others:
            cache.copy_row(first, other)
        logits.append(said.expand(1 + len(others), -1))
    return torch.cat(logits)


def decode_step(model: GPT, cache: KVCache, rows: list[RunningSequence]) -> Tensor:
    """Logits (B, V) after the last token of each row.

    A row whose window is full reads the newer half of it again, and so has room to go on.
    """
    # rows whose window is full are read apart from the others, as their lengths differ
    window, logits = model.config.block_size, []
    for full, group in groupby(enumerate(list(cache.lengths)), key=lambda row: row[1] == window):
        places = [place for place, _ in group]
        count = 1
        for place in places if full else ():
            count, cache.lengths[place] = max(window // 2, 1), 0
        logits.append(forward_rows(model, cache, places, [rows[place].past.ids[-count:] for place in places]))
    return torch.cat(logits)


def forward_rows(model: GPT, cache: KVCache, places: list[int], ids: list[list[int]]) -> Tensor:
    """Logits (R, V) after ``ids`` (R, T), which continue R neighbouring rows of the cache."""
    start, stop = places[0], places[-1] + 1
    part = cache.rows(start, stop)
    logits = step(model, part, torch.tensor(ids, device=model.tokens.weight.device))
    cache.lengths[start:stop] = part.lengths
    return logits


def sample_next(
    logits: Tensor, rows: list[RunningSequence], config: SampleConfig, rules: TokenConstraints, window: int
) -> list[int]:
    """The next token of each row, its log probability noted.

    Raises:
        CheckpointError: the model gives no numbers to choose by.
    """
    logits = logits.float()  # (B, V)
    if not torch.isfinite(logits).all():
        raise CheckpointError(
            f"{int((~torch.isfinite(logits)).sum()):,} of {logits.numel():,} logits are not finite",
            where=f"the token after {len(rows[0].past.ids):,} others",
            hint="the weights are too large or damaged: try --precision float32, or download the model again",
        )
    processed = apply_logits_processors(logits, [row.past for row in rows], config, rules, window)
    tokens = sample(processed, config, [row.generator for row in rows])
    ids = torch.tensor(tokens, device=logits.device)[:, None]  # (B, 1)
    chosen = logits.log_softmax(dim=-1).gather(1, ids).flatten()  # (B,)
    for row, logprob in zip(rows, chosen.tolist(), strict=True):
        row.logprobs.append(logprob)
    return tokens


def step(model: GPT, cache: KVCache, ids: Tensor) -> Tensor:
    """Logits (B, V) of the token that follows ``ids`` (B, T), which continue the cache."""
    # only the last token's logits are needed: the LM head is the dearest product of a step
    return model.head(model.hidden_states(ids, cache)[:, -1])


def _generator(seed: int, number: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + number) % (1 << 63))


# -- files ------------------------------------------------------------------------------------

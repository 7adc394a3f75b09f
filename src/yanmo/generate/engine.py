"""Generation of ids: prefill, then decode token by token with a KV cache; one step function, one sampler.

    write(...), write_samples(...) (``text.py``)  text   for the command line, chat, samples in training
      generate_batch(...)  ids   the loop: prefill, then sample and decode a token a step
        step(model, cache, ids) → logits   one forward pass
        apply_logits_processors, sample (``sampling.py``)  one choice

Each sample is a row with its own window and its own random generator, seeded by (seed, sample number): it
does not depend on the other rows of its batch, up to rounding.
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
"""Memory for the KV cache of a batch on a CPU; elsewhere a quarter of the device's memory."""
SEEDS = 1_000_000
"""The number of seeds to draw from where none is named: short enough to be typed again."""
SMALL_MODEL_PARAMETERS = 1 << 24
"""A CPU's caches hold much of a model with fewer parameters: half the bytes hardly make it faster."""


def make_writer(model: GPT, device: torch.device, precision: str | None, trained: str | None) -> GPT:
    """``model`` ready to write on ``device``, in ``precision`` or by rule: the same seed, the same text.

    By rule: bfloat16 on a GPU, and on a CPU for a large model if its run measured it as faster (``trained``).
    """
    # decoding a token reads every weight once and does little with it, so its speed is that of memory:
    # half the bytes, twice the speed
    large = count_parameters(model.config) > SMALL_MODEL_PARAMETERS
    fast = device.type == "cuda" or (device.type == "cpu" and large and trained == "bfloat16")
    precision = precision or ("bfloat16" if fast else "float32")
    biases = [router.bias for router in routers_of(model)]
    model.eval().to(device, torch.bfloat16 if precision == "bfloat16" else torch.float32)
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
    return {"precision": str(weight.dtype).removeprefix("torch."), "device": str(weight.device)}


@dataclass(eq=False)
class RunningSequence:
    """One sample that is being written."""

    prompt: int
    """Index of its prompt among all prompts."""
    number: int
    """Which sample of that prompt it is."""
    past: TokenHistory
    generator: torch.Generator
    logprobs: list[float] = field(default_factory=list)
    ended: bool = False
    """Set by the loop, or by its caller when a stop text is complete."""


def generate(model: GPT, prompt: list[int], config: SampleConfig, end_of_text: int) -> Iterator[list[int]]:
    """Continue one prompt of ids; yields the new token of each sample that has not ended, step by step."""
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
    # rows are made when their turn comes: thousands of samples need no more memory than one batch
    while group := list(islice(rows, rows_together(model))):
        yield from _write_together(model, group, config, rules)


def rows_together(model: GPT) -> int:
    """How many samples are written at once; further ones wait for their turn."""
    # KV cache of a row: block_size · layers · 2 · KV heads · head size values
    config, weight = model.config, model.tokens.weight
    row = config.block_size * config.cached_values * cache_dtype(weight).itemsize
    if weight.device.type == "cuda":
        return max(torch.cuda.get_device_properties(weight.device).total_memory // 4 // row, 1)
    return max(CACHE_BYTES // row, 1)


def _write_together(
    model: GPT, rows: list[RunningSequence], config: SampleConfig, rules: TokenConstraints
) -> Iterator[list[RunningSequence]]:
    # prefill reads the prompts once (compute-bound, T tokens a pass); each decode step then reads all weights
    # for one token per row (memory-bound), which costs hardly more for 32 rows than for one
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
            # a row that ends leaves the batch, so the others cost less; no row joins it
            cache.select_rows(going)
            rows = [rows[place] for place in going]
        logits = decode_step(model, cache, rows)  # (B, V)


def prefill(model: GPT, cache: KVCache, rows: list[RunningSequence]) -> Tensor:
    """Logits (B, V) of the first new token of each row; samples of one prompt share its pass."""
    logits = []
    for _, group in groupby(range(len(rows)), key=lambda place: rows[place].prompt):
        first, *others = group
        # all tokens of a prompt in one pass, which fills the KV cache; a copy of it is cheaper than a pass
        said = forward_rows(model, cache, [first], [rows[first].past.ids])  # (1, V)
        for other in others:
            cache.copy_row(first, other)
        logits.append(said.expand(1 + len(others), -1))
    return torch.cat(logits)


def decode_step(model: GPT, cache: KVCache, rows: list[RunningSequence]) -> Tensor:
    """Logits (B, V) after the last token of each row.

    A row whose window is full starts its cache anew with the newer half of the window.
    """
    # cached keys hold their positions, so dropping the oldest token would shift all others: they have to be
    # computed again. By half a window at a time this happens once in T / 2 tokens, not at every token.
    # Such rows get a pass of their own, as they read more than one token
    window, logits = model.config.block_size, []
    for full, group in groupby(enumerate(list(cache.lengths)), key=lambda row: row[1] == window):
        places = [place for place, _ in group]
        count = 1
        for place in places if full else ():
            count, cache.lengths[place] = max(window // 2, 1), 0
        logits.append(forward_rows(model, cache, places, [rows[place].past.ids[-count:] for place in places]))
    return torch.cat(logits)


def forward_rows(model: GPT, cache: KVCache, places: list[int], ids: list[list[int]]) -> Tensor:
    """Logits (R, V) after ``ids`` (R, T), which continue R adjacent rows of the cache."""
    start, stop = places[0], places[-1] + 1
    part = cache.rows(start, stop)
    logits = step(model, part, torch.tensor(ids, device=model.tokens.weight.device))
    cache.lengths[start:stop] = part.lengths
    return logits


def sample_next(
    logits: Tensor, rows: list[RunningSequence], config: SampleConfig, rules: TokenConstraints, window: int
) -> list[int]:
    """The next token of each row; its log probability goes to ``row.logprobs``.

    Raises:
        CheckpointError: a logit is not finite.
    """
    logits = logits.float()  # (B, V); the softmax of bfloat16 logits would round small probabilities away
    if not torch.isfinite(logits).all():
        raise CheckpointError(
            f"{int((~torch.isfinite(logits)).sum()):,} of {logits.numel():,} logits are no finite numbers",
            where=f"the token after {len(rows[0].past.ids):,} others",
            hint="its weights are too large or damaged: try --precision float32, or take it anew",
        )
    processed = apply_logits_processors(logits, [row.past for row in rows], config, rules, window)
    tokens = sample(processed, config, [row.generator for row in rows])
    ids = torch.tensor(tokens, device=logits.device)[:, None]  # (B, 1)
    # of the unprocessed logits: what the model thinks of the token, whatever the sampler left to choose from
    chosen = logits.log_softmax(dim=-1).gather(1, ids).flatten()  # (B,)
    for row, logprob in zip(rows, chosen.tolist(), strict=True):
        row.logprobs.append(logprob)
    return tokens


def step(model: GPT, cache: KVCache, ids: Tensor) -> Tensor:
    """Logits (B, V) of the token that follows ``ids`` (B, T), which continue the cache."""
    # only the last token's logits are needed: the LM head, C x V, is the largest product of a step
    return model.head(model.hidden_states(ids, cache)[:, -1])


def _generator(seed: int, number: int) -> torch.Generator:
    # a prime multiplier, so that sample 1 of seed 0 is not sample 0 of seed 1
    return torch.Generator().manual_seed((seed * 1_000_003 + number) % (1 << 63))

"""A model and a prompt go in, text comes out: one step function, one sampler, whole characters.

    write(...)  text   the front ends: command line, samples in training
      generate(...)  ids   the loop: step, sample, slide when the window is full
        step(model, cache, ids) → logits   one look at the model
        sample(logits, ...) → ids          one choice

Sample i of a prompt has a generator of its own, seeded by (seed, i): it does not depend on how many
samples are written beside it, up to rounding.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from yanmo.config import SampleConfig
from yanmo.errors import ConfigError
from yanmo.model.gpt import GPT, Cache
from yanmo.tokenizer import Tokenizer

MIN_TEMPERATURE = 1e-4
"""Below this the likeliest token always wins, and smaller divisors overflow."""


def write(model: GPT, tokenizer: Tokenizer, prompt: str, config: SampleConfig) -> Iterator[tuple[int, str]]:
    """Continue ``prompt`` ``num_samples`` times; yields (sample number, whole characters) as they come.

    Raises:
        ConfigError: the prompt is longer than the model's window.
    """
    ids = encode_prompt(tokenizer, prompt, model.config.block_size)
    streams = [tokenizer.stream() for _ in range(config.num_samples)]
    for tokens in generate(model, ids, config, tokenizer.end_of_text):
        for number, token in enumerate(tokens):
            if token is not None and (text := streams[number].push(token)):
                yield number, text
    for number, stream in enumerate(streams):
        if rest := stream.flush():
            yield number, rest


def write_all(model: GPT, tokenizer: Tokenizer, prompt: str, config: SampleConfig) -> list[str]:
    """The samples as whole texts, without the prompt."""
    texts = [""] * config.num_samples
    for number, text in write(model, tokenizer, prompt, config):
        texts[number] += text
    return texts


def encode_prompt(tokenizer: Tokenizer, prompt: str, block_size: int) -> list[int]:
    """Ids of a prompt; an empty one is the beginning of a document."""
    try:
        ids = tokenizer.encode(prompt).tolist() or [tokenizer.end_of_text]
    except UnicodeEncodeError as error:
        raise ConfigError(
            "the prompt holds half a character (a lone surrogate)",
            where=f"character {error.start + 1} of the prompt",
            mend="type it again, or set the terminal to UTF-8",
        ) from error
    if len(ids) > block_size:
        raise ConfigError(
            f"the prompt has {len(ids)} tokens, the model looks back on {block_size}",
            where=f"prompt '{prompt[:20]}…'",
            mend=f"give at most {block_size} tokens; the last ones matter most",
        )
    return list(ids)


@torch.no_grad()
def generate(
    model: GPT, prompt: list[int], config: SampleConfig, end_of_text: int
) -> Iterator[list[int | None]]:
    """Tokens of all samples, one step at a time; None for a sample that has ended.

    When the window is full, the newer half of it is read again and writing goes on.
    """
    B, device = config.num_samples, model.tokens.weight.device
    generators = [torch.Generator().manual_seed(_seed(config.seed, i)) for i in range(B)]
    history = torch.tensor([prompt] * B, device=device)  # (B, T)
    cache = Cache(model.config, B, like=model.tokens.weight)
    new, ended = history, [False] * B
    for _ in range(config.max_new_tokens):
        if cache.length + new.size(1) > model.config.block_size:
            new = history[:, -max(model.config.block_size // 2, 1) :]
            cache.length = 0
        logits = step(model, cache, new)  # (B, V)
        tokens = sample(logits, config, generators)  # (B,)
        ended = [done or token == end_of_text for done, token in zip(ended, tokens, strict=True)]
        if all(ended):
            return
        yield [None if done else token for done, token in zip(ended, tokens, strict=True)]
        new = torch.tensor(tokens, device=device)[:, None]  # (B, 1)
        history = torch.cat([history, new], dim=1)


def step(model: GPT, cache: Cache, ids: Tensor) -> Tensor:
    """Logits (B, V) of the token that follows ``ids`` (B, T), which continue the cache."""
    logits: Tensor = model(ids, cache)  # (B, T, V)
    return logits[:, -1]


def sample(logits: Tensor, config: SampleConfig, generators: list[torch.Generator]) -> list[int]:
    """One token per row of logits (B, V): greedy at temperature 0, else top-k, then top-p, then chance."""
    if config.temperature == 0:
        return logits.argmax(dim=-1).tolist()
    logits = logits.float().cpu() / max(config.temperature, MIN_TEMPERATURE)
    logits = keep_top_k(logits, config.top_k)
    logits = keep_top_p(logits, config.top_p)
    rows = zip(logits.softmax(dim=-1), generators, strict=True)
    return [int(torch.multinomial(row, 1, generator=generator)) for row, generator in rows]


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """All but the k largest of each row become -inf; k = 0 keeps all (Fan et al. 2018)."""
    if not 0 < k < logits.size(-1):
        return logits
    least = logits.topk(k, dim=-1).values[:, -1:]  # (B, 1)
    return logits.masked_fill(logits < least, -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keeps the likeliest tokens whose probabilities first reach p together (Holtzman et al. 2020)."""
    if p >= 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities  # mass of all likelier tokens
    return logits.masked_fill((before >= p).scatter(-1, order, before >= p), -torch.inf)


def _seed(seed: int, number: int) -> int:
    return (seed * 1_000_003 + number) % (1 << 63)

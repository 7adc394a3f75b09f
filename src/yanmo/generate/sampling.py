"""Sampling, from logits to a token: each step a pure function, in the order of Hugging Face.

    apply_logits_processors(logits, pasts, ...)  repetition penalty, then tokens that must not be written
    cut_distribution(logits, config)  temperature → top-k → top-p → min-p; greedy at temperature 0
    sample(logits, config, numbers)  one token, by a random number that follows from (seed, sample, position)

In: logits (B, V) of B rows, and what each row has written so far. Out: one token per row.
"""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from yanmo.core.errors import ConfigError
from yanmo.settings.schema import SampleConfig
from yanmo.tokenizer import Tokenizer

MIN_TEMPERATURE = 1e-4
"""Below this the likeliest token always wins, and smaller divisors overflow."""
TYPED_LINE_END = re.compile(r"(\\?)\\n(?![A-Za-z])")
TYPED_WORD = re.compile(r"(?<!\\)\\n[A-Za-z]")
MAX_STRENGTH = 1e9
"""Temperatures and penalties beyond it change nothing more, and would overflow."""


@dataclass(frozen=True)
class TokenConstraints:
    """Ids with a meaning for the sampler: end-of-text, those never written, those made likelier or rarer."""

    end_of_text: int
    never: tuple[int, ...] = ()
    bias: tuple[tuple[int, float], ...] = ()
    """Ids, and what is added to their logits."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, config: SampleConfig) -> "TokenConstraints":
        """The rules of a tokenizer, and banned texts that are one token (of others see ``assembly.py``)."""
        banned = [encode(tokenizer, text, "a banned text") for text in config.banned]
        single = tuple(ids[0] for ids in banned if len(ids) == 1)
        return cls(tokenizer.end_of_text, (*tokenizer.suppressed, *single))

    def ending_with(self, token: int | None) -> "TokenConstraints":
        """The same where another token ends a text, such as that of a turn; end-of-text is never written."""
        if token is None:
            return self
        never = (*(one for one in self.never if one != token), self.end_of_text)
        return replace(self, end_of_text=token, never=never)


class TokenHistory:
    """The tokens of a row so far, prompt included, and an index of what followed each sequence of n - 1."""

    def __init__(self, ids: Sequence[int], n: int = 0) -> None:
        self.ids: list[int] = []
        self.prompt_length = len(ids)
        self._n = n
        self._followers: dict[tuple[int, ...], set[int]] = {}
        for token in ids:
            self.push(token)

    def push(self, token: int) -> None:
        """Append a token; the index makes the work independent of the length of the text."""
        if 0 < self._n <= len(self.ids) + 1:
            self._followers.setdefault(self._last(), set()).add(token)
        self.ids.append(token)

    def repeats(self) -> Collection[int]:
        """Tokens that would complete an n-gram that the text already has (Paulus et al. 2017)."""
        return self._followers.get(self._last(), ()) if 0 < self._n <= len(self.ids) + 1 else ()

    def _last(self) -> tuple[int, ...]:
        return tuple(self.ids[len(self.ids) - self._n + 1 :])


def typed(text: str) -> tuple[str, str]:
    r"""A text as typed on one line → (text with line ends, a remark for its author).

    ``\n`` is a line end. It stays two characters where a Latin letter follows (``\nu``, ``C:\new``), and
    ``\\n`` writes the two characters anywhere else.
    """
    said = []
    read = TYPED_LINE_END.sub(lambda found: "\\n" if found[1] else "\n", text)
    if read.count("\n") > text.count("\n"):
        said.append(r"\n is a line end here; \\n writes the two characters")
    if TYPED_WORD.search(text):
        said.append(r"\n before a letter is two characters here, not a line end")
    return read, "; ".join(said)


def encode(tokenizer: Tokenizer, text: str, what: str, special: bool = False) -> list[int]:
    """Ids of a text that a person typed.

    Raises:
        ConfigError: it holds half a character.
    """
    try:
        return [int(token) for token in tokenizer.encode(text, special=special)]
    except UnicodeEncodeError as error:
        raise half_character(what, f"character {error.start + 1} of {what}") from error


def half_character(what: str, where: str) -> ConfigError:
    """The mistake of a text that no tokenizer can encode."""
    hint = "type it again, or set the terminal to UTF-8"
    return ConfigError(f"{what} holds half a character (a lone surrogate)", where, hint)


def apply_logits_processors(
    logits: Tensor, pasts: Sequence[TokenHistory], config: SampleConfig, rules: TokenConstraints, window: int
) -> Tensor:
    """Logits (B, V) after the rules that depend on the text so far."""
    back = min(config.penalty_window or window, window)  # only what the model still sees
    if config.repetition_penalty != 1:  # the prompt counts too
        logits = penalise_repeats(logits, [past.ids[-back:] for past in pasts], config.repetition_penalty)
    if config.frequency_penalty or config.presence_penalty:
        written = [past.ids[max(past.prompt_length, len(past.ids) - back) :] for past in pasts]
        logits = penalise_written(logits, written, config.frequency_penalty, config.presence_penalty)
    if rules.bias:
        ids, values = zip(*rules.bias, strict=True)
        logits = logits.index_add(
            1, torch.tensor(ids, device=logits.device), torch.tensor([values] * len(pasts)).to(logits)
        )
    logits = mask_tokens(logits, [rules.never] * len(pasts))
    if config.min_new_tokens:
        young = [len(past.ids) - past.prompt_length < config.min_new_tokens for past in pasts]
        logits = mask_tokens(logits, [(rules.end_of_text,) if is_young else () for is_young in young])
    # last: where bans and repeats together leave no token, mask_tokens keeps one that only repeats
    return mask_tokens(logits, [past.repeats() for past in pasts])


def penalise_repeats(logits: Tensor, windows: Sequence[Sequence[int]], penalty: float) -> Tensor:
    """Make the tokens of each row's window less likely, each once (CTRL, Keskar et al. 2019)."""
    seen = torch.zeros_like(logits, dtype=torch.bool)
    for row, window in enumerate(windows):
        seen[row, list(window)] = True
    penalty = min(penalty, MAX_STRENGTH)
    # z → z / penalty for z > 0, z · penalty for z < 0: dividing a negative logit would make it likelier
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def penalise_written(
    logits: Tensor, written: Sequence[Sequence[int]], frequency: float, presence: float
) -> Tensor:
    """Lower what was written, by how often it was and that it was: OpenAI's two penalties."""
    V = logits.size(-1)
    ids = [torch.tensor(row, dtype=torch.long, device=logits.device) for row in written]
    counts = torch.stack([torch.bincount(row, minlength=V) for row in ids])  # (B, V)
    return logits - frequency * counts - presence * (counts > 0)


def mask_tokens(logits: Tensor, barred: Sequence[Collection[int]]) -> Tensor:
    """The barred ids of each row become -inf; if none is left, the likeliest token stays."""
    if not any(barred):
        return logits
    mask = torch.zeros_like(logits, dtype=torch.bool)
    for row, ids in enumerate(barred):
        mask[row, list(ids)] = True
    # -inf is exactly 0 after softmax, and the other tokens share the mass in proportion
    left = logits.masked_fill(mask, -torch.inf)
    nothing = left.isneginf().all(dim=-1, keepdim=True)  # (B, 1)
    return torch.where(nothing, keep_top_k(logits, 1), left)


def cut_distribution(logits: Tensor, config: SampleConfig) -> Tensor:
    """Logits (B, V) of what is drawn from: what the sampler cuts off is -inf."""
    if config.temperature == 0:
        return keep_top_k(logits, 1)
    # p = softmax(z / τ): τ < 1 sharpens the distribution, τ > 1 flattens it. Temperature comes first, so
    # top-p and min-p cut what will really be drawn from; top-k is the same before and after
    logits = logits.float() / min(max(config.temperature, MIN_TEMPERATURE), MAX_STRENGTH)
    logits = keep_top_k(logits, config.top_k)
    logits = keep_top_p(logits, config.top_p)
    return keep_min_p(logits, config.min_p)


def sample(logits: Tensor, config: SampleConfig, numbers: Sequence[float]) -> list[int]:
    """One token per row of logits (B, V), by a random number of each row."""
    if config.temperature == 0:
        return logits.argmax(dim=-1).tolist()
    return draw(cut_distribution(logits, config).softmax(dim=-1), numbers)


def draw(probabilities: Tensor, numbers: Sequence[float]) -> list[int]:
    """One index per row of probabilities (B, V), by a number of each row in [0, 1)."""
    if probabilities.device.type == "mps":  # has no float64
        probabilities = probabilities.cpu()
    # inverse transform sampling: the index where a uniform number falls in the cumulative sum. float64: in
    # float32 the sum of a large vocabulary near 1 has steps of 6e-8, larger than the chance of rare tokens.
    # One number per row, unlike torch.multinomial, so a row does not depend on those beside it
    up_to = probabilities.double().cumsum(dim=-1)  # (B, V)
    below_one = torch.tensor(numbers, dtype=torch.float64, device=up_to.device)
    below_one = below_one * (1 - 2**-50)  # so that no product is the sum itself
    # the first index whose sum is greater: one of probability 0 never is
    return torch.searchsorted(up_to, below_one[:, None] * up_to[:, -1:], right=True).flatten().tolist()


def uniform(seed: int, number: int, position: int, attempt: int = 0) -> float:
    """The random number in [0, 1) of one place in one sample: a function of these and of nothing else.

    Counter-based (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"): what is written beside
    a sample, or written and taken back, does not move it.
    """
    philox = np.random.Philox(key=[seed, number], counter=[position, attempt, 0, 0])
    return float(np.random.Generator(philox).random())


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """All but the k largest of each row become -inf; k = 0 keeps all (Fan et al. 2018)."""
    if not 0 < k < logits.size(-1):
        return logits
    # the k-th largest; tokens as likely as it stay too
    least = logits.topk(k, dim=-1).values[:, -1:]  # (B, 1)
    return logits.masked_fill(logits < least, -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keeps the smallest set of likeliest tokens whose total probability reaches p (Holtzman et al. 2020)."""
    if p >= 1:
        return logits
    ordered, order = logits.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(dim=-1)
    # a token stays if all likelier ones together are still below p: the likeliest always does
    before = probabilities.cumsum(dim=-1) - probabilities  # mass of all likelier tokens
    # scatter brings the decision from the sorted order back to the order of ids
    return logits.masked_fill((before >= p).scatter(-1, order, before >= p), -torch.inf)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Keeps tokens at least p times as likely as the likeliest; p = 0 keeps all (Nguyen et al. 2024)."""
    if p <= 0:
        return logits
    # p(token) >= p * p(likeliest), as a difference of logits: no softmax is needed
    least = logits.amax(dim=-1, keepdim=True) + math.log(p)  # (B, 1)
    return logits.masked_fill(logits < least, -torch.inf)


def describe_sampler(config: SampleConfig) -> str:
    """Every setting of the sampler in one line: nothing acts unseen."""
    values = config.model_dump(exclude={"prompt"})
    numbers = {key: value for key, value in values.items() if isinstance(value, int | float)}
    shown = [f"{key}={v:g}" if isinstance(v, float) else f"{key}={v}" for key, v in numbers.items()]
    shown += [f"{key}={list(value)}" for key, value in values.items() if isinstance(value, tuple) and value]
    greedy = " (always the likeliest token: top_k, top_p, min_p and seed do nothing)"
    return "sampler: " + " ".join(shown) + (greedy if config.temperature == 0 else "")

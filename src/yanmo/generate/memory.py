"""What stood in a text before: a continuous cache of hidden states (Grave, Joulin, Usunier 2017).

    MemoryReader(model).remember(texts)   a Memory: states of whole texts, and the token that followed each
     memory.mix(logprobs, state, share, …)  (1 - share) p(model) + share p(memory)

A model with a window of 128 characters forgets a name after two sentences. Its hidden state at a place says
what it expects there, so where states are alike, the same is likely to follow: p(memory) of a token is the
sum of softmax(theta h_i . h) over the places i that it followed. And where the last two tokens were always
followed by the same one, that one counts for more: so a name that was begun is ended. Nothing is trained.
"""

import math
from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from yanmo.model.cache import KVCache
from yanmo.model.gpt import GPT
from yanmo.settings.schema import SampleConfig

MAX_PLACES = 100_000
"""The newest places that are kept: with 768 channels 150 MB, and 13 MB to search them by."""
FORGOTTEN_TOGETHER = 4096
"""Places that go at once when there is no room: to move all the others for each one would be slow."""
THETA = 15.0
"""How much the nearest places outweigh the others: log weight by cosine (docs/memory.md)."""
NEAREST = 512
"""About so many places are weighed: with more of them no text is foretold better (docs/memory.md)."""
SAMPLED_EVERY = 17
"""Of so many places one says what the nearest are; a prime, for verse has lines of equal length."""
SURE_TIMES = 3
"""As often at least a token followed two others, and nothing else did, to be sure (docs/memory.md)."""
SURE_WEIGHT = 4
"""As many memories that say the same is a sure token worth: of a share of 0.3, 1 - 0.7^4 = 0.76."""
FEW_PLACES = 100
"""So many places have half the share that many have: what one place recalls, it is always sure of."""
SEARCHED_CHANNELS = 32
"""Directions by which the nearest are sought: 13 MB for 100,000 places stay in a CPU's cache."""
READ_TOKENS = 256
"""A text is read so many tokens at a time, so that a server can write others in between."""
KEPT_BYTES = 1 << 29
"""States of windows that a reader keeps, for texts that come again with an end added."""


class Remembered(NamedTuple):
    """Some places."""

    searched: Tensor  # (D, N)
    states: Tensor  # (N, C)
    followers: Tensor  # (N,)


class Places:
    """Places of a text, at least the newest ``MAX_PLACES``: hidden states, and the tokens that followed.

    They live on the CPU, where a sum has one order, whatever the model's device.
    """

    def __init__(self, room: int, C: int) -> None:
        """None yet; at most ``room`` will come, unless that is more than are kept; states have C channels."""
        room = min(room, MAX_PLACES + FORGOTTEN_TOGETHER)
        self.count = 0
        # random directions keep cosines about as they are (Johnson & Lindenstrauss 1984)
        self.directions = torch.randn(SEARCHED_CHANNELS, C, generator=torch.Generator().manual_seed(0))
        self.states = torch.zeros(room, C, dtype=torch.float16)  # of length 1
        self.searched = torch.zeros(SEARCHED_CHANNELS, room)  # the same seen from each direction
        self.followers = torch.zeros(room, dtype=torch.long)

    def add(self, states: Tensor, followers: Tensor) -> None:
        """More places with states (N, C) of length 1, and the tokens (N,) after them."""
        if self.count + len(states) > len(self.states):
            self._make_room()
        new = slice(self.count, self.count + len(states))
        self.states[new] = states.half()
        self.searched[:, new] = self.directions @ states.float().T
        self.followers[new] = followers
        self.count += len(states)

    def _make_room(self) -> None:
        """Let the oldest go."""
        self.count -= FORGOTTEN_TOGETHER
        kept = slice(FORGOTTEN_TOGETHER, None)
        for all_places in (self.states, self.searched.T, self.followers):
            all_places[:-FORGOTTEN_TOGETHER] = all_places[kept].clone()

    def newest(self, limit: int) -> Remembered:
        """At most ``limit`` places."""
        kept = slice(max(self.count - limit, 0), self.count)
        return Remembered(self.searched[:, kept], self.states[kept], self.followers[kept])


class Memory:
    """The newest ``MAX_PLACES`` of what was read, which samples share, and of what one sample wrote."""

    def __init__(self, read: Places, room: int = 0, theta: float = THETA) -> None:
        """What was read, with room for so many places that are written."""
        self.read, self.theta = read, theta
        self.written = Places(room, read.states.size(1))

    def growing(self, room: int) -> "Memory":
        """The same, with a place of its own for what one sample writes."""
        return Memory(self.read, room, self.theta)

    def note(self, state: Tensor, follower: int) -> None:
        """One place more: ``follower`` was written after the hidden state (C,)."""
        self.written.add(as_unit(state)[None], torch.tensor([follower]))

    def forget(self, count: int) -> None:
        """The newest ``count`` that were noted: they were taken back."""
        self.written.count -= count

    def mix(self, logprobs: Tensor, state: Tensor, share: float, before: Sequence[int]) -> Tensor:
        """The model's log probabilities (V,) after ``state`` (C,), mixed with those of the memory.

        ``before`` are the last two tokens; where there are fewer, nothing is sure.
        """
        places = self.read.count + self.written.count
        if not share or not places:
            return logprobs
        share *= places / (places + FEW_PLACES)
        mixed = blend(logprobs, *self.recall(state), share)
        sure = self.sure(before)
        return mixed if sure is None else blend(mixed, torch.tensor([sure]), torch.ones(1), sure_share(share))

    def sure(self, before: Sequence[int]) -> int | None:
        """What always followed these two tokens, at least ``SURE_TIMES`` times."""
        found = np.concatenate([following(part.followers.numpy(), before) for part in self._newest()])
        return int(found[0]) if len(found) >= SURE_TIMES and (found == found[0]).all() else None

    def recall(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """What comes after a state (C,), by what came after states like it: tokens (n,) and probabilities."""
        query, cosines, followers = as_unit(state), [], []
        shadow = self.read.directions @ query
        parts = self._newest()
        likeness = [(shadow @ part.searched).numpy() for part in parts]
        bar = bar_of(likeness)
        for part, found in zip(parts, likeness, strict=True):
            near = torch.from_numpy(np.flatnonzero(found >= bar))
            # index_select: states[near] would take ten times as long
            cosines.append(part.states.index_select(0, near).float() @ query)
            followers.append(part.followers.index_select(0, near))
        tokens, which = torch.unique(torch.cat(followers), return_inverse=True)
        weights = (self.theta * torch.cat(cosines)).softmax(dim=0)
        return tokens, torch.zeros(len(tokens)).index_add_(0, which, weights)

    def _newest(self) -> tuple[Remembered, Remembered]:
        """What is remembered of what was read and of what was written."""
        written = self.written.newest(MAX_PLACES)
        return self.read.newest(MAX_PLACES - len(written.followers)), written


def blend(logprobs: Tensor, tokens: Tensor, chances: Tensor, share: float) -> Tensor:
    """Log probabilities (V,) of which tokens (n,) with their chances (n,) have a share."""
    mixed, tokens = logprobs + math.log1p(-share), tokens.to(logprobs.device)
    both = torch.logaddexp(mixed[tokens], (chances.log() + math.log(share)).to(mixed.device))
    return mixed.index_put_((tokens,), both)


def sure_share(share: float) -> float:
    """The share of a token that is sure."""
    return 1 - (1 - share) ** SURE_WEIGHT


def following(tokens: NDArray[np.int64], before: Sequence[int]) -> NDArray[np.int64]:
    """What followed two tokens in a text (N,), each time."""
    if len(before) < 2:
        return tokens[:0]
    second = np.flatnonzero(tokens[1:-1] == before[1]) + 1
    found: NDArray[np.int64] = tokens[second[tokens[second - 1] == before[0]] + 1]
    return found


def bar_of(likeness: Sequence[NDArray[np.float32]]) -> float:
    """About ``NEAREST`` places are at least so like, of few all: to order them would take twice as long."""
    sampled = np.concatenate([part[::SAMPLED_EVERY] for part in likeness])
    count = NEAREST // SAMPLED_EVERY
    return float(np.partition(sampled, -count)[-count]) if len(sampled) > count else -math.inf


class MemoryReader:
    """Reads texts into memories. It keeps the states of what it read: a text that grew costs only its end.

    One thread at a time.
    """

    def __init__(self, model: GPT) -> None:
        self.model = model
        self._kept: OrderedDict[tuple[bool, bytes], Tensor] = OrderedDict()
        self._kept_bytes = 0

    def memories_for(self, texts: Sequence[Sequence[int]], config: SampleConfig) -> list[Memory | None]:
        """What ``config`` asks to remember in each of its samples: all the same unless it grows, or None."""
        if not config.memory:
            return [None] * config.num_samples
        memory = self.remember(texts)
        return [
            memory.growing(config.max_new_tokens) if config.memory_written else memory
            for _ in range(config.num_samples)
        ]

    def remember(self, texts: Sequence[Sequence[int]]) -> Memory:
        """What followed where in texts of ids, each read by itself; where it is too much, the end of all.

        The texts that may be forgotten first come first.
        """
        *_, memory = self.read_parts(texts)
        assert memory is not None
        return memory

    @torch.no_grad()
    def read_parts(self, texts: Sequence[Sequence[int]]) -> Iterator[Memory | None]:
        """The same step by step: None after each part that was read, and the memory at last."""
        total = sum(max(len(text) - 1, 0) for text in texts)
        forgotten = max(total - MAX_PLACES, 0)
        places = Places(total - forgotten, self.model.config.n_embd)
        for text in texts:
            ids = torch.tensor(text, dtype=torch.long)
            for start, counted in windows(len(ids) - 1, self.model.config.block_size):
                first = counted.start + min(forgotten, len(counted))
                forgotten -= first - counted.start
                if first < counted.stop:
                    states = yield from self._window(ids[start : counted.stop], len(counted))
                    places.add(states[first - counted.stop :], ids[first + 1 : counted.stop + 1])
        yield Memory(places)

    def _window(self, ids: Tensor, counted: int) -> Generator[None, None, Tensor]:
        """States (counted, C) after the last of ``ids`` (T,), read a part at a time."""
        first = len(ids) - counted
        window = self.model.config.block_size
        # always as many tokens: a product of another shape would round in another way
        whole = F.pad(ids, (0, window - len(ids)))
        key = (first == 0, whole.numpy().tobytes())
        if key not in self._kept:
            cache, parts = KVCache(self.model.config, 1, like=self.model.tokens.weight), []
            for part in torch.split(whole, READ_TOKENS):
                x = self.model.hidden_states(part[None].to(cache.keys.device), cache.rows([0]))  # (1, T, C)
                parts.append(as_unit(x[0]).half())
                yield
            self._keep(key, torch.cat(parts)[first:])
        self._kept.move_to_end(key)
        return self._kept[key][:counted]

    def _keep(self, key: tuple[bool, bytes], states: Tensor) -> None:
        """Keep the states of a window; those not asked for the longest go."""
        if self._kept.setdefault(key, states) is states:
            self._kept_bytes += states.nbytes
        while self._kept_bytes > KEPT_BYTES:
            self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes


def windows(places: int, block_size: int) -> Iterator[tuple[int, range]]:
    """Where each window over a text begins, and the places that it counts.

    They begin at fixed places, half a window apart, and each place is counted in the first window that
    reaches it: so a state follows from the text before it and from nothing else.
    """
    done, stride = 0, max(block_size // 2, 1)
    for start in range(0, max(places, 0), stride):
        end = min(start + block_size, places)
        if end > done:
            yield start, range(done, end)
            done = end


def as_unit(states: Tensor) -> Tensor:
    """Hidden states (..., C) at length 1, on the CPU, in float32."""
    return F.normalize(states.detach().float().cpu(), dim=-1)

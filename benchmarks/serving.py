"""What a crowd gets of ``yanmo serve``: right texts, at what speed, and how soon (Linux).

    python benchmarks/serving.py
    python benchmarks/serving.py --large --requests 600 --seeded 1500

A model of random weights (4 layers of 256, vocabulary 4,399; ``--large``: the 82M of ``startup.py``) writes
some texts offline, by the server's engine in groups of as many; then a server, in its own process, writes
them for 64 clients at once; and so on in turns, for a machine is not always as fast. Every other client
streams, and every third goes away midway: of those the text so far must begin the right one. The short texts
are compared to the bit of their log probabilities. The last part is one client alone. Prints a table;
exits 1 if a text is wrong or a slot is not free.
"""

import argparse
import asyncio
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import startup
import turns

from yanmo.generate.engine import RunningSequence, rows_together, set_threads
from yanmo.generate.sampling import TokenConstraints, encode
from yanmo.generate.text import prompt_of
from yanmo.generate.text_engine import TextEngine
from yanmo.generate.writer import Writer, load
from yanmo.server.engine_thread import ROWS
from yanmo.tokenizer.char import FIRST_CHARACTER

CLIENTS = 64
SMALL = (4_399 - FIRST_CHARACTER, (4, 4, 256, 128))
PROMPT_CHARACTERS = (1, 100)
LONG_TOKENS, SHORT_TOKENS = (16, 96), (4, 8)
MAX_PATIENCE_SECONDS = 4.0
"""Whoever goes away without a stream does so within this time."""
HEALTH_SECONDS = 0.05
SETTLING_SECONDS = 10.0
"""After so long the slots of those who went away must be free."""
FIRSTS = 20
TURN_TEXTS = 256
"""So many are written offline, and then by the server."""
Row = tuple[str, str, str]


class Written(NamedTuple):
    """A text with the log probability of each token, where they were asked for."""

    text: str = ""
    logprobs: tuple[float, ...] = ()

    def plus(self, choice: dict[str, Any]) -> "Written":
        """With what an answer, or a piece of it, adds."""
        logprobs = choice["logprobs"]["token_logprobs"] if choice["logprobs"] else ()
        return Written(self.text + choice["text"], (*self.logprobs, *logprobs))


@dataclass(frozen=True)
class Wish:
    """What one client asks for."""

    prompt: str
    seed: int
    tokens: int
    streams: bool = False
    goes: bool = False
    """It goes away midway."""
    logprobs: int | None = None

    @property
    def body(self) -> dict[str, Any]:
        """The request."""
        asked = {"prompt": self.prompt, "seed": self.seed, "max_tokens": self.tokens}
        return asked | {"stream": self.streams, "logprobs": self.logprobs}


class Part(NamedTuple):
    """Wishes, and what is right for each."""

    asked: Sequence[Wish]
    right: Sequence[Written]


@dataclass
class Measured:
    """What a server gave to many, in turns with the engine alone."""

    texts: int = 0
    gone: int = 0
    wrong: int = 0
    taken: int = 0
    """Slots."""
    memory_mb: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    """Seconds until /health answered."""
    rates: list[float] = field(default_factory=list)
    offline_rates: list[float] = field(default_factory=list)
    """Tokens per second, by turn."""


def main() -> int:
    """All parts, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--seeded", type=int, default=10_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = startup.model_folder(Path(place) / "model", *(() if asked.large else SMALL))
        writer = load(folder)
        set_threads([writer.model])
        with server(folder) as (process, url):
            rows, faults = asyncio.run(measure(process, url, writer, asked.requests, asked.seeded))
    print("| what | found | target |\n|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    return 1 if faults else 0


def wishes(count: int, tokens: tuple[int, int], mixed: bool = False) -> Iterator[Wish]:
    """Always the same ones."""
    chance = random.Random(0)
    for number in range(count):
        characters = chance.randint(*PROMPT_CHARACTERS)
        prompt = "".join(chr(startup.FIRST + chance.randrange(4_000)) for _ in range(characters))
        length = chance.randint(*tokens)
        if mixed:
            yield Wish(prompt, number, length, streams=number % 2 == 0, goes=number % 3 == 0)
        else:
            yield Wish(prompt, number, length, logprobs=1)


def offline(writer: Writer, asked: Sequence[Wish]) -> tuple[Part, float]:
    """Each text by the engine without a server, and tokens per second."""
    model, tokenizer = writer.model, writer.tokenizer
    engine = TextEngine(model, tokenizer, min(ROWS, rows_together(model)))
    texts: dict[RunningSequence, list[str]] = {}
    for one in asked:
        config = writer.config(seed=one.seed, max_new_tokens=one.tokens)
        ids = encode(tokenizer, one.prompt, "the prompt")
        prompt = prompt_of(tokenizer, ids, config, model.config.block_size)
        rules = TokenConstraints.of(tokenizer, config)
        row = RunningSequence(prompt.ids, config, rules, alternatives=one.logprobs or 0)
        texts[row] = []
        engine.add(row)
    start = time.perf_counter()
    while engine.is_busy:
        for row, pieces in engine.step():
            texts[row] += [piece.text for piece in pieces]
    tokens = sum(len(row.choices) for row in texts)
    rate = tokens / (time.perf_counter() - start)
    right = [
        Written("".join(text), tuple(choice.logprob for choice in row.choices if row.alternatives))
        for row, text in texts.items()
    ]
    return Part(asked, right), rate


@contextmanager
def server(folder: Path) -> Iterator[tuple[int, str]]:
    """The command, at a free port: its process and its address."""
    command = [sys.executable, "-m", "yanmo", "serve", str(folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.pid, process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait()


async def measure(
    process: int, url: str, writer: Writer, requests: int, seeded: int
) -> tuple[list[Row], int]:
    """The rows of the table, and how much is wrong."""
    # the short ones first: they warm both sides
    short = await in_turns(url, process, writer, list(wishes(seeded, SHORT_TOKENS)))
    long = await in_turns(url, process, writer, list(wishes(requests, LONG_TOKENS, mixed=True)))
    async with connected(url) as client:
        told_first = [await first_character(client, seed) for seed in range(FIRSTS + 1)][1:]
    firsts = [seconds for seconds in told_first if seconds is not None]
    median, low, high = (number * 1e3 for number in (statistics.median(firsts), min(firsts), max(firsts)))
    rows = [
        *told(long),
        (f"short texts that differ in a bit, of {short.texts:,}", f"{short.wrong}", "0"),
        ("slots that stayed taken by these", f"{short.taken}", "0"),
        ("first character, idle server, ms: median", f"{median:.0f} ({low:.0f} to {high:.0f})", "under 100"),
    ]
    return rows, long.wrong + long.taken + short.wrong + short.taken


def connected(url: str) -> httpx.AsyncClient:
    """A client of many connections; one for each turn, as the server closes those that rest for long."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=CLIENTS)
    return httpx.AsyncClient(base_url=url, timeout=600, limits=limits, trust_env=False)


async def in_turns(url: str, process: int, writer: Writer, asked: Sequence[Wish]) -> Measured:
    """Some texts by the engine alone, then the same by the server for many, and so on."""
    found = Measured()
    for first in range(0, len(asked), TURN_TEXTS):
        part, rate = offline(writer, asked[first : first + TURN_TEXTS])
        found.offline_rates.append(rate)
        async with connected(url) as client:
            await turn_of_server(client, process, part, found)
    return found


async def turn_of_server(client: httpx.AsyncClient, process: int, part: Part, found: Measured) -> None:
    """All kinds of clients at once, while /health is asked for."""
    prober = asyncio.create_task(probe(client.base_url, found.health))
    before, start = await tokens_written(client), time.perf_counter()
    texts = await crowd(client, part.asked, lambda: found.memory_mb.append(resident_mb(process)))
    found.rates.append((await tokens_written(client) - before) / (time.perf_counter() - start))
    prober.cancel()
    wrong = differences(texts, part)
    found.texts += len(texts)
    found.wrong += wrong
    found.gone += sum(text != right for text, right in zip(texts, part.right, strict=True)) - wrong
    found.taken += await taken_slots(client)


def told(found: Measured) -> list[Row]:
    """The rows of the table about a crowd."""
    begun, ended = found.memory_mb[len(found.memory_mb) // 10], found.memory_mb[-1]
    health = sorted(found.health)
    p50, p99 = (health[int(len(health) * share)] * 1e3 for share in (0.5, 0.99))
    rate, alone = (statistics.median(rates) for rates in (found.rates, found.offline_rates))
    share = turns.told(found.rates, found.offline_rates)
    return [
        (f"texts for {CLIENTS} clients at once; gone midway", f"{found.texts:,}; {found.gone:,}", ""),
        ("wrong texts", f"{found.wrong}", "0"),
        ("slots that stayed taken", f"{found.taken}", "0"),
        ("memory after a tenth; growth, MB", f"{begun:.0f}; {ended - begun:.1f}", ""),
        (f"/health, ms: p50; p99 (of {len(health):,})", f"{p50:.0f}; {p99:.0f}", "under 50"),
        ("tokens/s; offline; share by turn (range)", f"{rate:.0f}; {alone:.0f}; {share}", "0.70"),
    ]


def differences(found: Sequence[Written], part: Part) -> int:
    """How many are wrong; each is shown."""
    wrong = 0
    for wish, text, right in zip(part.asked, found, part.right, strict=True):
        if not agrees(wish, text, right):
            wrong += 1
            print(f"wrong: {wish}\n  {text}\n  in place of {right}", file=sys.stderr)
    return wrong


async def crowd(
    client: httpx.AsyncClient, asked: Sequence[Wish], after_each: Callable[[], None] = lambda: None
) -> list[Written]:
    """What they all get, in their order; so many ask at once."""
    found: dict[int, Written] = {}
    line = iter(enumerate(asked))

    async def one_after_another() -> None:
        for place, wish in line:
            found[place] = await answer(client, wish)
            after_each()

    await asyncio.gather(*(one_after_another() for _ in range(CLIENTS)))
    return [found[place] for place in range(len(asked))]


async def answer(client: httpx.AsyncClient, wish: Wish) -> Written:
    """The text of one, or what it saw of it before it went away."""
    chance = random.Random(wish.seed)
    found = Written()
    if wish.streams:
        pieces = chance.randint(1, wish.tokens - 1) if wish.goes else 0
        async with aclosing(streamed(client, wish)) as choices:
            async for choice in choices:
                found = found.plus(choice)
                pieces -= 1
                if not pieces:
                    break
        return found
    with suppress(TimeoutError):
        async with asyncio.timeout(chance.uniform(0, MAX_PATIENCE_SECONDS) if wish.goes else None):
            reply = await client.post("/v1/completions", json=wish.body)
            found = found.plus(reply.raise_for_status().json()["choices"][0])
    return found


async def streamed(client: httpx.AsyncClient, wish: Wish) -> AsyncGenerator[dict[str, Any], None]:
    """The choices of a stream."""
    async with client.stream("POST", "/v1/completions", json=wish.body) as reply:
        reply.raise_for_status()
        async for line in reply.aiter_lines():
            if line and line != "data: [DONE]":
                yield json.loads(line.removeprefix("data: "))["choices"][0]


def agrees(wish: Wish, found: Written, right: Written) -> bool:
    """Whether a text is the right one; of whoever went away, as far as it goes."""
    return right.text.startswith(found.text) if wish.goes else found == right


async def first_character(client: httpx.AsyncClient, seed: int) -> float | None:
    """Seconds until one client has the first character of a stream; None where it has none."""
    start = time.perf_counter()
    wish = Wish("江湖" * 20, seed, 8, streams=True)
    took = [time.perf_counter() - start async for choice in streamed(client, wish) if choice["text"]]
    return took[0] if took else None


async def probe(url: httpx.URL, took: list[float]) -> None:
    """Ask for /health again and again, until cancelled."""
    async with httpx.AsyncClient(base_url=url, timeout=600, trust_env=False) as client:
        while True:
            start = time.perf_counter()
            (await client.get("/health")).raise_for_status()
            took.append(time.perf_counter() - start)
            await asyncio.sleep(HEALTH_SECONDS)


async def taken_slots(client: httpx.AsyncClient) -> int:
    """Slots that are still taken, though nobody asks any more."""
    ends = time.monotonic() + SETTLING_SECONDS
    while True:
        health = (await client.get("/health")).json()
        taken: int = health["running"] + health["waiting"]
        if not taken or time.monotonic() > ends:
            return taken
        await asyncio.sleep(HEALTH_SECONDS)


async def tokens_written(client: httpx.AsyncClient) -> float:
    """By the server, since it began."""
    page = (await client.get("/metrics")).text
    found = re.search(r"^yanmo_tokens_written_total\S* (\S+)$", page, re.MULTILINE)
    assert found is not None, page
    return float(found[1])


def resident_mb(process: int) -> float:
    """Memory that a process holds."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())

"""What a crowd gets of ``yanmo serve``: right texts, at what speed, and how soon (Linux).

    python benchmarks/serving.py
    python benchmarks/serving.py --large --requests 600 --seeded 1500

A model of random weights (4 layers of 256, vocabulary 4,399; ``--large``: the 82M of ``startup.py``) writes
all texts offline, by the server's engine in groups of as many; then a server, in a process of its own, writes
them for 64 clients at once. Every other client streams, and every third goes away midway: of those the
text so far must begin the right one. The short texts are compared to the bit of their log probabilities.
The last part is one client alone. Prints a Markdown table; exits 1 if a text is wrong or a slot is not free.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import startup

from yanmo.generate.engine import RunningSequence, rows_together
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
        # the short ones first, here and below: they warm both sides
        short, _ = offline(writer, list(wishes(asked.seeded, SHORT_TOKENS)))
        long, offline_rate = offline(writer, list(wishes(asked.requests, LONG_TOKENS, mixed=True)))
        with server(folder) as (process, url):
            rows, faults = asyncio.run(measure(process, url, long, short, offline_rate))
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
    process: int, url: str, long: Part, short: Part, offline_rate: float
) -> tuple[list[Row], int]:
    """The rows of the table, and how much is wrong."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits, trust_env=False) as client:
        differing = differences(await crowd(client, short.asked), short)
        taken = await taken_slots(client)
        rows, wrong = await long_part(client, process, long, offline_rate)
        firsts = [await first_character(client, seed) for seed in range(FIRSTS + 1)][1:]
    median, low, high = (number * 1e3 for number in (statistics.median(firsts), min(firsts), max(firsts)))
    rows += [
        (f"short texts that differ in a bit, of {len(short.asked):,}", f"{differing}", "0"),
        ("slots that stayed taken by these", f"{taken}", "0"),
        ("first character, idle server, ms: median", f"{median:.0f} ({low:.0f} to {high:.0f})", "under 100"),
    ]
    return rows, wrong + differing + taken


async def long_part(
    client: httpx.AsyncClient, process: int, long: Part, offline_rate: float
) -> tuple[list[Row], int]:
    """All kinds of clients at once, while /health is asked for."""
    memory: list[float] = []
    health: list[float] = []
    prober = asyncio.create_task(probe(client.base_url, health))
    before, start = await tokens_written(client), time.perf_counter()
    texts = await crowd(client, long.asked, lambda: memory.append(resident_mb(process)))
    rate = (await tokens_written(client) - before) / (time.perf_counter() - start)
    prober.cancel()
    taken, wrong = await taken_slots(client), differences(texts, long)
    gone = sum(found != right for found, right in zip(texts, long.right, strict=True)) - wrong
    begun = memory[len(memory) // 10]
    p50, p99 = (sorted(health)[int(len(health) * share)] * 1e3 for share in (0.5, 0.99))
    rows = [
        (f"texts for {CLIENTS} clients at once; gone midway", f"{len(texts):,}; {gone:,}", ""),
        ("wrong texts", f"{wrong}", "0"),
        ("slots that stayed taken", f"{taken}", "0"),
        ("memory after a tenth; growth, MB", f"{begun:.0f}; {memory[-1] - begun:.1f}", ""),
        (f"/health, ms: p50; p99 (of {len(health):,})", f"{p50:.0f}; {p99:.0f}", "under 50"),
        ("tokens/s; offline; share", f"{rate:.0f}; {offline_rate:.0f}; {rate / offline_rate:.0%}", "70%"),
    ]
    return rows, wrong + taken


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


async def first_character(client: httpx.AsyncClient, seed: int) -> float:
    """Seconds until one client has the first character of a stream."""
    start = time.perf_counter()
    wish = Wish("江湖" * 20, seed, 8, streams=True)
    took = [time.perf_counter() - start async for choice in streamed(client, wish) if choice["text"]]
    return took[0]


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

"""Servers in this process: the real application behind the real HTTP, on a free port."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from yanmo.generate.writer import Writer
from yanmo.model.gpt import GPT
from yanmo.server.app import create_app
from yanmo.server.served import ServedModel
from yanmo.settings.schema import SampleConfig
from yanmo.tokenizer import Tokenizer

SECONDS = 60.0
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


def served(name: str, model: GPT, tokenizer: Tokenizer, folder: Path = Path("nowhere")) -> ServedModel:
    """Of a model in memory; ``folder`` is looked at for a template and a run."""
    return ServedModel(name, Writer(folder, model, tokenizer, SampleConfig()))


@dataclass
class RunningServer:
    """A server that answers, and a client of it."""

    url: str
    models: dict[str, ServedModel]
    client: httpx.Client

    def post(self, path: str = COMPLETIONS, **body: Any) -> httpx.Response:
        return self.client.post(path, json=body)

    def ask(self, path: str = COMPLETIONS, **body: Any) -> dict[str, Any]:
        """The answer to a request that is right."""
        answer = self.post(path, **body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def text(self, **body: Any) -> str:
        found: str = self.ask(**body)["choices"][0]["text"]
        return found

    def stream(self, path: str = COMPLETIONS, **body: Any) -> list[dict[str, Any]]:
        """The events of a stream, which ends as streams do."""
        with self.client.stream("POST", path, json=body | {"stream": True}) as answer:
            lines = [line for line in answer.iter_lines() if line]
        assert answer.status_code == 200, lines
        assert lines[-1] == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]

    def waits_for(self, **expected: int) -> None:
        """Until /health says so."""
        until(lambda: expected.items() <= self.client.get("/health").json().items())


@contextmanager
def serving(models: Sequence[ServedModel], **how: Any) -> Iterator[RunningServer]:
    """A server of ``models``; ``how`` are the other arguments of ``create_app``."""
    config = uvicorn.Config(create_app(models, **how), port=0, log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        with httpx.Client(base_url=url, timeout=SECONDS, trust_env=False) as client:
            yield RunningServer(url, {model.name: model for model in models}, client)
    finally:
        server.should_exit = True
        thread.join(SECONDS)


def until(holds: Any) -> None:
    """Wait for what another thread does."""
    for _ in range(int(SECONDS * 100)):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it never came true")

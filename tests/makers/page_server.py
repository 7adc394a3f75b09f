"""A server that plays prepared answers to the page: hostile texts, slow streams, refusals, a token.

It speaks the same HTTP as ``yanmo serve`` and has no model: what it writes is said in advance, and how likely a
character is depends on its number alone.
"""

import asyncio
import json
import re
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp

import yanmo

PAGE = Path(yanmo.__file__).parent / "server" / "page"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PIECE = 4
"""Characters of a piece of a stream."""


@dataclass
class Play:
    """What the server says next, and what it has heard."""

    texts: list[str] = field(default_factory=lambda: ["雨停了。他推开门，走了出去。"])
    """The first is written next, and goes to the end of the list."""
    alternatives: dict[str, float] = field(default_factory=lambda: {"雪": -0.5, "风": -2.0})
    refusal: tuple[int, str] | None = None
    """Status and sentence for whoever asks for text."""
    pieces: int | None = None
    """After as many pieces a stream waits, until there is no such number any more."""
    token: str = ""
    model: dict[str, Any] = field(default_factory=dict)
    """Differs from the usual entry of /v1/models."""
    copied: str = "抄来的话"
    run: dict[str, Any] | None = None
    heard: list[tuple[str, Any]] = field(default_factory=list)
    """(path, body), in order."""
    streams: int = 0
    """Open now."""

    def bodies(self, path: str) -> list[Any]:
        return [body for heard, body in self.heard if heard == path]

    def next_text(self) -> str:
        self.texts.append(self.texts.pop(0))
        return self.texts[-1]


class ServerThread:
    """An application that is served by a thread, and can go away and come back at the same address."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.start()

    def start(self) -> None:
        config = uvicorn.Config(
            self.app, port=self.port, log_level="error", ws="none", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()


class PageServer(ServerThread):
    """Plays; every test has a ``play`` of its own."""

    def __init__(self) -> None:
        self.play = Play()
        super().__init__(app_of(self))


def app_of(server: PageServer) -> FastAPI:
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/page", StaticFiles(directory=PAGE))

    @app.middleware("http")
    async def guard(request: Request, call_next: Any) -> Response:
        path, play = request.url.path, server.play
        given = request.headers.get("Authorization", "").encode("latin-1")
        known = given == f"Bearer {play.token}".encode()
        if play.token and not known and path not in ("/", "/health") and not path.startswith("/page/"):
            answer: Response = error(401, "This server wants a token.")
        else:
            answer = await call_next(request)
        answer.headers["Content-Security-Policy"] = CSP
        return answer

    @app.get("/")
    async def index() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "running": server.play.streams, "waiting": 0}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model_of(server.play)]}

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        body = await heard(request)
        play = server.play
        if body.get("echo"):
            return JSONResponse(echo(play, body))
        if play.refusal:
            return error(*play.refusal)
        texts = [play.next_text() for _ in range(body.get("n", 1))]
        return StreamingResponse(stream(play, body, texts), media_type="text/event-stream")

    @app.post("/tokenize")
    async def tokenize(request: Request) -> dict[str, Any]:
        tokens = [ord(character) for character in (await heard(request))["prompt"]]
        return {
            "count": len(tokens),
            "tokens": tokens,
            "max_model_len": model_of(server.play)["yanmo"]["window"],
        }

    @app.get("/yanmo/run")
    async def run(model: str) -> Response:
        return JSONResponse(server.play.run) if server.play.run else error(404, "This model is no run.")

    @app.post("/yanmo/outline")
    async def outline(request: Request) -> dict[str, Any]:
        text = (await heard(request))["text"]
        found = re.finditer(r"^第.+章.*$", text, re.MULTILINE)
        return {"chapters": [{"offset": match.start(), "title": match.group()} for match in found]}

    @app.post("/yanmo/copied")
    async def copied(request: Request) -> dict[str, Any]:
        body = await heard(request)
        spans = [match.span() for match in re.finditer(server.play.copied, body["text"])]
        return {"spans": [span for span in spans if span[1] - span[0] >= body["characters"]]}

    @app.post("/yanmo/choices")
    async def choices(request: Request) -> Response:
        await heard(request)
        return Response(status_code=204)

    async def heard(request: Request) -> Any:
        body = await request.json()
        json.dumps(body, ensure_ascii=False).encode()  # a half of a character cannot be read
        server.play.heard.append((request.url.path, body))
        return body

    return app


def error(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"error": {"message": sentence, "type": "x", "param": None, "code": None}}, status)


def model_of(play: Play) -> dict[str, Any]:
    offered = {
        "family": "gpt2", "parameters": 1_234_567, "window": 64, "precision": "float32", "device": "cpu",
        "chat": False, "has_run": play.run is not None, "no_copy": None, "verse": None, "memory": None,
        "keep_choices": True, "sample": {"temperature": 0.8, "top_k": 0, "top_p": 0.9},
    }  # fmt: skip
    return {
        "id": "novel",
        "object": "model",
        "created": 0,
        "owned_by": "yanmo",
        "yanmo": offered | play.model,
    }


async def stream(play: Play, body: dict[str, Any], texts: list[str]) -> AsyncIterator[str]:
    base = len(body["prompt"])
    play.streams += 1
    try:
        for number, (index, piece) in enumerate(pieces(play, base, texts)):
            while play.pieces is not None and number >= play.pieces:
                await asyncio.sleep(0.01)
            yield data({"choices": [{"index": index, **piece}], "yanmo": {"seed": 1, "dropped_tokens": 0}})
        yield "data: [DONE]\n\n"
    finally:
        play.streams -= 1


def pieces(play: Play, base: int, texts: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Of all candidates, in turns; the last of each has no text, and says how likely it was."""
    longest = max(map(len, texts))
    for start in range(0, longest, PIECE):
        for index, text in enumerate(texts):
            part = text[start : start + PIECE]
            if part:
                logprobs = logprobs_of(play, part, base + start)
                yield index, {"text": part, "logprobs": logprobs, "finish_reason": None}
    for index, text in enumerate(texts):
        mean = sum(map(logprob_of, text)) / max(len(text), 1)
        last = {"text": "", "logprobs": None, "finish_reason": "stop"}
        yield index, last | {"yanmo": {"mean_logprob": mean}}


def echo(play: Play, body: dict[str, Any]) -> dict[str, Any]:
    logprobs = logprobs_of(play, body["prompt"], 0)
    if logprobs["tokens"]:
        logprobs["token_logprobs"][0] = logprobs["top_logprobs"][0] = None
    choice = {"index": 0, "text": body["prompt"], "finish_reason": "length", "logprobs": logprobs}
    return {"object": "text_completion", "choices": [choice]}


def logprobs_of(play: Play, text: str, base: int) -> dict[str, list[Any]]:
    """A token for each character, and one for each byte of a character outside of the basic plane."""
    found: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for offset, character in enumerate(text, base):
        for token in tokens_of(character):
            chosen = logprob_of(character)
            row = (token, chosen, {token: chosen} | play.alternatives, offset)
            for values, value in zip(found.values(), row, strict=True):
                values.append(value)
    return found


def tokens_of(character: str) -> list[str]:
    if ord(character) < 1 << 16:
        return [character]
    return [f"bytes:\\x{byte:02x}" for byte in character.encode()]


def logprob_of(character: str) -> float:
    """From certain to hardly."""
    return -(ord(character) % 17) / 2


def data(piece: dict[str, Any]) -> str:
    return f"data: {json.dumps(piece)}\n\n"

"""The server: routes for the clients of OpenAI's API and for our own page.

    create_app(models)      the application; behind it a thread for each model (``engine_thread.py``)
      /v1/completions       texts → ``served.ServedModel.completion`` → parts → JSON or a stream
      /v1/chat/completions  the same for dialogues, where a model has a template
      / and /page/…         the page, plain files

In: models, and how the world may reach them. Out: an ASGI application.
"""

import asyncio
import json
import re
import threading
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from yanmo.core.errors import ConfigError, YanmoError
from yanmo.core.storage import disk_errors
from yanmo.server.answers import (
    Part,
    chat_choice,
    completion_choice,
    error_body,
    event,
    in_pieces,
    join,
    sendable,
)
from yanmo.server.engine_thread import Busy
from yanmo.server.guard import EveryAnswer, RequestGuard
from yanmo.server.metrics import ServerMetrics
from yanmo.server.requests import (
    ChatRequest,
    Choice,
    CompletionRequest,
    CopiedRequest,
    DetokenizeRequest,
    OutlineRequest,
    TokenizeRequest,
    WritingRequest,
)
from yanmo.server.run_view import run_view
from yanmo.server.served import Asked, ServedModel, ranked
from yanmo.text.read.chapters import MAX_HEADING_CHARACTERS, chapter_starts

PAGE = Path(__file__).parent / "page"
NO_SENTENCE = "Not Found", "Method Not Allowed"
"""What the framework says to an address that it does not know."""
RETRY_SECONDS = 5
"""After so long whoever was refused, because too many wait, may come again."""
AsChoice = Callable[[Part, bool], dict[str, Any]]
"""A part as a choice of the answer; True: as a piece of a stream."""


class LongJSON(JSONResponse):
    """An answer that may be long: make it in a thread, so that the loop answers others meanwhile."""

    def render(self, content: Any) -> bytes:
        """Its body."""
        return in_pieces(content)


@dataclass
class Answering:
    """How one kind of request is answered."""

    kind: str
    """``object`` of a whole answer."""
    piece_kind: str
    """``object`` of a piece of a stream."""
    prefix: str
    as_choice: AsChoice


@dataclass
class Server:
    """What the routes share."""

    models: Mapping[str, ServedModel]
    keep_choices: Path | None = None
    metrics: ServerMetrics = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = ServerMetrics({name: model.thread for name, model in self.models.items()})
        self._choices = threading.Lock()

    def model(self, name: str) -> ServedModel:
        """The model that a request names; the first where it names none.

        Raises:
            HTTPException: there is none of this name.
        """
        if found := self.models.get(name or next(iter(self.models))):
            return found
        raise HTTPException(404, f"there is no model {name[:100]}; there are: {', '.join(self.models)}")

    def about(self, model: ServedModel) -> dict[str, Any]:
        """A model's entry in /v1/models."""
        found = model.about()
        found["yanmo"]["keep_choices"] = self.keep_choices is not None
        return found

    def keep(self, choice: Choice) -> None:
        """Append a choice to the file.

        Raises:
            HTTPException: the server was not asked to keep any.
        """
        if self.keep_choices is None:
            raise HTTPException(404, "choices are not kept: start the server with --keep-choices FILE")
        row = choice.model_dump() | {"format": "text"}  # continuations of a text, not answers to it
        line = sendable(json.dumps(row, ensure_ascii=False)) + "\n"
        with (
            self._choices,
            disk_errors("keeping a choice", self.keep_choices.parent),
            open(self.keep_choices, "a", encoding="utf-8", newline="\n") as file,
        ):
            file.write(line)

    async def parts(self, model: ServedModel, asked: Asked) -> AsyncGenerator[Part, None]:
        """The parts of an answer; the first is timed."""
        began: float | None = time.monotonic()
        async with aclosing(model.parts(asked)) as parts:
            async for part in parts:
                if began is not None:
                    self.metrics.first_text.observe(time.monotonic() - began)
                    began = None
                yield part

    async def answer(
        self, request: Request, model: ServedModel, asked: Asked, how: Answering, of: WritingRequest
    ) -> Response:
        """The answer to a request, whole or as a stream."""
        head = {"id": f"{how.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model.name}
        if of.stream:
            # the first part is waited for, so that a refusal still has a status
            parts = self.parts(model, asked)
            first = await unless_gone(request, anext(parts, None))
            body = self.stream(parts, first, head | {"object": how.piece_kind}, asked, how, of.includes_usage)
            return StreamingResponse(
                body, media_type="text/event-stream", headers={"Cache-Control": "no-store"}
            )
        parts_of_all = await unless_gone(request, collected(self.parts(model, asked)))

        def whole() -> Response:
            choices = [how.as_choice(part, False) for part in ranked(join(parts_of_all), asked)]
            about = {"object": how.kind, "choices": choices, "usage": asked.usage, "yanmo": asked.about}
            return LongJSON(head | about)

        return await asyncio.to_thread(whole)

    async def stream(
        self,
        parts: AsyncGenerator[Part, None],
        first: Part | None,
        head: dict[str, Any],
        asked: Asked,
        how: Answering,
        includes_usage: bool,
    ) -> AsyncIterator[bytes]:
        """Server-sent events; yanmo's own remarks are in the first."""
        about: dict[str, Any] = {"yanmo": asked.about}
        try:
            part = first
            while part is not None:
                if part.text or part.entries or part.finish_reason:
                    yield event(head | {"choices": [how.as_choice(part, True)]} | about)
                    about = {}
                part = await anext(parts, None)
            if includes_usage:
                yield event(head | {"choices": [], "usage": asked.usage})
            yield event("[DONE]")
        except YanmoError as error:
            yield event(error_body(said(error), "server_error"))
        finally:
            await parts.aclose()


async def collected(parts: AsyncGenerator[Part, None]) -> list[Part]:
    """All parts of an answer."""
    async with aclosing(parts):
        return [part async for part in parts]


async def unless_gone(request: Request, work: Any) -> Any:
    """What ``work`` gives; it is cancelled when the client goes away."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            raise HTTPException(499, "the client went away")
        return task.result()
    finally:
        gone.cancel()
        task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def said(error: YanmoError) -> str:
    """An error as a sentence for who asked."""
    return f"{error.what}; {error.hint}" if error.hint else error.what


def create_app(
    models: Sequence[ServedModel],
    token: str | None = None,
    origins: Sequence[str] = (),
    keep_choices: Path | None = None,
) -> ASGIApp:
    """The application that serves some models.

    Args:
        models: each under its own name; the first is the one of requests that name none.
        token: what every request must bring; None: nothing.
        origins: pages of these may ask too, such as ``https://write.example.org``.
        keep_choices: a file for continuations that were taken, beside those that were not.
    """
    server = Server({model.name: model for model in models}, keep_choices)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for model in models:
            model.loop = asyncio.get_running_loop()
            model.thread.start()
        yield
        for model in models:
            await asyncio.to_thread(model.thread.stop)

    app = FastAPI(title="yanmo", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    add_errors(app)
    add_writing(app, server)
    add_knowledge(app, server)
    add_tools(app, server)
    add_page(app)
    guarded: ASGIApp = RequestGuard(app, token, origins)
    if origins:  # around it: a browser asks first without the token whether it may ask
        guarded = CORSMiddleware(guarded, list(origins), allow_methods=["*"], allow_headers=["*"])
    return EveryAnswer(guarded, server.metrics.count)


def add_errors(app: FastAPI) -> None:
    """What goes wrong, in the shape that OpenAI's clients read."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        message, param = mistake(error, request.headers.get("content-type", ""))
        return JSONResponse(error_body(message[:500], "invalid_request_error", param), 400)

    @app.exception_handler(YanmoError)
    async def mistaken(_: Request, error: YanmoError) -> JSONResponse:
        is_theirs = isinstance(error, ConfigError)
        kind = "invalid_request_error" if is_theirs else "server_error"
        setting = re.match(r"sample\.(\w+)", error.what) or re.match(r"(?:sample\.)?(\w+)$", error.where)
        param = setting[1] if setting else None
        return JSONResponse(error_body(said(error), kind, param), 400 if is_theirs else 500)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        message, path = str(error.detail), request.url.path[:100]
        if message in NO_SENTENCE:
            message = f"{request.method} {path}: {message.lower()}; what there is stands in docs/serving.md"
        body = error_body(message, "invalid_request_error")
        return JSONResponse(body, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        message = f"the server failed: {type(error).__name__}; see its log"
        return JSONResponse(error_body(message, "server_error"), 500)

    @app.exception_handler(Busy)
    async def busy(_: Request, __: Busy) -> JSONResponse:
        body = error_body("too many requests wait already; come again in a moment", "rate_limit_error")
        return JSONResponse(body, 429, {"Retry-After": str(RETRY_SECONDS)})


def mistake(error: RequestValidationError, content_type: str) -> tuple[str, str | None]:
    """What is wrong with a body, in a sentence, and the field that it is about."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part != "body"]
    if first["type"] == "json_invalid":
        return f"the body is not JSON: {first['ctx']['error']} at character {place[0]}", None
    if place:
        return f"{'.'.join(place[:3])}: {first['msg']}", place[0]
    if "json" not in content_type.lower():
        return "the body is not read as JSON: send the header Content-Type: application/json", None
    return "the body is not a JSON object", None


def add_writing(app: FastAPI, server: Server) -> None:
    """The routes that write and score."""

    @app.post("/v1/completions")
    async def completions(request: Request, asked: CompletionRequest) -> Response:
        model = server.model(asked.model)
        found = await asyncio.to_thread(model.completion, asked)

        def as_choice(part: Part, _: bool) -> dict[str, Any]:
            return completion_choice(part, model.names, asked.logprobs)

        how = Answering("text_completion", "text_completion", "cmpl", as_choice)
        return await server.answer(request, model, found, how, asked)

    @app.post("/v1/chat/completions")
    async def dialogue(request: Request, asked: ChatRequest) -> Response:
        model = server.model(asked.model)
        found = await asyncio.to_thread(model.dialogue, asked)
        top = asked.top_logprobs if asked.logprobs else None

        def as_choice(part: Part, is_piece: bool) -> dict[str, Any]:
            message = {"delta" if is_piece else "message": {"role": "assistant", "content": part.text}}
            return chat_choice(part, model.names, model.bytes, top) | message

        how = Answering("chat.completion", "chat.completion.chunk", "chatcmpl", as_choice)
        return await server.answer(request, model, found, how, asked)

    # no coroutines: the framework gives these to a thread, for a text may be long
    @app.post("/tokenize")
    def tokenize(asked: TokenizeRequest) -> Response:
        model = server.model(asked.model)
        ids = model.ids_of(asked.prompt or asked.content)
        return LongJSON({"count": len(ids), "tokens": ids, "max_model_len": model.window})

    @app.post("/detokenize")
    def detokenize(asked: DetokenizeRequest) -> Response:
        model = server.model(asked.model)
        text = model.writer.tokenizer.decode(model.ids_of(asked.tokens))
        return LongJSON({"prompt": text, "content": text})


def add_knowledge(app: FastAPI, server: Server) -> None:
    """The routes that say what there is."""

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [*map(server.about, server.models.values())]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        return server.about(server.model(name))

    @app.get("/health")
    async def health() -> JSONResponse:
        threads = [model.thread for model in server.models.values()]
        is_well = all(thread.is_alive for thread in threads)
        running, waiting = sum(one.running for one in threads), sum(one.waiting for one in threads)
        body = {
            "status": "ok" if is_well else "the engine does not answer",
            "running": running,
            "waiting": waiting,
        }
        return JSONResponse(body, 200 if is_well else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(server.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


def add_tools(app: FastAPI, server: Server) -> None:
    """What the page asks for; no coroutines, so the framework gives them to threads."""

    @app.get("/yanmo/run")
    def run(model: str = "") -> Response:
        folder = server.model(model).run
        if folder is None:
            raise HTTPException(404, "this model belongs to no run")
        return LongJSON(run_view(folder))

    @app.post("/yanmo/outline")
    def outline(asked: OutlineRequest) -> Response:
        return LongJSON({"chapters": chapters_of(asked.text)})

    @app.post("/yanmo/copied")
    def copied(asked: CopiedRequest) -> Response:
        index = server.model(asked.model).writer.index
        return LongJSON({"spans": index.copied_spans(asked.text, asked.characters)})

    @app.post("/yanmo/choices", status_code=204)
    def choices(choice: Choice) -> None:
        server.keep(choice)


def chapters_of(text: str) -> list[dict[str, Any]]:
    """The chapters of a manuscript: where each begins, and its heading."""
    starts = chapter_starts(text)
    lines = (text[start : start + MAX_HEADING_CHARACTERS].split("\n", 1)[0] for start in starts)
    return [
        {"offset": start, "title": sendable(line.strip())} for start, line in zip(starts, lines, strict=True)
    ]


def add_page(app: FastAPI) -> None:
    """The page, whose files anybody may read."""

    @app.get("/")
    async def index() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    app.mount("/page", StaticFiles(directory=PAGE), name="page")

"""What a request must pass before anything looks at it: where it comes from, the token, its size.

In: an ASGI application. Out: one that refuses with a sentence, and sends every answer with headers that let
a browser run nothing but our own page.
"""

import asyncio
import hmac
import ipaddress
import json
from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from yanmo.server.answers import error_body

MAX_BODY_BYTES = 8 << 20
BODY_SECONDS = 30.0
"""A body that is not there after so long is not waited for."""
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Refused(Exception):
    """A request that does not pass, with what is answered."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status, self.message, self.kind = status, message, kind


class EveryAnswer:
    """An ASGI application whose every answer has the headers of safety, and is counted."""

    def __init__(self, app: ASGIApp, count: Callable[[int], object]) -> None:
        """``count`` receives the status of each answer."""
        self.app, self.count = app, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.count(message["status"])
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_safely)


class RequestGuard:
    """An ASGI application behind the checks."""

    def __init__(self, app: ASGIApp, token: str | None = None, origins: Collection[str] = ()) -> None:
        """
        Args:
            app: what answers a request that passes.
            token: what every request must bring, but those for the page and for /health; None: nothing.
            origins: further origins whose pages may ask.
        """
        self.app, self.token, self.origins = app, token, frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            self.check(scope["path"], Headers(scope=scope))
            body = await read_body(receive)
        except Refused as refused:
            await refuse(refused, send)
            return
        await self.app(scope, replayed(body, receive), send)

    def check(self, path: str, headers: Headers) -> None:
        """
        Raises:
            Refused: the request comes from elsewhere, or without the token.
        """
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self.is_known_host(host):
            raise Refused(403, f"this server is not known as {host[:100]}: name it by --allow-origin")
        if origin is not None and origin not in self.origins and _split(origin).netloc != host:
            raise Refused(403, f"pages of {origin[:100]} may not ask here: name it by --allow-origin")
        if self.token and not is_open(path):
            given = headers.get("authorization", "").removeprefix("Bearer ").strip()
            # headers are bytes, which the framework reads as Latin-1
            if not hmac.compare_digest(given.encode("latin-1"), self.token.encode()):
                raise Refused(
                    401, "this server wants its token: Authorization: Bearer …", "authentication_error"
                )

    def is_known_host(self, host: str) -> bool:
        """Whether a name is one that no other site can take for itself: an address, or one that was named."""
        name = _split(f"//{host}").hostname or ""
        if name == "localhost" or name in {_split(origin).hostname for origin in self.origins}:
            return True
        try:
            return bool(ipaddress.ip_address(name))
        except ValueError:
            return False


def _split(address: str) -> SplitResult:
    """The parts of an address; none of what is no address."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def is_open(path: str) -> bool:
    """Whether a path is the page's own, or only says that the server lives."""
    return path in ("/", "/health") or path.startswith("/page/")


async def read_body(receive: Receive) -> bytes:
    """The whole body of a request.

    Raises:
        Refused: it is too large, or does not come.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    raise Refused(413, f"a request has {MAX_BODY_BYTES:,} bytes at most")
                if message["type"] != "http.request" or not message.get("more_body"):
                    return bytes(body)
    except TimeoutError as error:
        raise Refused(408, f"the request was not whole after {BODY_SECONDS:.0f} seconds") from error


def replayed(body: bytes, receive: Receive) -> Receive:
    """What gives a body that was read already, and then what comes."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return first.pop() if first else await receive()

    return receive_again


async def refuse(refused: Refused, send: Send) -> None:
    """Answer with a sentence."""
    body = json.dumps(error_body(refused.message, refused.kind), ensure_ascii=False).encode()
    headers: list[Any] = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if refused.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refused.status in (408, 413):  # what is still to come of the body is not read
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

"""The process of a server, by uvicorn: it says when it answers, and ends what it writes before it ends.

In: an application and a socket that listens. Out: the signal that ended it.
"""

import os
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from yanmo.core.console import counted

GRACE_SECONDS = 30
"""Texts that are being written when the server is told to end have so long to be whole."""
IDLE_SECONDS = 75
"""A connection may rest so long between two requests: longer than a proxy keeps it (nginx 60 s), which would
else send a request into one that is just being closed."""
EVERYWHERE = {"0.0.0.0": "192.0.2.1", "::": "2001:db8::1"}
"""Hosts that mean all addresses of this machine, and for each one elsewhere (reserved for documents)."""

Say = Callable[[str], None]


def answer(app: ASGIApp, listening: socket.socket, ready: Say, say: Say, busy: Callable[[], int]) -> int:
    """Serve an application until a signal ends it.

    Args:
        app: what answers.
        listening: the socket.
        ready: is told the address as soon as it answers.
        say: is told how it ends.
        busy: how many texts are being written or wait.
    """
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=IDLE_SECONDS,
    )  # fmt: skip
    server = Announcing(config, ready, say, busy)
    server.run([listening])
    say("the server has ended")
    return server.ended_by


class Announcing(uvicorn.Server):
    """Says its addresses as soon as it answers, and what it waits for when it is told to end."""

    def __init__(self, config: uvicorn.Config, ready: Say, say: Say, busy: Callable[[], int]) -> None:
        super().__init__(config)
        self.ready, self.say, self.busy = ready, say, busy
        self.ended_by = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's, and then the addresses."""
        await super().startup(sockets)
        for one in (sockets or ()) if self.started else ():
            self.ready(address_of(one))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal lets texts become whole, the second ends them; uvicorn would raise it again."""
        if self.should_exit:
            self.say("ended at once")
            os._exit(128 + sig)
        self.should_exit, self.ended_by = True, sig
        if count := self.busy():
            texts = counted(count, "text")
            self.say(f"finishing {texts}, for up to {GRACE_SECONDS} seconds; once more ends at once")


def address_of(listening: socket.socket) -> str:
    """Where a browser finds a server: of all addresses of this machine, the one that others reach it by."""
    host, port = listening.getsockname()[:2]
    if host in EVERYWHERE:
        host = own_address(listening.family, EVERYWHERE[host])
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def own_address(family: int, other: str) -> str:
    """This machine's address on the way to another one; nothing is sent."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((other, 9))
            return str(probe.getsockname()[0])
    except OSError:  # no network
        return "::1" if family == socket.AF_INET6 else "127.0.0.1"

"""The process of a server, by uvicorn: it says when it answers, and ends what it writes before it ends.

In: an application and a socket that listens. Out: nothing, until a signal comes.
"""

from collections.abc import Callable
from socket import socket

import uvicorn
from starlette.types import ASGIApp

GRACE_SECONDS = 30
"""Texts that are being written when the server is told to end have so long to be whole."""


def answer(app: ASGIApp, listening: socket, say: Callable[[str], None]) -> None:
    """Serve an application until a signal ends it; ``say`` is told its address as soon as it answers."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_SECONDS
    )
    Announcing(config, say).run([listening])


class Announcing(uvicorn.Server):
    """Says its addresses as soon as it answers."""

    def __init__(self, config: uvicorn.Config, say: Callable[[str], None]) -> None:
        super().__init__(config)
        self.say = say

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """uvicorn's, and then the addresses."""
        await super().startup(sockets)
        for one in (sockets or ()) if self.started else ():
            address, port = one.getsockname()[:2]
            self.say(f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}")

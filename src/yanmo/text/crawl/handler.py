"""Scrapy's download handler, but for answers whose headers do not end: Twisted would keep them all.

In: Scrapy's requests. Out: its answers; one whose headers are too long is cancelled, like a page that is too
large. Scrapy imports this file itself, once its reactor is installed.
"""

from typing import Any

from scrapy.core.downloader.handlers.http11 import HTTP11DownloadHandler
from scrapy.exceptions import DownloadCancelledError, DownloadFailedError
from twisted.internet.defer import CancelledError
from twisted.web._newclient import HEADER, STATUS

MAX_HEADER_BYTES = 1 << 18
"""Of one answer, with what came of its body in the same packet; browsers bear as many."""


class BoundedHandler(HTTP11DownloadHandler):
    """Downloads over connections that bound headers."""

    def __init__(self, crawler: Any) -> None:
        super().__init__(crawler)
        plain = self._pool._factory

        class Factory(plain):  # type: ignore[misc, valid-type]
            def buildProtocol(self, address: Any) -> Any:  # noqa: N802  # Twisted's name
                return bound_headers(super().buildProtocol(address))

        self._pool._factory = Factory

    async def download_request(self, request: Any) -> Any:
        """An answer.

        Raises:
            DownloadCancelledError: it was given up here.
        """
        try:
            return await super().download_request(request)
        except DownloadFailedError as error:
            reasons = getattr(error.__cause__, "reasons", ())
            if any(reason.check(CancelledError) for reason in reasons):
                raise DownloadCancelledError(f"more than {MAX_HEADER_BYTES:,} bytes of headers") from error
            raise


def bound_headers(protocol: Any) -> Any:
    """A connection that is given up where the headers of an answer are too long."""
    ask, receive = protocol.request, protocol.dataReceived
    received = 0

    def request(what: Any) -> Any:
        nonlocal received
        received = 0
        return ask(what)

    def data_received(data: bytes) -> None:
        nonlocal received
        parser = protocol._parser
        received += len(data) if parser is not None and parser.state in (STATUS, HEADER) else 0
        if received > MAX_HEADER_BYTES:
            protocol._finishedRequest.cancel()
        else:
            receive(data)

    protocol.request, protocol.dataReceived = request, data_received
    return protocol

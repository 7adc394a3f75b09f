"""Which addresses a crawler may reach, checked where it connects.

In: a URL, or an address about to be connected to. Out: the reason why it is refused, or nothing. Checking a
URL proves little, since a name may resolve to anything, and to something else a second later (DNS rebinding).
So the event loop below also checks the address that each connection goes to.
"""

import asyncio
import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit

from yanmo.text.crawl.profile import Profile, host_of

PRIVATE = "private address"
OFF_SITE = "off-site"
SCHEME = "not http"
MAX_URL = 2000
"""Characters of a URL; a longer one is refused."""
WRAPPINGS = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "::ffff:0:0:0/96", "::/96")))
"""IPv6 networks whose last 32 bits are an IPv4 address: NAT64, IPv4-translated, IPv4-compatible."""
UNICAST = ipaddress.IPv6Network("2000::/3")
"""All of IPv6 that the whole internet can reach."""
ALWAYS_CLOSED = tuple(
    map(
        ipaddress.ip_network,
        (
            "64:ff9b:1::/48",  # local NAT64: only that network knows which IPv4 address is meant
            "fd00:ec2::/32",  # AWS
            "fd20:ce::254",  # Google
            "fd00:c1::/32",  # Oracle
            "192.0.0.192",
            "fd00:42::42",  # Scaleway
            "100.100.100.200",  # Alibaba
            "168.63.129.16",  # Azure; not private by its number
        ),
    )
)
"""Metadata services of clouds, which give out keys, besides link-local addresses; and what may lead there."""


def why_forbidden(address: str, private_network: bool) -> str:
    """Why an address must not be connected to; empty where it may.

    Only what the whole internet can reach is allowed; with ``private_network`` also loopback and private
    networks, but never metadata services of clouds: link-local addresses and ``ALWAYS_CLOSED``.
    """
    try:
        found = _plain(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return PRIVATE
    if found.is_multicast or found.is_unspecified or found.is_link_local:
        return PRIVATE
    if any(found in network for network in ALWAYS_CLOSED):
        return PRIVATE
    return "" if _is_global(found) or (private_network and _is_inner(found)) else PRIVATE


def why_refused(url: str, profile: Profile) -> str:
    """Why a URL is not fetched, as far as the URL itself tells; empty where it may be."""
    try:
        parts = urlsplit(url)
        host = host_of(url)
    except ValueError:
        return SCHEME
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return SCHEME
    if len(url) > MAX_URL:
        return "address too long"
    if parts.username or parts.password:
        return "login in the address"
    literal = _literal(parts.hostname)
    if literal and why_forbidden(literal, profile.private_network):
        return PRIVATE
    return "" if host in profile.allowed_hosts else OFF_SITE


class PrivateAddress(OSError):
    """A connection that is refused before it is made."""


class CheckedLoop(asyncio.SelectorEventLoop):
    """An event loop that connects to no forbidden address, whoever asks and whatever resolved the name.

    Every connection goes through the loop: Scrapy downloads by aiohttp, which resolves and connects with
    these public methods of asyncio. A resolver of our own would not see literal addresses, nor those of
    another resolver (aiohttp prefers aiodns where it is installed).
    """

    def __init__(self, private_network: bool) -> None:
        super().__init__()
        self.private_network = private_network

    def check(self, address: str) -> None:
        """Refuse an address that is forbidden.

        Raises:
            PrivateAddress: it is.
        """
        if reason := why_forbidden(address, self.private_network):
            raise PrivateAddress(f"{address}: {reason}")

    async def getaddrinfo(self, host: Any, port: Any, **how: Any) -> list[Any]:
        """The addresses of a name; one forbidden address among them refuses the name."""
        found = await super().getaddrinfo(host, port, **how)
        for *_, where in found:
            self.check(str(where[0]))
        return found

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect to the address that is checked here: a name that changes in between gains nothing."""
        self.check(address[0])
        await super().sock_connect(sock, address)


def is_private(error: BaseException | None) -> bool:
    """Whether a refused connection caused an error: libraries on the way wrap it in errors of their own."""
    while error is not None and not isinstance(error, PrivateAddress):
        error = error.__cause__
    return error is not None


def _literal(host: str) -> str:
    """The address that a numeric host means (`127.1`, `0x7f000001`, `2130706433` too)."""
    # inet_aton reads the forms that the system's resolver reads, ipaddress only the usual one
    if ":" in host:
        return host
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, ValueError):
        return ""


def _plain(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IPv4 address embedded in an IPv6 one, if there is one; else the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped or address.sixtofour:
        return address.ipv4_mapped or address.sixtofour or address
    if address.teredo:
        return address.teredo[1]
    if any(address in network for network in WRAPPINGS) and int(address) > 1:  # :: and ::1 are IPv6's own
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_global(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.is_global and (isinstance(address, ipaddress.IPv4Address) or address in UNICAST)


def _is_inner(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    is_site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return address.is_private or address.is_loopback or is_site_local

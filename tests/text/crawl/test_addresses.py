import asyncio
import socket
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from yanmo.text.crawl.addresses import CheckedLoop, PrivateAddress, is_private, why_forbidden, why_refused
from yanmo.text.crawl.profile import Profile


def profile(**how: object) -> Profile:
    return Profile(start=("http://site.example/",), permission="a test", **how)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1",
     "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1",
     "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "ff02::1", "no address", "",
     "fec0::1", "64:ff9b:1::7f00:1", "::127.0.0.1", "::169.254.169.254", "::ffff:0:127.0.0.1", "::ffff:0:a9fe:a9fe",
     "4000::1", "168.63.129.16", "100.100.100.200", "fd00:ec2::254"],
)  # fmt: skip
def test_only_what_the_whole_internet_reaches_is_connected_to(address: str) -> None:
    assert why_forbidden(address, private_network=False)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:2800:220:1::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]
)
def test_public_addresses_are_allowed(address: str) -> None:
    assert not why_forbidden(address, private_network=False)


@pytest.mark.parametrize(
    ("address", "allowed"),
    [("127.0.0.1", True), ("192.168.0.1", True), ("::1", True), ("8.8.8.8", True), ("169.254.169.254", False),
     ("fe80::1", False), ("0.0.0.0", False), ("::ffff:169.254.169.254", False), ("224.0.0.1", False),
     ("fd00:ec2::254", False), ("fd00:ec2::23", False), ("fd20:ce::254", False), ("fd00:c1::a9fe:a9fe", False),
     ("fd00:42::42", False), ("192.0.0.192", False), ("168.63.129.16", False), ("100.100.100.200", False),
     ("64:ff9b:1::a9fe:a9fe", False), ("::169.254.169.254", False), ("::ffff:0:169.254.169.254", False),
     ("64:ff9b::a9fe:a9fe", False), ("::", False), ("fd00::1", True), ("fec0::1", True), ("::127.0.0.1", True),
     ("::ffff:0:10.0.0.1", True)],
)  # fmt: skip
def test_a_private_network_is_no_way_to_the_clouds_keys(address: str, allowed: bool) -> None:
    assert (not why_forbidden(address, private_network=True)) == allowed


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1/", "private address"),
        ("http://127.1/", "private address"),
        ("http://0x7f.1/", "private address"),
        ("http://0x7f000001/", "private address"),
        ("http://2130706433/", "private address"),
        ("http://017700000001/", "private address"),
        ("http://[::1]/", "private address"),
        ("http://[::ffff:127.0.0.1]/", "private address"),
        ("http://169.254.169.254/latest/meta-data/", "private address"),
        ("http://[::127.0.0.1]/", "private address"),
        ("http://[fec0::1]/", "private address"),
        ("http://[fd00:ec2::254]/latest/meta-data/", "private address"),
        ("http://[2606:2800:220:1::1]/", "off-site"),
        ("file:///etc/passwd", "not http"),
        ("file://site.example/etc/passwd", "not http"),
        ("ftp://site.example/", "not http"),
        ("javascript:alert(1)", "not http"),
        ("data:text/html,x", "not http"),
        ("http://", "not http"),
        ("http://site.example:99999999/", "not http"),
        ("http://user:secret@site.example/", "login in the address"),
        ("http://site.example/" + "x" * 3000, "address too long"),
        ("http://other.example/", "off-site"),
        ("http://site.example.evil.example/", "off-site"),
        ("http://site.example:8080/", "off-site"),
        ("http://site.example/a", ""),
        ("https://site.example/a", ""),
        ("http://SITE.example:80/a", ""),
    ],
)
def test_a_url_is_refused_for_what_it_says(url: str, reason: str) -> None:
    assert why_refused(url, profile()) == reason


class Names(asyncio.SelectorEventLoop):
    """A system that knows one name, and makes no connection."""

    addresses: ClassVar[list[str]] = []

    def __init__(self) -> None:
        super().__init__()
        self.connected: list[str] = []

    async def getaddrinfo(self, host: Any, port: Any, **how: Any) -> list[Any]:
        if host != "name.example":
            raise socket.gaierror(-2, "unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses]

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        self.connected.append(address[0])


class Checked(CheckedLoop, Names):
    pass


@pytest.fixture
def loop() -> Iterator[Checked]:
    loop = Checked(private_network=False)
    yield loop
    loop.close()


def test_a_name_with_one_forbidden_address_is_refused_whole(
    loop: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Names, "addresses", ["8.8.8.8", "::1"])
    with pytest.raises(PrivateAddress, match="::1"):
        loop.run_until_complete(loop.getaddrinfo("name.example", 80))


def test_a_name_with_public_addresses_has_them_all(loop: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Names, "addresses", ["8.8.8.8", "2606:2800:220:1::1"])
    found = loop.run_until_complete(loop.getaddrinfo("name.example", 80))
    assert [where[0] for *_, where in found] == ["8.8.8.8", "2606:2800:220:1::1"]


def test_a_name_that_does_not_exist_is_not_called_private(loop: Checked) -> None:
    with pytest.raises(socket.gaierror):
        loop.run_until_complete(loop.getaddrinfo("none.example", 80))


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "10.0.0.1"])
def test_what_resolved_elsewhere_is_checked_where_the_connection_is_made(loop: Checked, address: str) -> None:
    with socket.socket() as sock, pytest.raises(PrivateAddress):
        loop.run_until_complete(loop.sock_connect(sock, (address, 80)))
    assert loop.connected == []


def test_a_public_address_is_connected_to(loop: Checked) -> None:
    with socket.socket() as sock:
        loop.run_until_complete(loop.sock_connect(sock, ("8.8.8.8", 80)))
    assert loop.connected == ["8.8.8.8"]


def test_a_refused_connection_is_known_through_what_wraps_it() -> None:
    wrapped = ValueError("of a library")
    wrapped.__cause__ = PrivateAddress("127.0.0.1")
    outer = OSError("of another")
    outer.__cause__ = wrapped
    assert is_private(outer) and not is_private(ValueError()) and not is_private(None)

"""Bytes, spoiled in small ways: what a torn download, a bad disk, an editor or an enemy makes of a file."""

import gzip
import io
import random
import re
import zipfile
from collections.abc import Callable

Spoiler = Callable[[bytes, random.Random], bytes]

LONGEST = 1 << 16
"""Bytes beyond which nothing is made longer: a case takes milliseconds."""
SHARE_INSIDE = 0.7
"""Of archives so many are spoiled inside and packed again: else a checksum is all that speaks."""
STRANGE = (
    b"null", b"NaN", b"-1", b"1e999", b"9" * 5000, b"true", b"{}", b"[]", b'""', b"[" * 3000, b"\x00", b"\xff\xfe",
    b"\xed\xa0\x80", b"\\ud800", b"\r", b"\x1a", b'"', b"'", b"&#xD800;", b"<![CDATA[", b"<!--", b"%s", b"../", b"\xe2\x80\xa8",
    (1 << 31).to_bytes(4, "little"), (2**63 - 1).to_bytes(8, "little"),
)  # fmt: skip
"""What parsers trip over."""


def spoiled(data: bytes, rng: random.Random, others: tuple[bytes, ...] = ()) -> bytes:
    """``data`` with one to three things done to it; ``others`` are what may be spliced in."""
    inside = _inside(data, rng, others) if rng.random() < SHARE_INSIDE else None
    if inside is not None:
        return inside
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(SPOILERS)(data, rng) if rng.random() < 0.9 else splice(data, rng, others)
    return data


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def flip_bit(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return data
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def change_digit(data: bytes, rng: random.Random) -> bytes:
    places = [match.start() for match in re.finditer(rb"\d", data)]
    if not places:
        return flip_bit(data, rng)
    at = rng.choice(places)
    return data[:at] + str(rng.randrange(10)).encode() + data[at + 1 :]


def insert_strange(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(STRANGE) + data[at:]


def replace_word(data: bytes, rng: random.Random) -> bytes:
    """A number, a name or a text becomes something strange."""
    words = list(re.finditer(rb'-?\d[\d.]*|"[^"\n]*"|\w+', data))
    if not words:
        return insert_strange(data, rng)
    start, end = rng.choice(words).span()
    return data[:start] + rng.choice(STRANGE) + data[end:]


def delete(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + data[end:]


def duplicate(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:end] + data[start:] if len(data) < LONGEST else data


def swap(data: bytes, rng: random.Random) -> bytes:
    start, end = _span(data, rng)
    return data[:start] + data[end:] + data[start:end]


def splice(data: bytes, rng: random.Random, others: tuple[bytes, ...]) -> bytes:
    """The beginning of one file and the end of another."""
    other = rng.choice((data, *others))
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


SPOILERS: tuple[Spoiler, ...] = (
    truncate, flip_bit, change_digit, insert_strange, replace_word, delete, duplicate, swap,
)  # fmt: skip


def _span(data: bytes, rng: random.Random) -> tuple[int, int]:
    """Some bytes, short or long."""
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + int(rng.paretovariate(0.5)))


def _inside(data: bytes, rng: random.Random, others: tuple[bytes, ...]) -> bytes | None:
    """An archive of which one member is spoiled; None: it is none."""
    if data.startswith(b"\x1f\x8b"):
        return gzip.compress(spoiled(gzip.decompress(data), rng, others))
    if not data.startswith(b"PK"):
        return None
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chosen = rng.choice(list(members))
    members[chosen] = spoiled(members[chosen], rng, others)
    return zipped(members)


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()

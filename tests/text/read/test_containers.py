import bz2
import gzip
import io
import lzma
import stat
import sys
import zipfile
from pathlib import Path

import pytest

from tests.makers.documents import read
from yanmo.core.commands import install_command
from yanmo.core.errors import ConfigError, DataError
from yanmo.text.read import containers
from yanmo.text.read.documents import CorpusCounts, corpus_size

zstd = pytest.importorskip("backports.zstd" if sys.version_info < (3, 14) else "compression.zstd")
BOMB_BYTES = 4 << 20
STORY = "话说天下大势，分久必合，合久必分。\n"


def zst(data: bytes, pledge: bool = True) -> bytes:
    parameter = zstd.CompressionParameter
    options = {} if pledge else {parameter.content_size_flag: 0, parameter.checksum_flag: 1}
    return zstd.compress(data, options=options)


PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zst}


def zipped(path: Path, members: dict[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def dropped(path: Path | str, **how: str) -> tuple[list[str], CorpusCounts]:
    counts = CorpusCounts()
    return [d.text for d in read(path, counts=counts, **how)], counts


@pytest.mark.parametrize("wrapper", PACKERS)
def test_what_is_compressed_is_read_as_what_is_in_it(tmp_path: Path, wrapper: str) -> None:
    pack = PACKERS[wrapper]
    (tmp_path / f"a.txt{wrapper}").write_bytes(pack((STORY * 3).encode("gb18030")))
    (tmp_path / f"b.jsonl{wrapper}").write_bytes(pack('{"text": "甲"}\n{"text": "乙"}\n'.encode() * 3000))
    (tmp_path / f"c{wrapper}").write_bytes(pack(STORY.encode()))
    (tmp_path / f"d.TXT{wrapper.upper()}").write_bytes(pack(pack(STORY.encode())))
    assert [d.text for d in read(tmp_path / f"a.txt{wrapper}")] == [STORY * 3]
    found = read(tmp_path / f"b.jsonl{wrapper}")
    assert (found[1].id, found[1].text, len(found)) == (f"b.jsonl{wrapper}#2", "乙", 6000)
    assert [d.text for d in read(tmp_path / f"c{wrapper}")] == [STORY]
    (tmp_path / f"e.txt{wrapper}{wrapper}").write_bytes(pack(pack(STORY.encode())))
    assert [d.text for d in read(tmp_path / f"e.txt{wrapper}{wrapper}")] == [STORY]
    counts = dropped(tmp_path)[1]
    assert counts.files_passed_over == {wrapper: 1}  # c: what it holds has no telling name
    assert counts.documents_dropped == {"undecodable": 1}  # d: compressed bytes are no text


def test_zst_without_a_size_and_in_several_frames_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt.zst").write_bytes(zst(STORY.encode(), pledge=False) * 3)
    assert [d.text for d in read(tmp_path / "a.txt.zst")] == [STORY * 3]


def test_gz_of_several_members_and_with_something_behind_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(STORY.encode()) * 2)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(STORY.encode()) + b"\x00" * 99 + b"garbage")
    assert [d.text for d in read(tmp_path)] == [STORY * 2, STORY]


@pytest.mark.parametrize("wrapper", PACKERS)
def test_a_torn_or_changed_file_is_damaged_and_never_half_a_text(tmp_path: Path, wrapper: str) -> None:
    whole = PACKERS[wrapper]("".join(chr(0x4E00 + n * 7919 % 20000) for n in range(40_000)).encode())
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 0xFF
    for number, data in enumerate((whole[:-3], whole[: len(whole) // 2], b"this is no archive")):
        (tmp_path / f"{number}.txt{wrapper}").write_bytes(data)
    if wrapper != ".zst":  # without a checksum, zstd may take another byte for another text
        (tmp_path / f"9.txt{wrapper}").write_bytes(changed)
    texts, counts = dropped(tmp_path)
    assert texts == []
    assert counts.documents_dropped == {"damaged archive": 3 + (wrapper != ".zst")}
    with pytest.raises(DataError, match="the file is damaged"):
        read(tmp_path / f"0.txt{wrapper}")


def test_whole_lines_before_the_damage_are_kept(tmp_path: Path) -> None:
    lines = "".join(f'{{"text": "{chr(0x4E00 + n)}{n * 7919}"}}\n' for n in range(20_000))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode())[:-2000])
    texts, counts = dropped(tmp_path)
    assert 10_000 < len(texts) < 20_000
    assert texts == [f"{chr(0x4E00 + n)}{n * 7919}" for n in range(len(texts))]
    assert counts.documents_dropped == {"damaged archive": 1}


def test_sizes_add_up_to_the_size_of_what_is_packed(tmp_path: Path) -> None:
    lines = "".join(f'{{"text": "{n * 7919 % 10007}"}}\n' for n in range(10_000)).encode()
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    zipped(tmp_path / "b.zip", {"1.txt": STORY * 1000, "2.jsonl": lines, "3.jsonl.gz": gzip.compress(lines)})
    for path in tmp_path.iterdir():
        assert sum(d.meta["size"] for d in read(path)) == pytest.approx(corpus_size([str(path)]), rel=0.1)


# -- .zip -------------------------------------------------------------------------------------


def test_a_zip_is_read_like_a_folder(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {
        "书/二.txt": "乙", "书/一.txt": "甲".encode("gb18030"), "a.jsonl": '{"text": "丙"}', "cover.jpg": b"\xff\xd8",
        "b.jsonl.gz": gzip.compress('{"text": "丁"}'.encode()), "empty.txt": "", "__MACOSX/._a.txt": "x",
        ".hidden/a.txt": "x", "folder/": "",
    }  # fmt: skip
    zipped(tmp_path / "a.zip", members)
    counts = CorpusCounts()
    found = read(tmp_path / "a.zip", counts=counts)
    assert [(d.id, d.text) for d in found] == [
        ("a.zip/a.jsonl#1", "丙"),
        ("a.zip/b.jsonl.gz#1", "丁"),
        ("a.zip/书/一.txt", "甲"),
        ("a.zip/书/二.txt", "乙"),
    ]
    assert counts.files_passed_over == {".jpg": 1}
    assert counts.documents_dropped == {"empty": 1}
    assert counts.dropped == [f"{tmp_path / 'a.zip'}/empty.txt: empty"]
    assert counts.files == 5


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/x.txt", "etc/x.txt"),
        ("/etc/x.txt", "etc/x.txt"),
        ("C:\\Windows\\..\\x.txt", "Windows/x.txt"),
        ("a/./..//x.txt", "a/x.txt"),
        ("\x1b[2Jx.txt", "_[2Jx.txt"),
    ],
)
def test_names_that_lead_elsewhere_are_harmless(tmp_path: Path, name: str, shown: str) -> None:
    zipped(tmp_path / "a.zip", {name: STORY})
    before = {path for path in tmp_path.parent.rglob("*") if path.is_file()}
    assert [(d.id, d.text) for d in read(tmp_path / "a.zip")] == [(f"a.zip/{shown}", STORY)]
    assert {path for path in tmp_path.parent.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("encoding", ["gbk", "big5", "utf-8"])
def test_names_in_other_encodings_are_readable(tmp_path: Path, encoding: str) -> None:
    name = "紅樓夢全集/第一回甄士隱夢幻識通靈.txt"
    stand_in = "x" * (len(name.encode(encoding)) - 4) + ".txt"
    zipped(tmp_path / "a.zip", {stand_in: STORY})
    data = (tmp_path / "a.zip").read_bytes().replace(stand_in.encode(), name.encode(encoding))
    (tmp_path / "a.zip").write_bytes(data)
    assert [d.id for d in read(tmp_path / "a.zip")] == [f"a.zip/{name}"]


def test_members_that_cannot_be_read_are_counted_under_their_reason(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("a.txt", STORY)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.txt", STORY)
        archive.writestr(link, "/etc/passwd")
        archive.writestr("nested.zip", inner.getvalue())
        archive.writestr("secret.txt", STORY)
    data = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the bit of encryption, in both headers
        header = data.rindex(
            mark, 0, data.rindex(b"secret.txt") if mark[2] == 1 else data.index(b"secret.txt")
        )
        data[header + flags] |= 1
    path.write_bytes(data)
    texts, counts = dropped(path)
    assert texts == [STORY]
    assert counts.documents_dropped == {"archive in an archive": 1, "encrypted": 1, "link": 1}


def test_an_archive_without_texts_or_torn_is_a_clear_error(tmp_path: Path) -> None:
    for data, what in ((zipped(tmp_path / "b.zip", {"a.jpg": b""}).read_bytes(), "no file that is read"),
                       (b"PK\x03\x04torn", "the file is damaged")):  # fmt: skip
        (tmp_path / "a.zip").write_bytes(data)
        with pytest.raises(DataError, match=what):
            read(tmp_path / "a.zip")
    whole = zipped(tmp_path / "c.zip", {"a.txt": STORY * 100}).read_bytes()
    (tmp_path / "c.zip").write_bytes(whole.replace(whole[45:60], bytes(15)))
    assert dropped(tmp_path / "c.zip")[1].documents_dropped == {"damaged archive": 1}


# -- bombs ------------------------------------------------------------------------------------


@pytest.fixture
def little_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a bomb may be small: four times what any file may expand to."""
    monkeypatch.setattr(containers, "FREE_BYTES", BOMB_BYTES // 4)


@pytest.mark.usefixtures("little_is_free")
@pytest.mark.parametrize("wrapper", [*PACKERS, ".zip"])
def test_a_bomb_is_refused_before_it_fills_the_memory(tmp_path: Path, wrapper: str) -> None:
    zeros = b"a" * BOMB_BYTES
    path = tmp_path / f"a.txt{wrapper}"
    if wrapper == ".zip":
        zipped(path, {"a.txt": zeros})
    else:
        path.write_bytes(PACKERS[wrapper](zeros))
    assert path.stat().st_size < len(zeros) / 4 / containers.MAX_RATIO
    (tmp_path / "good.txt").write_text(STORY, encoding="utf-8")
    texts, counts = dropped(tmp_path)
    assert texts == [STORY]
    assert counts.documents_dropped == {"expands too much": 1}


def test_a_bomb_in_layers_or_in_many_members_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "FREE_BYTES", 4 << 20)
    (tmp_path / "a.txt.gz.gz").write_bytes(gzip.compress(gzip.compress(b"a" * (16 << 20))))
    zipped(tmp_path / "b.zip", {f"{n:02}.txt": b"a" * (1 << 20) for n in range(20)})
    texts, counts = dropped(tmp_path)
    assert len(texts) == 4  # what fits into the allowance of the .zip
    assert counts.documents_dropped == {"expands too much": 17}


def test_sizes_that_lie_are_no_help(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a.txt": b"a" * BOMB_BYTES})
    data = path.read_bytes()
    size = BOMB_BYTES.to_bytes(4, "little")
    assert data.count(size) == 2
    path.write_bytes(data.replace(size, (1 << 16).to_bytes(4, "little")))
    texts, counts = dropped(path)
    assert texts == []
    assert counts.documents_dropped == {"damaged archive": 1}


def test_text_that_compresses_well_is_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "FREE_BYTES", 1 << 16)
    lines = "".join(f"第{n % 97}行，" + "分久必合，合久必分。" * 12 + f"{n}\n" for n in range(20_000))
    data = gzip.compress(lines.encode())
    assert 40 < len(lines.encode()) / len(data) < 150
    (tmp_path / "a.txt.gz").write_bytes(data)
    zipped(tmp_path / "a.zip", {"a.txt": lines})
    assert [d.text for d in read(tmp_path)] == [lines, lines]


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, zstd.__name__, None)
    (tmp_path / "a.txt.zst").write_bytes(zst(STORY.encode()))
    with pytest.raises(ConfigError, match="reading .zst takes backports.zstd") as caught:
        read(tmp_path / "a.txt.zst")
    assert caught.value.hint == install_command("files")
    counts = dropped(tmp_path)[1]
    assert counts.documents_dropped == {"needs yanmo[files]": 1}

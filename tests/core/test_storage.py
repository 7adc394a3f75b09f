import errno
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from yanmo.core import storage
from yanmo.core.errors import BusyError, CheckpointError, StorageError
from yanmo.data.shards import ShardWriter
from yanmo.train.metrics import METRICS, Metrics, rewind


def fill(folder: Path) -> None:
    (folder / "a.bin").write_bytes(b"a" * 1000)
    (folder / "inner").mkdir()
    (folder / "inner" / "b.json").write_text("{}", encoding="utf-8")


def test_a_committed_folder_is_whole(tmp_path: Path) -> None:
    storage.commit_folder(tmp_path / "x", fill)
    storage.verify_folder(tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_path_that_is_no_utf8_is_written_and_read_back(tmp_path: Path) -> None:
    path = b"\xd6\xd0/a.txt".decode("utf-8", "surrogateescape")
    storage.write_json(tmp_path / "a.json", {"path": path, "甲": "乙"})
    assert storage.read_json(tmp_path / "a.json") == {"path": path, "甲": "乙"}
    storage.write_atomic(tmp_path / "a.html", f"甲{path}")
    assert (tmp_path / "a.html").read_text("utf-8") == r"甲\udcd6\udcd0/a.txt"
    assert storage.fingerprint(path) != storage.fingerprint("/a.txt")


ASKING = (storage.is_there, storage.is_file, storage.is_folder)
NO_PATHS = (
    "山" * 86,
    "a" * 300,
    "a\0b",
    "half \ud800 a character",
    "no\udcff-file",
    "/" * 5 + "x" * 5000,
    "",
)


@pytest.mark.parametrize("path", NO_PATHS)
def test_what_can_be_no_path_is_not_there(path: str) -> None:
    assert not any(ask(path) or (path and ask(Path(path))) for ask in ASKING)


def test_what_may_not_be_asked_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("", encoding="utf-8")
    asked = [ask(path) for ask in ASKING for path in (tmp_path / "a", tmp_path)]
    assert asked == [True, True, True, False, False, True]

    def refuse(*path: object, **named: object) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "stat", refuse)
    assert not any(ask(path) for ask in ASKING for path in (tmp_path / "a", tmp_path))


@pytest.mark.parametrize("path", NO_PATHS)
def test_a_disk_error_is_told_wherever_it_was(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for refuse in (PermissionError(errno.EACCES, "Permission denied"), ValueError("embedded null byte")):

        def usage(path: object, why: Exception = refuse) -> None:
            raise why

        monkeypatch.setattr(shutil, "disk_usage", usage)
        told = pytest.raises(StorageError, match="reading failed: I/O error")
        with told, storage.disk_errors("reading", Path(path)):
            raise OSError(errno.EIO, "I/O error")


@pytest.mark.parametrize("name", ["a.bin", "inner/b.json", "MANIFEST.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "append", "delete"])
def test_any_damage_is_found_and_the_file_named(tmp_path: Path, name: str, damage: str) -> None:
    storage.commit_folder(tmp_path / "x", fill)
    path = tmp_path / "x" / name
    data = path.read_bytes()
    if damage == "delete":
        path.unlink()
    else:
        flipped = bytes([data[0] ^ 1]) + data[1:]
        path.write_bytes({"flip": flipped, "truncate": data[:-9], "append": data + b"x"}[damage])
    with pytest.raises(CheckpointError) as caught:
        storage.verify_folder(tmp_path / "x")
    assert name in caught.value.what


@pytest.mark.parametrize("name", ["sync_file", "sync_folder", "write_json", "sha256_of"])
def test_a_full_disk_leaves_nothing_half_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever step of a commit fails, the folder does not exist and no leftover does."""
    real, calls, fail_at = getattr(storage, name), 0, 0

    def failing(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == fail_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(storage, name, failing)
    storage.commit_folder(tmp_path / "counted", fill)
    shutil.rmtree(tmp_path / "counted")
    last = calls - (name == "sync_folder")  # the last flush comes after the folder is committed
    for fail_at in range(1, last + 1):
        calls = 0
        with pytest.raises(StorageError, match="No space left on device") as caught:
            storage.commit_folder(tmp_path / "x", fill)
        assert caught.value.exit_code == 74
        assert "MB free" in caught.value.where
        assert list(tmp_path.iterdir()) == []


def test_a_link_is_replaced_where_links_cannot_be_renamed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows refuses to replace a folder's link; a leftover of a killed process is no obstacle."""
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name, encoding="utf-8")

    def refused(source: Path, target: Path) -> None:
        raise PermissionError(errno.EACCES, "no")

    storage.point(tmp_path / "model", tmp_path / "one")
    monkeypatch.setattr(os, "replace", refused)
    for name in ("two", "three"):
        (tmp_path / f"{storage.TEMPORARY}model-{os.getpid()}").symlink_to("one")
        storage.point(tmp_path / "model", tmp_path / name)
        assert (tmp_path / "model" / "f").read_text(encoding="utf-8") == name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "one", "three", "two"]


def test_files_reach_the_disk_before_the_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int | str] = []
    real_rename = os.rename
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append(os.fstat(descriptor).st_ino))
    monkeypatch.setattr(os, "rename", lambda a, b: (done.append("rename"), real_rename(a, b)))
    storage.commit_folder(tmp_path / "x", fill)
    rename = done.index("rename")
    committed = {path.stat().st_ino for path in (tmp_path / "x", *(tmp_path / "x").rglob("*"))}
    assert committed <= set(done[:rename])
    assert done[rename + 1 :] == [tmp_path.stat().st_ino]


def test_a_files_content_reaches_the_disk_before_its_name_does(
    tmp_path: Path, real_fsync: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    real_fsync_of, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        found = os.fstat(descriptor)
        done.append(f"fsync of {found.st_size if stat.S_ISREG(found.st_mode) else 'names'}")
        real_fsync_of(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("replace"), real_replace(a, b)))
    storage.write_atomic(tmp_path / "a.txt", "新")
    assert done == ["fsync of 3", "replace", "fsync of names"]


def test_a_file_that_is_being_written_has_no_name_and_one_that_fails_never_has(tmp_path: Path) -> None:
    with storage.whole_file(tmp_path / "new" / "a.txt") as unfinished:
        unfinished.write_bytes(b"1")
        assert [path.name for path in (tmp_path / "new").iterdir()] == [unfinished.name]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]
    with pytest.raises(ZeroDivisionError), storage.whole_file(tmp_path / "new" / "a.txt") as unfinished:
        unfinished.write_bytes(b"2")
        raise ZeroDivisionError
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "new").iterdir()] == [("a.txt", b"1")]
    told = pytest.raises(StorageError, match=r"writing b\.txt failed: No such file")
    with told, storage.whole_file(tmp_path / "new" / "b.txt"):
        pass  # nobody wrote anything


def test_writing_replaces_a_file_in_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    storage.write_atomic(path, "旧")

    def failing(source: Path, target: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(StorageError):
        storage.write_atomic(path, "新")
    assert path.read_text(encoding="utf-8") == "旧"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_link_is_replaced_and_a_copy_serves_where_links_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text(name, encoding="utf-8")
    storage.point(tmp_path / "model", tmp_path / "one")
    storage.point(tmp_path / "model", tmp_path / "two")
    assert (tmp_path / "model").is_symlink()
    assert (tmp_path / "model" / "f").read_text(encoding="utf-8") == "two"

    def refused(self: Path, target: str, target_is_directory: bool = False) -> None:
        raise OSError(errno.EPERM, "links are refused")

    (tmp_path / "model").unlink()
    monkeypatch.setattr(Path, "symlink_to", refused)
    for name in ("one", "two"):
        storage.point(tmp_path / "model", tmp_path / name)
        assert (tmp_path / "model" / "f").read_text(encoding="utf-8") == name
    assert not (tmp_path / "model").is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "one", "two"]


def test_a_folder_that_cannot_be_flushed_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows opens no folders."""

    def refused(path: Path, flags: int) -> int:
        raise PermissionError(errno.EACCES, "no folders here")

    monkeypatch.setattr(os, "open", refused)
    storage.sync_folder(tmp_path)


def test_one_process_owns_a_run_and_its_death_frees_it(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from yanmo.core.storage import file_lock\n"
        f"with file_lock(Path({str(tmp_path / 'run.lock')!r})): print('mine', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == "mine\n"
        with pytest.raises(BusyError) as caught, storage.file_lock(tmp_path / "run.lock"):
            pass
        assert f"process {owner.pid}" in caught.value.what
        assert caught.value.exit_code == 75
        owner.kill()
    with storage.file_lock(tmp_path / "run.lock"):
        pass


def test_a_lock_that_is_free_again_keeps_its_file_and_names_nobody(tmp_path: Path) -> None:
    """The file marks a folder as that of a run, on Windows too, where the library would delete it."""
    with pytest.raises(ZeroDivisionError), storage.file_lock(tmp_path / "run.lock"):
        assert (tmp_path / ".run.lock.pid").read_text(encoding="utf-8") == str(os.getpid())
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]
    with storage.file_lock(tmp_path / "run.lock"):
        pass


def test_the_cache_makes_a_thing_once_and_again_when_damaged(tmp_path: Path) -> None:
    made: list[Path] = []

    def counted(folder: Path) -> None:
        made.append(folder)
        fill(folder)

    first = storage.cached("station", "key", counted)
    assert storage.cached("station", "key", counted) == first
    assert len(made) == 1
    (first / "a.bin").write_bytes(b"")
    storage.verify_folder(storage.cached("station", "key", counted))
    assert len(made) == 2


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / f"{storage.TEMPORARY}step-1").mkdir()
    (tmp_path / f"{storage.TEMPORARY}f").write_bytes(b"")
    (tmp_path / "step-1").mkdir()
    (tmp_path / f"{storage.TEMPORARY}model").symlink_to("step-1")
    storage.remove_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-1"]


def test_work_that_goes_on_does_not_list_the_manifest_of_a_crash_before_the_rename(tmp_path: Path) -> None:
    unfinished = tmp_path / ".unfinished-x"
    unfinished.mkdir()
    (unfinished / storage.MANIFEST).write_text("{}", encoding="utf-8")

    def fill(folder: Path) -> None:
        (folder / "a").write_bytes(b"1")

    storage.commit_folder(tmp_path / "x", fill, unfinished)
    storage.verify_folder(tmp_path / "x")
    assert list(storage.read_json(tmp_path / "x" / storage.MANIFEST)["files"]) == ["a"]


def test_work_that_is_cut_off_stays_for_the_next_one(tmp_path: Path) -> None:
    def cut(folder: Path) -> None:
        (folder / "half").write_bytes(b"1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        storage.commit_folder(tmp_path / "x", cut, tmp_path / ".unfinished-x")
    assert (tmp_path / ".unfinished-x" / "half").is_file()
    assert not (tmp_path / "x").exists()


def supersede(path: Path) -> None:
    (path.parent / METRICS).write_bytes(b'{"event": "train", "step": 3}\n')
    rewind(path.parent, 1)


def count(path: Path) -> None:
    with Metrics(path.parent) as metrics:
        metrics.write("train", step=1)


def lock(path: Path) -> None:
    with storage.file_lock(path):
        pass


def write_a_shard(path: Path) -> None:
    with ShardWriter(path.parent, path.name.partition("-")[0], 10) as writer:
        writer.write(np.array([1, 2, 3]), characters=3)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("run.lock", lock),
        ("lock", lock),
        (".run.lock.pid", lambda path: lock(path.with_name("run.lock"))),
        ("metrics.jsonl", count),
        ("metrics.superseded.jsonl", supersede),
        ("train-00000.bin", write_a_shard),
        (f"{storage.TEMPORARY}a-{os.getpid()}", lambda path: storage.write_atomic(path.with_name("a"), "x")),
    ],
    ids=["lock of a run", "lock of the cache", "who holds it", "metrics", "superseded", "shard", "temporary"],
)
@pytest.mark.parametrize("target", ["diary.txt", "nowhere"])
def test_a_link_in_the_place_of_a_file_that_is_written_is_not_followed(
    tmp_path: Path, name: str, write: Callable[[Path], None], target: str
) -> None:
    diary = tmp_path / "diary.txt"
    diary.write_text("private", encoding="utf-8")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).symlink_to(tmp_path / target)
    with pytest.raises(StorageError, match=f"{re.escape(name)} is a link"):
        write(folder / name)
    assert diary.read_text(encoding="utf-8") == "private"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["diary.txt", "run"]


def test_the_cache_does_not_write_through_a_link_either(tmp_path: Path, own_cache: Path) -> None:
    diary = tmp_path / "diary.txt"
    diary.write_text("private", encoding="utf-8")
    (own_cache / "shards").mkdir(parents=True)
    (own_cache / "shards" / "lock").symlink_to(diary)
    with pytest.raises(StorageError, match="lock is a link"):
        storage.cached("shards", "key", fill)
    assert diary.read_text(encoding="utf-8") == "private"

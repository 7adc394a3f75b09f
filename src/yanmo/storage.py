"""Files that are whole or absent: atomic fsynced writes, checked folders, the lock of a run, the cache.

A folder is *committed* by writing it under a temporary name, flushing every file, writing
``MANIFEST.json`` (sizes and sha256) last, and renaming it to a name that never existed. So a crash at
any moment leaves either the whole folder or a leftover that no reader mistakes for one.
Windows cannot fsync a folder and may refuse links: each such step has a fallback.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from yanmo.errors import BusyError, CheckpointError, StorageError

MANIFEST = "MANIFEST.json"
TEMPORARY = ".tmp-"
CHUNK = 1 << 20


# -- writing ----------------------------------------------------------------------------------


@contextlib.contextmanager
def disk_errors(doing: str, where: Path) -> Iterator[None]:
    """Turn an operating-system error into a :class:`StorageError` that says what it meant."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{doing} failed: {error.strerror or error}",
            where=f"{where} ({free_megabytes(where)} MB free)",
            mend="free some space or choose another folder with --out; what was saved before is whole",
        ) from error


def free_megabytes(path: Path) -> int:
    """Free space in MB on the disk that holds ``path`` or its nearest existing parent."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free >> 20


def sync_file(path: Path) -> None:
    """Force a file's content to the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Force a folder's names to the disk, where the system knows how (not on Windows)."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Replace ``path`` by ``data`` (text as UTF-8): readers see the old file or the new one."""
    if isinstance(data, str):
        data = data.encode("utf-8")
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    with disk_errors(f"writing {path.name}", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by ``value`` as readable JSON."""
    write_atomic(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


# -- folders ----------------------------------------------------------------------------------


def commit_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """Make folder ``target`` by ``fill(temporary)``; it appears whole, with its manifest, or not at all."""
    temporary = target.with_name(f"{TEMPORARY}{target.name}-{os.getpid()}")
    with disk_errors(f"saving {target.name}", target.parent):
        try:
            temporary.mkdir(parents=True)
            fill(temporary)
            files = sorted(path for path in temporary.rglob("*") if path.is_file())
            for path in files:
                sync_file(path)
            write_json(temporary / MANIFEST, {"files": _describe(temporary, files)})
            for folder in (temporary, *(path for path in temporary.rglob("*") if path.is_dir())):
                sync_folder(folder)
            os.rename(temporary, target)
            sync_folder(target.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def verify_folder(folder: Path) -> None:
    """Check every file of a committed folder against its manifest.

    Raises:
        CheckpointError: naming the first file that is missing, torn or changed.
    """
    try:
        files = read_json(folder / MANIFEST)["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError("its MANIFEST.json is missing or torn", where=str(folder)) from error
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{name} is missing", where=str(folder))
        if path.stat().st_size != expected["bytes"]:
            raise CheckpointError(
                f"{name} has {path.stat().st_size} bytes, not {expected['bytes']}",
                where=str(folder),
            )
        if sha256_of(path) != expected["sha256"]:
            raise CheckpointError(f"{name} is damaged (sha256 differs)", where=str(folder))


def remove_folder(folder: Path) -> None:
    """Delete a folder; it stops existing under its own name at once."""
    trash = folder.with_name(f"{TEMPORARY}trash-{folder.name}-{os.getpid()}")
    with contextlib.suppress(OSError):
        os.rename(folder, trash)
        shutil.rmtree(trash, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Delete what an interrupted write left behind in ``folder`` (its owner holds the lock)."""
    for path in folder.glob(f"{TEMPORARY}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def point(link: Path, target: Path) -> None:
    """Make ``link`` lead to ``target``, atomically; a copy where links are refused."""
    temporary = link.with_name(f"{TEMPORARY}{link.name}-{os.getpid()}")
    try:
        temporary.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)
        os.replace(temporary, link)
    except OSError:
        temporary.unlink(missing_ok=True)
        with disk_errors(f"copying {target.name} to {link.name}", link.parent):
            shutil.copytree(target, temporary)
            if link.exists():
                remove_folder(link)
            os.rename(temporary, link)
    sync_folder(link.parent)


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """A short stable name for a JSON-like value."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def _describe(root: Path, files: list[Path]) -> dict[str, dict[str, Any]]:
    return {
        path.relative_to(root).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": sha256_of(path),
        }
        for path in files
    }


# -- the cache --------------------------------------------------------------------------------


def cache_root() -> Path:
    """Where things that can be made again live: ``.yanmo`` here, or ``$YANMO_CACHE``."""
    return Path(os.environ.get("YANMO_CACHE") or ".yanmo")


def cached(station: str, key: str, fill: Callable[[Path], None]) -> Path:
    """The folder ``.yanmo/<station>/<key>``, made by ``fill`` unless it is there and whole."""
    folder = cache_root() / station / key
    if folder.exists():
        try:
            verify_folder(folder)
            return folder
        except CheckpointError:
            remove_folder(folder)
    try:
        commit_folder(folder, fill)
    except StorageError:
        if not folder.exists():  # else another process made the same folder first
            raise
    return folder


# -- the lock ---------------------------------------------------------------------------------


class RunLock:
    """Only one process at a time owns a run folder; the system frees the lock when it dies."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "run.lock"
        self._file: BinaryIO | None = None

    def __enter__(self) -> "RunLock":
        with disk_errors("making the run folder", self._path.parent):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "a+b")
        try:
            _lock(self._file)
        except OSError as error:
            self._file.seek(0)
            owner = self._file.read().decode("utf-8", "replace").strip() or "another process"
            self._file.close()
            raise BusyError(
                f"this run is being trained by {owner}",
                where=str(self._path.parent),
                mend="wait for it, stop it, or train into another folder with --out",
            ) from error
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()}".encode())
        self._file.flush()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._file is not None:
            self._file.close()


if os.name == "nt":  # pragma: no cover - Windows
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        file.seek(1 << 30)  # a byte far behind the text, which stays readable
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

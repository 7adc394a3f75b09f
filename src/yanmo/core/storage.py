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
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from yanmo.core.errors import BusyError, CheckpointError, StorageError

MANIFEST = "MANIFEST.json"
TEMPORARY = ".tmp-"
UNFINISHED = ".unfinished-"


# -- asking -----------------------------------------------------------------------------------


def is_there(path: Path | str) -> bool:
    """Whether something has this path. Where that cannot be asked, nothing has: a name too long for the
    disk, with a NUL, of half a character, or in a folder that may not be read (``Path.exists`` raises)."""
    return os.path.exists(path)


def is_file(path: Path | str) -> bool:
    """Whether ``path`` is a file; no wherever that cannot be asked, as :func:`is_there`."""
    return os.path.isfile(path)


def is_folder(path: Path | str) -> bool:
    """Whether ``path`` is a folder; no wherever that cannot be asked, as :func:`is_there`."""
    return os.path.isdir(path)


def free_bytes(path: Path) -> int | None:
    """Free space on the disk that holds ``path`` or its nearest existing parent; None: unknown."""
    while not is_there(path) and path != path.parent:
        path = path.parent
    try:
        return shutil.disk_usage(path).free
    except (OSError, ValueError):
        return None


# -- writing ----------------------------------------------------------------------------------


@contextlib.contextmanager
def disk_errors(doing: str, where: Path) -> Iterator[None]:
    """Turn an operating-system error into a :class:`StorageError` that says what it meant."""
    try:
        yield
    except OSError as error:
        free = free_bytes(where)
        raise StorageError(
            f"{doing} failed: {error.strerror or error}",
            where=f"{where}" + ("" if free is None else f" ({free >> 20} MB free)"),
            hint="check free space and permissions, or choose another folder (--out, or YANMO_CACHE"
            " for the cache); what was saved before is whole",
        ) from error


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


def refuse_link(path: Path) -> None:
    """Raise :class:`StorageError` where a file that is written to is a link to another."""
    if path.is_symlink():
        raise StorageError(
            f"{path.name} is a link, and what it leads to would be written to",
            where=str(path),
            hint="delete the link, or put the file that it leads to in its place",
        )


def not_through_a_link(path: str, flags: int) -> int:
    """The ``opener`` of files that are written to: they are here, not where a link in their place leads.

    Raises:
        StorageError: there is such a link.
    """
    refuse_link(Path(path))
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def is_read_only(folder: Path) -> bool:
    """Whether a folder is there and nothing can be made in it."""
    return folder.is_dir() and not os.access(folder, os.W_OK)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write what becomes ``path`` at the end, all at once: readers see the old file or the new one.

    The file takes its name when its content is on the disk; after an error there is none.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}")
    with disk_errors(f"writing {path.name}", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_link(temporary)
        try:
            yield temporary
            sync_file(temporary)  # before the name: a crash never leaves a name without its content
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Replace ``path`` by ``data`` (text as UTF-8): readers see the old file or the new one.

    Of a path whose bytes are no UTF-8 Python keeps lone surrogates; they become ``\\udcd6``, which
    JSON reads back as it was.
    """
    if isinstance(data, str):
        data = data.encode("utf-8", "backslashreplace")
    with whole_file(path) as unfinished:
        unfinished.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` by ``value`` as readable JSON."""
    write_atomic(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        OSError, ValueError: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested without end") from error


# -- folders ----------------------------------------------------------------------------------


def commit_folder(target: Path, fill: Callable[[Path], None], unfinished: Path | None = None) -> None:
    """Make folder ``target`` by ``fill(temporary)``; it appears whole, with its manifest, or not at all.

    With ``unfinished`` the work is done in that folder, which stays where it was cut off: the next
    ``fill`` finds it there and may go on.
    """
    temporary = unfinished or target.with_name(f"{TEMPORARY}{target.name}-{os.getpid()}")
    with disk_errors(f"saving {target.name}", target.parent):
        try:
            if unfinished is None:
                remove_path(temporary)
            temporary.mkdir(parents=True, exist_ok=unfinished is not None)
            (temporary / MANIFEST).unlink(missing_ok=True)
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
            if unfinished is None:
                shutil.rmtree(temporary, ignore_errors=True)
            raise


def verify_folder(folder: Path, names: Collection[str] | None = None) -> None:
    """Check every file of a committed folder, or those of ``names``, against its manifest.

    Raises:
        CheckpointError: naming the first file that is missing, torn or changed.
    """
    hint = "restore the file from a copy, or delete the folder"
    if names is not None:
        hint = f"restore the file from a copy; changed on purpose: delete {MANIFEST}, or --no-verify"
    expected = _manifest_of(folder, hint)
    for name in expected if names is None else names:
        if name not in expected:
            raise CheckpointError(f"{name} is not in its {MANIFEST}", str(folder), hint)
        _verify_file(folder, name, *expected[name], hint)


def _verify_file(folder: Path, name: str, size: int, digest: str, hint: str) -> None:
    path = folder / name
    if not path.is_file():
        raise CheckpointError(f"{name} is missing", str(folder), hint)
    if path.stat().st_size != size:
        raise CheckpointError(f"{name} has {path.stat().st_size} bytes, not {size}", str(folder), hint)
    if sha256_of(path) != digest:
        raise CheckpointError(f"{name} is damaged (sha256 differs)", str(folder), hint)


def _manifest_of(folder: Path, hint: str) -> dict[str, tuple[int, str]]:
    try:
        files = read_json(folder / MANIFEST)["files"]
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in files.items()}
        if not expected:
            raise ValueError("it lists nothing")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"its {MANIFEST} is missing or torn", str(folder), hint) from error
    return expected


def remove_folder(folder: Path) -> None:
    """Delete a folder; it stops existing under its own name at once."""
    trash = folder.with_name(f"{TEMPORARY}trash-{folder.name}-{os.getpid()}")
    remove_path(trash)
    with contextlib.suppress(OSError):
        os.rename(folder, trash)
        remove_path(trash)


def remove_path(path: Path) -> None:
    """Delete a file, a link (not what it leads to) or a folder, if it is there."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    elif path.exists():
        shutil.rmtree(path, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Delete what an interrupted write left behind in ``folder`` (its owner holds the lock)."""
    for path in folder.glob(f"{TEMPORARY}*"):
        remove_path(path)


def point(link: Path, target: Path) -> None:
    """Make ``link`` lead to ``target``, atomically; a copy where links are refused."""
    if link.is_symlink() and link.exists() and link.samefile(target):
        return
    temporary = link.with_name(f"{TEMPORARY}{link.name}-{os.getpid()}")
    with disk_errors(f"making {link.name}", link.parent):
        link.parent.mkdir(exist_ok=True)
        remove_path(temporary)
    try:
        temporary.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)
        os.replace(temporary, link)
    except OSError:
        remove_path(temporary)
        with disk_errors(f"copying {target.name} to {link.name}", link.parent):
            shutil.copytree(target, temporary)
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
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]


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


def cached(station: str, key: str, fill: Callable[[Path], None], goes_on: bool = False) -> Path:
    """The folder ``.yanmo/<station>/<key>``, made by ``fill`` unless it is there and whole.

    With ``goes_on`` a ``fill`` that was cut off finds what it had done, in the same folder.
    """
    folder = cache_root() / station / key
    if folder.exists() and is_read_only(folder.parent):
        verify_folder(folder)
        return folder
    with file_lock(folder.parent / "lock", wait=True):  # two processes never make the same thing twice
        remove_leftovers(folder.parent)
        if folder.exists():
            try:
                verify_folder(folder)
                return folder
            except CheckpointError:
                remove_folder(folder)
        commit_folder(folder, fill, folder.with_name(f"{UNFINISHED}{key}") if goes_on else None)
    return folder


# -- the lock ---------------------------------------------------------------------------------


@contextlib.contextmanager
def file_lock(path: Path, wait: bool = False) -> Iterator[None]:
    """A file that one process at a time holds; the system frees it when that process dies.

    Raises:
        BusyError: another process holds it, and ``wait`` is False.
    """
    import filelock  # not above: --help needs no lock, and this would take it 25 ms

    pid = path.with_name(f".{path.name}.pid")  # beside it: on Windows nobody can read a file that is locked
    # Without preserve_lock_file Windows would delete what marks a run folder, and a disk without locks would
    # get one that outlives a killed process.
    lock = filelock.FileLock(path, timeout=-1 if wait else 0, preserve_lock_file=True)
    with disk_errors("locking the folder", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_link(path)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise _busy(path.parent, pid) from error
    try:
        with (
            disk_errors("locking the folder", path.parent),
            open(pid, "wb", opener=not_through_a_link) as file,
        ):
            file.write(str(os.getpid()).encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            pid.unlink()
        lock.release()


def _busy(folder: Path, pid: Path) -> BusyError:
    try:
        owner = f"process {int(pid.read_bytes())}"
    except (OSError, ValueError):  # it has the lock, and has not yet said who it is
        owner = "another process"
    return BusyError(
        f"the folder is in use by {owner}",
        where=str(folder),
        hint="wait for it, stop it, or train into another folder with --out",
    )

"""Where a command may write: never over what it reads, never over a file that yanmo did not make.

In: what somebody named with ``--out`` and its like, and what the command reads. Out: nothing, or a
:class:`ConfigError` before any work is done. One rule for every verb; ``--force`` replaces a file, but no
input and no folder.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from yanmo.core.errors import ConfigError
from yanmo.core.storage import disk_errors

MARK = "<!-- made by yanmo -->"
"""Stands at the beginning of pages and pictures."""
MARK_WITHIN_BYTES = 200


def require_file(
    out: Path,
    option: str,
    inputs: Iterable[Path] = (),
    is_ours: Callable[[Path], bool] = lambda path: False,
    force: bool = False,
) -> None:
    """Refuse to write the file ``out`` where that would destroy something.

    Args:
        out: the file to write.
        option: how it was named, such as ``--out``.
        inputs: what the command reads: files, and folders of which it reads all.
        is_ours: whether a file that is there is one that this command makes.
        force: whether somebody said that another's file may go.

    Raises:
        ConfigError: it is an input, lies in one, is a folder, or is there and not ours.
    """
    where = f"{option} {out}"
    with disk_errors("looking there", out.parent):
        if out.is_dir():
            raise ConfigError("a folder is there, and a file is meant", where, "name a file")
        _require_room(out.parent, where)
        _require_no_input(out, where, inputs)
        is_free = force or not _is_taken(out) or is_ours(out)
    if not is_free:
        raise ConfigError(
            "it is there already, and no earlier result of this command",
            where,
            "name another file, or let --force replace it",
        )


def require_folder(out: Path, option: str, inputs: Iterable[Path] = ()) -> None:
    """Refuse a folder that cannot be one, or that the command reads.

    Raises:
        ConfigError: a file is there, or on the way to it; or it is an input, or lies in one.
    """
    where = f"{option} {out}"
    with disk_errors("looking there", out.parent):
        _require_room(out, where)
        _require_no_input(out, where, inputs)


def is_marked(path: Path) -> bool:
    """Whether a page or picture is one of ours."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return MARK.encode() in file.read(MARK_WITHIN_BYTES)


def _require_room(folder: Path, where: str) -> None:
    for part in (folder, *folder.parents):
        if _is_taken(part) and not part.is_dir():
            raise ConfigError(f"{part} is a file, and a folder is meant", where, "name another place")


def _require_no_input(out: Path, where: str, inputs: Iterable[Path]) -> None:
    place = out.resolve()
    for path in inputs:
        if place == path.resolve() or _is_same(out, path):
            raise ConfigError(
                "an input would be replaced by what is made of it", where, "choose another name"
            )
        if path.is_dir() and place.is_relative_to(path.resolve()):
            raise ConfigError(
                "the output would lie in the corpus, and be read the next time",
                where,
                "write it outside of that folder",
            )


def _is_same(one: Path, other: Path) -> bool:
    """Whether two names lead to one file, by links of either kind."""
    return one.exists() and other.exists() and one.samefile(other)


def _is_taken(path: Path) -> bool:
    """Whether something has this name: a file, a folder, or a link, wherever it leads."""
    return path.exists() or path.is_symlink()

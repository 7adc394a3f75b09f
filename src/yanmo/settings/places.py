"""Places of runs: what a run is called, and paths in its recipe, found from where it was started.

In: the values of a recipe and its own path. Out: the same values, with paths that lead from here.
"""

import glob
import os
import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

from yanmo.core.storage import is_folder, is_there

PATHS = ("corpus.path", "tokenizer.path", "data.held_out", "model.init")
"""Settings that name files."""
REFUSED = re.compile(r'[<>:"/\\|?*\[\]\x00-\x1f\x7f\ud800-\udfff]')
"""What a name has not on Windows, and what a shell takes for a pattern."""
DEVICES = re.compile("con|prn|aux|nul|com[0-9]|lpt[0-9]", re.IGNORECASE)
"""Names that are devices on Windows."""
MAX_NAME_CHARACTERS = 60
"""Characters: of three bytes each they leave room for the endings of temporary names."""


def run_name(text: str) -> str:
    """What a run on ``text`` is called: the file's stem, of a glob its folder, of `..` that folder's name."""
    path = Path(text.removeprefix("yanmo:"))
    if not is_there(path):
        path = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
    if path.name in ("", ".."):
        path = path.resolve()
    name = path.name if is_folder(path) else path.stem
    if not name.isascii() and any("\udc80" <= letter <= "\udcff" for letter in name):
        name = os.fsencode(name).decode("gb18030", "replace")  # the usual bytes that are no UTF-8
    name = REFUSED.sub("_", name)[:MAX_NAME_CHARACTERS].strip(" .")
    return f"{name}_" if DEVICES.fullmatch(name.partition(".")[0]) else name or "run"


def shipped(name: str) -> Path:
    """Where what comes with yanmo lies, `recipes` or `sites`: in the package, or at a clone's root."""
    package = Path(__file__).resolve().parents[1]
    installed = package / name
    return installed if installed.is_dir() else package.parents[1] / name


def started_in(folder: Path) -> tuple[str, ...]:
    """Where a run is started, as its folder sees it and in full: its paths are found from there."""
    here = Path.cwd()
    try:
        return Path(os.path.relpath(here, folder)).as_posix(), here.as_posix()
    except ValueError:  # Windows: another drive
        return (here.as_posix(),)


def located(values: dict[str, Any], source: Path) -> dict[str, Any]:
    """The values of a recipe, with relative paths made to lead where they led when the run was started.

    If both were moved, what is as far from the run as then is meant; if the run was, the place itself.
    """
    starts = [str(start) for start in values.get("started_in") or () if isinstance(start, str)]
    bases = [source.parent / start for start in starts] + [Path(), source.parent]
    for name in PATHS:
        section, _, key = name.partition(".")
        group = values.get(section)
        if not isinstance(group, dict):
            continue
        found = group.get(key)
        if isinstance(found, str):
            group[key] = _found(found, bases)
        elif isinstance(found, list):
            group[key] = [_found(path, bases) if isinstance(path, str) else path for path in found]
    return values


def _found(path: str, bases: list[Path]) -> str:
    """The path as seen from the first place that has it; if none has, from where the run was started."""
    if not path or path == "-" or path.startswith("yanmo:") or Path(path).is_absolute():
        return path
    base = next((base for base in bases if leads_somewhere(str(base / path))), (Path(), *bases[:-2])[-1])
    return path if base.resolve() == Path.cwd() else Path(os.path.normpath(base.resolve() / path)).as_posix()


def leads_somewhere(path: str) -> bool:
    """Whether a path is there, or a glob has matches."""
    return is_there(path) or (glob.has_magic(path) and next(iglob(path), "") != "")


def iglob(pattern: str) -> Iterator[str]:
    """What matches a pattern. Leading folders that are there are themselves: the `[1]` of `book[1]/*.txt`."""
    at, parts = plain_parts(pattern), Path(pattern).parts
    head = str(Path(*parts[:at]))
    if glob.has_magic(head):
        pattern = str(Path(glob.escape(head), *parts[at:]))
    return glob.iglob(pattern, recursive=True)  # noqa: PTH207  (Path.glob finds hidden files too)


def plain_parts(pattern: str) -> int:
    """How many parts of a pattern stand before the first that is one."""
    parts = Path(pattern).parts
    folders = (Path(*parts[: number + 1]) for number in range(len(parts)))
    found = (n for n, folder in enumerate(folders) if glob.has_magic(folder.name) and not is_folder(folder))
    return next(found, len(parts))


def has_moved(recorded: Any) -> bool:
    """Whether recorded paths lead nowhere any more."""
    paths = (recorded,) if isinstance(recorded, str) else recorded or ()
    return bool(paths) and not any(map(leads_somewhere, paths))


def same_place(ours: Any, theirs: Any) -> bool:
    """Whether paths lead to the same, or the recorded ones nowhere any more: then the content decides."""
    one, other = ((value,) if isinstance(value, str) else value or () for value in (ours, theirs))
    return has_moved(theirs) or [*map(os.path.realpath, one)] == [*map(os.path.realpath, other)]

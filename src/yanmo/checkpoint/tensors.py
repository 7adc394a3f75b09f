"""Tensors in safetensors files, one or several; headers are checked before files are opened.

A safetensors file is a JSON header and then raw numbers, so nothing in it can run; but a header may lie. It
is checked here before the library sees it: no name twice, no tensor that overlaps another one or is larger
than the file. This holds for every folder that yanmo opens, its own checkpoints included.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from yanmo.core.errors import CheckpointError

ONE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"
MOST_HEADER = 32 << 20
MOST_TENSORS = 200_000
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
}  # fmt: skip
MOST_DIMENSIONS, MOST_NUMBERS = 8, 1 << 48
AGAIN = "download the file again"


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file."""
    # save, not save_file: written by Python, a full disk is an OSError with its errno
    path.write_bytes(save({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, {"format": "pt"}))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one file, by name.

    Raises:
        CheckpointError: it is missing or damaged, or its header lies.
    """
    try:
        check_header(path)
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path.name} cannot be read: {error}", where=str(path.parent), hint=AGAIN
        ) from error


def load_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a Hugging Face folder, by Hugging Face's names.

    Raises:
        CheckpointError: a file is missing or damaged, or a tensor is given twice.
    """
    found: dict[str, Tensor] = {}
    for file in weight_files(folder):
        tensors = load_tensors(file)
        if twice := found.keys() & tensors.keys():
            raise CheckpointError(f"{min(twice)} occurs twice", where=str(file), hint=AGAIN)
        found |= tensors
    return found


def stored_dtype(folder: Path) -> torch.dtype:
    """What the largest tensor of a Hugging Face folder is stored in: float32, bfloat16 or float16.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    try:
        entries = [entry for file in weight_files(folder) for entry in check_header(file).values()]
    except OSError as error:
        raise CheckpointError(f"its weights cannot be read: {error}", str(folder), AGAIN) from error
    largest = max(entries, key=lambda entry: math.prod(entry["shape"]), default={"dtype": "F32"})
    return {"BF16": torch.bfloat16, "F16": torch.float16}.get(largest["dtype"], torch.float32)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: model.safetensors, or those that its index names.

    Raises:
        CheckpointError: the index is torn, or names a file elsewhere.
    """
    index = folder / INDEX
    if (folder / ONE_FILE).exists() or not index.exists():
        return [folder / ONE_FILE]
    try:
        names = sorted({*json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{INDEX} is damaged: {error!r}", where=str(folder), hint=AGAIN) from error
    for name in names:
        # a path such as ../../x would open files outside the folder
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{INDEX} names {name!r}, which is not a file in its folder", where=str(folder), hint=AGAIN
            )
    return [folder / name for name in names]


def check_header(path: Path) -> dict[str, Any]:
    """A file's header, checked before anything is allocated for it.

    Raises:
        CheckpointError: it is torn, or impossible.
        OSError: the file cannot be read.
    """

    def refuse(what: str) -> CheckpointError:
        return CheckpointError(f"{path.name}: {what}", where=str(path.parent), hint=AGAIN)

    size = path.stat().st_size
    with open(path, "rb") as file:
        # 8 bytes: the header's length; the header: JSON; then the tensors
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MOST_HEADER):
            raise refuse(f"its header of {length:,} bytes does not fit a file of {size:,}")
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_without_twins)
        entries = {name: _extent(entry) for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise refuse(f"its header is damaged: {error}") from error
    if len(entries) > MOST_TENSORS:
        raise refuse(f"{len(entries):,} tensors are more than any model has")
    place = 0
    # in order of offset, each must begin where the one before ends: no overlap, no gap, none outside
    for name, (start, end) in sorted(entries.items(), key=lambda entry: entry[1]):
        if start != place:
            raise refuse(f"{name} begins at byte {start:,}, but the tensor before it ends at {place:,}")
        place = end
    if place != size - 8 - length:
        raise refuse(f"its tensors need {place:,} bytes, but the file has {size - 8 - length:,}")
    return {name: header[name] for name in entries}


def _extent(entry: dict[str, Any]) -> tuple[int, int]:
    """The first byte and the end of a tensor; ValueError if its shape needs another size."""
    shape, (start, end) = entry["shape"], entry["data_offsets"]
    if len(shape) > MOST_DIMENSIONS or any(
        type(number) is not int or not 0 <= number < MOST_NUMBERS for number in (*shape, start, end)
    ):
        raise ValueError(f"a tensor of {str(shape)[:80]} at {str(start)[:20]} to {str(end)[:20]}")
    if end - start != math.prod(shape) * BITS[entry["dtype"]] // 8:
        raise ValueError(f"{entry['dtype']} of shape {shape} does not have {end - start:,} bytes")
    return start, end


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # json keeps the last of equal names, other readers the first: two tools would load two models
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found

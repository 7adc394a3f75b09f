"""Pickles of other tools: opened in a process of their own, which can build tensors and little else.

A pickle is a program. torch's restricted reader (``weights_only``) runs no harmful instruction, in versions
where its known holes are closed. Here it runs in a child with limits on memory and time, and with an audit
hook that ends it when it tries to start a process, to connect or to compile anything. The child returns a
safetensors file and plain JSON, both checked like any foreign file.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from yanmo.checkpoint.tensors import load_tensors
from yanmo.core.errors import CheckpointError
from yanmo.core.storage import read_json

TIMEOUT_SECONDS = 600
SPARE = 1 << 30
"""Bytes a child may use beyond three times its file: one reading, one copy, one to write."""
MENDED = (2, 10)
"""From this version of torch on, weights_only has no known hole (CVE-2025-32434, CVE-2026-24747)."""


@dataclass(frozen=True)
class Pickled:
    """What a pickle held: the tensors of its model by name, and everything plain."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]


def open_pickle(path: Path, seconds: float = TIMEOUT_SECONDS, spare: int = SPARE) -> Pickled:
    """The model in what ``torch.save`` wrote.

    Raises:
        CheckpointError: it holds more than tensors and plain values, is damaged, or asks for too much.
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < MENDED:
        raise CheckpointError(
            f"torch {torch.__version__} has known security holes in opening pickles",
            where=str(path),
            hint=f"install torch {MENDED[0]}.{MENDED[1]} or newer, or give a safetensors file",
        )
    # read, copied, written: three times the weights at most
    memory = 3 * path.stat().st_size + spare
    with TemporaryDirectory(prefix="yanmo-import-") as folder:
        # -P: the current folder is not on the import path, so no file beside the pickle can pose as a module
        child_of = [sys.executable, "-X", "utf8", "-P", "-m", "yanmo.hub.imports.pickle_child"]
        try:
            child = subprocess.run(
                [*child_of, str(path), folder, str(memory)],
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise _refused(path, f"reading it took more than {seconds:g} s") from error
        if child.returncode:
            # its last line is why; a child that was killed says nothing
            said = child.stderr.strip().splitlines() or [f"its reader ended with {child.returncode}"]
            raise _refused(path, said[-1][:300])
        return Pickled(
            load_tensors(Path(folder) / "tensors.safetensors"), read_json(Path(folder) / "values.json")
        )


def _refused(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path.name} cannot be read: {what}",
        where=str(path),
        hint="it was not executed; save only the model's state_dict(), if possible as safetensors",
    )

"""The process that opens a pickle: ``python -m yanmo.hub.imports.pickle_child FILE FOLDER BYTES``.

It writes ``tensors.safetensors`` and ``values.json`` into FOLDER, or ends with one line that says why not.
"""

import io
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from yanmo.checkpoint.tensors import save_tensors

MODELS = ("model", "state_dict", "model_state_dict", "module")
"""Where training scripts keep the model's tensors in what they save."""
FORBIDDEN = (
    "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "os.remove", "os.rename", "os.putenv",
    "subprocess.", "socket.", "ctypes.", "shutil.", "exec", "compile", "urllib.", "webbrowser.", "pty.",
)  # fmt: skip
MAX_DEPTH = 20
ZIP = b"PK\x03\x04"
UNPACKED_RATIO, UNPACKED_BYTES = 2, 64 << 20
"""A checkpoint may unpack to this multiple of its size, plus these bytes: torch.save compresses nothing."""


def main() -> None:
    """Read the pickle, and write what is plain."""
    source, folder, memory = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    tensors: dict[str, Tensor] = {}
    try:
        # in this order: limits, then whatever imports code, then the hook, and only then a byte of the pickle
        limit_memory(memory)
        # before torch touches it
        refuse_bomb(source)
        load_something()
        # it cannot be taken off again: from here on nothing starts, connects or compiles
        sys.addaudithook(refuse)
        found = torch.load(source, map_location="cpu", weights_only=True)
        model = find_model(found)
        # a copy of each: safetensors takes no tensors that share memory, as a tied head does
        tensors = {str(name): tensor.contiguous().clone() for name, tensor in model.items()}
        save_tensors(folder / "tensors.safetensors", tensors)
        values = plain(found, 0) if model is not found else {}
        (folder / "values.json").write_text(json.dumps(values), encoding="utf-8")
    except MemoryError:
        raise SystemExit(f"it asks for more than {memory >> 20} MB") from None
    except Exception as error:  # whatever a hostile file makes torch raise
        wants_memory = "allocate memory" in str(error)
        reason = f"it asks for more than {memory >> 20} MB" if wants_memory else said(error)
        raise SystemExit(reason or type(error).__name__) from None


def refuse_bomb(source: Path) -> None:
    """Add up what is in a zip: torch reads as much of each member as the zip says that it holds.

    Raises:
        ValueError: it is far more than the file.
        zipfile.BadZipFile: its list of members is damaged.
    """
    with open(source, "rb") as file:
        if file.read(len(ZIP)) != ZIP:
            return
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > UNPACKED_RATIO * source.stat().st_size + UNPACKED_BYTES:
        raise ValueError(f"{source.stat().st_size:,} bytes unpack to {unpacked:,}, too many for weights")


def load_something() -> None:
    """Let torch load what it needs to load and to save, before the wire is drawn: that is code, too."""
    # both forms of file, read and written: each loads modules of its own
    for as_zip in (True, False):
        file = io.BytesIO()
        torch.save({"w": torch.zeros(1)}, file, _use_new_zipfile_serialization=as_zip)
        file.seek(0)
        save({"w": torch.load(file, map_location="cpu", weights_only=True)["w"].contiguous().clone()})


def said(error: Exception) -> str:
    """torch's message without colours and without its advice to open the file unrestricted."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    for introduction in ("from a trusted source.", "WeightsUnpickler error:"):
        text = text.rpartition(introduction)[2]
    for advice in ("Please use", "Please file", "Check the documentation"):
        text = text.partition(advice)[0]
    return "".join(c for c in " ".join(text.split())[:300] if c.isprintable())


def limit_memory(more: int) -> None:
    """Let this process take ``more`` bytes beyond what it has; systems without such limits go on."""
    try:
        import resource
    except ImportError:  # pragma: no cover - Windows
        return
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:  # pragma: no cover - macOS
        return
    # of address space, what is mapped included: torch alone has some GB of it
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more,) * 2)


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """The audit hook: ends the process at events that reading tensors never causes."""
    if event.startswith(FORBIDDEN):
        raise RuntimeError(f"reading it tried {event}")


def find_model(found: Any) -> dict[str, Tensor]:
    """The dictionary of tensors in what was saved.

    Raises:
        ValueError: there is none.
    """
    inner = [found.get(name) for name in MODELS] if isinstance(found, dict) else []
    # what scripts wrap their model in comes first; a bare state_dict is the thing itself
    for candidate in (*inner, found):
        if isinstance(candidate, dict) and candidate and all(map(_is_dense, candidate.values())):
            return candidate
    raise ValueError("it contains no dictionary of tensors")


def _is_dense(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized


def plain(value: Any, depth: int) -> Any:
    """What JSON can hold of a value; the rest is left out."""
    if depth > MAX_DEPTH:
        return None
    if isinstance(value, dict):
        kept = {str(k): plain(v, depth + 1) for k, v in value.items() if k not in ("optimizer", *MODELS)}
        return {k: v for k, v in kept.items() if v is not None}
    if isinstance(value, list | tuple):
        return [plain(v, depth + 1) for v in value]
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value)
    return value if isinstance(value, str | int | float) else None


if __name__ == "__main__":
    main()

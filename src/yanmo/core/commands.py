"""Commands that are printed so that they can be pasted: paths as seen from here, quoted for this shell.

In: words, or the extra that is missing. Out: a line.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path


def install_command(extra: str) -> str:
    """How an extra gets into the environment that yanmo runs in, however yanmo itself came there."""
    # pip takes the yanmo that is installed and fetches only what the extra adds: no index has to know yanmo
    return f'{as_command([short_path(sys.executable), "-m", "pip", "install"])} "yanmo[{extra}]"'


def command_name() -> list[str]:
    """How yanmo was called, so that printed commands can be pasted."""
    called = Path(sys.argv[0])
    if called.name != "yanmo":
        return [short_path(sys.executable), "-m", "yanmo"]
    on_path = any(Path(p) == called.parent for p in os.environ.get("PATH", "").split(os.pathsep))
    return ["yanmo"] if on_path else [short_path(str(called))]


def short_path(path: str) -> str:
    """A path as seen from here, where that is possible and shorter."""
    try:
        return min(os.path.relpath(path), path, key=len)
    except ValueError:  # another drive
        return path


def as_command(words: list[str]) -> str:
    """Words as they are typed in this system's shell."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)

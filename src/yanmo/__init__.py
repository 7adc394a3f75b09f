"""yanmo 研墨: from raw Chinese text to a GPT that writes.

    import yanmo

    yanmo.train_run("novel.txt", "train.minutes=10", out="runs/novel")
    writer = yanmo.load("runs/novel")
    print(writer.write("江湖", seed=1, max_new_tokens=100))

Names are looked up when they are used, so that importing yanmo loads neither torch nor anything else.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from yanmo.core.errors import YanmoError as YanmoError
    from yanmo.eval.assess import Assessment as Assessment
    from yanmo.eval.assess import evaluate as evaluate
    from yanmo.generate.writer import Writer as Writer
    from yanmo.generate.writer import load as load
    from yanmo.text.read.documents import Document as Document
    from yanmo.text.read.documents import read as read
    from yanmo.train.request import train_run as train_run
    from yanmo.train.trainer import TrainResult as TrainResult

_ROOMS = {
    "Assessment": "yanmo.eval.assess",
    "Document": "yanmo.text.read.documents",
    "TrainResult": "yanmo.train.trainer",
    "Writer": "yanmo.generate.writer",
    "YanmoError": "yanmo.core.errors",
    "evaluate": "yanmo.eval.assess",
    "load": "yanmo.generate.writer",
    "read": "yanmo.text.read.documents",
    "train_run": "yanmo.train.request",
}
__all__ = list(_ROOMS)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return getattr(importlib.import_module(_ROOMS[name]), name)
    raise AttributeError(f"module 'yanmo' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})

"""What was called otherwise in earlier versions: a run that was begun then is read as one of now.

In: names or values of a run's own records. Out: the same by the names of today. What a person types is never
translated in silence: an old name on the command line is answered with the new one.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")

SETTINGS = {"train.short_windows": "train.seq_len_warmup"}
PARAMETERS = {"logits.weight": "lm_head.weight"}


def renamed_settings(values: Mapping[str, T]) -> dict[str, T]:
    """Values by ``section.key``, as a checkpoint records them."""
    return {SETTINGS.get(name, name): value for name, value in values.items()}


def renamed_parameters(tensors: Mapping[str, T]) -> dict[str, T]:
    """Tensors by ``parameter`` or ``parameter/kind``, as training state has them."""
    parts = {name: name.partition("/") for name in tensors}
    return {
        PARAMETERS.get(own, own) + slash + kind: tensors[name] for name, (own, slash, kind) in parts.items()
    }


def renamed_recipe(values: dict[str, Any]) -> dict[str, Any]:
    """A resolved recipe: what was decided, and its sections."""
    if not values.get("decided"):
        return values
    for old, new in SETTINGS.items():
        (section, _, old_key), new_key = old.partition("."), new.partition(".")[2]
        group = values.get(section)
        if isinstance(group, dict) and old_key in group:
            group[new_key] = group.pop(old_key)
    if isinstance(values["decided"], list):
        values["decided"] = [
            SETTINGS.get(name, name) if isinstance(name, str) else name for name in values["decided"]
        ]
    return values

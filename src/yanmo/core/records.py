"""What yanmo wrote down and reads again: JSON of a known shape, or an error that names the file.

In: a JSON file, and a pydantic model of what it must hold. Out: the model, checked: no other kind of JSON,
no key missing or of another type, no NaN, no nesting that has no end. A *sealed* record holds a fingerprint
of the rest, so that a changed digit is seen, too.
"""

import json
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError

from yanmo.core.errors import CheckpointError, YanmoError
from yanmo.core.storage import fingerprint

CHECK = "check"
"""The key of a seal."""


class TypedRecord(BaseModel):
    """A JSON object whose named keys are of their type; it may hold more, which newer versions write."""

    model_config = ConfigDict(
        strict=True, extra="allow", frozen=True, allow_inf_nan=False, protected_namespaces=()
    )


R = TypeVar("R", bound=TypedRecord)


class SplitCounts(TypedRecord):
    """A side of a split, as a manifest of shards has it."""

    files: list[str]
    documents: NonNegativeInt
    tokens: NonNegativeInt
    characters: NonNegativeInt
    targets: NonNegativeInt | None = None
    """Tokens that are learned, where not all are; ``characters`` are then theirs."""

    @property
    def characters_per_token(self) -> float:
        """Bits per character = nats per token / ln 2 / characters per token."""
        return max(self.characters, 1) / (self.tokens if self.targets is None else self.targets)


class Splits(TypedRecord):
    """Both sides."""

    train: SplitCounts
    val: SplitCounts

    @property
    def characters(self) -> int:
        """Of both."""
        return self.train.characters + self.val.characters

    @property
    def tokens(self) -> int:
        """Of both."""
        return self.train.tokens + self.val.tokens


class Counts(TypedRecord):
    """What became of the documents that were read."""

    documents_read: NonNegativeInt
    documents_dropped: dict[str, NonNegativeInt]


class Manifest(TypedRecord):
    """manifest.json of shards; corpus.json of a run is a copy of it."""

    dtype: str
    vocab_size: PositiveInt
    corpus: str
    tokenizer: str
    splits: Splits
    counts: Counts
    lost: dict[str, Any] | None = None
    """What the vocabulary could not say; None where nothing can be lost."""
    val_floor_bits: float | None = None
    init: str | None = None
    """Of a run: the sha256 of the weights it began from."""
    unseen: str | None = None
    """Of a run: the fingerprint of the texts it measures and never trains on."""

    def as_json(self) -> dict[str, Any]:
        """What stands in the file."""
        return self.model_dump(exclude_unset=True)


def read_record(path: Path, kind: type[R], error: type[YanmoError] = CheckpointError, hint: str = "") -> R:
    """The record in a file.

    Raises:
        error: the file is missing or is no such record; its name and the reason are said.
    """
    try:
        return parse_record(path.read_bytes(), kind)
    except (OSError, ValueError) as reason:
        raise error(
            f"{path.name} is missing or damaged: {_why(reason)}",
            where=str(path),
            hint=hint or "restore it from a copy, or delete its folder to begin again",
        ) from reason


def parse_record(text: bytes, kind: type[R]) -> R:
    """The record in some JSON.

    Raises:
        ValueError: it is no such record, or its seal is broken.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("it is nested without end") from error
    if isinstance(value, dict) and CHECK in value:
        rest = {key: part for key, part in value.items() if key != CHECK}
        if value[CHECK] != fingerprint(rest):
            raise ValueError("its check does not fit what it says")
    return kind.model_validate(value)


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """A record to be written, with its fingerprint."""
    return {**value, CHECK: fingerprint(value)}


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _why(reason: Exception) -> str:
    if isinstance(reason, ValidationError):
        first = reason.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg'][:1].lower()}{first['msg'][1:]}"
    return reason.strerror or str(reason) if isinstance(reason, OSError) else str(reason)

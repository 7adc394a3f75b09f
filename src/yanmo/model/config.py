"""The shape of a model: what [model] and a vocabulary say, with everything left open filled in.

Nothing here computes; ``gpt.py`` builds a model of this shape, ``checkpoint/hf_config.py`` writes it down.
"""

from dataclasses import dataclass
from typing import Any, Literal

from yanmo.model.families import FAMILIES, Family
from yanmo.settings.schema import OWN_KEYS, SHAPE_KEYS, USUAL_EXPERTS, FamilyName, ModelConfig

USUAL: dict[str, float | str] = {"gelu": "tanh", "rope_theta": 10_000.0, **USUAL_EXPERTS}
"""What keys are that only some families have."""
IGNORED = -1
"""A target that counts for nothing."""


@dataclass(frozen=True)
class GPTConfig:
    """A shape; its names are those of [model]. What is 0 is as usual in the family, and is filled in."""

    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    block_size: int
    dropout: float = 0.0
    family: FamilyName = "gpt2"
    n_kv_head: int = 0
    head_dim: int = 0
    n_inner: int = 0
    tied_head: bool = True
    rope_theta: float = 0.0
    gelu: Literal["", "tanh", "erf"] = ""
    n_expert: int = 0
    n_expert_active: int = 0
    n_expert_shared: int = 0
    expert_inner: int = 0
    expert_scaling: float = 0.0
    n_dense_layer: int = -1

    def __post_init__(self) -> None:
        self._fill("n_kv_head", self.n_head)
        self._fill("head_dim", self.n_embd // self.n_head)
        self._fill("n_inner", usual_inner(self.n_embd, gated=self.kind.mlp == "gated"))
        for name, usual in USUAL.items():
            if self.has(name):
                self._fill(name, usual)
        if self.has("expert_inner"):
            self._fill("expert_inner", rounded(self.n_inner / (self.n_expert_active + self.n_expert_shared)))
        if self.n_dense_layer < 0:
            object.__setattr__(self, "n_dense_layer", 1 if self.has("n_dense_layer") else self.n_layer)

    def _fill(self, name: str, usual: float | str) -> None:
        object.__setattr__(self, name, getattr(self, name) or usual)

    @classmethod
    def of(cls, model: ModelConfig, vocab_size: int) -> "GPTConfig":
        """From the settings of a recipe and the vocabulary of its tokenizer."""
        given = {name: getattr(model, name) for name in (*SHAPE_KEYS, "dropout")}
        return cls(vocab_size, **{name: value for name, value in given.items() if value is not None})

    def settings(self) -> dict[str, Any]:
        """The shape as keys of [model]; None where the family has no such thing."""
        return {name: getattr(self, name) if self.has(name) else None for name in SHAPE_KEYS}

    @property
    def kind(self) -> Family:
        """What the family is built of, and its names elsewhere."""
        return FAMILIES[self.family]

    def has(self, key: str) -> bool:
        """Whether a key of [model] means something in this family."""
        return self.family in OWN_KEYS.get(key, (self.family,))

    @property
    def cached_values(self) -> int:
        """Keys and values that are kept of one token, to write."""
        return 2 * self.n_layer * self.n_kv_head * self.head_dim

    def has_experts(self, layer: int) -> bool:
        """Whether a layer has experts; the first ones may have one MLP instead."""
        return self.has("n_expert") and layer >= self.n_dense_layer


def usual_inner(width: int, gated: bool) -> int:
    """GPT-2's four times the width; of a gated MLP, which has a third matrix, two thirds of that.

    Shazeer 2020, "GLU Variants Improve Transformer".
    """
    return rounded(8 * width / 3) if gated else 4 * width


def rounded(width: float) -> int:
    """Up to a multiple of 32, which matrix units like."""
    return -(-int(width) // 32) * 32

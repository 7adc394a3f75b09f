"""transformers' model in the shape of one of ours: the other side of several benchmarks."""

from typing import Any

from yanmo.checkpoint.hf_config import to_config_json
from yanmo.model.config import GPTConfig


def transformers_twin(config: GPTConfig, **more: Any) -> Any:
    """The same architecture with fresh weights; ``more`` goes to its config."""
    from transformers import AutoConfig, AutoModelForCausalLM

    values = to_config_json(config, 0) | {"use_cache": False} | more
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(**values))

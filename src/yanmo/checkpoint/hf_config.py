"""The shape of a model ↔ the config.json of its Hugging Face architecture.

Every key that has a say is written, those too whose default is right today: other tools have other
defaults. What a config.json asks for and ours does not do is refused by name.
"""

from typing import Any

from yanmo.core.errors import CheckpointError
from yanmo.model.config import Family, GPTConfig
from yanmo.model.layers import RMSNorm

ARCHITECTURES: dict[Family, tuple[str, str]] = {
    "gpt2": ("GPT2LMHeadModel", "gpt2"),
    "modern": ("Qwen3ForCausalLM", "qwen3"),
    "moe": ("Dots1ForCausalLM", "dots1"),
}
"""Class and model_type."""

_ROTARY: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "rms_norm_eps": (RMSNorm.EPSILON,),
    "attention_bias": (False,),
    "rope_scaling": (None,),
    "rope_type": ("default",),
    "sliding layers": (False,),
}
COMPUTED: dict[Family, dict[str, tuple[Any, ...]]] = {
    "gpt2": {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh", "gelu"),
        "layer_norm_epsilon": (1e-5,),
        "tie_word_embeddings": (True,),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    },
    "modern": _ROTARY | {"use_sliding_window": (False,)},
    "moe": _ROTARY
    | {"norm_topk_prob": (True,), "n_group": (1,), "topk_group": (1,), "enough experts": (True,)},
}
"""What ours computes: keys, and the values that mean it; a key that is missing has the first, but for those
that ``refuse_differences`` works out."""


_ROTARY_SIZES = {
    "num_hidden_layers": 1_000,
    "num_attention_heads": 4_096,
    "num_key_value_heads": 4_096,
    "head_dim": 4_096,
    "hidden_size": 1 << 17,
    "intermediate_size": 1 << 20,
    "max_position_embeddings": 1 << 24,
}
MAX_SIZES: dict[Family, dict[str, int]] = {
    "gpt2": {
        "n_layer": 1_000,
        "n_head": 4_096,
        "n_embd": 1 << 17,
        "n_inner": 1 << 20,
        "n_positions": 1 << 24,
    },
    "modern": _ROTARY_SIZES,
    "moe": _ROTARY_SIZES
    | {
        "n_routed_experts": 4_096,
        "num_experts_per_tok": 4_096,
        "n_shared_experts": 4_096,
        "moe_intermediate_size": 1 << 20,
        "first_k_dense_replace": 1_000,
        "max_window_layers": 1_000,
    },
}
"""What no model exceeds: a config.json that does is a mistake, and would cost memory before it is found."""
MOST_TOKENS = 1 << 20
OPTIONAL = {"n_inner", "num_key_value_heads", "head_dim", "n_shared_experts", "max_window_layers"}
"""null means: as usual."""


def to_config_json(config: GPTConfig, end_of_text: int) -> dict[str, Any]:
    """config.json as transformers, llama.cpp and vLLM expect it."""
    architecture, model_type = ARCHITECTURES[config.family]
    common = {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": config.vocab_size,
        "initializer_range": 0.02,
        "tie_word_embeddings": config.tied_head,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "dtype": "float32",
    }
    if config.family == "gpt2":
        return common | _gpt2(config)
    return common | _modern(config) | (_experts(config) if config.family == "moe" else {})


def _gpt2(config: GPTConfig) -> dict[str, Any]:
    return {
        "activation_function": "gelu" if config.gelu == "erf" else "gelu_new",
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "n_inner": None if config.n_inner == 4 * config.n_embd else config.n_inner,
        "n_positions": config.block_size,
        "n_ctx": config.block_size,  # llama.cpp reads it
        "attn_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "layer_norm_epsilon": 1e-05,
    }


def _modern(config: GPTConfig) -> dict[str, Any]:
    return {
        "hidden_act": "silu",
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_kv_head,
        "head_dim": config.head_dim,
        "hidden_size": config.n_embd,
        "intermediate_size": config.n_inner,
        "max_position_embeddings": config.block_size,
        "rope_theta": config.rope_theta,  # where transformers before 5, llama.cpp and vLLM look
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rms_norm_eps": RMSNorm.EPSILON,
        "attention_bias": False,
        "attention_dropout": config.dropout,
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": config.n_layer,
        "use_cache": True,
    }


def _experts(config: GPTConfig) -> dict[str, Any]:
    return {
        "n_routed_experts": config.n_expert,
        "num_experts_per_tok": config.n_expert_active,
        "n_shared_experts": config.n_expert_shared,
        "moe_intermediate_size": config.expert_inner,
        "first_k_dense_replace": config.n_dense_layer,
        "routed_scaling_factor": config.expert_scaling,
        "norm_topk_prob": True,
        "scoring_func": "noaux_tc",  # so llama.cpp's converter and vLLM call sigmoid scores with a bias
        "topk_method": "noaux_tc",
        "moe_layer_freq": 1,
        "n_group": 1,
        "topk_group": 1,
    }


def from_config_json(values: dict[str, Any], where: str) -> GPTConfig:
    """The shape in a config.json.

    Raises:
        CheckpointError: another architecture, or one of ours with a part that ours does not have.
    """
    families = {model_type: family for family, (_, model_type) in ARCHITECTURES.items()}
    family = families.get(str(values.get("model_type", "gpt2")))
    if family is None:
        raise CheckpointError(
            f"config.json has model_type={values['model_type']!r}; yanmo knows {', '.join(families)}",
            where=where,
            hint="give a folder of one of these",
        )
    if values.get("quantization_config"):
        raise CheckpointError(
            "config.json has a quantization_config: its weights are rounded in a way yanmo does not read",
            where=where,
            hint="give the model as it was before it was quantised",
        )
    check_sizes(family, values, where)
    refuse_differences(family, values, where)
    try:
        return from_gpt2(values) if family == "gpt2" else from_modern(family, values)
    except KeyError as error:
        raise CheckpointError(f"config.json lacks {error}", where=where) from error


def check_sizes(family: Family, values: dict[str, Any], where: str) -> None:
    """Sizes are whole numbers that a model can have, shares and scales are numbers.

    Raises:
        CheckpointError: one is not.
    """
    wrong = []
    for key, largest in (MAX_SIZES[family] | {"vocab_size": MOST_TOKENS}).items():
        value, least = values.get(key), 0 if key == "first_k_dense_replace" else 1
        is_open = key not in values or (value is None and key in OPTIONAL)
        if not is_open and not (type(value) is int and least <= value <= largest):
            wrong.append(key)
    rope = values.get("rope_parameters") or {}
    if not isinstance(rope, dict):
        wrong, rope = [*wrong, "rope_parameters"], {}
    numbers = {key: values.get(key) for key in ("resid_pdrop", "attention_dropout", "routed_scaling_factor")}
    numbers["rope_theta"] = rope.get("rope_theta", values.get("rope_theta"))
    wrong += [
        key
        for key, value in numbers.items()
        if value is not None and not (type(value) in (int, float) and 0 <= value < 1e12)
    ]
    if wrong:
        value = values.get(wrong[0], numbers.get(wrong[0]))
        raise CheckpointError(
            f"config.json has {wrong[0]}={value!r}, which no model has",
            where=where,
            hint="take the folder from its source again",
        )
    if (values.get("num_experts_per_tok") or 1) > (values.get("n_routed_experts") or 1 << 20):
        raise CheckpointError(
            f"config.json has num_experts_per_tok={values['num_experts_per_tok']} of"
            f" n_routed_experts={values['n_routed_experts']}",
            where=where,
            hint="take the folder from its source again",
        )
    heads = "n_head" if family == "gpt2" else "num_attention_heads"
    width = "n_embd" if family == "gpt2" else "hidden_size"
    whole, shared = values.get(heads) or 1, values.get("num_key_value_heads") or 1
    if whole % shared or (family != "modern" and not values.get("head_dim") and values.get(width, 0) % whole):
        raise CheckpointError(
            f"config.json has {heads}={whole}, which does not divide {width}={values.get(width)} or is not"
            f" shared out evenly among num_key_value_heads={shared}",
            where=where,
            hint="take the folder from its source again",
        )


def refuse_differences(family: Family, values: dict[str, Any], where: str) -> None:
    """Only what ours computes in the same way is opened.

    Raises:
        CheckpointError: a key asks for something else.
    """
    rope = values.get("rope_parameters") or {}
    asked = {
        "rope_type": rope.get("rope_type", "default"),
        "sliding layers": has_sliding_layers(family, values),
    }
    if family == "moe":
        asked |= {"norm_topk_prob": False, "enough experts": values.get("n_routed_experts", 2) >= 2}
    asked |= values
    for key, allowed in COMPUTED[family].items():
        value = asked.get(key, allowed[0])
        if value not in allowed:
            raise CheckpointError(
                f"config.json has {key}={value!r}; yanmo's {family} has {allowed[0]!r}",
                where=where,
                hint="give a folder without that",
            )


def has_sliding_layers(family: Family, values: dict[str, Any]) -> bool:
    """Whether a layer looks at the last tokens only; Dots1Config says so without naming layers, too."""
    if values.get("layer_types") or family != "moe" or values.get("sliding_window", 4096) is None:
        return "sliding_attention" in str(values.get("layer_types"))
    return bool((values.get("max_window_layers") or 62) < values.get("num_hidden_layers", 62))


def from_gpt2(values: dict[str, Any]) -> GPTConfig:
    """A GPT-2's shape; KeyError where a key is missing."""
    return GPTConfig(
        vocab_size=values["vocab_size"],
        n_layer=values["n_layer"],
        n_head=values["n_head"],
        n_embd=values["n_embd"],
        block_size=values["n_positions"],
        dropout=values.get("resid_pdrop", 0.1),
        n_inner=values.get("n_inner") or 0,
        gelu="erf" if values.get("activation_function") == "gelu" else "tanh",
    )


def from_modern(family: Family, values: dict[str, Any]) -> GPTConfig:
    """A Qwen3's or Dots1's shape; KeyError where a key is missing."""
    rope = values.get("rope_parameters") or {}
    experts = {
        "n_expert": "n_routed_experts",
        "n_expert_active": "num_experts_per_tok",
        "n_expert_shared": "n_shared_experts",
        "expert_inner": "moe_intermediate_size",
    }
    config = {ours: values[theirs] for ours, theirs in experts.items()} if family == "moe" else {}
    if family == "moe":
        config["expert_scaling"] = values.get("routed_scaling_factor", 1.0)
        config["n_dense_layer"] = values.get("first_k_dense_replace", 0)
    return GPTConfig(
        vocab_size=values["vocab_size"],
        n_layer=values["num_hidden_layers"],
        n_head=values["num_attention_heads"],
        n_embd=values["hidden_size"],
        block_size=values["max_position_embeddings"],
        dropout=values.get("attention_dropout", 0.0),
        family=family,
        n_kv_head=values.get("num_key_value_heads", 32) or 0,  # both classes' default; None is all heads
        head_dim=values.get("head_dim") or (128 if family == "modern" else 0),  # Qwen3Config's default
        n_inner=values["intermediate_size"],
        tied_head=values.get("tie_word_embeddings", False),
        rope_theta=float(rope.get("rope_theta") or values.get("rope_theta") or 10_000.0),
        **config,
    )

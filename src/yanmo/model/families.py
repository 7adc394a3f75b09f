"""One record for each model family: what it is built of, and what others call its parts.

A family is a Hugging Face architecture, exactly. ``model/gpt.py`` builds what a record says, ``checkpoint/``
writes and reads its folder by it, ``hub/`` exports it. docs/architecture.md says how to add one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from yanmo.settings.schema import FamilyName

Layout = Literal["as it is", "transposed", "by expert"]
"""How a tensor of ours lies in a Hugging Face folder: ``transposed`` is its ``Conv1D``, (in, out) where
``nn.Linear`` has (out, in); ``by expert`` is one tensor there for each expert of ours."""
NameTable = tuple[tuple[str, str, Layout], ...]
"""Ours, Hugging Face's, and how theirs lies there; ``{}`` is a layer's number, ``{e}`` an expert's."""

NORM_EPSILON = 1e-6
"""What RMSNorm adds to the mean square."""


@dataclass(frozen=True)
class Family:
    """What a family is built of, and its names elsewhere."""

    title: str
    """What a reader knows it as."""

    positions: Literal["learned", "rotary"]
    norm: Literal["layer", "rms"]
    attention: Literal["full", "grouped"]
    """``full``: every head has keys of its own, with biases; ``grouped``: shared keys, normalised."""
    mlp: Literal["plain", "gated"]

    architecture: str
    """The class in transformers."""
    model_type: str
    """What config.json calls it."""
    names: NameTable
    """Parameters."""
    config_keys: Mapping[str, str]
    """Keys of the shape, ours → those of config.json."""
    same_keys: Mapping[str, str]
    """Further keys of config.json that have the value of one of ours."""
    defaults: Mapping[str, Any]
    """The class's value of a key of ours that a config.json may leave out."""
    constants: Mapping[str, tuple[Any, ...]]
    """Keys of config.json with the values that mean what ours computes. The first is written, and is what a
    missing key means; another value is refused by name."""
    also_written: Mapping[str, Any] = field(default_factory=dict)
    """Keys that others ask for and we do not."""

    gguf: str = ""
    """llama.cpp's name of the architecture."""
    gguf_shares_keys: bool = True
    """Whether llama.cpp lets several heads share keys and values."""
    stores_tied_head: bool = False
    """Whether a head that shares the embedding's weights is stored all the same: vLLM and llama.cpp tie none
    in some architectures."""
    in_transformers_js: bool = True


_GPT2_NAMES: NameTable = (
    ("tokens.weight", "transformer.wte.weight", "as it is"),
    ("positions.weight", "transformer.wpe.weight", "as it is"),
    ("norm.weight", "transformer.ln_f.weight", "as it is"),
    ("norm.bias", "transformer.ln_f.bias", "as it is"),
    ("blocks.{}.norm_1.weight", "transformer.h.{}.ln_1.weight", "as it is"),
    ("blocks.{}.norm_1.bias", "transformer.h.{}.ln_1.bias", "as it is"),
    ("blocks.{}.attention.qkv.weight", "transformer.h.{}.attn.c_attn.weight", "transposed"),
    ("blocks.{}.attention.qkv.bias", "transformer.h.{}.attn.c_attn.bias", "as it is"),
    ("blocks.{}.attention.out.weight", "transformer.h.{}.attn.c_proj.weight", "transposed"),
    ("blocks.{}.attention.out.bias", "transformer.h.{}.attn.c_proj.bias", "as it is"),
    ("blocks.{}.norm_2.weight", "transformer.h.{}.ln_2.weight", "as it is"),
    ("blocks.{}.norm_2.bias", "transformer.h.{}.ln_2.bias", "as it is"),
    ("blocks.{}.mlp.up.weight", "transformer.h.{}.mlp.c_fc.weight", "transposed"),
    ("blocks.{}.mlp.up.bias", "transformer.h.{}.mlp.c_fc.bias", "as it is"),
    ("blocks.{}.mlp.down.weight", "transformer.h.{}.mlp.c_proj.weight", "transposed"),
    ("blocks.{}.mlp.down.bias", "transformer.h.{}.mlp.c_proj.bias", "as it is"),
)
_LLAMA_NAMES: NameTable = (
    ("tokens.weight", "model.embed_tokens.weight", "as it is"),
    ("norm.weight", "model.norm.weight", "as it is"),
    ("lm_head.weight", "lm_head.weight", "as it is"),
    ("blocks.{}.norm_1.weight", "model.layers.{}.input_layernorm.weight", "as it is"),
    ("blocks.{}.attention.q.weight", "model.layers.{}.self_attn.q_proj.weight", "as it is"),
    ("blocks.{}.attention.k.weight", "model.layers.{}.self_attn.k_proj.weight", "as it is"),
    ("blocks.{}.attention.v.weight", "model.layers.{}.self_attn.v_proj.weight", "as it is"),
    ("blocks.{}.attention.out.weight", "model.layers.{}.self_attn.o_proj.weight", "as it is"),
    ("blocks.{}.attention.q_norm.weight", "model.layers.{}.self_attn.q_norm.weight", "as it is"),
    ("blocks.{}.attention.k_norm.weight", "model.layers.{}.self_attn.k_norm.weight", "as it is"),
    ("blocks.{}.norm_2.weight", "model.layers.{}.post_attention_layernorm.weight", "as it is"),
    ("blocks.{}.mlp.gate.weight", "model.layers.{}.mlp.gate_proj.weight", "as it is"),
    ("blocks.{}.mlp.up.weight", "model.layers.{}.mlp.up_proj.weight", "as it is"),
    ("blocks.{}.mlp.down.weight", "model.layers.{}.mlp.down_proj.weight", "as it is"),
)
"""The names that most families since Llama have."""
_EXPERT_NAMES: NameTable = (
    ("blocks.{}.mlp.router.weight", "model.layers.{}.mlp.gate.weight", "as it is"),
    ("blocks.{}.mlp.router.bias", "model.layers.{}.mlp.gate.e_score_correction_bias", "as it is"),
    ("blocks.{}.mlp.experts.gate", "model.layers.{}.mlp.experts.{e}.gate_proj.weight", "by expert"),
    ("blocks.{}.mlp.experts.up", "model.layers.{}.mlp.experts.{e}.up_proj.weight", "by expert"),
    ("blocks.{}.mlp.experts.down", "model.layers.{}.mlp.experts.{e}.down_proj.weight", "by expert"),
    ("blocks.{}.mlp.shared.gate.weight", "model.layers.{}.mlp.shared_experts.gate_proj.weight", "as it is"),
    ("blocks.{}.mlp.shared.up.weight", "model.layers.{}.mlp.shared_experts.up_proj.weight", "as it is"),
    ("blocks.{}.mlp.shared.down.weight", "model.layers.{}.mlp.shared_experts.down_proj.weight", "as it is"),
)

_LLAMA_KEYS = {
    "vocab_size": "vocab_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_kv_head": "num_key_value_heads",
    "head_dim": "head_dim",
    "n_embd": "hidden_size",
    "n_inner": "intermediate_size",
    "block_size": "max_position_embeddings",
    "dropout": "attention_dropout",
    "tied_head": "tie_word_embeddings",
    "rope_theta": "rope_theta",  # where transformers before 5, llama.cpp and vLLM look
}
_LLAMA_DEFAULTS = {
    "n_kv_head": 32,
    "head_dim": 128,
    "dropout": 0.0,
    "tied_head": False,
    "rope_theta": 10_000.0,
}
_LLAMA_CONSTANTS: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "rms_norm_eps": (NORM_EPSILON,),
    "attention_bias": (False,),
}
_LLAMA_WRITTEN = {"use_sliding_window": False, "sliding_window": None, "use_cache": True}

GPT2 = Family(
    title="GPT-2",
    positions="learned",
    norm="layer",
    attention="full",
    mlp="plain",
    architecture="GPT2LMHeadModel",
    model_type="gpt2",
    names=_GPT2_NAMES,
    config_keys={
        "vocab_size": "vocab_size",
        "n_layer": "n_layer",
        "n_head": "n_head",
        "n_embd": "n_embd",
        "n_inner": "n_inner",
        "block_size": "n_positions",
        "dropout": "resid_pdrop",
        "gelu": "activation_function",
    },
    same_keys={"n_ctx": "block_size", "attn_pdrop": "dropout", "embd_pdrop": "dropout"},  # llama.cpp: n_ctx
    defaults={"n_inner": None, "dropout": 0.1, "gelu": "gelu_new"},
    constants={
        "layer_norm_epsilon": (1e-5,),
        "tie_word_embeddings": (True,),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    },
    gguf="gpt2",
)
QWEN3 = Family(
    title="a Qwen3-shaped transformer (rotary positions, RMSNorm, gated MLP)",
    positions="rotary",
    norm="rms",
    attention="grouped",
    mlp="gated",
    architecture="Qwen3ForCausalLM",
    model_type="qwen3",
    names=_LLAMA_NAMES,
    config_keys=_LLAMA_KEYS,
    same_keys={"max_window_layers": "n_layer"},
    defaults=_LLAMA_DEFAULTS,
    constants=_LLAMA_CONSTANTS | {"use_sliding_window": (False,)},
    also_written=_LLAMA_WRITTEN,
    gguf="qwen3",
)
DOTS1 = Family(
    title="a Dots1-shaped transformer with experts",
    positions="rotary",
    norm="rms",
    attention="grouped",
    mlp="gated",
    architecture="Dots1ForCausalLM",
    model_type="dots1",
    names=(*_LLAMA_NAMES, *_EXPERT_NAMES),
    config_keys=_LLAMA_KEYS
    | {
        "n_expert": "n_routed_experts",
        "n_expert_active": "num_experts_per_tok",
        "n_expert_shared": "n_shared_experts",
        "expert_inner": "moe_intermediate_size",
        "n_dense_layer": "first_k_dense_replace",
        "expert_scaling": "routed_scaling_factor",
    },
    same_keys={"max_window_layers": "n_layer"},
    defaults=_LLAMA_DEFAULTS | {"head_dim": None, "n_dense_layer": 0, "expert_scaling": 1.0},
    constants=_LLAMA_CONSTANTS | {"norm_topk_prob": (True,), "n_group": (1,), "topk_group": (1,)},
    also_written=_LLAMA_WRITTEN
    | {
        "scoring_func": "noaux_tc",  # so llama.cpp's converter and vLLM call sigmoid scores with a bias
        "topk_method": "noaux_tc",
        "moe_layer_freq": 1,
    },
    gguf="dots1",
    gguf_shares_keys=False,
    stores_tied_head=True,
    in_transformers_js=False,
)

FAMILIES: Mapping[FamilyName, Family] = {"gpt2": GPT2, "modern": QWEN3, "moe": DOTS1}

"""Our parameter names ↔ Hugging Face's names and layouts: one table, used both ways.

``GPT2LMHeadModel`` stores its linear layers as ``Conv1D``, (in, out) where ``nn.Linear`` has (out, in);
so those matrices are transposed on the way. The head is tied to the embedding and not stored.
"""

import re
from typing import Any

from torch import Tensor

from yanmo.errors import CheckpointError
from yanmo.model.gpt import GPTConfig

# ours, Hugging Face's, transposed?
_GPT2 = (
    ("tokens.weight", "transformer.wte.weight", False),
    ("positions.weight", "transformer.wpe.weight", False),
    ("norm.weight", "transformer.ln_f.weight", False),
    ("norm.bias", "transformer.ln_f.bias", False),
    ("blocks.{}.norm_1.weight", "transformer.h.{}.ln_1.weight", False),
    ("blocks.{}.norm_1.bias", "transformer.h.{}.ln_1.bias", False),
    ("blocks.{}.attention.qkv.weight", "transformer.h.{}.attn.c_attn.weight", True),
    ("blocks.{}.attention.qkv.bias", "transformer.h.{}.attn.c_attn.bias", False),
    ("blocks.{}.attention.out.weight", "transformer.h.{}.attn.c_proj.weight", True),
    ("blocks.{}.attention.out.bias", "transformer.h.{}.attn.c_proj.bias", False),
    ("blocks.{}.norm_2.weight", "transformer.h.{}.ln_2.weight", False),
    ("blocks.{}.norm_2.bias", "transformer.h.{}.ln_2.bias", False),
    ("blocks.{}.mlp.up.weight", "transformer.h.{}.mlp.c_fc.weight", True),
    ("blocks.{}.mlp.up.bias", "transformer.h.{}.mlp.c_fc.bias", False),
    ("blocks.{}.mlp.down.weight", "transformer.h.{}.mlp.c_proj.weight", True),
    ("blocks.{}.mlp.down.bias", "transformer.h.{}.mlp.c_proj.bias", False),
)
_LAYER = re.compile(r"\.(\d+)\.")


def hugging_face_name(ours: str) -> tuple[str, bool]:
    """The Hugging Face name of one of our parameters, and whether it is transposed there."""
    layer = _LAYER.search(ours)
    pattern = _LAYER.sub(".{}.", ours)
    for name, theirs, transposed in _GPT2:
        if name == pattern:
            return theirs.format(layer[1] if layer else ""), transposed
    raise KeyError(ours)


def to_hugging_face(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by our names → by Hugging Face's, in its layout."""
    found = {}
    for ours, tensor in tensors.items():
        theirs, transposed = hugging_face_name(ours)
        found[theirs] = (tensor.t() if transposed else tensor).contiguous()
    return found


def from_hugging_face(tensors: dict[str, Tensor], ours: list[str], where: str) -> dict[str, Tensor]:
    """Tensors by Hugging Face's names → by ours, in our layout.

    Raises:
        CheckpointError: one of ours is missing.
    """
    found = {}
    for name in ours:
        theirs, transposed = hugging_face_name(name)
        tensor = tensors.get(theirs, tensors.get(theirs.removeprefix("transformer.")))  # GPT2Model has none
        if tensor is None:
            raise CheckpointError(f"the weights lack {theirs}", where=where, mend="is it a GPT-2?")
        found[name] = tensor.t().contiguous() if transposed else tensor
    return found


def to_config_json(config: GPTConfig, end_of_text: int) -> dict[str, Any]:
    """config.json as transformers, llama.cpp (which reads n_ctx) and vLLM expect it."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "vocab_size": config.vocab_size,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "n_inner": None,
        "n_positions": config.block_size,
        "n_ctx": config.block_size,
        "attn_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "layer_norm_epsilon": 1e-05,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "dtype": "float32",
    }


def from_config_json(values: dict[str, Any], where: str) -> GPTConfig:
    """The shape in a config.json.

    Raises:
        CheckpointError: another family, or a GPT-2 with a part ours does not have.
    """
    expected = {
        "model_type": ("gpt2",),
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "layer_norm_epsilon": (1e-5,),
        "n_inner": (None, 4 * values.get("n_embd", 0)),
        "tie_word_embeddings": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
    }
    for key, allowed in expected.items():
        value = values.get(key, allowed[0])
        if value not in allowed:
            raise CheckpointError(
                f"config.json has {key}={value!r}; yanmo's gpt2 has {allowed[0]!r}",
                where=where,
                mend="give a GPT-2 folder",
            )
    try:
        return GPTConfig(
            vocab_size=values["vocab_size"],
            n_layer=values["n_layer"],
            n_head=values["n_head"],
            n_embd=values["n_embd"],
            block_size=values["n_positions"],
            dropout=values.get("resid_pdrop", 0.1),
        )
    except KeyError as error:
        raise CheckpointError(f"config.json lacks {error}", where=where) from error

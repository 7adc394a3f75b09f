"""Our parameter names ↔ Hugging Face's names and layouts: one table for each family, used both ways.

``GPT2LMHeadModel`` stores its linear layers as ``Conv1D``, (in, out) where ``nn.Linear`` has (out, in);
so those matrices are transposed on the way. ``Dots1ForCausalLM`` stores every expert by itself; ours lie
behind each other in one tensor. A tied head is stored for ``moe`` only.
"""

import re
from typing import Literal

from torch import Tensor, stack

from yanmo.core.errors import CheckpointError
from yanmo.model.config import Family

Layout = Literal["as it is", "transposed", "by expert"]
Table = tuple[tuple[str, str, Layout], ...]
"""Ours, Hugging Face's, and how theirs lies there; ``{}`` is a layer's number, ``{e}`` an expert's."""

_GPT2: Table = (
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
_MODERN: Table = (
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
_MOE: Table = (
    *_MODERN,
    ("blocks.{}.mlp.router.weight", "model.layers.{}.mlp.gate.weight", "as it is"),
    ("blocks.{}.mlp.router.bias", "model.layers.{}.mlp.gate.e_score_correction_bias", "as it is"),
    ("blocks.{}.mlp.experts.gate", "model.layers.{}.mlp.experts.{e}.gate_proj.weight", "by expert"),
    ("blocks.{}.mlp.experts.up", "model.layers.{}.mlp.experts.{e}.up_proj.weight", "by expert"),
    ("blocks.{}.mlp.experts.down", "model.layers.{}.mlp.experts.{e}.down_proj.weight", "by expert"),
    ("blocks.{}.mlp.shared.gate.weight", "model.layers.{}.mlp.shared_experts.gate_proj.weight", "as it is"),
    ("blocks.{}.mlp.shared.up.weight", "model.layers.{}.mlp.shared_experts.up_proj.weight", "as it is"),
    ("blocks.{}.mlp.shared.down.weight", "model.layers.{}.mlp.shared_experts.down_proj.weight", "as it is"),
)
TABLES: dict[Family, Table] = {"gpt2": _GPT2, "modern": _MODERN, "moe": _MOE}
_LAYER = re.compile(r"\.(\d+)\.")


def hugging_face_name(family: Family, ours: str) -> tuple[str, Layout]:
    """Hugging Face's name of one of our parameters (``{e}`` for an expert's number), and its layout."""
    layer = _LAYER.search(ours)
    pattern = _LAYER.sub(".{}.", ours)
    for name, theirs, layout in TABLES[family]:
        if name == pattern:
            return theirs.replace("{}", layer[1] if layer else ""), layout
    raise KeyError(ours)


def to_hugging_face(family: Family, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by our names → by Hugging Face's, in its layout."""
    found: dict[str, Tensor] = {}
    for ours, tensor in tensors.items():
        theirs, layout = hugging_face_name(family, ours)
        if layout == "by expert":
            found |= {theirs.replace("{e}", str(e)): part.contiguous() for e, part in enumerate(tensor)}
        else:
            found[theirs] = (tensor.t() if layout == "transposed" else tensor).contiguous()
    if family == "moe" and "lm_head.weight" not in tensors:
        found["lm_head.weight"] = found["model.embed_tokens.weight"].clone()  # vLLM does not tie it
    return found


def from_hugging_face(
    family: Family, tensors: dict[str, Tensor], shapes: dict[str, tuple[int, ...]], where: str
) -> dict[str, Tensor]:
    """Tensors by Hugging Face's names → by ours, in our layout.

    Args:
        family: whose table.
        tensors: by Hugging Face's names.
        shapes: those of all our parameters, by our names.
        where: the folder, for the message.

    Raises:
        CheckpointError: one is missing, or has another shape.
    """

    def find(theirs: str) -> Tensor:
        bare = re.sub(r"^(transformer|model)\.", "", theirs)  # a model saved without its head has no prefix
        tensor = tensors.get(theirs, tensors.get(bare))
        if tensor is None:
            raise CheckpointError(f"the weights lack {theirs}", where=where, hint=f"is it a {family} model?")
        return tensor

    found = {}
    for name, shape in shapes.items():
        theirs, layout = hugging_face_name(family, name)
        if layout == "by expert":
            parts = [find(theirs.replace("{e}", str(e))) for e in range(shape[0])]
            odd = [part for part in parts if part.shape != parts[0].shape]
            tensor = odd[0] if odd else stack(parts)
        else:
            tensor = find(theirs)
            is_turned = layout == "transposed" and tensor.dim() == 2
            tensor = tensor.t().contiguous() if is_turned else tensor
        if tuple(tensor.shape) != tuple(shape):
            raise CheckpointError(
                f"{name} has shape {tuple(tensor.shape)}, config.json says {tuple(shape)}",
                where=where,
                hint="weights and config.json do not belong together",
            )
        found[name] = tensor
    return found

"""Our parameter names ↔ Hugging Face's names and layouts: by the table of a family, used both ways.

``GPT2LMHeadModel`` stores its linear layers as ``Conv1D``, (in, out) where ``nn.Linear`` has (out, in);
so those matrices are transposed on the way. ``Dots1ForCausalLM`` stores every expert by itself; ours are
stacked in one tensor.
"""

import re

from torch import Tensor, stack

from yanmo.core.errors import CheckpointError
from yanmo.model.families import Family, Layout

_LAYER = re.compile(r"\.(\d+)\.")


def hugging_face_name(family: Family, ours: str) -> tuple[str, Layout]:
    """Hugging Face's name of one of our parameters (``{e}`` for an expert's number), and its layout."""
    layer = _LAYER.search(ours)
    pattern = _LAYER.sub(".{}.", ours)
    for name, theirs, layout in family.names:
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
    # a tied head is one tensor here; safetensors refuses two names for one memory, so the copy is a clone
    if family.stores_tied_head and "lm_head.weight" not in tensors:
        found["lm_head.weight"] = found["model.embed_tokens.weight"].clone()
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
            hint = f"is it a {family.model_type} model?"
            raise CheckpointError(f"the weights lack {theirs}", where=where, hint=hint)
        return tensor

    found = {}
    for name, shape in shapes.items():
        theirs, layout = hugging_face_name(family, name)
        if layout == "by expert":
            parts = [find(theirs.replace("{e}", str(e))) for e in range(shape[0])]
            # stack would raise an error of torch; the comparison of shapes below names the odd one
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
                hint="the weights and config.json are from different models",
            )
        found[name] = tensor
    return found

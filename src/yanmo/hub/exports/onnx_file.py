"""A model as an ONNX graph with a cache of keys and values, for onnxruntime, browsers and phones.

Inputs and outputs are named as Hugging Face's tools name them, so that transformers.js and onnxruntime's
examples find them: ``input_ids`` (B, T), ``attention_mask`` (B, S + T), ``position_ids`` (B, T),
``past_key_values.N.key`` and ``.value`` (B, n_kv_head, S, D) go in; ``logits`` (B, T, V) and
``present.N.key`` and ``.value`` (B, n_kv_head, S + T, D) come out. B, T and S may be anything, S also 0.

The graph is the model's own modules, written without the parts that only training needs. Of ``moe`` every
expert sees every token, and what the router did not choose is multiplied by zero: a graph has no branches,
so such a model computes as much as one without a router.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from yanmo.model.gpt import GPT, Attention
from yanmo.model.layers import RMSNorm
from yanmo.model.moe import MixtureOfExperts
from yanmo.model.rotary import Rotation, rotation_at

OPSET = 20
GRAPH, QUANTIZED = "onnx/model.onnx", "onnx/model_quantized.onnx"
"""Where transformers.js looks: for dtype fp32 and for q8."""
LARGEST_FILE = 1 << 31
"""Bytes a protobuf may have: weights of a larger model lie in a file beside it."""


class GraphStep(nn.Module):
    """One look at the model: tokens and what is remembered of those before, as plain tensors."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, past: list[Tensor]
    ) -> list[Tensor]:
        """Logits (B, T, V), then keys and values of each layer (B, n_kv_head, S + T, D)."""
        model: Any = self.model
        config = self.model.config
        x = model.tokens(input_ids)  # (B, T, C)
        rotation = None
        if config.family == "gpt2":
            x = x + model.positions(position_ids)
        else:
            rotation = rotation_at(position_ids, config.head_dim, config.rope_theta, x.dtype)
        mask = look_back(attention_mask, input_ids.size(1))  # (B, 1, T, S + T)
        present = []
        for layer, block in enumerate(model.blocks):
            q, k, v = queries_keys_values(block.attention, normed(block.norm_1, x), rotation)
            k = torch.cat((past[2 * layer], k), 2)
            v = torch.cat((past[2 * layer + 1], v), 2)
            x = x + block.attention.out(attend(q, k, v, mask))
            y = normed(block.norm_2, x)
            x = x + (all_experts(block.mlp, y) if isinstance(block.mlp, MixtureOfExperts) else block.mlp(y))
            present += [k, v]
        return [F.linear(normed(model.norm, x), model.head_weight), *present]


def look_back(attention_mask: Tensor, T: int) -> Tensor:
    """True where each of the last T tokens may look: at tokens that count, and none after it."""
    S = attention_mask.size(1)
    place = torch.arange(S, device=attention_mask.device)
    own = torch.arange(T, device=attention_mask.device) + S - T
    causal = place[None, :] <= own[:, None]  # (T, S)
    return causal[None, None] & attention_mask.bool()[:, None, None, :]


def queries_keys_values(
    attention: Any, x: Tensor, rotation: Rotation | None
) -> tuple[Tensor, Tensor, Tensor]:
    """(B, heads, T, D) each, of a normalised stream."""
    if type(attention) is Attention:
        q, k, v = attention.project(x, None)
    else:
        assert rotation is not None
        parts = attention.q(x), attention.k(x), attention.v(x)
        q, k, v = (torch.unflatten(part, -1, (-1, attention.head_dim)) for part in parts)
        q, k = (turned(normed(n, y), rotation) for n, y in ((attention.q_norm, q), (attention.k_norm, k)))
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def turned(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotary positions, as ``fused.rotate`` computes them."""
    return x * rotation.cos + x.roll(x.size(-1) // 2, -1) * rotation.sin


def normed(norm: nn.Module, x: Tensor) -> Tensor:
    """A norm without the backward pass that training has for it."""
    if isinstance(norm, RMSNorm):
        return F.rms_norm(x, (x.size(-1),), norm.weight, norm.EPSILON)
    y: Tensor = norm(x)
    return y


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention of q (B, n_head, T, D) on k, v (B, n_kv_head, S, D): (B, T, n_head * D)."""
    groups = q.size(1) // k.size(1)
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    return F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)


def all_experts(mlp: MixtureOfExperts, x: Tensor) -> Tensor:
    """Every expert for every token, weighted by the router: (B, T, C)."""
    tokens = x.flatten(0, 1)  # (N, C)
    scores = F.linear(tokens, mlp.router.weight).sigmoid()  # (N, E)
    chosen = (scores + mlp.router.bias).topk(mlp.router.active, -1).indices  # (N, K)
    weights = torch.zeros_like(scores).scatter(1, chosen, scores.gather(1, chosen))
    weights = weights / (weights.sum(-1, keepdim=True) + 1e-20) * mlp.router.scaling  # (N, E)
    experts = mlp.experts
    inner = F.silu(tokens @ experts.gate.mT) * (tokens @ experts.up.mT)  # (E, N, I)
    y = (inner @ experts.down.mT * weights.t()[..., None]).sum(0)  # (N, C)
    shared: Tensor = mlp.shared(x)
    return shared + y.view_as(x)


def cache_names(layers: int, prefix: str) -> list[str]:
    """Names of keys and values, layer by layer."""
    return [f"{prefix}.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]


def write_onnx(path: Path, model: GPT) -> None:
    """Write the graph; the weights too, or beside it if they are too large for one file."""
    config = model.config
    layers = config.n_layer
    B, T, S = 2, 3, 4  # a batch of one would be taken for a constant
    past = [torch.zeros(B, config.n_kv_head, S, config.head_dim) for _ in range(2 * layers)]
    ids = torch.zeros(B, T, dtype=torch.long)
    arguments = (ids, torch.ones(B, S + T, dtype=torch.long), ids + S, past)
    batch, new = torch.export.Dim("batch"), torch.export.Dim("new")
    old, all_ = torch.export.Dim("past"), torch.export.Dim("all")
    shapes = (
        {0: batch, 1: new},
        {0: batch, 1: all_},
        {0: batch, 1: new},
        [{0: batch, 2: old}] * (2 * layers),
    )
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            GraphStep(model).eval(),
            arguments,
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            input_names=[
                "input_ids",
                "attention_mask",
                "position_ids",
                *cache_names(layers, "past_key_values"),
            ],
            output_names=["logits", *cache_names(layers, "present")],
            dynamic_shapes=shapes,
        )
    assert program is not None
    program.save(path, external_data=is_large(model))
    _name_data(path)


def quantize(path: Path, target: Path) -> None:
    """The same graph with the weights of its products and its embedding in 8 bits: a fourth of the size.

    Unsigned ones: sums of products with signed ones overflow 16 bits on processors without VNNI.
    Experts stay as they are: onnxruntime rounds no stacked matrices by columns.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    is_split = data_of(path).exists()
    graph = onnx.load(path)
    del graph.graph.value_info[:]  # torch's shapes of stacked products are not those that onnx infers
    stacked = {tensor.name for tensor in graph.graph.initializer if len(tensor.dims) > 2}
    experts = [node.name for node in graph.graph.node if stacked & {*node.input}]
    root, level = logging.getLogger(), logging.getLogger().level
    root.setLevel(logging.ERROR)  # it advises to prepare a graph that needs no preparing
    try:
        quantize_dynamic(
            graph,
            target,
            per_channel=True,
            weight_type=QuantType.QUInt8,
            nodes_to_exclude=experts,
            use_external_data_format=is_split,
        )
    finally:
        root.setLevel(level)
    _name_data(target)


def is_large(model: GPT) -> bool:
    """Whether the weights go into a file beside the graph."""
    return sum(parameter.numel() * 4 for parameter in model.parameters()) >= LARGEST_FILE


def data_of(path: Path) -> Path:
    """Where transformers.js looks for the weights of a graph that is too large to hold them."""
    return path.with_name(f"{path.name}_data")


def _name_data(path: Path) -> None:
    """Call the weights beside a graph as transformers.js does; torch and onnxruntime call them .data."""
    written = path.with_name(f"{path.name}.data")
    if not written.exists():
        return
    graph = onnx.load(path, load_external_data=False)
    constants = [part.t for node in graph.graph.node for part in node.attribute if part.HasField("t")]
    for tensor in (*graph.graph.initializer, *constants):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = data_of(path).name
    written.rename(data_of(path))
    onnx.save(graph, path)

"""A model as an ONNX graph with a cache of keys and values, for onnxruntime, browsers and phones.

Inputs and outputs are named as Hugging Face's tools name them, so that transformers.js and onnxruntime's
examples find them: ``input_ids`` (B, T), ``attention_mask`` (B, S + T), ``position_ids`` (B, T),
``past_key_values.N.key`` and ``.value`` (B, n_kv_head, S, D) go in; ``logits`` (B, T, V) and
``present.N.key`` and ``.value`` (B, n_kv_head, S + T, D) come out. B, T and S may be anything, S also 0.

The graph is the model's own forward pass, with a KV cache of tensors that go in and out. Of ``moe`` every
expert sees every token (``Experts.all_for_each``), so such a model computes as much as one without a router.
"""

import logging
import warnings
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from yanmo.model.cache import causal_mask, look_back
from yanmo.model.gpt import GPT

OPSET = 20
GRAPH, QUANTIZED = "onnx/model.onnx", "onnx/model_quantized.onnx"
"""Where transformers.js looks: for dtype fp32 and for q8."""


class GraphCache:
    """Keys and values as a graph has them: the past goes in, and comes out with the new ones after it."""

    def __init__(self, past: list[Tensor], mask: Tensor) -> None:
        self.past, self.mask = past, mask
        self.present: list[Tensor] = []

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of q (B, n_head, T, D) on all S + T keys and values; gives (B, n_head, T, D)."""
        k, v = torch.cat((self.past[2 * layer], k), 2), torch.cat((self.past[2 * layer + 1], v), 2)
        self.present += [k, v]
        return look_back(q, k, v, self.mask)


class GraphStep(nn.Module):
    """One step of the model: new tokens and the cache of those before, as plain tensors."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, past: list[Tensor]
    ) -> list[Tensor]:
        """Logits (B, T, V), then keys and values of each layer (B, n_kv_head, S + T, D)."""
        T, S = input_ids.size(1), attention_mask.size(1)
        counts = attention_mask.bool()[:, None, None, :]  # (B, 1, 1, S): padding is not looked at
        cache = GraphCache(past, causal_mask(T, S, input_ids.device) & counts)
        x = self.model.hidden_states_at(input_ids, position_ids, cache)
        return [self.model.head(x), *cache.present]


def cache_names(layers: int, prefix: str) -> list[str]:
    """Names of keys and values, layer by layer."""
    return [f"{prefix}.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]


def write_onnx(path: Path, model: GPT, is_split: bool = False) -> None:
    """Write the graph with its weights; those in a file beside it, if they are too large for one file."""
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
    for node in program.model.graph:
        node.metadata_props.clear()  # in which lines of ours it was traced: 0.3 MB that nobody reads
    program.save(path, external_data=is_split)
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

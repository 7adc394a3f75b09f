"""Fine-tuning of a part of the weights: LoRA, or the last blocks; all others are frozen.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models": a frozen matrix W (N, C) learns a
correction of low rank, y = x Wᵀ + (alpha / rank) · (x Aᵀ) Bᵀ with A (rank, C) and B (N, rank). B is zero at
first, so that training begins where the base is. Every linear matrix of the blocks has one ("LoRA Without
Regret", Schulman et al. 2025: the MLP's matter most); routed experts, which are many, have none.

The rows of some tokens in embedding and LM head are trained as well: a marker that the base has never seen
would mean nothing, and a model that cannot write it never stops.

In: a model's shape and an :class:`Adaptation`. Out: a :class:`GPT` of which a few parameters require a
gradient; :func:`merged` gives the weights of a plain one again.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from yanmo.model.config import GPTConfig
from yanmo.model.fused import linear
from yanmo.model.gpt import GPT
from yanmo.model.layers import Linear, TokenRows
from yanmo.settings.schema import FinetuneConfig

ALL_WEIGHTS = FinetuneConfig()


@dataclass(frozen=True)
class Adaptation:
    """Which weights are trained, and how the others are kept."""

    finetune: FinetuneConfig = ALL_WEIGHTS
    tokens: tuple[int, ...] = ()
    """Ids whose rows are trained where the others are frozen."""
    dtype: torch.dtype = torch.float32
    """Of frozen matrices: that of the base. What is trained is float32."""

    @property
    def freezes(self) -> bool:
        """Whether anything is frozen."""
        return self.finetune.method not in (None, "full")


class LoRALinear(nn.Module):
    """A frozen :class:`Linear` and its correction."""

    def __init__(self, frozen: Linear, rank: int, alpha: float, device: torch.device) -> None:
        super().__init__()
        self.weight, self.bias = frozen.weight, frozen.bias
        self.scale = alpha / rank
        self.lora_a = nn.Parameter(torch.zeros(rank, frozen.in_features, device=device))
        self.lora_b = nn.Parameter(torch.zeros(frozen.out_features, rank, device=device))

    def forward(self, x: Tensor) -> Tensor:
        y = linear(x, self.weight, self.bias)  # (..., N)
        return y + self.scale * linear(linear(x, self.lora_a), self.lora_b)

    def merged(self) -> Tensor:
        """W + (alpha / rank) · B A, in float32."""
        return self.weight.float() + self.scale * (self.lora_b @ self.lora_a)


def adapted_model(config: GPTConfig, adaptation: Adaptation, device: torch.device) -> GPT:
    """A model of which only what is trained requires a gradient.

    What is frozen has no memory yet (torch's ``meta`` device): :func:`load_base` gives it the base's weights.
    """
    if not adaptation.freezes:
        return GPT(config).to(device)
    with torch.device("meta"):
        model = GPT(config)
    model.requires_grad_(False)
    if adaptation.finetune.method == "last":
        assert adaptation.finetune.layers  # decided
        for part in (*model.blocks[-adaptation.finetune.layers :], model.norm):
            part.to_empty(device=device).requires_grad_(True)
    else:
        add_lora(model, adaptation.finetune, device)
    for parameter in model.parameters():
        if not parameter.requires_grad and parameter.dim() >= 2:  # vectors are small: norms stay in float32
            parameter.data = parameter.data.to(adaptation.dtype)
    if adaptation.tokens:
        numbers = torch.tensor(adaptation.tokens, device=device)
        model.token_rows = TokenRows(numbers, config.n_embd)
        model.lm_head_rows = None if config.tied_head else TokenRows(numbers.clone(), config.n_embd)
    return model


def add_lora(model: GPT, finetune: FinetuneConfig, device: torch.device) -> None:
    """Put a :class:`LoRALinear` in place of every linear layer of the blocks."""
    assert finetune.rank and finetune.alpha  # decided
    for parent in list(model.blocks.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Linear):
                setattr(parent, name, LoRALinear(child, finetune.rank, finetune.alpha, device))


@torch.no_grad()
def load_base(model: GPT, weights: dict[str, Tensor], device: torch.device, seed: int) -> None:
    """Give an adapted model the weights of its base; its corrections are zero as yet.

    ``weights`` are taken out of their dictionary one by one.
    """
    frozen = {}
    for name, ours in model.state_dict().items():
        if name in weights:
            base = weights.pop(name)
            if ours.is_meta:
                # a copy: what was read may be a view of the file, which can change or vanish during the run
                frozen[name] = base.to(device, ours.dtype, copy=True)
            else:
                ours.copy_(base)
    model.load_state_dict(frozen, strict=False, assign=True)
    model.to(device)  # counters of frozen routers
    for rows, table in ((model.token_rows, model.tokens.weight), (model.lm_head_rows, model.head_weight)):
        if rows is not None:
            rows.weight.copy_(table[rows.numbers])
    generator = torch.Generator().manual_seed(seed)
    for layer in lora_layers(model).values():
        # uniform within 1/√C, as in PEFT; on the CPU: the same on every device
        drawn = torch.empty(layer.lora_a.shape).uniform_(-1, 1, generator=generator)
        layer.lora_a.copy_(drawn / math.sqrt(layer.lora_a.size(1)))
        layer.lora_b.zero_()


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """The layers with a correction, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRALinear)}


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What training changes in an adapted model, by name: nothing else of it must be saved to resume."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    with_buffers = {*trained, *(name.replace("router.weight", "router.bias") for name in trained)}
    return {name: tensor for name, tensor in model.state_dict().items() if name in with_buffers}


@torch.no_grad()
def merged(model: GPT) -> dict[str, Tensor]:
    """The weights of a plain model that computes the same, on the CPU, in the dtype of the base."""
    dtype = model.tokens.weight.dtype  # embeddings are frozen, unless all is trained
    corrected = {f"{name}.weight": layer.merged().to(dtype) for name, layer in lora_layers(model).items()}
    for table, rows in (("tokens.weight", model.token_rows), ("lm_head.weight", model.lm_head_rows)):
        if rows is not None:
            whole = model.tokens.weight if rows is model.token_rows else model.head_weight
            corrected[table] = whole.index_copy(0, rows.numbers, rows.weight.to(dtype))
    found = {name: corrected.get(name, tensor) for name, tensor in model.state_dict().items()}
    return {name: tensor.detach().to("cpu", dtype) for name, tensor in found.items() if not _is_new(name)}


def is_adapted(model: nn.Module) -> bool:
    """Whether a part of it is frozen."""
    return not all(parameter.requires_grad for parameter in model.parameters())


def _is_new(name: str) -> bool:
    """Whether a plain model has no such weight."""
    return name.endswith((".lora_a", ".lora_b", "_rows.weight"))

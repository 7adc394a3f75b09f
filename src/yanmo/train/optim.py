"""AdamW, or Muon for the hidden matrices and AdamW for the rest.

AdamW (Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization") is torch's fused one; norms and
biases do not decay. An update of Muon (``muon.py``) is scaled to be as large as AdamW's would be (Liu et
al. 2025, "Muon is Scalable for LLM Training"): one learning rate serves both.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from yanmo.core.errors import CheckpointError
from yanmo.model.gpt import GPT
from yanmo.settings.schema import OptimConfig
from yanmo.train.muon import Muon, neurons

WEIGHT_DECAY = 0.1
"""The usual one, which suits texts that are read about once."""
_STATE = {torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"), Muon: ("momentum_buffer", "squares")}


class Optimizer:
    """One or two optimizers that share out the parameters of a model."""

    def __init__(self, *parts: torch.optim.AdamW | Muon) -> None:
        self.parts = parts

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The parameter groups of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    def set_learning_rate(self, rate: float) -> None:
        """Use ``rate`` in the next step."""
        for group in self.groups:
            group["lr"] = rate

    def step(self) -> None:
        """Update all parameters by their gradients."""
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)  # frees them, and the first backward writes instead of adding

    def tensors(self, model: GPT) -> dict[str, Tensor]:
        """The state by parameter name: ``blocks.0.mlp.up.weight/exp_avg`` and so on; empty before a step."""
        return {
            f"{name}/{key}": state[key]
            for name, _, state, keys in self._states(model)
            for key in keys
            if state
        }

    def load(self, model: GPT, tensors: dict[str, Tensor]) -> None:
        """Put back what :meth:`tensors` gave, nothing before the first update.

        Raises:
            CheckpointError: a tensor is missing or of another shape.
        """
        for name, parameter, state, keys in self._states(model) if tensors else ():
            for key in keys:
                tensor = tensors.get(f"{name}/{key}")
                if tensor is None or tensor.shape != _shape_of(key, parameter):
                    raise CheckpointError(
                        f"the optimizer's {key} of {name} is missing or misshapen",
                        where="training/state.safetensors",
                        hint="the checkpoint is of another model or optimizer, or older than this yanmo;"
                        " train into another folder",
                    )
                state[key] = tensor.to(parameter.device)

    def _states(self, model: GPT) -> Iterator[tuple[str, Tensor, dict[str, Tensor], tuple[str, ...]]]:
        """Name, parameter, its state and what that holds, in the model's order."""
        # by name, not by position as torch's state_dict: any split into groups reads the same file
        owner = {p: part for part in self.parts for group in part.param_groups for p in group["params"]}
        for name, parameter in trained_parameters(model).items():
            part = owner[parameter]
            yield name, parameter, part.state[parameter], _STATE[type(part)]


def _shape_of(key: str, parameter: Tensor) -> torch.Size:
    """What a tensor of the state looks like."""
    if key == "step":
        return torch.Size()
    return neurons(parameter.shape) if key == "squares" else parameter.shape


def build_optimizer(model: GPT, config: OptimConfig, precision: str | None = None) -> Optimizer:
    """The optimizer that ``config`` names, over all parameters that are not frozen.

    ``precision`` is the run's: Muon computes in bfloat16 where the run does, and else in float32.
    """
    rate = config.learning_rate or 0.0  # set anew before every step
    decay = WEIGHT_DECAY if config.weight_decay is None else config.weight_decay
    hidden = hidden_matrices(model) if config.name == "muon" else {}
    rest = [
        p for p in trained_parameters(model).values() if not any(p is matrix for matrix in hidden.values())
    ]
    # weight decay pulls towards 0, which suits matrices; norms rest at 1, and biases do not overfit
    groups = [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": decay},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
    ]
    # fused: one kernel over all parameters instead of a dozen small ones for each
    adamw = torch.optim.AdamW(groups, lr=rate, betas=(config.beta1, config.beta2), eps=1e-8, fused=True)
    if not hidden:
        return Optimizer(adamw)
    # queries, keys and values are three matrices in one parameter; made orthogonal together, they would
    # have to share one set of singular directions
    three_in_one = [p for name, p in hidden.items() if name.endswith("qkv.weight")]
    single = [p for name, p in hidden.items() if not name.endswith("qkv.weight")]
    matrices = [{"params": three_in_one, "parts": 3}, {"params": single, "parts": 1}]
    # the iteration only needs directions, so bfloat16 suffices; but a CPU without it emulates it slowly
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    return Optimizer(Muon(matrices, rate, decay, config.momentum, dtype), adamw)


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Those that are not frozen, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def hidden_matrices(model: GPT) -> dict[str, nn.Parameter]:
    """The matrices between embedding and head that are trained, by name, without routers and LoRA's.

    Rows of embedding and head belong to single tokens, those of a router to single experts: such rows should
    not be made orthogonal to each other. LoRA's two factors are no maps of their own, only their product is.
    """
    apart = ("router", "lora_")
    return {
        name: p
        for name, p in trained_parameters(model.blocks).items()
        if p.dim() >= 2 and not any(word in name for word in apart)
    }

"""AdamW with the groups GPT-2 needs: matrices and embeddings decay, norms and biases do not.

Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization"; torch's fused implementation.
"""

import torch
from torch import Tensor

from yanmo.config import OptimConfig
from yanmo.errors import CheckpointError
from yanmo.model.gpt import GPT


def build_optimizer(model: GPT, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over the model's parameters, in two groups."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), eps=1e-8, fused=True
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use ``rate`` in the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def optimizer_tensors(model: GPT, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by parameter name: ``blocks.0.mlp.up.weight/exp_avg`` and so on."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in sorted(optimizer.state.get(parameter, {}).items())
    }


def load_optimizer_tensors(model: GPT, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` gave.

    Raises:
        CheckpointError: a tensor is missing or of another shape.
    """
    for name, parameter in model.named_parameters():
        for key in ("step", "exp_avg", "exp_avg_sq"):
            tensor = tensors.get(f"{name}/{key}")
            if tensor is None or (key != "step" and tensor.shape != parameter.shape):
                raise CheckpointError(
                    f"the optimizer's {key} of {name} is missing or misshapen",
                    where="training/state.safetensors",
                    mend="the checkpoint belongs to another model; train into another folder",
                )
            optimizer.state[parameter][key] = tensor.to(parameter.device)

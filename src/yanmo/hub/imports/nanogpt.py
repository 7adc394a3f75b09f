"""nanoGPT's files: its checkpoints → a GPT-2 by Hugging Face's names, its config .py → settings of a recipe.

nanoGPT (github.com/karpathy/nanoGPT) is GPT-2 with two differences that no shape shows: it computes GELU by
erf, and with ``bias=False`` it has no biases, which ``GPT2LMHeadModel`` always has. So the activation is
``gelu``, and missing biases are zeros, which is the same function. Its linear layers are (out, in), GPT-2's
(in, out).
"""

import ast
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yanmo.core.errors import CheckpointError, ConfigError

CONV1D = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
BIASED = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
NEEDED = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size")

SETTINGS = {
    "n_layer": "model.n_layer",
    "n_head": "model.n_head",
    "n_embd": "model.n_embd",
    "block_size": "model.block_size",
    "dropout": "model.dropout",
    "learning_rate": "optim.learning_rate",
    "min_lr": "optim.min_lr",
    "weight_decay": "optim.weight_decay",
    "beta1": "optim.beta1",
    "beta2": "optim.beta2",
    "grad_clip": "optim.grad_clip",
    "warmup_iters": "optim.warmup_steps",
    "max_iters": "train.max_steps",
    "eval_interval": "train.eval_interval",
    "log_interval": "train.log_interval",
}
"""nanoGPT's keys → our settings."""
DEFAULTS = {
    "n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024, "dropout": 0.0, "learning_rate": 6e-4,
    "min_lr": 6e-5, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.95, "grad_clip": 1.0, "warmup_iters": 2000,
    "max_iters": 600_000, "eval_interval": 2000, "log_interval": 1, "batch_size": 12,
    "gradient_accumulation_steps": 40, "decay_lr": True, "lr_decay_iters": 600_000,
}  # fmt: skip
"""Those of nanoGPT's train.py: its configs say only what differs."""
PRECISIONS = ("float32", "bfloat16", "float16")
ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}
MAX_NUMBER = 10**15


def bare_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefixes of torch.compile and DistributedDataParallel."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        # a model may have been wrapped by both, in either order
        while name.startswith(("_orig_mod.", "module.")):
            name = name.partition(".")[2]
        found[name] = tensor
    return found


def as_gpt2(
    tensors: dict[str, Tensor], arguments: dict[str, Any], where: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A nanoGPT as GPT-2: the values of its config.json, and its tensors by Hugging Face's names.

    Raises:
        CheckpointError: a number of its shape is missing.
    """
    missing = [name for name in NEEDED if type(arguments.get(name)) is not int]
    if missing:
        raise CheckpointError(
            f"its model_args lack {', '.join(missing)}",
            where=where,
            hint="is it a ckpt.pt that nanoGPT's train.py wrote?",
        )
    dropout = arguments.get("dropout", 0.0)
    values = {
        "model_type": "gpt2",
        "activation_function": "gelu",
        "n_layer": arguments["n_layer"],
        "n_head": arguments["n_head"],
        "n_embd": arguments["n_embd"],
        "n_positions": arguments["block_size"],
        "vocab_size": arguments["vocab_size"],
        "resid_pdrop": dropout,
        "embd_pdrop": dropout,
        "attn_pdrop": dropout,
    }
    found = {
        # GPT-2's Conv1D keeps its matrices (in, out)
        name: tensor.t().contiguous() if name.endswith(CONV1D) and tensor.dim() == 2 else tensor
        for name, tensor in bare_names(tensors).items()
    }
    return values, found | _zero_biases(found)


def _zero_biases(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The biases that a model of ``bias=False`` lacks."""
    zeros = {}
    for name, weight in tensors.items():
        if name.endswith((*(f"{part}.weight" for part in BIASED), "ln_f.weight")):
            bias = name.removesuffix("weight") + "bias"
            if bias not in tensors:
                zeros[bias] = torch.zeros(weight.size(-1))  # Conv1D: (in, out); a norm: (C,)
    return zeros


# -- its config files -------------------------------------------------------------------------


def read_config(path: Path) -> dict[str, Any]:
    """The names and values of a nanoGPT config: parsed, never run.

    Raises:
        ConfigError: a line does more than give a number, a text or a truth value to a name.
    """
    try:
        # nanoGPT runs its configs by exec; here the syntax tree is read, and what is not plain is refused
        tree = ast.parse(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise ConfigError("it is not a nanoGPT config", where=f"{path}: {error}") from error
    found: dict[str, Any] = {}
    for line in tree.body:
        if isinstance(line, ast.Import | ast.ImportFrom) or (
            isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)
        ):
            continue  # `import time` for the name of a run; a docstring
        if not isinstance(line, ast.Assign) or not all(isinstance(t, ast.Name) for t in line.targets):
            raise _does_more(path, line)
        for target in line.targets:
            assert isinstance(target, ast.Name)
            try:
                found[target.id] = _value(line.value, found)
            except (ValueError, KeyError, ArithmeticError, TypeError, RecursionError):
                # what only names a run or a log may be computed as it likes: it has no meaning here
                if target.id in {*SETTINGS, *DEFAULTS}:
                    raise _does_more(path, line) from None
    return found


def _value(node: ast.expr, known: dict[str, Any]) -> Any:
    """A constant, a name given before, or arithmetic on such; ValueError for anything else."""
    if isinstance(node, ast.Constant):
        return _bounded(node.value) if isinstance(node.value, int | float) else node.value
    if isinstance(node, ast.Name):
        return known[node.id]
    # -1 is no constant to the parser, but a sign before one
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_number(node.operand, known)
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        return ARITHMETIC[type(node.op)](_number(node.left, known), _number(node.right, known))
    raise ValueError(ast.dump(node))


def _number(node: ast.expr, known: dict[str, Any]) -> int | float:
    value = _value(node, known)
    if type(value) not in (int, float):
        raise ValueError(f"{value!r} is not a usable number")
    return _bounded(value)


def _bounded(value: int | float) -> int | float:
    """A number small enough to compute with: one of 10,000 digits would take hours, and not fit a float."""
    if not abs(value) <= MAX_NUMBER:
        raise ValueError("the number is too large for a setting")
    return value


def _does_more(path: Path, line: ast.stmt) -> ConfigError:
    return ConfigError(
        f"line {line.lineno} does more than assign a plain value to a name",
        where=str(path),
        hint="it was not executed; write its settings as section.key=value",
    )


def as_settings(config: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Settings of a recipe that mean what a nanoGPT config means, and the names that mean nothing here."""
    full = DEFAULTS | config
    # all that have a default are numbers or yes and no
    strange = [k for k in DEFAULTS if not isinstance(full[k], bool | int | float)]
    if strange:
        raise ConfigError(
            f"{strange[0]} = {str(full[strange[0]])[:40]!r} is not a number",
            where="nanoGPT config",
            hint="fix it",
        )
    for key, most in (("min_lr", full["learning_rate"]), ("warmup_iters", max(full["max_iters"] - 1, 0))):
        # nanoGPT's defaults are made for its run of 600,000 steps; a short one would be all warm-up
        if key not in config:
            full[key] = min(full[key], most)
    found = {ours: full[theirs] for theirs, ours in SETTINGS.items() if theirs in full}
    # nanoGPT's batch_size is that of a micro-batch; gradient accumulation multiplies it (over all ranks)
    found |= {
        "model.family": "gpt2",
        "model.gelu": "erf",
        "optim.name": "adamw",
        "optim.schedule": "cosine",
        "train.batch_size": full["batch_size"] * full["gradient_accumulation_steps"],
        "train.micro_batch_size": full["batch_size"],
    }
    if not full["decay_lr"]:
        # a constant rate: a decay from the rate to itself
        found |= {"optim.min_lr": full["learning_rate"], "optim.warmup_steps": 0}
    if full.get("dtype") in PRECISIONS:
        found["train.precision"] = full["dtype"]
    if full.get("device"):
        found["train.device"] = full["device"]
    used = {*SETTINGS, *DEFAULTS, "dtype", "device", "dataset", "out_dir"}
    left = set(config) - used - {"lr_decay_iters"}
    if full["decay_lr"] and full["lr_decay_iters"] != full["max_iters"]:
        left.add(
            f"lr_decay_iters={full['lr_decay_iters']} (in yanmo the rate decays until the end of the run)"
        )
    return found, sorted(left)

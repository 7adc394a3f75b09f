"""LoRA's corrections as PEFT stores them: adapter_config.json and adapter_model.safetensors.

In: an adapted model (``model/lora.py``). Out: a folder that PEFT opens over the base.
"""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from yanmo.checkpoint.hf_names import hugging_face_name
from yanmo.checkpoint.tensors import save_tensors
from yanmo.model.families import Family
from yanmo.model.gpt import GPT
from yanmo.model.lora import LoRALinear, lora_layers

PREFIX = "base_model.model."
"""What PEFT wraps a model in."""


def write_adapter(folder: Path, model: GPT, base: str | None) -> None:
    """Write the corrections of ``model``; ``base`` is the folder of its frozen weights."""
    folder.mkdir()
    save_tensors(folder / "adapter_model.safetensors", to_peft(model))
    config = json.dumps(adapter_config(model, base), indent=2) + "\n"
    (folder / "adapter_config.json").write_text(config, encoding="utf-8", newline="\n")


def to_peft(model: GPT) -> dict[str, Tensor]:
    """What is trained, by PEFT's names."""
    kind, found = model.config.kind, dict[str, Tensor]()
    for name, layer in lora_layers(model).items():
        module = PREFIX + module_name(kind, name)
        found |= {f"{module}.lora_A.weight": layer.lora_a, f"{module}.lora_B.weight": layer.lora_b}
    for name, rows in trained_rows(model).items():
        # not differences, in spite of their name: the rows themselves
        found[f"{PREFIX}{name}.token_adapter.trainable_tokens_delta"] = rows
    return found


def adapter_config(model: GPT, base: str | None) -> dict[str, Any]:
    """adapter_config.json, with the keys that PEFT's defaults do not answer rightly."""
    kind, layers = model.config.kind, lora_layers(model)
    rows, numbers = trained_rows(model), model.token_rows.numbers.tolist() if model.token_rows else []
    layer: LoRALinear = next(iter(layers.values()))
    rank = len(layer.lora_a)
    # two parts of a name tell the layers apart from routers and routed experts
    modules = {".".join(module_name(kind, name).split(".")[-2:]) for name in layers}
    # PEFT takes every module with a name of the experts for theirs; names of parameters it takes as they are
    apart = {name for name in modules if model.config.has("n_expert") and "attn" not in name}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": layer.scale * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(modules - apart),
        "target_parameters": sorted(f"{name}.weight" for name in apart) or None,
        "fan_in_fan_out": hugging_face_name(kind, f"{next(iter(layers))}.weight")[1] == "transposed",
        # a head that shares the embedding's weights follows it by itself
        "trainable_token_indices": {name.rpartition(".")[2]: numbers for name in rows} or None,
    }


def trained_rows(model: GPT) -> dict[str, Tensor]:
    """The rows of tables that are trained, by Hugging Face's name of the table."""
    kind, tables = model.config.kind, {"tokens": model.token_rows, "lm_head": model.lm_head_rows}
    return {module_name(kind, name): rows.weight for name, rows in tables.items() if rows is not None}


def module_name(family: Family, ours: str) -> str:
    """Hugging Face's name of one of our layers."""
    return hugging_face_name(family, f"{ours}.weight")[0].removesuffix(".weight")

"""Versions and devices: what results depend on besides the recipe, and what a bug report needs."""

import importlib.metadata
import importlib.util
import os
import platform
import sys

import torch

from yanmo.core import storage

PACKAGES = (
    "numpy",
    "tokenizers",
    "tiktoken",
    "sentencepiece",
    "safetensors",
    "pydantic",
    "typer",
    "transformers",
    "tensorboard",
)


def environment() -> dict[str, str]:
    """What bit-identical results depend on; recorded in every checkpoint."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "system": f"{platform.system()} {platform.machine()}",
        # AVX2 and AVX-512 kernels sum in different orders
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def device_names() -> list[str]:
    """Every device torch can use here: ``cpu``, ``cuda``, ``cuda:0``, …"""
    names = ["cpu"]
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator()
        assert kind is not None
        count = torch.accelerator.device_count()
        names += [kind.type, *(f"{kind.type}:{number}" for number in range(count))]
    return names


def describe_environment() -> dict[str, str]:
    """Versions, devices and folders, for ``yanmo env``."""
    versions = {
        name: importlib.metadata.version(name) if importlib.util.find_spec(name) else "not installed"
        for name in PACKAGES
    }
    free = storage.free_bytes(storage.cache_root().resolve())
    return {
        "yanmo": importlib.metadata.version("yanmo"),
        **environment(),
        **versions,
        "executable": sys.executable,
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "devices": ", ".join(device_names()),
        "bfloat16 on the CPU": str(_cpu_has_bfloat16()),
        "cache": str(storage.cache_root().resolve()),
        "folder": os.getcwd(),
        "free disk": "unknown" if free is None else f"{free >> 20:,} MB",
    }


def _cpu_has_bfloat16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())

import ctypes
import os
import platform

import pytest
import torch

from tests.makers.processes import python
from yanmo.parallel import machine
from yanmo.settings.schema import TrainConfig

FAULTS = """
import resource, sys, torch
from yanmo.parallel.machine import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    torch.ones(12_000_000)
before = faults()
for _ in range(5):
    torch.ones(12_000_000)
print(faults() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's malloc")
def test_memory_that_is_freed_is_used_again_without_asking_the_system() -> None:
    def faults(how: str) -> int:
        done = python("-c", FAULTS, how)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    assert faults("return") > 5 * 10_000  # 48 MB are 11,718 pages
    assert faults("keep") < 500


@pytest.mark.parametrize("error", [OSError, AttributeError, TypeError])
def test_another_malloc_is_left_as_it_is(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: object) -> None:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert machine.keep_freed_memory() is False


def test_the_recipe_sets_threads_route_and_determinism(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "keep_freed_memory", lambda: True)
    threads = torch.get_num_threads()
    try:
        machine.configure_torch(TrainConfig(threads=1, matmul="onednn", compile=True))
        assert torch.get_num_threads() == 1
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        machine.configure_torch(TrainConfig(threads=threads))
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("how", [{"compile": True}, {"deterministic": True}, {}])
def test_a_gpu_can_be_deterministic_and_new_memory_is_not_filled(
    how: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """cuBLAS refuses to be deterministic without the variable; torch would write NaN into every ``empty``."""
    monkeypatch.setattr(machine, "keep_freed_memory", lambda: True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    machine.configure_torch(TrainConfig(device="cuda", **how))  # type: ignore[arg-type]
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert torch.are_deterministic_algorithms_enabled() == bool(how)
    torch.ones(1000)
    assert not torch.empty(1000).isnan().all()
    machine.configure_torch(TrainConfig(device="cuda"))


def test_a_gpus_float32_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "keep_freed_memory", lambda: True)
    monkeypatch.setattr(machine, "use_matmul", pytest.fail)
    machine.configure_torch(TrainConfig(device="cuda"))

from collections.abc import Callable

import pytest
import torch

from yanmo.config import Recipe, load_recipe
from yanmo.errors import DeviceError
from yanmo.model.gpt import GPTConfig
from yanmo.train import decide, machine
from yanmo.train.decide import (
    Speed,
    decide_length,
    decide_optimizer,
    decide_packing,
    measure,
    micro_batches,
    require_compiler,
    step_limit,
    ways,
)
from yanmo.train.distributed import World, find_device

SMALL = GPTConfig(50, 1, 1, 8, 8)


CPU = World(torch.device("cpu"))


def test_micro_batches_divide_the_batch() -> None:
    for batch, block in ((32, 128), (12, 64), (7, 1024), (30, 512)):
        recipe = load_recipe(None, [f"train.batch_size={batch}", f"model.block_size={block}"])
        for size in micro_batches(recipe, CPU):
            assert batch % size == 0
            assert size * block <= max(4096, block)
    recipe = load_recipe(None, ["train.batch_size=64", "model.block_size=128"])
    assert micro_batches(recipe, CPU) == [8, 16, 32]
    assert micro_batches(recipe, World(torch.device("cpu"), 0, 8)) == [8]
    assert micro_batches(recipe, World(torch.device("cuda"))) == [64]
    assert micro_batches(load_recipe(None, ["train.micro_batch_size=4"]), CPU) == [4]


def readings(*turns: list[float]) -> Callable[[], float]:
    """A clock by which, in turns of four rounds, each thing takes so long; the update takes 0.5 s."""
    times = [seconds for turn in turns for _ in range(4) for seconds in turn]
    return iter([t for took in [*times, 0.5] for t in (0.0, took)]).__next__


def test_the_fastest_way_and_micro_batch_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide, "onednn_keeps_float32", lambda: True)
    recipe = load_recipe(
        None, ["train.batch_size=512", "optim.name=adamw", "model.block_size=8", "train.device=cpu"]
    )
    took = {
        ("float32", "sdpa", "torch"): 4.0,
        ("float32", "matmul", "torch"): 3.0,
        ("float32", "matmul", "onednn"): 1.0,
        ("bfloat16", "sdpa", "torch"): 5.0,
        ("bfloat16", "matmul", "torch"): 2.0,
    }
    order = [took[way] for way in ways(recipe, torch.device("cpu"))]
    decisions, speed = measure(recipe, SMALL, CPU, clock=readings(order, [1.0, 1.5, 4.0]))
    assert decisions == {
        "train.precision": "float32", "train.attention": "matmul", "train.matmul": "onednn",
        "train.micro_batch_size": 256,
    }  # fmt: skip
    assert speed.seconds_per_step == pytest.approx(1.5 * 2 + 0.5)


def test_what_was_asked_for_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide, "onednn_keeps_float32", lambda: False)
    recipe = load_recipe(None, ["train.precision=float32", "train.attention=matmul"])
    assert list(ways(recipe, torch.device("cpu"))) == [("float32", "matmul", "torch")]
    given = load_recipe(None, ["train.precision=float32", "train.matmul=onednn", "train.attention=sdpa"])
    assert list(ways(given, torch.device("cpu"))) == [("float32", "sdpa", "onednn")]
    assert list(ways(Recipe(), torch.device("cuda"))) == [
        ("float32", "sdpa", "torch"),
        ("bfloat16", "sdpa", "torch"),
    ]


def test_a_route_that_rounds_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_float32_matmul_precision()
    machine.onednn_keeps_float32()
    assert torch.get_float32_matmul_precision() == before
    product, route = torch.Tensor.__matmul__, []
    monkeypatch.setattr(machine, "use_matmul", route.append)
    for rounds in (True, False):

        def multiply(a: torch.Tensor, b: torch.Tensor, rounds: bool = rounds) -> torch.Tensor:
            if route[-1] == "onednn" and rounds:
                a, b = a.bfloat16().float(), b.bfloat16().float()
            return product(a, b)

        monkeypatch.setattr(torch.Tensor, "__matmul__", multiply)
        assert machine.onednn_keeps_float32() is not rounds


def test_the_optimizer_and_its_rate_go_together() -> None:
    assert decide_optimizer(Recipe())["optim.name"] == "muon"
    assert decide_optimizer(load_recipe(None, ["model.init=runs/x"]))["optim.name"] == "adamw"
    given = decide_optimizer(load_recipe(None, ["optim.name=adamw"]))
    assert given["optim.learning_rate"] == 1e-3


def test_a_run_of_minutes_aims_by_its_speed() -> None:
    speed = Speed(seconds_per_step=0.5, tokens_per_second=1000.0)
    horizon, decisions = decide_length(
        load_recipe(None, ["train.minutes=10"]), speed, train_tokens=1000, val_tokens=0
    )
    assert horizon == 1200
    assert decisions["train.eval_interval"] == 120
    assert decisions["optim.warmup_steps"] == 60
    assert decide_length(Recipe(), speed, 1000, 0)[1]["train.minutes"] == 10
    both = load_recipe(None, ["train.minutes=10", "train.max_steps=50"])
    assert decide_length(both, speed, 1000, 0)[0] == 50
    with_evaluation, _ = decide_length(
        load_recipe(None, ["train.minutes=10"]), speed, 1000, val_tokens=30_000
    )
    assert with_evaluation == 1000  # ten evaluations of 10 s


def test_compiling_without_a_compiler_is_refused_early(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(None, ["train.compile=true"])
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/g++" if name == "g++" else None)
    require_compiler(recipe, torch.device("cpu"))
    monkeypatch.setattr("shutil.which", lambda name: None)
    require_compiler(Recipe(), torch.device("cpu"))
    require_compiler(recipe, torch.device("cuda"))
    with pytest.raises(DeviceError, match=r"needs a C\+\+ compiler"):
        require_compiler(recipe, torch.device("cpu"))


def test_a_stride_is_decided_where_windows_overlap() -> None:
    assert decide_packing(Recipe()) == {"data.packing": "offset", "data.stride": None}
    assert decide_packing(load_recipe(None, ["data.stride=3"]))["data.packing"] == "stride"
    assert decide_packing(load_recipe(None, ["data.packing=stride"]))["data.stride"] == 64


def test_the_first_limit_ends_the_run() -> None:
    def limit(*settings: str) -> int | None:
        return step_limit(
            load_recipe(None, ["model.block_size=10", "train.batch_size=8", *settings]), train_tokens=1000
        )

    assert limit() is None
    assert limit("train.epochs=2") == 25
    assert limit("train.epochs=2", "train.max_steps=7") == 7
    assert limit("train.epochs=2", "data.stride=5") == 50
    assert limit("train.epochs=0.001") == 1


@pytest.mark.parametrize("name", ["cuda:7", "gpu", "tpu"])
def test_a_device_that_is_not_there_is_a_clear_error(name: str) -> None:
    with pytest.raises(DeviceError) as caught:
        find_device(name)
    assert name in caught.value.what
    assert "there are: cpu" in caught.value.mend


def test_ranks_share_a_batch_without_gaps() -> None:
    for size in (1, 2, 3, 4):
        rows = [row for rank in range(size) for row in World(torch.device("cpu"), rank, size).rows(10)]
        assert rows == list(range(10))

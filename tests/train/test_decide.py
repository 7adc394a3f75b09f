import pytest
import torch

from yanmo.config import Recipe, load_recipe
from yanmo.errors import DeviceError
from yanmo.model.gpt import GPTConfig
from yanmo.train.decide import (
    Speed,
    candidates,
    decide_device,
    decide_length,
    decide_packing,
    measure,
    require_compiler,
    step_limit,
)
from yanmo.train.distributed import World, find_device

SMALL = GPTConfig(50, 1, 1, 8, 8)


def test_the_micro_batch_divides_the_batch() -> None:
    for batch, block in ((32, 128), (12, 64), (7, 1024), (30, 512)):
        recipe = load_recipe(
            None, [f"train.batch_size={batch}", f"model.block_size={block}", "train.device=cpu"]
        )
        micro = decide_device(recipe, World(torch.device("cpu")))["train.micro_batch_size"]
        assert batch % micro == 0
        assert micro * block <= max(4096, block)


def test_the_fastest_arithmetic_and_attention_win() -> None:
    """The clock says what each candidate took: four rounds of two readings each, in order."""
    recipe = load_recipe(None, ["train.device=cpu"])
    took = {
        ("float32", "sdpa"): 4.0,
        ("float32", "matmul"): 3.0,
        ("bfloat16", "sdpa"): 1.0,
        ("bfloat16", "matmul"): 2.0,
    }
    order = [took[c] for c in candidates(recipe, torch.device("cpu"))]
    readings = [t for seconds in order for _ in range(4) for t in (0.0, seconds)] + [0.0, 0.5]
    decisions, speed = measure(recipe, SMALL, torch.device("cpu"), clock=iter(readings).__next__)
    assert decisions == {"train.precision": "bfloat16", "train.attention": "sdpa"}
    assert speed.seconds_per_step == pytest.approx(1.0 * 8 + 0.5)  # measured on 1 of 8 rows


def test_what_was_asked_for_is_not_measured() -> None:
    recipe = load_recipe(None, ["train.precision=float32", "train.attention=matmul"])
    assert list(candidates(recipe, torch.device("cpu"))) == [("float32", "matmul")]
    assert list(candidates(Recipe(), torch.device("cuda"))) == [
        ("float32", "sdpa"),
        ("bfloat16", "sdpa"),
    ]


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
        return step_limit(load_recipe(None, ["model.block_size=10", *settings]), train_tokens=1000)

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

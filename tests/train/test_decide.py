import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch

from yanmo.core.errors import DeviceError
from yanmo.model.config import GPTConfig
from yanmo.model.gpt import GPT, count_parameters
from yanmo.parallel import machine
from yanmo.parallel.distributed import World, find_device
from yanmo.settings.recipe import load_recipe
from yanmo.settings.schema import Recipe
from yanmo.train import decide, probe, run
from yanmo.train.decide import (
    decide_against_overfitting,
    decide_compile,
    decide_length,
    decide_optimizer,
    decide_packing,
    decide_seq_len_warmup,
    require_compiler,
    seconds_of_saving,
    step_limit,
    usual_decay,
)
from yanmo.train.forecast import TextSize
from yanmo.train.probe import Speed, Way, measure, micro_batches, ways

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


ONE = load_recipe(
    None, ["train.batch_size=512", "optim.name=adamw", "model.block_size=8", "train.device=cpu"]
)  # micro-batches of 128, 256 and 512 windows
TOOK = {
    Way("float32", "sdpa", "torch"): 4e-4,
    Way("float32", "matmul", "torch"): 3e-4,
    Way("float32", "matmul", "onednn"): 1e-4,
    Way("bfloat16", "sdpa", "torch"): 5e-3,
    Way("bfloat16", "matmul", "torch"): 2e-4,
}


class Stopwatch:
    """What passes take by the tables above and below; the update takes 0.5 s."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, by_size: dict[int, float]) -> None:
        self.timed: list[tuple[Way, int]] = []
        self.by_size = by_size
        monkeypatch.setattr(probe, "onednn_keeps_float32", lambda: True)
        monkeypatch.setattr(probe, "_time_pass", self.time)
        self.reading = iter([0.0, 0.5]).__next__

    def time(self, model: object, rows: int, device: object, way: Way, clock: object) -> float:
        self.timed.append((way, rows))
        return TOOK[way] * self.by_size.get(rows, 1.0)


def test_the_fastest_way_and_micro_batch_win(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Stopwatch(monkeypatch, {128: 1.0, 256: 0.5, 512: 0.7})
    decisions, speed = measure(ONE, SMALL, CPU, watch.reading)
    assert decisions == {
        "train.precision": "float32", "train.attention": "matmul", "train.matmul": "onednn",
        "train.micro_batch_size": 256,
    }  # fmt: skip
    assert speed.seconds_per_step == pytest.approx(1e-4 * 0.5 * 512 * 8 + 0.5)


def test_a_hopeless_way_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Stopwatch(monkeypatch, {128: 1.0, 256: 0.5, 512: 0.7})
    monkeypatch.setitem(TOOK, Way("float32", "sdpa", "torch"), 5e-3)
    measure(ONE, SMALL, CPU, watch.reading)
    counts = Counter(way for way, rows in watch.timed if rows == 128)
    assert counts[Way("float32", "sdpa", "torch")] == 1
    assert counts[Way("float32", "matmul", "torch")] == 4


def test_a_hopeless_precision_is_seen_in_one_window(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Stopwatch(monkeypatch, {128: 1.0, 256: 0.5, 512: 0.7})
    for way in TOOK:
        if way.precision == "bfloat16":
            monkeypatch.setitem(TOOK, way, 1e-2)
    assert measure(ONE, SMALL, CPU, watch.reading)[0]["train.precision"] == "float32"
    assert {rows for way, rows in watch.timed if way.precision == "bfloat16"} == {1}
    assert 128 in {rows for way, rows in watch.timed if way.precision == "float32"}


def test_a_round_of_many_seconds_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = 10.0  # the four ways that are left take 10 s for 1,024 tokens
    watch = Stopwatch(monkeypatch, {128: slow, 256: 0.05, 512: 0.1})
    decisions, speed = measure(ONE, SMALL, CPU, watch.reading)
    counts = Counter(watch.timed)
    fastest = Way("float32", "matmul", "onednn")
    assert counts[Way("float32", "matmul", "torch"), 128] == 2
    assert counts[fastest, 256] == 4  # sizes are tried in rounds of their own
    assert decisions["train.micro_batch_size"] == 256
    assert speed.seconds_per_step == pytest.approx(1e-4 * 0.05 * 512 * 8 + 0.5)


def test_ranks_share_the_time_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Stopwatch(monkeypatch, {32: 9.0, 64: 9.0, 128: 1.0, 256: 9.0, 512: 9.0})
    _, speed = measure(ONE, SMALL, World(torch.device("cpu"), 0, 4), watch.reading)
    assert speed.seconds_per_step == pytest.approx(1e-4 * 512 * 8 / 4 + 0.5)


def test_what_has_no_room_in_memory_is_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """float32 never has, and no more than 40 windows have in bfloat16."""
    loss = GPT.loss

    def scarce(model: GPT, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if len(ids) > 40 or not torch.is_autocast_enabled("cpu"):
            raise torch.OutOfMemoryError("out of memory")
        return loss(model, ids, targets)

    monkeypatch.setattr(GPT, "loss", scarce)
    decisions, speed = measure(ONE, SMALL, CPU)
    assert decisions["train.precision"] == "bfloat16"
    assert decisions["train.micro_batch_size"] == 32
    assert 0 < speed.seconds_per_step < 100
    full = load_recipe(None, ["train.precision=float32", "train.device=cpu"])
    with pytest.raises(DeviceError, match="not enough memory for one window of 8 tokens"):
        measure(full, SMALL, CPU)


@pytest.mark.parametrize("full", ["initialise", "optimizer"])
def test_a_model_that_has_no_room_at_all_is_named_in_words(
    monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    def scarce(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    if full == "initialise":
        monkeypatch.setattr(GPT, "initialise", scarce)
    else:
        monkeypatch.setattr(torch.optim.AdamW, "step", scarce)
    with pytest.raises(DeviceError, match="not enough memory for .*weights") as caught:
        measure(ONE, SMALL, CPU)
    assert caught.value.where == "cpu"


def test_a_probe_of_a_large_model_is_cut_to_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    flop = 6 * count_parameters(SMALL) * SMALL.block_size
    monkeypatch.setitem(probe.PROBE_FLOP, "cpu", 300 * flop)
    watch = Stopwatch(monkeypatch, {128: 1.0, 256: 2.0, 300: 0.1, 512: 0.1})
    assert measure(ONE, SMALL, CPU, watch.reading)[0]["train.micro_batch_size"] == 128
    monkeypatch.setitem(probe.PROBE_FLOP, "cpu", 3 * flop)
    watch = Stopwatch(monkeypatch, {3: 1.0})
    assert measure(ONE, SMALL, CPU, watch.reading)[0]["train.micro_batch_size"] == 128


def test_what_was_asked_for_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "onednn_keeps_float32", lambda: False)
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
    assert decide_optimizer(Recipe()) == {"optim.name": "muon", "optim.learning_rate": 6e-3}
    assert decide_optimizer(load_recipe(None, ["model.init=runs/x"]))["optim.name"] == "adamw"
    wide = decide_optimizer(load_recipe(None, ["model.n_embd=1024", "model.n_head=8"]))
    assert wide["optim.learning_rate"] == 3e-3
    given = decide_optimizer(load_recipe(None, ["optim.name=adamw"]))
    assert given["optim.learning_rate"] == 1e-3


def test_averages_are_for_runs_of_many_passes() -> None:
    recipe = load_recipe(None, ["train.batch_size=10", "model.block_size=10", "optim.name=muon"])
    decided = {
        steps: {
            name: value
            for name, value in decide_against_overfitting(recipe, steps, 1000).items()
            if name != "optim.weight_decay"
        }
        for steps in (59, 60, None)
    }
    assert decided[59] == {"model.dropout": 0.0, "optim.average": 0.0}
    assert decided[60] == {"model.dropout": 0.0, "optim.average": 0.1}
    assert decided[None] == {}


@pytest.mark.parametrize(
    ("many", "steps", "rate", "decay"),
    [
        (0.9, 2450, 6e-3, 0.1),  # less than a pass: as usual
        (1.0, 2450, 6e-3, 0.1),
        (6.0, 2700, 6e-3, 0.62),  # an update lives a tenth of the run
        (20.0, 2700, 6e-3, 0.62),
        (6.0, 5400, 6e-3, 0.31),  # a longer run, and a higher rate, need less for it
        (6.0, 2700, 12e-3, 0.31),
        (6**0.5, 2700, 6e-3, 0.25),  # half of the way from 0.6 to 0.1, in logarithms
        (1.01, 100_000, 6e-3, 0.1),  # never less than usual
        (50.0, 30, 6e-3, 8.3),  # 20 steps at least, or the weights would swing
        (6.0, 2700, None, 0.1),
    ],
)
def test_weight_decay_goes_by_how_much_of_the_run_an_update_lives(
    many: float, steps: int, rate: float | None, decay: float
) -> None:
    assert usual_decay(many, steps, rate) == decay


@pytest.mark.parametrize("given", [("model.init=runs/x", "optim.name=muon"), ("optim.name=adamw",)], ids=str)
def test_what_begins_from_weights_and_the_baseline_keep_decay_dropout_and_no_average(
    given: tuple[str, ...],
) -> None:
    recipe = load_recipe(None, [*given, "optim.learning_rate=0.001"])
    decided = decide_against_overfitting(recipe, 10_000, 1000)
    assert decided == {"model.dropout": 0.1, "optim.weight_decay": 0.1, "optim.average": 0.0}


def test_a_run_of_minutes_aims_by_its_speed() -> None:
    speed = Speed(seconds_per_step=0.5, tokens_per_second=1000.0)
    total_steps, decisions = decide_length(
        load_recipe(None, ["train.minutes=10"]), speed, train_tokens=1000, val_tokens=0
    )
    assert total_steps == 1200
    assert decisions["train.eval_interval"] == 120
    assert decisions["optim.warmup_steps"] == 60
    assert decide_length(Recipe(), speed, 1000, 0)[1]["train.minutes"] == 10
    both = load_recipe(None, ["train.minutes=10", "train.max_steps=50"])
    assert decide_length(both, speed, 1000, 0)[0] == 50
    with_evaluation, _ = decide_length(
        load_recipe(None, ["train.minutes=10"]), speed, 1000, val_tokens=30_000
    )
    assert with_evaluation == 1080  # six evaluations of 10 s


@pytest.mark.parametrize(
    ("settings", "val_tokens", "saving_s", "evaluations"),
    [
        ("train.minutes=2", 0, 0.0, 10),
        ("train.minutes=2", 3_000, 0.0, 10),
        ("train.minutes=2", 6_000, 1.0, 4),  # 3 s each, in 12 s
        ("train.minutes=2", 0, 5.0, 2),
        ("train.minutes=2", 300_000, 5.0, 1),  # the end alone, whole as ever
        ("train.minutes=60", 30_000, 5.0, 10),
        ("train.max_steps=1000", 6_000, 1.0, 10),
        ("train.max_steps=100", 6_000, 0.0, 2),
        ("train.max_steps=1", 30_000, 9.0, 1),
    ],
)
def test_what_interrupts_a_short_run_takes_at_most_a_tenth_of_it_but_for_its_end(
    settings: str, val_tokens: int, saving_s: float, evaluations: int
) -> None:
    speed = Speed(seconds_per_step=0.5, tokens_per_second=1000.0)
    recipe = load_recipe(None, settings.split())
    total_steps, decisions = decide_length(recipe, speed, 1000, val_tokens, saving_s)
    assert math.ceil(total_steps / decisions["train.eval_interval"]) == evaluations
    assert decisions["train.checkpoint_interval"] == decisions["train.eval_interval"]
    pause_s, seconds = val_tokens / 3000 + saving_s, 0.5 * total_steps
    assert evaluations == 1 or evaluations * pause_s <= 0.1 * (seconds + evaluations * pause_s) + 1e-9


def test_a_larger_model_and_a_longer_sample_are_saved_for_longer() -> None:
    recipe = load_recipe(None, ["sample.max_new_tokens=100"])
    times = [
        seconds_of_saving(recipe, SMALL),
        seconds_of_saving(load_recipe(None, ["sample.max_new_tokens=200"]), SMALL),
        seconds_of_saving(recipe, replace(SMALL, n_layer=4 * SMALL.n_layer)),
    ]
    assert 0 < times[0] < times[1] < times[2]


@pytest.mark.parametrize(
    ("settings", "device", "gain", "asked", "compiles"),
    [
        ("train.minutes=30", "cpu", 1.3, True, True),
        ("train.minutes=30", "cpu", 1.04, True, False),
        ("train.minutes=29", "cpu", 1.3, False, False),
        ("", "cpu", 1.3, False, False),  # ten minutes
        ("train.max_steps=1800", "cpu", 1.3, True, True),  # of a second each
        ("train.max_steps=1800 train.minutes=10", "cpu", 1.3, False, False),
        ("train.minutes=2", "cuda", 1.3, True, True),
        ("train.minutes=1", "cuda", 1.3, False, False),
    ],
)
def test_a_long_run_is_compiled_where_that_is_faster(
    settings: str, device: str, gain: float, asked: bool, compiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(decide, "has_compiler", lambda device: True)
    monkeypatch.setattr(decide, "gain_of_compiling", lambda *args: calls.append(args) or gain)
    recipe, world = load_recipe(None, settings.split()), World(torch.device(device))
    decisions, speed = decide_compile(recipe, SMALL, world, Speed(1.0, 1000.0), 10_000)
    assert decisions == {"train.compile": compiles}
    assert bool(calls) == asked
    assert speed.tokens_per_second == pytest.approx(1300 if compiles else 1000)
    monkeypatch.setattr(decide, "has_compiler", lambda device: False)
    assert decide_compile(recipe, SMALL, world, speed, 10_000)[0] == {"train.compile": False}


@pytest.mark.parametrize("asked", ["true", "false"])
def test_what_is_asked_of_the_compiler_is_not_decided(asked: str) -> None:
    recipe, speed = load_recipe(None, ["train.minutes=99", f"train.compile={asked}"]), Speed(1.0, 1000.0)
    assert decide_compile(recipe, SMALL, CPU, speed, 10_000) == ({}, speed)


@pytest.mark.parametrize(("settings", "measured_with"), [
    ("train.minutes=10 optim.name=muon", [0.0]),
    ("train.minutes=10 model.init=runs/x", [0.0, 0.1]),  # 600 steps of a second, ten passes
    ("train.minutes=1 model.init=runs/x", [0.0]),
    ("train.minutes=10 model.dropout=0.2", [0.2]),
    ("train.minutes=10 model.dropout=0", [0.0]),
])  # fmt: skip
def test_what_is_measured_is_the_model_that_is_trained(
    settings: str, measured_with: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout costs time; that there is any is known only when the number of steps is."""
    seen = []

    def measured(
        recipe: Recipe, config: GPTConfig, world: World, **_: object
    ) -> tuple[dict[str, str], Speed]:
        seen.append(config.dropout)
        attention = "matmul" if config.dropout else "sdpa"
        return {"train.precision": "float32", "train.attention": attention}, Speed(
            1.0 + config.dropout, 2048.0
        )

    monkeypatch.setattr(run, "measure", measured)
    monkeypatch.setattr(run, "seconds_of_saving", lambda *_: 0.0)
    recipe = load_recipe(None, ["train.compile=false", "optim.learning_rate=1e-3", *settings.split()])
    text = TextSize(characters=120_000, train_tokens=120_000, val_tokens=100)
    decided, total_steps, speed = run.decide_by_measuring(recipe, GPTConfig(50, 1, 1, 8, 128), CPU, text)
    assert seen == measured_with
    assert decided.model.dropout == measured_with[-1]
    assert decided.train.attention == ("matmul" if measured_with[-1] else "sdpa")
    assert total_steps == pytest.approx((recipe.train.minutes or 0) * 60 / (1 + measured_with[-1]), abs=2)
    assert speed.seconds_per_step == 1 + measured_with[-1]


@pytest.mark.parametrize(("settings", "device", "tried"), [
    ("", "cpu", {"sdpa", "matmul"}),
    ("model.dropout=0", "cpu", {"sdpa", "matmul"}),
    ("model.dropout=0.1", "cpu", {"matmul"}),
    ("model.dropout=0.1 train.attention=sdpa", "cpu", {"sdpa"}),
    ("model.dropout=0.1", "cuda", {"sdpa"}),
])  # fmt: skip
def test_torchs_attention_is_not_tried_with_dropout_on_a_cpu(
    settings: str, device: str, tried: set[str]
) -> None:
    """It has every weight in memory at once there: 82M needed 4.1 GB for it, and 2.6 without."""
    recipe = load_recipe(None, settings.split())
    assert {way.attention for way in ways(recipe, torch.device(device))} == tried


def test_experts_are_not_compiled() -> None:
    moe, recipe = GPTConfig(50, 2, 1, 8, 8, family="moe"), load_recipe(None, ["train.minutes=99"])
    assert decide_compile(recipe, moe, CPU, Speed(1.0, 1000.0), 10_000)[0] == {"train.compile": False}


@pytest.mark.parametrize("lacks_memory", ["plain", "compiled"])
def test_compiling_without_memory_is_not_taken(lacks_memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def time_pass(model, rows, device, way, clock, loss_of):  # type: ignore[no-untyped-def]
        return float("inf") if (loss_of == "compiled") == (lacks_memory == "compiled") else 1.0

    monkeypatch.setattr(torch, "compile", lambda function, dynamic: "compiled")
    monkeypatch.setattr(probe, "_time_pass", time_pass)
    assert probe.gain_of_compiling(load_recipe(None), SMALL, torch.device("cpu"), lambda: 0.0) == 0


def test_a_compiler_that_fails_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> float:
        raise RuntimeError("no Triton")

    monkeypatch.setattr(torch, "compile", lambda function, dynamic: broken)
    recipe = load_recipe(None, ["train.micro_batch_size=2", "train.attention=matmul"])
    gain = probe.gain_of_compiling(recipe, SMALL, torch.device("cpu"), iter(range(99)).__next__)
    assert gain == 0
    assert not torch.are_deterministic_algorithms_enabled()


def test_compiling_without_a_compiler_is_refused_early(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(None, ["train.compile=true"])
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/g++" if name == "g++" else None)
    require_compiler(recipe, torch.device("cpu"))
    monkeypatch.setattr("shutil.which", lambda name: None)
    require_compiler(Recipe(), torch.device("cpu"))
    require_compiler(recipe, torch.device("cuda"))
    with pytest.raises(DeviceError, match=r"needs a C\+\+ compiler"):
        require_compiler(recipe, torch.device("cpu"))


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ("optim.name=muon", 0.4),
        ("optim.name=muon train.compile=true", 0.4),
        ("optim.name=muon model.block_size=64", 0.4),
        ("optim.name=muon model.block_size=62", 0.0),
        ("optim.name=muon model.block_size=65", 0.0),
        ("optim.name=adamw", 0.0),
        ("optim.name=muon model.init=runs/x", 0.0),
    ],
)
def test_windows_are_halved_at_first_where_muon_begins_from_nothing(settings: str, share: float) -> None:
    recipe = load_recipe(None, settings.split())
    decided = decide_seq_len_warmup(recipe, recipe.model.block_size)
    assert decided == {"train.seq_len_warmup": share}


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
    assert "available: cpu" in caught.value.hint


def test_ranks_share_a_batch_without_gaps() -> None:
    for size in (1, 2, 3, 4):
        rows = [row for rank in range(size) for row in World(torch.device("cpu"), rank, size).rows(10)]
        assert rows == list(range(10))


def test_the_rate_of_lora_is_above_that_of_all_weights_and_falls_with_the_width() -> None:
    def rate(*settings: str) -> Any:
        return decide_optimizer(load_recipe(None, ["model.init=base", *settings]))["optim.learning_rate"]

    assert rate("finetune.method=lora") == 5 * rate() == 5e-3
    assert rate("finetune.method=lora", "model.n_embd=512") == 2.5e-3 > rate("model.n_embd=512") == 7.1e-4
    assert rate("finetune.method=lora", "optim.name=muon") == 5e-3  # AdamW trains it all the same

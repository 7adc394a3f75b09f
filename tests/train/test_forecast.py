"""Arithmetic before a run, and what it warns of."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.makers.console import here
from tests.makers.processes import python
from yanmo.core.console import Console
from yanmo.core.errors import ConfigError
from yanmo.data.prepare import prepare
from yanmo.eval.baselines import baselines_of
from yanmo.model.config import GPTConfig
from yanmo.model.lora import Adaptation
from yanmo.settings.recipe import load_recipe
from yanmo.settings.schema import Recipe
from yanmo.train.decide import seconds_of_saving
from yanmo.train.forecast import TextSize, describe, forecast
from yanmo.train.probe import Speed

TEXT = TextSize(characters=1_000_000, train_tokens=1_000_000, val_tokens=50_000)
DOUPO = GPTConfig(13317, 10, 12, 768, 1024)
MOE = GPTConfig(8000, 8, 8, 512, 512, family="moe", n_kv_head=4)


def recipe(*settings: str) -> Recipe:
    return load_recipe(
        None,
        [
            "train.device=cpu",
            "train.precision=float32",
            "train.attention=sdpa",
            "train.micro_batch_size=1",
            "optim.name=adamw",
            *settings,
        ],
    )


def test_the_doupo_seeds_numbers() -> None:
    """81,894,144 parameters; 15 epochs at stride 512 of 1024 are 30 passes; 16 bytes a parameter."""
    found = forecast(
        recipe("data.packing=stride", "data.stride=512", "model.block_size=1024", "train.epochs=15",
                "train.batch_size=8"),
        DOUPO, TextSize(5_700_000, 5_400_000, 100_000),
    )  # fmt: skip
    assert found.parameters == 81_894_144
    assert found.parameters_without_embeddings == 81_894_144 - (13317 + 1024) * 768
    assert found.steps == 19_774
    assert found.epochs == pytest.approx(15, rel=1e-3)
    assert found.passes == pytest.approx(30, rel=1e-3)
    assert found.tokens_per_parameter == pytest.approx(5.4 / 81.894, rel=1e-3)
    assert 81_894_144 * 16 < found.memory_bytes < 81_894_144 * 40
    assert found.disk_bytes == 4 * 81_894_144 * 12
    assert found.warnings == ()


def test_every_epochs_checkpoint_takes_its_room() -> None:
    settings = ("model.block_size=1024", "train.epochs=5")
    one = forecast(recipe(*settings), DOUPO, TEXT).disk_bytes
    all_of_them = forecast(recipe(*settings, "train.save_every_epoch=true"), DOUPO, TEXT).disk_bytes
    assert all_of_them - one == 5 * 81_894_144 * 12


def test_muon_keeps_one_moment_of_its_matrices() -> None:
    adamw, muon = (forecast(recipe(f"optim.name={name}"), DOUPO, TEXT) for name in ("adamw", "muon"))
    matrices = 10 * 12 * 768 * 768
    assert adamw.memory_bytes - muon.memory_bytes == 4 * matrices
    assert muon.disk_bytes == 4 * (12 * 81_894_144 - 4 * matrices)


PEAK = """
import sys
import torch
from yanmo.settings.schema import OptimConfig
from yanmo.model.gpt import GPT
from yanmo.model.config import GPTConfig
from yanmo.model.lora import Adaptation
from yanmo.train.optim import build_optimizer
def peak():  # getrusage would begin with that of the process which began this one
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
model = GPT(GPTConfig(3000, 6, 6, 384, 256, family=sys.argv[1]))
model.initialise(0)
ids = torch.zeros(1, 2, dtype=torch.long)
model.loss(ids, ids)  # torch is loaded
before = peak()
model.use_attention("matmul")
optimizer = build_optimizer(model.train(), OptimConfig(name="adamw"))
ids = torch.randint(3000, (8, 256))
for _ in range(2):
    model.loss(ids, ids).backward()
    optimizer.step()
print(peak() - before + sum(p.numel() * 4 for p in model.parameters()))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="has no /proc")
@pytest.mark.parametrize(
    "family", ["gpt2", *(pytest.param(name, marks=pytest.mark.long) for name in ("modern", "moe"))]
)
def test_the_memory_forecast_is_about_what_is_measured(family: Any) -> None:
    done = python("-c", PEAK, family)
    assert done.returncode == 0, done.stderr
    asked = recipe("train.attention=matmul", "train.batch_size=8", "train.micro_batch_size=8")
    found = forecast(asked, GPTConfig(3000, 6, 6, 384, 256, family=family), TEXT)
    assert 0.7 < found.memory_bytes / int(done.stdout) < 1.4


@pytest.mark.parametrize(
    ("settings", "config", "said"),
    [
        (("optim.learning_rate=2e-5",), GPTConfig(300, 2, 2, 64, 64), "learning_rate=2e-05 is a rate for fine-tuning"),
        (("optim.warmup_steps=2000", "train.epochs=1", "train.batch_size=8"), GPTConfig(300, 2, 2, 64, 128), "longer than the run of 977 steps"),
        ((), GPTConfig(50257, 12, 12, 768, 1024), "few for 124,439,808 parameters (0.008 each)"),
        (("train.epochs=60", "optim.weight_decay=0.1"), GPTConfig(300, 2, 2, 64, 128), "60 passes over the text with optim.weight_decay=0.1"),
    ],
)  # fmt: skip
def test_it_warns(settings: tuple[str, ...], config: GPTConfig, said: str) -> None:
    found = forecast(recipe(f"model.block_size={config.block_size}", *settings), config, TEXT)
    assert len(found.warnings) == 1
    assert said in found.warnings[0]


def test_it_warns_of_a_disk_that_is_too_small_and_not_of_weights_to_begin_from() -> None:
    small = GPTConfig(300, 2, 2, 64, 64)
    assert "of disk" in forecast(recipe(), small, TEXT, free_bytes=1000).warnings[0]
    tuned = recipe("optim.learning_rate=2e-5", "model.init=runs/x")
    assert forecast(tuned, GPTConfig(50257, 12, 12, 768, 1024), TEXT).warnings == ()


def test_the_lines_say_what_was_chosen_and_name_the_convention() -> None:
    asked = recipe("train.minutes=10", "optim.learning_rate=1e-3", "sample.top_p=0.8", "train.batch_size=16")
    said = "\n".join(describe(asked, DOUPO, forecast(asked, DOUPO, TEXT)))
    assert "81,894,144 parameters (70,880,256 without token and position tables)" in said
    assert "as many steps as fit, within 10 minutes" in said
    for setting in ("learning_rate=0.001", "minutes=10", "[sample] top_p=0.8\n"):
        assert setting in said
    for usual in ("[tokenizer]", "batch_size=16", "schedule=", "weight_decay=", "temperature="):
        assert usual not in said


@pytest.mark.parametrize(
    ("settings", "steps", "seconds_per_step", "said"),
    [
        (("train.epochs=5",), None, 319.0, "about 9 days 0 h on this CPU: 5 min 19 s per step"),
        (("train.max_steps=1000",), None, 0.05, "about 1 min 04 s on this CPU: 50 ms per step"),
        (("train.max_steps=1000", "train.minutes=10"), 400, 1.5, "about 10 min 00 s on this CPU: 1.5 s per step"),
        (("train.max_steps=7200", "train.device=cuda"), None, 1.0, "about 2 h 00 min on cuda of this machine: 1.0 s"),
    ],
)  # fmt: skip
def test_how_long_it_takes_is_said_where_it_was_measured(
    settings: tuple[str, ...], steps: int | None, seconds_per_step: float, said: str
) -> None:
    asked, speed = recipe(*settings), Speed(seconds_per_step, 1e9)  # evaluations cost nothing
    found = forecast(asked, DOUPO, TEXT, steps, speed=speed)
    (line,) = [line for line in describe(asked, DOUPO, found) if line.startswith("takes")]
    assert said in line
    unknown = forecast(asked, DOUPO, TEXT, steps)
    assert unknown.seconds is None and not any(
        line.startswith("takes") for line in describe(asked, DOUPO, unknown)
    )


def test_evaluations_count_as_time() -> None:
    slow, saving_s = Speed(1.0, 5000.0), seconds_of_saving(recipe(), DOUPO)
    for interval, evaluations in ((10, 1), (4, 3), (1, 10)):
        asked = recipe("train.max_steps=10", f"train.eval_interval={interval}")
        seconds = 10 + evaluations * (50_000 / 15_000 + saving_s)
        assert forecast(asked, DOUPO, TEXT, speed=slow).seconds == pytest.approx(seconds)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """Steps of 0.05 s, whatever is measured; the recipes that were."""
    seen = []

    def measure(recipe: Recipe, *_: object, **__: object) -> tuple[dict[str, object], Speed]:
        seen.append(recipe)
        return {"train.attention": "sdpa", "train.matmul": "torch"}, Speed(0.05, 40_000.0)

    monkeypatch.setattr("yanmo.train.run.measure", measure)
    return seen


def test_plan_names_the_minutes_nobody_asked_for_and_the_steps_they_buy(
    novel: Path, timed: list[Recipe]
) -> None:
    done = here("plan", "novel.txt", "--json")
    found = json.loads(done.stdout)
    assert found["seconds_per_step"] == 0.05 and found["seconds"] == pytest.approx(600, rel=0.01)
    assert found["steps"] == pytest.approx(600 / 0.05, rel=0.05) and found["passes"] > 1
    assert {(one.train.precision, one.train.compile) for one in timed} == {("float32", False)}
    lines = here("plan", "novel.txt").stdout
    assert "within 10 minutes, the default length (train.minutes)" in lines
    assert "takes  about 10 min 00 s on this CPU: 50 ms per step, measured now" in lines
    assert "not compiled" not in lines  # a run tries more
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("length", "steps"), [("train.max_steps=600", 600), ("train.epochs=2", 0), ("train.minutes=1", 1100)]
)
def test_plan_says_how_long_a_recipe_takes(novel: Path, timed: list[Recipe], length: str, steps: int) -> None:
    done = here("plan", "novel.txt", length, "--json")
    found = json.loads(done.stdout)
    assert not steps or found["steps"] == pytest.approx(steps, rel=0.02)
    assert found["seconds"] == pytest.approx(found["steps"] * 0.05, rel=0.15, abs=3)
    assert "the default length" not in here("plan", "novel.txt", length).stdout


def test_plan_says_how_many_times_the_model_could_hold_the_text(
    novel: Path, timed: list[Recipe], console: Console
) -> None:
    found = json.loads(here("plan", "novel.txt", "train.max_steps=9", "--json").stdout)
    assert found["capacity_bits"] == pytest.approx(3.6 * found["parameters"])
    asked = load_recipe(None, ["corpus.path=['novel.txt']"])
    shards = prepare(asked.corpus, asked.tokenizer, asked.data, asked.model.block_size, console).shards
    bigram = baselines_of(shards, found["vocabulary"], 0).bigram
    assert found["text_bits"] == pytest.approx(bigram * shards.manifest.splits.train.characters)
    (line,) = (
        line for line in here("plan", "novel.txt", "train.max_steps=9").stdout.split("\n") if "holds" in line
    )
    assert f"{found['capacity_bits'] / found['text_bits']:,.2f} times the training text's" in line


def test_plan_of_a_model_that_does_not_fit_says_all_but_the_time(
    novel: Path, timed: list[Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yanmo.train.run.physical_memory", lambda: 1 << 20)
    done = here("plan", "novel.txt", "train.epochs=3")
    assert done.returncode == 0 and timed == []
    assert "cannot be measured here: not enough memory for one window of 128 tokens" in done.stderr
    assert "parameters" in done.stdout and " epochs, " in done.stdout and "takes" not in done.stdout
    assert "as many steps as fit, within 10 minutes, the default" in here("plan", "novel.txt").stdout


def test_one_line_says_every_way_that_was_chosen() -> None:
    chosen = recipe("train.threads=2", "train.matmul=onednn", "train.compile=false", "train.seq_len_warmup=0.4",
                    "optim.learning_rate=1e-3")  # fmt: skip
    lines = describe(chosen, DOUPO, forecast(chosen, DOUPO, TEXT))
    assert (
        "by     cpu, 2 threads, float32, sdpa attention, oneDNN's float32, 1 window at a time, not compiled,"
        " adamw at 0.001, sequence-length warm-up for the first 40%"
    ) in lines
    nothing = load_recipe(None, [])
    assert "by     " in describe(nothing, DOUPO, forecast(nothing, DOUPO, TEXT))


def test_experts_and_shared_keys_are_said() -> None:
    asked = recipe("model.family=moe", "model.n_kv_head=4")
    said = "\n".join(describe(asked, MOE, forecast(asked, MOE, TEXT)))
    assert "27,706,880 active: 3 of 16 experts and 1 shared" in said
    assert "8 heads on 4 of keys and values" in said
    assert "KV cache: 16.4 kB per token" in said  # 2 * 8 layers * 4 heads * 64 * 4 bytes


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("model.n_head=7", "is not a multiple of model.n_head=7"),
        ("train.matmul=onednn train.device=cuda:1", "for a CPU, but train.device=cuda:1"),
        ("data.stride=129", "data.stride=129 is larger than model.block_size=128"),
        ("train.epochs=0", "train.epochs"),
    ],
)
def test_what_cannot_be_is_refused(setting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_recipe(None, setting.split())


def test_of_a_frozen_base_memory_and_disk_are_its_own_and_those_of_what_is_trained() -> None:
    asked = recipe("model.init=base", "finetune.method=lora", "finetune.rank=16", "finetune.alpha=32")
    in_half = Adaptation(asked.finetune, (1, 2), torch.bfloat16)
    whole, part = forecast(asked, DOUPO, TEXT), forecast(asked, DOUPO, TEXT, adaptation=in_half)
    per_layer = 16 * (4 * 768 + 2 * 768 + 5 * 768 + 5 * 768)  # qkv, out, up, down
    assert part.trained_parameters == 10 * per_layer + 2 * 768
    assert whole.trained_parameters == whole.parameters == part.parameters
    # weights, gradients and two moments in float32; and the base in two bytes, with its copy while it is read
    assert whole.memory_bytes - part.memory_bytes > 9 * part.parameters
    assert part.disk_bytes == pytest.approx(
        whole.disk_bytes * (2 * part.parameters + 16 * part.trained_parameters) / (12 * part.parameters),
        rel=0.01,
    )
    said = "\n".join(describe(asked, DOUPO, part))
    assert (
        f"trains {part.trained_parameters:,} parameters: LoRA of rank 16, alpha 32; the others are frozen"
        in said
    )
    assert "trains" not in "\n".join(describe(recipe(), DOUPO, forecast(recipe(), DOUPO, TEXT)))

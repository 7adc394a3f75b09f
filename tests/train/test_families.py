"""Every family is trained by the same loop: it stops, goes on, shares its batches, and opens elsewhere."""

import json
from pathlib import Path

import pytest
import torch

from tests.makers.ranks import loss_values, run
from tests.makers.runs import RUN, TINY, StopAt, Trained, tiny_recipe, weights, without_times
from yanmo.checkpoint.folder import load_model, load_model_and_tokenizer
from yanmo.core.console import Console
from yanmo.core.errors import ConfigError, Stopped
from yanmo.core.storage import read_json
from yanmo.eval.assess import assess
from yanmo.generate.engine import make_writer
from yanmo.generate.text import write_all
from yanmo.model.config import GPTConfig
from yanmo.model.gpt import count_active, count_parameters
from yanmo.model.moe import BIAS_STEP, routers_of, update_router_bias
from yanmo.settings.recipe import load_recipe, recipe_path
from yanmo.settings.schema import SampleConfig
from yanmo.train import step
from yanmo.train.metrics import read_metrics
from yanmo.train.trainer import train

MODERN = ("model.family=modern", "model.n_kv_head=1", "model.dropout=0.1")
MOE = ("model.family=moe", "model.n_expert=4", "model.n_expert_active=2", "model.expert_inner=16")
UNTIED = ("model.family=modern", "model.tied_head=false", "model.zero_projections=true")
FAMILIES = pytest.mark.parametrize("family", [MODERN, UNTIED, MOE], ids=["modern", "untied", "moe"])


@pytest.mark.parametrize(
    ("family", "precision"),
    [
        (MODERN, "float32"),
        pytest.param(UNTIED, "bfloat16", marks=pytest.mark.slow),
        (MOE, "float32"),
        pytest.param(MOE, "bfloat16", marks=pytest.mark.slow),
    ],
    ids=["modern", "untied", "moe", "moe, bfloat16"],
)
def test_a_stopped_run_equals_one_that_was_not(
    family: tuple[str, ...], precision: str, novel: Path, console: Console
) -> None:
    recipe = tiny_recipe(novel, more=(*family, f"train.precision={precision}"))
    train(recipe, Path("whole"), console)
    with pytest.raises(Stopped):
        train(recipe, RUN, console, take_step=StopAt(6))
    train(recipe, RUN, console)
    assert weights(RUN) == weights(Path("whole"))
    resumed, whole = (
        [row for row in without_times(folder) if row["event"] in ("train", "eval")]
        for folder in (RUN, Path("whole"))
    )
    assert resumed == whole


@FAMILIES
def test_transformers_opens_a_run(family: tuple[str, ...], trained: Trained) -> None:
    from transformers import AutoModelForCausalLM

    trained(RUN, *family)
    ids, folder = torch.randint(30, (2, 16)), (RUN / "model").resolve()
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert type(theirs).__name__ == read_json(folder / "config.json")["architectures"][0]
    torch.testing.assert_close(load_model(folder).eval()(ids), theirs(ids).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "between", "active"),
    [("modern_small", 23_209_472, 23_209_472), ("moe_small", 72_812_032, 23_610_880)],
)
def test_the_small_recipes_run_in_miniature(
    name: str, between: int, active: int, novel: Path, console: Console
) -> None:
    whole = GPTConfig.of(load_recipe(recipe_path(name)).model, 8000)
    tables = 8000 * 512
    assert (count_parameters(whole) - tables, count_active(whole) - tables) == (between, active)
    recipe = load_recipe(recipe_path(name), [f"corpus.path=['{novel}']", *TINY, "model.n_kv_head=1"])
    train(recipe, RUN, console)
    assert load_model(RUN / "model").config.family == name.removesuffix("_small")


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", [pytest.param(MODERN[:2], marks=pytest.mark.long), MOE], ids=["modern", "moe"]
)
def test_two_ranks_give_the_losses_of_one(family: tuple[str, ...], novel: Path) -> None:
    for ranks in (1, 2):
        done = run(ranks, f"ranks-{ranks}", *family, "optim.name=adamw", "optim.learning_rate=1e-3")
        assert done.returncode == 0, done.stderr
    assert loss_values("ranks-2") == pytest.approx(loss_values("ranks-1"), abs=1e-5)
    biases = [
        torch.stack([router.bias for router in routers_of(load_model(Path(f"ranks-{ranks}/model")))])
        for ranks in (1, 2)
        if family is MOE
    ]
    assert not biases or torch.equal(*biases)  # so both ranks' tokens were counted


def test_experts_are_balanced_by_what_is_logged(trained: Trained) -> None:
    trained(RUN, *MOE, "train.eval_interval=1")
    rows = [row for row in read_metrics(RUN) if row["event"] == "experts"]
    assert [(row["step"], row["layer"]) for row in rows] == [(step, 0) for step in range(1, 13)]
    loads = torch.tensor([row["load"] for row in rows])[:, None]  # (steps, layers, experts)
    assert loads.shape == (12, 1, 4)
    torch.testing.assert_close(loads.mean(-1), torch.ones(12, 1), atol=1e-3, rtol=0)
    busiest = [row["busiest_expert"] for row in read_metrics(RUN) if row["event"] == "train"]
    assert busiest == pytest.approx(loads.amax((1, 2)).tolist(), abs=1e-3)
    expected = (1 - loads).clamp(-1, 1).sum(0) * BIAS_STEP  # (layers, experts)
    last = load_model(RUN / "checkpoints" / "step-00000012")
    torch.testing.assert_close(
        torch.stack([router.bias for router in routers_of(last)]), expected, atol=1e-3, rtol=0
    )


def test_a_modern_model_is_taught_a_longer_window(novel: Path, trained: Trained, console: Console) -> None:
    """It has no table of positions that would end."""
    trained("first", *MODERN)
    without_shape = [setting for setting in TINY if not setting.startswith("model.")]
    settings = [f"corpus.path=['{novel}']", *without_shape, "model.init=first"]
    longer = load_recipe(None, [*settings, "model.block_size=32", "model.rope_theta=40000"])
    train(longer, Path("second"), console)
    config = load_model(Path("second/model")).config
    assert (config.block_size, config.rope_theta, config.n_kv_head) == (32, 40_000, 1)
    assert "model.n_layer" in load_recipe(Path("second/recipe.toml")).decided
    again = load_recipe(Path("second/recipe.toml"), ["model.rope_theta=50000"])
    assert again.model.block_size == 32  # asked for, so no decision
    other = load_recipe(None, [*settings, "model.n_embd=32"])
    with pytest.raises(ConfigError, match="model.n_embd=32, but the weights have 16"):
        train(other, Path("third"), console)


def test_weights_of_a_moe_bring_their_biases(novel: Path, trained: Trained, console: Console) -> None:
    trained("first", *MOE)
    settings = [setting for setting in TINY if not setting.startswith("model.")]
    more = ("model.init=first", "optim.learning_rate=0", "optim.name=adamw", "train.max_steps=1")
    train(load_recipe(None, [f"corpus.path=['{novel}']", *settings, *more]), RUN, console)
    first, second = (
        routers_of(load_model(folder))[0].bias for folder in (Path("first/model"), RUN / "model")
    )
    assert 0 < (second - first).abs().max() < 1.01 * BIAS_STEP
    assert first.abs().max() > 1.1 * BIAS_STEP


@pytest.mark.slow
def test_attention_may_stay_within_documents(novel: Path, console: Console) -> None:
    texts = Path("texts.jsonl")
    lines = novel.read_text(encoding="utf-8").splitlines()
    texts.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines if line), encoding="utf-8")
    found = {}
    for mask in ("false", "true"):
        for attention in ("matmul", "sdpa"):
            more = (f"data.document_mask={mask}", f"train.attention={attention}", "model.family=modern")
            found[mask, attention] = train(tiny_recipe(texts, more=more), Path(mask + attention), console)
    losses = {key: result.progress.val_loss for key, result in found.items()}
    assert losses["true", "sdpa"] == pytest.approx(losses["true", "matmul"], abs=1e-3)
    assert abs(losses["true", "sdpa"] - losses["false", "sdpa"]) > 1e-3  # type: ignore[operator]
    own = assess(Path("truematmul"), (), 16, console).evaluation.loss
    assert own == pytest.approx(losses["true", "matmul"], abs=0.05)


@pytest.mark.parametrize("family", [("model.family=gpt2",), MODERN, MOE], ids=["gpt2", "modern", "moe"])
def test_a_model_writes_in_bfloat16(family: tuple[str, ...], trained: Trained) -> None:
    trained(RUN, *family)
    model, tokenizer = load_model_and_tokenizer(RUN / "model")
    biases = [router.bias.clone() for router in routers_of(model)]
    writer = make_writer(model, torch.device("cpu"), "bfloat16", None)
    sampled = SampleConfig(max_new_tokens=40, num_samples=2)
    assert all(write_all(writer, tokenizer, "春风", sampled))
    assert all(torch.equal(a, router.bias) for a, router in zip(biases, routers_of(writer), strict=True))


@pytest.mark.long
def test_without_the_bias_experts_go_idle(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 steps on the embedded corpus: the busiest expert of the last steps, in shares of the mean."""
    settings = (
        "corpus.path=['yanmo:demo']", "model.family=moe", "model.n_layer=3", "model.n_embd=64",
        "train.max_steps=200", "train.eval_interval=200", "sample.max_new_tokens=1", "train.device=cpu",
        "train.threads=1", "train.precision=float32", "train.attention=matmul", "model.dropout=0",
    )  # fmt: skip
    busiest = {}
    for name in ("balanced", "alone"):
        train(load_recipe(None, settings), Path(name), console)
        rows = [row for row in read_metrics(Path(name)) if row["event"] == "train"]
        busiest[name] = max(row["busiest_expert"] for row in rows[-3:])
        monkeypatch.setattr(
            step, "update_router_bias", lambda model, total: update_router_bias(model, total, step=0.0)
        )
    assert busiest["balanced"] < 1.5 < busiest["alone"], busiest

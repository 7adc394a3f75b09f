"""The shape of a model: what is left open is filled in, and config.json says it all."""

import contextlib
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from yanmo.checkpoint.hf_config import from_config_json, to_config_json
from yanmo.core.errors import CheckpointError, ConfigError
from yanmo.model.config import GPTConfig
from yanmo.model.gpt import count_active, count_between, count_parameters
from yanmo.model.rotary import rotation_at
from yanmo.settings.recipe import decide, load_recipe, to_toml
from yanmo.train.decide import decide_shape

GPT2 = GPTConfig(321, 2, 4, 32, 16, dropout=0.1)
MODERN = GPTConfig(
    321, 2, 4, 32, 16, 0.1, "modern", n_kv_head=2, head_dim=16, tied_head=False, rope_theta=5e5
)
MOE = GPTConfig(
    321, 3, 4, 32, 16, family="moe", n_expert=6, n_expert_active=2, expert_scaling=2.5, n_dense_layer=2
)
NOT_THE_SHAPE = ("architectures", "dtype", "bos_token_id", "eos_token_id", "attn_pdrop", "embd_pdrop", "n_ctx",
                 "max_window_layers", "sliding_window", "rope_theta", "use_cache")  # fmt: skip
SHAPES = [GPT2, replace(GPT2, n_inner=96), MODERN, GPTConfig(50, 1, 1, 8, 8, family="modern"), MOE]


def test_what_is_left_open_is_as_usual() -> None:
    assert (GPT2.n_kv_head, GPT2.head_dim, GPT2.n_inner) == (4, 8, 128)
    modern = GPTConfig(1000, 12, 12, 768, 1024, family="modern")
    assert (modern.n_kv_head, modern.head_dim, modern.n_inner, modern.rope_theta) == (12, 64, 2048, 10_000)
    moe = GPTConfig(1000, 12, 12, 768, 1024, family="moe")
    assert (moe.n_expert, moe.n_expert_active, moe.n_expert_shared, moe.expert_inner) == (16, 3, 1, 512)
    assert [moe.has_experts(layer) for layer in range(3)] == [False, True, True]


@pytest.mark.parametrize("config", SHAPES)
def test_the_shape_survives_config_json(config: GPTConfig) -> None:
    assert from_config_json(to_config_json(config, 0), "here") == config


@pytest.mark.parametrize("config", SHAPES)
def test_the_shape_survives_a_recipe(config: GPTConfig) -> None:
    recipe = load_recipe(
        None, [f"model.{k}={str(v).lower()}" for k, v in config.settings().items() if v is not None]
    )
    assert (
        replace(GPTConfig.of(recipe.model, 321), dropout=config.dropout, vocab_size=config.vocab_size)
        == config
    )


@pytest.mark.parametrize("config", [GPT2, MODERN, MOE], ids=lambda config: config.family)
def test_a_key_that_is_missing_means_what_transformers_takes_it_for(config: GPTConfig) -> None:
    """Or it is refused."""
    from transformers import AutoConfig

    values = to_config_json(config, 0)
    for key in sorted(set(values) - {"model_type", "n_layer", "n_embd", "num_hidden_layers", "hidden_size"}):
        without = {k: v for k, v in values.items() if k != key}
        try:
            shape = from_config_json(without, "here")
        except CheckpointError:
            continue
        theirs = AutoConfig.for_model(**without)
        for name, value in to_config_json(shape, 0).items():
            if hasattr(theirs, name) and name not in NOT_THE_SHAPE:
                assert getattr(theirs, name) == value, f"{name} without {key}"


@pytest.mark.parametrize(
    ("config", "change", "what"),
    [
        (GPT2, {"model_type": "llama"}, "model_type='llama'; yanmo knows gpt2, qwen3, dots1"),
        (GPT2, {"activation_function": "relu"}, "activation_function='relu'"),
        (MODERN, {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_type='yarn'"),
        (MODERN, {"rope_scaling": {"type": "linear"}}, "rope_scaling="),
        (MODERN, {"use_sliding_window": True}, "use_sliding_window=True"),
        (MODERN, {"layer_types": ["full_attention", "sliding_attention"]}, "sliding layers=True"),
        (MODERN, {"attention_bias": True}, "attention_bias=True"),
        (MODERN, {"rms_norm_eps": 1e-5}, "rms_norm_eps=1e-05"),
        (MOE, {"norm_topk_prob": False}, "norm_topk_prob=False"),
        (MOE, {"n_group": 2}, "n_group=2"),
        (MOE, {"n_routed_experts": ...}, "lacks 'n_routed_experts'"),
        (MOE, {"n_routed_experts": 1, "num_experts_per_tok": 1}, "enough experts=False"),
        (MOE, {"sliding_window": 64, "max_window_layers": 1}, "sliding layers=True"),
        (MOE, {"norm_topk_prob": ...}, "norm_topk_prob=False"),
    ],
)
def test_what_ours_does_not_compute_is_refused(config: GPTConfig, change: dict[str, Any], what: str) -> None:
    values = to_config_json(config, 0) | change
    with pytest.raises(CheckpointError) as caught:
        from_config_json({key: value for key, value in values.items() if value is not ...}, "here")
    assert what in caught.value.what


ODD_VALUES = (None, 0, -1, 3, 64, 10**30, 1.5, float("nan"), "x", "", [], [1], {}, {"a": 1}, True, False)


@pytest.mark.parametrize("config", [GPT2, MODERN, MOE])
def test_any_value_of_any_key_is_a_shape_or_an_error_in_words(config: GPTConfig) -> None:
    values = to_config_json(config, 0)
    for key, value in itertools.product(values, ODD_VALUES):
        with contextlib.suppress(CheckpointError):
            assert from_config_json(values | {key: value}, "here").vocab_size > 0


@pytest.mark.parametrize("rope", [3, 1.5, "yarn", [1], True])
def test_rope_parameters_of_another_kind_are_refused_by_name(rope: Any) -> None:
    with pytest.raises(CheckpointError, match="rope_parameters="):
        from_config_json(to_config_json(MODERN, 0) | {"rope_parameters": rope}, "here")


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ("model.family=gpt2 model.n_kv_head=2", "model.n_kv_head=2 has no effect in a gpt2 model"),
        ("model.family=gpt2 model.tied_head=false", "model.tied_head=False has no effect in a gpt2 model"),
        ("model.family=gpt2 model.rope_theta=1e6", "rope_theta=1000000.0 has no effect"),
        ("model.n_expert=4", "n_expert=4 has no effect in a modern model"),
        ("model.family=modern model.n_kv_head=3", "is not a multiple of model.n_kv_head=3"),
        ("model.family=modern model.head_dim=7", "an even head width, not 7"),
        ("model.family=moe model.n_expert=1", "greater than or equal to 2"),
        ("model.family=gpt2 model.n_embd=10 model.n_head=3 model.head_dim=3", "is not a multiple of"),
        ("model.init=x model.zero_projections=true", "overwrite the weights"),
        ("model.family=moe model.n_expert=2", "n_expert_active=3 is more than model.n_expert=2"),
    ],
)
def test_what_a_family_does_not_have_is_refused(settings: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(None, settings.split())
    assert what in caught.value.what


def test_parameters_total_and_active() -> None:
    modern = GPTConfig(32000, 12, 12, 768, 1024, family="modern")
    layer = 4 * 768 * 768 + 2 * 64 + 3 * 768 * 2048 + 2 * 768
    assert count_parameters(modern) == count_active(modern) == 32000 * 768 + 12 * layer + 768
    assert count_between(modern) == 12 * layer + 768
    assert count_parameters(replace(modern, tied_head=False)) == count_parameters(modern) + 32000 * 768
    moe = GPTConfig(32000, 12, 12, 768, 1024, family="moe")
    router = 16 * 768
    assert count_active(moe) == count_parameters(modern) + 11 * router
    assert count_parameters(moe) - count_active(moe) == 11 * 13 * 3 * 768 * 512


def test_a_resolved_recipe_takes_another_shape() -> None:
    """What was decided for the old one is open again; what somebody wrote stands."""
    made = decide(load_recipe(None, ["model.n_inner=100"]), decide_shape(load_recipe(None)))
    Path("made.toml").write_text(to_toml(made), encoding="utf-8")
    wider = load_recipe(Path("made.toml"), ["model.n_embd=512", "model.n_head=8"])
    assert (wider.model.head_dim, wider.model.n_kv_head, wider.model.n_inner) == (None, None, 100)
    assert "model.head_dim" not in wider.decided
    again = decide(load_recipe(Path("made.toml"), ["train.max_steps=5"]), decide_shape(made))
    assert (again.model.head_dim, again.model.n_inner) == (64, 100)  # by rule, and as before
    older = load_recipe(Path("made.toml"), ["model.family=gpt2"])
    assert GPTConfig.of(older.model, 9).family == "gpt2"


def test_rotations_are_those_of_transformers() -> None:
    from transformers import Qwen3Config
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

    for theta, D in ((1e4, 64), (1e6, 128), (5e5, 6)):
        rope = {"rope_type": "default", "rope_theta": theta}
        config = Qwen3Config(hidden_size=2 * D, num_attention_heads=2, head_dim=D, rope_parameters=rope)
        position = torch.arange(40_960)
        cos, sin = Qwen3RotaryEmbedding(config)(torch.zeros(1), position[None])
        found = rotation_at(position, D, theta, torch.float32)
        assert torch.equal(found.cos[:, 0], cos[0])
        assert torch.equal(found.sin[:, 0, D // 2 :], sin[0, :, D // 2 :])

"""Frozen bases: what an adapted model computes, what it learns, and what it holds in memory."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.makers.models import adapted, disturbed, drawn
from yanmo.model.config import GPTConfig
from yanmo.model.gpt import GPT
from yanmo.model.lora import (
    LoRALinear,
    load_base,
    lora_layers,
    merged,
)
from yanmo.settings.schema import FinetuneConfig

CPU = torch.device("cpu")
TOKENS = (7, 3)
LORA = FinetuneConfig(method="lora", rank=3, alpha=5.0)
LAST = FinetuneConfig(method="last", layers=1)
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"family": "gpt2"},
    "modern": {"family": "modern", "n_kv_head": 2},
    "untied": {"family": "modern", "tied_head": False},
    "moe": {"family": "moe", "n_expert": 4, "n_expert_active": 2, "expert_inner": 8},
}
every_family = pytest.mark.parametrize("shape", FAMILIES.values(), ids=FAMILIES)


def shape_of(shape: dict[str, Any]) -> GPTConfig:
    return GPTConfig(40, n_layer=2, n_head=4, n_embd=16, block_size=12, **shape)


def windows() -> tuple[Tensor, Tensor]:
    ids = torch.randint(40, (3, 13), generator=torch.Generator().manual_seed(1))
    ids[:, 2:9:3] = torch.tensor(TOKENS + TOKENS[:1])
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def plain(model: GPT) -> GPT:
    """The merged model."""
    found = GPT(model.config)
    found.load_state_dict(merged(model))
    return found.train()


@every_family
@pytest.mark.parametrize("finetune", [LORA, LAST], ids=["lora", "last"])
def test_an_adapted_model_begins_where_its_base_is(shape: dict[str, Any], finetune: FinetuneConfig) -> None:
    base, (ids, _) = drawn(shape_of(shape)), windows()
    model = adapted(base, finetune, TOKENS)
    assert all(torch.equal(tensor, base.state_dict()[name]) for name, tensor in merged(model).items())
    torch.testing.assert_close(model.eval()(ids), base(ids), atol=1e-6, rtol=0)


@every_family
@pytest.mark.parametrize("finetune", [LORA, LAST], ids=["lora", "last"])
def test_a_merged_model_computes_what_the_adapted_one_does(
    shape: dict[str, Any], finetune: FinetuneConfig
) -> None:
    base, (ids, targets) = drawn(shape_of(shape)), windows()
    model = disturbed(adapted(base, finetune, TOKENS))
    whole = plain(model)
    assert not torch.allclose(model.eval()(ids), base(ids), atol=1e-2)
    torch.testing.assert_close(model(ids), whole.eval()(ids), atol=1e-4, rtol=0)
    torch.testing.assert_close(model.loss(ids, targets), whole.loss(ids, targets), atol=1e-3, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(model.loss(ids, targets), whole.loss(ids, targets), atol=1e-3, rtol=0)


@every_family
def test_gradients_are_those_of_the_whole_weights_seen_through_the_corrections(shape: dict[str, Any]) -> None:
    model, (ids, targets) = disturbed(adapted(drawn(shape_of(shape)), LORA, TOKENS)), windows()
    whole = plain(model)
    for either in (model, whole):
        either.loss(ids, targets).backward()
    of_whole = dict(whole.named_parameters())
    assert len(lora_layers(model)) >= 8
    for name, layer in lora_layers(model).items():
        gradient = of_whole[f"{name}.weight"].grad
        assert gradient is not None
        expected = (layer.scale * layer.lora_b.T @ gradient, layer.scale * gradient @ layer.lora_a.T)
        for found, wanted in zip((layer.lora_a.grad, layer.lora_b.grad), expected, strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)
    tables = {"tokens.weight": model.token_rows, "lm_head.weight": model.lm_head_rows}
    for name, rows in tables.items():
        if rows is not None:
            torch.testing.assert_close(
                rows.weight.grad,
                of_whole[name].grad[list(TOKENS)],
                atol=1e-3,
                rtol=1e-3,  # type: ignore[index]
            )
    assert (model.lm_head_rows is None) == model.config.tied_head


def test_gradients_of_several_micro_batches_add_up() -> None:
    model, (ids, targets) = disturbed(adapted(drawn(shape_of(FAMILIES["modern"])), LORA, TOKENS)), windows()
    model.loss(ids, targets).backward()
    at_once = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    for row in range(len(ids)):
        model.loss(ids[row : row + 1], targets[row : row + 1]).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, at_once[name], atol=1e-4, rtol=1e-4)


def test_only_what_is_asked_for_is_trained() -> None:
    base = drawn(shape_of(FAMILIES["moe"]))
    names = {name for name, p in adapted(base, LORA, TOKENS).named_parameters() if p.requires_grad}
    assert all(name.endswith(("lora_a", "lora_b")) or name == "token_rows.weight" for name in names)
    assert "blocks.1.mlp.shared.down.lora_a" in names and not any("experts" in name for name in names)
    names = {name for name, p in adapted(base, LAST, TOKENS).named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in names} == {"blocks", "norm", "token_rows"}
    assert {name.split(".")[1] for name in names if name.startswith("blocks")} == {"1"}


def test_first_corrections_are_drawn_from_the_seed_alone() -> None:
    base = drawn(shape_of(FAMILIES["modern"]))
    torch.manual_seed(1)
    one = adapted(base, LORA, TOKENS)
    torch.manual_seed(2)
    other = adapted(base, LORA, TOKENS)
    before = torch.get_rng_state()
    load_base(one, dict(base.state_dict()), CPU, seed=5)
    assert torch.equal(before, torch.get_rng_state())
    for first, second in zip(lora_layers(one).values(), lora_layers(other).values(), strict=True):
        assert torch.equal(first.lora_a, second.lora_a)
        assert first.lora_a.abs().max() <= 1 / first.lora_a.size(1) ** 0.5
        assert first.lora_a.std() > 0.5 * (3 * first.lora_a.size(1)) ** -0.5
        assert not first.lora_b.any()


@every_family
def test_a_base_in_bfloat16_stays_so_and_is_computed_with_in_the_precision_of_the_run(
    shape: dict[str, Any],
) -> None:
    base, (ids, targets) = drawn(shape_of(shape)), windows()
    for parameter in base.parameters():
        parameter.data = parameter.data.bfloat16().float()
    half, single = (
        disturbed(adapted(base, LORA, TOKENS, dtype)) for dtype in (torch.bfloat16, torch.float32)
    )
    for name, parameter in half.named_parameters():
        frozen_matrix = parameter.dim() >= 2 and not parameter.requires_grad
        assert parameter.dtype == (torch.bfloat16 if frozen_matrix else torch.float32), name
    for model in (half, single):
        model.loss(ids, targets).backward()
    assert torch.equal(half.loss(ids, targets), single.loss(ids, targets))
    for name, parameter in half.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, single.get_parameter(name).grad, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(half.eval()(ids), single.eval()(ids), atol=1e-5, rtol=0)
    assert {tensor.dtype for tensor in merged(half).values()} == {torch.bfloat16}


@pytest.mark.parametrize("autocast", [False, True])
def test_no_copy_of_a_frozen_matrix_is_kept_for_the_backward_pass(autocast: bool) -> None:
    """Cast copies would be the whole model once more."""
    model = adapted(
        drawn(shape_of(FAMILIES["gpt2"])), LORA, TOKENS, torch.float32 if autocast else torch.bfloat16
    )
    inside = {tuple(layer.weight.shape) for layer in lora_layers(model).values()}
    inside |= {tuple(reversed(shape)) for shape in inside} | {tuple(model.tokens.weight.shape)}
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = []

    def keep(tensor: Tensor) -> Tensor:
        if tuple(tensor.shape) in inside and tensor.untyped_storage().data_ptr() not in own:
            kept.append(tensor.shape)
        return tensor

    ids, targets = windows()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = model.loss(ids, targets)
        loss.backward()
    assert not kept


def test_a_layer_with_a_correction_is_the_formula() -> None:
    model = disturbed(adapted(drawn(shape_of(FAMILIES["gpt2"])), LORA, TOKENS))
    layer = model.get_submodule("blocks.0.attention.qkv")
    assert isinstance(layer, LoRALinear) and layer.lora_a.shape == (3, 16)
    x = torch.randn(5, 16)
    expected = x @ layer.weight.T + layer.bias + 5 / 3 * (x @ layer.lora_a.T) @ layer.lora_b.T
    torch.testing.assert_close(layer(x), expected)

from typing import Any

import pytest
import torch

from tests.makers.models import adapted
from yanmo.model.config import GPTConfig
from yanmo.model.gpt import GPT
from yanmo.settings.schema import FinetuneConfig, OptimConfig
from yanmo.train.optim import build_optimizer, hidden_matrices

OPTIM = OptimConfig(name="adamw", learning_rate=0.01, weight_decay=0.1, beta1=0.9, beta2=0.95)


def model_with_gradients(seed: int = 0, family: Any = "gpt2") -> GPT:
    model = GPT(GPTConfig(30, 2, 2, 8, 8, family=family))
    model.initialise(seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return model


def test_norms_and_biases_do_not_decay_and_everything_else_does() -> None:
    model = model_with_gradients()
    optimizer = build_optimizer(model, OPTIM)
    decayed = {id(p) for group in optimizer.groups if group["weight_decay"] for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in decayed) == (not name.endswith("bias") and "norm" not in name), name
    assert sum(len(group["params"]) for group in optimizer.groups) == len(list(model.parameters()))


def test_a_step_equals_the_definition_of_adamw() -> None:
    """Loshchilov & Hutter 2019, algorithm 2, in float64."""
    model = model_with_gradients()
    before = {name: p.detach().double() for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, OPTIM)
    optimizer.set_learning_rate(0.003)
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        gradient = parameter.grad.double()
        m, v = 0.1 * gradient, 0.05 * gradient**2
        decay = 0.1 if parameter.dim() >= 2 else 0.0
        update = (m / 0.1) / ((v / 0.05).sqrt() + 1e-8) + decay * before[name]
        torch.testing.assert_close(parameter.double(), before[name] - 0.003 * update, atol=1e-6, rtol=1e-5)


def test_steps_equal_torchs_plain_adamw() -> None:
    ours, theirs = model_with_gradients(), model_with_gradients()
    optimizer = build_optimizer(ours, OPTIM)
    matrices = [p for p in theirs.parameters() if p.dim() >= 2]
    rest = [p for p in theirs.parameters() if p.dim() < 2]
    reference = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
        lr=0.01, betas=(0.9, 0.95), foreach=False,
    )  # fmt: skip
    for _ in range(5):
        optimizer.step()
        reference.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_state_survives_a_round_trip_bit_for_bit(name: str) -> None:
    optim = OPTIM.model_copy(update={"name": name})
    one = model_with_gradients()
    first = build_optimizer(one, optim)
    assert not first.tensors(one)
    first.step()
    two = model_with_gradients()
    two.load_state_dict(one.state_dict())
    second = build_optimizer(two, optim)
    second.load(two, {})  # of a checkpoint before the first update
    assert not second.tensors(two)
    second.load(two, {k: v.clone() for k, v in first.tensors(one).items()})
    for _ in range(3):
        first.step()
        second.step()
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    state = second.tensors(two)
    assert all(torch.equal(tensor, state[name]) for name, tensor in first.tensors(one).items())
    matrices = len(hidden_matrices(one)) if name == "muon" else 0
    assert len(state) == 2 * matrices + 3 * (len(list(one.parameters())) - matrices)


GATED = ("mlp.gate.weight", "mlp.up.weight", "mlp.down.weight")
SEPARATE = tuple(f"attention.{name}.weight" for name in ("q", "k", "v", "out"))
OWNED = {
    "gpt2": ("attention.qkv.weight", "attention.out.weight", "mlp.up.weight", "mlp.down.weight"),
    "modern": SEPARATE + GATED,
    "moe": SEPARATE
    + tuple(f"mlp.experts.{name}" for name in ("gate", "up", "down"))
    + tuple(f"mlp.shared.{name}.weight" for name in ("gate", "up", "down")),
}


@pytest.mark.parametrize("family", ["gpt2", "modern", "moe"])
def test_muon_owns_the_matrices_of_the_blocks_and_nothing_else(family: Any) -> None:
    model = model_with_gradients(family=family)
    muon, adamw = build_optimizer(model, OptimConfig(name="muon")).parts
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    owned = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    dense = {f"blocks.0.{part}" for part in OWNED["modern" if family == "moe" else family]}
    assert owned == dense | {f"blocks.1.{part}" for part in OWNED[family]}
    others = {names[id(p)] for group in adamw.param_groups for p in group["params"]}
    assert owned | others == set(names.values())
    assert not owned & others


@pytest.mark.parametrize("method", ["lora", "last"])
def test_only_what_is_trained_is_updated_and_muon_takes_whole_matrices_alone(method: Any) -> None:
    asked = {"lora": {"rank": 2, "alpha": 4.0}, "last": {"layers": 1}}[method]
    base = model_with_gradients(family="modern")
    model = adapted(base, FinetuneConfig(method=method, **asked), tokens=(3,))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = build_optimizer(model, OptimConfig(name="muon", learning_rate=0.01))
    model.loss(torch.arange(8)[None], torch.arange(1, 9)[None]).backward()
    optimizer.set_learning_rate(0.01)
    optimizer.step()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    changed = {name for name, now in model.state_dict().items() if not torch.equal(now, before[name])}
    assert changed == trained  # A, too, whose gradient is zero while B is: it decays
    of_muon = {
        name.partition("/")[0] for name in optimizer.tensors(model) if name.endswith("/momentum_buffer")
    }
    assert of_muon == {n for n in trained if method == "last" and n.startswith("blocks") and "norm" not in n}

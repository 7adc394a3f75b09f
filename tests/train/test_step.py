"""The gradient of a step does not depend on how the batch is cut."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from yanmo.data.batches import Batches
from yanmo.model.config import GPTConfig
from yanmo.model.gpt import GPT
from yanmo.parallel.distributed import World
from yanmo.settings.schema import OptimConfig
from yanmo.train.optim import build_optimizer
from yanmo.train.step import (
    GROWTH_STEPS,
    Loss,
    LossScale,
    StepSettings,
    accumulate_gradient,
    in_parts,
    noise_seed,
    training_step,
)

CPU = torch.device("cpu")


class Row:
    def __init__(self, length: int) -> None:
        self._values = np.random.default_rng(0).integers(0, 40, length)

    def __len__(self) -> int:
        return len(self._values)

    def at(self, positions: np.ndarray) -> np.ndarray:
        return self._values[positions]


def small_model(dropout: float = 0.0) -> GPT:
    model = GPT(GPTConfig(40, 2, 2, 16, 10, dropout))
    model.initialise(0)
    return model.train()


def batches() -> Batches:
    return Batches(Row(103), 10, 8, seed=1)  # type: ignore[arg-type]  # 11 windows, the last one short


def settings(micro: int, clip: float = 0.0) -> StepSettings:
    return StepSettings(seed=1, batch_size=8, micro_batch_size=micro, grad_clip=clip, autocast=nullcontext)


def gradient(model: GPT) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters()])  # type: ignore[union-attr]


@pytest.mark.parametrize("step", [0, 1, 2])  # the short window falls into one of these
def test_micro_batches_and_ranks_add_up_to_the_whole_batch(step: int) -> None:
    whole = small_model()
    loss = accumulate_gradient(Loss(whole), batches(), step, settings(8), World(CPU))
    for micro in (1, 2, 3, 4):
        parts = small_model()
        again = accumulate_gradient(Loss(parts), batches(), step, settings(micro), World(CPU))
        torch.testing.assert_close(again, loss, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(gradient(parts), gradient(whole), atol=1e-6, rtol=1e-5)


class Alone(World):
    """One rank of several, whose sums stay its own; its gradients are what DDP would average."""

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        return value


@pytest.mark.parametrize("size", [2, 4])
def test_the_ranks_gradients_sum_to_the_whole(size: int) -> None:
    whole = small_model()
    loss = accumulate_gradient(Loss(whole), batches(), 1, settings(8), World(CPU))
    losses, gradients = [], []
    for rank in range(size):
        model = small_model()
        losses.append(accumulate_gradient(Loss(model), batches(), 1, settings(2), Alone(CPU, rank, size)))
        gradients.append(gradient(model))
    torch.testing.assert_close(sum(losses), loss, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(sum(gradients) / size, gradient(whole), atol=1e-6, rtol=1e-5)


def test_dropout_follows_seed_step_and_micro_batch_only() -> None:
    losses = []
    for disturb in (False, True):
        model = small_model(dropout=0.3)
        if disturb:
            torch.rand(1000)
        losses.append(float(accumulate_gradient(Loss(model), batches(), 5, settings(4), World(CPU))))
    assert losses[0] == losses[1]
    seeds = {noise_seed(1, step, micro, rank) for step in range(9) for micro in range(9) for rank in range(9)}
    assert len(seeds) == 9**3


def test_the_gradient_is_clipped_to_its_norm() -> None:
    model = small_model()
    optimizer = build_optimizer(model, OptimConfig(name="adamw", learning_rate=0.0))
    kept: list[torch.Tensor] = []
    optimizer.parts[0].register_step_pre_hook(lambda *_: kept.append(gradient(model).clone()))
    result = training_step(Loss(model), optimizer, batches(), 0, settings(8, clip=0.01), World(CPU))
    assert result.grad_norm > 0.01
    assert float(kept[0].norm()) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_number_that_is_not_finite_never_reaches_the_weights(where: str) -> None:
    model = small_model()
    optimizer = build_optimizer(model, OptimConfig(name="adamw", learning_rate=1e-3))
    before = [p.detach().clone() for p in model.parameters()]
    if where == "loss":
        model.loss = lambda *_: model.tokens.weight.sum() * float("nan")  # type: ignore[method-assign]
    else:
        model.norm.weight.register_hook(lambda g: g * float("inf"))
    result = training_step(Loss(model), optimizer, batches(), 0, settings(8, clip=1.0), World(CPU))
    assert not (np.isfinite(result.loss) and np.isfinite(result.grad_norm))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_scaled_loss_gives_the_same_update() -> None:
    """A power of two shifts exponents only."""
    after = []
    for scale in (1.0, 1024.0):
        model = small_model()
        optimizer = build_optimizer(model, OptimConfig(name="adamw", learning_rate=1e-3))
        result = training_step(Loss(model), optimizer, batches(), 0, settings(4, clip=1.0), World(CPU), scale)
        assert result.updated
        after.append((result.loss, result.grad_norm, torch.cat([p.flatten() for p in model.parameters()])))
    assert after[0][:2] == after[1][:2]
    assert torch.equal(after[0][2], after[1][2])


def test_an_overflow_updates_nothing_and_halves_the_scale() -> None:
    model = small_model()
    optimizer = build_optimizer(model, OptimConfig(name="adamw", learning_rate=1e-3))
    before = [p.detach().clone() for p in model.parameters()]
    model.norm.weight.register_hook(lambda g: g * float("inf"))
    result = training_step(Loss(model), optimizer, batches(), 0, settings(8, clip=1.0), World(CPU), 4.0)
    assert not result.updated
    assert np.isfinite(result.loss)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert LossScale(8.0, 17).after(overflowed=True) == LossScale(4.0, 0)


def test_the_scale_doubles_after_many_good_steps() -> None:
    scale = LossScale(8.0)
    for _ in range(GROWTH_STEPS - 1):
        scale = scale.after(overflowed=False)
    assert scale == LossScale(8.0, GROWTH_STEPS - 1)
    assert scale.after(overflowed=False) == LossScale(16.0, 0)


def test_halves_of_windows_are_windows_of_their_own() -> None:
    model, windows = small_model(), torch.arange(40).reshape(4, 10)
    halves = in_parts(windows, 2)
    assert halves.tolist() == windows.reshape(8, 5).tolist()
    model.eval()
    with torch.no_grad():
        apart = sum(float(model.loss(row[None], row[None])) for row in halves)
        together = float(model.loss(halves, halves))
    assert together == pytest.approx(apart, rel=1e-6)

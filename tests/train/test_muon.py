import pytest
import torch

from yanmo.train.muon import RMS, Muon, neurons, orthogonalise


def matrix(rows: int, columns: int, seed: int) -> torch.nn.Parameter:
    generator = torch.Generator().manual_seed(seed)
    parameter = torch.nn.Parameter(torch.randn(rows, columns, generator=generator))
    parameter.grad = torch.randn(rows, columns, generator=generator)
    return parameter


def ones(_: Muon, updates: torch.Tensor, parameters: list[torch.Tensor]) -> torch.Tensor:
    """In place of what makes neurons even."""
    return updates.new_ones(neurons(updates.shape))


def test_updates_equal_torchs_muon_but_for_neurons_made_even(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Muon, "_scales", ones)
    shapes = [(24, 16), (16, 24), (24, 16), (16, 16)]
    ours, theirs = ([matrix(*shape, seed=i) for i, shape in enumerate(shapes)] for _ in range(2))
    optimizer = Muon([{"params": ours}], lr=0.01, weight_decay=0.1, momentum=0.9)
    reference = torch.optim.Muon(
        theirs, lr=0.01, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(4):
        optimizer.step()
        reference.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=0.02)  # both round to bfloat16 on their way


def test_matrices_below_each_other_are_taken_one_by_one() -> None:
    whole = matrix(24, 8, seed=0)
    parts = [torch.nn.Parameter(part.detach().clone()) for part in whole.split(8)]
    assert whole.grad is not None
    for part, gradient in zip(parts, whole.grad.split(8), strict=True):
        part.grad = gradient.clone()
    Muon([{"params": [whole], "parts": 3}], lr=0.01).step()
    Muon([{"params": parts}], lr=0.01).step()
    torch.testing.assert_close(whole.detach(), torch.cat([part.detach() for part in parts]))


def test_matrices_behind_each_other_are_taken_one_by_one() -> None:
    """As the experts of a layer are."""
    parts = [matrix(8, 12, seed) for seed in range(3)]
    whole = torch.nn.Parameter(torch.stack([part.detach() for part in parts]))
    whole.grad = torch.stack([part.grad for part in parts if part.grad is not None])
    together, apart = Muon([{"params": [whole]}], lr=0.01), Muon([{"params": parts}], lr=0.01)
    for _ in range(2):
        together.step()
        apart.step()
    torch.testing.assert_close(whole.detach(), torch.stack([part.detach() for part in parts]))


def changes(parameter: torch.nn.Parameter, optimizer: Muon, steps: int) -> list[torch.Tensor]:
    """What each step does to a parameter whose gradient stays as it is."""
    found = []
    for _ in range(steps):
        before = parameter.detach().clone()
        optimizer.step()
        found.append(before - parameter.detach())
    return found


@pytest.mark.parametrize("shape", [(64, 16), (16, 64)])
def test_neurons_are_divided_by_their_usual_length(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The formula of NorMuon along the longer side, its running mean over three steps of other gradients."""
    evened, plain, across = matrix(*shape, seed=4), matrix(*shape, seed=4), 1 if shape[0] > shape[1] else 0
    ours, other = (
        Muon([{"params": [p]}], lr=0.01, weight_decay=0.0, dtype=torch.float32) for p in (evened, plain)
    )
    mean: torch.Tensor | float = 0.0
    for step in range(3):
        evened.grad = plain.grad = torch.randn(shape, generator=torch.Generator().manual_seed(step))
        (found,) = changes(evened, ours, 1)
        with monkeypatch.context() as patch:
            patch.setattr(Muon, "_scales", ones)
            (update,) = changes(plain, other, 1)
        mean = 0.95 * mean + 0.05 * update.square().mean(across, keepdim=True)
        expected = update / mean.sqrt()
        expected *= update.norm() / expected.norm()
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("shape", [(64, 16), (16, 64)])
def test_in_the_long_run_every_neuron_learns_as_much(shape: tuple[int, int]) -> None:
    """One whose gradient is a hundredth of the others' too; iterations alone leave it behind."""
    parameter, across = matrix(*shape, seed=5), 1 if shape[0] > shape[1] else 0
    assert parameter.grad is not None
    parameter.grad.select(1 - across, 0).mul_(0.01)
    optimizer = Muon([{"params": [parameter]}], lr=0.01, weight_decay=0.0)
    lengths = changes(parameter, optimizer, 3)[-1].norm(dim=across)
    assert float(lengths.max() / lengths.min()) < 1.1


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 6, 20), (2, 20, 6)])
def test_singular_values_come_near_one(shape: tuple[int, int, int]) -> None:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalise(drawn).float())
    assert float(values.min()) > 0.3
    assert float(values.max()) < 1.4


def test_a_gradient_of_nothing_moves_nothing() -> None:
    still, absent = matrix(4, 4, seed=0), matrix(4, 4, seed=1)
    still.grad, absent.grad = torch.zeros(4, 4), None
    before = [still.detach().clone(), absent.detach().clone()]
    Muon([{"params": [still, absent]}], lr=0.1, weight_decay=0.0).step()
    assert torch.equal(still, before[0])
    assert torch.equal(absent, before[1])


def test_an_update_is_as_large_as_one_of_adamw() -> None:
    for rows, columns, parts in ((64, 64, 1), (64, 256, 1), (192, 64, 3)):
        parameter = matrix(rows, columns, seed=3)
        before = parameter.detach().clone()
        Muon([{"params": [parameter], "parts": parts}], lr=0.01, weight_decay=0.0).step()
        size = float((parameter.detach() - before).square().mean().sqrt())
        assert size == pytest.approx(RMS * 0.01, rel=0.2)

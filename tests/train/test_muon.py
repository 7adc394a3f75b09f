import pytest
import torch

from yanmo.train.muon import RMS, Muon, orthogonalise


def matrix(rows: int, columns: int, seed: int) -> torch.nn.Parameter:
    generator = torch.Generator().manual_seed(seed)
    parameter = torch.nn.Parameter(torch.randn(rows, columns, generator=generator))
    parameter.grad = torch.randn(rows, columns, generator=generator)
    return parameter


def test_updates_equal_torchs_muon() -> None:
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

"""Inference by minimising an energy: least squares where codes are linear, and nothing moved where all is explained."""

import pytest
import torch

from pdessl.errors import ShapeError
from pdessl.operators.energy import Prior, minimise


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_where_errors_are_linear_in_the_code_it_is_least_squares_with_the_textbooks_errors():
    design, data = normal(3, 40, 2), normal(3, 40, seed=1)
    found = minimise(lambda z: torch.einsum("bnr,br->bn", design, z) - data, torch.zeros(3, 2), torch.ones(2))
    exact = torch.linalg.lstsq(design, data[..., None]).solution[..., 0]
    assert torch.allclose(found.codes, exact, atol=1e-7)
    rest = torch.einsum("bnr,br->bn", design, exact) - data
    variance = (rest.square().sum(dim=1) / 38).clamp_min(1.0)
    expected = (torch.linalg.inv(design.mT @ design).diagonal(dim1=1, dim2=2) * variance[:, None]).sqrt()
    assert torch.allclose(found.deviation, expected, rtol=1e-6)
    assert torch.allclose(found.energy, 0.5 * rest.square().sum(dim=1))


def test_with_a_prior_it_is_the_posterior_mean_of_a_linear_gaussian_model():
    design = normal(2, 30, 2)
    prior = Prior(torch.tensor([[1.0, -1.0], [0.5, 2.0]]).double(), torch.tensor([[0.1, 0.2], [0.3, 1e-3]]).double())
    data = torch.einsum("bnr,br->bn", design, prior.mean) + 0.3 * normal(2, 30, seed=1)
    found = minimise(lambda z: torch.einsum("bnr,br->bn", design, z) - data, prior.mean, torch.ones(2), prior)
    precision = design.mT @ design + torch.diag_embed(prior.deviation**-2)
    right = (design.mT @ data[..., None])[..., 0] + prior.mean / prior.deviation**2
    assert torch.allclose(found.codes, torch.linalg.solve(precision, right), atol=1e-6)
    expected = torch.linalg.inv(precision).diagonal(dim1=1, dim2=2).sqrt()
    assert torch.allclose(found.deviation, expected, rtol=1e-3)  # errors are no larger than they say: not inflated


def test_started_at_the_truth_it_stays_on_noiseless_data_and_is_found_from_elsewhere():
    truth, t = torch.tensor([[0.3], [1.2]], dtype=torch.float64), torch.linspace(0, 3, 50, dtype=torch.float64)

    def errors(z):
        return torch.exp(-z * t) - torch.exp(-truth * t)

    assert torch.equal(minimise(errors, truth, torch.ones(1)).codes, truth)
    held = minimise(errors, truth, torch.ones(1), Prior(truth, torch.ones(2, 1)))
    assert torch.equal(held.codes, truth) and float(held.energy.max()) == 0.0
    away = minimise(errors, torch.full((2, 1), 0.6), torch.ones(1), rounds=12)
    assert torch.allclose(away.codes, truth, atol=1e-6) and bool((away.energy < away.start).all())


def test_each_run_is_stepped_by_itself_and_never_becomes_worse():
    def errors(z):  # of a run that cannot be evaluated, one with many minima, and a harmless one
        wild = torch.stack([torch.sin(40 * z[:, 0]), z[:, 0] - 5], dim=1)
        return torch.where(torch.arange(3)[:, None] == 0, wild * torch.nan, wild)

    start = torch.tensor([[1.0], [2.0], [4.99]])
    found = minimise(errors, start, torch.ones(1), rounds=6)
    assert float(found.codes[0]) == 1.0 and torch.isinf(found.energy[0]) and torch.isinf(found.deviation[0])
    assert bool((found.energy[1:] <= found.start[1:]).all())
    alone = minimise(lambda z: errors(torch.cat([start[:2].double(), z]))[2:], start[2:], torch.ones(1), rounds=6)
    assert torch.allclose(alone.codes, found.codes[2:])
    flat = minimise(lambda z: z * 0 + torch.ones(1, 4), torch.ones(1, 1), torch.ones(1))
    assert float(flat.codes) == 1.0 and torch.isinf(flat.deviation).all()  # the data say nothing about it
    with pytest.raises(ShapeError, match=r"expected \(B, R\) and \(B, N\)"):
        minimise(lambda z: z[:1].expand(1, 3), torch.ones(2, 1), torch.ones(1))

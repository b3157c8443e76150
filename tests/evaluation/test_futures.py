"""Scores of many futures, against closed forms for Gaussians and against slow formulas."""

import math

import pytest
import torch

from pdessl.errors import DataError, ShapeError
from pdessl.evaluation.futures import best_error, energy_score, sample_coverage


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def closed_form(mean, deviation, y):
    """The continuous ranked probability score of a normal distribution (Gneiting, Raftery 2007, equation 21)."""
    z = (y - mean) / deviation
    distribution = torch.distributions.Normal(0.0, 1.0)
    density = torch.exp(distribution.log_prob(z))
    return deviation * (z * (2 * distribution.cdf(z) - 1) + 2 * density - 1 / math.sqrt(math.pi))


def test_the_energy_score_of_one_number_is_the_closed_form_for_gaussians():
    truth = torch.tensor([-1.0, 0.3, 2.0, 5.0], dtype=torch.float64)
    mean, deviation = torch.tensor([0.0, 0.0, 1.0, 1.0]).double(), torch.tensor([1.0, 2.0, 0.5, 3.0]).double()
    quantiles = torch.special.ndtri((torch.arange(1000, dtype=torch.float64) + 0.5) / 1000)
    found = energy_score((mean + deviation * quantiles[:, None])[..., None], truth[:, None])
    torch.testing.assert_close(found, closed_form(mean, deviation, truth), rtol=0, atol=5e-3)


@pytest.mark.parametrize("size", [2, 16])
def test_the_energy_score_of_many_numbers_is_the_closed_form_in_the_mean_and_unbiased(size):
    """Forecast and truth N(0, I): σ Γ((E + 1)/2)/Γ(E/2)/√E, whatever the number of samples."""
    exact = math.exp(math.lgamma((size + 1) / 2) - math.lgamma(size / 2)) / math.sqrt(size)
    for samples in (2, 8):
        scores = energy_score(normal(samples, 4000, size, seed=samples), normal(4000, size, seed=9))
        assert abs(float(scores.mean()) - exact) < 4 * float(scores.std()) / math.sqrt(4000)
        # A forecast that is too sure, too unsure, or off has a larger score.
        for wrong in (
            0.5 * normal(samples, 4000, size),
            2.0 * normal(samples, 4000, size),
            normal(samples, 4000, size) + 1,
        ):
            worse = energy_score(wrong, normal(4000, size, seed=9))
            assert float((worse - scores).mean()) > 4 * float((worse - scores).std()) / math.sqrt(4000)


def test_one_forecast_is_scored_by_its_error_and_the_best_of_some_by_the_least():
    truth, samples = normal(5, 3, 4), normal(6, 5, 3, 4, seed=1)
    errors = (samples - truth).square().mean(dim=(2, 3)).sqrt()
    torch.testing.assert_close(energy_score(samples[:1], truth), errors[0])
    torch.testing.assert_close(best_error(samples, truth, 4), errors[:4].min(dim=0).values)
    assert bool((best_error(samples, truth, 6) <= best_error(samples, truth, 2)).all())
    with pytest.raises(ShapeError, match="the best of 7 samples, of which there are 6"):
        best_error(samples, truth, 7)
    with pytest.raises(ShapeError, match=r"expected \(M, n, \.\.\.\) and \(n, \.\.\.\)"):
        energy_score(samples, truth[:, :2])


@pytest.mark.parametrize("samples, promised", [(39, 0.9), (4, 0.6), (99, 0.9)])
def test_samples_that_are_exchangeable_with_the_truth_hold_it_as_often_as_promised(samples, promised):
    share, said = sample_coverage(normal(samples, 1, 4000, seed=3), normal(1, 4000, seed=4))
    assert said == pytest.approx(promised)
    assert abs(share - promised) < 4 * math.sqrt(promised * (1 - promised) / 4000)
    assert sample_coverage(0.3 * normal(samples, 1, 4000), normal(1, 4000, seed=4))[0] < share - 0.1
    with pytest.raises(DataError, match="two or more"):
        sample_coverage(normal(1, 2, 3), normal(2, 3))

"""Scores of rollouts on constructed fields whose scores are known."""

import math

import pytest
import torch

from pdessl.errors import ShapeError
from pdessl.evaluation import rollouts as r


def waves(frames=6, points=48, runs=3):
    x = torch.arange(points).double() * 2 * math.pi / points
    t = torch.arange(frames).double()[:, None]
    return torch.stack([(1 + i) * torch.sin(x + 0.3 * t) for i in range(runs)])[:, None]


def test_relative_scores_of_a_scaled_field():
    u = waves()
    for score in (r.nrmse, r.relative_l2):
        torch.testing.assert_close(score(1.1 * u, u), torch.full_like(score(u, u), 0.1))
        assert not score(u, u).any()
    assert float(r.pooled_nmse(1.1 * u, u)) == pytest.approx(0.01)
    # The pooled error weighs runs by their power, 1 : 4 : 9.
    p = u.clone()
    p[0] *= 2
    assert float(r.pooled_nmse(p, u)) == pytest.approx(1 / 14)


def test_vrmse_does_not_see_a_mean_and_is_one_for_it():
    u = waves() + 5
    mean = u.mean(dim=3, keepdim=True).expand_as(u)
    torch.testing.assert_close(r.vrmse(mean, u), torch.ones(3, 6).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(r.nrmse(mean, u)[0], (0.5 / 25.5 * torch.ones(6).double()).sqrt())


def test_a_wave_counts_in_its_own_band():
    x = torch.arange(48).double() * 2 * math.pi / 48
    u = (torch.cos(x) + torch.cos(4 * x) + torch.cos(20 * x)).expand(2, 1, 3, -1)
    for band, k in enumerate((1, 4, 20)):
        found = r.band_error(u - torch.cos(k * x), u)
        torch.testing.assert_close(found, torch.eye(3)[band].double(), atol=1e-12, rtol=0)
    plane = u[..., None].expand(2, 1, 3, 48, 48)
    found = r.band_error(plane - torch.cos(20 * x)[:, None], plane)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, 1.0]).double(), atol=1e-12, rtol=0)


def test_spectra_hold_the_mean_square_and_waves_in_their_band():
    u = waves(frames=3, points=48, runs=2)
    found = r.spectra(u)
    torch.testing.assert_close(found.sum(dim=1), u.square().mean(dim=(0, 1, 3)))
    torch.testing.assert_close(found[:, 1], torch.full((3,), (0.5 + 2.0) / 2).double())
    assert found.shape == (3, 25) and found[:, [0, *range(2, 25)]].abs().max() < 1e-12
    # On a plane of unlike axes a wave counts by its share of what its axis holds.
    x, y = torch.arange(48).double() * 2 * math.pi / 48, torch.arange(24).double() * 2 * math.pi / 24
    plane = (torch.cos(3 * x)[:, None] + 2 * torch.cos(5 * y))[None, None, None]
    bands = r.spectra(plane)[0]
    assert [int(k) for k in bands.topk(2).indices] == [10, 3]
    torch.testing.assert_close(bands.sum(), plane.square().mean())
    with pytest.raises(ShapeError, match="expected .B, C, T"):
        r.spectra(u[0])


def test_a_surrogate_pays_after_what_it_cost_over_what_it_saves():
    assert r.break_even(60.0, 0.5, 2.0) == 40.0
    assert r.break_even(60.0, 2.0, 2.0) == math.inf
    assert r.break_even(0.0, 0.0, 1.0) == 0.0
    with pytest.raises(ValueError, match="expected numbers >= 0"):
        r.break_even(-1.0, 0.0, 1.0)


def test_correlation_time_of_a_field_against_itself_is_the_horizon():
    u = waves(frames=10)
    assert r.correlation_time(u, u, 0.5).tolist() == [5.0] * 3
    # A wave that runs ahead by δ per frame has correlation cos(δ t): below .8 from t = .6435/δ on.
    x = torch.arange(48).double() * 2 * math.pi / 48
    t = torch.arange(1, 11).double()[:, None]
    late = torch.stack([torch.sin(x + (0.3 + d) * t) for d in (0.1, 0.2, 0.05)])[:, None]
    truth = torch.sin(x + 0.3 * t).expand(3, 1, 10, 48)
    torch.testing.assert_close(r.correlation(late, truth)[0], torch.cos(0.1 * t[:, 0]))
    assert r.correlation_time(late, truth, 1.0, 0.8).tolist() == [6.0, 3.0, 10.0]
    assert r.correlation_time(late, truth, 1.0, 0.9).tolist() == [4.0, 2.0, 9.0]


def test_geometric_mean_drift_and_gap():
    assert float(r.geometric_mean(torch.tensor([1.0, 10.0, 100.0]))) == pytest.approx(10)
    u = waves()
    assert not r.drift(u, u, "energy").any()
    torch.testing.assert_close(r.drift(u + 0.5, u)[0], torch.full((6,), 0.5 * 2**0.5).double())
    torch.testing.assert_close(r.drift(1.1 * u, u, "energy"), torch.full((3, 6), 0.21).double())
    assert r.gap_closed(1.0, 0.4, 0.2) == pytest.approx(0.75)
    assert math.isnan(r.gap_closed(1.0, 0.4, 1.2))


def test_bootstrap_covers_the_mean_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    inside = 0
    for seed in range(200):
        low, high = r.bootstrap(torch.randn(40, generator=generator), 0.9, 200, seed)
        inside += low < 0 < high
    assert 165 <= inside <= 193  # 180 ± 3 deviations, less what percentiles of 40 runs miss


def test_errors():
    with pytest.raises(ShapeError, match=r"expected one shape \(B, C, T, \*X\)"):
        r.nrmse(torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 3, 3))
    with pytest.raises(ValueError, match="'mean' or 'energy'"):
        r.drift(waves(), waves(), "mass")
    with pytest.raises(ShapeError, match="2 runs or more"):
        r.bootstrap(torch.zeros(1))

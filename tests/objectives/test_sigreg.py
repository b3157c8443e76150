"""SIGReg and LeJEPA against the integral they approximate, and at the values known in closed form."""

import math

import numpy as np
import pytest
import torch

from pdessl.objectives import LeJEPA, SIGReg, sigreg_term
from pdessl.objectives.sigreg import GAUSSIAN_VALUE, draw_slices

from .embeddings import draw, pair, pinned, rotation


def loop_sigreg(z, slices):
    """n ∫ |empirical - Gaussian characteristic function|² φ(t) dt by the trapezoidal rule on [-3, 3]."""
    knots = np.linspace(-3, 3, 33)
    weights = np.where(abs(knots) < 3, 3 / 16, 3 / 32)
    values = []
    for k in range(slices.shape[1]):
        u = (z @ slices[:, k]).numpy()
        integrand = [abs(np.exp(1j * t * u).mean() - math.exp(-(t**2) / 2)) ** 2 * math.exp(-(t**2) / 2) for t in knots]
        values.append(len(z) * (weights @ integrand))
    return np.mean(values)


def pinned_slices():
    slices = torch.tensor([[math.cos((d + 1) * (k + 1)) for k in range(5)] for d in range(4)], dtype=torch.float64)
    return slices / slices.norm(dim=0)


def test_sigreg_equals_the_integral_and_the_pins():
    z, w = pinned()
    slices = pinned_slices()
    assert float(sigreg_term(z, slices)) == pytest.approx(loop_sigreg(z, slices), rel=1e-10)
    assert float(sigreg_term(z, slices)) == pytest.approx(1.235299982518462, rel=1e-11)
    assert float(sigreg_term(torch.stack((z, w)), slices)) == pytest.approx(1.188156889509899, rel=1e-11)
    # λ · 1.188… + (1 - λ) · 0.00504… at λ = 0.05
    inv = float(LeJEPA().terms(z, w).invariance)
    assert inv == pytest.approx(0.0050404128838089455, rel=1e-11)
    assert 0.05 * 1.188156889509899 + 0.95 * inv == pytest.approx(0.06419623671511346, rel=1e-11)


def test_lejepa_combines_the_two_with_the_slices_of_its_step():
    z, w = pair()
    objective = LeJEPA(0.2, slices=9, seed=3)
    terms = objective.terms(z, w)
    slices = draw_slices(4, 9, torch.Generator().manual_seed(3 * 1_000_003 + 1))
    centre = (z + w) / 2
    invariance = float((((z - centre) ** 2).mean() + ((w - centre) ** 2).mean()) / 2)
    regular = (loop_sigreg(z, slices) + loop_sigreg(w, slices)) / 2
    assert float(terms.loss) == pytest.approx(0.2 * regular + 0.8 * invariance, rel=1e-10)
    unscaled = LeJEPA(0.2, slices=9, seed=3, scale_by_n=False).terms(z, w)
    assert float(unscaled.loss) == pytest.approx(0.2 * regular / 14 + 0.8 * invariance, rel=1e-10)


def test_sigreg_at_its_closed_form_values():
    slices = draw_slices(16, 64, torch.Generator().manual_seed(0))
    for n in (64, 1024):
        at_zero = float(sigreg_term(torch.zeros(n, 16, dtype=torch.float64), slices))
        assert at_zero == pytest.approx(0.40205 * n, rel=1e-4)
        gaussian = np.mean([float(sigreg_term(draw(n, 16, seed=s), slices)) for s in range(8)])
        assert gaussian == pytest.approx(GAUSSIAN_VALUE, rel=0.15)
        narrow = np.mean([float(sigreg_term(draw(n, 16, seed=s, scale=0.8), slices)) for s in range(8)])
        assert narrow == pytest.approx({64: 2.2, 1024: 23}[n], rel=0.1)
    assert pytest.approx(1.0525, abs=1e-4) == GAUSSIAN_VALUE
    far = torch.full((64, 16), 1e3, dtype=torch.float64)
    assert float(sigreg_term(far, slices)) < 3.96 * 64
    assert float(SIGReg(1.0)(draw(512, 16)).gaussianity) == pytest.approx(1, abs=0.3)


def test_sigreg_symmetries():
    z, slices = draw(40, 5, seed=2, scale=0.7) ** 3, draw_slices(5, 20, torch.Generator().manual_seed(1))
    base = float(sigreg_term(z, slices))
    turn = rotation(5)
    assert float(sigreg_term(z @ turn, turn.T @ slices)) == pytest.approx(base, rel=1e-10)
    many = draw_slices(5, 20_000, torch.Generator().manual_seed(2))
    assert float(sigreg_term(z @ turn, many)) == pytest.approx(float(sigreg_term(z, many)), rel=0.02)
    # With z and -z stacked the imaginary part vanishes, and the sign of a slice never matters.
    both = torch.cat((z, -z))
    assert float(sigreg_term(both, -slices)) == pytest.approx(loop_sigreg(both, slices), rel=1e-10)
    norms = slices.norm(dim=0)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=1e-12, atol=0)


def test_sigreg_pulls_a_narrow_and_a_wide_cloud_towards_spread_one():
    generator = torch.Generator().manual_seed(4)
    for scale, sign in ((0.5, -1), (2.0, 1)):
        z = draw(256, 4, seed=3, scale=scale).requires_grad_()
        sigreg_term(z, draw_slices(4, 64, generator)).backward()
        assert sign * float((z.detach() * z.grad).sum()) > 0  # the derivative with respect to a common scale

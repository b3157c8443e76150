"""Resampling: Fourier shifts and B-splines against exact band-limited fields."""

import math

import pytest
import torch

from pdessl.errors import ShapeError
from pdessl.symmetry.resample import bspline_coefficients, fourier_shift, sample_axis, sample_points

N = 128
CELLS = (0.37, 0.61)


def solenoidal(highest, slope):
    """Return a function of the shift: one velocity component of a random solenoidal field, (1, 1, 1, N, N)."""
    g = torch.Generator().manual_seed(0)
    k = torch.fft.fftfreq(N, 1 / N, dtype=torch.float64)
    kx, ky = k[:, None], k[None]
    size = (kx**2 + ky**2).sqrt()
    amplitude = torch.where((size > 0) & (size <= highest), size.clamp(min=1) ** slope, 0.0)
    stream = torch.fft.fft2(torch.randn(N, N, generator=g, dtype=torch.float64)) * amplitude

    def field(dx, dy):
        phase = torch.exp(-2j * math.pi * (kx * dx + ky * dy) / N)
        return torch.fft.ifft2(1j * ky * stream * phase).real[None, None, None]

    return field


def relative(a, b):
    return float((a - b).norm() / b.norm())


# k^-5/3 is the energy spectrum: stream function ~ k^(-5/6 - 1/2 - 1).
@pytest.mark.parametrize(
    ("highest", "slope", "cubic", "quintic"), [(8, 0.0, 4e-5, 2e-7), (32, -7 / 3, 1.2e-3, 8e-5)]
)
def test_spline_errors(highest, slope, cubic, quintic):
    field = solenoidal(highest, slope)
    source, exact = field(0, 0), field(*CELLS)
    node = torch.arange(N, dtype=torch.float64)
    for order, bound in ((3, cubic), (5, quintic)):
        x, y = (node - CELLS[0])[None, None], (node - CELLS[1])[None, None]
        found = sample_axis(sample_axis(source, x, 0, True, order), y, 1, True, order)
        assert relative(found, exact) < 2 * bound
        mesh = torch.stack(torch.meshgrid(x[0, 0], y[0, 0], indexing="ij"), dim=-1)[None, None]
        assert torch.allclose(sample_points(source, mesh, (True, True), order), found, atol=1e-12)


def test_fourier_shift_is_exact():
    field = solenoidal(60, -1.0)
    cells = [torch.tensor([[c]], dtype=torch.float64) for c in CELLS]
    assert relative(fourier_shift(field(0, 0), cells), field(*CELLS)) < 1e-13


@pytest.mark.parametrize("n", [15, 16])
def test_whole_cells_equal_roll(n):
    values = torch.randn(2, 3, 4, n, 6, dtype=torch.float64)
    cells = torch.tensor([[0, 1, 5, -3]] * 2, dtype=torch.float64)
    found = fourier_shift(values, [cells, None])
    for t, c in enumerate([0, 1, 5, -3]):
        assert torch.allclose(found[:, :, t], values[:, :, t].roll(c, dims=2), atol=1e-12)
    both = fourier_shift(values, [cells[:, :1] + 2, cells[:, :1] + 1])
    assert torch.allclose(both, values.roll((2, 1), dims=(3, 4)), atol=1e-12)


def test_nyquist_mode_is_shifted_by_its_cosine():
    values = torch.tensor([1.0, -1.0] * 4, dtype=torch.float64).reshape(1, 1, 1, 8)
    found = fourier_shift(values, [torch.full((1, 1), 0.25, dtype=torch.float64)])
    assert torch.allclose(found, values * math.cos(math.pi / 4))


@pytest.mark.parametrize("order", [3, 5])
@pytest.mark.parametrize("periodic", [True, False])
def test_nodes_are_reproduced(order, periodic):
    values = torch.randn(1, 2, 3, 9, dtype=torch.float64)
    node = torch.arange(9, dtype=torch.float64)[None, None]
    assert torch.allclose(sample_axis(values, node, 0, periodic, order), values, atol=1e-12)


@pytest.mark.parametrize("order", [3, 5])
def test_polynomials_are_reproduced_inside(order):
    """Degree up to the order, away from the ends, where the mirror is felt."""
    n = 80
    node = torch.arange(n, dtype=torch.float64)
    inside = torch.linspace(35, 45, 23, dtype=torch.float64)
    for degree in range(order + 1):
        values = (((node - 40) / 10) ** degree).reshape(1, 1, 1, n)
        exact = ((inside - 40) / 10) ** degree
        found = sample_axis(values, inside[None, None], 0, False, order)[0, 0, 0]
        assert (found - exact).abs().max() < (1e-9 if order == 5 else 1e-12) * 4**degree


def test_coarsening_removes_what_the_target_cannot_hold():
    x = torch.arange(64, dtype=torch.float64) * 2 * math.pi / 64
    kept, lost = torch.cos(5 * x), torch.cos(25 * x)
    factor = torch.full((1, 1), 2.0, dtype=torch.float64)
    values = (kept + lost).reshape(1, 1, 1, 64)
    found = sample_axis(values, torch.arange(0, 64, 2, dtype=torch.float64)[None, None], 0, True, 5, factor)
    assert torch.allclose(found[0, 0, 0], kept[::2], atol=1e-12)


def test_mirrored_prefilter_solves_the_interpolation_equations():
    values = torch.randn(1, 1, 1, 12, dtype=torch.float64)
    c = bspline_coefficients(values, 0, periodic=False, order=3)[0, 0, 0]
    padded = torch.cat([c[1:2], c, c[-2:-1]])
    assert torch.allclose((padded[:-2] + 4 * padded[1:-1] + padded[2:]) / 6, values[0, 0, 0], atol=1e-12)


def test_wrong_positions_are_refused():
    values = torch.zeros(2, 1, 3, 8)
    with pytest.raises(ShapeError, match="positions"):
        sample_axis(values, torch.zeros(2, 2, 8, dtype=torch.float64), 0, True)
    with pytest.raises(ShapeError, match="positions"):
        sample_points(values, torch.zeros(1, 1, 8, 1, dtype=torch.float64), (True,))

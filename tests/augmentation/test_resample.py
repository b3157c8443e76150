"""Resampling: Fourier shifts and B-splines against exact band-limited fields."""

import math

import pytest
import torch

from pdessl.augmentation.filters import AxisFilter, filter_axes, filter_reach
from pdessl.augmentation.resample import sample_affine, sample_axis
from pdessl.errors import ShapeError

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


def shifted(values, cells):
    """Fourier shift of every axis by its own (B, T | 1) cells; None leaves an axis alone."""
    return filter_axes(values, [None if c is None else AxisFilter("wrapped", shift=c) for c in cells])


def coefficients(values, ends, order):
    return filter_axes(values, [AxisFilter(e, order=order) for e in ends])


def relative(a, b):
    return float((a - b).norm() / b.norm())


# k^-5/3 is the energy spectrum: stream function ~ k^(-5/6 - 1/2 - 1).
@pytest.mark.parametrize(("highest", "slope", "cubic", "quintic"), [(8, 0.0, 4e-5, 2e-7), (32, -7 / 3, 1.2e-3, 8e-5)])
def test_spline_errors(highest, slope, cubic, quintic):
    field = solenoidal(highest, slope)
    source, exact = field(0, 0), field(*CELLS)
    node = torch.arange(N, dtype=torch.float64)
    for order, bound in ((3, cubic), (5, quintic)):
        spline = coefficients(source, ("wrapped", "wrapped"), order)
        x, y = (node - CELLS[0])[None, None], (node - CELLS[1])[None, None]
        found = sample_axis(sample_axis(spline, x, 0, "wrapped", order), y, 1, "wrapped", order)
        assert relative(found, exact) < 2 * bound
        middle = torch.tensor([(N - 1) / 2 - c for c in CELLS], dtype=torch.float64)[None, None]
        matrix = torch.eye(2, dtype=torch.float64)[None, None]
        together = sample_affine(spline, matrix, middle, (N, N), ("wrapped", "wrapped"), order)
        assert torch.allclose(together, found, atol=1e-11)


@pytest.mark.parametrize(("order", "bound"), [(3, 1.2e-3), (5, 9e-5)])
def test_errors_of_a_rotation(order, bound):
    """A rotation by 0.1 with shift and stretch, against the exact field at the same points."""
    g = torch.Generator().manual_seed(0)
    wave = torch.randint(-16, 17, (40, 2), generator=g).double()
    amplitude, angle = torch.randn(40, 1, generator=g, dtype=torch.float64), torch.rand(40, 1, generator=g).double()

    def field(x):
        turns = (wave @ x.reshape(2, -1)) / N
        return (amplitude * torch.cos(2 * math.pi * turns + angle)).sum(0).reshape(1, 1, 1, *x.shape[1:])

    node = torch.stack(torch.meshgrid(*[torch.arange(N, dtype=torch.float64)] * 2, indexing="ij"))
    turn = 1.1 * torch.tensor([[math.cos(0.1), math.sin(0.1)], [-math.sin(0.1), math.cos(0.1)]], dtype=torch.float64)
    middle = torch.tensor([60.3, 150.8], dtype=torch.float64)
    points = (50, 64)
    target = torch.stack(
        torch.meshgrid(*[torch.arange(p, dtype=torch.float64) - (p - 1) / 2 for p in points], indexing="ij")
    )
    exact = field(torch.einsum("ij,jxy->ixy", turn, target) + middle[:, None, None])
    spline = coefficients(field(node), ("wrapped", "wrapped"), order)
    found = sample_affine(spline, turn[None, None], middle[None, None], points, ("wrapped", "wrapped"), order)
    assert relative(found, exact) < bound
    single = sample_affine(spline.float(), turn[None, None], middle[None, None], points, ("wrapped", "wrapped"), order)
    assert single.dtype == torch.float32
    assert relative(single.double(), found) < 3e-5


def test_many_geometries_at_once():
    """Frames with places of their own, three axes, each with ends of its own: the same as axis by axis."""
    values = torch.randn(2, 3, 2, 9, 8, 7, dtype=torch.float64)
    ends, points = ("wrapped", "mirrored", "open"), (4, 5, 6)
    scale = torch.rand(2, 3, 3, dtype=torch.float64) * 0.5 + 0.2
    offset = torch.rand(2, 3, 3, dtype=torch.float64) + 3
    for order in (3, 5):
        spline = coefficients(values, ends, order)
        found = sample_affine(spline, torch.diag_embed(scale), offset, points, ends, order)
        for i, p in enumerate(points):
            node = torch.arange(p, dtype=torch.float64) - (p - 1) / 2
            spline = sample_axis(spline, offset[..., i, None] + scale[..., i, None] * node, i, ends[i], order)
        assert torch.allclose(found, spline, atol=1e-11)


def test_fourier_shift_is_exact():
    field = solenoidal(60, -1.0)
    cells = [torch.tensor([[c]], dtype=torch.float64) for c in CELLS]
    assert relative(shifted(field(0, 0), cells), field(*CELLS)) < 1e-13


@pytest.mark.parametrize("n", [15, 16])
def test_whole_cells_equal_roll(n):
    values = torch.randn(2, 4, 3, n, 6, dtype=torch.float64)
    cells = torch.tensor([[0, 1, 5, -3]] * 2, dtype=torch.float64)
    found = shifted(values, [cells, None])
    for t, c in enumerate([0, 1, 5, -3]):
        assert torch.allclose(found[:, t], values[:, t].roll(c, dims=2), atol=1e-12)
    both = shifted(values, [cells[:, :1] + 2, cells[:, :1] + 1])
    assert torch.allclose(both, values.roll((2, 1), dims=(3, 4)), atol=1e-12)


def test_nyquist_mode_is_shifted_by_its_cosine():
    values = torch.tensor([1.0, -1.0] * 4, dtype=torch.float64).reshape(1, 1, 1, 8)
    found = shifted(values, [torch.full((1, 1), 0.25, dtype=torch.float64)])
    assert torch.allclose(found, values * math.cos(math.pi / 4))


@pytest.mark.parametrize("order", [3, 5])
@pytest.mark.parametrize("ends", ["wrapped", "mirrored", "open"])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 9, 10])
def test_nodes_are_reproduced(order, ends, n):
    values = torch.randn(1, 3, 2, n, dtype=torch.float64)
    node = torch.arange(n, dtype=torch.float64)[None, None]
    spline = coefficients(values, (ends,), order)
    assert torch.allclose(sample_axis(spline, node, 0, ends, order), values, atol=1e-12)


@pytest.mark.parametrize("order", [3, 5])
def test_one_matrix_and_gathered_taps_agree(order):
    """Few lines are read by gathering, many by a matrix product."""
    values = torch.randn(1, 1, 64, 9, dtype=torch.float64)
    places = torch.tensor([[[-1.3, 0.2, 4.4, 7.9, 12.0]]], dtype=torch.float64)
    for ends in ("wrapped", "mirrored", "open"):
        together = sample_axis(values, places, 0, ends, order)
        alone = [sample_axis(values[:, :, k : k + 1], places, 0, ends, order) for k in range(64)]
        assert torch.allclose(together, torch.cat(alone, dim=2), atol=1e-12)


@pytest.mark.parametrize("n", [4, 6, 7, 40])
@pytest.mark.parametrize("order", [3, 5])
def test_polynomials_are_reproduced_up_to_open_ends(order, n):
    """Degree up to that of the spline (or of the polynomial through all nodes, where there are few), both ways."""
    places = torch.linspace(0, n - 1, 61, dtype=torch.float64)
    for degree in range(min(order, n - 1) + 1):
        values = ((torch.arange(n, dtype=torch.float64) - 2) / n) ** degree
        exact = ((places - 2) / n) ** degree
        spline = coefficients(values.reshape(1, 1, 1, n), ("open",), order)
        assert spline.shape[3] == n + 2 * (order // 2)
        assert (sample_axis(spline, places[None, None], 0, "open", order) - exact).abs().max() < 1e-12
        plane = values[:, None] + values
        middle, size = torch.full((1, 1, 2), (n - 1) / 2, dtype=torch.float64), (n - 1) / 60
        spline = coefficients(plane.reshape(1, 1, 1, n, n), ("open", "open"), order)
        step = size * torch.eye(2, dtype=torch.float64)[None, None]
        found = sample_affine(spline, step, middle, (61, 61), ("open", "open"), order)
        assert (found - (exact[:, None] + exact)).abs().max() < 1e-12


@pytest.mark.parametrize("order", [3, 5])
def test_order_of_convergence_at_open_ends(order):
    """Values near the ends are as accurate, in order, as inside; so is the slope, with one order less."""

    def field(x):
        return torch.exp(torch.sin(1.3 * x + 0.4)) + x / 2

    errors = []
    for n in (33, 65, 129):
        width = 3 / (n - 1)
        spline = coefficients(field(width * torch.arange(n, dtype=torch.float64))[None, None, None], ("open",), order)
        near = torch.linspace(0, 3, 61, dtype=torch.float64)
        places = torch.cat([near, n - 1 - near]).requires_grad_()
        # Many lines would be read by a matrix; one is read by gathering, and places may be differentiated then.
        found = sample_axis(spline, places[None, None], 0, "open", order)[0, 0, 0]
        exact_at = (width * places.detach()).requires_grad_()
        exact = field(exact_at)
        (slope,) = torch.autograd.grad(found.sum(), places)
        (exact_slope,) = torch.autograd.grad(exact.sum(), exact_at)
        errors.append(((found - exact).abs().max().item(), (slope / width - exact_slope).abs().max().item()))
    rates = [[math.log2(a / b) for a, b in zip(*pair, strict=True)] for pair in zip(errors, errors[1:], strict=False)]
    assert min(r[0] for r in rates) > order + 1 - 0.4, (rates, errors)
    assert min(r[1] for r in rates) > order - 0.4, (rates, errors)


@pytest.mark.parametrize("condition", ["value", "slope", "neither"])
def test_no_condition_is_imposed_at_a_wall(condition):
    """Cell centres, half a cell from the wall: fields that vanish there, or their slope does, are read equally well."""
    n = 64
    phase = {"value": -math.pi / 2, "slope": 0.0, "neither": 0.9}[condition]
    cells = torch.arange(n, dtype=torch.float64)

    def field(j):
        return torch.cos(3 * math.pi * (j + 0.5) / n + phase)

    places = torch.linspace(0, 3, 31, dtype=torch.float64)
    for order, bound in ((3, 1e-4), (5, 4e-6)):
        spline = coefficients(field(cells)[None, None, None], ("open",), order)
        error = (sample_axis(spline, places[None, None], 0, "open", order)[0, 0, 0] - field(places)).abs().max()
        assert error < bound


@pytest.mark.parametrize("order", [None, 3, 5])
def test_the_low_pass_keeps_lines_up_to_open_ends(order):
    node = torch.arange(60, dtype=torch.float64)
    values = (3 - 0.1 * node).reshape(1, 1, 1, -1)
    factor = torch.tensor([[1.0, 1.3, 2.0]], dtype=torch.float64)
    found = filter_axes(values.expand(1, 3, 1, -1), [AxisFilter("open", order=order, coarsening=factor)])
    if order is not None:
        found = sample_axis(found, node.expand(1, 3, -1), 0, "open", order)
    assert torch.allclose(found, values.expand(1, 3, 1, -1), atol=1e-12)
    wave = torch.sin(2 * math.pi * node / 16 + 0.7).reshape(1, 1, 1, -1)
    smooth = filter_axes(wave, [AxisFilter("open", coarsening=factor[:, 1:2])])
    assert (smooth - wave).abs().max() < 2e-3


@pytest.mark.parametrize("ends", ["wrapped", "mirrored", "open"])
def test_coarsening_damps_what_the_target_cannot_hold(ends):
    """Beyond the Nyquist mode of the target by the width of the filter; a finer target changes nothing."""
    n = 256
    x = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    kept, lost = torch.cos(20 * x), torch.cos(100 * x)
    values = (kept + lost).reshape(1, 1, 1, n)
    factor = torch.full((1, 1), 2.0, dtype=torch.float64)
    found = filter_axes(values, [AxisFilter(ends, coarsening=factor)])
    inside = slice(40, -40)
    assert (found[0, 0, 0, inside] - kept[inside]).abs().max() < 5e-4
    finer = filter_axes(values, [AxisFilter(ends, coarsening=factor / 4)])
    assert torch.allclose(finer, values, atol=1e-12)


def test_mirrored_prefilter_solves_the_interpolation_equations():
    values = torch.randn(1, 1, 1, 12, dtype=torch.float64)
    c = coefficients(values, ("mirrored",), 3)[0, 0, 0]
    padded = torch.cat([c[1:2], c, c[-2:-1]])
    assert torch.allclose((padded[:-2] + 4 * padded[1:-1] + padded[2:]) / 6, values[0, 0, 0], atol=1e-12)


@pytest.mark.parametrize("order", [3, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_filters_reach_as_far_as_they_say(order, dtype):
    """A change further away than the reach is not felt beyond rounding; one node nearer than half of it is."""
    reach = filter_reach(order, dtype, coarsening=True)
    n = 4 * reach
    change = torch.zeros(1, 1, 1, n, dtype=torch.float64)
    change[..., n // 2] = 1
    factor = torch.full((1, 1), 1.3, dtype=torch.float64)
    felt = filter_axes(change, [AxisFilter("wrapped", order=order, coarsening=factor)])[0, 0, 0].abs()
    assert felt[: n // 2 - reach].max() < 4 * torch.finfo(dtype).eps
    assert felt[n // 2 - reach // 2] > 4 * torch.finfo(dtype).eps


def test_gradients_pass_through():
    values = torch.randn(1, 2, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    matrix = torch.tensor([[0.8, 0.3], [-0.3, 0.9]], dtype=torch.float64)[None, None]
    offset = torch.tensor([2.3, 1.7], dtype=torch.float64)[None, None]
    for order in (3, 5):

        def view(v, order=order):
            spline = coefficients(v, ("wrapped", "open"), order)
            return sample_affine(spline, matrix, offset, (3, 4), ("wrapped", "open"), order)

        assert torch.autograd.gradcheck(view, values)


def test_wrong_positions_are_refused():
    values = torch.zeros(2, 3, 1, 8)
    with pytest.raises(ShapeError, match="positions"):
        sample_axis(values, torch.zeros(2, 2, 8, dtype=torch.float64), 0, "wrapped")
    with pytest.raises(ShapeError, match="matrix"):
        sample_affine(values, torch.zeros(2, 1, 1, 1), torch.zeros(2, 1, 1), (8,), ("wrapped",))
    with pytest.raises(ShapeError, match="periodic"):
        filter_axes(values, [AxisFilter("open", shift=torch.zeros(2, 1))])

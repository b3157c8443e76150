"""Burgers against the Cole-Hopf solution, and the promises every simulator makes."""

import math

import numpy as np
import pytest
import torch

from pdessl.errors import DataError, ResolutionError, ShapeError
from pdessl.solvers import Burgers


def grid(points):
    return torch.arange(points, dtype=torch.float64) * (2 * math.pi / points)


def cole_hopf(viscosity, points, times):
    """u = -2ν φ_x / φ where φ_t = ν φ_xx, φ(0) = exp(cos x / 2ν): the exact solution from u = sin x."""
    fine = 4096
    x = np.arange(fine) * 2 * np.pi / fine
    phi_hat = np.fft.rfft(np.exp((np.cos(x) - 1) / (2 * viscosity)))
    k = np.arange(phi_hat.size)
    out = []
    for t in times:
        decayed = phi_hat * np.exp(-viscosity * k**2 * t)
        u = -2 * viscosity * np.fft.irfft(1j * k * decayed, n=fine) / np.fft.irfft(decayed, n=fine)
        out.append(u[:: fine // points])
    return torch.from_numpy(np.stack(out))


@pytest.mark.parametrize("viscosity", [0.05, 0.1, 0.3])
def test_cole_hopf(viscosity):
    # At t = 0 the formula itself loses digits to round-off: exp(-1/ν) is 2e-9 at ν = 0.05.
    times = torch.linspace(0.25, 2, 8, dtype=torch.float64)
    solver = Burgers(viscosity, points=512, time_step=2e-3, dtype=torch.float64)
    fields = solver.solve(torch.sin(grid(512))[None, None], times).trajectories.fields[0, 0]
    error = (fields - cole_hopf(viscosity, 512, times.numpy())).abs().max()
    assert error < 5e-8, f"error {error:.1e}"


def test_order_in_time_is_four():
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    exact = cole_hopf(0.1, 256, [1.0])[0]
    steps, errors = (16, 32, 64), []
    for substeps in steps:
        solver = Burgers(0.1, points=256, substeps=substeps, dtype=torch.float64)
        errors.append(float((solver(torch.sin(grid(256))[None, None], times).fields[0, 0, -1] - exact).abs().max()))
    rates = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert min(rates) >= 3.75, f"errors {errors}, rates {rates}"


def batch(points=128, b=5):
    x = grid(points)
    phase = torch.linspace(0, 3, b, dtype=torch.float64)[:, None]
    initial = (torch.sin(x + phase) * 0.6 + 0.3 * torch.cos(2 * x - phase) + 0.1 * phase)[:, None]
    return (
        initial,
        torch.linspace(0.06, 0.3, b, dtype=torch.float64),
        torch.linspace(4, 2 * math.pi, b, dtype=torch.float64),
    )


def test_mean_is_conserved_and_energy_decays():
    initial, viscosity, length = batch()
    fields = Burgers(viscosity, length, points=128, dtype=torch.float64)(initial, torch.linspace(0, 2, 11)).fields[:, 0]
    torch.testing.assert_close(fields.mean(-1), fields[:, :1].mean(-1).expand(-1, 11), rtol=0, atol=1e-13)
    assert bool((fields.square().mean(-1).diff(dim=1) < 0).all())


def test_a_trajectory_alone_is_the_same_as_in_a_batch():
    initial, viscosity, length = batch()
    times = torch.linspace(0, 1, 5, dtype=torch.float64)
    together = Burgers(viscosity, length, points=128, substeps=5, dtype=torch.float64)(initial, times)
    for row in range(len(initial)):
        alone = Burgers(viscosity[row : row + 1], length[row : row + 1], points=128, substeps=5, dtype=torch.float64)
        result = alone(initial[row : row + 1], times)
        torch.testing.assert_close(result.fields, together.fields[row : row + 1], rtol=0, atol=1e-13)
        torch.testing.assert_close(result.space[0], together.space[0][row : row + 1], rtol=0, atol=0)


def test_scaling_of_length_and_time():
    """u(t, x) -> λ u(λ² t, λ x) maps solutions on L to solutions on L / λ."""
    initial, viscosity, _ = batch()
    factor, times = 1.7, torch.linspace(0, 1, 4, dtype=torch.float64)
    plain = Burgers(viscosity, 2 * math.pi, points=128, substeps=40, dtype=torch.float64)(initial, times).fields
    scaled = Burgers(viscosity, 2 * math.pi / factor, points=128, substeps=40, dtype=torch.float64)(
        factor * initial, times / factor**2
    )
    torch.testing.assert_close(scaled.fields / factor, plain, rtol=0, atol=1e-12)


def test_galilean_invariance():
    initial, viscosity, _ = batch()
    speed, times = 0.7, torch.tensor([0.0, 0.5], dtype=torch.float64)
    still = Burgers(viscosity, points=128, substeps=200, dtype=torch.float64)(initial, times).fields[:, 0, 1]
    moving = Burgers(viscosity, points=128, substeps=200, dtype=torch.float64)(initial + speed, times).fields[:, 0, 1]
    k = torch.arange(65, dtype=torch.float64)
    shifted = torch.fft.irfft(torch.fft.rfft(still) * torch.exp(-1j * k * speed * 0.5), n=128) + speed
    torch.testing.assert_close(moving, shifted, rtol=0, atol=1e-9)


def test_output_is_float32_trajectories_with_coordinates():
    initial, viscosity, length = batch()
    result = Burgers(viscosity, length, points=128)(initial, torch.linspace(0, 1, 3))
    assert result.fields.dtype == torch.float32 and result.fields.shape == (5, 1, 3, 128)
    assert result.time.dtype == torch.float64 and result.equation == "burgers"
    torch.testing.assert_close(result.parameters["viscosity"], viscosity)
    torch.testing.assert_close(result.grid_spacing[:, 0], length / 128)
    torch.testing.assert_close(result.lengths[:, 0], length)


def test_observations():
    initial, viscosity, _ = batch()
    solver, times = Burgers(viscosity, points=128, dtype=torch.float64), torch.linspace(0, 1, 3)
    full = solver.solve(initial, times).trajectories.fields
    points = solver.solve(initial, times, observed=32).trajectories
    torch.testing.assert_close(points.fields, full[..., ::4], rtol=0, atol=1e-14)
    assert points.space[0].shape == (5, 32)
    cells = solver.solve(initial, times, observed=32, sampling="cell_average").trajectories.fields
    modes = torch.fft.rfft(full)
    fine = torch.fft.irfft(modes, n=4096) * 32  # the mean over a cell, by brute force on a much finer grid
    window = torch.cat([fine[..., -64:], fine, fine[..., :65]], dim=-1).unfold(-1, 129, 128)[..., :32, :]
    weights = torch.ones(129, dtype=torch.float64)
    weights[0] = weights[-1] = 0.5
    torch.testing.assert_close(cells, (window * weights).sum(-1) / 128, rtol=0, atol=1e-4)
    smooth = solver.solve(initial, times, observed=32, sampling="spectral").trajectories.fields
    torch.testing.assert_close(torch.fft.rfft(smooth)[..., :16] * 4, modes[..., :16], rtol=0, atol=1e-10)
    with pytest.raises(ShapeError, match="use a multiple of 48"):
        solver.solve(initial, times, observed=48)


def test_gradient_with_respect_to_viscosity_and_initial_field():
    initial, viscosity, _ = batch(32, 2)
    initial, viscosity = initial.requires_grad_(), (viscosity * 3).requires_grad_()
    times = torch.linspace(0, 0.5, 3, dtype=torch.float64)

    def energy(field, nu):
        return (
            Burgers(nu, points=32, substeps=3, dtype=torch.float64, check_resolution=False)(field, times)
            .fields[:, 0, -1]
            .square()
            .sum(-1)
        )

    assert torch.autograd.gradcheck(energy, (initial, viscosity), atol=1e-6)


def test_irregular_output_times_agree_with_regular_ones():
    initial, viscosity, _ = batch()
    solver = Burgers(viscosity, points=128, time_step=5e-3, dtype=torch.float64)
    regular = solver(initial, torch.linspace(0, 1, 11, dtype=torch.float64)).fields
    some = solver.solve(initial, torch.tensor([0.1, 0.2, 0.7, 1.0], dtype=torch.float64)).trajectories.fields
    torch.testing.assert_close(some, regular[:, :, [1, 2, 7, 10]], rtol=0, atol=1e-8)


def test_forcing_reaches_a_manufactured_solution():
    """u = a(t) sin x with f = u_t + u u_x - ν u_xx."""
    viscosity, x = 0.1, grid(64)

    def forcing(time):
        a, rate = torch.exp(-time)[:, None], -torch.exp(-time)[:, None]
        return rate * torch.sin(x) + a**2 * torch.sin(x) * torch.cos(x) + viscosity * a * torch.sin(x)

    solver = Burgers(viscosity, points=64, substeps=20, forcing=forcing, dtype=torch.float64)
    fields = solver(torch.sin(x)[None, None], torch.tensor([0.0, 1.0], dtype=torch.float64)).fields
    torch.testing.assert_close(fields[0, 0, 1], math.exp(-1) * torch.sin(x), rtol=0, atol=1e-7)


def test_refuses_a_grid_that_is_too_coarse_and_names_one_that_works():
    initial = torch.sin(grid(64))[None, None]
    with pytest.raises(ResolutionError, match=r"Use at least 630 points") as caught:
        Burgers(0.01, points=64)(initial, torch.tensor([0.0, 1.0]))
    assert "viscosity 0.01" in str(caught.value) and "jump 2" in str(caught.value)
    Burgers(0.01, points=630)(torch.sin(grid(630))[None, None], torch.tensor([0.0, 0.01]))


def test_step_advice_is_accurate_where_twice_the_step_is_still_stable():
    times = torch.linspace(0.5, 2, 4, dtype=torch.float64)
    solver = Burgers(0.05, points=128, dtype=torch.float64)
    initial = torch.sin(grid(128))[None, None]
    torch.testing.assert_close(solver.step_needed(initial), torch.tensor([2 * math.pi / 128], dtype=torch.float64))
    error = (solver.solve(initial, times).trajectories.fields[0, 0] - cole_hopf(0.05, 128, times.numpy())).abs().max()
    assert error < 1e-3


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"viscosity": 0.0}, DataError, "viscosity must be > 0"),
        ({"viscosity": float("nan")}, DataError, "viscosity must be finite"),
        ({"viscosity": 0.1, "points": 33}, ResolutionError, "even and at least 8"),
        ({"viscosity": 0.1, "time_step": -1.0}, ResolutionError, "time_step must be positive"),
        ({"viscosity": torch.ones(2, 2)}, ShapeError, "one value per trajectory"),
        ({"viscosity": 0.1, "domain_length": -1.0}, DataError, "domain_length must be > 0"),
    ],
)
def test_bad_settings(arguments, error, message):
    with pytest.raises(error, match=message):
        Burgers(**arguments)


def test_bad_fields_and_times():
    solver, good = Burgers(torch.tensor([1.0, 1.0]), points=32), torch.zeros(2, 1, 32)
    with pytest.raises(ShapeError, match="expected \\(B, 1, 32\\)"):
        solver.solve(torch.zeros(2, 1, 16), torch.tensor([1.0]))
    with pytest.raises(ShapeError, match="2 values for 3 initial fields"):
        solver.solve(torch.zeros(3, 1, 32), torch.tensor([1.0]))
    with pytest.raises(DataError, match="not finite"):
        solver.solve(good / 0, torch.tensor([1.0]))
    for times in ([-1.0, 0.0], [0.0, 0.0]):
        with pytest.raises(DataError, match="increase"):
            solver.solve(good, torch.tensor(times))

"""The other equations of the ETDRK4 core against exact solutions, other solvers and their own laws."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from pdessl.errors import DataError, ResolutionError
from pdessl.solvers import (
    SIMULATORS,
    AdvectionDiffusion,
    Burgers,
    Heat,
    KdV,
    KdVBurgers,
    KdVBurgersKuramoto,
    KuramotoSivashinsky,
)


def grid(points, length=2 * math.pi):
    return torch.arange(points, dtype=torch.float64) * (length / points)


def times(*values):
    return torch.tensor(values, dtype=torch.float64)


# ----------------------------------------------------------------------------------------- KdV


def soliton(x, t, length, speed, steepening=1.0, dispersion=1.0, centre=0.0):
    distance = (x - speed * t - centre + length / 2) % length - length / 2
    return 3 * speed / steepening / torch.cosh(math.sqrt(speed / dispersion) / 2 * distance) ** 2


@pytest.mark.parametrize(("steepening", "dispersion", "speed"), [(1.0, 1.0, 1.0), (6.0, 1.0, 0.8), (1.0, 0.3, 0.5)])
def test_kdv_soliton(steepening, dispersion, speed):
    length, x = 40.0, grid(256, 40.0)
    simulator = KdV(steepening, dispersion, length, points=256, time_step=5e-3, dtype=torch.float64)
    exact = [soliton(x, t, length, speed, steepening, dispersion, 12.0) for t in (0.0, 2.5, 5.0)]
    fields = simulator(exact[0][None, None], times(0, 2.5, 5)).fields[0, 0]
    error = (fields - torch.stack(exact)).abs().max() / exact[0].max()
    assert error < 1e-6, f"error {error:.1e}"


def test_kdv_order_in_time_is_four():
    """Real coefficients, the mistake of a public solver, would give order one here."""
    length, x = 40.0, grid(256, 40.0)
    errors = []
    for substeps in (100, 200, 400):
        simulator = KdV(domain_length=length, points=256, substeps=substeps, dtype=torch.float64)
        field = simulator(soliton(x, 0.0, length, 1.0, centre=12.0)[None, None], times(0, 4)).fields[0, 0, 1]
        errors.append(float((field - soliton(x, 4.0, length, 1.0, centre=12.0)).abs().max()))
    rates = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert min(rates) >= 3.75, f"errors {errors}, rates {rates}"


def test_two_solitons_shift_each_other():
    """After the passage the fast one is ahead by ln(m)/κ₁ and the slow one behind by ln(m)/κ₂, m = (κ₁+κ₂)/(κ₁-κ₂)."""
    length, points = 120.0, 480
    x = grid(points, length)
    fast, slow = 1.0, 0.25
    start = soliton(x, 0, length, fast, centre=20.0) + soliton(x, 0, length, slow, centre=50.0)
    simulator = KdV(domain_length=length, points=points, time_step=0.04, dtype=torch.float64)
    end = simulator(start[None, None], times(0, 80)).fields[0, 0, 1]
    ratio = (math.sqrt(fast) + math.sqrt(slow)) / (math.sqrt(fast) - math.sqrt(slow))
    fast_shift, slow_shift = 2 * math.log(ratio) / math.sqrt(fast), -2 * math.log(ratio) / math.sqrt(slow)
    expected = soliton(x, 80, length, fast, centre=20 + fast_shift) + soliton(
        x, 80, length, slow, centre=50 + slow_shift
    )
    assert (end - expected).abs().max() < 5e-3
    unshifted = soliton(x, 80, length, fast, centre=20) + soliton(x, 80, length, slow, centre=50)
    assert (end - unshifted).abs().max() > 1.0


def two_solitons(x, t, slow, fast, centre):
    """u = 12 ∂²/∂x² log F, F = 1 + e^{θ₁} + e^{θ₂} + ((κ₁-κ₂)/(κ₁+κ₂))² e^{θ₁+θ₂}, θ = 2κ (x - centre - 4κ² t)."""
    kappa = (math.sqrt(slow) / 2, math.sqrt(fast) / 2)
    one, two = (2 * q * (x - centre - 4 * q**2 * t) for q in kappa)
    share = 2 * math.log((kappa[1] - kappa[0]) / (kappa[1] + kappa[0]))
    rates = torch.tensor([0, 2 * kappa[0], 2 * kappa[1], 2 * sum(kappa)], dtype=torch.float64)
    weights = torch.softmax(torch.stack([torch.zeros_like(x), one, two, one + two + share]), dim=0)
    first, second = rates @ weights, rates**2 @ weights
    return 12 * (second - first**2)


def test_two_solitons_pass_as_the_exact_solution_says():
    length, points = 100.0, 400
    x = grid(points, length)
    exact = torch.stack([two_solitons(x, t, 0.4, 1.2, length / 2) for t in (-20.0, -3.0, 0.0, 20.0)])
    simulator = KdV(domain_length=length, points=points, time_step=0.02, dtype=torch.float64)
    fields = simulator(exact[:1, None], times(0, 17, 20, 40)).fields[0, 0]
    assert (fields - exact).abs().max() < 2e-5 * exact.max()
    assert exact[2].max() < 0.9 * exact[0].max()  # they merge in between


def test_kdv_conserves_mass_momentum_and_energy():
    length, x = 30.0, grid(256, 30.0)
    field = (torch.sin(2 * math.pi * x / length) + 0.4 * torch.cos(4 * math.pi * x / length + 1))[None, None]
    fields = KdV(1.3, 0.7, length, points=256, time_step=5e-3, dtype=torch.float64)(
        field, torch.linspace(0, 10, 5)
    ).fields[0, 0]
    k = 2 * math.pi * torch.arange(129, dtype=torch.float64) / length
    slope = torch.fft.irfft(1j * k * torch.fft.rfft(fields), n=256)
    for quantity in (fields, fields.square(), 0.7 * slope.square() - 1.3 * fields**3 / 3):
        totals = quantity.mean(-1)
        assert (totals - totals[0]).abs().max() < 1e-8 * quantity.abs().mean()


# ------------------------------------------------------------------------- limits and mixtures


def test_kdv_burgers_joins_burgers_and_kdv():
    x = grid(192)
    field = (torch.sin(x) + 0.3 * torch.cos(2 * x))[None, None]
    when, settings = (
        times(0, 0.5, 1),
        {"points": 192, "substeps": 100, "dtype": torch.float64, "check_resolution": False},
    )
    burgers = Burgers(0.05, **settings)(field, when).fields
    torch.testing.assert_close(KdVBurgers(0.05, 0.0, **settings)(field, when).fields, burgers, rtol=0, atol=1e-12)
    kdv = KdV(1.0, 0.02, 2 * math.pi, **settings)(field, when).fields
    torch.testing.assert_close(KdVBurgers(1e-9, 0.02, **settings)(field, when).fields, kdv, rtol=0, atol=1e-6)


def test_kdv_burgers_kuramoto_joins_kdv_burgers_and_kuramoto_sivashinsky():
    x = grid(96)
    field = (torch.sin(x) + 0.3 * torch.cos(2 * x))[None, None]
    when, settings = times(0, 0.5, 1), {"substeps": 100, "dtype": torch.float64, "check_resolution": False}
    settings |= {"domain_length": 2 * math.pi, "points": 96}
    joined = KdVBurgersKuramoto(1.0, 0.05, 0.02, 1e-12, **settings)(field, when).fields
    torch.testing.assert_close(joined, KdVBurgers(0.05, 0.02, **settings)(field, when).fields, rtol=0, atol=1e-8)
    joined = KdVBurgersKuramoto(1.3, -0.4, 0.0, 0.2, **settings)(field, when).fields
    alone = KuramotoSivashinsky(1.3, 0.4, 0.2, **settings)(field, when).fields
    torch.testing.assert_close(joined, alone, rtol=0, atol=1e-12)
    # A refused grid: a front that the fourth derivative alone stops, and waves that a negative viscosity makes grow.
    for nu, h in ((0.0, 1e-4), (-0.4, 1e-3)):
        with pytest.raises(ResolutionError, match="KdVBurgersKuramoto: 32 points"):
            KdVBurgersKuramoto(1.0, nu, 1e-6, h, domain_length=2 * math.pi, points=32)(
                torch.sin(grid(32))[None, None], when
            )


def test_kdv_burgers_standing_front():
    """u = A (sech² ky - 2 tanh ky), k = ν/10d, A = 12 d k²: the front between +2A and -2A stands still."""
    nu, d = 0.3, 0.05
    length, points = 40.0, 512
    x = grid(points, length)
    k, amplitude = nu / (10 * d), 3 * nu**2 / (25 * d)

    def front(y):
        return amplitude * (1 / torch.cosh(k * y) ** 2 - 2 * torch.tanh(k * y))

    # A front down at x = 10; up again far away by a smooth ramp, which stays out of reach of the window that is
    # compared.
    ramp = 2 * amplitude * torch.tanh((x - 30) / 2) + 2 * amplitude
    initial = (front(x - 10) + ramp)[None, None]
    simulator = KdVBurgers(nu, d, length, points=points, time_step=2e-3, dtype=torch.float64)
    fields = simulator(initial, times(0, 1.0)).fields[0, 0]
    window = (x > 5) & (x < 15)
    assert (fields[1] - front(x - 10))[window].abs().max() < 1e-4
    assert amplitude == pytest.approx(12 * d * k**2) and amplitude > 0.2


# ----------------------------------------------------------------------------------------- KS


def test_kuramoto_sivashinsky_against_radau():
    points, length = 64, 22.0
    x = grid(points, length)
    field = torch.cos(2 * math.pi * x / length) + 0.5 * torch.sin(6 * math.pi * x / length)
    a, b, h = 1.2, 0.9, 1.1
    k = 2 * np.pi * np.fft.rfftfreq(points, length / points)
    keep = np.arange(k.size) <= (points - 1) // 3

    def rate(_, u):
        v = np.fft.rfft(u) * keep
        square = np.fft.rfft(np.fft.irfft(v, n=points) ** 2) * keep
        return np.fft.irfft((b * k**2 - h * k**4) * v - 0.5j * a * k * square, n=points)

    exact = solve_ivp(rate, (0, 5), field.numpy(), method="Radau", rtol=1e-9, atol=1e-10).y[:, -1]
    simulator = KuramotoSivashinsky(a, b, h, length, points=points, time_step=0.01, dtype=torch.float64)
    result = simulator(field[None, None], times(0, 5)).fields[0, 0, 1]
    assert np.abs(result.numpy() - exact).max() < 1e-6


def test_kuramoto_sivashinsky_linear_growth_and_attractor():
    length, x = 64.0, grid(192, 64.0)
    mode = 2 * math.pi * 7 / length
    small = 1e-8 * torch.cos(mode * x)[None, None]
    grown = KuramotoSivashinsky(points=192, dtype=torch.float64)(small, times(0, 5)).fields[0, 0, 1]
    torch.testing.assert_close(grown, small[0, 0] * math.exp(5 * (mode**2 - mode**4)), rtol=0, atol=1e-12)
    start = torch.cos(2 * math.pi * x / length)[None, None]
    fields = (
        KuramotoSivashinsky(points=192, dtype=torch.float64)
        .solve(start, torch.linspace(100, 200, 51))
        .trajectories.fields
    )
    assert 1.1 < fields.std() < 1.5 and fields.abs().max() < 4 and fields.mean(-1).abs().max() < 1e-12


def test_kuramoto_sivashinsky_scaling_of_coefficients():
    """u = (√(b³/h)/a) v(t b²/h, x √(b/h)) with v a solution for a = b = h = 1."""
    a, b, h = 2.0, 1.5, 0.6
    shrink, speed = math.sqrt(b / h), b**2 / h
    x = grid(128, 32.0)
    field = (torch.sin(2 * math.pi * x / 32) + 0.5 * torch.cos(6 * math.pi * x / 32))[None, None]
    unit = KuramotoSivashinsky(domain_length=32.0, points=128, substeps=200, dtype=torch.float64)(
        field, times(0, 5)
    ).fields
    other = KuramotoSivashinsky(a, b, h, 32.0 / shrink, points=128, substeps=200, dtype=torch.float64)
    size = math.sqrt(b**3 / h) / a
    scaled = other(size * field, times(0, 5 / speed)).fields
    torch.testing.assert_close(scaled / size, unit, rtol=0, atol=1e-10)


# ------------------------------------------------------------------------------------- linear


def test_heat_and_advection_are_exact():
    x = grid(32)
    field = (1.5 + torch.sin(x) + 0.5 * torch.cos(3 * x))[None, None].expand(2, -1, -1)
    when, nu, c = (
        times(0, 0.3, 10),
        torch.tensor([0.1, 0.4], dtype=torch.float64),
        torch.tensor([0.7, -2.0], dtype=torch.float64),
    )
    heat = Heat(nu, points=32, dtype=torch.float64)(field, when).fields
    moving = AdvectionDiffusion(c, nu, points=32, dtype=torch.float64)(field, when).fields
    for row in range(2):
        for frame, t in enumerate(when.tolist()):
            for fields, shift in ((heat, 0.0), (moving, float(c[row]) * t)):
                first, third = math.exp(-float(nu[row]) * t), math.exp(-9 * float(nu[row]) * t)
                exact = 1.5 + first * torch.sin(x - shift) + 0.5 * third * torch.cos(3 * (x - shift))
                torch.testing.assert_close(fields[row, 0, frame], exact, rtol=0, atol=1e-13)


def test_forced_heat_reaches_the_steady_state():
    x = grid(32)
    simulator = Heat(0.5, points=32, dtype=torch.float64, forcing=lambda t: 2 * torch.sin(x).expand(len(t), -1))
    end = simulator(torch.zeros(1, 1, 32, dtype=torch.float64), times(0, 60)).fields[0, 0, 1]
    torch.testing.assert_close(end, 4 * torch.sin(x), rtol=0, atol=1e-10)


# --------------------------------------------------------------------------------------- all


@pytest.mark.parametrize("name", [n for n, s in SIMULATORS.items() if s.dimensions == 1])
def test_every_simulator_gives_batches_of_different_parameters_and_lengths(name):
    b, points = 3, 256
    parameters = {n: torch.linspace(0.8, 1.2, b, dtype=torch.float64) for n in SIMULATORS[name].parameter_names}
    length = torch.linspace(10, 14, b, dtype=torch.float64)
    field = torch.stack([torch.sin(2 * math.pi * grid(points, 1.0) + p) for p in range(b)])[:, None]
    made = SIMULATORS[name](**parameters, domain_length=length, points=points, substeps=20, dtype=torch.float64)
    together = made(field, times(0, 0.2, 0.4))
    assert set(together.parameters) == set(parameters) and together.fields.shape == (b, 1, 3, points)
    torch.testing.assert_close(together.fields.mean(-1), torch.zeros(b, 1, 3, dtype=torch.float64), rtol=0, atol=1e-13)
    for row in range(b):
        alone = SIMULATORS[name](
            **{n: float(v[row]) for n, v in parameters.items()},
            domain_length=float(length[row]),
            points=points,
            substeps=20,
            dtype=torch.float64,
        )
        torch.testing.assert_close(
            alone(field[row : row + 1], times(0, 0.2, 0.4)).fields[0], together.fields[row], rtol=0, atol=1e-12
        )


@pytest.mark.parametrize(
    ("simulator", "message"),
    [
        (lambda points: KdV(1.0, 1e-3, 10.0, points=points), "KdV: 32 points do not resolve trajectory 0"),
        (lambda points: KuramotoSivashinsky(domain_length=64.0, points=points), "Use at least 154 points"),
        (lambda points: KdVBurgers(0.01, 1e-3, points=points), "KdVBurgers: 32 points"),
    ],
)
def test_coarse_grids_are_refused(simulator, message):
    with pytest.raises(ResolutionError, match=message):
        simulator(32)(torch.sin(grid(32))[None, None], times(0, 1))


@pytest.mark.parametrize(
    ("simulator", "arguments"),
    [
        (KdV, {"dispersion": 0.0}),
        (KdVBurgers, {"viscosity": 0.0, "dispersion": 1.0}),
        (KuramotoSivashinsky, {"antidiffusion": -1.0}),
        (KuramotoSivashinsky, {"steepening": 0.0}),
        (Heat, {"diffusivity": 0.0}),
        (AdvectionDiffusion, {"advection_velocity": 1.0, "diffusivity": -1.0}),
    ],
)
def test_parameters_without_meaning_are_refused(simulator, arguments):
    with pytest.raises(DataError, match="must be > 0"):
        simulator(**arguments)

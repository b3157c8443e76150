import math

import pytest
import torch

from pdessl.equations import Equation
from pdessl.errors import DataError, EquationError, ShapeError
from pdessl.evaluation.classical import least_squares, weak_form
from pdessl.solvers import KuramotoSivashinsky
from pdessl.trajectory import Trajectories

VISCOSITY = torch.tensor([0.02, 0.05, 0.1], dtype=torch.float64)


def exact(points=64, frames=65, duration=4.0, length=2 * math.pi, noise=0.0, seed=0):
    """Cole-Hopf: u = -2 ν θ_x / θ with θ a positive solution of the heat equation."""
    nu = VISCOSITY[:, None, None]
    k0 = 2 * math.pi / length
    t = torch.linspace(0, duration, frames, dtype=torch.float64)
    x = torch.arange(points, dtype=torch.float64) * length / points
    theta, slope = (
        torch.ones(3, frames, points, dtype=torch.float64),
        torch.zeros(3, frames, points, dtype=torch.float64),
    )
    for mode, amplitude, phase in ((1, 0.6, 0.3), (2, 0.25, 1.1), (3, 0.08, 2.0)):
        k = mode * k0
        decay = amplitude * torch.exp(-nu * k**2 * t[None, :, None])
        theta = theta + decay * torch.cos(k * x + phase)
        slope = slope - decay * k * torch.sin(k * x + phase)
    u = -2 * nu * slope / theta
    u = u + noise * torch.randn(u.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Trajectories(
        fields=u[:, None],
        time=t.expand(3, -1).clone(),
        space=(x.expand(3, -1).clone(),),
        lengths=torch.full((3, 1), length, dtype=torch.float64),
        parameters={"viscosity": VISCOSITY},
    )


def error(estimate):
    return ((estimate - VISCOSITY).abs() / VISCOSITY).max().item()


@pytest.mark.parametrize("length", [2 * math.pi, 1.7])
def test_nearly_exact_on_clean_resolved_data(length):
    duration = 4.0 * (length / (2 * math.pi)) ** 2  # the same number of decay times in the smaller box
    runs = exact(length=length, duration=duration)
    assert error(least_squares("burgers", runs, "viscosity")) < 1e-5
    assert error(weak_form("burgers", runs, "viscosity")) < 1e-5


@pytest.mark.parametrize("half_width", [(1, 3), (4, 12), (12, 4)])
def test_the_weak_form_is_exact_for_any_width(half_width):
    assert error(weak_form("burgers", exact(), "viscosity", half_width=half_width)) < 1e-3
    assert error(weak_form("burgers", exact(points=128, frames=129), "viscosity", half_width=half_width)) < 1e-4


def test_noise_biases_plain_least_squares_to_zero_and_the_weak_form_much_less():
    level = 0.02 * float(exact().fields.std())
    runs = exact(noise=level)
    plain, weak = (
        least_squares("burgers", runs, "viscosity"),
        weak_form("burgers", runs, "viscosity", half_width=(8, 8)),
    )
    assert (plain < 0.2 * VISCOSITY).all()
    assert error(weak) < 0.15
    assert error(weak) < error(plain) / 4


def test_the_known_noise_level_removes_the_bias_of_the_weak_form():
    level = 0.1 * float(exact().fields.std())
    estimates = {0.0: [], level: []}
    for seed in range(20):
        runs = exact(noise=level, seed=seed)
        for assumed in estimates:
            estimates[assumed].append(weak_form("burgers", runs, "viscosity", half_width=(5, 5), noise_level=assumed))
    bias = {assumed: error(torch.stack(values).mean(dim=0)) for assumed, values in estimates.items()}
    assert bias[0.0] > 0.1
    assert bias[level] < bias[0.0] / 2


def test_a_boost_leaves_the_estimate():
    runs = exact(points=128, frames=129)
    assert torch.allclose(least_squares("burgers", runs, "viscosity"), VISCOSITY, rtol=1e-5)
    # x' = x + c t, u' = u + c with c a whole number of points per frame, so that the grid is hit exactly
    shift = float(runs.grid_spacing[0, 0] / runs.time_step[0])
    boosted = torch.stack([runs.fields[:, 0, i].roll(i, dims=-1) for i in range(129)], dim=1)[:, None] + shift
    assert torch.allclose(weak_form("burgers", runs.replace(fields=boosted), "viscosity"), VISCOSITY, rtol=0.05)


def sampled(u, t, x, length, equation, parameters, noise=0.0):
    u = u + noise * torch.randn(u.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    b = len(u)
    return Trajectories(
        fields=u[:, None],
        time=t.expand(b, -1).clone(),
        space=(x.expand(b, -1).clone(),),
        lengths=torch.full((b, 1), length, dtype=torch.float64),
        parameters={n: torch.as_tensor(v, dtype=torch.float64).expand(b).clone() for n, v in parameters.items()},
        equation=equation,
    )


def heat(noise=0.0):
    """Two modes of the heat equation, each decaying by itself."""
    k = torch.tensor([0.2, 0.5], dtype=torch.float64)[:, None, None]
    t, x = torch.linspace(0, 2, 81, dtype=torch.float64), torch.arange(32, dtype=torch.float64) * 2 * math.pi / 32
    modes = [(1, 1.0, 0.2), (2, 0.7, 1.0)]
    u = sum(a * torch.exp(-k * m**2 * t[None, :, None]) * torch.sin(m * x + p) for m, a, p in modes)
    return sampled(u, t, x, 2 * math.pi, "heat", {"diffusivity": k.flatten()}, noise)


def soliton(noise=0.0):
    """One soliton of u_t + a u u_x + d u_xxx = 0 far from the ends: u = (3c/a) sech²(sqrt(c/d) (x - x0 - c t)/2)."""
    d = torch.tensor([0.5, 1.0], dtype=torch.float64)[:, None, None]
    a, c, length = 1.0, 1.0, 64.0
    t, x = torch.linspace(0, 4, 81, dtype=torch.float64), torch.arange(256, dtype=torch.float64) * length / 256
    u = 3 * c / a / torch.cosh((c / d).sqrt() * (x - 28 - c * t[None, :, None]) / 2) ** 2
    return sampled(u, t, x, length, "kdv_coefficients", {"steepening": a, "dispersion": d.flatten()}, noise)


def chaos():
    """The Kuramoto-Sivashinsky equation has no exact solution to compare with: a resolved simulation in float64."""
    d = torch.tensor([0.8, 1.2], dtype=torch.float64)
    x = torch.arange(128, dtype=torch.float64) * 32 / 128
    first = torch.cos(2 * math.pi * x / 32) + 0.5 * torch.sin(4 * math.pi * x / 32 + 0.4)
    simulator = KuramotoSivashinsky(hyperviscosity=d, domain_length=32.0, points=128, dtype=torch.float64)
    times = torch.linspace(0, 20, 401, dtype=torch.float64)
    runs = simulator(first.expand(2, 1, -1), times)
    return runs.window(slice(200, None))


CASES = {
    "heat": (heat, "heat", "diffusivity"),
    "kdv": (soliton, "kdv_coefficients", "dispersion"),
    "ks": (chaos, "kuramoto_sivashinsky_coefficients", "hyperviscosity"),
}


@pytest.mark.parametrize("case", list(CASES))
def test_both_estimates_find_the_coefficient_of_other_equations(case):
    make, equation, name = CASES[case]
    runs = make()
    truth = runs.parameters[name]
    torch.testing.assert_close(least_squares(equation, runs, name), truth, rtol=1e-3, atol=0)
    torch.testing.assert_close(weak_form(equation, runs, name), truth, rtol=1e-3, atol=0)


def test_several_coefficients_are_found_together_and_known_ones_are_used():
    runs = soliton()
    both = least_squares("kdv_coefficients", runs, ("dispersion", "steepening"))
    wanted = torch.stack([runs.parameters["dispersion"], runs.parameters["steepening"]], dim=1)
    torch.testing.assert_close(both, wanted, rtol=1e-3, atol=0)
    torch.testing.assert_close(
        weak_form("kdv_coefficients", runs, ("dispersion", "steepening")), wanted, rtol=1e-3, atol=0
    )
    doubled = runs.replace(parameters={**runs.parameters, "steepening": 2 * runs.parameters["steepening"]})
    assert (least_squares("kdv_coefficients", doubled, "dispersion") / runs.parameters["dispersion"] > 1.5).all()


def test_the_label_is_not_read():
    runs = soliton()
    blind = runs.replace(parameters={"steepening": runs.parameters["steepening"]})
    for estimate in (least_squares, weak_form):
        assert torch.equal(
            estimate("kdv_coefficients", runs, "dispersion"), estimate("kdv_coefficients", blind, "dispersion")
        )


def test_windows_that_are_not_periodic_use_differences():
    runs = heat().window(slice(None), slice(3, 29))
    for estimate in (least_squares, weak_form):
        torch.testing.assert_close(
            estimate("heat", runs, "diffusivity"), runs.parameters["diffusivity"], rtol=5e-3, atol=0
        )


def test_two_dimensions_with_a_known_velocity():
    """A mode of u_t + a u_x + b u_y = k (u_xx + u_yy), carried and damped."""
    equation = Equation.parse("u_t + a*u_x + b*u_y - k*(u_xx + u_yy)", parameters=("a", "b", "k"))
    t = torch.linspace(0, 1, 41, dtype=torch.float64)
    x = torch.arange(24, dtype=torch.float64) * 2 * math.pi / 24
    phase = x[:, None] + 2 * x[None, :] - (0.6 + 2 * 0.3) * t[:, None, None]
    u = (torch.exp(-0.1 * 5 * t)[:, None, None] * torch.sin(phase))[None]
    one = torch.ones(1, dtype=torch.float64)
    runs = Trajectories(
        fields=u[:, None], time=t[None], space=(x[None], x[None]), lengths=torch.full((1, 2), 2 * math.pi).double(),
        parameters={"a": 0.6 * one, "b": 0.3 * one}, axis_names=("x", "y"), boundary=("periodic", "periodic"),
    )  # fmt: skip
    for estimate in (least_squares, weak_form):
        torch.testing.assert_close(estimate(equation, runs, "k"), 0.1 * one, rtol=1e-3, atol=0)


def test_what_does_not_fit_is_refused():
    runs = exact()
    with pytest.raises(EquationError, match="no parameter 'viscosty'. Did you mean 'viscosity'"):
        least_squares("burgers", runs, "viscosty")
    with pytest.raises(EquationError, match="not linear in k"):
        least_squares(Equation.parse("u_t - k*k*u_xx", parameters=("k",)), runs, "k")
    with pytest.raises(ShapeError, match="at least 9 frames"):
        least_squares("burgers", runs.window(slice(0, 8)), "viscosity")
    with pytest.raises(ShapeError, match="needs 5 frames and 5 nodes along every axis"):
        weak_form("burgers", runs.window(slice(0, 4)), "viscosity")
    with pytest.raises(ShapeError, match="do not fit fields"):
        weak_form("burgers", runs.window(slice(0, 40)), "viscosity", half_width=(20, 5))
    with pytest.raises(ShapeError, match="needs the field 'u'"):
        least_squares("burgers", runs.replace(field_names=("w",)), "viscosity")
    with pytest.raises(ShapeError, match="axes x; the trajectories have y"):
        weak_form("burgers", runs.replace(axis_names=("y",)), "viscosity")
    with pytest.raises(DataError, match="needs the parameter 'steepening'"):
        weak_form("kdv_coefficients", runs.without_parameters(), "dispersion")
    uneven = runs.time.clone()
    uneven[:, 1:] += 0.01
    with pytest.raises(DataError, match="equally spaced"):
        weak_form("burgers", runs.replace(time=uneven), "viscosity")
    with pytest.raises(ValueError, match="power 2 above the highest order 2"):
        weak_form("burgers", runs, "viscosity", power=2)


@pytest.mark.parametrize("estimate", [least_squares, weak_form])
def test_a_field_that_was_filled_in_tells_nothing(estimate):
    """Smoke that was not measured is the same number everywhere; its slope is the rounding of differences."""
    wave = torch.linspace(0, 3, 16, dtype=torch.float64)
    t, x, y = torch.meshgrid(wave, wave * 1.1, wave * 0.9, indexing="ij")
    velocity = torch.stack([torch.sin(x + t) * torch.cos(y), torch.cos(x - t) * torch.sin(y)])
    runs = Trajectories(
        fields=torch.stack([*velocity, torch.full_like(t, 0.1234567).float().double()])[None],
        time=wave[None],
        space=(wave[None] * 1.1, wave[None] * 0.9),
        lengths=torch.tensor([[3.3, 2.7]], dtype=torch.float64),
        parameters={"viscosity": torch.tensor([0.01], dtype=torch.float64)},
        field_names=("u", "v", "s"),
        axis_names=("x", "y"),
        boundary=("wall", "wall"),
    )
    assert estimate("boussinesq_velocity", runs, "buoyancy").tolist() == [0.0]
    smoke = torch.sin(2 * x + y)
    seen = runs.replace(fields=torch.stack([*velocity, smoke])[None])
    assert 1e-3 < estimate("boussinesq_velocity", seen, "buoyancy").abs().item() < 1e3

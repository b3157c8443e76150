"""What every one-dimensional simulator must obey: symmetries of its equation, budgets, the same result by any means."""

import math

import pytest
import torch

import pdessl
from pdessl.augmentation.coefficients import coefficients
from pdessl.errors import SymmetryError
from pdessl.solvers import SIMULATORS, Burgers, Heat, KdV, KuramotoSivashinsky

POINTS = 128
SETTINGS = {"points": POINTS, "dtype": torch.float64, "check_resolution": False}
# name of the simulator, its parameters by the name users see, domain length
CASES = {
    "burgers": ({"viscosity": 0.1}, 2 * math.pi),
    "kdv": ({"steepening": 1.3, "dispersion": 0.7}, 20.0),
    "kdv_burgers": ({"viscosity": 0.2, "dispersion": 0.1}, 2 * math.pi),
    "kdv_burgers_kuramoto": (
        {"steepening": 1.2, "viscosity": -0.3, "dispersion": 0.4, "hyperviscosity": 0.8},
        22.0,
    ),
    "kuramoto_sivashinsky": ({"steepening": 1.2, "antidiffusion": 0.9, "hyperviscosity": 1.1}, 22.0),
    "heat": ({"diffusivity": 0.3}, 2 * math.pi),
    "advection_diffusion": ({"advection_velocity": 0.6, "diffusivity": 0.2}, 2 * math.pi),
}
LINEAR = ("heat", "advection_diffusion")


def initial_fields(points=POINTS, batch=1, dtype=torch.float64):
    x = torch.arange(points, dtype=dtype) * (2 * math.pi / points)
    phase = torch.linspace(0, 3, batch, dtype=dtype)[:, None]
    return (0.6 * torch.sin(x + phase) + 0.3 * torch.cos(2 * x - phase) + 0.1 * phase)[:, None]


def build(name, **settings):
    parameters, length = CASES[name]
    return SIMULATORS[name](**parameters, **{"domain_length": length, **SETTINGS, **settings})


def generators():
    for name in CASES:
        for generator in pdessl.symmetries(SIMULATORS[name].equation):
            yield pytest.param(name, generator, id=f"{name}-{generator.name}")


@pytest.mark.parametrize(("name", "generator"), list(generators()))
def test_transformed_then_simulated_is_simulated_then_transformed(name, generator):
    """Every flow that keeps periodic fields periodic carries runs to runs, with the parameters it moves."""
    parameters, length = CASES[name]
    equation = pdessl.load_equation(SIMULATORS[name].equation)
    times = torch.linspace(0, 0.6, 4, dtype=torch.float64)
    values = {n: torch.tensor([v], dtype=torch.float64) for n, v in parameters.items()}
    letters = {letter: values[n] for letter, n in equation.parameter_names.items()}
    try:
        flow = coefficients(generator.flow, torch.tensor([0.3], dtype=torch.float64), times[None], letters)
    except SymmetryError:
        pytest.skip("multiplies the field by a function of space")
    stretch, shift, size, added = flow.s[0, :, 0, 0], flow.r[0, :, 0], flow.m[0, :, 0, 0], flow.b0[0, :, 0]
    tilted = bool(flow.b1.abs().max() > 0) or (flow.b2 is not None and bool(flow.b2.abs().max() > 0))
    if tilted or bool((stretch != stretch[0]).any()):
        pytest.skip("makes the field grow along x, or the period vary in time")
    # Fixed numbers of steps, so that both runs take corresponding ones.
    substeps = None if name in LINEAR else 150
    plain = build(name, substeps=substeps)(initial_fields(), times).fields[0, 0]
    # u'(x') = M u((x' - r) / S) + b0 on x' = j L' / N: a shift of the modes of each slice.
    modes = torch.fft.rfft(plain)
    k = 2 * math.pi / length * torch.arange(modes.shape[-1], dtype=torch.float64)
    moved = torch.fft.irfft(modes * torch.exp(-1j * k * (shift / stretch)[:, None].expand(4, 1)), n=POINTS)
    image = size[:, None] * moved + added[:, None]
    new = {equation.parameter_names[letter]: float(value) for letter, value in flow.parameters.items()}
    new_times = flow.new_time[0] - flow.new_time[0, 0]
    again = SIMULATORS[name](
        **{**parameters, **new}, domain_length=length * float(stretch[0]), substeps=substeps, **SETTINGS
    )(image[:1, None], new_times)
    scale = image.abs().max()
    torch.testing.assert_close(again.fields[0, 0] / scale, image / scale, rtol=0, atol=2e-9)


@pytest.mark.parametrize("name", CASES)
def test_alone_in_a_batch_in_groups_and_with_a_graph_are_the_same(name):
    initial, times = initial_fields(batch=40), torch.linspace(0, 0.3, 3, dtype=torch.float64)
    length = CASES[name][1] * torch.linspace(0.9, 1.1, 40, dtype=torch.float64)
    together = build(name, domain_length=length, substeps=6)(initial, times).fields
    for row in (0, 17, 39):
        alone = build(name, domain_length=length[row], substeps=6)(initial[row : row + 1], times).fields
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-13)
    graph = build(name, domain_length=length, substeps=6)(initial.clone().requires_grad_(), times).fields
    assert graph.requires_grad
    torch.testing.assert_close(graph.detach(), together, rtol=0, atol=1e-13)
    torch.set_num_threads(2)  # the fixture puts it back
    threaded = build(name, domain_length=length, substeps=6)(initial, times).fields
    assert torch.get_num_threads() == 2
    torch.testing.assert_close(threaded, together, rtol=0, atol=1e-13)


def test_a_group_wider_than_the_cache_is_split_and_joined_in_order():
    initial = initial_fields(32, 5000)
    simulator = Heat(0.1, points=32, dtype=torch.float64)
    fields = simulator(initial, torch.tensor([0.0], dtype=torch.float64)).fields
    torch.testing.assert_close(fields[:, :, 0], initial, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_single_precision_agrees_with_double(name):
    initial, times = initial_fields(batch=3), torch.linspace(0, 0.5, 3, dtype=torch.float64)
    double = build(name, substeps=25)(initial, times)
    single = build(name, substeps=25, precision=torch.float32, dtype=torch.float32)(initial, times)
    assert single.fields.dtype == torch.float32 and single.time.dtype == torch.float64
    difference = (single.fields - double.fields).abs().max()
    assert 0 < difference < 5e-6, f"difference {difference:.1e}"
    initial32 = build(name, substeps=25, precision=torch.float32, dtype=torch.float32)(initial.float(), times)
    torch.testing.assert_close(initial32.fields, single.fields, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["burgers", "kdv_burgers", "kuramoto_sivashinsky", "heat"])
def test_energy_budget(name):
    """d/dt ½<u²> = -ν <u_x²>, and b <u_x²> - h <u_xx²> for Kuramoto-Sivashinsky; the other terms do no work."""
    parameters, length = CASES[name]
    times = torch.arange(0, 61, dtype=torch.float64) * 0.01
    fields = build(name, substeps=2 if name not in LINEAR else None)(initial_fields(), times).fields[0, 0]
    k = 2 * math.pi / length * torch.arange(POINTS // 2 + 1, dtype=torch.float64)
    modes = torch.fft.rfft(fields)
    slope, curvature = (torch.fft.irfft(factor * modes, n=POINTS).square().mean(-1) for factor in (1j * k, k**2))
    damping = parameters.get("viscosity", parameters.get("diffusivity", -parameters.get("antidiffusion", 0.0)))
    work = -damping * slope - parameters.get("hyperviscosity", 0.0) * curvature
    energy = 0.5 * fields.square().mean(-1)
    gained = torch.trapezoid(work, dx=0.01) - (work.diff()[-1] - work.diff()[0]) * 0.01 / 12  # Euler-Maclaurin: order 4
    assert abs(float(energy[-1] - energy[0] - gained)) < 2e-7 * float(energy[0])
    assert abs(float(energy[-1] - energy[0])) > 1e-3 * float(energy[0])
    means = fields.mean(-1)
    torch.testing.assert_close(means, means[:1].expand_as(means), rtol=0, atol=1e-14)


@pytest.mark.parametrize("simulator", [KuramotoSivashinsky, Burgers, KdV])
def test_steps_are_of_order_four(simulator):
    name = {KuramotoSivashinsky: "kuramoto_sivashinsky", Burgers: "burgers", KdV: "kdv"}[simulator]
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    runs = {n: build(name, substeps=n)(2 * initial_fields(), times).fields[0, 0, 1] for n in (40, 80, 160, 800)}
    errors = [float((runs[n] - runs[800]).abs().max()) for n in (40, 80, 160)]
    rates = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert min(rates) > 3.6, f"errors {errors}, rates {rates}"


@pytest.mark.parametrize("name", CASES)
def test_signatures_name_every_keyword(name):
    """Recipes and help look there."""
    import inspect

    shown = inspect.signature(SIMULATORS[name]).parameters
    for keyword in ("domain_length", "points", "time_step", "substeps", "check_resolution", "forcing", "precision"):
        assert keyword in shown
    with pytest.raises(TypeError, match="time_stp"):
        build(name, time_stp=0.1)


@pytest.mark.parametrize("name", ["burgers", "kuramoto_sivashinsky", "heat"])
def test_forward_derivatives_agree_with_backward_ones(name):
    initial, times = initial_fields(32), torch.tensor([0.2, 0.4], dtype=torch.float64)
    direction = torch.cos(torch.arange(32, dtype=torch.float64))[None, None]
    simulator = build(name, points=32, substeps=4)

    def final(field):
        return simulator.solve(field, times).trajectories.fields[0, 0, -1]

    _, forward = torch.func.jvp(final, (initial,), (direction,))
    weights = torch.sin(torch.arange(32, dtype=torch.float64))
    field = initial.clone().requires_grad_()
    (backward,) = torch.autograd.grad(final(field) @ weights, field)
    torch.testing.assert_close(forward @ weights, (backward * direction).sum(), rtol=1e-10, atol=1e-12)

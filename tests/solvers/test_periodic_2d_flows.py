"""Incompressible flow: exact solutions with pressure, budgets, invariances, and the symmetries of the catalog."""

import math

import numpy as np
import pytest
import sympy
import torch

from pdessl.augmentation import LieAugmentation
from pdessl.equations import load_equation
from pdessl.errors import ResolutionError
from pdessl.solvers import (
    SIMULATORS,
    Boussinesq2D,
    NavierStokes2D,
    RandomField2D,
    RandomFlow2D,
    random_stream,
    velocity_of_vorticity,
)
from pdessl.symmetry import symmetries

LENGTHS = torch.tensor([[6.0, 8.0], [5.0, 5.5]], dtype=torch.float64)
SQUARE = torch.full((2, 2), 2 * math.pi, dtype=torch.float64)


def times(*values):
    return torch.tensor(values, dtype=torch.float64)


def flow(points, lengths=LENGTHS, rms=0.7, **options):
    family = RandomFlow2D(rms=rms, peak=2.0, highest=4, **options)
    draws = torch.stack([family.draw(random_stream(0, "flow", k, "physics")) for k in range(len(lengths))])
    return family.fields(draws, points, lengths)


def scalar(points, lengths=LENGTHS):
    family = RandomField2D(rms=0.6, peak=2.0, highest=3)
    draws = torch.stack([family.draw(random_stream(0, "scalar", k, "physics")) for k in range(len(lengths))])
    return family.fields(draws, points, lengths)


def wave(points, lengths, nx, ny):
    """Phases k_x x (B, X, 1) and k_y y (B, 1, Y), and the wave numbers."""
    x, y = (2 * math.pi * n * torch.arange(p, dtype=torch.float64) / p for n, p in ((nx, points[0]), (ny, points[1])))
    kx, ky = (2 * math.pi * n / lengths[:, i, None, None] for i, n in ((0, nx), (1, ny)))
    return x[None, :, None], y[None, None], kx, ky


def derivatives(fields, lengths):
    """∂x and ∂y of fields (B, ..., X, Y)."""
    out = []
    for dim, side in ((-2, lengths[:, 0]), (-1, lengths[:, 1])):
        n = fields.shape[dim]
        k = 2 * math.pi * torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
        k = k / side.reshape(-1, *[1] * (fields.ndim - 1))
        k = k.movedim(-1, dim) if dim == -1 else k.transpose(-1, -2)
        out.append(torch.fft.ifft(1j * k * torch.fft.fft(fields, dim=dim), dim=dim).real)
    return out


def assert_budget(quantity, rate, when):
    """A quantity (B, T) changes by the integral of its rate, by Simpson's rule on pairs of intervals."""
    integral = (when[1] - when[0]) / 3 * (rate[:, :-2:2] + 4 * rate[:, 1:-1:2] + rate[:, 2::2]).cumsum(dim=1)
    torch.testing.assert_close(quantity[:, 2::2] - quantity[:, :1], integral, rtol=0, atol=2e-7)
    assert integral.abs().amax(dim=1).min() > 1e-3


# ------------------------------------------------------------------------------------ exact solutions


@pytest.mark.parametrize("lengths", [LENGTHS, SQUARE])
def test_taylor_green_decays_exactly_in_velocity_vorticity_and_pressure(lengths):
    """The cells keep their shape, so that any error of advection or pressure would show at once."""
    points, viscosity = (32, 48), times(0.05, 0.2)
    x, y, kx, ky = wave(points, lengths, 1, 2)
    u, v = ky * torch.cos(x) * torch.sin(y), -kx * torch.sin(x) * torch.cos(y)
    w = -(kx**2 + ky**2) * torch.cos(x) * torch.cos(y)
    p = -0.25 * (ky**2 * torch.cos(2 * x) + kx**2 * torch.cos(2 * y))
    made = NavierStokes2D(
        viscosity,
        domain_length=lengths,
        points=points,
        outputs=("u", "v", "w", "p"),
        substeps=3,
        dtype=torch.float64,
        check_resolution=False,
    )
    result = made(torch.stack([u, v], dim=1), times(0, 1, 2.5)).fields
    for frame, t in enumerate((0.0, 1.0, 2.5)):
        decay = torch.exp(-viscosity[:, None, None] * (kx**2 + ky**2) * t)
        for channel, exact in enumerate((u * decay, v * decay, w * decay, p * decay**2)):
            torch.testing.assert_close(result[:, channel, frame], exact, rtol=0, atol=2e-13)


def test_kolmogorov_flow_reaches_its_laminar_state():
    """u = A sin(k y) / (ν k² + μ), also when a mean flow carries everything through the force along x."""
    amplitude, viscosity, drag, n = times(0.2, 0.1), 0.3, 0.1, 2
    _, y, _, ky = wave((16, 16), SQUARE, 1, n)
    initial = torch.zeros(2, 2, 16, 16, dtype=torch.float64)
    initial[1, 0] = 0.7
    made = NavierStokes2D(
        viscosity, drag, amplitude, points=16, force_wave_number=n, time_step=0.1, dtype=torch.float64
    )
    fields = made(initial, times(0, 40.0)).fields[:, :, 1]
    exact = amplitude[:, None, None] * torch.sin(y) / (viscosity * ky**2 + drag) + torch.zeros(2, 16, 1)
    exact = exact + times(0.0, 0.7 * math.exp(-drag * 40))[:, None, None]
    torch.testing.assert_close(fields[:, 0], exact, rtol=0, atol=1e-10)
    assert fields[:, 1].abs().max() < 1e-12


def test_kolmogorov_flow_and_its_views_satisfy_the_equation_with_its_force():
    """The catalog has the force as a field f(y); views of the simulated flow and its force solve the equation too."""
    amplitude, n, points = 0.8, 2, (48, 48)
    made = NavierStokes2D(
        times(0.1, 0.15),
        0.2,
        amplitude,
        points=points,
        force_wave_number=n,
        substeps=4,
        dtype=torch.float64,
        check_resolution=False,
    )
    runs = made(flow(points, SQUARE), torch.linspace(0, 0.24, 25, dtype=torch.float64))
    force = amplitude * torch.sin(wave(points, SQUARE, 1, n)[1]) + torch.zeros(2, 1, 25, *points, dtype=torch.float64)
    runs = runs.replace(
        fields=torch.cat([runs.fields, force], dim=1), field_names=("u", "v", "f"), equation="kolmogorov_flow"
    )
    drawn = [f.name for f in LieAugmentation("kolmogorov_flow").factors]
    assert drawn == [
        "time_translation",
        "space_translation_x",
        "space_translation_y",
        "galilean_boost_x",
        "acceleration_x",
    ]
    augment = LieAugmentation("kolmogorov_flow", dict.fromkeys(drawn, 0.02))
    view, _ = augment(runs, torch.Generator().manual_seed(0))
    assert (view.fields - runs.fields).abs().max() > 0.1
    equation = load_equation("kolmogorov_flow")
    for data in (runs, view):
        for text, left in zip(equation.texts, equation.residual(data), strict=True):
            assert left.abs().max() < 2e-3, f"{text}: {left.abs().max():.1e}"
    (wrong, *_) = equation.residual(runs.replace(fields=torch.cat([runs.fields[:, :2], -force], dim=1)))
    assert wrong.abs().max() > 1.0


def test_body_force_and_pressure():
    """A gradient moves nothing and is all pressure; with the curl of a force the flow follows it, whatever its mean."""
    points = (34, 34)
    x, y, kx, ky = wave(points, SQUARE, 2, 1)
    push = torch.stack([-kx * torch.sin(x) * torch.cos(y), -ky * torch.cos(x) * torch.sin(y)], dim=1)
    settings = {"points": points, "substeps": 5, "dtype": torch.float64, "outputs": ("u", "v", "p")}
    settings["check_resolution"] = False
    rest = torch.zeros(2, 2, *points, dtype=torch.float64)
    at_rest = NavierStokes2D(0.1, forcing=lambda t: push + 0.3, **settings)(rest, times(0, 1.0)).fields[:, :, 1]
    assert at_rest[:, :2].abs().max() < 1e-14
    torch.testing.assert_close(at_rest[:, 2], torch.cos(x) * torch.cos(y) + 0 * at_rest[:, 2], rtol=0, atol=1e-13)
    # Taylor-Green cells kept up: the force balances the viscosity.
    cells = torch.stack([ky * torch.cos(x) * torch.sin(y), -kx * torch.sin(x) * torch.cos(y)], dim=1)
    hold = 0.1 * (kx**2 + ky**2)[:, None] * cells
    kept = NavierStokes2D(0.1, forcing=lambda t: hold + push, **settings)(cells, times(0, 1.0)).fields[:, :, 1]
    torch.testing.assert_close(kept[:, :2], cells, rtol=0, atol=1e-12)


def test_velocity_of_vorticity_and_projection():
    points = (32, 40)
    velocity = flow(points)
    vorticity = derivatives(velocity[:, 1], LENGTHS)[0] - derivatives(velocity[:, 0], LENGTHS)[1]
    torch.testing.assert_close(velocity_of_vorticity(vorticity + 3.0, LENGTHS), velocity, rtol=0, atol=1e-12)
    slope = torch.stack(derivatives(scalar(points)[:, 0], LENGTHS), dim=1)
    made = NavierStokes2D(0.1, domain_length=LENGTHS, points=points, dtype=torch.float64)
    start = made(velocity + slope, times(0.0)).fields[:, :, 0]
    torch.testing.assert_close(start, velocity, rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------ budgets and invariances


def test_budgets_of_energy_and_enstrophy():
    """d/dt <u²+v²>/2 = <f·u> - ν <w²> - 2μ E and d/dt <w²>/2 = <w curl f> - ν <|∇w|²> - 2μ Z."""
    points, viscosity, drag, amplitude, n = (64, 64), 0.03, 0.05, 0.4, 2
    made = NavierStokes2D(
        viscosity,
        drag,
        amplitude,
        LENGTHS,
        points,
        force_wave_number=n,
        outputs=("u", "v", "w"),
        substeps=2,
        dtype=torch.float64,
        check_resolution=False,
    )
    when = torch.linspace(0, 1.2, 49, dtype=torch.float64)
    u, v, w = made(flow(points), when).fields.unbind(dim=1)
    _, y, _, ky = wave(points, LENGTHS, 1, n)
    force, curl = amplitude * torch.sin(y)[:, None], -amplitude * (ky * torch.cos(y))[:, None]
    w_x, w_y = derivatives(w, LENGTHS)

    def mean(q):
        return q.mean(dim=(2, 3))

    energy, enstrophy = mean(u**2 + v**2) / 2, mean(w**2) / 2
    gain = mean(force * u) - 2 * viscosity * enstrophy - 2 * drag * energy
    spin = mean(curl * w) - viscosity * mean(w_x**2 + w_y**2) - 2 * drag * enstrophy
    for quantity, rate in ((energy, gain), (enstrophy, spin)):
        assert_budget(quantity, rate, when)


def test_free_flow_conserves_momentum_and_loses_energy_and_enstrophy():
    points = (48, 48)
    made = NavierStokes2D(
        0.02, domain_length=LENGTHS, points=points, outputs=("u", "v", "w"), dtype=torch.float64, check_resolution=False
    )
    u, v, w = made(flow(points, mean=0.5), torch.linspace(0, 4, 9, dtype=torch.float64)).fields.unbind(dim=1)
    for q in (u, v, w):
        mean = q.mean(dim=(2, 3))
        torch.testing.assert_close(mean, mean[:, :1].expand_as(mean), rtol=0, atol=1e-13)
    assert u.mean().abs() > 0.01 and w.mean().abs() < 1e-13
    for q in (u**2 + v**2, w**2):
        assert bool((q.mean(dim=(2, 3)).diff(dim=1) < 0).all())
    divergence = derivatives(u, LENGTHS)[0] + derivatives(v, LENGTHS)[1]
    assert divergence.abs().max() < 1e-12


def test_galilean_invariance_is_exact_at_any_step():
    points, speed = (32, 32), times(3.0, -2.0)
    made = NavierStokes2D(
        0.05,
        domain_length=SQUARE,
        points=points,
        outputs=("u", "v", "w", "p"),
        substeps=3,
        check_resolution=False,
        dtype=torch.float64,
    )
    initial, t = flow(points, SQUARE), math.pi / 8  # 3 t and 2 t are 6 and 4 cells
    still = made(initial, times(0, t)).fields[:, :, 1]
    moving = made(initial + speed[:, None, None], times(0, t)).fields[:, :, 1]
    expected = torch.roll(still, (6, -4), dims=(2, 3))
    expected[:, :2] += speed[:, None, None]
    torch.testing.assert_close(moving, expected, rtol=0, atol=1e-12)


def test_budgets_of_buoyant_flow():
    """d/dt E = b <v s'> - ν <w²>; <s> is conserved, <s²> falls by 2κ <|∇s|²>."""
    points, viscosity, diffusivity, buoyancy = (64, 64), 0.04, 0.05, times(0.8, -0.5)
    made = Boussinesq2D(
        viscosity,
        buoyancy,
        diffusivity,
        LENGTHS,
        points,
        outputs=("u", "v", "s", "w"),
        substeps=2,
        dtype=torch.float64,
        check_resolution=False,
    )
    when = torch.linspace(0, 1.2, 49, dtype=torch.float64)
    initial = torch.cat([0.5 * flow(points), scalar(points) + 1.0], dim=1)
    u, v, s, w = made(initial, when).fields.unbind(dim=1)
    s_x, s_y = derivatives(s, LENGTHS)

    def mean(q):
        return q.mean(dim=(2, 3))

    lift = buoyancy[:, None] * (mean(v * s) - mean(v) * mean(s))
    torch.testing.assert_close(mean(s), mean(s)[:, :1].expand(-1, 49), rtol=0, atol=1e-13)
    for quantity, rate in (
        (mean(u**2 + v**2) / 2, lift - viscosity * mean(w**2)),
        (mean(s**2) / 2, -diffusivity * mean(s_x**2 + s_y**2)),
    ):
        assert_budget(quantity, rate, when)
    assert lift.abs().amax() > 1e-2


def test_boussinesq_without_buoyancy_is_navier_stokes_with_a_tracer():
    points = (32, 32)
    settings = {"domain_length": LENGTHS, "points": points, "substeps": 5, "dtype": torch.float64}
    settings["check_resolution"] = False
    initial = torch.cat([flow(points), scalar(points)], dim=1)
    plain = NavierStokes2D(0.05, outputs=("u", "v", "p"), **settings)(initial[:, :2], times(0, 1.0)).fields
    made = Boussinesq2D(0.05, 0.0, 0.1, outputs=("u", "v", "p"), **settings)(initial, times(0, 1.0)).fields
    torch.testing.assert_close(made, plain, rtol=0, atol=1e-13)


def test_hyperdiffusivity_acts_on_short_waves():
    points, eta = (24, 24), 1e-3
    x, y, kx, ky = wave(points, SQUARE, 3, 2)
    initial = torch.zeros(2, 3, *points, dtype=torch.float64)
    initial[:, 2] = torch.cos(x + y)
    made = Boussinesq2D(0.1, 0.0, 0.0, points=points, hyperdiffusivity=eta, dtype=torch.float64)
    assert made.equation == "boussinesq"
    s = made(initial, times(0, 2.0)).fields[:, 2, 1]
    torch.testing.assert_close(s, torch.exp(-2 * eta * (kx**2 + ky**2) ** 2) * initial[:, 2], rtol=0, atol=1e-13)


def test_a_scalar_that_does_not_diffuse_is_refused_unless_told():
    points = (64, 64)
    initial = torch.cat([flow(points, SQUARE), scalar(points, SQUARE)], dim=1)
    with pytest.raises(ResolutionError, match="64x64 points do not resolve .* set hyperdiffusivity"):
        Boussinesq2D(0.05, 1.0, 0.0, points=points)(initial, times(0, 0.1))
    made = Boussinesq2D(0.05, 1.0, 0.0, points=points, hyperdiffusivity=2e-4)
    needed = made.points_needed(initial)
    assert bool((needed < 200).all())
    without = Boussinesq2D(0.05, 1.0, 0.05, points=points).points_needed(initial)
    torch.testing.assert_close(without, Boussinesq2D(0.05, 1.0, 0.5, points=points).points_needed(initial))


def test_advised_grid_and_step_keep_their_word():
    """On the advised grid the tail stays below 1e-3 and the error below a per cent, and the default step is stable."""
    lengths = SQUARE[:1]
    coarse = NavierStokes2D(0.02, points=32).points_needed(flow((32, 32), lengths, rms=1.0))
    points = 2 * math.ceil(float(coarse.max()) / 2)
    fine = 2 * points
    solutions = {
        n: NavierStokes2D(0.02, points=n, dtype=torch.float64).solve(flow((n, n), lengths, rms=1.0), times(0, 2.0, 4.0))
        for n in (points, fine)
    }
    assert float(solutions[points].spectral_tail.max()) < 1e-3
    coarse, fine = solutions[points].trajectories.fields, solutions[fine].trajectories.fields[..., ::2, ::2]
    assert (coarse - fine).abs().max() < 1e-2 * fine.abs().max()
    half = NavierStokes2D(0.02, points=points // 4 * 2, check_resolution=False, dtype=torch.float64)
    assert float(half.solve(flow((points // 4 * 2,) * 2, lengths, rms=1.0), times(0, 2.0, 4.0)).spectral_tail) > 3e-3


# --------------------------------------------------------------------------- symmetries of the catalog


def transformed(generator, strength, fields, names, lengths, parameters, time):
    """Move a frame at a time by a symmetry that takes grid points to grid points.

    Args: fields (C, X, Y), lengths and parameters of one trajectory (parameters by letter). Returns the same three.
    """
    maps = {k: e.subs("epsilon", strength) for k, e in generator.flow.maps.items()}
    c, nx, ny = fields.shape
    steps = np.array([lengths[0] / nx, lengths[1] / ny])
    x, y = np.meshgrid(np.arange(nx) * steps[0], np.arange(ny) * steps[1], indexing="ij")
    values = {"x": x, "y": y, "t": time, **dict(zip(names, fields.numpy(), strict=True)), **parameters}

    def image(name):
        symbols = sorted(maps[name].free_symbols, key=str)
        found = sympy.lambdify(symbols, maps[name], "numpy")(*(values[str(s)] for s in symbols))
        return np.asarray(found, dtype=float)

    places = [np.broadcast_to(image(a), (nx, ny)) for a in "xy"]
    spread = [(p.max() - p.min()) / (p.shape[0] - 1 if np.ptp(p[:, 0]) > 1e-9 else p.shape[1] - 1) for p in places]
    counts = [nx if np.ptp(p[:, 0]) > 1e-9 else ny for p in places]
    index = []
    for place, step, count in zip(places, spread, counts, strict=True):
        exact = place / step
        assert np.abs(exact - np.round(exact)).max() < 1e-6, "the map does not take grid points to grid points"
        index.append(np.round(exact).astype(int) % count)
    moved = np.empty((c, *counts))
    for channel, name in enumerate(names):
        moved[channel][index[0], index[1]] = image(name)
    new = {n: float(image(n)) for n in parameters}
    return torch.from_numpy(moved), [s * n for s, n in zip(spread, counts, strict=True)], new, float(image("t"))


NS, BOUSSINESQ = "navier_stokes_2d_velocity", "boussinesq_diffusion"


@pytest.mark.parametrize(
    ("equation", "generator", "strength"),
    [
        (NS, "rotation", math.pi / 2),
        (NS, "rotation", math.pi),
        (NS, "scaling", 0.4),
        (NS, "viscosity_scaling", -0.3),
        (NS, "galilean_boost_x", 4 * 6.0 / 32),
        (NS, "galilean_boost_y", -5 * 8.0 / 32),
        (BOUSSINESQ, "scaling", 0.3),
        (BOUSSINESQ, "viscosity_scaling", 0.3),
        (BOUSSINESQ, "buoyancy_scaling", 0.7),
        (BOUSSINESQ, "scalar_shift", 0.6),
        (BOUSSINESQ, "galilean_boost_y", 3 * 8.0 / 32),
        ("gray_scott", "diffusivity_scaling", 0.4),
        ("gray_scott", "rotation", math.pi / 2),
        ("shallow_water_2d", "time_scaling", 0.3),
        ("shallow_water_2d", "space_scaling", -0.2),
        ("shallow_water_2d", "gravity_scaling", 0.5),
        ("shallow_water_2d", "rotation", math.pi / 2),
        ("burgers_2d", "scaling", 0.3),
        ("burgers_2d", "viscosity_scaling", 0.3),
        ("burgers_2d", "rotation", -math.pi / 2),
        ("advection_diffusion_2d", "amplitude_scaling", 0.4),
    ],
)
def test_transform_then_simulate_is_simulate_then_transform(equation, generator, strength):
    simulator = {NS: "navier_stokes_2d", BOUSSINESQ: "boussinesq"}.get(equation, equation)
    text = load_equation(equation)
    letters = dict(text.parameter_names)
    values = dict(zip(letters, (0.06, 0.08, 0.7, 0.05), strict=False))
    names = SIMULATORS[simulator].field_names
    points, lengths, end = (32, 32), (6.0, 8.0), 1.0
    sides = torch.tensor([lengths], dtype=torch.float64)
    initial = flow(points, sides) if names[:2] == ("u", "v") else scalar(points, sides)
    if len(names) == 3:
        initial = torch.cat([0.3 * initial, 0.1 * scalar(points, sides) + 1.0], dim=1)
    if equation == "gray_scott":
        initial = 0.5 + 0.1 * initial

    def simulate(fields, sides, parameters, duration):
        made = SIMULATORS[simulator](
            **{letters[k]: v for k, v in parameters.items()},
            domain_length=torch.tensor([sides], dtype=torch.float64),
            points=tuple(fields.shape[1:]),
            substeps=64,
            check_resolution=False,
            dtype=torch.float64,
        )
        return made(fields[None], times(0, duration)).fields[0, :, 1]

    found = symmetries(equation)[generator]
    moved, new_lengths, new_values, start = transformed(found, strength, initial[0], names, lengths, values, 0.0)
    assert start == 0.0
    after, after_lengths, _, new_end = transformed(
        found, strength, simulate(initial[0], lengths, values, end), names, lengths, values, end
    )
    assert after_lengths == pytest.approx(new_lengths)
    before = simulate(moved, new_lengths, new_values, new_end)
    size = after.abs().max()
    assert (after - moved).abs().max() > 1e-3 * size  # something happened
    assert (before - after).abs().max() < 1e-9 * size, f"{(before - after).abs().max() / size:.1e}"

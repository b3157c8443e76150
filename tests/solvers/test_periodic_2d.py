"""What all doubly periodic simulators promise: exact solutions, order, batches, precision, output, refusals."""

import math
import re

import pytest
import torch

from pdessl.equations import load_equation
from pdessl.errors import DataError, ResolutionError, ShapeError
from pdessl.solvers import (
    SIMULATORS,
    AdvectionDiffusion2D,
    Boussinesq2D,
    Burgers2D,
    FitzHughNagumo,
    GrayScott,
    NavierStokes2D,
    RandomField2D,
    ShallowWater2D,
    random_stream,
)

LENGTHS = torch.tensor([[6.0, 8.0], [5.0, 5.5]], dtype=torch.float64)


def times(*values):
    return torch.tensor(values, dtype=torch.float64)


def nodes(points, lengths=LENGTHS):
    """x (B, X, 1) and y (B, 1, Y)."""
    x, y = (torch.arange(n, dtype=torch.float64) / n for n in points)
    return lengths[:, :1, None] * x[:, None], lengths[:, 1:, None] * y


def smooth(points, components, lengths=LENGTHS, highest=3):
    family = RandomField2D(rms=1.0, peak=2.0, highest=highest, components=components)
    draws = torch.stack([family.draw(random_stream(0, "test", k, "physics")) for k in range(len(lengths))])
    return family.fields(draws, points, lengths)


#: Simulator, parameters per trajectory, scale and offset of each channel of a smooth random state.
CASES = {
    "navier_stokes_2d": ({"viscosity": (0.05, 0.08)}, (0.5, 0.5), (0.2, -0.3)),
    "boussinesq": (
        {"viscosity": (0.05, 0.08), "buoyancy": (0.7, -0.4), "scalar_diffusivity": (0.06, 0.05)},
        (0.5, 0.5, 0.5),
        (0.2, -0.3, 1.0),
    ),
    "gray_scott": (
        {
            "feed_rate": (0.04, 0.03),
            "kill_rate": (0.06, 0.05),
            "substrate_diffusivity": (0.05, 0.06),
            "activator_diffusivity": (0.03, 0.02),
        },
        (0.1, 0.1),
        (0.5, 0.4),
    ),
    "fitzhugh_nagumo": (
        {"activator_diffusivity": (0.05, 0.2), "inhibitor_diffusivity": (0.3, 0.1), "threshold": (0.02, 0.1)},
        (0.5, 0.5),
        (0.1, -0.2),
    ),
    "shallow_water_2d": ({"gravity": (1.3, 0.8)}, (0.05, 0.05, 0.05), (0.2, 0.0, 1.0)),
    "burgers_2d": ({"viscosity": (0.2, 0.25)}, (0.4, 0.4), (0.1, 0.2)),
    "advection_diffusion_2d": (
        {"advection_velocity_x": (1.0, -0.4), "advection_velocity_y": (-0.5, 0.3), "diffusivity": (0.08, 0.1)},
        (1.0,),
        (0.5,),
    ),
}


def case(name, points, rows=slice(None), **settings):
    """A simulator and an initial state of two different trajectories, or of some of them."""
    parameters, scale, offset = CASES[name]
    values = {n: torch.tensor(v, dtype=torch.float64)[rows] for n, v in parameters.items()}
    settings = {"dtype": torch.float64, "check_resolution": False} | settings
    column = [torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (scale, offset)]
    initial = column[0] * smooth(points, len(scale)) + column[1]
    return SIMULATORS[name](**values, domain_length=LENGTHS[rows], points=points, **settings), initial[rows]


# ----------------------------------------------------------------------------- laws of every simulator


@pytest.mark.parametrize(
    ("name", "equation", "outputs"),
    [
        ("navier_stokes_2d", "navier_stokes_2d", ("u", "v", "p")),
        ("navier_stokes_2d", "navier_stokes_2d_velocity", ("u", "v")),
        ("navier_stokes_2d", "navier_stokes_2d_vorticity", ("w", "u", "v")),
        ("boussinesq", "boussinesq_diffusion", ("u", "v", "s", "p")),
        ("gray_scott", "gray_scott", None),
        ("fitzhugh_nagumo", "fitzhugh_nagumo", None),
        ("shallow_water_2d", "shallow_water_2d", None),
        ("burgers_2d", "burgers_2d", None),
        ("advection_diffusion_2d", "advection_diffusion_2d", None),
    ],
)
def test_simulated_fields_satisfy_the_equation_of_the_catalog(name, equation, outputs):
    points = (64, 72)
    made, initial = case(name, points, substeps=2, **({"outputs": outputs} if outputs else {}))
    if name == "boussinesq":  # the lift of the mean scalar is balanced by a gradient that is not in p
        initial[:, 2] -= initial[:, 2].mean(dim=(1, 2), keepdim=True)
    trajectories = made(initial, torch.linspace(0, 0.06, 13, dtype=torch.float64))
    for text, left in zip(load_equation(equation).texts, load_equation(equation).residual(trajectories), strict=True):
        assert left.abs().max() < 1e-4, f"{text}: {left.abs().max():.1e}"


@pytest.mark.parametrize("name", [n for n in CASES if n != "advection_diffusion_2d"])  # that one is solved exactly
def test_order_in_time_is_four(name):
    end, results = 8.0 if name == "gray_scott" else 1.0, []
    for substeps in (8, 16, 32, 128):
        made, initial = case(name, (32, 32), substeps=substeps)
        results.append(made(initial, times(0, end)).fields[:, :, 1])
    errors = [float((r - results[-1]).abs().max()) for r in results[:-1]]
    rates = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert min(rates) >= 3.75, f"errors {errors}, rates {rates}"


@pytest.mark.parametrize("name", CASES)
def test_a_trajectory_alone_is_the_same_as_in_a_batch(name):
    made, initial = case(name, (24, 32), substeps=5)
    together = made(initial, times(0, 0.2, 0.5))
    for row in range(2):
        alone, own = case(name, (24, 32), slice(row, row + 1), substeps=5)
        result = alone(own, times(0, 0.2, 0.5))
        torch.testing.assert_close(result.fields[0], together.fields[row], rtol=0, atol=1e-12)
        for axis in range(2):
            torch.testing.assert_close(result.space[axis][0], together.space[axis][row], rtol=0, atol=0)


def test_pieces_of_a_large_batch_fit_together(monkeypatch):
    made, initial = case("navier_stokes_2d", (24, 32), substeps=5)
    whole = made.solve(initial, times(0.1, 0.5))
    monkeypatch.setattr("pdessl.solvers.periodic_2d.CACHE_VALUES", 1)
    pieces = made.solve(initial, times(0.1, 0.5))
    torch.testing.assert_close(pieces.trajectories.fields, whole.trajectories.fields, rtol=0, atol=1e-13)
    torch.testing.assert_close(pieces.spectral_tail, whole.spectral_tail, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", CASES)
def test_single_precision_agrees_with_double(name):
    made, initial = case(name, (32, 32), substeps=10)
    single, _ = case(name, (32, 32), substeps=10, precision=torch.float32, dtype=torch.float32)
    double = made(initial, times(0, 1)).fields
    found = single(initial, times(0, 1)).fields
    assert found.dtype == torch.float32
    error = (found - double).abs().max() / double.abs().max()
    assert 1e-9 < error < 2e-5, f"error {error:.1e}"


@pytest.mark.parametrize("name", CASES)
def test_steps_with_a_graph_are_those_in_place_and_gradients_are_right(name):
    made, initial = case(name, (10, 12), substeps=2)
    plain = made(initial, times(0, 0.3)).fields
    initial = initial.requires_grad_()
    first = CASES[name][0].copy()
    key = list(first)[0]
    values = torch.tensor(first.pop(key), dtype=torch.float64, requires_grad=True)

    def end(field, parameter):
        rest = {n: torch.tensor(v, dtype=torch.float64) for n, v in first.items()}
        simulator = SIMULATORS[name](
            **{key: parameter},
            **rest,
            domain_length=LENGTHS,
            points=(10, 12),
            substeps=2,
            check_resolution=False,
            dtype=torch.float64,
        )
        return simulator(field, times(0, 0.3)).fields[:, :, -1, ::3, ::3]

    torch.testing.assert_close(end(initial, values), plain[:, :, -1, ::3, ::3], rtol=0, atol=1e-13)
    assert torch.autograd.gradcheck(end, (initial, values), atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("name", CASES)
def test_forward_derivatives_agree_with_differences(name):
    made, initial = case(name, (16, 16), substeps=2)
    direction = 0.1 * initial.roll(3, dims=-1)

    def end(field):
        return made(field, times(0, 0.3)).fields[:, :, -1]

    _, found = torch.func.jvp(end, (initial,), (direction,))
    step = 1e-5
    expected = (end(initial + step * direction) - end(initial - step * direction)) / (2 * step)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


# Of a force on an incompressible flow only the curl acts: the tests of the flows have their own.
@pytest.mark.parametrize("name", [n for n in CASES if n not in ("navier_stokes_2d", "boussinesq")])
def test_forcing_holds_a_state_where_it_is(name):
    """A source that undoes what the free equation would do: the state stays."""
    made, initial = case(name, (16, 16), substeps=4)
    step = 1e-3
    free, _ = case(name, (16, 16), substeps=1)
    ahead = free(initial, times(0, *(step * k for k in range(1, 5)))).fields
    rate = sum(w * ahead[:, :, k] for k, w in enumerate((-25 / 12, 4, -3, 4 / 3, -1 / 4))) / step
    forced, _ = case(name, (16, 16), substeps=16, forcing=lambda t: -rate)
    fields = forced(initial, times(0, 0.5)).fields
    torch.testing.assert_close(fields[:, :, 1], fields[:, :, 0], rtol=0, atol=1e-6)
    assert (made(initial, times(0, 0.5)).fields[:, :, 1] - fields[:, :, 1]).abs().max() > 1e-3


def test_observations():
    made, initial = case("navier_stokes_2d", (48, 64), substeps=2)
    when = times(0, 0.2)
    full = made.solve(initial, when).trajectories
    coarse = made.solve(initial, when, observed=(16, 32)).trajectories
    torch.testing.assert_close(coarse.fields, full.fields[..., ::3, ::2], rtol=0, atol=1e-14)
    assert coarse.space[0].shape == (2, 16) and coarse.space[1].shape == (2, 32)
    cells = made.solve(initial, when, observed=(16, 32), sampling="cell_average").trajectories.fields
    modes = torch.fft.rfft2(full.fields, norm="forward")
    jx, jy = torch.fft.fftfreq(48, 1 / 48, dtype=torch.float64), torch.arange(33, dtype=torch.float64)
    means = torch.fft.irfft2(modes * torch.sinc(jx / 16)[:, None] * torch.sinc(jy / 32), s=(48, 64), norm="forward")[
        ..., ::3, ::2
    ]
    torch.testing.assert_close(cells, means, rtol=0, atol=1e-13)
    smooth_fields = made.solve(initial, when, observed=(16, 32), sampling="spectral").trajectories.fields
    kept = torch.fft.rfft2(smooth_fields, norm="forward")
    torch.testing.assert_close(kept[..., :8, :16], modes[..., :8, :16], rtol=0, atol=1e-14)
    torch.testing.assert_close(kept[..., -7:, :16], modes[..., -7:, :16], rtol=0, atol=1e-14)
    assert kept[..., 8, :].abs().max() < 1e-15 and kept[..., 16].abs().max() < 1e-15
    with pytest.raises(ShapeError, match="use a multiple of 20"):
        made.solve(initial, when, observed=(20, 32))


def test_coordinates_names_and_parameters():
    made, initial = case("boussinesq", (24, 32), outputs=("w", "s"), dtype=torch.float32)
    result = made(initial, times(0, 0.1, 0.2))
    assert result.fields.shape == (2, 2, 3, 24, 32) and result.fields.dtype == torch.float32
    assert result.field_names == ("w", "s") and result.axis_names == ("x", "y")
    assert result.boundary == ("periodic", "periodic") and result.equation == "boussinesq_diffusion"
    torch.testing.assert_close(result.lengths, LENGTHS)
    torch.testing.assert_close(result.grid_spacing, LENGTHS / torch.tensor([24.0, 32.0]))
    torch.testing.assert_close(result.parameters["buoyancy"], times(0.7, -0.4))


# --------------------------------------------------------------------------------- linear and Burgers


def test_advection_diffusion_is_exact():
    points = (16, 24)
    made, _ = case("advection_diffusion_2d", points)
    x, y = nodes(points)
    kx, ky = (2 * math.pi * n / LENGTHS[:, i, None, None] for i, n in ((0, 2), (1, 1)))
    c, d, nu = (made.parameters[n][:, None, None] for n in made.parameter_names)

    def exact(t):
        return 1.5 + torch.exp(-nu * (kx**2 + ky**2) * t) * torch.cos(kx * (x - c * t) - ky * (y - d * t) + 0.3)

    fields = made(exact(0.0)[:, None], times(0, 0.7, 20)).fields[:, 0]
    for frame, t in enumerate((0.0, 0.7, 20.0)):
        torch.testing.assert_close(fields[:, frame], exact(t), rtol=0, atol=1e-13)


def test_forcing_at_rest_is_seen_by_a_moving_field():
    """u = cos(k x) with f = -c k sin(k x) + ν k² cos(k x): a steady state, although everything drifts through it."""
    points, c, nu = (16, 16), 1.3, 0.1
    x, _ = nodes(points, torch.full((1, 2), 2 * math.pi, dtype=torch.float64))
    field = torch.cos(2 * x).expand(1, 16, 16)
    source = -2 * c * torch.sin(2 * x) + 4 * nu * field
    made = AdvectionDiffusion2D(
        c, 0.4, nu, points=16, substeps=80, dtype=torch.float64, forcing=lambda t: source.expand(len(t), 16, 16)
    )
    end = made(field[:, None], times(0, 3.0)).fields[0, 0, 1]
    torch.testing.assert_close(end, field[0], rtol=0, atol=1e-7)


def test_burgers_with_a_potential_is_cole_hopf():
    """u = -2ν ∇φ/φ with φ = 1 + Σ decaying waves: exact in two dimensions."""
    nu, points = 0.15, (96, 96)
    lengths = torch.full((1, 2), 2 * math.pi, dtype=torch.float64)
    x, y = nodes(points, lengths)

    def exact(t):
        a, b = 0.5 * math.exp(-nu * t), 0.3 * math.exp(-5 * nu * t)
        phi = 1.5 + a * torch.cos(x) + b * torch.cos(x + 2 * y) + 0 * y
        slope_x = -a * torch.sin(x) - b * torch.sin(x + 2 * y)
        slope_y = -2 * b * torch.sin(x + 2 * y)
        return torch.stack([-2 * nu * slope_x / phi, -2 * nu * slope_y / phi], dim=1)

    made = Burgers2D(nu, points=points, substeps=40, dtype=torch.float64)
    fields = made(exact(0.0), times(0, 1.0)).fields[:, :, 1]
    torch.testing.assert_close(fields, exact(1.0), rtol=0, atol=1e-8)


# ---------------------------------------------------------------------------- Gray-Scott, shallow water


def test_gray_scott_without_activator_relaxes_to_the_fed_state():
    points, feed, diffusivity = (16, 16), 0.04, 0.05
    x, y = nodes(points, torch.full((1, 2), 2 * math.pi, dtype=torch.float64))
    bump = 0.2 * torch.cos(x + 2 * y)
    initial = torch.stack([0.7 + bump, torch.zeros(1, 16, 16, dtype=torch.float64)], dim=1)
    made = GrayScott(
        feed, 0.06, diffusivity, 0.03, 2 * math.pi, 16, time_step=2.0, check_resolution=False, dtype=torch.float64
    )
    fields = made(initial, times(0, 30)).fields[:, :, 1]
    exact = 1 - 0.3 * math.exp(-feed * 30) + bump * math.exp(-(feed + 5 * diffusivity) * 30)
    torch.testing.assert_close(fields[:, 0], exact, rtol=0, atol=1e-12)
    assert not bool(fields[:, 1].any())


def test_gray_scott_uniform_states_are_steady():
    """u v = F + k and F (1 - u) = (F + k) v."""
    feed, kill = 0.04, 0.05
    v = (feed + math.sqrt(feed**2 - 4 * feed * (feed + kill) ** 2)) / (2 * (feed + kill))
    u = (feed + kill) / v
    state = times(u, v)[None, :, None, None].expand(1, 2, 8, 8)
    fields = GrayScott(feed, kill, points=8, check_resolution=False, dtype=torch.float64)(state, times(0, 10)).fields
    torch.testing.assert_close(fields[:, :, 1], state, rtol=0, atol=1e-9)


def test_fitzhugh_nagumo_has_its_uniform_state_and_comes_back_to_it():
    """u = v = -k^(1/3); small uniform departures turn and decay with trace -3 k^(2/3) and determinant 3 k^(2/3)."""
    k = 0.1
    steady = -(k ** (1 / 3))
    state = torch.full((1, 2, 8, 8), steady, dtype=torch.float64)
    made = FitzHughNagumo(0.1, 0.2, k, points=8, check_resolution=False, dtype=torch.float64, time_step=0.01)
    torch.testing.assert_close(made(state, times(0, 2)).fields[:, :, 1], state, rtol=0, atol=1e-12)
    size = 1e-6
    matrix = times(1 - 3 * steady**2, -1.0, 1.0, -1.0).reshape(2, 2)
    away = made(state + size * times(1.0, 0.0)[None, :, None, None], times(0, 2)).fields[0, :, 1, 0, 0] - steady
    torch.testing.assert_close(away / size, torch.linalg.matrix_exp(2 * matrix)[:, 0], rtol=0, atol=1e-5)


def test_shallow_water_conserves_volume_and_energy():
    made, initial = case("shallow_water_2d", (48, 48), substeps=20)
    u, v, h = made(initial, times(0, 1, 2)).fields.unbind(dim=1)
    volume = h.mean(dim=(2, 3))
    torch.testing.assert_close(volume, volume[:, :1].expand_as(volume), rtol=0, atol=1e-14)
    gravity = made.parameters["gravity"][:, None, None, None]
    energy = (0.5 * h * (u**2 + v**2) + 0.5 * gravity * h**2).mean(dim=(2, 3))
    torch.testing.assert_close(energy, energy[:, :1].expand_as(energy), rtol=1e-7, atol=0)
    kinetic = (0.5 * h * (u**2 + v**2)).mean(dim=(2, 3))
    assert (kinetic[:, 1] / kinetic[:, 0] - 1).abs().min() > 1e-3  # there was something to conserve


def test_small_waves_travel_with_the_speed_of_shallow_water():
    gravity, depth, a, points = 2.0, 1.5, 1e-6, (16, 24)
    x, y = nodes(points)
    kx, ky = (2 * math.pi / LENGTHS[:, i, None, None] for i in (0, 1))
    k = torch.sqrt(kx**2 + ky**2)
    c = math.sqrt(gravity * depth)

    def exact(t):
        wave = a * torch.cos(kx * x + ky * y - k * c * t)
        return torch.stack([wave * c / depth * kx / k, wave * c / depth * ky / k, depth + wave], dim=1)

    made = ShallowWater2D(gravity, LENGTHS, points, substeps=40, check_resolution=False, dtype=torch.float64)
    fields = made(exact(0.0), times(0, 2.0)).fields[:, :, 1]
    torch.testing.assert_close(fields, exact(2.0), rtol=0, atol=1e-10)


# ------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("simulator", "error", "message"),
    [
        (lambda: NavierStokes2D(0.0), DataError, "viscosity must be > 0"),
        (lambda: NavierStokes2D(0.1, drag=-1.0), DataError, "drag must be >= 0"),
        (lambda: NavierStokes2D(0.1, outputs=("u", "vorticty")), DataError, "no output 'vorticty'"),
        (lambda: NavierStokes2D(0.1, outputs=("u", "u")), DataError, "distinct"),
        (lambda: NavierStokes2D(0.1, force_amplitude=1.0, force_wave_number=30), ResolutionError, "below a third"),
        (lambda: NavierStokes2D(0.1, points=(32, 33)), ResolutionError, "even and at least 8"),
        (lambda: NavierStokes2D(0.1, points=(32, 32, 32)), ShapeError, "for 2 axes"),
        (lambda: NavierStokes2D(0.1, torch.ones(2, 2)), ShapeError, "one value per trajectory"),
        (lambda: NavierStokes2D(0.1, domain_length=torch.ones(2, 3)), ShapeError, r"\(B, 2\)"),
        (lambda: Boussinesq2D(0.1, 1.0, -1.0), DataError, "scalar_diffusivity must be >= 0"),
        (lambda: Boussinesq2D(0.1, 1.0, 0.0, hyperdiffusivity=-1.0), DataError, "hyperdiffusivity must be >= 0"),
        (lambda: GrayScott(0.04, 0.06, 0.0), DataError, "substrate_diffusivity must be > 0"),
        (lambda: ShallowWater2D(-1.0), DataError, "gravity must be > 0"),
        (lambda: ShallowWater2D(1.0, hyperviscosity=-1.0), DataError, "hyperviscosity must be >= 0"),
        (lambda: AdvectionDiffusion2D(1.0, 1.0, 0.0), DataError, "diffusivity must be > 0"),
        (lambda: Burgers2D(0.0), DataError, "viscosity must be > 0"),
    ],
)
def test_settings_without_meaning_are_refused(simulator, error, message):
    with pytest.raises(error, match=message):
        simulator()


def test_fields_that_do_not_fit_are_refused():
    made = NavierStokes2D(0.1, points=(16, 24))
    with pytest.raises(ShapeError, match=r"expected \(B, 2, 16, 24\)"):
        made.solve(torch.zeros(1, 2, 24, 16), times(1.0))
    with pytest.raises(DataError, match="not finite"):
        made.solve(torch.full((1, 2, 16, 24), math.nan), times(1.0))
    forced = NavierStokes2D(0.1, points=16, forcing=lambda t: torch.zeros(1, 16, 16), check_resolution=False)
    with pytest.raises(ShapeError, match=r"the forcing has shape \(1, 16, 16\), expected \(1, 2, 16, 16\)"):
        forced.solve(torch.zeros(1, 2, 16, 16), times(1.0))


@pytest.mark.parametrize("name", [n for n in CASES if n != "advection_diffusion_2d"])
def test_a_grid_that_is_too_coarse_is_refused_with_points_in_proportion_to_the_sides(name):
    parameters, scale, _ = CASES[name]
    thin = {
        n: torch.tensor(v, dtype=torch.float64) * (0.02 if "viscosity" in n or "diffusivity" in n else 1.0)
        for n, v in parameters.items()
    }
    refused = SIMULATORS[name](**thin, domain_length=LENGTHS, points=8)
    with pytest.raises(ResolutionError, match=r"8x8 points do not resolve trajectory \d ") as caught:
        refused(smooth((8, 8), len(scale), highest=2) * 0.9 + 1.5, times(0, 1))
    row, along_x, along_y = map(
        int, re.search(r"trajectory (\d) .*Use at least (\d+)x(\d+) points", str(caught.value)).groups()
    )
    sides = LENGTHS[row].tolist()
    assert abs(along_x - along_y * sides[0] / sides[1]) <= 2  # rounded up to even numbers

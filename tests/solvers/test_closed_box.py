"""Smoke in a closed box: laws of the flow and of the two schemes, and an independent slow version of the first."""

import math

import numpy as np
import pytest
import torch
from scipy.fft import dct
from scipy.sparse import diags, eye, kron
from scipy.sparse.linalg import spsolve

from pdessl.errors import DataError, ResolutionError, ShapeError
from pdessl.solvers import Actuators, ClosedBoxSmoke, SmokeNoise, random_stream
from pdessl.solvers.cosine import CosineTransform
from pdessl.solvers.projection import BoxProjection
from pdessl.solvers.staggered import divergence

SCHEMES = ("semi_lagrangian", "maccormack")


def smoke(points=(16, 16), batch=3, length=32.0, start=0):
    family = SmokeNoise(highest=3)
    draws = torch.stack([family.draw(random_stream(0, "box", start + k, "physics")) for k in range(batch)])
    return family.fields(draws, points, torch.tensor([[length, length]]).expand(batch, 2))


def times(*values):
    return torch.tensor(values, dtype=torch.float64)


def simulator(points=(16, 16), **settings):
    settings = {"viscosity": 0.05, "buoyancy": 0.4, "time_step": 1.0, "dtype": torch.float64} | settings
    settings = {"check_resolution": False} | settings
    return ClosedBoxSmoke(points=points, **settings)


def divergence_of(fields, length=32.0):
    """Divergence of stored face velocities (B, 3, T, X, Y) per frame, from the stored numbers only."""
    u, v = fields[:, 0], fields[:, 1]
    u = torch.cat([u, torch.zeros_like(u[..., :1, :])], dim=-2)
    v = torch.cat([v, torch.zeros_like(v[..., :1])], dim=-1)
    return u.diff(dim=-2) * (fields.shape[-2] / length) + v.diff(dim=-1) * (fields.shape[-1] / length)


# ------------------------------------------------------------------- the steps, said once more


def bilinear(field, x, y):
    """Value of ``field(i, j)``, a function of two integers, at one position in units of nodes."""
    i, j = math.floor(x), math.floor(y)
    a, b = x - i, y - j
    low = (1 - b) * field(i, j) + b * field(i, j + 1)
    high = (1 - b) * field(i + 1, j) + b * field(i + 1, j + 1)
    return (1 - a) * low + a * high


def slow_step(u, v, s, dt, h, nu, b):
    """One step of the public splitting, cell by cell. u has (X + 1, Y), v has (X, Y + 1) values, all walls included."""
    nx, ny = s.shape

    def outside_zero(values):
        shape = values.shape
        return lambda i, j: values[i, j] if 0 <= i < shape[0] and 0 <= j < shape[1] else 0.0

    at_u, at_v = outside_zero(u), outside_zero(v)

    def at_s(i, j):
        return s[min(max(i, 0), nx - 1), min(max(j, 0), ny - 1)]

    # Velocities at a position (x, y) in cells: u lives at (i, j + 1/2), v at (i + 1/2, j).
    def velocity(x, y):
        return bilinear(at_u, x, y - 0.5), bilinear(at_v, x - 0.5, y)

    def back(x, y):
        p, q = velocity(x, y)
        return x - dt * p / h, y - dt * q / h

    new_s, new_u, new_v = np.zeros_like(s), np.zeros_like(u), np.zeros_like(v)
    for i in range(nx):
        for j in range(ny):
            x, y = back(i + 0.5, j + 0.5)
            x, y = min(max(x - 0.5, 0), nx - 1), min(max(y - 0.5, 0), ny - 1)
            new_s[i, j] = bilinear(at_s, x, y)
    for i in range(1, nx):
        for j in range(ny):
            x, y = back(i, j + 0.5)
            new_u[i, j] = bilinear(at_u, x, y - 0.5)
    for i in range(nx):
        for j in range(1, ny):
            x, y = back(i + 0.5, j)
            new_v[i, j] = bilinear(at_v, x - 0.5, y) + dt * b * (new_s[i, j - 1] + new_s[i, j]) / 2
    for field in (new_u, new_v):
        value = outside_zero(field.copy())
        for i in range(field.shape[0]):
            for j in range(field.shape[1]):
                around = value(i - 1, j) + value(i + 1, j) + value(i, j - 1) + value(i, j + 1)
                field[i, j] += nu * dt / h**2 * (around - 4 * value(i, j))
    new_u[0] = new_u[-1] = 0
    new_v[:, 0] = new_v[:, -1] = 0
    div = np.diff(new_u, axis=0) / h + np.diff(new_v, axis=1) / h
    phi = sparse_potential(div, h, h)
    new_u[1:-1] -= np.diff(phi, axis=0) / h
    new_v[:, 1:-1] -= np.diff(phi, axis=1) / h
    return new_u, new_v, new_s


def sparse_potential(source, hx, hy):
    """φ with div grad φ = source (mean removed), no gradient across walls, by a sparse factorisation; mean zero."""

    def second(n, h):
        main = np.full(n, -2.0)
        main[0] = main[-1] = -1.0
        return diags([np.ones(n - 1), main, np.ones(n - 1)], [-1, 0, 1]) / h**2

    nx, ny = source.shape
    matrix = (kron(second(nx, hx), eye(ny)) + kron(eye(nx), second(ny, hy))).tolil()
    right = (source - source.mean()).ravel().copy()
    matrix[0] = 0  # one value is free: fix it
    matrix[0, 0] = 1
    right[0] = 0
    phi = spsolve(matrix.tocsc(), right).reshape(nx, ny)
    return phi - phi.mean()


def test_steps_agree_with_a_slow_version_written_from_the_description():
    points, h, dt, nu, b = (10, 12), 2.0, 1.5, 0.1, 0.5
    start = smoke(points, batch=1)
    sim = simulator(points, viscosity=nu, buoyancy=b, time_step=dt, domain_length=torch.tensor([[20.0, 24.0]]))
    sim.velocity = "faces"
    fields = sim.solve(start, dt * torch.arange(1, 9)).trajectories.fields[0]
    u, v, s = np.zeros((11, 12)), np.zeros((10, 13)), start[0, 2].numpy()
    for n in range(8):
        u, v, s = slow_step(u, v, s, dt, h, nu, b)
        for mine, theirs in ((fields[0, n], u[:-1]), (fields[1, n], v[:, :-1]), (fields[2, n], s)):
            np.testing.assert_allclose(mine.numpy(), theirs, rtol=0, atol=1e-12)
    assert np.abs(v).max() > 0.5


# ------------------------------------------------------------------------------ the projection


@pytest.mark.parametrize("points", [8, 14, 32])
def test_cosine_transform_equals_scipys(points):
    values = torch.randn(3, 5, points, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    transform = CosineTransform(points, torch.float64, "cpu")
    np.testing.assert_allclose(transform(values).numpy(), dct(values.numpy(), norm="ortho"), atol=1e-14)
    torch.testing.assert_close(transform.inverse(transform(values)), values, rtol=0, atol=1e-14)


def test_projection_equals_a_sparse_solve():
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(2, 12, 10, generator=generator, dtype=torch.float64)
    spacing = times(0.5, 0.25)[None].repeat(2, 1) * times(1.0, 3.0)[:, None]
    phi = BoxProjection((12, 10), spacing).potential(source)
    for row in range(2):
        expected = sparse_potential(source[row].numpy(), *spacing[row].tolist())
        np.testing.assert_allclose(phi[row].numpy(), expected, atol=1e-12)


def test_projection_is_a_projection_and_removes_gradients_only():
    generator = torch.Generator().manual_seed(1)
    u, v = torch.randn(2, 1, 12, 10, generator=generator, dtype=torch.float64)
    u[:, 0], v[..., 0] = 0, 0
    spacing = times(0.5, 0.7)[None]
    project = BoxProjection((12, 10), spacing)
    once = project(u, v)
    assert divergence(*once, spacing).abs().max() < 1e-12
    for first, second in zip(once, project(*once), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-13)
    # What is removed is orthogonal to what stays.
    assert abs(sum(float(((a - p) * p).sum()) for a, p in zip((u, v), once, strict=True))) < 1e-11


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_same_on_a_graphics_card(scheme):
    start, when = smoke(), times(2, 6)
    here = simulator(scheme=scheme).solve(start, when).trajectories.fields
    there = simulator(scheme=scheme).solve(start.cuda(), when.cuda()).trajectories.fields
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-10)


# ------------------------------------------------------------------------------ laws of the flow


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("precision", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_no_divergence_and_closed_walls(scheme, precision, bound):
    sim = simulator((24, 16), scheme=scheme, velocity="faces", precision=precision, time_step=0.5)
    fields = sim.solve(smoke((24, 16)), times(2, 6, 12)).trajectories.fields
    assert divergence_of(fields).square().mean().sqrt() < bound
    assert not fields[:, 0, :, 0].any() and not fields[:, 1, :, :, 0].any()
    # The upper walls are not stored: that nothing flows through them follows from each row's balance.
    assert fields[:, :2].abs().max() > 0.3


@pytest.mark.parametrize("scheme", SCHEMES)
def test_smoke_without_buoyancy_stays(scheme):
    start = smoke()
    fields = simulator(scheme=scheme, buoyancy=0.0).solve(start, times(3)).trajectories.fields[:, :, 0]
    torch.testing.assert_close(fields, start, rtol=0, atol=1e-14)


# The public splitting lets viscosity act on velocities that the pressure has not balanced yet, so that forces that
# should be balanced leave a little motion at the walls: these laws hold for it without viscosity only.
BALANCED = {"semi_lagrangian": 1e-13, "maccormack": 0.05}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_layers_of_smoke_stay_at_rest(scheme):
    """The buoyancy of smoke that depends on the height only is balanced by the pressure, stable or not."""
    start = torch.zeros(1, 3, 16, 16, dtype=torch.float64)
    start[0, 2] = torch.linspace(0, 1, 16).square()
    fields = simulator(scheme=scheme, viscosity=BALANCED[scheme]).solve(start, times(1, 5)).trajectories.fields
    torch.testing.assert_close(fields[:, :, 1], start, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("velocity", ["faces", "centres"])
def test_mirror_symmetry(scheme, velocity):
    """Smoke and flow mirrored in x are a solution: s(-x), v(-x), -u(-x)."""
    sim, start, when = simulator(scheme=scheme, velocity=velocity), smoke(), times(2, 6)
    fields = sim.solve(start, when).trajectories.fields
    mirrored = sim.solve(start.flip(-2), when).trajectories.fields
    # On faces, the mirror image of lower face i is lower face X - i; face 0 is its own, a wall.
    back = mirrored[:, 0].flip(-2) if velocity == "centres" else mirrored[:, 0].roll(-1, -2).flip(-2)
    torch.testing.assert_close(fields[:, 0], -back, rtol=0, atol=1e-11)
    torch.testing.assert_close(fields[:, 1:], mirrored[:, 1:].flip(-2), rtol=0, atol=1e-11)
    assert fields[:, 0].abs().max() > 0.1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_symmetric_smoke_stays_symmetric(scheme):
    start = smoke()
    start = start + start.flip(-2)
    fields = simulator(scheme=scheme).solve(start, times(2, 6)).trajectories.fields
    torch.testing.assert_close(fields[:, 0], -fields[:, 0].flip(-2), rtol=0, atol=1e-11)
    torch.testing.assert_close(fields[:, 1:], fields[:, 1:].flip(-2), rtol=0, atol=1e-11)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_turned_upside_down_with_buoyancy_reversed(scheme):
    start, when = smoke(), times(2, 6)
    up = simulator(scheme=scheme).solve(start, when).trajectories.fields
    down = simulator(scheme=scheme, buoyancy=-0.4).solve(start.flip(-1), when).trajectories.fields.flip(-1)
    torch.testing.assert_close(up[:, 2], down[:, 2], rtol=0, atol=1e-11)
    torch.testing.assert_close(up[:, 1], -down[:, 1], rtol=0, atol=1e-11)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_scales_of_length_and_time(scheme):
    """Lengths times 2 and times times 3: velocities 2/3, viscosity 4/3, buoyancy 2/9; smoke the same."""
    start, when = smoke(), times(2, 6)
    fields = simulator(scheme=scheme).solve(start, when).trajectories.fields
    changed = (
        simulator(scheme=scheme, viscosity=0.05 * 4 / 3, buoyancy=0.4 * 2 / 9, domain_length=64.0, time_step=3.0)
        .solve(start, 3 * when)
        .trajectories.fields
    )
    torch.testing.assert_close(changed[:, :2] * 1.5, fields[:, :2], rtol=0, atol=1e-11)
    torch.testing.assert_close(changed[:, 2], fields[:, 2], rtol=0, atol=1e-11)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_more_smoke_is_more_buoyancy(scheme):
    start, when = smoke(), times(2, 6)
    fields = simulator(scheme=scheme).solve(start, when).trajectories.fields
    changed = simulator(scheme=scheme, buoyancy=0.2).solve(2 * start, when).trajectories.fields
    torch.testing.assert_close(changed[:, :2], fields[:, :2], rtol=0, atol=1e-11)
    torch.testing.assert_close(changed[:, 2], 2 * fields[:, 2], rtol=0, atol=1e-11)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_smoke_everywhere_changes_the_pressure_only(scheme):
    start, when = smoke(), times(2, 6)
    sim = simulator(scheme=scheme, viscosity=BALANCED[scheme])
    shifted = start.clone()
    shifted[:, 2] += 0.7
    fields, changed = sim.solve(start, when).trajectories.fields, sim.solve(shifted, when).trajectories.fields
    torch.testing.assert_close(changed[:, :2], fields[:, :2], rtol=0, atol=1e-11)
    torch.testing.assert_close(changed[:, 2], fields[:, 2] + 0.7, rtol=0, atol=1e-11)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_smoke_makes_no_new_extremes(scheme):
    start = smoke()
    fields = simulator(scheme=scheme).solve(start, torch.arange(1, 13)).trajectories.fields
    low, high = torch.aminmax(start[:, 2].flatten(1), dim=1)
    least, most = torch.aminmax(fields[:, 2].flatten(2), dim=2)
    assert (least >= low[:, None] - 1e-14).all() and (most <= high[:, None] + 1e-14).all()


# -------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("precision", [torch.float64, torch.float32])
def test_a_trajectory_is_the_same_in_every_batch(scheme, precision):
    """Bitwise, with its own viscosity, buoyancy, box and times."""
    start = smoke(batch=5)
    settings = {
        "viscosity": torch.linspace(0.02, 0.06, 5),
        "buoyancy": torch.linspace(0.2, 0.5, 5),
        "domain_length": torch.linspace(20, 40, 5),
    }
    when = times(1, 3, 6) * torch.linspace(0.8, 1.2, 5)[:, None]
    rest = {"time_step": None, "substeps": 2, "precision": precision, "scheme": scheme}
    together = simulator(**settings, **rest).solve(start, when).trajectories
    for row in range(5):
        alone = (
            simulator(**{n: v[row : row + 1] for n, v in settings.items()}, **rest)
            .solve(start[row : row + 1], when[row : row + 1])
            .trajectories
        )
        assert torch.equal(together.fields[row], alone.fields[0])
        assert torch.equal(together.space[0][row], alone.space[0][0])


def test_float32_follows_float64():
    start, when = smoke((32, 32)), 1.5 * torch.arange(1, 9)
    exact = simulator((32, 32)).solve(start, when).trajectories.fields
    single = simulator((32, 32), precision=torch.float32).solve(start, when).trajectories.fields
    error = ((single - exact).square().mean().sqrt() / exact.square().mean().sqrt()).item()
    assert 0 < error < 1e-5, f"{error:.1e}"


def test_steps_are_divided_as_asked():
    start = smoke()
    by_step = simulator(time_step=0.5).solve(start, times(1, 2)).trajectories.fields
    assert torch.equal(by_step, simulator(time_step=None, substeps=2).solve(start, times(1, 2)).trajectories.fields)
    assert torch.equal(by_step[:, :, 1], simulator(time_step=0.5).solve(start, times(2)).trajectories.fields[:, :, 0])


def test_what_is_returned():
    start = smoke((16, 12), batch=2)
    solution = simulator((16, 12), buoyancy=times(0.2, 0.4), domain_length=times(16.0, 32.0)).solve(start, times(0, 2))
    out = solution.trajectories
    assert out.fields.shape == (2, 3, 2, 16, 12) and out.field_names == ("u", "v", "s")
    assert out.boundary == ("wall", "wall") and out.equation == "boussinesq"
    torch.testing.assert_close(out.space[1][1], (torch.arange(12) + 0.5) * (32.0 / 12), check_dtype=False)
    assert out.parameters["buoyancy"].tolist() == [0.2, 0.4] and out.parameters["viscosity"].tolist() == [0.05, 0.05]
    torch.testing.assert_close(out.fields[:, :, 0], start)
    assert solution.spectral_tail.shape == (2,) and (solution.spectral_tail > 0).all()


def test_velocities_at_centres_are_means_of_faces():
    start, when = smoke(), times(2, 4)
    faces = simulator(velocity="faces").solve(start, when).trajectories.fields
    centres = simulator(velocity="centres").solve(start, when).trajectories.fields
    u = torch.cat([faces[:, 0], torch.zeros_like(faces[:, 0, :, :1])], dim=-2)
    torch.testing.assert_close(centres[:, 0], 0.5 * (u[..., 1:, :] + u[..., :-1, :]), rtol=0, atol=1e-15)
    assert torch.equal(centres[:, 2], faces[:, 2])


@pytest.mark.parametrize("velocity", ["faces", "centres"])
def test_coarser_cells_are_means(velocity):
    start, when = smoke((24, 16)), times(2, 4)
    sim = simulator((24, 16), velocity=velocity)
    fine = sim.solve(start, when).trajectories.fields
    out = sim.solve(start, when, observed=(12, 4), sampling="cell_average").trajectories
    assert out.space[0].shape == (3, 12) and out.space[1].shape == (3, 4)
    torch.testing.assert_close(out.space[1][0], times(4.0, 12.0, 20.0, 28.0))
    for j in range(4):
        block = fine[:, 2, :, :2, 4 * j : 4 * j + 4].mean(dim=(2, 3))
        torch.testing.assert_close(out.fields[:, 2, :, 0, j], block, rtol=0, atol=1e-14)
    if velocity == "faces":
        assert divergence_of(out.fields).abs().max() < 1e-12
        assert out.fields[:, :2].abs().max() > 0.3


# --------------------------------------------------------------------------- sources, gradients


@pytest.mark.parametrize("scheme", SCHEMES)
def test_smoke_source_fills_the_box(scheme):
    """A source that is uniform in space adds its integral in time to the smoke and moves nothing."""

    def source(t):
        out = torch.zeros(len(t), 3, 16, 16, dtype=torch.float64)
        out[:, 2] = (2 * t)[:, None, None]
        return out

    start = torch.zeros(2, 3, 16, 16, dtype=torch.float64)
    sim = simulator(scheme=scheme, forcing=source, time_step=0.01, viscosity=BALANCED[scheme])
    fields = sim.solve(start, times(1)).trajectories.fields
    error = (fields[:, 2] - 1.0).abs().max()
    assert error < (0.0101 if scheme == "semi_lagrangian" else 1e-12)
    assert fields[:, :2].abs().max() < 1e-12


@pytest.mark.parametrize("velocity", ["faces", "centres"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_forces_that_are_gradients_move_nothing_and_others_do(scheme, velocity):
    offset = 0.0 if velocity == "faces" else 0.5
    x = (torch.arange(16, dtype=torch.float64) + offset) * 2
    push = torch.zeros(1, 3, 16, 16, dtype=torch.float64)
    push[:, 0] = torch.sin(x)[:, None]  # depends on x only: the gradient of something
    start = torch.zeros(1, 3, 16, 16, dtype=torch.float64)
    settings = {"scheme": scheme, "velocity": velocity, "viscosity": BALANCED[scheme]}
    still = simulator(**settings, forcing=lambda t: push).solve(start, times(2)).trajectories.fields
    assert still.abs().max() < 1e-12
    stir = push.transpose(-1, -2).contiguous()  # depends on y only
    moved = simulator(**settings, forcing=lambda t: stir).solve(start, times(2)).trajectories.fields
    assert moved[:, 0].abs().max() > 0.1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_signals_switched_off_half_way(scheme):
    """As a run with the force, continued from its last frame without: frames on faces are the whole state."""
    start, shape = smoke(batch=2), torch.zeros(1, 3, 16, 16, dtype=torch.float64)
    shape[0, 0, 5:9, 3:6], shape[0, 2, 2:4, 2:4] = 0.2, 1.0
    signals = times(1.0, -0.5)[:, None, None] * times(1.0, 0.0)
    settings = {"scheme": scheme, "velocity": "faces"}
    switched = (
        simulator(**settings, forcing=Actuators(shape, signals, times(0.0, 2.0)))
        .solve(start, times(1, 4))
        .trajectories.fields
    )
    always = Actuators(shape, signals[..., :1], times(0.0))
    middle = simulator(**settings, forcing=always).solve(start, times(2)).trajectories.fields[:, :, 0]
    end = simulator(**settings).solve(middle, times(2)).trajectories.fields[:, :, 0]
    torch.testing.assert_close(switched[:, :, 1], end, rtol=0, atol=1e-12)
    assert (end - simulator(**settings).solve(start, times(4)).trajectories.fields[:, :, 0]).abs().max() > 0.3


@pytest.mark.parametrize("scheme", SCHEMES)
def test_gradients(scheme):
    """With respect to buoyancy, viscosity, initial smoke and forcing, against finite differences."""
    start = smoke((8, 8), batch=2)
    values = {
        "buoyancy": times(0.3, 0.4),
        "viscosity": times(0.1, 0.2),
        "smoke": start[:, 2].clone(),
        "push": 0.01 * start.clone(),
    }

    def loss(v):
        sim = simulator(
            (8, 8), viscosity=v["viscosity"], buoyancy=v["buoyancy"], scheme=scheme, forcing=lambda t: v["push"]
        )
        fields = sim.solve(torch.cat([start[:, :2], v["smoke"][:, None]], dim=1), times(1.3, 3.1)).trajectories.fields
        weight = torch.cos(torch.arange(fields.numel(), dtype=torch.float64)).reshape(fields.shape)
        return (weight * fields).sum()

    leaves = {n: v.clone().requires_grad_() for n, v in values.items()}
    loss(leaves).backward()
    for name, leaf in leaves.items():
        direction = torch.sin(1 + torch.arange(leaf.numel(), dtype=torch.float64)).reshape(leaf.shape)
        ahead, behind = (loss(values | {name: values[name] + step * direction}).item() for step in (1e-6, -1e-6))
        expected = (ahead - behind) / 2e-6
        assert abs(float((leaf.grad * direction).sum()) - expected) < 1e-5 * max(1.0, abs(expected)), name


# ------------------------------------------------------------------------------------- refusals


def test_refusals():
    start = smoke()
    with pytest.raises(ResolutionError, match=r"viscosity is unstable .* at most 0\.5\. Use time_step <= ") as found:
        simulator(viscosity=0.4, time_step=3.0).solve(start, times(3))
    advised = float(str(found.value).split("time_step <= ")[1].split(",")[0])
    assert simulator(viscosity=0.4, time_step=advised).solve(start, times(advised)).trajectories.fields.isfinite().all()
    assert simulator(viscosity=0.4, time_step=None).solve(start, times(3)).trajectories.fields.isfinite().all()
    sharp = {"scheme": "maccormack", "check_resolution": True}
    with pytest.raises(ResolutionError, match="16x16 points do not resolve trajectory .* Use at least ") as found:
        simulator(**sharp).solve(start, times(1))
    enough = int(str(found.value).split("Use at least ")[1].split("x")[0])
    assert 30 < enough < 60
    simulator((enough, enough), **sharp).solve(smoke((enough, enough)), times(0.1))
    with pytest.raises(DataError, match="unknown scheme 'upwind'. Known: semi_lagrangian, maccormack"):
        simulator(scheme="upwind")
    with pytest.raises(DataError, match="unknown velocity 'nodes'. Known: centres, faces"):
        simulator(velocity="nodes")
    with pytest.raises(DataError, match="viscosity must be > 0"):
        simulator(viscosity=0.0)
    with pytest.raises(DataError, match="Use sampling 'cell_average'"):
        simulator().solve(start, times(1), observed=8)
    with pytest.raises(ShapeError, match="expected \\(B, 3, 16, 16\\)"):
        simulator().solve(start[:, 2:], times(1))
    with pytest.raises(DataError, match="passes the lower walls.*velocity='centres'"):
        simulator(velocity="faces").solve(start + 1, times(1))

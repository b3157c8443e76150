import math

import pytest
import torch

from pdessl.errors import ShapeError
from pdessl.evaluation.physics_features import moments_of, physics_features, velocity_of
from pdessl.models import embed
from pdessl.models.moments import Moments
from pdessl.trajectory import Trajectories


def runs(u, duration=2.0, lengths=(2 * math.pi,), boundary=None):
    b, t = u.shape[0], u.shape[2]
    nodes = [torch.arange(n, dtype=torch.float64) * length / n for n, length in zip(u.shape[3:], lengths, strict=True)]
    return Trajectories(
        fields=u,
        time=torch.linspace(0, duration, t, dtype=torch.float64).expand(b, -1).clone(),
        space=tuple(n.expand(b, -1).clone() for n in nodes),
        lengths=torch.tensor(lengths, dtype=torch.float64).expand(b, -1).clone(),
        field_names=tuple("uvw"[: u.shape[1]]),
        axis_names=tuple("xyz"[: len(lengths)]),
        boundary=boundary or ("periodic",) * len(lengths),
    )


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def decaying_sine(points=32, frames=41, mode=3, rate=0.5, amplitude=2.0):
    t = torch.linspace(0, 2, frames, dtype=torch.float64)[:, None]
    x = torch.arange(points, dtype=torch.float64) * 2 * math.pi / points
    return runs((amplitude * torch.exp(-rate * t) * torch.sin(mode * x))[None, None])


def test_a_decaying_sine_has_the_values_computed_by_hand():
    found = physics_features(decaying_sine())
    value = dict(zip(found.names, found.values[0].tolist(), strict=True))
    square = torch.linspace(0, 2, 41, dtype=torch.float64).mul(-0.5).exp().mul(2).square().mean() / 2
    assert value["u: log deviation of u"] == pytest.approx(0.5 * math.log(square), abs=1e-9)
    assert value["u: skewness of u"] == pytest.approx(0, abs=1e-9)
    # Central differences of sin(3x) have the amplitude sin(3 dx)/dx, second ones 2 (1 - cos 3 dx)/dx².
    dx = 2 * math.pi / 32
    first, second = math.sin(3 * dx) / dx, 2 * (1 - math.cos(3 * dx)) / dx**2
    assert value["u: log squared Taylor length along x"] == pytest.approx(-2 * math.log(first), abs=1e-9)
    ratio = 2 * math.log(first) - 2 * math.log(second)
    assert value["u: log squared next length along x"] == pytest.approx(ratio, abs=1e-9)
    assert value["u: decay rate of the variance"] == pytest.approx(2 * 0.5, abs=1e-9)
    # All power is in wave number 3: |sin| has the coefficient 1/2 in a real transform.
    late = torch.linspace(0, 2, 41, dtype=torch.float64)[26:].mul(-0.5).exp().mul(2).square().mean() / 4
    assert value["u: log power along x, late, wave number 3"] == pytest.approx(math.log(late), abs=1e-9)
    assert value["u: log power along x, late, wave number 2"] < math.log(late) - 20
    # cos(3 r) falls to 1/e at arccos(1/e)/3; the lag is interpolated linearly between nodes.
    assert math.exp(value["u: log correlation length along x"]) == pytest.approx(math.acos(math.exp(-1)) / 3, rel=0.03)
    assert value["log duration"] == pytest.approx(math.log(2))
    assert value["log length along x"] == pytest.approx(math.log(2 * math.pi))


def test_the_energy_lost_over_the_gradient_is_the_viscosity_of_the_heat_equation():
    """For a mode that diffuses, -(dE/dt)/2 = ν <u_x²>: exactly, but for the straight line through E(t)."""
    nu, mode = 0.02, 2
    found = physics_features(decaying_sine(points=128, mode=mode, rate=nu * mode**2))
    value = dict(zip(found.names, found.values[0].tolist(), strict=True))
    assert math.sinh(value["u: energy loss over gradient along x"]) / 1e3 == pytest.approx(nu, rel=0.02)


def test_nothing_depends_on_the_origin_of_a_periodic_axis():
    u = noise(3, 2, 12, 16, 10)
    here = physics_features(runs(u, lengths=(1.0, 2.0)))
    there = physics_features(runs(u.roll((5, 3), dims=(3, 4)), lengths=(1.0, 2.0)))
    torch.testing.assert_close(here.values, there.values, rtol=1e-9, atol=1e-9)
    assert len(set(here.names)) == len(here.names) == here.values.shape[1]
    walls = physics_features(runs(u, lengths=(1.0, 2.0), boundary=("wall", "wall")))
    moved = physics_features(runs(u.roll((5, 3), dims=(3, 4)), lengths=(1.0, 2.0), boundary=("wall", "wall")))
    assert (walls.values - moved.values).abs().max() > 0.1


def test_a_rescaled_field_moves_what_measures_size_and_nothing_else():
    u = noise(2, 1, 12, 32)
    here, there = physics_features(runs(u)), physics_features(runs(3 * u))
    change = dict(zip(here.names, (there.values - here.values)[0].tolist(), strict=True))
    for name, by in change.items():
        if "log power" in name or "mean square" in name:
            assert by == pytest.approx(2 * math.log(3), abs=1e-9), name
        elif "log deviation" in name or name.startswith("u: log rms of") and "div uz" not in name:
            assert by == pytest.approx(math.log(3), abs=1e-9), name
        elif "log rms of div uz" in name:
            assert by == pytest.approx(2 * math.log(3), abs=1e-9), name
        elif "div uz" in name:  # z_t and a flux: of both sizes
            assert math.log(3) - 0.5 < by < 2 * math.log(3) + 0.5, name
        else:
            assert by == pytest.approx(0, abs=1e-9), name


def test_runs_do_not_look_at_each_other_and_constant_fields_are_finite():
    u = noise(4, 1, 9, 16)
    whole = physics_features(runs(u)).values
    torch.testing.assert_close(whole[2:3], physics_features(runs(u[2:3])).values)
    assert torch.isfinite(physics_features(runs(torch.ones_like(u))).values).all()


@pytest.mark.parametrize("frames", [9, 14, 28])
def test_longer_runs_have_the_features_of_shorter_ones_over_their_own_length(frames):
    """Whatever lies between the lengths, too; values of what has no bins are those that the run has anyway."""
    made = runs(noise(2, 2, 32, 8, 8), lengths=(1.0, 2.0))
    short = physics_features(made.window(slice(0, frames)))
    for length in (frames, frames + 1, 32):
        own = physics_features(made.window(slice(0, length)))
        like = physics_features(made.window(slice(0, length)), names=short.names)
        assert like.names == short.names
        both = [n for n in own.names if n in short.names and "coarse" not in n]
        assert len(both) > 100
        for name in both:
            assert torch.equal(own.values[:, own.names.index(name)], like.values[:, like.names.index(name)]), name


def test_a_bin_holds_the_mean_power_of_its_wave_numbers():
    made = runs(noise(2, 1, 32, 16))
    for what in ("u: log power in time", "u: log power along x, late"):
        names = [*(f"{what}, wave number {k}" for k in (3, 4, 5)), f"{what}, wave numbers 3-5"]
        found = physics_features(made, names=names)
        *each, together = (found.values[:, found.names.index(name)].exp() for name in names)
        torch.testing.assert_close(together, sum(each) / 3)


def test_features_that_runs_are_too_short_for_are_left_out():
    made = runs(noise(2, 1, 32, 16))
    whole = physics_features(made)
    cut = physics_features(made.window(slice(0, 8)), names=whole.names)
    assert cut.names != whole.names and set(cut.names) < set(whole.names)
    assert not any("coarse" in name for name in cut.names) and "u: log power in time, wave number 1" in cut.names


def test_what_is_too_small_is_refused():
    with pytest.raises(ShapeError, match="at least 6 frames and 6 nodes"):
        physics_features(runs(noise(1, 1, 5, 16)))
    with pytest.raises(ValueError, match="bins 1"):
        physics_features(runs(noise(1, 1, 8, 16)), bins=1)


# ------------------------------------------------------------------------------------------------ moments


def values_of(found, row=0):
    return dict(zip(found.names, found.values[row].tolist(), strict=True))


def test_moments_of_a_wave_are_those_computed_by_hand():
    """u = sin(x - ct): every response is a sine whose rms is known, on the grid exactly."""
    n, frames, speed = 32, 21, 0.7
    t = torch.linspace(0, 2, frames, dtype=torch.float64)[:, None]
    x = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    value = values_of(physics_features(runs(torch.sin(x - speed * t)[None, None])))
    dx, dt, rms = 2 * math.pi / n, 0.1, math.sqrt(0.5)
    mean, ahead = math.cos(speed * dt / 2), 2 * math.sin(speed * dt / 2) / dt  # between two frames
    expected = {
        "z": rms * mean,
        "z_x": rms * mean * math.sin(dx) / dx,
        "laplacian of z": rms * mean * 2 * (1 - math.cos(dx)) / dx**2,
        "z_t": rms * ahead,
        # u u_x = sin(2(x - ct)) / 2
        "div uz": rms / 2 * math.cos(speed * dt) * math.sin(2 * dx) / (2 * dx),
    }
    for kind, size in expected.items():
        assert value[f"u: log rms of {kind}, coarse 1 x 1, all frames"] == pytest.approx(math.log(size), abs=1e-9), kind
        assert value[f"u: log rms of {kind}, coarse 1 x 1, window 2"] == pytest.approx(math.log(size), abs=1e-9), kind
    # A mean over (2b - 1) nodes, triangular, of a sine: the square of that over b.
    box = math.sin(2 * dx / 2) / (2 * math.sin(dx / 2))
    still = math.sin(2 * speed * dt / 2) / (2 * math.sin(speed * dt / 2))
    coarse = value["u: log rms of z, coarse 2 x 2, all frames"]
    assert coarse == pytest.approx(math.log(rms * mean * box**2 * still**2), abs=1e-9)


def test_the_material_derivative_of_what_is_carried_along_is_small():
    """A blob in solid-body rotation or a uniform stream: z_t is large, z_t + div uz is not, nor is that of the flow."""
    n, frames = 48, 9
    x, y = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) / n - 0.5] * 2, indexing="ij")
    t = torch.linspace(0, 0.2, frames, dtype=torch.float64)[:, None, None]
    a, b = x - 0.6 * t, y + 0.3 * t
    blob = torch.exp(-60 * (a**2 + b**2))
    u = torch.stack([torch.full_like(blob, 0.6), torch.full_like(blob, -0.3), blob])[None]
    made = runs(u, duration=0.2, lengths=(1.0, 1.0), boundary=("wall", "wall"))
    value = values_of(physics_features(made))
    moved, still = (value[f"w: log rms of {k}, coarse 1 x 1, all frames"] for k in ("z_t + div uz", "z_t"))
    assert moved < still - math.log(30)
    assert value["vorticity: log rms of z, coarse 1 x 2, all frames"] < -12


def test_other_units_add_the_same_numbers_for_all_runs():
    u = noise(4, 1, 12, 32)
    here = runs(u)
    # Lengths in other units, times in others, and velocities accordingly.
    there = here.replace(
        fields=u * 10 / 60,
        time=here.time * 60,
        space=tuple(s * 10 for s in here.space),
        lengths=here.lengths * 10,
    )
    for correlations in (False, True):
        one, other = (embed(moments_of(r, correlations), r) for r in (here, there))
        change = other - one
        torch.testing.assert_close(change, change[:1].expand_as(change), rtol=0, atol=1e-9)
    assert (change.abs() > 0.5).any()


def test_where_the_velocity_is_found():
    made = runs(noise(1, 3, 8, 12, 12), lengths=(1.0, 1.0))
    assert velocity_of(made) is None or made.field_names[:2] == ("u", "v")
    assert velocity_of(made.replace(field_names=("s", "v", "u"))) == (2, 1)
    assert velocity_of(made.replace(field_names=("s", "p", "u"))) is None
    assert velocity_of(made.replace(field_names=("s", "v", "u"), equation="gray_scott")) is not None
    boussinesq = made.replace(field_names=("s", "v", "u"), equation="boussinesq")
    assert velocity_of(boussinesq) == (2, 1) and velocity_of(runs(noise(1, 1, 8, 12))) == (0,)
    assert not any("div" in name for name in moments_of(made.replace(field_names=("s", "p", "q"))).names)


def test_moments_that_do_not_fit_are_refused():
    small = moments_of(runs(noise(1, 1, 6, 6)))
    assert small.levels == ((1, 1), (2, 2)) and small.windows == 3
    with pytest.raises(ShapeError, match=r"10 frames and 16 nodes are needed.*Give fewer windows or finer levels"):
        Moments(1, (True,), (0,))(torch.randn(1, 1, 8, 16), torch.ones(1, 2))
    with pytest.raises(ShapeError, match=r"spacing None; expected \(B, 1, T, \*X\) with 1 space axes and \(B, 2\)"):
        Moments(1, (True,))(torch.randn(1, 1, 20, 16))
    with pytest.raises(ValueError, match="one or two axes, and a channel of the velocity along each"):
        Moments(1, (True, True), (0,))
    with pytest.raises(ValueError, match="expected >= 1"):
        Moments(1, (True,), levels=[(0, 1)])


def test_profiles_tell_where_something_is_between_walls():
    u = torch.zeros(2, 1, 8, 16, 16)
    u[0, :, :, :4], u[1, :, :, 12:] = 1, 1
    made = Moments(1, (False, True), None, levels=[(1, 1)], windows=1, profiles=4)
    values = made(u.double() + 1e-3, torch.ones(2, 3))
    assert values.shape[1] == made.feature_dim == len(set(made.names))
    low, high = (made.names.index(f"z0: log rms, bin {k} along x, window 1") for k in (0, 3))
    assert values[0, low] > values[0, high] + 1 and values[1, high] > values[1, low] + 1
    assert not any("along y" in name for name in made.names)

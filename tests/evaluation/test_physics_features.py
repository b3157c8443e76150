import math

import pytest
import torch

from pdessl.errors import ShapeError
from pdessl.evaluation.physics_features import physics_features
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
        elif "log deviation" in name:
            assert by == pytest.approx(math.log(3), abs=1e-9), name
        else:
            assert by == pytest.approx(0, abs=1e-9), name


def test_runs_do_not_look_at_each_other_and_constant_fields_are_finite():
    u = noise(4, 1, 9, 16)
    whole = physics_features(runs(u)).values
    torch.testing.assert_close(whole[2:3], physics_features(runs(u[2:3])).values)
    assert torch.isfinite(physics_features(runs(torch.ones_like(u))).values).all()


def test_what_is_too_small_is_refused():
    with pytest.raises(ShapeError, match="at least 6 frames and 6 nodes"):
        physics_features(runs(noise(1, 1, 5, 16)))
    with pytest.raises(ValueError, match="bins 1"):
        physics_features(runs(noise(1, 1, 8, 16)), bins=1)

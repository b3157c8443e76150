"""Families of initial fields on periodic rectangles: grid-free, reproducible, and what they say they are."""

import math

import numpy as np
import pytest
import torch

from pdessl.errors import SchemaError
from pdessl.solvers import (
    FAMILIES,
    SIMULATORS,
    RandomField2D,
    RandomFlow2D,
    ReactionPatches,
    SmokeBlobs,
    TaylorGreen,
    VortexPair,
    Vortices,
    WaterDrops,
    random_stream,
)

#: Family and the simulator whose state it makes.
NAMES = {
    "random_field_2d": "advection_diffusion_2d",
    "random_flow_2d": "navier_stokes_2d",
    "vortices": "navier_stokes_2d",
    "vortex_pair": "navier_stokes_2d",
    "taylor_green": "navier_stokes_2d",
    "smoke_blobs": "boussinesq",
    "water_drops": "shallow_water_2d",
    "reaction_patches": "gray_scott",
}
LENGTHS = torch.tensor([[6.0, 9.0], [8.0, 4.0]], dtype=torch.float64)


def draws(family, count=2, seed=0):
    return torch.stack([family.draw(random_stream(seed, "test", k, "physics")) for k in range(count)])


def divergence(velocity, lengths):
    modes = torch.fft.fft2(velocity)
    kx, ky = (
        2 * math.pi * torch.fft.fftfreq(n, 1 / n, dtype=torch.float64) / lengths[:, i, None]
        for i, n in enumerate(velocity.shape[2:])
    )
    return torch.fft.ifft2(1j * kx[:, :, None] * modes[:, 0] + 1j * ky[:, None] * modes[:, 1]).real


@pytest.mark.parametrize("name", NAMES)
def test_fields_are_the_same_function_on_every_grid(name):
    family = FAMILIES[name]()
    coarse = 3 * family.highest + 1
    coarse += coarse % 2
    numbers = draws(family)
    fields = family.fields(numbers, (coarse, 2 * coarse), LENGTHS)
    finer = family.fields(numbers, (3 * coarse, 4 * coarse), LENGTHS)[:, :, ::3, ::2]
    simulator = SIMULATORS[NAMES[name]]
    assert fields.shape == (2, len(simulator.state_names or simulator.field_names), coarse, 2 * coarse)
    assert fields.dtype == torch.float64
    # On this grid, the coarsest one that is allowed, bumps are cut where their spectrum has fallen to 1e-3.
    exact = name.startswith("random") or name == "taylor_green"
    torch.testing.assert_close(fields, finer, rtol=0, atol=(1e-13 if exact else 2e-3) * float(fields.abs().max()))


@pytest.mark.parametrize("name", NAMES)
def test_a_trajectory_depends_on_its_own_stream_only(name):
    family = FAMILIES[name]()
    many = draws(family, 5)
    torch.testing.assert_close(many[3], family.draw(random_stream(0, "test", 3, "physics")), rtol=0, atol=0)
    if name != "taylor_green":
        assert not torch.equal(many[2], many[3]) and not torch.equal(many[3], draws(family, 5, seed=1)[3])
    lengths = torch.full((5, 2), 7.0, dtype=torch.float64)
    together = family.fields(many, (96, 96), lengths)
    alone = family.fields(many[3:4], (96, 96), lengths[3:4])
    torch.testing.assert_close(together[3:4], alone, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "family", [RandomFlow2D(mean=1.0), Vortices(), VortexPair(), VortexPair(like_sign=False), TaylorGreen(waves=(2, 1))]
)
def test_flows_have_no_divergence(family):
    velocity = family.fields(draws(family), (96, 128), LENGTHS)
    assert divergence(velocity, LENGTHS).abs().max() < 1e-11 * velocity.abs().max()
    assert velocity.std() > 1e-3


def test_random_fields_have_the_size_and_spectrum_they_promise():
    count, points, rms, peak, rise, fall, highest = 400, 32, 0.7, 3.0, 2.0, 3.0, 10
    lengths = torch.full((count, 2), 5.0, dtype=torch.float64)
    for family, size in (
        (RandomField2D(rms, peak, rise, fall, highest), 1),
        (RandomFlow2D(rms, peak, rise, fall, highest), 2),
    ):
        fields = family.fields(draws(family, count), (points, points), lengths)
        assert fields.shape[1] == size
        assert float(fields.square().sum(dim=1).mean().sqrt()) == pytest.approx(rms, rel=0.02)
        power = torch.fft.fft2(fields, norm="forward").abs().square().sum(dim=1).mean(dim=0)
        j = torch.fft.fftfreq(points, 1 / points, dtype=torch.float64)
        waves = torch.sqrt(j[:, None] ** 2 + j**2)
        expected = (waves / peak) ** (rise - 1) / (1 + (waves / peak) ** (rise + fall))
        expected[0, 0] = 0.0
        expected[(j[:, None].abs() > highest) | (j.abs() > highest)] = 0.0
        ratio = power / (rms**2 * expected / expected.sum())
        for low, high in ((1, 2), (2, 4), (4, 7), (7, 10)):
            ring = (waves >= low) & (waves < high)
            assert float(ratio[ring].mean()) == pytest.approx(1.0, abs=0.06)
        assert power[expected == 0].max() < 1e-25


def test_means_are_drawn_when_asked_for():
    flows = RandomFlow2D(mean=0.5)
    fields = flows.fields(draws(flows, 50), (64, 64), torch.ones(50, 2, dtype=torch.float64))
    means = fields.mean(dim=(2, 3))
    assert means.abs().max() <= 0.5 and means.std() == pytest.approx(1 / math.sqrt(12), rel=0.2)
    field = RandomField2D(mean=0.5, components=2, highest=4)
    means = field.fields(draws(field, 50), (16, 16), torch.ones(50, 2, dtype=torch.float64)).mean(dim=(2, 3))
    assert means.shape == (50, 2) and means.std() == pytest.approx(1 / math.sqrt(12), rel=0.2)


def test_bumps_are_periodic_gaussians():
    family = SmokeBlobs(number=3, radius=(0.1, 0.15), density=(0.4, 0.9))
    numbers = draws(family)
    s = family.fields(numbers, (64, 96), LENGTHS)[:, 2]
    for row in range(2):
        sides = LENGTHS[row].numpy()
        x = np.arange(64)[:, None] * sides[0] / 64
        y = np.arange(96)[None] * sides[1] / 96
        expected = np.zeros((64, 96))
        for cx, cy, radius, height in numbers[row].numpy():
            radius = radius * sides.max()
            for i in range(-2, 3):
                for j in range(-2, 3):
                    dx, dy = x - (cx + i) * sides[0], y - (cy + j) * sides[1]
                    expected += height * np.exp(-(dx**2 + dy**2) / radius**2)
        np.testing.assert_allclose(s[row].numpy(), expected, atol=1e-6)


def test_vortices_have_the_circulation_of_gaussians():
    family = Vortices(number=1, radius=(0.06, 0.06), vorticity=(5.0, 5.0), like_sign=True)
    velocity = family.fields(draws(family, 1), (128, 128), torch.full((1, 2), 4.0, dtype=torch.float64))
    j = 2 * math.pi * torch.fft.fftfreq(128, 1 / 128, dtype=torch.float64) / 4.0
    modes = torch.fft.fft2(velocity)
    w = torch.fft.ifft2(1j * j[:, None] * modes[:, 1] - 1j * j * modes[:, 0]).real
    mean = 5.0 * math.pi * (0.06 * 4.0) ** 2 / 16.0
    assert float(w.max()) == pytest.approx(5.0 - mean, rel=1e-2)
    assert float(w.min()) == pytest.approx(-mean, rel=1e-2)


def test_reaction_patches_stay_between_the_pure_states_however_many_overlap():
    family = ReactionPatches(number=200, amount=(1.0, 2.0))
    u, v = family.fields(draws(family), (96, 96), LENGTHS).unbind(dim=1)
    assert u.min() > 0 and u.max() < 1 + 1e-6 and v.max() < 0.5
    torch.testing.assert_close(u + 2 * v, torch.ones_like(u))


def test_water_stays_above_the_ground():
    family = WaterDrops(number=8, height=(-0.1, 0.2), depth=1.5)
    h = family.fields(draws(family), (64, 64), LENGTHS)[:, 2]
    assert h.min() > 0 and float(h.median()) == pytest.approx(1.5, abs=0.2)


@pytest.mark.parametrize(
    ("family", "arguments", "message"),
    [
        (RandomField2D, {"rms": 0.0}, "rms, peak and fall must be > 0"),
        (RandomFlow2D, {"highest": 0}, "highest >= 1"),
        (Vortices, {"number": 0}, "number must be >= 1"),
        (Vortices, {"radius": (0.2, 0.1)}, "low <= high"),
        (Vortices, {"radius": (0.1, 0.9)}, "at most half a side"),
        (Vortices, {"vorticity": (1.0,)}, r"\[low, high\]"),
        (VortexPair, {"separation": 0.0}, "must be > 0"),
        (SmokeBlobs, {"density": (1.0, 0.5)}, "density must be"),
        (WaterDrops, {"height": (-0.5, 0.0), "depth": 1.0}, r"depth \+ number"),
        (ReactionPatches, {"amount": (0.0, 0.5)}, "0 < low"),
        (TaylorGreen, {"waves": (0, 1)}, "two numbers >= 1"),
    ],
)
def test_settings_without_meaning_are_refused(family, arguments, message):
    with pytest.raises(SchemaError, match=message):
        family(**arguments)


def test_a_grid_that_cannot_hold_the_waves_is_refused():
    family = RandomFlow2D(highest=16)
    with pytest.raises(SchemaError, match="wave numbers up to 16; a grid of 48x64 points"):
        family.fields(draws(family), (48, 64), LENGTHS)

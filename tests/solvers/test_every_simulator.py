"""What every simulator in the catalog promises: an advice that works where it refuses, and control."""

import math
import re

import pytest
import torch

from pdessl.errors import ResolutionError
from pdessl.solvers import FAMILIES, SIMULATORS, Actuators, random_stream

#: Parameters whose runs moderate grids resolve; family of the initial fields, its arguments, and the domain length.
CASES = {
    "burgers": ({"viscosity": 0.1}, "sine_series", {}, 2 * math.pi),
    "kdv": ({"steepening": 1.3, "dispersion": 0.7}, "sine_series", {}, 20.0),
    "kdv_burgers": ({"viscosity": 0.1, "dispersion": 0.05}, "sine_series", {}, 2 * math.pi),
    "kdv_burgers_kuramoto": ({"viscosity": -0.3, "hyperviscosity": 0.5}, "harmonics", {}, 40.0),
    "kuramoto_sivashinsky": ({}, "sine_series", {}, 22.0),
    "heat": ({"diffusivity": 0.3}, "sine_series", {}, 2 * math.pi),
    "advection_diffusion": ({"advection_velocity": 0.6, "diffusivity": 0.2}, "sine_series", {}, 2 * math.pi),
    "navier_stokes_2d": ({"viscosity": 0.05}, "random_flow_2d", {"peak": 2.0, "highest": 4}, 2 * math.pi),
    "boussinesq": (
        {"viscosity": 0.02, "buoyancy": 0.3, "scalar_diffusivity": 0.02},
        "smoke_blobs", {"number": 2, "radius": [0.1, 0.15]}, 2 * math.pi,
    ),
    "gray_scott": ({"feed_rate": 0.04, "kill_rate": 0.06}, "reaction_patches", {"radius": [0.1, 0.15]}, 1.0),
    "fitzhugh_nagumo": (
        {"activator_diffusivity": 0.01, "inhibitor_diffusivity": 0.02, "threshold": 0.05},
        "random_field_2d", {"highest": 3, "components": 2}, 2.0,
    ),
    "shallow_water_2d": (
        {"gravity": 1.0}, "water_drops", {"number": 1, "radius": [0.1, 0.15], "height": [0.05, 0.08]}, 10.0
    ),
    "burgers_2d": (
        {"viscosity": 0.2}, "random_field_2d", {"rms": 0.5, "peak": 2.0, "highest": 3, "components": 2}, 2 * math.pi
    ),
    "advection_diffusion_2d": (
        {"advection_velocity_x": 0.6, "advection_velocity_y": -0.3, "diffusivity": 0.1},
        "random_field_2d", {"highest": 3}, 2 * math.pi,
    ),
    "closed_box_smoke": ({"viscosity": 0.1, "buoyancy": 0.3}, "smoke_noise", {"highest": 4}, 32.0),
}  # fmt: skip
EXACT = ("heat", "advection_diffusion", "advection_diffusion_2d")
#: Grids that hold the initial fields and not what becomes of them.
COARSE = {
    "burgers": 20, "kdv": 20, "kdv_burgers": 20, "kdv_burgers_kuramoto": 20, "kuramoto_sivashinsky": 20,
    "navier_stokes_2d": 16, "boussinesq": 30, "gray_scott": 32, "fitzhugh_nagumo": 16, "shallow_water_2d": 30,
    "burgers_2d": 16, "closed_box_smoke": 16,
}  # fmt: skip


def build(name, points, **settings):
    extra = {"scheme": "maccormack"} if name == "closed_box_smoke" else {}
    settings = {"dtype": torch.float64, "domain_length": CASES[name][3]} | extra | settings
    return SIMULATORS[name](**CASES[name][0], points=points, **settings)


def fields(name, points, numbers=(0, 1)):
    _, family, arguments, length = CASES[name]
    made, dimensions = FAMILIES[family](**arguments), SIMULATORS[name].dimensions
    draws = torch.stack([made.draw(random_stream(0, "test", k, "physics")) for k in numbers])
    grid = (points,) * dimensions if isinstance(points, int) else points
    return made.fields(draws, grid, torch.full((len(draws), dimensions), length, dtype=torch.float64))


def fine_enough(name):
    """An even number of points that resolves two trajectories, and their fields."""
    points = COARSE.get(name, 32)
    for _ in range(3):  # the extremes are found on the finer grid
        needed = build(name, points).points_needed(fields(name, points))
        points = max(points, 2 * math.ceil(float(needed.max()) / 2 - 1e-9))
    return points, fields(name, points)


def test_every_simulator_is_here():
    assert set(CASES) == set(SIMULATORS) == {*COARSE, *EXACT}


@pytest.mark.parametrize("name", COARSE)
def test_a_refused_grid_comes_with_one_that_resolves(name):
    refused = 0
    for k in range(6):
        try:
            build(name, COARSE[name])(fields(name, COARSE[name], [k]), torch.tensor([0.0]))
        except ResolutionError as error:
            refused += 1
            grid = tuple(map(int, re.search(r"Use at least (\d+(?:x\d+)*) points", str(error))[1].split("x")))
        else:
            continue
        # Accepted at the first try, also where the extremes of the field lay between the nodes of the coarse grid.
        points = grid[0] if len(grid) == 1 else grid
        start, simulator = fields(name, points, [k]), build(name, points)
        end = min(40 if name == "gray_scott" else 2, 40 * float(simulator.step_needed(start)))
        tail = float(simulator.solve(start, torch.tensor([end])).spectral_tail)
        # Smoke that does not diffuse has no finest scale.
        assert name == "closed_box_smoke" or tail < 3e-3, f"trajectory {k}: spectral tail {tail:.1e}"
    assert refused >= 3


@pytest.mark.parametrize("name", CASES)
def test_a_refused_step_comes_with_one_that_works(name):
    points, start = fine_enough(name)
    steps = 10 if name == "closed_box_smoke" else 40  # there single trajectories part soon
    end = steps * float(build(name, points).step_needed(start).min()) if name not in EXACT else 1.0
    times = torch.tensor([end / 2, end], dtype=torch.float64)
    long = build(name, points, time_step=end / 2)
    if name in EXACT:  # any step is exact
        torch.testing.assert_close(
            long.solve(start, times).trajectories.fields, build(name, points).solve(start, times).trajectories.fields
        )
        return
    with pytest.raises(ResolutionError, match="time_step") as caught:
        long.solve(start, times)
    step, substeps = re.search(r"Use time_step=([\d.e-]+) \(or substeps=(\d+)\)", str(caught.value)).groups()
    reference = build(name, points, time_step=float(step) / 4).solve(start, times).trajectories.fields
    for settings in ({"time_step": float(step)}, {"substeps": int(substeps)}):
        found = build(name, points, **settings).solve(start, times).trajectories.fields
        error = float((found - reference).norm() / reference.norm())
        assert error < (0.1 if name == "closed_box_smoke" else 1e-2), f"{settings}: error {error:.1e}"


@pytest.mark.parametrize("name", CASES)
def test_a_run_is_simulated_again_from_any_of_its_frames(name):
    points = 32 if SIMULATORS[name].dimensions == 1 else 16
    start = fields(name, points) if name not in COARSE or COARSE[name] <= points else fields(name, 32)[..., ::2, ::2]
    extra = {"velocity": "faces"} if name == "closed_box_smoke" else {}
    simulator = build(name, points, time_step=0.01, check_resolution=False, **extra)
    run = simulator.solve(start, torch.tensor([0.02, 0.04, 0.06], dtype=torch.float64)).trajectories
    again = simulator(run.fields[:, :, 0], run.time)
    torch.testing.assert_close(again.fields, run.fields, rtol=0, atol=1e-9)
    later = simulator(run.fields[:, :, 0], run.time + torch.tensor([[32.0], [7.5]]))
    torch.testing.assert_close(later.fields, run.fields, rtol=0, atol=1e-9)
    torch.testing.assert_close(later.time, run.time + torch.tensor([[32.0], [7.5]]))


def controlled(name, signals, points, start, **settings):
    """A run under two actuators per channel, whose signals change between two outputs."""
    dimensions, length = SIMULATORS[name].dimensions, CASES[name][3]
    centres = torch.tensor([[0.3] * dimensions, [0.6] * dimensions]) * length
    bumps = Actuators.gaussian(centres, 0.1 * length, (points,) * dimensions, length)
    channels = torch.eye(start.shape[1], dtype=torch.float64)
    profiles = bumps if dimensions == 1 else torch.einsum("a...,cd->acd...", bumps, channels).flatten(0, 1)
    times = torch.tensor([0.0, 0.013], dtype=torch.float64)
    forcing = Actuators(profiles, signals, times)
    simulator = build(name, points, time_step=0.01, check_resolution=False, forcing=forcing, **settings)
    return simulator.solve(start, torch.tensor([0.01, 0.03], dtype=torch.float64)).trajectories.fields


@pytest.mark.parametrize("name", CASES)
def test_actuators_act_on_every_channel_and_costs_have_gradients_in_their_signals(name):
    points = 32 if SIMULATORS[name].dimensions == 1 else 16
    start = fields(name, points) if name not in COARSE or COARSE[name] <= points else fields(name, 32)[..., ::2, ::2]
    actuators = 2 if SIMULATORS[name].dimensions == 1 else 2 * start.shape[1]
    signals = torch.linspace(-1, 1, 4 * actuators, dtype=torch.float64).reshape(2, actuators, 2).cos()
    free = controlled(name, torch.zeros_like(signals), points, start)
    plain = build(name, points, time_step=0.01, check_resolution=False)
    times = torch.tensor([0.01, 0.03], dtype=torch.float64)
    torch.testing.assert_close(free, plain.solve(start, times).trajectories.fields, rtol=0, atol=1e-6)
    moved = controlled(name, signals, points, start)
    assert bool(((moved - free).abs().amax(dim=(2, *range(3, free.ndim))) > 1e-4).all())  # each trajectory and channel
    for row in range(2):  # alone = in a batch
        alone = controlled(name, signals[row : row + 1], points, start[row : row + 1])
        torch.testing.assert_close(alone[0], moved[row], rtol=0, atol=1e-12)

    def cost(given):
        return controlled(name, given, points, start).square().mean(dim=tuple(range(1, free.ndim)))

    assert torch.autograd.gradcheck(cost, signals.requires_grad_(), atol=1e-7, fast_mode=True)

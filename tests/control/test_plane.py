"""Laws of controlled flows on a plane: actuators, episodes, derivatives, sensors, limits; wrong files."""

import math

import numpy as np
import pytest
import torch

import pdessl
from pdessl import catalog, cli
from pdessl.control import (
    DissipationLimit,
    EnergyLimit,
    Gradient,
    Imagined,
    Oracle,
    RecedingHorizon,
    VectorEnvironment,
    Zero,
    laminar_controllability,
    load_environment,
    run_episodes,
)
from pdessl.errors import DataError, SchemaError, ShapeError
from pdessl.experiments.controlled_runs import environment_of
from pdessl.solvers import FAMILIES

NAMES = [n for n in catalog.names("environments") if "lengths" in catalog.read("environments", n)["domain"]]
SMALL = {"solver.points": [16, 16], "control.steps": 4}
FLOW = SMALL | {"solver.substeps": 4, "initial_condition.highest": 5}


def small(name, **changes):
    return load_environment(name, (FLOW if name == "kolmogorov_control" else SMALL) | changes)


def amplitudes(env, batch, steps, seed=0):
    stream = np.random.default_rng(seed)
    return torch.from_numpy(stream.uniform(-env.bound, env.bound, (batch, steps, env.actuators)))


def test_waves_of_force_are_those_of_the_file():
    """By the formula, written out; free of divergence, mean square 1."""
    env = small(
        "kolmogorov_control", **{"domain.lengths": [5.0, 7.0], "actuators.waves": [[0, 4], [1, 0], [2, -3], [1, 0]]}
    )
    x, y = (torch.arange(16, dtype=torch.float64) * (length / 16) for length in (5.0, 7.0))
    x, y = torch.meshgrid(x, y, indexing="ij")
    waves, phases = env.file.actuators.waves, catalog.read("environments", "kolmogorov_control")["actuators"]["phases"]
    for j, ((n, m), phase) in enumerate(zip(waves, phases, strict=True)):
        kx, ky = 2 * math.pi * n / 5.0, 2 * math.pi * m / 7.0
        wave = math.sqrt(2) * torch.cos(kx * x + ky * y + 2 * math.pi * phase) / math.hypot(kx, ky)
        torch.testing.assert_close(env.profiles[j], torch.stack([ky * wave, -kx * wave]), rtol=0, atol=1e-12)
        assert float(env.profiles[j].square().sum(dim=0).mean()) == pytest.approx(1.0)
        at = torch.tensor(env.places[j])
        assert math.cos(kx * at[0] + ky * at[1] + 2 * math.pi * phase) == pytest.approx(1.0)
    shipped = load_environment("kolmogorov_control")
    crest = torch.sin(4 * torch.arange(32, dtype=torch.float64) * (2 * math.pi / 32))
    torch.testing.assert_close(shipped.profiles[0, 0], math.sqrt(2) * crest.expand(32, 32), rtol=0, atol=1e-12)


def test_fans_are_gaussians_on_the_faces_of_the_cells_within_walls():
    env = small("smoke_fans", **{"actuators.directions": [[3.0, 4.0], [0.0, -2.0]]})
    file = env.file.actuators
    for j, ((x0, y0), direction) in enumerate(zip(file.positions, ((0.6, 0.8), (0.0, -1.0)), strict=True)):
        for i, k in ((0, 9), (1, 9), (11, 0), (11, 1), (15, 15)):
            for axis, (x, y) in enumerate(((2.0 * i, 2.0 * k + 1), (2.0 * i + 1, 2.0 * k))):
                value = direction[axis] * math.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * 3.0**2))
                wall = (i, k)[axis] == 0
                assert float(env.profiles[j, axis, i, k]) == pytest.approx(0.0 if wall else value, abs=1e-15)
    assert not env.profiles[:, 2].any() and env.places == file.positions


@pytest.mark.parametrize("name", NAMES)
def test_an_episode_is_the_simulators_run_alone_and_in_a_batch(name):
    env = small(name)
    actions = amplitudes(env, 3, 4)
    field = env.field(env.start([4, 7, 4]))
    assert torch.equal(field[0], field[2]) and not torch.equal(field[0], field[1])
    torch.testing.assert_close(env.start([7]), env.start([4, 7])[1:], rtol=0, atol=1e-13)
    states = env.rollout(env.state(field), actions)
    times = env.file.control.period * torch.arange(5, dtype=torch.float64)
    with torch.no_grad():
        run = env.simulator(actions.transpose(1, 2))(field, times)
    torch.testing.assert_close(env.field(states).transpose(1, 2), run.fields, rtol=0, atol=1e-11)
    alone = env.rollout(states[1:2, 0], actions[1:2])
    torch.testing.assert_close(alone, states[1:2], rtol=0, atol=1e-11)
    assert float((states[0, -1] - states[2, -1]).abs().max()) > 1e-3  # the amplitudes tell
    torch.testing.assert_close(env.field(env.state(env.field(states))), env.field(states), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_through_the_solver_equal_finite_differences(name):
    env = small(name, **{"cost.state": 1.0, "cost.terminal": 2.0})
    start, actions = env.start([0, 1]), amplitudes(env, 2, 3) / 2

    def total(given):
        states = env.rollout(start, given)[:, 1:]
        return env.cost(states, given).sum() + env.terminal_cost(states[:, -1]).sum()

    given = actions.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(total(given), given)
    direction, step = amplitudes(env, 2, 3, seed=1), 1e-6
    slope = (total(actions + step * direction) - total(actions - step * direction)) / (2 * step)
    assert float(slope) == pytest.approx(float((gradient * direction).sum()), rel=1e-5)
    torch.testing.assert_close(env.rollout(start, given).detach(), env.rollout(start, actions), rtol=0, atol=1e-12)


def test_costs_are_those_of_the_file():
    env = small("smoke_fans")
    state, actions = env.start([0, 1]), amplitudes(env, 2, 1)[:, 0]
    smoke, x = env.field(state)[:, 2], (torch.arange(16, dtype=torch.float64) + 0.5) * 2.0
    far = ((x[:, None] - 32) ** 2 + (x - 32) ** 2) / (2 * 32**2)
    away = (smoke * far).sum(dim=(1, 2)) / smoke.sum(dim=(1, 2))
    torch.testing.assert_close(env.cost(state, actions), away + 0.01 * actions.square().mean(dim=1))
    torch.testing.assert_close(env.terminal_cost(state), 10 * away)
    flow = small("kolmogorov_control", **{"cost.state": 3.0})
    state, actions = flow.start([0]), amplitudes(flow, 1, 1)[:, 0]
    energy = flow.field(state).square().sum(dim=1).mean(dim=(1, 2))
    torch.testing.assert_close(flow.cost(state, actions), 3 * energy + actions.square().mean(dim=1))
    torch.testing.assert_close(flow.stepper.coordinates(state).square().sum(dim=1), energy)
    torch.testing.assert_close(flow.stepper.from_coordinates(flow.stepper.coordinates(state)), state)


def test_the_dissipation_is_the_energy_that_viscosity_takes():
    """Without a force d/dt <|u|²>/2 = -ν <w²>, along a run; and its value for a shear flow."""
    env = small("kolmogorov_control", **{"parameters.force_amplitude": 0.0, "control.period": 0.015625})
    rail = env.guardrails[0]
    states = env.rollout(env.start([0, 1]), torch.zeros(2, 2, 4, dtype=torch.float64))
    energy = env.field(states).square().sum(dim=2).mean(dim=(2, 3)) / 2
    rate = (energy[:, 2] - energy[:, 0]) / (2 * env.file.control.period)
    torch.testing.assert_close(rail.value(env.field(states[:, 1])), -rate, rtol=1e-3, atol=0)
    y = torch.arange(12, dtype=torch.float64) * (3.0 / 12)
    shear = torch.stack([torch.sin(2 * math.pi * 2 * y / 3).expand(8, 12), torch.zeros(8, 12, dtype=torch.float64)])
    found = DissipationLimit(1.0, 0.1, (2.0, 3.0)).value(shear)
    assert float(found) == pytest.approx(0.1 * (4 * math.pi / 3) ** 2 / 2)
    with pytest.raises(ShapeError, match=r"velocities \(..., 2, X, Y\)"):
        rail.value(torch.zeros(3, 16, 16))


def test_sensors_read_the_fields_where_they_are_with_noise_of_each_seeds_own():
    places = {"sensors.positions": [[0.0, 0.0], [math.pi, math.pi / 2]], "sensors.noise": 0.1}
    env = small("kolmogorov_control", **places)
    state = env.start([0, 1])
    read, field = env.observe(state), env.field(state)
    assert env.observed == 4 == read.shape[1]
    torch.testing.assert_close(read, torch.cat([field[:, :, 0, 0], field[:, :, 8, 4]], dim=1))
    box = small("smoke_fans", **{"sensors.positions": [[1.0, 3.0], [2.0, 3.0], [32.0, 32.0]]})
    state = box.rollout(box.start([0, 1]), amplitudes(box, 2, 2))[:, -1]
    read, smoke = box.observe(state).reshape(2, 3, 3), box.field(state)[:, 2]
    torch.testing.assert_close(read[:, 0, 2], smoke[:, 0, 1])
    torch.testing.assert_close(read[:, 1, 2], smoke[:, :2, 1].mean(dim=1))
    torch.testing.assert_close(read[:, 2, 2], smoke[:, -1, -1])
    u = box.field(state)[:, 0]
    torch.testing.assert_close(read[:, 0, 0], (u[:, 0, 1] + u[:, 1, 1]) / 2)
    noise = env.noise([0, 1])
    assert noise.shape == (2, 5, 4) and torch.equal(noise[1:], env.noise([1]))
    world = VectorEnvironment(env)
    torch.testing.assert_close(world.reset([0, 1]).observation - noise[:, 0], env.observe(env.start([0, 1])))


def test_the_laminar_flow_stays_and_what_is_reached_is_said(capsys):
    """In a narrow channel of low Reynolds number nothing grows; the waves reach those growing modes they drive."""
    env = small("kolmogorov_control", **{"parameters.viscosity": 1.0})
    assert laminar_controllability(env).growing == 0
    words = ["inspect", "kolmogorov_control", "--set", "solver.points=[16,16]", "initial_condition.highest=5"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "waves of force (0, 4) at -0.25" in said and "modes of the laminar flow do not decay" in said
    assert "guardrail   DissipationLimit(limit=0.3" in said
    assert cli.main(["inspect", "smoke_fans"]) == 0
    assert "fans at (0, 20) along (1, 0)" in capsys.readouterr().out


def test_a_plan_keeps_the_guardrail_of_the_file_that_no_control_passes():
    """From a strong flow the force drives on, the limit is passed without control and kept by plans."""
    changes = {"limits.dissipation": 0.12, "solver.substeps": 4, "control.steps": 4}
    env = small("kolmogorov_control", **changes)
    rail, seeds = env.guardrails[0], [0, 1]
    left = run_episodes(env, Zero(env), seeds)
    assert bool((rail.value(left.fields) > 0.12).any(dim=1).all())
    planner = RecedingHorizon(env, Oracle(env), Gradient(iterations=6, rate=0.5), 3, 2, env.guardrails)
    kept = run_episodes(env, planner, seeds)
    assert not bool((rail.value(kept.fields[:, 1:]) > 0.12).any()) and float(kept.mean_cost.min()) > 0


@pytest.mark.parametrize("name", NAMES)
def test_plan_and_generate_through_the_command_line(name, tmp_path, capsys):
    sets = [f"{k}={v}".replace(" ", "") for k, v in (FLOW if name == "kolmogorov_control" else SMALL).items()]
    words = ["--environment", name, "--search", "iterations=1", "--horizon", "2", "--every", "2", "--episodes", "2"]
    assert cli.main(["plan", *words, "--set", *sets, "--out", str(tmp_path / "plan")]) == 0
    said = capsys.readouterr().out
    assert "gradient, the solver as model" in said and "no row of linear feedback" in said
    assert {p.name for p in (tmp_path / "plan").iterdir()} >= {"report.html", "report.json", "control.gif"}
    assert cli.main(["generate", name, "--out", str(tmp_path / "runs"), "--size", "3", "--set", *sets]) == 0
    store = pdessl.open(tmp_path / "runs")
    runs, env = store.load("unlabelled"), environment_of(store)
    assert runs.actions.shape == (3, env.actuators, 4) and env.file == small(name).file
    again = env.rollout(env.state(runs.fields[:, :, 0]), runs.actions.transpose(1, 2))[:, -1]
    torch.testing.assert_close(env.field(again).float(), runs.fields[:, :, -1], rtol=1e-4, atol=2e-5)
    assert not runs.actions[0].any() and runs.actions[1].any() and runs.actions[2].any()


def test_feedback_takes_energy_out():
    env = small("kolmogorov_control", **{"parameters.force_amplitude": 0.0})
    state = env.start([0, 1, 2])
    push = -0.05 * env.along(state) / env.along(state).abs().amax()
    still = env.step(state, torch.zeros_like(push))
    assert bool((env.mean_square(env.step(state, push)) < env.mean_square(still)).all())
    one = torch.zeros_like(push)
    one[:, 2] = 0.4
    gained = env.step(env.state(torch.zeros(3, 2, 16, 16)), one)
    torch.testing.assert_close(env.along(gained)[:, 2].square(), env.mean_square(gained), rtol=1e-6, atol=0)


def test_puffs_are_where_the_file_has_them():
    family = FAMILIES["smoke_puffs"](radius=0.2, x=[0.25, 0.25], y=[0.5, 0.75])
    u, v, s = family.sample(3, 16, 32.0, seed=1).unbind(dim=1)
    assert not u.any() and not v.any() and float(s.max()) > 0.9
    x = (torch.arange(16, dtype=torch.float64) + 0.5) * 2
    column = torch.exp(-(((x - 8.0) / 6.4) ** 2))
    torch.testing.assert_close(s / s.amax(dim=1, keepdim=True), (column / column.max())[:, None].expand(3, 16, 16))
    with pytest.raises(SchemaError, match="0 <= low <= high <= 1"):
        FAMILIES["smoke_puffs"](x=[0.5, 0.2])


@pytest.mark.parametrize(
    "name, changes, said",
    [
        ("smoke_fans", {"actuators.positions": [[0.0, 40.0], [22.0, 0.0]]}, r"within \[32.0, 32.0\]"),
        ("smoke_fans", {"actuators.directions": [[1.0, 0.0]]}, "2 positions and 1 directions"),
        ("smoke_fans", {"actuators.directions": [[1.0, 0.0], [0.0, 0.0]]}, r"none that is \[0, 0\]"),
        ("smoke_fans", {"actuators.waves": [[0, 1]]}, "expected waves"),
        ("smoke_fans", {"limits.dissipation": 1.0}, "knows no limits.dissipation"),
        ("smoke_fans", {"equation": "navier_stokes_2d"}, "solves 'boussinesq'"),
        ("smoke_fans", {"solver.simulator": "closed_box"}, "Did you mean 'closed_box_smoke'"),
        ("smoke_fans", {"parameters.smoke": 0.01}, "unknown key 'smoke'"),
        ("kolmogorov_control", {"cost.corner": [1.0, 1.0]}, "knows no cost.corner"),
        ("kolmogorov_control", {"sensors.positions": []}, "expected some"),
        ("kolmogorov_control", {"burn_in": 0.3}, "not a multiple"),
        ("kolmogorov_control", {"initial_condition": {"family": "sine_series"}}, "Families: "),
    ],
)
def test_a_wrong_file_is_told_with_its_place(name, changes, said):
    with pytest.raises(SchemaError, match=said):
        load_environment(name, changes)


class Read(Oracle):
    """The solver as model that would also read what the field costs without a state, and reads wrongly."""

    def energies(self, situation, actions):
        return torch.full(actions.shape[:3], 7.0, dtype=torch.float64)


@pytest.mark.parametrize("name", ["smoke_fans", "tracer_ring", "kolmogorov_control"])
def test_energies_are_read_only_where_the_cost_is_made_of_them(name):
    given = {"cost.state": 1.0}
    env = load_environment(name, given) if name == "tracer_ring" else small(name, **given)
    now, plan = VectorEnvironment(env).reset([0]), torch.zeros(1, 1, 2, env.actuators, dtype=torch.float64)
    found, real = (Imagined(env, model(env), now).cost(plan) for model in (Read, Oracle))
    assert torch.equal(found, real) == (name != "kolmogorov_control")


def test_nothing_is_unseen_on_a_plane():
    env = small("smoke_fans")
    plan = amplitudes(env, 2, 2)
    assert env.undetermined == 0 and torch.equal(env.acting(plan, [0, 1]), plan)
    with pytest.raises(DataError, match="leaves nothing open"):
        pdessl.plan(env, planner=Gradient(1), futures=2, horizon=1, every=1, announce=str)


def test_other_wrong_input():
    env = small("kolmogorov_control")
    with pytest.raises(ShapeError, match=r"expected \(1, 4\), one amplitude per actuator"):
        env.step(env.start([0]), torch.zeros(1, 5))
    with pytest.raises(ShapeError, match=r"expected \(..., \(2, 16, 16\)\)"):
        env.state(torch.zeros(2, 16, 16, 2))
    with pytest.raises(DataError, match="does not keep the wave"):
        small("kolmogorov_control", **{"actuators.waves": [[0, 6], [0, 4], [1, 0], [1, 0]]})
    with pytest.raises(DataError, match="Use at least"):
        small("smoke_fans", **{"parameters.viscosity": 10.0})
    with pytest.raises(DataError, match="channels"):
        small("smoke_fans", **{"initial_condition": {"family": "taylor_green"}}).start([0])
    with pytest.raises(DataError, match="limits.dissipation"):
        pdessl.plan(env, guardrails=[EnergyLimit(1.0)], announce=str)
    for word, options in (("laws and world models", {"model": "law"}), ("a critic", {"critic": 1, "episodes": 1})):
        with pytest.raises(DataError, match=f"{word}.*on an interval only"):
            pdessl.plan(env, planner=Gradient(1), horizon=1, every=1, announce=str, **options)
    with pytest.raises(DataError, match="no row of linear feedback"):
        pdessl.plan(env, planner="lqr", announce=str)

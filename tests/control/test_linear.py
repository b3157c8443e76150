"""Linearisation against the exact modes, controllability against arithmetic, Riccati against the solver's gradients."""

import math

import pytest
import torch

from pdessl.control import load_environment
from pdessl.control.linear import controllability, linearise, lqr, riccati
from pdessl.errors import DataError

DRY = {"burn_in": 0.0}


@pytest.fixture(scope="module")
def linear_environment():
    return load_environment("advection_diffusion_control")


@pytest.mark.parametrize("name", ["ks_control_4", "advection_diffusion_control"])
def test_the_linearisation_is_the_exact_flow_of_each_mode(name):
    env = load_environment(name, DRY)
    linear, k = linearise(env), 2 * math.pi / env.file.domain.length * torch.arange(env.modes, dtype=torch.float64)
    symbol = k**2 - k**4 if name == "ks_control_4" else -0.05 * k**2 - 1j * k
    state = torch.complex(
        *torch.randn(2, 3, env.modes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    )
    state[:, 0] = state[:, 0].real.to(state.dtype)
    moved = env.from_coordinates(env.coordinates(state) @ linear.transition.T)
    torch.testing.assert_close(moved, state * torch.exp(0.25 * symbol), rtol=1e-9, atol=1e-11)
    # One actuator: the integral of exp(L s) over the period times its profile.
    rate = torch.where(symbol == 0, torch.ones_like(symbol), symbol)
    held = torch.where(symbol == 0, torch.full_like(symbol, 0.25), (torch.exp(0.25 * rate) - 1) / rate)
    expected = env.coordinates(held * env.state(env.profiles))
    torch.testing.assert_close(linear.entry.T, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("actuators, stabilisable", [(4, False), (5, True), (8, True)])
def test_modes_out_of_reach_are_the_sines_that_vanish_at_every_actuator(actuators, stabilisable):
    """At x = j L/n that is sin(2π k j/n) = 0 for all j: where n divides 2k."""
    env = load_environment(f"ks_control_{actuators}", DRY)
    reached = controllability(linearise(env))
    rates = {j: k**2 - k**4 for j in range(1, env.modes) for k in [2 * math.pi / 22.0 * j]}
    expected = {j: rate for j, rate in rates.items() if 2 * j % actuators == 0 and math.exp(0.25 * rate) > 1e-3}
    assert {m.wave_number: pytest.approx(m.rate, rel=1e-6) for m in reached.unreached} == expected
    assert reached.stabilisable is stabilisable and reached.growing == 7


def test_the_uncontrollable_growing_mode_is_reported_and_refused():
    linear = linearise(load_environment("ks_control_4", DRY))
    said = r"linear feedback cannot hold u = 0. No actuator reaches a wave of number 2 that grows with \+0.22"
    with pytest.raises(DataError, match=said):
        lqr(linear, action=0.1)
    with pytest.raises(DataError, match="weights of state and action above 0"):
        lqr(linearise(load_environment("ks_control_8", DRY | {"cost.action": 0.0})))


def test_the_riccati_plan_is_where_the_gradient_through_the_solver_vanishes(linear_environment):
    """The cost of a linear equation is strictly convex in the amplitudes: there is one such plan."""
    env = load_environment("advection_diffusion_control", {"cost.terminal": 2.0})
    linear, start = linearise(env), env.start(range(3))
    goal = env.start([7, 8, 9])
    best = riccati(linear, 12, env.coordinates(goal)).plan(linear, env.coordinates(start))
    plans = best.clone().requires_grad_()
    states = env.rollout(start, plans)[:, 1:]
    cost = env.cost(states, plans, goal[:, None]).sum(dim=1) + env.terminal_cost(states[:, -1], goal)
    (gradient,) = torch.autograd.grad(cost.sum(), plans)
    scale = float((0.1 * best / 2).abs().max())
    assert float(gradient.abs().max()) < 1e-11 * scale
    assert float(best.abs().max()) > 0.1


def test_a_long_horizon_ends_in_the_algebraic_equation(linear_environment):
    linear = linearise(linear_environment)
    torch.testing.assert_close(riccati(linear, 400).gains[0], lqr(linear).gains[0], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("actuators", [5, 8])
def test_feedback_holds_small_fields_of_the_nonlinear_equation(actuators):
    env = load_environment(f"ks_control_{actuators}", DRY)
    feedback, state = lqr(linearise(env)), 1e-3 * env.start(range(2))
    before, free = env.mean_square(state), state
    for _ in range(300):
        state = env.step(state, feedback(env.coordinates(state)))
        free = env.step(free, torch.zeros(2, actuators, dtype=torch.float64))
    assert float((env.mean_square(state) / before).max()) < 1e-2 < 1e3 < float((env.mean_square(free) / before).min())


def test_inspect_says_which_modes_no_actuator_reaches(capsys):
    from pdessl import cli

    assert cli.main(["inspect", "ks_control_4"]) == 0
    said = capsys.readouterr().out
    assert "4 at 0, 5.5, 11, 16.5, width 0.4" in said
    assert "No actuator reaches a wave of number 2 that grows" in said
    assert cli.main(["inspect", "ks_control_5", "--set", "actuators.bound=0.5"]) == 0
    said = capsys.readouterr().out
    assert "linear feedback can hold u = 0" in said and "±0.5" in said

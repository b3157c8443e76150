"""Critics: what they are fitted to by a slow sum, and what they are worth at the end of a plan."""

import pytest
import torch

import pdessl
from pdessl.control import (
    Gradient,
    Imagined,
    LinearFeedback,
    Newton,
    Oracle,
    RecedingHorizon,
    Terminal,
    VectorEnvironment,
    discounted_means,
    learn_critic,
    linearise,
    load_environment,
    lqr,
    run_episodes,
)
from pdessl.errors import DataError, ShapeError
from pdessl.models import Critic


def test_discounted_means_are_sums_over_what_follows():
    costs = torch.rand(2, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = discounted_means(costs, 0.7)
    for t in range(9):
        weights = 0.7 ** torch.arange(9 - t, dtype=torch.float64)
        torch.testing.assert_close(found[:, t], (costs[:, t:] * weights).sum(dim=1) / weights.sum())
    torch.testing.assert_close(discounted_means(costs, 0.0), costs)


@pytest.fixture(scope="module")
def linear():
    return load_environment("advection_diffusion_control", {"control.steps": 40, "actuators.bound": 5.0})


def test_what_linear_feedback_goes_on_to_pay_is_learned(linear):
    """What linear feedback of a linear system goes on to pay is known from its own matrices."""
    env, system = linear, linearise(linear)
    feedback = lqr(system)
    terminal = learn_critic(env, lambda _: LinearFeedback(env, feedback), range(40), 1, discount=0.8, steps=500)
    now = env.start(range(1000, 1030))
    closed = system.transition - system.entry @ feedback.gains[0]
    x, weight, mean = env.coordinates(now), 0.0, 0.0
    for k in range(60):
        a = -x @ feedback.gains[0].T
        x = x @ closed.T
        mean = mean + 0.8**k * (system.state * x.square().sum(dim=1) + system.action * a.square().sum(dim=1))
        weight += 0.8**k
    mean = mean / weight
    found = terminal.critic(env.coordinates(now).float()).detach().double()
    assert float((found - mean).square().mean()) < 0.35 * float((mean - mean.mean()).square().mean())
    assert float(torch.corrcoef(torch.stack([found, mean]))[0, 1]) > 0.9
    # In a plan: over the periods that are left, and not at all where none is.
    world = VectorEnvironment(env).reset([0, 1])
    plan = torch.zeros(2, 1, 3, 4, dtype=torch.float64)
    with torch.no_grad():
        priced = Imagined(env, Oracle(env), world, terminal=terminal).cost(plan)
        free = Imagined(env, Oracle(env), world).cost(plan)
        end = env.rollout(world.state, plan[:, 0])[:, -1]
        expected = terminal.critic(env.coordinates(end).float()).double() * (1 - 0.8**37) / 0.2 / 3
        torch.testing.assert_close((priced - free)[:, 0], expected)
        whole = torch.zeros(2, 1, 40, 4, dtype=torch.float64)
        same = [Imagined(env, Oracle(env), world, terminal=t).cost(whole) for t in (None, terminal)]
    assert torch.equal(*same)


def test_short_plans_with_a_critic_cost_less_than_short_plans_without():
    """Amplitudes are dear and pay later: a plan of one period does nothing, with a critic it does."""
    env = load_environment(
        "advection_diffusion_control", {"control.steps": 30, "cost.action": 1.0, "actuators.bound": 5.0}
    )

    def short(terminal):
        return RecedingHorizon(env, Oracle(env), Newton(iterations=1, lengths=2), 1, terminal=terminal)

    terminal = learn_critic(env, short, range(16), 2, discount=0.9, steps=300)
    seeds = range(1000, 1016)
    costs = {t is None: float(run_episodes(env, short(t), seeds).mean_cost.mean()) for t in (None, terminal)}
    best = float(run_episodes(env, LinearFeedback(env, lqr(linearise(env))), seeds).mean_cost.mean())
    assert costs[False] - best < 0.7 * (costs[True] - best)


def test_a_critic_is_small_where_the_state_is_and_what_does_not_fit_is_told(linear):
    critic = Critic(31)
    state = torch.randn(5, 31, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        small, large = critic(1e-3 * state), critic(state)
    assert float(small.max()) < 2e-3 < 1e-1 < float(large.min())
    with pytest.raises(ShapeError, match="the critic takes 31 coordinates"):
        Terminal(linear, critic, 0.9)
    with pytest.raises(DataError, match=r"a discount in \[0, 1\)"):
        learn_critic(linear, lambda _: None, [0], discount=1.0)
    with pytest.raises(DataError, match="at least one"):
        learn_critic(linear, lambda _: None, [0], rounds=0)
    seen = load_environment("advection_diffusion_control", {"sensors.positions": [1.0]})
    with pytest.raises(DataError, match="1 observed values"):
        learn_critic(seen, lambda _: None, [0])


def test_the_first_round_of_a_plan_with_a_critic_looks_as_far_ahead_as_it_is_told(monkeypatch):
    """And the others, and the plans that are measured, as far as they do without."""
    env, seen = load_environment("advection_diffusion_control", {"control.steps": 4}), []

    def told(environment, controller, seeds, rounds):
        seen.extend(controller(terminal).horizon for terminal in (None, made))
        return made

    made = Terminal(env, Critic(env.coordinates_count, (4,)), 0.9)
    monkeypatch.setattr("pdessl.experiments.planning.learn_critic", told)
    given = {"planner": Gradient(1), "episodes": 1, "horizon": 1, "every": 1, "critic": 2, "announce": str}
    pdessl.plan(env, **given, critic_horizon=3)
    pdessl.plan(env, **given)
    assert seen == [3, 1, 1, 1]
    with pytest.raises(DataError, match="critic_horizon 1, horizon 2"):
        pdessl.plan(env, **(given | {"horizon": 2}), critic_horizon=1)

"""Search under limits: the point that Karush, Kuhn and Tucker's conditions name, and what is kept in a closed loop."""

import math

import pytest
import torch

from pdessl.control import (
    AmplitudeLimit,
    AugmentedLagrangian,
    Gradient,
    Imagined,
    Oracle,
    RecedingHorizon,
    VectorEnvironment,
    load_environment,
    run_episodes,
)
from pdessl.errors import DataError


class Halfspace:
    """|a - a*|² where w·a <= c; the least is where a* is projected on the plane, in rows that a* would pass it."""

    def __init__(self, scale):
        generator = torch.Generator().manual_seed(3)
        self.wanted = torch.rand(3, 3, 2, generator=generator, dtype=torch.float64) - 0.5
        self.normal = torch.rand(3, 2, generator=generator, dtype=torch.float64) + 0.5
        self.level = (self.wanted * self.normal).sum(dim=(1, 2)) + torch.tensor([-0.4, -0.1, 0.3])
        self.scale = scale

    def cost(self, actions):
        return self.scale * (actions - self.wanted[:, None]).square().sum(dim=(-1, -2))

    def limited(self, actions):
        over = (actions * self.normal).sum(dim=(-1, -2)) - self.level[:, None]
        return self.cost(actions), torch.stack([over, over - 1.0], dim=-1)  # the second one is never reached

    @property
    def least(self):
        over = ((self.wanted * self.normal).sum(dim=(1, 2)) - self.level).clamp_min(0.0)
        return self.wanted - (over / self.normal.square().sum())[:, None, None] * self.normal


@pytest.mark.parametrize("scale", [1.0, 1e5])
def test_the_point_of_the_conditions_is_found_whatever_the_scale(scale):
    problem = Halfspace(scale)
    planner = AugmentedLagrangian(rounds=10, iterations=30, slack=1e-5)
    found = planner.plan(problem, torch.zeros(3, 3, 2, dtype=torch.float64), 1.0, torch.Generator())
    torch.testing.assert_close(found.actions, problem.least, rtol=0, atol=5e-3)
    cost, over = problem.limited(found.actions[:, None])
    assert float(over.max()) <= 0 and torch.equal(found.cost, cost[:, 0])
    assert float(over[:2, 0, 0].min()) > -5e-3 > float(over[2, 0, 0])  # reached where it binds, and only there


def test_limits_that_nothing_keeps_are_passed_least_and_none_at_all_is_a_search_by_gradients():
    problem = Halfspace(1.0)
    problem.level = problem.level - 100.0
    start = torch.zeros(3, 3, 2, dtype=torch.float64)
    found = AugmentedLagrangian(rounds=2).plan(problem, start, 1.0, torch.Generator())
    before = problem.limited(start[:, None])[1].amax(dim=(1, 2))
    after = problem.limited(found.actions[:, None])[1].amax(dim=(1, 2))
    assert bool((after < before - 2).all())  # -1 in every entry, nearly
    env = load_environment("advection_diffusion_control", {"control.steps": 6})
    now = VectorEnvironment(env).reset([0])
    still = torch.zeros(1, 4, 4, dtype=torch.float64)
    free = Imagined(env, Oracle(env), now)
    planner = AugmentedLagrangian(iterations=3)
    same = Gradient(3, planner.rate, final=planner.final).plan(free, still, 1.0, torch.Generator())
    assert torch.equal(planner.plan(free, still, 1.0, torch.Generator()).actions, same.actions)

    class Unlimited:
        def cost(self, actions):
            return actions.sum(dim=(-1, -2))

    with pytest.raises(DataError, match=r"Unlimited has no limited\(actions\)"):
        planner.plan(Unlimited(), still, math.inf, torch.Generator())


def test_a_limit_that_binds_is_kept_at_less_cost_than_by_a_price():
    """The task wants a field far above the limit: every plan meets it, none is refused."""
    changes = {"control.steps": 6, "cost.action": 0.0, "actuators.bound": 3.0}
    changes |= {"cost.target": {"family": "sine_series", "amplitude": 4.0, "terms": 2, "wave_numbers": [1, 2]}}
    env = load_environment("advection_diffusion_control", changes)
    limit = AmplitudeLimit(1.05 * float(env.field(env.start([0, 1])).abs().max()))
    runs = {}
    for planner in (AugmentedLagrangian(rounds=5, iterations=12), Gradient(60)):
        controller = RecedingHorizon(env, Oracle(env), planner, 6, 6, guardrails=[limit])
        runs[type(planner).__name__] = run_episodes(env, controller, [0, 1])
    best, priced = runs["AugmentedLagrangian"], runs["Gradient"]
    assert float(best.fallbacks.max()) == 0 and float(best.fields.abs().max()) <= limit.limit * (1 + 1e-6)
    assert float(best.fields.abs().max()) > 0.99 * limit.limit
    assert float(best.mean_cost.mean()) < float(priced.mean_cost.mean())

"""Planners against minima that are known: a quadratic, Riccati's plan, and what no candidate may do."""

import math

import pytest
import torch

from pdessl.control import (
    CEM,
    MPPI,
    Gradient,
    Imagined,
    Newton,
    Oracle,
    VectorEnvironment,
    linearise,
    load_environment,
    riccati,
)
from pdessl.errors import ShapeError

PLANNERS = {
    "cem": CEM(),
    "icem": CEM.improved(samples=200, elites=20, rounds=20),
    "mppi": MPPI(rounds=25),
    "gradient": Gradient(iterations=150, rate=0.1, starts=2, final=0.01),
    "newton": Newton(),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Quadratic:
    """(a - a*)ᵀ W (a - a*), entries coupled unless a* is far, a row each its own; keeps what it was asked."""

    def __init__(self, scale=1.0, far=0.0):
        self.minimum = torch.empty(2, 4, 2, dtype=torch.float64).uniform_(-0.6, 0.6, generator=generator(1)) + far
        root = torch.randn(8, 8, generator=generator(2), dtype=torch.float64)
        coupled = root @ root.T / 8 if not far else 0.0
        self.weight = scale * (coupled + torch.eye(8, dtype=torch.float64))
        self.asked = []

    def cost(self, actions):
        self.asked.append(actions.detach())
        error = (actions - self.minimum[:, None]).flatten(2)
        return torch.einsum("bni,ij,bnj->bn", error, self.weight, error)


def search(planner, problem, bound=1.0, seed=0):
    return planner.plan(problem, torch.zeros(2, 4, 2, dtype=torch.float64), bound, generator(seed))


@pytest.mark.parametrize("name", PLANNERS)
@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_the_minimum_of_a_known_quadratic_is_found_whatever_its_scale(name, scale):
    problem = Quadratic(scale)
    found = search(PLANNERS[name], problem)
    # Noise that is smooth in time explores sudden changes less.
    assert float((found.actions - problem.minimum).abs().max()) < (0.06 if name == "icem" else 0.02)
    torch.testing.assert_close(found.cost, problem.cost(found.actions[:, None])[:, 0])
    assert found.evaluations == sum(a.shape[1] for a in problem.asked[:-1])


@pytest.mark.parametrize("name", PLANNERS)
def test_no_candidate_leaves_the_bound_where_the_minimum_lies_outside(name):
    """What is returned lies on the side of the box that the minimum is behind."""
    problem = Quadratic(far=2.0)
    found = search(PLANNERS[name], problem, bound=0.7)
    assert max(float(a.abs().max()) for a in problem.asked) <= 0.7
    assert float(found.actions.max()) <= 0.7 and float(found.actions.min()) > 0.6


@pytest.mark.parametrize("name", PLANNERS)
def test_the_same_seed_gives_the_same_plan_and_a_good_start_is_not_lost(name):
    problem = Quadratic()
    first, again, other = (search(PLANNERS[name], problem, seed=s) for s in (0, 0, 1))
    assert torch.equal(first.actions, again.actions)
    assert torch.equal(first.actions, other.actions) is (name == "newton")
    kept = PLANNERS[name].plan(problem, problem.minimum.clone(), 1.0, generator())
    assert float(kept.cost.max()) < 1e-12


@pytest.mark.parametrize("name", PLANNERS)
def test_costs_that_are_not_finite_are_never_chosen(name):
    class Broken(Quadratic):
        def cost(self, actions):
            bad = actions[:, :, 0, 0] > 0
            return torch.where(bad, torch.full_like(actions[:, :, 0, 0], math.nan), super().cost(actions))

    found = search(PLANNERS[name], Broken())
    assert bool(found.cost.isfinite().all()) and float(found.actions[:, 0, 0].max()) <= 0.0

    class Hopeless(Quadratic):
        def cost(self, actions):
            return super().cost(actions) * math.inf

    found = search(PLANNERS[name], Hopeless())
    assert torch.equal(found.actions, torch.zeros(2, 4, 2, dtype=torch.float64)) and bool(found.cost.isinf().all())


def test_noise_with_colour_has_unit_variance_and_is_smooth():
    from pdessl.control.planners import _noise

    like = torch.zeros(1, dtype=torch.float64)
    for horizon in (11, 12):
        white, red = (_noise((1, 4000, horizon, 1), c, like, generator()) for c in (0.0, 2.0))
        for noise in (white, red):
            assert float(noise.var()) == pytest.approx(1.0, rel=0.05)
        assert abs(float((white[:, :, 1:] * white[:, :, :-1]).mean())) < 0.03
        assert float((red[:, :, 1:] * red[:, :, :-1]).mean()) > 0.5


def test_weights_of_mppi_do_not_depend_on_the_scale_and_favour_the_least():
    cost = torch.tensor([[1.0, 2.0, 4.0], [math.inf, 5.0, math.inf], [math.inf] * 3], dtype=torch.float64)
    weights = MPPI().weights(cost)
    torch.testing.assert_close(weights, MPPI().weights(1e9 * cost + 7.0))
    deviation = math.sqrt(14 / 9)
    expected = torch.tensor([1.0, math.exp(-2 / deviation), math.exp(-6 / deviation)], dtype=torch.float64)
    torch.testing.assert_close(weights[0], expected / expected.sum())
    torch.testing.assert_close(weights[1], torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(weights[2], torch.full((3,), 1 / 3, dtype=torch.float64))


@pytest.fixture(scope="module")
def linear_problem():
    env = load_environment("advection_diffusion_control", {"actuators.bound": 1e3, "control.steps": 6})
    now = VectorEnvironment(env).reset([0, 1])
    linear = linearise(env)
    best = riccati(linear, 6).plan(linear, env.coordinates(now.state))
    return env, Imagined(env, Oracle(env), now), best


def test_a_planner_with_the_true_linear_model_finds_riccatis_plan(linear_problem):
    """Newton, through derivatives of the solver: the plan to round-off."""
    _, problem, best = linear_problem
    found = Newton(iterations=2).plan(problem, torch.zeros_like(best), math.inf, generator())
    assert float(best.abs().max()) > 0.1
    torch.testing.assert_close(found.actions, best, rtol=0, atol=1e-11)
    torch.testing.assert_close(found.cost, problem.cost(best[:, None])[:, 0], rtol=1e-12, atol=0)


def test_other_planners_come_close_to_riccatis_cost_and_none_goes_below(linear_problem):
    _, problem, best = linear_problem
    still = torch.zeros_like(best)
    least, nothing = problem.cost(best[:, None])[:, 0], problem.cost(still[:, None])[:, 0]
    planners = (CEM(samples=150, elites=15, rounds=12), MPPI(samples=150, rounds=12), Gradient(60, 0.1))
    for planner, share in zip(planners, (0.93, 0.9, 0.97), strict=True):
        found = planner.plan(problem, still, 1.0, generator())
        gained = (nothing - found.cost) / (nothing - least)
        assert float(gained.min()) > share and float(gained.max()) <= 1 + 1e-12


def test_wrong_shapes_are_told():
    with pytest.raises(ShapeError, match=r"plans to start from have shape \(2, 4\), expected \(B, H, A\)"):
        CEM().plan(Quadratic(), torch.zeros(2, 4), 1.0, generator())

    class Wrong:
        def cost(self, actions):
            return actions.sum()

    with pytest.raises(ShapeError, match=r"cost\(actions\) returned \(\) for .*; expected \(B, N\)"):
        MPPI().plan(Wrong(), torch.zeros(2, 4, 2), 1.0, generator())

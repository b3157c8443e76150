"""Closed loops, their limits, and the frequency with which a calibrated limit holds."""

import math

import pytest
import torch
from scipy.stats import binom

from pdessl.control import (
    CEM,
    AmplitudeLimit,
    EnergyLimit,
    Gradient,
    Imagined,
    LinearFeedback,
    Margins,
    Newton,
    Oracle,
    Random,
    RecedingHorizon,
    RegionLimit,
    VectorEnvironment,
    Zero,
    calibrate,
    linearise,
    load_environment,
    lqr,
    rehearse,
    riccati,
    run_episodes,
)
from pdessl.errors import DataError, ShapeError

SHORT = {"burn_in": 10.0, "control.steps": 12}


@pytest.fixture(scope="module")
def five():
    return load_environment("ks_control_5", SHORT)


class Recorded:
    """A planner that tells what it was asked and returns what it is told."""

    def __init__(self, inner, plan=None):
        self.inner, self.fixed, self.starts = inner, plan, []

    def plan(self, problem, start, bound, generator):
        self.starts.append(start.clone())
        found = self.inner.plan(problem, start, bound, generator)
        return found if self.fixed is None else type(found)(self.fixed(start), found.cost, found.evaluations)


def test_the_environments_episode_counts_the_cost_after_each_period_and_the_end(five):
    target = load_environment("burgers_target", {"control.steps": 3})
    for env in (five, target):
        seen = run_episodes(env, Random(env), [3, 4])
        state, goal = env.start([3, 4]), env.target([3, 4])
        states = env.rollout(state, seen.actions)[:, 1:]
        expected = env.cost(states, seen.actions, None if goal is None else goal[:, None])
        expected[:, -1] += env.terminal_cost(states[:, -1], goal)
        torch.testing.assert_close(seen.costs, expected, rtol=0, atol=0)
        assert seen.fields.shape == (2, env.steps + 1, env.points)
        alone = run_episodes(env, Random(env), [4])
        assert torch.equal(alone.costs[0], seen.costs[1]) and torch.equal(alone.fields[0], seen.fields[1])


def test_actions_out_of_bounds_or_of_another_shape_are_refused(five):
    world = VectorEnvironment(five)
    with pytest.raises(DataError, match="no episode has begun; reset it"):
        world.step(torch.zeros(1, 5))
    world.reset([0])
    for wrong in (1.5, math.nan):
        with pytest.raises(DataError, match=r"expected finite ones within ±1\."):
            world.step(torch.full((1, 5), wrong))
    with pytest.raises(ShapeError, match=r"expected \(1, 5\)"):
        world.step(torch.zeros(1, 4))
    for _ in range(12):
        assert not world.done
        world.step(torch.ones(1, 5, dtype=torch.float32) * (1 + 1e-7))
    assert world.done
    with pytest.raises(DataError, match="has ended; reset it"):
        world.step(torch.zeros(1, 5))


def test_planning_with_the_solver_beats_no_control_and_chance(five):
    planned = RecedingHorizon(five, Oracle(five), Gradient(iterations=6), horizon=8, every=4)
    costs = [run_episodes(five, c, range(2)).mean_cost.mean() for c in (planned, Zero(five), Random(five))]
    assert float(costs[0]) < 0.9 * float(min(costs[1:]))


def test_plans_are_continued_where_they_were_left_and_end_with_the_episode(five):
    planner = Recorded(Gradient(iterations=1), lambda start: start + 0.25)
    controller = RecedingHorizon(five, Oracle(five), planner, horizon=7, every=3)
    seen = run_episodes(five, controller, [0, 1])
    assert [s.shape[1] for s in planner.starts] == [7, 7, 6, 3]
    level = [[float(v) for v in s[0, :, 0]] for s in planner.starts]
    assert level[1] == [0.25] * 4 + [0.0] * 3 and level[2] == [0.5] + [0.25] * 3 + [0.0] * 2
    assert seen.actions[0, :, 0].tolist() == [0.25] * 3 + [0.5] * 3 + [0.75] + [0.5] * 2 + [0.75, 0.5, 0.5]
    again = run_episodes(five, controller, [0, 1])
    assert torch.equal(again.actions, seen.actions)


def test_replanning_with_the_true_linear_model_is_riccati_feedback_over_the_episode():
    """The principle of optimality, and the environment's cost of the end, to round-off."""
    changes = {"actuators.bound": 1e3, "control.steps": 5, "cost.terminal": 3.0}
    env = load_environment("advection_diffusion_control", changes)
    planned = RecedingHorizon(env, Oracle(env), Newton(iterations=3, difference=1e-5), horizon=5)
    best = LinearFeedback(env, riccati(linearise(env), 5))
    seen, expected = (run_episodes(env, c, [0, 1]) for c in (planned, best))
    torch.testing.assert_close(seen.actions, expected.actions, rtol=0, atol=1e-10)
    assert float(expected.actions.abs().max()) > 0.1
    held = run_episodes(env, LinearFeedback(env, lqr(linearise(env))), [0, 1])
    assert bool((held.costs.sum(dim=1) > expected.costs.sum(dim=1)).all())


@pytest.mark.parametrize("rail", [EnergyLimit(1.0), AmplitudeLimit(1.5), RegionLimit(0.1, (0.25, 0.5))])
def test_limits_are_quantities_of_the_field(rail):
    x = torch.arange(64, dtype=torch.float64) * (2 * math.pi / 64)
    field = 1.7 * torch.sin(x)
    expected = {
        "EnergyLimit": 1.7**2 / 2,
        "AmplitudeLimit": 1.7,
        "RegionLimit": float(1.7 * torch.sin(x[16:32]).mean()),
    }[type(rail).__name__]
    assert float(rail.value(field)) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(AttributeError):
        rail.limit = 5.0
    with pytest.raises(DataError, match="expected first < last"):
        RegionLimit(0.1, (0.5, 0.5)).value(field)


def test_a_plan_that_passes_a_limit_is_not_executed_and_the_fallback_is(five):
    """The planner insists on full amplitude in row 0 and on rest in row 1; the limit lies just above rest."""
    now = VectorEnvironment(five).reset([0, 1])
    still = torch.zeros(2, 12, 5, dtype=torch.float64)
    free = five.mean_square(five.rollout(now.state, still))[:, 1:]
    pushed = five.mean_square(five.rollout(now.state, still + 1.0))[:, 1:]
    limit = EnergyLimit(float(free.max()) + 1e-9)
    assert float(pushed[0].max()) > limit.limit

    def insist(start):
        return torch.cat([torch.ones_like(start[:1]), torch.zeros_like(start[1:])])

    class Half(Zero):
        def act(self, situation):
            return super().act(situation) + 1e-3

    controller = RecedingHorizon(
        five, Oracle(five), Recorded(Gradient(1), insist), horizon=12, every=6, guardrails=[limit], fallback=Half(five)
    )
    seen = run_episodes(five, controller, [0, 1])
    assert seen.fallbacks[1] == 0 and seen.fallbacks[0] >= 0.5
    assert bool((seen.actions[0, :6] == 1e-3).all()) and bool((seen.actions[1] == 0).all())
    without = RecedingHorizon(five, Oracle(five), Recorded(Gradient(1), insist), horizon=12, every=6)
    assert bool((run_episodes(five, without, [0, 1]).actions[0] == 1.0).all())


def test_limits_are_never_traded_against_the_task():
    """The task wants a field far above the limit: with it, no executed period passes it."""
    changes = {"control.steps": 10, "cost.action": 0.0}
    changes |= {"cost.target": {"family": "sine_series", "amplitude": 9.0, "terms": 2, "wave_numbers": [1, 2]}}
    env = load_environment("advection_diffusion_control", changes)
    peak = float(env.field(env.start([0, 1])).abs().max())
    limit = AmplitudeLimit(1.02 * peak)
    runs = {}
    for rails in ((), (limit,)):
        controller = RecedingHorizon(env, Oracle(env), Gradient(iterations=15), 5, 5, guardrails=rails)
        runs[bool(rails)] = run_episodes(env, controller, [0, 1])
    assert float(runs[False].fields.abs().max()) > limit.limit
    assert float(runs[True].fields.abs().max()) <= limit.limit * (1 + 1e-6)


def test_an_imagined_field_that_is_not_a_number_is_no_safe_one(five):
    class Lost(Oracle):
        def imagine(self, situation, actions):
            return super().imagine(situation, actions) * math.nan

    now = VectorEnvironment(five).reset([0])
    problem = Imagined(five, Lost(five), now, [EnergyLimit(100.0)])
    assert not bool(problem.keeps_limits(torch.zeros(1, 3, 5, dtype=torch.float64)))
    assert bool(Imagined(five, Oracle(five), now, [EnergyLimit(100.0)]).keeps_limits(torch.zeros(1, 3, 5)))


def errors_of_a_model(episodes, horizon, generator):
    """Errors that grow with the horizon, with heavy tails, of two quantities of different size."""
    steps = torch.randn(episodes, horizon, 2, generator=generator, dtype=torch.float64)
    heavy = steps * (1 + steps.abs()) * torch.tensor([1.0, 30.0], dtype=torch.float64)
    return heavy.cumsum(dim=1)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_promised_frequency_holds_within_binomial_error(level):
    """Over calibrations: P(no quantity passes anywhere on the horizon) is at least the level, and not much above it."""
    generator, kept, trials = torch.Generator().manual_seed(0), 0, 600
    for _ in range(trials):
        error = errors_of_a_model(80, 5, generator)
        margins = calibrate(torch.zeros_like(error[:-1][:78]), error[:78], level)
        kept += int(bool((error[79] <= margins.values).all()))
    assert binom.cdf(kept, trials, level) > 1e-3
    assert binom.sf(kept - 1, trials, min(level + 1 / 40 + 0.02, 0.999)) > 1e-3


def test_margins_of_a_wrong_model_hold_on_new_episodes(five):
    """A model of too strong an instability: uncorrected it is often passed, with margins as seldom as promised."""
    wrong = Oracle(load_environment("ks_control_5", SHORT | {"parameters.antidiffusion": 0.9}))
    rails = [EnergyLimit(100.0), AmplitudeLimit(100.0)]
    controller = RecedingHorizon(five, wrong, Gradient(iterations=1), 6, 3, guardrails=rails)
    margins = calibrate(*rehearse(controller, range(60), at=3), level=0.8)
    imagined, real = rehearse(controller, range(100, 160), at=3)
    passed = (real > imagined).flatten(1).any(dim=1)
    kept = (real <= imagined + margins.values).flatten(1).all(dim=1)
    assert float(passed.double().mean()) > 0.5
    assert binom.cdf(int(kept.sum()), 60, 0.8) > 1e-2
    true = RecedingHorizon(five, Oracle(five), Gradient(iterations=1), 6, 3, guardrails=rails)
    imagined, real = rehearse(true, [0, 1], at=6)
    torch.testing.assert_close(imagined, real, rtol=1e-12, atol=0)
    for given, at in (([], 0), (rails, 2), (rails, 9)):
        with pytest.raises(DataError, match="a multiple of 3 from 0 to 6"):
            rehearse(RecedingHorizon(five, wrong, Gradient(), 6, 3, guardrails=given), [0], at)


def test_margins_need_enough_episodes_and_enough_periods(five):
    error = errors_of_a_model(10, 4, torch.Generator().manual_seed(0))
    assert bool(calibrate(torch.zeros_like(error), error, 0.9).values.isinf().all())  # 5 scores promise 5/6 at most
    margins = calibrate(torch.zeros_like(error), error, 0.8)
    assert bool(margins.values.isfinite().all()) and margins.level == 0.8
    with pytest.raises(ShapeError, match="calibrated for 4 periods, not 12"):
        RecedingHorizon(five, Oracle(five), CEM(), 12, guardrails=[EnergyLimit(1.0)] * 2, margins=margins)
    with pytest.raises(ShapeError, match="margins of 2 guardrails for 1"):
        RecedingHorizon(five, Oracle(five), CEM(), 4, guardrails=[EnergyLimit(1.0)], margins=margins)
    with pytest.raises(DataError, match="between 0 and 1"):
        calibrate(error, error, 1.0)
    with pytest.raises(ShapeError, match="expected both"):
        calibrate(error, error[:, :2], 0.9)


def test_a_margin_makes_the_check_stricter_by_as_much(five):
    now = VectorEnvironment(five).reset([0])
    plan = torch.zeros(1, 3, 5, dtype=torch.float64)
    most = float(five.mean_square(five.rollout(now.state, plan[0][None])[:, 1:]).max())
    limit = EnergyLimit(most + 0.1)
    for margin, safe in ((0.09, True), (0.11, False)):
        margins = Margins(torch.full((3, 1), margin, dtype=torch.float64), 0.9)
        assert bool(Imagined(five, Oracle(five), now, [limit], margins).keeps_limits(plan)) is safe


def test_a_model_of_another_environment_and_numbers_out_of_range_are_told(five):
    other = load_environment("advection_diffusion_control")
    now = VectorEnvironment(five).reset([0])

    class Foreign:
        def imagine(self, situation, actions):
            return torch.zeros(*actions.shape[:3], other.modes)

    with pytest.raises(ShapeError, match="A model belongs to one environment"):
        Imagined(five, Foreign(), now).cost(torch.zeros(1, 2, 3, 5))
    with pytest.raises(DataError, match="1 <= every <= horizon"):
        RecedingHorizon(five, Oracle(five), CEM(), horizon=3, every=4)
    with pytest.raises(ShapeError, match="no seeds"):
        VectorEnvironment(five).reset([])
    with pytest.raises(DataError, match="whole numbers >= 0"):
        VectorEnvironment(five).reset([-1])

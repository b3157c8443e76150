"""Mode 1: a distilled policy does in closed loop what its expert does, and is saved and loaded."""

import pytest
import torch

import pdessl
from pdessl.control import (
    Distilled,
    Gradient,
    LinearFeedback,
    Oracle,
    RecedingHorizon,
    VectorEnvironment,
    Zero,
    distil,
    linearise,
    load_environment,
    lqr,
    run_episodes,
)
from pdessl.errors import DataError, ShapeError
from pdessl.experiments.symmetric_labels import labels_by_symmetry
from pdessl.models import Policy, load


def test_a_policy_costs_what_its_expert_costs_where_nothing_costs_much_more():
    env = load_environment("ks_control_8", {"burn_in": 20.0, "control.steps": 60})
    expert = LinearFeedback(env, lqr(linearise(env)))
    policy = distil(env, expert, range(6), rounds=2, hidden=(64,), steps=400)
    found = [
        float(run_episodes(env, c, range(100, 106)).mean_cost.mean())
        for c in (expert, Distilled(env, policy), Zero(env))
    ]
    assert found[1] < found[0] + 0.15 * (found[2] - found[0])
    twice = [distil(env, expert, range(2), rounds=2, hidden=(8,), steps=10).state_dict() for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*(weights.values() for weights in twice), strict=True))


def test_an_expert_that_plans_is_asked_when_it_plans():
    env = load_environment("ks_control_4", {"burn_in": 1.0, "control.steps": 5})

    class Counted(RecedingHorizon):
        asked = 0

        def act(self, situation):
            chosen = super().act(situation)
            Counted.asked += self.fresh
            return chosen

    kept = []

    def widen(seen, said):
        kept.append((len(seen), len(said)))
        return seen, said

    distil(env, Counted(env, Oracle(env), Gradient(1), 2, 2), [0, 1], rounds=2, hidden=(4,), steps=2, widen=widen)
    assert Counted.asked == 2 * 3
    # Two episodes: all five periods where the expert acted, and three more where the policy did.
    assert kept == [(10, 10), (16, 16)]


def test_labels_are_moved_by_the_symmetries_that_map_actuators_to_actuators():
    """Shifts by L/5 and reflections; of linear feedback, which is equivariant, what is said in the moved states."""
    env = load_environment("ks_control_5", {"burn_in": 5.0, "control.steps": 3})
    expert = LinearFeedback(env, lqr(linearise(env)))
    now = VectorEnvironment(env).reset([0, 1, 2])
    fields, actions = now.observation, expert.feedback(env.coordinates(now.state))
    seen, said = labels_by_symmetry(env)(fields, actions)
    assert seen.shape == (30, 64) and torch.equal(seen[:3], fields) and torch.equal(said[:3], actions)
    again = expert.feedback(env.coordinates(env.state(seen)))
    torch.testing.assert_close(again, said, rtol=1e-6, atol=1e-8)
    assert len({tuple(row.tolist()) for row in said}) == 30
    assert labels_by_symmetry(load_environment("ks_control_5", {"sensors.positions": [1.0]})) is None
    assert labels_by_symmetry(load_environment("burgers_target")) is None
    held = {"cost.target": None, "cost.overlap": 0.0, "cost.state": 1.0, "filters": []}
    assert labels_by_symmetry(load_environment("tracer_ring", held)) is None
    uneven = {"actuators.positions": [0.0, 1.0, 5.0], "initial_condition.terms": 1}
    alone = labels_by_symmetry(load_environment("ks_control_5", uneven))
    assert alone is None


def test_plan_has_a_row_of_the_policy_and_saves_it(tmp_path):
    env = load_environment("ks_control_4", {"burn_in": 1.0, "control.steps": 4})
    found = pdessl.plan(
        env, planner=Gradient(1), episodes=2, horizon=2, every=2, rounds=1, out=tmp_path, announce=str
    )  # fmt: skip
    rows = found.rows()
    assert rows[-1]["title"] == "policy distilled from: Gradient, the solver as model"
    policy = load(tmp_path / "policy")
    replayed = run_episodes(env, Distilled(env, policy), found.episodes[rows[-1]["title"]].seeds)
    assert torch.equal(replayed.costs, found.episodes[rows[-1]["title"]].costs)


def test_what_cannot_be_distilled_is_told():
    env = load_environment("ks_control_4", {"burn_in": 0.0, "control.steps": 2})
    with pytest.raises(DataError, match="at least one round"):
        distil(env, Zero(env), [0], rounds=0)
    aimed = load_environment("burgers_target")
    with pytest.raises(DataError, match="whose target is 0"):
        distil(aimed, Zero(aimed), [0])
    with pytest.raises(ShapeError, match="64 and 4"):
        Distilled(env, Policy(64, 5))

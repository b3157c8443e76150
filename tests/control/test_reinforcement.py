"""Agents of stable-baselines3 as floors: what is said without the package, and, with it, a row of a table."""

import importlib.util
import random
import sys

import numpy as np
import pytest
import torch

import pdessl
from pdessl.control import Reinforced, VectorEnvironment, load_environment, train_agent
from pdessl.errors import CatalogError, DataError, DependencyError

QUICK = {"burn_in": 5.0, "control.steps": 10}
installed = importlib.util.find_spec("stable_baselines3") is not None


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch):
    env = load_environment("ks_control_8", QUICK)
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(DependencyError, match=r"pip install 'pdessl\[rl\]'"):
        train_agent(env)
    with pytest.raises(DependencyError, match=r"pip install 'pdessl\[rl\]'"):
        pdessl.plan(env, agent="sac", episodes=1, announce=str)
    with pytest.raises(CatalogError, match="Did you mean 'sac'"):
        train_agent(env, "sak")
    with pytest.raises(DataError, match="at least one period"):
        train_agent(env, periods=0)


def test_an_agent_acts_in_units_of_the_bound_on_what_gymnasium_shows():
    pytest.importorskip("gymnasium")
    env = load_environment("ks_control_8", QUICK | {"actuators.bound": 0.5})
    asked = []

    class Agent:
        def predict(self, observations, deterministic):
            asked.append((observations, deterministic))
            return np.full((len(observations), 8), [1.0, -2.0] * 4, dtype=np.float32), None

    now = VectorEnvironment(env).reset([0, 1])
    assert torch.equal(Reinforced(env, Agent()).act(now), torch.tensor([[0.5, -0.5] * 4] * 2).double())
    assert asked[0][0].dtype == np.float32 and asked[0][1] is True
    assert np.array_equal(asked[0][0], now.observation.float().numpy())


@pytest.mark.skipif(not installed, reason="the extra rl is not installed")
@pytest.mark.filterwarnings("ignore")  # what the package says about itself
@pytest.mark.parametrize(
    "name, settings", [("sac", {"learning_starts": 8}), ("ppo", {"n_steps": 16, "batch_size": 16})]
)
def test_agents_train_alike_from_a_seed_and_leave_other_draws_as_they_were(name, settings):
    env = load_environment("ks_control_8", QUICK)
    now = VectorEnvironment(env).reset([0, 1])
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), float(torch.rand(()))
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    first, again = (train_agent(env, name, 32, **settings).act(now) for _ in range(2))
    assert (random.random(), np.random.rand(), float(torch.rand(()))) == expected
    assert torch.equal(first, again) and float(first.abs().max()) <= env.bound


@pytest.mark.skipif(not installed, reason="the extra rl is not installed")
@pytest.mark.filterwarnings("ignore")  # what the package says about itself
def test_an_agent_is_a_row():
    env = load_environment("ks_control_8", QUICK)
    found = pdessl.plan(env, "law", planner="lqr", agent="sac", agent_periods=20, episodes=1, announce=str)
    rows = {row["title"]: row for row in found.rows()}
    assert list(rows)[:3] == ["no control", "agent (sac)", "random"]
    assert rows["agent (sac)"]["training_periods"] == 20 and rows["random"]["training_periods"] is None

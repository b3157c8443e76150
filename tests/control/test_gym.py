"""Environments under gymnasium's own checker, one and in a batch; without gymnasium, the message that says so."""

import builtins
import sys
import warnings

import numpy as np
import pytest
import torch

from pdessl.control import VectorEnvironment, load_environment
from pdessl.errors import DataError, DependencyError

try:
    import gymnasium
except ImportError:
    gymnasium = None
needed = pytest.mark.skipif(gymnasium is None, reason="gymnasium is not installed (extra 'control')")
QUICK = {"burn_in": 2.0, "control.steps": 5}


def test_without_gymnasium_one_line_says_how_to_get_it(monkeypatch):
    real = builtins.__import__

    def hidden(name, *rest):
        if name.split(".")[0] == "gymnasium":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", hidden)
    monkeypatch.delitem(sys.modules, "pdessl.control.gym", raising=False)
    with pytest.raises(DependencyError, match=r"pip install 'pdessl\[control\]'"):
        real("pdessl.control.gym")


@needed
def test_gymnasiums_checker_finds_nothing():
    from gymnasium.utils.env_checker import check_env

    from pdessl.control import gym

    assert "pdessl/KuramotoSivashinsky4-v0" in gym.register()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small = {"solver.points": [16, 16], "control.steps": 3}
        for name, changes in (
            ("KuramotoSivashinsky5", {"burn_in": 2.0}),
            ("BurgersTarget", {}),
            ("Kolmogorov", small | {"initial_condition.highest": 5}),
            ("SmokeFans", small),
        ):
            check_env(gymnasium.make(f"pdessl/{name}-v0", overrides=changes).unwrapped, skip_render_check=True)


@needed
def test_flows_on_a_plane_are_stepped_as_a_batch():
    from pdessl.control import gym

    changes = {"solver.points": [16, 16], "control.steps": 2}
    batch = gymnasium.make_vec("pdessl/SmokeFans-v0", num_envs=3, overrides=changes)
    assert isinstance(batch, gym.GymVectorEnvironment)
    seen, _ = batch.reset(seed=4)
    actions = np.random.default_rng(0).uniform(-1, 1, (3, 2)).astype(np.float32)
    after, reward, _, truncated, _ = batch.step(actions)
    world = VectorEnvironment(load_environment("smoke_fans", changes))
    first = world.reset([5])
    now, cost = world.step(torch.from_numpy(actions[1:2]))
    assert seen.shape == (3, 3 * 256) and not truncated.any()
    np.testing.assert_allclose(seen[1], first.observation[0].numpy(), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(after[1], now.observation[0].numpy(), rtol=1e-6, atol=1e-7)
    assert reward[1] == pytest.approx(-float(cost[0]), rel=1e-9)


@needed
def test_a_row_of_the_batch_is_the_episode_alone_and_that_of_the_library():
    from pdessl.control import gym

    actions = np.random.default_rng(0).uniform(-1, 1, (5, 3, 5)).astype(np.float32)
    batch = gymnasium.make_vec("pdessl/KuramotoSivashinsky5-v0", num_envs=3, overrides=QUICK)
    assert isinstance(batch, gym.GymVectorEnvironment)
    one = gymnasium.make("pdessl/KuramotoSivashinsky5-v0", overrides=QUICK)
    seen, _ = batch.reset(seed=4)
    alone, _ = one.reset(seed=5)
    world = VectorEnvironment(load_environment("ks_control_5", QUICK))
    world.reset([5])
    assert np.array_equal(seen[1], alone) and alone in one.observation_space and seen in batch.observation_space
    for step, action in enumerate(actions):
        seen, reward, terminated, truncated, _ = batch.step(action)
        alone, gain, ended, over, _ = one.step(action[1])
        now, cost = world.step(torch.from_numpy(action[1:2]))
        assert np.array_equal(seen[1], alone) and np.array_equal(alone, now.observation[0].float().numpy())
        assert reward[1] == gain == -float(cost[0])
        assert not terminated.any() and not ended and truncated.all() == over == (step == 4)
    with pytest.raises(DataError, match="the episode has ended; reset it"):
        one.unwrapped.step(actions[0, 0])
    first, reward, _, truncated, _ = batch.step(actions[0])  # begins new episodes
    assert not truncated.any() and not reward.any() and not np.array_equal(first, seen)
    batch.reset(seed=[7, None, 4])
    again, _ = batch.reset(seed=[7, 8, 5])
    assert np.array_equal(again[2], one.reset(seed=5)[0])


@needed
def test_episodes_without_a_seed_follow_from_the_last_one():
    env = gymnasium.make("pdessl/AdvectionDiffusion-v0")
    runs = []
    for _ in range(2):
        env.reset(seed=3)
        runs.append([env.reset()[0] for _ in range(2)])
    assert np.array_equal(runs[0], runs[1]) and not np.array_equal(runs[0][0], runs[0][1])

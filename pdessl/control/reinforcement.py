"""Model-free reinforcement learning as a floor: agents of stable-baselines3, trained in an environment."""

# B episodes, M observed values, A actuators

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdessl.control.controlled import ControlledPDE
from pdessl.control.episodes import Situation
from pdessl.errors import CatalogError, DataError, DependencyError, did_you_mean

__all__ = ["ALGORITHMS", "Reinforced", "train_agent"]

#: Algorithms by the words of the command line: names in stable-baselines3.
ALGORITHMS = {"sac": "SAC", "ppo": "PPO"}


class Reinforced:
    """An agent as a controller: its mean action, at once.

    Args:
        environment: what is controlled.
        agent: with ``predict(observations, deterministic)`` in units of the bound, as those of stable-baselines3.
    """

    def __init__(self, environment: ControlledPDE, agent: Any) -> None:
        self.environment, self.agent = environment, agent

    def act(self, situation: Situation) -> Tensor:
        """Return the amplitudes (B, A) of this period."""
        from pdessl.control.gym import observed

        chosen, _ = self.agent.predict(observed(self.environment, situation), deterministic=True)
        found = torch.as_tensor(np.asarray(chosen), dtype=torch.float64, device=self.environment.device)
        return self.environment.bound * found.clamp(-1.0, 1.0)


def train_agent(
    environment: ControlledPDE, algorithm: str = "sac", periods: int = 50_000, seed: int = 0, **settings: Any
) -> Reinforced:
    """Train an agent from rewards alone, minus the cost of each period, and return it as a controller.

    Random states of Python, NumPy and torch, which the library sets, are put back.

    Args:
        environment: what is controlled.
        algorithm: of :data:`ALGORITHMS`: sac (soft actor-critic) or ppo (proximal policy optimisation).
        periods: of the environment, >= 1; the library rounds up to whole roll-outs.
        seed: of agent and episodes, >= 0.
        **settings: of the algorithm, in the names of stable-baselines3; else its defaults.

    Raises:
        CatalogError: no such algorithm.
        DataError: numbers out of range.
        DependencyError: the extra ``rl`` is not installed.

    Source: Haarnoja et al. (2018), arXiv:1801.01290; Schulman et al. (2017), arXiv:1707.06347; Raffin et al. (2021),
        JMLR 22 (stable-baselines3).
    """
    if algorithm not in ALGORITHMS:
        near = did_you_mean(algorithm, ALGORITHMS)
        raise CatalogError(f"no algorithm '{algorithm}'.{near} Algorithms: {', '.join(ALGORITHMS)}.")
    if periods < 1 or seed < 0:
        raise DataError(f"periods {periods}, seed {seed}: expected at least one period and a seed >= 0.")
    try:
        import stable_baselines3
    except ImportError:
        raise DependencyError(
            "agents that learn from rewards need the package 'stable-baselines3': pip install 'pdessl[rl]'"
        ) from None
    from pdessl.control.gym import GymEnvironment

    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            kind = getattr(stable_baselines3, ALGORITHMS[algorithm])
            agent = kind("MlpPolicy", GymEnvironment(environment), seed=seed, device="cpu", **settings)
            agent.learn(total_timesteps=periods)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
    return Reinforced(environment, agent)

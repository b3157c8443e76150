"""Environments for gymnasium: ``gymnasium.make("pdessl/KuramotoSivashinsky4-v0")``, one or a batch.

Importing this module registers every environment of the catalog. Gymnasium is the extra ``control``.
"""

# B episodes, A actuators, M observed values

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from pdessl import catalog
from pdessl.control.controlled import ControlledPDE
from pdessl.control.episodes import Situation, VectorEnvironment
from pdessl.control.loading import load_environment
from pdessl.errors import DependencyError
from pdessl.schema import Overrides

try:
    import gymnasium
    from gymnasium import spaces
    from gymnasium.vector import AutoresetMode
    from gymnasium.vector.utils import batch_space
except ImportError:
    raise DependencyError(
        "environments for gymnasium need the package 'gymnasium': pip install 'pdessl[control]'"
    ) from None

__all__ = ["GymEnvironment", "GymVectorEnvironment", "identifier", "observed", "register"]

EXTREME = 1e3  # what an observation is said to stay within; fields of these equations are of order 1 to 10
SEEDS = 2**31  # seeds of episodes that follow each other without one given are drawn below it


def identifier(name: str) -> str:
    """Return the id of an environment of the catalog: ``ks_control_4`` is ``pdessl/KuramotoSivashinsky4-v0``."""
    words = [word for word in name.split("/")[-1].split("_") if word != "control"]
    long = {"ks": "KuramotoSivashinsky"}
    return "pdessl/" + "".join(long.get(word, word.capitalize()) for word in words) + "-v0"


def _spaces(environment: ControlledPDE) -> tuple[Any, Any]:  # gymnasium's own types do not fit each other
    seen = environment.observed * (2 if environment.targeted else 1)
    return (
        spaces.Box(-EXTREME, EXTREME, (seen,), np.float32),
        spaces.Box(-1.0, 1.0, (environment.actuators,), np.float32),
    )


def observed(environment: ControlledPDE, now: Situation) -> NDArray[np.float32]:
    """Return the observations (B, M) of situations, or (B, 2M) where there are targets, as agents get them."""
    values = now.observation
    if now.target is not None:
        values = torch.cat([values, environment.observe(now.target)], dim=-1)
    return values.detach().to(torch.float32).clamp(-EXTREME, EXTREME).cpu().numpy()


class GymEnvironment(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """One episode at a time: observation (M,), action (A,) in bounds of the amplitudes, reward minus the cost.

    Where there is a target, what the sensors would read of it follows in the observation, (2M,).

    An episode is truncated after its periods and never terminates before. ``reset(seed=s)`` begins the episode of the
    seed s, whatever came before; without a seed, one drawn by the generator that the last seed began.

    Args:
        name: of the catalog, the path of a YAML file, or an environment.
        overrides: other values by dotted key, of a name or a file.
    """

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(self, name: str | os.PathLike[str] | ControlledPDE, overrides: Overrides | None = None) -> None:
        self.environment = name if isinstance(name, ControlledPDE) else load_environment(name, overrides)
        self.observation_space, self.action_space = _spaces(self.environment)
        self.render_mode = None
        self._world = VectorEnvironment(self.environment)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode; return the observation and no infos."""
        super().reset(seed=seed)
        now = self._world.reset([int(self.np_random.integers(SEEDS)) if seed is None else seed])
        return observed(self.environment, now)[0], {}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Hold amplitudes, action times bound, for a period; return observation, reward, False, whether it is over, {}.

        Raises:
            DataError: an action out of bounds, or an episode that is over.
        """
        now, cost = self._world.step(
            torch.as_tensor(np.asarray(action), dtype=torch.float64)[None] * self.environment.bound
        )
        return observed(self.environment, now)[0], -float(cost[0]), False, self._world.done, {}


class GymVectorEnvironment(gymnasium.vector.VectorEnv[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]):
    """Episodes side by side, all of the same length; the step after their end begins new ones (reward 0).

    Args:
        name: of the catalog, or the path of a YAML file.
        num_envs: B, >= 1.
        overrides: other values by dotted key.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, name: str | os.PathLike[str], num_envs: int = 1, overrides: Overrides | None = None) -> None:
        self.environment = load_environment(name, overrides)
        self.num_envs, self.render_mode = num_envs, None
        self.single_observation_space, self.single_action_space = _spaces(self.environment)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._world = VectorEnvironment(self.environment)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode in every place; a number s stands for the seeds s, s + 1, ..., as in gymnasium."""
        first = seed if isinstance(seed, int) or seed is None else next((s for s in seed if s is not None), None)
        super().reset(seed=first)
        given = [None] * self.num_envs if seed is None else seed
        wanted = range(given, given + self.num_envs) if isinstance(given, int) else given
        now = self._world.reset([int(self.np_random.integers(SEEDS)) if s is None else s for s in wanted])
        return observed(self.environment, now), {}

    def step(
        self, actions: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Hold amplitudes, actions (B, A) times bound; return observations, rewards, terminated, truncated, {}."""
        never = np.zeros(self.num_envs, dtype=np.bool_)
        if self._world.done:
            seen, told = self.reset()
            return seen, np.zeros(self.num_envs), never, never.copy(), told
        now, cost = self._world.step(torch.as_tensor(np.asarray(actions), dtype=torch.float64) * self.environment.bound)
        over = np.full(self.num_envs, self._world.done)
        return observed(self.environment, now), -cost.detach().cpu().numpy(), never, over, {}


def register() -> list[str]:
    """Make every environment of the catalog known to gymnasium; return their ids."""
    ids = []
    for name in catalog.names("environments"):
        ids.append(identifier(name))
        if ids[-1] not in gymnasium.registry:
            gymnasium.register(
                ids[-1],
                entry_point=cast(Any, GymEnvironment),
                vector_entry_point=cast(Any, GymVectorEnvironment),
                kwargs={"name": name},
                disable_env_checker=True,
            )
    return ids


register()

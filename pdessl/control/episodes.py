"""Closed loops: a controller sees a situation and sets amplitudes, the solver goes on, costs are counted."""

# B batch of episodes, T control periods, A actuators, M observed values, X grid points, K kept Fourier modes

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pdessl.control.controlled import ControlledPDE
from pdessl.control.environment import Environment
from pdessl.control.linear import Feedback
from pdessl.errors import DataError, ShapeError
from pdessl.solvers import random_stream

__all__ = [
    "Controller",
    "Episodes",
    "LinearFeedback",
    "Random",
    "Situation",
    "VectorEnvironment",
    "Zero",
    "run_episodes",
]

SLACK = 1e-6  # relative; amplitudes in float32 pass their bound by as much


@dataclass(frozen=True, eq=False)
class Situation:
    """What a controller may look at.

    Args:
        observation: what the sensors read, (B, M). All that a learned model gets.
        state: the true states, (B, K); for models that are the solver itself, and for floors.
        target: states to reach, (B, K); None: 0.
        step: control periods that have passed; the episode ends with ``environment.steps``.
        seeds: of the episodes, B numbers.
        before: what the sensors read in the periods before, first to last, each (B, M).
    """

    observation: Tensor
    state: Tensor
    target: Tensor | None
    step: int
    seeds: tuple[int, ...]
    before: tuple[Tensor, ...] = ()

    def last(self, frames: int) -> Tensor:
        """Return the last observations, (B, frames, M), this one at the end; before the first one it is repeated."""
        seen = [*self.before[max(0, len(self.before) - frames + 1) :], self.observation]
        return torch.stack([seen[0]] * (frames - len(seen)) + seen, dim=1)


class VectorEnvironment:
    """Episodes side by side, one per seed; row i is what it would be alone.

    Args:
        environment: what is controlled.
    """

    def __init__(self, environment: ControlledPDE) -> None:
        self.environment = environment
        self._now: Situation | None = None
        self._noise: Tensor | None = None
        self._unseen = torch.zeros(0)

    def reset(self, seeds: Sequence[int]) -> Situation:
        """Begin an episode per seed, each >= 0, and return the first situation."""
        env, seeds = self.environment, tuple(int(s) for s in seeds)
        if not seeds:
            raise ShapeError(f"{env.name}: no seeds; give one per episode.")
        self._noise, self._unseen = env.noise(seeds), env.unseen(seeds)
        self._now = self._situation(env.start(seeds), env.target(seeds), 0, seeds, ())
        return self._now

    def step(self, actions: Tensor) -> tuple[Situation, Tensor]:
        """Hold amplitudes (B, A) for a period; return the situation after it and its cost (B,), the end's included.

        Raises:
            ShapeError: actions of another shape.
            DataError: actions out of bounds or not finite, no episode begun, or one that has ended.
        """
        env, now = self.environment, self._now
        if now is None or now.step >= env.steps:
            raise DataError(
                f"{env.name}: {'no episode has begun' if now is None else 'the episode has ended'}; reset it."
            )
        actions = torch.as_tensor(actions, dtype=torch.float64, device=env.device)
        largest = float(actions.detach().abs().max()) if actions.numel() else 0.0
        if not largest <= env.bound * (1 + SLACK):
            raise DataError(f"{env.name}: an amplitude of {largest:.6g}; expected finite ones within ±{env.bound:g}.")
        actions = actions.clamp(-env.bound, env.bound)
        state = env.step(now.state, torch.cat([actions, self._unseen[:, now.step]], dim=1))
        cost = env.cost(state, actions, now.target)
        if now.step + 1 == env.steps:
            cost = cost + env.terminal_cost(state, now.target)
        before = (*now.before, now.observation)
        self._now = self._situation(state, now.target, now.step + 1, now.seeds, before)
        return self._now, cost

    @property
    def done(self) -> bool:
        """Whether the episodes have ended."""
        return self._now is not None and self._now.step >= self.environment.steps

    def _situation(
        self, state: Tensor, target: Tensor | None, step: int, seeds: tuple[int, ...], before: tuple[Tensor, ...]
    ) -> Situation:
        noise = None if self._noise is None else self._noise[:, step]
        return Situation(self.environment.observe(state, noise), state, target, step, seeds, before)


class Controller(Protocol):
    """Sets amplitudes, one situation at a time; situations of step 0 begin new episodes."""

    def act(self, situation: Situation) -> Tensor:
        """Return amplitudes (B, A) within the bound."""
        ...


class Zero:
    """No control.

    Args:
        environment: what is controlled.
    """

    def __init__(self, environment: ControlledPDE) -> None:
        self.environment = environment

    def act(self, situation: Situation) -> Tensor:
        """Return zeros."""
        return situation.state.real.new_zeros(len(situation.seeds), self.environment.actuators)


class Random:
    """Amplitudes drawn uniformly within the bound, anew in each period; a function of the seed of the episode alone.

    Args:
        environment: what is controlled.
    """

    def __init__(self, environment: ControlledPDE) -> None:
        self.environment = environment
        self._drawn = torch.zeros(0)

    def act(self, situation: Situation) -> Tensor:
        """Return the draws of this period."""
        env = self.environment
        if situation.step == 0 or len(self._drawn) != len(situation.seeds):
            streams = [random_stream(s, "environment", 0, "random amplitudes") for s in situation.seeds]
            drawn = [torch.from_numpy(s.uniform(-env.bound, env.bound, (env.steps, env.actuators))) for s in streams]
            self._drawn = torch.stack(drawn).to(env.device)
        return self._drawn[:, situation.step]


class LinearFeedback:
    """Linear feedback, cut off at the bound: of the true state, or of what a model makes of the observation.

    Args:
        environment: what is controlled.
        feedback: of :func:`pdessl.control.lqr`, or of :func:`pdessl.control.riccati` over the whole episode.
        coordinates: gives (B, D) for a situation, as :meth:`pdessl.control.Linearised.coordinates` of the model that
            the feedback was made for; None: of the true state.
    """

    def __init__(
        self,
        environment: Environment,
        feedback: Feedback,
        coordinates: Callable[[Situation], Tensor] | None = None,
    ) -> None:
        self.environment, self.feedback, self.coordinates = environment, feedback, coordinates

    def act(self, situation: Situation) -> Tensor:
        """Return the amplitudes."""
        env = self.environment
        seen = env.coordinates(situation.state) if self.coordinates is None else self.coordinates(situation)
        return self.feedback(seen, situation.step).clamp(-env.bound, env.bound)


@dataclass(frozen=True, eq=False)
class Episodes:
    """What happened.

    Args:
        seeds: of the episodes, B numbers.
        fields: on the grid, the start included, (B, T + 1, *X), float32.
        actions: amplitudes, (B, T, A), float64.
        costs: of each period, (B, T), float64.
        seconds: spent by the controller, all periods together.
        fallbacks: share of the periods in which a plan was refused and the fallback acted, (B,).
    """

    seeds: tuple[int, ...]
    fields: Tensor
    actions: Tensor
    costs: Tensor
    seconds: float
    fallbacks: Tensor

    @property
    def mean_cost(self) -> Tensor:
        """Mean cost of a period, (B,)."""
        return self.costs.mean(dim=1)

    @property
    def milliseconds(self) -> float:
        """Time of the controller for one action of one episode."""
        return 1e3 * self.seconds / self.costs.numel()


def run_episodes(environment: ControlledPDE, controller: Controller, seeds: Sequence[int]) -> Episodes:
    """Run an episode per seed under a controller, side by side.

    Raises:
        DataError: the controller leaves the bounds.
    """
    world = VectorEnvironment(environment)
    now, spent = world.reset(seeds), 0.0
    fields, actions, costs, refused = [environment.field(now.state)], [], [], []
    with torch.no_grad():
        while not world.done:
            begun = time.perf_counter()
            chosen = controller.act(now)
            spent += time.perf_counter() - begun
            none = torch.zeros(len(now.seeds), dtype=torch.bool, device=environment.device)
            refused.append(getattr(controller, "refused", none))
            now, cost = world.step(chosen)
            fields.append(environment.field(now.state))
            actions.append(chosen)
            costs.append(cost)
    return Episodes(
        now.seeds,
        torch.stack(fields, dim=1).float(),
        torch.stack(actions, dim=1),
        torch.stack(costs, dim=1),
        spent,
        torch.stack(refused, dim=1).double().mean(dim=1),
    )

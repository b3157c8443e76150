"""Planning on two levels: a slow model plans to the end of an episode, a fast one reaches what it asks for next.

The slow model's steps are blocks of s control periods, its actions codes of the amplitudes in a block
(:class:`pdessl.models.Blocks`). Its plan names a sub-goal for the end of each block, a latent of its own; in the fast
model the amplitudes of one block at a time are searched that lead there.
"""

# B batch, N candidates, M blocks, s control periods of a block, H control periods, A actuators, p pieces of a block
# K kept Fourier modes, D width of the slow latent

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from pdessl.control.environment import Environment
from pdessl.control.episodes import Situation
from pdessl.control.planners import Planner
from pdessl.control.receding import Oracle
from pdessl.errors import DataError
from pdessl.models import Blocks

__all__ = ["Levels", "SlowOracle", "TwoLevels"]


class Levels(Protocol):
    """A slow model, and a fast one that knows where in the slow model's latents it arrives."""

    @property
    def blocks(self) -> Blocks:
        """What a step and an action of the slow model are."""
        ...

    def imagine_blocks(self, situation: Situation, codes: Tensor) -> Tensor:
        """Return states (B, N, M, K) after each block under codes (B, N, M, p A)."""
        ...

    def subgoals(self, situation: Situation, codes: Tensor) -> Tensor:
        """Return the slow latents (B, M, D) after each block under codes (B, M, p A)."""
        ...

    def missed(self, situation: Situation, actions: Tensor, goal: Tensor) -> Tensor:
        """Return how far from slow latents (B, D) the fast model ends under amplitudes (B, N, H, A): (B, N), >= 0."""
        ...


class SlowOracle:
    """The solver as both models: the ceiling of planning on two levels with these blocks.

    Sub-goals are the field's real coordinates; what is missed is the mean square of the difference of the fields.

    Args:
        environment: what is controlled.
        blocks: of the slow level.
    """

    def __init__(self, environment: Environment, blocks: Blocks) -> None:
        self.environment, self._blocks, self._solver = environment, blocks, Oracle(environment)

    @property
    def blocks(self) -> Blocks:
        """The blocks."""
        return self._blocks

    def imagine_blocks(self, situation: Situation, codes: Tensor) -> Tensor:
        """Return the states that will be at the ends of blocks."""
        states = self._solver.imagine(situation, self._blocks.amplitudes(codes))
        return states[:, :, self._blocks.stride - 1 :: self._blocks.stride]

    def subgoals(self, situation: Situation, codes: Tensor) -> Tensor:
        """Return the coordinates of these states."""
        return self.environment.coordinates(self.imagine_blocks(situation, codes[:, None])[:, 0])

    def missed(self, situation: Situation, actions: Tensor, goal: Tensor) -> Tensor:
        """Return the mean square of the difference of the fields."""
        end = self.environment.coordinates(self._solver.imagine(situation, actions)[:, :, -1])
        return (end - goal[:, None]).square().sum(dim=-1)


class _Blockwise:
    """What the slow level searches: codes to the end of the episode.

    A state at the end of a block stands for all of its periods; of the last block those within the episode count.
    """

    def __init__(self, environment: Environment, model: Levels, situation: Situation) -> None:
        self.environment, self.model, self.situation = environment, model, situation

    def cost(self, codes: Tensor) -> Tensor:
        """Return the cost (B, N) of a period, on average, under codes (B, N, M, p A)."""
        env, target, stride = self.environment, self.situation.target, self.model.blocks.stride
        left = env.steps - self.situation.step
        states = self.model.imagine_blocks(self.situation, codes)
        inside = [min(stride, left - stride * m) for m in range(codes.shape[2])]
        weights = torch.tensor(inside, dtype=torch.float64, device=codes.device)
        costs = env.cost(states, codes, None if target is None else target[:, None, None])
        end = env.terminal_cost(states[:, :, -1], None if target is None else target[:, None])
        return ((weights * costs).sum(dim=-1) + end) / left


class _Reaching:
    """What the fast level searches: amplitudes that lead to a sub-goal."""

    def __init__(self, model: Levels, situation: Situation, goal: Tensor) -> None:
        self.model, self.situation, self.goal = model, situation, goal

    def cost(self, actions: Tensor) -> Tensor:
        """Return what is missed, (B, N), under amplitudes (B, N, H, A)."""
        return self.model.missed(self.situation, actions, self.goal)


class TwoLevels:
    """Plan blocks to the end of the episode, reach the end of the first one, plan again.

    At the beginning of each block the slow level plans codes for all blocks that are left, from what is left of its
    last plan; the latent after the first one is the sub-goal. Every ``every`` periods the fast level plans the
    amplitudes of what is left of the block, from those of the code on.

    Args:
        environment: what is controlled.
        model: both models.
        planner: of the slow level.
        below: planner of the fast level; default the same.
        every: actions between two plannings of the fast level, 1 to the stride.
        seed: of the planners' draws.

    Attributes:
        evaluations: candidates of both levels since the episode began.
        imagined: steps of the two models in them: the budget.

    Raises:
        DataError: numbers out of range.
    """

    def __init__(
        self,
        environment: Environment,
        model: Levels,
        planner: Planner,
        below: Planner | None = None,
        every: int = 1,
        seed: int = 0,
    ) -> None:
        if not 1 <= every <= model.blocks.stride:
            raise DataError(
                f"every {every} with blocks of {model.blocks.stride} control periods; expected 1 <= every <= stride."
            )
        self.environment, self.model, self.every, self.seed = environment, model, every, seed
        self.planner, self.below = planner, planner if below is None else below
        self.evaluations, self.imagined = 0, 0
        self._codes = self._plan = self._goal = torch.zeros(0)
        self._used = 0
        self._generator = torch.Generator(environment.device)

    @property
    def subgoal(self) -> Tensor:
        """The slow latent (B, D) that is to be reached at the end of this block."""
        return self._goal

    def act(self, situation: Situation) -> Tensor:
        """Return the amplitudes (B, A) of this period; plan where that is due."""
        stride, bound = self.model.blocks.stride, self.environment.bound
        passed = situation.step % stride
        if situation.step == 0:
            self._generator.manual_seed(self.seed)
            self.evaluations, self.imagined, self._codes = 0, 0, torch.zeros(0)
        if not passed or len(self._plan) != len(situation.seeds):
            self._plan_blocks(situation)
        if not passed or self._used == self.every:
            self._reach(situation, stride - passed)
        self._used += 1
        return self._plan[:, self._used - 1].clamp(-bound, bound)

    def _plan_blocks(self, situation: Situation) -> None:
        env, blocks, b = self.environment, self.model.blocks, len(situation.seeds)
        count = -(-(env.steps - situation.step) // blocks.stride)
        begun = len(self._codes) == b and self._codes.shape[1] > count
        start = self._codes[:, 1:] if begun else self._still(b, count, blocks.pieces * env.actuators)
        found = self.planner.plan(_Blockwise(env, self.model, situation), start, env.bound, self._generator)
        self._count(found.evaluations, count)
        self._codes = found.actions
        self._goal = self.model.subgoals(situation, self._codes)[:, 0]
        self._plan, self._used = blocks.amplitudes(self._codes[:, :1]), 0

    def _reach(self, situation: Situation, periods: int) -> None:
        start = self._plan[:, self._used :][:, :periods]
        problem = _Reaching(self.model, situation, self._goal)
        found = self.below.plan(problem, start, self.environment.bound, self._generator)
        self._count(found.evaluations, periods)
        self._plan, self._used = found.actions, 0

    def _count(self, candidates: int, steps: int) -> None:
        self.evaluations += candidates
        self.imagined += candidates * steps

    def _still(self, *shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=torch.float64, device=self.environment.device)

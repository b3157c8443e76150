"""Planning as control: imagine the outcome of amplitudes, search for the best, act on the first few, plan again."""

# B batch, N candidates, H control periods, A actuators, K kept Fourier modes, G guardrails

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from pdessl.control.controlled import ControlledPDE
from pdessl.control.critic import Terminal
from pdessl.control.episodes import Controller, Situation, VectorEnvironment, Zero
from pdessl.control.guardrails import Guardrail, Margins, overrun
from pdessl.control.linear import Linearisation, linearise
from pdessl.control.loading import interval_environment
from pdessl.control.many_futures import CASES, Case, Drawn, ManyFutures, draw_futures
from pdessl.control.planners import Planner
from pdessl.errors import DataError, ShapeError

__all__ = ["Doubted", "Imagined", "Linearised", "Model", "Oracle", "Priced", "RecedingHorizon", "rehearse"]

STRICTNESS = 1e3  # cost of passing a limit by its own size in one period; the check of the plan knows no price


class Model(Protocol):
    """Imagines what amplitudes lead to."""

    def imagine(self, situation: Situation, actions: Tensor) -> Tensor:
        """Return states (B, N, H, K) after each period under candidates (B, N, H, A); differentiable for gradients."""
        ...


@runtime_checkable
class Priced(Protocol):
    """A model that may read the mean of (u - u*)² from what it imagines without making states of it.

    Not asked where guardrails or a terminal are there, or where the cost is not of squares: these read states, and the
    cost is then that of the states.
    """

    def energies(self, situation: Situation, actions: Tensor) -> Tensor | None:
        """Return the mean of (u - u*)² (B, N, H) after each period; None: states are to be measured."""
        ...


@runtime_checkable
class Doubted(Protocol):
    """A model that says how unsure it is, as :class:`pdessl.control.Ensemble`."""

    def doubted(self, situation: Situation, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is imagined, (B, N, H, K), and what being unsure about each period costs, (B, N, H)."""
        ...


@runtime_checkable
class Linearised(Protocol):
    """A model that knows what it is near rest, for linear feedback of its own coordinates."""

    def linearised(self) -> Linearisation:
        """Return the derivative of a control period of the model about rest without control, and the cost."""
        ...

    def coordinates(self, situation: Situation) -> Tensor:
        """Return the coordinates (B, D) of what is observed, 0 at rest."""
        ...


class Oracle:
    """The solver itself as model, from the true state: the ceiling of what planning can reach.

    Args:
        environment: what is controlled.
    """

    def __init__(self, environment: ControlledPDE) -> None:
        self.environment = environment

    @property
    def undetermined(self) -> int:
        """How many numbers the environment's unseen force has in a period; 0 without one."""
        return self.environment.undetermined

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Return numbers of the unseen force, (count, d): their distribution is known, those of an episode are not."""
        shape, device = (count, self.undetermined), self.environment.device
        return torch.randn(shape, generator=generator, dtype=torch.float64, device=device)

    def imagine(self, situation: Situation, actions: Tensor) -> Tensor:
        """Return the states that will be, where there is no unseen force, or under the one that is given behind."""
        b, n, h, a = actions.shape
        start = situation.state[:, None].expand(b, n, -1).reshape(b * n, -1)
        states = self.environment.rollout(start, actions.reshape(b * n, h, a))[:, 1:]
        return states.reshape(b, n, h, -1)

    def linearised(self) -> Linearisation:
        """Return the linearisation of the environment."""
        return linearise(interval_environment(self.environment, "linear feedback is"))

    def coordinates(self, situation: Situation) -> Tensor:
        """Return those of the true state."""
        return interval_environment(self.environment, "linear feedback is").coordinates(situation.state)


class Imagined:
    """Candidates from a situation on, for planners: what the model imagines, priced by the environment's cost.

        cost = 1/H (Σ_t (c_t + doubt_t) + cost of the end, where it is reached, or what a critic says of it)
               + a price for every limit that is passed

    Args:
        environment: its cost counts.
        model: imagines.
        situation: from which plans go on.
        guardrails: limits of every imagined period.
        margins: added to what is imagined, see :func:`pdessl.control.calibrate`.
        terminal: what follows after the plan, see :func:`pdessl.control.learn_critic`.
    """

    def __init__(
        self,
        environment: ControlledPDE,
        model: Model,
        situation: Situation,
        guardrails: Sequence[Guardrail] = (),
        margins: Margins | None = None,
        terminal: Terminal | None = None,
    ) -> None:
        self.environment, self.model, self.situation = environment, model, situation
        self.guardrails, self.margins, self.terminal = tuple(guardrails), margins, terminal

    def cost(self, actions: Tensor) -> Tensor:
        """Return the cost (B, N) of candidates (B, N, H, A)."""
        cost, over = self.limited(actions)
        return cost if over is None else cost + STRICTNESS * over.clamp_min(0.0).sum(dim=-1)

    def limited(self, actions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the cost (B, N) without a price for limits, and how far each is passed, (B, N, H G); None: no limits.

        In limits; negative where there is room.
        """
        env, target = self.environment, self.situation.target
        readable = env.prices_squares and not self.guardrails and self.terminal is None
        if isinstance(self.model, Priced) and readable:
            read = self.model.energies(self.situation, actions)
            if read is not None:
                return self._read(read, actions), None
        states, doubt = self._states(actions)
        along = None if target is None else target[:, None, None]
        total = env.cost(states, actions, along).sum(dim=-1)
        if doubt is not None:
            total = total + doubt.sum(dim=-1)
        left = env.steps - self.situation.step - actions.shape[2]
        if not left:
            total = total + env.terminal_cost(states[:, :, -1], None if target is None else target[:, None])
        elif self.terminal is not None:
            total = total + self.terminal(states[:, :, -1], left)
        return total / actions.shape[2], self._overrun(states).flatten(2) if self.guardrails else None

    def _read(self, energies: Tensor, actions: Tensor) -> Tensor:
        weights = self.environment.file.cost
        total = weights.state * energies.sum(dim=-1) + weights.action * actions.square().mean(dim=-1).sum(dim=-1)
        if self.situation.step + actions.shape[2] == self.environment.steps:
            total = total + weights.terminal * energies[..., -1]
        return total / actions.shape[2]

    def keeps_limits(self, plan: Tensor) -> Tensor:
        """Return whether plans (B, H, A) pass no limit in any imagined period, (B,), bool."""
        if not self.guardrails:
            return torch.ones(len(plan), dtype=torch.bool, device=plan.device)
        return (self._overrun(self._states(plan[:, None])[0])[:, 0] <= 0).flatten(1).all(dim=1)

    def _states(self, actions: Tensor) -> tuple[Tensor, Tensor | None]:
        if isinstance(self.model, Doubted):
            states, doubt = self.model.doubted(self.situation, actions)
        else:
            states, doubt = self.model.imagine(self.situation, actions), None
        if states.shape != (*actions.shape[:3], self.environment.size):
            raise ShapeError(
                f"{self.environment.name}: the model imagined states {tuple(states.shape)} for actions "
                f"{tuple(actions.shape)}; expected {(*actions.shape[:3], self.environment.size)}. A model belongs to "
                "one environment."
            )
        return states, doubt

    def _overrun(self, states: Tensor) -> Tensor:
        return overrun(self.guardrails, self.environment.field(states), self.margins)


class RecedingHorizon:
    """Plan over a horizon, act on the first actions, plan again from what is left of the plan.

    A plan that passes a limit in an imagined period is not executed: until the next planning the fallback acts. The
    horizon ends where the episode does.

    Args:
        environment: what is controlled.
        model: imagines.
        planner: searches.
        horizon: control periods ahead, H, >= 1.
        every: actions between two plannings, 1 to ``horizon``.
        guardrails, margins: see :class:`Imagined`.
        fallback: acts where a plan is refused; default no control.
        seed: of the planner's draws; a run is the same for the same seeds and batch.
        terminal: what follows after a plan, see :func:`pdessl.control.learn_critic`: horizons may be short.
        futures: in how many futures a candidate is imagined, drawn anew at every planning; 0: in the most likely one.
        case: a candidate costs their average or their worst, see :class:`pdessl.control.ManyFutures`.

    Attributes:
        evaluations: candidates since the episode began.
        imagined: steps of the model in them: the budget.

    Raises:
        DataError: numbers out of range, margins without guardrails, futures of a model that leaves nothing open.
        ShapeError: margins for fewer periods or other guardrails.
    """

    def __init__(
        self,
        environment: ControlledPDE,
        model: Model,
        planner: Planner,
        horizon: int,
        every: int = 1,
        guardrails: Sequence[Guardrail] = (),
        margins: Margins | None = None,
        fallback: Controller | None = None,
        seed: int = 0,
        terminal: Terminal | None = None,
        futures: int = 0,
        case: Case = "average",
    ) -> None:
        if not 1 <= every <= horizon:
            raise DataError(f"horizon {horizon} and every {every}: expected 1 <= every <= horizon.")
        if futures < 0 or case not in CASES:
            raise DataError(f"futures {futures} and case '{case}': expected a number >= 0 and {' or '.join(CASES)}.")
        if margins is not None and margins.at(min(horizon, environment.steps)).shape[1] != len(guardrails):
            raise ShapeError(
                f"margins of {margins.values.shape[1]} guardrails for {len(guardrails)}; calibrate with these."
            )
        self.environment, self.model, self.planner = environment, model, planner
        self.horizon, self.every = horizon, every
        self.guardrails, self.margins = tuple(guardrails), margins
        self.fallback = Zero(environment) if fallback is None else fallback
        self.seed, self.terminal, self.futures, self.case = seed, terminal, futures, case
        self.evaluations, self.imagined = 0, 0
        self.refused = torch.zeros(0, dtype=torch.bool)
        self._plan = torch.zeros(0)
        self._used = 0
        self._generator = torch.Generator(environment.device)

    @property
    def fresh(self) -> bool:
        """Whether the last amplitudes are the first ones of a plan."""
        return self._used == 1

    @property
    def planned(self) -> Tensor:
        """The amplitudes of the last planning, (B, H, A), also where they were refused."""
        return self._plan

    def act(self, situation: Situation) -> Tensor:
        """Return the amplitudes (B, A) of this period; plan where that is due."""
        b, env = len(situation.seeds), self.environment
        if situation.step == 0:
            self._generator.manual_seed(self.seed)
            self._plan, self._used, self.evaluations, self.imagined = self._still(b, 0), 0, 0, 0
        if situation.step == 0 or self._used == self.every or len(self._plan) != b:
            self._search(situation)
        chosen = self._plan[:, self._used]
        self._used += 1
        if bool(self.refused.any()):
            chosen = torch.where(self.refused[:, None], self.fallback.act(situation), chosen)
        return chosen.clamp(-env.bound, env.bound)

    def _search(self, situation: Situation) -> None:
        b, env = len(situation.seeds), self.environment
        ahead = min(self.horizon, env.steps - situation.step)
        left = self._plan[:, self._used :] if len(self._plan) == b else self._still(b, 0)
        left = left[:, :ahead]
        start = torch.cat([left, self._still(b, ahead - left.shape[1])], dim=1)
        problem = self._problem(situation, ahead)
        found = self.planner.plan(problem, start, env.bound, self._generator)
        self.evaluations += found.evaluations
        self.imagined += found.evaluations * ahead * max(1, self.futures)
        self._plan, self._used = found.actions, 0
        self.refused = ~problem.keeps_limits(found.actions)

    def _problem(self, situation: Situation, ahead: int) -> Imagined | ManyFutures:
        given = (situation, self.guardrails, self.margins, self.terminal)
        if not self.futures:
            return Imagined(self.environment, self.model, *given)
        numbers = draw_futures(self.model, self.futures, len(situation.seeds), ahead, self._generator)
        return ManyFutures(Imagined(self.environment, Drawn(self.model, numbers), *given), self.futures, self.case)

    def _still(self, batch: int, periods: int) -> Tensor:
        env = self.environment
        return torch.zeros(batch, periods, env.actuators, dtype=torch.float64, device=env.device)


def rehearse(controller: RecedingHorizon, seeds: Sequence[int], at: int = 0) -> tuple[Tensor, Tensor]:
    """Return what a plan's guarded quantities were imagined to be, and what they are when the plan is run to its end.

    Both have shape (B, H, G): one window per episode, as :func:`pdessl.control.calibrate` wants them.

    Args:
        controller: with guardrails; it steers the episodes until the window begins.
        seeds: of the episodes; not those that are measured later.
        at: control periods before the window, a multiple of ``controller.every``, a whole horizon before the end.

    Raises:
        DataError: no guardrails, or a window that does not fit.
    """
    env, rails = controller.environment, controller.guardrails
    if not rails or at < 0 or at % controller.every or at + controller.horizon > env.steps:
        raise DataError(
            f"rehearse: {len(rails)} guardrails and a window from {at} on; expected some guardrails, and a multiple of "
            f"{controller.every} from 0 to {env.steps - controller.horizon}."
        )
    world = VectorEnvironment(env)
    now = world.reset(seeds)
    with torch.no_grad():
        for _ in range(at):
            now, _ = world.step(controller.act(now))
        controller.act(now)
        plan = controller.planned
        imagined = env.field(controller.model.imagine(now, plan[:, None])[:, 0])
        real = env.field(env.rollout(now.state, env.acting(plan, seeds, at))[:, 1:])
    return _measured(rails, imagined), _measured(rails, real)


def _measured(guardrails: Sequence[Guardrail], fields: Tensor) -> Tensor:
    return torch.stack([rail.value(fields) for rail in guardrails], dim=-1)

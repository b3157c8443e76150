"""Search under limits: an augmented Lagrangian, whose inner problems have no limits."""

# B batch, N candidates, H control periods, A actuators, C limits

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Protocol, runtime_checkable

import torch
from torch import Tensor

from pdessl.control.planners import Costed, Gradient, Plan
from pdessl.errors import DataError
from pdessl.schema import Count, Natural, Positive, Range

__all__ = ["AugmentedLagrangian", "Limited"]


@runtime_checkable
class Limited(Protocol):
    """What can be planned with under limits."""

    def limited(self, actions: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the cost (B, N) of candidates (B, N, H, A) and how far each limit is passed, (B, N, C), <= 0 kept."""
        ...


@dataclass(frozen=True)
class AugmentedLagrangian:
    """Multipliers for limits g(a) <= 0, found by turns with the amplitudes.

        L(a) = c(a) + Σ_i (max(0, λ_i + ρ (g_i(a) + s))² - λ_i²)/(2 ρ),    then λ_i <- max(0, λ_i + ρ (g_i + s))

    A price for passing a limit, as :class:`pdessl.control.Imagined` has for other planners, is either so small that
    the limit is passed or so large that gradients see nothing else; multipliers find the price that each limit has. Of
    what was found after each round the cheapest plan that keeps all limits counts, else the one that passes them least.

    Args:
        rounds: of the multipliers.
        iterations: of Adam in each, see :class:`pdessl.control.Gradient`.
        rate: of Adam in the first round.
        cooling: factor on the rate from a round to the next, in (0, 1]: later rounds begin near their end.
        final: factor on the rate at the last iteration of a round.
        penalty: first ρ, in costs of the plan that is started from.
        growth: factor on ρ of a row whose limits are passed by more than a quarter of what they were.
        slack: s, in limits: multipliers approach a limit from both sides.

    Raises:
        DataError: a problem that does not tell its limits.

    Source: Nocedal, Wright (2006), Numerical Optimization, algorithm 17.4.
    """

    rounds: Count = 5
    iterations: Count = 15
    rate: Positive = 0.3
    cooling: Annotated[float, Range(above=0, high=1)] = 0.6
    final: Annotated[float, Range(above=0, high=1)] = 0.2
    penalty: Positive = 10.0
    growth: Annotated[float, Range(1)] = 4.0
    slack: Natural = 1e-3

    def plan(self, problem: Costed, start: Tensor, bound: float, generator: torch.Generator) -> Plan:
        """Search, see :class:`pdessl.control.planners.Planner`."""
        if not isinstance(problem, Limited):
            raise DataError(
                f"{type(problem).__name__} has no limited(actions); an augmented Lagrangian needs the limits "
                "themselves. Use another planner, or a problem as pdessl.control.Imagined."
            )
        now = start.clamp(-bound, bound)
        cost, passed = _measure(problem, now)
        if passed is None:
            return self._inner(0).plan(problem, now, bound, generator)
        best, least, worst = now, cost, passed.amax(dim=1)
        multipliers, evaluations = torch.zeros_like(passed), 1
        weight = self.penalty * torch.where(cost.isfinite(), cost.abs(), torch.ones_like(cost)).clamp_min(1e-12)
        before = (passed + self.slack).clamp_min(0.0).amax(dim=1)
        for turn in range(self.rounds):
            found = self._inner(turn).plan(_Augmented(problem, multipliers, weight, self.slack), now, bound, generator)
            now, evaluations = found.actions, evaluations + found.evaluations + 1
            cost, passed = _measure(problem, now)
            assert passed is not None  # noqa: S101  (as at the start)
            much = passed.amax(dim=1)
            kept, was_kept = much <= 0, worst <= 0
            better = torch.where(kept & was_kept, cost < least, torch.where(kept | was_kept, kept, much < worst))
            best = torch.where(better[:, None, None], now, best)
            least, worst = torch.where(better, cost, least), torch.where(better, much, worst)
            over = (passed + self.slack).nan_to_num(0.0, 0.0, 0.0)
            multipliers = (multipliers + weight[:, None] * over).clamp_min(0.0)
            left = over.clamp_min(0.0).amax(dim=1)
            weight = torch.where(left > before / 4, self.growth * weight, weight)
            before = left
        return Plan(best, least, evaluations)

    def _inner(self, turn: int) -> Gradient:
        return Gradient(self.iterations, self.rate * self.cooling**turn, final=self.final)


def _measure(problem: Limited, plan: Tensor) -> tuple[Tensor, Tensor | None]:
    with torch.no_grad():
        cost, passed = problem.limited(plan[:, None])
    return cost[:, 0], None if passed is None else passed[:, 0]


class _Augmented:
    """L of rows with multipliers (B, C) and weights ρ (B,)."""

    def __init__(self, problem: Limited, multipliers: Tensor, weight: Tensor, slack: float) -> None:
        self.problem, self.multipliers, self.weight, self.slack = problem, multipliers, weight, slack

    def cost(self, actions: Tensor) -> Tensor:
        cost, passed = self.problem.limited(actions)
        assert passed is not None  # noqa: S101  (looked at by whoever calls)
        weight, multipliers = self.weight[:, None], self.multipliers[:, None]
        push = (multipliers + weight[..., None] * (passed + self.slack)).clamp_min(0.0)
        return cost + (push.square() - multipliers.square()).sum(dim=-1) / (2 * weight)

"""Searches over amplitudes: what has ``cost(actions) -> (B, N)`` for candidates (B, N, H, A) can be planned with.

A planner takes such a problem, plans to start from (B, H, A), the bound of the amplitudes and a generator, and returns
a :class:`Plan`. Candidates are within the bound before they are evaluated, and what is returned is the best that was.
Rows of the batch are searched independently, with draws of their own from the common generator.
"""

# B batch, N candidates, H control periods, A actuators

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from torch import Tensor

from pdessl.errors import ShapeError
from pdessl.schema import Count, Natural, Positive, Range, Share

__all__ = ["CEM", "MPPI", "Costed", "Gradient", "Newton", "Plan", "Planner"]

_SATURATED = 0.995  # of the bound: where a squashed start still has a slope


class Costed(Protocol):
    """What can be planned with."""

    def cost(self, actions: Tensor) -> Tensor:
        """Return the cost (B, N) of candidates (B, N, H, A); values that are not finite are never chosen."""
        ...


@dataclass(frozen=True, eq=False)
class Plan:
    """The best candidates of a search.

    Args:
        actions: amplitudes, (B, H, A), within the bound.
        cost: of them, (B,).
        evaluations: how many candidates were evaluated for each row.
    """

    actions: Tensor
    cost: Tensor
    evaluations: int


class Planner(Protocol):
    """A search, see the module."""

    def plan(self, problem: Costed, start: Tensor, bound: float, generator: torch.Generator) -> Plan:
        """Return the best candidates found from plans (B, H, A) on."""
        ...


class _Best:
    """The best candidate of each row so far."""

    def __init__(self, problem: Costed, start: Tensor, bound: float) -> None:
        if start.ndim != 3 or not start.shape[2]:
            raise ShapeError(f"plans to start from have shape {tuple(start.shape)}, expected (B, H, A).")
        self.problem, self.bound, self.evaluations = problem, bound, 0
        self.actions = start.clamp(-bound, bound)
        self.cost = start.new_full((len(start),), math.inf)

    def evaluate(self, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Return candidates (B, N, H, A) within the bound and their cost (B, N), infinite where it is not finite."""
        candidates = candidates.clamp(-self.bound, self.bound)
        cost = self.problem.cost(candidates)
        if cost.shape != candidates.shape[:2]:
            raise ShapeError(
                f"cost(actions) returned {tuple(cost.shape)} for {tuple(candidates.shape)}; expected (B, N)."
            )
        cost = torch.where(cost.isfinite(), cost, torch.full_like(cost, math.inf))
        self.see(candidates.detach(), cost.detach())
        return candidates, cost

    def see(self, candidates: Tensor, cost: Tensor) -> None:
        self.evaluations += candidates.shape[1]
        least, index = cost.min(dim=1)
        better = least < self.cost
        chosen = candidates[torch.arange(len(index), device=index.device), index]
        self.actions = torch.where(better[:, None, None], chosen, self.actions)
        self.cost = torch.where(better, least, self.cost)

    def plan(self) -> Plan:
        return Plan(self.actions, self.cost, self.evaluations)


def _noise(shape: tuple[int, ...], colour: float, like: Tensor, generator: torch.Generator) -> Tensor:
    """Return noise of unit variance, (B, N, H, A), whose power along H falls like frequency^-colour."""
    white = torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)
    if not colour or shape[2] < 2:
        return white
    spectrum = torch.fft.rfft(white, dim=2, norm="ortho")
    frequency = torch.arange(spectrum.shape[2], dtype=like.dtype, device=like.device).clamp_min(1.0)
    scale = frequency ** (-colour / 2)
    copies = torch.full_like(scale, 2.0)  # how many of the H coefficients of the whole transform each stands for
    copies[0] = 1.0
    if shape[2] % 2 == 0:
        copies[-1] = 1.0
    scale = scale / ((copies * scale.square()).sum() / shape[2]).sqrt()
    return torch.fft.irfft(spectrum * scale[:, None], n=shape[2], dim=2, norm="ortho")


@dataclass(frozen=True)
class CEM:
    """Cross-entropy method: a Gaussian over plans is fitted to its best draws, again and again.

    With ``colour``, ``keep`` and ``shrink`` it is iCEM: noise that is smooth in time, elites kept for the next round,
    fewer draws each round. The mean is evaluated in every round.

    Args:
        samples: draws in a round, N.
        elites: best draws the Gaussian is fitted to, at most N.
        rounds: how many.
        momentum: share of the former mean and deviation that stays.
        spread: first standard deviation, in bounds (or in units of the action where it has none).
        colour: exponent of the noise's spectrum along the plan; 0 is white.
        keep: share of the elites that are evaluated again with the next draws.
        shrink: a round has so many times fewer draws than the one before, down to twice the elites.

    Source: de Boer et al. (2005); Pinneri et al. (2020), arXiv:2008.06389 (iCEM).
    """

    samples: Count = 300
    elites: Count = 30
    rounds: Count = 10
    momentum: Annotated[float, Range(0, below=1)] = 0.1
    spread: Positive = 0.5
    colour: Natural = 0.0
    keep: Share = 0.0
    shrink: Annotated[float, Range(1)] = 1.0

    @staticmethod
    def improved(samples: int = 128, elites: int = 16, rounds: int = 6) -> CEM:
        """Return iCEM with the constants of its paper."""
        return CEM(samples, elites, rounds, colour=2.0, keep=0.3, shrink=1.25)

    def plan(self, problem: Costed, start: Tensor, bound: float, generator: torch.Generator) -> Plan:
        """Search, see :class:`Planner`."""
        best = _Best(problem, start, bound)
        mean, deviation = (
            best.actions,
            torch.full_like(best.actions, self.spread * (bound if math.isfinite(bound) else 1)),
        )
        kept = mean[:, None]
        with torch.no_grad():
            for turn in range(self.rounds):
                count = max(round(self.samples / self.shrink**turn), min(2 * self.elites, self.samples))
                drawn = _noise((len(mean), count, *mean.shape[1:]), self.colour, mean, generator)
                drawn = mean[:, None] + deviation[:, None] * drawn
                candidates, cost = best.evaluate(torch.cat([drawn, mean[:, None], kept], dim=1))
                order = cost.argsort(dim=1, stable=True)[:, : min(self.elites, count)]
                elites = candidates.gather(1, order[..., None, None].expand(-1, -1, *mean.shape[1:]))
                fitted = elites.mean(dim=1)
                width = elites.std(dim=1, correction=0)
                mean = self.momentum * mean + (1 - self.momentum) * fitted
                deviation = self.momentum * deviation + (1 - self.momentum) * width
                kept = elites[:, : round(self.keep * elites.shape[1])]
            best.evaluate(mean[:, None])
        return best.plan()


@dataclass(frozen=True)
class MPPI:
    """Model-predictive path integral: the mean of draws, weighted by softmax(-(c - c_min)/(λ std c)).

    The scale of the cost does not matter: λ is in its standard deviations over the draws.

    Args:
        samples: draws in a round, N.
        rounds: how many.
        temperature: λ, > 0.
        spread: standard deviation of the draws, in bounds (or in units of the action where it has none).
        narrowing: factor on the deviation from a round to the next, in (0, 1].
        colour: as in :class:`CEM`.

    Source: Williams et al. (2017), arXiv:1707.02342.
    """

    samples: Count = 300
    rounds: Count = 10
    temperature: Positive = 0.5
    spread: Positive = 0.5
    narrowing: Annotated[float, Range(above=0, high=1)] = 0.8
    colour: Natural = 0.0

    def plan(self, problem: Costed, start: Tensor, bound: float, generator: torch.Generator) -> Plan:
        """Search, see :class:`Planner`."""
        best = _Best(problem, start, bound)
        mean, deviation = best.actions, self.spread * (bound if math.isfinite(bound) else 1.0)
        with torch.no_grad():
            for turn in range(self.rounds):
                drawn = _noise((len(mean), self.samples, *mean.shape[1:]), self.colour, mean, generator)
                drawn = mean[:, None] + deviation * self.narrowing**turn * drawn
                candidates, cost = best.evaluate(torch.cat([drawn, mean[:, None]], dim=1))
                mean = (self.weights(cost)[..., None, None] * candidates).sum(dim=1)
            best.evaluate(mean[:, None])
        return best.plan()

    def weights(self, cost: Tensor) -> Tensor:
        """Return the weights (B, N) of draws with these costs; equal ones where no cost is finite."""
        finite = cost.isfinite()
        count = finite.sum(dim=1, keepdim=True)
        held = torch.where(finite, cost, torch.zeros_like(cost))
        mean = held.sum(dim=1, keepdim=True) / count.clamp_min(1)
        variance = torch.where(finite, (held - mean).square(), torch.zeros_like(held)).sum(dim=1, keepdim=True)
        deviation = (variance / count.clamp_min(1)).sqrt()
        excess = (cost - cost.amin(dim=1, keepdim=True)) / (self.temperature * deviation).clamp_min(1e-300)
        excess = torch.where(count > 0, excess, torch.zeros_like(excess))
        return torch.softmax(-excess, dim=1)


@dataclass(frozen=True)
class Gradient:
    """Adam on amplitudes squashed by bound · tanh, from several starts at once; without a bound, on themselves.

    The cost must be differentiable in the actions. The best iterate counts, not the last.

    Args:
        iterations: of Adam.
        rate: of Adam, in units of the squashed variable.
        starts: how many; the first is the plan given, the others have noise of ``spread`` on it.
        spread: of these starts, in the squashed variable.
        final: factor on the rate at the last iteration, reached by a geometric fall.
    """

    iterations: Count = 15
    rate: Positive = 0.3
    starts: Count = 1
    spread: Positive = 0.5
    final: Annotated[float, Range(above=0, high=1)] = 1.0

    def plan(self, problem: Costed, start: Tensor, bound: float, generator: torch.Generator) -> Plan:
        """Search, see :class:`Planner`."""
        best = _Best(problem, start, bound)
        bounded = math.isfinite(bound)
        inner = torch.atanh((best.actions / bound).clamp(-_SATURATED, _SATURATED)) if bounded else best.actions
        shape = (len(inner), self.starts - 1, *inner.shape[1:])
        moved = torch.randn(shape, generator=generator, dtype=inner.dtype, device=inner.device)
        inner = torch.cat([inner[:, None], inner[:, None] + self.spread * moved], dim=1).requires_grad_()
        adam = torch.optim.Adam([inner], lr=self.rate)
        with torch.enable_grad():
            for turn in range(self.iterations):
                adam.param_groups[0]["lr"] = self.rate * self.final ** (turn / max(self.iterations - 1, 1))
                _, cost = best.evaluate(bound * torch.tanh(inner) if bounded else inner)
                total = torch.where(cost.isfinite(), cost, torch.zeros_like(cost)).sum()
                (slope,) = torch.autograd.grad(total, inner)
                inner.grad = slope.nan_to_num(0.0, 0.0, 0.0)  # a candidate that diverged stays where it is
                adam.step()
        with torch.no_grad():
            best.evaluate(bound * torch.tanh(inner) if bounded else inner)
        return best.plan()


@dataclass(frozen=True)
class Newton:
    """Newton's method on amplitudes, for costs that are nearly quadratic and plans of few numbers.

    The Hessian is made of differences of gradients along every entry of the plan, all in one evaluation of H A + 1
    candidates: exact, to round-off, where the cost is quadratic. Eigenvalues are taken by magnitude, so that a step
    goes down from a saddle too; of steps of several lengths, cut off at the bound, the best is taken.

    Args:
        iterations: how many; of a quadratic the second one removes what round-off left of the first.
        difference: of the gradients, in bounds (or in units of the action where it has none).
        lengths: how many lengths of a step are tried, 1, 1/3, 1/9, ...
    """

    iterations: Count = 4
    difference: Positive = 1e-2
    lengths: Count = 4

    def plan(self, problem: Costed, start: Tensor, bound: float, generator: torch.Generator) -> Plan:
        """Search, see :class:`Planner`; nothing is drawn."""
        best = _Best(problem, start, bound)
        b, size = len(start), start.shape[1] * start.shape[2]
        scale = self.difference * (bound if math.isfinite(bound) else 1.0)
        shares = torch.tensor([3.0**-n for n in range(self.lengths)], dtype=start.dtype, device=start.device)
        for _ in range(self.iterations):
            now = best.actions.reshape(b, 1, size)
            # Towards the middle of the box, so that no candidate is cut off.
            away = torch.where(now > 0, -scale, scale).expand(b, size, size)
            moves = away * torch.eye(size, dtype=start.dtype, device=start.device)
            with torch.enable_grad():
                around = torch.cat([now, now + moves], dim=1).reshape(b, size + 1, *start.shape[1:]).requires_grad_()
                _, cost = best.evaluate(around)
                total = torch.where(cost.isfinite(), cost, torch.zeros_like(cost)).sum()
                (slopes,) = torch.autograd.grad(total, around)
            slopes = slopes.reshape(b, size + 1, size).nan_to_num(0.0, 0.0, 0.0)
            hessian = (slopes[:, 1:] - slopes[:, :1]) / away[:, :1].transpose(1, 2)
            values, vectors = torch.linalg.eigh(0.5 * (hessian + hessian.transpose(1, 2)))
            least = 1e-12 * values.abs().amax(dim=1, keepdim=True) + 1e-300
            along = (vectors.transpose(1, 2) @ slopes[:, 0, :, None])[..., 0] / torch.maximum(values.abs(), least)
            step = (vectors @ along[..., None])[..., 0]
            tried = now - shares[:, None] * step[:, None]
            with torch.no_grad():
                best.evaluate(tried.reshape(b, self.lengths, *start.shape[1:]))
        return best.plan()

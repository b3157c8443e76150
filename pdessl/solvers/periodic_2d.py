"""Simulators on doubly periodic rectangles: Fourier modes in space, exponential Runge-Kutta in time."""

# B batch, C channels of the state, M prognostic variables, X Y grid points, K J kept modes, T output times

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Unpack

import torch
from torch import Tensor

from pdessl.errors import DataError, did_you_mean
from pdessl.solvers.pseudo_spectral import ETDRK4, tracked
from pdessl.solvers.simulator import Leg, Simulator, Solution, SolverSettings
from pdessl.solvers.spectral_2d import SpectralGrid, as_complex, as_real, real_scheme

__all__ = ["Drift", "Periodic2D", "Rate"]

#: Gives the nonlinear part of the rate of change of modes (B, M, K, J) at times (B,).
Rate = Callable[[Tensor, Tensor], Tensor]

CACHE_VALUES = 2**17  # grid values of all fields advanced together on a CPU: they stay in its cache


@dataclass(frozen=True, eq=False)
class Drift:
    """Uniform motion U(t) = U₀ exp(-μ t) of the frame in which the equation is solved.

    Args:
        velocity: U₀, shape (B, 2), length/time.
        decay: μ >= 0, shape (B,), 1/time.
    """

    velocity: Tensor
    decay: Tensor

    def speed(self, time: Tensor) -> Tensor:
        """Return U at times (B,), shape (B, 2)."""
        return self.velocity * torch.exp(-self.decay * time)[:, None]

    def displacement(self, time: Tensor) -> Tensor:
        """Return the integral of U up to times (B,), shape (B, 2)."""
        x = self.decay * time
        safe = torch.where(x == 0, torch.ones_like(x), x)
        mean = torch.where(x == 0, torch.ones_like(x), -torch.expm1(-safe) / safe)
        return self.velocity * (mean * time)[:, None]


class Periodic2D(Simulator):
    """Semi-linear system on a periodic rectangle, v_t = L v + N(v) + source, L real and diagonal in Fourier space.

    An equation supplies L, N, the variables it steps and what can be observed; stepping (ETDRK4, with L integrated
    exactly), dealiasing, batching, drifting frames, output and checks are done here. A uniform mean flow is exact: the
    system is solved in the frame that moves with it, whatever the step.

    Class attributes besides those of :class:`pdessl.solvers.Simulator`: ``output_names``, all fields that can be
    returned (default: those of the state); ``degree`` of N, which decides how many modes are kept.

    Args:
        parameters, domain_length, points, settings: see :class:`pdessl.solvers.Simulator`.
        outputs: names of the returned fields, in this order; default ``field_names`` of the class.
    """

    dimensions = 2
    degree: ClassVar[int] = 2
    output_names: ClassVar[tuple[str, ...] | None] = None
    # Measured on grids as coarse as they may be, 150 to 500 steps: errors below 1e-3 at 4 times the advisable step,
    # overflow from 6 to 8 times on.
    largest_courant = 3.0

    def __init__(
        self,
        parameters: Mapping[str, float | Tensor],
        domain_length: float | Tensor,
        points: int | Sequence[int],
        outputs: Sequence[str] | None,
        **settings: Unpack[SolverSettings],
    ) -> None:
        super().__init__(parameters, domain_length, points, **settings)
        if self.state_names is None:  # an instance may return less than its state
            self.state_names = type(self).field_names
        if outputs is not None:
            known = self.output_names or self.state_names
            for name in outputs:
                if name not in known:
                    raise DataError(
                        f"{self._name}: no output '{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}."
                    )
            if not outputs or len(set(outputs)) != len(outputs):
                raise DataError(f"{self._name}: outputs must be distinct names, found {list(outputs)}.")
            self.field_names = tuple(outputs)

    # ------------------------------------------------------------- what an equation supplies

    @abstractmethod
    def symbol(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return L, the same for k_x and -k_x, shape (B, M, K, J), for parameters of shape (B, 1, 1, 1)."""

    def rate(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Rate | None:
        """Return the function that computes N; None when the equation is linear."""
        return None

    def steady_source(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Tensor | None:
        """Return the modes of a source that does not depend on time, shape (B, C, K, J); None without one."""
        return None

    def encode(self, grid: SpectralGrid, state: Tensor) -> Tensor:
        """Return the modes of the prognostic variables (B, M, K, J) of those of a state (B, C, K, J); linear."""
        return state

    def drift(self, state: Tensor, parameters: Mapping[str, Tensor]) -> Drift | None:
        """Return the motion of the frame for the modes of an initial state (B, C, K, J); None when it rests."""
        return None

    def observe(
        self,
        grid: SpectralGrid,
        modes: Tensor,
        parameters: Mapping[str, Tensor],
        speed: Tensor | None,
        source: Tensor | None,
    ) -> Tensor:
        """Return the modes of the fields named by ``field_names``, shape (B, F, K, J); default prognostic variables.

        Args:
            grid: the modes' grid.
            modes: prognostic variables, shape (B, M, K, J).
            parameters: each of shape (B, 1, 1, 1).
            speed: velocity of the frame, shape (B, 2), or None.
            source: modes of the forcing at this time, shape (B, C, K, J), in the frame; or None.
        """
        return modes[:, [type(self).field_names.index(name) for name in self.field_names]]

    # ------------------------------------------------------------------------------ solving

    def solve(
        self,
        initial: Tensor,
        times: Tensor,
        observed: int | Sequence[int] | None = None,
        sampling: str = "points",
    ) -> Solution:
        """Integrate and observe; see :meth:`pdessl.solvers.Simulator.solve`."""
        nodes = self._observed(observed, sampling)
        given = initial
        initial, times = self._checked(initial, times)
        legs = self.legs(given, times)
        rows = len(initial)
        if initial.device.type == "cpu" and self.forcing is None:
            rows = max(1, CACHE_VALUES // (initial.shape[1] * math.prod(self.points)))
        parts, tails = [], []
        for start in range(0, len(initial), rows):
            piece = slice(start, start + rows)
            frames, tail = self._run(initial, piece, legs, nodes, sampling)
            parts.append(frames)
            tails.append(tail)
        return Solution(self.trajectories(torch.cat(parts), times, given), torch.cat(tails))

    def _run(
        self, initial: Tensor, rows: slice, legs: Sequence[Leg], nodes: tuple[int, ...], sampling: str
    ) -> tuple[Tensor, Tensor]:
        """Return the fields (B, F, T, *nodes) of some trajectories and their spectral tails (B,)."""
        lengths = self.lengths(initial)[rows]
        exact = SpectralGrid.build(lengths, self.points, self.degree)
        columns = {n: self.parameter(n, initial)[rows, None, None, None] for n in self.parameters}
        symbol = self.symbol(exact, columns)
        grid = SpectralGrid(exact.points, exact.kx.to(self.precision), exact.ky.to(self.precision))
        parameters = {n: c.to(self.precision) for n, c in columns.items()}
        state = grid.to_modes(initial[rows])
        drift = self.drift(state.to(torch.complex128), columns)
        if drift is not None and not bool(drift.velocity.detach().any()) and not drift.velocity.requires_grad:
            drift = None
        legs = [dataclasses.replace(leg, start=leg.start[rows], step=leg.step[rows]) for leg in legs]
        frames = []
        outer = largest = torch.zeros((), dtype=self.precision, device=initial.device)
        for modes, time, source in self._march(exact, grid, self.encode(grid, state), symbol, parameters, drift, legs):
            speed = None if drift is None else drift.speed(time).to(self.precision)
            fields = self.observe(grid, modes, parameters, speed, source)
            if drift is not None:
                fields = fields * exact.shift(drift.displacement(time)).to(fields.dtype)
            frames.append(grid.sample(fields, nodes, sampling))
            tail, top = grid.tail(modes)
            outer, largest = torch.maximum(outer, tail), torch.maximum(largest, top)
        ratio = torch.where(largest == 0, torch.zeros_like(outer), outer / largest).amax(dim=1)
        return torch.stack(frames, dim=2), ratio.to(torch.float64)

    def _march(
        self,
        exact: SpectralGrid,
        grid: SpectralGrid,
        modes: Tensor,
        symbol: Tensor,
        parameters: Mapping[str, Tensor],
        drift: Drift | None,
        legs: Sequence[Leg],
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Yield modes (B, M, K, J), time (B,) and modes of the forcing (B, C, K, J) at every output."""
        nonlinear = self.rate(grid, parameters)

        steady = self.steady_source(grid, parameters)
        constant = None if steady is None or drift is not None else self.encode(grid, steady)

        def source(leg: Leg, time: Tensor) -> Tensor | None:
            values = self.source(leg, time)
            values = _sum(steady, None if values is None else grid.to_modes(values))
            if values is None or drift is None:
                return values
            return values * exact.shift(-drift.displacement(time)).to(values.dtype)

        def rate(v: Tensor, leg: Leg, time: Tensor) -> Tensor:
            found = None if nonlinear is None else nonlinear(as_complex(v), time)
            if constant is not None and self.forcing is None:
                found = _sum(found, constant)
            else:
                added = source(leg, time)
                found = _sum(found, None if added is None else self.encode(grid, added))
            assert found is not None  # noqa: S101  (called where there is a rate or a source)
            return as_real(found)

        def rate_at(v: Tensor, step: float, leg: Leg, now: Tensor) -> Tensor:
            return rate(v, leg, now + step * leg.step)

        exact_steps = nonlinear is None and steady is None and self.forcing is None
        differentiable = tracked(modes, symbol, *parameters.values()) or (
            self.forcing is not None and torch.is_grad_enabled()
        )
        # In place, what is yielded is overwritten by the next step.
        v = as_real(modes.clone())
        memory = [] if differentiable or exact_steps else [torch.empty_like(v) for _ in range(3)]
        scheme: ETDRK4 | None = None
        for leg in legs:
            if leg.steps and exact_steps:
                decay = torch.exp(symbol * (leg.step * leg.steps)[:, None, None, None])
                v = v * decay.to(v.dtype).repeat_interleave(2, dim=-1)
            elif leg.steps:
                if scheme is None or leg.renewed:
                    scheme = real_scheme(symbol, leg.step, self.precision)
                for number in range(leg.steps):
                    now = leg.start + number * leg.step
                    if differentiable:
                        v = scheme.advance(v, partial(rate_at, leg=leg, now=now))
                    else:
                        scheme.advance_in_place(v, partial(rate_at, v, leg=leg, now=now), memory)
            if leg.observed:
                end = leg.start + leg.steps * leg.step
                yield as_complex(v), end, source(leg, end)


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second

"""One field on a periodic interval: what Burgers, KdV, Kuramoto-Sivashinsky and the linear equations share."""

# B batch, C channels, X grid points, K kept Fourier modes, T output times

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from pdessl.solvers.forcing import TimeVarying
from pdessl.solvers.groups import in_groups
from pdessl.solvers.pseudo_spectral import (
    integrate,
    kept_modes,
    sample,
    tail_and_peak,
    tail_ratio,
    to_modes,
    tracked,
    wave_numbers,
)
from pdessl.solvers.simulator import Leg, Simulator, Solution

__all__ = ["PeriodicSimulator"]


class PeriodicSimulator(Simulator):
    """Semi-linear equation for one field on a periodic interval, u_t = L u - a ∂x(u²/2) + f(t, x).

    An equation supplies the symbol of L, the steepening a and how fine a grid it needs. Pseudo-spectral in space; in
    time ETDRK4, which integrates the linear part exactly (an equation with neither steepening nor forcing is solved
    exactly). Modes above X/3 are removed: u² then has no aliasing error in any of the modes kept. Padding to 3/2 is the
    same arithmetic with another name: X points here are 2X/3 points there.

    Shapes:
        initial field (B, 1, X) -> trajectories (B, 1, T, X); forcing (B, X).

    Arguments as in :class:`Simulator`.
    """

    @abstractmethod
    def linear(self, k: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return the symbol of L for wave numbers (B, K) and parameters (B, 1), complex or real."""

    def steepening(self, parameters: Mapping[str, Tensor]) -> Tensor | None:
        """Return a for parameters (B, 1), shape (B, 1); None when the equation is linear."""
        return None

    def step_needed(self, initial: Tensor, courant: float = 1.0) -> Tensor:
        """Return courant * dx / max|u|: the nonlinear term limits the step, the linear one is solved exactly."""
        largest = initial.detach().abs().amax(dim=(1, 2)).to(torch.float64)
        return courant * self.spacing(initial)[:, 0].detach() / largest.clamp_min(1e-12)

    def solve(
        self,
        initial: Tensor,
        times: Tensor,
        observed: int | Sequence[int] | None = None,
        sampling: str = "points",
    ) -> Solution:
        """Integrate and observe; see :meth:`Simulator.solve`."""
        (nodes,) = self._observed(observed, sampling)
        start, times = self._checked(initial, times)
        points = self.points[0]
        columns = {n: self.parameter(n, initial)[:, None] for n in self.parameters}
        length, steepening = self.lengths(initial)[:, 0], self.steepening(columns)
        linear = self.linear(wave_numbers(length, kept_modes(points)), columns)
        steepening = None if steepening is None else steepening[:, 0]
        modes, legs = to_modes(start[:, 0]), self.legs(initial, times)

        def run(rows: slice) -> tuple[Tensor, Tensor]:
            some = [dataclasses.replace(g, start=g.start[rows], step=g.step[rows]) for g in legs]
            spectra = integrate(
                modes[rows],
                linear[rows],
                some,
                points,
                None if steepening is None else steepening[rows],
                length[rows],
                None if self.forcing is None else self._source_modes(),
            )
            frames, amplitudes = [], []
            for spectrum in spectra:
                frames.append(sample(spectrum, points, nodes, sampling).to(self.dtype))
                amplitudes.append(tail_and_peak(spectrum))
            return torch.stack(frames, dim=1), torch.stack(amplitudes).amax(dim=0)

        # A forcing answers for the whole batch, a graph is built in one thread.
        whole = self.forcing is not None or tracked(modes, linear, steepening)
        parts = [run(slice(None))] if whole else in_groups(run, len(start), initial.device)
        fields, amplitudes = (torch.cat(p) if len(p) > 1 else p[0] for p in zip(*parts, strict=True))
        return Solution(self.trajectories(fields[:, None], times, initial), tail_ratio(amplitudes))

    def _source_modes(self) -> Callable[[Leg, Tensor], Tensor]:
        held: dict[Leg, Tensor] = {}

        def modes(leg: Leg, time: Tensor) -> Tensor:
            if leg in held:
                return held[leg]
            found = to_modes(self.source(leg, time)[:, 0])
            if isinstance(self.forcing, TimeVarying) and self.forcing.held:
                held.clear()
                held[leg] = found
            return found

        return modes

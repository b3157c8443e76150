"""One field on a periodic interval: what Burgers, KdV, Kuramoto-Sivashinsky and the linear equations share."""

# B batch, C channels, X grid points, K kept Fourier modes, T output times

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pdessl.solvers.pseudo_spectral import integrate, kept_modes, sample, spectral_tail, to_modes, wave_numbers
from pdessl.solvers.simulator import Simulator, Solution

__all__ = ["PeriodicSimulator"]


class PeriodicSimulator(Simulator):
    """Semi-linear equation for one field on a periodic interval, u_t = L u - ∂x flux(u) + f(t, x).

    An equation supplies the symbol of L, its flux and how fine a grid it needs. Pseudo-spectral in space; in time
    ETDRK4, which integrates the linear part exactly (an equation without flux and forcing is solved exactly). Modes
    above X/3 are removed: with that 2/3 of the modes the product of two fields has no aliasing error in any of the
    modes kept (padding to 3/2 computes the same thing, on the same grid for the same kept modes).

    Shapes:
        initial field (B, 1, X) -> trajectories (B, 1, T, X); forcing (B, X).

    Arguments as in :class:`Simulator`.
    """

    @abstractmethod
    def linear(self, k: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return the symbol of L for wave numbers (B, K) and parameters (B, 1), complex or real."""

    def flux(self, u: Tensor, parameters: Mapping[str, Tensor]) -> Tensor | None:
        """Return the flux of fields (B, X) with parameters (B, 1); None when the equation is linear."""
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
        length = self.lengths(initial)[:, 0]
        linear = self.linear(wave_numbers(length, kept_modes(points)), columns)
        columns = {n: c.to(self.precision) for n, c in columns.items()}
        is_linear = self.flux(start[:1, 0], {n: c[:1] for n, c in columns.items()}) is None
        spectrum = integrate(
            to_modes(start[:, 0]),
            linear,
            self.legs(initial, times),
            points,
            None if is_linear else lambda u: self.flux(u, columns),
            length,
            None if self.forcing is None else lambda leg, time: self.source(leg, time)[:, 0],
        )
        fields = sample(spectrum, points, nodes, sampling)[:, None]
        return Solution(self.trajectories(fields, times, initial), spectral_tail(spectrum))

"""Kuramoto-Sivashinsky equation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pdessl.solvers.simulator import PeriodicSimulator

__all__ = ["KuramotoSivashinsky"]

# On the attractor of a = b = h = 1 the field stays within ±3.5.
AMPLITUDE = 3.5


class KuramotoSivashinsky(PeriodicSimulator):
    """Kuramoto-Sivashinsky equation on a periodic interval, the form with a velocity.

        u_t + a u u_x + b u_xx + h u_xxxx = f(t, x),        x in [0, L), periodic

    Waves longer than 2π√(h/b) grow, shorter ones decay, and the nonlinear term carries energy from one to the other:
    space-time chaos for L above about 20 √(h/b). The unit of time of the dynamics is h/b², of u it is √(b³/h)/a. The
    mean of u is conserved without forcing. Nearby trajectories separate like exp(0.1 t b²/h), so no solver reproduces
    single trajectories for long; statistics are reproduced.

    Args:
        steepening: a, not 0; a number or shape (B,). Default 1.
        antidiffusion: b, > 0, length²/time; a number or shape (B,). Default 1.
        hyperviscosity: h, > 0, length⁴/time; a number or shape (B,). Default 1.
        domain_length: L, > 0, length; a number or shape (B,). Default 64.
        points: grid points, even, >= 8.
        time_step: longest inner step, time. Default dx over the larger of max|a u| initially and on the attractor.
        substeps, check_resolution, forcing, dtype: as in :class:`pdessl.solvers.Burgers`.

    Shapes:
        initial field (B, 1, X) -> trajectories (B, 1, T, X).

    Fails when:
        the grid does not hold k = 5 √(b/h). Largest amplitude near the grid scale relative to the peak, L = 64: 5e-3
        on 96 points, 2e-4 on 128, 5e-7 on 192 (153 are asked for). With the default step the error grows to 1e-4 in t
        = 5.

    Good values: domain_length 64, points 256, output every 0.2 from t = 70 on (on the attractor).

    Raises:
        DataError: b or h <= 0, a = 0, or values that are not finite.
        ResolutionError: odd points, a step <= 0, or a grid too coarse; the message states the points needed.

    Source: Kassam, Trefethen (2005).
    """

    equation = "kuramoto_sivashinsky_coefficients"
    parameter_names = ("steepening", "antidiffusion", "hyperviscosity")

    def __init__(
        self,
        steepening: float | Tensor = 1.0,
        antidiffusion: float | Tensor = 1.0,
        hyperviscosity: float | Tensor = 1.0,
        domain_length: float | Tensor = 64.0,
        points: int = 256,
        time_step: float | None = None,
        substeps: int | None = None,
        check_resolution: bool = True,
        forcing: Callable[[Tensor], Tensor] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        parameters = {"steepening": steepening, "antidiffusion": antidiffusion, "hyperviscosity": hyperviscosity}
        super().__init__(parameters, domain_length, points, time_step, substeps, check_resolution, forcing, dtype)
        self._require_positive("|steepening|", self.parameters["steepening"].abs())
        for name in ("antidiffusion", "hyperviscosity"):
            self._require_positive(name, self.parameters[name])

    def linear(self, k: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return b k² - h k⁴."""
        return parameters["antidiffusion"] * k**2 - parameters["hyperviscosity"] * k**4

    def flux(self, u: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return a u²/2."""
        return 0.5 * parameters["steepening"] * u * u

    def points_needed(self, initial: Tensor) -> Tensor:
        """Return the points that keep wave numbers up to 5 √(b/h)."""
        b = self._per_trajectory(self.parameters["antidiffusion"], initial).detach()
        h = self._per_trajectory(self.parameters["hyperviscosity"], initial).detach()
        length = self._per_trajectory(self.domain_length, initial)
        return (3 * length / (2 * math.pi) * 5 * (b / h).sqrt()).clamp_min(8.0)

    def step_needed(self, initial: Tensor, courant: float = 1.0) -> Tensor:
        """Return courant * dx / max|a u|, with u at least as large as on the attractor."""
        a, b, h = (self._per_trajectory(self.parameters[n], initial).detach() for n in self.parameter_names)
        length = self._per_trajectory(self.domain_length, initial)
        initially = a.abs() * initial.detach().abs().amax(dim=(1, 2)).to(torch.float64)
        return courant * length / self.points / torch.maximum(initially, AMPLITUDE * (b**3 / h).sqrt())

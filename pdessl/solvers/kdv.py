"""Korteweg-de Vries equation, with and without viscosity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor

from pdessl.solvers.periodic import PeriodicSimulator
from pdessl.solvers.simulator import SolverSettings

__all__ = ["DECAY", "KdV", "KdVBurgers", "jump"]

# The spectrum of sech²(κx) falls like exp(-πk / 2κ): 1e-5 of the peak is reached at k = 9κ.
DECAY = 9.0


def jump(initial: Tensor) -> Tensor:
    """Return the range of initial fields (B, 1, X), (B,), float64."""
    return (initial.amax(dim=(1, 2)) - initial.amin(dim=(1, 2))).detach().to(torch.float64)


class KdV(PeriodicSimulator):
    """Korteweg-de Vries equation on a periodic interval.

        u_t + a u u_x + d u_xxx = f(t, x),        x in [0, L), periodic

    Without the forcing f the integrals of u, u² and d u_x² - a u³/3 are conserved. Humps break up into solitons
    (3c/a) sech²(κ (x - ct)), κ = √(c/d)/2, which pass through each other. Pseudo-spectral in space with 2/3
    dealiasing, ETDRK4 with complex coefficients in time: the dispersion is integrated exactly.

    Args:
        steepening: a, 1 (u in the unit of a velocity) unless given; a number or shape (B,).
        dispersion: d, length³/time, not 0; a number or shape (B,). Default 1.
        **settings: as in :class:`pdessl.solvers.Simulator`, as is the meaning of ``domain_length`` and ``points``.

    Fails when:
        a soliton is narrower than the grid. Error of a soliton with c = 1 on L = 40 after t = 10 relative to its
        height, steps of 0.01: 3e-4 on 64 points, 3e-6 on 96, 3e-8 on 128 (86 are asked for).

    Good values: domain_length 128, points 256 to 512, dispersion 1, amplitude 1, durations up to 100.

    Raises:
        ResolutionError: a grid too coarse; the message states the points needed.

    Source: Kassam, Trefethen (2005) for the scheme; the soliton solutions are textbook.
    """

    equation = "kdv_coefficients"
    parameter_names = ("steepening", "dispersion")
    nonzero = ("dispersion",)

    def __init__(
        self,
        steepening: float | Tensor = 1.0,
        dispersion: float | Tensor = 1.0,
        domain_length: float | Tensor = 128.0,
        points: int = 512,
        **settings: Unpack[SolverSettings],
    ) -> None:
        super().__init__({"steepening": steepening, "dispersion": dispersion}, domain_length, points, **settings)

    def linear(self, k: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return i d k³."""
        return 1j * parameters["dispersion"] * k**3

    def steepening(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return a."""
        return parameters["steepening"]

    def points_needed(self, initial: Tensor) -> Tensor:
        """Return the points that hold k = 9κ of a soliton as high as the range of the initial field."""
        steepening = self.parameter("steepening", initial).detach().abs()
        dispersion = self.parameter("dispersion", initial).detach().abs()
        length = self.lengths(initial)[:, 0].detach()
        kappa = (steepening * jump(initial) / (12 * dispersion)).sqrt()
        return (3 * length / (2 * math.pi) * DECAY * kappa).clamp_min(8.0)

    def step_needed(self, initial: Tensor, courant: float = 1.0) -> Tensor:
        """Return courant * dx / (2 a max|u|): phases add up over many passages, so steps are half those of Burgers."""
        steepening = self.parameter("steepening", initial).detach().abs()
        return super().step_needed(initial, courant) / (2 * steepening.clamp_min(1e-12))


class KdVBurgers(PeriodicSimulator):
    """Korteweg-de Vries-Burgers equation on a periodic interval.

        u_t + u u_x + d u_xxx = ν u_xx + f(t, x),        x in [0, L), periodic

    Between Burgers (d = 0: fronts of width 4ν/Δu) and KdV (ν = 0: solitons): fronts with a train of waves behind them
    where |d| Δu is larger than ν². The mean of u is conserved without forcing.

    Args:
        viscosity: ν, > 0, length²/time; a number or shape (B,).
        dispersion: d, length³/time, any sign; a number or shape (B,).
        **settings: as in :class:`pdessl.solvers.Simulator`, as is the meaning of ``domain_length`` and ``points``.

    Good values: domain_length 2π, viscosity 0.02 to 0.1, dispersion 1e-4 to 1e-2, amplitude 1.

    Raises:
        ResolutionError: a grid too coarse; the message states the points needed.
    """

    equation = "kdv_burgers"
    parameter_names = ("viscosity", "dispersion")
    positive = ("viscosity",)

    def __init__(
        self,
        viscosity: float | Tensor,
        dispersion: float | Tensor,
        domain_length: float | Tensor = 2 * math.pi,
        points: int = 256,
        **settings: Unpack[SolverSettings],
    ) -> None:
        super().__init__({"viscosity": viscosity, "dispersion": dispersion}, domain_length, points, **settings)

    def linear(self, k: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return -ν k² + i d k³."""
        return -parameters["viscosity"] * k**2 + 1j * parameters["dispersion"] * k**3

    def steepening(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return 1."""
        return torch.ones_like(parameters["viscosity"])

    def points_needed(self, initial: Tensor) -> Tensor:
        """Return the points for the larger of the widths of front and soliton: either one stops the steepening."""
        viscosity = self.parameter("viscosity", initial).detach()
        dispersion = self.parameter("dispersion", initial).detach().abs()
        length = self.lengths(initial)[:, 0].detach()
        height = jump(initial)
        viscous = length * height / (2 * viscosity)
        dispersive = 3 * length / (2 * math.pi) * DECAY * (height / (12 * dispersion.clamp_min(1e-30))).sqrt()
        return torch.minimum(viscous, dispersive).clamp_min(8.0)

"""KdV-Burgers-Kuramoto equation: one field, steepening, and linear terms of second to fourth order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor

from pdessl.solvers.kdv import DECAY, jump
from pdessl.solvers.periodic import PeriodicSimulator
from pdessl.solvers.simulator import SolverSettings

__all__ = ["KdVBurgersKuramoto"]

# Highest wave, in (a Δu / h)^(1/3), of a front that hyperviscosity alone stops: 1e-4 of the largest there (measured).
FRONT = 2.0


class KdVBurgersKuramoto(PeriodicSimulator):
    """KdV-Burgers-Kuramoto equation on a periodic interval.

        u_t + a u u_x + d u_xxx + h u_xxxx = ν u_xx + f(t, x),        x in [0, L), periodic

    Fronts and solitons whose shortest waves the fourth derivative damps; with ν < 0 long waves grow, as in the
    Kuramoto-Sivashinsky equation. It holds Burgers, KdV, KdV-Burgers and Kuramoto-Sivashinsky as limits. The mean of u
    is conserved without forcing.

    Args:
        steepening: a, not 0; a number or shape (B,). Default 1.
        viscosity: ν, any sign, length²/time; a number or shape (B,). Default 0.
        dispersion: d, any sign, length³/time; a number or shape (B,). Default 1.
        hyperviscosity: h, > 0, length⁴/time; a number or shape (B,). Default 1.
        **settings: as in :class:`pdessl.solvers.Simulator`, as is the meaning of ``domain_length`` and ``points``.

    Good values: domain_length 160, points 320, steepening 1 to 2, dispersion 2 to 5, hyperviscosity 0.4 to 1.1,
        amplitude 1 (the "KdV" of public benchmarks, in units of their node and frame).

    Raises:
        ResolutionError: a grid too coarse; the message states the points needed.

    Source: Kassam, Trefethen (2005) for the scheme.
    """

    equation = "kdv_burgers_kuramoto"
    parameter_names = ("steepening", "viscosity", "dispersion", "hyperviscosity")
    positive = ("hyperviscosity",)
    nonzero = ("steepening",)

    def __init__(
        self,
        steepening: float | Tensor = 1.0,
        viscosity: float | Tensor = 0.0,
        dispersion: float | Tensor = 1.0,
        hyperviscosity: float | Tensor = 1.0,
        domain_length: float | Tensor = 160.0,
        points: int = 320,
        **settings: Unpack[SolverSettings],
    ) -> None:
        parameters = {
            "steepening": steepening, "viscosity": viscosity, "dispersion": dispersion, "hyperviscosity": hyperviscosity
        }  # fmt: skip
        super().__init__(parameters, domain_length, points, **settings)

    def linear(self, k: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return -ν k² + i d k³ - h k⁴."""
        damping = parameters["viscosity"] * k**2 + parameters["hyperviscosity"] * k**4
        return -damping + 1j * parameters["dispersion"] * k**3

    def steepening(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return a."""
        return parameters["steepening"]

    def points_needed(self, initial: Tensor) -> Tensor:
        """Return the points for the widest of what stops the steepening, and for the waves that ν < 0 makes grow."""
        a, nu, d, h = (self.parameter(n, initial).detach() for n in self.parameter_names)
        length = self.lengths(initial)[:, 0].detach()
        height, scale = a.abs() * jump(initial), 3 * length / (2 * math.pi)
        viscous = length * height / (2 * nu.clamp_min(1e-30))
        dispersive = scale * DECAY * (height / (12 * d.abs().clamp_min(1e-30))).sqrt()
        damped = scale * FRONT * (height / h) ** (1 / 3)
        growing = scale * 5 * (-nu / h).clamp_min(0.0).sqrt()
        return torch.stack([viscous, dispersive, damped]).amin(dim=0).maximum(growing).clamp_min(8.0)

    def step_needed(self, initial: Tensor, courant: float = 1.0) -> Tensor:
        """Return courant * dx / (2 a max|u|), as for KdV."""
        steepening = self.parameter("steepening", initial).detach().abs()
        return super().step_needed(initial, courant) / (2 * steepening.clamp_min(1e-12))

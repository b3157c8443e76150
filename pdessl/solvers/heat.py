"""Linear equations, solved exactly mode by mode: heat, and advection with diffusion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor

from pdessl.solvers.periodic import PeriodicSimulator
from pdessl.solvers.simulator import SolverSettings

__all__ = ["AdvectionDiffusion", "Heat"]


class _Linear(PeriodicSimulator):
    """A linear equation: exact in time, so that neither a step nor a grid finer than the initial field's is needed."""

    def points_needed(self, initial: Tensor) -> Tensor:
        """Return 8: the modes of the initial field never widen."""
        return torch.full((initial.shape[0],), 8.0, dtype=torch.float64, device=initial.device)

    def step_needed(self, initial: Tensor, courant: float = 1.0) -> Tensor:
        """Return infinity; with a forcing, dx/L of the slowest time there is, L²/ν."""
        infinite = torch.full((initial.shape[0],), math.inf, dtype=torch.float64, device=initial.device)
        if self.forcing is None:
            return infinite
        length = self.lengths(initial)[:, 0].detach()
        diffusivity = self.parameter("diffusivity", initial).detach()
        return courant * length**2 / diffusivity / self.points[0]


class Heat(_Linear):
    """Heat equation on a periodic interval.

        u_t = ν u_xx + f(t, x),        x in [0, L), periodic

    Every mode decays like exp(-ν k² t), exactly: the result is the solution to round-off unless there is a forcing f
    (then ETDRK4). The mean is conserved without forcing.

    Args:
        diffusivity: ν, > 0, length²/time; a number or shape (B,).
        **settings: as in :class:`pdessl.solvers.Simulator`, as is the meaning of ``domain_length`` and ``points``.
            Steps matter only with a forcing.
    """

    equation = "heat"
    parameter_names = ("diffusivity",)
    positive = ("diffusivity",)

    def __init__(
        self,
        diffusivity: float | Tensor,
        domain_length: float | Tensor = 2 * math.pi,
        points: int = 64,
        **settings: Unpack[SolverSettings],
    ) -> None:
        super().__init__({"diffusivity": diffusivity}, domain_length, points, **settings)

    def linear(self, k: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return -ν k²."""
        return -parameters["diffusivity"] * k**2


class AdvectionDiffusion(_Linear):
    """Advection and diffusion of a scalar on a periodic interval.

        u_t + c u_x = ν u_xx + f(t, x),        x in [0, L), periodic

    Every mode moves with the velocity c and decays like exp(-ν k² t), exactly (with a forcing f: ETDRK4).

    Args:
        advection_velocity: c, length/time, any sign; a number or shape (B,).
        diffusivity: ν, > 0, length²/time; a number or shape (B,).
        **settings: as in :class:`pdessl.solvers.Simulator`, as is the meaning of ``domain_length`` and ``points``.
    """

    equation = "advection_diffusion"
    parameter_names = ("advection_velocity", "diffusivity")
    positive = ("diffusivity",)

    def __init__(
        self,
        advection_velocity: float | Tensor,
        diffusivity: float | Tensor,
        domain_length: float | Tensor = 2 * math.pi,
        points: int = 64,
        **settings: Unpack[SolverSettings],
    ) -> None:
        parameters = {"advection_velocity": advection_velocity, "diffusivity": diffusivity}
        super().__init__(parameters, domain_length, points, **settings)

    def linear(self, k: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return -ν k² - i c k."""
        return -parameters["diffusivity"] * k**2 - 1j * parameters["advection_velocity"] * k

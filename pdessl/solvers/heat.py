"""Linear equations, solved exactly mode by mode: heat, and advection with diffusion."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pdessl.solvers.simulator import PeriodicSimulator

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
        length = self._per_trajectory(self.domain_length, initial)
        diffusivity = self._per_trajectory(self.parameters["diffusivity"], initial).detach()
        return courant * length**2 / diffusivity / self.points


class Heat(_Linear):
    """Heat equation on a periodic interval.

        u_t = ν u_xx + f(t, x),        x in [0, L), periodic

    Every mode decays like exp(-ν k² t), exactly: the result is the solution to round-off unless there is a forcing f
    (then ETDRK4). The mean is conserved without forcing.

    Args:
        diffusivity: ν, > 0, length²/time; a number or shape (B,).
        domain_length: L, > 0, length; a number or shape (B,). Default 2π.
        points: grid points, even, >= 8; modes above X/3 of the initial field are removed.
        time_step, substeps: inner steps; they matter only with a forcing.
        check_resolution, forcing, dtype: as in :class:`pdessl.solvers.Burgers`.

    Shapes:
        initial field (B, 1, X) -> trajectories (B, 1, T, X).

    Raises:
        DataError: a diffusivity <= 0, or values that are not finite.
        ResolutionError: odd points, or a step <= 0.
    """

    equation = "heat"
    parameter_names = ("diffusivity",)

    def __init__(
        self,
        diffusivity: float | Tensor,
        domain_length: float | Tensor = 2 * math.pi,
        points: int = 64,
        time_step: float | None = None,
        substeps: int | None = None,
        check_resolution: bool = True,
        forcing: Callable[[Tensor], Tensor] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        parameters = {"diffusivity": diffusivity}
        super().__init__(parameters, domain_length, points, time_step, substeps, check_resolution, forcing, dtype)
        self._require_positive("diffusivity", self.parameters["diffusivity"])

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
        domain_length, points, time_step, substeps, check_resolution, forcing, dtype: as in :class:`Heat`.

    Shapes:
        initial field (B, 1, X) -> trajectories (B, 1, T, X).

    Raises:
        DataError: a diffusivity <= 0, or values that are not finite.
        ResolutionError: odd points, or a step <= 0.
    """

    equation = "advection_diffusion"
    parameter_names = ("advection_velocity", "diffusivity")

    def __init__(
        self,
        advection_velocity: float | Tensor,
        diffusivity: float | Tensor,
        domain_length: float | Tensor = 2 * math.pi,
        points: int = 64,
        time_step: float | None = None,
        substeps: int | None = None,
        check_resolution: bool = True,
        forcing: Callable[[Tensor], Tensor] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        parameters = {"advection_velocity": advection_velocity, "diffusivity": diffusivity}
        super().__init__(parameters, domain_length, points, time_step, substeps, check_resolution, forcing, dtype)
        self._require_positive("diffusivity", self.parameters["diffusivity"])

    def linear(self, k: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return -ν k² - i c k."""
        return -parameters["diffusivity"] * k**2 - 1j * parameters["advection_velocity"] * k

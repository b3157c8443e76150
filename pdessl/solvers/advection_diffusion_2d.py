"""Advection and diffusion of a scalar in two dimensions."""

# B batch, X Y grid points, K J kept modes

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Unpack

import torch
from torch import Tensor

from pdessl.solvers.periodic_2d import Drift, Periodic2D
from pdessl.solvers.simulator import SolverSettings
from pdessl.solvers.spectral_2d import SpectralGrid

__all__ = ["AdvectionDiffusion2D"]


class AdvectionDiffusion2D(Periodic2D):
    """Advection and diffusion of a scalar on a periodic rectangle.

        u_t + c u_x + d u_y = ν ∇²u + f(t, x, y)

    Every mode moves with the velocity (c, d) and decays like exp(-ν k² t), exactly (with a forcing f: ETDRK4).

    Args:
        advection_velocity_x, advection_velocity_y: c and d, length/time, any sign; a number or shape (B,).
        diffusivity: ν, > 0, length²/time; a number or shape (B,).
        domain_length: (L_x, L_y), > 0, length; a number, shape (B,) or (B, 2). Default 2π.
        points: grid points, even, >= 8; a number or (X, Y). Modes above a third of them are removed from the initial
            field.
        settings: see :class:`pdessl.solvers.Simulator`; steps matter only with a forcing, of shape (B, X, Y).

    Shapes:
        initial field (B, 1, X, Y) -> trajectories (B, 1, T, X, Y).

    Raises:
        DataError: a diffusivity <= 0, or values that are not finite.
        ResolutionError: odd points, or a step <= 0.
    """

    equation = "advection_diffusion_2d"
    field_names = ("u",)
    parameter_names = ("advection_velocity_x", "advection_velocity_y", "diffusivity")
    positive = ("diffusivity",)

    def __init__(
        self,
        advection_velocity_x: float | Tensor,
        advection_velocity_y: float | Tensor,
        diffusivity: float | Tensor,
        domain_length: float | Tensor = 2 * math.pi,
        points: int | Sequence[int] = 64,
        **settings: Unpack[SolverSettings],
    ) -> None:
        parameters = {
            "advection_velocity_x": advection_velocity_x,
            "advection_velocity_y": advection_velocity_y,
            "diffusivity": diffusivity,
        }
        super().__init__(parameters, domain_length, points, None, **settings)

    def symbol(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return -ν k²."""
        return -parameters["diffusivity"] * grid.k_squared

    def drift(self, state: Tensor, parameters: Mapping[str, Tensor]) -> Drift:
        """Return the advection velocity."""
        velocity = [parameters[f"advection_velocity_{axis}"][:, 0, 0, 0] for axis in "xy"]
        return Drift(torch.stack(velocity, dim=1), torch.zeros_like(velocity[0]))

    def step_needed(self, initial: Tensor, courant: float = 1.0) -> Tensor:
        """Return infinity; with a forcing, courant dx / (|c| + |d|): what one that rests sees of the moving field."""
        if self.forcing is None:
            return torch.full((len(initial),), math.inf, dtype=torch.float64, device=initial.device)
        along_x, along_y = (self.parameter(f"advection_velocity_{axis}", initial).detach().abs() for axis in "xy")
        speed = along_x + along_y
        return courant * self.spacing(initial).detach().amin(dim=1) / speed.clamp_min(1e-12)

    def points_needed(self, initial: Tensor) -> Tensor:
        """Return 8: no mode that is absent at the start ever appears."""
        return torch.full((len(initial),), 8.0, dtype=torch.float64, device=initial.device)

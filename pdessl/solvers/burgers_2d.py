"""Viscous Burgers equation for a velocity vector in two dimensions."""

# B batch, X Y grid points, K J kept modes

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Unpack

import torch
from torch import Tensor

from pdessl.solvers.periodic_2d import Periodic2D, Rate
from pdessl.solvers.simulator import SolverSettings
from pdessl.solvers.spectral_2d import SpectralGrid

__all__ = ["Burgers2D"]


class Burgers2D(Periodic2D):
    """Viscous Burgers equation for a velocity vector on a periodic rectangle.

        u_t + u u_x + v u_y = ν ∇²u + f_x
        v_t + u v_x + v v_y = ν ∇²v + f_y

    Fields without vorticity stay so and steepen into sheets of width about 4ν/Δ, Δ the jump across the sheet.
    Pseudo-spectral, 2/3 dealiasing; ETDRK4 with the viscosity integrated exactly.

    Args:
        viscosity: ν, > 0, length²/time; a number or shape (B,).
        domain_length: (L_x, L_y), > 0, length; a number, shape (B,) or (B, 2). Default 2π.
        points: grid points, even, >= 8; a number or (X, Y).
        outputs: returned fields, of ``u``, ``v``.
        settings: see :class:`pdessl.solvers.Simulator`; a ``forcing`` is (f_x, f_y), shape (B, 2, X, Y).

    Shapes:
        initial velocity (B, 2, X, Y) -> trajectories (B, len(outputs), T, X, Y).

    Fails when:
        a front is narrower than the grid, as in :class:`pdessl.solvers.Burgers`: refused below 4ν/(Δ dx) = 2, with Δ
        the largest range of u or v at the start. Without a potential the velocity may also be drawn out to a thin sheet
        by its own shear, which this test does not see; the spectral tail of the solution does.

    Raises:
        DataError: a viscosity <= 0, values that are not finite, an unknown output.
        ResolutionError: odd points, a step <= 0, or a grid that is too coarse; the message states the points needed.

    Source: exact solution used by the tests: Hopf (1950), Cole (1951), for velocities with a potential.
    """

    equation = "burgers_2d"
    field_names = ("u", "v")
    parameter_names = ("viscosity",)
    positive = ("viscosity",)

    def __init__(
        self,
        viscosity: float | Tensor,
        domain_length: float | Tensor = 2 * math.pi,
        points: int | Sequence[int] = 64,
        outputs: Sequence[str] | None = None,
        **settings: Unpack[SolverSettings],
    ) -> None:
        super().__init__({"viscosity": viscosity}, domain_length, points, outputs, **settings)

    def symbol(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return -ν k², twice."""
        return (-parameters["viscosity"] * grid.k_squared).expand(-1, 2, -1, -1)

    def rate(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Rate:
        """Return -(u·∇)u as -∇(|u|²/2) + w (v, -u), w = v_x - u_y."""
        ikx, iky = 1j * grid.kx, 1j * grid.ky

        def advection(modes: Tensor, time: Tensor) -> Tensor:
            vorticity = ikx * modes[:, 1:] - iky * modes[:, :1]
            u, v, w = grid.to_fields(torch.cat([modes, vorticity], dim=1)).unbind(dim=1)
            energy, along, across = grid.to_modes(torch.stack([0.5 * (u * u + v * v), w * v, w * u], dim=1)).split(1, 1)
            return torch.cat([along - ikx * energy, -across - iky * energy], dim=1)

        return advection

    def step_needed(self, initial: Tensor, courant: float = 1.0) -> Tensor:
        """Return courant / (max |u| / dx + max |v| / dy)."""
        largest = initial.detach().abs().amax(dim=(2, 3)).to(torch.float64)
        return courant / (largest / self.spacing(initial).detach()).sum(dim=1).clamp_min(1e-12)

    def points_needed(self, initial: Tensor) -> Tensor:
        """Return the points for which 4ν/(Δ dx) = 2 on the longest axis, at least 8."""
        flat = initial.detach().to(torch.float64).flatten(2)
        jump = (flat.amax(dim=2) - flat.amin(dim=2)).amax(dim=1)
        viscosity = self.parameter("viscosity", initial).detach()
        return (self.lengths(initial).detach().amax(dim=1) * jump / (2 * viscosity)).clamp_min(8.0)

"""Shallow water over a flat bottom in two dimensions, before waves break."""

# B batch, X Y grid points, K J kept modes

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Unpack

import torch
from torch import Tensor

from pdessl.errors import DataError
from pdessl.solvers.periodic_2d import Periodic2D, Rate
from pdessl.solvers.simulator import SolverSettings
from pdessl.solvers.spectral_2d import SpectralGrid

__all__ = ["ShallowWater2D"]


class ShallowWater2D(Periodic2D):
    """Shallow water over a flat bottom on a periodic rectangle.

        u_t + u u_x + v u_y + g h_x = f_x
        v_t + u v_x + v v_y + g h_y = f_y
        h_t + (u h)_x + (v h)_y = f_h

    Volume is conserved exactly, energy as long as waves are smooth. Pseudo-spectral, 2/3 dealiasing, fourth-order
    Runge-Kutta (ETDRK4 of which the linear part is the hyperviscosity).

    Args:
        gravity: g, > 0, length/time²; a number or shape (B,).
        domain_length: (L_x, L_y), > 0, length; a number, shape (B,) or (B, 2). Default 2π.
        points: grid points, even, >= 8; a number or (X, Y).
        hyperviscosity: η, >= 0, length⁴/time: -η ∇⁴ acts on all three fields. No term of the equation; it takes out
            what a steepening wave sends to the grid scale, and rounds it.
        outputs: returned fields, of ``u``, ``v`` (velocity), ``h`` (depth).
        settings: see :class:`pdessl.solvers.Simulator`; a ``forcing`` is (f_x, f_y, f_h), shape (B, 3, X, Y).

    Shapes:
        initial velocity and depth, the depth > 0, (B, 3, X, Y) -> trajectories (B, len(outputs), T, X, Y).

    Fails when:
        a wave steepens to a jump: crests travel faster than troughs, and nothing dissipates. Humps of radius 0.09 L on
        64 points, largest difference from 128 points relative to their height, after one and four times the time of a
        wave around the box: 4e-4 and 1e-2 with heights of 0.05 to 0.1 of the depth; 2e-3 and 0.1 with 0.1 to 0.2;
        4e-2 after one with 0.2 to 0.4. Jumps and dry ground are beyond this method; the spectral tail tells.

    Raises:
        DataError: a gravity <= 0, a depth <= 0, values that are not finite, an unknown output.
        ResolutionError: odd points, a step <= 0, or an initial field that the grid does not resolve.
    """

    equation = "shallow_water_2d"
    field_names = ("u", "v", "h")
    parameter_names = ("gravity",)
    positive = ("gravity",)
    # Nothing damps the waves: errors of a percent at 1.5 times the advisable step, overflow at 2.5 times.
    largest_courant = 1.5

    def __init__(
        self,
        gravity: float | Tensor,
        domain_length: float | Tensor = 2 * math.pi,
        points: int | Sequence[int] = 64,
        hyperviscosity: float = 0.0,
        outputs: Sequence[str] | None = None,
        **settings: Unpack[SolverSettings],
    ) -> None:
        super().__init__({"gravity": gravity}, domain_length, points, outputs, **settings)
        if not hyperviscosity >= 0:
            raise DataError(f"{self._name}: hyperviscosity must be >= 0, found {hyperviscosity}.")
        self.hyperviscosity = hyperviscosity

    def symbol(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return -η k⁴, three times."""
        return (-self.hyperviscosity * grid.k_squared**2).expand(-1, 3, -1, -1)

    def rate(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Rate:
        """Return -∇(|u|²/2 + g h) + w (v, -u), w = v_x - u_y, and -∇·(h u)."""
        ikx, iky = 1j * grid.kx, 1j * grid.ky
        gravity = parameters["gravity"][:, 0]

        def waves(modes: Tensor, time: Tensor) -> Tensor:
            vorticity = ikx * modes[:, 1:2] - iky * modes[:, :1]
            u, v, h, w = grid.to_fields(torch.cat([modes, vorticity], dim=1)).unbind(dim=1)
            head = 0.5 * (u * u + v * v) + gravity * h
            products = grid.to_modes(torch.stack([head, w * v, w * u, h * u, h * v], dim=1))
            head, along, across, flow_x, flow_y = products.split(1, dim=1)
            return torch.cat([along - ikx * head, -across - iky * head, -ikx * flow_x - iky * flow_y], dim=1)

        return waves

    def step_needed(self, initial: Tensor, courant: float = 1.0) -> Tensor:
        """Return courant / ((max |u| + c) / dx + (max |v| + c) / dy), c = √(g max h)."""
        largest = initial.detach().abs().amax(dim=(2, 3)).to(torch.float64)
        wave = torch.sqrt(self.parameter("gravity", initial).detach() * largest[:, 2])
        return courant / ((largest[:, :2] + wave[:, None]) / self.spacing(initial).detach()).sum(dim=1)

    def points_needed(self, initial: Tensor) -> Tensor:
        """Return six points per width of the steepest slope at the start, 6 L max (max |∇q| / (max q - min q)) over the
        fields q = u, v, h; at least 8. Slopes that steepen later are not foreseen.
        """
        lengths = self.lengths(initial).detach()
        grid = SpectralGrid.build(lengths, self.points)
        modes = grid.to_modes(initial.detach().to(torch.float64))
        slope = grid.to_fields(torch.cat([1j * grid.kx * modes, 1j * grid.ky * modes], dim=1)).unflatten(1, (2, 3))
        slope = slope.square().sum(dim=1).amax(dim=(2, 3)).sqrt()
        flat = initial.detach().to(torch.float64).flatten(2)
        jump = flat.amax(dim=2) - flat.amin(dim=2)
        steepest = torch.where(jump > 0, slope / jump, torch.zeros_like(slope)).amax(dim=1)
        return (6 * lengths.amax(dim=1) * steepest).clamp_min(8.0)

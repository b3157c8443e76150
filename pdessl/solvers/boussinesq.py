"""Buoyant flow in two dimensions: velocity, and a scalar (smoke, temperature) that it carries and that lifts it."""

# B batch, X Y grid points, K J kept modes

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Unpack

import torch
from torch import Tensor

from pdessl.errors import DataError
from pdessl.solvers.incompressible_2d import FlowOperators, IncompressibleFlow2D
from pdessl.solvers.periodic_2d import Rate
from pdessl.solvers.simulator import SolverSettings
from pdessl.solvers.spectral_2d import SpectralGrid

__all__ = ["Boussinesq2D"]


class Boussinesq2D(IncompressibleFlow2D):
    """Buoyant flow on a periodic rectangle, unit density.

        u_t + u u_x + v u_y + p_x = ν ∇²u + f_x
        v_t + u v_x + v v_y + p_y = ν ∇²v + b (s - <s>) + f_y,        u_x + v_y = 0
        s_t + u s_x + v s_y = κ ∇²s - η ∇⁴s + f_s

    <s> is the mean of s over the domain: where the box is periodic its lift is balanced by a uniform pressure gradient,
    else everything would fall for ever. Adding a constant to s therefore changes nothing else. The mean of s is
    conserved (without a source f_s). Pseudo-spectral, 2/3 dealiasing, ETDRK4 with the diffusion integrated exactly.

    Args:
        viscosity: ν, > 0, length²/time; a number or shape (B,).
        buoyancy: b, length/time² per unit of s; a number or shape (B,). Any sign; the y axis points up.
        scalar_diffusivity: κ, >= 0, length²/time; a number or shape (B,). With κ = 0 the scalar is drawn out into ever
            finer filaments, which no grid resolves for long: set ``hyperdiffusivity``, or shorten the run.
        domain_length: (L_x, L_y), > 0, length; a number, shape (B,) or (B, 2). Default 2π.
        points: grid points, even, >= 8; a number or (X, Y).
        hyperdiffusivity: η, >= 0, length⁴/time: removes the finest filaments where κ = 0 and little else. No term of
            the equation in the catalog; it is not stored with the parameters.
        outputs: returned fields, of ``u``, ``v``, ``s``, ``w`` (vorticity), ``p`` (pressure over density, mean zero,
            without the uniform gradient above).
        settings: see :class:`pdessl.solvers.Simulator`. A ``forcing`` is (f_x, f_y, f_s), shape (B, 3, X, Y); its mean
            force is balanced like that of the buoyancy.

    Shapes:
        initial velocity and scalar (B, 3, X, Y) -> trajectories (B, len(outputs), T, X, Y).

    Fails when:
        the grid is coarser than what the buoyancy makes of the scalar. Largest difference from a finer grid relative to
        the largest field, blobs of smoke on 2π, ν = κ = 0.005 to 0.02, at b t² = 36: 2e-4 at the points that are asked
        for (spectral tail about 1e-3), 5e-3 with 0.77 times as many. Later, plumes that collide may need more.

    Raises:
        DataError: a viscosity <= 0, a diffusivity < 0, values that are not finite, an unknown output.
        ResolutionError: odd points, a step <= 0, or a grid that does not resolve what the buoyancy sets in motion; the
            message states the points needed.
    """

    equation = "boussinesq_diffusion"
    field_names = ("u", "v", "s")
    state_names = ("u", "v", "s")
    output_names = ("u", "v", "s", "w", "p")
    parameter_names = ("viscosity", "buoyancy", "scalar_diffusivity")
    positive = ("viscosity",)

    def __init__(
        self,
        viscosity: float | Tensor,
        buoyancy: float | Tensor,
        scalar_diffusivity: float | Tensor,
        domain_length: float | Tensor = 2 * math.pi,
        points: int | Sequence[int] = 64,
        hyperdiffusivity: float = 0.0,
        outputs: Sequence[str] | None = None,
        **settings: Unpack[SolverSettings],
    ) -> None:
        parameters = {"viscosity": viscosity, "buoyancy": buoyancy, "scalar_diffusivity": scalar_diffusivity}
        super().__init__(parameters, domain_length, points, outputs, **settings)
        diffusivity = self.parameters["scalar_diffusivity"].detach()
        for name, value in (("scalar_diffusivity", float(diffusivity.min())), ("hyperdiffusivity", hyperdiffusivity)):
            if not value >= 0:
                raise DataError(f"{self._name}: {name} must be >= 0, found {value}.")
        self.hyperdiffusivity = hyperdiffusivity
        if not bool(diffusivity.any()):
            self.equation = "boussinesq"

    def symbol(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return -ν k² for the vorticity and -κ k² - η k⁴ for the scalar."""
        square = grid.k_squared
        scalar = -parameters["scalar_diffusivity"] * square - self.hyperdiffusivity * square**2
        return torch.cat([-parameters["viscosity"] * square, scalar], dim=1)

    def rate(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Rate:
        """Return advection of vorticity and scalar, and the torque of the buoyancy."""
        operators = FlowOperators(grid)
        lift = 1j * parameters["buoyancy"] * grid.kx

        def advection(modes: Tensor, time: Tensor) -> Tensor:
            vorticity, scalar = modes.split(1, dim=1)
            u, v, s = grid.to_fields(torch.cat([operators.velocity * vorticity, scalar], dim=1)).unbind(dim=1)
            carried = grid.to_modes(torch.stack([u * s, v * s], dim=1))
            carried = -(operators.gradient * carried).sum(dim=1, keepdim=True)
            return torch.cat([torch.addcmul(operators.torque(u, v), lift, scalar), carried], dim=1)

        return advection

    def observe(
        self,
        grid: SpectralGrid,
        modes: Tensor,
        parameters: Mapping[str, Tensor],
        speed: Tensor | None,
        source: Tensor | None,
    ) -> Tensor:
        """Return the modes of velocity, scalar, vorticity and pressure as asked for."""
        vorticity, scalar = modes.split(1, dim=1)
        lift = parameters["buoyancy"] * scalar
        force = torch.cat([torch.zeros_like(lift), lift], dim=1)
        if source is not None:
            force = force + source[:, :2]
        found = self.flow_fields(grid, vorticity, speed, force) | {"s": scalar}
        return torch.cat([found[name] for name in self.field_names], dim=1)

    def step_needed(self, initial: Tensor, courant: float = 1.0) -> Tensor:
        """Return courant / (max |u| / dx + max |v| / dy + U (1/dx + 1/dy)), U = √(|b| (max s - min s) L_y) / 2.

        U is about the speed that the scalar reaches when it falls or rises half the height of the domain.
        """
        rate = self._crossing_rate(initial)
        scalar = initial[:, 2].detach().to(torch.float64).flatten(1)
        jump = scalar.amax(dim=1) - scalar.amin(dim=1)
        fall = self.parameter("buoyancy", initial).detach().abs() * jump * self.lengths(initial).detach()[:, 1]
        rate = rate + 0.5 * torch.sqrt(fall) * (1 / self.spacing(initial).detach()).sum(dim=1)
        return courant / rate.clamp_min(1e-12)

    def points_needed(self, initial: Tensor) -> Tensor:
        """Return L √(r / min(ν, κ)), at least 8, with r = max |w| + √(|b| max |∇s|): dx is the width of filaments.

        With hyperdiffusivity η a filament of s is (η / r)^(1/4) wide instead. Without it, and κ = 0, no grid does: 10⁶.
        """
        grid = SpectralGrid.build(self.lengths(initial).detach(), self.points, self.degree)
        scalar = grid.to_modes(initial[:, 2:].detach().to(torch.float64))
        slope = grid.to_fields(FlowOperators(grid).gradient * scalar).square().sum(dim=1).amax(dim=(1, 2)).sqrt()
        rate = self._largest_vorticity(initial) + torch.sqrt(self.parameter("buoyancy", initial).detach().abs() * slope)
        viscosity, diffusivity = (self.parameter(n, initial).detach() for n in ("viscosity", "scalar_diffusivity"))
        length = self.lengths(initial).detach().amax(dim=1)
        needed = length * torch.sqrt(rate / torch.minimum(viscosity, diffusivity))
        if self.hyperdiffusivity:
            needed = torch.maximum(
                length * torch.sqrt(rate / viscosity),
                torch.minimum(needed, length * (rate / self.hyperdiffusivity) ** 0.25),
            )
        return needed.clamp(8.0, 1e6)

    def _describe(self, initial: Tensor, row: int) -> str:
        text = super()._describe(initial, row)
        if float(self.parameter("scalar_diffusivity", initial)[row]) > 0 or self.hyperdiffusivity:
            return text
        return f"{text}; a scalar that does not diffuse forms ever finer filaments: set hyperdiffusivity"

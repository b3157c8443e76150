"""Incompressible Navier-Stokes equations in two dimensions: decaying, forced by a body force, or Kolmogorov flow."""

# B batch, X Y grid points, K J kept modes

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Unpack

import torch
from torch import Tensor

from pdessl.errors import DataError, ResolutionError
from pdessl.solvers.incompressible_2d import FlowOperators, IncompressibleFlow2D
from pdessl.solvers.periodic_2d import Rate
from pdessl.solvers.simulator import SolverSettings
from pdessl.solvers.spectral_2d import SpectralGrid

__all__ = ["NavierStokes2D"]


class NavierStokes2D(IncompressibleFlow2D):
    """Incompressible Navier-Stokes equations on a periodic rectangle, unit density.

        u_t + u u_x + v u_y + p_x = ν ∇²u - μ u + A sin(2π n y / L_y) + f_x
        v_t + u v_x + v v_y + p_y = ν ∇²v - μ v + f_y,        u_x + v_y = 0

    By default A = μ = 0: the flow decays, energy and enstrophy never grow, vortices of like sign merge. With A > 0 it
    is Kolmogorov flow, laminar up to Re ≈ 1, turbulent far above. Solved for the vorticity w = v_x - u_y;
    pseudo-spectral, 2/3 dealiasing, ETDRK4 with viscosity and drag integrated exactly.

    Args:
        viscosity: ν, > 0, length²/time; a number or shape (B,).
        drag: μ, >= 0, 1/time; a number or shape (B,). It takes out the energy that forced flow in two dimensions
            carries to the largest scale.
        force_amplitude: A, length/time²; a number or shape (B,).
        domain_length: (L_x, L_y), > 0, length; a number, shape (B,) or (B, 2). Default 2π.
        points: grid points, even, >= 8; a number or (X, Y).
        force_wave_number: n, >= 1, waves of the force in L_y.
        outputs: returned fields, of ``u``, ``v`` (velocity), ``w`` (vorticity), ``p`` (pressure over density, mean
            zero).
        settings: see :class:`pdessl.solvers.Simulator`. A ``forcing`` is the body force (f_x, f_y), shape (B, 2, X, Y);
            its mean is balanced by a uniform pressure gradient.

    Shapes:
        initial velocity (B, 2, X, Y) -> trajectories (B, len(outputs), T, X, Y). Its divergence is projected out; its
        mean is a uniform flow, solved exactly whatever the step. Make it from a vorticity with
        :func:`pdessl.solvers.velocity_of_vorticity`.

    Fails when:
        filaments of vorticity, √(ν / max |w|) wide, are narrower than the grid. Largest difference from a finer grid
        relative to max |u|, decaying turbulence with rms velocity 1 on 2π, ν = 0.0025 to 0.02, t = 2: 8e-3 with dx 2.9
        widths (spectral tail 2e-2), 3e-2 with 4, 9e-2 with 6. Refused above 1.3 widths, where the tail is below 1e-3.
        A force grows the flow beyond its initial state: what it will reach is estimated from runs, see
        ``points_needed``. A ``forcing`` is not foreseen.

    Raises:
        DataError: a viscosity <= 0, a drag < 0, values that are not finite, an unknown output.
        ResolutionError: odd points, a step <= 0, a force the grid cannot hold, or a grid that does not resolve the
            initial field's dissipation scale; the message states the points needed.

    Source: exact solution used by the tests: Taylor, Green (1937); the form of the advection: Basdevant (1983). exponax
        0.2.0, whose vorticity is -w, agrees to 1e-8 of max |w| (t = 2, ν = 0.02, rms 1 on 2π, 160 points, same step).
    """

    equation = "navier_stokes_2d"
    field_names = ("u", "v")
    state_names = ("u", "v")
    output_names = ("u", "v", "w", "p")
    parameter_names = ("viscosity", "drag", "force_amplitude")
    positive = ("viscosity",)

    def __init__(
        self,
        viscosity: float | Tensor,
        drag: float | Tensor = 0.0,
        force_amplitude: float | Tensor = 0.0,
        domain_length: float | Tensor = 2 * math.pi,
        points: int | Sequence[int] = 64,
        force_wave_number: int = 4,
        outputs: Sequence[str] | None = None,
        **settings: Unpack[SolverSettings],
    ) -> None:
        parameters = {"viscosity": viscosity, "drag": drag, "force_amplitude": force_amplitude}
        super().__init__(parameters, domain_length, points, outputs, **settings)
        if bool((self.parameters["drag"].detach() < 0).any()):
            raise DataError(f"{self._name}: drag must be >= 0, found {float(self.parameters['drag'].min())}.")
        self.force_wave_number = force_wave_number
        self.has_force = bool(self.parameters["force_amplitude"].detach().any()) or (
            self.parameters["force_amplitude"].requires_grad
        )
        if force_wave_number < 1 or (self.has_force and 3 * force_wave_number >= self.points[1]):
            raise ResolutionError(
                f"{self._name}: force_wave_number must be >= 1 and below a third of the {self.points[1]} points along "
                f"y, found {force_wave_number}."
            )

    def symbol(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Tensor:
        """Return -ν k² - μ."""
        return -parameters["viscosity"] * grid.k_squared - parameters["drag"]

    def rate(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Rate:
        """Return the advection of vorticity."""
        operators = FlowOperators(grid)

        def advection(modes: Tensor, time: Tensor) -> Tensor:
            return operators.torque(*grid.to_fields(operators.velocity * modes).unbind(dim=1))

        return advection

    def steady_source(self, grid: SpectralGrid, parameters: Mapping[str, Tensor]) -> Tensor | None:
        """Return the modes of (A sin(2π n y / L_y), 0)."""
        if not self.has_force:
            return None
        shape = (len(grid.kx), 2, *grid.shape)
        wave = torch.zeros(shape[1:], dtype=grid.kx.dtype, device=grid.kx.device)
        wave[0, 0, self.force_wave_number] = 1.0
        return -0.5j * parameters["force_amplitude"] * wave

    def observe(
        self,
        grid: SpectralGrid,
        modes: Tensor,
        parameters: Mapping[str, Tensor],
        speed: Tensor | None,
        source: Tensor | None,
    ) -> Tensor:
        """Return the modes of velocity, vorticity and pressure as asked for."""
        found = self.flow_fields(grid, modes, speed, source)
        return torch.cat([found[name] for name in self.field_names], dim=1)

    def step_needed(self, initial: Tensor, courant: float = 1.0) -> Tensor:
        """Return courant / (max |u| / dx + max |v| / dy), the speed the force will reach included."""
        rate = self._crossing_rate(initial)
        speed, _ = self._forced_scales(initial)
        return courant / (rate + speed * (1 / self.spacing(initial).detach()).sum(dim=1)).clamp_min(1e-12)

    def points_needed(self, initial: Tensor) -> Tensor:
        """Return 0.75 L √(max |w| / ν), at least 8: dx is 1.3 times the width √(ν / |w|) of fine filaments."""
        lengths = self.lengths(initial).detach()
        vorticity = self._largest_vorticity(initial) + self._forced_scales(initial)[1]
        viscosity = self.parameter("viscosity", initial).detach()
        return (0.75 * lengths.amax(dim=1) * torch.sqrt(vorticity / viscosity)).clamp_min(8.0)

    def _forced_scales(self, initial: Tensor) -> tuple[Tensor, Tensor]:
        """Return speed and vorticity that Kolmogorov flow reaches, each (B,): laminar, or 7 times √(A/k), √(A k).

        7 is what turbulent runs have, at most: A = 1, n = 4 on 2π, ν = 0.01 and 0.02, μ = 0.1 and 0.
        """
        amplitude, viscosity, drag = (
            self.parameter(n, initial).detach() for n in ("force_amplitude", "viscosity", "drag")
        )
        k = 2 * math.pi * self.force_wave_number / self.lengths(initial).detach()[:, 1]
        amplitude = amplitude.abs()
        speed = torch.minimum(amplitude / (viscosity * k**2 + drag), 7 * torch.sqrt(amplitude / k))
        return speed, speed * k

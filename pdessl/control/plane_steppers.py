"""Flows on a plane taken one control period at a time, by the parts of their simulators."""

# B batch, A actuators, C channels, X Y grid points, K J kept modes, S numbers of a state, M sensors

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor

from pdessl.control.plane_description import PlaneActuators, PlaneFile
from pdessl.errors import DataError
from pdessl.solvers import ClosedBoxSmoke, NavierStokes2D
from pdessl.solvers.box_steps import Box
from pdessl.solvers.closed_box import STEPS, VISCOUS_LIMIT
from pdessl.solvers.incompressible_2d import FlowOperators
from pdessl.solvers.projection import BoxProjection
from pdessl.solvers.pseudo_spectral import tracked
from pdessl.solvers.semi_lagrangian import look_up
from pdessl.solvers.spectral_2d import SpectralGrid, as_complex, as_real, real_scheme
from pdessl.solvers.staggered import close, to_centres

__all__ = ["BoxStepper", "FlowStepper", "PlaneStepper", "stepper_of"]


class PlaneStepper(Protocol):
    """A flow under forces that are held.

    Attributes:
        size: numbers of a state, real, float64.
        channels: names of the fields.
        profiles: what a unit amplitude of each actuator adds to the rate of change, (A, C, X, Y).
        staggered: fields that lie on lower faces of the cells along an axis.
        boundary: ``periodic`` or ``wall``, along both axes.
    """

    size: int
    channels: tuple[str, ...]
    profiles: Tensor
    staggered: Mapping[str, str]
    boundary: str

    def field(self, state: Tensor) -> Tensor:
        """Return fields (..., C, X, Y) of states (..., S)."""
        ...

    def state(self, field: Tensor) -> Tensor:
        """Return states (..., S) of fields (..., C, X, Y)."""
        ...

    def step(self, state: Tensor, force: Tensor) -> Tensor:
        """Return states (B, S) one control period later under a force (B, C, X, Y)."""
        ...

    def read(self, state: Tensor, places: Tensor) -> Tensor:
        """Return the fields (..., M C) at places (M, 2), sensor by sensor, of states (..., S)."""
        ...

    def pictured(self, field: Tensor) -> Tensor:
        """Return the field to look at, (..., X, Y), of fields (..., C, X, Y)."""
        ...


def stepper_of(file: PlaneFile, device: torch.device) -> PlaneStepper:
    """Return the stepper of the simulator that a file names."""
    return BoxStepper(file, device) if file.solver.simulator == "closed_box_smoke" else FlowStepper(file, device)


class FlowStepper:
    """Navier-Stokes on a periodic plane; the state is the vorticity's kept modes, (K J 2) real numbers.

    The mean flow is 0, and stays so: the mean of a force is balanced. In the arithmetic of the simulator.

    Args:
        file: of the environment.
        device: where states lie.
    """

    channels: tuple[str, ...] = ("u", "v")
    staggered: Mapping[str, str] = MappingProxyType({})
    boundary: str = "periodic"

    def __init__(self, file: PlaneFile, device: torch.device) -> None:
        solver = file.simulator()
        assert isinstance(solver, NavierStokes2D)  # noqa: S101  (the file was checked)
        lengths = torch.tensor([file.domain.lengths], dtype=torch.float64, device=device)
        self.lengths = lengths[0]
        self.grid = SpectralGrid.build(lengths, solver.points, solver.degree)
        self.operators = FlowOperators(self.grid)
        columns = {n: v.to(device).reshape(1, 1, 1, 1) for n, v in solver.parameters.items()}
        self._rate = solver.rate(self.grid, columns)
        self._steady = solver.steady_source(self.grid, columns)
        self._encode = partial(solver.encode, self.grid)
        self.substeps = file.solver.substeps
        step = torch.full((1,), file.control.period, dtype=torch.float64, device=device) / self.substeps
        symbol = solver.symbol(self.grid, columns)
        self.scheme = real_scheme(symbol, step, torch.float64)
        self._symbol = torch.where(symbol < 0, symbol, -torch.ones_like(symbol))  # the mean has no force
        self._time = torch.zeros(1, dtype=torch.float64, device=device)
        self._shape = (self.grid.shape[0], 2 * self.grid.shape[1])
        self.size = math.prod(self._shape)
        self.profiles = self._waves(file.actuators, device)
        k, j = self.grid.shape
        free = torch.ones(k, j, dtype=torch.bool, device=device)  # one of two conjugate modes, without the mean
        free[(k + 1) // 2 :, 0] = False
        free[0, 0] = False
        self._free = free

    def _waves(self, layout: PlaneActuators, device: torch.device) -> Tensor:
        nx, ny = self.grid.points
        x = (torch.arange(nx, dtype=torch.float64, device=device) / nx)[:, None]
        y = torch.arange(ny, dtype=torch.float64, device=device) / ny
        found = []
        for (n, m), phase in zip(layout.waves, layout.phases, strict=True):
            if 3 * abs(n) >= nx or 3 * abs(m) >= ny:
                raise DataError(f"actuators.waves: the grid {nx} x {ny} does not keep the wave [{n}, {m}].")
            k = torch.tensor([n, m], dtype=torch.float64, device=device) / self.lengths
            wave = math.sqrt(2.0) * torch.cos(2 * math.pi * (n * x + m * y + phase)) / k.norm()
            found.append(torch.stack([k[1] * wave, -k[0] * wave]))
        return torch.stack(found)

    def field(self, state: Tensor) -> Tensor:
        """Return the velocity, (..., 2, X, Y)."""
        return self.grid.to_fields(self._velocity(state))

    def state(self, field: Tensor) -> Tensor:
        """Return the state of a velocity; its divergence and its mean are left out."""
        modes = self.grid.to_modes(field.to(torch.float64))
        rows = modes.reshape(-1, *modes.shape[-3:])
        return as_real(self._encode(rows)).reshape(*field.shape[:-3], self.size)

    def step(self, state: Tensor, force: Tensor) -> Tensor:
        """Return states one period later."""
        source = self.grid.to_modes(force)
        source = self._encode(source if self._steady is None else self._steady + source)
        modes = state.reshape(-1, 1, *self._shape)

        def rate(v: Tensor, _: float) -> Tensor:
            return as_real(self._rate(as_complex(v), self._time) + source)

        if tracked(state, force):
            for _ in range(self.substeps):
                modes = self.scheme.advance(modes, rate)
            return modes.reshape(-1, self.size)
        with torch.no_grad():
            modes = modes.clone()
            memory = [torch.empty_like(modes) for _ in range(3)]
            for _ in range(self.substeps):
                self.scheme.advance_in_place(modes, partial(rate, modes), memory)
            return modes.reshape(-1, self.size)

    def read(self, state: Tensor, places: Tensor) -> Tensor:
        """Return the Fourier series at the places."""
        velocity = self._velocity(state)
        twice = torch.full_like(self.grid.ky[0, 0, 0], 2.0)
        twice[0] = 1.0
        angle = self.grid.kx[0, 0] * places[:, :1, None] + self.grid.ky[0, 0] * places[:, 1:, None]  # (M, K, J)
        waves = torch.polar(twice.expand_as(angle), angle)
        return torch.einsum("...ckj,mkj->...mc", velocity, waves).real.flatten(-2)

    def pictured(self, field: Tensor) -> Tensor:
        """Return the vorticity."""
        modes = self.grid.to_modes(field)
        rows = modes.reshape(-1, *modes.shape[-3:])
        found = self.grid.to_fields(self.operators.vorticity(rows)[:, 0])
        return found.reshape(*field.shape[:-3], *self.grid.points)

    def rest(self) -> Tensor:
        """Return the laminar flow that the steady force drives, (S,): its advection vanishes."""
        if self._steady is None:
            return torch.zeros(self.size, dtype=torch.float64, device=self.lengths.device)
        return as_real(-self._encode(self._steady) / self._symbol).reshape(self.size)

    def coordinates(self, state: Tensor) -> Tensor:
        """Return states (..., S) as independent real numbers (..., D) whose squares sum to the mean of |u|²."""
        modes = as_complex(state.reshape(*state.shape[:-1], *self._shape))
        k = self.grid.inverse_k_squared[0, 0].sqrt()
        free = (math.sqrt(2.0) * k * modes)[..., self._free]
        return torch.cat([free.real, free.imag], dim=-1)

    def from_coordinates(self, coordinates: Tensor) -> Tensor:
        """Return the states of coordinates, the inverse of :meth:`coordinates`."""
        real, imaginary = coordinates.chunk(2, dim=-1)
        k, j = self.grid.shape
        modes = torch.zeros(*coordinates.shape[:-1], k, j, dtype=torch.complex128, device=coordinates.device)
        modes[..., self._free] = torch.complex(real, imaginary) / math.sqrt(2.0)
        modes = modes * self.grid.k_squared[0, 0].sqrt()
        half = (k + 1) // 2
        modes[..., half:, 0] = modes[..., 1:half, 0].flip(-1).conj()
        return as_real(modes).reshape(*coordinates.shape[:-1], self.size)

    def _velocity(self, state: Tensor) -> Tensor:
        modes = as_complex(state.reshape(*state.shape[:-1], *self._shape))
        return self.operators.velocity[0] * modes[..., None, :, :]


class BoxStepper:
    """Smoke in a closed box; the state is u and v on lower faces and s at centres, (3 X Y) real numbers.

    In the arithmetic of the simulator.

    Args:
        file: of the environment.
        device: where states lie.
    """

    channels: tuple[str, ...] = ("u", "v", "s")
    staggered: Mapping[str, str] = MappingProxyType({"u": "x", "v": "y"})
    boundary: str = "wall"

    def __init__(self, file: PlaneFile, device: torch.device) -> None:
        solver = file.simulator()
        assert isinstance(solver, ClosedBoxSmoke)  # noqa: S101  (the file was checked)
        self.lengths = torch.tensor(file.domain.lengths, dtype=torch.float64, device=device)
        nx, ny = solver.points
        spacing = (self.lengths / torch.tensor([nx, ny], dtype=torch.float64, device=device))[None]
        columns = {n: solver.parameters[n].to(device).reshape(1, 1, 1) for n in solver.parameter_names}
        self.box = Box((nx, ny), spacing, **columns, project=BoxProjection((nx, ny), spacing))
        self.substeps = file.solver.substeps
        self._step = torch.full((1,), file.control.period, dtype=torch.float64, device=device) / self.substeps
        limit = VISCOUS_LIMIT[solver.scheme] / float((solver.parameters["viscosity"] * spacing.pow(-2).sum()).max())
        if float(self._step) > limit * (1 + 1e-9):
            least = math.ceil(file.control.period / limit - 1e-9)
            raise DataError(
                f"solver.substeps {self.substeps}: viscosity is unstable in steps of {float(self._step):.4g}, stable "
                f"up to {limit:.4g}. Use at least {least}, or fewer points."
            )
        self._advance = STEPS[solver.scheme]
        self.size = 3 * nx * ny
        self.profiles = self._fans(file.actuators, spacing[0])

    def _fans(self, layout: PlaneActuators, spacing: Tensor) -> Tensor:
        nx, ny = self.box.points
        i, j = (torch.arange(n, dtype=torch.float64, device=spacing.device) for n in (nx, ny))
        found = []
        for place, direction in zip(layout.positions, layout.directions, strict=True):
            along = torch.tensor(direction, dtype=torch.float64, device=spacing.device)
            along = along / along.norm()
            parts = []
            for axis, shift in ((-2, (0.0, 0.5)), (-1, (0.5, 0.0))):  # lower x faces, lower y faces
                x, y = (i + shift[0]) * spacing[0] - place[0], (j + shift[1]) * spacing[1] - place[1]
                bump = torch.exp(-(x[:, None].square() + y.square()) / (2 * layout.width**2))
                parts.append(close(along[axis] * bump, axis))
            found.append(torch.stack([*parts, torch.zeros_like(parts[0])]))
        return torch.stack(found)

    def field(self, state: Tensor) -> Tensor:
        """Return u and v on lower faces and s at centres, (..., 3, X, Y)."""
        return state.reshape(*state.shape[:-1], 3, *self.box.points)

    def state(self, field: Tensor) -> Tensor:
        """Return the state of such fields, nothing left out."""
        return field.to(torch.float64).flatten(-3)

    def step(self, state: Tensor, force: Tensor) -> Tensor:
        """Return states one period later."""
        u, v, s = self.field(state).unbind(dim=1)
        for _ in range(self.substeps):
            u, v, s = self._advance((u, v, s), self._step, force, self.box)
        return torch.stack([u, v, s], dim=1).flatten(1)

    def read(self, state: Tensor, places: Tensor) -> Tensor:
        """Return the fields between the centres of cells, bilinear; within half a cell of a wall those of the cell."""
        u, v, s = self.field(state.reshape(-1, self.size)).unbind(dim=1)
        centred = torch.stack([to_centres(u, -2), to_centres(v, -1), s], dim=1).flatten(0, 1)
        at = places / self.box.spacing[0] - 0.5
        x, y = (at[:, axis].expand(len(centred), 1, -1) for axis in (0, 1))
        found = look_up(centred, (x, y), "edge")[:, 0].reshape(-1, 3, len(places)).transpose(1, 2)
        return found.reshape(*state.shape[:-1], -1)

    def pictured(self, field: Tensor) -> Tensor:
        """Return the smoke."""
        return field[..., 2, :, :]

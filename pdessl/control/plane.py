"""Controlled flows on a plane: Navier-Stokes under waves of force, and smoke in a box with fans in its walls."""

# B batch, H control periods, A actuators, C channels, M observed values, X Y grid points, S numbers of a state

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pdessl.control.controlled import ControlledPDE
from pdessl.control.guardrails import DissipationLimit
from pdessl.control.plane_description import PlaneFile
from pdessl.control.plane_steppers import PlaneStepper, stepper_of
from pdessl.errors import DataError, ShapeError
from pdessl.solvers import Actuators, Simulator, random_stream

__all__ = ["PlaneEnvironment"]


class PlaneEnvironment(ControlledPDE):
    """A controlled flow on a plane.

        u_t + (u·∇)u + ∇p = ν ∇²u + ... + Σ_j a_j(t) b_j(x, y),   ∇·u = 0,   a_j held over each control period

    Navier-Stokes on a periodic plane, its b_j waves of force; or smoke in a closed box, its b_j fans. The state is a
    row of real numbers (B, S); :meth:`field` gives the channels on the grid, (B, C, X, Y), which :meth:`state` takes
    back: of the box all of them, velocities on the lower faces of the cells. A row is what it is alone, up to the order
    of the additions in transforms of another batch. :meth:`step` is differentiable in state and actions.

    Args:
        name: for messages and reports.
        file: what the environment's file says.
        device: where states lie.

    Raises:
        DataError: actuators that the grid does not hold, or steps for which viscosity is unstable.
    """

    file: PlaneFile

    def __init__(self, name: str, file: PlaneFile, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.name, self.file, self.device = name, file, torch.device(device)
        self.stepper: PlaneStepper = stepper_of(file, self.device)
        self.steps, self.grid, self.lengths = file.control.steps, file.solver.points, file.domain.lengths
        self.boundary = (self.stepper.boundary,) * 2
        self.staggered = self.stepper.staggered
        self.profiles, self.bound = self.stepper.profiles, file.actuators.bound
        self.actuators = len(self.profiles)
        self.channels = self.stepper.channels
        layout, places = file.actuators, file.sensors.positions
        crests = tuple(self._crest(wave, phase) for wave, phase in zip(layout.waves, layout.phases, strict=True))
        self.places = layout.positions or crests
        self._places = None if places is None else torch.tensor(places, dtype=torch.float64, device=self.device)
        if file.limits.dissipation is not None:
            viscosity = file.parameters["viscosity"]
            self.guardrails = (DissipationLimit(file.limits.dissipation, viscosity, file.domain.lengths),)
        self._distance = None if file.cost.corner is None else self._far_from(file.cost.corner)

    def _crest(self, wave: tuple[int, int], phase: float) -> tuple[float, float]:
        """Return a point where a wave is highest: n·x/L + φ = 0."""
        square = wave[0] ** 2 + wave[1] ** 2
        x, y = (length * (-phase * n / square % 1.0) for n, length in zip(wave, self.lengths, strict=True))
        return x, y

    def _far_from(self, corner: tuple[float, float]) -> Tensor:
        """Return |x - x_c|²/|L|² at the centres of the cells, (X, Y)."""
        lengths = torch.tensor(self.file.domain.lengths, dtype=torch.float64, device=self.device)
        parts = [
            (length * ((torch.arange(n, dtype=torch.float64, device=self.device) + 0.5) / n - share)).square()
            for n, length, share in zip(self.grid, lengths, corner, strict=True)
        ]
        return (parts[0][:, None] + parts[1]) / lengths.square().sum()

    # ------------------------------------------------------------------------------------------------ observations

    @property
    def size(self) -> int:
        """Numbers of a state, S."""
        return self.stepper.size

    @property
    def targeted(self) -> bool:
        """Whether every episode has a field of its own to reach: never."""
        return False

    @property
    def prices_squares(self) -> bool:
        """Whether a state costs the mean of |u|² alone: where no corner is asked for."""
        return self.file.cost.corner is None

    @property
    def observed(self) -> int:
        """How many values an observation has, M: all channels at every node, or at every sensor."""
        return len(self.channels) * (math.prod(self.grid) if self._places is None else len(self._places))

    def observe(self, state: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return what the sensors read, (..., M), channel by channel on the grid, sensor by sensor at points."""
        whole = self._places is None
        values = self.field(state).flatten(-3) if whole else self.stepper.read(state, self._places)  # type: ignore[arg-type]
        return values if noise is None else values + noise

    def field(self, state: Tensor) -> Tensor:
        """Return the channels on the grid, (..., C, X, Y), float64, of states (..., S)."""
        return self.stepper.field(state)

    def state(self, field: Tensor) -> Tensor:
        """Return the states (..., S) of fields (..., C, X, Y); of a periodic flow without divergence and mean."""
        shape = (len(self.channels), *self.grid)
        if field.shape[-3:] != shape:
            raise ShapeError(f"{self.name}: fields have shape {tuple(field.shape)}, expected (..., {shape}).")
        return self.stepper.state(field)

    def pictured(self, field: Tensor) -> Tensor:
        """Return the field to look at, (..., X, Y), of fields (..., C, X, Y): the vorticity, or the smoke."""
        return self.stepper.pictured(field.to(torch.float64))

    def profile(self, field: Tensor) -> Tensor:
        """Return the vorticity on the line in the middle, or the mean of the smoke over the height, (..., X)."""
        picture = self.pictured(field)
        return picture.mean(dim=-1) if self.boundary[1] == "wall" else picture[..., self.grid[1] // 2]

    # ------------------------------------------------------------------------------------------------ states

    def target(self, seeds: Sequence[int]) -> Tensor | None:
        """Return None."""
        return None

    def _drawn(self, seeds: Sequence[int]) -> Tensor:
        family = self.file.starts()
        draws = torch.stack([family.draw(random_stream(s, "environment", 0, "start")) for s in seeds])
        lengths = torch.tensor([self.file.domain.lengths], dtype=torch.float64).expand(len(draws), -1)
        found = family.fields(draws, self.grid, lengths).to(self.device)
        if found.shape[1] != len(self.channels):
            raise DataError(
                f"{self.name}: its initial fields have {found.shape[1]} channels, the flow has "
                f"{', '.join(self.channels)}. Choose another family."
            )
        return self.stepper.state(found)

    def mean_square(self, state: Tensor) -> Tensor:
        """Return the mean over the domain of the sum of squares of the channels, (...)."""
        return self.field(state).square().sum(dim=-3).mean(dim=(-2, -1))

    def along(self, state: Tensor) -> Tensor:
        """Return the part of the field in the direction of each actuator's force, (B, A), as root mean square.

        <u·b_j> / √<|b_j|²>, averages over the domain; feedback against it takes energy out.
        """
        size = self.profiles.square().sum(dim=1).mean(dim=(-2, -1)).sqrt()
        field = self.field(state)[:, None]
        return (field[:, :, : self.profiles.shape[1]] * self.profiles).sum(dim=2).mean(dim=(-2, -1)) / size

    # ------------------------------------------------------------------------------------------------ time

    def source(self, actions: Tensor) -> Tensor:
        """Return Σ_j a_j b_j, (B, C, X, Y), for amplitudes (B, A)."""
        total = actions[:, 0, None, None, None] * self.profiles[0]
        for j in range(1, self.actuators):  # a matrix product adds in an order that depends on the batch
            total = total + actions[:, j, None, None, None] * self.profiles[j]
        return total

    def step(self, state: Tensor, actions: Tensor) -> Tensor:
        """Return states (B, S) one control period later under amplitudes (B, A); bounds are the caller's.

        Raises:
            ShapeError: shapes that do not fit.
        """
        self._check_actions(state, actions)
        return self.stepper.step(state, self.source(actions.to(torch.float64)))

    def measure(self, state: Tensor) -> Tensor:
        """Return E (...) of :class:`pdessl.control.plane_description.PlaneCost` in states (..., S)."""
        if self._distance is None:
            return self.mean_square(state)
        smoke = self.pictured(self.field(state))
        return (smoke * self._distance).sum(dim=(-2, -1)) / smoke.sum(dim=(-2, -1))

    def cost(self, state: Tensor, actions: Tensor, target: Tensor | None = None) -> Tensor:
        """Return the cost (...) of periods that end in states (..., S) under amplitudes (..., A), without the end's."""
        weights = self.file.cost
        effort = weights.action * actions.square().mean(dim=-1)
        return effort + weights.state * self.measure(state) if weights.state else effort

    def terminal_cost(self, state: Tensor, target: Tensor | None = None) -> Tensor:
        """Return what the end of an episode costs, (...), in states (..., S)."""
        weight = self.file.cost.terminal
        return weight * self.measure(state) if weight else state.new_zeros(state.shape[:-1])

    def simulator(self, actions: Tensor) -> Simulator:
        """Return the simulator of the equation under amplitudes (B, A, S), held over the control periods from 0 on.

        Its trajectories at whole periods are those of :meth:`step`.
        """
        times = self.file.control.period * torch.arange(actions.shape[2], dtype=torch.float64, device=self.device)
        forcing = Actuators(self.profiles, actions.to(torch.float64), times)
        return self.file.simulator(substeps=self.file.solver.substeps, forcing=forcing, dtype=torch.float64)

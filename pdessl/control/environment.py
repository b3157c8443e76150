"""Controlled PDEs: actuators fixed in space, amplitudes held over a period, states that are steered."""

# B batch, H control periods, A actuators, U numbers of an unseen force, M observed values, X grid points
# K kept Fourier modes, D real coordinates

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pdessl.control.controlled import ControlledPDE, pairwise_sum
from pdessl.control.description import EnvironmentFile
from pdessl.control.stepping import HeldStepper
from pdessl.errors import DataError, ShapeError
from pdessl.solvers import Actuators, InitialCondition, PeriodicSimulator, TimeVarying, random_stream
from pdessl.solvers.pseudo_spectral import to_modes

__all__ = ["Environment"]

OVERSAMPLING = 16  # of the grid on which a profile is projected: what it cannot hold is below round-off for w > dx/3


class Environment(ControlledPDE):
    """A controlled PDE on a periodic interval.

        u_t = F(u) + Σ_j a_j(t) b_j(x) + Σ_k ξ_k(t) f_k(x),        a_j, ξ_k held over each control period

    ξ are the numbers of the force that nobody sees, where the environment has one: standard normal, drawn anew in every
    period. Whoever imagines may give them, behind the amplitudes; where they are not given they are 0. Amplitudes of
    pumps are velocities, and filters take what comes near, see :class:`pdessl.control.description.ActuatorLayout`.

    The state is the field's kept Fourier modes, (B, K), complex128; :meth:`field` gives it on the grid. Every method
    acts on rows independently: with one thread a row's result is the same, bit by bit, in any batch; the Fourier
    transforms of more threads may differ in the last bit. An episode is a function of the environment, a seed and the
    actions alone. :meth:`step` is differentiable in state and actions.

    Args:
        name: for messages and reports.
        file: what the environment's file says.
        device: where states lie.
    """

    file: EnvironmentFile

    def __init__(self, name: str, file: EnvironmentFile, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.name, self.file, self.device = name, file, torch.device(device)
        self.points, self.steps = file.solver.points, file.control.steps
        self.actuators, self.bound = len(file.actuators.positions), file.actuators.bound
        self.grid, self.lengths, self.boundary = (self.points,), (file.domain.length,), ("periodic",)
        self.places = tuple((x,) for x in file.actuators.positions)
        self._carried = file.actuators.kind == "pump" or bool(file.filters)
        # What is moved and filtered is advanced in pieces, with both between them.
        whole = (file.control.period, file.solver.substeps)
        piece = (file.control.period / file.solver.substeps, 1)
        self._advance = HeldStepper(file.simulator(), *(piece if self._carried else whole), device)
        self.modes = self._advance.modes
        self._kept = self._filtered().to(self.device)
        self.coordinates_count = 2 * self.modes - 1
        self.profiles = self._profiles().to(self.device)
        self._forces = self._force_profiles().to(self.device)
        self.undetermined = len(self._forces)
        self._sensors = self._sensor_rows()

    # --------------------------------------------------------------------------------- actuators and sensors

    def _profiles(self) -> Tensor:
        """Return the actuators' profiles, projected on the kept modes, on the grid, shape (A, X), float64.

        Projected from a grid so fine that a shift of an actuator is a shift of its profile also between nodes.
        """
        layout, fine = self.file.actuators, OVERSAMPLING * self.points
        values = Actuators.gaussian(layout.positions, layout.width, fine, self.file.domain.length)
        modes = torch.fft.rfft(values, norm="forward")[:, : self.modes]
        return torch.fft.irfft(modes, n=self.points, norm="forward")

    def _force_profiles(self) -> Tensor:
        """Return the profiles f_k of the force that nobody sees, on the grid, (U, X), float64; (0, X) without one."""
        force = self.file.force()
        if force is None:
            return torch.zeros(0, self.points, dtype=torch.float64)
        numbers = torch.eye(2 * len(force.waves), dtype=torch.float64)[..., None]
        return force.forcing(numbers, self.points)(torch.zeros(1, dtype=torch.float64))

    def _filtered(self) -> Tensor:
        """Return the share that the filters leave of the field in half a piece of a period, on the grid, (X,)."""
        file, half = self.file, 0.5 * self.file.control.period / self.file.solver.substeps
        rates = torch.zeros(self.points, dtype=torch.float64)
        for one in file.filters:
            profile = Actuators.gaussian([one.position], one.width, self.points, file.domain.length)[0]
            rates = rates + one.rate * profile
        return torch.exp(-half * rates)

    def _sensor_rows(self) -> Tensor | None:
        places = self.file.sensors.positions
        if places is None:
            return None
        x = torch.tensor(places, dtype=torch.float64, device=self.device)[:, None]
        k = 2 * math.pi / self.file.domain.length * torch.arange(self.modes, dtype=torch.float64, device=self.device)
        weights = torch.full((self.modes,), 2.0 / self.points, dtype=torch.float64, device=self.device)
        weights[0] /= 2
        return torch.polar(weights.expand(len(places), -1), k * x)

    @property
    def size(self) -> int:
        """Kept modes, K."""
        return self.modes

    @property
    def targeted(self) -> bool:
        """Whether every episode has a field of its own to reach."""
        return self.file.cost.target is not None

    @property
    def prices_squares(self) -> bool:
        """Whether a state costs the mean of (u - u*)² alone: where no overlap is asked for."""
        return not self.file.cost.overlap

    @property
    def observed(self) -> int:
        """How many values an observation has, M."""
        return self.points if self._sensors is None else len(self._sensors)

    def observe(self, state: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return what the sensors read, (..., M), from states (..., K), with noise (..., M) added where it is given."""
        rows = self._sensors
        values = self.field(state) if rows is None else pairwise_sum((state[..., None, :] * rows).real)
        return values if noise is None else values + noise

    def unseen(self, seeds: Sequence[int]) -> Tensor:
        """Return the numbers ξ of the unseen force in the episodes of these seeds, (B, T, U); U = 0 without one."""
        force = self.file.force()
        if force is None:
            return super().unseen(seeds)
        drawn = [force.draw(random_stream(int(s), "environment", 0, "unseen force")) for s in seeds]
        return torch.stack(drawn).transpose(1, 2).to(self.device)

    # ----------------------------------------------------------------------------------------------- states

    def field(self, state: Tensor) -> Tensor:
        """Return the field on the grid, (..., X), float64, of states (..., K)."""
        return torch.fft.irfft(state, n=self.points)

    def state(self, field: Tensor) -> Tensor:
        """Return the states (..., K) of fields (..., X); what the kept modes do not hold is left out."""
        if field.shape[-1] != self.points:
            raise ShapeError(f"{self.name}: fields have shape {tuple(field.shape)}, expected (..., {self.points}).")
        return to_modes(field.to(torch.float64))

    def coordinates(self, state: Tensor) -> Tensor:
        """Return states (..., K) as real coordinates (..., D), D = 2K - 1, whose squares sum to the mean of u²."""
        scaled = state / self.points
        root = math.sqrt(2.0)
        return torch.cat([scaled[..., :1].real, root * scaled[..., 1:].real, root * scaled[..., 1:].imag], dim=-1)

    def from_coordinates(self, coordinates: Tensor) -> Tensor:
        """Return the states of coordinates, the inverse of :meth:`coordinates`."""
        mean, real, imaginary = coordinates.split([1, self.modes - 1, self.modes - 1], dim=-1)
        root = math.sqrt(2.0)
        scaled = torch.cat([torch.complex(mean, torch.zeros_like(mean)), torch.complex(real, imaginary) / root], dim=-1)
        return self.points * scaled

    def mean_square(self, state: Tensor) -> Tensor:
        """Return the mean of u² over the domain, (...), of states (..., K)."""
        power = state.real.square() + state.imag.square()
        return (2 * pairwise_sum(power) - power[..., 0]) / self.points**2

    def target(self, seeds: Sequence[int]) -> Tensor | None:
        """Return the states (B, K) that the episodes of these seeds are to reach; None where it is 0."""
        family = self.file.targets()
        return None if family is None else self._fields(family, seeds, "target")

    def _drawn(self, seeds: Sequence[int]) -> Tensor:
        return self._fields(self.file.starts(), seeds, "start")

    def _fields(self, family: InitialCondition, seeds: Sequence[int], purpose: str) -> Tensor:
        draws = torch.stack([family.draw(random_stream(int(s), "environment", 0, purpose)) for s in seeds])
        lengths = torch.full((len(draws), 1), self.file.domain.length, dtype=torch.float64)
        return to_modes(family.fields(draws, (self.points,), lengths)[:, 0]).to(self.device)

    # ------------------------------------------------------------------------------------------------- time

    def source(self, actions: Tensor) -> Tensor:
        """Return Σ_j a_j b_j + Σ_k ξ_k f_k on the grid, (B, X), for amplitudes (B, A), or (B, A + U) with ξ behind."""
        profiles = torch.cat([self.profiles, self._forces]) if actions.shape[1] > self.actuators else self.profiles
        total = actions[:, :1] * profiles[0]
        for j in range(1, len(profiles)):  # a matrix product adds in an order that depends on the batch
            total = total + actions[:, j : j + 1] * profiles[j]
        return total

    def step(self, state: Tensor, actions: Tensor) -> Tensor:
        """Return states (B, K) one control period later under amplitudes (B, A), or (B, A + U) with ξ behind.

        Bounds are the caller's.

        Raises:
            ShapeError: shapes that do not fit.
        """
        self._check_actions(state, actions)
        actions = actions.to(torch.float64)
        if self._carried:
            return self._carry(state, actions)
        return self._advance(state, to_modes(self.source(actions)))

    def _carry(self, state: Tensor, actions: Tensor) -> Tensor:
        """Return states a period later where there are pumps or filters.

        Strang's splitting, half of the filters before and half after each piece; the shift commutes with the linear
        equation and is exact.
        """
        pumped, pieces = self.file.actuators.kind == "pump", self.file.solver.substeps
        acting = torch.cat([torch.zeros_like(actions[:, : self.actuators]), actions[:, self.actuators :]], dim=1)
        source = to_modes(self.source(acting if pumped else actions))
        k = 2 * math.pi / self.file.domain.length * torch.arange(self.modes, dtype=torch.float64, device=self.device)
        velocity = pairwise_sum(actions[:, : self.actuators]) if pumped else torch.zeros_like(actions[:, 0])
        angle = velocity[:, None] * (self.file.control.period / pieces) * k
        shift = torch.complex(angle.cos(), -angle.sin())
        for _ in range(pieces):
            state = self._take(state)
            state = self._take(shift * self._advance(state, source))
        return state

    def _take(self, state: Tensor) -> Tensor:
        return to_modes(self._kept * self.field(state)) if self.file.filters else state

    def cost(self, state: Tensor, actions: Tensor, target: Tensor | None = None) -> Tensor:
        """Return the cost (...) of periods that end in states (..., K) under amplitudes (..., A), without the end's.

        See :class:`pdessl.control.CostWeights`; the target (..., K) counts where the environment has one.
        """
        weights = self.file.cost
        error = self.mean_square(state if target is None else state - target)
        total = weights.state * error + weights.action * (pairwise_sum(actions.square()) / actions.shape[-1])
        if not weights.overlap or target is None:
            return total
        shared = 0.25 * (self.mean_square(state + target) - self.mean_square(state - target))
        return total + weights.overlap * (1 - shared / self.mean_square(target))

    def terminal_cost(self, state: Tensor, target: Tensor | None = None) -> Tensor:
        """Return what the end of an episode costs, (...), in states (..., K)."""
        return self.file.cost.terminal * self.mean_square(state if target is None else state - target)

    def simulator(self, actions: Tensor) -> PeriodicSimulator:
        """Return the simulator of the equation under what acts, (B, A, S) or (B, A + U, S), held over the periods.

        Its trajectories at whole periods are those of :meth:`step`, bit by bit.

        Raises:
            DataError: an environment with pumps or filters.
        """
        if self._carried:
            raise DataError(f"{self.name} has pumps or filters, which no simulator has; use rollout.")
        forcing = _Held(self, actions.to(torch.float64))
        return self.file.simulator(substeps=self.file.solver.substeps, forcing=forcing, dtype=torch.float64)


class _Held(TimeVarying):
    """The source of an environment under given amplitudes (B, A, S), or (B, A + U, S), for the simulator."""

    held = True

    def __init__(self, environment: Environment, actions: Tensor) -> None:
        period = environment.file.control.period
        self.environment, self.actions, self.period = environment, actions, period
        self.times = period * torch.arange(actions.shape[2], dtype=torch.float64, device=actions.device)

    @property
    def switches(self) -> Tensor:
        return self.times

    def __call__(self, time: Tensor) -> Tensor:
        index = (time / self.period).floor().to(torch.int64).clamp(0, self.actions.shape[2] - 1)
        chosen = self.actions.gather(2, index[:, None, None].expand(-1, self.actions.shape[1], 1))
        return self.environment.source(chosen[..., 0])

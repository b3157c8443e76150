"""Experiments that may be made: initial fields of a family, forces, places of sensors, times, and what forbids one."""

# n experiments, d free numbers of one, K wave numbers, A actuators, S intervals, M sensors, T times, X grid points

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pdessl.control.description import Domain
from pdessl.control.places import Places, on_lattice
from pdessl.errors import DataError, SchemaError, ShapeError
from pdessl.schema import Count, Finite, Natural, Positive, fill
from pdessl.solvers import Actuators, fourier_series

__all__ = [
    "Experiments",
    "FieldRange",
    "ForceRange",
    "Limits",
    "Refusal",
    "SensorChoice",
    "Space",
    "TimeChoice",
]


@dataclass(frozen=True)
class FieldRange:
    """Initial fields u(x) = m + Σ_l A_l sin(2π l x / L + φ_l).

    Args:
        wave_numbers: the l, each >= 1.
        amplitude: lowest and highest A_l, >= 0, unit of u. Phases are free.
        mean: lowest and highest m, unit of u.
    """

    wave_numbers: tuple[Count, ...]
    amplitude: tuple[Natural, Natural]
    mean: tuple[Finite, Finite] = (0.0, 0.0)


@dataclass(frozen=True)
class ForceRange:
    """A source term Σ_j a_j(t) b_j(x) of Gaussian actuators whose amplitudes are held over equal intervals.

    Args:
        positions: of the actuators, length.
        width: of the Gaussians, > 0, length.
        amplitude: lowest and highest a_j, unit of u over time.
        intervals: S, into which the time up to the last admissible one is divided.
    """

    positions: tuple[Finite, ...]
    width: Positive
    amplitude: tuple[Finite, Finite]
    intervals: Count = 1


@dataclass(frozen=True)
class SensorChoice:
    """Sensors that read u at a node of the grid.

    Args:
        count: M.
        positions: where they stand; None: they are chosen.
        between: where they may stand, [lowest, highest]; None: anywhere.
        distance: least distance of two of them, length; at least one node in any case.
    """

    count: Count
    positions: tuple[Finite, ...] | None = None
    between: tuple[Finite, Finite] | None = None
    distance: Natural = 0.0


@dataclass(frozen=True)
class TimeChoice:
    """When sensors are read: multiples of a step.

    Args:
        count: T.
        step: > 0, time.
        end: last admissible time.
        start: first admissible time, > 0: what the field is at time 0 is known.
        positions: the times; None: they are chosen.
        gap: least time between two readings; at least one step in any case.
        unit: of time.
    """

    count: Count
    step: Positive
    end: Positive
    start: Positive | None = None
    positions: tuple[Positive, ...] | None = None
    gap: Natural = 0.0
    unit: str = "time"


@dataclass(frozen=True)
class Limits:
    """What an experiment may not pass.

    Args:
        peak: of |u| at the start.
        energy: of the mean of u² at the start.
        force: of the root mean square of the amplitudes of the actuators.
    """

    peak: Positive | None = None
    energy: Positive | None = None
    force: Positive | None = None


@dataclass(frozen=True, eq=False)
class Refusal:
    """A limit, and the values of experiments that it is about: those above it are not admissible.

    Args:
        name: of the limit.
        values: (n,).
        limit: the largest admissible value.
    """

    name: str
    values: Tensor
    limit: float


@dataclass(frozen=True, eq=False)
class Experiments:
    """Experiments in physical numbers.

    Args:
        mean: m, (n,).
        amplitudes, phases: A_l and φ_l, (n, K).
        force: (n, A, S), S = A = 0 without a force.
        sensors: nodes of the grid, (n, M), ascending.
        times: numbers of steps, (n, T), ascending.
    """

    mean: Tensor
    amplitudes: Tensor
    phases: Tensor
    force: Tensor
    sensors: Tensor
    times: Tensor

    def __len__(self) -> int:
        return len(self.mean)


class Space:
    """All experiments that a file admits, as points of the unit cube.

    A point of the cube [0, 1]^d is an experiment: its coordinates are the shares of the ranges of amplitudes, phases,
    mean and force, and then those of the sensors and times, in any order: the least distances between these hold for
    every point, so that no search has to find out.

    Args:
        domain, points: the interval and the nodes X of its grid.
        initial, force, sensors, times, limits: see these classes.

    Raises:
        SchemaError: ranges in the wrong order, more sensors or times than fit, or places outside.
    """

    def __init__(
        self,
        domain: Domain,
        points: int,
        initial: FieldRange,
        sensors: SensorChoice,
        times: TimeChoice,
        force: ForceRange | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.domain, self.points, self.initial, self.force = domain, points, initial, force
        self.sensors, self.times, self.limits = sensors, times, limits or Limits()
        self.frames = round(times.end / times.step)
        for name, pair in (
            ("initial.amplitude", initial.amplitude),
            ("initial.mean", initial.mean),
            ("force.amplitude", force.amplitude if force else (0.0, 0.0)),
            ("sensors.between", sensors.between or (0.0, domain.length)),
            ("times: start and end", (times.start or times.step, times.end)),
        ):
            if pair[0] > pair[1]:
                raise SchemaError(f"{name}: [{pair[0]:g}, {pair[1]:g}]; expected the lower number first.")
        waves = initial.wave_numbers
        if not waves or len(set(waves)) < len(waves) or 3 * max(waves) >= points:
            raise SchemaError(
                f"initial.wave_numbers {list(waves)}: expected some, all different, below {points / 3:.0f} on a grid "
                f"of {points} points."
            )
        node = domain.length / points
        low, high = sensors.between or (0.0, domain.length)
        first, last = math.ceil(low / node - 1e-9), math.floor(high / node + 1e-9)
        apart = max(1, math.ceil(sensors.distance / node - 1e-9))
        last = min(last, first + points - apart)  # also across the end of the period
        self._sensors = Places.between("sensors", sensors.count, sensors.positions, node, first, last, apart)
        apart = max(1, math.ceil(times.gap / times.step - 1e-9))
        first = max(1, math.ceil((times.start or times.step) / times.step - 1e-9))
        self._times = Places.between("times", times.count, times.positions, times.step, first, self.frames, apart)
        k = len(waves)
        self._mean_free = initial.mean[0] < initial.mean[1]
        self._force_size = len(force.positions) * force.intervals if force else 0
        self._setting = int(self._mean_free) + 2 * k + self._force_size
        self.dimensions = self._setting + self._sensors.free + self._times.free
        x = domain.length
        self.profiles = (
            Actuators.gaussian(force.positions, force.width, points, x)
            if force
            else torch.zeros(0, points, dtype=torch.float64)
        )

    def decoded(self, cube: Tensor) -> Experiments:
        """Return the experiments of points of the cube (n, d).

        Raises:
            ShapeError: another number of coordinates.
            DataError: points outside.
        """
        if cube.ndim != 2 or cube.shape[1] != self.dimensions:
            raise ShapeError(f"experiments {tuple(cube.shape)}; expected (n, {self.dimensions}).")
        if not bool(((cube >= 0) & (cube <= 1)).all()):
            raise DataError("experiments outside the unit cube; each coordinate is a share of a range, 0 to 1.")
        n, k = len(cube), len(self.initial.wave_numbers)
        low, high = self.initial.amplitude
        amplitudes = low + (high - low) * cube[:, :k]
        phases = 2 * math.pi * cube[:, k : 2 * k]
        mean = cube.new_full((n,), self.initial.mean[0])
        if self._mean_free:
            mean = self.initial.mean[0] + (self.initial.mean[1] - self.initial.mean[0]) * cube[:, 2 * k]
        force = cube.new_zeros(n, 0, 0)
        if self.force is not None:
            least, most = self.force.amplitude
            share = cube[:, self._setting - self._force_size : self._setting]
            force = (least + (most - least) * share).reshape(n, len(self.force.positions), self.force.intervals)
        end = self._setting + self._sensors.free
        return Experiments(
            mean, amplitudes, phases, force,
            self._sensors.of(cube[:, self._setting : end]) % self.points, self._times.of(cube[:, end:]),
        )  # fmt: skip

    def evenly(self, share: Tensor, scale: float = 1.0) -> Tensor:
        """Return points of the cube (n, d) with equally spaced sensors and times.

        Args:
            share: points (n, d). Of the sensors, and of the times, the first number says where in its part of the
                range each stands.
            scale: what is left of the distance of amplitudes, mean and force from the middle of their ranges, 0 to 1.
        """
        found = share.clone()
        k = len(self.initial.wave_numbers)
        for part in (slice(0, k), slice(2 * k, self._setting)):  # phases are between them
            found[:, part] = 0.5 + (share[:, part] - 0.5) * scale
        for start, places in ((self._setting, self._sensors), (self._setting + self._sensors.free, self._times)):
            if places.free:
                parts = torch.arange(places.free, dtype=share.dtype)
                found[:, start : start + places.free] = (parts + share[:, start, None]) / places.free
        return found

    def fields(self, experiments: Experiments) -> Tensor:
        """Return the initial fields on the grid, (n, X), float64."""
        modes = torch.zeros(len(experiments), max(self.initial.wave_numbers) + 1, dtype=torch.complex128)
        modes[:, 0] = experiments.mean.to(modes)
        # A sin(θ + φ) = Re(-i A e^{iφ} e^{iθ})
        modes[:, list(self.initial.wave_numbers)] = -1j * experiments.amplitudes * torch.exp(1j * experiments.phases)
        return fourier_series(modes, self.points)

    def refusals(self, experiments: Experiments) -> list[Refusal]:
        """Return every limit with the values it is about."""
        fields = self.fields(experiments)
        found = []
        if self.limits.peak is not None:
            found.append(Refusal("limits.peak, of |u| at the start", fields.abs().amax(dim=1), self.limits.peak))
        if self.limits.energy is not None:
            energy = fields.square().mean(dim=1)
            found.append(Refusal("limits.energy, mean of u² at the start", energy, self.limits.energy))
        if self.limits.force is not None and self.force is not None:
            strength = experiments.force.flatten(1).square().mean(dim=1).sqrt()
            found.append(Refusal("limits.force, root mean square of amplitudes", strength, self.limits.force))
        return found

    def described(self, experiments: Experiments, row: int) -> dict[str, Any]:
        """Return one experiment as plain data in physical units, which :meth:`read` takes."""
        e, node = experiments, self.domain.length / self.points
        terms = [
            {"wave_number": wave, "amplitude": float(e.amplitudes[row, i]), "phase": float(e.phases[row, i])}
            for i, wave in enumerate(self.initial.wave_numbers)
        ]
        found: dict[str, Any] = {"initial": {"mean": float(e.mean[row]), "terms": terms}}
        if self.force is not None:
            found["force"] = e.force[row].tolist()
        found["sensors"] = [_short(int(i) * node) for i in e.sensors[row]]
        found["times"] = [_short(int(i) * self.times.step) for i in e.times[row]]
        return found

    def read(self, content: Mapping[str, Any], where: str) -> Experiments:
        """Return one experiment from plain data, also of somebody else's choice.

        Raises:
            SchemaError: other keys or numbers than the experiments of this space have, or places off the grid.
        """
        found = fill(_Described, content, where)
        waves = tuple(term.wave_number for term in found.initial.terms)
        force = torch.tensor(found.force, dtype=torch.float64)[None] if found.force else torch.zeros(1, 0, 0).double()
        shape = (len(self.force.positions), self.force.intervals) if self.force else (0, 0)
        if waves != self.initial.wave_numbers or tuple(force.shape[1:]) != shape:
            raise SchemaError(
                f"{where}: wave numbers {list(waves)}, force {tuple(force.shape[1:])}; expected those of the study, "
                f"{list(self.initial.wave_numbers)} and {shape}."
            )
        parts = []
        for what, values, count, unit, most in (
            ("sensors", found.sensors, self.sensors.count, self.domain.length / self.points, self.points - 1),
            ("times", found.times, self.times.count, self.times.step, self.frames),
        ):
            numbers, on = on_lattice(values, unit)
            if not on or len(numbers) != count or min(numbers, default=0) < 0 or max(numbers, default=0) > most:
                raise SchemaError(f"{where}: {what} {list(values)}; expected {count} multiples of {unit:g}.")
            parts.append(torch.tensor(sorted(numbers))[None])
        terms = found.initial.terms
        return Experiments(
            torch.tensor([found.initial.mean], dtype=torch.float64),
            torch.tensor([[t.amplitude for t in terms]], dtype=torch.float64),
            torch.tensor([[t.phase for t in terms]], dtype=torch.float64),
            force, *parts,
        )  # fmt: skip


def _short(value: float) -> float:
    """Return a number to nine digits, whatever its unit: 0.3, not 0.30000000000000004."""
    return float(f"{value:.9g}")


@dataclass(frozen=True)
class _Term:
    wave_number: Count
    amplitude: Natural
    phase: Finite


@dataclass(frozen=True)
class _Series:
    mean: Finite
    terms: tuple[_Term, ...]


@dataclass(frozen=True)
class _Described:
    initial: _Series
    sensors: tuple[Finite, ...]
    times: tuple[Finite, ...]
    force: tuple[tuple[Finite, ...], ...] = ()

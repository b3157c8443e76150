"""Environment files: which equation, where its actuators and sensors are, what an episode costs."""

# A actuators, M sensors

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pdessl.errors import SchemaError, did_you_mean
from pdessl.schema import Count, Finite, Natural, Positive, check_keys
from pdessl.solvers import (
    FAMILIES,
    SIMULATORS,
    AdvectionDiffusion,
    Heat,
    InitialCondition,
    PeriodicSimulator,
    RandomForcing,
)

__all__ = [
    "ActuatorLayout",
    "CostWeights",
    "Domain",
    "EnvironmentFile",
    "Filter",
    "Schedule",
    "SensorLayout",
    "UnseenForce",
    "family_of",
]


@dataclass(frozen=True)
class Domain:
    """A periodic interval [0, length)."""

    length: Positive
    unit: str = "length"


@dataclass(frozen=True)
class SolverChoice:
    """The simulator of the equation, its grid, and its inner steps in one control period."""

    simulator: str
    points: Count
    substeps: Count


@dataclass(frozen=True)
class ActuatorLayout:
    """Gaussian actuators, b_j(x) = exp(-|x - x_j|²/(2 w²)), |x - x_j| the distance to the nearest image; or pumps.

    Args:
        kind: ``source``: an amplitude times its profile is added to u_t. ``pump``: amplitudes are velocities; what is
            in the channel moves with their sum, everywhere alike (incompressible), - Σ_j a_j u_x. A pump has a place
            and no profile.
        positions: x_j in [0, domain length), length; A of them.
        width: w, > 0, length.
        bound: amplitudes lie within ±bound, unit of the field over time.
    """

    positions: tuple[Finite, ...]
    width: Positive = 1.0
    bound: Positive = 1.0
    kind: Literal["source", "pump"] = "source"


@dataclass(frozen=True)
class Filter:
    """A place where the field is lost, u_t = ... - rate exp(-|x - position|²/(2 width²)) u.

    Args:
        position: in [0, domain length), length.
        width: > 0, length.
        rate: > 0, 1/time.
    """

    position: Finite
    width: Positive
    rate: Positive


@dataclass(frozen=True)
class Schedule:
    """How long an amplitude is held, time, and how many of these periods an episode has."""

    period: Positive
    steps: Count


@dataclass(frozen=True)
class SensorLayout:
    """What is observed: the field at points, with white noise.

    Args:
        positions: in [0, domain length), length; none: every node of the grid.
        noise: standard deviation, unit of the field.
    """

    positions: tuple[Finite, ...] | None = None
    noise: Natural = 0.0


@dataclass(frozen=True)
class CostWeights:
    """Cost of a control period, and of the end of an episode.

        c_t = state · mean (u_{t+1} - u*)² + action · mean_j a_j² + overlap · (1 - <u_{t+1}, u*>/<u*, u*>),
        the last one + terminal · mean (u_T - u*)²

    Overlap: 1 where nothing has arrived, whether it is elsewhere or lost, 0 where all has; the difference also rewards
    losing it.

    Args:
        state, action, terminal, overlap: weights, >= 0; overlap needs a target.
        target: family of random fields that u* is drawn from, as an initial condition is; none: u* = 0.
    """

    state: Natural = 1.0
    action: Natural = 0.0
    terminal: Natural = 0.0
    overlap: Natural = 0.0
    target: dict[str, Any] | None = None


@dataclass(frozen=True)
class UnseenForce:
    """A force that no sensor sees: new random amplitudes of a few waves in every control period of an episode.

    Args:
        amplitude: deviation of the force at a place, unit of the field over time.
        wave_numbers: lowest and highest, 1 <= low <= high.
        slope: of the spectrum, see :class:`pdessl.solvers.RandomForcing`.
    """

    amplitude: Natural
    wave_numbers: tuple[Count, Count] = (1, 2)
    slope: Finite = 0.0


@dataclass(frozen=True)
class EnvironmentFile:
    """A file of ``environments/``, read and checked; every length in the unit of the domain.

    Args:
        title, about, known, chosen: texts.
        equation: name in the catalog; that of the simulator.
        burn_in: time that passes without control before an episode begins, a multiple of the control period.
        unseen: a force that is not observed, from the beginning of an episode on; none: none.
        filters: places where the field is lost.
    """

    equation: str
    domain: Domain
    solver: SolverChoice
    initial_condition: dict[str, Any]
    actuators: ActuatorLayout
    control: Schedule
    parameters: dict[str, Finite]
    cost: CostWeights = CostWeights()
    sensors: SensorLayout = SensorLayout()
    burn_in: Natural = 0.0
    unseen: UnseenForce | None = None
    filters: tuple[Filter, ...] = ()
    title: str = ""
    about: str = ""
    known: str = ""
    chosen: str = ""

    def __post_init__(self) -> None:
        length = self.domain.length
        for name, places in (("actuators", self.actuators.positions), ("sensors", self.sensors.positions)):
            if places is None:
                continue
            outside = [x for x in places if not 0 <= x < length]
            if outside or not places or len(set(places)) < len(places):
                raise SchemaError(
                    f"{name}.positions are {list(places)}; expected some, all different, in [0, {length:g})."
                )
        kind = SIMULATORS.get(self.solver.simulator)
        known = [name for name, found in SIMULATORS.items() if issubclass(found, PeriodicSimulator)]
        if kind is None or not issubclass(kind, PeriodicSimulator):
            raise SchemaError(
                f"solver.simulator '{self.solver.simulator}' cannot be controlled."
                f"{did_you_mean(self.solver.simulator, known)} Those that can: {', '.join(known)}."
            )
        if kind.equation != self.equation:
            raise SchemaError(
                f"solver.simulator '{self.solver.simulator}' solves '{kind.equation}', not '{self.equation}'."
            )
        if (self.actuators.kind == "pump" or self.filters) and not issubclass(kind, (AdvectionDiffusion, Heat)):
            raise SchemaError(
                f"pumps and filters move and take what an equation carries; expected the simulator advection_diffusion "
                f"or heat, found '{self.solver.simulator}'."
            )
        check_keys(self.parameters, kind.parameter_names, kind.parameter_names, "parameters")
        waits = self.burn_in / self.control.period
        if abs(waits - round(waits)) > 1e-9 * max(1.0, waits):
            raise SchemaError(f"burn_in {self.burn_in:g} is not a multiple of control.period {self.control.period:g}.")
        for name, content in (("initial_condition", self.initial_condition), ("cost.target", self.cost.target)):
            if content is not None:
                family_of(content, name)
        if self.cost.overlap and self.cost.target is None:
            raise SchemaError("cost.overlap is that with a target; give cost.target, or leave it out.")
        force = self.force()
        if force is not None and 3 * force.wave_numbers[1] >= self.solver.points:
            raise SchemaError(
                f"unseen.wave_numbers reach {force.wave_numbers[1]}; a grid of {self.solver.points} points keeps those "
                f"below {self.solver.points / 3:.0f}."
            )

    def force(self) -> RandomForcing | None:
        """Return the family of forces that nobody sees, new ones in every control period; None where there is none."""
        if self.unseen is None:
            return None
        period, unseen = self.control.period, self.unseen
        duration = period * self.control.steps
        return RandomForcing(unseen.amplitude, period, duration, unseen.wave_numbers, unseen.slope)

    def simulator(self, **settings: Any) -> PeriodicSimulator:
        """Return the simulator of the equation on the grid of the file, with further settings."""
        kind: Any = SIMULATORS[self.solver.simulator]
        return kind(**self.parameters, domain_length=self.domain.length, points=self.solver.points, **settings)

    def starts(self) -> InitialCondition:
        """Return the family that initial fields are drawn from."""
        return family_of(self.initial_condition, "initial_condition")

    def targets(self) -> InitialCondition | None:
        """Return the family that targets are drawn from; None where the target is 0."""
        return None if self.cost.target is None else family_of(self.cost.target, "cost.target")

    @property
    def waits(self) -> int:
        """Control periods of the burn-in."""
        return round(self.burn_in / self.control.period)


def family_of(content: Mapping[str, Any], where: str, dimensions: int = 1) -> InitialCondition:
    """Return the family of random fields that a part of a file describes.

    Raises:
        SchemaError: no such family of that dimension, or arguments that it does not have.
    """
    name = content.get("family")
    known = [n for n, kind in FAMILIES.items() if kind.dimensions == dimensions]
    if name not in known:
        raise SchemaError(f"{where}.family: no '{name}'.{did_you_mean(str(name), known)} Families: {', '.join(known)}.")
    arguments = {key: value for key, value in content.items() if key != "family"}
    needed = inspect.signature(FAMILIES[name]).parameters
    check_keys(arguments, list(needed), [n for n, p in needed.items() if p.default is p.empty], where)
    try:
        return FAMILIES[name](**arguments)
    except TypeError as error:
        raise SchemaError(f"{where}: {error}.") from None

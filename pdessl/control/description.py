"""Environment files: which equation, where its actuators and sensors are, what an episode costs."""

# A actuators, M sensors

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pdessl.errors import SchemaError, did_you_mean
from pdessl.schema import Count, Finite, Natural, Positive, check_keys
from pdessl.solvers import FAMILIES, SIMULATORS, InitialCondition, PeriodicSimulator

__all__ = ["ActuatorLayout", "CostWeights", "Domain", "EnvironmentFile", "Schedule", "SensorLayout", "family_of"]


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
    """Gaussian actuators, b_j(x) = exp(-|x - x_j|²/(2 w²)), |x - x_j| the distance to the nearest image.

    Args:
        positions: x_j in [0, domain length), length; A of them.
        width: w, > 0, length.
        bound: amplitudes lie within ±bound, unit of the field over time.
    """

    positions: tuple[Finite, ...]
    width: Positive
    bound: Positive = 1.0


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

        c_t = state · mean (u_{t+1} - u*)² + action · mean_j a_j²,   the last one + terminal · mean (u_T - u*)²

    Args:
        state, action, terminal: weights, >= 0.
        target: family of random fields that u* is drawn from, as an initial condition is; none: u* = 0.
    """

    state: Natural = 1.0
    action: Natural = 0.0
    terminal: Natural = 0.0
    target: dict[str, Any] | None = None


@dataclass(frozen=True)
class EnvironmentFile:
    """A file of ``environments/``, read and checked; every length in the unit of the domain.

    Args:
        title, about, known, chosen: texts.
        equation: name in the catalog; that of the simulator.
        burn_in: time that passes without control before an episode begins, a multiple of the control period.
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
        check_keys(self.parameters, kind.parameter_names, kind.parameter_names, "parameters")
        waits = self.burn_in / self.control.period
        if abs(waits - round(waits)) > 1e-9 * max(1.0, waits):
            raise SchemaError(f"burn_in {self.burn_in:g} is not a multiple of control.period {self.control.period:g}.")
        for name, content in (("initial_condition", self.initial_condition), ("cost.target", self.cost.target)):
            if content is not None:
                family_of(content, name)

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

"""Environment files of flows on a plane: the solver, its actuators (waves of force, or fans), sensors, and the task."""

# A actuators, M sensors

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from pdessl.control.description import Schedule, family_of
from pdessl.errors import SchemaError, did_you_mean
from pdessl.schema import Count, Finite, Natural, Positive, check_keys
from pdessl.solvers import SIMULATORS, ClosedBoxSmoke, InitialCondition, NavierStokes2D, Simulator

__all__ = ["PlaneActuators", "PlaneCost", "PlaneFile", "PlaneLimits", "PlaneSensors"]

#: Simulators that can be controlled, by their class.
PLANES = (NavierStokes2D, ClosedBoxSmoke)


@dataclass(frozen=True)
class Rectangle:
    """[0, L_x) x [0, L_y), periodic, or a box with walls, as its simulator has it."""

    lengths: tuple[Positive, Positive]
    unit: str = "length"


@dataclass(frozen=True)
class PlaneSolver:
    """The simulator of the equation, its grid, its inner steps in one control period, and further arguments of it."""

    simulator: str
    points: tuple[Count, Count]
    substeps: Count
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PlaneActuators:
    """Waves of force on a periodic plane, or fans in a box.

        wave:  b_j = √2 (k_y, -k_x)/|k| cos(k·x + 2π φ_j),  k = 2π (n_x/L_x, n_y/L_y): free of divergence, mean square 1
        fan:   b_j = d_j exp(-|x - x_j|²/(2 w²)),           cut off by the walls

    Args:
        waves: (n_x, n_y) of each wave, not both 0.
        phases: φ_j of each wave, in turns.
        positions: x_j of each fan, length, in the box or on its walls.
        directions: d_j of each fan; made a unit vector.
        width: w of the fans, > 0, length.
        bound: amplitudes lie within ±bound, length/time².
    """

    waves: tuple[tuple[int, int], ...] = ()
    phases: tuple[Finite, ...] = ()
    positions: tuple[tuple[Finite, Finite], ...] = ()
    directions: tuple[tuple[Finite, Finite], ...] = ()
    width: Positive = 1.0
    bound: Positive = 1.0

    def __post_init__(self) -> None:
        if bool(self.waves) == bool(self.positions):
            raise SchemaError(
                f"actuators: {len(self.waves)} waves and {len(self.positions)} positions; expected waves (with phases) "
                "of force, or positions (with directions and width) of fans."
            )
        for one, other in (("waves", "phases"), ("positions", "directions")):
            if len(getattr(self, one)) != len(getattr(self, other)):
                raise SchemaError(
                    f"actuators: {len(getattr(self, one))} {one} and {len(getattr(self, other))} {other}; expected one "
                    "each."
                )
        for name, vectors in (("waves", self.waves), ("directions", self.directions)):
            if any(not any(vector) for vector in vectors):
                raise SchemaError(f"actuators.{name} are {[list(v) for v in vectors]}; expected none that is [0, 0].")


@dataclass(frozen=True)
class PlaneSensors:
    """What is observed: the fields at points, with white noise.

    Args:
        positions: in the domain, length; none: every node of the grid.
        noise: standard deviation, unit of the fields.
    """

    positions: tuple[tuple[Finite, Finite], ...] | None = None
    noise: Natural = 0.0


@dataclass(frozen=True)
class PlaneCost:
    """Cost of a control period, and of the end of an episode.

        c_t = state · E_{t+1} + action · mean_j a_j²,   the last one + terminal · E_T

    E is the mean of |u|², or, where there is a corner, how far the smoke is from it: ∫ s |x - x_c|²/|L|² / ∫ s, between
    0 and 1.

    Args:
        state, action, terminal: weights, >= 0.
        corner: x_c in shares of the box; none: E is the mean of |u|².
    """

    state: Natural = 0.0
    action: Natural = 0.0
    terminal: Natural = 0.0
    corner: tuple[Finite, Finite] | None = None


@dataclass(frozen=True)
class PlaneLimits:
    """Guardrails of the task.

    Args:
        dissipation: of ν <|∇u|²>, length²/time³; none: no limit.
    """

    dissipation: Positive | None = None


@dataclass(frozen=True)
class PlaneFile:
    """A file of ``environments/`` with ``domain.lengths``, read and checked.

    Args:
        title, about, known, chosen: texts.
        equation: name in the catalog; that of the simulator.
        burn_in: time that passes without control before an episode begins, a multiple of the control period.
    """

    equation: str
    domain: Rectangle
    solver: PlaneSolver
    initial_condition: dict[str, Any]
    actuators: PlaneActuators
    control: Schedule
    parameters: dict[str, Finite]
    cost: PlaneCost = PlaneCost()
    sensors: PlaneSensors = PlaneSensors()
    limits: PlaneLimits = PlaneLimits()
    burn_in: Natural = 0.0
    title: str = ""
    about: str = ""
    known: str = ""
    chosen: str = ""

    def __post_init__(self) -> None:
        kind = SIMULATORS.get(self.solver.simulator)
        known = [name for name, found in SIMULATORS.items() if found in PLANES]
        if kind not in PLANES:
            raise SchemaError(
                f"solver.simulator '{self.solver.simulator}' cannot be controlled."
                f"{did_you_mean(self.solver.simulator, known)} Those that can on a plane: {', '.join(known)}."
            )
        equations = (kind.equation, "kolmogorov_flow") if kind is NavierStokes2D else (kind.equation,)
        if self.equation not in equations:
            raise SchemaError(
                f"solver.simulator '{self.solver.simulator}' solves '{kind.equation}', not '{self.equation}'."
            )
        walls = kind is ClosedBoxSmoke
        needed = kind.parameter_names if walls else kind.positive
        check_keys(self.parameters, kind.parameter_names, needed, "parameters")
        if walls != bool(self.actuators.positions):
            raise SchemaError(
                f"actuators: {'waves of force need a periodic plane' if walls else 'fans need a box'}; "
                f"'{self.solver.simulator}' takes {'positions and directions' if walls else 'waves and phases'}."
            )
        if (self.cost.corner is not None) > walls or self.limits.dissipation is not None and walls:
            raise SchemaError(
                f"'{self.solver.simulator}' knows no {'limits.dissipation' if walls else 'cost.corner'}; leave it out."
            )
        for name, places in (("actuators", self.actuators.positions), ("sensors", self.sensors.positions)):
            if places is None or (name == "actuators" and not places):
                continue
            lengths = self.domain.lengths
            outside = [p for p in places if not all(0 <= x <= n for x, n in zip(p, lengths, strict=True))]
            if outside or not places or len(set(places)) < len(places):
                raise SchemaError(
                    f"{name}.positions are {[list(p) for p in places]}; expected some, all different, within "
                    f"{list(lengths)}."
                )
        waits = self.burn_in / self.control.period
        if abs(waits - round(waits)) > 1e-9 * max(1.0, waits):
            raise SchemaError(f"burn_in {self.burn_in:g} is not a multiple of control.period {self.control.period:g}.")
        family_of(self.initial_condition, "initial_condition", 2)

    def simulator(self, **settings: Any) -> Simulator:
        """Return the simulator of the equation on the grid of the file, with further settings."""
        kind: Any = SIMULATORS[self.solver.simulator]
        lengths = torch.tensor([self.domain.lengths], dtype=torch.float64)
        given: dict[str, Any] = self.parameters | self.solver.arguments | {"check_resolution": False} | settings
        if kind is ClosedBoxSmoke:
            given["velocity"] = "faces"
        return kind(domain_length=lengths, points=self.solver.points, **given)

    def starts(self) -> InitialCondition:
        """Return the family that initial fields are drawn from."""
        return family_of(self.initial_condition, "initial_condition", 2)

    @property
    def waits(self) -> int:
        """Control periods of the burn-in."""
        return round(self.burn_in / self.control.period)

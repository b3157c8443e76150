"""What an environment is, in words: its equation, actuators, sensors, task, and which modes its actuators reach."""

# A actuators, D real coordinates of a state

from __future__ import annotations

import torch

from pdessl.control.controlled import ControlledPDE
from pdessl.control.environment import Environment
from pdessl.control.linear import Controllability, Linearisation, controllability, linearise
from pdessl.control.loading import interval_environment
from pdessl.control.plane import PlaneEnvironment
from pdessl.control.plane_steppers import FlowStepper
from pdessl.errors import DataError

__all__ = ["describe_environment", "laminar_controllability", "linearise_laminar"]

DIFFERENCE = 1e-6  # of central differences about the laminar flow, over its coordinates; the error is its square


def describe_environment(environment: ControlledPDE) -> str:
    """Return what an environment is, in words, and which modes its actuators reach."""
    if isinstance(environment, PlaneEnvironment):
        return "\n".join(_plane(environment))
    return "\n".join(_interval(interval_environment(environment, "descriptions are")))


def _interval(environment: Environment) -> list[str]:
    file = environment.file
    length, unit = file.domain.length, file.domain.unit
    held, sensors = file.control, file.sensors
    places = ", ".join(f"{x:g}" for x in file.actuators.positions)
    shape = "pumps" if file.actuators.kind == "pump" else f"width {file.actuators.width:g}"
    seen = "the field at every node" if sensors.positions is None else f"{len(sensors.positions)} sensors"
    noise = f", noise {sensors.noise:g}" if sensors.noise else ""
    weights = file.cost
    aim = "" if weights.target is None else ", to a field that is drawn for each episode"
    overlap = f" + {weights.overlap:g} (1 - overlap)" if weights.overlap else ""
    more = [
        f"filter      at {f.position:g}, width {f.width:g}, takes {f.rate:g} of u in a unit of time"
        for f in file.filters
    ]
    if file.unseen is not None:
        low, high = file.unseen.wave_numbers
        more.append(
            f"unseen      a force of deviation {file.unseen.amplitude:g} in waves {low} to {high}, new in every period"
        )
    try:
        reached = str(controllability(linearise(environment)))
    except DataError as error:
        reached = str(error)
    return [
        f"{environment.name}: {file.title}",
        f"equation    {file.equation}, {', '.join(f'{k} {v:g}' for k, v in file.parameters.items())}",
        f"domain      [0, {length:g}) {unit}, periodic, {environment.points} nodes, {environment.modes} modes",
        f"actuators   {environment.actuators} at {places}, {shape}, amplitudes within ±{environment.bound:g}",
        f"sensors     {seen}{noise}",
        f"episode     {held.steps} control periods of {held.period:g} after a burn-in of {file.burn_in:g}",
        f"cost        {weights.state:g} mean u² + {weights.action:g} mean a² + {weights.terminal:g} mean u² at the "
        f"end{overlap}{aim}",
        *more,
        f"reached     {reached}",
    ]


def _plane(environment: PlaneEnvironment) -> list[str]:
    file, weights, layout = environment.file, environment.file.cost, environment.file.actuators
    sides = " x ".join(f"[0, {length:g}" + ("]" if kind == "wall" else ")") for length, kind in _sides(environment))
    places = file.sensors.positions
    fields = ", ".join(environment.channels)
    seen = f"{fields} at every node" if places is None else f"{len(places)} sensors of {fields}"
    noise = f", noise {file.sensors.noise:g}" if file.sensors.noise else ""
    if layout.waves:
        waves = ", ".join(f"({n}, {m}) at {phase:g}" for (n, m), phase in zip(layout.waves, layout.phases, strict=True))
        placed = f"waves of force {waves} turns"
    else:
        fans = ", ".join(
            f"({x:g}, {y:g}) along ({a:g}, {b:g})"
            for (x, y), (a, b) in zip(layout.positions, layout.directions, strict=True)
        )
        placed = f"fans at {fans}, width {layout.width:g}"
    what = "mean |u|²" if weights.corner is None else f"(distance of the smoke from {list(weights.corner)})²"
    told = [
        f"{environment.name}: {file.title}",
        f"equation    {file.equation}, {', '.join(f'{k} {v:g}' for k, v in file.parameters.items())}",
        f"domain      {sides} {file.domain.unit}, {' and '.join(dict.fromkeys(environment.boundary))}, "
        f"{environment.grid[0]} x {environment.grid[1]} nodes, {environment.size} numbers",
        f"actuators   {environment.actuators}: {placed}; amplitudes within ±{environment.bound:g}",
        f"sensors     {seen}{noise}",
        f"episode     {file.control.steps} control periods of {file.control.period:g} after a burn-in of "
        f"{file.burn_in:g}",
        f"cost        {weights.state:g} {what} + {weights.action:g} mean a² + {weights.terminal:g} {what} at the end",
    ]
    told += [f"guardrail   {rail}" for rail in environment.guardrails]
    if not isinstance(environment.stepper, FlowStepper):
        return [*told, "reached     no state at rest to ask about: where there is no smoke the fans move none."]
    found = laminar_controllability(environment)
    can = "can" if found.stabilisable else "cannot"
    told.append(
        f"reached     {found.growing} modes of the laminar flow do not decay; linear feedback {can} hold it."
        + (f" No actuator reaches {len(found.unreached)} of them." if found.unreached else "")
    )
    return told


def _sides(environment: PlaneEnvironment) -> list[tuple[float, str]]:
    return list(zip(environment.lengths, environment.boundary, strict=True))


def linearise_laminar(environment: PlaneEnvironment) -> Linearisation:
    """Return the derivative of one control period about the laminar flow of a steady force, by central differences.

    The flow -encode(f)/L, whose advection vanishes for a force of one wave number; coordinates are those of
    :meth:`pdessl.control.plane_steppers.FlowStepper.coordinates`, squares of which sum to the mean of |u|².

    Raises:
        DataError: a box, or a flow that does not stay where it is.
    """
    stepper = environment.stepper
    if not isinstance(stepper, FlowStepper):
        raise DataError(f"{environment.name}: smoke in a box has no steady flow to be linearised about.")
    rest = stepper.rest()[None]
    still = torch.zeros(1, environment.actuators, dtype=torch.float64, device=environment.device)
    drift = float((environment.step(rest, still) - rest).abs().max())
    if drift > 1e-9 * float(rest.abs().max()) + 1e-12:
        raise DataError(f"{environment.name}: its steady force drives no steady flow; nothing to linearise about.")
    here = stepper.coordinates(rest)
    size = here.shape[1]
    step = DIFFERENCE * max(float(here.norm()), 1e-3)
    moves = step * torch.eye(size, dtype=torch.float64, device=environment.device)

    def after(coordinates: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return stepper.coordinates(environment.step(stepper.from_coordinates(coordinates), actions))

    with torch.no_grad():
        none = still.expand(size, -1)
        transition = (after(here + moves, none) - after(here - moves, none)) / (2 * step)
        one = environment.bound * DIFFERENCE * torch.eye(environment.actuators, dtype=torch.float64, device=here.device)
        at = here.expand(len(one), -1)
        entry = (after(at, one) - after(at, -one)) / (2 * environment.bound * DIFFERENCE)
    weights = environment.file.cost
    return Linearisation(
        transition.T, entry.T, weights.state, weights.action / environment.actuators, weights.terminal,
        environment.file.control.period, environment.name, torch.eye(size, dtype=torch.float64, device=here.device),
    )  # fmt: skip


def laminar_controllability(environment: PlaneEnvironment) -> Controllability:
    """Return which growing modes of the laminar flow the actuators reach, by the test of Popov, Belevitch and Hautus.

    Raises:
        DataError: see :func:`linearise_laminar`.
    """
    return controllability(linearise_laminar(environment), distance=1e-6, growing_only=True)

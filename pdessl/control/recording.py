"""Runs with actuators to learn from: fields, observations and amplitudes side by side in an ``xarray.Dataset``."""

# B runs, T control periods, A actuators, M observed values, X grid points

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor

from pdessl.control.controlled import ControlledPDE, pairwise_sum
from pdessl.control.episodes import Situation, VectorEnvironment
from pdessl.control.linear import linearise
from pdessl.control.loading import interval_environment
from pdessl.control.plane import PlaneEnvironment
from pdessl.errors import DataError, FormatError, did_you_mean
from pdessl.files import replacing
from pdessl.schema import dump_yaml
from pdessl.solvers import random_stream

__all__ = ["BEHAVIOURS", "Behaviour", "read_runs", "record_runs", "write_runs"]

#: Ways in which amplitudes are chosen in runs to learn from.
BEHAVIOURS = ("zero", "smooth", "feedback")
MEMORY = (1.0, 20.0)  # control periods over which smooth amplitudes forget
GAIN = (0.3, 3.0)  # of the feedback, in bounds at a root mean square of 1 in the direction of an actuator


class Behaviour:
    """Amplitudes of runs to learn from, a function of the seed of the run and of what happens in it.

    ``zero``: none. ``smooth``: each follows an Ornstein-Uhlenbeck process with a memory of 1 to 20 periods and a
    standard deviation up to the bound, cut off there. ``feedback``: -g bᵀx, the direction in which an actuator takes
    energy out of the field, and a third of a smooth one on it.

    Args:
        environment: what is controlled.
        kinds: of each run, of :data:`BEHAVIOURS`.
    """

    def __init__(self, environment: ControlledPDE, kinds: Sequence[str]) -> None:
        unknown = [kind for kind in kinds if kind not in BEHAVIOURS]
        if unknown or not kinds:
            near = did_you_mean(unknown[0], BEHAVIOURS) if unknown else ""
            raise DataError(f"behaviours {unknown or 'none'}: expected some of {', '.join(BEHAVIOURS)}.{near}")
        self.environment, self.kinds = environment, tuple(kinds)
        self._along = _along(environment)
        self._drawn = torch.zeros(0)
        self._gains = torch.zeros(0)

    def act(self, situation: Situation) -> Tensor:
        """Return the amplitudes (B, A) of this period."""
        env = self.environment
        if situation.step == 0:
            drawn = [self._draw(s, kind) for s, kind in zip(situation.seeds, self.kinds, strict=True)]
            self._drawn = torch.from_numpy(np.stack([signal for signal, _ in drawn])).to(env.device)
            self._gains = torch.tensor([gain for _, gain in drawn], dtype=torch.float64, device=env.device)
        chosen = self._drawn[:, situation.step] - self._gains[:, None] * env.bound * self._along(situation.state)
        return chosen.clamp(-env.bound, env.bound)

    def _draw(self, seed: int, kind: str) -> tuple[NDArray[np.float64], float]:
        env, stream = self.environment, random_stream(seed, "environment", 0, "behaviour")
        memory = np.exp(stream.uniform(*np.log(MEMORY)))
        size = env.bound * stream.uniform(0.1, 1.0)
        gain = float(np.exp(stream.uniform(*np.log(GAIN))))
        kept = np.exp(-1.0 / memory)
        white = stream.standard_normal((env.steps, env.actuators))
        signal = np.empty_like(white)
        now = white[0]
        for step in range(env.steps):
            now = white[0] if step == 0 else kept * now + np.sqrt(1 - kept**2) * white[step]
            signal[step] = size * now
        if kind == "zero":
            return np.zeros_like(signal), 0.0
        return (signal, 0.0) if kind == "smooth" else (signal / 3, gain)


def _along(environment: ControlledPDE) -> Callable[[Tensor], Tensor]:
    """Return what gives the part of a state in the direction in which each actuator moves it, (B, A), of (B, K)."""
    if isinstance(environment, PlaneEnvironment):
        return environment.along
    env = interval_environment(environment, "runs are recorded")
    entry = linearise(env).entry
    direction = (entry / entry.norm(dim=0).clamp_min(1e-300)).T  # 0 for pumps: they move nothing that is at rest
    return lambda state: pairwise_sum(env.coordinates(state)[:, None, :] * direction)  # whatever the batch


def record_runs(environment: ControlledPDE, seeds: Sequence[int], behaviours: Sequence[str] = BEHAVIOURS) -> xr.Dataset:
    """Run an episode per seed, side by side, and return everything about it; no reward is needed to learn from it.

    The behaviour of a run is chosen by its seed, ``behaviours[seed % len(behaviours)]``: a run depends on environment,
    behaviours and seed alone.

    Args:
        environment: what is controlled.
        seeds: of the runs, >= 0.
        behaviours: of :data:`BEHAVIOURS`.

    Returns:
        ``u`` (run, time, x), float32, the start included, or the channels on a plane (run, time, x, y); ``actions``
        (run, actuator, control_time), float64, each held from its time on for a control period; ``cost`` (run,
        control_time); ``observation`` (run, time, sensor) where the environment has sensors or noise; ``seed`` and
        ``behaviour`` of each run; positions of actuators and sensors as coordinates, units and the environment's file
        as attributes.

    Raises:
        DataError: no seeds, or unknown behaviours.
    """
    env, seeds = environment, [int(s) for s in seeds]
    if not seeds or not behaviours:
        raise DataError(f"{env.name}: {len(seeds)} seeds and {len(behaviours)} behaviours; expected at least one each.")
    kinds = [behaviours[s % len(behaviours)] for s in seeds]
    world, controller = VectorEnvironment(env), Behaviour(env, kinds)
    now = world.reset(seeds)
    fields, seen, actions, costs = [env.field(now.state)], [now.observation], [], []
    with torch.no_grad():
        while not world.done:
            actions.append(controller.act(now))
            now, cost = world.step(actions[-1])
            fields.append(env.field(now.state))
            seen.append(now.observation)
            costs.append(cost)
    return _dataset(env, seeds, kinds, torch.stack(fields, 1), torch.stack(actions, 2), torch.stack(costs, 1), seen)


def _dataset(
    env: ControlledPDE,
    seeds: list[int],
    kinds: list[str],
    fields: Tensor,
    actions: Tensor,
    costs: Tensor,
    seen: list[Tensor],
) -> xr.Dataset:
    period, unit, axes = env.file.control.period, env.file.domain.unit, ("x", "y")[: len(env.grid)]
    time = period * np.arange(env.steps + 1)
    whole = fields.reshape(*fields.shape[:2], len(env.channels), *env.grid).float().cpu().numpy()
    variables: dict[str, Any] = {name: (("run", "time", *axes), whole[:, :, c]) for c, name in enumerate(env.channels)}
    variables |= {
        "actions": (
            ("run", "actuator", "control_time"),
            actions.cpu().numpy(),
            {"units": "u/time", "bound": env.bound},
        ),
        "cost": (("run", "control_time"), costs.cpu().numpy()),
    }
    coordinates: dict[str, Any] = {
        "time": ("time", time, {"units": "time"}),
        "control_time": ("control_time", time[:-1], {"units": "time", "held_for": period}),
        "seed": ("run", np.asarray(seeds, dtype=np.int64)),
        "behaviour": ("run", np.asarray([BEHAVIOURS.index(kind) for kind in kinds], dtype=np.int64)),
    }
    for axis, nodes, length, kind in zip(axes, env.nodes(), env.lengths, env.boundary, strict=True):
        coordinates[axis] = (axis, nodes.numpy(), {"units": unit} | ({"period": length} if kind == "periodic" else {}))
    places = np.asarray(env.places)
    for axis, along in zip(axes, places.T, strict=True):
        name = "actuator" if len(axes) == 1 else f"actuator_{axis}"
        coordinates[name] = ("actuator", along, {"units": unit})
    coordinates["behaviour"] += ({"flag_values": list(range(len(BEHAVIOURS))), "flag_meanings": " ".join(BEHAVIOURS)},)
    if env.file.sensors.positions is not None or env.file.sensors.noise:
        read = torch.stack(seen, dim=1).float().cpu().numpy()
        variables["observation"] = (("run", "time", "sensor"), read)
        if len(axes) == 1:
            at = env.file.sensors.positions
            where = coordinates["x"][1] if at is None else np.asarray(at)
            coordinates["sensor"] = ("sensor", where, {"units": unit})
    attributes = {"environment": env.name, "equation": env.file.equation, "environment_file": dump_yaml(env.file)}
    return xr.Dataset(
        variables, coordinates, attributes | {f"boundary_{a}": b for a, b in zip(axes, env.boundary, strict=True)}
    )


def write_runs(runs: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Write runs with actuators to a netCDF-4 file, whole or not at all.

    Raises:
        FormatError: not what :func:`record_runs` returns.
        StoreError: the file cannot be written.
    """
    _check(runs, "the dataset")
    with replacing(path) as temporary:
        runs.to_netcdf(temporary, engine="h5netcdf")


def read_runs(path: str | os.PathLike[str], environment: ControlledPDE | None = None) -> xr.Dataset:
    """Read runs with actuators into memory.

    Args:
        path: of a file that :func:`write_runs` wrote.
        environment: if given, the one they must be from.

    Raises:
        FormatError: no such file, another layout, or runs of another environment.
    """
    try:
        with xr.open_dataset(path, engine="h5netcdf") as opened:
            runs = opened.load()
    except (OSError, ValueError) as error:
        raise FormatError(
            f"{path}: no runs with actuators can be read ({error}). Write them with write_runs."
        ) from None
    _check(runs, str(path))
    if environment is not None and runs.attrs.get("environment_file") != dump_yaml(environment.file):
        raise FormatError(
            f"{path} holds runs of '{runs.attrs.get('environment')}' with other settings than '{environment.name}' has "
            "here. Give the environment they were recorded in, or record them again."
        )
    return runs


def _check(runs: xr.Dataset, where: str) -> None:
    expected = {"u": ("run", "time", "x"), "actions": ("run", "actuator", "control_time")}
    for name, axes in expected.items():
        if name not in runs or runs[name].dims not in (axes, (*axes, "y")):
            found = f"has axes {runs[name].dims}" if name in runs else "is missing"
            raise FormatError(f"{where}: '{name}' {found}; expected axes {axes}. record_runs makes such a dataset.")
    if runs.sizes["time"] != runs.sizes["control_time"] + 1:
        raise FormatError(
            f"{where}: {runs.sizes['time']} frames for {runs.sizes['control_time']} control periods; expected one more."
        )

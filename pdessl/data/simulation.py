"""Simulating trajectories of a dataset in memory, the same ones a store would hold."""

# B batch, C channels, T frames, X space

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch

from pdessl.data.drawing import Draw, draw, stack
from pdessl.data.planning import Plan, build_simulator, plan
from pdessl.data.recipe import DatasetRecipe, load_recipe
from pdessl.errors import DataError, did_you_mean
from pdessl.solvers import Simulator, Solution, random_stream
from pdessl.trajectory import Trajectories

__all__ = ["SimulatedShard", "Switch", "find_device", "simulate", "simulate_shard", "threads"]

MAX_ATTEMPTS = 20
# Trajectories advanced together on a processor: keeps the working set of a step within its cache.
MAX_GROUP = 128
CACHED_VALUES = 1 << 18
# On a GPU: as many as keep it busy, with frames that fit its memory beside a training.
MAX_GROUP_GPU = 4096
FRAME_VALUES_GPU = 1 << 27
# A run whose largest value exceeds that of its initial state by this factor has blown up, though it is finite.
BLOW_UP = 1e6


@dataclass(frozen=True)
class Switch:
    """A parameter that changes on the way: the fields go on from where they are, under another law.

    Args:
        parameter: its name.
        factor: what it is multiplied by.
        frame: number of the last frame before the change, >= 1.
    """

    parameter: str
    factor: float
    frame: int

    def checked(self, recipe: DatasetRecipe) -> Switch:
        """Return this, or raise DataError where the dataset has no such parameter or frame."""
        if self.parameter not in recipe.parameters:
            known = list(recipe.parameters)
            raise DataError(
                f"{recipe.name} has no parameter '{self.parameter}'.{did_you_mean(self.parameter, known)} It has "
                f"{', '.join(known) or 'none'}."
            )
        if not 1 <= self.frame <= len(recipe.times) - 2:
            raise DataError(
                f"a switch at frame {self.frame} of {recipe.name}, which has {len(recipe.times)} frames; expected 1 to "
                f"{len(recipe.times) - 2}."
            )
        kind = recipe.simulator
        if kind.state_names not in (None, kind.field_names):
            raise DataError(
                f"{recipe.name}: its simulator returns {', '.join(kind.field_names)} and goes on from "
                f"{', '.join(kind.state_names or ())}; a switch needs them to be the same."
            )
        if recipe.forcing is not None:
            raise DataError(f"{recipe.name} has a force that depends on time; switches are for datasets without one.")
        return self

    def of(self, drawn: Draw) -> Draw:
        """Return what was drawn, with the parameter it has afterwards."""
        changed = drawn.parameters[self.parameter] * self.factor
        return replace(drawn, parameters={**drawn.parameters, self.parameter: changed})


@dataclass(frozen=True)
class SimulatedShard:
    """Trajectories and how they were made.

    Args:
        trajectories: fields in float32, with all parameters.
        rejected: draws whose run was not finite or blew up.
        blown_up: those of them that were finite.
        grids: solver grids, ``64`` or ``128x64``, with the number of trajectories on each.
        tails: spectral tail of each trajectory, see :class:`pdessl.solvers.Solution`.
    """

    trajectories: Trajectories
    rejected: int
    blown_up: int
    grids: dict[str, int]
    tails: list[float]


def simulate(
    dataset: str | os.PathLike[str] | DatasetRecipe,
    split: str,
    indices: Sequence[int],
    device: str | torch.device = "cpu",
    workers: int | None = None,
    switch: Switch | None = None,
) -> Trajectories:
    """Simulate single trajectories of a dataset in memory, the same ones a store would hold, with their parameters.

    Args:
        dataset: name, path or recipe.
        split: name of the split (any name: it only seeds the draws).
        indices: numbers of the trajectories.
        device: where to simulate; the result is on the CPU.
        workers: threads; default one per processor torch may use, 1 on a GPU.
        switch: a parameter that changes on the way. Initial fields, noise, and the parameters that are recorded are
            those of the runs without it; up to its frame runs agree with them to round-off.

    Trajectory k depends on (seed, split, k) only; computed in another batch it agrees to round-off (float32 output).
    """
    recipe = load_recipe(dataset)
    found = find_device(device)
    with threads(found, workers) as pool:
        return simulate_shard(recipe, split, list(indices), found, pool, switch=switch).trajectories


def simulate_shard(
    recipe: DatasetRecipe,
    split: str,
    indices: Sequence[int],
    device: torch.device,
    pool: ThreadPoolExecutor,
    target: torch.device | None = None,
    switch: Switch | None = None,
) -> SimulatedShard:
    """Simulate trajectories in groups that share a grid and a step, draw failed ones again, and add the noise.

    Args:
        recipe: the dataset.
        split: name of the split.
        indices: numbers of the trajectories.
        device: where to simulate.
        pool: threads that simulate groups.
        target: where the result lies; default the CPU.
        switch: see :func:`simulate`.

    Raises:
        DataError: an impossible switch; a trajectory that fails however often it is drawn; or the noise makes values
            infinite.
    """
    target = target or torch.device("cpu")
    switch = switch and switch.checked(recipe)
    attempts = dict.fromkeys(indices, 0)
    parts: list[Trajectories] = []
    made: dict[int, tuple[Draw, Plan, float]] = {}
    blown_up = 0
    pending = list(attempts)
    while pending:
        draws = {k: draw(recipe, split, k, attempts[k]) for k in pending}
        plans = plan(recipe, list(draws.values()), device)
        if switch is not None:
            later = plan(recipe, [switch.of(d) for d in draws.values()], device)
            plans = [_finer(*pair) for pair in zip(plans, later, strict=True)]
        jobs = _jobs(recipe, dict(zip(pending, plans, strict=True)), device)
        futures = [
            pool.submit(_simulate_group, recipe, [draws[k] for k in rows], planned, device, target, switch)
            for planned, rows in jobs
        ]
        pending = []
        for (planned, rows), future in zip(jobs, futures, strict=True):
            trajectories, tails, finite, bounded = future.result()
            good = [row for row in range(len(rows)) if finite[row] and bounded[row]]
            if good:
                parts.append(trajectories if len(good) == len(rows) else trajectories[good])
                made |= {rows[row]: (draws[rows[row]], planned, tails[row]) for row in good}
            for row in sorted(set(range(len(rows))) - set(good)):
                attempts[rows[row]] += 1
                blown_up += finite[row]
                pending.append(rows[row])
        tired = [k for k in pending if attempts[k] >= MAX_ATTEMPTS]
        if tired:
            raise DataError(
                f"{recipe.name}: trajectory {tired[0]} of split '{split}' was not finite in {MAX_ATTEMPTS} draws. "
                f"The solver is unstable with these settings: lower solver.time_step or "
                f"solver.courant, or raise solver.points."
            )
        pending.sort()
    # The order in which groups were simulated -> the order asked for.
    place = {k: position for position, k in enumerate(made)}
    joined = Trajectories.concatenate(parts)[[place[k] for k in indices]]
    draws_made, plans, tails = zip(*(made[k] for k in indices), strict=True)
    return SimulatedShard(
        _finish(recipe, split, indices, joined, draws_made),
        sum(attempts.values()),
        blown_up,
        dict(Counter("x".join(map(str, p.points)) for p in plans)),
        list(tails),
    )


def _jobs(recipe: DatasetRecipe, plans: dict[int, Plan], device: torch.device) -> list[tuple[Plan, list[int]]]:
    """Return (plan, trajectories) in groups of a good size, the largest first, so that no thread is left with one."""
    groups: dict[Plan, list[int]] = {}
    for k, planned in plans.items():
        groups.setdefault(planned, []).append(k)
    jobs = []
    for planned, rows in sorted(groups.items(), key=lambda item: -item[0].cost):
        if device.type == "cpu":
            most = MAX_GROUP if recipe.dimensions == 1 else max(1, CACHED_VALUES // math.prod(planned.points))
        else:
            frames = recipe.observation["frames"] * math.prod(recipe.observed)
            most = min(MAX_GROUP_GPU, max(1, FRAME_VALUES_GPU // max(frames, math.prod(planned.points))))
        jobs += [(planned, rows[i : i + most]) for i in range(0, len(rows), most)]
    return jobs


def _finer(first: Plan, second: Plan) -> Plan:
    """Return the grid and the steps that do for both."""
    return Plan(max(first.points, second.points), max(first.substeps, second.substeps))


def _simulate_group(
    recipe: DatasetRecipe,
    draws: Sequence[Draw],
    planned: Plan,
    device: torch.device,
    target: torch.device,
    switch: Switch | None = None,
) -> tuple[Trajectories, list[float], list[bool], list[bool]]:
    numbers, lengths = stack(draws)
    initial = recipe.initial_condition.fields(numbers.to(device), planned.points, lengths.to(device))
    times = torch.from_numpy(recipe.times)
    scale = torch.tensor([d.time_scale for d in draws], dtype=torch.float64)
    if not bool((scale == 1.0).all()):
        times = scale[:, None] * times
    nodes, sampling = recipe.observed if recipe.dimensions > 1 else recipe.observed[0], recipe.observation["sampling"]
    simulator = build_simulator(recipe, draws, planned.points, planned.substeps, device)
    with torch.no_grad():
        solution = simulator.solve(initial, times, nodes, sampling)
        if switch is not None:
            solution = _switched(recipe, draws, planned, simulator, initial, times, solution, switch)
    trajectories = solution.trajectories.to(target)
    finite = torch.isfinite(trajectories.fields.to(torch.float32)).flatten(1).all(dim=1)
    size = initial.abs().flatten(1).amax(dim=1).to(target)
    bounded = (trajectories.fields.abs().flatten(1).amax(dim=1) <= BLOW_UP * size) | (size == 0)
    return trajectories, solution.spectral_tail.tolist(), finite.tolist(), bounded.tolist()


def _switched(
    recipe: DatasetRecipe,
    draws: Sequence[Draw],
    planned: Plan,
    simulator: Simulator,
    initial: torch.Tensor,
    times: torch.Tensor,
    before: Solution,
    switch: Switch,
) -> Solution:
    """Return the frames of a solution up to the switch, followed by those of the other parameter."""
    n = switch.frame
    # On the simulator's own grid, in the steps that the frames have.
    state = simulator.solve(initial, times[..., : n + 1]).trajectories.fields[:, :, n]
    if state.shape[1] != initial.shape[1]:
        raise DataError(
            f"{recipe.name} returns {state.shape[1]} of {initial.shape[1]} fields: no run can go on from them."
        )
    if not bool(state.isfinite().all()):
        return before  # it is refused as it is
    other = build_simulator(recipe, [switch.of(d) for d in draws], planned.points, planned.substeps, initial.device)
    later = other.solve(
        state,
        times[..., n + 1 :] - times[..., n : n + 1],
        recipe.observed if recipe.dimensions > 1 else recipe.observed[0],
        recipe.observation["sampling"],
    )
    known, tail = before.trajectories, torch.maximum(before.spectral_tail, later.spectral_tail)
    fields = torch.cat([known.fields[:, :, : n + 1], later.trajectories.fields], dim=2)
    return Solution(known.replace(fields=fields), tail)


def _finish(
    recipe: DatasetRecipe, split: str, indices: Sequence[int], joined: Trajectories, draws: Sequence[Draw]
) -> Trajectories:
    """Add noise, recorded coefficients and numbers; keep the parameters the dataset names."""
    # Coefficients that the dataset leaves at the simulator's default belong to the equation, they are no labels.
    known = {n: joined.parameters[n] for n in recipe.parameters}
    for name in draws[0].coefficients:
        values = torch.tensor([d.coefficients[name] for d in draws], dtype=torch.float64)
        known[name] = values.to(joined.device)
    fields = joined.fields
    levels = recipe.noise(joined.field_names)
    if any(levels):
        shape = tuple(fields.shape[1:])
        noise = np.stack([random_stream(recipe.seed, split, k, "noise").standard_normal(shape) for k in indices])
        scale = torch.tensor(levels, dtype=torch.float64).reshape(-1, *[1] * (fields.ndim - 2))
        fields = fields + (scale * torch.from_numpy(noise)).to(fields.device)
    fields = fields.to(torch.float32)
    if any(levels) and not bool(torch.isfinite(fields).all()):
        worst = max(range(len(levels)), key=lambda i: levels[i])
        raise DataError(
            f"{recipe.name}: with observation.noise {levels[worst]:g} observed values of '{joined.field_names[worst]}' "
            f"are not finite in single precision. Use less than {torch.finfo(torch.float32).max / 10:.0e}."
        )
    return joined.replace(
        fields=fields,
        index=torch.tensor(list(indices), dtype=torch.int64, device=joined.device),
        parameters=known,
        equation=recipe.equation,
    )


def find_device(name: str | torch.device) -> torch.device:
    """Return the torch device of this name.

    Raises:
        DataError: no such device here.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DataError(
            f"no device '{name}' here: {str(error).splitlines()[0]} Use 'cpu'"
            + (f", or 'cuda:0' to 'cuda:{torch.cuda.device_count() - 1}'." if torch.cuda.is_available() else ".")
        ) from None
    return device


@contextmanager
def threads(device: str | torch.device, workers: int | None) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool whose threads run torch single-threaded: whole groups in parallel beat parallel small operations."""
    before = torch.get_num_threads()
    count = workers or (before if torch.device(device).type == "cpu" else 1)
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(before)

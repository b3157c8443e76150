"""Simulating a dataset into a store: planned per trajectory, written shard by shard, resumable after any
interruption.
"""

# B batch, X grid points

from __future__ import annotations

import math
import os
import time as clock
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdessl.data.recipe import DatasetRecipe, load_recipe
from pdessl.data.store import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST,
    Store,
    checksum,
    read_manifest,
    versions,
    write_manifest,
    write_shard,
)
from pdessl.errors import DataError, ResolutionError, StoreError
from pdessl.solvers import InitialCondition, Simulator, random_stream
from pdessl.trajectory import Trajectories

__all__ = ["Progress", "generate", "simulate"]

MAX_ATTEMPTS = 20
MAX_GROUP = 128  # trajectories advanced together: keeps the working set of a step within the processor's cache
# Grids and steps are rounded up to few values, so that trajectories can be advanced together.
LADDER = tuple(sorted({m << n for m in (1, 3) for n in range(14)}))


@dataclass(frozen=True)
class Progress:
    """What is reported while generating.

    Args:
        split: split being written.
        done, total: trajectories of all splits.
        rejected: draws thrown away so far.
        seconds: since the start; trajectories that were already there do not count in ``rate``.
        rate: trajectories per second of this run.
    """

    split: str
    done: int
    total: int
    rejected: int
    seconds: float
    rate: float


@dataclass(frozen=True, eq=False)
class _Draw:
    modes: Tensor
    length: float
    parameters: dict[str, float]


@dataclass(frozen=True)
class _Shard:
    """Trajectories and what the manifest says about how they were made."""

    trajectories: Trajectories
    rejected: int
    grids: dict[int, int]
    tails: list[float]


def simulate(
    dataset: str | os.PathLike[str] | DatasetRecipe,
    split: str,
    indices: Sequence[int],
    device: str | torch.device = "cpu",
    workers: int | None = None,
) -> Trajectories:
    """Simulate single trajectories of a dataset in memory, the same ones a store would hold, with their parameters.

    Args:
        dataset: name, path or recipe.
        split: name of the split (any name: it only seeds the draws).
        indices: numbers of the trajectories.
        device: where to simulate.
        workers: threads; default one per processor torch may use, 1 on a GPU.

    Trajectory k depends on (seed, split, k) only; computed in another batch it agrees to round-off (float32 output).
    """
    recipe = load_recipe(dataset)
    with _threads(device, workers) as pool:
        return _simulate_shard(recipe, split, list(indices), torch.device(device), pool).trajectories


def generate(
    dataset: str | os.PathLike[str] | DatasetRecipe,
    out: str | os.PathLike[str],
    size: int | Mapping[str, int] | None = None,
    device: str | torch.device = "cpu",
    resume: bool = False,
    overrides: Mapping[str, Any] | None = None,
    progress: bool | Callable[[Progress], None] | None = None,
    workers: int | None = None,
) -> Store:
    """Simulate a dataset into a store on disk.

    Args:
        dataset: a name from ``pdessl list datasets``, a path of a YAML file, or a recipe.
        out: folder of the store; made if missing. It must be empty unless ``resume``.
        size: trajectories of the file's first split, or a mapping from split to number; default as in the file.
        device: where to simulate, e.g. ``cuda``. The draws are the same on every device.
        resume: continue an interrupted generation. Shards that are whole are kept, damaged ones made anew, and the
            result is bitwise the store an uninterrupted run makes. Does nothing when all is there.
        overrides: changes to the recipe by dotted key, e.g. ``{"observation.noise": 0.0}``.
        progress: True shows a bar, False nothing, None a bar when standard error is a terminal; or a function that is
            called with :class:`Progress` after every shard.
        workers: threads; default one per processor torch may use, 1 on a GPU.

    Returns:
        The complete store.

    Trajectory k of a split depends on (seed, split, k) only. One whose values are not finite is never stored: it is
    drawn again from the next attempt's seed, counted, and reported in the manifest.

    Raises:
        CatalogError: no such dataset; the message suggests the nearest name.
        SchemaError: the dataset file does not follow the format.
        ResolutionError: the solver's grids cannot resolve what is to be drawn.
        StoreError: ``out`` holds something else, was made by another recipe, or cannot be written.
        DataError: trajectories stay non-finite however often they are drawn.
    """
    recipe = load_recipe(dataset, size, overrides)
    folder = Path(out)
    manifest = _begin(recipe, folder, resume)
    todo = _missing(recipe, folder, manifest)
    if not todo and manifest["complete"]:
        return Store(folder)
    _check_before_starting(recipe)
    total = sum(split["size"] for split in recipe.splits.values())
    done = total - sum(count for _, _, count in todo)
    started, before = clock.monotonic(), done
    write_manifest(folder, manifest)
    with _threads(device, workers) as pool, _reporting(progress, recipe.name, total, done) as report:
        for split, start, count in todo:
            shard = _simulate_shard(recipe, split, list(range(start, start + count)), torch.device(device), pool)
            trajectories = (
                shard.trajectories if recipe.splits[split]["labels"] else shard.trajectories.without_parameters()
            )
            name = f"{split}-{start // recipe.shard_size:05d}.nc"
            write_shard(folder / name, trajectories, recipe, split, start)
            manifest["splits"][split]["shards"].append(_entry(folder / name, start, shard))
            manifest["splits"][split]["shards"].sort(key=lambda s: s["start"])
            write_manifest(folder, manifest)
            done += count
            seconds = clock.monotonic() - started
            rejected = sum(s["rejected_draws"] for x in manifest["splits"].values() for s in x["shards"])
            report(Progress(split, done, total, rejected, seconds, (done - before) / max(seconds, 1e-9)))
    manifest["complete"] = True
    write_manifest(folder, manifest)
    return Store(folder)


# ------------------------------------------------------------------------------------ the store


def _begin(recipe: DatasetRecipe, folder: Path, resume: bool) -> dict[str, Any]:
    fresh = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "dataset": recipe.name,
        "equation": recipe.equation,
        "recipe": dict(recipe.content),
        "recipe_hash": recipe.hash,
        "seed": recipe.seed,
        "versions": versions(),
        "splits": {n: {**s, "shards": []} for n, s in recipe.splits.items()},
        "complete": False,
    }
    try:
        held = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise StoreError(f"cannot read folder {folder}: {error.strerror}.") from error
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file; choose a folder for the store.")
    if MANIFEST not in held:
        foreign = [name for name in held if not name.endswith(".tmp")]
        if foreign:
            raise StoreError(
                f"{folder} is not empty (it holds {', '.join(foreign[:3])}) and is no store. Choose an empty folder."
            )
        return fresh
    manifest = read_manifest(folder)
    if manifest["recipe_hash"] != recipe.hash:
        changed = ", ".join(_differences(manifest["recipe"], dict(recipe.content))) or "its format"
        raise StoreError(
            f"{folder} was made by another recipe ('{manifest['dataset']}', hash {manifest['recipe_hash'][:12]}; now "
            f"'{recipe.name}', {recipe.hash[:12]}). Different: {changed}. Choose another folder, or delete this one."
        )
    if not resume:
        state = "a complete store of this dataset" if manifest["complete"] else "an unfinished store of this dataset"
        raise StoreError(
            f"{folder} holds {state}. Continue or verify it with --resume (resume=True), or choose another folder."
        )
    return manifest


def _differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(k for k in new if k not in old)]
        skip = ("title", "about", "known", "chosen") if not prefix else ()
        return [d for k in keys if k not in skip for d in _differences(old.get(k), new.get(k), f"{prefix}{k}.")]
    return [] if old == new else [f"{prefix[:-1]} {old!r} -> {new!r}"]


def _missing(recipe: DatasetRecipe, folder: Path, manifest: dict[str, Any]) -> list[tuple[str, int, int]]:
    """Return (split, start, count) of the shards to make; damaged ones leave the manifest, leftovers the folder."""
    if folder.is_dir():
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)
    todo = []
    for name, split in recipe.splits.items():
        entry = manifest["splits"][name]
        good = {}
        for shard in entry["shards"]:
            path = folder / shard["file"]
            if path.is_file() and path.stat().st_size == shard["bytes"] and checksum(path) == shard["sha256"]:
                good[shard["start"]] = shard
        entry["shards"] = [good[start] for start in sorted(good)]
        for start in range(0, split["size"], recipe.shard_size):
            if start not in good:
                todo.append((name, start, min(recipe.shard_size, split["size"] - start)))
    if todo:
        manifest["complete"] = False
    return todo


def _entry(path: Path, start: int, shard: _Shard) -> dict[str, Any]:
    fields = shard.trajectories.fields.to("cpu", torch.float64)
    summary = {}
    for channel, name in enumerate(shard.trajectories.field_names):
        values = fields[:, channel]
        summary[name] = {
            "minimum": float(values.min()),
            "maximum": float(values.max()),
            "mean": float(values.mean()),
            "mean_square": float(values.square().mean()),
        }
    return {
        "file": path.name,
        "start": start,
        "count": len(shard.trajectories),
        "bytes": path.stat().st_size,
        "sha256": checksum(path),
        "rejected_draws": shard.rejected,
        "solver_points": {str(points): count for points, count in sorted(shard.grids.items())},
        "spectral_tail": {"largest": max(shard.tails), "above_1e-3": sum(t > 1e-3 for t in shard.tails)},
        "fields": summary,
    }


# --------------------------------------------------------------------------------- simulating


def _draw(recipe: DatasetRecipe, family: InitialCondition, split: str, trajectory: int, attempt: int) -> _Draw:
    stream = random_stream(recipe.seed, split, trajectory, "physics", attempt)
    modes = family.draw(stream)
    length = recipe.length.draw(stream)
    return _Draw(modes, length, {name: d.draw(stream) for name, d in recipe.parameters.items()})


def _build(recipe: DatasetRecipe, draws: Sequence[_Draw], points: int, substeps: int | None = None) -> Simulator:
    parameters = {n: torch.tensor([d.parameters[n] for d in draws], dtype=torch.float64) for n in recipe.parameters}
    length = torch.tensor([d.length for d in draws], dtype=torch.float64)
    return recipe.simulator(
        **parameters,
        domain_length=length,
        points=points,
        substeps=substeps,
        check_resolution=False,  # the plan has chosen a grid that passes
        dtype=torch.float64,
        **recipe.content["solver"].get("arguments", {}),
    )


def _plan(recipe: DatasetRecipe, draws: Sequence[_Draw]) -> list[tuple[int, int]]:
    """Return the grid and the steps per frame of each trajectory, from its own draw only."""
    modes = torch.stack([d.modes for d in draws])
    highest, observed = modes.shape[-1] - 1, recipe.observation["points"]
    probe = max(256, 1 << (4 * highest).bit_length())
    fields = InitialCondition.evaluate(modes, probe)[:, None]
    needed = _build(recipe, draws, probe).points_needed(fields).clamp_min(3 * highest + 1)
    grids = recipe.grids() or [observed * m for m in LADDER if observed * m >= 8 and observed * m % 2 == 0]
    chosen = []
    for row, wanted in enumerate(needed.tolist()):
        fitting = [g for g in grids if g >= wanted * (1 - 1e-9)]
        if not fitting:
            numbers = ", ".join(f"{n} {v:.4g}" for n, v in draws[row].parameters.items())
            advice = math.ceil(wanted / observed) * observed
            raise ResolutionError(
                f"{recipe.name}: {grids[-1]} points do not resolve a trajectory that is drawn ({numbers}, field from "
                f"{float(fields[row].min()):.3g} to {float(fields[row].max()):.3g}): it needs {math.ceil(wanted)}. Set "
                f"solver.points to 'auto' or at least {advice}, or smooth the initial fields, or raise the parameters."
            )
        chosen.append(fitting[0])
    times = recipe.times
    interval = times[1] - times[0]
    solver = recipe.content["solver"]
    steps = torch.full((len(draws),), float(solver.get("time_step", 0.0)), dtype=torch.float64)
    if "time_step" not in solver:
        for points in set(chosen):
            rows = [i for i, g in enumerate(chosen) if g == points]
            simulator = _build(recipe, [draws[i] for i in rows], points)
            steps[rows] = simulator.step_needed(fields[rows], solver.get("courant", 1.0))
    counts = [max(1, math.ceil(interval / s - 1e-9)) for s in steps.tolist()]
    return [(g, next((m for m in LADDER if m >= n), n)) for g, n in zip(chosen, counts, strict=True)]


def _simulate_group(
    recipe: DatasetRecipe, draws: Sequence[_Draw], points: int, substeps: int, device: torch.device
) -> tuple[Trajectories, Tensor]:
    initial = InitialCondition.evaluate(torch.stack([d.modes for d in draws]), points)[:, None].to(device)
    observation = recipe.observation
    with torch.no_grad():
        solution = _build(recipe, draws, points, substeps).solve(
            initial, torch.from_numpy(recipe.times), observation["points"], observation["sampling"]
        )
    return solution.trajectories.to("cpu"), solution.spectral_tail.cpu()


def _simulate_shard(
    recipe: DatasetRecipe, split: str, indices: Sequence[int], device: torch.device, pool: ThreadPoolExecutor
) -> _Shard:
    family = recipe.initial_condition
    attempts = dict.fromkeys(indices, 0)
    results: dict[int, tuple[Trajectories, int, float]] = {}
    pending = list(attempts)
    while pending:
        draws = {k: _draw(recipe, family, split, k, attempts[k]) for k in pending}
        groups: dict[tuple[int, int], list[int]] = {}
        for k, plan in zip(pending, _plan(recipe, list(draws.values())), strict=True):
            groups.setdefault(plan, []).append(k)
        # The largest jobs first, so that no thread is left with one at the end.
        jobs = [
            (plan, rows[i : i + MAX_GROUP])
            for plan, rows in sorted(groups.items(), key=lambda item: -item[0][0] * item[0][1])
            for i in range(0, len(rows), MAX_GROUP)
        ]
        futures = [pool.submit(_simulate_group, recipe, [draws[k] for k in rows], *plan, device) for plan, rows in jobs]
        pending = []
        for (plan, rows), future in zip(jobs, futures, strict=True):
            trajectories, tails = future.result()
            finite = torch.isfinite(trajectories.fields.to(torch.float32)).flatten(1).all(dim=1)
            for row, k in enumerate(rows):
                if finite[row]:
                    results[k] = (trajectories[row], plan[0], float(tails[row]))
                else:
                    attempts[k] += 1
                    pending.append(k)
        tired = [k for k in pending if attempts[k] >= MAX_ATTEMPTS]
        if tired:
            raise DataError(
                f"{recipe.name}: trajectory {tired[0]} of split '{split}' was not finite in {MAX_ATTEMPTS} draws. "
                f"The solver is unstable with these settings: lower solver.time_step or "
                f"solver.courant, or raise solver.points."
            )
        pending.sort()
    joined = Trajectories.concatenate([results[k][0] for k in indices])
    # Coefficients that the dataset leaves at the simulator's default belong to the equation, they are no labels.
    known = {n: joined.parameters[n] for n in recipe.parameters}
    joined = joined.replace(parameters=known, equation=recipe.equation)
    fields = joined.fields
    if recipe.observation["noise"]:
        shape = tuple(fields.shape[1:])
        noise = [random_stream(recipe.seed, split, k, "noise").standard_normal(shape) for k in indices]
        fields = fields + recipe.observation["noise"] * torch.from_numpy(np.stack(noise))
    joined = joined.replace(fields=fields.to(torch.float32), index=torch.tensor(list(indices), dtype=torch.int64))
    return _Shard(
        joined,
        sum(attempts.values()),
        dict(Counter(results[k][1] for k in indices)),
        [results[k][2] for k in indices],
    )


def _check_before_starting(recipe: DatasetRecipe) -> None:
    """Plan the first trajectories of every split: settings that cannot work are refused before anything is written."""
    family = recipe.initial_condition
    for split, entry in recipe.splits.items():
        if entry["size"]:
            _plan(recipe, [_draw(recipe, family, split, k, 0) for k in range(min(entry["size"], 256))])


# ------------------------------------------------------------------------- threads and reporting


@contextmanager
def _threads(device: str | torch.device, workers: int | None) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool whose threads run torch single-threaded: whole groups in parallel beat parallel small operations."""
    before = torch.get_num_threads()
    count = workers or (before if torch.device(device).type == "cpu" else 1)
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(before)


@contextmanager
def _reporting(
    progress: bool | Callable[[Progress], None] | None, name: str, total: int, done: int
) -> Iterator[Callable[[Progress], None]]:
    if callable(progress):
        yield progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if progress is False or (progress is None and not console.is_terminal):
        yield lambda _: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console) as bar:
        task = bar.add_task(name, total=total, completed=done, rate="")

        def show(state: Progress) -> None:
            rejected = f", {state.rejected} redrawn" if state.rejected else ""
            bar.update(
                task, completed=state.done, description=f"{name}: {state.split}", rate=f"{state.rate:.0f}/s{rejected}"
            )

        yield show

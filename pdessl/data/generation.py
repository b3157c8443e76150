"""Simulating a dataset into a store: shard by shard, on one machine or many, resumable after any interruption."""

from __future__ import annotations

import os
import time as clock
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pdessl.data.cluster import cluster_shards
from pdessl.data.manifest import FORMAT, FORMAT_VERSION, MANIFEST, continue_with, read_manifest, write_manifest
from pdessl.data.planning import check_before_starting, check_shards
from pdessl.data.production import make_shard
from pdessl.data.recipe import DatasetRecipe, differences, load_recipe
from pdessl.data.reporting import Progress, reporting
from pdessl.data.simulation import find_device
from pdessl.data.store import Store, finish
from pdessl.errors import StoreError
from pdessl.files import LOCK, checksum, locked, versions
from pdessl.schema import Overrides

__all__ = ["generate"]


def generate(
    dataset: str | os.PathLike[str] | DatasetRecipe,
    out: str | os.PathLike[str],
    size: int | Mapping[str, int] | None = None,
    device: str | torch.device = "cpu",
    resume: bool = False,
    overrides: Overrides | None = None,
    progress: bool | Callable[[Progress], None] | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    any_version: bool = False,
) -> Store:
    """Simulate a dataset into a store on disk.

    Args:
        dataset: a name from ``pdessl list datasets``, a path of a YAML file, or a recipe.
        out: folder of the store; made if missing. It must be empty unless ``resume``.
        size: trajectories of the file's first split (the others shrink in proportion and never grow), or a mapping from
            split to number; default as in the file.
        device: where to simulate, e.g. ``cuda``. The draws are the same on every device.
        resume: continue an interrupted generation. Shards that are whole are kept, damaged ones made anew, and the
            result is bitwise the store an uninterrupted run makes. Does nothing when all is there.
        overrides: other values, ``{"observation.noise": 0.0}`` or ``["observation.noise=0"]``.
        progress: True shows a bar, False nothing, None a bar when standard error is a terminal; or a function that is
            called with :class:`Progress` after every shard.
        workers: threads; default one per processor torch may use, 1 on a GPU (and in each task of a cluster).
        scheduler: address of a Dask scheduler, ``tcp://host:port``: its workers make the shards, bitwise the same, and
            this process writes the manifest. ``device`` is then that of the workers.
        any_version: with ``resume``, continue what another version of pdessl, torch or NumPy began; both are then in
            the manifest, and the result is that of neither.

    Returns:
        The complete store.

    Trajectory k of a split depends on (seed, split, k) only. One that blows up or is not finite is never stored: it is
    drawn again from the next attempt's seed, counted, and reported in the manifest.

    Raises:
        CatalogError: no such dataset; the message suggests the nearest name.
        SchemaError: the dataset file does not follow the format.
        ResolutionError: the solver's grids cannot resolve what is to be drawn.
        StoreError: ``out`` holds something else, was made by another recipe or version, is being written by another
            process, or cannot be written.
        DataError: trajectories stay non-finite however often they are drawn, or no such device.
        DependencyError: ``scheduler`` without the package distributed.
    """
    recipe = load_recipe(dataset, size, overrides)
    check_shards(recipe)
    folder = Path(out)
    if _finished(recipe, folder, resume):
        if (folder / LOCK).exists():  # of a process killed after its last shard; or the folder is read only
            with suppress(StoreError), locked(folder):
                pass
        return Store(folder)
    with locked(folder):
        _generate(recipe, folder, str(device), resume, progress, workers, scheduler, any_version)
    return Store(folder)


def _generate(
    recipe: DatasetRecipe,
    folder: Path,
    device: str,
    resume: bool,
    progress: bool | Callable[[Progress], None] | None,
    workers: int | None,
    scheduler: str | None,
    any_version: bool,
) -> None:
    """Make what is missing, in a folder that nobody else writes to."""
    manifest = _begin(recipe, folder, resume)
    todo = _missing(recipe, folder, manifest)
    if todo:
        continue_with(manifest, folder, any_version)
    check_before_starting(recipe, find_device(device if scheduler is None else "cpu"))
    total = sum(split["size"] for split in recipe.splits.values())
    done = total - sum(count for _, _, count in todo)
    started, before = clock.monotonic(), done
    write_manifest(folder, manifest)
    make = _local_shards if scheduler is None else partial(cluster_shards, scheduler=scheduler)
    shards = make(recipe, folder, todo, device, workers)
    # Closed here and not by the garbage collector: a cluster's tasks end with an interrupted generation.
    with closing(shards), reporting(progress, recipe.name, total, done) as report:
        for split, entry in shards:
            held = manifest["splits"][split]["shards"]
            held.append(entry)
            held.sort(key=lambda shard: shard["start"])
            write_manifest(folder, manifest)
            done += entry["count"]
            seconds = clock.monotonic() - started
            rejected = sum(s["rejected_draws"] for x in manifest["splits"].values() for s in x["shards"])
            report(Progress(split, done, total, rejected, seconds, (done - before) / max(seconds, 1e-9)))
    finish(folder, manifest)


def _finished(recipe: DatasetRecipe, folder: Path, resume: bool) -> bool:
    """Whether all is there and whole, so that nothing needs to be written (nor could be, perhaps)."""
    if not resume or not (folder / MANIFEST).is_file():
        return False
    manifest = read_manifest(folder)
    return manifest["complete"] and manifest["recipe_hash"] == recipe.hash and not Store(folder).verify()


def _local_shards(
    recipe: DatasetRecipe, folder: Path, todo: list[tuple[str, int, int]], device: str, workers: int | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    for split, start, count in todo:
        yield split, make_shard(recipe, folder, split, start, count, device, workers)


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
    if MANIFEST not in held:
        foreign = [name for name in held if not name.endswith(".tmp") and name != LOCK]
        if foreign:
            raise StoreError(
                f"{folder} is not empty (it holds {', '.join(foreign[:3])}) and is no store. Choose an empty folder."
            )
        return fresh
    manifest = read_manifest(folder)
    if manifest["recipe_hash"] != recipe.hash:
        found = differences(manifest["recipe"], recipe.content)
        changed = ", ".join(f"{key} {old!r} -> {new!r}" for key, (old, new) in found.items()) or "its format"
        raise StoreError(
            f"{folder} was made by another recipe ('{manifest['dataset']}', hash {manifest['recipe_hash'][:12]}; now "
            f"'{recipe.name}', {recipe.hash[:12]}). Different: {changed}. Choose another folder, or continue "
            f"what was begun: {Store(folder).command} --resume"
        )
    if not resume:
        state = "a complete store of this dataset" if manifest["complete"] else "an unfinished store of this dataset"
        raise StoreError(
            f"{folder} holds {state}. Continue or verify it with --resume (resume=True), or choose another folder."
        )
    return manifest


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

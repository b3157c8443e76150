"""Data of any layout into a store: read and written shard by shard, continued after an interruption."""

# N trajectories of a split, C channels, T frames, X space

from __future__ import annotations

import math
import os
import time as clock
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pdessl.data.converted import ConvertedRecipe
from pdessl.data.formats import open_apart
from pdessl.data.formats.checks import RESOLVED, spectral_tail
from pdessl.data.formats.files import Files
from pdessl.data.manifest import FORMAT, FORMAT_VERSION, MANIFEST, continue_with, read_manifest, write_manifest
from pdessl.data.reporting import Progress, reporting
from pdessl.data.resplitting import Resplit, resplit
from pdessl.data.shards import entry_of, write_shard
from pdessl.data.source import Source
from pdessl.data.store import Store, finish
from pdessl.errors import DataError, StoreError
from pdessl.files import LOCK, checksum, locked, versions
from pdessl.trajectory import Trajectories

__all__ = ["SHARD_BYTES", "convert"]

SHARD_BYTES = 64 << 20
MAX_SHARD = 1024


def convert(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Source,
    out: str | os.PathLike[str],
    mapping: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    resume: bool = False,
    progress: bool | Callable[[Progress], None] | None = None,
    any_version: bool = False,
    split: Mapping[str, str | float] | None = None,
) -> Store:
    """Write data of any layout into a store.

    Values, coordinates and parameters are bit for bit those of :meth:`Source.load`; units, staggering, groups and known
    faults are kept. A shard of at most 64 MiB is read and written at a time, so memory is bounded however large the
    data are.

    Args:
        path: files, as :func:`pdessl.open` takes them, or an open source.
        out: folder of the store; made if missing. It must be empty unless ``resume``.
        mapping: how files are to be read, see :func:`pdessl.open`.
        resume: continue an interrupted conversion of the same files; shards that are whole are kept.
        progress: True shows a bar, False nothing, None a bar when standard error is a terminal; or a function that is
            called with :class:`pdessl.data.Progress` after every shard.
        any_version: with ``resume``, continue what another version of pdessl, torch or NumPy began.
        split: which runs are in which split, ``{"test": "viscosity>0.01", "labelled": "run_0*.nc"}``; see
            :func:`pdessl.data.resplitting.resplit`. Default the splits that the data have.

    Raises:
        FormatError, DataError, SchemaError: see :func:`pdessl.open`.
        StoreError: ``out`` holds something else, is being written by another process, or cannot be written.
    """
    source = path if isinstance(path, Source) else open_apart(path, mapping)
    if split:
        source = resplit(source, split)
    recipe = _recipe(source)
    folder = Path(out)
    with locked(folder):
        _convert(source, recipe, folder, resume, progress, any_version)
    return Store(folder)


def _convert(
    source: Source,
    recipe: ConvertedRecipe,
    folder: Path,
    resume: bool,
    progress: bool | Callable[[Progress], None] | None,
    any_version: bool,
) -> None:
    """Write what is missing, in a folder that nobody else writes to."""
    manifest = _begin(recipe, folder, resume)
    total, done, started = len(source), 0, clock.monotonic()
    write_manifest(folder, manifest)
    with reporting(progress, source.format, total, 0) as report:
        for split, size in source.splits.items():
            held = {shard["start"]: shard for shard in manifest["splits"][split]["shards"]}
            for start in range(0, size, recipe.shard_size):
                rows = np.arange(start, min(start + recipe.shard_size, size))
                if start not in held or not _whole(folder, held[start]):
                    continue_with(manifest, folder, any_version)
                    held[start] = _write(source, recipe, folder, split, rows)
                    manifest["splits"][split]["shards"] = [held[key] for key in sorted(held)]
                    write_manifest(folder, manifest)
                done += len(rows)
                seconds = clock.monotonic() - started
                report(Progress(split, done, total, 0, seconds, done / max(seconds, 1e-9)))
    finish(folder, manifest)


def _recipe(source: Source) -> ConvertedRecipe:
    sizes = [math.prod(source.shape(split)) for split in source.splits]
    dtype = np.dtype(source.load(next(iter(source.splits)), [0], frames=slice(0, 1)).fields.numpy().dtype)
    base = source.base if isinstance(source, Resplit) else source
    mapping = dict(base.mapping.content) if isinstance(base, Files) else {}
    values = [source.parameter_values(split) for split in source.splits]
    parameters = {}
    for name in source.parameters:
        found = np.concatenate([v[name] for v in values if name in v])
        if len(known := found[np.isfinite(found)]):  # runs without a label say nothing of the range
            unit = source.units.get(name, "")
            parameters[name] = {"low": float(known.min()), "high": float(known.max()), "unit": unit}
    content = {
        "title": str(mapping.get("title", source.format)),
        "equation": source.equation,
        "converted": {
            "files": _files(source),
            "format": source.format,
            "mapping": mapping,
            **({"split": source.rules} if isinstance(source, Resplit) else {}),
        },
        "fields": {
            n: {"unit": source.units.get(n, ""), "staggered": source.staggered.get(n)} for n in source.field_names
        },
        "units": dict(source.units),
        "parameters": parameters,
        "constants": dict(source.constants),
        "splits": {
            split: {"size": size, "labels": bool(v)}
            for (split, size), v in zip(source.splits.items(), values, strict=True)
        },
        "groups": {split: _runs(source.groups(split)) for split in source.splits},
        "shard_size": int(np.clip(SHARD_BYTES // (max(sizes) * dtype.itemsize), 1, MAX_SHARD)),
        "dtype": str(dtype),
        "faults": list(source.warnings),
    }
    if source.actuation:
        content["actuation"] = dict(source.actuation)
    return ConvertedRecipe(source.format, content)


def _files(source: Source) -> dict[str, int]:
    """Return the names and sizes of the files, by which an interrupted conversion knows them again."""
    base = source.base if isinstance(source, Resplit) else source
    return {p.name: p.stat().st_size for p in base.paths} if isinstance(base, Files) else {source.name: 0}


def _runs(groups: np.ndarray) -> list[list[int]]:
    if not len(groups):
        return []
    edges = np.flatnonzero(np.diff(groups)) + 1
    starts = np.concatenate([[0], edges])
    counts = np.diff(np.concatenate([starts, [len(groups)]]))
    return [[int(groups[s]), int(c)] for s, c in zip(starts, counts, strict=True)]


def _begin(recipe: ConvertedRecipe, folder: Path, resume: bool) -> dict[str, Any]:
    fresh = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "dataset": recipe.name,
        "equation": recipe.equation,
        "recipe": dict(recipe.content),
        "recipe_hash": recipe.hash,
        "seed": None,
        "versions": versions(),
        "splits": {n: {**s, "shards": []} for n, s in recipe.splits.items()},
        "complete": False,
    }
    if not (folder / MANIFEST).is_file():
        foreign = (
            [p.name for p in folder.iterdir() if not p.name.endswith(".tmp") and p.name != LOCK]
            if folder.is_dir()
            else []
        )
        if foreign:
            raise StoreError(
                f"{folder} is not empty (it holds {', '.join(sorted(foreign)[:3])}) and is no store. Choose an "
                f"empty folder."
            )
        return fresh
    manifest = read_manifest(folder)
    if manifest["recipe_hash"] != recipe.hash:
        raise StoreError(
            f"{folder} holds a store made of other files or in another way. Choose another folder, or delete this one."
        )
    if not resume:
        raise StoreError(
            f"{folder} holds a store of these data. Continue or repair it with --resume (resume=True), or choose "
            f"another folder."
        )
    return {**manifest, "complete": False}


def _whole(folder: Path, shard: Mapping[str, Any]) -> bool:
    path = folder / shard["file"]
    return path.is_file() and path.stat().st_size == shard["bytes"] and checksum(path) == shard["sha256"]


def _write(source: Source, recipe: ConvertedRecipe, folder: Path, split: str, rows: np.ndarray) -> dict[str, Any]:
    data = source.load(split, rows)
    try:
        data.check_finite()
    except DataError as error:
        raise DataError(f"{source.name}: split '{split}', trajectories {rows[0]} to {rows[-1]}: {error}") from None
    path = folder / f"{split}-{rows[0] // recipe.shard_size:05d}.nc"
    write_shard(path, data, recipe, split, int(rows[0]))
    return {
        **entry_of(path, int(rows[0]), len(rows)),
        "rejected_draws": 0,
        "solver_points": {},
        "spectral_tail": _tail(data),
        "fields": _ranges(data),
    }


def _ranges(data: Trajectories) -> dict[str, dict[str, float]]:
    found = {}
    for channel, name in enumerate(data.field_names):
        values = data.fields[:, channel].to(torch.float64)
        found[name] = {
            "minimum": float(values.min()),
            "maximum": float(values.max()),
            "mean": float(values.mean()),
            "mean_square": float(values.square().mean()),
        }
    return found


def _tail(data: Trajectories) -> dict[str, float | int]:
    """Return how far the stored spectra reach towards the grid scale, the largest over fields and axes."""
    tails = []
    for values in data.fields[:, :, :: max(1, data.fields.shape[2] // 4)].numpy():
        found = [
            spectral_tail(channel, 1 + axis, kind == "periodic")
            for channel in values
            for axis, kind in enumerate(data.boundary)
        ]
        tails.append(max((t for t in found if t is not None), default=0.0))
    return {"largest": max(tails), "above_1e-3": sum(t > RESOLVED for t in tails)}

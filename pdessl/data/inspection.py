"""What is in a store, or in files of any layout: grid, ranges, parameters, resolution, faults."""

# B batch, T frames, X space

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdessl.data.description import describe_files, describe_store
from pdessl.data.formats import described_apart, open_source
from pdessl.data.formats.isolation import cheap
from pdessl.data.formats.summary import summarise, unreadable
from pdessl.data.groups import describe_groups
from pdessl.data.manifest import MANIFEST
from pdessl.data.shards import open_shard
from pdessl.data.store import Store
from pdessl.errors import DataError, FormatError
from pdessl.trajectory import Trajectories
from pdessl.written import visible

__all__ = ["Inspection", "inspect", "verify"]


@dataclass(frozen=True)
class Inspection:
    """A summary of data on disk.

    Args:
        summary: plain data: ``kind`` (``store`` or ``files``), ``title``, ``equation``, ``splits`` {name:
            trajectories}, ``fields`` {name: minimum, maximum, mean, rms}, ``grid`` (frames, time, points, space),
            ``parameters`` {name: range}, ``groups`` (runs that share a setting: ``by``, what to give as ``grouped``,
            and ``splits`` {name: groups, smallest, largest}; empty where there are none), ``warnings``; for a store
            ``rejected_draws``, ``solver_points``, ``spectral_tail``, ``noise``, ``actuators`` (None without); for files
            ``format``, ``held`` (files, groups and shape per split), ``sampled`` (trajectories the ranges come from),
            ``spectra``, ``dropped``, ``statistics``, and per parameter ``distinct`` values per split.

    ``print(inspect(path))`` shows it as text.
    """

    summary: dict[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.summary[key]

    @property
    def warnings(self) -> list[str]:
        """What a user should know before trusting the data; empty if all is well."""
        return self.summary["warnings"]

    def __str__(self) -> str:
        lines = describe_store(self.summary) if self.summary["kind"] == "store" else describe_files(self.summary)
        return visible("\n".join(lines), keep="\n")


def verify(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    mapping: str | os.PathLike[str] | Mapping[str, Any] | None = None,
) -> str:
    """Read every byte, and return a line that says that all is well.

    A store is compared with the checksums of its manifest; of files every value is looked at, where :func:`inspect`
    samples.

    Args:
        path: store or files, as for :func:`inspect`.
        mapping: likewise.

    Raises:
        FormatError: nothing there; shards that are missing, damaged, or others than the manifest says; they are named.
        DataError: trajectories of files that hold values that are not finite or were never written; one is named.
    """
    if not _is_store(path, mapping):
        source = open_source(path, mapping)
        bad = unreadable(source)
        if bad:
            more = (
                f" The first of {len(bad)} trajectories that cannot be used of {len(source)}." if len(bad) > 1 else ""
            )
            raise DataError(f"{bad[0]}{more}")
        return f"{source.name}: all values of {len(source)} trajectories are there and finite"
    store = Store(path)  # type: ignore[arg-type]  # a single path, see _is_store
    bad = store.verify()
    count = sum(len(split["shards"]) for split in store.manifest["splits"].values())
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise FormatError(
            f"{path}: {len(bad)} of {count} shards are missing, damaged or not what the manifest says: "
            f"{', '.join(bad[:5])}{more}. Make them anew: {store.command} --resume"
        )
    return f"{path}: all {count} shards are as the manifest says"


def _is_store(path: Any, mapping: Any) -> bool:
    return mapping is None and isinstance(path, (str, os.PathLike)) and (Path(path) / MANIFEST).is_file()


def inspect(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    mapping: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    isolate: bool = False,
) -> Inspection:
    """Summarise a store (its folder), or files of any layout that is recognised or mapped.

    A store's summary comes from its manifest and the coordinates of one shard; that of files from their headers and a
    sample of trajectories: nothing large is read.

    Args:
        path: folder or file, or a list of files.
        mapping: how files are to be read, see :func:`pdessl.open`.
        isolate: read files in a process of its own. The HDF5 library crashes on some damaged files, or never returns;
            this makes that an error like others. ``pdessl inspect`` does so, and ``pdessl convert`` before it starts.

    Raises:
        FormatError: nothing there, damaged, or in a layout that is not known; the message says how to map it.
        DataError: coordinates that are missing or irregular.
    """
    if _is_store(path, mapping):
        return Inspection(_store(Store(path)))  # type: ignore[arg-type]
    if not isolate or not cheap():
        return Inspection(_files(open_source(path, mapping)))
    return Inspection(described_apart(_files, path, mapping))


def _files(source: Any) -> dict[str, Any]:
    return summarise(source) | {"groups": describe_groups(source)}


def _grid(sample: Trajectories, time_unit: str) -> dict[str, Any]:
    spacing = sample.grid_spacing
    axes = [
        {
            "name": name,
            "points": sample.space[i].shape[1],
            "spacing": (float(spacing[:, i].min()), float(spacing[:, i].max())),
            "boundary": sample.boundary[i],
        }
        for i, name in enumerate(sample.axis_names)
    ]
    ends = (float(sample.time[:, 0].min()), float(sample.time[:, -1].max()))
    return {"frames": sample.time.shape[1], "time": ends, "time_unit": time_unit, "axes": axes}


def _store(store: Store) -> dict[str, Any]:
    recipe, manifest = store.recipe, store.manifest
    shards = [(name, shard) for name, split in manifest["splits"].items() for shard in split["shards"]]
    warnings, notes = list(recipe.faults) if store.converted else [], {}
    for name, split in manifest["splits"].items():
        there = sum(shard["count"] for shard in split["shards"])
        notes[name] = "" if split["labels"] else " (parameters not stored)"
        if there != split["size"]:
            warnings.append(
                f"split {name} holds {there} of {split['size']} trajectories. Continue: {store.command} --resume"
            )
    missing = [
        s["file"]
        for _, s in shards
        if not (store.path / s["file"]).is_file() or (store.path / s["file"]).stat().st_size != s["bytes"]
    ]
    if missing:
        warnings.append(
            f"{len(missing)} shards are missing or truncated, first {missing[0]}. Repair: {store.command} --resume"
        )
    whole = [shard for _, shard in shards if shard["file"] not in missing]
    grid: dict[str, Any] = {"frames": 0, "time": (0.0, 0.0), "time_unit": "", "axes": []}
    if not store.converted:
        grid |= {
            "frames": recipe.observation["frames"],
            "time": (float(recipe.times[0]), float(recipe.times[-1])),
            "time_unit": recipe.observation["unit"],
        }
    if whole:
        with open_shard(store.path / whole[0]["file"], whole[0]["bytes"]) as dataset:
            sample = Trajectories.from_xarray(dataset.isel(trajectory=slice(0, 64)))
            grid = _grid(sample, store.units.get("time", ""))
    points: dict[str, int] = {}
    for _, shard in shards:
        for n, count in shard["solver_points"].items():
            points[n] = points.get(n, 0) + count
    tail = {
        "largest": max((s["spectral_tail"]["largest"] for _, s in shards), default=0.0),
        "above_1e-3": sum(s["spectral_tail"]["above_1e-3"] for _, s in shards),
    }
    if tail["above_1e-3"] and not store.converted:
        if not recipe.content["solver"].get("check_resolution", True):
            advice = (
                "The dataset asks for it (solver.check_resolution: false; its file says why): what is finer than the "
                "grid is smoothed by the scheme, so these are its fields more than the equation's."
            )
        elif recipe.grids() is None:
            advice = "For finer grids than those planned give solver.points as numbers."
        else:
            advice = "Use solver.points: auto, or a finer grid."
        warnings.append(
            f"{tail['above_1e-3']} trajectories are under-resolved: amplitude at the grid scale up to "
            f"{tail['largest']:.2g} of the peak, expected below 1e-3. {advice}"
        )
    units = recipe.content.get("fields", {})
    return {
        "kind": "store",
        "path": str(store.path),
        "title": str(recipe.content.get("title", recipe.name)).strip(),
        "dataset": recipe.name,
        "equation": store.equation,
        "splits": store.splits,
        "notes": notes,
        "grid": grid,
        "fields": _combine([shard for _, shard in shards], units),
        "parameters": {
            n: {"range": (d.low, d.high), "unit": d.unit, "distribution": d.kind.replace("_", "-")}
            for n, d in recipe.parameters.items()
        },
        "actuators": {
            "positions": [list(p) for p in store.actuators],
            "unit": store.units.get("actions", ""),
            "bound": store.actuation.get("bound"),
        }
        if store.actuation
        else None,
        "noise": 0.0 if store.converted else recipe.observation["noise"],
        "origin": recipe.origin if store.converted else "",
        "rejected_draws": store.rejected_draws,
        "solver_points": dict(sorted(points.items(), key=lambda item: [int(n) for n in item[0].split("x")])),
        "spectral_tail": tail,
        "recipe_hash": manifest["recipe_hash"],
        "seed": manifest["seed"],
        "versions": manifest["versions"],
        "complete": store.complete,
        "groups": describe_groups(store),
        "warnings": warnings,
    }


def _combine(shards: list[dict[str, Any]], units: dict[str, Any]) -> dict[str, Any]:
    total = sum(s["count"] for s in shards)
    result = {}
    for name in shards[0]["fields"] if shards else ():
        entries = [(s["count"] / total, s["fields"][name]) for s in shards]
        result[name] = {
            "minimum": min(e["minimum"] for _, e in entries),
            "maximum": max(e["maximum"] for _, e in entries),
            "mean": sum(w * e["mean"] for w, e in entries),
            "rms": math.sqrt(sum(w * e["mean_square"] for w, e in entries)),
            "unit": str(units.get(name, {}).get("unit", "")),
        }
    return result

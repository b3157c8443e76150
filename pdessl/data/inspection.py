"""What is in a store, a shard or any netCDF file: grid, ranges, parameters, rejected draws, resolution."""

# B batch, T frames, X space

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pdessl.data.store import MANIFEST, Store, open_shard
from pdessl.errors import FormatError
from pdessl.trajectory import Trajectories

__all__ = ["Inspection", "inspect"]


@dataclass(frozen=True)
class Inspection:
    """A summary of data on disk.

    Args:
        summary: plain data: ``kind`` (``store`` or ``file``), ``equation``, ``splits`` {name: trajectories}, ``fields``
            {name: minimum, maximum, mean, rms}, ``grid`` (frames, time, points, space), ``parameters`` {name: range},
            ``warnings``, and for a store ``rejected_draws``, ``solver_points``, ``spectral_tail``, ``noise``.

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
        s = self.summary
        lines = [f"{s['path']}: {s['title']}"]

        def line(label: str, text: str) -> None:
            lines.append(f"  {label:<14} {text}")

        line("equation", str(s["equation"] or "not named in the file"))
        for name, count in s["splits"].items():
            line(f"split {name}" if s["kind"] == "store" else "trajectories", f"{count}{s['notes'].get(name, '')}")
        grid = s["grid"]
        line(
            "time",
            f"{grid['frames']} frames, t = {_range(grid['time'])} {grid['time_unit']}".rstrip(),
        )
        for axis in grid["axes"]:
            line(
                f"axis {axis['name']}",
                f"{axis['points']} points, spacing {_range(axis['spacing'])}, {axis['boundary']}",
            )
        for name, f in s["fields"].items():
            line(
                f"field {name}",
                f"{_number(f['minimum'])} ... {_number(f['maximum'])} {f['unit']}".rstrip()
                + f", mean {_number(f['mean'])}, rms {_number(f['rms'])}",
            )
        for name, p in s["parameters"].items():
            line(
                name,
                f"{_range(p['range'])} {p['unit']}".rstrip() + (f" ({p['distribution']})" if p["distribution"] else ""),
            )
        if s["kind"] == "store":
            levels = s["noise"] if isinstance(s["noise"], dict) else {"": s["noise"]}
            words = [f"{name} {_number(level)}".strip() for name, level in levels.items() if level]
            line("noise", f"white, standard deviation {', '.join(words)}" if words else "none")
            line("solver grids", ", ".join(f"{n} points: {c}" for n, c in s["solver_points"].items()))
            tail = s["spectral_tail"]
            verdict = (
                "resolved"
                if not tail["above_1e-3"]
                else f"{tail['above_1e-3']} trajectories above 1e-3: under-resolved"
            )
            line(
                "spectra",
                f"largest amplitude at the solver's grid scale {_number(tail['largest'])} of the peak; {verdict}",
            )
            line("rejected", f"{s['rejected_draws']} draws were not finite and drawn again")
            line(
                "made by",
                f"{s['dataset']} (recipe {s['recipe_hash'][:12]}, seed {s['seed']}), "
                + ", ".join(f"{k} {v}" for k, v in s["versions"].items()),
            )
        lines += [f"  warning: {text}" for text in s["warnings"]]
        return "\n".join(lines)


def inspect(path: str | os.PathLike[str]) -> Inspection:
    """Summarise a store (its folder), one of its shards, or any netCDF-4/HDF5 file that xarray can open.

    A store's summary comes from its manifest and the coordinates of one shard: nothing large is read.

    Raises:
        FormatError: nothing there, truncated, or not a file xarray's h5netcdf engine reads.
        DataError: a file without time dimension or coordinates, or with values that are not finite.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / MANIFEST).is_file():
            files = sorted(p.name for p in path.iterdir() if p.suffix in (".nc", ".h5", ".hdf5"))
            hint = (
                f"It holds {len(files)} data files; inspect one: {path / files[0]}"
                if files
                else "It holds no .nc or .h5 file."
            )
            raise FormatError(f"{path} is not a store (no {MANIFEST}). {hint}")
        return Inspection(_store(Store(path)))
    return Inspection(_file(path))


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
    warnings, notes = [], {}
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
    grid: dict[str, Any] = {
        "frames": recipe.observation["frames"],
        "time": (float(recipe.times[0]), float(recipe.times[-1])),
        "time_unit": recipe.observation["unit"],
        "axes": [],
    }
    if whole:
        with open_shard(store.path / whole[0]["file"], whole[0]["bytes"]) as dataset:
            grid = _grid(Trajectories.from_xarray(dataset.isel(trajectory=slice(0, 64))), recipe.observation["unit"])
    points: dict[str, int] = {}
    for _, shard in shards:
        for n, count in shard["solver_points"].items():
            points[n] = points.get(n, 0) + count
    tail = {
        "largest": max((s["spectral_tail"]["largest"] for _, s in shards), default=0.0),
        "above_1e-3": sum(s["spectral_tail"]["above_1e-3"] for _, s in shards),
    }
    if tail["above_1e-3"]:
        warnings.append(
            f"{tail['above_1e-3']} trajectories are under-resolved. Use solver.points: auto, or a finer grid."
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
        "noise": recipe.observation["noise"],
        "rejected_draws": store.rejected_draws,
        "solver_points": dict(sorted(points.items(), key=lambda item: [int(n) for n in item[0].split("x")])),
        "spectral_tail": tail,
        "recipe_hash": manifest["recipe_hash"],
        "seed": manifest["seed"],
        "versions": manifest["versions"],
        "complete": store.complete,
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


def _file(path: Path) -> dict[str, Any]:
    with open_shard(path) as dataset:
        data = Trajectories.from_xarray(dataset)
        units = {str(n): str(v.attrs.get("units", "")) for n, v in dataset.variables.items()}
        title = str(dataset.attrs.get("title", "netCDF file"))
    fields = {}
    for i, name in enumerate(data.field_names):
        values = data.fields[:, i].to(torch.float64)
        fields[name] = {
            "minimum": float(values.min()),
            "maximum": float(values.max()),
            "mean": float(values.mean()),
            "rms": float(values.square().mean().sqrt()),
            "unit": units.get(name, ""),
        }
    warnings = []
    if "window" in data.boundary:
        warnings.append(
            "the file does not say whether its axes are periodic; shifts and spectra treat them as windows."
        )
    if not data.parameters:
        warnings.append("no parameters are named in the file (attribute 'parameters'); it can be used without labels.")
    return {
        "kind": "file",
        "path": str(path),
        "title": title,
        "equation": data.equation,
        "splits": {"file": len(data)},
        "notes": {},
        "grid": _grid(data, units.get("time", "")),
        "fields": fields,
        "parameters": {
            n: {"range": (float(v.min()), float(v.max())), "unit": units.get(n, ""), "distribution": ""}
            for n, v in data.parameters.items()
        },
        "warnings": warnings,
    }


def _number(value: float) -> str:
    return f"{value:.4g}"


def _range(ends: tuple[float, float]) -> str:
    low, high = ends
    return _number(low) if math.isclose(low, high, rel_tol=1e-9) else f"{_number(low)} ... {_number(high)}"

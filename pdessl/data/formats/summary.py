"""A summary of data in an external layout, from a sample of it."""

# n trajectories sampled, C channels, T frames, X space

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pdessl.data.formats.checks import RESOLVED, end_jumps, spectral_tail
from pdessl.data.formats.files import Files
from pdessl.data.formats.well import STATISTICS, published_statistics
from pdessl.data.statistics import far_from_zero, field_statistics
from pdessl.errors import DataError
from pdessl.trajectory import Trajectories

__all__ = ["SAMPLE_BYTES", "summarise", "unreadable"]

SAMPLE_BYTES = 64 << 20
SAMPLE_TRAJECTORIES = 8
PERIODIC_JUMP = 2.0
OPEN_JUMP = 5.0


def summarise(source: Files) -> dict[str, Any]:
    """Return what there is to know about a source as plain data; see :class:`pdessl.data.Inspection`.

    Parameters and coordinates are those of all trajectories; ranges of fields, spectra and checks come from a few
    trajectories of each split, as many as fit 64 MiB, and the summary says how many.
    """
    warnings = list(source.warnings)
    samples = {split: _sample(source, split, warnings) for split in source.splits}
    held = [data for data in samples.values() if data is not None]
    return {
        "kind": "files",
        "path": source.name,
        "format": source.format,
        "title": str(source.concrete.get("title") or _plain_title(source)),
        "equation": source.equation,
        "files": source.files,
        "splits": dict(source.splits),
        "notes": {},
        "held": {split: _held(source, split) for split in source.splits},
        "dropped": dict(source.dropped),
        "sampled": sum(map(len, held)),
        "whole": all(d is not None and d.fields.shape[2] == source.shape(s)[1] for s, d in samples.items())
        and sum(map(len, held)) == len(source),
        "grid": _grid(source),
        "fields": {name: _field(source, i, held) for i, name in enumerate(source.field_names)},
        "parameters": {name: _parameter(source, name) for name in source.parameters},
        "spectra": _spectra(held),
        "statistics": _statistics(source, warnings),
        "warnings": warnings + _lengths(source) + _ends(source, held) + _offsets(held),
    }


def _lengths(source: Files) -> list[str]:
    """Return that runs differ in length, where they do."""
    frames: dict[int, int] = {}
    for split, size in source.splits.items():
        frames[source.shape(split)[1]] = frames.get(source.shape(split)[1], 0) + size
    if len(frames) < 2:
        return []
    most = max(frames, key=lambda n: frames[n])
    others = ", ".join(f"{count} of {n}" for n, count in sorted(frames.items()) if n != most)
    return [
        f"runs differ in length: {frames[most]} of {most} frames, {others}. Each length is a split; pretraining cuts "
        "windows out of all, and a run is predicted from all the frames it has."
    ]


def _plain_title(source: Files) -> str:
    kinds = {"netcdf": "netCDF", "zarr": "Zarr", "xarray": "xarray", "custom": "mapped"}
    return f"{kinds.get(source.format, source.format)} file{'s' if source.files > 1 else ''}"


def _sample(source: Files, split: str, warnings: list[str]) -> Trajectories | None:
    """Return a few trajectories of a split, evenly spaced; what cannot be read becomes a warning."""
    size = int(np.prod(source.shape(split))) * 8
    count = max(1, min(SAMPLE_TRAJECTORIES, SAMPLE_BYTES // (len(source.splits) * max(size, 1)), source.splits[split]))
    rows = np.unique(np.linspace(0, source.splits[split] - 1, count).astype(int))
    frames = slice(None)
    if size > SAMPLE_BYTES:
        step = -(-size // SAMPLE_BYTES)
        frames = slice(0, None, min(step, source.shape(split)[1]))
    try:
        return source.load(split, rows, frames=frames)
    except DataError as error:
        warnings.append(str(error))
        return None


def unreadable(source: Files) -> list[str]:
    """Read every value, 64 MiB at a time, and return what is said of each trajectory that cannot be used."""
    found = []
    for split, count in source.splits.items():
        size = int(np.prod(source.shape(split)[1:])) * 8
        block = max(1, SAMPLE_BYTES // max(size, 1))
        for start in range(0, count, block):
            rows = np.arange(start, min(start + block, count))
            try:
                source.load(split, rows)
            except DataError:
                found += [message for row in rows if (message := _refusal(source, split, row))]
    return found


def _refusal(source: Files, split: str, row: int) -> str:
    try:
        source.load(split, np.array([row]))
    except DataError as error:
        return str(error)
    return ""


def _held(source: Files, split: str) -> dict[str, Any]:
    counts = source.counts(split)
    return {
        "trajectories": source.splits[split],
        "files": len(counts),
        "per_file": (min(counts), max(counts)),
        "groups": len(np.unique(source.groups(split))),
        "shape": list(source.shape(split)),
    }


def _grid(source: Files) -> dict[str, Any]:
    steps, times, spacing = [], [], []
    for split, size in source.splits.items():
        c = source.coordinates(split, np.arange(min(size, 4096)))
        times.append((c.time[:, 0].min(), c.time[:, -1].max()))
        frames = c.time.shape[1]
        steps.append((c.time[:, -1] - c.time[:, 0]) / max(frames - 1, 1))
        spacing.append([(s[:, -1] - s[:, 0]) / max(s.shape[1] - 1, 1) for s in c.space])
    shape = source.shape(next(iter(source.splits)))
    axes = [
        {
            "name": name,
            "points": shape[2 + i],
            "spacing": (float(min(s[i].min() for s in spacing)), float(max(s[i].max() for s in spacing))),
            "boundary": source.boundary[i],
            "unit": source.units.get(name, ""),
        }
        for i, name in enumerate(source.axis_names)
    ]
    ends = (float(min(t[0] for t in times)), float(max(t[1] for t in times)))
    step = (float(min(s.min() for s in steps)), float(max(s.max() for s in steps)))
    return {"frames": shape[1], "time": ends, "step": step, "time_unit": source.units.get("time", ""), "axes": axes}


def _field(source: Files, channel: int, held: list[Trajectories]) -> dict[str, Any]:
    name = source.field_names[channel]
    found: dict[str, Any] = {
        "unit": source.units.get(name, ""),
        "stored_as": source.stored_as.get(name, name),
        "staggered": source.staggered.get(name),
    }
    values = [data.fields[:, channel].numpy().astype(np.float64) for data in held]
    if values:
        total = sum(v.size for v in values)
        found |= {
            "minimum": float(min(v.min() for v in values)),
            "maximum": float(max(v.max() for v in values)),
            "mean": float(sum(v.sum() for v in values) / total),
            "rms": float(np.sqrt(sum(np.square(v).sum() for v in values) / total)),
        }
    return found


def _parameter(source: Files, name: str) -> dict[str, Any]:
    values = {split: source.parameter_values(split)[name] for split in source.splits}
    known = {split: v[np.isfinite(v)] for split, v in values.items()}
    together = np.concatenate(list(known.values()))
    return {
        "range": (float(together.min()), float(together.max())) if len(together) else (math.nan, math.nan),
        "unit": source.units.get(name, ""),
        "distribution": "",
        "distinct": {split: len(np.unique(v)) for split, v in known.items()},
        "labelled": len(together),
        "unlabelled": sum(map(len, values.values())) - len(together),
    }


def _spectra(held: list[Trajectories]) -> dict[str, Any]:
    """Return the tail of the spectrum per field and axis, the largest over the samples."""
    found: dict[str, dict[str, float]] = {}
    for data in held:
        for channel, name in enumerate(data.field_names):
            for i, axis in enumerate(data.axis_names):
                values = data.fields[:, channel].numpy()
                tail = spectral_tail(values, 2 + i, data.boundary[i] == "periodic")
                if tail is not None:
                    entry = found.setdefault(name, {})
                    entry[axis] = max(entry.get(axis, 0.0), tail)
    return {"tails": found, "resolved": all(t < RESOLVED for e in found.values() for t in e.values())}


def _offsets(held: list[Trajectories]) -> list[str]:
    """Return which fields lie so far from 0 that float32, in which they are trained on, loses what they do."""
    finite = [data for data in held if bool(data.fields.isfinite().all())]
    return far_from_zero(field_statistics((d.fields for d in finite), held[0].field_names)) if finite else []


def _ends(source: Files, held: list[Trajectories]) -> list[str]:
    """Return what the ends of the axes say against the boundary that is declared, or for one that is not."""
    warnings = []
    for i, (axis, kind) in enumerate(zip(source.axis_names, source.boundary, strict=True)):
        jumps = [end_jumps(data.fields.numpy(), 3 + i) for data in held if data.fields.shape[3 + i] > 8]
        if not jumps:
            continue
        jump = max(jumps)
        if kind == "periodic" and jump > OPEN_JUMP:
            time = max(end_jumps(data.fields.numpy(), 2) for data in held)
            swapped = f" Time and {axis} may be swapped: time would be periodic." if time < PERIODIC_JUMP else ""
            warnings.append(
                f"axis {axis} is declared periodic, but the step across its ends is {jump:.3g} times that between "
                f"neighbours.{swapped} If it is not, say so in a mapping:  boundary: {{{axis}: window}}"
            )
        elif kind == "window" and jump < PERIODIC_JUMP:
            hint = f" Its ends meet like neighbours: if it is periodic, say so:  boundary: {{{axis}: periodic}}"
            warnings.append(f"nothing says whether axis {axis} is periodic; it is taken as a window.{hint}")
        elif kind == "window" and not source.mapping.boundary.get(axis):
            warnings.append(
                f"nothing says whether axis {axis} is periodic; it is taken as a window, and shifts along it lose "
                f"nodes."
            )
    return warnings


def _statistics(source: Files, warnings: list[str]) -> dict[str, dict[str, float]]:
    """Return the statistics a data set of The Well ships, and warn where some are missing."""
    if source.mapping.layout != "well" or source.path is None:
        return {}
    found = published_statistics(source.path, source.field_names, source.axis_names)
    missing = [s for s in STATISTICS if s not in found]
    if found and missing:
        warnings.append(f"stats.yaml lacks {', '.join(missing)}; readers that normalise differences need them.")
    return found

"""Summaries of data as text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["describe_files", "describe_store"]

Summary = Mapping[str, Any]


def describe_store(s: Summary) -> list[str]:
    """Return the lines that show the summary of a store."""
    lines = [f"{s['path']}: {s['title']}", _line("equation", str(s["equation"]))]
    lines += [_line(f"split {name}", f"{count}{s['notes'].get(name, '')}") for name, count in s["splits"].items()]
    lines += _grid(s["grid"])
    lines += [_line(f"field {name}", _values(f)) for name, f in s["fields"].items()]
    for name, p in s["parameters"].items():
        kind = f" ({p['distribution']})" if p["distribution"] else ""
        lines.append(_line(name, f"{_range(p['range'])} {p['unit']}".rstrip() + kind))
    lines += _actuators(s["actuators"])
    lines += _groups(s)
    tail = s["spectral_tail"]
    above = tail["above_1e-3"]
    verdict = f"{above} trajectories above 1e-3: under-resolved" if above else "resolved"
    grid = "grid" if s["origin"] else "solver's grid"
    spectra = f"largest amplitude at the {grid} scale {_number(tail['largest'])}"
    versions = ", ".join(f"{k} {v}" for k, v in s["versions"].items())
    lines.append(_line("spectra", f"{spectra} of the peak; {verdict}" if s["fields"] else "no trajectories yet"))
    if s["origin"]:
        return lines + [_line("made by", f"{s['origin']}, {versions}"), *_warnings(s)]
    lines += [
        _line("noise", _noise(s["noise"])),
        _line("solver grids", ", ".join(f"{n} points: {c}" for n, c in s["solver_points"].items())),
        _line("rejected", f"{s['rejected_draws']} draws were not finite and drawn again"),
        _line("made by", f"{s['dataset']} (recipe {s['recipe_hash'][:12]}, seed {s['seed']}), {versions}"),
    ]
    return lines + _warnings(s)


def _actuators(held: Mapping[str, Any] | None) -> list[str]:
    """Return the line of the actuators of runs that have some."""
    if held is None:
        return []
    places = ", ".join(
        "(" + ", ".join(map(_number, p)) + ")" if len(p) > 1 else _number(p[0]) for p in held["positions"]
    )
    bound = "" if held["bound"] is None else f", amplitudes within ±{_number(held['bound'])}"
    unit = f" {held['unit']}" if held["unit"] and bound else ""
    return [
        _line("actuators", f"{len(held['positions'])} at {places}{bound}{unit}; an action is held to the next frame")
    ]


def describe_files(s: Summary) -> list[str]:
    """Return the lines that show the summary of files: first one line of what they are, then the details."""
    lines = [f"{s['path']}: {headline(s)}", _line("format", s["format"])]
    lines.append(_line("equation", str(s["equation"] or "not named")))
    for split, held in s["held"].items():
        groups = f", {held['groups']} groups" if held["groups"] not in (1, held["trajectories"]) else ""
        shape = "x".join(map(str, held["shape"]))
        lines.append(_line(f"split {split}", f"{held['trajectories']} trajectories{groups}, shape {shape}"))
    for reason, number in s["dropped"].items():
        lines.append(_line("left out", f"{number} trajectories: {reason}"))
    lines += _grid(s["grid"])
    for name, f in s["fields"].items():
        where = f", on the lower {f['staggered']} faces of the cells" if f["staggered"] else ""
        stored = f" (stored as {f['stored_as']})" if f["stored_as"] != name else ""
        lines.append(_line(f"field {name}", (_values(f) if "rms" in f else "not read") + stored + where))
    for name, p in s["parameters"].items():
        distinct = ", ".join(f"{n} in {split}" for split, n in p["distinct"].items())
        share = f"; in {p['labelled']} runs, {p['unlabelled']} are without a label" if p["unlabelled"] else ""
        lines.append(
            _line(name, f"{_range(p['range'])} {p['unit']}".rstrip() + f"; distinct values: {distinct}{share}")
        )
    lines += _groups(s)
    if s["spectra"]["tails"]:
        worst = max(
            ((t, n, a) for n, axes in s["spectra"]["tails"].items() for a, t in axes.items()),
            key=lambda entry: entry[0],
        )
        verdict = "resolved" if s["spectra"]["resolved"] else "not resolved by the grid (above 1e-3)"
        lines.append(
            _line(
                "spectra",
                f"amplitude at the grid scale {_number(worst[0])} of the peak ({worst[1]} along {worst[2]}); {verdict}",
            )
        )
    lines.append(
        _line(
            "sampled",
            f"ranges and spectra from {s['sampled']} of {sum(s['splits'].values())} trajectories"
            + ("" if s["whole"] else "; what is missing in others is not seen, --verify reads all"),
        )
    )
    if s["statistics"]:
        lines.append(_line("stats.yaml", ", ".join(s["statistics"])))
    return lines + _warnings(s)


def _groups(s: Summary) -> list[str]:
    """Return what groups there are, and what they are good for."""
    found = s["groups"]
    if not found:
        return []
    held = [
        f"{count} of {low if low == high else f'{low} to {high}'} runs in {name}"
        for name, (count, low, high) in found["splits"].items()
    ]
    return [
        _line("groups", f"{', '.join(held)}: they share a setting, which need not be known."),
        _line("", f"--data.grouped {found['by']} takes two runs of a group as positives in pretraining"),
    ]


def _warnings(s: Summary) -> list[str]:
    return [f"  warning: {text}" for text in s["warnings"]]


def headline(s: Summary) -> str:
    """Return one line of what files are: title, files and trajectories per split, fields, grid, parameters."""
    parts = []
    for split, held in s["held"].items():
        low, high = held["per_file"]
        each = f"{low}" if low == high else f"{low} to {high}"
        parts.append(f"{held['files']} {split} file{'s' if held['files'] > 1 else ''} x {each}")
    names, stored = list(s["fields"]), [f["stored_as"] for f in s["fields"].values()]
    fields = f"field{'s' if len(names) > 1 else ''} {' '.join(names)}"
    if stored != names and len(set(stored)) == len(stored):
        fields += f" (stored as {' '.join(stored)})"
    parts += [fields, "x".join(map(str, [s["grid"]["frames"], *(a["points"] for a in s["grid"]["axes"])]))]
    for name, p in s["parameters"].items():
        split = max(p["distinct"], key=lambda name: p["distinct"][name]) if p["unlabelled"] else list(p["distinct"])[-1]
        distinct = p["distinct"][split]
        values = (
            f" ({distinct} distinct value{'s' if distinct > 1 else ''} in {split})"
            if p["range"][0] != p["range"][1]
            else ""
        )
        parts.append(f"{name} {_range(p['range']).replace(' ... ', '-')}{values}")
    return f"{' '.join(s['title'].split())}: {', '.join(parts)}"


def _grid(grid: Summary) -> list[str]:
    step = f", interval {_range(grid['step'])}" if "step" in grid else ""
    lines = [_line("time", f"{grid['frames']} frames, t = {_range(grid['time'])} {grid['time_unit']}".rstrip() + step)]
    for axis in grid["axes"]:
        unit = f" {axis['unit']}" if axis.get("unit") else ""
        text = f"{axis['points']} points, spacing {_range(axis['spacing'])}{unit}, {axis['boundary']}"
        lines.append(_line(f"axis {axis['name']}", text))
    return lines


def _values(f: Summary) -> str:
    return (
        f"{_number(f['minimum'])} ... {_number(f['maximum'])} {f['unit']}".rstrip()
        + f", mean {_number(f['mean'])}, rms {_number(f['rms'])}"
    )


def _line(label: str, text: str) -> str:
    return f"  {label:<14} {text}"


def _noise(level: float | Mapping[str, float]) -> str:
    """Return the standard deviation, or those of the fields that have noise."""
    levels = level if isinstance(level, Mapping) else {"": level}
    words = [f"{name} {_number(value)}".strip() for name, value in levels.items() if value]
    return f"white, standard deviation {', '.join(words)}" if words else "none"


def _number(value: float) -> str:
    return f"{value:.4g}"


def _range(ends: tuple[float, float]) -> str:
    low, high = ends
    return _number(low) if math.isclose(low, high, rel_tol=1e-9) else f"{_number(low)} ... {_number(high)}"

"""Parameters of the runs in files, by fitting the simulator of their equation: no label, no model, no training."""

# n runs

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from scipy.stats import norm
from torch import Tensor

from pdessl.data import open as open_data
from pdessl.data.formats.files import Files
from pdessl.data.formats.mapping import DatasetMapping
from pdessl.data.lengths import parts_of, split_of_part
from pdessl.data.source import Source
from pdessl.errors import DataError, PdesslError
from pdessl.inference.prediction import as_rows
from pdessl.inference.shooting import shoot
from pdessl.trajectory import Trajectories

__all__ = ["Simulated", "fit_simulator"]

_PIECE = 32  # runs that are fitted at a time


@dataclass(frozen=True)
class Parameter:
    """A parameter that was fitted: its name and its unit, empty where it is not known."""

    name: str
    unit: str


@dataclass(frozen=True, eq=False)
class Simulated:
    """Fits of a simulator to runs.

    Args:
        targets: the parameters.
        table: over ``run``, with ``file`` and ``label`` (and ``split``) of each: every parameter, the ends of its
            interval (``_low``, ``_high``), the relative ``misfit`` and the ``frames`` of the windows used. A run that
            could not be fitted has NaN.
        level: of the intervals.
    """

    targets: tuple[Parameter, ...]
    table: xr.Dataset
    level: float


def fit_simulator(
    paths: Sequence[str | os.PathLike[str]],
    target: str | Sequence[str],
    equation: str | None = None,
    level: float = 0.9,
    mapping: str | DatasetMapping | None = None,
    split: str | None = None,
) -> Simulated:
    """Fit the simulator of an equation to every run of files, see :func:`pdessl.inference.shooting.shoot`.

    Intervals are those of the fit's own standard errors: they hold where the runs obey the equation and their noise is
    white, and no labelled run has confirmed that they do. A ``misfit`` well above the noise says that the equation is
    another. Labels in the files are not read; parameters that are not among the targets are, and must be known.

    Args:
        paths: stores, files of any layout that :func:`pdessl.open` reads, or folders of them.
        target: names of parameters.
        equation: name of the equation; default what the data say.
        level: of the intervals, between 0 and 1.
        mapping: how files are read.
        split: of a store; default all.

    Raises:
        DataError: no path, no equation, a level outside (0, 1), or no simulator on a periodic interval for it.
        ShapeError: fields that the simulator does not have, or too few frames.
    """
    names = (target,) if isinstance(target, str) else tuple(target)
    if not 0 < level < 1:
        raise DataError(f"level {level:g}; expected a share between 0 and 1, such as 0.9.")
    parts, units = [], dict.fromkeys(names, "")
    for path in paths:
        source = open_data(path, mapping)
        chosen = equation or source.equation
        if chosen is None:
            raise DataError(f"{path} does not say which equation its runs obey. Give it:  --equation NAME")
        units = {n: units[n] or source.units.get(n, "") for n in names}
        for name in parts_of(source.known(split), source.splits) if split else list(source.splits):
            for start in range(0, source.splits[name], _PIECE):
                rows = slice(start, min(start + _PIECE, source.splits[name]))
                try:
                    found = _fitted(_runs(source, name, rows), chosen, names, level)
                except PdesslError as error:
                    raise type(error)(f"{path}: {error}") from None
                several = isinstance(source, Files) and source.files > 1
                origins = source.origins(name)[rows] if several and isinstance(source, Files) else None
                shown = split_of_part(name) if not isinstance(source, Files) else ""
                if origins is None:
                    found = found.assign_coords(trajectory=np.arange(rows.start, rows.stop))
                parts.append(as_rows(found, str(path), shown, origins))
    if not parts:
        raise DataError("no file to fit; give at least one.")
    table = xr.concat(parts, "run", coords="minimal", compat="override")
    return Simulated(tuple(Parameter(n, units[n]) for n in names), table, level)


def _runs(source: Source, split: str, rows: slice) -> Trajectories:
    """Return runs with the parameters that are the same in all of the data."""
    runs = source.load(split, rows)
    known = {n: torch.full((len(runs),), float(v), dtype=torch.float64) for n, v in source.constants.items()}
    return runs.replace(parameters={**known, **runs.parameters})


def _fitted(runs: Trajectories, equation: str, names: tuple[str, ...], level: float) -> xr.Dataset:
    bare = runs.replace(parameters={n: v for n, v in runs.parameters.items() if n not in names})
    found = shoot(equation, bare, names)
    reach = float(norm.ppf(0.5 + level / 2)) * found.error
    columns: dict[str, Tensor] = {}
    for i, name in enumerate(names):
        columns |= {name: found.value[:, i], f"{name}_low": found.value[:, i] - reach[:, i]}
        columns[f"{name}_high"] = found.value[:, i] + reach[:, i]
    columns |= {"misfit": found.misfit, "frames": found.frames}
    return xr.Dataset({n: ("trajectory", v.cpu().numpy()) for n, v in columns.items()})

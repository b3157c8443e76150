"""Predictions for all runs of many files, as one table, and that table as a file."""

from __future__ import annotations

import csv
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xarray as xr

from pdessl.data import open as open_data
from pdessl.data.formats.files import LABELLED_SUFFIXES, Files
from pdessl.data.formats.labelled import LabelledFile
from pdessl.data.lengths import parts_of, split_of_part
from pdessl.errors import DataError, PdesslError
from pdessl.files import replacing
from pdessl.inference.elsewhere import AS_IN_TRAINING, LEFT_OUT
from pdessl.inference.model import ParameterModel
from pdessl.written import cell, visible

__all__ = [
    "ENDINGS", "HasTargets", "as_rows", "expected", "for_files", "opened", "predict_files", "records",
    "shown", "write_predictions",
]  # fmt: skip

ENDINGS = (".csv", ".nc", ".json")
_PIECE = 512  # runs of a store that are loaded at a time


def predict_files(
    model: ParameterModel,
    paths: Sequence[str | os.PathLike[str]],
    level: float | None = None,
    missing: str = "refuse",
    mapping: Any = None,
    split: str | None = None,
    warn: Callable[[str], None] | None = None,
    predict: Callable[[xr.Dataset], xr.Dataset] | None = None,
) -> xr.Dataset:
    """Return the predictions for all runs of all files, over ``run``, with ``file`` (and ``split``) of each.

    Args:
        model: what predicts.
        paths: netCDF or Zarr files, stores, or mapped files.
        level: of the intervals; default that of the model.
        missing: what is done with runs that hold NaN; see :meth:`ParameterModel.predict`.
        mapping: how to read other files: a name, a YAML file, or what ``load_mapping`` returned.
        split: of a store; default all.
        warn: receives each warning once, with the name of the file; default :func:`warnings.warn`.
        predict: predicts a piece in place of the model, see :func:`pdessl.inference.tailoring.predict_tailored`.

    Raises:
        PdesslError: what is wrong with a file, with its name.
    """
    predict = predict or (lambda data: model.predict(data, level, missing))
    found = for_files(predict, paths, mapping, split, warn)
    if len(paths) == 1 and len(set(found["file"].values)) == found.sizes["run"]:
        found = found.isel(run=np.argsort(found["file"].values.astype(str), kind="stable"))  # a folder, file by file
    return found


def for_files(
    judge: Callable[[xr.Dataset], xr.Dataset],
    paths: Sequence[str | os.PathLike[str]],
    mapping: Any = None,
    split: str | None = None,
    warn: Callable[[str], None] | None = None,
) -> xr.Dataset:
    """Return what a function of datasets says of all runs of all files, over ``run``, in the order they are read.

    Args:
        judge: of a piece of a file; what it returns has the runs as its first dimension, or none for a single run.
        paths: see :func:`predict_files`.
        mapping: likewise.
        split: likewise.
        warn: likewise.

    Raises:
        PdesslError: what is wrong with a file, with its name.
    """
    say = warn or (lambda line: warnings.warn(line, UserWarning, stacklevel=4))
    parts = []
    for path in paths:
        told: set[str] = set()
        for name, data, origins in opened(str(path), mapping, split):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                try:
                    part = judge(data)
                except PdesslError as error:
                    raise type(error)(f"{path}: {error}") from None
            for line in sorted({str(w.message) for w in caught if w.category is UserWarning} - told):
                say(f"{path}: {line}")
                told.add(line)
            parts.append(as_rows(part, str(path), name, origins))
    if not parts:
        raise DataError("no file to read; give at least one.")
    return xr.concat(parts, "run", coords="minimal", compat="override", combine_attrs="drop_conflicts")


class Named(Protocol):
    """A parameter: its name and unit."""

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> str: ...


class HasTargets(Protocol):
    """What estimates parameters: a model, or a fit of the simulator."""

    @property
    def targets(self) -> Sequence[Named]:
        """The parameters."""
        ...


Origins = list[tuple[str, int]] | None  # the file of each run, and its number there


def opened(path: str, mapping: Any, split: str | None) -> Iterator[tuple[str, xr.Dataset, Origins]]:
    """Yield the pieces of a file or store, each with the name of its split, read lazily where the format allows."""
    if mapping is None and Path(path).suffix.lower() in LABELLED_SUFFIXES:
        yield "", LabelledFile(path).dataset(), None
        return
    source = open_data(path, mapping)
    # A folder of files is its runs, in the order of the files, whatever they are for.
    named = not isinstance(source, Files) or len(set(map(split_of_part, source.splits))) > 1
    for name in parts_of(source.known(split), source.splits) if split else list(source.splits):
        origins = source.origins(name) if isinstance(source, Files) and source.files > 1 else None
        for start in range(0, source.splits[name], _PIECE):
            rows = slice(start, start + _PIECE)
            found = None if origins is None else origins[rows]
            yield split_of_part(name) if named else "", source.to_xarray(name, rows), found


def as_rows(part: xr.Dataset, path: str, split: str, origins: Origins = None) -> xr.Dataset:
    """Return what is said of runs over ``run``: numbered by the label they have in their file, with the file's name."""
    dimension = next(iter(part.dims), None)
    if dimension is None:
        part, dimension = part.expand_dims("trajectory"), "trajectory"
    count = part.sizes[dimension]
    labels = part[dimension].values if dimension in part.coords else np.arange(count)
    files = [path] * count
    if origins is not None:
        files, labels = [file for file, _ in origins], np.array([row for _, row in origins])
    part = part.drop_vars(list(part.coords)).rename_dims({dimension: "run"})
    columns = {"file": files, "label": [str(v) for v in labels]} | ({"split": [split] * count} if split else {})
    return part.assign_coords({n: ("run", np.array(v, dtype=object)) for n, v in columns.items()})


def records(model: HasTargets, results: xr.Dataset) -> list[dict[str, Any]]:
    """Return a row per run: where it is from, each parameter with its ends, and what else is said of the run.

    That is novelty and ``in_distribution`` of a model's prediction; ``misfit`` and ``frames`` of a simulator's fit;
    what was said before tailoring, and what is left of the residual.
    """
    columns = [f"{t.name}{end}" for t in model.targets for end in ("", "_low", "_high", "_untailored")]
    columns += ["residual", "residual_untailored", "novelty", "in_distribution", "misfit", "frames"]
    columns = [n for n in columns if n in results]
    names = [n for n in ("file", "split", "label") if n in results.coords]
    table = {n: results[n].values.tolist() for n in (*names, *columns)}
    rows = [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]
    return [{("run" if n == "label" else n): v for n, v in row.items()} for row in rows]


def expected(model: ParameterModel) -> list[str]:
    """Return what error a model is expected to make, in words, beside the best floor; and that a floor wins, if so."""
    row = model.record.get("elsewhere", {}).get(AS_IN_TRAINING)
    if not row:
        return [
            "expected error: not measured; model.measure(runs) of labelled runs that nothing was fitted on tells it"
        ]
    floors = {name.removesuffix(", %"): float(error) for name, error in model.record.get("floors", {}).items()}
    best = min(floors, key=floors.__getitem__) if floors else None
    lines = []
    for name, error in row["error"].items():
        beside = "" if best is None else f"; best floor: {best} {floors[best]:.3g} %"
        how = "held-out runs" if model.record.get("measured_by") != LEFT_OUT else "runs, each left out of a fit"
        lines.append(f"expected error of {name}: {error:.3g} % (on {row['count']} {how}){beside}")
        if best is not None and floors[best] < error:
            lines.append(f"warning: {best} has a smaller error than this model: do not rely on it.")
    return lines


def shown(model: HasTargets, results: xr.Dataset, level: float, most: int | None = None) -> list[str]:
    """Return a table of predictions in lines to print, and below it the number of runs, the level and the units.

    Args:
        model: what predicted.
        results: see :func:`predict_files`.
        level: of the intervals.
        most: rows that are shown; None: all.
    """
    rows = records(model, results)
    several = len({row["file"] for row in rows}) > 1
    header = [n for n in rows[0] if n != "in_distribution" and (n != "file" or several)]
    kept = rows[:most]
    cells = [[f"{row[n]:.4g}" if isinstance(row[n], float) else visible(str(row[n])) for n in header] for row in kept]
    table = [[*header, ""], *([*c, _said(row)] for c, row in zip(cells, kept, strict=True))]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(f"{c:>{w}}" for c, w in zip(line, widths, strict=True)).rstrip() for line in table]
    if len(kept) < len(rows):
        lines.append(f"... and {len(rows) - len(kept)} more")
    units = ", ".join(f"{t.name} in {t.unit}" for t in model.targets if t.unit)
    return [*lines, f"{len(rows)} runs, intervals at level {level:g}{f'; {units}' if units else ''}"]


def _said(row: dict[str, Any]) -> str:
    if row.get("in_distribution", True):
        return ""
    return "novel" if row["novelty"] > 1 else "outside the labels"


def write_predictions(path: str | os.PathLike[str], model: HasTargets, results: xr.Dataset, level: float) -> None:
    """Write predictions as CSV, netCDF or JSON, by the ending of the path, under a temporary name that is then renamed.

    Raises:
        DataError: another ending.
    """
    place = Path(path)
    if place.suffix not in ENDINGS:
        raise DataError(f"{place}: write results to a file ending in {', '.join(ENDINGS)}.")
    with replacing(place) as temporary:
        if place.suffix == ".nc":
            plain = {str(n): v for n, v in results.attrs.items() if isinstance(v, (str, int, float))}
            dataset = results.copy()
            dataset.attrs = {**plain, "level": level, "source": "pdessl predict"}
            dataset.to_netcdf(temporary, engine="h5netcdf")
            return
        rows = records(model, results)
        if place.suffix == ".json":
            units = {t.name: t.unit for t in model.targets}
            # JSON has no infinity; an interval without an end has null there.
            finite = [
                {n: None if isinstance(v, float) and not math.isfinite(v) else v for n, v in r.items()} for r in rows
            ]
            content = {"level": level, "units": units, "runs": finite}
            temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
            return
        with temporary.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            # Names come from the files of others; a spreadsheet runs a cell that begins with "=".
            writer.writerows({n: cell(v) if isinstance(v, str) else v for n, v in row.items()} for row in rows)

"""Labels from a table: which run has which value of a parameter, where the files themselves do not say."""

# N runs

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pdessl.data.formats import load_mapping, recognised
from pdessl.data.formats.files import Files
from pdessl.data.manifest import MANIFEST
from pdessl.data.selection import Selection
from pdessl.data.source import Source
from pdessl.errors import DataError
from pdessl.units import conversion

__all__ = ["errors_of", "has_errors", "label_errors", "read_labels", "with_labels"]

_RUN = ("file", "run", "name", "id", "path", "trajectory")
_VALUE, _ERROR, _UNIT = ("value",), ("standard_error", "error", "stderr", "sigma"), ("unit", "units")


def read_labels(table: Any, target: str) -> dict[str, Any]:
    """Return labels as plain data: ``{"values": {run: value}, "unit": "", "errors": {run: standard error}}``.

    Args:
        table: a CSV file with a header, a pandas object or an xarray object. A table has a column of runs (``file``,
            ``run``, ``name``, ``id``, ``path``; of a pandas object the index will do), one of values (``value``, or the
            parameter's name), and where wanted ``standard_error`` and ``unit``. A series, or an array of one dimension
            with a coordinate, holds values by run; its attribute ``units`` counts. A mapping {run: value} will do.
        target: name of the parameter.

    Raises:
        DataError: no such columns, values that are no numbers, a run with two values, or units that no factor connects.
    """
    rows, unit = _rows(table, target)
    values: dict[str, float] = {}
    errors: dict[str, float] = {}
    for row in rows:
        run = str(row["run"]).strip()
        value = _number(row["value"], f"labels: the value of {run}")
        if math.isnan(value):
            continue  # no label
        here = str(row.get("unit") or "").strip()
        unit = unit or here
        factor = conversion(here, unit) if here and here != unit else 1.0
        if factor is None:
            raise DataError(
                f"labels: {run} is in '{here}', others are in '{unit}', and no factor leads from one to it."
            )
        if run in values and values[run] != value * factor:
            raise DataError(f"labels: {run} has two values, {values[run]:g} and {value * factor:g}. Keep one.")
        values[run] = value * factor
        if row.get("error") not in (None, ""):
            error = _number(row["error"], f"labels: the standard error of {run}") * factor
            if math.isnan(error):
                continue
            if not 0 <= error < math.inf:
                raise DataError(
                    f"labels: the standard error of {run} is {error:g}; expected a number >= 0 in the unit of the "
                    "value, or nothing."
                )
            errors[run] = error
    if not values:
        raise DataError(f"labels: the table has no value of '{target}'.")
    return {"values": values, "unit": unit, "errors": errors}


def with_labels(data: str | os.PathLike[str], mapping: Any, table: Any, target: str) -> dict[str, Any]:
    """Return a mapping that reads files as another does, with the labels of a table.

    Args:
        data: files, in a layout that is recognised where there is no mapping.
        mapping: as :func:`pdessl.open` takes it, or None.
        table: see :func:`read_labels`.
        target: likewise.

    Raises:
        DataError: the data are a store, whose labels are in it; or see :func:`read_labels`.
    """
    if mapping is None and (Path(data) / MANIFEST).is_file():
        raise DataError(
            f"{data} is a store, which holds its own labels. Give the files it was made of, or convert them again with "
            "the table in their mapping:  labels: {NAME: {values: {FILE: VALUE}}}"
        )
    base = recognised(data) if mapping is None else load_mapping(mapping)
    found = dict(base.content)
    found["labels"] = {**found.get("labels", {}), target: read_labels(table, target)}
    return found


def has_errors(source: Source, target: str) -> bool:
    """Return whether a table gave labels of a parameter standard errors."""
    return isinstance(source, Files) and bool(source.mapping.get("labels", {}).get(target, {}).get("errors"))


def label_errors(source: Source, target: str, split: str, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the standard errors that a table gave the labels of some runs, (n,), in the unit of the parameter.

    Not a number where a label has none, or comes from the files.

    Args:
        source: files that were opened with :func:`with_labels`; of others nothing is known.
        target: name of the parameter.
        split: of the runs.
        rows: their numbers there, (n,).
    """
    found = np.full(len(rows), np.nan)
    if not has_errors(source, target) or not isinstance(source, Files):
        return found
    table = source.mapping.get("labels")[target]
    given = table["errors"]
    unit, here = str(table.get("unit", "")), source.units.get(target, "")
    factor = (conversion(unit, here) if unit and here else 1.0) or 1.0
    origins = source.origins(split)
    for place, row in enumerate(rows.tolist()):
        file, number = origins[row]
        names = (file, Path(file).name, Path(file).stem)
        keys = (*(f"{n}:{number}" for n in names), *((str(number),) if source.files == 1 else ()), *names)
        found[place] = factor * next((given[k] for k in keys if k in given), math.nan)
    return found


def errors_of(selections: Sequence[Selection], target: str) -> NDArray[np.float64] | None:
    """Return :func:`label_errors` of the runs of selections, one after another, (n,); None where no label has any."""
    found = [np.zeros(0)]
    for chosen in selections:
        errors = np.full(len(chosen), np.nan)
        for number in np.unique(chosen.split):
            here = chosen.split == number
            errors[here] = label_errors(chosen.source, target, chosen.splits[number], chosen.rows[here])
        found.append(errors)
    known = np.concatenate(found)
    return known if np.isfinite(known).any() else None


def _number(value: Any, what: str) -> float:
    try:
        return math.nan if value in ("", None) else float(value)
    except (TypeError, ValueError):
        raise DataError(f"{what} is {value!r}, expected a number.") from None


def _rows(table: Any, target: str) -> tuple[Iterable[Mapping[str, Any]], str]:
    """Return rows of run, value, error and unit, and the unit of all."""
    if isinstance(table, (str, os.PathLike)):
        try:
            with Path(table).open(newline="", encoding="utf-8-sig") as handle:
                rows = list(csv.DictReader(handle, skipinitialspace=True))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"labels: {table} cannot be read ({error}); expected a CSV file with a header.") from None
        columns = list(rows[0]) if rows else []
        return _named(rows, columns, target, os.fspath(table)), ""
    if isinstance(table, xr.Dataset):
        if target not in table:
            raise DataError(f"labels: the dataset has no variable '{target}'; it has {', '.join(map(str, table))}.")
        table = table[target]
    if isinstance(table, xr.DataArray):
        if table.ndim != 1:
            raise DataError(f"labels: '{table.name}' has dimensions {table.dims}; expected one, of runs.")
        named = next((c for c in table.coords.values() if c.dims == table.dims and c.dtype.kind in "OUS"), None)
        named = table[table.dims[0]] if named is None else named
        pairs = zip(named.values.tolist(), table.values.tolist(), strict=True)
        return [{"run": r, "value": v} for r, v in pairs], str(table.attrs.get("units", ""))
    if isinstance(table, Mapping):
        return [{"run": r, "value": v} for r, v in table.items()], ""
    if hasattr(table, "to_frame") and hasattr(table, "items") and not hasattr(table, "columns"):  # a series
        return [{"run": r, "value": v} for r, v in table.items()], ""
    if hasattr(table, "reset_index") and hasattr(table, "to_dict"):  # a data frame
        whole = table if any(str(c).lower() in _RUN for c in table.columns) else table.rename_axis("run").reset_index()
        return _named(whole.to_dict("records"), [str(c) for c in whole.columns], target, "the table"), ""
    raise DataError(
        f"labels: got {type(table).__name__}; expected a CSV file, a pandas or xarray object, or {{run: value}}."
    )


def _named(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], target: str, label: str) -> list[dict[str, Any]]:
    def column(names: Sequence[str]) -> str | None:
        return next((c for c in columns if c is not None and c.strip().lower() in names), None)

    run, value = column(_RUN), column((target.lower(), *_VALUE))
    if run is None or value is None:
        raise DataError(
            f"labels: {label} has the columns {', '.join(map(str, columns)) or 'none'}; expected 'file' (or run) and "
            f"'{target}' (or value), and where wanted 'standard_error' and 'unit'."
        )
    error, unit = column((f"{target.lower()}_error", *_ERROR)), column(_UNIT)
    return [
        {"run": r[run], "value": r[value], "error": r[error] if error else None, "unit": r[unit] if unit else None}
        for r in rows
    ]

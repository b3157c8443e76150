"""Labels of a mapping's table, for the runs of files."""

# n runs of a file

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pdessl.data.formats.mapping import DatasetMapping
from pdessl.data.formats.part import Part
from pdessl.errors import DataError, FormatError
from pdessl.units import conversion

__all__ = ["give_labels"]


def give_labels(parts: Sequence[Part], mapping: DatasetMapping, units: dict[str, str]) -> None:
    """Give runs the labels of the mapping's key ``labels``, in place of what their files state; units are filled in.

    Raises:
        DataError: a run of the table that is not among the files.
        FormatError: a unit that no factor takes to that of the files.
    """
    tables: Mapping[str, Any] = mapping.get("labels", {})
    for name, table in tables.items():
        unit, here = str(table.get("unit", "")), units.get(name, "")
        factor = conversion(unit, here) if unit and here else 1.0
        if factor is None:
            raise FormatError(f"labels of {name} are in '{unit}', the files state '{here}'. Write both in one unit.")
        if unit and not here:
            units[name] = unit
        for part, values in zip(parts, _places(table["values"], parts, name), strict=True):
            stated = part.parameters.get(name, np.full(part.count, np.nan))
            part.parameters[name] = np.where(np.isnan(values), stated, values * factor)


def _places(labels: Mapping[str, float], parts: Sequence[Any], name: str) -> list[np.ndarray]:
    """Return the values of a table for the runs of each part of files, NaN where it has none.

    A run is named by its file (path, name, or name without ending); a run of several in one file by that and its
    number there, ``file.nc:3``, or by the number alone where there is one file.

    Raises:
        DataError: a run that is not among the files.
    """
    found, used = [], set()
    for part in parts:
        values = np.full(part.count, np.nan)
        path = Path(part.container.path or part.label)
        names = (str(path), path.name, path.stem)
        for row in range(part.count):
            keys = [f"{n}:{row}" for n in names] + ([str(row)] if len(parts) == 1 else [])
            keys += list(names) if part.count == 1 else []
            key = next((k for k in keys if k in labels), None)
            if key is not None:
                values[row] = labels[key]
                used.add(key)
        found.append(values)
    if missing := [key for key in labels if key not in used]:
        example = Path(parts[0].container.path or parts[0].label).name
        raise DataError(
            f"labels of {name}: {len(missing)} of {len(labels)} runs of the table are not among the files, first "
            f"'{missing[0]}'. Runs are named like '{example}{':0' if parts[0].count > 1 else ''}'."
        )
    return found

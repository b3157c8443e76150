"""netCDF, Zarr and xarray: arrays that name their own dimensions."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pdessl.data.formats.container import Array, Container
from pdessl.data.formats.hdf5 import HDF5File, readable, selected_size
from pdessl.data.formats.mapping import DatasetMapping
from pdessl.data.memory import check_memory
from pdessl.errors import DataError, FormatError, did_you_mean

__all__ = ["LabelledFile", "close_labelled", "explicit"]

TIME_NAMES = ("time", "t")
RUN_NAMES = ("trajectory", "sample", "run", "realization", "member")
MAX_OPEN = 16

_open_files: dict[tuple[int, str, int], xr.Dataset] = {}


def close_labelled() -> None:
    """Close the files of this process that are open."""
    for key in [k for k in _open_files if k[0] == os.getpid()]:
        with contextlib.suppress(Exception):
            _open_files.pop(key).close()


class LabelledFile(Container):
    """A netCDF file, a Zarr store or an :class:`xarray.Dataset`.

    Args:
        path: the file or store; times stay the numbers they are, packed values are unpacked, fill values become NaN.
        dataset: a dataset in memory instead of a file.

    Raises:
        FormatError: no such file, damaged, or with links to other files.
        ImportError: a Zarr store, and the package ``zarr`` is not installed.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, dataset: xr.Dataset | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.label = "dataset" if path is None else str(path)
        self._memory = dataset
        self._guard: HDF5File | None = None
        if self.path is not None:
            self._prepare(self.path)
        self._arrays = {str(n): self._describe(str(n), v) for n, v in self.dataset().variables.items()}

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__)

    @staticmethod
    def _describe(name: str, variable: xr.Variable) -> Array:
        # Dates and durations are read as seconds.
        dtype = np.dtype(np.float64) if variable.dtype.kind in "mM" else np.dtype(variable.dtype)
        return Array(name, tuple(variable.shape), dtype, tuple(map(str, variable.dims)))

    def _prepare(self, path: Path) -> None:
        if path.is_dir():
            check_zarr(path)
            return
        if not path.is_file():
            raise FormatError(f"no file {path}. Check the path.")
        with path.open("rb") as handle:
            self._classic = handle.read(4) in (b"CDF\x01", b"CDF\x02")
        if not self._classic:
            self._guard = HDF5File(path)
            self._guard.check_contained()
            for name, array in self._guard.arrays().items():
                if "/" not in name and array.bytes > 1 << 20:
                    self._guard.array(name)

    def dataset(self) -> xr.Dataset:
        """Return the dataset, opened lazily; a forked process opens its own."""
        if self._memory is not None:
            return self._memory
        path = self.path or Path()
        try:
            state = path.stat()
        except OSError:
            raise FormatError(f"no file {path}; it was there when the dataset was opened. Restore it.") from None
        key = (os.getpid(), str(path), state.st_mtime_ns)
        if key not in _open_files:
            while len(_open_files) >= MAX_OPEN:
                _open_files.pop(next(iter(_open_files))).close()
            _open_files[key] = self._opened(path)
        return _open_files[key]

    def _opened(self, path: Path) -> xr.Dataset:
        options: dict[str, Any] = {"decode_times": False, "decode_timedelta": False}
        with readable(str(path)), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if path.is_dir():
                return xr.open_zarr(path, chunks=None, **options)
            return xr.open_dataset(path, engine="scipy" if self._classic else "h5netcdf", **options)

    def arrays(self) -> dict[str, Array]:  # noqa: D102
        return self._arrays

    def array(self, name: str) -> Array:  # noqa: D102
        if name not in self._arrays:
            raise self.missing(name)
        return self._arrays[name]

    def read(self, name: str, selection: Sequence[slice | int] = ()) -> np.ndarray:  # noqa: D102
        array = self.array(name)
        check_memory(selected_size(array, selection) * array.dtype.itemsize, f"{self.label}: reading '{name}'")
        with readable(f"{self.label}: '{name}'"):
            values = np.asarray(self.dataset().variables[name][tuple(selection)].values)
        if values.dtype.kind == "m":
            return values / np.timedelta64(1, "s")
        if values.dtype.kind == "M":
            return (values - values.reshape(-1)[0]) / np.timedelta64(1, "s")
        return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))

    def attributes(self, of: str = "") -> Mapping[str, Any]:  # noqa: D102
        if of and of not in self._arrays:
            return {}
        variable = self.dataset().variables[of] if of else None
        found = self.dataset().attrs if variable is None else variable.attrs
        plain = {
            str(k): v.item() if isinstance(v, (np.generic, np.ndarray)) and v.size == 1 else v for k, v in found.items()
        }
        return plain | ({"units": "s"} if variable is not None and variable.dtype.kind in "mM" else {})


def check_zarr(path: Path) -> None:
    """Refuse a Zarr store whose description asks for pickled objects, and a folder that is none.

    Raises:
        FormatError: no Zarr store, its description is damaged, or reading it could run code.
        ImportError: the package ``zarr`` is not installed.
    """
    found = [p for name in ("zarr.json", ".zmetadata", ".zgroup", ".zarray") for p in path.glob(name)]
    if not found:
        raise FormatError(f"{path} is a folder and no Zarr store (no zarr.json, .zgroup or .zmetadata in it).")
    for name in ("zarr.json", ".zmetadata", ".zarray"):
        for description in [*path.glob(name), *path.glob(f"*/{name}")]:
            try:
                content = json.loads(description.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError) as error:
                raise FormatError(f"{description} is damaged: {error}. Fetch or write the store again.") from None
            if _asks_for_objects(content):
                raise FormatError(
                    f"{description}: the store holds pickled objects, which could run any program when read. Write it "
                    f"again with numbers only."
                )
    try:
        import zarr  # noqa: F401
    except ImportError:
        raise ImportError("reading Zarr needs the package 'zarr': pip install 'pdessl[zarr]'") from None


def _asks_for_objects(content: Any) -> bool:
    waiting = [content]
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, dict):
            if entry.get("id") == "pickle" or "pickle" in str(entry.get("name")) or entry.get("dtype") == "|O":
                return True
            waiting += entry.values()
        elif isinstance(entry, list):
            waiting += entry
    return False


def explicit(container: Container, mapping: DatasetMapping) -> DatasetMapping:
    """Return a mapping in which every field names its dimensions, from the names the file has and the mapping's.

    The time dimension is that of the mapping, else ``time`` or ``t``; the run dimension that of the mapping, else one
    called ``trajectory``, ``sample``, ``run``, ``realization`` or ``member``; the others of the first field are space.
    Attributes ``fields``, ``parameters``, ``boundary`` and ``equation``, as :meth:`Trajectories.to_xarray` writes them,
    count where the mapping is silent.

    Raises:
        DataError: a field, dimension or parameter is missing; the message lists what there is.
        FormatError: fields are integers, and the mapping does not say that they may be converted.
    """
    arrays, attributes, content = container.arrays(), container.attributes(), dict(mapping.content)
    dimensions = {d for a in arrays.values() for d in a.dimensions or ()}
    time = _time(mapping, dimensions, container)
    if not content.get("fields"):
        content["fields"] = dict.fromkeys(_fields(mapping, attributes, arrays, time, container), {})
    fields = {
        n: ({"dataset": r} if isinstance(r, str) else {"dataset": n} | dict(r)) for n, r in content["fields"].items()
    }
    for name, rule in fields.items():
        if rule["dataset"] not in arrays:
            known = [n for n, a in arrays.items() if time in (a.dimensions or ())]
            raise DataError(
                f"{container.label} has no variable '{rule['dataset']}'.{did_you_mean(rule['dataset'], known)} "
                f"{container.held()} Map it:  fields: {{{name}: {known[0] if known else 'NAME'}}}"
            )
    first = arrays[next(iter(fields.values()))["dataset"]]
    if time not in (first.dimensions or ()):
        if any(d.startswith("phony_dim") for d in first.dimensions or ()):
            raise DataError(
                f"{container.label}: the axes of '{first.name}' {first.shape} have no names in the file. Name them in "
                f"the mapping, in the order they are stored:  dimensions: [trajectory, time, x]"
            )
        raise DataError(
            f"{container.label}: field '{first.name}' has dimensions {first.dimensions}, none named '{time}'. Name the "
            f"time dimension: time='...', in a mapping  time: {{dataset: ...}}"
        )
    run = mapping.get("trajectory") or next((n for n in RUN_NAMES if n in dimensions), "trajectory")
    given = mapping.get("space")
    names = given or [
        d
        for d, n in zip(first.dimensions or (), first.shape, strict=True)
        if d not in (time, run, *mapping.get("select", {})) and n > 1
    ]
    space, renamed = {}, {time: "time", run: "trajectory"}
    for axis in names:
        rule = _plain((given or {}).get(axis))
        dimension = rule.get("dimension", axis)
        if dimension not in dimensions and rule.get("dataset") in arrays:
            dimension = (*(arrays[rule["dataset"]].dimensions or ()), axis)[0]
        if dimension not in (first.dimensions or ()):
            raise DataError(
                f"{container.label}: field '{first.name}' has dimensions {first.dimensions}, no axis '{axis}'."
                f"{did_you_mean(axis, first.dimensions or ())} Name the axes: space=[...], in a mapping  space: "
                f"{{x: {{}}}}"
            )
        renamed[dimension] = axis
        space[axis] = _coordinate(rule, dimension, axis, container)
    for name, rule in fields.items():
        held = arrays[rule["dataset"]].dimensions or ()
        rule.setdefault("dimensions", [renamed.get(d, d) for d in held])
        rule.setdefault("unit", str(container.attributes(rule["dataset"]).get("units", "")))
        if rule["dimensions"].count("time") != 1:
            raise DataError(f"{container.label}: field '{name}' has dimensions {held}, expected '{time}' among them.")
    content |= {
        "layout": "labelled",
        "fields": fields,
        "space": space,
        "dimensions": ["trajectory", "time", *space],
        "time": _coordinate(_plain(mapping.get("time")), time, "time", container),
        "boundary": _boundary(attributes, list(space)) | mapping.boundary,
        "parameters": _parameters(mapping, attributes, container),
    }
    if attributes.get("equation") and not content.get("equation"):
        content["equation"] = str(attributes["equation"])
    return DatasetMapping(mapping.name, content)


def _plain(rule: Any) -> dict[str, Any]:
    return {"dataset": rule} if isinstance(rule, str) else dict(rule or {})


def _time(mapping: DatasetMapping, dimensions: set[str], container: Container) -> str:
    rule = _plain(mapping.get("time"))
    named = rule.get("dimension") or rule.get("dataset")
    if named in container.arrays() and named not in dimensions and container.array(named).dimensions:
        return container.array(named).dimensions[-1]  # type: ignore[index]
    if named is not None:
        return named
    return next((n for n in TIME_NAMES if n in dimensions), "time")


def _fields(
    mapping: DatasetMapping, attributes: Mapping[str, Any], arrays: Mapping[str, Array], time: str, container: Container
) -> list[str]:
    named = [n for n in str(attributes.get("fields", "")).split(",") if n in arrays]
    coordinates = {d for a in arrays.values() for d in a.dimensions or ()}
    over_time = [
        n
        for n, a in arrays.items()
        if time in (a.dimensions or ()) and len(a.shape) > 1 and n not in coordinates and not n.endswith("_nodes")
    ]
    kinds = "fiu" if mapping.get("integers") == "convert" else "f"
    found = named or [n for n in over_time if arrays[n].dtype.kind in kinds]
    integers = [n for n in over_time if arrays[n].dtype.kind in "iu"]
    if not found and integers:
        raise FormatError(
            f"{container.label}: '{integers[0]}' holds {arrays[integers[0]].dtype}, expected floating-point numbers. "
            f"To convert integers, say so in the mapping:  integers: convert"
        )
    if not found:
        raise DataError(
            f"{container.label}: no variable with a time dimension '{time}' and another one. {container.held()} "
            f"Name the "
            f"fields to read: fields=['...'], and the time dimension: time='...'."
        )
    return found


def _coordinate(rule: dict[str, Any], dimension: str, axis: str, container: Container) -> dict[str, Any]:
    """Return the rule of an axis with the file's own coordinate, length and unit where it names none."""
    arrays = container.arrays()
    if rule.get("dataset") not in arrays:
        rule.pop("dataset", None)
    if not {"dataset", "step", "extent_of", "nodes"} & set(rule):
        found = next((n for n in (f"{dimension}_nodes", dimension) if n in arrays), None)
        if found is not None:
            rule["dataset"] = found
            if f"length_{dimension}" in arrays:
                rule.setdefault("length", f"length_{dimension}")
    if rule.get("dataset") in arrays and "unit" not in rule:
        rule["unit"] = str(container.attributes(rule["dataset"]).get("units", ""))
    return rule


def _boundary(attributes: Mapping[str, Any], axes: list[str]) -> dict[str, str]:
    kinds = str(attributes.get("boundary", "")).split(",")
    return dict(zip(axes, kinds, strict=True)) if len(kinds) == len(axes) and kinds[0] else {}


def _parameters(mapping: DatasetMapping, attributes: Mapping[str, Any], container: Container) -> dict[str, Any]:
    given = mapping.get("parameters")
    if given is None:
        given = {n: {} for n in str(attributes.get("parameters", "")).split(",") if n}
    found = {}
    for name, value in given.items():
        rule = {"value": value} if isinstance(value, (int, float)) else _plain(value)
        if not {"dataset", "attribute", "token", "value"} & set(rule):
            if name in container.arrays():
                rule["dataset"] = name
            elif name in attributes:
                rule["attribute"] = name
            else:
                raise DataError(
                    f"{container.label}: no parameter '{name}', neither as a variable nor as an attribute. "
                    f"{container.held()} Give its value in the mapping:  parameters: {{{name}: {{value: 0.01}}}}"
                )
        if rule.get("dataset") in container.arrays() and "unit" not in rule:
            rule["unit"] = str(container.attributes(rule["dataset"]).get("units", ""))
        found[name] = rule
    return found

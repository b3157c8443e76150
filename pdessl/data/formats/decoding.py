"""netCDF and Zarr opened by xarray: packed values unpacked, NaN where nothing was written."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from pdessl.conventions import DEFAULT_FILLS
from pdessl.data.formats.hdf5 import readable
from pdessl.data.formats.unwritten import Holes

__all__ = ["decoded"]

# Indexes are for selection by label, which nobody here does; making them reads every coordinate.
_PLAIN = {"create_default_indexes": False} if "create_default_indexes" in signature(xr.open_dataset).parameters else {}


def decoded(path: Path, classic: bool, holes: Callable[[str], Holes | None]) -> xr.Dataset:
    """Open a file or store lazily.

    Args:
        path: a netCDF file, or the folder of a Zarr store.
        classic: the file is netCDF-3.
        holes: returns which chunks of an array were never written.

    Raises:
        FormatError: it is damaged.
    """
    numbers: dict[str, Any] = {"decode_times": False, "decode_timedelta": False}
    options = {**numbers, "mask_and_scale": False}
    with readable(str(path)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if path.is_dir():
            raw = xr.open_zarr(path, chunks=None, **options)
            for name, variable in raw.variables.items():
                _without_zero_fill(path / str(name), variable)
        else:
            raw = xr.open_dataset(path, engine="scipy" if classic else "h5netcdf", **options, **_PLAIN)
            _with_default_fills(raw)
        _with_fills_as_stored(raw)
        found = _decoded(raw, numbers)
        for name, variable in found.variables.items():
            if variable.dtype.kind == "f" and holes(str(name)) is not None:
                masked = _Masked(variable.copy(deep=False), lambda name=str(name): holes(name))
                variable.data = indexing.LazilyIndexedArray(masked)
        return found


def _decoded(raw: xr.Dataset, numbers: Mapping[str, bool]) -> xr.Dataset:
    """What :func:`xarray.decode_cf` makes of a dataset, but without indexes."""
    variables, attributes, named = xr.conventions.decode_cf_variables(raw.variables, raw.attrs, **numbers)
    named |= set(raw.coords)
    coordinates = {n: v for n, v in variables.items() if n in named or v.dims == (n,)}
    fields = {n: v for n, v in variables.items() if n not in coordinates}
    found = xr.Dataset(fields, xr.Coordinates(coordinates, indexes={}), attributes)
    found.set_close(raw.close)
    return found


def _with_default_fills(dataset: xr.Dataset) -> None:
    """Give variables of a netCDF dataset, not decoded yet, that name no fill value that of netCDF.

    Integers get one only where they are packed floating-point numbers: others would change their type by it.
    """
    for variable in dataset.variables.values():
        attributes, dtype = variable.attrs, variable.dtype
        packed = dtype.kind in "iu" and {"scale_factor", "add_offset"} & set(attributes)
        fill = DEFAULT_FILLS.get(f"{dtype.kind}{dtype.itemsize}")
        if not {"_FillValue", "missing_value"} & set(attributes) and fill is not None and (dtype.kind == "f" or packed):
            attributes["_FillValue"] = dtype.newbyteorder("=").type(fill)


def _with_fills_as_stored(dataset: xr.Dataset) -> None:
    """Round what stands for nothing to the type of the values, where a file states it with more digits than they have.

    Unrounded it equals none of them: -999.9 in double precision is no number of single precision.
    """
    for variable in dataset.variables.values():
        for name in ("_FillValue", "missing_value"):
            stated = np.asarray(variable.attrs.get(name))
            if variable.dtype.kind == "f" and stated.dtype.kind == "f":
                with np.errstate(over="ignore"):
                    rounded = stated.astype(variable.dtype.newbyteorder("="))
                if np.array_equal(np.isinf(rounded), np.isinf(stated)):
                    variable.attrs[name] = rounded[()]


def _without_zero_fill(folder: Path, variable: xr.Variable) -> None:
    """Take back that 0 stands for nothing in a Zarr array of format 2, unless its own attributes say so.

    There xarray takes the fill value for a mask; but it is only what chunks that are not there hold, and 0 is what zarr
    writes unasked.
    """
    attributes = folder / ".zattrs"
    if (folder / ".zarray").is_file() and "_FillValue" in variable.attrs and variable.attrs["_FillValue"] == 0:
        own = json.loads(attributes.read_text(encoding="utf-8")) if attributes.is_file() else {}
        if "_FillValue" not in own:
            del variable.attrs["_FillValue"]


class _Masked(BackendArray):
    """An array of floating-point numbers, read lazily, with NaN where nothing was written.

    Args:
        variable: the array as it is stored.
        holes: returns what is missing of it; None: nothing.
    """

    def __init__(self, variable: xr.Variable, holes: Callable[[], Holes | None]) -> None:
        self.variable, self.holes = variable, holes
        self.shape, self.dtype = variable.shape, variable.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Return some of the values."""
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._values)

    def _values(self, key: tuple[Any, ...]) -> np.ndarray:
        values, holes = np.asarray(self.variable[key].values), self.holes()
        return values if holes is None else np.where(holes.mask(key, self.shape), self.dtype.type(np.nan), values)

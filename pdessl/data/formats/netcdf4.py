"""What a netCDF-4 file says of itself, read with h5py alone where its values are stored as they are meant."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from pdessl.data.formats.container import Array

__all__ = ["Description", "describe"]

MAX_ATTRIBUTE = 1 << 20

_HIDDEN = frozenset(
    ("REFERENCE_LIST", "CLASS", "DIMENSION_LIST", "NAME", "_Netcdf4Dimid", "_Netcdf4Coordinates", "_nc3_strict")
) | {"_NCProperties"}
# Attributes by which xarray makes other values of those that are stored.
_DECODED = frozenset(("scale_factor", "add_offset", "missing_value", "_Unsigned", "_Encoding", "dtype"))
_NO_VARIABLE = b"This is a netCDF dimension but not a netCDF variable"


class _Unusual(Exception):
    """The file needs a reader of all that netCDF-4 has."""


class Description:
    """Arrays and attributes of the root group of a file.

    Args:
        arrays: by name, those that are no coordinates first, in the file's order, with their dimensions.
        attributes: of every array, and of the file under "".
        fills: the number that stands for nothing in an array, where its attribute names one.
    """

    def __init__(
        self, arrays: dict[str, Array], attributes: dict[str, dict[str, Any]], fills: dict[str, tuple[float, ...]]
    ) -> None:
        self.arrays, self.attributes, self.fills = arrays, attributes, fills


def describe(file: h5py.File) -> Description | None:
    """Describe a netCDF-4 file as xarray does, or return None where that takes more than names and numbers.

    xarray goes through a file in some hundreds of steps, each from its root; for small files they take longer than
    reading. Here a file is described in one pass, if all of it is of the simple kind: numbers in the root group that
    are not packed, every axis along one named dimension that is as long. Anything else (groups, text, enumerations,
    packed values, axes without names, unlimited dimensions that some arrays do not fill) is left to xarray.

    Args:
        file: open for reading, known to hold no link out of it.
    """
    try:
        return _describe(file)
    except (_Unusual, OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError):
        return None  # what is damaged, too, is xarray's to complain about


def _describe(file: h5py.File) -> Description:
    nodes: dict[str, h5py.Dataset] = {}
    for name in file:
        node = file.get(name) if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
        if not isinstance(node, h5py.Dataset) or node.shape is None or name.startswith("_nc4_non_coord_"):
            raise _Unusual
        nodes[name] = node
    said = {name: _attributes(node) for name, node in nodes.items()}
    scales = {name for name in nodes if said[name].get("CLASS") == "DIMENSION_SCALE"}
    sizes = {name: nodes[name].shape[0] for name in scales if nodes[name].ndim == 1}
    arrays, attributes, fills = {}, {"": _shown(_attributes(file))}, {}
    for name, node in nodes.items():
        if name in scales and str(said[name].get("NAME", "")).encode().startswith(_NO_VARIABLE):
            continue
        dimensions = _dimensions(file, name, node, said[name], scales)
        if any(sizes.get(d) != n for d, n in zip(dimensions, node.shape, strict=True)):
            raise _Unusual
        if node.dtype.kind not in "fiu" or node.dtype.metadata or node.dtype.itemsize > 8 or _DECODED & set(said[name]):
            raise _Unusual
        if "_FillValue" in said[name]:
            fills[name] = _fill(node, said[name]["_FillValue"])
        arrays[name] = Array(name, tuple(node.shape), node.dtype.newbyteorder("="), dimensions)
        attributes[name] = _shown(said[name])
    return Description(_ordered(arrays, attributes), attributes, fills)


def _ordered(arrays: dict[str, Array], attributes: dict[str, dict[str, Any]]) -> dict[str, Array]:
    """Put what is no coordinate first; attributes that name coordinates have served then."""
    named: set[str] = set()
    for said in attributes.values():
        words = said.get("coordinates")
        if words is None:
            continue
        # Versions of xarray differ about names that the file does not have.
        if not isinstance(words, str) or not set(words.split()) <= set(arrays):
            raise _Unusual
        named |= set(said.pop("coordinates").split())
    coordinates = {n for n, a in arrays.items() if n in named or a.dimensions == (n,)}
    return {n: a for last in (False, True) for n, a in arrays.items() if (n in coordinates) is last}


def _dimensions(
    file: h5py.File, name: str, node: h5py.Dataset, said: Mapping[str, Any], scales: set[str]
) -> tuple[str, ...]:
    if name in scales:
        number = said.get("_Netcdf4Dimid")
        own = said.get("_Netcdf4Coordinates", number)
        if node.ndim != 1 or "DIMENSION_LIST" in node.attrs or np.size(own) != 1 or own != number:
            raise _Unusual
        return (name,)
    if not node.ndim:
        return ()
    if "DIMENSION_LIST" not in node.attrs:
        raise _Unusual
    found = []
    for references in node.attrs["DIMENSION_LIST"]:
        label = file[references[0]].name if len(references) == 1 else None
        if label is None or label[1:] not in scales:
            raise _Unusual
        found.append(label[1:])
    if len(found) != node.ndim:
        raise _Unusual
    return tuple(found)


def _fill(node: h5py.Dataset, value: Any) -> tuple[float, ...]:
    """Return the number that stands for nothing; integers that have one are no integers any more."""
    if node.dtype.kind != "f" or not isinstance(value, (int, float)):
        raise _Unusual
    with np.errstate(over="ignore"):
        rounded = node.dtype.newbyteorder("=").type(value).item()
    if math.isinf(rounded) and not math.isinf(value):
        raise _Unusual
    return () if math.isnan(rounded) else (rounded,)


def _shown(said: dict[str, Any]) -> dict[str, Any]:
    return {n: v for n, v in said.items() if n not in _HIDDEN and n != "_FillValue"}


def _attributes(node: h5py.Dataset | h5py.File) -> dict[str, Any]:
    """Return attributes as plain values, as h5netcdf reads them; references, which only HDF5 needs, are left out."""
    found = {}
    for name in node.attrs:
        if name in ("DIMENSION_LIST", "REFERENCE_LIST", "_NCProperties"):
            continue
        kept = node.attrs.get_id(name)
        if not isinstance(kept.shape, tuple) or len(kept.shape) > 1:
            raise _Unusual
        if math.prod(kept.shape) * kept.dtype.itemsize > MAX_ATTRIBUTE:
            raise _Unusual
        found[name] = _plain(node.attrs[name], kept.dtype)
    return found


def _plain(value: Any, dtype: np.dtype) -> Any:
    text = h5py.check_string_dtype(dtype)
    if text is not None:
        words = [value] if isinstance(value, (str, bytes)) else list(np.ravel(value))
        if text.length == 1 or not words or not all(isinstance(w, (str, bytes)) for w in words):
            raise _Unusual
        try:
            found = [w.decode("utf-8") if isinstance(w, bytes) else w for w in words]
        except UnicodeDecodeError:
            raise _Unusual from None
        return found[0] if len(found) == 1 else found
    if dtype.kind not in "fiu" or dtype.metadata or not np.size(value):
        raise _Unusual
    return np.ravel(value)[0].item() if np.size(value) == 1 else value

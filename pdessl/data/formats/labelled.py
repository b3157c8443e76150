"""netCDF, Zarr and xarray: arrays that name their own dimensions."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pdessl.conventions import DEFAULT_FILLS
from pdessl.data.formats.container import Array, Container
from pdessl.data.formats.hdf5 import HDF5File, readable, selected_size
from pdessl.data.formats.netcdf4 import Description
from pdessl.data.formats.unwritten import Holes, without_fills, zarr_holes
from pdessl.data.memory import check_memory
from pdessl.errors import FormatError

if TYPE_CHECKING:
    import xarray as xr  # loaded where a file needs it: that takes a second

__all__ = ["LabelledFile", "close_labelled"]

MAX_OPEN = 128
_SMALL = 1 << 16  # bytes of a coordinate that is kept once it was read

_open_files: dict[tuple[int, str, int], xr.Dataset] = {}


def close_labelled() -> None:
    """Close the files of this process that are open."""
    for key in [k for k in _open_files if k[0] == os.getpid()]:
        with contextlib.suppress(Exception):
            _open_files.pop(key).close()


class LabelledFile(Container):
    """A netCDF file, a Zarr store or an :class:`xarray.Dataset`.

    Args:
        path: the file or store; times stay the numbers they are, packed values are unpacked, fill
            values become NaN, also those that netCDF writes unasked, and so does what was never written.
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
        self._missing: dict[str, Holes | None] = {}
        self._classic = False
        if self.path is not None:
            self._prepare(self.path)
        self._kept: dict[str, np.ndarray] = {}
        # What is asked for many times while files are compared is kept: opening a file takes longer than reading it.
        self._arrays: dict[str, Array] = {}
        self._attributes: dict[str, dict[str, Any]] = {}
        self._plain: Description | None = self._guard.described() if self._guard is not None else None
        if self._plain is not None:
            self._arrays, self._attributes = self._plain.arrays, self._plain.attributes
            return
        held = self.dataset()
        self._arrays |= {str(n): self._describe(str(n), v) for n, v in held.variables.items()}
        self._attributes |= {n: _plain(held.variables[n]) for n in self._arrays} | {"": _plain(held)}

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__)

    @staticmethod
    def _describe(name: str, variable: xr.Variable) -> Array:
        # Dates and durations are read as seconds.
        dtype = np.dtype(np.float64) if variable.dtype.kind in "mM" or _cftime(variable) else np.dtype(variable.dtype)
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
            from pdessl.data.formats.decoding import decoded

            _open_files[key] = decoded(path, self._classic, self._holes)
        return _open_files[key]

    def _holes(self, name: str) -> Holes | None:
        """Return which chunks of an array were never written."""
        if self.fill_is_value or self.path is None:
            return None
        if self._guard is not None:
            return self._guard.holes(name)
        if name not in self._missing:
            found = None
            if self.path.is_dir():
                shape, chunks = _zarr_chunks(self.path / name)
                found = zarr_holes(self.path / name, shape, chunks)
            self._missing[name] = found
        return self._missing[name]

    def unwritten(self, name: str) -> str:  # noqa: D102
        found = self._holes(name)
        if found is None:
            return ""
        beside = ", or hold only the fill value, which Zarr does not store" if self.path and self.path.is_dir() else ""
        return (
            f"'{name}': {found}{beside}; say  unwritten: fill  in the mapping if they are to be read as the fill value"
        )

    def dates(self, name: str) -> str:  # noqa: D102
        if self._plain is not None or name not in self._arrays:
            return ""
        kind = self.dataset().variables[name].dtype.kind
        return {"M": "date", "m": "timedelta"}.get(kind, "")

    def arrays(self) -> dict[str, Array]:  # noqa: D102
        return self._arrays

    def array(self, name: str) -> Array:  # noqa: D102
        if name not in self._arrays:
            raise self.missing(name)
        return self._arrays[name]

    def read(self, name: str, selection: Sequence[slice | int] = ()) -> np.ndarray:  # noqa: D102
        array = self.array(name)
        small = len(array.shape) < 2 and array.bytes <= _SMALL and self.path is not None
        if small:
            if name not in self._kept:
                self._kept[name] = self._read(name, array, ())
            return self._kept[name][tuple(selection)].copy()
        return self._read(name, array, selection)

    def _read(self, name: str, array: Array, selection: Sequence[slice | int]) -> np.ndarray:
        check_memory(selected_size(array, selection) * array.dtype.itemsize, f"{self.label}: reading '{name}'")
        if self._plain is not None and self._guard is not None:
            fills = self._plain.fills.get(name, ()) or _default_fill(array)
            return self._guard.masked(name, selection, fills, self.fill_is_value)
        with readable(f"{self.label}: '{name}'"):
            values = np.asarray(self.dataset().variables[name][tuple(selection)].values)
        if values.dtype.kind == "m":
            return values / np.timedelta64(1, "s")
        if values.dtype.kind == "M":
            return (values - values.reshape(-1)[0]) / np.timedelta64(1, "s")
        if values.dtype.kind == "O" and array.dtype.kind == "f":  # dates of another calendar
            first = self.dataset().variables[name].values.reshape(-1)[0]
            return np.array([(v - first).total_seconds() for v in values.reshape(-1)]).reshape(values.shape)
        if values.dtype.kind in "fiu" and values.ndim:
            values = without_fills(values, _default_fill(array) if self._guard is not None else ())
            # Zarr leaves out chunks of zeros, which integers may well be.
            if values.dtype.kind != "f" and self._guard is not None and (holes := self._holes(name)) is not None:
                values = np.where(holes.mask(selection, array.shape), np.nan, values)
        return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))

    def mapped(self, name: str) -> bool:  # noqa: D102
        return self._plain is not None and self._guard is not None and self._guard.mapped(name)

    def attributes(self, of: str = "") -> Mapping[str, Any]:  # noqa: D102
        return self._attributes.get(of, {})


def _default_fill(array: Array) -> tuple[float, ...]:
    """Return what netCDF writes for nothing into an array of integers; of other numbers it is known to who reads."""
    fill = DEFAULT_FILLS.get(f"{array.dtype.kind}{array.dtype.itemsize}") if array.dtype.kind in "iu" else None
    return () if fill is None or not array.shape else (fill,)


def _plain(described: xr.Dataset | xr.Variable) -> dict[str, Any]:
    """Return the attributes of a file or array, as plain numbers where they are one number."""
    found = {
        str(k): v.item() if isinstance(v, (np.generic, np.ndarray)) and v.size == 1 else v
        for k, v in described.attrs.items()
    }
    dates = hasattr(described, "dtype") and (described.dtype.kind in "mM" or _cftime(described))  # no file has a type
    return found | ({"units": "s"} if dates else {})


def _cftime(variable: xr.Variable) -> bool:
    """Whether a variable in memory holds dates of a calendar that numpy does not have."""
    first = variable.values.reshape(-1)[:1] if variable.dtype.kind == "O" and variable.size else []
    return len(first) > 0 and hasattr(first[0], "calendar")


def _zarr_description(folder: Path) -> dict[str, Any]:
    for name in ("zarr.json", ".zarray"):
        if (folder / name).is_file():
            return json.loads((folder / name).read_text(encoding="utf-8"))
    return {}


def _zarr_chunks(folder: Path) -> tuple[list[int], list[int]]:
    """Return the shape of a Zarr array and the sizes of what is one file of it; empty where they are not stated."""
    content = _zarr_description(folder)
    grid = content.get("chunk_grid", {}).get("configuration", {}).get("chunk_shape")
    chunks = content.get("chunks", grid)
    return (list(content["shape"]), list(chunks)) if chunks else ([], [])


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
            if isinstance(content, dict) and any(n == 0 for n in _chunk_sizes(content)):
                raise FormatError(f"{description} is damaged: chunks of no entries. Fetch or write the store again.")
            if _asks_for_objects(content):
                raise FormatError(
                    f"{description}: the store holds pickled objects, which could run any program when read. Write it "
                    f"again with numbers only."
                )
    try:
        import zarr  # noqa: F401
    except ImportError:
        raise ImportError("reading Zarr needs the package 'zarr': pip install 'pdessl[zarr]'") from None


def _chunk_sizes(content: dict[str, Any]) -> list[Any]:
    """Return the sizes of chunks that a description states, of either format."""
    grid = content.get("chunk_grid")
    settings = grid.get("configuration") if isinstance(grid, dict) else None
    stated = (content.get("chunks"), settings.get("chunk_shape") if isinstance(settings, dict) else None)
    return [n for sizes in stated if isinstance(sizes, list) for n in sizes]


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

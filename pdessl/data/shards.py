"""One netCDF-4 file of a store: written whole, read piece by piece."""

# n trajectories of the shard, C channels, T frames, X space (one axis per dimension), d space axes

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

import pdessl
from pdessl.data.arrays import FileArray
from pdessl.data.containment import check_contained
from pdessl.data.converted import ConvertedRecipe
from pdessl.data.manifest import REPAIR_WRITING
from pdessl.data.recipe import DatasetRecipe
from pdessl.errors import DataError, FormatError
from pdessl.files import checksum, fast_checksum, versions, write_bytes
from pdessl.trajectory import BOUNDARIES, NamedArray, Trajectories

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "VERIFIED",
    "Shard",
    "check_file",
    "check_origin",
    "describe",
    "entry_of",
    "open_shard",
    "recipe_units",
    "verify_shard",
    "write_shard",
]

FOREIGN = "pdessl writes no such file. Delete it, and restore it from where it was made."
VERIFIED: dict[str, tuple[int, int, str]] = {}
"""Path -> size, time of the last change (ns) and checksum of the shards that were found as they should be."""
REPAIR = "Restore the file, or run the generation again with --resume: damaged shards are made anew."


def _words(file: h5py.File, name: str) -> tuple[str, ...]:
    value = file.attrs.get(name, "")
    return tuple(w for w in (value.decode() if isinstance(value, bytes) else str(value)).split(",") if w)


class Shard:
    """What a shard holds; fields stay on disk until they are asked for.

    Args:
        path: the file.
        count: number of trajectories it must hold.

    Attributes:
        fields: one array (n, T, *X) per channel, on disk.
        time, space: times (T,) or (n, T), and per axis nodes (X_i,) or (n, X_i), float64.
        lengths: (n, d), float64.
        parameters: ``{name: (n,)}``, float64.
        actions: amplitudes (n, A, T - 1), on disk; None for runs without.
        field_names, axis_names, boundary: as in :class:`pdessl.Trajectories`.

    Raises:
        FormatError: truncated, not netCDF-4, or with links or values that lead elsewhere.
        DataError: a variable or coordinate is missing, has other dimensions than expected, or makes no sense.
    """

    def __init__(self, path: str | os.PathLike[str], count: int) -> None:
        self.path = Path(path)
        try:
            with h5py.File(self.path, "r") as file:
                check_contained(file, str(self.path), soft_links=False, repair=FOREIGN)
                self._describe(file, count)
        except (OSError, RuntimeError, KeyError) as error:
            reason = str(error).splitlines()[0]
            raise FormatError(f"{self.path} is truncated or not a netCDF-4 file: {reason}.") from error

    def _describe(self, file: h5py.File, count: int) -> None:
        self.field_names, self.boundary = _words(file, "fields"), _words(file, "boundary")
        held = ", ".join(f"{n} {_dimensions(v)}" for n, v in file.items() if isinstance(v, h5py.Dataset) and v.ndim)
        if not self.field_names:
            raise DataError(f"{self.path}: no attribute 'fields' names the fields; it holds {held or 'nothing'}.")
        for name in self.field_names:
            if not isinstance(file.get(name), h5py.Dataset):
                raise DataError(f"{self.path}: no variable '{name}' in the dataset; it holds {held or 'nothing'}.")
        self.axis_names = _dimensions(file[self.field_names[0]])[2:]
        expected = ("trajectory", "time", *self.axis_names)
        for name in self.field_names:
            found = _dimensions(file[name])
            if found != expected or not self.axis_names or len(self.boundary) != len(self.axis_names):
                raise DataError(
                    f"{self.path}: field '{name}' has dimensions {found} and boundary {self.boundary}, expected "
                    f"('trajectory', 'time', one per space axis) and as many boundary kinds."
                )
        unknown = [kind for kind in self.boundary if kind not in BOUNDARIES]
        if unknown:
            raise DataError(f"{self.path}: unknown boundary '{unknown[0]}'. Known: {', '.join(BOUNDARIES)}.")
        self.fields = tuple(FileArray(self.path, name, file) for name in self.field_names)
        self.shape = (len(self.fields), *self.fields[0].shape[1:])
        rows = {array.shape for array in self.fields}
        if len(rows) > 1 or self.fields[0].shape[0] != count:
            raise DataError(f"{self.path}: fields have shapes {rows}, expected {count} trajectories in each.")
        self.time, *space = (
            self._nodes(file, name, (count, size))
            for name, size in zip(("time", *self.axis_names), self.shape[1:], strict=True)
        )
        self.space = tuple(space)
        self.lengths = np.empty((count, len(self.axis_names)))
        for axis, name in enumerate(self.axis_names):
            self.lengths[:, axis] = self._variable(file, f"length_{name}", (count,), "length", held)
        names = _words(file, "parameters")
        self.parameters = {n: self._variable(file, n, (count,), "parameter", held) for n in names}
        self.actions = FileArray(self.path, "actions", file) if "actions" in file else None
        if self.actions is not None and self.actions.shape[::2] != (count, self.shape[1] - 1):
            raise DataError(
                f"{self.path}: 'actions' has shape {self.actions.shape}, expected ({count}, actuators, "
                f"{self.shape[1] - 1}), an amplitude for each interval between frames."
            )

    def _nodes(self, file: h5py.File, name: str, shape: tuple[int, int]) -> np.ndarray:
        candidate = f"{name}_nodes" if f"{name}_nodes" in file else name
        # netCDF keeps a dimension without coordinates as a scale with a name that says so.
        unset = b"This is a netCDF dimension but not a netCDF variable"
        if candidate not in file or file[candidate].attrs.get("NAME", b"").startswith(unset):
            raise DataError(f"{self.path}: coordinate '{name}' is missing.")
        values = np.asarray(file[candidate][()], np.float64)
        if values.shape not in (shape, shape[1:]):
            raise DataError(f"{self.path}: coordinate '{name}' has shape {values.shape}, expected {shape}.")
        if not np.isfinite(values).all() or not (np.diff(values) > 0).all():
            raise DataError(
                f"{self.path}: coordinate '{name}' must be finite and strictly increasing in every trajectory."
            )
        return values

    def _variable(self, file: h5py.File, name: str, shape: tuple[int, ...], kind: str, held: str) -> np.ndarray:
        if name not in file or file[name].shape != shape:
            raise DataError(f"{self.path}: no {kind} '{name}' of shape {shape} in the dataset; it holds {held}.")
        return np.asarray(file[name][()], np.float64)

    def coordinates(self, rows: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...], np.ndarray]:
        """Return times (n, T), nodes (n, X_i) per axis, and lengths (n, d) of some trajectories."""

        def of(nodes: np.ndarray) -> np.ndarray:
            return nodes[rows] if nodes.ndim == 2 else np.broadcast_to(nodes, (len(rows), len(nodes)))

        return of(self.time), tuple(of(nodes) for nodes in self.space), self.lengths[rows]

    def read(self, row: int | slice, pieces: Sequence[slice], channels: Sequence[int], out: np.ndarray) -> None:
        """Copy a piece of one trajectory into ``out`` (C, t, *x), or of several into ``out`` (n, C, t, *x).

        Args:
            row: number in the shard, or a slice.
            pieces: slices of time and space.
            channels: numbers of the channels, in the order of ``out``.
            out: where to.
        """
        for i, channel in enumerate(channels):
            self.fields[channel].read((row, *pieces), out[..., i, *(slice(None),) * len(pieces)])


def _dimensions(dataset: h5py.Dataset) -> tuple[str, ...]:
    """Return the names of the dimensions of a netCDF-4 variable."""
    if "_Netcdf4Dimid" in dataset.attrs and dataset.is_scale:
        return (dataset.name.rsplit("/", 1)[-1],)
    return tuple(axis[0].name.rsplit("/", 1)[-1] if len(axis) else "?" for axis in dataset.dims)


def check_file(path: Path, expected_bytes: int | None = None) -> int:
    """Return the size of a file.

    Raises:
        FormatError: no such file, or of another size than expected.
    """
    if not path.is_file():
        raise FormatError(f"no file {path}. {REPAIR if expected_bytes is not None else 'Check the path.'}")
    size = path.stat().st_size
    if expected_bytes is not None and size != expected_bytes:
        raise FormatError(f"{path} is damaged: {size} bytes, expected {expected_bytes} by the manifest. {REPAIR}")
    return size


def entry_of(path: Path, start: int, count: int) -> dict[str, Any]:
    """Return what the manifest says of a shard's file: where it belongs, its size and its checksums."""
    return {
        "file": path.name,
        "start": start,
        "count": count,
        "bytes": path.stat().st_size,
        "sha256": checksum(path),
        "crc32": fast_checksum(path),
    }


def check_origin(path: Path, split: str, start: int, recipe_hash: str) -> None:
    """Refuse a shard of another split, place or recipe than the manifest says; it says itself what it is.

    Its checksum covers these words too, so that a shard cannot stand for another one.

    Raises:
        FormatError: it is of another origin, or cannot be read.
    """
    try:
        with h5py.File(path, "r") as file:
            found = tuple(_text(file.attrs.get(name)) for name in ("split", "first_trajectory", "recipe_hash"))
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise FormatError(f"{path} is truncated or not a netCDF-4 file: {reason}.") from error
    if found != (expected := (split, str(start), recipe_hash)):
        raise FormatError(
            f"{path} is another shard than the manifest says: of split '{found[0]}' from trajectory {found[1]}, recipe "
            f"{found[2][:12]}; expected '{expected[0]}' from {expected[1]}, recipe {expected[2][:12]}."
        )


def verify_shard(path: Path, entry: Mapping[str, Any]) -> None:
    """Compare a shard's content with its checksum in the manifest, once for every change of the file.

    Raises:
        FormatError: they differ.
    """
    status, name = path.stat(), str(path.resolve())
    # Stores that were written before there was a fast checksum have the other one only.
    kind, find = ("crc32", fast_checksum) if "crc32" in entry else ("sha256", checksum)
    seen = (status.st_size, status.st_mtime_ns, entry[kind])
    if VERIFIED.get(name) == seen:
        return
    if find(path) != entry[kind]:
        raise FormatError(f"{path} is damaged or another file: its checksum differs from the manifest's.")
    VERIFIED[name] = seen


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return str(value.item()) if isinstance(value, np.ndarray) and value.size == 1 else str(value)


def open_shard(path: str | os.PathLike[str], expected_bytes: int | None = None) -> xr.Dataset:
    """Open a netCDF file lazily.

    Args:
        path: the file.
        expected_bytes: its size according to a manifest.

    Raises:
        FormatError: no file, another size than expected, truncated, not netCDF-4/HDF5, or with links or values that
            lead elsewhere.
    """
    path = Path(path)
    size = check_file(path, expected_bytes)
    try:
        import xarray as xr

        with h5py.File(path, "r") as file:
            check_contained(file, str(path), soft_links=False, repair=FOREIGN)
        # Times stay the numbers they are: with units "seconds" xarray would make them integer nanoseconds.
        return xr.open_dataset(path, engine="h5netcdf", decode_times=False, decode_timedelta=False)
    except FormatError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise FormatError(
            f"{path} is truncated or not a netCDF-4/HDF5 file ({size} bytes): {reason}. {REPAIR}"
        ) from error


def recipe_units(recipe: DatasetRecipe | ConvertedRecipe) -> dict[str, str]:
    """Return the units of fields, parameters, axes and time."""
    if isinstance(recipe, ConvertedRecipe):
        return recipe.units
    fields = {n: e for n, e in recipe.content.get("fields", {}).items() if isinstance(e, Mapping)}
    lengths = recipe.lengths * (1 if len(recipe.lengths) == recipe.dimensions else recipe.dimensions)
    return {
        **{name: str(entry.get("unit", "")) for name, entry in fields.items()},
        **{name: distribution.unit for name, distribution in recipe.parameters.items()},
        **{axis: length.unit for axis, length in zip(recipe.axis_names, lengths, strict=True)},
        "time": recipe.observation["unit"],
    }


def describe(dataset: xr.Dataset, recipe: DatasetRecipe | ConvertedRecipe) -> xr.Dataset:
    """Add units and long names from the recipe to a dataset of trajectories, in place."""
    for name, said in _described(recipe).items():
        if name in dataset.variables:
            dataset[name].attrs |= said
    return dataset


def _described(recipe: DatasetRecipe | ConvertedRecipe) -> dict[str, dict[str, str]]:
    """Return units and long names of the variables that trajectories may have, by their names."""
    found: dict[str, dict[str, str]] = {}
    for name, unit in recipe_units(recipe).items():
        for variable in (name, f"{name}_nodes", f"length_{name}"):
            found.setdefault(variable, {})["units"] = unit
    for name, entry in recipe.content.get("fields", {}).items():
        if isinstance(entry, Mapping):
            found.setdefault(name, {})["long_name"] = str(entry.get("description", name))
    for name in recipe.parameters:
        found.setdefault(name, {})["long_name"] = name.replace("_", " ")
    return found


def write_shard(
    path: Path, trajectories: Trajectories, recipe: DatasetRecipe | ConvertedRecipe, split: str, start: int
) -> None:
    """Write trajectories as a netCDF-4 file with units and provenance, atomically."""
    converted = isinstance(recipe, ConvertedRecipe)
    data, coordinates, said = trajectories.to_arrays()
    attributes = said | {
        "Conventions": "CF-1.11",
        "title": str(recipe.content.get("title", recipe.name)).strip(),
        "source": f"{recipe.origin if converted else 'simulated'} by pdessl {pdessl.__version__}",
        "dataset": recipe.name,
        "split": split,
        "first_trajectory": start,
        "seed": "none" if converted else recipe.seed,
        "recipe": json.dumps(recipe.content, sort_keys=True),
        "recipe_hash": recipe.hash,
        "versions": json.dumps(versions(), sort_keys=True),
    }
    image = _netcdf4(data, coordinates, _described(recipe), attributes)
    # Not written by HDF5 itself: that library crashes the process when a disk fills up while a file is closed.
    write_bytes(path, image.getbuffer(), REPAIR_WRITING)


def _netcdf4(
    data: Mapping[str, NamedArray],
    coordinates: Mapping[str, NamedArray],
    described: Mapping[str, Mapping[str, str]],
    attributes: Mapping[str, Any],
) -> io.BytesIO:
    """Return arrays as the bytes of a netCDF-4 file, which depend on what is given only.

    Args:
        data: numbers, see :meth:`Trajectories.to_arrays`.
        coordinates: likewise.
        described: attributes of arrays, by name; names that are no arrays do not matter.
        attributes: those of the file.

    Written with h5py: h5netcdf makes a dimension and then the variable of that name in its place, and where HDF5 puts
    the new one depends on when Python lets go of the old. A profiler (every Dask worker has one) delays that. Here
    nothing is replaced, and every object stays open to the end.

    Source: Unidata, NetCDF-4 file format specification: dimension scales, _Netcdf4Dimid, _Netcdf4Coordinates.
    """
    variables = {**data, **coordinates}
    sizes = {d: n for dims, v in variables.values() for d, n in zip(dims, v.shape, strict=True)}
    numbers = {name: number for number, name in enumerate(sizes)}
    # CF: coordinates that are no dimension are named in an attribute of the variables that have their dimensions.
    beside = {n: set(dims) for n, (dims, _) in coordinates.items() if dims != (n,)}
    image = io.BytesIO()
    with h5py.File(image, "w", track_order=True) as file:
        kept: dict[str, h5py.Dataset] = {}
        for name, (_, values) in variables.items():
            kept[name] = file.create_dataset(name, data=values, dtype=values.dtype, track_order=True)
        for name, number in numbers.items():
            label = name
            if name not in kept:
                kept[name] = file.create_dataset(name, (sizes[name],), ">f4", track_order=True)
                label = f"This is a netCDF dimension but not a netCDF variable. {sizes[name]:9d}"
            kept[name].make_scale(label)
            kept[name].attrs["_Netcdf4Dimid"] = np.int32(number)
        for name, (dims, _) in variables.items():
            if dims != (name,):
                for axis, along in enumerate(dims):
                    kept[name].dims[axis].attach_scale(kept[along])
            if dims:
                kept[name].attrs["_Netcdf4Coordinates"] = np.array([numbers[d] for d in dims], np.int32)
            said = dict(described.get(name, {}))
            if name in data and (along_these := sorted(n for n, needed in beside.items() if needed <= set(dims))):
                said["coordinates"] = " ".join(along_these)
            _attributes(kept[name], said)
        file.attrs["_NCProperties"] = np.bytes_(
            f"version=2,h5py={h5py.version.version},hdf5={h5py.version.hdf5_version}"
        )
        _attributes(file, attributes)
    return image


def _attributes(target: h5py.Dataset | h5py.File, attributes: Mapping[str, object]) -> None:
    for name, value in attributes.items():
        if isinstance(value, (str, bytes)):
            target.attrs.create(name, value, dtype=h5py.string_dtype())
        else:
            target.attrs[name] = np.atleast_1d(value)

"""The store: a folder of netCDF-4 files (shards) and a manifest with their checksums."""

# B batch, T frames, X space

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import torch
import xarray as xr

import pdessl
from pdessl.data.recipe import DatasetRecipe
from pdessl.errors import CatalogError, DataError, FormatError, StoreError, did_you_mean
from pdessl.trajectory import Trajectories

__all__ = ["MANIFEST", "Store", "open", "open_shard", "write_atomically"]

MANIFEST = "manifest.json"
FORMAT = "pdessl-store"
FORMAT_VERSION = 1


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; afterwards it is flushed to disk and renamed, or removed on any error.

    A reader, or a process killed at any moment, sees the old file or the whole new one.

    Raises:
        StoreError: the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, StoreError):
            raise
        reason = error.strerror or str(error)
        raise StoreError(
            f"cannot write {path}: {reason}. Nothing half-written is left. Free space or choose a folder that can be "
            f"written, then continue with --resume (resume=True)."
        ) from error
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def versions() -> dict[str, str]:
    """Return the versions that are written into shards and manifests."""
    return {
        "pdessl": pdessl.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def open_shard(path: str | os.PathLike[str], expected_bytes: int | None = None) -> xr.Dataset:
    """Open a netCDF file lazily.

    Args:
        path: the file.
        expected_bytes: its size according to a manifest.

    Raises:
        FormatError: no file, another size than expected, truncated, or not netCDF-4/HDF5.
    """
    path = Path(path)
    repair = "Restore the file, or run the generation again with --resume: damaged shards are made anew."
    if not path.is_file():
        raise FormatError(f"no file {path}. {repair if expected_bytes is not None else 'Check the path.'}")
    size = path.stat().st_size
    if expected_bytes is not None and size != expected_bytes:
        raise FormatError(f"{path} is damaged: {size} bytes, expected {expected_bytes} by the manifest. {repair}")
    try:
        # Times stay the numbers they are: with units "seconds" xarray would make them integer nanoseconds.
        return xr.open_dataset(path, engine="h5netcdf", decode_times=False, decode_timedelta=False)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise FormatError(
            f"{path} is truncated or not a netCDF-4/HDF5 file ({size} bytes): {reason}. {repair}"
        ) from error


class Store:
    """A dataset on disk, read lazily.

    Args:
        path: folder that holds ``manifest.json``.

    A store of the default Burgers dataset::

        store = pdessl.open("data/burgers")
        store.splits                                    # {'unlabelled': 4096, 'labelled': 256, ...}
        store.load("test", [0, 5]).fields.shape         # (2, 1, 64, 64)
        store.to_xarray("labelled").viscosity

    Every shard is a netCDF-4 file of its own: ``xarray.open_dataset(shard, engine="h5netcdf")``.

    Raises:
        StoreError: no manifest there, or one of another format.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.manifest: dict[str, Any] = read_manifest(self.path)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {size}" for name, size in self.splits.items())
        return f"Store('{self.path}', {self.recipe.name}: {sizes}{'' if self.complete else '; incomplete'})"

    @property
    def recipe(self) -> DatasetRecipe:
        """The recipe the store was made by."""
        return DatasetRecipe(self.manifest["dataset"], self.manifest["recipe"])

    @property
    def equation(self) -> str:
        """Name of the equation in the catalog."""
        return self.manifest["recipe"]["equation"]

    @property
    def splits(self) -> dict[str, int]:
        """Number of trajectories per split, as the recipe has it."""
        return {name: split["size"] for name, split in self.manifest["splits"].items()}

    @property
    def complete(self) -> bool:
        """Whether every shard of every split is there."""
        return bool(self.manifest["complete"])

    @property
    def rejected_draws(self) -> int:
        """Number of draws whose trajectory was not finite and was drawn again."""
        return sum(s["rejected_draws"] for split in self.manifest["splits"].values() for s in split["shards"])

    def shards(self, split: str) -> list[dict[str, Any]]:
        """Return the manifest's entries of a split's shards: file, start, count, bytes, sha256, ...

        Raises:
            CatalogError: no such split.
            StoreError: the generation was interrupted and shards of this split are missing.
        """
        if split not in self.manifest["splits"]:
            raise CatalogError(
                f"{self.path} has no split '{split}'.{did_you_mean(split, self.splits)} "
                f"Splits: {', '.join(self.splits)}."
            )
        entry = self.manifest["splits"][split]
        there = sum(shard["count"] for shard in entry["shards"])
        if there != entry["size"]:
            raise StoreError(
                f"{self.path}: split '{split}' holds {there} of {entry['size']} trajectories; its generation was "
                f"interrupted. Continue it: {self.command} --resume"
            )
        return sorted(entry["shards"], key=lambda shard: shard["start"])

    @property
    def command(self) -> str:
        """The command that generates this store."""
        return f"pdessl generate {self.manifest['dataset']} --out {self.path}"

    def load(
        self, split: str, indices: Sequence[int] | slice | np.ndarray | torch.Tensor | None = None
    ) -> Trajectories:
        """Read trajectories into memory.

        Args:
            split: name of the split.
            indices: which trajectories, in this order (repeats allowed); default all.

        Returns:
            Trajectories in float32 with their parameters, if the split has labels.

        Raises:
            CatalogError: no such split.
            IndexError: an index outside the split.
            FormatError: a shard is missing, truncated or lacks a variable.
            DataError: values that are not finite, or a missing coordinate.
        """
        shards = self.shards(split)
        size = self.splits[split]
        if indices is None or isinstance(indices, slice):
            wanted = np.arange(size)[indices or slice(None)]
        else:
            wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        if not len(wanted):
            raise DataError(f"{self.path}: no trajectories of split '{split}' asked for; it holds {size}.")
        outside = wanted[(wanted < -size) | (wanted >= size)]
        if len(outside):
            raise IndexError(f"{self.path}: split '{split}' has {size} trajectories, no number {int(outside[0])}.")
        wanted = wanted % size
        parts, positions = [], []
        for shard in shards:
            where = np.flatnonzero((wanted >= shard["start"]) & (wanted < shard["start"] + shard["count"]))
            if not len(where):
                continue
            rows, inverse = np.unique(wanted[where] - shard["start"], return_inverse=True)
            part = self._read(shard, None if len(rows) == shard["count"] else rows)
            plain = len(rows) == len(where) and bool((inverse == np.arange(len(rows))).all())
            parts.append(part if plain else part[inverse])
            positions.append(where)
        order = np.concatenate(positions)
        result = parts[0] if len(parts) == 1 else Trajectories.concatenate(parts)
        return result if bool((np.diff(order) > 0).all()) else result[np.argsort(order)]

    def _read(self, shard: Mapping[str, Any], rows: np.ndarray | None) -> Trajectories:
        path = self.path / shard["file"]
        with open_shard(path, shard["bytes"]) as dataset:
            try:
                return Trajectories.from_xarray(dataset if rows is None else dataset.isel(trajectory=rows))
            except DataError as error:
                raise DataError(f"{path}: {error}") from None
            except (OSError, RuntimeError, KeyError) as error:
                raise FormatError(
                    f"{path} is damaged: {str(error).splitlines()[0]}. Generate it again: {self.command} --resume"
                ) from error

    def to_xarray(self, split: str, indices: Sequence[int] | None = None) -> xr.Dataset:
        """Return a split as a dataset with named dimensions, coordinates, units and parameters; see :meth:`load`."""
        return describe(self.load(split, indices).to_xarray(), self.recipe)

    def verify(self) -> list[str]:
        """Return the shards that are missing or whose checksum differs from the manifest's (empty: all is well)."""
        bad = []
        for split in self.manifest["splits"].values():
            for shard in split["shards"]:
                path = self.path / shard["file"]
                if not path.is_file() or checksum(path) != shard["sha256"]:
                    bad.append(shard["file"])
        return bad


def describe(dataset: xr.Dataset, recipe: DatasetRecipe) -> xr.Dataset:
    """Add units and long names from the recipe to a dataset of trajectories, in place."""
    fields = recipe.content.get("fields", {})
    for name, entry in fields.items():
        if name in dataset and isinstance(entry, Mapping):
            dataset[name].attrs |= {
                "units": str(entry.get("unit", "")),
                "long_name": str(entry.get("description", name)),
            }
    for name, distribution in recipe.parameters.items():
        if name in dataset:
            dataset[name].attrs |= {"units": distribution.unit, "long_name": name.replace("_", " ")}
    lengths = recipe.lengths * (1 if len(recipe.lengths) == recipe.dimensions else recipe.dimensions)
    for axis, length in zip(recipe.axis_names, lengths, strict=True):
        for name in (axis, f"{axis}_nodes", f"length_{axis}"):
            if name in dataset:
                dataset[name].attrs["units"] = length.unit
    dataset["time"].attrs["units"] = recipe.observation["unit"]
    return dataset


def write_shard(path: Path, trajectories: Trajectories, recipe: DatasetRecipe, split: str, start: int) -> None:
    """Write trajectories as a netCDF-4 file with units and provenance, atomically."""
    dataset = describe(trajectories.to_xarray(), recipe)
    dataset.attrs |= {
        "Conventions": "CF-1.11",
        "title": str(recipe.content.get("title", recipe.name)).strip(),
        "source": f"simulated by pdessl {pdessl.__version__}",
        "dataset": recipe.name,
        "split": split,
        "first_trajectory": start,
        "seed": recipe.seed,
        "recipe": json.dumps(recipe.content, sort_keys=True),
        "recipe_hash": recipe.hash,
        "versions": json.dumps(versions(), sort_keys=True),
    }
    encoding = {str(name): {"_FillValue": None} for name in dataset.variables if dataset[name].dtype.kind == "f"}
    image = io.BytesIO()
    with xr.backends.H5NetCDFStore(h5netcdf.File(image, "w")) as backend:
        dataset.dump_to_store(backend, encoding=encoding)
    # Not written by HDF5 itself: that library crashes the process when a disk fills up while a file is closed.
    with write_atomically(path) as temporary:
        temporary.write_bytes(image.getbuffer())


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and check a manifest.

    Raises:
        StoreError: no such folder or manifest, not JSON, or another format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        what = f"{folder} holds no {MANIFEST}" if folder.is_dir() else f"no folder {folder}"
        raise StoreError(f"{what}. A store is made by: pdessl generate DATASET --out {folder}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise StoreError(f"{path} cannot be read: {error}. Generate the store again into an empty folder.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise StoreError(f"{path} is not the manifest of a pdessl store. Choose the folder 'pdessl generate' wrote.")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise StoreError(
            f"{path} has format version {manifest.get('format_version')}, "
            f"this pdessl ({pdessl.__version__}) reads {FORMAT_VERSION}. Use the pdessl that wrote "
            f"it, or generate it again."
        )
    _check_manifest(manifest, path)
    return manifest


def _check_manifest(manifest: Mapping[str, Any], path: Path) -> None:
    """Refuse a manifest that lacks entries, or names files outside its folder."""
    try:
        recipe = DatasetRecipe(manifest["dataset"], manifest["recipe"])
        if recipe.hash != manifest["recipe_hash"] or not isinstance(manifest["complete"], bool):
            raise ValueError("its recipe and the recipe's hash differ")
        for name, split in recipe.splits.items():
            if manifest["splits"][name]["size"] != split["size"]:
                raise ValueError(f"split {name} has another size than in the recipe")
            for shard in manifest["splits"][name]["shards"]:
                if Path(shard["file"]).name != shard["file"]:
                    raise ValueError(f"'{shard['file']}' is not the name of a file in the folder")
                _ = shard["start"] + shard["count"] + shard["bytes"], shard["sha256"], shard["rejected_draws"]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = f"has no entry {error}" if isinstance(error, KeyError) else str(error)
        raise StoreError(f"{path} is damaged: {what}. Generate the store again into an empty folder.") from error


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write a manifest atomically."""
    with write_atomically(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def open(path: str | os.PathLike[str]) -> Store:
    """Open a store lazily; see :class:`Store`."""
    return Store(path)

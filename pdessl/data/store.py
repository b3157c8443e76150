"""The store: a folder of netCDF-4 files (shards) and a manifest with their checksums."""

# B batch, T frames, X space

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pdessl import catalog
from pdessl.data.converted import ConvertedRecipe
from pdessl.data.manifest import MANIFEST, manifest_recipe, read_manifest, write_manifest
from pdessl.data.memory import check_memory
from pdessl.data.recipe import DatasetRecipe, differences
from pdessl.data.shards import VERIFIED, Shard, check_file, check_origin, describe, recipe_units, verify_shard
from pdessl.data.source import Coordinates, Indices, Source
from pdessl.errors import CatalogError, DataError, FormatError, PdesslError, StoreError, did_you_mean
from pdessl.files import checksum
from pdessl.trajectory import Trajectories

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Store", "finish", "open"]


class Store(Source):
    """A dataset on disk, read lazily.

    Args:
        path: folder that holds ``manifest.json``.
        verify: compare the content of each shard with its checksum in the manifest when it is first opened; a file of
            the same size and time stamp is not read again. Without, only sizes and what a shard says of itself (its
            split, its first trajectory, its recipe) are compared.

    A store of the default Burgers dataset::

        store = pdessl.open("data/burgers")
        store.splits                                    # {'unlabelled': 4096, 'labelled': 256, ...}
        store.load("test", [0, 5]).fields.shape         # (2, 1, 64, 64)
        store.load("test", 0, frames=slice(0, 16))      # reads a quarter of the bytes
        store.to_xarray("labelled").viscosity

    Every shard is a netCDF-4 file of its own: ``xarray.open_dataset(shard, engine="h5netcdf")``. Shards are opened when
    a trajectory of theirs is read.

    Raises:
        StoreError: no manifest there, or one of another format.
    """

    format = "store"

    def __init__(self, path: str | os.PathLike[str], verify: bool = True) -> None:
        self.path = Path(path)
        self._verify = verify
        self.name = str(path)
        self.manifest: dict[str, Any] = read_manifest(self.path)
        self._opened: dict[str, Shard] = {}
        self._sorted: dict[str, tuple[list[dict[str, Any]], np.ndarray]] = {}

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {size}" for name, size in self.splits.items())
        return f"Store('{self.path}', {self.recipe.name}: {sizes}{'' if self.complete else '; incomplete'})"

    def __getstate__(self) -> dict[str, Any]:
        # Another process opens the shards it needs, and knows which of them were verified here.
        verified = {key: seen for key, seen in VERIFIED.items() if Path(key).parent == self.path.resolve()}
        return {**self.__dict__, "_opened": {}, "_verified": verified}

    def __setstate__(self, state: dict[str, Any]) -> None:
        VERIFIED.update(state.pop("_verified"))
        self.__dict__.update(state)

    @property
    def recipe(self) -> DatasetRecipe | ConvertedRecipe:
        """The recipe the store was made by, or where its data were converted from."""
        return manifest_recipe(self.manifest)

    @property
    def equation(self) -> str:  # type: ignore[override]
        """Name of the equation in the catalog."""
        return self.manifest["recipe"]["equation"]

    @property
    def constants(self) -> dict[str, float]:  # type: ignore[override]
        """Values of the parameters that the recipe sets once for all."""
        return dict(getattr(self.recipe, "constants", {}))

    @property
    def splits(self) -> dict[str, int]:  # type: ignore[override]
        """Number of trajectories per split, as the recipe has it."""
        return {name: split["size"] for name, split in self.manifest["splits"].items()}

    @property
    def field_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the channels."""
        return self._any_shard().field_names

    @property
    def axis_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the space axes."""
        return self._any_shard().axis_names

    @property
    def boundary(self) -> tuple[str, ...]:  # type: ignore[override]
        """Kind of boundary per space axis."""
        return self._any_shard().boundary

    @property
    def parameters(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the labels of those splits that have some."""
        labelled = [(n, e) for n, e in self.manifest["splits"].items() if e.get("labels") and e["shards"]]
        return tuple(self._shard(labelled[0][0], labelled[0][1]["shards"][0]).parameters) if labelled else ()

    @property
    def units(self) -> dict[str, str]:  # type: ignore[override]
        """Units of fields, parameters, axes and time, as the recipe states them."""
        return recipe_units(self.recipe)

    @property
    def staggered(self) -> dict[str, str]:  # type: ignore[override]
        """Fields on faces of cells; data that pdessl simulates have none."""
        return self.recipe.staggered if self.converted else {}

    @property
    def actuation(self) -> Mapping[str, Any]:  # type: ignore[override]
        """What is known of the actuators of runs that have some."""
        return self.recipe.actuation if self.converted else {}

    @property
    def converted(self) -> bool:
        """Whether the data were converted from another layout, not simulated."""
        return "converted" in self.manifest["recipe"]

    @property
    def warnings(self) -> tuple[str, ...]:  # type: ignore[override]
        """Whether something is missing, and what is known to be wrong with data that were converted."""
        known = self.recipe.faults if self.converted else ()
        return known if self.complete else (*known, f"The store is incomplete. Continue it: {self.command} --resume")

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
        """The command that makes this store, with the options that its recipe shows were given."""
        if self.actuation:
            return f"pdessl generate {self.recipe.name} --out {self.path}"
        if self.converted:
            return f"pdessl convert FILES --out {self.path}"
        words, sizes, others = ["pdessl", "generate", self.manifest["dataset"], "--out", str(self.path)], [], []
        try:
            content = catalog.read("datasets", self.manifest["dataset"])
        except PdesslError:
            content = self.manifest["recipe"]  # a file of the user's that is not on the path of the catalog
        for key, (value, _) in differences(self.manifest["recipe"], content).items():
            section, _, rest = key.partition(".")
            if section == "splits" and rest.endswith(".size"):
                sizes.append(f"{rest.removesuffix('.size')}={value}")
            elif value is not None:
                others.append(f"{key}={json.dumps(value)}")
        words += ["--size", ",".join(sizes)] if sizes else []
        words += ["--set", *others] if others else []
        return shlex.join(words)

    # ------------------------------------------------------------------------------------ reading

    def shape(self, split: str) -> tuple[int, ...]:
        """Return the shape of one trajectory of a split, (C, T, *X)."""
        return self._shard(split, self.shards(split)[0]).shape

    def groups(self, split: str) -> np.ndarray:
        """Return the group of each trajectory: those that share a parameter by the recipe are in one; shape (N,)."""
        if self.converted:
            return self.recipe.groups(split)
        start = 0
        for name, size in self.splits.items():
            shared = math.lcm(*(d.shared_by(name) for d in self.recipe.parameters.values()))
            if name == split:
                break
            start += -(-size // shared)
        return start + np.arange(self.splits[split], dtype=np.int64) // shared

    def parameter_values(self, split: str) -> dict[str, np.ndarray]:
        """Return the labels, each of shape (N,); empty where a split has none."""
        shards = [self._shard(split, entry) for entry in self.shards(split)]
        names = shards[0].parameters if shards else ()
        for shard in shards:
            missing = [n for n in names if n not in shard.parameters]
            if missing:
                raise DataError(f"{shard.path}: no parameter '{missing[0]}', which other shards have.")
        return {n: np.concatenate([shard.parameters[n] for shard in shards]) for n in names}

    def coordinates(self, split: str, rows: np.ndarray) -> Coordinates:
        """Return the coordinates of trajectories ``rows``."""
        shape = self.shape(split)
        time, lengths = np.empty((len(rows), shape[1])), np.empty((len(rows), len(shape) - 2))
        space = tuple(np.empty((len(rows), size)) for size in shape[2:])
        for shard, places, numbers in self._places(split, rows):
            time[places], nodes, lengths[places] = shard.coordinates(numbers)
            for whole, part in zip(space, nodes, strict=True):
                whole[places] = part
        return Coordinates(time, space, lengths)

    def actions(self, split: str, rows: np.ndarray) -> np.ndarray | None:
        """Return the amplitudes between frames of trajectories ``rows``; see :meth:`Source.actions`."""
        if not self.actuation:
            return None
        values: np.ndarray | None = None
        for shard, places, numbers in self._places(split, rows):
            if shard.actions is None:
                raise DataError(f"{shard.path}: no 'actions', which other runs of the store have. Generate it again.")
            if values is None:
                values = np.empty((len(rows), *shard.actions.shape[1:]), shard.actions.dtype.newbyteorder("="))
            for place, number in zip(places.tolist(), numbers.tolist(), strict=True):
                shard.actions.read((number,), values[place])
        return values

    def read(
        self, split: str, rows: np.ndarray, frames: slice, space: tuple[slice, ...], channels: Sequence[int]
    ) -> np.ndarray:
        """Read values, shape (n, len(channels), t, *x); see :meth:`Source.read`."""
        cuts = (frames, *space)
        cut = tuple(len(range(*c.indices(n))) for c, n in zip(cuts, self.shape(split)[1:], strict=True))
        values: np.ndarray | None = None
        for shard, places, numbers in self._places(split, rows):
            if values is None:
                dtype = np.result_type(*(shard.fields[c].dtype for c in channels)).newbyteorder("=")
                size = len(rows) * len(channels) * math.prod(cut) * dtype.itemsize
                check_memory(size, f"{self.name}: reading {len(rows)} trajectories at once")
                values = np.empty((len(rows), len(channels), *cut), dtype)
            if len(numbers) > 1 and (np.diff(numbers) == 1).all() and (np.diff(places) == 1).all():
                run = values[places[0] : places[-1] + 1]
                shard.read(slice(int(numbers[0]), int(numbers[-1]) + 1), cuts, channels, run)
                continue
            for place, number in zip(places.tolist(), numbers.tolist(), strict=True):
                shard.read(number, cuts, channels, values[place])
        return values

    def read_windows(
        self,
        split: str,
        rows: np.ndarray,
        starts: np.ndarray,
        sizes: tuple[int, ...],
        stride: int,
        channels: Sequence[int],
        out: np.ndarray,
        places: np.ndarray,
    ) -> bool:
        """Copy another piece of each trajectory into memory; see :meth:`Source.read_windows`."""
        finite = True
        for shard, which, numbers in self._places(split, rows):
            for i, channel in enumerate(channels):
                array = shard.fields[channel]
                finite &= array.read_windows(numbers, starts[which], sizes, stride, out[:, i], places[which])
        return finite

    def mapped(self, split: str) -> bool:
        """Whether fields are read through mappings of the files, without a copy by a library in between."""
        return all(array.mapped for array in self._shard(split, self.shards(split)[0]).fields)

    def load(
        self,
        split: str,
        indices: Indices = None,
        frames: slice | None = None,
        space: Sequence[slice] = (),
        fields: Sequence[str] | None = None,
    ) -> Trajectories:
        """Read trajectories, or a piece of them, into memory; see :meth:`Source.load`.

        Raises:
            CatalogError: no such split or field.
            IndexError: an index outside the split.
            FormatError: a shard is missing, truncated, changed, or another one than the manifest says.
            DataError: values that are not finite, a missing variable or coordinate, or nothing asked for.
        """
        self.rows(split, indices)  # a wrong name is told before an unreadable shard
        loaded = super().load(split, indices, frames, space, fields)
        try:
            return loaded.check_finite()
        except DataError as error:
            held = {self._shard_of(split, int(i))["file"] for i in loaded.index}
            raise DataError(f"{self.path / min(held)}{' or a later shard' if len(held) > 1 else ''}: {error}") from None

    def described(self, dataset: xr.Dataset) -> xr.Dataset:  # noqa: D102
        return describe(dataset, self.recipe)

    def _places(self, split: str, rows: np.ndarray) -> Iterator[tuple[Shard, np.ndarray, np.ndarray]]:
        """Yield, shard by shard, the shard, the places of its trajectories in ``rows``, and their numbers in it."""
        if split not in self._sorted:
            entries = self.shards(split)
            self._sorted[split] = entries, np.array([entry["start"] for entry in entries])
        entries, first = self._sorted[split]
        owner = np.searchsorted(first, rows, side="right") - 1
        order = np.argsort(owner, kind="stable")
        edges = np.flatnonzero(np.diff(owner[order], prepend=-1))
        for places in np.split(order, edges[1:]):
            entry = entries[owner[places[0]]]
            yield self._shard(split, entry), places, rows[places] - entry["start"]

    def _shard_of(self, split: str, row: int) -> dict[str, Any]:
        return next(e for e in self.shards(split) if e["start"] <= row < e["start"] + e["count"])

    def _shard(self, split: str, entry: Mapping[str, Any]) -> Shard:
        if entry["file"] not in self._opened:
            path = self.path / entry["file"]
            check_file(path, entry["bytes"])
            try:
                if self._verify:
                    verify_shard(path, entry)
                check_origin(path, split, entry["start"], self.manifest["recipe_hash"])
                self._opened[entry["file"]] = Shard(path, entry["count"])
            except FormatError as error:
                raise FormatError(f"{error} {path} is damaged: generate it again: {self.command} --resume") from error
        return self._opened[entry["file"]]

    def _any_shard(self) -> Shard:
        for name, split in self.manifest["splits"].items():
            for entry in split["shards"]:
                return self._shard(name, entry)
        raise StoreError(f"{self.path} holds no shard yet. Generate it: {self.command} --resume")

    def verify(self) -> list[str]:
        """Return the shards that are missing, of another origin, or whose SHA-256 differs from the manifest's.

        Reads every byte of the store. Empty: all is well.
        """
        bad = []
        for name, split in self.manifest["splits"].items():
            for shard in split["shards"]:
                path = self.path / shard["file"]
                try:
                    check_file(path, shard["bytes"])
                    check_origin(path, name, shard["start"], self.manifest["recipe_hash"])
                    if checksum(path) != shard["sha256"]:
                        bad.append(shard["file"])
                except FormatError:
                    bad.append(shard["file"])
        return bad


def finish(folder: Path, manifest: dict[str, Any]) -> None:
    """Write into the manifest that a store is complete, after every shard has said that it is of this recipe.

    Raises:
        FormatError: one is of another recipe, split or place: another process has written to the same folder.
    """
    for name, split in manifest["splits"].items():
        for shard in split["shards"]:
            check_origin(folder / shard["file"], name, shard["start"], manifest["recipe_hash"])
    manifest["complete"] = True
    write_manifest(folder, manifest)


def open(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    mapping: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    isolate: bool = True,
    verify: bool = True,
) -> Source:
    """Open a dataset lazily: a store, or files in another layout.

    Args:
        path: folder of a store; or a file, a folder or a list of files in a layout that is recognised or mapped.
        mapping: how files are to be read: a name of ``pdessl list datasets``, a YAML file or its content; see
            :func:`pdessl.data.formats.load_mapping`. Default: recognised by what is there.
        isolate: look into files first in a process of its own, whose end a damaged file may be; see
            :func:`pdessl.data.formats.open_apart`. Stores, files that this library wrote, are opened here.
        verify: compare the shards of a store with their checksums, each once when it is first opened.

    Returns:
        A :class:`Store`, or another :class:`Source`; both load trajectories, or pieces of them, on demand.

    Raises:
        StoreError: nothing there, or a damaged manifest.
        FormatError: files in no known layout; the message says how to map them.
    """
    if mapping is None and isinstance(path, (str, os.PathLike)):
        folder = Path(path)
        # A name with a suffix is that of a file: what is missing is not a store.
        if (folder / MANIFEST).is_file() or not (folder.exists() or folder.suffix):
            return Store(folder, verify)
    from pdessl.data.formats import open_apart, open_source

    return (open_apart if isolate else open_source)(path, mapping)

"""Writing The Well's HDF5 layout (version 1.2)."""

# n trajectories of a file, T frames, X space, d space axes

from __future__ import annotations

import io
import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import yaml

from pdessl import catalog
from pdessl.data.formats.transform import to_centres
from pdessl.data.formats.well import RANKS, STATISTICS
from pdessl.data.source import Source
from pdessl.errors import StoreError
from pdessl.files import write_bytes, write_text
from pdessl.trajectory import Trajectories

__all__ = ["export_well"]

FILE_BYTES = 64 << 20
SPLITS = {"labelled": "train", "all": "train", "validation": "valid"}
KINDS = {"periodic": "PERIODIC", "wall": "WALL", "window": "OPEN"}


@dataclass(frozen=True)
class _Tensor:
    """A field of The Well: its rank, and the channels of its components in the order of the axes."""

    name: str
    rank: int
    channels: tuple[int, ...]


def export_well(source: Source, out: str | os.PathLike[str], name: str | None = None) -> list[Path]:
    """Write data in The Well's layout, in float32, several files of at most 64 MiB per split.

    ``out/data/{train,valid,test}/NAME_00000.hdf5`` and ``out/stats.yaml`` (mean, standard deviation and root mean
    square of fields and of their differences between frames, over the training split). The splits ``labelled`` and
    ``all`` become ``train``, ``validation`` becomes ``valid``; other splits keep their names. Channels that are the
    components of a vector, by the equation of the catalog or by names like ``velocity_x``, become one t1 field, tensors
    one t2 field, the others t0 fields. Fields on the faces of cells are averaged to the centres: the layout has one set
    of nodes. Parameters become scalars; those equal in a whole file are also simulation parameters.

    Args:
        source: what to write.
        out: folder; made if missing, and empty.
        name: name of the data set; default that of the folder.

    Returns:
        The files written.

    Raises:
        StoreError: the folder is not empty, or cannot be written.
        DataError: fields on faces along an axis of which nothing says what lies beyond its last cell.
    """
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"{folder} exists and is not empty. Choose an empty folder.")
    name = name or folder.name
    tensors = _tensors(source)
    written: list[Path] = []
    statistics = _Statistics(tensors)
    for split, size in source.splits.items():
        count = int(np.clip(FILE_BYTES // (4 * math.prod(source.shape(split))), 1, 1024))
        target = SPLITS.get(split, split)
        for number, start in enumerate(range(0, size, count)):
            data = _centred(source.load(split, slice(start, start + count)), source)
            path = folder / "data" / target / f"{name}_{number:05d}.hdf5"
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, data, tensors, name)
            written.append(path)
            if target == "train":
                statistics.add(data)
    if statistics.fields:
        write_text(folder / "stats.yaml", yaml.safe_dump(statistics.content(), sort_keys=False))
    return written


def _centred(data: Trajectories, source: Source) -> Trajectories:
    """Return the trajectories with every field at the nodes."""
    if not source.staggered:
        return data
    fields = data.fields.numpy().copy()
    for field, name in source.staggered.items():
        channel, axis = data.field_names.index(field), data.axis_names.index(name)
        values = np.moveaxis(fields[:, channel], 2 + axis, -1)  # a view

        def faces(cut: slice, values: np.ndarray = values) -> np.ndarray:
            return values[..., cut]

        size = values.shape[-1]
        values[...] = to_centres(
            faces, slice(None), size, values.ndim - 1, data.boundary[axis], source.name, data.axis_names[axis]
        )
    return data.replace(fields=torch.from_numpy(fields))


def _tensors(source: Source) -> list[_Tensor]:
    """Group channels into tensors; every channel is in exactly one, scalars first."""
    names, axes = source.field_names, source.axis_names
    position = {name: i for i, name in enumerate(names)}
    found: list[_Tensor] = []
    taken: set[int] = set()

    def take(tensor: str, rank: int, components: Sequence[str]) -> None:
        channels = [position.get(c, -1) for c in components]
        if -1 not in channels and not taken & set(channels):
            taken.update(channels)
            found.append(_Tensor(tensor, rank, tuple(channels)))

    declared = catalog.read("symmetries", source.equation).get("dependent", {}) if source.equation else {}
    for tensor, entry in declared.items():
        components = entry.get("components")
        if entry.get("rank") == 1 and isinstance(components, dict) and set(components) == set(axes):
            take(tensor, 1, [components[a] for a in axes])
    for stem in dict.fromkeys(n.rsplit("_", 1)[0] for n in names if "_" in n):
        for rank in (2, 1):
            take(stem, rank, [f"{stem}_{''.join(c)}" for c in itertools.product(axes, repeat=rank)])
    scalars = [_Tensor(n, 0, (i,)) for n, i in position.items() if i not in taken]
    return sorted(scalars + found, key=lambda t: (t.rank, t.channels))


def _write(path: Path, data: Trajectories, tensors: Sequence[_Tensor], name: str) -> None:
    fields = data.fields.numpy().astype(np.float32)
    n, axes = len(data), data.axis_names
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        file.attrs.update(
            {"dataset_name": name, "grid_type": "cartesian", "n_spatial_dims": len(axes), "n_trajectories": n}
        )
        dimensions = file.create_group("dimensions")
        dimensions.attrs["spatial_dims"] = list(axes)
        nodes = dict(zip(("time", *axes), (data.time.numpy(), *(s.numpy() for s in data.space)), strict=True))
        for axis, values in nodes.items():
            varies = bool((values != values[:1]).any())
            _array(dimensions, axis, (values if varies else values[0]), varies, axis == "time")
        boundaries = file.create_group("boundary_conditions")
        for axis, kind in zip(axes, data.boundary, strict=True):
            mask = np.zeros(nodes[axis].shape[1], dtype=bool)
            mask[[0, -1]] = True
            group = boundaries.create_group(f"{axis}_{KINDS[kind].lower()}")
            group.attrs.update({"bc_type": KINDS[kind], "sample_varying": False, "time_varying": False})
            group.attrs["associated_dims"], group.attrs["associated_fields"] = [axis], []
            group.create_dataset("mask", data=mask)
        scalars = file.create_group("scalars")
        scalars.attrs["field_names"] = list(data.parameters)
        shared = []
        for parameter, tensor in data.parameters.items():
            values = tensor.numpy()
            varies = bool((values != values[0]).any())
            _array(scalars, parameter, values if varies else values[0], varies, False)
            if not varies:
                shared.append(parameter)
                file.attrs[parameter] = float(values[0])
        file.attrs["simulation_parameters"] = shared
        for rank, group_name in enumerate(RANKS):
            group = file.create_group(group_name)
            mine = [t for t in tensors if t.rank == rank]
            group.attrs["field_names"] = [t.name for t in mine]
            for t in mine:
                values = np.moveaxis(fields[:, list(t.channels)], 1, -1)
                array = _array(group, t.name, values.reshape(*values.shape[:-1], *[len(axes)] * rank), True, True)
                array.attrs["dim_varying"] = [True] * len(axes)
                if rank == 2:
                    array.attrs["symmetric"], array.attrs["antisymmetric"] = False, False
    # Written whole: the HDF5 library crashes the process when a disk fills up while a file is closed.
    write_bytes(path, image.getbuffer())


def _array(group: h5py.Group, name: str, values: Any, sample_varying: bool, time_varying: bool) -> h5py.Dataset:
    array = group.create_dataset(name, data=np.asarray(values, dtype=np.float32))
    array.attrs["sample_varying"], array.attrs["time_varying"] = sample_varying, time_varying
    return array


class _Statistics:
    """Sums over the training split, one number per component."""

    def __init__(self, tensors: Sequence[_Tensor]) -> None:
        self.tensors = tensors
        self.fields: dict[str, np.ndarray] = {}

    def add(self, data: Trajectories) -> None:
        fields = data.fields.numpy().astype(np.float64)
        for t in self.tensors:
            values = fields[:, list(t.channels)]
            sums = []
            for v in (values, np.diff(values, axis=2)):
                axes = (0, *range(2, v.ndim))
                sums += [v.sum(axes), np.square(v).sum(axes), np.full(len(t.channels), v.size / v.shape[1])]
            self.fields[t.name] = self.fields.get(t.name, 0.0) + np.stack(sums)

    def content(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {statistic: {} for statistic in STATISTICS}
        for t in self.tensors:
            for part, suffix in ((self.fields[t.name][:3], ""), (self.fields[t.name][3:], "_delta")):
                mean, square = part[0] / np.maximum(part[2], 1), part[1] / np.maximum(part[2], 1)
                numbers = {"mean": mean, "std": np.sqrt(np.maximum(square - mean**2, 0)), "rms": np.sqrt(square)}
                for statistic, value in numbers.items():
                    shape = (round(len(value) ** (1 / t.rank)),) * t.rank if t.rank else ()
                    found[statistic + suffix][t.name] = value.reshape(shape).tolist()
        return found

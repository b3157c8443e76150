"""What every dataset on disk offers, whatever its layout: named splits of trajectories that are read piece by piece."""

# N trajectories of a split, n of them asked for, C channels, T frames, X space (one axis per dimension), d space axes

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pdessl.data.arrays import all_finite, cuts
from pdessl.data.memory import check_memory
from pdessl.errors import CatalogError, DataError, did_you_mean
from pdessl.trajectory import Trajectories

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Coordinates", "Indices", "Source"]

Indices = Sequence[int] | slice | np.ndarray | torch.Tensor | None


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Where and when trajectories are given, all float64.

    Args:
        time: times of the frames, shape (n, T).
        space: nodes of each axis, shape (n, X_i).
        lengths: period of each periodic axis, extent of the others, shape (n, d).
    """

    time: np.ndarray
    space: tuple[np.ndarray, ...]
    lengths: np.ndarray


class Source(ABC):
    """A dataset on disk, read lazily: opening one reads no field, :meth:`load` reads only the bytes it returns.

    Attributes:
        name: what messages call it: the path as the user gave it.
        format: name of its layout: ``store``, ``pdearena_smoke``, ...
        equation: name of the equation in the catalog, or None.
        field_names: names of the channels, length C.
        axis_names: names of the space axes, length d, in the order of the array's axes.
        boundary: per space axis ``periodic``, ``wall`` or ``window``.
        splits: number of trajectories per split, in the order of the layout. A dataset without splits has one, ``all``.
        parameters: names of the physical parameters, as users know them (``viscosity``).
        constants: values of the parameters that are the same in every trajectory of the dataset: they belong to the
            equation, are no labels, and are known of unlabelled trajectories too.
        units: unit of fields, parameters, axes and ``time`` as far as known.
        staggered: fields whose nodes lie on the lower faces of the cells along an axis, ``{field: axis}``; all others
            are at the nodes :meth:`coordinates` gives.
        warnings: what a user should know before trusting the data.
        actuation: of runs with actuators, plain data: ``positions`` (A lists of d coordinates), and what else is known
            of them and of the environment they are in; empty for runs without.

    A source holds no open file that matters to others: it can be pickled, and used after a fork or in a spawned worker.
    """

    name: str
    format: str
    equation: str | None = None
    field_names: tuple[str, ...]
    axis_names: tuple[str, ...]
    boundary: tuple[str, ...]
    splits: Mapping[str, int]
    parameters: tuple[str, ...] = ()
    constants: Mapping[str, float] = MappingProxyType({})
    units: Mapping[str, str]
    staggered: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    actuation: Mapping[str, Any] = MappingProxyType({})

    # ---------------------------------------------------------------- what a layout implements

    @abstractmethod
    def shape(self, split: str) -> tuple[int, ...]:
        """Return the shape of one trajectory of a split, (C, T, *X)."""

    @abstractmethod
    def groups(self, split: str) -> np.ndarray:
        """Return the group of each trajectory, shape (N,), int64.

        Trajectories of one group have something in common that a model could recognise (a file with one parameter
        value, an initial condition that is used again), so a split through a group leaks. Numbers are unique over all
        splits of the source.
        """

    @abstractmethod
    def parameter_values(self, split: str) -> dict[str, np.ndarray]:
        """Return ``{name: values}``, each of shape (N,), float64; empty where a split has no labels."""

    @abstractmethod
    def coordinates(self, split: str, rows: np.ndarray) -> Coordinates:
        """Return the coordinates of trajectories ``rows`` (n,), int64, each within the split."""

    @abstractmethod
    def read(
        self, split: str, rows: np.ndarray, frames: slice, space: tuple[slice, ...], channels: Sequence[int]
    ) -> np.ndarray:
        """Read values, shape (n, len(channels), t, *x), in the byte order of the machine.

        Args:
            split: name of a split.
            rows: numbers of the trajectories, shape (n,), int64, in any order, each within the split.
            frames: slice of the frames with step >= 1.
            space: a slice with step >= 1 for every space axis.
            channels: numbers of the channels.
        """

    # ---------------------------------------------------------------- what a layout may do faster

    def actions(self, split: str, rows: np.ndarray) -> np.ndarray | None:
        """Return the amplitudes between frames of trajectories ``rows``, (n, A, T - 1); None for runs without."""
        return None

    @property
    def actuators(self) -> tuple[tuple[float, ...], ...]:
        """Where the actuators are, A tuples of d coordinates; empty without."""
        return tuple(tuple(float(x) for x in place) for place in self.actuation.get("positions", ()))

    def mapped(self, split: str) -> bool:
        """Whether fields are read through mappings of the files, of which the system keeps what was read lately."""
        return False

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
        """Copy another piece of each trajectory into memory that is there already.

        Args:
            split: name of a split.
            rows: numbers of the trajectories, shape (n,), int64.
            starts: first frame and first node of each axis, shape (n, 1 + d), int64.
            sizes: number of frames and of nodes of each axis, (t, *x).
            stride: of the frames.
            channels: numbers of the channels.
            out: shape (m, len(channels), t, *x), any float type.
            places: which entry of ``out`` each piece is for, shape (n,), int64.

        Returns:
            Whether all values copied are finite; :class:`pdessl.data.windows.Windows` refuses others.
        """
        finite = True
        for row, start, place in zip(rows, starts.tolist(), places.tolist(), strict=True):
            frames, *space = cuts(start, sizes, stride)
            out[place] = self.read(split, row[None], frames, tuple(space), channels)[0]
            finite &= all_finite(out[place])
        return finite

    # ---------------------------------------------------------------- what users call

    def __len__(self) -> int:
        return sum(self.splits.values())

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {size}" for name, size in self.splits.items())
        return f"{type(self).__name__}('{self.name}', {self.format}: {sizes})"

    def load(
        self,
        split: str,
        indices: Indices = None,
        frames: slice | None = None,
        space: Sequence[slice] = (),
        fields: Sequence[str] | None = None,
    ) -> Trajectories:
        """Read trajectories, or a piece of them, into memory.

        Args:
            split: name of the split.
            indices: which trajectories, in this order (repeats allowed); default all.
            frames: which frames; the step may exceed 1. Default all.
            space: slices of the first space axes; an axis that is cut becomes a ``window``. Default whole axes.
            fields: which channels, in this order; default all.

        Returns:
            Trajectories in the stored precision with their parameters, if the split has labels.

        Raises:
            CatalogError: no such split or field.
            IndexError: an index outside the split.
            FormatError: a file is missing, truncated or not as it was when the source was opened.
            DataError: nothing asked for.
        """
        rows = self.rows(split, indices)
        channels = self.channels(fields)
        shape = self.shape(split)
        if len(space) > len(self.axis_names):
            raise DataError(f"{self.name}: {len(space)} space slices for the axes {', '.join(self.axis_names)}.")
        whole = tuple(space) + (slice(None),) * (len(self.axis_names) - len(space))
        frames = self._slice(frames or slice(None), shape[1], "time")
        pieces = tuple(self._slice(s, n, a) for s, n, a in zip(whole, shape[2:], self.axis_names, strict=True))
        values = self.read(split, rows, frames, pieces, channels)
        coordinates, actions = self.coordinates(split, rows), self.actions(split, rows)
        if actions is not None:
            if frames.step != 1:
                raise DataError(
                    f"{self.name}: every {frames.step}th frame of runs with actions, which are held between "
                    "neighbouring frames only. Load all frames."
                )
            actions = actions[:, :, frames.start : max(frames.stop - 1, frames.start)]
        lengths, boundary, nodes = coordinates.lengths.copy(), list(self.boundary), []
        for axis, (cut, full) in enumerate(zip(pieces, coordinates.space, strict=True)):
            nodes.append(torch.from_numpy(np.ascontiguousarray(full[:, cut])))
            # A stride keeps an axis whole only where it divides the number of nodes: then the wrap has the same step.
            if cut.start or cut.stop != full.shape[1] or full.shape[1] % cut.step:
                boundary[axis] = "window"
                lengths[:, axis] = (nodes[axis][:, -1] - nodes[axis][:, 0]).numpy()
        return Trajectories(
            fields=torch.from_numpy(values),
            time=torch.from_numpy(np.ascontiguousarray(coordinates.time[:, frames])),
            space=tuple(nodes),
            lengths=torch.from_numpy(lengths),
            parameters={n: torch.from_numpy(v[rows]) for n, v in self.parameter_values(split).items()},
            field_names=tuple(self.field_names[c] for c in channels),
            axis_names=self.axis_names,
            boundary=tuple(boundary),
            index=torch.from_numpy(rows),
            equation=self.equation,
            actions=None if actions is None else torch.from_numpy(np.ascontiguousarray(actions)),
            actuators=() if actions is None else self.actuators,
        )

    def to_xarray(self, split: str | None = None, indices: Indices = None) -> xr.Dataset:
        """Return trajectories as a dataset with named dimensions, coordinates, units and parameters.

        Args:
            split: name of a split; default all, one after another, with a coordinate ``split`` over the trajectories
                and NaN for the parameters of a split that has no labels.
            indices: which trajectories of the split; default all.

        Raises:
            DataError: splits that differ in shape, or more than fits into memory; give a split and indices.
            CatalogError, IndexError, FormatError: see :meth:`load`.
        """
        names = [name for name, size in self.splits.items() if size] if split is None else [split]
        if len(names) == 1:
            return self.described(self.load(names[0], indices).to_xarray())
        shapes = {name: self.shape(name) for name in names}
        if indices is not None or len(set(shapes.values())) != 1:
            raise DataError(f"{self.name}: its splits are {shapes}. Name one of them:  to_xarray('{names[0]}')")
        total = sum(self.splits[name] for name in names)
        # Twice: they are read split by split and then joined.
        check_memory(8 * total * math.prod(shapes[names[0]]), f"{self.name}: reading {total} trajectories at once")
        parts = [self.load(name) for name in names]
        known = {name: torch.full((), math.nan, dtype=torch.float64) for part in parts for name in part.parameters}
        parts = [
            part.replace(parameters={n: part.parameters.get(n, nan.expand(len(part))) for n, nan in known.items()})
            for part in parts
        ]
        dataset = self.described(Trajectories.concatenate(parts).to_xarray())
        return dataset.assign_coords(split=("trajectory", np.repeat(names, [len(part) for part in parts])))

    def described(self, dataset: xr.Dataset) -> xr.Dataset:
        """Return a dataset of trajectories of this source with units and what else is known of its variables."""
        for name, unit in self.units.items():
            for variable in (name, f"{name}_nodes", f"length_{name}"):
                if variable in dataset.variables:
                    dataset[variable].attrs["units"] = unit
        for name, axis in self.staggered.items():
            dataset[name].attrs["staggered"] = f"lower {axis} faces of the cells"
        dataset.attrs["format"] = self.format
        return dataset

    # ---------------------------------------------------------------- what is asked for, checked

    def known(self, split: str) -> str:
        """Return the name of a split, or raise what there is instead.

        Raises:
            CatalogError: no such split.
        """
        if split not in self.splits:
            raise CatalogError(
                f"{self.name} has no split '{split}'.{did_you_mean(split, self.splits)} "
                f"Splits: {', '.join(self.splits)}."
            )
        return split

    def rows(self, split: str, indices: Indices) -> np.ndarray:
        """Return the numbers of the trajectories asked for, shape (n,), int64, none negative.

        Raises:
            CatalogError: no such split.
            IndexError: an index outside the split.
            DataError: no trajectory asked for.
        """
        size = self.splits[self.known(split)]
        if indices is None or isinstance(indices, slice):
            rows = np.arange(size, dtype=np.int64)[indices or slice(None)]
        else:
            rows = np.asarray(indices, dtype=np.int64).reshape(-1)
        if not len(rows):
            raise DataError(f"{self.name}: no trajectories of split '{split}' asked for; it holds {size}.")
        outside = rows[(rows < -size) | (rows >= size)]
        if len(outside):
            raise IndexError(f"{self.name}: split '{split}' has {size} trajectories, no number {int(outside[0])}.")
        return rows % size

    def channels(self, fields: Sequence[str] | None) -> tuple[int, ...]:
        """Return the numbers of the channels of these names; None: all.

        Raises:
            CatalogError: no such field.
        """
        for name in fields or ():
            if name not in self.field_names:
                raise CatalogError(
                    f"{self.name} has no field '{name}'.{did_you_mean(name, self.field_names)} "
                    f"Fields: {', '.join(self.field_names)}."
                )
        return tuple(range(len(self.field_names)) if fields is None else map(self.field_names.index, fields))

    def _slice(self, cut: slice, size: int, axis: str) -> slice:
        start, stop, step = cut.indices(size)
        if step < 1 or not len(range(start, stop, step)):
            raise DataError(
                f"{self.name}: {cut} leaves nothing of the {size} nodes along {axis}. Give a slice with step >= 1."
            )
        return slice(start, stop, step)

"""Runs: data of any kind as a sequence that scikit-learn can count, cut and send to other processes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from pdessl.conventions import RUN_NAMES, run_name
from pdessl.data import open as open_data
from pdessl.data.source import Source
from pdessl.errors import DataError
from pdessl.trajectory import Trajectories

__all__ = ["Runs", "joined"]


class Runs(Sequence["Runs"]):
    """Runs of a dataset, of trajectories, of files or of a store, by number.

    The length of an :class:`xarray.Dataset` is that of its list of variables, and a path has none; model selection
    counts and cuts samples. So there::

        runs = Runs(ds)                                            # or Runs("runs/"), Runs(trajectories)
        cross_val_score(make_pipeline(SimulationEncoder("work/encoder"), RidgeCV()), runs, runs.labels("viscosity"))

    Of files and stores nothing is read but what an estimator is given; every split counts, one after the other.

    Args:
        data: the runs. Those of a dataset are along the dimension of trajectories, whatever its name. Of a list of
            files each is one run, in the order given.
        rows: numbers of those that are meant, (n,); default all.

    Attributes:
        shape: (n,).

    Raises:
        DataError: a dataset without a dimension of runs, or files of a list that are not one run each.
        FormatError: a path where nothing is.
    """

    def __init__(
        self,
        data: xr.Dataset | Trajectories | Source | str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        rows: ArrayLike | None = None,
    ) -> None:
        if isinstance(data, (list, tuple)):
            data, order = _of_files(data)
            rows = order if rows is None else order[np.asarray(rows)]
        self.data: Any = open_data(data) if isinstance(data, (str, os.PathLike)) else data
        count = self.data.sizes[_dimension(self.data)] if isinstance(self.data, xr.Dataset) else len(self.data)
        self.rows: NDArray[np.int64] = np.arange(count) if rows is None else np.asarray(rows, dtype=np.int64)

    @property
    def shape(self) -> tuple[int]:
        """(n,)."""
        return (len(self.rows),)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, key: int) -> Runs: ...
    @overload
    def __getitem__(self, key: slice) -> Runs: ...
    def __getitem__(self, key: Any) -> Runs:
        """Return some of the runs: a number, a slice, numbers, or a mask; scikit-learn adds an ellipsis."""
        key = key[0] if isinstance(key, tuple) else key
        return Runs(self.data, np.atleast_1d(self.rows[key if isinstance(key, slice) else np.asarray(key)]))

    def labels(self, name: str) -> NDArray[np.float64]:
        """Return the values of a parameter, (n,), not a number where a run has none.

        Raises:
            DataError: no such parameter.
        """
        if isinstance(self.data, Source):
            each = [self.data.parameter_values(split) for split in self.data.splits]
            if not any(name in values for values in each):
                raise DataError(
                    f"{self.data.name} has no parameter '{name}'; it has {', '.join(self.data.parameters)}."
                )
            parts = [v.get(name, np.full(n, np.nan)) for v, n in zip(each, self.data.splits.values(), strict=True)]
            return np.concatenate(parts)[self.rows]
        known = self.data.parameters if isinstance(self.data, Trajectories) else self.data
        if name not in known:
            raise DataError(f"the runs have no parameter '{name}'; they have {', '.join(map(str, known)) or 'none'}.")
        values = known[name]
        array = np.asarray(values.cpu() if isinstance(self.data, Trajectories) else values, dtype=np.float64)
        return np.full(len(self.rows), array) if array.ndim == 0 else array[self.rows]

    def load(self) -> xr.Dataset | Trajectories:
        """Return the runs: a part of the dataset, or trajectories; what is read from files is a dataset with its units.

        Raises:
            ShapeError: runs of files that differ in length; take those of one split.
        """
        if isinstance(self.data, xr.Dataset):
            return self.data.isel({_dimension(self.data): self.rows})
        if isinstance(self.data, Trajectories):
            return self.data[self.rows]
        starts = np.cumsum([0, *self.data.splits.values()])
        number = np.searchsorted(starts, self.rows, side="right") - 1
        names = list(self.data.splits)
        parts = [self.data.load(names[k], self.rows[number == k] - starts[k]) for k in np.unique(number)]
        whole = Trajectories.concatenate([part.without_parameters() for part in parts])
        order = np.argsort(np.concatenate([np.flatnonzero(number == k) for k in np.unique(number)]))
        return self.data.described(whole[order].to_xarray())


def joined(data: Any) -> Any:
    """Return data as an encoder takes them: :class:`Runs` loaded, a list of runs put together, anything else as it is.

    A list is what scikit-learn makes of trajectories it has indexed one by one. A path, a list of files and a source
    are read; an :class:`xarray.DataArray` over time is a dataset of one field.
    """
    if isinstance(data, (str, os.PathLike, Source)) or _are_paths(data):
        data = Runs(data)
    if isinstance(data, Runs):
        return data.load()
    if isinstance(data, xr.DataArray) and "time" in data.dims:
        return data.to_dataset(name=data.name or "u")
    if isinstance(data, (list, tuple)) and data and all(isinstance(d, (Runs, Trajectories, xr.Dataset)) for d in data):
        parts = [joined(d) for d in data]
        if all(isinstance(part, Trajectories) for part in parts):
            return Trajectories.concatenate(parts)
        return xr.concat(parts, run_name(parts[0].dims), join="exact")
    return data


def _are_paths(data: Any) -> bool:
    return isinstance(data, (list, tuple)) and len(data) > 0 and all(isinstance(d, (str, os.PathLike)) for d in data)


def _of_files(paths: Sequence[str | os.PathLike[str]]) -> tuple[Source, NDArray[np.int64]]:
    """Return files opened together, which brings them to one set of units, and the number of each one's run."""
    if not _are_paths(paths):
        raise DataError("expected runs, or a list of files; found a list of something else, or an empty one.")
    named = [os.fspath(p) for p in paths]
    source = open_data(list(dict.fromkeys(named)))
    found = [file for split in source.splits for file, _ in source.origins(split)]
    wrong = next((n for n in named if found.count(n) != 1), None)
    if wrong is not None:
        raise DataError(
            f"{wrong} holds {found.count(wrong)} runs; of a list of files each is one. Give the folder, or one file: "
            "Runs(path) counts the runs in it."
        )
    return source, np.array([found.index(n) for n in named], dtype=np.int64)


def _dimension(data: xr.Dataset) -> str:
    found = next((n for n in RUN_NAMES if n in data.dims), None)
    if found is None:
        raise DataError(
            f"the dataset has the dimensions {', '.join(map(str, data.dims))}, and none that counts runs "
            f"({', '.join(RUN_NAMES[:4])}, ...). For a single run:  ds.expand_dims('trajectory')"
        )
    return found

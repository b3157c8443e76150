"""The law that data obey, from whatever holds them: a store, files, a dataset of xarray, or trajectories."""

from __future__ import annotations

import os
from typing import Any

import xarray as xr

from pdessl.conventions import RUN_NAMES
from pdessl.data import open as open_data
from pdessl.errors import DataError
from pdessl.operators import LatentOperator
from pdessl.operators import discover as discover_law
from pdessl.trajectory import Trajectories

__all__ = ["discover", "unlabelled_runs"]


def unlabelled_runs(
    data: str | os.PathLike[str] | xr.Dataset | Trajectories, split: str | None = None, limit: int | None = None
) -> Trajectories:
    """Return runs in memory, without their labels.

    Args:
        data: folder of a store, a file or folder of files, a dataset of xarray, or trajectories.
        split: name of a split; default ``unlabelled`` where there is one, else all but ``validation`` and ``test``.
        limit: so many runs at most.

    Raises:
        DataError: no runs.
    """
    if isinstance(data, Trajectories):
        runs = data
    elif isinstance(data, xr.Dataset):
        name = next((n for n in RUN_NAMES if n in data.dims), "trajectory")
        runs = Trajectories.from_xarray(data, parameters=(), trajectory=name)
    else:
        source = open_data(data)
        sizes = {name: size for name, size in source.splits.items() if size}
        if split is None and "unlabelled" in sizes:
            split = "unlabelled"
        kept = [name for name in sizes if name not in ("validation", "test")]  # a law may not have seen those
        names = [split] if split is not None else kept or list(sizes)
        if not names:
            raise DataError(f"{data} holds no runs.")
        rows = {n: range(min(sizes[n], limit)) if limit and n in sizes else None for n in names}
        parts = [source.load(name, rows[name]).without_parameters() for name in names]
        runs = Trajectories.concatenate(parts)
    runs = runs.without_parameters()
    return runs if limit is None else runs[slice(0, limit)]


def discover(
    data: str | os.PathLike[str] | xr.Dataset | Trajectories,
    *,
    split: str | None = None,
    limit: int | None = None,
    **options: Any,
) -> LatentOperator:
    """Find the law that unlabelled runs obey, and the numbers in it that differ from run to run.

    Args:
        data: which runs; their labels are not read. See :func:`unlabelled_runs`.
        split: name of a split.
        limit: so many runs at most.
        options: of :func:`pdessl.operators.discover` (``rank``, ``terms``, ``half_width``, ...).

    Raises:
        DataError, ShapeError: see :func:`pdessl.operators.discover`.
    """
    return discover_law(unlabelled_runs(data, split, limit), **options)

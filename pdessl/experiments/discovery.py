"""The law that data obey, from whatever holds them: a store, files, a dataset of xarray, or trajectories."""

from __future__ import annotations

import os
from typing import Any

import torch
import xarray as xr

from pdessl.data import open as open_data
from pdessl.errors import DataError
from pdessl.inference.format import RUN_NAMES
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
        split: name of a split; default ``unlabelled`` where there is one, else all there are.
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
        names = [split] if split is not None else list(sizes)
        if not names:
            raise DataError(f"{data} holds no runs.")
        parts = [source.load(name, range(min(sizes.get(name, 0), limit)) if limit else None) for name in names]
        fields = torch.cat([p.fields for p in parts])
        first = parts[0]
        runs = first.replace(
            fields=fields,
            time=torch.cat([p.time for p in parts]),
            space=tuple(torch.cat([p.space[i] for p in parts]) for i in range(len(first.space))),
            lengths=torch.cat([p.lengths for p in parts]),
            parameters={},
            index=None,
        )
    runs = runs.replace(parameters={})
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

"""The law of unlabelled runs from whatever holds them: a store, files, a dataset of xarray, or trajectories."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from pdessl.conventions import run_name
from pdessl.data import open as open_data
from pdessl.data.source import Source
from pdessl.errors import DataError
from pdessl.experiments.discovery_parts import Part, grams_in_parts
from pdessl.models import save_pretrained
from pdessl.operators import LatentOperator, Learned, choose, fit_learned, law_of
from pdessl.operators import discover as discover_law
from pdessl.operators.search import sampled_runs, tried_runs
from pdessl.trajectory import Trajectories

__all__ = ["boundaries", "discover", "learn", "unlabelled_runs"]

_PART_NUMBERS = 2**22  # of fields read at once (16 MB)


def unlabelled_runs(
    data: str | os.PathLike[str] | xr.Dataset | Trajectories,
    split: str | None = None,
    limit: int | None = None,
    known: Sequence[str] = (),
) -> Trajectories:
    """Return runs in memory, without their labels.

    Args:
        data: folder of a store, a file or folder of files, a dataset of xarray, or trajectories.
        split: name of a split; default ``unlabelled`` where there is one, else all but ``validation`` and ``test``.
        limit: so many runs at most.
        known: parameters that stay.

    Raises:
        DataError: no runs.
    """
    if isinstance(data, Trajectories):
        runs = data
    elif isinstance(data, xr.Dataset):
        name = run_name(data.dims)
        runs = Trajectories.from_xarray(data, parameters=tuple(known), trajectory=name)
    else:
        source = open_data(data)
        parts = [source.load(n, rows) for n, rows in _pieces(source, data, split, limit)]
        runs = Trajectories.concatenate([part.without_parameters(known) for part in parts])
    runs = runs.without_parameters(known)
    return runs if limit is None else runs[slice(0, limit)]


def boundaries(data: str | os.PathLike[str] | xr.Dataset | Trajectories) -> dict[str, str]:
    """Return the kind of boundary by axis."""
    held = data if isinstance(data, Trajectories) else None
    if isinstance(data, xr.Dataset):
        held = unlabelled_runs(data, limit=1)
    found = open_data(data) if held is None else held  # type: ignore[arg-type]
    return dict(zip(found.axis_names, found.boundary, strict=True))


def discover(
    data: str | os.PathLike[str] | xr.Dataset | Trajectories,
    *,
    split: str | None = None,
    limit: int | None = None,
    scratch: str | os.PathLike[str] | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    resamples: int = 20,
    seed: int = 0,
    **options: Any,
) -> LatentOperator:
    """Find the law that unlabelled runs obey, and the numbers in it that differ from run to run.

    Stores and files are read part by part: in memory are a few runs at a time, a few numbers of every run, and at most
    8 MB of the products of their terms, of which the rest is on disk. What was found does not depend on the parts,
    nor on who made them, to round-off (relative 1e-9).

    Args:
        data: which runs; their labels are not read, but for ``known``. See :func:`unlabelled_runs`.
        split: name of a split.
        limit: so many runs at most.
        scratch: folder where the products of each part are kept; started again with the same data and choices, finished
            parts are read from there.
        workers: processes that make the products of parts of stores and files, of one thread each.
        scheduler: address of a Dask scheduler whose workers do; see
            :func:`pdessl.experiments.discovery_parts.grams_in_parts`.
        resamples: of the bootstrap that gives standard errors of the coefficients.
        seed: of the bootstrap.
        options: of :func:`pdessl.operators.discover` (``rank``, ``terms``, ``half_width``, ...).

    Raises:
        DataError, ShapeError: see :func:`pdessl.operators.discover`.
        DependencyError, StoreError: of ``scheduler``.
    """
    known = tuple(options.get("known", ()))
    if isinstance(data, (Trajectories, xr.Dataset)):
        return discover_law(unlabelled_runs(data, split, limit, known), resamples=resamples, seed=seed, **options)
    source = open_data(data)
    pieces = _pieces(source, data, split, limit)
    shape = source.shape(pieces[0][0])
    most = sampled_runs((0, *shape))
    some = unlabelled_runs(data, split, most if limit is None else min(limit, most), known)
    choice = choose(some[slice(0, tried_runs((0, *shape)))], **options)
    folder = None if scratch is None else Path(scratch).absolute()
    path = os.path.abspath(data)
    parts = [Part.of(source, path, *piece, choice.projection, known, folder) for piece in _cut(pieces, shape)]
    return law_of(choice, grams_in_parts(parts, source, workers, scheduler), some, resamples, seed)


def learn(
    data: str | os.PathLike[str] | xr.Dataset | Trajectories,
    *,
    split: str | None = None,
    limit: int | None = None,
    out: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Learned:
    """Fit a law whose functions and kernels nobody chose; see :func:`pdessl.operators.fit_learned`.

    Args:
        data: which runs; see :func:`unlabelled_runs`. They are held in memory.
        split: name of a split.
        limit: so many runs at most.
        out: folder of the encoder, which :func:`pdessl.load` and ``pdessl regress`` read; None: nothing is written.
        options: of :func:`pdessl.operators.fit_learned`.

    Raises:
        DataError, ShapeError: see there.
        StoreError: the folder cannot be written.
    """
    found = fit_learned(unlabelled_runs(data, split, limit), **options)
    if out is not None:
        said = {"reliability": found.reliability, "unexplained": found.unexplained, "runs": found.count}
        save_pretrained(out, found.encoder, {"provenance": said})
    return found


def _pieces(source: Source, data: Any, split: str | None, limit: int | None) -> list[tuple[str, range]]:
    """Return which rows of which splits are read, in order."""
    sizes = {name: size for name, size in source.splits.items() if size}
    if split is None and "unlabelled" in sizes:
        split = "unlabelled"
    kept = [name for name in sizes if name not in ("validation", "test")]  # a law may not have seen those
    names = [source.known(split)] if split is not None else kept or list(sizes)
    found, left = [], limit
    for name in names:
        count = sizes.get(name, 0) if left is None else min(sizes.get(name, 0), left)
        if count:
            found.append((name, range(count)))
        left = None if left is None else left - count
    if not found:
        raise DataError(f"{data} holds no runs.")
    return found


def _cut(pieces: Sequence[tuple[str, range]], shape: Sequence[int]) -> Iterator[tuple[str, range]]:
    """Cut rows into parts that fit into memory."""
    numbers = 1
    for n in shape:
        numbers *= n
    step = max(1, _PART_NUMBERS // numbers)
    for name, rows in pieces:
        for start in range(0, len(rows), step):
            yield name, rows[start : start + step]

"""Values that nobody wrote: chunks that are not there, and numbers that stand for nothing."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from pdessl.conventions import is_default_fill

__all__ = ["Holes", "hdf5_holes", "stated_fills", "without_fills", "zarr_holes"]


MAX_CHUNKS = 1 << 24  # no real array has more; one that claims them is refused for its size when it is read


class Holes:
    """Which chunks of an array were never written.

    Args:
        missing: one entry per chunk, True where there is none.
        chunks: size of a chunk along each axis.
    """

    def __init__(self, missing: np.ndarray, chunks: Sequence[int]) -> None:
        self.missing, self.chunks = missing, tuple(chunks)

    def __str__(self) -> str:
        return f"{int(self.missing.sum())} of {self.missing.size} chunks of it were never written"

    def mask(self, selection: Sequence[slice | int | np.ndarray], shape: Sequence[int]) -> np.ndarray:
        """Return which values of a selection were never written, in the shape the selection has."""
        cuts = [*selection, *(slice(None) for _ in range(len(shape) - len(selection)))]
        places = [
            np.arange(*cut.indices(size)) if isinstance(cut, slice) else np.atleast_1d(np.asarray(cut))
            for cut, size in zip(cuts, shape, strict=True)
        ]
        numbers = [place // chunk for place, chunk in zip(places, self.chunks, strict=True)]
        found = self.missing[np.ix_(*numbers)]
        single = tuple(i for i, cut in enumerate(cuts) if not isinstance(cut, slice) and np.ndim(cut) == 0)
        return found.squeeze(axis=single) if single else found


def _grid(shape: Sequence[int], chunks: Sequence[int]) -> tuple[int, ...]:
    return tuple(-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True))


def hdf5_holes(dataset: h5py.Dataset) -> Holes | None:
    """Return the chunks of an HDF5 array that were never allocated; None: all were, or it is no array of two axes."""
    if dataset.ndim < 2 or not dataset.size:
        return None
    if dataset.chunks is None:
        empty = dataset.id.get_storage_size() == 0
        return Holes(np.ones((1,) * dataset.ndim, dtype=bool), dataset.shape) if empty else None
    grid = _grid(dataset.shape, dataset.chunks)
    count = dataset.id.get_num_chunks()
    if count >= math.prod(grid) or math.prod(grid) > MAX_CHUNKS:
        return None
    missing = np.ones(grid, dtype=bool)
    for number in range(count):
        offset = dataset.id.get_chunk_info(number).chunk_offset
        missing[tuple(o // c for o, c in zip(offset, dataset.chunks, strict=True))] = False
    return Holes(missing, dataset.chunks)


def zarr_holes(folder: Path, shape: Sequence[int], chunks: Sequence[int]) -> Holes | None:
    """Return the chunks of a Zarr array that are not in its folder; None: all are, or it is no array of two axes.

    Zarr does not store a chunk whose values all equal the fill value, so that one of zeros may have been written; the
    store does not tell.
    """
    if len(shape) < 2 or not math.prod(shape):
        return None
    grid = _grid(shape, chunks)
    if math.prod(grid) > MAX_CHUNKS:
        return None
    missing = np.ones(grid, dtype=bool)
    for path in folder.rglob("*"):
        key = re.fullmatch(r"(?:c[/.])?(\d+(?:[/.]\d+)*)", path.relative_to(folder).as_posix())
        place = tuple(map(int, re.split(r"[/.]", key[1]))) if key else ()
        if len(place) == len(grid) and all(p < n for p, n in zip(place, grid, strict=True)) and path.is_file():
            missing[place] = False
    return Holes(missing, chunks) if missing.any() else None


def stated_fills(dataset: h5py.Dataset) -> tuple[float, ...]:
    """Return the numbers that a file says stand for nothing: its attributes, and a fill value that is set and not 0."""
    if dataset.dtype.kind not in "fiu":
        return ()
    found = [dataset.attrs[name] for name in ("_FillValue", "missing_value") if name in dataset.attrs]
    if dataset.id.get_create_plist().fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED and dataset.fillvalue:
        found.append(dataset.fillvalue)
    numbers = itertools.chain.from_iterable(np.ravel(value).tolist() for value in found)
    return tuple(dict.fromkeys(n for n in numbers if isinstance(n, (int, float)) and n == n))


def without_fills(values: np.ndarray, fills: Sequence[float] = ()) -> np.ndarray:
    """Return values with NaN in place of the numbers that stand for nothing; integers become float64 where some do."""
    missing = is_default_fill(values)
    for fill in fills:
        missing |= values == fill
    if not missing.any():
        return values
    return np.where(missing, np.nan, values).astype(values.dtype if values.dtype.kind == "f" else np.float64)

"""Arrays in HDF5 files, read piece by piece: mapped into memory where a file holds them plainly, else by HDF5."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from pdessl.conventions import is_default_fill
from pdessl.data.containment import check_inside
from pdessl.errors import FormatError

__all__ = ["MAX_OPEN", "FileArray", "all_finite", "copy_windows", "cuts", "open_files"]

MAX_OPEN = 8
"""Files of one kind (mappings, HDF5 handles) that a process holds open; the least recently used one is let go."""

CHUNK_CACHE = 16 << 20  # bytes of decompressed chunks per open file: several rows often share a chunk

LARGE = 1e36  # a sum with one value that netCDF writes for nothing is larger

SMALL_WINDOW = 32 << 10  # bytes; above, a copy in between costs more than a call per window


class _Recent:
    """The most recently used handles of this process, by path. A forked child opens its own."""

    def __init__(self, make: Callable[[str], Any]) -> None:
        self._make, self._held, self._lock = make, OrderedDict(), threading.Lock()
        self._process = os.getpid()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, path: str, version: tuple[int, int]) -> Any:
        if self._process != os.getpid():
            # The parent's lock may have been held by a thread that does not exist here.
            self._held, self._lock, self._process = OrderedDict(), threading.Lock(), os.getpid()
        key = (path, version)
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
            _check_unchanged(path, version)
            self._held[key] = handle = self._make(path)
            if len(self._held) > MAX_OPEN:
                # Not closed here: another thread may be reading. It closes with its last reference.
                self._held.popitem(last=False)
            return handle


class _Mapping:
    def __init__(self, path: str) -> None:
        with open(path, "rb") as handle:
            self.memory = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)

    def array(self, shape: tuple[int, ...], dtype: np.dtype, offset: int) -> np.ndarray:
        # Touching a page behind the end of a file that was cut while mapped ends the process: look first.
        if offset + dtype.itemsize * math.prod(shape) > self.memory.size():
            raise FormatError("the file has become shorter since it was opened")
        return np.ndarray(shape, dtype, buffer=self.memory, offset=offset)


class _Opened:
    def __init__(self, path: str) -> None:
        self.file = h5py.File(path, "r", rdcc_nbytes=CHUNK_CACHE)
        self._datasets: dict[str, h5py.Dataset] = {}

    def dataset(self, name: str, size: int) -> h5py.Dataset:
        # HDF5 returns zeros for what lies behind the end of a file that was cut while open.
        if os.fstat(self.file.id.get_vfd_handle()).st_size < size:
            raise FormatError("the file has become shorter since it was opened")
        if name not in self._datasets:
            self._datasets[name] = self.file[name]
        return self._datasets[name]


_mappings = _Recent(_Mapping)
_files = _Recent(_Opened)


def open_files() -> int:
    """Return how many files this process holds open for :class:`FileArray`."""
    return len(_mappings) + len(_files)


def _version(path: str) -> tuple[int, int]:
    try:
        state = os.stat(path)
    except OSError as error:
        raise FormatError(f"no file {path}: {error.strerror}. Restore it, or open the dataset again.") from None
    return state.st_size, state.st_mtime_ns


def _check_unchanged(path: str, version: tuple[int, int]) -> None:
    now = _version(path)
    if now != version:
        raise FormatError(
            f"{path} has changed since it was opened ({version[0]} bytes then, {now[0]} now). Open the dataset again."
        )


class FileArray:
    """An array in an HDF5 (or netCDF-4) file, of which pieces are read.

    Where the file holds the numbers in one plain run (contiguous, uncompressed) the file is mapped into memory: a read
    touches only the pages it needs, the operating system keeps recent ones, and no lock is held. Other arrays are
    read as hyperslabs by HDF5. An instance holds no open file: it can be pickled, and used in threads and after a fork.

    Args:
        path: the file.
        name: path of the dataset in it.
        file: the same file, if it is open already.

    Attributes:
        shape, dtype: as stored.
        mapped: whether it is read through a mapping.

    Raises:
        FormatError: no such file or dataset, not numbers, less in the file than its header says, or values in other
            files.
    """

    __slots__ = ("_offset", "_version", "dtype", "name", "path", "shape")

    def __init__(self, path: str | os.PathLike[str], name: str, file: h5py.File | None = None) -> None:
        self.path, self.name = os.fspath(Path(path)), name
        self._version = _version(self.path)
        try:
            if file is None:
                with h5py.File(self.path, "r") as opened:
                    self._describe(opened)
            else:
                self._describe(file)
        except (OSError, RuntimeError) as error:
            raise FormatError(
                f"{self.path} is truncated or not an HDF5 file: {str(error).splitlines()[0]}. Restore it."
            ) from error

    def _describe(self, file: h5py.File) -> None:
        dataset = file.get(self.name)
        if not isinstance(dataset, h5py.Dataset):
            held = ", ".join(sorted(file)) or "nothing"
            raise FormatError(f"{self.path} has no array '{self.name}'; it holds {held}.")
        if dataset.dtype.kind not in "fiub":
            raise FormatError(f"{self.path}: '{self.name}' holds {dataset.dtype}, expected numbers.")
        check_inside(dataset, f"{self.path}: '{self.name}'")
        self.shape, self.dtype = tuple(dataset.shape), dataset.dtype
        plain = dataset.chunks is None and dataset.size
        self._offset: int | None = dataset.id.get_offset() if plain else None
        if self._offset is not None:
            end = self._offset + dataset.size * self.dtype.itemsize
            if end > self._version[0]:
                raise FormatError(
                    f"{self.path} is truncated: '{self.name}' of shape {self.shape} ends at byte {end}, the file at "
                    f"{self._version[0]}. Restore it."
                )

    def __repr__(self) -> str:
        return f"FileArray('{self.path}', '{self.name}', {self.shape}, {self.dtype})"

    @property
    def mapped(self) -> bool:
        """Whether the array is read through a mapping of the file."""
        return self._offset is not None

    def read(self, key: tuple[int | slice, ...], out: np.ndarray) -> None:
        """Copy a piece into an existing array, converting the numbers to its type.

        Args:
            key: an integer, or a slice with step >= 1, for each of the first axes; further axes are taken whole.
            out: array of the shape of the piece.

        Raises:
            FormatError: the file is missing, damaged, or not what it was when this object was made.
        """
        with self._readable():
            if self.mapped:
                out[...] = self._mapping()[key]
                return
            dataset = _files.get(self.path, self._version).dataset(self.name, self._version[0])
            step = key[-1].step if key and len(key) == len(self.shape) and isinstance(key[-1], slice) else None
            if step is not None and step > 1:
                # HDF5 handles a stride along the last axis number by number.
                out[...] = dataset[(*key[:-1], slice(key[-1].start, key[-1].stop))][..., ::step]
            else:
                out[...] = dataset[key]

    def read_windows(
        self,
        rows: np.ndarray,
        starts: np.ndarray,
        sizes: tuple[int, ...],
        stride: int,
        out: np.ndarray,
        places: np.ndarray,
    ) -> bool:
        """Copy another window of each row (an entry of the first axis) into an existing array.

        Args:
            rows: numbers of the rows, shape (n,).
            starts: first entry along each further axis, shape (n, k).
            sizes: number of entries along each further axis.
            stride: step along the first of these, the others have 1.
            out: shape (m, *sizes).
            places: which entry of ``out`` each window is for, shape (n,).

        Returns:
            Whether all values copied are finite.

        Raises:
            FormatError: see :meth:`read`.
        """
        if self.mapped:
            with self._readable():
                return copy_windows(self._mapping(), rows, starts, sizes, stride, out, places, check=True)
        finite = True
        for row, start, place in zip(rows.tolist(), starts.tolist(), places.tolist(), strict=True):
            self.read((row, *cuts(start, sizes, stride)), out[place])
            finite &= all_finite(out[place])
        return finite

    def _mapping(self) -> np.ndarray:
        return _mappings.get(self.path, self._version).array(self.shape, self.dtype, self._offset)

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except FormatError as error:
            raise FormatError(str(error) if self.path in str(error) else f"{self.path}: {error}. Restore it.") from None
        except (OSError, RuntimeError, KeyError) as error:
            raise FormatError(
                f"{self.path} is damaged: '{self.name}' cannot be read ({str(error).splitlines()[0]}). Restore it."
            ) from error

    def __getitem__(self, key: int | slice | tuple[int | slice, ...]) -> np.ndarray:
        """Read a piece into a new array in the byte order of the machine; ``key`` as in :meth:`read`."""
        key = key if isinstance(key, tuple) else (key,)
        full = key + (slice(None),) * (len(self.shape) - len(key))
        shape = [len(range(*k.indices(n))) for k, n in zip(full, self.shape, strict=True) if isinstance(k, slice)]
        out = np.empty(shape, self.dtype.newbyteorder("="))
        self.read(key, out)
        return out


def cuts(start: Sequence[int], sizes: Sequence[int], stride: int) -> tuple[slice, ...]:
    """Return the slices of a window that begins at ``start``; the first axis has a stride, the others have none."""
    first = slice(start[0], start[0] + (sizes[0] - 1) * stride + 1, stride)
    return (first, *(slice(s, s + n) for s, n in zip(start[1:], sizes[1:], strict=True)))


def copy_windows(
    values: np.ndarray,
    rows: np.ndarray,
    starts: np.ndarray,
    sizes: tuple[int, ...],
    stride: int,
    out: np.ndarray,
    places: np.ndarray,
    check: bool = False,
) -> bool:
    """Copy another window of each row of an array in memory, or mapped into it; see :meth:`FileArray.read_windows`.

    Args:
        values: shape (N, ..., *lengths): windows are cut from the last axes, those between are copied whole.
        rows: numbers of the rows, shape (n,).
        starts: first entry along each axis that is cut, shape (n, k).
        sizes: number of entries along each of them.
        stride: step along the first of them.
        out: shape (m, ..., *sizes).
        places: which entry of ``out`` each window is for.
        check: look whether the values are finite, which costs least while they are in the processor's cache.

    Returns:
        False if it was looked, and a value is not finite.
    """
    finite = True
    if not len(rows):
        return finite
    if out[0].nbytes > SMALL_WINDOW:
        between = (slice(None),) * (values.ndim - 1 - len(sizes))
        for row, start, place in zip(rows.tolist(), starts.tolist(), places.tolist(), strict=True):
            out[place] = values[(row, *between, *cuts(start, sizes, stride))]
            finite &= not check or all_finite(out[place])
        return finite
    # One indexing operation on a view that has all windows there are.
    first = values.ndim - len(sizes)
    steps = (stride,) + (1,) * (len(sizes) - 1)
    room = [n - (size - 1) * step for n, size, step in zip(values.shape[first:], sizes, steps, strict=True)]
    if min(room) < 1:
        raise IndexError(f"no window of {sizes} at stride {stride} fits into {values.shape[first:]}")
    strides = values.strides
    inner = tuple(s * step for s, step in zip(strides[first:], steps, strict=True))
    shape = (len(values), *room, *values.shape[1:first], *sizes)
    windows = np.lib.stride_tricks.as_strided(
        values, shape, (strides[0], *strides[first:], *strides[1:first], *inner), writeable=False
    )
    found = windows[(rows, *starts.T)].astype(out.dtype, copy=False)
    out[places] = found
    return not check or all_finite(found)


def all_finite(values: np.ndarray) -> bool:
    """Return whether all values are finite, and none is what netCDF writes for nothing written."""
    # A sum is twice as fast as a mask and finite and small only where all terms are; where they are it may overflow.
    total = torch.from_numpy(values).sum().item()
    if math.isfinite(total) and abs(total) < LARGE:
        return True
    return bool(np.isfinite(values).all() and not is_default_fill(values).any())

"""HDF5 files read with suspicion: no links out of the file, no array that declares much more than it stores."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pdessl.data.arrays import FileArray
from pdessl.data.containment import check_contained, check_inside
from pdessl.data.formats.container import Array, Container
from pdessl.data.formats.netcdf4 import Description, describe
from pdessl.data.formats.unwritten import Holes, hdf5_holes, stated_fills, without_fills
from pdessl.data.memory import check_memory
from pdessl.errors import FormatError, PdesslError

__all__ = ["HDF5File", "close_all", "readable", "selected_size"]

MAX_HANDLES = 16
MAX_NAMES = 4096
MAX_LINKS = 8
MAX_CHUNK = 1 << 30
# Deflate and its like shrink constant data at most about a thousandfold; what claims more was never written.
MAX_RATIO = 4000
MAX_UNWRITTEN = 64 << 20
MAX_ATTRIBUTE = 1 << 20

_LIBRARY_ERRORS = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    OverflowError,
    AttributeError,
    SystemError,
    IndexError,
)

_handles: OrderedDict[tuple[int, str, int, int], h5py.File] = OrderedDict()
_lock = threading.RLock()


@contextlib.contextmanager
def readable(label: str, what: str = "damaged") -> Iterator[None]:
    """Turn whatever the HDF5 library raises on a damaged file into one clear error."""
    try:
        yield
    except PdesslError:
        raise
    except _LIBRARY_ERRORS as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if "unable to lock" in reason.lower():
            raise FormatError(
                f"{label} is locked: another program writes it. Wait until it is closed, or set "
                f"HDF5_USE_FILE_LOCKING=FALSE if the file system has no locks. ({reason})"
            ) from error
        raise FormatError(f"{label} is {what}: {reason}. Fetch or write the file again.") from error
    except MemoryError as error:
        raise FormatError(f"{label} asks for more memory than there is; it is damaged or too large.") from error


def _new_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    # A thread of the parent that does not exist in the child may have held the lock.
    os.register_at_fork(after_in_child=_new_lock)


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as handle:
            return handle.read(64)
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror or error}. Check its permissions.") from None


def check_signature(path: Path) -> None:
    """Refuse what is no HDF5 file, saying what it is instead where that can be seen.

    Raises:
        FormatError: no file, empty, a pointer of git-lfs, a web page, netCDF-3, or something else.
    """
    if not path.is_file():
        raise FormatError(f"no file {path}. Check the path.")
    start, size = _first_bytes(path), path.stat().st_size
    if start.startswith(b"\x89HDF\r\n\x1a\n") or (size > 512 and h5py.is_hdf5(path)):
        return
    if start.startswith(b"version https://git-lfs"):
        what = "is a pointer of git-lfs, not the data. Fetch the data:  git lfs pull"
    elif start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        what = "is a web page, not data: the download failed. Fetch it again."
    elif start.startswith(b"CDF"):
        what = "is a netCDF-3 file; name it .nc and open it by itself, or convert it:  nccopy -k netCDF-4 OLD NEW"
    else:
        what = f"is truncated or not a netCDF-4/HDF5 file ({size} bytes). Fetch or write it again."
    raise FormatError(f"{path} {what}")


def _opened(path: Path) -> h5py.File:
    """Return an open file from a small cache; a forked process opens its own."""
    try:
        state = path.stat()
    except OSError:
        raise FormatError(f"no file {path}; it was there when the dataset was opened. Restore it.") from None
    key = (os.getpid(), str(path), state.st_mtime_ns, state.st_size)
    with _lock:
        if key in _handles:
            _handles.move_to_end(key)
            return _handles[key]
        check_signature(path)
        with readable(str(path), f"truncated or not a netCDF-4/HDF5 file ({state.st_size} bytes)"):
            handle = h5py.File(path, "r")
        _handles[key] = handle
        while len(_handles) > MAX_HANDLES:
            (owner, *_), oldest = _handles.popitem(last=False)
            if owner == os.getpid():
                with contextlib.suppress(Exception):
                    oldest.close()
        return handle


def close_all() -> None:
    """Close the files of this process that are open."""
    with _lock:
        for key in [k for k in _handles if k[0] == os.getpid()]:
            with contextlib.suppress(Exception):
                _handles.pop(key).close()


class HDF5File(Container):
    """An HDF5 file; opened on demand, at most a few at a time.

    Args:
        path: the file.

    Refused, each with a message of its own: external links, arrays whose values lie in other files (external storage,
    virtual datasets), arrays that declare much more than they store, and chunks too large to hold.

    Raises:
        FormatError: no such file, not HDF5, or damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.label = str(path)
        self._checked: dict[str, Array] = {}
        self._places: dict[str, FileArray] = {}
        self._names: dict[str, Array] | None = None
        self._holes: dict[str, Holes | None] = {}
        self._fills: dict[str, tuple[float, ...]] = {}
        _opened(self.path)

    # ------------------------------------------------------------------------------ names

    def _walk(self, name: str, start: h5py.Group | None = None, depth: int = 0) -> Any:
        """Return the object of a name, following no link that leaves the file; None: there is none."""
        node: Any = _opened(self.path) if start is None or name.startswith("/") else start
        for part in [p for p in name.split("/") if p]:
            link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
            if isinstance(link, h5py.ExternalLink):
                raise FormatError(
                    f"{self.label}: '{name}' is an external link to '{link.filename}'; links to other files are not "
                    f"followed. Open that file itself, or copy the data into one file with h5copy."
                )
            if isinstance(link, h5py.SoftLink) and depth < MAX_LINKS:
                node = self._walk(link.path, node, depth + 1)
            else:
                node = node.get(part) if isinstance(link, h5py.HardLink) else None
            if node is None:
                return None
        return node

    def groups(self) -> list[str]:
        """Return the names of the groups of the root, in alphabetical order."""
        with readable(self.label):
            root = _opened(self.path)
            found = []
            for name in root:
                if isinstance(root.get(name, getlink=True), h5py.HardLink) and isinstance(root.get(name), h5py.Group):
                    found.append(name)
            return sorted(found)

    def arrays(self) -> dict[str, Array]:  # noqa: D102
        if self._names is None:
            found: dict[str, Array] = {}
            with readable(self.label):
                self._list(_opened(self.path), "", 0, found)
            self._names = found
        return self._names

    def _list(self, group: h5py.Group, prefix: str, depth: int, found: dict[str, Array]) -> None:
        for name in group:
            if len(found) >= MAX_NAMES:
                return
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                continue
            try:
                node = group.get(name)
            except (OSError, RuntimeError, KeyError):
                continue  # damaged; reading it says so
            if isinstance(node, h5py.Dataset):
                found[prefix + name] = Array(prefix + name, tuple(node.shape or ()), node.dtype)
            elif isinstance(node, h5py.Group) and depth < 3:
                self._list(node, f"{prefix}{name}/", depth + 1, found)

    def links_out(self) -> list[str]:
        """Return the names of links in the root and in its groups that lead out of the file."""
        with readable(self.label):
            root = _opened(self.path)
            levels = [("", root), *((f"{name}/", root[name]) for name in self.groups()[:MAX_NAMES])]
            return [
                prefix + name
                for prefix, group in levels
                for name in group
                if isinstance(group.get(name, getlink=True), h5py.ExternalLink)
            ]

    def check_contained(self) -> None:
        """Refuse the file where a name in it, at any depth, leads out of it: for readers that follow links themselves.

        Raises:
            FormatError: an external link, or an array whose values lie in other files.
        """
        with readable(self.label):
            check_contained(_opened(self.path), self.label)

    # ------------------------------------------------------------------------------ arrays

    def array(self, name: str) -> Array:  # noqa: D102
        if name not in self._checked:
            with readable(f"{self.label}: '{name}'"):
                node = self._walk(name)
                if not isinstance(node, h5py.Dataset):
                    raise self.missing(name)
                self._checked[name] = self._check(name, node)
        return self._checked[name]

    def _check(self, name: str, dataset: h5py.Dataset) -> Array:
        where = f"{self.label}: array '{name}'"
        if dataset.shape is None:
            raise FormatError(f"{where} is empty (no shape). Write it again.")
        check_inside(dataset, where)
        array = Array(name, tuple(int(n) for n in dataset.shape), dataset.dtype)
        stored = dataset.id.get_storage_size()
        if array.bytes > MAX_UNWRITTEN and array.bytes > MAX_RATIO * stored:
            raise FormatError(
                f"{where} declares {array.bytes / 1e9:.4g} GB (shape {array.shape}) and stores {stored} bytes: it was "
                f"never written, or is not what it claims. Write it again."
            )
        size = os.path.getsize(self.path)
        if dataset.chunks is None and stored > size:
            raise FormatError(f"{where} takes {stored} bytes, its file has {size}: truncated. Fetch the file again.")
        if dataset.chunks is not None and math.prod(dataset.chunks) * dataset.dtype.itemsize > MAX_CHUNK:
            raise FormatError(
                f"{where} has chunks of {dataset.chunks} entries, more than 1 GiB each, and a reader must hold a whole "
                f"one. Write it with smaller chunks:  h5repack -l {name}:CHUNK=..."
            )
        return array

    def place(self, name: str) -> FileArray:
        """Return where an array of numbers lies.

        Raises:
            FormatError: there is none, it must not be read, or it holds no numbers.
        """
        if name not in self._places:
            array = self.array(name)
            # Strings and compounds are no FileArray, and no field, coordinate or parameter either.
            if array.dtype.kind not in "fiub":
                raise FormatError(f"{self.label}: '{name}' holds {array.dtype}, expected numbers.")
            with readable(self.label):
                self._places[name] = FileArray(self.path, name, _opened(self.path))
        return self._places[name]

    def described(self) -> Description | None:
        """Return what the file says of itself as a netCDF-4 file of the simple kind, None: it is of another."""
        with readable(self.label):
            return describe(_opened(self.path))

    def read(self, name: str, selection: Sequence[slice | int] = ()) -> np.ndarray:  # noqa: D102
        self.array(name)
        return self.masked(name, selection, self.fills(name), self.fill_is_value)

    def masked(
        self, name: str, selection: Sequence[slice | int], fills: Sequence[float], fill_is_value: bool
    ) -> np.ndarray:
        """Read an array, or a piece of it, with NaN where nothing was written.

        Args:
            name: the array.
            selection: of its first axes.
            fills: numbers that stand for nothing, besides those of netCDF.
            fill_is_value: what was never written holds the fill value of the file.
        """
        place, array = self.place(name), self.array(name)
        check_memory(selected_size(array, selection) * array.dtype.itemsize, f"{self.label}: reading '{name}'")
        with readable(f"{self.label}: '{name}'"):
            values = without_fills(place[tuple(selection)], fills)
        holes = None if fill_is_value else self.holes(name)
        if holes is None:
            return values
        mask = holes.mask(selection, array.shape)
        return np.where(mask, np.nan, values).astype(values.dtype if values.dtype.kind == "f" else np.float64)

    def holes(self, name: str) -> Holes | None:
        """Return which chunks of an array were never written; None: all were."""
        if name not in self._holes:
            with readable(f"{self.label}: '{name}'"):
                node = self._walk(name)
                self._holes[name] = hdf5_holes(node) if isinstance(node, h5py.Dataset) else None
        return self._holes[name]

    def fills(self, name: str) -> tuple[float, ...]:
        """Return the numbers that the file says stand for nothing in an array."""
        if name not in self._fills:
            with readable(f"{self.label}: '{name}'"):
                node = self._walk(name)
                self._fills[name] = stated_fills(node) if isinstance(node, h5py.Dataset) else ()
        return self._fills[name]

    def unwritten(self, name: str) -> str:  # noqa: D102
        found = None if self.fill_is_value else self.holes(name)
        if found is None:
            return ""
        return f"'{name}': {found}; say  unwritten: fill  in the mapping if they are to be read as the fill value"

    def mapped(self, name: str) -> bool:
        """Whether an array lies in one plain run in the file and is read through a mapping of it."""
        return self.place(name).mapped

    def attributes(self, of: str = "") -> Mapping[str, Any]:  # noqa: D102
        with readable(f"{self.label}: attributes of '{of or '/'}'"):
            node = self._walk(of)
            if node is None:
                return {}
            found = {}
            for name in node.attrs:
                # Not get_storage_size: it fails for the empty lists that The Well's files hold.
                identifier = node.attrs.get_id(name)
                if math.prod(identifier.shape or ()) * identifier.dtype.itemsize <= MAX_ATTRIBUTE:
                    found[name] = _plain(node.attrs[name])
            return found


def selected_size(array: Array, selection: Sequence[slice | int]) -> int:
    """Return how many entries a selection of an array has."""
    size = 1
    for axis, length in enumerate(array.shape):
        cut = selection[axis] if axis < len(selection) else slice(None)
        size *= len(range(*cut.indices(length))) if isinstance(cut, slice) else 1
    return size


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, np.ndarray):
        return [_plain(v) for v in value.tolist()] if value.ndim == 1 else value.tolist()
    return value.item() if isinstance(value, np.generic) else value

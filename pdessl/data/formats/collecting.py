"""Which files a path stands for."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from pdessl.errors import FormatError

__all__ = ["HDF5_SUFFIXES", "LABELLED_SUFFIXES", "collect", "label_of"]

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5")
LABELLED_SUFFIXES = (".nc", ".nc4", ".cdf", ".netcdf", ".zarr")
MAX_DEPTH = 6


def collect(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], patterns: Sequence[str] = ()
) -> list[Path]:
    """Return the data files of a path, sorted.

    Args:
        path: a file, a folder (searched with its subfolders), or a list of files.
        patterns: names of files to take, with ``*``; default all with a suffix of HDF5, netCDF or Zarr.

    Raises:
        FormatError: nothing there, or a symbolic link that leads out of the folder.
    """
    if not isinstance(path, (str, os.PathLike)):
        if not len(path):
            raise FormatError("an empty list of files. Give a file, a folder, or at least one file in the list.")
        return [file for entry in path for file in collect(entry, patterns)]
    root = Path(path)
    if not root.exists():
        raise FormatError(f"no file or folder {root}. Check the path.")
    if not root.is_dir() or root.suffix == ".zarr":
        return [root]
    wanted = patterns or [f"*{suffix}" for suffix in (*HDF5_SUFFIXES, *LABELLED_SUFFIXES)]
    found = sorted(_search(root, root.resolve(), wanted, 0))
    if not found:
        raise FormatError(
            f"{root} holds no data files ({', '.join(wanted)}). Give the folder the files lie in, or name them in the "
            f"mapping:  files: ['*.h5']"
        )
    return found


def label_of(paths: Sequence[str | os.PathLike[str]]) -> str:
    """Return what messages call some files."""
    first = os.fspath(paths[0]) if len(paths) else "nothing"
    return f"{first} and {len(paths) - 1} more" if len(paths) > 1 else first


def _search(folder: Path, root: Path, wanted: Sequence[str], depth: int) -> Iterable[Path]:
    with os.scandir(folder) as entries:
        listed = list(entries)
    for entry in listed:
        if entry.name.startswith("."):
            continue
        path = Path(entry.path)
        match = any(fnmatch.fnmatch(entry.name, pattern) for pattern in wanted)
        descend = entry.is_dir() and path.suffix != ".zarr"
        if entry.is_symlink() and (match or descend) and not path.resolve().is_relative_to(root):
            raise FormatError(
                f"{path} is a symbolic link out of the folder, to {path.resolve()}. Such links are not followed: give "
                f"the path it leads to."
            )
        if descend and depth < MAX_DEPTH and not entry.is_symlink():
            yield from _search(path, root, wanted, depth + 1)
        elif match and not descend:
            yield path

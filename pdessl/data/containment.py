"""Whether all that an HDF5 file shows lies in that file: whoever wrote it must not choose what else is read."""

from __future__ import annotations

import re

import h5py

from pdessl.errors import FormatError

__all__ = ["check_contained", "check_inside"]

COPY_ARRAY = (
    "If you trust who wrote it, copy the values into a file of its own:  "
    "python -c \"import h5py; h5py.File('NEW', 'a')['{name}'] = h5py.File('OLD')['{name}'][()]\""
)
# h5repack would keep pointing elsewhere; a netCDF file must keep its dimensions.
COPY_FILE = (
    "If you trust who wrote it, copy the data into one file:  python -c \"import xarray; xarray.load_dataset('OLD', "
    "engine='h5netcdf', decode_times=False, decode_timedelta=False).to_netcdf('NEW', engine='h5netcdf')\""
)
MAX_OBJECTS = 100_000
"""Groups and arrays that are looked through; a netCDF file has some tens."""


def check_inside(dataset: h5py.Dataset, where: str, repair: str = "") -> None:
    """Refuse an array whose values lie in other files: external storage (any file there is) or a virtual dataset.

    Args:
        dataset: the array.
        where: what messages call it.
        repair: what to do, a sentence; by default how to copy the values into the file.

    Raises:
        FormatError: the values lie elsewhere.
    """
    if dataset.external or dataset.is_virtual:
        # A name of the file's choosing must not end up in a command that is typed.
        name = dataset.name if re.fullmatch(r"[\w/.-]+", dataset.name or "", re.ASCII) else "NAME"
        raise FormatError(
            f"{where} keeps its values in other files; these are not followed. {repair or COPY_ARRAY.format(name=name)}"
        )


def check_contained(file: h5py.File, label: str, soft_links: bool = True, repair: str = "") -> None:
    """Refuse a file in which a name, at any depth, leads out of it.

    For readers that follow links on their own (h5netcdf, h5py by name).

    Args:
        file: the open file.
        label: what messages call it.
        soft_links: whether links inside the file are accepted; they reach nothing that hard links do not reach.
        repair: what to do, a sentence; by default how to copy the data into one file.

    Raises:
        FormatError: an external or user-defined link, a soft link where none is accepted, an array whose values lie in
            other files, or more objects than can be looked through.
    """
    levels: list[tuple[str, h5py.Group]] = [("", file)]
    seen, count = {h5py.h5o.get_info(file.id).addr}, 0
    while levels:
        prefix, group = levels.pop()
        for name in group:
            count += 1
            if count > MAX_OBJECTS:
                raise FormatError(
                    f"{label} holds more than {MAX_OBJECTS} groups and arrays, too many to look through. "
                    f"{repair or 'Copy what is needed into a file of its own with h5copy.'}"
                )
            place = f"{prefix}{name}"
            try:
                link = group.get(name, getlink=True)
            except TypeError:
                link = None  # a link of a kind that a plug-in defines
            if isinstance(link, h5py.SoftLink):
                if soft_links:
                    continue
                raise FormatError(f"{label}: '{place}' is a soft link; none is expected. {repair}".rstrip())
            if not isinstance(link, h5py.HardLink):
                raise FormatError(
                    f"{label}: '{place}' is an external link; links to other files are not followed. "
                    f"{repair or COPY_FILE}"
                )
            try:
                node = group[name]
            except (OSError, RuntimeError, KeyError):
                continue  # damaged; reading it says so
            if isinstance(node, h5py.Dataset):
                check_inside(node, f"{label}: array '{place}'", repair or COPY_FILE)
            elif isinstance(node, h5py.Group) and (address := h5py.h5o.get_info(node.id).addr) not in seen:
                seen.add(address)
                levels.append((f"{place}/", node))

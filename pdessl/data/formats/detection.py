"""Which layout a path is in, and opening it."""

from __future__ import annotations

import copy
import fnmatch
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdessl import catalog
from pdessl.data.formats.collecting import LABELLED_SUFFIXES, collect, label_of
from pdessl.data.formats.container import Container
from pdessl.data.formats.files import Files, container_of, split_of
from pdessl.data.formats.hdf5 import HDF5File
from pdessl.data.formats.in_memory import is_dataset, source_from_xarray
from pdessl.data.formats.isolation import LIMIT, cheap, isolated
from pdessl.data.formats.mapping import SPLIT_WORDS, DatasetMapping, load_mapping, mapping_names
from pdessl.data.source import Source
from pdessl.errors import FormatError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["apart", "described_apart", "detect", "open_apart", "open_source", "recognise", "recognised"]

_KEPT = 4  # datasets that were opened last
_opened: dict[tuple[Any, ...], Source] = {}
PROBED = 32  # arrays of which the first and the last value are read when files are opened apart


def open_apart(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | xr.Dataset,
    mapping: str | os.PathLike[str] | Mapping[str, Any] | DatasetMapping | None = None,
) -> Source:
    """Open data as :func:`open_source` does, their HDF5 files in a process of its own, which then ends.

    The HDF5 library crashes on some damaged files, or never returns; that process is bounded in time and memory, and
    its end is an error like others. It goes through the structure of the files and the first and last value of the
    arrays HDF5 has to unpack, and hands over what :func:`open_source` returned. Afterwards this process reads arrays
    that are stored plainly without the HDF5 library; compressed ones with it.

    Where no process can be started at once (elsewhere than on Linux, in workers of a loader) files are opened here.

    Raises:
        FormatError: the files are damaged in a way the library does not survive, or see :func:`open_source`.
    """
    zarr = isinstance(path, (str, os.PathLike)) and Path(path).suffix == ".zarr"
    if is_dataset(path) or zarr or not cheap():
        return open_source(path, mapping)
    if mapping is not None:
        mapping = load_mapping(mapping)
    key = _state(path, mapping)
    if key not in _opened:
        _keep(key, apart(_opened_and_probed, path, mapping))
    return copy.copy(_opened[key])


def described_apart(
    describe: Callable[[Source], Any],
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    mapping: str | os.PathLike[str] | Mapping[str, Any] | DatasetMapping | None = None,
) -> Any:
    """Return what a function, importable by name, says of data, in the process that opens them as :func:`open_apart`.

    Files are opened once for both; who opens them next finds them open.

    Raises:
        FormatError: see :func:`open_apart`.
    """
    zarr = isinstance(path, (str, os.PathLike)) and Path(path).suffix == ".zarr"
    if mapping is not None:
        mapping = load_mapping(mapping)
    if zarr or (key := _state(path, mapping)) in _opened:
        source = open_apart(path, mapping)
        return isolated(describe, source, label=source.name, limit=LIMIT + 4 * getattr(source, "files", 1))
    source, found = apart(functools.partial(_opened_and_described, describe), path, mapping)
    _keep(key, source)
    return found


def _keep(key: tuple[Any, ...], source: Source) -> None:
    while len(_opened) >= _KEPT:
        _opened.pop(next(iter(_opened)))
    _opened[key] = source


def _state(path: Any, mapping: DatasetMapping | None) -> tuple[Any, ...]:
    """Return what tells whether the same files, unchanged, are opened again in the same way: verbs do so often."""
    files = collect(path, mapping.get("files", ()) if mapping is not None else ())
    states = [(str(f), s.st_mtime_ns, s.st_size) for f in files for s in (f.stat(),)]
    # What was named, too: messages and splits by folders depend on it.
    return repr(path), os.getcwd(), None if mapping is None else repr(mapping), tuple(states)


def apart(
    function: Callable[[Any, Any], Any],
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    mapping: str | os.PathLike[str] | Mapping[str, Any] | DatasetMapping | None,
) -> Any:
    """Call ``function(path, mapping)`` in a process of its own, which has some seconds more for every file.

    Raises:
        FormatError: see :func:`pdessl.data.formats.isolation.isolated`.
    """
    # What is no data file is read here: it is kept for the next time, and cannot crash.
    if mapping is not None:
        mapping = load_mapping(mapping)
    single = isinstance(path, (str, os.PathLike))
    files = collect(path, mapping.get("files", ()) if mapping is not None else ())
    if mapping is None and files[0].suffix.lower() not in LABELLED_SUFFIXES:
        _known()
    label = label_of([path] if single else files)
    return isolated(function, path, mapping, label=label, limit=LIMIT + 4 * len(files))


def _opened_and_described(describe: Callable[[Source], Any], path: Any, mapping: DatasetMapping | None) -> Any:
    source = _opened_and_probed(path, mapping)
    return source, describe(source)


def _opened_and_probed(path: Any, mapping: DatasetMapping | None) -> Source:
    source = open_source(path, mapping)
    if isinstance(source, Files):
        source.probe(PROBED)
    return source


def open_source(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | xr.Dataset,
    mapping: str | os.PathLike[str] | Mapping[str, Any] | DatasetMapping | None = None,
) -> Source:
    """Open data in an external layout: PDEArena, LPSDA, PDEBench, The Well, mae-pdes, or files of one's own.

    Args:
        path: a file, a folder (searched with its subfolders), a list of files, or a dataset in memory.
        mapping: how to read it: a name of ``pdessl list datasets``, a YAML file, or its content; see
            :func:`pdessl.data.formats.load_mapping`. Default: recognised by what the first file holds.

    Raises:
        CatalogError: no mapping of that name.
        SchemaError: the mapping does not follow its format.
        FormatError: nothing there, a damaged file, or a layout that is not known; the message says what the file holds
            and how to map it.
        DataError: coordinates are missing or irregular.
    """
    if is_dataset(path):
        return source_from_xarray(path, {"format": "xarray", "layout": "labelled"} if mapping is None else mapping)
    if mapping is not None:
        return Files(path, load_mapping(mapping))
    return Files(path, recognised(path))


def recognised(path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> DatasetMapping:
    """Return the mapping of the layout that the first file of a path is in.

    Raises:
        FormatError: nothing there, or a layout that is not known; the message says what the file holds.
    """
    file = collect(path)[0]
    container = container_of(file)
    found = recognise(container)
    if found is None:
        links = container.links_out() if isinstance(container, HDF5File) else []
        beyond = f"'{links[0]}' is a link to another file; such links are not followed. " if links else ""
        raise FormatError(
            f"{file}: its layout is not one of those known. {container.held()} {beyond}Describe it in a mapping file "
            f"and give that:  pdessl inspect PATH --mapping my.yaml  ('pdessl list datasets' has those known)."
        )
    return found


def detect(path: str | os.PathLike[str]) -> Source | None:
    """Open data whose layout is recognised; None where nothing of the kind is there.

    Raises:
        FormatError, DataError: the layout is known and the files are damaged.
    """
    try:
        file = collect(path)[0]
    except FormatError:
        return None
    found = recognise(container_of(file))
    return None if found is None else Files(path, found)


def recognise(container: Container) -> DatasetMapping | None:
    """Return the mapping whose requirements a file meets, the one with most of them; None if there is none."""
    if container.path is None or container.path.suffix.lower() in LABELLED_SUFFIXES:
        return DatasetMapping("labelled", {"format": _labelled_format(container), "layout": "labelled"})
    best: tuple[int, DatasetMapping] | None = None
    for mapping in _known().values():
        score = _score(container, mapping)
        if score and (best is None or score > best[0]):
            best = score, mapping
    if best is not None:
        return best[1]
    if "_NCProperties" in container.attributes():
        return DatasetMapping("labelled", {"format": "netcdf", "layout": "labelled"})
    return None


def _labelled_format(container: Container) -> str:
    if container.path is None:
        return "xarray"
    return "zarr" if container.path.is_dir() else "netcdf"


def _known() -> dict[str, DatasetMapping]:
    """Return the mappings of the catalog, read anew only when a file of it has changed."""
    folders = catalog.folders("datasets")
    return _read(tuple((str(p), p.stat().st_mtime_ns) for f in folders for p in sorted(f.rglob("*.yaml"))))


@functools.lru_cache(maxsize=2)
def _read(files: tuple[tuple[str, int], ...]) -> dict[str, DatasetMapping]:
    return {name: load_mapping(catalog.find("datasets", name)) for name in mapping_names()}


def _score(container: Container, mapping: DatasetMapping) -> int:
    """Return how many requirements a file meets, 0 if it fails one.

    ``requires`` may hold ``arrays`` (all there, with ``*``), ``without`` (none there), ``attributes`` (all there; those
    of a group as ``group:name``), and ``names`` (one of these patterns fits the file's name).
    """
    requires = mapping.get("requires", {})
    prefix = _prefix(container, mapping)
    if prefix is None or not requires:
        return 0
    names = [n.removeprefix(prefix) for n in container.arrays() if n.startswith(prefix)]
    score = 1 + (prefix != "")
    for pattern in requires.get("arrays", ()):
        if not any(fnmatch.fnmatchcase(n, pattern) for n in names):
            return 0
        score += 1
    if any(fnmatch.fnmatchcase(n, pattern) for pattern in requires.get("without", ()) for n in names):
        return 0
    for entry in requires.get("attributes", ()):
        of, _, name = entry.rpartition(":")
        if name not in container.attributes(of):
            return 0
        score += 1
    for array, dimensions in requires.get("rank", {}).items():
        if prefix + array not in container.arrays() or len(container.arrays()[prefix + array].shape) != dimensions:
            return 0
        score += 1
    if "names" in requires:
        file = container.path.name if container.path else ""
        if not any(fnmatch.fnmatchcase(file.lower(), p.lower()) for p in requires["names"]):
            return 0
        score += 2
    return score


def _prefix(container: Container, mapping: DatasetMapping) -> str | None:
    """Return the prefix of the arrays of the first group a mapping speaks of; None: the file has no such group."""
    group = mapping.get("group", "")
    if "{" not in group:
        return f"{group}/" if group else ""
    groups = container.groups() if isinstance(container, HDF5File) else []
    if group == "{split}":
        groups = [g for g in groups if split_of([g], mapping.get("splits") or SPLIT_WORDS)]
    return f"{groups[0]}/" if groups else None

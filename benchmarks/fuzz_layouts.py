"""Files of other programs, altered as data or as bytes, for ``fuzz.py``: HDF5, netCDF-3, netCDF-4 and Zarr.

The good ones are those of the tests of the readers (``tests/data/layouts.py``): PDEArena's smoke, LPSDA, PDEBench,
mae-pdes, The Well, and plain datasets of xarray. Each altered one is opened, read whole and inspected in a process of
its own, so that a crash of a library counts as a failure and ends nothing else.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import select
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

import pdessl

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "data"))
import layouts

__all__ = ["LayoutKind", "foreign", "in_a_process"]

ATTRIBUTES: list[Any] = [
    "x", "", "\x1b[2J", "days since 1-1-1", "parsec", "seconds since 9999999-99-99", float("nan"), float("inf"), -1, 0,
    10**18, np.zeros(0), np.zeros((2, 2)), np.array(["a", "é"], dtype=h5py.string_dtype()), h5py.Empty("f4"), b"\xff",
    np.arange(5000.0), True, [], 1e-320,
]  # fmt: skip
NAMES = [
    "units", "_FillValue", "missing_value", "scale_factor", "add_offset", "calendar", "CLASS", "NAME", "DIMENSION_LIST",
    "_Netcdf4Dimid", "_Netcdf4Coordinates", "REFERENCE_LIST", "coordinates", "field_names", "sample_varying",
    "time_varying", "dim_varying", "spatial_dims", "n_spatial_dims", "bc_type", "associated_dims", "grid_type",
    "simulation_parameters", "config", "valid_range", "dtype", "_Unsigned", "é",
]  # fmt: skip
LARGEST = 1 << 20  # numbers of an array that is altered once more
NUMBERS = [np.nan, np.inf, -np.inf, 0.0, -1.0, 1e308, 5e-324, 1e30]


def in_a_process(read: Callable[[], tuple[str, str]], seconds: float) -> tuple[str, str]:
    """Return what a forked process that calls ``read`` answers; LATE or CRASH where it does not."""
    receive, send = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.write(send, pickle.dumps(read())[:60_000])
        finally:
            os._exit(0)
    os.close(send)
    try:
        if not select.select([receive], [], [], seconds)[0]:
            os.kill(process, signal.SIGKILL)
            return "LATE", f"longer than {seconds} s"
        with os.fdopen(os.dup(receive), "rb") as pipe:
            told = pipe.read()
        return pickle.loads(told) if told else ("CRASH", "the process ended without an answer")  # noqa: S301 - ours
    finally:
        os.close(receive)
        os.waitpid(process, 0)


def read_layout(path: Path) -> None:
    """Open, read every split whole, and inspect."""
    source = pdessl.open(path)
    for split in source.splits:
        source.load(split)
        source.groups(split)
        source.parameter_values(split)
    str(pdessl.inspect(path))


class LayoutKind:
    """A layout: a good file or Zarr store, which is altered in a copy and read."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = f"layout {name}", path
        self.good = path.with_name(f"good_{path.name}")
        path.rename(self.good)
        self.folder, self.read = path, read_layout

    def put(self, draw: random.Random) -> None:
        """Write an altered copy in the place of the file."""
        self.clean()
        if self.good.is_dir():
            shutil.copytree(self.good, self.path)
            _alter_folder(self.path, draw)
            return
        content = self.good.read_bytes()
        if draw.random() < 0.5 or content.startswith(b"CDF"):
            self.path.write_bytes(_damaged(content, draw))
            return
        self.path.write_bytes(content)
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            with h5py.File(self.path, "r+") as file, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _alter(file, draw)

    def clean(self) -> None:
        """Remove the altered copy."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.unlink(missing_ok=True)


def _damaged(content: bytes, draw: random.Random) -> bytes:
    """Return bytes with some changed; the first thousands hold most of what describes a file."""
    if draw.random() < 0.2:
        return content[: draw.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        place = draw.randrange(len(content) if draw.random() < 0.5 else min(4096, len(content)))
        if draw.random() < 0.5:
            changed[place] ^= 1 << draw.randrange(8)
        else:
            piece = draw.choice((b"\xff" * 8, b"\x00" * 8, b"\x7f", draw.randbytes(4)))
            changed[place : place + len(piece)] = piece
    return bytes(changed[: len(content)])


def _alter_folder(folder: Path, draw: random.Random) -> None:
    """Alter one or two files of a Zarr store: descriptions as data or as bytes, pieces as bytes."""
    from fuzz import altered

    for _ in range(draw.choice((1, 1, 2))):
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        described = [p for p in files if p.suffix == ".json" or p.name.startswith(".z")]
        if not described:
            return
        file = draw.choice(described if draw.random() < 0.7 else files)
        kind = draw.random()
        if kind < 0.1:
            file.unlink()
        elif kind < 0.5 and file in described:
            try:
                content = json.loads(file.read_text())
            except ValueError:
                continue
            file.write_bytes(json.dumps(altered(content, draw)).encode(errors="surrogatepass"))
        else:
            file.write_bytes(_damaged(file.read_bytes() or b"\x00", draw))


def _alter(file: h5py.File, draw: random.Random) -> None:
    """Alter one place of an HDF5 file; what the library itself refuses to do stays undone."""
    names: list[str] = []
    file.visit(names.append)
    if not names:
        return
    name = draw.choice(sorted(names))
    node, kind = file[name], draw.random()
    try:
        if kind < 0.15:
            del file[name]
        elif kind < 0.2:
            file.move(name, draw.choice(("u", "x", "tensor", "train/u", "é", "t0_fields/a", "a" * 300)))
        elif kind < 0.45:
            _attribute(file if draw.random() < 0.1 else node, draw)
        elif kind < 0.55:
            _lead_elsewhere(file, name, draw)
        elif isinstance(node, h5py.Dataset):
            (_values if kind < 0.75 else _replaced)(file, name, draw)
    except (OSError, TypeError, ValueError, RuntimeError, KeyError, NotImplementedError, MemoryError):
        return


def _attribute(node: Any, draw: random.Random) -> None:
    held = list(node.attrs)
    name = draw.choice(held) if held and draw.random() < 0.6 else draw.choice(NAMES)
    if name in held and draw.random() < 0.2:
        del node.attrs[name]
    else:
        node.attrs[name] = draw.choice(ATTRIBUTES)


def _lead_elsewhere(file: h5py.File, name: str, draw: random.Random) -> None:
    del file[name]
    kind = draw.randrange(5)
    if kind == 0:
        file[name] = h5py.ExternalLink(draw.choice(("other.h5", "/etc/passwd", "")), "/u")
    elif kind == 1:
        file[name] = h5py.SoftLink(draw.choice(("/", f"/{name}", "/nowhere")))
    elif kind == 2:
        file.create_dataset(name, (4, 4), "u1", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])
    elif kind == 3:
        virtual = h5py.VirtualLayout((2, 3), "f8")
        virtual[...] = h5py.VirtualSource(draw.choice(("/etc/passwd", ".", "other.h5")), "u", (2, 3))
        file.create_virtual_dataset(name, virtual)
    else:
        file[name] = file["/"]  # a group that holds itself


def _values(file: h5py.File, name: str, draw: random.Random) -> None:
    dataset = file[name]
    if dataset.size is None or dataset.size > LARGEST:
        return
    values = np.array(dataset[()])
    flat = values.reshape(-1)
    if not flat.size or values.dtype.kind not in "fiu":
        return
    kind = draw.randrange(4)
    with np.errstate(all="ignore"):
        if kind == 0:
            flat[:] = np.asarray(draw.choice(NUMBERS)).astype(values.dtype)
        elif kind == 1:
            flat[draw.randrange(flat.size)] = np.asarray(draw.choice(NUMBERS)).astype(values.dtype)
        elif kind == 2:
            flat[:] = flat[::-1].copy()
        else:
            flat[:] = (flat * draw.choice((1e300, -1, 1e-300))).astype(values.dtype)
    dataset[...] = values


def _replaced(file: h5py.File, name: str, draw: random.Random) -> None:
    """Put an array of another shape or kind in the place of one, with its attributes or without."""
    if file[name].size is None or file[name].size > LARGEST:
        return
    values, attributes = np.array(file[name][()]), dict(file[name].attrs)
    shape: Sequence[int] = values.shape
    del file[name]
    made: dict[str, Any] = draw.choice((
        {"data": values.T}, {"data": values[None]}, {"data": np.atleast_1d(values)[..., :1]},
        {"data": values.reshape(-1)},
        {"data": values[:0] if values.ndim else 0}, {"data": h5py.Empty("f8")}, {"data": 1.0}, {"data": "text"},
        {"data": np.zeros(shape, "c16")}, {"data": np.zeros(shape, "i1")}, {"data": np.zeros(shape, "?")},
        {"data": np.zeros(shape, "f2")}, {"data": np.zeros(shape, ">f8")}, {"data": np.zeros(shape, "f4,i2")},
        {"data": np.full(shape, "x", dtype=object), "dtype": h5py.string_dtype()},
        {"shape": (1 << 20, 1 << 20, 1 << 10), "dtype": "f4", "chunks": (1, 1, 1024)},
        {"shape": (4096, 1 << 20), "dtype": "f8", "chunks": (4096, 1 << 15)}, {"shape": (1,) * 20, "dtype": "f4"},
        {"shape": shape or (1,), "dtype": h5py.vlen_dtype(np.float64)},
        {"shape": shape or (1,), "dtype": h5py.ref_dtype},
        {"data": values, **({"compression": "gzip", "chunks": True} if values.ndim and values.size else {})},
        {"shape": shape or (1,), "dtype": "f8", "fillvalue": np.nan, **({"chunks": True} if values.size else {})},
    ))  # fmt: skip
    dataset = file.create_dataset(name, **made)
    if draw.random() < 0.7:
        for key, value in attributes.items():
            dataset.attrs[key] = value


def _labelled(runs: int = 5, frames: int = 6, points: int = 16) -> xr.Dataset:
    """Return a small dataset such as one writes with xarray: two fields, coordinates, a parameter."""
    shape = ("trajectory", "time", "x")
    return xr.Dataset(
        {"u": (shape, layouts.numbers(runs, frames, points), {"units": "m/s"}),
         "h": (shape, layouts.numbers(runs, frames, points), {"units": "m"}),
         "viscosity": ("trajectory", np.linspace(0.1, 0.5, runs), {"units": "m2/s"})},
        {"time": ("time", np.arange(frames) * 0.1, {"units": "s"}),
         "x": ("x", np.arange(points) / points, {"units": "m", "boundary": "periodic"})},
    )  # fmt: skip


def foreign(folder: Path) -> list[LayoutKind]:
    """Make a good file of every layout."""

    def attributes(**values: float) -> dict[str, float]:
        return values

    folder.mkdir()
    layouts.pdearena_smoke(folder / "NavierStokes2D_train_1_0.39216_3.h5", "train", 0.39216)
    layouts.lpsda(folder / "KS_train_4.h5", "train", viscosity=True)
    layouts.pdebench_1d(folder / "1D_Burgers_Sols_Nu0.01.hdf5", attributes())
    layouts.pdebench_compressible(folder / "2D_CFD_Rand_M0.1_Eta0.01_Zeta0.01_periodic_Train.hdf5", 2, attributes())
    layouts.pdebench_incompressible(folder / "ns_incom_inhom_2d_512-0.h5")
    layouts.pdebench_seeds(folder / "2D_rdb_NA_NA.h5", components=1, entry="dam_radius")
    layouts.mae_1d(folder / "heat_train.h5", "train", alpha=0.1)
    layouts.the_well(folder / "toy.hdf5")
    runs = _labelled()
    runs.to_netcdf(folder / "runs.nc", engine="h5netcdf")
    packed = {"u": {"dtype": "i2", "scale_factor": 1e-3, "_FillValue": -32768, "zlib": True}}
    runs.to_netcdf(folder / "packed.nc4", engine="h5netcdf", encoding=packed)
    runs.to_netcdf(folder / "classic.cdf", engine="scipy", format="NETCDF3_CLASSIC")
    held = {
        "pdearena_smoke": "NavierStokes2D_train_1_0.39216_3.h5", "lpsda": "KS_train_4.h5",
        "pdebench_1d": "1D_Burgers_Sols_Nu0.01.hdf5",
        "pdebench_compressible": "2D_CFD_Rand_M0.1_Eta0.01_Zeta0.01_periodic_Train.hdf5",
        "pdebench_incompressible": "ns_incom_inhom_2d_512-0.h5", "pdebench_seeds": "2D_rdb_NA_NA.h5",
        "mae_pdes": "heat_train.h5", "the_well": "toy.hdf5", "netcdf4": "runs.nc", "netcdf4 packed": "packed.nc4",
        "netcdf3": "classic.cdf",
    }  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            runs.to_zarr(folder / "two.zarr", zarr_format=2)
            runs.to_zarr(folder / "three.zarr", zarr_format=3, consolidated=False)
        held |= {"zarr 2": "two.zarr", "zarr 3": "three.zarr"}
    except ImportError:
        pass  # the package zarr is an extra
    return [LayoutKind(name, folder / file) for name, file in held.items()]

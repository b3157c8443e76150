"""Files that are described with h5py alone: all that xarray would say of them, and nothing that only it can say."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
import xarray as xr

from pdessl.data.formats.hdf5 import HDF5File
from pdessl.data.formats.labelled import LabelledFile

T, X = 4, 6
U = np.arange(T * X, dtype=np.float32).reshape(T, X)


def run(**variables):
    data = xr.Dataset({"u": (("time", "x"), U, {"units": "m/s"})}, {"time": 0.1 * np.arange(T), "x": np.arange(X) / X})
    return data.assign(variables)


def written(path, data=None, **how):
    (run() if data is None else data).to_netcdf(path, engine="h5netcdf", **how)
    return path


def with_h5py(change):
    def write(path):
        written(path)
        with h5py.File(path, "a") as file:
            change(file)
        return path

    return write


def appended(path):
    """A netCDF file with a dimension that grew, all arrays with it."""
    written(path, unlimited_dims=["time"])
    with h5py.File(path, "a") as file:
        for name in ("u", "time"):
            file[name].resize(T + 1, axis=0)
            file[name][T] = 9.0
    return path


def grown(path):
    """A netCDF file with a dimension that grew, and one array that did not follow."""
    written(path, unlimited_dims=["time"])
    with h5py.File(path, "a") as file:
        file["time"].resize(T + 2, axis=0)
    return path


def attributes(file):
    file["u"].attrs["words"] = ["a", "b"]
    file["u"].attrs["fixed"] = np.bytes_("fixed")
    file["u"].attrs["range"] = np.array([1, 2], dtype=np.int16)
    file.attrs["one"] = np.array([0.25])
    file.attrs["coordinates"] = "x"


def empty_chunks(file):
    new = file.create_dataset("v", (T, X), "f4", chunks=(1, X), fillvalue=0.0)
    new[:2] = 1.0
    for axis, name in enumerate(("time", "x")):
        new.dims[axis].attach_scale(file[name])


def never_written(file):
    """Integers of which nothing was written, and numbers without axes, kept in the header and not written."""
    new = file.create_dataset("k", (T, X), "i4", chunks=(1, X))
    for axis, name in enumerate(("time", "x")):
        new.dims[axis].attach_scale(file[name])
    file.create_dataset("b", (), "f4")
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.COMPACT)
    h5py.h5d.create(file.id, b"nu", h5py.h5t.NATIVE_DOUBLE, h5py.h5s.create(h5py.h5s.SCALAR), layout)
    file["nu"][...] = 0.5


def rounded_fill(file):
    """What h5py writes of a number of Python, into an array of less digits."""
    file["u"].attrs["_FillValue"] = -999.9
    file["u"][1, 2:4] = -999.9


SIMPLE = {
    "plain": written,
    "scalars": lambda p: written(p, run(nu=((), 0.1), steps=((), 3)).assign_attrs(viscosity=0.5, solver="a b")),
    "packed with zlib": lambda p: written(p, encoding={"u": {"zlib": True, "shuffle": True}}),
    "nothing written": lambda p: written(
        p, run(u=(("time", "x"), np.where(U > 20, np.float32(9.96921e36), U))), encoding={"u": {"_FillValue": None}}
    ),
    "fill value": lambda p: written(p, encoding={"u": {"_FillValue": np.float32(7.0)}}),
    "integers": lambda p: written(p, run(k=(("x",), np.array([1, 2, -2147483647, 4, 5, 6], dtype=np.int32)))),
    "big-endian": lambda p: written(p, run(u=(("time", "x"), U.astype(">f4")))),
    "coordinate beside": lambda p: written(p, run().assign_coords(lon=(("x",), np.arange(X) * 2.0), height=2.0)),
    "dimension alone": lambda p: written(p, run(w=(("time", "level"), U[:, :3]))),
    "appended": appended,
    "attributes": with_h5py(attributes),
    "empty chunks": with_h5py(empty_chunks),
    "never written": with_h5py(never_written),
    "fill value of more digits": with_h5py(rounded_fill),
}  # fmt: skip


def other_group(file):
    file.create_group("more")["a"] = np.arange(3.0)


def no_names(file):
    file["v"] = np.ones((T, X))


def two_scales(file):
    extra = file.create_dataset("x2", data=np.arange(float(X)))
    extra.make_scale("x2")
    file["u"].dims[1].attach_scale(extra)


UNUSUAL = {
    "packed": lambda p: written(p, encoding={"u": {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -1}}),
    "missing_value": lambda p: written(p, run(u=(("time", "x"), U, {"missing_value": np.float32(3.0)}))),
    "text": lambda p: written(p, run(name=(("x",), np.array(list("abcdef"), dtype=object)))),
    "truth values": lambda p: written(p, run(good=(("x",), np.arange(X) > 2))),
    "group": with_h5py(other_group),
    "no names": with_h5py(no_names),
    "two scales": with_h5py(two_scales),
    "one array behind": grown,
    "coordinates that are not there": with_h5py(lambda f: f["u"].attrs.update(coordinates="lon x")),
    "coordinates of the file that are not there": with_h5py(lambda f: f.attrs.update(coordinates="u nothing")),
    "fill value out of range": with_h5py(lambda f: f["u"].attrs.update(_FillValue=1e300)),
}


def both(path, monkeypatch):
    quick = LabelledFile(path)
    with monkeypatch.context() as patch:
        patch.setattr(HDF5File, "described", lambda self: None)
        slow = LabelledFile(path)
    return quick, slow


@pytest.mark.parametrize("kind", SIMPLE)
def test_what_is_read_with_h5py_is_what_xarray_reads(kind, tmp_path, monkeypatch):
    quick, slow = both(SIMPLE[kind](tmp_path / "run.nc"), monkeypatch)
    assert quick._plain is not None and slow._plain is None
    assert list(quick.arrays().items()) == list(slow.arrays().items())
    for name in ("", *quick.arrays()):
        assert repr(dict(quick.attributes(name))) == repr(dict(slow.attributes(name)))
    for name, array in quick.arrays().items():
        for cut in ((), (slice(1, 3),), (2,))[: 1 + 2 * bool(array.shape)]:
            a, b = quick.read(name, cut), slow.read(name, cut)
            assert a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True), (name, cut)


def test_what_stands_for_nothing_is_found_in_whatever_way_a_file_is_read(tmp_path, monkeypatch):
    for number, (change, name, missing) in enumerate([(never_written, "k", T * X), (rounded_fill, "u", 2)]):
        for read in both(with_h5py(change)(tmp_path / f"run{number}.nc"), monkeypatch):
            assert np.isnan(read.read(name)).sum() == missing, (change, read._plain)


@pytest.mark.parametrize("kind", UNUSUAL)
def test_what_takes_more_than_names_and_numbers_is_left_to_xarray(kind, tmp_path):
    found = LabelledFile(UNUSUAL[kind](tmp_path / "run.nc"))
    assert found._plain is None
    assert found.array("u").dimensions[0] == "time"


def test_converting_and_inspecting_small_files_loads_no_library_that_they_do_not_need(tmp_path):
    for number in range(3):
        written(tmp_path / f"run{number}.nc", run(u=(("time", "x"), U + number)).assign_attrs(viscosity=0.1 * number))
    code = (
        "import sys; from pdessl.cli import main\n"
        f"assert main(['convert', {str(tmp_path)!r}, '--out', {str(tmp_path / 'store')!r}]) == 0\n"
        f"assert main(['inspect', {str(tmp_path)!r}]) == 0\n"
        "heavy = {'xarray', 'pandas', 'dask', 'lightning', 'sympy', 'sklearn', 'matplotlib'}\n"
        "print('loaded', heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded set()"

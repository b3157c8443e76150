"""Summaries of stores, shards and files of the user's own."""

import numpy as np
import pytest
import xarray as xr

import pdessl.data
from pdessl.errors import DataError, FormatError


def test_a_store(small_store):
    found = pdessl.data.inspect(small_store.path)
    assert found["kind"] == "store" and found["equation"] == "burgers" and found.warnings == []
    assert found["splits"] == {"unlabelled": 48, "labelled": 16, "validation": 8, "test": 8}
    assert list(found["splits"]) == ["unlabelled", "labelled", "validation", "test"]
    fields = np.concatenate([small_store.load(s).fields.numpy() for s in small_store.splits]).astype(np.float64)
    summary = found["fields"]["u"]
    assert summary["minimum"] == fields.min() and summary["maximum"] == fields.max()
    np.testing.assert_allclose([summary["mean"], summary["rms"]], [fields.mean(), np.sqrt((fields**2).mean())])
    assert sum(found["solver_points"].values()) == 80 and found["spectral_tail"]["above_1e-3"] == 0
    text = str(found)
    for words in (
        "24 frames, t = 0 ... 2 time",
        "32 points, spacing 0.1963, periodic",
        "0.05 ... 0.2 length^2/time (log-uniform)",
    ):
        assert words in text
    assert "parameters not stored" in text and "resolved" in text and "0 draws were not finite" in text


def test_under_resolved_spectra_are_flagged(tmp_path):
    from pdessl.solvers import Burgers

    class Careless(Burgers):
        def points_needed(self, initial):
            return super().points_needed(initial) / 4

    import sys
    import types

    module = types.ModuleType("careless_simulators")
    module.Careless = Careless
    sys.modules["careless_simulators"] = module
    try:
        store = pdessl.data.generate(
            "burgers_small",
            tmp_path / "s",
            size={"unlabelled": 8, "labelled": 0, "validation": 0, "test": 0},
            overrides={"solver.simulator": "careless_simulators.Careless"},
            progress=False,
        )
        found = pdessl.data.inspect(store.path)
    finally:
        del sys.modules["careless_simulators"]
    assert found["spectral_tail"]["above_1e-3"] > 4
    assert "under-resolved" in found.warnings[0] and "under-resolved" in str(found)


def test_a_shard(small_store):
    found = pdessl.data.inspect(small_store.path / "test-00000.nc")
    assert found["kind"] == "file" and found["splits"] == {"file": 8} and found.warnings == []
    viscosity = small_store.load("test").parameters["viscosity"]
    assert found["parameters"]["viscosity"]["range"] == (float(viscosity.min()), float(viscosity.max()))


def test_a_file_of_ones_own(tmp_path):
    data = xr.Dataset(
        {"velocity": (("time", "y", "x"), np.ones((3, 4, 5)))},
        coords={"time": [0.0, 1.0, 2.0], "y": np.arange(4.0), "x": np.arange(5.0)},
    )
    data.to_netcdf(tmp_path / "run.nc", engine="h5netcdf")
    found = pdessl.data.inspect(tmp_path / "run.nc")
    assert [a["name"] for a in found["grid"]["axes"]] == ["y", "x"] and found["fields"]["velocity"]["mean"] == 1.0
    assert any("periodic" in w for w in found.warnings) and "not named in the file" in str(found)
    data.drop_vars("x").to_netcdf(tmp_path / "no_x.nc", engine="h5netcdf")
    with pytest.raises(DataError, match="coordinate 'x' is missing"):
        pdessl.data.inspect(tmp_path / "no_x.nc")


def test_what_is_no_data(tmp_path):
    with pytest.raises(FormatError, match="no file"):
        pdessl.data.inspect(tmp_path / "nothing.nc")
    (tmp_path / "text.nc").write_text("not HDF5")
    with pytest.raises(FormatError, match="not a netCDF-4/HDF5 file"):
        pdessl.data.inspect(tmp_path / "text.nc")
    with pytest.raises(FormatError, match=r"is not a store .*inspect one: .*text.nc"):
        pdessl.data.inspect(tmp_path)


def test_times_with_units_of_seconds_stay_numbers(tmp_path):
    data = xr.Dataset(
        {"u": (("trajectory", "time", "x"), np.ones((2, 3, 4)))},
        coords={"trajectory": [0, 1], "time": ("time", [0.0, 0.25, 0.5], {"units": "seconds"}), "x": np.arange(4.0)},
    )
    data.to_netcdf(tmp_path / "run.nc", engine="h5netcdf")
    assert pdessl.data.inspect(tmp_path / "run.nc")["grid"]["time"] == (0.0, 0.5)

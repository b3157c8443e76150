"""Summaries of stores, shards and files of the user's own."""

import json

import layouts
import numpy as np
import pytest
import xarray as xr

import pdessl.data
import pdessl.data.formats
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
    assert found["kind"] == "files" and dict(found["splits"]) == {"test": 8}
    viscosity = small_store.load("test").parameters["viscosity"]
    assert found["parameters"]["viscosity"]["range"] == (float(viscosity.min()), float(viscosity.max()))
    assert found["parameters"]["viscosity"]["distinct"] == {"test": 8} and found["equation"] == "burgers"


def test_a_file_of_ones_own(tmp_path):
    data = xr.Dataset(
        {"velocity": (("time", "y", "x"), np.ones((3, 4, 5)))},
        coords={"time": [0.0, 1.0, 2.0], "y": np.arange(4.0), "x": np.arange(5.0)},
    )
    data.to_netcdf(tmp_path / "run.nc", engine="h5netcdf")
    found = pdessl.data.inspect(tmp_path / "run.nc")
    assert [a["name"] for a in found["grid"]["axes"]] == ["y", "x"] and found["fields"]["velocity"]["mean"] == 1.0
    assert "not named" in str(found) and "netCDF file: 1 all file x 1, field velocity, 3x4x5" in str(found)
    data.drop_vars("x").to_netcdf(tmp_path / "no_x.nc", engine="h5netcdf")
    with pytest.raises(DataError, match="axis x: the coordinate is missing"):
        pdessl.data.inspect(tmp_path / "no_x.nc")


def test_smoke_in_one_line_with_its_faults(tmp_path):
    layouts.smoke_folder(tmp_path / "NavierStokes2D_cond")
    found = pdessl.data.inspect(tmp_path / "NavierStokes2D_cond")
    text = str(found)
    first = text.splitlines()[0]
    for words in (
        "2 train files x 3, 1 validation file x 3, 1 test file x 3",
        "fields u v s (stored as vx vy u), 5x8x8",
        "buoyancy 0.21-0.4711 (1 distinct value in test)",
    ):
        assert words in first
    assert "on the lower x faces of the cells" in text and "2 in train, 1 in validation, 1 in test" in text
    for fault in pdessl.data.formats.load_mapping("pdearena_smoke_conditioned")["faults"]:
        assert f"warning: {fault}" in text
    json.dumps(found.summary)


def test_ranges_are_those_of_the_values_and_spectra_tell_resolution(tmp_path):
    x = np.arange(64) * 2 * np.pi / 64
    smooth = np.sin(x) * np.ones((2, 3, 1))
    rough = np.where(x < 3, 1.0, -1.0) * np.ones((2, 3, 1))
    for name, values in (("smooth", smooth), ("rough", rough)):
        data = xr.Dataset(
            {"u": (("trajectory", "time", "x"), values)},
            coords={"time": [0.0, 1.0, 2.0], "x": x},
            attrs={"boundary": "periodic"},
        )
        data.to_netcdf(tmp_path / f"{name}.nc", engine="h5netcdf")
        found = pdessl.data.inspect(tmp_path / f"{name}.nc")
        assert found["fields"]["u"]["maximum"] == values.max()
        np.testing.assert_allclose(found["fields"]["u"]["rms"], np.sqrt((values**2).mean()))
        assert found["spectra"]["resolved"] == (name == "smooth")
        assert ("not resolved by the grid" in str(found)) == (name == "rough")


def test_ends_that_contradict_the_boundary_are_noticed(tmp_path):
    x = np.arange(64) / 64
    for name, values, boundary, words in (
        ("ramp", x * np.ones((1, 4, 1)), "periodic", "declared periodic, but the step across its ends is 63 times"),
        ("wave", np.sin(2 * np.pi * x) * np.ones((1, 4, 1)), "window", "Its ends meet like neighbours"),
    ):
        data = xr.Dataset({"u": (("run", "time", "x"), values)}, coords={"time": np.arange(4.0), "x": x})
        data.attrs["boundary"] = boundary
        data.to_netcdf(tmp_path / f"{name}.nc", engine="h5netcdf")
        warnings = pdessl.data.inspect(tmp_path / f"{name}.nc").warnings
        assert any(words in w for w in warnings), warnings


def test_values_that_are_not_finite_become_a_warning(tmp_path):
    values = np.ones((2, 3, 4))
    values[1, 2, 0] = np.inf
    data = xr.Dataset({"u": (("run", "time", "x"), values)}, coords={"time": np.arange(3.0), "x": np.arange(4.0)})
    data.to_netcdf(tmp_path / "run.nc", engine="h5netcdf")
    found = pdessl.data.inspect(tmp_path / "run.nc")
    assert any("field 'u' is not finite in trajectory 1" in w for w in found.warnings) and "not read" in str(found)


def test_the_statistics_that_the_well_ships(tmp_path):
    layouts.the_well(tmp_path / "toy" / "data" / "train" / "a.hdf5")
    (tmp_path / "toy" / "stats.yaml").write_text(
        "mean: {a: 1.5, velocity: [2.0, 3.0]}\nstd: {a: 0.5, D: [[1, 2], [3, 4]]}\n"
    )
    found = pdessl.data.inspect(tmp_path / "toy")
    assert found["statistics"]["mean"] == {"a": 1.5, "velocity_x": 2.0, "velocity_y": 3.0}
    assert found["statistics"]["std"] == {"a": 0.5, "D_xx": 1.0, "D_xy": 2.0, "D_yx": 3.0, "D_yy": 4.0}
    assert any("stats.yaml lacks rms, mean_delta" in w for w in found.warnings)


def test_what_is_no_data(tmp_path):
    with pytest.raises(FormatError, match="no file"):
        pdessl.data.inspect(tmp_path / "nothing.nc")
    (tmp_path / "text.nc").write_text("not HDF5")
    with pytest.raises(FormatError, match="not a netCDF-4/HDF5 file"):
        pdessl.data.inspect(tmp_path / "text.nc")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match=r"holds no data files .*files: \['\*.h5'\]"):
        pdessl.data.inspect(tmp_path / "empty")


def test_times_with_units_of_seconds_stay_numbers(tmp_path):
    data = xr.Dataset(
        {"u": (("trajectory", "time", "x"), np.ones((2, 3, 4)))},
        coords={"trajectory": [0, 1], "time": ("time", [0.0, 0.25, 0.5], {"units": "seconds"}), "x": np.arange(4.0)},
    )
    data.to_netcdf(tmp_path / "run.nc", engine="h5netcdf")
    assert pdessl.data.inspect(tmp_path / "run.nc")["grid"]["time"] == (0.0, 0.5)

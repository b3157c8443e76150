"""Files and datasets of one's own: what is accepted, and what is refused with its repair."""

from pathlib import Path

import h5py
import layouts
import numpy as np
import pytest
import torch
import xarray as xr
import yaml

import pdessl
from pdessl.data.formats import from_xarray, load_mapping, mapping_names, open_source
from pdessl.errors import DataError, FormatError, SchemaError


def runs(n=3, frames=5, points=8, order=("run", "t", "x"), **changes):
    values = layouts.numbers(n, frames, points)
    dims = ("run", "t", "x")
    data = xr.Dataset(
        {"u": (dims, values), "nu": ("run", np.linspace(0.1, 0.3, n))},
        coords={
            "t": ("t", 0.5 * np.arange(frames), {"units": "s"}),
            "x": ("x", 2.0 * np.arange(points), {"units": "m"}),
        },
    )
    data.u.attrs["units"] = "m/s"
    return data.transpose(*order).assign(**changes)


def test_the_call_of_the_manual():
    ds = runs().rename(run="trajectory")
    data = pdessl.from_xarray(ds, fields=["u"], time="t", space=["x"], parameters=["nu"], equation="burgers")
    assert np.array_equal(data.fields[:, 0], ds.u.values) and data.equation == "burgers"
    assert list(data.parameters) == ["viscosity"] and np.array_equal(data.parameters["viscosity"], ds.nu.values)
    assert np.array_equal(data.time[0], ds.t.values) and np.array_equal(data.space[0][1], ds.x.values)
    assert data.boundary == ("window",) and data.fields.dtype == torch.float64


@pytest.mark.parametrize("order", [("run", "t", "x"), ("x", "t", "run"), ("t", "x", "run")])
def test_axes_in_any_order_and_by_guess(order):
    ds = runs(order=order)
    data = from_xarray(ds, parameters=["nu"], boundary="periodic")
    assert np.array_equal(data.fields[:, 0], ds.u.transpose("run", "t", "x").values)
    assert data.boundary == ("periodic",) and (data.lengths == 16).all()


def test_one_run_with_a_scalar_an_attribute_and_a_number():
    ds = runs().isel(run=0).assign_attrs(kappa=0.7)
    data = from_xarray(ds, parameters={"nu": "nu", "kappa": {}, "g": 9.81})
    assert {n: float(v) for n, v in data.parameters.items()} == {"nu": 0.1, "kappa": 0.7, "g": 9.81}
    assert len(data) == 1


def test_missing_coordinates_are_given_by_keywords():
    ds = runs().drop_vars(["t", "x"])
    with pytest.raises(DataError, match=r"time: the coordinate is missing.*dt=0.1"):
        from_xarray(ds)
    with pytest.raises(DataError, match=r"axis x: the coordinate is missing.*dx=0.1.*length=1.0"):
        from_xarray(ds, dt=0.1)
    data = from_xarray(ds, dt=0.1, dx=0.25, boundary="periodic")
    np.testing.assert_allclose(data.time[0], 0.1 * np.arange(5))
    np.testing.assert_allclose(data.space[0][0], 0.25 * np.arange(8))
    assert (data.lengths == 2).all()
    data = from_xarray(ds, dt=0.1, length=4.0)
    np.testing.assert_allclose(data.space[0][0], 0.5 * np.arange(8))
    assert (data.lengths == 4).all()
    assert (from_xarray(runs(), length=16.0, boundary="wall").lengths == 16).all()
    with pytest.raises(DataError, match="2 values of dx for the axes x"):
        from_xarray(ds, dt=0.1, dx=[0.1, 0.2])


def test_irregular_time_is_refused_with_the_repair_and_round_off_accepted():
    ds = runs()
    jitter = ds.assign_coords(t=ds.t + np.array([0, 1e-4, 0, -1e-4, 0]))
    assert np.array_equal(from_xarray(jitter).time[0], jitter.t.values)
    with pytest.raises(
        DataError, match=r"time: the spacing is irregular, 0.5 to 0.8.*ds.interp\(t=np.linspace\(0, 2.3, 5\)\)"
    ):
        from_xarray(ds.assign_coords(t=[0, 0.5, 1, 1.5, 2.3]))
    with pytest.raises(DataError, match="does not increase"):
        from_xarray(ds.assign_coords(t=[0, 0.5, 0.4, 1.5, 2.0]))
    with pytest.raises(DataError, match="not finite"):
        from_xarray(ds.assign_coords(t=[0, 0.5, np.nan, 1.5, 2.0]))


def test_dates_become_seconds():
    ds = runs().assign_coords(t=np.datetime64("2026-01-01") + np.arange(5) * np.timedelta64(90, "s"))
    np.testing.assert_array_equal(from_xarray(ds).time[0], 90.0 * np.arange(5))


def test_nan_names_the_trajectory_or_drops_it():
    ds = runs()
    ds.u[1, 2, 3] = np.nan
    with pytest.raises(
        DataError, match=r"field 'u' is not finite in trajectory 1 of split 'all', frame 2.*missing: drop"
    ):
        from_xarray(ds)
    data = from_xarray(ds, missing="drop", parameters=["nu"])
    assert np.array_equal(data.fields[:, 0], ds.u.values[[0, 2]])
    assert np.array_equal(data.parameters["nu"], ds.nu.values[[0, 2]])


def test_dropping_every_trajectory_says_so():
    with pytest.raises(FormatError, match=r"no trajectories in 1 files. dataset: 3 of 3 .* are not finite"):
        from_xarray(runs() * np.nan, missing="drop")


def test_hdf5_without_names_of_dimensions_is_told_to_name_them(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["velocity"], file["t"] = layouts.numbers(3, 5, 8), np.arange(5.0)
    with pytest.raises(DataError, match=r"'velocity' \(3, 5, 8\) have no names.*dimensions: \[trajectory, time, x\]"):
        open_source(tmp_path / "a.h5", {"fields": {"u": "velocity"}})
    mapping = {"dimensions": ["trajectory", "time", "x"], "fields": {"u": "speed"}, "time": "t", "space": {"x": {}}}
    with pytest.raises(FormatError, match=r"no array 'speed'.*fields: {u: velocity}"):
        open_source(tmp_path / "a.h5", mapping)


def test_a_missing_file_is_no_missing_store(tmp_path):
    with pytest.raises(FormatError, match=r"no file or folder .*run.nc. Check the path"):
        pdessl.open(tmp_path / "run.nc")
    with pytest.raises(FormatError, match="an empty list of files"):
        pdessl.open([])


def test_a_whole_dataset_as_xarray_names_the_split_of_each_trajectory(tmp_path):
    for split, number in (("train", 3), ("test", 2)):
        runs(number).to_netcdf(tmp_path / f"runs_{split}.nc", engine="h5netcdf")
    source = open_source(tmp_path, {"parameters": {"nu": {}}})
    whole = source.to_xarray()
    assert whole.split.values.tolist() == ["train"] * 3 + ["test"] * 2 and whole.u.attrs["units"] == "m/s"
    assert whole.trajectory.values.tolist() == [0, 1, 2, 0, 1]
    for name in source.splits:
        part = whole.isel(trajectory=whole.split.values == name)
        assert part.drop_vars("split").identical(source.to_xarray(name))
    assert np.array_equal(pdessl.from_xarray(whole).fields[:, 0], whole.u.values)
    with pytest.raises(DataError, match=r"Name one of them:  to_xarray\('train'\)"):
        source.to_xarray(indices=[0])
    runs(2, points=9).to_netcdf(tmp_path / "runs_test.nc", engine="h5netcdf")
    with pytest.raises(DataError, match=r"its splits are .*9.*Name one of them"):
        open_source(tmp_path, {"parameters": {"nu": {}}}).to_xarray()


def test_more_than_fits_into_memory_is_refused_before_it_is_taken(tmp_path, monkeypatch):
    for number in range(2):
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            file.create_dataset("u", data=np.ones((40, 64, 2048)), compression="gzip", compression_opts=1)
    axes = {"time": {"step": 0.1}, "space": {"x": {"step": 1.0}}}
    source = open_source(tmp_path, {"dimensions": ["trajectory", "time", "x"], "fields": {"u": "u"}, **axes})
    monkeypatch.setattr("pdessl.data.memory.available_memory", lambda: 70 << 20)
    assert len(source.load("all", frames=slice(0, 1))) == 80
    with pytest.raises(DataError, match="reading 80 trajectories at once needs 80 MiB of memory, 70 MiB are"):
        source.load("all")


def test_extra_dimensions():
    ds = runs()
    assert np.array_equal(from_xarray(ds.expand_dims(level=[0.0])).fields[:, 0], ds.u.values)
    two = xr.concat([ds, ds + 1], "level")
    with pytest.raises(FormatError, match=r"'level' of size 2, and nothing says what.*select: {level: 0}"):
        from_xarray(two[["u"]])
    with pytest.raises(FormatError, match=r"'seed' of size 3.*If its entries are runs:  trajectory: seed"):
        from_xarray(ds.rename(run="seed"), space=["x"])
    with pytest.raises(FormatError, match=r"extra dimension 'level' of size 2. Choose one .*select: {level: 0}"):
        from_xarray(two[["u"]], space=["x"])
    assert np.array_equal(from_xarray(two[["u"]], select={"level": 1}).fields[:, 0], ds.u.values + 1)
    with pytest.raises(FormatError, match="has 2 entries along 'level', no number 2"):
        from_xarray(two[["u"]], select={"level": 2})


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"fields": ["v"]}, r"no variable 'v'.*It holds 'u' \('run', 't', 'x'\).*Map it:  fields: {v: u}"),
        ({"time": "tt"}, r"no variable with a time dimension 'tt'.*the time dimension: time="),
        ({"fields": ["u"], "time": "tt"}, r"none named 'tt'. Name the time dimension: time="),
        ({"space": ["y"]}, r"no axis 'y'.*Name the axes: space="),
        ({"parameters": ["mu"]}, r"no parameter 'mu', neither as a variable nor as an attribute"),
    ],
)
def test_what_is_missing_is_named(keywords, message):
    with pytest.raises(DataError, match=message):
        from_xarray(runs(), **keywords)


def test_one_name_needs_no_list_and_an_array_is_refused_with_the_repair():
    data = runs().rename({"u": "velocity"})
    assert pdessl.from_xarray(data, fields="velocity", time="t", space="x").field_names == ("velocity",)
    with pytest.raises(DataError, match=r"expected an xarray.Dataset, found ndarray. Make one:  xr.Dataset"):
        pdessl.from_xarray(np.zeros((3, 4, 5)))


def test_integers_are_refused_unless_conversion_is_declared():
    ds = runs()
    ds["u"] = (ds.u * 100).astype("i4")
    for named in (["u"], None):
        with pytest.raises(
            FormatError, match="holds int32, expected floating-point .* To convert .* integers: convert"
        ):
            from_xarray(ds, fields=named)
        data = from_xarray(ds, fields=named, dtype="float32")
        assert data.fields.dtype == torch.float32 and np.array_equal(data.fields[:, 0], ds.u.values)


def test_units_are_carried_and_converted_only_where_declared(tmp_path):
    runs().to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    source = open_source(tmp_path / "a.nc", {"fields": {"u": {}}, "parameters": {"nu": {}}})
    assert source.units == {"u": "m/s", "x": "m", "time": "s"}
    dataset = source.to_xarray("all")
    assert dataset.u.attrs["units"] == "m/s" and dataset.x.attrs["units"] == "m"
    source = open_source(tmp_path / "a.nc", {"fields": {"u": {"scale": 100.0, "unit": "cm/s"}}})
    assert np.array_equal(source.load("all").fields[:, 0], runs_values(tmp_path / "a.nc") * 100)
    assert source.to_xarray("all").u.attrs["units"] == "cm/s"


def runs_values(path):
    with xr.open_dataset(path, engine="h5netcdf", decode_times=False) as data:
        return data.u.values


def test_many_netcdf_files_one_run_each_with_a_mapping_file(tmp_path):
    written = []
    for i, split in enumerate(["train", "train", "test"]):
        ds = runs(1).isel(run=0).drop_vars("nu").assign_attrs(nu=0.1 * (i + 1)).rename(u="velocity")
        (tmp_path / split).mkdir(exist_ok=True)
        ds.to_netcdf(tmp_path / split / f"run_{i}.nc", engine="h5netcdf")
        written.append(ds.velocity.values)
    content = {
        "equation": "burgers",
        "fields": {"u": "velocity"},
        "time": {"dataset": "t"},
        "space": {"x": {"length": 16.0}},
        "boundary": {"x": "periodic"},
        "parameters": {"nu": {"attribute": "nu"}},
    }
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(content))
    source = open_source(tmp_path, tmp_path / "my.yaml")
    assert source.format == "my" and dict(source.splits) == {"train": 2, "test": 1}
    data = source.load("train")
    assert np.array_equal(data.fields[:, 0], np.stack(written[:2])) and (data.lengths == 16).all()
    np.testing.assert_allclose(data.parameters["viscosity"], [0.1, 0.2])
    assert source.groups("train").tolist() != source.groups("train")[::-1].tolist()
    listed = open_source(sorted(tmp_path.rglob("*.nc"))[:2], tmp_path / "my.yaml")
    assert len(listed) == 2


def test_netcdf_3_and_packed_values(tmp_path):
    ds = runs().rename(run="trajectory")
    ds.to_netcdf(tmp_path / "old.nc", engine="scipy")
    assert np.array_equal(open_source(tmp_path / "old.nc").load("all").fields[:, 0], ds.u.values)
    ds.u.encoding = {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -999}
    (ds.u.round() * 1.0).to_netcdf(tmp_path / "packed.nc", engine="h5netcdf")
    ds["u"] = ds.u.round()
    ds.to_netcdf(
        tmp_path / "packed.nc",
        engine="h5netcdf",
        encoding={"u": {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -999}},
    )
    assert np.array_equal(open_source(tmp_path / "packed.nc").load("all").fields[:, 0], ds.u.values)


def test_zarr(tmp_path):
    pytest.importorskip("zarr")
    ds = runs().rename(run="trajectory")
    ds.to_zarr(tmp_path / "a.zarr", consolidated=False)
    source = open_source(tmp_path / "a.zarr")
    assert source.format == "zarr" and np.array_equal(source.load("all").fields[:, 0], ds.u.values)
    piece = source.load("all", [2, 0], frames=slice(1, 4, 2), space=(slice(3, 6),))
    assert np.array_equal(piece.fields[:, 0], ds.u.values[[2, 0], 1:4:2, 3:6])


def test_zarr_without_its_package_says_how_to_install_it(tmp_path, monkeypatch):
    import sys

    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match=r"reading Zarr needs the package 'zarr': pip install 'pdessl\[zarr\]'"):
        open_source(tmp_path / "a.zarr")


def test_own_hdf5_by_a_mapping(tmp_path):
    values = layouts.numbers(8, 4, 5, 2, 1)  # x, run, time, component, level
    layouts.write(
        tmp_path / "own.h5", {"flow/field": values, "flow/times": 0.1 * np.arange(5), "flow/mu": np.arange(4.0)}
    )
    mapping = {
        "group": "flow",
        "dimensions": ["x", "trajectory", "time", "component", "level"],
        "fields": {"u": {"dataset": "field", "component": 0}, "h": {"dataset": "field", "component": 1}},
        "time": "times",
        "space": {"x": {"length": 2.0, "nodes": "centres"}},
        "parameters": {"mu": "mu"},
    }
    mapping["time"] = {"dataset": "times"}
    source = open_source(tmp_path / "own.h5", mapping)
    expected = np.transpose(values[..., 0], (1, 3, 2, 0))
    assert np.array_equal(source.load("all").fields, expected)
    assert np.array_equal(source.load("all", [2], frames=slice(3, 4), fields=["h"]).fields, expected[[2], 1:, 3:4])
    wrong = {**mapping, "dimensions": ["trajectory", "x", "time", "component", "level"]}
    with pytest.raises(FormatError, match="'flow/mu' is float64"):
        open_source(tmp_path / "own.h5", wrong)
    assert np.array_equal(
        open_source(tmp_path / "own.h5", {**mapping, "fields": {"h": {"dataset": "field", "component": -1}}})
        .load("all")
        .fields,
        expected[:, 1:],
    )
    with pytest.raises(FormatError, match="has 2 entries along 'component', no number 2"):
        open_source(tmp_path / "own.h5", {**mapping, "fields": {"u": {"dataset": "field", "component": 2}}})
    with pytest.raises(FormatError, match=r"has 5 dimensions .*the mapping names 3.*Name every axis"):
        open_source(tmp_path / "own.h5", {**mapping, "dimensions": ["trajectory", "x", "time"]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"feilds": {}}, "unknown key 'feilds'. Did you mean 'fields'"),
        ({"fields": {"u": {"data": "x"}}}, "fields.u: unknown key 'data'"),
        ({"boundary": {"x": "periodical"}}, "boundary.x: unknown 'periodical'. Did you mean 'periodic'"),
        ({"time": {"step": -1}}, "time.step: expected a number > 0"),
        ({"time": {"step": 1, "dataset": "t"}}, "give one of dataset, step"),
        ({"missing": "keep"}, "missing: expected 'refuse' or 'drop', found 'keep'"),
        ({"dimensions": ["x"], "fields": {}, "time": {}, "space": {}}, "no 'time' among"),
        ({"dimensions": ["time"], "fields": {}, "time": {}}, "missing key 'space'"),
        ({"fields": {"u": {"staggered": "z"}}, "space": {"x": {}}}, "staggered: no axis 'z'"),
        ({"fields": {"u": {"transform": "hopf"}}}, "fields.u.transform: expected 'cole_hopf', found 'hopf'"),
    ],
)
def test_a_wrong_mapping_names_the_key(content, message):
    with pytest.raises(SchemaError, match=message):
        load_mapping(content)


def test_files_that_differ_are_refused_together(tmp_path):
    mapping = {
        "dimensions": ["trajectory", "time", "x"],
        "fields": {"u": {}},
        "time": {"step": 1},
        "space": {"x": {"step": 1}},
    }
    layouts.write(tmp_path / "a.h5", {"u": layouts.numbers(2, 3, 4)})
    layouts.write(tmp_path / "b.h5", {"u": layouts.numbers(2, 3, 5)})
    with pytest.raises(FormatError, match=r"b.h5 has 5 nodes, .*a.h5 has 4. Open them apart, or resample one"):
        open_source(tmp_path, mapping)
    layouts.write(tmp_path / "c" / "a.h5", {"u": layouts.numbers(2, 3, 4)})
    layouts.write(tmp_path / "c" / "b.h5", {"u": layouts.numbers(2, 3, 4, dtype="<f4")})
    with pytest.raises(FormatError, match="has other value types"):
        open_source(tmp_path / "c", mapping)


def test_the_mapping_of_the_documentation_reads_the_file_it_describes(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    (tmp_path / "my.yaml").write_text(text.split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    values = layouts.numbers(2, 3, 8)
    layouts.write(tmp_path / "run.h5", {"velocity": values}, attributes={"nu": 0.2})
    data = open_source(tmp_path / "run.h5", tmp_path / "my.yaml").load("all")
    assert np.array_equal(data.fields[:, 0], values) and (data.lengths == 2).all() and data.boundary == ("periodic",)
    assert data.parameters["viscosity"].tolist() == [0.2, 0.2]
    assert {name for name in mapping_names() if f"`{name}`" not in text} <= {
        f"pdebench_compressible_{d}d" for d in (2, 3)
    }

"""Numbers that would be wrong without a word: units, runs, pieces, what nobody wrote, nodes stored twice, constants."""

import re

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
import yaml

import pdessl
from pdessl.cli import main
from pdessl.conventions import RUN_NAMES, repeated_nodes
from pdessl.data import convert, inspect
from pdessl.data.formats import from_xarray, open_source
from pdessl.data.inspection import verify
from pdessl.data.sampling import Draw
from pdessl.data.selection import Selection
from pdessl.data.windows import Crop, Windows
from pdessl.errors import DataError, FormatError
from pdessl.inference.format import InputFormat
from pdessl.inference.reading import RunReader
from pdessl.units import origin

T, X = 0.05 * np.arange(16), 2 * np.pi * np.arange(32) / 32
U = np.exp(-0.1 * T)[:, None] * np.sin(X[None] - T[:, None])


def run(values=U, time=T, space=X, units=("", "", ""), **attributes):
    return xr.Dataset(
        {"u": (("time", "x"), values, {"units": units[0]} if units[0] else {})},
        coords={
            "time": ("time", time, {"units": units[1]} if units[1] else {}),
            "x": ("x", space, {"units": units[2]} if units[2] else {}),
        },
        attrs=attributes,
    )


def write(folder, **runs):
    folder.mkdir(exist_ok=True)
    for name, dataset in runs.items():
        dataset.to_netcdf(folder / f"{name}.nc", engine="h5netcdf", encoding={"u": {"_FillValue": None}})
    return folder


def everything(source, split="all"):
    """What training reads."""
    windows = Windows([Selection.whole(source, [split])], Crop(frames=8))
    return windows[Draw(torch.arange(len(windows)))]


# ---------------------------------------------------------------------- units


def test_files_in_other_units_are_brought_to_those_of_the_first_on_every_path(tmp_path):
    folder = write(
        tmp_path / "units",
        a=run(units=("m/s", "s", "m")),
        b=run(100 * U, units=("cm/s", "s", "m")),
        c=run(time=1000 * T, space=100 * X, units=("m s-1", "ms", "cm")),
    )
    source = open_source(folder)
    assert source.units == {"u": "m/s", "time": "s", "x": "m"}
    data = source.load("all")
    for part in (data, everything(source), convert(source, tmp_path / "store", progress=False).load("all")):
        torch.testing.assert_close(part.fields, part.fields[:1].expand_as(part.fields))
        torch.testing.assert_close(part.time, part.time[:1].expand_as(part.time))
        torch.testing.assert_close(part.lengths, part.lengths[:1].expand_as(part.lengths))
    np.testing.assert_allclose(data.fields[1, 0], U)
    assert inspect(folder)["fields"]["u"]["maximum"] <= 1


def test_a_unit_of_the_mapping_is_the_one_that_is_read_and_a_scale_goes_before(tmp_path):
    folder = write(tmp_path / "units", a=run(units=("m/s", "s", "m")), b=run(100 * U, units=("cm/s", "s", "m")))
    source = open_source(folder, {"fields": {"u": {"unit": "mm/s"}}})
    np.testing.assert_allclose(source.load("all").fields[:, 0], 1000 * np.stack([U, U]))
    source = open_source(folder, {"fields": {"u": {"unit": "knots", "scale": 1.94384}}})
    np.testing.assert_allclose(source.load("all").fields[:, 0], 1.94384 * np.stack([U, U]))


def test_units_without_a_factor_are_refused_naming_both_files(tmp_path):
    folder = write(tmp_path / "units", a=run(units=("m/s", "", "")), b=run(units=("K", "", "")))
    with pytest.raises(FormatError, match=r"b.nc has u in 'K', .*a.nc in 'm/s'.*Write them in one unit"):
        open_source(folder)
    folder = write(tmp_path / "none", a=run(units=("m/s", "", "")), b=run())
    assert any("b.nc states no unit of u" in w for w in open_source(folder).warnings)


def test_days_and_hours_since_dates_are_one_time(tmp_path):
    folder = write(
        tmp_path / "dates",
        a=run(units=("", "days since 2000-01-01", "")),
        b=run(0.1 * U, time=24 * T, units=("", "hours since 2000-01-01 00:00:00", "")),
        c=run(0.2 * U, time=24 * T + 48, units=("", "hours since 1999-12-30", "")),
    )
    time = open_source(folder).load("all").time
    torch.testing.assert_close(time, torch.from_numpy(T).expand(3, -1))
    assert origin("days since 2000-1-1") == np.datetime64("2000-01-01") and origin("s") is None
    folder = write(
        tmp_path / "other", a=run(units=("", "days since start", "")), b=run(units=("", "days since 2000-01-01", ""))
    )
    with pytest.raises(FormatError, match="no factor leads"):
        open_source(folder)


# ---------------------------------------------------------------------- runs


@pytest.mark.parametrize("name", RUN_NAMES)
def test_names_of_runs_are_known_whatever_their_coordinate(name):
    stack = xr.concat([run(a * U) for a in (0.5, 1.0, 1.5)], pd.Index(range(3), name=name))
    data = from_xarray(stack)
    assert data.fields.shape == (3, 1, 16, 32) and data.axis_names == ("x",)


@pytest.mark.parametrize("name", ["channel", "variable", "expver", "level"])
def test_other_dimensions_are_refused_and_both_repairs_work(name):
    stack = xr.concat([run(a * U) for a in (0.5, 1.0, 1.5)], pd.Index(range(3), name=name))
    with pytest.raises(FormatError, match=rf"trajectory: {name}\. For one entry of it:  select: {{{name}: 0}}"):
        from_xarray(stack)
    assert len(from_xarray(stack, trajectory=name)) == 3
    np.testing.assert_allclose(from_xarray(stack, select={name: 1}).fields[0, 0], U)
    assert from_xarray(stack, space=[name, "x"]).axis_names == (name, "x")


def test_axes_are_known_by_name_or_by_what_their_coordinate_says():
    plane = xr.Dataset({"u": (("time", "north", "y_c"), np.ones((4, 5, 6)))}, coords={"time": range(4)})
    plane = plane.assign_coords(north=("north", np.arange(5.0), {"units": "km"}), y_c=np.arange(6.0))
    assert from_xarray(plane).axis_names == ("north", "y_c")


# ---------------------------------------------------------------------- pieces


def pieces(folder, sizes, start=0, overlap=0, values=None, names="piece{:02d}"):
    t = 0.05 * np.arange(sum(sizes))
    u = np.exp(-0.1 * t)[:, None] * np.sin(X[None] - 3 * t[:, None]) if values is None else values
    edges = np.cumsum([0, *sizes])
    written = {}
    for k, (a, b) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        first = max(0, a - overlap)
        written[names.format(k)] = run(u[first:b], time=start + t[first:b])
    write(folder, **written)
    return u, start + t


@pytest.mark.parametrize("overlap", [0, 2])
def test_pieces_of_one_simulation_are_one_run(tmp_path, overlap):
    u, t = pieces(tmp_path / "a", [10, 10, 4, 10], overlap=overlap, names="part{}")
    source = open_source(tmp_path / "a")
    assert dict(source.splits) == {"all": 1} and source.shape("all") == (1, 34, 32)
    np.testing.assert_array_equal(source.load("all").fields[0, 0], u)
    np.testing.assert_allclose(source.load("all").time[0], t)
    np.testing.assert_array_equal(source.load("all", frames=slice(1, 33, 7)).fields[0, 0], u[1:33:7])
    assert any("4 files hold consecutive pieces of 1 run" in w for w in inspect(tmp_path / "a").warnings)
    apart = open_source(tmp_path / "a", {"format": "labelled", "pieces": "separate"})
    assert len(apart) == 4 and sum(n * apart.shape(s)[1] for s, n in apart.splits.items()) == 34 + 3 * overlap


def test_two_simulations_in_pieces_are_two_runs_and_independent_runs_stay_apart(tmp_path):
    u, _ = pieces(tmp_path / "a", [6, 6, 6])
    v, _ = pieces(
        tmp_path / "a",
        [6, 6, 6],
        values=0.3 * np.cos(2 * X)[None] * np.exp(-0.05 * np.arange(18))[:, None],
        names="other{}",
    )
    found = open_source(tmp_path / "a").load("all").fields[:, 0].numpy()
    assert len(found) == 2
    np.testing.assert_allclose(sorted(f.std() for f in found), sorted([u.std(), v.std()]))
    # continuing times alone do not make pieces
    write(tmp_path / "b", a=run(U), b=run(-0.5 * U[:, ::-1], time=T[-1] + 0.05 + T))
    assert dict(open_source(tmp_path / "b").splits) == {"all": 2}


def test_pieces_in_different_splits_are_refused(tmp_path):
    pieces(tmp_path, [8, 8], names="run_{}")
    (tmp_path / "run_0.nc").rename(tmp_path / "run_train.nc")
    (tmp_path / "run_1.nc").rename(tmp_path / "run_test.nc")
    with pytest.raises(FormatError, match=r"run_test.nc \(split test\) continues .*run_train.nc.*pieces: separate"):
        open_source(tmp_path)
    assert dict(open_source(tmp_path, {"format": "labelled", "pieces": "separate"}).splits) == {"train": 1, "test": 1}


# ---------------------------------------------------------------------- values nobody wrote


@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_the_default_fill_of_netcdf_is_missing_without_an_attribute(tmp_path, kind):
    values = U.astype(kind)
    values[12:] = 9.969209968386869e36
    source = open_source(write(tmp_path / "a", a=run(values)))
    with pytest.raises(DataError, match=r"'u' is not finite in trajectory 0 .*frame 12.*missing: drop"):
        source.load("all")
    with pytest.raises(DataError, match="not finite"):
        Windows([Selection.whole(source, ["all"])])[Draw(torch.arange(1))]
    assert any("not finite" in w for w in inspect(tmp_path / "a").warnings)
    with pytest.raises(DataError, match="not finite"):
        from_xarray(run(values))
    with pytest.raises(DataError, match="not finite"):
        from_xarray(run()).replace(fields=torch.from_numpy(values)[None, None]).check_finite()


def mapped(tmp_path, **keys):
    content = {"dimensions": ["trajectory", "time", "x"], "fields": {"u": {}}, "time": {"step": 0.05}}
    return open_source(tmp_path, {**content, "space": {"x": {"step": 0.1}}, **keys})


@pytest.mark.parametrize("fill", [None, -999.0])
def test_chunks_of_hdf5_that_were_never_written_are_missing_and_zeros_that_were_are_kept(tmp_path, fill):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        array = file.create_dataset("u", (3, 16, 32), "f8", chunks=(1, 8, 32), fillvalue=fill)
        array[0], array[1], array[2, :8] = U, 0.0, U[:8]
    source = mapped(tmp_path / "a.h5")
    assert any("1 of 6 chunks of it were never written" in w for w in source.warnings)
    np.testing.assert_array_equal(source.load("all", [0, 1]).fields[:, 0], [U, 0 * U])
    for read in (
        lambda: source.load("all"),
        lambda: Windows([Selection.whole(source, ["all"])])[Draw(torch.arange(3))],
    ):
        with pytest.raises(DataError, match=r"trajectory 2 .*frame 8.*never written.*unwritten: fill"):
            read()
    assert len(mapped(tmp_path / "a.h5", missing="drop")) == 2
    if fill is None:
        assert (mapped(tmp_path / "a.h5", unwritten="fill").load("all").fields[2, 0, 8:] == 0).all()


def test_zarr_of_format_2_keeps_zeros_and_finds_chunks_that_are_not_there(tmp_path):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    values = np.stack([U, U - U[:, :1], U])
    for name, v, dims in (("u", values, ["run", "time", "x"]), ("time", T, ["time"]), ("x", X, ["x"])):
        chunks = (1, 8, 32) if v.ndim == 3 else v.shape
        array = group.create_array(name, shape=v.shape, dtype=v.dtype, chunks=chunks, fill_value=0.0)
        if name == "u":
            array[:2], array[2, :8] = v[:2], v[2, :8]
        else:
            array[...] = v
        array.attrs["_ARRAY_DIMENSIONS"] = dims
    source = open_source(tmp_path / "a.zarr")
    np.testing.assert_array_equal(source.load("all", [0, 1]).fields[:, 0], values[:2])
    with pytest.raises(DataError, match=r"trajectory 2 .*frame 8.*1 of 6 chunks.*unwritten: fill"):
        source.load("all")
    told = open_source(tmp_path / "a.zarr", {"format": "zarr", "unwritten": "fill"}).load("all")
    assert (told.fields[2, 0, 8:] == 0).all()


# ---------------------------------------------------------------------- nodes stored twice


@pytest.mark.parametrize("halo", [0, 1, 2, 3])
def test_end_nodes_and_halo_cells_of_periodic_axes_are_left_out(tmp_path, halo):
    nodes = np.arange(-halo, 32 + max(halo, 1)) * X[1]
    values = U[:, np.arange(-halo, 32 + max(halo, 1)) % 32]
    data = run(values, space=nodes, boundary="periodic")
    source = open_source(write(tmp_path / "a", a=data))
    assert any("left out" in w for w in source.warnings)
    for read in (source.load("all"), from_xarray(data), everything(source)):
        np.testing.assert_allclose(read.lengths, [[2 * np.pi]])
        np.testing.assert_allclose(read.space[0][0], X, atol=1e-12)
    np.testing.assert_allclose(source.load("all").fields[0, 0], U)
    np.testing.assert_allclose(source.load("all", space=[slice(3, 9, 2)]).fields[0, 0], U[:, 3:9:2])
    kept = open_source(tmp_path / "a", {"format": "netcdf", "space": {"x": {"end": "kept"}}})
    assert kept.shape("all")[-1] == len(nodes)
    trimmed, count = pdessl.Trajectories.from_xarray(data).without_repeated_nodes()
    assert count == {"x": max(2 * halo, 1)}
    np.testing.assert_allclose(trimmed.lengths, [[2 * np.pi]])


def test_prediction_reads_what_training_does():
    names = ("frames", "time step", "nodes along x", "spacing along x", "length of x")
    declared = InputFormat(("u",), ("x",), ("periodic",), needed=(1, 1), ranges=dict.fromkeys(names, (0.0, 1e9)))
    repeated = run(np.concatenate([U, U[:, :1]], axis=1), space=np.append(X, 2 * np.pi), boundary="periodic")
    reader = RunReader(repeated, declared)
    (piece,) = reader
    np.testing.assert_allclose(piece.runs.lengths, [[2 * np.pi]])
    np.testing.assert_array_equal(piece.runs.fields[0, 0], U)
    assert any("1 nodes at the end of x repeat others" in w for w in reader.warnings())
    unwritten = U.copy()
    unwritten[10:] = 9.969209968386869e36
    with pytest.raises(DataError, match="NaN or infinite values"):
        list(RunReader(run(unwritten), declared))
    (piece,) = RunReader(run(unwritten), declared, missing="drop")
    assert piece.runs.fields.shape[2] == 10


def test_fields_that_only_look_repeated_are_not():
    centres = X + X[1] / 2
    assert repeated_nodes(np.cos(centres)[None], 1) == 0  # mirrors itself
    assert repeated_nodes(np.cos(np.append(X, 2 * np.pi))[None], 1) == 1
    assert repeated_nodes(np.ones((3, 32)), 1) == 0
    assert repeated_nodes(np.random.default_rng(0).standard_normal((3, 32)), 1) == 0


# ---------------------------------------------------------------------- fields far from 0


def test_a_field_far_from_zero_against_its_deviation_is_told_and_the_repair_ends_that(tmp_path):
    far = run(101325 + 0.05 * U, boundary="periodic")
    told = [w for w in inspect(write(tmp_path / "a", a=far)).warnings if "Subtract a constant" in w]
    assert len(told) == 1
    near = repaired(far, told[0])
    assert not any("Subtract" in w for w in inspect(write(tmp_path / "b", a=near)).warnings)


# ---------------------------------------------------------------------- constants


def test_fixed_values_of_a_mapping_are_constants_also_of_a_converted_store(tmp_path):
    write(tmp_path / "a", a=run(nu=0.1), b=run(0.5 * U, nu=0.2))
    mapping = {"format": "labelled", "parameters": {"nu": {"attribute": "nu"}, "g": {"value": 9.81}}}
    source = open_source(tmp_path / "a", mapping)
    store = convert(source, tmp_path / "store", progress=False)
    for data in (source, store):
        assert dict(data.constants) == {"g": 9.81} and set(data.parameters) == {"nu", "g"}
    unlabelled = Windows([Selection.whole(source, ["all"])], labels=False)[Draw(torch.arange(2))]
    assert {n: v.tolist() for n, v in unlabelled.parameters.items()} == {"g": [9.81, 9.81]}


# ---------------------------------------------------------------------- repairs that repair


def repaired(dataset, error):
    """Apply the code that an error prints after its last two spaces."""
    code = str(getattr(error, "value", error)).split("  ")[-1]
    names = {"ds": dataset, "np": np, "pd": pd}
    return eval(code, {"__builtins__": {}}, names)  # noqa: S307  (the text of our own message)


MONTHS = np.array([f"2001-{m:02d}-01" for m in range(1, 13)], dtype="datetime64[ns]")
CASES = {
    "restart": (run(np.concatenate([U[:8], U[6:]]), time=np.concatenate([T[:8], T[6:]])), 16),
    "restart with round-off": (
        run(np.concatenate([U[:8], U[6:]]), time=np.concatenate([T[:8], T[6:] * (1 + 1e-12)])),
        16,
    ),
    "unsorted": (run(U[::-1], time=T[::-1]), 16),
    "months": (run(U[:12], time=MONTHS), 12),
    "irregular": (run(U, time=T**1.5), 16),
    "durations": (run(U[:4], time=np.array([0, 1, 3, 4], dtype="timedelta64[s]")), 4),
    "another name": (run(U, time=T**1.5).rename_vars(time="t").reset_coords().set_coords(["t", "x"]), 16),
}


@pytest.mark.parametrize("name", CASES)
def test_the_repair_of_a_time_axis_repairs_it(name):
    dataset, frames = CASES[name]
    how = {"fields": ["u"]} if name != "another name" else {"fields": ["u"], "time": "t"}
    with pytest.raises(DataError) as error:
        from_xarray(dataset, **how)
    found = from_xarray(repaired(dataset, error), **how)
    assert found.fields.shape[2] == frames
    if name in ("restart", "restart with round-off", "unsorted"):
        np.testing.assert_allclose(found.fields[0, 0], U)
        np.testing.assert_allclose(found.time[0], T, atol=1e-9)


def test_centres_and_faces_are_named_and_both_repairs_work():
    faces = np.arange(33) * X[1]
    both = xr.Dataset(
        {"c": (("time", "x_caa"), U), "u": (("time", "x_faa"), np.exp(-T)[:, None] * (faces[None] + 1))},
        coords={"time": T, "x_caa": X + X[1] / 2, "x_faa": faces},
    )
    with pytest.raises(FormatError, match=r"'u' lies on another grid than 'c': along 'x_faa' \(33 nodes\)") as error:
        from_xarray(both)
    assert "(fields=['c'])" in str(error.value)
    np.testing.assert_array_equal(from_xarray(both, fields=["c"]).fields[0, 0], U)
    data = from_xarray(repaired(both, error))
    np.testing.assert_allclose(data.fields[0, 1], np.exp(-T)[:, None] * (X + X[1] / 2 + 1))


def test_bounds_of_cells_are_no_fields(tmp_path):
    bounds = xr.Dataset(
        {"time_bnds": (("time", "bnds"), np.stack([T - 0.025, T + 0.025], 1)), "u": (("time", "x"), U)},
        coords={"time": ("time", T, {"bounds": "time_bnds"}), "x": X},
    )
    np.testing.assert_array_equal(from_xarray(bounds).fields[0, 0], U)
    np.testing.assert_array_equal(open_source(write(tmp_path / "a", a=bounds)).load("all").fields[0, 0], U)


def test_a_dimension_of_runs_of_an_array_is_named_as_the_message_says(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["u"] = np.stack([U, 2 * U])
    with pytest.raises(FormatError, match="If its entries are runs:  trajectory: lot"):
        mapped(tmp_path / "a.h5", dimensions=["lot", "time", "x"])
    told = mapped(tmp_path / "a.h5", dimensions=["lot", "time", "x"], trajectory="lot")
    np.testing.assert_array_equal(told.load("all").fields[:, 0], [U, 2 * U])


def test_what_is_missing_where_nothing_was_sampled_is_found_by_reading_all(tmp_path, capsys):
    stack = np.stack([np.float32(1 + 0.001 * k) * U for k in range(120)]).astype(np.float32)
    stack[77, 9:, 5] = 9.969209968386869e36
    stack[78, 3, 5] = np.nan
    xr.Dataset({"u": (("run", "time", "x"), stack)}, coords={"time": T, "x": X}).to_netcdf(
        tmp_path / "many.nc", engine="h5netcdf", encoding={"u": {"_FillValue": None}}
    )
    found = inspect(tmp_path / "many.nc")
    assert found["sampled"] < 120 and not found["whole"] and "--verify reads all" in str(found)
    with pytest.raises(DataError, match=r"not finite in trajectory 77 .*The first of 2 trajectories .* of 120"):
        verify(tmp_path / "many.nc")
    assert main(["inspect", str(tmp_path / "many.nc"), "--verify"]) == 2 and "trajectory 77" in capsys.readouterr().err
    for rows in ([77], [78]):
        with pytest.raises(DataError, match="not finite"):
            Windows([Selection.whole(open_source(tmp_path / "many.nc"), ["all"])])[Draw(torch.tensor(rows))]
    good = write(tmp_path / "good", a=run())
    assert "all values of 1 trajectories" in verify(good) and inspect(good)["whole"]
    dropped = {"format": "netcdf", "layout": "labelled", "missing": "drop"}
    assert "of 118 trajectories" in verify(tmp_path / "many.nc", dropped)


@pytest.mark.parametrize(
    ("units", "calendar"),
    [
        ("days since 2001-01-01", "noleap"),
        ("days since 2001-01-30", "360_day"),
        ("hours since 2001-01-01 00:00:00 +1:00", "standard"),
        ("months since 2001-01-01", "standard"),
        ("common_years since 2000-01-01", "all_leap"),
        ("seconds since 1970-01-01T00:00:00Z", "gregorian"),
        ("days since 0001-01-01", "proleptic_gregorian"),
        ("msec", ""),
    ],
)
def test_times_of_every_calendar_are_the_numbers_in_the_file(tmp_path, units, calendar):
    data = run(units=("", units, ""))
    if calendar:
        data.time.attrs["calendar"] = calendar
    source = open_source(write(tmp_path / "a", a=data))
    np.testing.assert_array_equal(source.load("all").time[0], T)
    assert source.units["time"] == units


def test_a_parameter_that_no_file_states_is_told_and_both_repairs_work(tmp_path):
    folder = write(tmp_path / "a", a=run(), b=run(0.5 * U[:, ::-1]))
    mapping = {"format": "labelled", "parameters": {"nu": {"attribute": "nu"}}}
    with pytest.raises(DataError, match="no parameter 'nu'.*if all runs share a value that you know") as error:
        open_source(folder, mapping)
    shared, none = map(yaml.safe_load, re.findall(r"parameters: (\{.*?\}+)[;.]", str(error.value)))
    source = open_source(folder, {**mapping, "parameters": shared})
    assert source.parameter_values("all")["nu"].tolist() == [0.01, 0.01] and dict(source.constants) == {"nu": 0.01}
    assert none == {} and not open_source(folder, {**mapping, "parameters": none}).parameters
